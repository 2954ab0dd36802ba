"""``pyrogen evaluate`` of policies: what whole episodes bring, and how far the policy is from its prior."""

import json
from collections.abc import Sequence
from contextlib import closing

import pyro

from pyrogen.arguments import device_of, make_parser, parse
from pyrogen.control_recipe import ControlRecipe, World, check_seed
from pyrogen.data import Normalized
from pyrogen.errors import UsageError
from pyrogen.evaluation import (
    Episodes,
    Estimate,
    divergence_figures,
    evaluating,
    play,
    return_figures,
    returns_interval,
)
from pyrogen.files import write_file
from pyrogen.loading import load
from pyrogen.policy_fit import staged
from pyrogen.recipe import Programs
from pyrogen.result import Result, figure_lines, say
from pyrogen.runs import Run
from pyrogen.sites import or_nothing

__all__ = ["evaluate_policy", "played", "policy_figures", "stage_of"]

EVALUATION_SEED = 2 << 32
"""Of the environments that policies are evaluated in: the same for all runs, in a stream of its own."""

AT_ONCE = 20
"""How many episodes are played side by side."""


def evaluate_policy(arguments: Sequence[str]) -> Result:
    """Measure a fitted policy: returns of whole episodes, their lengths, entropy, divergence from the prior."""
    parser = make_parser("evaluate", str(evaluate_policy.__doc__))
    parser.add_argument("run", type=str, help="the run directory")
    parser.add_argument("--episodes", type=int, default=100, help="how many are played")
    parser.add_argument(
        "--deterministic", type=bool, default=False, help="play as many by the modes of the policy's actions, too"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the episodes")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout")
    options = parse(parser, arguments)
    if options["episodes"] < 1:
        raise UsageError(f"episodes must be at least 1, found {options['episodes']}")
    check_seed(options["seed"])
    run = Run.open(options["run"])
    recipe = ControlRecipe.from_json(run.manifest).on(device_of(options["device"]))
    programs = load(run, device=recipe.device)
    how = {"": False} | ({"_deterministic": True} if options["deterministic"] else {})
    figures: dict[str, Estimate] = {}
    returns = {}
    for suffix, deterministic in how.items():
        first = EVALUATION_SEED + options["seed"]
        with closing(stage_of(run, recipe, min(options["episodes"], AT_ONCE), first)) as stage:
            episodes = played(programs, stage, options["episodes"], deterministic)
        found = policy_figures(programs, episodes, deterministic)
        if recipe.training.normalize_rewards:
            found.pop("elbo", None)  # its temperature is in the unit of rewards, and it was fitted to another
        figures |= {f"{name}{suffix}": figure for name, figure in found.items()}
        returns[f"returns{suffix}"] = episodes.returns.tolist()
    if recipe.training.normalize_rewards:
        say("no elbo: the policy was fitted to rewards on another scale, which --normalize-rewards went on changing")
    values = {
        "metrics": {name: figure.to_json() for name, figure in figures.items()},
        "split": f"{options['episodes']} episodes from seed {options['seed']}",
        "step": run.chosen(),
    }
    write_file(run.path / "evaluation.json", json.dumps(values | {"pointwise": None} | returns, indent=2).encode())
    return Result(values, figure_lines(figures), options["json"])


def stage_of(run: Run, recipe: ControlRecipe, num_environments: int, seed: int) -> World:
    """Make copies of a run's environment to evaluate in, on the scale of observations that its policy is used to."""
    environment = recipe.environment()
    if isinstance(environment, Normalized) and environment.observations is not None:
        saved = run.restore(run.chosen()).tree["training"]["feed"]["batches"]["recorder"]["environment"]
        environment.observations.load_state_dict(saved["observations"])
    return staged(recipe, environment, num_environments, seed)


def played(programs: Programs, stage: World, num_episodes: int, deterministic: bool) -> Episodes:
    """Let a policy play whole episodes, by the same noise each time."""
    pyro.set_rng_seed(0)
    with evaluating(*programs):
        return play(stage, or_nothing(programs.guide), num_episodes, deterministic=deterministic)


def policy_figures(programs: Programs, episodes: Episodes, deterministic: bool) -> dict[str, Estimate]:
    """Return all figures of a policy; of its modes, what these bring, and no more."""
    found = return_figures(episodes)
    value, low, high, _ = returns_interval([episodes.returns])
    between = None if low is None or high is None else (low, high)
    found["iqm_return"] = Estimate(value, None, "reward", interval=between)
    if deterministic:
        return found
    with evaluating(*programs):
        return found | divergence_figures(programs.model, or_nothing(programs.guide), episodes)
