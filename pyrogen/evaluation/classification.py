"""How well a conditional density predicts labels, and whether probabilities are as often right as they say."""

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Categorical

from pyrogen.errors import ProgramError
from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.evaluation.likelihood import Batches, over
from pyrogen.evaluation.reliability import Forecasts, forecast_calibration
from pyrogen.sites import Program, is_latent

__all__ = ["accuracy", "guide_accuracy", "guide_forecasts", "label_calibration", "label_forecasts"]


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

    return mean(label_forecasts(model, batches, site, column).outcome, "fraction")


def label_forecasts(model: Program, batches: Batches, site: str = "y", column: str = "y") -> Forecasts:
    """Return the probability of the most probable label of each datum, and whether it is the right one.

    Args:
        model: a program whose only random variable is the label.
        batches: dicts with the labels, and the model's other arguments.
        site: the label's site, with a categorical distribution.
        column: the labels' name in the batches.

    Raises:
        ProgramError: where the model has latent sites, or the site is not categorical.
    """

    def forecast(batch: dict[str, Tensor]) -> Tensor:
        sites = poutine.trace(model).get_trace(**batch).nodes
        latent = [name for name, node in sites.items() if is_latent(node)]
        if latent:
            raise ProgramError(f"forecasts of labels need p(y | x) itself, but site {latent[0]!r} is latent")
        fn = sites[site]["fn"] if site in sites else None
        if not isinstance(fn, Categorical):
            raise ProgramError(f"forecasts of labels need a categorical site {site!r}, found {type(fn).__name__}")
        return _best(fn, batch[column])

    return Forecasts(*over(batches, forecast, model).unbind(-1))


def _best(fn: Categorical, labels: Tensor) -> Tensor:
    """Return the highest probability, and whether it is the label's, shape ``(count, 2)``, where there is a label."""
    probability, label = fn.probs.double().max(-1)
    return torch.stack([probability, (label == labels).double()], -1)[labels >= 0]


def label_calibration(
    model: Program, batches: Batches, site: str = "y", column: str = "y"
) -> tuple[Estimate, Estimate]:
    r"""Measure how far the most probable label's probability is from how often it is right.

    That is :func:`calibration_error`, which is positive for a perfect forecaster too: what it would be for one who has
    the same probabilities is the second figure, see :func:`forecast_calibration`.

    Args:
        model: a program whose only random variable is the label.
        batches: dicts with the labels, and the model's other arguments.
        site: the label's site, with a categorical distribution.
        column: the labels' name in the batches.

    Raises:
        ProgramError: where the model has latent sites, or the site is not categorical.
    """
    return forecast_calibration(label_forecasts(model, batches, site, column))


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
    return mean(guide_forecasts(guide, batches, site, column).outcome, "fraction")


def guide_forecasts(guide: Program, batches: Batches, site: str = "y", column: str = "y") -> Forecasts:
    """Return the probability of the most probable label of ``q(y | x)``, and whether it is the right one.

    Data whose label is missing, -1, are left out; see :func:`guide_accuracy` for the arguments.

    Raises:
        ProgramError: where the guide has no such site.
    """

    def forecast(batch: dict[str, Tensor]) -> Tensor:
        others = {name: values for name, values in batch.items() if name != column}
        node = poutine.trace(guide).get_trace(**others).nodes.get(site, {})
        fn = node.get("fn")
        if not isinstance(fn, Categorical):
            raise ProgramError(f"the guide has no categorical site {site!r}, whose accuracy there would be")
        return _best(fn, batch[column])

    return Forecasts(*over(batches, forecast, guide).unbind(-1))
