"""Whether draws are copies of training data: nearer to them than new data are."""

from math import sqrt
from typing import NamedTuple

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from pyrogen.errors import DataError, UsageError
from pyrogen.evaluation.checks import BLOCK, rows
from pyrogen.evaluation.estimate import Estimate

__all__ = ["Copying", "Neighbours", "data_copying", "nearest_neighbours"]


class Neighbours(NamedTuple):
    """The nearest training data of each draw, nearest first.

    Attributes:
        distance: Euclidean, shape ``(n, count)``.
        indices: rows of the training data, same shape.
    """

    distance: Tensor
    indices: Tensor


def nearest_neighbours(training: Tensor, draws: Tensor, count: int = 1) -> Neighbours:
    """Find the training data that are nearest to each draw: where one is the draw itself, it was memorised.

    Args:
        training: shape ``(m, ...)``.
        draws: shape ``(n, ...)``.
        count: how many for each draw.

    Raises:
        UsageError: where there are not so many training data.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [5.0]])
        >>> nearest_neighbours(x, torch.tensor([[4.0], [1.0]])).indices.tolist()
        [[2], [1]]
    """
    x, y = rows(training, draws)
    if not 1 <= count <= len(x):
        raise UsageError(f"count must be between 1 and {len(x)}, the number of training data; found {count}")
    found = [_nearest(x, part, count) for part in y.split(BLOCK)]
    return Neighbours(*(torch.cat(columns) for columns in zip(*found, strict=True)))


def _nearest(x: Tensor, part: Tensor, count: int) -> Neighbours:
    index = torch.cdist(part, x).topk(count, largest=False).indices
    # By differences: cdist's own distances, by products, are not zero for a copy.
    distance, order = (part.unsqueeze(1) - x[index]).norm(dim=2).sort(1)
    return Neighbours(distance, index.gather(1, order))


class Copying(NamedTuple):
    """How draws compare with held-out data in their distances to training data.

    Attributes:
        statistic: :math:`C_T`; below zero where draws are nearer than they should be, above where they are farther.
        p_value: of a statistic so low, where draws were as held-out data are.
        nearer: how probable it is that a draw is nearer to training data than a held-out datum is, over all cells.
        by_cell: the statistic of each cell, NaN where it has too few draws or data, shape ``(cells,)``.
    """

    statistic: float
    p_value: float
    nearer: Estimate
    by_cell: Tensor


def data_copying(
    training: Tensor, draws: Tensor, held_out: Tensor, cells: int = 1, least: int = 20, seed: int = 0
) -> Copying:
    r"""Test whether draws are nearer to training data than held-out data are, as those of a model that copies.

    With :math:`U` the number of pairs of a draw and a held-out datum in which the draw is farther from its nearest
    training datum, ties being one half, each cell :math:`\pi` of the space has a Mann-Whitney statistic, standard
    normal where both distances are distributed alike,

    .. math::
        Z_\pi = \frac{U - mn / 2}{\sqrt{mn (m + n + 1) / 12}}, \qquad
        C_T = \frac{\sum_\pi P_n(\pi) Z_\pi}{\sum_\pi P_n(\pi)}

    with :math:`P_n` the share of held-out data and a variance that allows for ties. Cells are the nearest of ``cells``
    means of the training data: a model that copies in some places, and draws more in thin ones, is seen by cells alone.
    A model that does not fit passes as well, by draws that are far from all data; one whose draws are too much alike
    fails without a copy, since training data are near where they are dense: see :func:`density` and :func:`coverage`.

    Args:
        training: shape ``(t, ...)``: what the model was fitted to.
        draws: shape ``(m, ...)``.
        held_out: shape ``(n, ...)``: from the same source as the training data, and not fitted to.
        cells: into how many the space is divided.
        least: draws, and held-out data, of a cell that counts: the statistic is normal for many.
        seed: of the means.

    Raises:
        UsageError: where there are more cells than training data.
        DataError: where no cell has enough draws and held-out data.

    References:
        A Non-Parametric Test to Detect Data-Copying in Generative Models (Meehan et al., 2020),
        https://arxiv.org/abs/2004.05675

        Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves (DeLong et al., 1988),
        https://doi.org/10.2307/2531595, for the standard error.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> training, held_out = torch.randn(2, 500, 3)
        >>> copying = data_copying(training, training + 0.01 * torch.randn(500, 3), held_out)
        >>> copying.statistic < -5, copying.nearer.value > 0.9
        (True, True)
    """
    x, y = rows(training, draws)
    _, new = rows(training, held_out)
    if not 1 <= cells <= len(x):
        raise UsageError(f"cells must be between 1 and {len(x)}, the number of training data; found {cells}")
    of_draws, of_new = (nearest_neighbours(x, values).distance[:, 0] for values in (y, new))
    cell_of_draw, cell_of_new = _cells(x, cells, seed, y, new)
    found, weights = torch.full((cells,), torch.nan, dtype=torch.float64), torch.zeros(cells, dtype=torch.float64)
    for cell in range(cells):
        a, b = of_draws[cell_of_draw == cell], of_new[cell_of_new == cell]
        if min(len(a), len(b)) >= max(least, 2):
            found[cell], weights[cell] = _mann_whitney(a, b), len(b)
    if not weights.any():
        raise DataError(f"no cell has {max(least, 2)} draws and as many held-out data: take fewer cells, or more draws")
    weights /= weights.sum()
    statistic = float((weights * found.nan_to_num()).sum())
    # Cells have statistics that are independent and standard normal, and their weighted mean is not.
    p_value = float(torch.special.ndtr(torch.tensor(statistic / float(weights.norm()), dtype=torch.float64)))
    return Copying(statistic, p_value, _nearer(of_draws, of_new), found)


def _cells(x: Tensor, cells: int, seed: int, *samples: Tensor) -> list[Tensor]:
    """Return the cell of each row of some samples."""
    if cells == 1:
        return [torch.zeros(len(sample), dtype=torch.int64, device=sample.device) for sample in samples]
    means = KMeans(cells, n_init=3, random_state=seed).fit(x.cpu().numpy())
    return [torch.from_numpy(means.predict(s.cpu().numpy())).to(s.device, torch.int64) for s in samples]


def _placed(values: Tensor, among: Tensor) -> Tensor:
    """Return the share of others that each value is above, ties being one half."""
    ordered = among.sort().values
    places = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    return torch.stack([place.double() for place in places]).mean(0) / len(among)


def _mann_whitney(a: Tensor, b: Tensor) -> float:
    r"""Standardise how often ``a`` is above ``b``; zero where all are equal."""
    m, n = len(a), len(b)
    _, ties = torch.cat([a, b]).unique(return_counts=True)
    tied = float((ties.double() ** 3 - ties).sum())
    variance = m * n / 12 * (m + n + 1 - tied / ((m + n) * (m + n - 1)))
    above = float(_placed(a, b).mean()) * m * n
    return (above - m * n / 2) / sqrt(variance) if variance > 0 else 0.0


def _nearer(of_draws: Tensor, of_new: Tensor) -> Estimate:
    draws_below, new_above = 1 - _placed(of_draws, of_new), _placed(of_new, of_draws)
    stderr = (draws_below.var() / len(of_draws) + new_above.var() / len(of_new)).sqrt()
    return Estimate(float(draws_below.mean()), float(stderr), "probability")
