"""A fit of a policy in an environment, ready to be driven."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any, NamedTuple

from pyrogen.control_recipe import ControlRecipe, World
from pyrogen.data import Normalized
from pyrogen.errors import ProgramError
from pyrogen.evaluation import Episodes, divergence_figures, evaluating, play, return_figures
from pyrogen.inference import Training
from pyrogen.parameters import modules_of
from pyrogen.recipe import Programs
from pyrogen.rehearsal import rehearsal
from pyrogen.sites import or_nothing

__all__ = ["PolicyFit", "staged"]

VALIDATION_SEED = 1 << 32
"""Of the environments that policies are validated in: the same for all runs, in a stream that none learns in."""

LATEST = 20
"""How many of the latest episodes of training are averaged for a line of metrics."""


class PolicyFit(NamedTuple):
    """A recipe with its environment and programs.

    Attributes:
        recipe: what to do.
        environment: where the policy learns.
        programs: the model, and the policy, which is its guide, with fresh parameters.
    """

    recipe: ControlRecipe
    environment: World
    programs: Programs

    @classmethod
    def begun(cls, recipe: ControlRecipe) -> "PolicyFit":
        """Make the environment and build the programs for a new run."""
        environment = recipe.environment()
        programs = recipe.programs(environment.spec)
        return cls(recipe.decided(environment.spec, programs), environment, programs)

    @classmethod
    def resumed(cls, recipe: ControlRecipe, manifest: Mapping[str, Any]) -> "PolicyFit":
        """Make the environment of a run, refuse one that is another by now, and build the programs."""
        environment = recipe.environment()
        found, expected = environment.spec.to_json(), manifest["spec"]
        if found != expected:
            raise ProgramError(
                f"{recipe.env.name} is not the environment that the run was fitted in: that had {expected}, and it has "
                f"{found}. Bring the old version back, or start a new run."
            )
        return cls(recipe, environment, recipe.programs(environment.spec))

    def describe(self) -> str:
        """Say what it learns from."""
        spec, count = self.environment.spec, self.environment.num_environments
        seen = f"{spec.num_observations} observations"
        if spec.num_observations is None:
            seen = f"observations of shape {spec.observation_shape}"
        acts = f"{spec.num_actions} actions" if spec.num_action_dims is None else f"actions in {spec.num_action_dims}d"
        return f"{spec.name}: {seen}, {acts}; {count} {'copy' if count == 1 else 'copies'}"

    def manifest(self) -> dict[str, Any]:
        """Return the manifest of its run."""
        return self.recipe.to_json(self.environment.spec)

    def driven(self) -> tuple[Training, dict[str, Any]]:
        """Return the training, and how :func:`~pyrogen.fitting.fit` is to drive it."""
        settings, pace = self.recipe.training, self.recipe.pace
        training = self.recipe.fit(self.environment, self.programs)
        watch = Watch(self, training.feed.batches)
        with rehearsal(modules_of(*self.programs).values()):
            watch.validate()
            watch.inspect()  # what cannot be played or measured is refused now, and not after some hundred rounds
        in_batch = settings.batch_size
        if self.recipe.learns_from == "recordings":
            in_batch = pace.num_environments * pace.recording_steps // settings.minibatches
        return training, {
            "validate": watch.validate,
            "inspect": watch.inspect,
            "figures": watch.figures,
            "evaluate_every": pace.in_rounds(settings.evaluate_every or settings.steps // 20),
            "log_every": pace.in_rounds(settings.log_every or settings.steps // 200),
            "patience": settings.patience,
            "unit": "round",
            "per_datum": training.objective.sums_over_data and in_batch,
        }

    def close(self) -> None:
        """Close the environment."""
        self.environment.close()


class Watch:
    """Looks at how a policy does while it learns."""

    def __init__(self, fit: PolicyFit, batches: Any) -> None:
        self.fit, self.batches = fit, batches
        self.played: Episodes | None = None

    def validate(self) -> tuple[str, float]:
        """Play a few episodes in copies of the environment, which begin as they did the last time."""
        recipe, environment, programs = self.fit
        count = recipe.training.evaluation_episodes
        with evaluating(*programs), closing(staged(recipe, environment, count, VALIDATION_SEED)) as world:
            self.played = play(world, or_nothing(programs.guide), count, deterministic=recipe.training.deterministic)
        return "mean_return", float(self.played.returns.mean())

    def inspect(self) -> dict[str, float]:
        """Say more of the episodes that were just played."""
        assert self.played is not None
        model, guide = self.fit.programs
        with evaluating(model, guide):
            found = divergence_figures(model, or_nothing(guide), self.played)
        kept = {name: found[name].value for name in ("entropy", "kl_to_prior")}
        return kept | {"episode_length": return_figures(self.played)["episode_length"].value} | self.figures()

    def figures(self) -> dict[str, float]:
        """Say how far training has come, and how its latest episodes went."""
        steps: dict[str, float] = {"environment_steps": self.batches.num_environment_steps}
        latest = self.fit.environment.episodes[-LATEST:]
        if not latest:
            return steps
        returns, lengths = (sum(getattr(e, name) for e in latest) / len(latest) for name in ("total_reward", "length"))
        return steps | {"training_return": returns, "training_length": lengths}


def staged(recipe: ControlRecipe, environment: World, num_environments: int, seed: int) -> World:
    """Make copies of an environment to evaluate in: on the scale of its observations, with rewards as they are."""
    copies = recipe.copies(num_environments, seed)
    return environment.for_evaluation(copies) if isinstance(environment, Normalized) else copies
