"""A report card: what a fitted program is worth on each side, beside what others would reach, or why none can say."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from pyrogen import evaluation
from pyrogen.axis import Axis, Fitted
from pyrogen.calibration_axis import calibration
from pyrogen.card import accepted_columns, batches_of, bound_of
from pyrogen.data import Corpus, Dataset, Text, Unpaired, known_labels
from pyrogen.errors import PyrogenError, UsageError
from pyrogen.evaluation import Estimate
from pyrogen.inference import Objective
from pyrogen.language import is_reader
from pyrogen.sample_axis import samples
from pyrogen.sites import Program

__all__ = ["report_card"]

AXES = ("likelihood", "samples", "representation", "calibration")

TRANSLATION = "two domains are translated into each other: distances of translations from data are all there is"
TOPICS = "topics are measured by documents that they complete, and by what their words have in common"
TEXT = "a text is one datum, which has no draws to compare it with and no code: see how well it is foretold"
ANNEAL = "the evidence itself, with bounds on either side, is annealed where it is asked for, by --ais-steps 500"
NO_DENSITY = (
    "draws have no density: --ais-steps 500 --noise 0.1 gives them one, by normal noise, and anneals the evidence"
)
NOT_BY_DENSITY = "the model has a density, and was not fitted by it: --ais-steps 500 anneals the evidence"
NO_GUIDE = "no guide was fitted: nothing stands for a datum"
TELLS = "the guide is told the label, which a classifier of its codes would read off"


def report_card(
    model: Program,
    guide: Program | None,
    dataset: Dataset | Unpaired,
    split: str,
    measured: Mapping[str, Estimate],
    objective: Objective,
    batch_size: int = 500,
    features: nn.Module | None = None,
) -> list[Axis]:
    """Measure fitted programs on every axis that applies, and say of each that does not why.

    Args:
        split: of held-out data.
        measured: what :func:`~pyrogen.card.evaluate` found: each figure goes to the axis that it is of.
        objective: what the programs were fitted by.
        features: a network from data, scaled to [-1, 1] where they are bounded, to features; by default that of
            :func:`~pyrogen.feature_network.fit_features` for data with labels, and the data themselves for others.

    Returns:
        Likelihood, samples, representation and calibration.

    Raises:
        UsageError: for the training split, which says nothing of what a program has not seen.
    """
    if split == "train":
        raise UsageError("a report card is of held-out data: leave --split out, or give test or validation")
    axes = [Axis(name) for name in AXES]
    for name, estimate in measured.items():
        axes[AXES.index(_axis_of(name))].add(name, estimate)
    if (reason := _whole(model, dataset)) is not None:
        for axis in axes:
            axis.notes += [] if axis.figures else [reason]
        return axes
    assert isinstance(dataset, Dataset)
    fitted = Fitted(model, guide if objective.fits_guide else None, dataset, split, batch_size)
    measures: tuple[Callable[[Axis, Fitted], None], ...] = (
        partial(_likelihood, by_samples=objective.by_samples),
        partial(samples, features=features),
        _representation,
        partial(calibration, objective=objective),
    )
    for axis, measure in zip(axes, measures, strict=True):
        try:
            measure(axis, fitted)
        except PyrogenError as error:  # what one axis cannot say is no reason to lose the others
            axis.notes.append(str(error))
    return axes


def _axis_of(figure: str) -> str:
    if figure.startswith("critic_ece"):
        return "calibration"
    if figure in ("npmi", "topic_diversity"):
        return "representation"
    return "samples" if "distance" in figure or "cycle" in figure else "likelihood"


def _whole(model: Program, dataset: Dataset | Unpaired) -> str | None:
    """Say, of data that are not measured datum by datum, why there is no more."""
    if isinstance(dataset, Unpaired):
        return TRANSLATION
    if isinstance(dataset, Corpus):
        return TOPICS
    return TEXT if isinstance(dataset, Text) and is_reader(model, dataset.spec) else None


GAP_DRAWS = 10
"""Of the guide for each datum, where training and held-out data are compared."""


def _likelihood(axis: Axis, fitted: Fitted, by_samples: bool) -> None:
    """Add how much more probable as many of the data are that a program was fitted to."""
    roles = fitted.roles
    if roles.is_implicit or by_samples:
        axis.notes += [] if axis.figures else [NO_DENSITY if roles.is_implicit else NOT_BY_DENSITY]
        return
    count = fitted.dataset.num_data(fitted.split)
    name, high = bound_of(fitted.model, fitted.guide, fitted.seen(fitted.model, count), roles, GAP_DRAWS)
    _, low = bound_of(fitted.model, fitted.guide, fitted.batches, roles, GAP_DRAWS)
    unit = f"nats of {name}, training less {fitted.split}"
    axis.add("train_gap", high.plus(low.scaled(-1.0, 0.0, unit), unit))
    if roles.has_latents and not (roles.shares_latents or roles.infers_labels) and "ais" not in axis.figures:
        axis.notes.append(ANNEAL)


CODED = 5000
"""Training data that a probe learns from, at most."""


def _representation(axis: Axis, fitted: Fitted) -> None:
    """Add how many latents are in use, and how well classifiers read labels off them; and off the data themselves."""
    guide, dataset = fitted.guide, fitted.dataset
    if guide is None:
        axis.notes += [] if axis.figures else [NO_GUIDE]
        return
    codes = evaluation.encode(guide, batches_of(guide, dataset, fitted.split, fitted.batch_size))
    width = codes.mean.shape[1]
    axis.add("active_units", Estimate(evaluation.active_units(codes), None, f"of {width} latents"))
    if dataset.spec.num_classes is None:
        axis.notes.append("the data have no labels to read off codes")
    elif "y" in accepted_columns(guide, ["y"]):
        axis.notes.append(TELLS)
    else:
        labelled = known_labels(dataset)
        of_seen = evaluation.encode(guide, batches_of(guide, labelled, "train", fitted.batch_size, CODED))
        x, y = (labelled.eval_columns(of) for of in ("train", fitted.split))
        labels, values = x["y"][:CODED], (x["x"][:CODED].flatten(1), y["x"].flatten(1))
        is_complete = not any(part.isnan().any() for part in values)
        for name, probe in (("linear_probe", evaluation.linear_probe), ("knn_probe", evaluation.knn_probe)):
            figure = probe(of_seen.mean, labels, codes.mean, y["y"])
            axis.add(name, figure, probe(values[0], labels, values[1], y["y"]) if is_complete else None)
