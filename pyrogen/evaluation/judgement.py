"""How often judges prefer one of two, from what they said of pairs."""

from functools import reduce
from math import inf
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import t
from torch import Tensor

from pyrogen.errors import DataError, UsageError
from pyrogen.evaluation.estimate import Estimate, mean

__all__ = ["WinRate", "exchange_test", "wilson_interval", "win_rate"]

UNIT = "share of judgements, ties half"


class WinRate(NamedTuple):
    """How often the first of two was preferred.

    Attributes:
        wins: judgements for the first.
        losses: judgements for the second.
        ties: judgements for neither.
        rate: the share of wins, with half of the ties; 1/2 where nothing is preferred.
        interval: where the rate over all judges and pairs lies, at the level that was asked for.
        p_value: of a difference so large, where the two have one distribution.
    """

    wins: int
    losses: int
    ties: int
    rate: Estimate
    interval: tuple[float, float]
    p_value: float


def win_rate(outcomes: Tensor, level: float = 0.95) -> WinRate:
    r"""Estimate how often the first of two is preferred, over all judges and pairs that there might be.

    With :math:`y_{jp} \in \{0, \tfrac{1}{2}, 1\}`, what judge :math:`j` of :math:`J` said of pair :math:`p` of
    :math:`P`, the rate is :math:`\bar y`. One judge's variance is :math:`s^2 / P`. Judges have tastes of their own, and
    what one sees in a pair the others see as well, so that of several

    .. math:: V = \frac{\hat\sigma_J^2}{J} + \frac{\hat\sigma_P^2}{P} + \frac{\hat\sigma_E^2}{J P}

    with the components of a two-way analysis of variance, none below zero. The interval is Wilson's, with the share of
    ties :math:`\tau`, for as many judgements as would have this variance if they were independent,
    :math:`(\bar y (1 - \bar y) - \tau / 4) / V`, and no more than there are, with Student's quantile at Satterthwaite's
    degrees of freedom; of one judge, of all of them, with the normal quantile.

    Args:
        outcomes: 1 where the first was preferred, 0 where the second was, 1/2 for neither; shape ``(judges, pairs)``.
        level: of the interval.

    Raises:
        DataError: where there are fewer than two pairs or no judge, or other numbers.
        UsageError: where the level is not between 0 and 1.

    References:
        Probable Inference, the Law of Succession, and Statistical Inference (Wilson, 1927),
        https://doi.org/10.1080/01621459.1927.10502953

        An Approximate Distribution of Estimates of Variance Components (Satterthwaite, 1946),
        https://doi.org/10.2307/3002019

        Evaluation of Methods for Confidence Intervals for Proportions under Complex Survey Designs (Dean and Pagano,
        2015), https://doi.org/10.1093/jssam/smv024

    Example:
        >>> found = win_rate(torch.tensor([[1.0] * 14 + [0.0] * 4 + [0.5] * 2]))
        >>> found.wins, found.losses, found.ties, found.rate.value
        (14, 4, 2, 0.75)
        >>> [round(end, 3) for end in found.interval], round(found.p_value, 3)
        ([0.541, 0.878], 0.031)
    """
    y = torch.as_tensor(outcomes).detach().cpu().double()
    if y.dim() != 2 or len(y) < 1 or y.shape[1] < 2 or not torch.isin(y, torch.tensor([0.0, 0.5, 1.0]).to(y)).all():
        raise DataError(
            f"expected 0, 1/2 or 1 for each judge, one at least, and each pair, two at least, (judges, pairs); found "
            f"shape {tuple(y.shape)} with values {y.unique().tolist()[:5]}"
        )
    if not 0 < level < 1:
        raise UsageError(f"the level of an interval must be between 0 and 1, found {level}")
    rate, count, freedom = (_of_one if len(y) == 1 else _of_several)(y)
    quantile = float(t.ppf((1 + level) / 2, freedom))
    ties = int((y == 0.5).sum())
    return WinRate(
        int((y == 1).sum()),
        int((y == 0).sum()),
        ties,
        rate,
        wilson_interval(rate.value, count, quantile, ties / y.numel()),
        exchange_test((2 * y - 1).sum(0)),
    )


def _of_one(y: Tensor) -> tuple[Estimate, float, float]:
    """Return one judge's rate, the number of judgements, and the degrees of freedom of a normal distribution."""
    return mean(y[0], UNIT), y.shape[1], inf


def _of_several(y: Tensor) -> tuple[Estimate, float, float]:
    """Return judges' rate, how many independent judgements have its variance, and the degrees of freedom of that."""
    judges, pairs = y.shape
    value = float(y.mean())
    of_judges, of_pairs = y.mean(1), y.mean(0)
    residuals = y - of_judges[:, None] - of_pairs + value
    by_judge, by_pair = float(of_judges.var() / judges), float(of_pairs.var() / pairs)
    rest = float(residuals.square().sum()) / ((judges - 1) * (pairs - 1)) / (judges * pairs)
    by_judge, by_pair = max(by_judge, rest), max(by_pair, rest)
    variance = by_judge + by_pair - rest
    if not variance:  # all said the same of all pairs, which are as many as are surely independent
        return Estimate(value, 0.0, UNIT), pairs, inf
    squares = by_judge**2 / (judges - 1) + by_pair**2 / (pairs - 1) + rest**2 / ((judges - 1) * (pairs - 1))
    count = min(float(y.var(correction=0)) / variance, judges * pairs)
    return Estimate(value, variance**0.5, UNIT), count, max(1.0, variance**2 / squares)


def wilson_interval(
    rate: float, count: float, quantile: float = 1.959963984540054, ties: float = 0.0
) -> tuple[float, float]:
    r"""Return the rates at which as many judgements would not be further from what was found than some deviations.

    .. math::
        \frac{p + \frac{q^2}{2 n} \pm q \sqrt{\frac{p (1 - p) - \tau / 4}{n} + \frac{q^2}{4 n^2}}}{1 + \frac{q^2}{n}}

    are the solutions :math:`\pi` of :math:`(p - \pi)^2 = q^2 (\pi (1 - \pi) - \tau' / 4) / n`, where a judgement is a
    half with probability :math:`\tau' = \tau n / (n + q^2)`, and else one or zero. Without ties it is Wilson's
    interval. It adds :math:`q^2` coins, none of them a tie: where all were ties, others need not be.

    Args:
        rate: :math:`p`, a share of wins, with half of the ties.
        count: :math:`n`, of how many; need not be whole.
        quantile: :math:`q`, standard deviations; by default those of 95%.
        ties: :math:`\tau`, the share of ties.

    References:
        Probable Inference, the Law of Succession, and Statistical Inference (Wilson, 1927),
        https://doi.org/10.1080/01621459.1927.10502953

    Example:
        >>> [round(end, 4) for end in wilson_interval(0.5, 50)]
        [0.3664, 0.6336]
        >>> [round(end, 4) for end in wilson_interval(0.5, 50, ties=0.8)]
        [0.4323, 0.5677]
    """
    shrunk = quantile**2 / count
    half = quantile * ((rate * (1 - rate) - ties / 4 + shrunk / 4) / count) ** 0.5
    return max(0.0, (rate + shrunk / 2 - half) / (1 + shrunk)), min(1.0, (rate + shrunk / 2 + half) / (1 + shrunk))


def exchange_test(margins: Tensor) -> float:
    r"""Test whether the two of each pair could as well change places, by all ways in which they could.

    .. math:: P\left(\left| \sum_p s_p m_p \right| \ge \left| \sum_p m_p \right|\right), \quad s_p = \pm 1

    with all signs equally probable. It is exact for draws of one distribution that lie left or right at random,
    whatever judges go by and however much they agree with one another. For one judge, it is the two-sided binomial test
    of wins among the pairs that are no ties.

    Args:
        margins: :math:`m_p`, whole numbers: how many more judges were for the first of a pair than for the second,
            shape ``(pairs,)``.

    References:
        The Design of Experiments (Fisher, 1935), chapter 21

    Example:
        >>> exchange_test(torch.tensor([1, 1, 1, 1, 1, 0]))  # five heads or five tails of five
        0.0625
    """
    steps = [abs(int(margin)) for margin in torch.as_tensor(margins).tolist()]
    found, most = abs(int(torch.as_tensor(margins).sum())), sum(steps)
    # Up or down by a step with one half each; the middle stays empty.
    ways = [np.bincount([0, 2 * step], weights=[0.5, 0.5]) for step in steps]
    density = reduce(np.convolve, ways, np.ones(1))
    sums = np.arange(-most, most + 1)
    return min(1.0, float(density[np.abs(sums) >= found].sum()))
