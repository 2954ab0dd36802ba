"""Transitions of a policy, kept and drawn again."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pyrogen.data.outcome import Environment
from pyrogen.data.recorder import Actor, Recorder
from pyrogen.errors import UsageError
from pyrogen.sites import Program

__all__ = ["Replay"]


class Replay:
    """Iterate over batches of transitions, drawn uniformly with replacement from the latest, without end.

    A batch has the columns of a recording (:class:`~pyrogen.data.Rollouts`), shape ``(1, batch, ...)``: one step of as
    many environments, so that the same programs score it. ``log_prob`` is that of the policy which acted. What
    terminated and what was cut off are kept apart, and ``next_observation`` is of the state that a step led to.

    Before each group of ``uses`` batches, ``num_steps`` steps are taken in each environment, by the policy as it is
    then; before the first, as many as it takes for ``warmup`` steps of all environments together.

    Args:
        environment: where to act.
        policy: a program with a site ``action``, called with ``observation`` of shape ``(1, environments, ...)``.
        capacity: how many transitions are kept, those of one step being of all environments; the oldest give way.
        batch_size: how many transitions a batch has.
        num_steps: how many steps of each environment are taken at a time.
        uses: how many batches are drawn between.
        warmup: how many steps of all environments are taken before the first batch.
        explore: the policy that takes these first steps, such as :class:`~pyrogen.models.UniformBox`; the policy itself
            if not given.

    Attributes:
        columns: the transitions, shape ``(capacity // environments, environments, ...)``, on the policy's device.
        size: how many rows of ``columns`` are filled.

    Raises:
        UsageError: where a number is out of range; while acting, as :class:`~pyrogen.data.Rollouts` does.
        ProgramError: where a policy draws no ``action``, while acting.
        DataError: where an observation or a reward is not finite, while acting; it is not kept.

    Example:
        >>> from pyrogen.data import GymnasiumEnvironment
        >>> from pyrogen.models import CategoricalPolicy, UniformChoice
        >>> world, policy = GymnasiumEnvironment("CartPole-v1", 2), CategoricalPolicy(torch.nn.Linear(4, 2))
        >>> replay = Replay(world, policy, capacity=1000, batch_size=32, warmup=100, explore=UniformChoice(2))
        >>> next(iter(replay))["observation"].shape, replay.num_environment_steps
        (torch.Size([1, 32, 4]), 102)
    """

    def __init__(
        self,
        environment: Environment,
        policy: Program,
        capacity: int,
        batch_size: int,
        *,
        num_steps: int = 1,
        uses: int = 1,
        warmup: int = 0,
        explore: Program | None = None,
    ) -> None:
        if min(batch_size, num_steps, uses) < 1 or warmup < 0:
            raise UsageError(
                f"batch_size, num_steps and uses must be at least 1 and warmup at least 0, found {batch_size}, "
                f"{num_steps}, {uses} and {warmup}"
            )
        self.environment = environment
        self.recorder = Recorder(environment)
        self.rows = capacity // environment.num_environments
        if self.rows < num_steps:
            raise UsageError(
                f"capacity={capacity} is less than the {num_steps * environment.num_environments} transitions that are "
                f"recorded at a time: raise it, or lower num_steps"
            )
        self.actor = Actor(policy)
        self.explorer = self.actor if explore is None else Actor(explore)
        self.batch_size = batch_size
        self.num_steps = num_steps
        self.uses = uses
        self.warmup = warmup
        self.columns: dict[str, Tensor] = {}
        self.size = self.row = self.left = 0

    @property
    def num_environment_steps(self) -> int:
        """How many steps all environments have taken."""
        return self.recorder.num_environment_steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            if self.left == 0:
                while self.num_environment_steps < self.warmup:
                    self._keep(self.recorder.record(self.explorer, 1))
                self._keep(self.recorder.record(self.actor, self.num_steps))
                self.left = self.uses
            self.left -= 1
            yield self._drawn()

    def _keep(self, recording: Mapping[str, Tensor]) -> None:
        """Put the rows of a recording behind the latest, around the end."""
        if not self.columns:
            self._allocate(recording)
        num_steps = len(recording["reward"])
        before = min(num_steps, self.rows - self.row)
        for name, column in self.columns.items():
            column[self.row : self.row + before] = recording[name][:before]
            column[: num_steps - before] = recording[name][before:]
        self.row = (self.row + num_steps) % self.rows
        self.size = min(self.size + num_steps, self.rows)

    def _allocate(self, recording: Mapping[str, Tensor]) -> None:
        device = self.actor.device
        self.columns = {
            name: torch.empty((self.rows, *column.shape[1:]), dtype=column.dtype, device=device or column.device)
            for name, column in recording.items()
        }

    def _drawn(self) -> dict[str, Tensor]:
        environments = self.environment.num_environments
        device = self.columns["reward"].device
        index = torch.randint(self.size * environments, (1, self.batch_size), device=device)
        return {name: column.flatten(0, 1)[index] for name, column in self.columns.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return where the episodes are, and a copy of the transitions."""
        return {
            "recorder": self.recorder.state_dict(),
            "columns": {name: column[: self.size].clone() for name, column in self.columns.items()},
            "rows": self.rows,
            "row": self.row,
            "left": self.left,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            UsageError: where it is of another capacity.
        """
        if state["rows"] != self.rows:
            raise UsageError(
                f"the saved replay keeps {state['rows']} steps of all environments, and this one {self.rows}: make it "
                f"with the same capacity"
            )
        self.recorder.load_state_dict(state["recorder"])
        saved = state["columns"]
        self.columns, self.size = {}, len(saved["reward"]) if saved else 0
        if saved:
            self._allocate(saved)
        for name, column in saved.items():
            self.columns[name][: self.size] = column
        self.row, self.left = state["row"], state["left"]
