"""Spaces of gymnasium environments, as shapes of observations and actions."""

from math import prod
from typing import Any

import numpy as np
from torch import Tensor

from pyrogen.environment_spec import EnvironmentSpec
from pyrogen.errors import UsageError

__all__ = ["BoxActions", "ChoiceActions", "Observations", "actions_of", "spec_of"]


class ChoiceActions:
    """Turn numbers of actions from zero on into those of a ``Discrete`` space."""

    def __init__(self, space: Any, num_environments: int) -> None:
        self.num_actions, self.start = int(space.n), int(space.start)
        self.shape = (num_environments,)

    def __call__(self, action: Tensor) -> np.ndarray:
        """Return the space's actions, shape ``(environments,)``.

        Raises:
            UsageError: where they are no whole numbers, or not those of actions.
        """
        values = action.cpu().numpy()
        if values.dtype.kind != "i" or values.shape != self.shape:
            raise UsageError(
                f"found actions of {action.dtype}, shape {tuple(action.shape)}, expected whole numbers, shape "
                f"{self.shape}, as a Categorical draws them"
            )
        for copy, value in enumerate(values.tolist()):
            if not 0 <= value < self.num_actions:
                raise UsageError(
                    f"environment {copy} was given action {value}, expected one from 0 to {self.num_actions - 1}"
                )
        return values + self.start if self.start else values


class BoxActions:
    r"""Scale actions in :math:`(-1, 1)` to a space's bounds: :math:`l + \tfrac{1}{2} (a + 1) (u - l)`."""

    def __init__(self, space: Any, num_environments: int) -> None:
        self.low = space.low
        self.half = (space.high - space.low) / 2
        self.high = space.high
        self.shape = (num_environments, prod(space.shape))

    def __call__(self, action: Tensor) -> np.ndarray:
        """Return the space's actions, shape ``(environments, *space)``.

        Raises:
            UsageError: where they have another shape, or lie outside of the box.
        """
        values = action.cpu().numpy()
        if values.dtype.kind != "f" or values.shape != self.shape:
            raise UsageError(
                f"found actions of {action.dtype}, shape {tuple(action.shape)}, expected coordinates in (-1, 1), shape "
                f"{self.shape}, as a TanhNormal draws them"
            )
        if not np.abs(values).max() <= 1:
            copy, dim = np.argwhere(~(np.abs(values) <= 1))[0]
            raise UsageError(
                f"environment {copy} was given {values[copy, dim]} for coordinate {dim} of an action, expected one in "
                f"(-1, 1), which is scaled to the environment's bounds"
            )
        scaled = self.low + (values.reshape(-1, *self.low.shape) + 1) * self.half
        return np.clip(scaled, self.low, self.high).astype(self.low.dtype)


class Observations:
    """Arrays of several copies' observations: float32 of a ``Box``, whole numbers from zero on of a ``Discrete``."""

    def __init__(self, spec: EnvironmentSpec, space: Any) -> None:
        self.shape = spec.observation_shape
        self.dtype = np.dtype(np.float32 if spec.num_observations is None else np.int64)
        self.start = 0 if spec.num_observations is None else int(space.start)

    def __call__(self, observations: Any) -> np.ndarray:
        """Stack what copies returned."""
        rows = np.empty((len(observations), *self.shape), self.dtype)
        for i, observation in enumerate(observations):
            rows[i] = observation
        return rows - self.start if self.start else rows


def spec_of(name: str, observations: Any, actions: Any) -> EnvironmentSpec:
    """Describe an environment by its spaces.

    Raises:
        UsageError: for spaces that are neither ``Box`` nor ``Discrete``, and boxes of actions without bounds.
    """
    from gymnasium.spaces import Box, Discrete

    for what, space in (("observations", observations), ("actions", actions)):
        if not isinstance(space, Box | Discrete):
            raise UsageError(
                f"{name} has {what} in {space}, expected a Box or Discrete space: wrap it, for instance in "
                f"gymnasium.wrappers.FlattenObservation, and register the wrapped environment by an id of its own"
            )
    if isinstance(actions, Box) and not (np.isfinite(actions.low).all() and np.isfinite(actions.high).all()):
        raise UsageError(
            f"{name} has actions without bounds, {actions}, to which coordinates in (-1, 1) cannot be scaled: wrap it "
            f"in gymnasium.wrappers.TransformAction with a Box that has bounds, and register that by an id of its own"
        )
    box = isinstance(actions, Box)
    return EnvironmentSpec(
        name,
        observations.shape or (),
        num_observations=int(observations.n) if isinstance(observations, Discrete) else None,
        num_actions=None if box else int(actions.n),
        num_action_dims=prod(actions.shape) if box else None,
    )


def actions_of(space: Any, num_environments: int) -> BoxActions | ChoiceActions:
    """Return what turns a policy's actions into those of a space."""
    return (ChoiceActions if hasattr(space, "n") else BoxActions)(space, num_environments)
