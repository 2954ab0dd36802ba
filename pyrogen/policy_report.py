"""What a report shows of a policy: how it learned, what it gets, how it acts, and an episode."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyro
import torch
from PIL import Image

from pyrogen import pictures
from pyrogen.analysis import to_arviz
from pyrogen.control_recipe import ControlRecipe
from pyrogen.evaluation import evaluating, play
from pyrogen.exhibits import Exhibit, loss_curves
from pyrogen.inferencedata import write_netcdf
from pyrogen.loading import load
from pyrogen.page import Content, Table, cells, evaluation
from pyrogen.policy_comparison import STEPS, by_environment_steps
from pyrogen.policy_evaluation import AT_ONCE, EVALUATION_SEED, played, stage_of
from pyrogen.recipe import Programs
from pyrogen.rehearsal import rehearsal
from pyrogen.runs import Run
from pyrogen.sites import or_nothing
from pyrogen.spec import DataSpec

__all__ = ["policy_content"]

FRAMES, WIDTH = 8, 150
"""How many pictures of an episode are shown, and how wide these are, in pixels."""


def policy_content(run: Run) -> Content:
    """Put together what there is to say of a policy, and write ``posterior.nc``: its actions in states of episodes."""
    recipe, programs = ControlRecipe.from_json(run.manifest), load(run)
    metrics = run.metrics()
    data = to_arviz(run, num_samples=200)
    write_netcdf(data, run.path / "posterior.nc")
    strip, note = _episode(run, recipe, programs)
    shown = [*_curves(metrics), *_returns(run, recipe, programs), *_actions(data), *strip]
    shown += [exhibit for exhibit in loss_curves(metrics) if exhibit.name != "validation"]  # a return, shown above
    lead = f"{recipe.model.name} fitted by {recipe.objective.name} in {recipe.env.name}."
    trained = max((row["environment_steps"] for row in metrics if row.get("environment_steps")), default=0)
    lead += f" {trained:,} environment steps in {run.checkpoints()[-1]:,} rounds."
    further = [] if strip else [Table("An episode", (), (), note)]
    return Content(lead, recipe.command(run.path), _figures(run), shown, further)


def _figures(run: Run) -> Table:
    found = evaluation(run)
    if not found.figures:
        return Table("Figures", (), (), f"None yet: run `pyrogen evaluate {run.path}`, then `pyrogen report` again.")
    rows = []
    for name, figure in found.figures.items():
        between = "{:.4f} to {:.4f}".format(*figure["interval"]) if figure.get("interval") else ""
        rows.append([name, *cells(figure), between, figure["unit"]])
    return Table(f"Figures of {found.split}", ("figure", "value", "± s.e.", "95% interval", "unit"), rows)


def _curves(metrics: Sequence[Mapping[str, Any]]) -> list[Exhibit]:
    """Draw what was measured while it learned, by the steps of the environments until then."""
    of = partial(by_environment_steps, metrics)
    returns = {"validation": of("validation_mean_return"), "training": of("training_return")}
    nats = {"entropy": of("entropy"), "KL to the prior": of("kl_to_prior")}
    learning = (
        "Mean returns of episodes that were played for validation, always from the same beginnings, and of the latest "
        "episodes of training. The best checkpoint by validation is the one that is shown here."
    )
    apart = "How much the policy leaves to chance, and how far it is from the prior policy, in validation."
    drawn = [
        ("returns_curve", "Learning curve", learning, returns, "return"),
        ("divergence", "Entropy and divergence", apart, nats, "nats a step"),
    ]
    shown = []
    for name, title, caption, series, unit in drawn:
        if found := {label: points for label, points in series.items() if points}:
            shown.append(Exhibit(name, title, caption, pictures.curves(found, unit, STEPS)))
    return shown


def _returns(run: Run, recipe: ControlRecipe, programs: Programs) -> list[Exhibit]:
    returns = list(evaluation(run).returns)
    if not returns:
        with rehearsal(), closing(stage_of(run, recipe, AT_ONCE, EVALUATION_SEED)) as stage:
            returns = played(programs, stage, AT_ONCE, False).returns.tolist()
    caption = f"The returns of {len(returns)} episodes that begin as none of training did."
    return [Exhibit("returns", "Returns", caption, pictures.histogram(returns, "return"))]


def _actions(data: Any) -> list[Exhibit]:
    """Show which actions the policy takes in all states together, beside those of the prior."""
    groups = {"policy": data["posterior"]["action"].values, "prior": data["prior"]["action"].values}
    caption = (
        f"Actions in {groups['policy'].shape[3]} states of its episodes, and those of the prior; posterior.nc has the "
        f"draws in each state."
    )
    return [Exhibit("actions", "Actions", caption, pictures.shares(groups, "action"))]


def _episode(run: Run, recipe: ControlRecipe, programs: Programs) -> tuple[list[Exhibit], str]:
    """Draw an episode, or say why it cannot be drawn."""
    settings = recipe.env.settings | {"render_mode": "rgb_array"}
    drawn = replace(recipe, env=replace(recipe.env, settings=settings))
    frames: list[np.ndarray] = []
    try:
        stage = stage_of(run, drawn, 1, EVALUATION_SEED)
        copies: Any = getattr(stage, "environment", stage)
        with _headless(), rehearsal(), evaluating(*programs), closing(stage):
            pyro.set_rng_seed(0)
            found = play(stage, or_nothing(programs.guide), 1, watch=lambda: frames.append(_small(copies.render()[0])))
    except Exception as error:  # whatever an environment's own drawing raises, and what it needs that is not there
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return [], f"{recipe.env.name} could not be drawn: {reason}."
    chosen = np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)
    images = torch.from_numpy(np.stack([frames[i] for i in chosen]).transpose(0, 3, 1, 2).copy())
    spec = DataSpec(tuple(images.shape[1:]), "levels", levels=256)
    caption = (
        f"An episode of {len(frames)} steps and return {float(found.returns[0]):.1f}: before steps "
        f"{', '.join(str(i + 1) for i in chosen)}."
    )
    return [Exhibit("episode", "An episode", caption, pictures.image_grid(images, spec, 4, 1))], ""


@contextmanager
def _headless() -> Iterator[None]:
    """Let SDL, which draws many environments, do without a screen, unless it was told of one."""
    was = os.environ.get("SDL_VIDEODRIVER")
    os.environ["SDL_VIDEODRIVER"] = was or "dummy"
    try:
        yield
    finally:
        if was is None:
            del os.environ["SDL_VIDEODRIVER"]


def _small(frame: np.ndarray) -> np.ndarray:
    height = max(1, round(frame.shape[0] * WIDTH / frame.shape[1]))
    return np.asarray(Image.fromarray(frame).convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS))
