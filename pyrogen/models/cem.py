"""The cross-entropy method: plans by those that did best."""

import torch
from torch import Tensor

from pyrogen.errors import UsageError
from pyrogen.models.planner import Planner
from pyrogen.world import World

__all__ = ["CEM"]


class CEM(Planner):
    r"""The cross-entropy method: mean and deviation of the best plans.

    .. math::
        m \leftarrow \frac{1}{|E|} \sum_{k \in E} u_k, \quad
        \sigma \leftarrow \max\left(\sigma_{\min}, \sqrt{\frac{1}{|E|} \sum_{k \in E} (u_k - m)^2}\right)

    where :math:`E` are the plans with the largest returns. As inference, each iteration's proposal is the next one's
    prior, so that :math:`p / q = 1`, and to be optimal is to be among so many: the likelihood is 1 above a quantile of
    the returns and 0 below. The fraction takes the place of a temperature, and goes with the returns that there are,
    in whatever unit.

    Without a least deviation none is left where the best action is the last within bounds.

    Args:
        world: what a step brings, a :data:`~pyrogen.world.World`.
        num_dims: the number of coordinates of an action.
        elite_fraction: :math:`|E|` as a fraction of the samples.
        horizon: :math:`H`, how many steps a plan has.
        num_samples: how many plans are drawn.
        num_iterations: how often the proposal is fitted, before an action.
        num_futures: how often each plan is tried out.
        num_environments: for how many environments it plans, each by itself.
        scale: :math:`\sigma` of the first proposal, of :math:`u`.
        min_scale: :math:`\sigma_{\min}`.
        bounded: whether actions lie in :math:`(-1, 1)`.

    Raises:
        UsageError: where a setting is out of range, or it is called with another number of environments.
        ProgramError: where the world returns rewards of another shape, or not all plans in
            :math:`E` have a finite return.

    References:
        The Cross-Entropy Method (Rubinstein and Kroese, 2004), https://doi.org/10.1007/978-1-4757-4321-0

    Example:
        >>> def world(position, move):
        ...     return position + move, -(position + move).square().sum(-1)
        >>> planner = CEM(world, 1, num_environments=2)
        >>> planner(torch.tensor([[[0.5], [-0.5]]])).sign()
        tensor([[[-1.],
                 [ 1.]]])
    """

    def __init__(
        self,
        world: World,
        num_dims: int,
        *,
        elite_fraction: float = 0.1,
        horizon: int = 20,
        num_samples: int = 500,
        num_iterations: int = 4,
        num_futures: int = 1,
        num_environments: int = 1,
        scale: float = 1.0,
        min_scale: float = 0.05,
        bounded: bool = True,
    ) -> None:
        super().__init__(
            world, num_dims, horizon=horizon, num_samples=num_samples, num_iterations=num_iterations,
            num_futures=num_futures, num_environments=num_environments, scale=scale, bounded=bounded,
        )  # fmt: skip
        if not 0 < min_scale <= scale:
            raise UsageError(f"min_scale must be above 0 and at most scale={scale}, found {min_scale}")
        self.min_scale = min_scale
        self.num_elites = round(elite_fraction * num_samples)
        if not 2 <= self.num_elites < num_samples:
            raise UsageError(
                f"elite_fraction={elite_fraction} of {num_samples} plans are {self.num_elites}, expected from 2 to "
                f"{num_samples - 1}: their deviation is what the next plans are drawn with"
            )

    def fitted(self, observation: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        a = self.proposal(loc, scale).sample((self.num_samples,))
        returns, _ = self.imagined(observation, a)
        best = returns.topk(self.num_elites, dim=0)
        u = self.coordinates(a).gather(0, best.indices[:, None, :, None].expand(-1, *loc.shape))
        is_known = best.values.isfinite().all(0)[:, None]
        return torch.where(is_known, u.mean(0), torch.nan), u.std(0, correction=0).clamp(min=self.min_scale)
