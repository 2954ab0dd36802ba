"""Labels that data are modelled given."""

import pyro
import torch
from torch import Tensor

from pyrogen.errors import ProgramError
from pyrogen.spec import DataSpec

__all__ = ["labels_or_random"]


def labels_or_random(y: Tensor | None, size: int, spec: DataSpec, device: torch.device) -> Tensor:
    """Return labels of shape ``(size,)``: those that are given, or random ones.

    Raises:
        ProgramError: for labels that there are not, while Pyro validates.

    Example:
        >>> labels_or_random(None, 3, DataSpec((4,), "real", num_classes=1), torch.device("cpu"))
        tensor([0, 0, 0])
    """
    classes = spec.num_classes
    assert classes is not None
    if y is None:
        return torch.randint(classes, (size,), device=device)
    if pyro.infer.util.is_validation_enabled() and not ((y >= 0) & (y < classes)).all():
        raise ProgramError(f"labels must be from 0 to {classes - 1}, found {int(y.min())} to {int(y.max())}")
    return y
