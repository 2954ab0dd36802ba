"""Plates over a batch that stands for all data."""

import pyro
import torch
from torch import Tensor

__all__ = ["scaled_plate"]


def scaled_plate(name: str, x: Tensor | None, size: int, num_data: int) -> pyro.plate:
    """Return the plate over a batch, which stands for all data: it scales by how many there are.

    Args:
        name: what the plate is called.
        x: the batch, a row for each datum; without it, the plate is over ``size`` data that stand for themselves.
        size: see ``x``.
        num_data: how many there are; at least the batch.
    """
    if x is None:
        return pyro.plate(name, size)
    return pyro.plate(name, max(num_data, len(x)), subsample=torch.arange(len(x), device=x.device))
