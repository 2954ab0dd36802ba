"""Policies that act in environments, and what is recorded of it."""

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrogen.data.outcome import Environment, Outcome
from pyrogen.errors import DataError, ProgramError, UsageError
from pyrogen.parameters import first_device, modules_of
from pyrogen.rehearsal import rehearsal
from pyrogen.sites import Program, is_latent, sample_sites

__all__ = ["Actor", "Recorder"]


class Actor:
    """Draws actions of a policy, by its ``distribution`` where that is what its program draws from, else by a trace.

    Args:
        policy: a program with a site ``action``, called with ``observation`` of shape ``(1, environments, ...)``. One
            that acts faster than by its ``distribution``, or by noise that lasts for some steps, has a method ``act``
            besides, from observations of shape ``(environments, ...)`` to actions, each of which by itself has that
            distribution.
    """

    def __init__(self, policy: Program) -> None:
        self.policy = policy
        self.distribution: Callable[[Tensor], TorchDistribution] | None = None
        self.act: Callable[[Tensor], Tensor] | None = None
        self.has_acted = False

    @property
    def device(self) -> torch.device | None:
        """The policy's device; ``None`` without parameters."""
        return first_device(self.policy)

    def __call__(self, observation: Tensor, device: torch.device | None) -> tuple[Tensor, Tensor | None]:
        """Return actions for observations of shape ``(environments, ...)``, and their log-probability in nats.

        The latter is ``None`` where :meth:`log_prob` tells it of many steps at once.

        Raises:
            ProgramError: where the policy draws no ``action``.
        """
        seen = observation.unsqueeze(0) if device is None else observation.unsqueeze(0).to(device)
        if not self.has_acted:
            self.distribution, self.has_acted = self._own_distribution(seen), True
            self.act = None if self.distribution is None else _own_act(self.policy)
        if self.distribution is None:
            site = self._drawn(seen)["action"]
            return site["value"][0], site["fn"].log_prob(site["value"])[0]
        if self.act is not None:
            return self.act(seen[0]), None
        with pyro.validation_enabled(False):  # that the program is sound was seen when it first acted
            drawn = self.distribution(seen)
            return (drawn if drawn.batch_shape == seen.shape[:2] else drawn.expand(seen.shape[:2])).sample()[0], None

    def log_prob(self, recording: Mapping[str, Tensor]) -> Tensor:
        """Return the log-probability of recorded actions in one pass, shape ``(time, environments)``."""
        assert self.distribution is not None
        return self.distribution(recording["observation"]).log_prob(recording["action"])

    def _drawn(self, seen: Tensor) -> dict[str, dict[str, Any]]:
        trace = poutine.trace(self.policy).get_trace(observation=seen)
        drawn = {site["name"]: site for site in filter(is_latent, sample_sites(trace))}
        if "action" not in drawn:
            raise ProgramError(
                f"the policy draws no 'action' to act by, found {', '.join(drawn) or 'none'}: name it so"
            )
        return drawn

    def _own_distribution(self, seen: Tensor) -> Callable[[Tensor], TorchDistribution] | None:
        """Return the policy's ``distribution``, unless its program draws more, or gives an action another density.

        Beside other observations the density must be the same: else what acts step by step is not scored in one pass.
        """
        distribution = getattr(self.policy, "distribution", None)
        if distribution is None:
            return None
        with rehearsal(modules_of(self.policy).values()):
            drawn = self._drawn(seen)
            if len(drawn) > 1:
                return None
            action, log_prob = drawn["action"]["value"], drawn["action"]["fn"].log_prob(drawn["action"]["value"])
            found = distribution(torch.cat([seen, torch.zeros_like(seen)])).log_prob(torch.cat([action, action]))[:1]
        return distribution if _alike(found, log_prob) else None


class Recorder:
    """Lets policies act in environments, and goes on where it left off.

    Args:
        environment: where to act.

    Attributes:
        num_environment_steps: how many steps all copies have taken.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.observation: Tensor | None = None
        self.num_environment_steps = 0

    @torch.no_grad()
    def record(self, actor: Actor, num_steps: int) -> dict[str, Tensor]:
        """Take steps in each environment, and return their columns on the policy's device, time first.

        Raises:
            UsageError: where what the environment or the policy returns has another shape or type than a column.
            ProgramError: where the policy draws no ``action``.
            DataError: where an observation or a reward is not finite.
        """
        observation = self.environment.reset() if self.observation is None else self.observation
        self._check(observation=observation)
        device = actor.device
        steps = []
        for _ in range(num_steps):
            action, log_prob = actor(observation, device)
            outcome = self.environment.step(action)
            self._check(action=action, **outcome._asdict())
            steps.append(_columns(observation, action, outcome, log_prob))
            self.observation = observation = outcome.observation
            self.num_environment_steps += len(action)
        to = steps[0]["reward"].device if device is None else device
        recording = {name: torch.stack([step[name] for step in steps]).to(to) for name in steps[0]}
        if "log_prob" not in recording:
            recording["log_prob"] = actor.log_prob(recording)
        _check_finite(recording)
        return recording

    def _check(self, **columns: Any) -> None:
        """Refuse what is no column of a recording: shapes, flags and rewards of the wrong kind."""
        environments = self.environment.num_environments
        for name, column in columns.items():
            if not isinstance(column, Tensor):
                raise UsageError(f"{name} is of type {type(column).__name__}, expected a tensor: torch.as_tensor(...)")
            is_number = name in ("reward", "terminated", "truncated")
            if column.shape[:1] != (environments,) or (is_number and column.dim() != 1):
                expected = f"({environments},): one value" if is_number else f"({environments}, ...): a row"
                raise UsageError(f"{name} has shape {tuple(column.shape)}, expected {expected} for each environment")
            if name in ("terminated", "truncated") and column.dtype != torch.bool:
                raise UsageError(f"{name} must be boolean, found {column.dtype}: return {name}.bool()")
            if name == "reward" and not column.is_floating_point():
                raise UsageError(
                    f"reward must be of a floating-point type, found {column.dtype}: return reward.float()"
                )

    def state_dict(self) -> dict[str, Any]:
        """Return where the episodes are."""
        return {
            "environment": self.environment.state_dict(),
            "observation": self.observation,
            "num_environment_steps": self.num_environment_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.environment.load_state_dict(state["environment"])
        self.observation = state["observation"]
        self.num_environment_steps = state["num_environment_steps"]


def _columns(observation: Tensor, action: Tensor, outcome: Outcome, log_prob: Tensor | None) -> dict[str, Tensor]:
    return {
        "observation": observation,
        "action": action,
        "reward": outcome.reward,
        "next_observation": outcome.next_observation,
        "terminated": outcome.terminated,
        "truncated": outcome.truncated,
        **({} if log_prob is None else {"log_prob": log_prob}),
    }


def _own_act(policy: Any) -> Callable[[Tensor], Tensor] | None:
    """Return a policy's ``act``, unless a subclass has another ``distribution`` than what it was written for."""
    owners = [owner for owner in type(policy).__mro__ if {"act", "distribution"} & vars(owner).keys()]
    return policy.act if owners and "act" in vars(owners[0]) else None


def _alike(log_prob: Tensor, other: Tensor) -> bool:
    return log_prob.shape == other.shape and torch.allclose(log_prob, other)


def _check_finite(recording: Mapping[str, Tensor]) -> None:
    for name in ("observation", "reward", "next_observation"):
        values = recording[name]
        finite = values.isfinite().reshape(*values.shape[:2], -1).all(-1)
        if not finite.all():
            step, environment = (~finite).nonzero()[0].tolist()
            raise DataError(
                f"{name} of environment {environment} is not finite at step {step} of the recording: look at what the "
                f"environment does with that action"
            )
