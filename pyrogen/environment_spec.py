"""What a policy needs to know of an environment before it acts in one."""

from dataclasses import asdict, dataclass
from typing import Any

from pyrogen.errors import UsageError

__all__ = ["EnvironmentSpec"]


@dataclass(frozen=True)
class EnvironmentSpec:
    """Shapes of observations and actions, shared by environments and the factories of policies and critics.

    Attributes:
        name: what the environment is called.
        observation_shape: shape of one observation; ``()`` of whole numbers.
        num_observations: how many different observations there are, where they are whole numbers; else ``None``.
        num_actions: how many actions there are to choose from; ``None`` of a box.
        num_action_dims: how many coordinates an action has, each in (-1, 1); ``None`` of a choice.

    Raises:
        UsageError: where actions are neither a choice nor a box, or both; for a number below one.

    Example:
        >>> spec = EnvironmentSpec("Pendulum-v1", (3,), num_action_dims=1)
        >>> EnvironmentSpec.from_json(spec.to_json()) == spec
        True
    """

    name: str
    observation_shape: tuple[int, ...]
    num_observations: int | None = None
    num_actions: int | None = None
    num_action_dims: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "observation_shape", tuple(int(n) for n in self.observation_shape))
        if (self.num_actions is None) == (self.num_action_dims is None):
            raise UsageError(
                f"{self.name}: found num_actions={self.num_actions} and num_action_dims={self.num_action_dims}, "
                f"expected one of them: actions are a choice or a box"
            )
        for number in ("num_observations", "num_actions", "num_action_dims"):
            value = getattr(self, number)
            if value is not None and value < 1:
                raise UsageError(f"{self.name}: {number} must be at least 1, found {value}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"observation_shape": list(self.observation_shape)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "EnvironmentSpec":
        """The inverse of :meth:`to_json`."""
        return cls(**(fields | {"observation_shape": tuple(fields["observation_shape"])}))
