"""What a captured graph depends on besides the values of tensors."""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import isfunction, ismethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyrogen.inference.capture import NotCapturableError
from pyrogen.inference.feed import Batch
from pyrogen.parameters import DEEPEST, LIBRARIES, LONGEST, global_names

__all__ = ["Inputs", "Watch", "with_leaves"]


class Inputs:
    """Batches taken apart: tensors and floating-point numbers, which a graph takes as inputs, and all the rest.

    Attributes:
        key: what a graph depends on: structure, shapes, strides, types, devices, and the values of the rest.
        leaves: the tensors and numbers, in order.

    Raises:
        NotCapturableError: where one value of an argument cannot be told from another, as of a NumPy array.
    """

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.leaves: list[Tensor | float] = []
        self.key: Hashable = self._key_of(tuple(batches))

    def _key_of(self, value: Any) -> Hashable:
        if isinstance(value, Tensor):
            self.leaves.append(value)
            return value.shape, value.stride(), value.dtype, value.device, value.requires_grad
        kind = type(value)
        if kind is float:
            self.leaves.append(value)
            return float
        if kind is tuple or kind is list:
            return kind, *map(self._key_of, value)
        if kind is dict:
            return kind, *value, *map(self._key_of, value.values())
        if isinstance(value, np.ndarray) or not isinstance(value, Hashable):
            raise NotCapturableError(f"an argument is a {kind.__name__}: pass tensors and numbers")
        return kind, value


def with_leaves(value: Any, leaves: Iterator[Any]) -> Any:
    """Put others in the place of a batch's tensors and floating-point numbers, in order."""
    kind = type(value)
    if isinstance(value, Tensor) or kind is float:
        return next(leaves)
    if kind is tuple or kind is list:
        return kind(with_leaves(item, leaves) for item in value)
    if kind is dict:
        return {name: with_leaves(item, leaves) for name, item in value.items()}
    return value


class Watch:
    """The plain values that programs read from their surroundings, which a graph cannot read again.

    Those are numbers, strings and the like in attributes of modules and objects, in closures and in globals; and
    whether each module is in training mode.

    Args:
        programs: what is looked into, as by :func:`~pyrogen.parameters.modules_of`.
    """

    def __init__(self, *programs: Any) -> None:
        self.dictionaries: list[tuple[dict[str, Any], str]] = []
        self.cells: list[Any] = []
        seen: set[int] = set()
        for program in programs:
            self._look_into(program, seen, 0)

    def values(self) -> tuple[Any, ...]:
        """Return the present values."""
        return (
            *[dictionary.get(name) for dictionary, name in self.dictionaries],
            *[cell.cell_contents for cell in self.cells],
        )

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Refuse a body that changes the values, and put them back.

        Raises:
            NotCapturableError: that names one of them.
        """
        before = self.values()
        yield
        after = self.values()
        if after == before:
            return
        count = len(self.dictionaries)
        for (dictionary, name), value in zip(self.dictionaries, before[:count], strict=True):
            dictionary[name] = value
        for cell, value in zip(self.cells, before[count:], strict=True):
            cell.cell_contents = value
        names = [name for _, name in self.dictionaries] + ["a variable of an enclosing function"] * len(self.cells)
        changed = next(name for name, old, new in zip(names, before, after, strict=True) if old != new)
        raise NotCapturableError(f"the program changes {changed!r} whenever it runs: keep what changes in a buffer")

    def _look_into(self, part: Any, seen: set[int], depth: int) -> None:
        if id(part) in seen or depth > DEEPEST or isinstance(part, type | Tensor):
            return
        seen.add(id(part))
        for inner in self._inside(part):
            self._look_into(inner, seen, depth + 1)

    def _inside(self, part: Any) -> Iterator[Any]:
        """Note the plain values that an object holds, and go through what else it holds."""
        if isinstance(part, nn.Module):
            for module in part.modules():
                yield from self._note(vars(module), _attributes(module))
        elif ismethod(part):
            yield from (part.__self__, part.__func__)
        elif isinstance(part, partial):
            yield from (part.func, *part.args, *part.keywords.values())
        elif isfunction(part):
            if (part.__module__ or "").partition(".")[0] not in LIBRARIES:
                used = [name for name in sorted(global_names(part.__code__)) if name in part.__globals__]
                yield from self._note(part.__globals__, used)
                for cell in part.__closure__ or ():
                    yield from self._note_cell(cell)
            elif hasattr(part, "__wrapped__"):
                yield part.__wrapped__
        elif isinstance(part, list | tuple) and len(part) <= LONGEST:
            yield from part
        elif isinstance(part, dict) and len(part) <= LONGEST:
            yield from part.values()
        elif hasattr(part, "__dict__") and not _is_library(type(part)):
            yield from self._note(vars(part), list(vars(part)))

    def _note(self, dictionary: dict[str, Any], names: Sequence[str]) -> Iterator[Any]:
        for name in names:
            if isinstance(dictionary[name], PLAIN):
                self.dictionaries.append((dictionary, name))
            else:
                yield dictionary[name]

    def _note_cell(self, cell: Any) -> Iterator[Any]:
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            return
        if isinstance(value, PLAIN):
            self.cells.append(cell)
        else:
            yield value


PLAIN = (bool, int, float, complex, str, torch.dtype, torch.device)


def _is_library(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in LIBRARIES


def _attributes(module: nn.Module) -> list[str]:
    """List a module's attributes that a user may set: all of one of their own, and a library's floats and modes."""
    values = vars(module)
    if _is_library(type(module)):
        return [name for name, value in values.items() if name == "training" or type(value) is float]
    return [name for name in values if not name.startswith("_")]
