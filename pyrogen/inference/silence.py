"""Keep Pyro and torch's distributions from looking at values while a program is recorded.

They read tensors on the host to warn, to check, and to take a number off a loss. Without values there is nothing to
read. What is replaced here are those reads alone: each has a form that computes the same without reading.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["host_reads_silenced"]


@contextmanager
def host_reads_silenced() -> Iterator[None]:
    """Replace Pyro's reads of values for the body of a ``with`` statement."""
    replaced: list[tuple[Any, str, Any]] = []

    def replace(owner: Any, name: str, value: Any) -> None:
        replaced.append((owner, name, owner.__dict__.get(name, _ABSENT)))
        setattr(owner, name, value)

    for name, module in sys.modules.copy().items():  # at once: another thread may import
        if name.partition(".")[0] == "pyro":
            for function, quiet in QUIET.items():
                if function in vars(module):
                    replace(module, function, quiet)
    replace(torch._C, "_get_tracing_state", _tracing_state(torch._C._get_tracing_state))
    replace(Tensor, "masked_select", _masked_select(Tensor.masked_select))
    replace(Tensor, "__setitem__", _set_item(Tensor.__setitem__))
    try:
        yield
    finally:
        for owner, name, value in reversed(replaced):
            if value is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


_ABSENT = object()


def _detached(x: Any) -> Any:
    """Stand for ``torch_item``: a value to subtract, which no gradient passes through."""
    return x.detach() if isinstance(x, Tensor) else x


def _unseen(value: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand for ``warn_if_nan`` and ``warn_if_inf``: a step that is not finite is noticed in the graph."""
    return value


QUIET = {"torch_item": _detached, "warn_if_nan": _unseen, "warn_if_inf": _unseen}


def _tracing_state(original: Any) -> Any:
    """Answer Pyro, and Pyro alone, that tracing is on: it leaves out checks of values then."""

    def tracing_state() -> Any:
        return _caller().startswith("pyro.") or original()

    return tracing_state


def _masked_select(original: Any) -> Any:
    """Replace the selection of terms with positive probability, in Pyro's Dice sum, by zeros in the others' place."""

    def masked_select(self: Tensor, mask: Tensor) -> Tensor:
        if _caller() == "pyro.infer.util":
            return torch.where(mask, self, torch.zeros_like(self))
        return original(self, mask)

    return masked_select


def _set_item(original: Any) -> Any:
    """Replace an assignment by a mask without dimensions, which torch reads on the host, in its divergences."""

    def set_item(self: Tensor, index: Any, value: Any) -> None:
        if isinstance(index, Tensor) and index.dim() == 0 and _caller() == "torch.distributions.kl":
            self.copy_(torch.where(index, value, self))
        else:
            original(self, index, value)

    return set_item


def _caller() -> str:
    """Name the module that called the function that asks."""
    return sys._getframe(2).f_globals.get("__name__", "")
