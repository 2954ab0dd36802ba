"""What a fitted model says of each datum, to be set beside what others say of the same."""

from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple

from pyrogen.card import batches_of, roles_of
from pyrogen.data import Corpus, Dataset, Unpaired
from pyrogen.evaluation import Estimate
from pyrogen.sites import Program

__all__ = ["EXACT", "Pointwise", "pointwise_of"]

EXACT = "log_likelihood"
"""The figure that is exact; others are bounds from below, in expectation."""

FIGURES = (EXACT, "iwae", "log_predictive", "completion_log_likelihood")


class Pointwise(NamedTuple):
    r"""Log-likelihoods of data, or bounds of them, one by one.

    Attributes:
        figure: of what values are the terms: ``log_likelihood``, ``iwae``, ``log_predictive`` or
            ``completion_log_likelihood``.
        density: what it is the density of, such as ``x`` or ``y given x``.
        num_particles: draws for each datum, where there are.
        values: :math:`\log p(x_n)` in nats, in the order of the data; ``None`` where one is not finite.
    """

    figure: str
    density: str
    num_particles: int | None
    values: list[float | None]

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Pointwise":
        """The inverse of ``_asdict``."""
        return cls(**fields)


def pointwise_of(
    model: Program,
    guide: Program | None,
    dataset: Dataset | Unpaired,
    split: str,
    figures: Mapping[str, Estimate],
) -> Pointwise | None:
    """Return the values that the likelihood among a model's figures was made of; ``None`` where there is none.

    Of models with latents of each datum these are of the importance-weighted bound; of those whose latents all data
    share, of the posterior predictive density; of documents, of one half of each, given the other. Draws without a
    density have none, and neither have the characters of a text, each of which depends on those before it.

    Args:
        split: on which the figures were measured.
        figures: of :func:`pyrogen.card.evaluate`.
    """
    name = next((name for name in FIGURES if name in figures), EXACT)
    figure = figures.get(name)
    if figure is None or figure.values is None or isinstance(dataset, Unpaired):
        return None
    values = [value if isfinite(value) else None for value in figure.values.tolist()]
    return Pointwise(name, _density(model, guide, dataset, split), figure.num_particles, values)


def _density(model: Program, guide: Program | None, dataset: Dataset, split: str) -> str:
    if isinstance(dataset, Corpus):
        return "half of a document given the other"
    roles = roles_of(model, batches_of(model, dataset, split, 1), guide)
    observed, given = ", ".join(sorted(roles.observed)), ", ".join(sorted(roles.covariates))
    return f"{observed} given {given}" if given else observed
