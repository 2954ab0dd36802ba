"""Trajectories of several environments, recorded when they are asked for, with the policy as it is then."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from pyro import poutine
from torch import Tensor

from pyrogen.errors import DataError, ProgramError, UsageError
from pyrogen.parameters import first_device
from pyrogen.sites import Program, is_latent, sample_sites

__all__ = ["Environment", "Outcome", "Rollouts"]


class Outcome(NamedTuple):
    """What a step in each of several environments brought; the first dimension is theirs.

    Attributes:
        reward: shape ``(environments,)``.
        next_observation: of the state that the step led to, also where the episode ended there.
        terminated: whether nothing follows, boolean.
        truncated: whether the episode was cut off, boolean.
        observation: what to act on next: ``next_observation``, or that of a new episode's start.
    """

    reward: Tensor
    next_observation: Tensor
    terminated: Tensor
    truncated: Tensor
    observation: Tensor


class Environment(Protocol):
    """Several environments that take a step together, and begin a new episode in the same step that ends one."""

    num_environments: int

    def reset(self) -> Tensor:
        """Begin an episode in each, and return observations, shape ``(environments, ...)``."""

    def step(self, action: Tensor) -> Outcome:
        """Act in each, by actions of shape ``(environments, ...)``."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the next step depends on besides the action and the global generator."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""


class Rollouts:
    r"""Iterate over recordings of a policy, without end; each is made when it is asked for.

    A recording is a dict of columns on the policy's device, time first: ``observation``, ``action``, ``reward``,
    ``next_observation``, ``terminated``, ``truncated``, and ``log_prob``, in nats, of the action under the policy that
    took it. Episodes go on from one recording to the next.

    Args:
        environment: where to act.
        policy: a program with a site ``action``, called with ``observation`` of shape ``(1, environments, ...)``: the
            guide that learns from the recordings.
        num_steps: how many steps of each environment a recording has.
        uses: how often each recording is given out. With 2, a critic and the policy that take their steps at the same
            point, ``train(..., simultaneous=True)``, learn from the same one.

    Raises:
        UsageError: where a number is less than one; while recording, where what the environment or the policy returns
            has another shape or type than a column.
        ProgramError: where the policy draws no ``action``, while recording.
        DataError: where an observation or a reward is not finite, while recording.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyrogen.data import TabularEnvironment
        >>> from pyrogen.mdp import MDP
        >>> def policy(observation):
        ...     with pyro.plate("time", 1, dim=-2), pyro.plate("environments", 3, dim=-1):
        ...         pyro.sample("action", dist.Categorical(logits=torch.zeros(2)))
        >>> world = TabularEnvironment(MDP(torch.full((4, 2, 4), 0.25), torch.ones(4, 2)), 3)
        >>> recording = next(iter(Rollouts(world, policy, num_steps=5)))
        >>> recording["reward"].shape, sorted(recording)[:3]
        (torch.Size([5, 3]), ['action', 'log_prob', 'next_observation'])
    """

    def __init__(self, environment: Environment, policy: Program, num_steps: int, *, uses: int = 1) -> None:
        if num_steps < 1 or uses < 1:
            raise UsageError(f"num_steps and uses must be at least 1, found {num_steps} and {uses}")
        self.environment = environment
        self.policy = policy
        self.num_steps = num_steps
        self.uses = uses
        self.observation: Tensor | None = None
        self.recording: dict[str, Tensor] = {}
        self.left = 0

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            if self.left == 0:
                self.recording, self.left = self._record(), self.uses
            self.left -= 1
            yield self.recording

    @torch.no_grad()
    def _record(self) -> dict[str, Tensor]:
        observation = self.environment.reset() if self.observation is None else self.observation
        self._check(observation=observation)
        steps = []
        for _ in range(self.num_steps):
            action, log_prob = self._act(observation)
            outcome = self.environment.step(action)
            self._check(action=action, **outcome._asdict())
            steps.append(
                {
                    "observation": observation,
                    "action": action,
                    "reward": outcome.reward,
                    "next_observation": outcome.next_observation,
                    "terminated": outcome.terminated,
                    "truncated": outcome.truncated,
                    "log_prob": log_prob,
                }
            )
            observation = outcome.observation
        self.observation = observation
        device = first_device(self.policy) or steps[0]["reward"].device
        recording = {name: torch.stack([step[name].to(device) for step in steps]) for name in steps[0]}
        _check_finite(recording)
        return recording

    def _act(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        device = first_device(self.policy)
        seen = observation.unsqueeze(0) if device is None else observation.unsqueeze(0).to(device)
        trace = poutine.trace(self.policy).get_trace(observation=seen)
        drawn = [site["name"] for site in filter(is_latent, sample_sites(trace))]
        if "action" not in drawn:
            raise ProgramError(
                f"the policy draws no 'action' to act by, found {', '.join(drawn) or 'none'}: name it so"
            )
        site = trace.nodes["action"]
        return site["value"][0], site["fn"].log_prob(site["value"])[0]

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
        """Return where the episodes are, and the recording that is still to be used."""
        return {
            "environment": self.environment.state_dict(),
            "observation": self.observation,
            "recording": dict(self.recording) if self.left else {},
            "left": self.left,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.environment.load_state_dict(state["environment"])
        device = first_device(self.policy)
        self.observation = state["observation"]
        self.recording = {name: column.to(device) for name, column in state["recording"].items()}
        self.left = state["left"]


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
