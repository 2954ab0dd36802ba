"""Networks from images to images, and critics of patches, for images of any size."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.nn.dcgan import initialize

__all__ = ["PatchCritic", "ResNetTranslator"]


class ResNetTranslator(nn.Module):
    r"""Images to images of the same shape: halvings, residual blocks, as many doublings, and tanh.

    Convolutions see reflections beyond the border, and instance normalisation and ReLU follow each but the last.

    Args:
        shape: ``(channels, height, width)`` of an image; any height and width.
        channels: the channels after the first convolution, of kernel 7, and after each halving.
        blocks: residual blocks of two convolutions of kernel 3.

    Raises:
        UsageError: where the image is too small to be halved that often.

    References:
        Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks (Zhu et al., 2017),
        https://arxiv.org/abs/1703.10593

        Perceptual Losses for Real-Time Style Transfer and Super-Resolution (Johnson et al., 2016),
        https://arxiv.org/abs/1603.08155

    Example:
        >>> import torch
        >>> ResNetTranslator((1, 7, 9), channels=(4, 8), blocks=1)(torch.zeros(2, 1, 7, 9)).shape
        torch.Size([2, 1, 7, 9])
    """

    def __init__(self, shape: Sequence[int], channels: Sequence[int] = (64, 128, 256), blocks: int = 9) -> None:
        super().__init__()
        depth, *sides = shape
        smallest = min(sides) // 2 ** (len(channels) - 1)
        if min(sides) < 4 or smallest < 2:
            raise UsageError(
                f"an image of {sides[0]} x {sides[1]} pixels is too small for a translator of {len(channels)} widths "
                f"{list(channels)}: it is to have 4 pixels a side, and 2 after {len(channels) - 1} halvings. Give "
                f"fewer channels, larger images, or translate by a fully connected network"
            )
        self.sides = tuple(sides)
        first, last = channels[0], channels[-1]
        layers = _normalised(nn.Conv2d(depth, first, 7, padding=3, padding_mode="reflect"), first)
        for fan_in, fan_out in pairwise(channels):
            halving = nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1, padding_mode="reflect")
            layers += _normalised(halving, fan_out)
        layers += [Residual(last) for _ in range(blocks)]
        for fan_in, fan_out in pairwise(reversed(channels)):
            doubling = nn.ConvTranspose2d(fan_in, fan_out, 3, stride=2, padding=1, output_padding=1)
            layers += _normalised(doubling, fan_out)
        self.layers = nn.Sequential(*layers)
        self.last = nn.Conv2d(first, depth, 7, padding=3, padding_mode="reflect")
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map shape ``(batch, *shape)`` to the same, within :math:`(-1, 1)`."""
        height, width = self.sides
        features = self.layers(x)[..., :height, :width]  # an odd side is one less than twice its half
        return self.last(features).tanh()


class Residual(nn.Module):
    r"""Adds to an image what two convolutions make of it: :math:`x + f(x)`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect") for _ in range(2))
        self.layers = nn.Sequential(*_normalised(first, channels), second, nn.InstanceNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class PatchCritic(nn.Module):
    """Images to one score for each patch: convolutions of kernel 4, leaky ReLU after each, and no linear layer.

    All but the last two convolutions halve the image; instance normalisation follows all but the first and the last.

    Args:
        shape: ``(channels, height, width)`` of an image; any height and width that can be halved as often.
        channels: the channels after each convolution but the last; with 64, 128, 256 and 512, a patch is of 70 x 70
            pixels.

    Raises:
        UsageError: where the image is too small for that many channels.

    References:
        Image-to-Image Translation with Conditional Adversarial Networks (Isola et al., 2017),
        https://arxiv.org/abs/1611.07004

    Example:
        >>> import torch
        >>> PatchCritic((1, 16, 16), channels=(4, 8))(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 1, 6, 6])
    """

    def __init__(self, shape: Sequence[int], channels: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__()
        depth, height, width = shape
        layers: list[nn.Module] = []
        side = min(height, width)
        for i, (fan_in, fan_out) in enumerate(pairwise((depth, *channels))):
            stride = 1 if i and i == len(channels) - 1 else 2
            side = side // 2 if stride == 2 else side - 1
            layers.append(nn.Conv2d(fan_in, fan_out, 4, stride=stride, padding=1))
            if i:
                layers.append(nn.InstanceNorm2d(fan_out))
            layers.append(nn.LeakyReLU(0.2))
        if side < 2:
            raise UsageError(
                f"an image of {height} x {width} pixels has no patches after {len(channels)} convolutions: give the "
                f"critic fewer than {len(channels)} channels"
            )
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 4, padding=1))
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map shape ``(batch, *shape)`` to ``(batch, 1, rows, columns)``."""
        return self.layers(x)


def _normalised(convolution: nn.Module, channels: int) -> list[nn.Module]:
    return [convolution, nn.InstanceNorm2d(channels), nn.ReLU()]
