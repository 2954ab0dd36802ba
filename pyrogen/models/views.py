"""Data of two modalities, and what is seen of each datum."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyrogen.errors import ProgramError

__all__ = ["Views", "views"]


class Views(NamedTuple):
    """Rows of data, each with what is seen of it; unseen values are zero.

    Attributes:
        x: the first modality, shape ``(rows, *shape)``; ``None`` where no row has it.
        y: the second one, likewise.
        sees_x: in which rows it is seen, shape ``(rows,)``.
        sees_y: likewise.
    """

    x: Tensor | None
    y: Tensor | None
    sees_x: Tensor
    sees_y: Tensor


def views(x: Tensor | None, y: Tensor | None, apart: bool) -> Views:
    """Lay out what is seen of each datum: the pair and, where ``apart``, each modality alone in rows of its own.

    A datum with one modality has no pair: it is seen alone, once.

    Raises:
        ProgramError: where there are no data, or not as many of one modality as of the other.
    """
    if x is None or y is None:
        only = x if y is None else y
        if only is None:
            raise ProgramError("there are no data: give x, y, or both")
        seen, never = _has_value(only), torch.zeros(len(only), dtype=torch.bool, device=only.device)
        filled = _filled(only, seen)
        return Views(filled, None, seen, never) if y is None else Views(None, filled, never, seen)
    if len(x) != len(y):
        raise ProgramError(f"found {len(x)} values of x and {len(y)} of y: give a row of either for each datum")
    has_x, has_y = _has_value(x), _has_value(y)
    x, y = _filled(x, has_x), _filled(y, has_y)
    if not apart:
        return Views(x, y, has_x, has_y)
    pair, never = has_x & has_y, torch.zeros_like(has_x)
    return Views(
        torch.cat([x, x, x]), torch.cat([y, y, y]), torch.cat([pair, has_x, never]), torch.cat([pair, never, has_y])
    )


def _has_value(values: Tensor) -> Tensor:
    missing = values.isnan() if values.is_floating_point() else values < 0
    return ~missing.reshape(len(values), -1).any(1)


def _filled(values: Tensor, has_value: Tensor) -> Tensor:
    return values.masked_fill(~has_value.reshape(-1, *(1 for _ in values.shape[1:])), 0)
