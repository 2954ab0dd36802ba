"""Convolutions in raster order that halve an image's sides, and those that double them again."""

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, pixel_shuffle

from pyrogen.nn.causal import Pointwise, queue, uniform

__all__ = ["CornerConv2d", "DoubledPixels", "DoubledRows", "due"]


def due(index: int, halvings: int) -> int:
    r"""Return at how many resolutions a row, or a column, of this index has a place: those whose step divides it.

    Steps are :math:`1, 2, 4, \dots, 2^n` for :math:`n` halvings.

    Example:
        >>> [due(index, halvings=2) for index in range(6)]
        [3, 1, 2, 1, 3, 1]
    """
    return 1 + next((level for level in range(halvings) if index >> level & 1), halvings)


class CornerConv2d(nn.Module):
    r"""A convolution that sees a pixel, the one to its left, and the two above these.

    .. math:: y_{r,c} = b + W_{00} x_{r-1,c-1} + W_{01} x_{r-1,c} + W_{10} x_{r,c-1} + W_{11} x_{r,c}

    Its queue holds pixels in raster order, with a zero to the left of each row: what is seen is as far back everywhere.

    Args:
        num_inputs: channels that come in.
        num_outputs: channels that go out.
        stride: give every so many rows, and of these every so many columns, the first of each included.

    Example:
        >>> CornerConv2d(1, 2)(torch.zeros(4, 1, 5, 5)).shape
        torch.Size([4, 2, 5, 5])
        >>> CornerConv2d(1, 2, stride=2)(torch.zeros(4, 1, 5, 5)).shape
        torch.Size([4, 2, 3, 3])
    """

    def __init__(self, num_inputs: int, num_outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.num_inputs, self.stride = num_inputs, stride
        self.weight = uniform(4, num_inputs, num_outputs, fan_in=4 * num_inputs)
        self.bias = uniform(num_outputs, fan_in=4 * num_inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(batch, num_inputs, height, width)`` to as many ``num_outputs``, of each side's stride-th."""
        weight = self.weight.permute(2, 1, 0).unflatten(-1, (2, 2))
        return conv2d(pad(x, (1, 0, 1, 0)), weight, self.bias, self.stride)

    def start(self, batch: int, width: int) -> deque[Tensor]:
        """Return the queue of the pixels that it has seen: none."""
        return queue(width + 2, self.bias.new_zeros(batch, self.num_inputs))

    @staticmethod
    def begin_row(seen: deque[Tensor]) -> None:
        """Put the zero to the left of a row into the queue."""
        seen.append(torch.zeros_like(seen[-1]))

    @staticmethod
    def taps(seen: deque[Tensor]) -> list[Tensor]:
        """Take from the queue what the next output needs, the oldest first."""
        return [seen[0], seen[1], seen[-1]]

    def step(self, x: Tensor, taps: Sequence[Tensor]) -> Tensor:
        """Map the newest pixel ``(batch, num_inputs)``, and those before it, to the newest output."""
        return torch.addmm(self.bias, torch.cat([*taps, x], -1), self.weight.flatten(0, 1))


class DoubledRows(nn.Module):
    """A transposed convolution of a window of two rows and three columns: a row becomes two, which see it alone.

    Args:
        channels: that come in, and go out.
        height: of the larger image.
        width: of the larger image.

    Example:
        >>> DoubledRows(2, 5, 5)(torch.zeros(4, 2, 3, 3)).shape
        torch.Size([4, 2, 5, 5])
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        self.transposed = nn.ConvTranspose2d(channels, channels, (2, 3), 2, padding=(0, 1), output_padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map images to those of twice the sides, less a last row or column that is not there."""
        return self.transposed(x)[..., : self.height, : self.width]

    def step(self, row: Tensor) -> Tensor:
        """Map a row ``(batch, channels, width of the smaller image)`` to its two, ``(batch, channels, 2, width)``."""
        return self.transposed(row.unsqueeze(-2))[..., : self.width]

    @staticmethod
    def part(block: Tensor, row: int, column: int) -> Tensor:
        """Take a row of the larger image from the two that it is one of."""
        return block[:, :, row % 2]


class DoubledPixels(nn.Module):
    """A transposed convolution of a window of two by two: a pixel becomes four, which see it alone.

    Args:
        channels: that come in, and go out.
        height: of the larger image.
        width: of the larger image.

    Example:
        >>> DoubledPixels(2, 5, 5)(torch.zeros(4, 2, 3, 3)).shape
        torch.Size([4, 2, 5, 5])
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        self.parts = Pointwise(channels, 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to those of twice the sides, less a last row or column that is not there."""
        return pixel_shuffle(self.parts(x), 2)[..., : self.height, : self.width]

    def step(self, pixel: Tensor) -> Tensor:
        """Map a pixel ``(batch, channels)`` to its four, ``(batch, channels, 2, 2)``."""
        return self.parts(pixel).unflatten(1, (-1, 2, 2))

    @staticmethod
    def part(block: Tensor, row: int, column: int) -> Tensor:
        """Take a pixel of the larger image from the four that it is one of."""
        return block[:, :, row % 2, column % 2]
