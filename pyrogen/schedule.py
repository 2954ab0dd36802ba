"""What changes on the host as training goes on, and with it the shape of the computation."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyrogen.errors import ProgramError

__all__ = ["Schedule", "check_shared", "schedules"]


class Schedule(nn.Module, ABC):
    """A module whose plain attributes follow from the number of rounds that training has taken.

    Rounds are counted in a buffer, which is saved and restored with the module and read on its device. The host counts
    along, to know without a read when attributes change; a captured step that depends on them is captured anew then.
    :func:`~pyrogen.inference.train` calls :meth:`advance` after each round.

    Attributes:
        step: how many rounds there were.
    """

    step: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self._count = np.zeros((), dtype=np.int64)  # an array: graphs depend on the values of plain numbers

    @abstractmethod
    def at(self, step: int) -> bool:
        """Set the attributes to those after so many rounds, and tell whether they changed."""

    @property
    @abstractmethod
    def length(self) -> int:
        """After how many rounds nothing changes any more."""

    def figures(self) -> dict[str, float]:
        """Name what is to be logged, plain numbers."""
        return {}

    @property
    def is_done(self) -> bool:
        """Whether nothing changes any more."""
        return int(self._count) >= self.length

    def advance(self) -> bool:
        """Count one round, and tell whether attributes changed: what was captured before is of no use then."""
        with torch.no_grad():
            self.step.add_(1)
        self._count += 1
        return self.at(int(self._count))

    def refresh(self) -> None:
        """Follow a buffer that was restored; a read by the host."""
        self._count[...] = int(self.step)
        self.at(int(self._count))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.refresh()


def check_shared(found: Iterable[Schedule]) -> None:
    """Refuse schedules of one kind that do not go along with each other.

    Raises:
        ProgramError: where they end at different times.
    """
    ends: dict[type[Schedule], int] = {}
    for schedule in found:
        if ends.setdefault(type(schedule), schedule.length) != schedule.length:
            raise ProgramError(
                f"the programs and the objective have a {type(schedule).__name__} each, which end after "
                f"{ends[type(schedule)]:,} and {schedule.length:,} rounds: let them share one, such as "
                f"ProgressiveCritic(..., growth=model.view)"
            )


def schedules(modules: Iterable[nn.Module]) -> list[Schedule]:
    """List the schedules within modules, each once."""
    found = {id(part): part for module in modules for part in module.modules() if isinstance(part, Schedule)}
    return list(found.values())
