"""The axis of calibration: forecasts that come true, posteriors that are right, replicates that are like data."""

from collections.abc import Mapping

import torch
from pyro import poutine
from torch import Tensor

from pyrogen import evaluation
from pyrogen.axis import Axis, Fitted
from pyrogen.card import batches_of, critic_forecasts
from pyrogen.distributions import Autoregressive
from pyrogen.evaluation import Calibration, Estimate, Forecasts, PredictiveCheck, evaluating
from pyrogen.inference import Objective
from pyrogen.parameters import first_device
from pyrogen.rehearsal import rehearsal
from pyrogen.sites import unwrapped

__all__ = ["BINS", "calibration", "checks", "forecasts", "ranks"]

SHARED = "latents are shared by all data: whether their one posterior is right takes many data sets that are simulated"
NO_POSTERIOR = "there is no posterior to hold to what the model simulates, and there are no forecasts of labels"
GIVEN = (
    "ppc: of replicates whose latents the guide draws given the same data, so that these are used twice: p-values of a "
    "right model are nearer to 0.5 than uniform ones, and what they do not find may be there all the same"
)
LEARNED = (
    "ppc: of replicates with one draw of the shared latents each, and data that these were not fitted to: p-values of "
    "a right posterior are uniform"
)
DRAWN = "ppc: of new draws of the model, and data that it was not fitted to: p-values of a right model are uniform"

UNIFORM = Estimate(0.5, 12**-0.5, "mean and standard deviation of a uniform p-value")


def calibration(axis: Axis, fitted: Fitted, objective: Objective) -> None:
    """Add whether forecasts come true, a guide's draws are the posterior's, and replicates are like the data."""
    for name, said in forecasts(fitted, objective).items():
        axis.add(name, *evaluation.forecast_calibration(said))
    roles = fitted.roles
    found = ranks(fitted)
    if found is not None:
        _ranks(axis, found)
    elif fitted.guide is not None and roles.shares_latents:
        axis.notes.append(SHARED)
    else:
        axis.notes += [] if axis.figures else [NO_POSTERIOR]
    compared = checks(fitted)
    for name, check in compared.items():
        axis.add(f"ppc_{name}", check.p_value, UNIFORM)
    if compared:
        is_given = fitted.guide is not None and roles.has_latents
        axis.notes.append(DRAWN if not is_given else LEARNED if roles.shares_latents else GIVEN)


def forecasts(fitted: Fitted, objective: Objective) -> dict[str, Forecasts]:
    """Return forecasts of labels, by a classifier or a guide, and of critics, by the name of their error."""
    roles, found = fitted.roles, {}
    if list(roles.observed) == ["y"] and not roles.has_latents and fitted.dataset.spec.num_classes is not None:
        found["label_ece"] = evaluation.label_forecasts(fitted.model, fitted.batches, roles.observed["y"])
    if fitted.guide is not None and roles.infers_labels and fitted.dataset.spec.num_classes is not None:
        found["label_ece"] = evaluation.guide_forecasts(fitted.guide, fitted.batches)
    said = critic_forecasts(objective, fitted.model, fitted.guide, fitted.batches)
    return found | {f"critic_ece_of_{name}": of for name, of in said.items()}


SIMULATED, DRAWS, BINS = 200, 99, 20
"""Data that a model simulates, draws of the posterior for each, and bins of their ranks."""


def ranks(fitted: Fitted) -> Calibration | None:
    """Rank what was true among a guide's draws for what a model simulates of it; ``None`` without such a guide."""
    roles = fitted.roles
    if fitted.guide is None or not roles.has_latents or roles.shares_latents:
        return None
    columns, device = fitted.dataset.eval_columns("train"), first_device(fitted.model)
    given = {name: columns[name][:SIMULATED].to(device) for name in roles.covariates}
    size = min([SIMULATED, *map(len, given.values())])
    return evaluation.simulation_based_calibration(
        fitted.model, fitted.guide, tuple(roles.observed), size, DRAWS, BINS, given
    )


def _ranks(axis: Axis, found: Calibration) -> None:
    """Add how far ranks are from uniform."""
    worst = min(found.p_values, key=lambda name: found.p_values[name])
    p_value = min(1.0, len(found.p_values) * found.p_values[worst])
    axis.add("sbc_p_value", Estimate(p_value, None, f"probability, worst of {len(found.ranks)} ranks: {worst}"))
    uniform = {name: torch.randint(DRAWS + 1, (len(of),)) for name, of in found.ranks.items()}
    unit = "fraction of ranks, mean distance from uniform"
    axis.add("sbc_distance", *(_rank_distance(of, unit) for of in (found.ranks, uniform)))


def _rank_distance(found: Mapping[str, Tensor], unit: str) -> Estimate:
    """Return how far ranks lie from where uniform ones are expected, the mean over what they are of."""
    distances = []
    for of in found.values():
        place = (of.sort().values.double() + 0.5) / (DRAWS + 1)
        expected = (torch.arange(len(of), dtype=torch.float64, device=of.device) + 0.5) / len(of)
        distances.append((place - expected).abs().mean().cpu())
    return evaluation.mean(torch.stack(distances), unit)


CHECKED, REPLICATES = 200, 100
"""Data whose statistics are compared, and replicates of them."""

CHECKED_BY_ELEMENT, REPLICATES_BY_ELEMENT = 50, 20
"""The same where data are drawn element by element, which takes as many steps as there are elements."""


def checks(fitted: Fitted) -> dict[str, PredictiveCheck]:
    """Compare statistics of held-out data with those of replicates; those that all have the same of are left out."""
    column = "x"
    if column not in fitted.roles.observed:
        return {}
    site = fitted.roles.observed[column]
    size, count = (CHECKED_BY_ELEMENT, REPLICATES_BY_ELEMENT) if _by_element(fitted, site) else (CHECKED, REPLICATES)
    batches = batches_of(fitted.model, fitted.dataset, fitted.split, fitted.batch_size, size)
    found = evaluation.predictive_checks(fitted.model, fitted.guide, batches, num_replicates=count, site=site)
    return {name: check for name, check in found.items() if not check.is_constant}


def _by_element(fitted: Fitted, site: str) -> bool:
    device = first_device(fitted.model)
    first = next(iter(batches_of(fitted.model, fitted.dataset, fitted.split, 1, 1)))
    with rehearsal(), evaluating(fitted.model):
        nodes = poutine.trace(fitted.model).get_trace(**{name: x.to(device) for name, x in first.items()}).nodes
    return isinstance(unwrapped(nodes[site]["fn"]), Autoregressive)
