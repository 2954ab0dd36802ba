"""``pyrogen evaluate`` of models of data."""

import json
from collections.abc import Sequence

import pyro

from pyrogen.arguments import device_of, make_parser, parse
from pyrogen.card import Annealing, evaluate
from pyrogen.files import write_file
from pyrogen.loading import load, load_objective
from pyrogen.pointwise import pointwise_of
from pyrogen.recipe import Recipe
from pyrogen.report_card import report_card
from pyrogen.result import Result, figure_lines
from pyrogen.runs import Run

__all__ = ["evaluate_dataset"]


def evaluate_dataset(arguments: Sequence[str]) -> Result:
    """Measure a fitted model on held-out data: bounds in nats and bits/dim, accuracy, each with its error bar."""
    parser = make_parser("evaluate", str(evaluate_dataset.__doc__))
    parser.add_argument("run", type=str, help="the run directory")
    parser.add_argument("--split", type=str, default="test", help="train, validation or test")
    parser.add_argument("--num_particles", type=int, default=100, help="of the importance-weighted bound")
    parser.add_argument(
        "--ais_steps", type=int, default=None, help="also estimate the evidence by annealing, in so many steps, say 500"
    )
    parser.add_argument("--ais_chains", type=int, default=16, help="for each datum, where the evidence is annealed")
    parser.add_argument(
        "--noise", type=float, default=None, help="its scale, where the evidence of an implicit model is annealed"
    )
    parser.add_argument("--ais_data", type=int, default=100, help="so many of the data, where the evidence is annealed")
    parser.add_argument(
        "--dynamic_rate", type=float, default=None, help="of text: of the steps of dynamic evaluation, such as 0.0005"
    )
    parser.add_argument(
        "--dynamic_decay", type=float, default=0.0, help="of text: the pull back after each of them, such as 0.01"
    )
    parser.add_argument(
        "--all", action="store_true", help="fill in a report card: likelihood, samples, representation, calibration"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout")
    options = parse(parser, arguments)
    steps, *lengths = (options[name] for name in ("ais_steps", "ais_chains", "ais_data", "noise"))
    annealing = None if steps is None else Annealing(steps, *lengths)
    run = Run.open(options["run"])
    recipe = Recipe.from_json(run.manifest).on(device_of(options["device"]))
    dataset = recipe.dataset_of(run.manifest)
    programs = load(run, device=recipe.device)
    objective = load_objective(run, recipe, dataset, programs)
    pyro.set_rng_seed(recipe.seed)
    figures = evaluate(
        *programs,
        dataset,
        options["split"],
        options["num_particles"],
        by_samples=objective.by_samples,
        objective=objective,
        annealing=annealing,
        dynamic_rate=options["dynamic_rate"],
        dynamic_decay=options["dynamic_decay"],
    )
    axes = report_card(*programs, dataset, options["split"], figures, objective) if options["all"] else []
    figures |= {name: figure for axis in axes for name, figure in axis.figures.items()}
    values = {"metrics": {name: estimate.to_json() for name, estimate in figures.items()}, "split": options["split"]}
    values |= {"axes": {axis.name: axis.to_json() for axis in axes}} if axes else {}
    values["step"] = run.chosen()
    pointwise = pointwise_of(*programs, dataset, options["split"], figures)
    kept = values | {"pointwise": None if pointwise is None else pointwise._asdict()}
    write_file(run.path / "evaluation.json", json.dumps(kept, indent=2).encode())
    return Result(values, figure_lines(figures, axes), options["json"])
