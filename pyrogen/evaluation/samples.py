"""How far a model's draws are from data, without a density."""

import torch
from torch import Tensor

from pyrogen.discrepancy import distances
from pyrogen.errors import UsageError
from pyrogen.evaluation.checks import BLOCK, check_neighbours, neighbourhoods, rows, to_neighbour
from pyrogen.evaluation.estimate import Estimate

__all__ = ["coverage", "density", "energy_distance", "spacing"]


def energy_distance(real: Tensor, fake: Tensor, unit: str = "energy") -> Estimate:
    r"""Estimate the energy distance of data and draws, unbiased: 0 where the distributions are equal, or just below.

    .. math:: 2 \, \mathbb{E} \lVert x - y \rVert - \mathbb{E} \lVert x - x' \rVert - \mathbb{E} \lVert y - y' \rVert

    The standard error is that of the estimate's first-order projection, which vanishes where the distributions are
    equal: it is then too small.

    Args:
        real: shape ``(m, ...)``.
        fake: shape ``(n, ...)``.
        unit: what to call the distances' unit.

    References:
        Energy statistics: A class of statistics based on distances (Székely and Rizzo, 2013),
        https://doi.org/10.1016/j.jspi.2013.03.018

    Example:
        >>> _ = torch.manual_seed(0)
        >>> d = energy_distance(torch.randn(4000, 1), torch.randn(4000, 1) + 1)
        >>> bool(abs(d.value - 0.541807) < 4.5 * d.stderr)
        True
    """
    x, y = rows(real, fake)
    between, within_x, within_y = distances(x, y), distances(x, x), distances(y, y)
    of_x = 2 * (between.mean(1) - within_x.sum(1) / (len(x) - 1))
    of_y = 2 * (between.mean(0) - within_y.sum(1) / (len(y) - 1))
    stderr = (of_x.var() / len(x) + of_y.var() / len(y)).sqrt()
    return Estimate(float(of_x.mean() + of_y.mean()) / 2, float(stderr), unit)


def spacing(real: Tensor, fake: Tensor) -> float:
    """Return the median distance from a draw to the nearest other draw, divided by that of data: 0 where all are alike.

    Args:
        real: shape ``(n, ...)``.
        fake: the same shape: distances to the nearest shrink with their number.

    Example:
        >>> x = torch.arange(5.0)[:, None]
        >>> spacing(x, 2 * x), spacing(x, torch.zeros(5, 1))
        (2.0, 0.0)
    """
    x, y = rows(real, fake)
    if len(x) != len(y):
        raise UsageError(f"expected as many draws as data, found {len(y)} and {len(x)}")
    of_real, of_fake = (to_neighbour(values, 1).median() for values in (x, y))
    return float(of_fake / of_real) if of_real else float("inf")


def coverage(real: Tensor, fake: Tensor, neighbours: int = 5) -> float:
    r"""Return the share of data that have a draw at least as near as their :math:`k`-th nearest fellow.

    For draws from the data's own distribution its expectation is
    :math:`1 - \prod_{i < k} (m - 1 - i) / (m - 1 + n - i)`, about :math:`1 - 2^{-k}` where :math:`m = n`, in any space;
    a model that drops a mode misses its data.

    Args:
        real: shape ``(m, ...)``.
        fake: shape ``(n, ...)``.
        neighbours: :math:`k`.

    References:
        Reliable Fidelity and Diversity Metrics for Generative Models (Naeem et al., 2020),
        https://arxiv.org/abs/2002.09797

    Example:
        >>> x = torch.arange(20.0)[:, None]
        >>> coverage(x, x + 0.1), coverage(x, torch.zeros(20, 1))
        (1.0, 0.2)
    """
    x, y = rows(real, fake)
    return float(is_covered(x, y, neighbours).double().mean())


def is_covered(x: Tensor, y: Tensor, neighbours: int) -> Tensor:
    """Tell of each row of ``x`` whether one of ``y`` is as near as its :math:`k`-th nearest fellow, shape ``(m,)``."""
    check_neighbours(neighbours, x)
    nearest = torch.cat([torch.cdist(part, y).min(1).values for part in x.split(BLOCK)])
    return nearest <= to_neighbour(x, neighbours)


def density(real: Tensor, fake: Tensor, neighbours: int = 5) -> float:
    r"""Return in how many of the data's neighbourhoods a draw lies, relative to what the data's distribution gives.

    .. math:: \frac{1}{k n} \sum_{j=1}^n \#\{i : \lVert y_j - x_i \rVert \le r_k(x_i)\}

    with :math:`r_k(x_i)` the distance to the :math:`k`-th nearest fellow. For draws from the data's own distribution
    its expectation is 1, for any sizes and in any space; draws where data are dense have more, outliers less. The
    neighbourhood of an outlier among the data, which is large, makes a draw right for :func:`precision_recall`; here
    it counts for one :math:`k`-th.

    Args:
        real: shape ``(m, ...)``.
        fake: shape ``(n, ...)``.
        neighbours: :math:`k`.

    References:
        Reliable Fidelity and Diversity Metrics for Generative Models (Naeem et al., 2020),
        https://arxiv.org/abs/2002.09797

    Example:
        >>> x = torch.arange(20.0)[:, None]
        >>> density(x, torch.full((2, 1), 9.5)), density(x, torch.full((2, 1), 99.0))  # 6 neighbourhoods, or none
        (1.2, 0.0)
    """
    x, y = rows(real, fake)
    check_neighbours(neighbours, x)
    return float(neighbourhoods(y, x, neighbours).double().mean() / neighbours)
