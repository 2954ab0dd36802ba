"""A normal distribution squashed into an interval."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.transforms import TanhTransform

__all__ = ["TanhNormal"]


class Squash(TanhTransform):
    """The hyperbolic tangent, whose values stay within the open interval however they are rounded.

    At the ends themselves nothing can be inverted, and densities of other distributions may be zero.
    """

    def _call(self, x: Tensor) -> Tensor:
        return _inside(x.tanh())

    def _inverse(self, y: Tensor) -> Tensor:
        return _inside(y).atanh()


def _inside(y: Tensor) -> Tensor:
    end = 1 - torch.finfo(y.dtype).eps
    return y.clamp(-end, end)


class TanhNormal(dist.TransformedDistribution):
    r"""The hyperbolic tangent of a normal variable: actions that are bounded.

    .. math::
        a = \tanh u, \quad u \sim \mathcal{N}(\mu, \sigma^2), \qquad
        \log p(a) = \log \mathcal{N}(u; \mu, \sigma^2) - \log(1 - \tanh^2 u)

    where :math:`\log(1 - \tanh^2 u) = 2 \left(\log 2 - u - \operatorname{softplus}(-2 u)\right)` does not cancel. The
    density of a draw is taken at the :math:`u` that it was made of; that of any other value at :math:`\tanh^{-1} a`,
    which rounding moves where :math:`a` is near an end: by :math:`10^{-3}` at :math:`u = 5` in single precision.

    Args:
        loc: :math:`\mu`.
        scale: :math:`\sigma`.

    References:
        Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning with a Stochastic Actor (Haarnoja et
        al., 2018), appendix C, https://arxiv.org/abs/1801.01290

    Example:
        >>> policy = TanhNormal(torch.zeros(3), 1.0).to_event(1)
        >>> bool((policy.sample((1000,)).abs() < 1).all())
        True
        >>> TanhNormal(torch.tensor(0.5), 1.0).mode
        tensor(0.4621)
    """

    def __init__(self, loc: Tensor, scale: Tensor | float, validate_args: bool | None = None) -> None:
        super().__init__(dist.Normal(loc, scale), [Squash(cache_size=1)], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "TanhNormal":
        """Return the distribution of more independent draws."""
        return super().expand(batch_shape, _instance=self._get_checked_instance(TanhNormal, _instance))

    @property
    def mode(self) -> Tensor:
        r"""Return :math:`\tanh \mu`: what a policy does that leaves nothing to chance, not where the density peaks."""
        return _inside(self.base_dist.mean.tanh())
