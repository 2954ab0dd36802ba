"""Values of sites, a row for each index of the plates that they share."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from torch import Tensor

__all__ = ["in_plates", "in_rows", "number_of_rows", "repeated", "shared_plates"]

Site = Mapping[str, Any]


def shared_plates(sites: Sequence[Site]) -> list[Any]:
    """List the plates that all sites lie in, outermost first, as the frames of the first site."""
    stacks = [{(frame.name, frame.dim): frame for frame in s["cond_indep_stack"] if frame.vectorized} for s in sites]
    shared = set.intersection(*[set(stack) for stack in stacks]) if stacks else set()
    return sorted((stacks[0][key] for key in shared), key=lambda frame: frame.dim)


def in_rows(value: Tensor, site: Site, plates: Sequence[Any]) -> Tensor:
    """Bring the dimensions of some plates to the front, as one, and repeat the value along those that it lacks.

    Args:
        value: of the site, shape ``(*batch, *event)``.
        site: tells the event's dimensions, and the plates that the batch's belong to.
        plates: the plates' frames, outermost first; none make a single row.

    Returns:
        Shape ``(rows, *rest)``: the site's other plates, and the event.
    """
    event_dim = site["fn"].event_dim
    nesting = max([value.dim() - event_dim, *(-frame.dim for frame in plates)])
    value = value.reshape((1,) * (nesting + event_dim - value.dim()) + tuple(value.shape))
    first = [nesting + frame.dim for frame in plates]
    shape = list(value.shape)
    for dim, frame in zip(first, plates, strict=True):
        shape[dim] = frame.size
    own = {nesting + frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
    others = [dim for dim in range(nesting) if dim not in first and (dim in own or shape[dim] > 1)]
    padding = [dim for dim in range(nesting) if dim not in first and dim not in others]
    events = range(nesting, nesting + event_dim)
    rows = value.expand(shape).permute([*padding, *first, *others, *events])
    return rows.reshape(number_of_rows(plates), *rows.shape[len(padding) + len(first) :])


def repeated(rows: Tensor, times: int) -> Tensor:
    """Put rows one after the other so many times: those of all data, for each particle."""
    return rows.repeat(times, *[1] * (rows.dim() - 1))


def number_of_rows(plates: Sequence[Any]) -> int:
    """Return how many indices some plates have together."""
    return prod(frame.size for frame in plates)


def in_plates(rows: Tensor, plates: Sequence[Any]) -> Tensor:
    """Bring one number a row back to the batch dimensions of the plates: the opposite of :func:`in_rows`.

    Returns:
        A tensor with a dimension of size one for each that no plate has.
    """
    sizes = {frame.dim: frame.size for frame in plates}
    return rows.reshape([sizes.get(dim, 1) for dim in range(min(sizes, default=0), 0)])
