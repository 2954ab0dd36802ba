"""One side of a report card, and the programs and data that it is of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from pyrogen.card import Roles, accepted_columns, batches_of, roles_of
from pyrogen.data import Batches, Dataset, known_labels
from pyrogen.errors import PyrogenError
from pyrogen.evaluation import Estimate
from pyrogen.sites import Program

__all__ = ["Axis", "Fitted"]


@dataclass
class Axis:
    """One side of what a fitted program is good for.

    Attributes:
        name: likelihood, samples, representation or calibration.
        figures: by name.
        references: what a figure is elsewhere: of training data in the place of draws, of data in the place of codes,
            of forecasts and posteriors that are right.
        notes: a sentence for what has no figure.
    """

    name: str
    figures: dict[str, Estimate] = field(default_factory=dict)
    references: dict[str, Estimate] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, figure: Estimate, reference: Estimate | None = None) -> None:
        """Put a figure down, and what it is elsewhere."""
        self.figures[name] = figure
        if reference is not None:
            self.references[name] = reference

    def measure(self, name: str, compare: Callable[..., Estimate], real: Tensor, fake: Tensor, *seen: Tensor) -> None:
        """Put down how draws compare with data, and how training data do, or why they cannot be compared."""
        try:
            self.add(name, compare(real, fake), *(compare(real, others) for others in seen))
        except PyrogenError as error:
            self.notes.append(f"{name}: {error}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; figures by name alone, since they stand with all others."""
        references = {name: estimate.to_json() for name, estimate in self.references.items()}
        return {"figures": list(self.figures), "references": references, "notes": self.notes}


@dataclass(frozen=True)
class Fitted:
    """Fitted programs and held-out data; the guide is left out where it did not learn."""

    model: Program
    guide: Program | None
    dataset: Dataset
    split: str
    batch_size: int

    @cached_property
    def batches(self) -> Batches:
        return batches_of(self.model, self.dataset, self.split, self.batch_size)

    @cached_property
    def roles(self) -> Roles:
        return roles_of(self.model, self.batches, self.guide)

    def seen(self, program: Program, count: int) -> Batches:
        """Return so many training data at most, for a program: of those that have labels, where it takes these."""
        takes_labels = bool(accepted_columns(program, ["y"]))
        dataset = known_labels(self.dataset) if takes_labels else self.dataset
        return batches_of(program, dataset, "train", self.batch_size, count)
