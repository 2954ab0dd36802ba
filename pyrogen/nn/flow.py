"""Normalizing flows of zuko, which turns the validation of all distributions off when it is imported."""

from torch.distributions import Distribution

_validate_args = Distribution._validate_args

from zuko.flows import NSF  # noqa: E402
from zuko.lazy import LazyDistribution  # noqa: E402

Distribution.set_default_validate_args(_validate_args)

__all__ = ["LazyDistribution", "spline_flow"]


def spline_flow(features: int, transforms: int = 3, hidden: tuple[int, ...] = (64, 64)) -> LazyDistribution:
    """Make a neural spline flow over vectors; calling it gives a torch distribution.

    Args:
        features: the length of a vector.
        transforms: how many autoregressive layers.
        hidden: widths of the hidden layers of each.

    References:
        Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032

    Example:
        >>> spline_flow(3)().sample((5,)).shape
        torch.Size([5, 3])
    """
    return NSF(features, transforms=transforms, hidden_features=hidden)
