"""Model predictive path integrals: plans by importance weights."""

import torch
from torch import Tensor

from pyrogen.errors import UsageError
from pyrogen.models.planner import Planner
from pyrogen.models.policy import Policy, UniformBox
from pyrogen.world import World

__all__ = ["MPPI"]


class MPPI(Planner):
    r"""Model predictive path integrals: the posterior mean of plans, by importance weights.

    .. math::
        m \leftarrow \frac{\sum_k w_k u_k}{\sum_k w_k}, \quad
        \log w = \sum_t \frac{r_t}{\alpha} + \log p(a_t \mid s_t) - \log q(a_t)

    with :math:`\sigma` as it is. Whatever the proposal, it comes to the posterior mean as samples grow in number; with
    a proposal that is near, few will do. Where the temperature is low, one plan may have all of the weight.

    Args:
        world: what a step brings, a :data:`~pyrogen.world.World`.
        num_dims: the number of coordinates of an action.
        temperature: :math:`\alpha`, in the unit of rewards.
        prior: :math:`p(a \mid s)`, a policy; any action in the box if not given.
        horizon: :math:`H`, how many steps a plan has.
        num_samples: how many plans are drawn.
        num_iterations: how often the proposal is fitted, before an action.
        num_futures: how often each plan is tried out.
        num_environments: for how many environments it plans, each by itself.
        scale: :math:`\sigma`, of :math:`u`.
        bounded: whether actions lie in :math:`(-1, 1)`.

    Raises:
        UsageError: where a setting is out of range, actions are unbounded and there is no prior, or it is called with
            another number of environments.
        ProgramError: where the world returns rewards of another shape, or the plan is not finite:
            where none has a finite return.

    References:
        Information Theoretic Model Predictive Control: Theory and Applications to Autonomous Driving (Williams et al.,
        2017), https://arxiv.org/abs/1707.02342

        Reinforcement Learning and Control as Probabilistic Inference (Levine, 2018), https://arxiv.org/abs/1805.00909

    Example:
        >>> def world(position, move):
        ...     return position + move, -(position + move).square().sum(-1)
        >>> planner = MPPI(world, 1, temperature=0.1, horizon=2, num_environments=2)
        >>> planner(torch.tensor([[[0.5], [-0.5]]])).sign()
        tensor([[[-1.],
                 [ 1.]]])
    """

    def __init__(
        self,
        world: World,
        num_dims: int,
        *,
        temperature: float = 1.0,
        prior: Policy | None = None,
        horizon: int = 20,
        num_samples: int = 500,
        num_iterations: int = 1,
        num_futures: int = 1,
        num_environments: int = 1,
        scale: float = 1.0,
        bounded: bool = True,
    ) -> None:
        super().__init__(
            world, num_dims, horizon=horizon, num_samples=num_samples, num_iterations=num_iterations,
            num_futures=num_futures, num_environments=num_environments, scale=scale, bounded=bounded,
        )  # fmt: skip
        if not temperature > 0:
            raise UsageError(f"temperature must be above 0, found {temperature}")
        if prior is None and not bounded:
            raise UsageError("actions without bounds need a prior: no distribution is uniform over all numbers")
        self.temperature = temperature
        self.prior = UniformBox(num_dims) if prior is None else prior

    def fitted(self, observation: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        q = self.proposal(loc, scale)
        a = q.sample((self.num_samples,))
        returns, log_p = self.imagined(observation, a, self.prior)
        w = (returns / self.temperature + log_p - q.log_prob(a).sum(1)).softmax(0)
        return torch.einsum("ke,khed->hed", w, self.coordinates(a)), scale
