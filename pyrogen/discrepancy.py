"""How far apart two samples are, without a density of either: kernels, energies, projections."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pyrogen.errors import ProgramError

__all__ = [
    "RBF",
    "Kernel",
    "RationalQuadratic",
    "distances",
    "energy_distance",
    "mmd2",
    "sliced_wasserstein2",
    "squared_distances",
    "squared_median",
]


class Kernel:
    """A sum of positive definite functions of squared distances, one a bandwidth.

    Args:
        bandwidths: in the units of the data; ``None`` for the median distance between data of the batch.
    """

    def __init__(self, bandwidths: Sequence[float] | None = None) -> None:
        if bandwidths is not None and not (bandwidths and all(width > 0 for width in bandwidths)):
            raise ValueError(f"bandwidths must be positive numbers, at least one, found {bandwidths}")
        self.bandwidths = None if bandwidths is None else tuple(bandwidths)

    def of(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the kernel as a function of squared distances; where the bandwidth is the median's, that of ``x``."""
        squares = [squared_median(x)] if self.bandwidths is None else [width**2 for width in self.bandwidths]
        return lambda squared: torch.stack([self.at(squared / square) for square in squares]).sum(0)

    @staticmethod
    def at(squared: Tensor) -> Tensor:
        """Return the function at squared distances in units of the bandwidth."""
        raise NotImplementedError


class RBF(Kernel):
    r""":math:`k(x, y) = \sum_\ell \exp\left(-\lVert x - y \rVert^2 / 2 \ell^2\right)`."""

    @staticmethod
    def at(squared: Tensor) -> Tensor:
        return torch.exp(-squared / 2)


class RationalQuadratic(Kernel):
    r""":math:`k(x, y) = \sum_\ell \left(1 + \lVert x - y \rVert^2 / 2 \ell^2\right)^{-1}`, with heavier tails."""

    @staticmethod
    def at(squared: Tensor) -> Tensor:
        # Not as a quotient: from that, Inductor of torch 2.13 makes wrong gradients (a graph that is then refused).
        return torch.exp(-torch.log1p(squared / 2))


def mmd2(x: Tensor, y: Tensor, kernel: Kernel, unbiased: bool = True) -> Tensor:
    """Estimate the squared maximum mean discrepancy of two samples.

    Args:
        x: one sample, shape ``(m, features)``; the median heuristic looks at it alone.
        y: the other, shape ``(n, features)``.
        kernel: see :class:`~pyrogen.inference.MMD`.
        unbiased: see :class:`~pyrogen.inference.MMD`.

    Raises:
        ProgramError: where a sample of one has no pairs.
    """
    _check_pairs(x, y, unbiased)
    at = kernel.of(x)
    within = [at(squared_distances(s, s)) for s in (x, y)]
    between = at(squared_distances(x, y)).mean()
    return _mean_of_pairs(within[0], unbiased) - 2 * between + _mean_of_pairs(within[1], unbiased)


def _check_pairs(x: Tensor, y: Tensor, unbiased: bool) -> None:
    if unbiased and min(len(x), len(y)) < 2:
        raise ProgramError(f"an unbiased estimate needs at least 2 data in a batch, found {min(len(x), len(y))}")


def _mean_of_pairs(values: Tensor, unbiased: bool) -> Tensor:
    """Average a square matrix, without its diagonal if the estimate is to be unbiased."""
    if not unbiased:
        return values.mean()
    count = len(values)
    return (values.sum() - values.diagonal().sum()) / (count * (count - 1))


def energy_distance(x: Tensor, y: Tensor, beta: float = 1.0, unbiased: bool = True) -> Tensor:
    """Estimate the energy distance of two samples of shapes ``(m, features)`` and ``(n, features)``."""
    _check_pairs(x, y, unbiased)
    between, *within = (distances(a, b) ** beta for a, b in ((x, y), (x, x), (y, y)))
    return 2 * between.mean() - _mean_of_pairs(within[0], unbiased) - _mean_of_pairs(within[1], unbiased)


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Return all distances, shape ``(m, n)``, accurate and differentiable at zero, where they are the least number."""
    # A difference of squares would lose the small distances; at zero, powers below one have no gradient.
    found = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return found.clamp(min=torch.finfo(found.dtype).tiny)


def sliced_wasserstein2(x: Tensor, y: Tensor, num_projections: int = 128) -> Tensor:
    """Estimate the squared sliced distance of two samples of one shape ``(n, features)``."""
    directions = normalize(torch.randn(x.shape[1], num_projections, dtype=x.dtype, device=x.device), dim=0)
    return ((x @ directions).sort(0).values - (y @ directions).sort(0).values).square().mean()


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return all squared distances, shape ``(m, n)``."""
    products = x @ y.T
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * products).clamp(min=0)


def squared_median(x: Tensor) -> Tensor:
    """Return the squared median distance between the rows of a sample, which no gradient passes through."""
    with torch.no_grad():
        squared = squared_distances(x, x)
        rows, columns = torch.triu_indices(len(x), len(x), 1, device=x.device)
        pairs = squared[rows, columns] if len(x) > 1 else squared.new_ones(1)
        return pairs.median().clamp(min=torch.finfo(x.dtype).tiny)
