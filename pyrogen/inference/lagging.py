"""Copies of modules that follow them slowly, so that what is learned from a copy does not chase itself."""

from copy import deepcopy
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = ["follow", "frozen"]

Copied = TypeVar("Copied", bound=nn.Module)


def frozen(module: Copied) -> Copied:
    """Return a copy of a module that no optimiser fits."""
    return deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(copy: nn.Module, module: nn.Module, rate: float | Tensor) -> None:
    r"""Move a copy's parameters and buffers towards a module's: :math:`x \leftarrow (1 - \tau) x + \tau y`.

    Args:
        copy: what moves.
        module: where to.
        rate: :math:`\tau`; at 0 the copy is left as it is, and at 1 it is the module. A tensor stays on its device.

    Example:
        >>> module = nn.Linear(1, 1)
        >>> copy = frozen(module)
        >>> _ = nn.init.constant_(module.weight, 3.0), nn.init.constant_(copy.weight, 1.0)
        >>> follow(copy, module, 0.5)
        >>> copy.weight
        Parameter containing:
        tensor([[2.]])
    """
    pairs = zip(chain(copy.parameters(), copy.buffers()), chain(module.parameters(), module.buffers()), strict=True)
    for mine, theirs in pairs:
        if mine.is_floating_point():
            mine.lerp_(theirs.detach(), rate)
        else:
            mine.copy_(theirs)
