"""Several runs on the same data side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyro

from pyrogen import pictures
from pyrogen.data import Corpus, Text
from pyrogen.errors import UsageError
from pyrogen.evaluation import evaluating
from pyrogen.exhibits import Exhibit, exhibits
from pyrogen.files import write_file
from pyrogen.loading import load
from pyrogen.page import Evaluation, Table, evaluation, render
from pyrogen.policy_comparison import PooledReturns, pooled_returns, return_curves
from pyrogen.ranking import HEAD, Ranking, rankings
from pyrogen.recipe import Recipe
from pyrogen.rehearsal import rehearsal
from pyrogen.runs import Run

__all__ = ["Comparison", "compare"]

Figures = dict[str, dict[str, Any]]


class Comparison(NamedTuple):
    """Several runs side by side.

    Attributes:
        page: the path of the page.
        figures: each run's figures, by run and name.
        rankings: of runs by the log-likelihood of the same held-out data, one for each density; of policies, their
            returns, those of runs that differ in nothing but their seed together.
        left_out: of the runs that are in none of them, why.
    """

    page: Path
    figures: dict[str, Figures]
    rankings: Sequence[Ranking | PooledReturns]
    left_out: dict[str, str]


def compare(paths: Sequence[str | Path], out: str | Path) -> Comparison:
    """Write one page about several runs: figures side by side, curves together, samples one below the other.

    Runs with a log-likelihood of each datum, exact or bounded from below, are ranked by ArviZ's ``compare``, see
    :func:`pyrogen.inferencedata.standings`.

    Args:
        paths: run directories of ``pyrogen train`` that ``pyrogen evaluate`` has measured.
        out: the page.

    Returns:
        What is on it.

    Raises:
        UsageError: where there are fewer than two runs, one was not evaluated, or they were fitted to different data.
    """
    if len(paths) < 2:
        raise UsageError(f"comparing takes two runs or more, found {len(paths)}: `pyrogen report RUN` is of one")
    runs = _named([Run.open(path) for path in paths])
    if len({run.manifest.get("fingerprint") for run in runs.values()}) > 1:
        raise UsageError(f"{', '.join(runs)} were fitted to different data: their figures cannot be compared")
    evaluations = {name: evaluation(run) for name, run in runs.items()}
    for name, found in evaluations.items():
        if not found.figures:
            raise UsageError(f"{name} has no figures yet: run `pyrogen evaluate {runs[name].path}` first")
    splits = {found.split for found in evaluations.values()}
    if len(splits) > 1:
        raise UsageError(
            f"the runs were evaluated on different splits ({', '.join(sorted(splits))}): evaluate them alike"
        )
    figures = {name: found.figures for name, found in evaluations.items()}
    split = splits.pop()
    is_control = any(run.manifest.get("kind") == "control" for run in runs.values())
    beside = (_of_policies if is_control else _of_models)(runs, evaluations, split)
    lead, note, ranked, left_out, shown = beside
    tables = [_table(figures, note), *_ranked(ranked, left_out)]
    write_file(Path(out), render(" · ".join(runs), lead, tables, shown))
    return Comparison(Path(out), figures, ranked, left_out)


class Beside(NamedTuple):
    """What there is to say of several runs of one kind."""

    lead: str
    note: str
    ranked: Sequence[Ranking | PooledReturns]
    left_out: dict[str, str]
    shown: list[Exhibit]


def _of_models(runs: Mapping[str, Run], evaluations: Mapping[str, Evaluation], split: str) -> Beside:
    ranked, left_out = rankings({name: found.pointwise for name, found in evaluations.items()}, split)
    samples = [exhibit for name, run in runs.items() for exhibit in _samples(name, run)]
    lead, note = f"{len(runs)} runs on the same data.", f"Value ± standard error on the {split} data."
    return Beside(lead, note, ranked, left_out, _validation(runs) + samples)


def _of_policies(runs: Mapping[str, Run], evaluations: Mapping[str, Evaluation], split: str) -> Beside:
    pooled = pooled_returns(runs, {name: found.returns for name, found in evaluations.items()})
    lead = f"{len(runs)} runs in the same environment."
    note = f"Value ± standard error over the {split} of each run, which begin alike in all."
    return Beside(lead, note, [pooled], {}, return_curves(runs))


def _named(runs: Sequence[Run]) -> dict[str, Run]:
    """Call each run by its folder, or by as much of its path as tells it from the others."""
    paths = [run.path.resolve() for run in runs]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return dict(zip(names, runs, strict=True))
    raise UsageError(f"the same run is given twice: {', '.join(map(str, paths))}")


def _table(figures: Mapping[str, Figures], note: str) -> Table:
    units = {key: figure["unit"] for found in figures.values() for key, figure in found.items()}
    rows = [[name, *(_cell(found.get(key)) for key in units)] for name, found in figures.items()]
    head = ["run", *(key.replace("_", " ") + ("" if "per_dim" in key else f", {unit}") for key, unit in units.items())]
    return Table("Figures", head, rows, note)


def _ranked(ranked: Sequence[Ranking | PooledReturns], left_out: Mapping[str, str]) -> list[Table]:
    """Tell of each ranking, and in the first of who is in none."""
    reasons = [f"{name} is in no ranking: {why}." for name, why in left_out.items()]
    tables = [Table(of.title(), of.head, of.rows(), " ".join(of.notes)) for of in ranked]
    if not tables:
        return [Table("Likelihood", (), (), " ".join(reasons))]
    rows = [[name, *["—"] * (len(HEAD) - 1)] for name in left_out]
    first = tables[0]
    return [first._replace(rows=[*first.rows, *rows], note=" ".join([first.note, *reasons])), *tables[1:]]


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "—"
    stderr = "" if figure["stderr"] is None else f" ± {figure['stderr']:.4f}"
    return "not finite" if figure["value"] is None else f"{figure['value']:.4f}{stderr}"


def _validation(runs: Mapping[str, Run]) -> list[Exhibit]:
    curves = {}
    for name, run in runs.items():
        rows = run.metrics()
        points = [(r["step"], v) for r in rows for k, v in r.items() if k.startswith("validation_") and v is not None]
        if points:
            curves[name] = points
    if not curves:
        return []
    return [Exhibit("validation", "Validation", "On held-out data: higher is better.", pictures.curves(curves))]


def _samples(name: str, run: Run) -> list[Exhibit]:
    """Draw what a run draws; documents and texts are no pictures."""
    programs, recipe = load(run), Recipe.from_json(run.manifest)
    dataset = recipe.dataset_of(run.manifest)
    if isinstance(dataset, Corpus | Text):
        return []
    with rehearsal(), evaluating(*programs):
        pyro.set_rng_seed(recipe.seed)
        found = [exhibit for exhibit in exhibits(programs, dataset) if exhibit.name == "samples"]
    return [e._replace(title=f"Samples of {name}", name=f"samples-{name}".replace("/", "-")) for e in found]
