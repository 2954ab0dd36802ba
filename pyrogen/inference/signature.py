"""What a captured graph depends on besides the values of tensors."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from inspect import isfunction, ismethod
from operator import is_
from types import ModuleType, NoneType
from typing import Any

import numpy as np
import torch
from pyro import get_param_store
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

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
        NotCapturableError: where one value of an argument cannot be told from another, as of an array or an object.
    """

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.leaves: list[Tensor | float] = []
        self.key: Hashable = self._key_of(tuple(batches))

    def _key_of(self, value: Any) -> Hashable:
        if isinstance(value, Tensor):
            if value.layout != torch.strided:
                raise NotCapturableError("an argument is a sparse tensor: pass a dense one")
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
        if not isinstance(value, PLAIN):
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


PLAIN = (bool, int, float, complex, str, NoneType, np.generic, torch.dtype, torch.device)
NOTED = (*PLAIN, Tensor, nn.Module)


class Watch:
    """What programs read from their surroundings, and a graph cannot read again.

    Those are plain values (numbers, strings, ...) in attributes of modules, objects and classes, in closures, globals
    and containers; which tensor or module stands there; and whether each module is in training mode.

    Args:
        programs: what is looked into, as by :func:`~pyrogen.parameters.modules_of`.
    """

    def __init__(self, *programs: Any) -> None:
        self.entries: list[tuple[Mapping[str, Any], str]] = []
        self.cells: list[Any] = []
        self.lists: list[Any] = []
        self.containers: list[Any] = [get_param_store()._params]
        self._found: list[Any] = []
        self._values: tuple[Any, ...] = ((), ())
        seen: set[int] = set()
        for program in programs:
            self._look_into(program, seen, 0)

    def values(self) -> tuple[Any, ...]:
        """Return the present values; of a tensor or module, which one it is."""
        found = [mapping.get(name) for mapping, name in self.entries]
        if self.cells:
            found += [_content(cell) for cell in self.cells]
        for items in self.lists:
            found += items
        if len(found) != len(self._found) or not all(map(is_, found, self._found)):
            self._found = found
            self._values = tuple([x if isinstance(x, PLAIN) else id(x) for x in found]), tuple(map(type, found))
        return self._values

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Refuse a body that changes the values, and put them back.

        Raises:
            NotCapturableError: that names one of them.
        """
        before, kept = self.values(), [copy(container) for container in self.containers]
        try:
            yield
        finally:
            after = self.values()
            for container, old in zip(self.containers, kept, strict=True):
                _put_back(container, old)
        if after != before and (changed := self._changed(before[0], after[0])) is not None:
            raise NotCapturableError(f"the program changes {changed!r} whenever it runs: keep what changes in a buffer")

    def _changed(self, before: Sequence[Any], after: Sequence[Any]) -> str | None:
        """Name a plain value that differs; another tensor in an old one's place is the recording's to judge."""
        if len(before) != len(after):
            return "a list"
        names = [name for _, name in self.entries] + ["a variable of an enclosing function"] * len(self.cells)
        present = [mapping.get(name) for mapping, name in self.entries]
        for i, (old, new) in enumerate(zip(before, after, strict=True)):
            is_tensor = i < len(present) and isinstance(present[i], Tensor)
            if old != new and not is_tensor:
                return names[i] if i < len(names) else "an item of a list"
        return None

    def _look_into(self, part: Any, seen: set[int], depth: int) -> None:
        if id(part) in seen or depth > DEEPEST or isinstance(part, Tensor | ModuleType | np.ndarray):
            return
        seen.add(id(part))
        for inner in self._inside(part):
            self._look_into(inner, seen, depth + 1)

    def _inside(self, part: Any) -> Iterator[Any]:
        """Note the values that an object holds, and go through what else it holds."""
        if isinstance(part, nn.Module):
            for module in part.modules():
                yield from self._note(vars(module), _attributes(module))
                for held in (module._parameters, module._buffers, module._modules):
                    yield from self._note(held, [name for name in held if held[name] is not part])
                if not _is_library(type(module)):
                    yield type(module)
        elif ismethod(part):
            yield from (part.__self__, part.__func__)
        elif isinstance(part, partial):
            yield from (part.func, *part.args, *part.keywords.values())
        elif isfunction(part):
            yield from self._inside_function(part)
        elif isinstance(part, type):
            if not _is_library(part):
                for kind in part.__mro__:
                    yield from () if _is_library(kind) else self._note(vars(kind), list(vars(kind)))
        elif isinstance(part, list | tuple) and len(part) <= LONGEST:
            self.lists.append(part)
            self.containers += [part] if isinstance(part, list) else []
            yield from part
        elif isinstance(part, dict) and len(part) <= LONGEST:
            yield from self._note(part, list(part))
        elif hasattr(part, "__dict__") and not _is_library(type(part)):
            yield from self._note(vars(part), list(vars(part)))
            yield type(part)

    def _inside_function(self, function: Any) -> Iterator[Any]:
        if (function.__module__ or "").partition(".")[0] not in LIBRARIES:
            used = sorted(global_names(function.__code__) & function.__globals__.keys())
            yield from self._note(function.__globals__, used)
            yield from (function.__defaults__ or (), function.__kwdefaults__ or {})
            for cell in function.__closure__ or ():
                self.cells.append(cell)
                yield _content(cell)
        elif hasattr(function, "__wrapped__"):
            yield function.__wrapped__

    def _note(self, mapping: Mapping[str, Any], names: Sequence[str]) -> Iterator[Any]:
        if isinstance(mapping, dict):
            self.containers.append(mapping)
        for name in names:
            value = mapping[name]
            if isinstance(value, NOTED):
                self.entries.append((mapping, name))
            if not isinstance(value, PLAIN):
                yield value


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _put_back(container: Any, old: Any) -> None:
    """Undo what a body did to a container's plain values, and with tensors that have no values."""
    if isinstance(container, list):
        if any(isinstance(item, FakeTensor) for item in container):
            container[:] = old
        return
    for name, value in list(container.items()):
        before = old.get(name, _ABSENT)
        if value is not before and (isinstance(value, FakeTensor) or isinstance(before, PLAIN)):
            if before is _ABSENT:
                del container[name]
            else:
                container[name] = before


_ABSENT = object()
OWN = vars(nn.Module()).keys()


def _is_library(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in LIBRARIES | {"pyrogen"}


def _attributes(module: nn.Module) -> list[str]:
    """List a module's attributes that a user may set: all of one of their own, and a library's numbers and modes."""
    values = vars(module)
    if type(module).__module__.partition(".")[0] in LIBRARIES:
        return [name for name, x in values.items() if name == "training" or (name == "p" or type(x) is float)]
    return [name for name in values if name == "training" or (name not in OWN and not name.startswith("_pyro"))]
