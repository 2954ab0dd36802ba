"""How a policy is trained, by plain settings."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from math import ceil
from typing import Any, Literal

from pyrogen.errors import UsageError
from pyrogen.inference import Objective
from pyrogen.stepping import check_settings, has_critic, targets_of

__all__ = ["ControlSettings", "LearnsFrom", "Pace", "learned_from"]

LearnsFrom = Literal["recordings", "transitions"]

OF_OTHERS: dict[LearnsFrom, tuple[str, ...]] = {
    "recordings": ("capacity", "batch_size", "warmup"),
    "transitions": ("minibatches",),
}
"""Settings that do nothing where something is learned from."""


@dataclass(frozen=True)
class ControlSettings:
    """How to train a policy.

    Attributes:
        steps: number of steps of all environments together.
        num_environments: copies of the environment that act together; 8 for recordings, 1 for transitions, if not
            given.
        recording_steps: steps of each environment before something is learned from them: 128 for recordings, 1 for
            transitions, if not given.
        uses: how often each recording is learned from, or how many batches of transitions are, each time.
        minibatches: in how many groups of steps a recording is learned from each time.
        capacity: how many transitions are kept.
        batch_size: transitions in a batch.
        warmup: steps of the prior before transitions are learned from.
        normalize_observations: shift and scale observations to mean 0 and variance 1 so far.
        normalize_rewards: scale rewards, so that discounted returns have variance 1 so far; a temperature is then in
            the unit of these, and no longer in that of rewards.
        optimizer: adam, adamw or sgd; the objective's usual one if not given.
        learning_rate: its learning rate; the objective's usual one if not given.
        critic_learning_rate: that of the critic, where the objective has one; the same if not given.
        critic_steps: steps of the critic for each of the policy, before it, where there is more than one.
        beta1: how far Adam's gradient looks back: 0.9 if not given.
        schedule: constant, or cosine: down to zero at the end.
        clip_norm: scale gradients down to this norm.
        ema: decay of a moving average of the parameters, which is then what is evaluated.
        evaluate_every: environment steps between evaluations and checkpoints; a twentieth of all if not given.
        evaluation_episodes: how many episodes each of them plays, in copies of the environment of its own.
        deterministic: play them with the mode of the policy's actions, and not with its draws.
        log_every: environment steps between lines of metrics.jsonl; a two-hundredth of all if not given.
        patience: stop after that many evaluations without a better one.
        compile: on, off, or auto: if an estimate says that the run is long enough to pay for it.
    """

    steps: int = 50_000
    num_environments: int | None = None
    recording_steps: int | None = None
    uses: int = 1
    minibatches: int = 1
    capacity: int = 100_000
    batch_size: int = 256
    warmup: int = 1_000
    normalize_observations: bool = False
    normalize_rewards: bool = False
    optimizer: Literal["adam", "adamw", "sgd"] | None = None
    learning_rate: float | None = None
    critic_learning_rate: float | None = None
    critic_steps: int = 1
    beta1: float | None = None
    schedule: Literal["constant", "cosine"] = "constant"
    clip_norm: float | None = None
    ema: float | None = None
    evaluate_every: int | None = None
    evaluation_episodes: int = 10
    deterministic: bool = False
    log_every: int | None = None
    patience: int | None = None
    compile: Literal["auto", "on", "off"] = "auto"

    def __post_init__(self) -> None:
        numbers = ("steps", "num_environments", "recording_steps", "uses", "minibatches", "capacity", "batch_size")
        often = ("critic_steps", "evaluate_every", "evaluation_episodes", "log_every", "patience")
        check_settings(
            self,
            at_least_one=(*numbers, *often),
            positive=("learning_rate", "critic_learning_rate", "clip_norm"),
            fraction=("ema", "beta1"),
        )
        if self.warmup < 0:
            raise UsageError(f"warmup must not be negative, found {self.warmup}")

    def check(self, name: str, objective: Objective, learns_from: LearnsFrom) -> None:
        """Refuse what an objective makes nothing of, or that makes it wrong.

        Args:
            name: of the objective.
            objective: that these settings are for.
            learns_from: what its batches hold.

        Raises:
            UsageError: where one is set that does nothing, or recordings were to be learned from several times by what
                learns from the policy's own.
        """
        without_critic = () if has_critic(objective) else ("critic_steps", "critic_learning_rate")
        usual = {entry.name: entry.default for entry in fields(self)}
        idle = [key for key in (*OF_OTHERS[learns_from], *without_critic) if getattr(self, key) != usual[key]]
        if idle:
            options = " and ".join(f"--{key.replace('_', '-')}" for key in idle)
            has = f"learns from {learns_from}" + ("" if has_critic(objective) else ", without a critic,")
            raise UsageError(
                f"{name} {has} and makes nothing of {options}: leave {'it' if len(idle) == 1 else 'them'} out"
            )
        if learns_from == "recordings" and self.uses * self.minibatches > 1 and targets_of(objective) is None:
            raise UsageError(
                f"{name} learns from a recording once, since its policy is then another than the one that acted: leave "
                f"--uses and --minibatches out, or choose --objective ppo"
            )

    def pace(self, learns_from: LearnsFrom) -> "Pace":
        """Return how steps of environments and rounds of learning go together."""
        if learns_from == "recordings":
            usual, rounds, warmup = (8, 128), self.uses * self.minibatches, 0
        else:
            usual, rounds, warmup = (1, 1), self.uses, self.warmup
        return Pace(self.num_environments or usual[0], self.recording_steps or usual[1], rounds, warmup)


@dataclass(frozen=True)
class Pace:
    """How steps of environments and rounds of learning go together.

    Attributes:
        num_environments: that act together.
        recording_steps: of each of them, before something is learned.
        rounds: how often something is then learned.
        warmup: steps of environments before the first round.
    """

    num_environments: int
    recording_steps: int
    rounds: int
    warmup: int

    def in_rounds(self, steps: int) -> int:
        """Return how many rounds there are in so many steps of all environments; at least one."""
        return max(1, steps * self.rounds // (self.num_environments * self.recording_steps))

    def num_rounds(self, steps: int) -> int:
        """Return how many rounds there are in all steps, of as many recordings as fit after the warm-up.

        Raises:
            UsageError: where none does.

        Example:
            >>> Pace(num_environments=8, recording_steps=128, rounds=4, warmup=0).num_rounds(50_000)
            192
        """
        count, recorded = self.num_environments, self.num_environments * self.recording_steps
        warmup = ceil(self.warmup / count) * count  # all environments take a step
        if steps < warmup + recorded:
            raise UsageError(
                f"{steps:,} steps end before anything is learned: {warmup:,} warm up, and {recorded:,} are recorded at "
                f"a time. Give more --steps"
            )
        return (steps - warmup) // recorded * self.rounds


def learned_from(objective: Callable[..., Any]) -> LearnsFrom | None:
    """Return what batches of an objective hold, by the class that its entry in the catalogue makes, or is.

    It is ``None`` for objectives that learn from data, and not from what a policy does.
    """
    return getattr(getattr(objective, "makes", objective), "learns_from", None)
