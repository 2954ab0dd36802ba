"""Run programs for what they reveal, and leave no trace of having done so."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro.util
import torch
from torch import Tensor, nn

__all__ = ["buffers_restored", "get_rng_state", "rehearsal", "set_rng_state"]


def get_rng_state() -> dict[str, Any]:
    """Return the state of every random number generator that a program may draw from.

    The generators are torch's on the CPU and on each CUDA device in use, NumPy's and Python's.
    """
    state: dict[str, Any] = dict(pyro.util.get_rng_state())
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put the generators back to a state of :func:`get_rng_state`."""
    cuda = state.get("cuda")
    pyro.util.set_rng_state({name: value for name, value in state.items() if name != "cuda"})
    if cuda:
        torch.cuda.set_rng_state_all(cuda)


@contextmanager
def buffers_restored(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Give the modules' buffers (batch-norm statistics, power-iteration vectors) their values back at the end."""
    buffers: list[Tensor] = [buffer for module in modules for buffer in module.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


@contextmanager
def rehearsal(modules: Iterable[nn.Module] = ()) -> Iterator[None]:
    """Run the body, then restore the random number generators and the modules' buffers.

    Parameters that functional programs create on their first call stay.

    Example:
        >>> before = torch.initial_seed(), torch.get_rng_state()
        >>> with rehearsal():
        ...     _ = torch.randn(3)
        >>> bool((torch.get_rng_state() == before[1]).all())
        True
    """
    state = get_rng_state()
    try:
        with buffers_restored(modules):
            yield
    finally:
        set_rng_state(state)
