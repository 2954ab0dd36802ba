"""Batches, drawn one at a time and never ahead of need."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrogen.errors import DataError
from pyrogen.rehearsal import get_rng_state, set_rng_state

__all__ = ["Arguments", "Batch", "Feed"]

Batch = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a program."""


class Arguments(NamedTuple):
    """A batch that says itself which of its parts are positional and which are keyword arguments."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Feed:
    """Draws batches from an iterable over and over, and can go back to where it was.

    A position is the number of batches drawn in the present epoch, with the state of the random number generators at
    the epoch's start: enough to shuffle the same way again and skip what has been used. Batches that depend on more,
    as those of environments do, have a ``state_dict`` and ``load_state_dict`` of their own, which are used instead.

    Args:
        batches: an iterable over tensors, tuples (positional arguments) or dicts (keyword arguments); ``None`` for
            programs without data.
    """

    def __init__(self, batches: Iterable[Any] | None) -> None:
        self.batches = batches
        self.epoch = 0
        self.position = 0
        self.start: dict[str, Any] = {}
        self.iterator: Iterator[Any] | None = None

    def draw(self, device: torch.device | None, last_epoch: int | None = None) -> Batch:
        """Return the next batch as arguments on the device.

        Raises:
            StopIteration: where the next batch would belong to an epoch after ``last_epoch``.
            DataError: where an epoch has no batch.
        """
        if self.batches is None:
            return (), {}
        if self.iterator is None:
            self._begin()
        assert self.iterator is not None
        try:
            batch = next(self.iterator)
        except StopIteration:
            if self.position == 0:
                raise DataError(
                    f"epoch {self.epoch} of the batches is empty. Pass data with at least one batch, as an iterable "
                    f"that can be gone through again (a list, a DataLoader; not a generator)."
                ) from None
            if last_epoch is not None and self.epoch + 1 >= last_epoch:
                raise
            self.epoch += 1
            self.position = 0
            self.iterator = None
            return self.draw(device, last_epoch)
        self.position += 1
        return _as_arguments(batch, device)

    def _begin(self) -> None:
        self.start = {"rng": get_rng_state(), "own": [generator.get_state() for generator in self._own_generators()]}
        self.iterator = iter(self.batches or ())

    def _own_generators(self) -> list[torch.Generator]:
        """List the generators that a ``DataLoader`` or its sampler may shuffle by instead of the global one."""
        holders = (self.batches, getattr(self.batches, "sampler", None))
        found = [getattr(holder, "generator", None) for holder in holders]
        return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())

    def state_dict(self) -> dict[str, Any]:
        """Return the position."""
        batches: Any = self.batches
        own = {"batches": batches.state_dict()} if hasattr(batches, "state_dict") else {}
        return {"epoch": self.epoch, "position": self.position, "start": self.start, **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a position, by drawing the epoch's batches again up to it where they cannot do so themselves."""
        self.epoch, self.position, self.start = state["epoch"], state["position"], dict(state["start"])
        self.iterator = None
        if self.batches is None or not self.start:
            return
        if hasattr(self.batches, "load_state_dict"):
            self.batches.load_state_dict(state["batches"])
            self.iterator = iter(self.batches)
            return
        set_rng_state(self.start["rng"])
        for generator, value in zip(self._own_generators(), self.start["own"], strict=True):
            generator.set_state(value)
        self.iterator = iter(self.batches)
        for _ in range(self.position):
            next(self.iterator)


def _as_arguments(batch: Any, device: torch.device | None) -> Batch:
    if isinstance(batch, Arguments):
        return _moved(batch.args, device), _moved(batch.kwargs, device)
    if isinstance(batch, Mapping):
        return (), {name: _moved(value, device) for name, value in batch.items()}
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return tuple(_moved(value, device) for value in batch), {}
    return (_moved(batch, device),), {}


def _moved(value: Any, device: torch.device | None) -> Any:
    if isinstance(value, Tensor):
        return value if device is None else value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {name: _moved(inner, device) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(inner, device) for inner in value)
    return value
