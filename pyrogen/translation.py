"""What there is to measure and to show of a translation between two domains, there and back."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyrogen import evaluation
from pyrogen.data import Unpaired
from pyrogen.errors import UsageError
from pyrogen.evaluation import Estimate
from pyrogen.evaluation.estimate import mean
from pyrogen.evaluation.likelihood import over
from pyrogen.programs import simulate
from pyrogen.sites import Program
from pyrogen.spec import DataSpec, scaled

__all__ = ["Translations", "collapse", "distances", "figures", "in_rows", "translations"]

COMPARED = 1000
"""Data of each domain that are translated, at most."""

FEWEST = 10
"""Data of each domain among which neighbours mean anything."""

BATCH = 500


class Translations(NamedTuple):
    """Data of two domains, what they become, and what becomes of that, a row a datum.

    Attributes:
        a: data of the one domain.
        b: data of the other; not as many, perhaps.
        a_to_b: :math:`G(a)`.
        b_to_a: :math:`F(b)`.
        a_to_a: :math:`F(G(a))`.
        b_to_b: :math:`G(F(b))`.
    """

    a: Tensor
    b: Tensor
    a_to_b: Tensor
    b_to_a: Tensor
    a_to_a: Tensor
    b_to_b: Tensor


def translations(
    model: Program, guide: Program | None, dataset: Unpaired, split: str, count: int = COMPARED
) -> Translations:
    """Translate the first data of a split there and back, on the programs' device.

    Raises:
        UsageError: where there is no program that leads back.
    """
    if guide is None:
        raise UsageError(
            f"{dataset.name} are two domains, and there is no program that leads back: translate by --model cyclegan"
        )
    back: Program = guide

    def translated(program: Program, source: str, target: str, values: Tensor) -> Tensor:
        batches = [{source: part} for part in values.split(BATCH)]
        return over(batches, lambda batch: simulate(program, **batch)[target], model, back)

    a, b = (column[:count] for column in dataset.eval_columns(split).values())
    if not (len(a) and len(b)):
        raise UsageError(f"{dataset.name}: the {split} split has no rows of {'b' if len(a) else 'a'} to translate")
    a_to_b, b_to_a = translated(model, "a", "b", a), translated(back, "b", "a", b)
    return Translations(a, b, a_to_b, b_to_a, translated(back, "b", "a", a_to_b), translated(model, "a", "b", b_to_a))


def figures(found: Translations, spec: DataSpec) -> dict[str, Estimate]:
    r"""Measure how far a datum is from where it began, and translations from the data that they are to look like.

    .. math:: \frac{1}{d} \lVert F(G(a)) - a \rVert_1

    for ``cycle_l1_a``, likewise for ``b``, and the energy distance of :math:`G(a)` to the data ``b`` for
    ``energy_distance_b``, likewise for ``a``; all where bounded data are scaled to :math:`[-1, 1]`. None of them tells
    whether a datum became *the right one* of the other domain.
    """
    cycles = {"a": (found.a, found.a_to_a), "b": (found.b, found.b_to_b)}
    measured = {
        f"cycle_l1_{name}": mean((scaled(x, spec) - scaled(y, spec)).abs().flatten(1).mean(1), "mean |difference|")
        for name, (x, y) in cycles.items()
    }
    return measured | {f"energy_distance_{name}": estimate for name, estimate in distances(found, spec).items()}


def distances(found: Translations, spec: DataSpec) -> dict[str, Estimate]:
    """Return the energy distance of each domain's data to what was translated to it."""
    return {name: evaluation.energy_distance(real, fake) for name, (real, fake) in _compared(found, spec).items()}


def collapse(found: Translations, spec: DataSpec) -> dict[str, float]:
    """Return what tells that translations are all alike, or drop data of their domain: the worse of the two's.

    There is nothing to tell of a handful of data.
    """
    count = min(len(found.a), len(found.b))  # distances to the nearest shrink with their number
    if count < FEWEST:
        return {}
    pairs = [(real[:count], fake[:count]) for real, fake in _compared(found, spec).values()]
    return {
        "spacing": min(evaluation.spacing(real, fake) for real, fake in pairs),
        "coverage": min(evaluation.coverage(real, fake) for real, fake in pairs),
    }


def _compared(found: Translations, spec: DataSpec) -> dict[str, tuple[Tensor, Tensor]]:
    pairs = {"a": (found.a, found.b_to_a), "b": (found.b, found.a_to_b)}
    return {name: (scaled(real, spec), scaled(fake, spec)) for name, (real, fake) in pairs.items()}


def in_rows(columns: int, *series: Tensor) -> Tensor:
    """Lay series of equal length out for a picture: so many of the first in a row, the same of the second below, ...

    Example:
        >>> in_rows(2, torch.arange(4), torch.arange(4) + 10)
        tensor([ 0,  1, 10, 11,  2,  3, 12, 13])
    """
    whole = len(series[0]) // columns * columns or len(series[0])
    parts = [values[:whole].split(min(columns, whole)) for values in series]
    return torch.cat([part for row in zip(*parts, strict=True) for part in row])
