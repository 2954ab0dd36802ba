"""A run on one page."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import torch
from jinja2 import Environment, PackageLoader
from pyro import poutine
from torch import Tensor

from pyrogen import pictures
from pyrogen.card import accepted_columns
from pyrogen.data import Dataset
from pyrogen.evaluation import evaluating
from pyrogen.files import write_file
from pyrogen.loading import load
from pyrogen.programs import simulate
from pyrogen.recipe import Programs, Recipe
from pyrogen.runs import Run
from pyrogen.sites import Generating

__all__ = ["write_report"]

COLUMNS = 10


class Picture(NamedTuple):
    """A picture of the page: where it is kept, and what it shows."""

    name: str
    title: str
    caption: str
    png: bytes

    @property
    def data(self) -> str:
        """The picture in base64, for a page that needs no other file."""
        return base64.b64encode(self.png).decode()


def write_report(path: str | Path) -> Path:
    """Write ``report.html`` and its pictures into a run directory of ``pyrogen train``.

    The page needs no network and no other file. It shows the learning curves, what ``pyrogen evaluate`` found,
    samples, reconstructions, the latent variables, and what is needed to repeat the fit.

    Returns:
        The page's path.

    Raises:
        MissingInputError: where there is no run, or no checkpoint in it.
    """
    run = Run.open(path)
    recipe = Recipe.from_json(run.manifest)
    dataset = recipe.dataset()
    programs = load(run)
    pyro.set_rng_seed(recipe.seed)
    with evaluating(*programs):
        shown = [*_curves(run), *_pictures(programs, dataset)]
    evaluation = run.path / "evaluation.json"
    figures = json.loads(evaluation.read_text())["metrics"] if evaluation.exists() else {}
    environment = Environment(loader=PackageLoader("pyrogen"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template("report.html").render(
        name=run.path.resolve().name,
        recipe=recipe,
        description=dataset.describe(),
        figures=figures,
        pictures=shown,
        settings=_rows(run.manifest),
        versions=run.manifest["versions"],
        command=recipe.command(run.path),
        steps=run.checkpoints()[-1],
    )
    for picture in shown:
        write_file(run.path / f"{picture.name}.png", picture.png)
    write_file(run.path / "report.html", page.encode())
    return run.path / "report.html"


def _curves(run: Run) -> list[Picture]:
    metrics = run.metrics()
    validation = sorted({name for row in metrics for name in row if name.startswith("validation_")})
    found = [
        Picture(
            "loss",
            "Training loss",
            "The objective on training batches, per datum: lower is better.",
            pictures.curves(metrics, ["loss"]),
        )
    ]
    if validation:
        caption = "On held-out data, per datum: higher is better. The best checkpoint is the one that is shown below."
        found.append(Picture("validation", "Validation", caption, pictures.curves(metrics, validation)))
    return found


def _pictures(programs: Programs, dataset: Dataset) -> list[Picture]:
    model, guide = programs
    split = "test" if len(dataset.test["x"]) else "train"
    held_out = dataset.eval_columns(split)
    if "size" not in accepted_columns(model, ["size"]):
        return []
    found = []
    if len(dataset.spec.shape) == 3:
        samples = simulate(model, size=10 * COLUMNS)["x"]
        found.append(_images("samples", "Samples", "Drawn from the model, without data.", samples, dataset))
        if guide is not None:
            found.append(_reconstructions(programs, held_out["x"][:COLUMNS], dataset))
    else:
        samples = simulate(model, size=500)["x"]
        groups = {"data": held_out["x"][:500], "samples": samples}
        caption = "The first two values of held-out data and of draws from the model."
        found.append(Picture("samples", "Samples", caption, pictures.scatter(groups)))
    if guide is not None:
        found += _latents(programs, held_out)
    return found


def _images(name: str, title: str, caption: str, images: Tensor, dataset: Dataset) -> Picture:
    scale = max(1, 72 // dataset.spec.shape[-1])
    return Picture(name, title, caption, pictures.image_grid(images, dataset.spec, COLUMNS, scale))


def _reconstructions(programs: Programs, x: Tensor, dataset: Dataset) -> Picture:
    """Show data, the mean of p(x | z) for one draw of z from the guide, and a draw of x from it."""
    guide_trace = poutine.trace(programs.guide).get_trace(x)
    replayed = Generating()(poutine.replay(programs.model, trace=guide_trace))
    site = poutine.trace(replayed).get_trace(x).nodes["x"]
    rows = torch.cat([x, pictures.expected(site["fn"]), site["value"]])
    caption = "Top: held-out data. Middle: the mean of p(x | z) at one z drawn from the guide. Bottom: a draw from it."
    return _images("reconstructions", "Reconstructions", caption, rows, dataset)


def _latents(programs: Programs, held_out: Mapping[str, Tensor]) -> list[Picture]:
    """Show where the guide puts held-out data, coloured by label where there are labels."""
    count = min(1000, len(held_out["x"]))
    draws = poutine.trace(programs.guide).get_trace(held_out["x"][:count])
    z = next((site["value"] for name, site in draws.nodes.items() if name == "z"), None)
    if z is None or z.shape[-1] < 2:
        return []
    spread = z.var(0).argsort(descending=False)[:2].sort().values
    z = z[:, spread]
    labels = held_out.get("y")
    groups = {"z": z} if labels is None else {f"{c}": z[labels[:count] == c] for c in labels[:count].unique().tolist()}
    axes = [f"latent variable {i}" for i in spread.tolist()]
    caption = (
        "Held-out data in the two latent variables that the guide is surest of, one draw each"
        + ("." if labels is None else ", coloured by label.")
    )  # fmt: skip
    return [Picture("latents", "Latent variables", caption, pictures.scatter(groups, *axes))]


def _rows(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for part in ("model", "objective", "data"):
        rows.append((part, manifest[part]["name"]))
        rows += [(f"{part}: {key}", json.dumps(value)) for key, value in manifest[part]["settings"].items()]
    rows += [(key, json.dumps(value)) for key, value in manifest["training"].items() if value is not None]
    return [*rows, ("seed", str(manifest["seed"])), ("data fingerprint", manifest["fingerprint"][:16])]
