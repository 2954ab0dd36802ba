"""What networks first make of values: numbers for a network, in a new last dimension."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = ["EmbeddedValues", "OneHotValues", "ScaledValues", "ValueEncoder"]


class ValueEncoder(nn.Module, ABC):
    """What a network first makes of values: ``width`` features of each, in a new last dimension."""

    width: int

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map values of any shape to features in a new last dimension."""


class ScaledValues(ValueEncoder):
    """Map whole numbers to two features: the number, scaled to [-1, 1], and a one, by which padding is told from data.

    Args:
        levels: the number of values, which are 0 to ``levels - 1``; ``None`` for reals, which are left as they are.

    Example:
        >>> ScaledValues(3)(torch.tensor([0.0, 2.0]))
        tensor([[-1.,  1.],
                [ 1.,  1.]])
    """

    width = 2

    def __init__(self, levels: int | None) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        """Map values of any shape to features in a new last dimension."""
        scaled = x if self.levels is None else x * (2 / (self.levels - 1)) - 1
        return torch.stack([scaled, torch.ones_like(scaled)], -1)


class EmbeddedValues(ValueEncoder):
    """Map whole numbers to learned vectors.

    Args:
        levels: the number of values, which are 0 to ``levels - 1``.
        width: the length of a vector.

    Example:
        >>> EmbeddedValues(5, 3)(torch.tensor([0.0, 4.0])).shape
        torch.Size([2, 3])
    """

    def __init__(self, levels: int, width: int) -> None:
        super().__init__()
        self.levels, self.width = levels, width
        self.table = nn.Parameter(torch.randn(levels, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map values of any shape, whole numbers though they be floats, to vectors in a new last dimension."""
        return nn.functional.embedding(x.long(), self.table)


class OneHotValues(ValueEncoder):
    """Map whole numbers to vectors of zeros and a one.

    Args:
        levels: the number of values, which are 0 to ``levels - 1``, and the length of a vector.

    Example:
        >>> OneHotValues(3)(torch.tensor([0.0, 2.0]))
        tensor([[1., 0., 0.],
                [0., 0., 1.]])
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.width = levels

    def forward(self, x: Tensor) -> Tensor:
        """Map values of any shape to vectors in a new last dimension."""
        return (x.unsqueeze(-1) == torch.arange(self.width, device=x.device)).to(x.dtype)
