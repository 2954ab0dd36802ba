"""A normal distribution squashed into an interval."""

from math import atanh, log, log2
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.transforms import TanhTransform

__all__ = ["TanhNormal"]


class Squash(TanhTransform):
    """The hyperbolic tangent, cut off where rounding would hide what it was taken of."""

    def _call(self, x: Tensor) -> Tensor:
        return _inside(x.tanh())

    def _inverse(self, y: Tensor) -> Tensor:
        return _inside(y).atanh()


def _margin(dtype: torch.dtype) -> float:
    """Return the power of two next to the root of a type's precision."""
    return 2.0 ** round(log2(torch.finfo(dtype).eps) / 2)


def _inside(y: Tensor) -> Tensor:
    end = 1 - _margin(y.dtype)
    return y.clamp(-end, end)


class TanhNormal(dist.TransformedDistribution):
    r"""The hyperbolic tangent of a normal variable: actions that are bounded.

    .. math::
        a = \tanh u, \quad u \sim \mathcal{N}(\mu, \sigma^2), \qquad
        \log p(a) = \log \mathcal{N}(u; \mu, \sigma^2) - \log(1 - \tanh^2 u)

    where :math:`\log(1 - \tanh^2 u) = 2 \left(\log 2 - u - \operatorname{softplus}(-2 u)\right)` does not cancel.
    Nearer to an end than a margin :math:`\delta`, of :math:`2^{-12}` in single precision and :math:`2^{-26}` in double,
    actions are rounded too much to tell :math:`u`. There all are one, :math:`\pm (1 - \delta)`, with the density that
    is even over what it stands for,

    .. math:: \log p(\pm(1 - \delta)) = \log P(\pm u \ge \tanh^{-1}(1 - \delta)) - \log \delta

    so that the density integrates to one, scores of draws have the mean zero however far out :math:`\mu` is, and an
    action that was recorded has the density that it was drawn with.

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
        super().__init__(dist.Normal(loc, scale), [Squash()], validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the logarithm of the density, in nats."""
        margin = _margin(value.dtype)
        is_end = value.abs() >= 1 - margin
        beyond = (value.sign() * self.base_dist.loc - atanh(1 - margin)) / self.base_dist.scale
        at_end = torch.special.log_ndtr(torch.where(is_end, beyond, 0.0)) - log(margin)
        return torch.where(is_end, at_end, super().log_prob(value))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "TanhNormal":
        """Return the distribution of more independent draws."""
        return super().expand(batch_shape, _instance=self._get_checked_instance(TanhNormal, _instance))

    @property
    def mode(self) -> Tensor:
        r"""Return :math:`\tanh \mu`: what a policy does that leaves nothing to chance, not where the density peaks."""
        return _inside(self.base_dist.mean.tanh())
