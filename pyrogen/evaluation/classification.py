"""How well a conditional density predicts labels, and whether probabilities are as often right as they say."""

from math import nan

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Categorical

from pyrogen.errors import ProgramError
from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.evaluation.likelihood import Batches, over
from pyrogen.sites import Program, is_latent

__all__ = ["accuracy", "calibration_error", "guide_accuracy", "label_calibration"]


def accuracy(model: Program, batches: Batches, site: str = "y", column: str = "y") -> Estimate:
    """Measure how often the most probable label of ``p(y | x)`` is the right one.

    Args:
        model: a program whose only random variable is the label: latent ones would be drawn from their prior.
        batches: dicts with the labels, and the model's other arguments.
        site: the label's site, with a categorical distribution.
        column: the labels' name in the batches.

    Raises:
        ProgramError: where the model has latent sites, or the site is not categorical.
    """

    return mean(_forecasts(model, batches, site, column)[1], "fraction")


def _forecasts(model: Program, batches: Batches, site: str, column: str) -> tuple[Tensor, Tensor]:
    """Return the probability of the most probable label of each datum, and whether it is the right one, 0 or 1."""

    def forecast(batch: dict[str, Tensor]) -> Tensor:
        sites = poutine.trace(model).get_trace(**batch).nodes
        latent = [name for name, node in sites.items() if is_latent(node)]
        if latent:
            raise ProgramError(f"forecasts of labels need p(y | x) itself, but site {latent[0]!r} is latent")
        fn = sites[site]["fn"]
        if not isinstance(fn, Categorical):
            raise ProgramError(f"forecasts of labels need a categorical site {site!r}, found {type(fn).__name__}")
        probability, label = fn.probs.double().max(-1)
        return torch.stack([probability, (label == batch[column]).double()], -1)

    probability, right = over(batches, forecast, model).unbind(-1)
    return probability, right


SIMULATIONS = 200


def label_calibration(
    model: Program, batches: Batches, site: str = "y", column: str = "y"
) -> tuple[Estimate, Estimate]:
    r"""Measure how far the most probable label's probability is from how often it is right.

    That is :func:`calibration_error`, which is positive for a perfect forecaster too: what it would be for one who has
    the same probabilities is the second figure, by simulation of outcomes, with its standard deviation. Both are NaN
    where a probability is.

    Args:
        model: a program whose only random variable is the label.
        batches: dicts with the labels, and the model's other arguments.
        site: the label's site, with a categorical distribution.
        column: the labels' name in the batches.

    Raises:
        ProgramError: where the model has latent sites, or the site is not categorical.

    References:
        On Calibration of Modern Neural Networks (Guo et al., 2017), https://arxiv.org/abs/1706.04599
    """
    probability, right = _forecasts(model, batches, site, column)
    unit = f"probability, of {len(right):,} forecasts"
    if not probability.isfinite().all():
        return Estimate(nan, None, unit), Estimate(nan, None, unit)
    ideal = [calibration_error(probability, torch.bernoulli(probability)) for _ in range(SIMULATIONS)]
    found = torch.tensor(ideal, dtype=torch.float64)
    return Estimate(calibration_error(probability, right), None, unit), Estimate(
        float(found.mean()), float(found.std()), unit
    )


def guide_accuracy(guide: Program, batches: Batches, site: str = "y", column: str = "y") -> Estimate:
    """Measure how often the most probable label of ``q(y | x)`` is the right one, where a guide draws the label.

    Data whose label is missing, -1, do not count.

    Args:
        guide: a program that takes the batches without their labels, and draws the label before all that depends on it.
        batches: dicts with the labels, and the guide's other arguments.
        site: the label's site, with a categorical distribution.
        column: the labels' name in the batches.

    Raises:
        ProgramError: where the guide has no such site.
    """

    def correct(batch: dict[str, Tensor]) -> Tensor:
        others = {name: values for name, values in batch.items() if name != column}
        node = poutine.trace(guide).get_trace(**others).nodes.get(site, {})
        fn = node.get("fn")
        if not isinstance(fn, Categorical):
            raise ProgramError(f"the guide has no categorical site {site!r}, whose accuracy there would be")
        known = batch[column] >= 0
        return (fn.logits.argmax(-1) == batch[column])[known].double()

    return mean(over(batches, correct, guide), "fraction")


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
    if not torch.isfinite(probability).all():
        return float("nan")
    place = (probability * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64, device=place.device)
    gaps.index_add_(0, place, (probability - outcome).double())
    return float(gaps.abs().sum() / len(probability))
