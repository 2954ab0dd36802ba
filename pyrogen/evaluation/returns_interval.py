"""What a few runs and episodes tell of how much a policy gets: a robust mean, and an interval around it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyrogen.errors import UsageError

__all__ = ["Interval", "interquartile_mean", "returns_interval"]


class Interval(NamedTuple):
    """A figure, and where it would lie with other runs.

    Attributes:
        value: the figure.
        low: the interval's lower end; ``None`` where a stratum has one score, which no resample can tell apart.
        high: its upper end, likewise.
        level: how often such an interval is to hold what the figure estimates.
    """

    value: float
    low: float | None
    high: float | None
    level: float


def interquartile_mean(scores: Tensor) -> Tensor:
    r"""Average what is left without the lowest and the highest quarter, along the last dimension.

    .. math:: \frac{1}{n - 2 k} \sum_{i = k + 1}^{n - k} x_{(i)}, \quad k = \lfloor n / 4 \rfloor

    A run that failed, or was lucky, moves it little; other than a median, it uses half of the scores.

    Args:
        scores: shape ``(..., n)``.

    Returns:
        Shape ``(...)``, in the unit of the scores.

    Raises:
        UsageError: where there are no scores.

    References:
        Deep Reinforcement Learning at the Edge of the Statistical Precipice (Agarwal et al., 2021),
        https://arxiv.org/abs/2108.13264

    Example:
        >>> interquartile_mean(torch.tensor([1000.0, 2.0, 3.0, -1000.0]))
        tensor(2.5000)
    """
    n = scores.shape[-1]
    if n == 0:
        raise UsageError("there is no mean without scores: give one or more")
    k = n // 4
    return scores.sort(-1).values[..., k : n - k].mean(-1)


def returns_interval(
    scores: Sequence[Tensor],
    statistic: Callable[[Tensor], Tensor] = interquartile_mean,
    *,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    r"""Put a stratified bootstrap's percentile interval around a figure of scores.

    Each resample draws as many scores of each stratum as it has, with replacement, and no score of another; the
    interval reaches from the :math:`(1 - \text{level}) / 2` to the :math:`(1 + \text{level}) / 2` quantile of what the
    statistic makes of resamples. It is somewhat short where there are few scores: of ten, an interval of 95% holds the
    truth in about nine of ten cases.

    Args:
        scores: one tensor of shape ``(runs,)`` for each stratum: the mean returns of runs with different seeds on one
            task, or the returns of one run's episodes.
        statistic: of all scores together, along the last dimension.
        level: how often the interval is to hold what is estimated.
        num_resamples: how many resamples are drawn.
        seed: of the resamples; the global generators are left as they were.

    Raises:
        UsageError: where a stratum has no scores, or a number is out of range.

    References:
        Deep Reinforcement Learning at the Edge of the Statistical Precipice (Agarwal et al., 2021),
        https://arxiv.org/abs/2108.13264

    Example:
        >>> returns_interval([torch.tensor([3.0, 3.0, 3.0])])
        Interval(value=3.0, low=3.0, high=3.0, level=0.95)
    """
    if not 0 < level < 1 or num_resamples < 1:
        raise UsageError(
            f"level must be between 0 and 1, and num_resamples at least 1; found {level} and {num_resamples}"
        )
    strata = [stratum.detach().cpu().double() for stratum in scores]
    if not strata or any(stratum.dim() != 1 or not len(stratum) for stratum in strata):
        raise UsageError(
            f"expected scores of shape (runs,) for each stratum, found {[tuple(stratum.shape) for stratum in strata]}"
        )
    value = float(statistic(torch.cat(strata)))
    if any(len(stratum) == 1 for stratum in strata):
        return Interval(value, None, None, level)
    generator = torch.Generator().manual_seed(seed)
    draws = [
        stratum[torch.randint(len(stratum), (num_resamples, len(stratum)), generator=generator)] for stratum in strata
    ]
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = statistic(torch.cat(draws, -1)).quantile(ends).tolist()
    return Interval(value, low, high, level)
