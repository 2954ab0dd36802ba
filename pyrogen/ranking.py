"""Runs in the order of what they say of the same held-out data."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pyrogen.inferencedata import Standing, standings
from pyrogen.pointwise import EXACT, Pointwise

__all__ = ["HEAD", "Ranking", "aligned", "rankings"]

HEAD = ("run", "rank", "elpd, nats", "± s.e.", "beside the best", "± s.e.", "weight", "by")


class Ranking(NamedTuple):
    """Runs that are ranked by the log-likelihood of the same data.

    Attributes:
        density: of what, such as ``x`` or ``y given x``.
        split: of which data.
        num_data: how many.
        standings: by run, the best first.
        pointwise: what they were found by, by run.
        notes: what to heed, a sentence each.
    """

    density: str
    split: str
    num_data: int
    standings: dict[str, Standing]
    pointwise: dict[str, Pointwise]
    notes: list[str]

    @property
    def unit(self) -> str:
        """What its figures are in."""
        return "nats"

    @property
    def head(self) -> Sequence[str]:
        """Name the columns."""
        return HEAD

    def title(self) -> str:
        """Say what it is of."""
        return f"log p({self.density}) of the {self.num_data:,} {self.split} data, summed"

    def rows(self) -> list[list[str]]:
        """Return the cells of a table, a row for each run."""
        return [
            [
                name,
                str(of.rank),
                *(f"{value:.2f}" for value in (of.elpd, of.se, of.elpd_diff, of.dse)),
                f"{of.weight:.3f}",
                _how(self.pointwise[name]),
            ]
            for name, of in self.standings.items()
        ]

    def lines(self) -> list[str]:
        """Return the table as text, its columns one below the other."""
        return aligned(self.head, self.rows())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; ``elpd`` and what belongs to it are totals over the data."""
        runs = {name: of._asdict() | {"figure": self.pointwise[name].figure} for name, of in self.standings.items()}
        about = {"density": self.density, "split": self.split, "num_data": self.num_data, "unit": "nats, total"}
        return about | {"runs": runs, "notes": self.notes}


def rankings(found: Mapping[str, Mapping[str, Any] | None], split: str) -> tuple[list[Ranking], dict[str, str]]:
    """Rank runs by their log-likelihoods, those with those of the same density.

    Args:
        found: run to what was kept of it, see :class:`~pyrogen.page.Evaluation`, all of the same data in their order.
        split: of which data.

    Returns:
        Rankings of two runs or more, and why others are in none.
    """
    left_out: dict[str, str] = {}
    groups: dict[tuple[str, int], dict[str, Pointwise]] = {}
    for name, fields in found.items():
        if not fields:
            left_out[name] = (
                "its draws have no density, or depend on one another as the characters of a text do, so that there is "
                "no log-likelihood of each datum"
                if fields is None
                else "it was evaluated before log-likelihoods were kept datum by datum; run `pyrogen evaluate` again"
            )
            continue
        pointwise = Pointwise.from_json(fields)
        if unfit := pointwise.values.count(None):
            left_out[name] = f"the log-likelihood of {unfit} of {len(pointwise.values)} data is not finite"
            continue
        groups.setdefault((pointwise.density, len(pointwise.values)), {})[name] = pointwise
    ranked = []
    for (density, num_data), group in groups.items():
        if len(group) < 2 or num_data < 2:
            left_out |= dict.fromkeys(group, f"there is no other whose log p({density}) is known of the same data")
            continue
        order = standings({name: np.array(of.values) for name, of in group.items()})
        ranked.append(Ranking(density, split, num_data, order, group, _notes(order, group, split)))
    return ranked, left_out


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as text, its columns one below the other."""
    cells = [list(head), *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  " + "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(paired))
        for paired in (list(zip(row, widths, strict=True)) for row in cells)
    ]


def _how(pointwise: Pointwise) -> str:
    drawn = "" if pointwise.num_particles is None else f", {pointwise.num_particles} draws"
    return f"{pointwise.figure}{drawn}"


def _notes(order: Mapping[str, Standing], group: Mapping[str, Pointwise], split: str) -> list[str]:
    notes = [
        "Differences have standard errors of their own, since all runs are measured on the same data; weights are "
        "those of the mixture of all that predicts these data best.",
        "Errors are over data and not over fits: another seed gives another fit.",
    ]
    if split == "train":
        notes.append("These are the data that the models were fitted to: a better value may be no better model.")
    if predictive := [name for name in order if group[name].figure == "log_predictive"]:
        notes.append(
            f"Errors of {', '.join(predictive)}, and of differences from these, leave out that of the draws of "
            f"latents, which data share: other draws move their values together. More particles make it smaller."
        )
    bounds = [name for name in order if group[name].figure != EXACT]
    if bounds:
        others = "other bounds" if len(bounds) == len(order) else "exact values"
        notes.append(
            f"Bounds from below, of {', '.join(bounds)}, stand beside {others}: such a run's log-likelihood is higher "
            f"by a gap that is not known, and where a run is behind by less than its gap, it is not known which is "
            f"better. More particles make gaps smaller."
        )
    return notes
