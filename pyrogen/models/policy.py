r"""Control as inference: a model of optimal trajectories, and policies, which are its guides.

Both are programs over recorded trajectories, all of whose steps are scored at once, in plates ``time`` and
``environments``. What the environment does is the same in both and cancels, so that neither says anything of it: a
guide that could choose the next state would find a posterior that hopes for luck, and not a policy.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrogen.distributions import TanhNormal
from pyrogen.distributions.tanh_normal import Squash
from pyrogen.errors import UsageError

__all__ = [
    "CategoricalPolicy",
    "OptimalTrajectories",
    "Policy",
    "SoftQPolicy",
    "TanhNormalPolicy",
    "UniformBox",
    "UniformChoice",
    "trajectory_plates",
]


@contextmanager
def trajectory_plates(observation: Tensor) -> Iterator[None]:
    """Open the plates of recorded steps: ``time``, dimension -2, and ``environments``, dimension -1.

    Args:
        observation: shape ``(time, environments, ...)``.

    Example:
        >>> with trajectory_plates(torch.zeros(5, 3)):
        ...     pyro.sample("action", dist.Bernoulli(0.5)).shape
        torch.Size([5, 3])
    """
    if observation.dim() < 2:
        raise UsageError(
            f"observation has shape {tuple(observation.shape)}, expected (time, environments, ...): one that is to be "
            f"acted on has a first dimension of size 1"
        )
    time, environments = observation.shape[:2]
    with pyro.plate("time", time, dim=-2), pyro.plate("environments", environments, dim=-1):
        yield


class Policy(PyroModule):
    r"""A distribution over actions given observations, and a guide: draws ``action`` at each step of a trajectory.

    .. math:: q(\tau) = p(s_0) \prod_t q(a_t \mid s_t) \, p(s_{t+1} \mid s_t, a_t)

    of which the program has the factors that can be learned. A policy may have a method ``act`` as well, which draws
    from the distribution without making it, for environments where time counts; if by noise that lasts for some steps,
    ``keeps_noise`` says so.
    """

    def distribution(self, observation: Tensor) -> TorchDistribution:
        """Return the distribution of actions; its batch shape is, or expands to, ``(time, environments)``."""
        raise NotImplementedError  # a PyroModule cannot be an ABC

    def forward(self, observation: Tensor, **recorded: Any) -> Tensor:
        """Draw actions for observations of shape ``(time, environments, ...)``; what else was recorded is not read."""
        with trajectory_plates(observation):
            return pyro.sample("action", self.distribution(observation))


class CategoricalPolicy(Policy):
    r"""One of several actions, by the softmax of a network's outputs.

    Args:
        network: from observations of shape ``(*batch, ...)`` to logits of shape ``(*batch, num_actions)``; an
            ``nn.Embedding`` where observations are whole numbers.

    Example:
        >>> CategoricalPolicy(nn.Embedding(4, 2))(torch.zeros(5, 3, dtype=torch.long)).shape
        torch.Size([5, 3])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def distribution(self, observation: Tensor) -> TorchDistribution:
        return dist.Categorical(logits=self.network(observation))

    def act(self, observation: Tensor) -> Tensor:
        r"""Draw from the distribution: the largest of :math:`\log q(a \mid s) - \log E_a`, exponential :math:`E`."""
        logits = self.network(observation)
        return (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)


class SoftQPolicy(Policy):
    r"""The policy that action values make of a prior: what :class:`~pyrogen.inference.SoftQ` learns.

    .. math:: q(a \mid s) = p(a \mid s) \, e^{Q(s, a) - V(s)}, \quad V(s) = \log \sum_a p(a \mid s) \, e^{Q(s, a)}

    Args:
        prior: :math:`p(a \mid s)`, a policy of choices: the model's.
        network: :math:`Q` in nats, from observations of shape ``(*batch, ...)`` to ``(*batch, num_actions)``; an
            ``nn.Embedding`` where observations are whole numbers.

    Raises:
        UsageError: where the prior's distribution is no ``Categorical``, when it is called.

    Example:
        >>> network = nn.Embedding.from_pretrained(torch.tensor([[0.0, 1.0]]))
        >>> SoftQPolicy(UniformChoice(2), network).distribution(torch.tensor([0])).probs
        tensor([[0.2689, 0.7311]])
    """

    def __init__(self, prior: Policy, network: nn.Module) -> None:
        super().__init__()
        self.prior = prior
        self.network = network

    def distribution(self, observation: Tensor) -> TorchDistribution:
        prior = self.prior.distribution(observation)
        if not isinstance(prior, dist.Categorical):
            raise UsageError(
                f"the prior's distribution is {type(prior).__name__}, expected a Categorical: a policy of action "
                f"values needs all actions at once"
            )
        return dist.Categorical(logits=prior.logits + self.network(observation))


class TanhNormalPolicy(Policy):
    r"""Actions in a box, each coordinate the hyperbolic tangent of a normal variable.

    .. math::
        a = \tanh(\mu(s) + \sigma(s) \, \epsilon), \quad \epsilon \sim \mathcal{N}(0, I), \quad
        \log \sigma = -5 + \tfrac{7}{2} (1 + \tanh b(s))

    Actions lie in :math:`(-1, 1)`; an environment with other bounds scales them itself.

    Args:
        network: from observations of shape ``(*batch, ...)`` to ``(*batch, 2 * num_dims)``: :math:`\mu` and :math:`b`.

    Example:
        >>> TanhNormalPolicy(nn.Linear(4, 2 * 3))(torch.zeros(5, 2, 4)).shape
        torch.Size([5, 2, 3])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def distribution(self, observation: Tensor) -> TorchDistribution:
        return TanhNormal(*self._normal(observation)).to_event(1)

    def act(self, observation: Tensor) -> Tensor:
        """Draw from the distribution."""
        loc, scale = self._normal(observation)
        return Squash()(loc + scale * torch.randn_like(loc))

    def _normal(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.network(observation)
        if outputs.shape[-1] % 2:
            raise UsageError(
                f"the network has {outputs.shape[-1]} outputs, expected an even number: a location and a scale for "
                f"each coordinate of an action"
            )
        loc, raw_scale = outputs.chunk(2, -1)
        return loc, (-5 + 3.5 * (1 + raw_scale.tanh())).exp()


class UniformChoice(Policy):
    """Any of several actions with the same probability.

    Args:
        num_actions: how many there are.

    Example:
        >>> UniformChoice(4).distribution(torch.zeros(5, 3)).probs
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    def __init__(self, num_actions: int) -> None:
        super().__init__()
        if num_actions < 1:
            raise UsageError(f"num_actions must be at least 1, found {num_actions}")
        self.num_actions = num_actions

    def distribution(self, observation: Tensor) -> TorchDistribution:
        return dist.Categorical(logits=torch.zeros(self.num_actions, device=observation.device))


class UniformBox(Policy):
    """Any action in the box from -1 to 1, with the same density.

    Args:
        num_dims: the number of coordinates of an action.

    Example:
        >>> UniformBox(2).distribution(torch.zeros(5, 3)).log_prob(torch.zeros(2)).exp()
        tensor(0.2500)
    """

    def __init__(self, num_dims: int) -> None:
        super().__init__()
        if num_dims < 1:
            raise UsageError(f"num_dims must be at least 1, found {num_dims}")
        self.num_dims = num_dims

    def distribution(self, observation: Tensor) -> TorchDistribution:
        dtype = observation.dtype if observation.is_floating_point() else torch.get_default_dtype()
        end = torch.ones(self.num_dims, dtype=dtype, device=observation.device)
        return dist.Uniform(-end, end).to_event(1)


class OptimalTrajectories(PyroModule):
    r"""The model: trajectories of a prior policy, each of whose steps is optimal with a probability that grows with
    its reward.

    .. math::
        p(\tau, \text{optimal}) \propto p(s_0) \prod_t p(a_t \mid s_t) \, e^{r_t / \alpha} \, p(s_{t+1} \mid s_t, a_t)

    Sites: ``action`` and the factor ``optimality``, in plates ``time`` and ``environments``.

    Args:
        prior: :math:`p(a \mid s)`, a policy; it learns with the guide, unless its parameters are frozen.
        temperature: :math:`\alpha`, in the unit of rewards.

    References:
        Reinforcement Learning and Control as Probabilistic Inference (Levine, 2018), https://arxiv.org/abs/1805.00909

    Example:
        >>> model = OptimalTrajectories(UniformChoice(2), temperature=0.1)
        >>> model(torch.zeros(5, 3), reward=torch.ones(5, 3)).shape
        torch.Size([5, 3])
    """

    def __init__(self, prior: Policy, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise UsageError(f"temperature must be above 0, found {temperature}")
        self.prior = prior
        self.temperature = temperature

    def forward(self, observation: Tensor, reward: Tensor | None = None, **recorded: Any) -> Tensor:
        """Score recorded steps, shapes ``(time, environments, ...)``; without rewards, draw actions of the prior."""
        with trajectory_plates(observation):
            action = pyro.sample("action", self.prior.distribution(observation))
            if reward is not None:
                pyro.factor("optimality", reward / self.temperature)
            return action
