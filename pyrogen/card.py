"""Every figure that applies to a fitted program."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import Parameter, signature
from itertools import islice
from math import ceil
from typing import NamedTuple

import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Categorical

from pyrogen import evaluation, language, topics
from pyrogen.data import Batches, Corpus, Dataset, Text, Unpaired
from pyrogen.distributions import is_implicit
from pyrogen.errors import UsageError
from pyrogen.evaluation import Estimate, Forecasts, evaluating
from pyrogen.evaluation.evidence import check_lengths
from pyrogen.evaluation.likelihood import of_each, over
from pyrogen.inference import Objective
from pyrogen.parameters import first_device, modules_of
from pyrogen.programs import observed_columns, shared_latents, simulate
from pyrogen.rehearsal import rehearsal
from pyrogen.sites import Program, is_data, is_latent, is_shared, plates_of_data
from pyrogen.spec import DataSpec, scaled
from pyrogen.translation import collapse, distances, figures, translations

__all__ = [
    "Annealing",
    "Roles",
    "accepted_columns",
    "batches_of",
    "bound",
    "bound_of",
    "compared",
    "critic_forecasts",
    "evaluate",
    "inspect",
    "learned",
    "roles_of",
    "rows_at_once",
]


def accepted_columns(program: Program, columns: Sequence[str]) -> list[str]:
    """List the data columns that a program takes as arguments.

    Example:
        >>> def model(x=None, size=1): ...
        >>> accepted_columns(model, ["x", "y"])
        ['x']
    """
    target = program.forward if isinstance(program, nn.Module) else program
    parameters = signature(target).parameters
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return list(columns)
    return [column for column in columns if column in parameters]


def learned(model: Program, guide: Program | None, spec: DataSpec) -> Program:
    """Return a model that draws with what a guide learned of latents that all data share, where there are such.

    Such latents know nothing of the datum that a guide is called with: a row of zeros will do, and no data are read.
    """
    if guide is None:
        return model
    device = first_device(model, guide)
    rows = {"x": torch.zeros(1, *spec.shape, device=device), "y": torch.zeros(1, dtype=torch.int64, device=device)}
    example = {name: rows[name] for name in accepted_columns(model, list(rows))}
    with rehearsal(modules_of(model, guide).values()):
        shares = bool(shared_latents(model, guide, **example).nodes)
    return poutine.replay(model, trace=shared_latents(model, guide, **example)) if shares else model


@dataclass(frozen=True)
class Annealing:
    """How the evidence of data is estimated by annealing.

    Attributes:
        num_steps: of the path from the prior to the posterior.
        num_chains: for each datum.
        num_data: of the split, the first ones.
        noise: the standard deviation of what is added to draws that have no density, in the units of the data.

    Raises:
        UsageError: where a number is out of range.
    """

    num_steps: int
    num_chains: int = 16
    num_data: int = 100
    noise: float | None = None

    def __post_init__(self) -> None:
        check_lengths(self.num_steps, self.num_chains)
        if self.num_data < 1:
            raise UsageError(f"the evidence is annealed of at least one datum, found {self.num_data}")


class Roles(NamedTuple):
    """What there is to measure of programs.

    Attributes:
        observed: at which site the model observes each column.
        has_latents: whether it has latents to integrate out.
        shares_latents: whether these are all shared by the data, so that a datum has no bound of its own.
        is_implicit: whether its data have no density.
        has_implicit_guide: whether the guide's latents have none.
        infers_labels: whether the guide draws the label ``y`` from a categorical distribution.
        covariates: the columns that the model takes and has no site for, as it has for a label that it draws.
    """

    observed: dict[str, str]
    has_latents: bool
    shares_latents: bool
    is_implicit: bool
    has_implicit_guide: bool
    infers_labels: bool
    covariates: tuple[str, ...]


def bound(
    model: Program,
    guide: Program | None,
    dataset: Dataset | Unpaired,
    split: str,
    num_particles: int = 1,
    batch_size: int = 500,
    by_samples: bool = False,
) -> tuple[str, Estimate]:
    """Return the figure to choose a model by, higher is better: its exact log-likelihood, or else its ELBO.

    For a model without a density, or with one that was not what it learned by, that is the energy distance of its draws
    to the data, with the sign turned; for a translation between two domains, the mean of both directions' distances;
    for documents, the log-probability of a word of one half given the other; for a text, that of a character given
    those before it.

    Args:
        by_samples: compare draws with data, though there is a density.

    Returns:
        The figure's name and the estimate; likelihoods and bounds are in nats per datum.
    """
    if isinstance(dataset, Unpaired):
        return "minus_energy_distance", _both(distances(translations(model, guide, dataset, split), dataset.spec))
    if isinstance(dataset, Corpus):
        return "completion_log_likelihood", topics.completion(model, guide, dataset, split, num_particles)
    if isinstance(dataset, Text) and language.is_reader(model, dataset.spec):
        return "log_likelihood_per_char", language.validation(model, dataset, split)
    batches = batches_of(model, dataset, split, batch_size)
    roles = roles_of(model, batches, guide)
    if roles.is_implicit or by_samples:
        distance = _energy_distance(model, dataset, batches, roles)
        return "minus_energy_distance", distance.scaled(-1.0, 0.0, distance.unit)
    return bound_of(model, guide, batches, roles, num_particles)


LEAST = 10
"""Draws of a proposal for a datum, at least: one draw of moments' is a poor stand-in for a guide's."""


def _both(found: Mapping[str, Estimate]) -> Estimate:
    """Average two distances, with the sign turned."""
    a, b = found.values()
    return a.plus(b, a.unit).scaled(-0.5, 0.0, a.unit)


COMPARED = 1000
"""Data and draws that are compared, at most."""


def inspect(
    model: Program,
    guide: Program | None,
    dataset: Dataset | Unpaired,
    split: str,
    batch_size: int = 500,
    by_samples: bool = False,
) -> dict[str, float]:
    """Return what tells that a model drops data: the spacing of its draws, and the share of data that draws are near.

    There is nothing to tell of a model with a density, unless ``by_samples``. Of a translation between two domains, it
    is the worse direction's, and what is left of a datum that comes back.
    """
    if isinstance(dataset, Unpaired):
        found = translations(model, guide, dataset, split)
        cycles = {name: e.value for name, e in figures(found, dataset.spec).items() if name.startswith("cycle")}
        return collapse(found, dataset.spec) | cycles
    if isinstance(dataset, Corpus) or (isinstance(dataset, Text) and language.is_reader(model, dataset.spec)):
        return {}
    batches = batches_of(model, dataset, split, batch_size)
    roles = roles_of(model, batches)
    if not (roles.is_implicit or by_samples):
        return {}
    real, fake = compared(model, dataset, batches, roles)
    return {"spacing": evaluation.spacing(real, fake), "coverage": evaluation.coverage(real, fake)}


def _energy_distance(model: Program, dataset: Dataset, batches: Batches, roles: Roles) -> Estimate:
    return evaluation.energy_distance(*compared(model, dataset, batches, roles))


def compared(model: Program, dataset: Dataset, batches: Batches, roles: Roles) -> tuple[Tensor, Tensor]:
    """Return data and as many draws of ``x``, scaled to [-1, 1] where data are bounded."""
    first = list(islice(batches, ceil(COMPARED / batches.batch_size)))
    real = torch.cat([batch["x"] for batch in first])
    fake = over(first, lambda batch: simulate(model, **batch)[roles.observed["x"]], model)
    x, y = (scaled(values[:COMPARED].float(), dataset.spec) for values in (real, fake))
    return x, y


def bound_of(
    model: Program, guide: Program | None, batches: Batches, roles: Roles, num_particles: int
) -> tuple[str, Estimate]:
    """Return the best figure of likelihood that roles allow, with its name: exact, or else a bound."""
    if roles.has_implicit_guide:
        return "iwae", evaluation.iwae(model, guide, batches, max(num_particles, LEAST), propose=True)
    if roles.shares_latents and guide is not None:
        return "log_predictive", evaluation.log_predictive(model, guide, batches, max(num_particles, LEAST))
    if roles.has_latents:
        return "elbo", evaluation.elbo(model, guide, batches, num_particles)
    return "log_likelihood", evaluation.log_likelihood(model, batches)


def evaluate(
    model: Program,
    guide: Program | None,
    dataset: Dataset | Unpaired,
    split: str = "test",
    num_particles: int = 100,
    batch_size: int = 500,
    by_samples: bool = False,
    objective: Objective | None = None,
    dynamic_rate: float | None = None,
    dynamic_decay: float = 0.0,
    annealing: Annealing | None = None,
) -> dict[str, Estimate]:
    """Measure all that applies: exact likelihoods or bounds, bits/dim of discrete data, accuracy of labels.

    Of a model without a density, draws are compared with data by the energy distance. Of a translation between two
    domains, see :func:`~pyrogen.translation.figures`; of documents, :func:`~pyrogen.topics.figures`; of a text,
    :func:`~pyrogen.language.figures`.

    Args:
        split: train, validation or test.
        num_particles: of the importance-weighted bound; the ELBO takes a tenth, at least one.
        by_samples: compare draws with data, though there is a density: a guide that was not fitted gives no bound.
        objective: what the programs were fitted by: where its critics say what the ELBO is, ``elbo_estimate`` is that;
            where they are classifiers, ``critic_ece_of_…`` is of what each says of held-out samples.
        dynamic_rate: of the steps by which a model of text learns from what it has read, for a figure of its own.
        dynamic_decay: the share of the way back to where it began that it goes with each of these steps.
        annealing: estimate the evidence of data as well, ``ais``, and that of as many that the model simulates from
            both sides, ``ais_lower`` and ``ais_upper``.

    Returns:
        Figures by name, as the command line's ``--json`` calls them.

    Raises:
        UsageError: where ``num_particles`` is not positive, ``dynamic_rate`` is given and there is no text, or
            ``annealing`` is and the model has no latents to integrate out, datum by datum, or no density.
    """
    if num_particles < 1:
        raise UsageError(f"num_particles must be at least 1, found {num_particles}")
    if annealing is not None and isinstance(dataset, Unpaired | Corpus | Text):
        raise UsageError(f"the evidence is annealed where each datum has its own latents, not of {dataset.name}")
    if isinstance(dataset, Unpaired):
        return figures(translations(model, guide, dataset, split), dataset.spec)
    if isinstance(dataset, Corpus):
        return topics.figures(model, guide, dataset, split, num_particles)
    if isinstance(dataset, Text) and language.is_reader(model, dataset.spec):
        return language.figures(model, dataset, split, dynamic_rate, dynamic_decay)
    if dynamic_rate is not None:
        raise UsageError("a dynamic rate is for models of text that read it character by character: leave it out")
    batches = batches_of(model, dataset, split, batch_size)
    roles = roles_of(model, batches, guide)
    of_critics = {} if objective is None else _calibration(objective, model, guide, batches)
    if annealing is not None and (roles.shares_latents or not roles.has_latents):
        raise UsageError("the evidence is annealed of a model whose data have their own latents")
    if annealing is not None and roles.is_implicit != (annealing.noise is not None):
        raise UsageError(
            "noise gives draws a density that have none: give it, --noise, for an implicit model, and for no other"
        )
    if roles.is_implicit or by_samples:
        measured = {"energy_distance": _energy_distance(model, dataset, batches, roles)} | of_critics
        return measured if annealing is None else measured | _annealed(model, dataset, split, annealing)
    particles = num_particles if roles.has_implicit_guide else max(1, num_particles // 10)
    name, estimate = bound_of(model, guide, batches, roles, particles)
    measured = {name: estimate}
    if name == "elbo":
        measured["iwae"] = evaluation.iwae(model, guide, batches, num_particles)
    if objective is not None and (said := _elbo_estimate(objective, model, guide, batches)) is not None:
        measured["elbo_estimate"] = said
    if annealing is not None:
        measured |= _annealed(model, dataset, split, annealing)
    is_of_labels = roles.infers_labels and "y" in next(iter(batches))
    if list(roles.observed) == ["x"] and not is_of_labels and dataset.spec.bits_per_dim(0.0) is not None:
        measured |= {
            _in_bits[key]: value.in_bits_per_dim(dataset.spec) for key, value in measured.items() if key in _in_bits
        }
    if list(roles.observed) == ["y"] and not roles.has_latents and dataset.spec.num_classes is not None:
        measured["accuracy"] = evaluation.accuracy(model, batches, site=roles.observed["y"])
    if guide is not None and roles.infers_labels and dataset.spec.num_classes is not None:
        measured["accuracy"] = evaluation.guide_accuracy(guide, batches)
    return measured | of_critics


_in_bits = {
    "log_likelihood": "bits_per_dim",
    "elbo": "elbo_bits_per_dim",
    "iwae": "iwae_bits_per_dim",
    "ais": "ais_bits_per_dim",
}


def _annealed(model: Program, dataset: Dataset, split: str, annealing: Annealing) -> dict[str, Estimate]:
    """Anneal from the prior, which knows nothing of the guide, for data and for what the model simulates."""
    num_steps, num_chains = annealing.num_steps, annealing.num_chains
    batches = batches_of(model, dataset, split, annealing.num_data, annealing.num_data, num_chains)
    model = model if annealing.noise is None else evaluation.with_noise(model, annealing.noise)
    lower, upper, _ = evaluation.bdmc(model, batches, num_steps=num_steps, num_chains=num_chains)
    of_data = evaluation.ais(model, batches, num_steps=num_steps, num_chains=num_chains)
    unit = f"nats, {min(annealing.num_data, dataset.num_data(split))} data"
    return {"ais": replace(of_data, unit=unit), "ais_lower": lower, "ais_upper": upper}


VALUES = 2**19
"""Values in one pass of the programs: a bound on memory, where a datum is a second of sound."""


def rows_at_once(spec: DataSpec, copies: int = 1) -> int:
    """Return how many data go through the programs in one pass, of each of which these make so many copies."""
    return max(1, VALUES // (spec.num_dims * copies))


def batches_of(
    model: Program, dataset: Dataset, split: str, batch_size: int, num_data: int | None = None, copies: int = 1
) -> Batches:
    """Go through a split, or its first data, of each of which the programs make so many copies."""
    columns = dataset.eval_columns(split)  # the same values in every pass, of training data as well
    columns = {name: column[:num_data] for name, column in columns.items()}
    only = accepted_columns(model, list(columns))
    batch_size = min(batch_size, rows_at_once(dataset.spec, copies))
    return Batches(columns, batch_size, shuffle=False, only=only, name=f"{dataset.name}, {split} split")


def _elbo_estimate(objective: Objective, model: Program, guide: Program | None, batches: Batches) -> Estimate | None:
    """Ask an objective's critics what the ELBO per datum is."""

    def said(batch: dict[str, Tensor]) -> Tensor:
        """Give each datum the mean of its batch, and none where critics do not say."""
        total, size = objective.elbo_estimate(model, guide, **batch), len(next(iter(batch.values())))
        return torch.empty(0) if total is None else (total / size).expand(size)

    values = over(batches, said, model, guide, objective)
    return Estimate(float(values.mean()), None, "nats, not a bound") if len(values) else None


def critic_forecasts(
    objective: Objective, model: Program, guide: Program | None, batches: Batches
) -> dict[str, Forecasts]:
    """Ask critics which of two samples a value is of: of as many of either, is it of the first?"""
    found = of_each(batches, lambda batch: objective.log_ratios(model, guide, **batch), model, guide, objective)
    said = {}
    for name in found[0]:
        first, second = (torch.cat(logits).cpu() for logits in zip(*(of[name] for of in found), strict=True))
        outcome = torch.cat([torch.ones_like(first), torch.zeros_like(second)])
        said[name] = Forecasts(torch.cat([first, second]).sigmoid(), outcome)
    return said


def _calibration(objective: Objective, model: Program, guide: Program | None, batches: Batches) -> dict[str, Estimate]:
    """Measure how well critics know how sure they can be."""
    return {
        f"critic_ece_of_{name}": Estimate(
            evaluation.calibration_error(*said), None, f"probability, of {len(said.outcome):,} forecasts"
        )
        for name, said in critic_forecasts(objective, model, guide, batches).items()
    }


def roles_of(model: Program, batches: Batches, guide: Program | None = None) -> Roles:
    """Tell what there is to measure of programs, by a call with the first batch."""
    device = first_device(model)
    first = {name: column.to(device) for name, column in next(iter(batches)).items()}
    with rehearsal(modules_of(model, guide).values()), evaluating(model, guide):
        sites = poutine.trace(model).get_trace(**first).nodes
        has_implicit_guide = evaluation.lacks_density(guide, first)
        label = None if guide is None else poutine.trace(guide).get_trace(**first).nodes.get("y")
    hidden = [s for s in sites.values() if is_latent(s) and s["infer"].get("enumerate") != "parallel"]
    plates = plates_of_data(sites.values())
    implicit = {name: name for name in first.keys() & sites.keys() if is_implicit(sites[name]["fn"])}
    observed = observed_columns(sites.values(), first) | implicit
    return Roles(
        observed,
        bool(hidden),
        bool(hidden) and all(is_shared(site, plates) for site in hidden),
        any(is_implicit(site["fn"]) for site in sites.values() if is_data(site)),
        has_implicit_guide,
        label is not None and is_latent(label) and isinstance(label["fn"], Categorical),
        tuple(name for name in first if name not in sites and name not in observed),
    )
