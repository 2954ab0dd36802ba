"""How far draws are from data in the features of a network: a figure depends on whose features they are."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pyrogen.errors import UsageError
from pyrogen.evaluation.checks import BLOCK, check_neighbours, rows, to_neighbour
from pyrogen.evaluation.estimate import Estimate, mean

__all__ = ["PrecisionRecall", "frechet_distance", "kernel_distance", "precision_recall"]

FOLDS = 10


def frechet_distance(real: Tensor, fake: Tensor) -> Estimate:
    r"""Return the Fréchet distance of two normal distributions with the samples' moments (FID).

    .. math:: \lVert \mu - \tilde\mu \rVert^2 + \operatorname{tr}\bigl(\Sigma + \tilde\Sigma
        - 2 (\Sigma^{1/2} \tilde\Sigma \Sigma^{1/2})^{1/2}\bigr)

    It is biased upwards, by more the smaller the samples are: compare figures of equal sizes. The standard error is a
    jackknife's over ten parts of either sample, and says nothing of the bias.

    Args:
        real: features, shape ``(m, features)``.
        fake: features, shape ``(n, features)``.

    References:
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017),
        https://arxiv.org/abs/1706.08500

    Example:
        >>> x = torch.tensor([[0.0], [2.0], [4.0]])
        >>> round(frechet_distance(x, 2 * x + 1).value, 4)  # means 2 and 5, standard deviations 2 and 4
        13.0
    """
    x, y = rows(real, fake)
    parts = []
    if min(len(x), len(y)) >= 3 * FOLDS:
        folds = zip(_without_each(x), _without_each(y), strict=True)
        parts = [_frechet(one, other) for one, other in folds]
    stderr = float(torch.tensor(parts).std(correction=0) * (FOLDS - 1) ** 0.5) if parts else None
    return Estimate(_frechet(x, y), stderr, "squared feature distance")


def _without_each(x: Tensor) -> Iterator[Tensor]:
    """Leave out one tenth after the other."""
    fold = torch.arange(len(x), device=x.device) % FOLDS
    for i in range(FOLDS):
        yield x[fold != i]


def _frechet(x: Tensor, y: Tensor) -> float:
    shift = x.mean(0) - y.mean(0)
    # With one feature, cov returns a scalar.
    of_x, of_y = (torch.cov(s.T).reshape(s.shape[1], -1) for s in (x, y))
    values, vectors = torch.linalg.eigh(of_x)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    between = torch.linalg.eigvalsh(root @ of_y @ root).clamp(min=0).sqrt().sum()
    return float(shift.square().sum() + of_x.trace() + of_y.trace() - 2 * between)


def kernel_distance(real: Tensor, fake: Tensor, block: int = BLOCK) -> Estimate:
    r"""Estimate the squared maximum mean discrepancy with a cubic kernel, unbiased (KID).

    .. math:: k(x, y) = (x^\top y / d + 1)^3

    The samples are cut into blocks, of which each gives an estimate; the standard error is that of their mean. A block
    has rows from all over a sample, so that an order in it, as by label, does no harm.

    Args:
        real: features, shape ``(m, features)``.
        fake: features, shape ``(n, features)``.
        block: rows of each sample in a block, at least; a rest is left out.

    References:
        Demystifying MMD GANs (Bińkowski et al., 2018), https://arxiv.org/abs/1801.01401
    """
    x, y = rows(real, fake)
    if block < 2:
        raise UsageError(f"block must be at least 2, found {block}")
    count = max(1, min(len(x), len(y)) // block)
    size = min(len(x), len(y)) // count
    found = [_cubic(x[i::count][:size], y[i::count][:size]) for i in range(count)]
    return mean(torch.stack(found), "squared MMD")


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    count = len(x)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / x.shape[1] + 1) ** 3

    within = [kernel(s, s).fill_diagonal_(0).sum() / (count * (count - 1)) for s in (x, y)]
    return within[0] + within[1] - 2 * kernel(x, y).mean()


class PrecisionRecall(NamedTuple):
    """Quality and diversity, apart.

    Attributes:
        precision: the share of draws that lie in the support of the data.
        recall: the share of data that lie in the support of the draws.
    """

    precision: float
    recall: float


def precision_recall(real: Tensor, fake: Tensor, neighbours: int = 3) -> PrecisionRecall:
    r"""Measure how many draws lie among the data, and how many data among the draws.

    The support of a sample is the union of balls around its members that reach to their :math:`k`-th nearest fellow.
    One outlier makes a large ball; :func:`coverage` is less easily misled.

    Args:
        real: features, shape ``(m, features)``.
        fake: features, shape ``(n, features)``.
        neighbours: :math:`k`.

    References:
        Improved Precision and Recall Metric for Assessing Generative Models (Kynkäänniemi et al., 2019),
        https://arxiv.org/abs/1904.06991

    Example:
        >>> x = torch.arange(8.0)[:, None]
        >>> precision_recall(x, torch.full((8, 1), 3.4) + 0.01 * x)  # good, and all alike
        PrecisionRecall(precision=1.0, recall=0.0)
    """
    x, y = rows(real, fake)
    check_neighbours(neighbours, x, y)
    return PrecisionRecall(_share_within(y, x, neighbours), _share_within(x, y, neighbours))


def _share_within(points: Tensor, sample: Tensor, neighbours: int) -> float:
    """Return the share of points within the support of a sample."""
    radius = to_neighbour(sample, neighbours)
    found = [(torch.cdist(part, sample) <= radius).any(1) for part in points.split(BLOCK)]
    return float(torch.cat(found).double().mean())
