"""Values of sites, a row for each index of the plates that they share."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from torch import Tensor

__all__ = ["in_plates", "in_rows", "shared_plates"]

Site = Mapping[str, Any]


def shared_plates(sites: Sequence[Site]) -> list[Any]:
    """List the plates that all sites lie in, outermost first, as the frames of the first site."""
    stacks = [{(frame.name, frame.dim): frame for frame in s["cond_indep_stack"] if frame.vectorized} for s in sites]
    shared = set.intersection(*[set(stack) for stack in stacks]) if stacks else set()
    return sorted((stacks[0][key] for key in shared), key=lambda frame: frame.dim)


def in_rows(value: Tensor, event_dim: int, plates: Sequence[Any]) -> Tensor:
    """Bring the dimensions of some plates to the front, as one, and repeat the value along those that it lacks.

    Args:
        value: shape ``(*batch, *event)``.
        event_dim: how many of its dimensions are its event's.
        plates: the plates' frames, outermost first; none make a single row.

    Returns:
        Shape ``(rows, *rest)``: what is left of the batch, and the event.
    """
    if not plates:
        return value[None]
    missing = max(-frame.dim for frame in plates) - (value.dim() - event_dim)
    value = value.reshape((1,) * max(missing, 0) + tuple(value.shape))
    first = [frame.dim - event_dim + value.dim() for frame in plates]
    shape = list(value.shape)
    for dim, frame in zip(first, plates, strict=True):
        shape[dim] = frame.size
    rest = [dim for dim in range(value.dim()) if dim not in first]
    return value.expand(shape).permute(*first, *rest).flatten(0, len(first) - 1)


def in_plates(rows: Tensor, plates: Sequence[Any]) -> Tensor:
    """Bring one number a row back to the batch dimensions of the plates: the opposite of :func:`in_rows`.

    Returns:
        A tensor with a dimension of size one for each that no plate has.
    """
    sizes = {frame.dim: frame.size for frame in plates}
    assert rows.shape == (prod(sizes.values()),)
    return rows.reshape([sizes.get(dim, 1) for dim in range(min(sizes, default=0), 0)])
