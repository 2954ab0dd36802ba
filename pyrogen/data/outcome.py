"""What environments are, and what a step in them brings."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor

__all__ = ["Environment", "Outcome"]


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
