"""Policies side by side: returns of runs that differ in nothing but their seed, together."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from pyrogen import pictures
from pyrogen.errors import UsageError
from pyrogen.evaluation import Interval, returns_interval
from pyrogen.exhibits import Exhibit
from pyrogen.ranking import aligned
from pyrogen.runs import Run

__all__ = ["STEPS", "PooledReturns", "by_environment_steps", "pooled_returns", "return_curves"]

STEPS = "environment steps"

ALIKE = ("model", "objective", "env", "training")
"""What runs have in common that are pooled."""


class PooledReturns(NamedTuple):
    """Interquartile means of returns, with stratified bootstrap intervals.

    Attributes:
        runs: of each group, by its first run.
        intervals: of their returns.
        notes: what to heed, a sentence each.
    """

    runs: dict[str, list[str]]
    intervals: dict[str, Interval]
    notes: list[str]

    @property
    def unit(self) -> str:
        """What its figures are in."""
        return "the unit of rewards"

    @property
    def head(self) -> Sequence[str]:
        """Name the columns."""
        return ("run", "seeds", "iqm return", "95% interval")

    def title(self) -> str:
        """Say what it is of."""
        return "Returns, runs that differ in their seed alone together"

    def rows(self) -> list[list[str]]:
        """Return the cells of a table, a row for each group of runs, the best first."""
        order = sorted(self.intervals, key=lambda name: -self.intervals[name].value)
        return [
            [", ".join(self.runs[name]), str(len(self.runs[name])), f"{of.value:.4f}", _between(of)]
            for name in order
            for of in (self.intervals[name],)
        ]

    def lines(self) -> list[str]:
        """Return the table as text, its columns one below the other."""
        return aligned(self.head, self.rows())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        groups = [{"runs": self.runs[name]} | of._asdict() for name, of in self.intervals.items()]
        return {"figure": "iqm_return", "unit": "reward", "groups": groups, "notes": self.notes}


def pooled_returns(runs: Mapping[str, Run], returns: Mapping[str, Sequence[float]]) -> PooledReturns:
    """Put an interval around the returns of each group of runs that differ in nothing but their seed.

    A run's score is its mean return, and scores of different seeds are resampled. Of a single run there are only its
    episodes, whose interval says nothing of another seed.

    Raises:
        UsageError: where two of a group have one seed: these are one run, and no two draws of what seeds may bring.
    """
    groups: dict[str, list[str]] = {}
    for name, run in runs.items():
        groups.setdefault(json.dumps([run.manifest[key] for key in ALIKE], sort_keys=True), []).append(name)
    found = {names[0]: names for names in groups.values()}
    intervals = {}
    for first, names in found.items():
        if len({runs[name].manifest["seed"] for name in names}) < len(names):
            raise UsageError(
                f"among {', '.join(names)} are two with the same settings and the same seed, which would count one run "
                f"twice: leave one out, or train with another --seed"
            )
        episodes = [torch.tensor(returns[name], dtype=torch.float64) for name in names]
        scores = torch.stack([of.mean() for of in episodes]) if len(names) > 1 else episodes[0]
        intervals[first] = returns_interval([scores])
    notes = ["Interquartile means: what is left without the lowest and the highest quarter."]
    if any(len(names) > 1 for names in found.values()):
        notes.append("Of several seeds, the mean returns of runs are resampled: other seeds would lie so.")
    if any(len(names) == 1 for names in found.values()):
        notes.append("Of one seed, its episodes are resampled: that says nothing of what another seed learns.")
    return PooledReturns(found, intervals, notes)


def _between(found: Interval) -> str:
    return "" if found.low is None else f"{found.low:.4f} to {found.high:.4f}"


def return_curves(runs: Mapping[str, Run]) -> list[Exhibit]:
    """Draw the validation returns of all runs together."""
    curves = {name: by_environment_steps(run.metrics(), "validation_mean_return") for name, run in runs.items()}
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return []
    caption = "Mean returns of validation episodes, which begin alike in all runs: higher is better."
    return [Exhibit("validation", "Learning curves", caption, pictures.curves(curves, "return", STEPS))]


def by_environment_steps(metrics: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """List a figure with how many steps environments had taken when it was noted."""
    taken = {row["step"]: row[key] for row in metrics if row.get(key := "environment_steps") is not None}
    found = {taken[row["step"]]: row[name] for row in metrics if row.get(name) is not None and row["step"] in taken}
    return sorted(found.items())
