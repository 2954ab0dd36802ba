"""All that is needed to build a fit of a policy again: names and plain settings."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import pyro
import torch
from torch import Tensor

from pyrogen import catalogue
from pyrogen.control_settings import ControlSettings, LearnsFrom, Pace, learned_from
from pyrogen.data import Environment, Episode, GymnasiumEnvironment, Normalized, Replay, Rollouts
from pyrogen.environment_spec import EnvironmentSpec
from pyrogen.errors import ProgramError, UsageError
from pyrogen.inference import Objective, Training, is_worth_compiling, train
from pyrogen.parameters import owners
from pyrogen.recipe import Named, Programs, read_settings, shell_command, versions
from pyrogen.rehearsal import rehearsal
from pyrogen.sites import or_nothing
from pyrogen.stepping import has_critic, optimizers, targets_of

__all__ = ["ControlRecipe", "World", "check_seed"]


def check_seed(seed: int) -> None:
    """Refuse a seed that is none of 32 bits: what is above tells streams of episodes apart."""
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed must be at least 0 and below 2^32, found {seed}")


class World(Environment, Protocol):
    """An environment that says what it is like, and keeps count of its episodes."""

    @property
    def spec(self) -> EnvironmentSpec:
        """Shapes of observations and actions."""

    @property
    def episodes(self) -> Sequence[Episode]:
        """Those that came to their end, oldest first, with rewards as the environment gave them."""

    def close(self) -> None:
        """Close the copies."""


@dataclass(frozen=True)
class ControlRecipe:
    """Names, settings and a seed, which together determine a fit of a policy on one kind of machine.

    Attributes:
        model: a name of the catalogue, with settings: of what makes policies.
        objective: likewise: of one that learns from recordings or transitions.
        env: an id of gymnasium, with settings of ``gymnasium.make``.
        training: how to train.
        seed: of the environments, the initial values and the noise.
        device: where to run: cpu, cuda, mps.
    """

    model: Named
    objective: Named
    env: Named
    training: ControlSettings = field(default_factory=ControlSettings)
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def title(self) -> str:
        """Call the run, where it has no other name."""
        return f"{self.model.name}-{self.env.name}".replace("/", "-")

    @property
    def learns_from(self) -> LearnsFrom:
        """What batches of the objective hold.

        Raises:
            UsageError: where that learns from data.
        """
        found = learned_from(catalogue.find("objective", self.objective.name))
        if found is None:
            raise UsageError(f"{self.objective.name} learns from data, and not from what a policy does")
        return found

    @property
    def pace(self) -> Pace:
        """How steps of environments and rounds of learning go together."""
        return self.training.pace(self.learns_from)

    @property
    def num_rounds(self) -> int:
        """How many rounds of learning there are."""
        return self.pace.num_rounds(self.training.steps)

    def copies(self, num_environments: int, seed: int) -> World:
        """Make copies of the environment, as they are.

        Raises:
            UsageError: where there is none of that id, or gymnasium is missing.
        """
        return GymnasiumEnvironment(self.env.name, num_environments, seed, **self.env.settings)

    def environment(self) -> World:
        """Make the environment that the policy learns in, by the seed.

        Raises:
            UsageError: where there is none, or transitions were to be normalised.
        """
        settings, copies = self.training, self.copies(self.pace.num_environments, self.seed)
        observations, rewards = settings.normalize_observations, settings.normalize_rewards
        if not (observations or rewards):
            return copies
        if self.learns_from == "transitions":
            raise UsageError(
                f"{self.objective.name} learns from transitions that are kept, and those of long ago would be on "
                f"another scale: leave --normalize-observations and --normalize-rewards out"
            )
        return Normalized(copies, observations, rewards, self.objective.settings.get("discount", 0.99))

    def command(self, out: Path) -> str:
        """Return the command that makes the run again."""
        words = ["--env", self.env.name, "--objective", self.objective.name]
        about = {"env_settings": self.env.settings or None, "seed": self.seed, "device": self.device}
        options = asdict(self.training) | about
        for kind in ("model", "objective"):
            for name, value in getattr(self, kind).settings.items():
                options[f"{kind}_settings.{name}" if name in options else name] = value
        return shell_command(self.model.name, words, options, out)

    def on(self, device: str) -> "ControlRecipe":
        """Return the recipe for another device."""
        return replace(self, device=device)

    def programs(self, spec: EnvironmentSpec) -> Programs:
        """Build the model and its guide, which is the policy, with fresh parameters, by the seed, on the device."""
        pyro.set_rng_seed(self.seed)
        model, guide = catalogue.find("model", self.model.name)(spec, **self.model.settings)
        for module in owners(model, guide).values():
            module.to(self.device)
        return Programs(model, guide)

    def programs_of(self, manifest: Mapping[str, Any]) -> Programs:
        """Build them for what a run was fitted to."""
        return self.programs(EnvironmentSpec.from_json(manifest["spec"]))

    def objective_of(self, spec: EnvironmentSpec, programs: Programs) -> Objective:
        """Build the objective, on the device.

        Raises:
            UsageError: where it learns from data, or does not go with these actions.
        """
        factory = catalogue.find("objective", self.objective.name)
        return factory(*programs, self.example(spec), **self.objective.settings).to(self.device)

    def example(self, spec: EnvironmentSpec) -> dict[str, Tensor]:
        """Return a batch of two transitions that nobody recorded, from which shapes follow."""
        kinds = {True: torch.get_default_dtype(), False: torch.long}
        zeros = partial(torch.zeros, device=self.device)
        observation = zeros((1, 2, *spec.observation_shape), dtype=kinds[spec.num_observations is None])
        action = (1, 2) if spec.num_action_dims is None else (1, 2, spec.num_action_dims)
        flag = zeros((1, 2), dtype=torch.bool)
        return {
            "observation": observation,
            "action": zeros(action, dtype=kinds[spec.num_actions is None]),
            "reward": zeros((1, 2)),
            "next_observation": observation.clone(),
            "terminated": ~flag,
            "truncated": flag,
            "log_prob": zeros((1, 2)),
        }

    def batches(self, objective: Objective, environment: World, programs: Programs) -> Rollouts | Replay:
        """Return what the objective learns from.

        Each round draws a batch for the policy and, where there is a critic, others for that: of recordings, the same
        one for all.

        Raises:
            UsageError: where settings do not go with the objective.
        """
        settings, pace, policy = self.training, self.pace, or_nothing(programs.guide)
        settings.check(self.objective.name, objective, self.learns_from)
        uses, players = settings.uses, 1 + settings.critic_steps * has_critic(objective)
        if self.learns_from == "recordings":
            targets = targets_of(objective)
            return Rollouts(
                environment,
                policy,
                pace.recording_steps,
                uses=uses,
                minibatches=settings.minibatches,
                targets=None if targets is None else partial(targets, *programs),
                players=players,
            )
        return Replay(
            environment,
            policy,
            settings.capacity,
            settings.batch_size,
            num_steps=pace.recording_steps,
            uses=uses * players,
            warmup=settings.warmup,
            explore=programs.model,  # without rewards it draws actions of the prior
        )

    def fit(self, environment: World, programs: Programs) -> Training:
        """Prepare the training of a policy in an environment.

        A critic that takes one step with a recording does so at the same point as the policy: at the first use it has
        not yet seen what it is subtracted from.
        """
        settings = self.training
        objective = self.objective_of(environment.spec, programs)
        num_steps, is_shared = self.num_rounds, self.learns_from == "recordings" and settings.critic_steps == 1
        return train(
            objective,
            *programs,
            self.batches(objective, environment, programs),
            **optimizers(settings, objective, num_steps),
            steps=(1, settings.critic_steps),
            simultaneous=is_shared and has_critic(objective),
            num_steps=num_steps,
            device=self.device,
            validate=False,
            compile=settings.compile == "on",
        )

    def decided(self, spec: EnvironmentSpec, programs: Programs) -> "ControlRecipe":
        """Return the recipe with ``compile="auto"`` decided, once for the run and all that resume it.

        Raises:
            UsageError: where the objective does not go with the policy, or with actions of this kind.
        """
        example = self.example(spec)
        with rehearsal(), pyro.validation_enabled(False):  # nobody recorded the example
            objective = self.objective_of(spec, programs)
            try:
                objective(*programs, **example)
            except ProgramError as error:
                first, *_ = str(error).splitlines()  # without the table of shapes that Pyro adds
                raise UsageError(
                    f"{self.objective.name} does not go with {self.model.name} in {self.env.name}: {first}"
                ) from error
            if self.training.compile != "auto":
                return self
            pays = is_worth_compiling(objective, *programs, example, self.num_rounds)
        return replace(self, training=replace(self.training, compile="on" if pays else "off"))

    def to_json(self, spec: EnvironmentSpec) -> dict[str, Any]:
        """Return the manifest of a run: the recipe, what the environment was found to be, and the versions in use."""
        return asdict(self) | {
            "kind": "control",
            "spec": spec.to_json(),
            "fingerprint": self.fingerprint(spec),
            "versions": versions("gymnasium"),
        }

    def fingerprint(self, spec: EnvironmentSpec) -> str:
        """Return a hash of the environment's id, its settings and its spaces: returns of two that differ do not
        compare."""
        about = {"env": asdict(self.env), "spec": spec.to_json()}
        return sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_json(cls, manifest: Mapping[str, Any]) -> "ControlRecipe":
        """Read a recipe from a run's manifest.

        Raises:
            CorruptCheckpointError: where it has settings that are not known.
        """
        model, objective, env = (Named(**manifest[key]) for key in ("model", "objective", "env"))
        settings = read_settings(ControlSettings, manifest["training"])
        return cls(model, objective, env, settings, manifest["seed"], manifest["device"])
