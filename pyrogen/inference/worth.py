"""Whether a training is long enough for compiling it to pay."""

import os
import shutil
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pyrogen.inference.objective import Objective
from pyrogen.parameters import leaves, modules_of
from pyrogen.rehearsal import rehearsal
from pyrogen.sites import Program

__all__ = ["can_compile", "is_worth_compiling", "pays"]

SECONDS, SECONDS_PER_OPERATION = 15.0, 0.03
"""What compiling takes on two cores without a cache, and for each operation of loss and gradient."""
SAVED_PER_OPERATION, LARGEST_SAVING = 1e-5, 0.6
"""What a graph saves for each operation of a step, and the largest part of a step that is counted as saved."""


def pays(num_steps: int, seconds_per_step: float, operations: int) -> bool:
    """Tell whether what a compiled training saves is more than what compiling costs, with half as much again to spare.

    Example:
        >>> pays(1_000, 0.003, 300), pays(100_000, 0.003, 300)
        (False, True)
    """
    saved = min(SAVED_PER_OPERATION * operations, LARGEST_SAVING * seconds_per_step)
    return num_steps * saved > 1.5 * (SECONDS + SECONDS_PER_OPERATION * operations)


def can_compile() -> bool:
    """Tell whether there is a C++ compiler."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None or shutil.which("clang++") is not None


def is_worth_compiling(
    objective: Objective, model: Program, guide: Program | None, example: Mapping[str, Any], num_steps: int
) -> bool:
    """Run loss and gradient a few times, as a rehearsal, and estimate whether compiling pays.

    Where there is no C++ compiler it does not.

    Args:
        example: a batch, as keyword arguments.
        num_steps: how many steps there will be.
    """
    if not can_compile():
        return False
    with rehearsal([*modules_of(model, guide).values(), objective]):
        _gradient(objective, model, guide, example)
        with Counting() as counting:
            _gradient(objective, model, guide, example)
        start = time.perf_counter()
        for _ in range(3):
            _gradient(objective, model, guide, example)
        seconds = (time.perf_counter() - start) / 3
    return pays(num_steps, seconds, counting.count)


def _gradient(objective: Objective, model: Program, guide: Program | None, example: Mapping[str, Any]) -> None:
    loss = objective(model, guide, **example)
    torch.autograd.grad(loss, [leaf for leaf in leaves(loss) if leaf.requires_grad])


class Counting(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))
