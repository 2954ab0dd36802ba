"""How far draws are from data in the features of a network: a figure depends on whose features they are."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.evaluation.checks import BLOCK, check_neighbours, neighbourhoods, rows
from pyrogen.evaluation.estimate import Estimate, mean

__all__ = [
    "PrecisionRecall",
    "fingerprint",
    "frechet_distance",
    "frechet_distance_limit",
    "kernel_distance",
    "precision_recall",
]

FOLDS = 10

CUTS = (1, 2, 4)
"""Into how many parts samples are cut to see what their size does."""


def frechet_distance(real: Tensor, fake: Tensor) -> Estimate:
    r"""Return the Fréchet distance of two normal distributions with the samples' moments (FID).

    .. math:: \lVert \mu - \tilde\mu \rVert^2 + \operatorname{tr}\bigl(\Sigma + \tilde\Sigma
        - 2 (\Sigma^{1/2} \tilde\Sigma \Sigma^{1/2})^{1/2}\bigr)

    It is biased upwards, by more the smaller the samples are: compare figures of equal sizes, or take
    :func:`frechet_distance_limit`. The standard error is a jackknife's over ten parts of either sample, and says
    nothing of the bias.

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
    return _jackknifed(_frechet, *rows(real, fake))


def frechet_distance_limit(real: Tensor, fake: Tensor) -> Estimate:
    r"""Extrapolate the Fréchet distance to samples without end (:math:`\mathrm{FID}_\infty`).

    .. math:: \mathrm{FID}_N \approx \mathrm{FID}_\infty + b / N

    The samples are taken whole, in halves and in quarters; a line through the averages of each, over the number of
    parts, is read off at zero. What is left of the bias falls with the square of the size. The standard error is a
    jackknife's, as that of :func:`frechet_distance`, and larger.

    Args:
        real: features, shape ``(m, features)``.
        fake: features, shape ``(n, features)``.

    Raises:
        UsageError: where a quarter has fewer rows than twice the features, for which there is no such line.

    References:
        Effectively Unbiased FID and Inception Score and Where to Find Them (Chong and Forsyth, 2020),
        https://arxiv.org/abs/1911.07023

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(2, 1000, 20).unbind()
        >>> frechet_distance(x, y).value > 0.1, abs(frechet_distance_limit(x, y).value) < 0.05  # the truth is 0
        (True, True)
    """
    x, y = rows(real, fake)
    least = 2 * CUTS[-1] * max(x.shape[1], FOLDS)
    if min(len(x), len(y)) < least:
        raise UsageError(
            f"the limit for {x.shape[1]} features takes {least} rows of either sample or more, found {len(x)} and "
            f"{len(y)}: give more, or take frechet_distance and compare figures of equal sizes"
        )
    return _jackknifed(_limit, x, y)


def _limit(x: Tensor, y: Tensor) -> float:
    found = [sum(_frechet(x[i::cuts], y[i::cuts]) for i in range(cuts)) / cuts for cuts in CUTS]
    at, values = torch.tensor(CUTS, dtype=torch.float64), torch.tensor(found, dtype=torch.float64)
    slope = ((at - at.mean()) * values).sum() / (at - at.mean()).square().sum()
    return float(values.mean() - slope * at.mean())


def _jackknifed(figure: Callable[[Tensor, Tensor], float], x: Tensor, y: Tensor) -> Estimate:
    parts = []
    if min(len(x), len(y)) >= 3 * FOLDS:
        folds = zip(_without_each(x), _without_each(y), strict=True)
        parts = [figure(one, other) for one, other in folds]
    stderr = float(torch.tensor(parts).std(correction=0) * (FOLDS - 1) ** 0.5) if parts else None
    return Estimate(figure(x, y), stderr, "squared feature distance")


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
    in_data, in_draws = neighbourhoods(y, x, neighbours) > 0, neighbourhoods(x, y, neighbours) > 0
    return PrecisionRecall(float(in_data.double().mean()), float(in_draws.double().mean()))


def fingerprint(network: nn.Module) -> str:
    """Return the SHA-256 (hexadecimal) of a network's tensors: figures in features compare where it is the same.

    It is of the names, dtypes, shapes and bytes of all parameters and buffers in ``state_dict``, on whatever device;
    what a ``forward`` does with them it does not see.

    Raises:
        UsageError: where the state holds something else than tensors.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> one, other = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> fingerprint(one) == fingerprint(other)
        False
        >>> _ = other.load_state_dict(one.state_dict())
        >>> fingerprint(one) == fingerprint(other)
        True
    """
    digest = sha256()
    for name, values in sorted(network.state_dict().items()):
        if not isinstance(values, Tensor):
            raise UsageError(f"the network's state holds {name!r}, a {type(values).__name__}: only tensors have bytes")
        digest.update(f"|{name}/{values.dtype}/{tuple(values.shape)}|".encode())
        digest.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
