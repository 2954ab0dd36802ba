"""Whether what forecasts call probable comes to pass as often as they say."""

from math import nan
from typing import NamedTuple

import torch
from torch import Tensor

from pyrogen.errors import DataError, UsageError
from pyrogen.evaluation.estimate import Estimate

__all__ = ["Forecasts", "Reliability", "calibration_error", "forecast_calibration", "reliability"]


class Forecasts(NamedTuple):
    """What was said, and what came to pass.

    Attributes:
        probability: of the outcome, shape ``(count,)``.
        outcome: whether it came to pass, 0 or 1, likewise.
    """

    probability: Tensor
    outcome: Tensor


class Reliability(NamedTuple):
    """Forecasts in bins of equal width, each a tensor of shape ``(bins,)``.

    Attributes:
        counts: forecasts in each bin.
        probability: what they say on average; NaN where there are none.
        share: how often it came to pass, likewise.
        stderr: the binomial standard error that the share would have about that average, were they right.
    """

    counts: Tensor
    probability: Tensor
    share: Tensor
    stderr: Tensor


def reliability(probability: Tensor, outcome: Tensor, bins: int = 15) -> Reliability:
    r"""Put forecasts into bins by their probability: a reliability diagram's points, with their error bars.

    .. math:: \bar p_b = \frac{1}{n_b} \sum_{i \in b} p_i, \quad \bar o_b = \frac{1}{n_b} \sum_{i \in b} o_i, \quad
        s_b = \frac{1}{n_b} \Big(\sum_{i \in b} p_i (1 - p_i)\Big)^{1/2}

    The error is about the diagonal, where forecasts that are right have their points: that of the share itself would be
    zero where nothing or all of a bin came to pass.

    Args:
        probability: of the outcome, shape ``(count,)``.
        outcome: whether it came to pass, 0 or 1, likewise.
        bins: how many.

    Raises:
        DataError: where shapes differ, a probability is not between 0 and 1, or an outcome is neither 0 nor 1.
        UsageError: where there is no bin.

    References:
        Increasing the Reliability of Reliability Diagrams (Bröcker and Smith, 2007), https://doi.org/10.1175/WAF993.1

    Example:
        >>> found = reliability(torch.tensor([0.2, 0.4, 0.9]), torch.tensor([0.0, 1.0, 1.0]), bins=2)
        >>> found.counts, found.share
        (tensor([2, 1]), tensor([0.5000, 1.0000], dtype=torch.float64))
    """
    if bins < 1:
        raise UsageError(f"bins must be at least 1, found {bins}")
    if probability.dim() != 1 or probability.shape != outcome.shape:
        raise DataError(
            f"expected a probability and an outcome of each forecast, in shape (count,); found "
            f"{tuple(probability.shape)} and {tuple(outcome.shape)}"
        )
    p, o = probability.cpu().double(), outcome.cpu().double()
    if not ((p >= 0) & (p <= 1)).all():
        raise DataError(f"{int((~((p >= 0) & (p <= 1))).sum())} of {len(p)} probabilities are not between 0 and 1")
    if not ((o == 0) | (o == 1)).all():
        raise DataError("an outcome is 1 where what was forecast came to pass, and 0 where it did not: no label")
    place = (probability * bins).long().clamp(max=bins - 1).cpu()
    counts = torch.bincount(place, minlength=bins)
    said, came, variance = (p.new_zeros(bins).index_add_(0, place, values) for values in (p, o, p * (1 - p)))
    return Reliability(counts, said / counts, came / counts, variance.sqrt() / counts)


def calibration_error(probability: Tensor, outcome: Tensor, bins: int = 15) -> float:
    r"""Measure how far probabilities are from how often what they are of comes to pass.

    .. math:: \sum_b \frac{n_b}{n} \left| \bar p_b - \bar o_b \right|

    over bins of equal width, with the average probability and the share of outcomes in each: the expected calibration
    error. It is positive for the best of forecasters too, by about half the root of ``bins`` over the number of
    forecasts, or less.

    Args:
        probability: of the outcome, shape ``(count,)``.
        outcome: whether it came to pass, 0 or 1, likewise.
        bins: how many.

    Returns:
        The error; NaN where a probability is not finite.

    References:
        Obtaining Well Calibrated Probabilities Using Bayesian Binning (Naeini et al., 2015),
        https://doi.org/10.1609/aaai.v29i1.9602

    Example:
        >>> calibration_error(torch.tensor([0.25, 0.25, 0.25, 0.25]), torch.tensor([1.0, 0.0, 0.0, 0.0]))
        0.0
        >>> calibration_error(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 1.0]))
        0.5
    """
    if not probability.isfinite().all():
        return nan
    found = reliability(probability, outcome, bins)
    return float((found.counts * (found.probability - found.share).abs()).nansum() / len(probability))


SIMULATIONS = 200


def forecast_calibration(forecasts: Forecasts, bins: int = 15) -> tuple[Estimate, Estimate]:
    r"""Return the calibration error of forecasts, and that of a perfect forecaster who says the same.

    The second is over simulated outcomes, :math:`o_i \sim \operatorname{Bernoulli}(p_i)`, with its standard deviation:
    what is within two of these of it is no sign of a fault. Both are NaN where a probability is.

    References:
        On Calibration of Modern Neural Networks (Guo et al., 2017), https://arxiv.org/abs/1706.04599
    """
    probability, outcome = forecasts
    unit = f"probability, of {len(outcome):,} forecasts"
    if not probability.isfinite().all():
        return Estimate(nan, None, unit), Estimate(nan, None, unit)
    ideal = [calibration_error(probability, torch.bernoulli(probability), bins) for _ in range(SIMULATIONS)]
    found = torch.tensor(ideal, dtype=torch.float64)
    return Estimate(calibration_error(probability, outcome, bins), None, unit), Estimate(
        float(found.mean()), float(found.std()), unit
    )
