"""Convolutional networks between images and vectors."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

__all__ = ["ConvolutionalDecoder", "ConvolutionalEncoder"]


def _halved(size: int, times: int) -> list[int]:
    """List an image side before and after each convolution of kernel 3, stride 2, padding 1."""
    sizes = [size]
    for _ in range(times):
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


class ConvolutionalEncoder(nn.Module):
    """Images to vectors: convolutions that halve the image, then one linear layer.

    Args:
        shape: ``(channels, height, width)`` of an image; any height and width.
        num_outputs: the length of the vector.
        channels: the channels after each halving.

    Example:
        >>> import torch
        >>> ConvolutionalEncoder((1, 28, 28), 10)(torch.zeros(2, 3, 1, 28, 28)).shape
        torch.Size([2, 3, 10])
    """

    def __init__(self, shape: Sequence[int], num_outputs: int, channels: Sequence[int] = (32, 64)) -> None:
        super().__init__()
        depth, height, width = shape
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise((depth, *channels)):
            layers += [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1), nn.SiLU()]
        self.convolutions = nn.Sequential(*layers)
        flat = channels[-1] * _halved(height, len(channels))[-1] * _halved(width, len(channels))[-1]
        self.linear = nn.Linear(flat, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map shape ``(*batch, channels, height, width)`` to ``(*batch, num_outputs)``."""
        features = self.convolutions(x.flatten(0, -4))
        return self.linear(features.flatten(1)).unflatten(0, x.shape[:-3])


class ConvolutionalDecoder(nn.Module):
    """Vectors to images: one linear layer, then transposed convolutions that double the image.

    Args:
        num_inputs: the length of the vector.
        shape: ``(channels, height, width)`` of an image; any height and width.
        channels: the channels before each doubling, in the encoder's order.

    Example:
        >>> import torch
        >>> ConvolutionalDecoder(10, (2, 7, 9))(torch.zeros(4, 10)).shape
        torch.Size([4, 2, 7, 9])
    """

    def __init__(self, num_inputs: int, shape: Sequence[int], channels: Sequence[int] = (32, 64)) -> None:
        super().__init__()
        depth, height, width = shape
        heights, widths = _halved(height, len(channels)), _halved(width, len(channels))
        self.small = (channels[-1], heights[-1], widths[-1])
        self.linear = nn.Linear(num_inputs, channels[-1] * heights[-1] * widths[-1])
        layers: list[nn.Module] = []
        for i in reversed(range(len(channels))):
            # Halving rounds up, so an even side needs one row more than the kernel alone would give back.
            extra = (1 - heights[i] % 2, 1 - widths[i] % 2)
            fan_out = (depth, *channels)[i]
            layers += [
                nn.SiLU(),
                nn.ConvTranspose2d(channels[i], fan_out, 3, stride=2, padding=1, output_padding=extra),
            ]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """Map shape ``(*batch, num_inputs)`` to ``(*batch, channels, height, width)``."""
        small = self.linear(z).reshape(-1, *self.small)
        return self.convolutions(small).unflatten(0, z.shape[:-1])
