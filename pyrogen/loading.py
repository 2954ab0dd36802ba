"""Fitted programs back from a run directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyrogen.data import Dataset, Unpaired
from pyrogen.distributions import is_implicit
from pyrogen.errors import CorruptCheckpointError, ProgramError
from pyrogen.inference import Objective
from pyrogen.kinds import recipe_of
from pyrogen.parameters import check_one_device, program_parameters, take_state
from pyrogen.recipe import Programs, Recipe
from pyrogen.rehearsal import rehearsal
from pyrogen.runs import Run
from pyrogen.sites import Program, or_nothing, sample_sites

__all__ = ["load", "load_objective"]

DTYPES = {str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}


def load(
    run: str | Path | Run,
    model: Program | None = None,
    guide: Program | None = None,
    *,
    step: int | None = None,
    device: str = "cpu",
) -> Programs:
    """Return the programs of a run with the parameters that were fitted.

    Args:
        run: a run directory.
        model: for a run of the user's own programs: the model, built as it was for the fit. Its parameters, those of
            ``pyro.param`` and ``pyro.module`` included, take the saved values.
        guide: likewise.
        step: which checkpoint; if not given, the best one by validation, or else the newest. Where a moving average of
            the parameters was kept, it is what is loaded.
        device: where the programs shall be (for programs of the catalogue).

    Raises:
        MissingInputError: where there is no such run or checkpoint.
        CorruptCheckpointError: where it is damaged.
        ProgramError: where the saved parameters belong to other programs, with the differences.

    Example:
        >>> import tempfile, pyrogen, pyro.distributions as dist
        >>> def model(): pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), obs=torch.tensor(2.0))
        >>> run = pyrogen.Run.create(tempfile.mkdtemp(), {"note": "my own model"})
        >>> sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.5)
        >>> objective = pyrogen.MaximumLikelihood()
        >>> outcome = pyrogen.fit(pyrogen.train(objective, model, None, None, sgd, num_steps=9), run)
        >>> pyro.clear_param_store()
        >>> _ = load(run.path, model)
        >>> round(pyro.param("loc").item(), 2)
        2.0
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if model is None:
        model, guide = recipe_of(run.manifest).on(device).programs_of(run.manifest)
    checkpoint = run.restore(run.chosen() if step is None else step)
    try:
        state = checkpoint.tree["training"]
        saved = dict(state["programs"]) | dict(state["player"]["average"])
        example = state["example"]
    except (TypeError, KeyError) as error:
        raise CorruptCheckpointError(
            f"checkpoint {checkpoint.step} of {run.path} does not hold a training's state ({error}); save "
            f"{{'training': training.state_dict()}}, as pyrogen.fit does"
        ) from error
    parameters = _created(model, guide, example)
    take_state((model, guide), parameters, saved)
    return Programs(model, guide)


def load_objective(run: Run, recipe: Recipe, dataset: Dataset | Unpaired, programs: Programs) -> Objective:
    """Return the objective that a run's programs were fitted by, with its critics as they were at their checkpoint."""
    objective = recipe.objective_of(dataset, programs)
    state = run.restore(run.chosen()).tree["training"]["objective"]
    objective.load_state_dict({name: value.to(recipe.device) for name, value in state.items()})
    return objective


def _created(model: Program, guide: Program | None, example: Mapping[str, Any]) -> dict[str, Tensor]:
    """Run the programs once on zeros of the right shape, so that autoguides and functions make their parameters."""
    device = check_one_device(model, guide)
    args = [_zeros(value, device) for value in example["args"]]
    kwargs = {name: _zeros(value, device) for name, value in example["kwargs"].items()}

    def run() -> Tensor:
        guide_trace = poutine.trace(or_nothing(guide)).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
        return sum(map(_visited, (*sample_sites(guide_trace), *sample_sites(model_trace))), torch.zeros(()))

    with rehearsal(), pyro.validation_enabled(False):
        try:
            return program_parameters((model, guide), run)[0]
        except TypeError as error:
            raise ProgramError(
                f"the run was fitted with batches of {_described(example)}, which these programs do not take "
                f"({error}). Pass the model and the guide that it was fitted with."
            ) from error


def _visited(site: dict[str, Any]) -> Tensor:
    """Let a site meet all parameters that it uses: score its value, or draw where there is no density."""
    fn = site["fn"]
    return fn.rsample().sum() if is_implicit(fn) else fn.log_prob(site["value"]).sum()


def _described(example: Mapping[str, Any]) -> str:
    parts = [str(value.get("shape", value) if isinstance(value, dict) else value) for value in example["args"]]
    named = example["kwargs"].items()
    parts += [f"{name}={value.get('shape', value) if isinstance(value, dict) else value}" for name, value in named]
    return f"({', '.join(parts)})"


def _zeros(value: Any, device: torch.device | None) -> Any:
    if isinstance(value, dict):
        return torch.zeros(value["shape"], dtype=DTYPES[value["dtype"]], device=device)
    return value
