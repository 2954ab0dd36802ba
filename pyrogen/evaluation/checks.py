"""Samples that can be compared, and how near to each other their rows are."""

from typing import Any

import torch
from torch import Tensor

from pyrogen.errors import DataError, UsageError

__all__ = ["BLOCK", "check_neighbours", "neighbourhoods", "rows", "to_neighbour"]

BLOCK = 1000
"""Rows whose distances are in memory at a time."""


def rows(real: Any, fake: Any) -> tuple[Tensor, Tensor]:
    """Return samples as rows in double precision, shapes ``(m, features)`` and ``(n, features)``.

    Raises:
        DataError: where their shapes do not fit, one has fewer than two rows, or some are not finite.
    """
    x, y = torch.as_tensor(real), torch.as_tensor(fake)
    if x.dim() < 2 or x.shape[1:] != y.shape[1:]:
        raise DataError(
            f"expected a row for each datum and draw, in one shape, (m, ...) and (n, ...); found {tuple(x.shape)} and "
            f"{tuple(y.shape)}"
        )
    for name, values in (("real", x), ("fake", y)):
        if len(values) < 2:
            raise DataError(f"{name} has {len(values)} rows: at least 2 are needed")
        is_finite = values.flatten(1).isfinite().all(1)
        if not is_finite.all():
            count = int((~is_finite).sum())
            raise DataError(f"{count} of {len(values)} rows of {name} are not finite: look for NaN in what made them")
    return x.flatten(1).double(), y.flatten(1).double()


def check_neighbours(neighbours: int, *samples: Tensor) -> None:
    """Refuse a rank that no neighbour has.

    Raises:
        UsageError: where there are fewer others in a sample.
    """
    others = min(map(len, samples)) - 1
    if not 1 <= neighbours <= others:
        raise UsageError(f"neighbours must be between 1 and {others}, the others in a sample; found {neighbours}")


def neighbourhoods(points: Tensor, sample: Tensor, rank: int) -> Tensor:
    """Count the members of a sample to which each point is as near as their fellow of a rank, shape ``(points,)``."""
    radius = to_neighbour(sample, rank)
    return torch.cat([(torch.cdist(part, sample) <= radius).sum(1) for part in points.split(BLOCK)])


def to_neighbour(x: Tensor, rank: int) -> Tensor:
    """Return the distance from each row to its nearest, second nearest, ... fellow, shape ``(n,)``."""
    # Each row is the nearest to itself.
    return torch.cat([torch.cdist(part, x).kthvalue(rank + 1).values for part in x.split(BLOCK)])
