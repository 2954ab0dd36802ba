"""What the command line does, one function a command; each returns what ``--json`` prints."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyrogen  # by its lazy front door: pages bring ArviZ, which no other command should wait for
from pyrogen import catalogue
from pyrogen.arguments import device_of, make_parser, parse
from pyrogen.control_arguments import parse_training
from pyrogen.control_recipe import ControlRecipe
from pyrogen.dataset_evaluation import evaluate_dataset
from pyrogen.dataset_fit import DatasetFit
from pyrogen.detection import outliers
from pyrogen.errors import UsageError
from pyrogen.fitting import fit, tensorboard
from pyrogen.generation import complete, sample
from pyrogen.inference import Training
from pyrogen.kinds import recipe_of
from pyrogen.policy_evaluation import evaluate_policy
from pyrogen.policy_fit import PolicyFit
from pyrogen.recipe import Recipe
from pyrogen.result import Result, say
from pyrogen.runs import Run
from pyrogen.verdict import judge

__all__ = ["COMMANDS"]


def list_(arguments: Sequence[str]) -> Result:
    """List the models, objectives, data sets and environments (beside gymnasium's) that are installed."""
    parser = make_parser("list", str(list_.__doc__))
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout")
    options = parse(parser, arguments)
    plural = {"model": "models", "objective": "objectives", "data": "data", "environment": "environments"}
    found = {plural[kind]: {n: catalogue.describe(kind, n) for n in catalogue.names(kind)} for kind in plural}
    lines = []
    for group, entries in found.items():
        if entries:
            lines += [f"{group}:", *(f"  {name:<22} {text}" for name, text in entries.items()), ""]
    return Result(found, lines[:-1], options["json"])


FITS: dict[type, Any] = {Recipe: DatasetFit, ControlRecipe: PolicyFit}
"""What drives a recipe, by its kind."""


EVALUATIONS = {"recipe": evaluate_dataset, "control": evaluate_policy}
"""What measures a run, by the kind that its manifest says."""


def train(arguments: Sequence[str]) -> Result:
    """Fit a model to data, or a policy in an environment, and keep everything in a run directory."""
    recipe, options = parse_training(arguments)
    with closing(FITS[type(recipe)].begun(recipe)) as started:
        say(started.describe())
        if "note" in options:
            say(options["note"])
        fitted = _built(started, options)  # what is refused leaves no directory behind
        out = Path(options["out"] or f"runs/{recipe.title()}")
        run = Run.create(out, started.manifest(), overwrite=options["overwrite"])
        return _drive(*fitted, run, options, resume=False)


def resume(arguments: Sequence[str]) -> Result:
    """Go on with a run that was stopped, bit for bit as if it had not been."""
    parser = make_parser("resume", str(resume.__doc__))
    parser.add_argument("run", type=str, help="the run directory")
    parser.add_argument("--device", type=str, default=None, help="auto, cpu, cuda or mps (default: as before)")
    parser.add_argument("--track", type=str, default=None, help="tensorboard: write its files into the run, too")
    parser.add_argument("--strict", action="store_true", help="end where an adversarial fit comes to nothing")
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout")
    options = parse(parser, arguments)
    run = Run.open(options["run"])
    recipe = recipe_of(run.manifest)
    if options["device"] is not None:
        recipe = recipe.on(device_of(options["device"]))
    with closing(FITS[type(recipe)].resumed(recipe, run.manifest)) as started:
        return _drive(*_built(started, options), run, options, resume=True)


def _built(started: DatasetFit | PolicyFit, options: Mapping[str, Any]) -> tuple[Training, dict[str, Any]]:
    """Prepare a training, and refuse what cannot be trained."""
    if options["track"] not in (None, "tensorboard"):
        raise UsageError(f"unknown tracker {options['track']!r}: there is tensorboard")
    return started.driven()


def _drive(training: Training, how: Mapping[str, Any], run: Run, options: Mapping[str, Any], resume: bool) -> Result:
    outcome = fit(
        training,
        run,
        **how,
        strict=options["strict"],
        resume=resume,
        show_progress=True,
        track=tensorboard(run.path / "tensorboard") if options["track"] else None,
    )
    if outcome.exit_code:
        say(f"{outcome}; go on with `pyrogen resume {run.path}`")
    values = {"run": str(run.path), "step": outcome.step, "reason": outcome.reason, "best": outcome.best}
    return Result(values, [str(outcome)], options["json"], outcome.exit_code)


def evaluate_(arguments: Sequence[str]) -> Result:
    """Measure a fitted model on held-out data, or a policy in its environment: figures, each with its error bar."""
    runs = [word for word in arguments if (Path(word) / "manifest.json").exists()]
    if not runs and arguments and not arguments[0].startswith("-"):
        runs = [arguments[0]]  # which says that it is not there
    kind = next((Run.open(run).manifest.get("kind", "") for run in runs), "")
    return EVALUATIONS.get(kind, evaluate_dataset)(arguments)


def report(arguments: Sequence[str]) -> Result:
    """Write a run's report.html: curves, figures, samples, reconstructions, settings."""
    parser = make_parser("report", str(report.__doc__))
    parser.add_argument("run", type=str, help="the run directory")
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout")
    options = parse(parser, arguments)
    page = pyrogen.write_report(options["run"])
    return Result({"report": str(page)}, [str(page)], options["json"])


def compare_(arguments: Sequence[str]) -> Result:
    """Put several runs on the same data side by side: a table, and one page."""
    parser = make_parser("compare", str(compare_.__doc__))
    parser.add_argument("runs", type=str, nargs="+", help="run directories that were evaluated")
    parser.add_argument("--out", type=str, default="compare.html", help="the page")
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout")
    options = parse(parser, arguments)
    found = pyrogen.compare(options["runs"], options["out"])
    lines = [str(found.page)]
    for run, values in found.figures.items():
        lines += [
            f"{run}:",
            *(f"  {name:<22} {_decimal(f):>12} {f['unit']}" for name, f in values.items()),
        ]
    for table in found.rankings:
        lines += ["", f"{table.title()}, in {table.unit}:", *table.lines(), *table.notes]
    lines += [""] * bool(found.left_out)
    lines += [f"{run} is in no ranking by likelihood: {why}" for run, why in found.left_out.items()]
    values = {"report": str(found.page), "runs": found.figures, "left_out": found.left_out}
    return Result(values | {"rankings": [table.to_json() for table in found.rankings]}, lines, options["json"])


def _decimal(figure: Mapping[str, Any]) -> str:
    return "not finite" if figure["value"] is None else f"{figure['value']:.4f}"


COMMANDS: dict[str, Callable[[Sequence[str]], Result]] = {
    "list": list_,
    "train": train,
    "resume": resume,
    "sample": sample,
    "complete": complete,
    "outliers": outliers,
    "evaluate": evaluate_,
    "report": report,
    "compare": compare_,
    "judge": judge,
}
