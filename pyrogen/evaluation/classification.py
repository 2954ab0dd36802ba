"""How well a conditional density predicts labels, and whether probabilities are as often right as they say."""

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Categorical

from pyrogen.errors import ProgramError
from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.evaluation.likelihood import Batches, over
from pyrogen.sites import Program, is_latent

__all__ = ["accuracy", "calibration_error"]


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

    def correct(batch: dict[str, Tensor]) -> Tensor:
        sites = poutine.trace(model).get_trace(**batch).nodes
        latent = [name for name, node in sites.items() if is_latent(node)]
        if latent:
            raise ProgramError(f"accuracy needs p(y | x) itself, but site {latent[0]!r} is latent")
        fn = sites[site]["fn"]
        if not isinstance(fn, Categorical):
            raise ProgramError(f"accuracy needs a categorical site {site!r}, found {type(fn).__name__}")
        return (fn.logits.argmax(-1) == batch[column]).double()

    return mean(over(batches, correct, model), "fraction")


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
