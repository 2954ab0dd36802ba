"""The networks of DCGAN, for images of any size."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pyrogen.errors import ProgramError, UsageError

__all__ = ["DCGANCritic", "DCGANGenerator"]


class DCGANGenerator(nn.Module):
    r"""Vectors to images: one linear layer, then layers that double the image, batch norm and ReLU between, and tanh.

    Args:
        num_inputs: the length of the vector.
        shape: ``(channels, height, width)`` of an image; any height and width.
        channels: the channels before each doubling, in the critic's order: from the image inwards.
        upsampling: ``transposed`` convolutions of kernel 4, or ``resize``: nearest neighbours, then a convolution of
            kernel 3, which leaves no checkerboards.

    References:
        Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks (Radford et al.,
        2016), https://arxiv.org/abs/1511.06434

        Deconvolution and Checkerboard Artifacts (Odena et al., 2016), https://doi.org/10.23915/distill.00003

    Example:
        >>> DCGANGenerator(10, (1, 7, 9))(torch.zeros(4, 10)).shape
        torch.Size([4, 1, 7, 9])
    """

    def __init__(
        self,
        num_inputs: int,
        shape: Sequence[int],
        channels: Sequence[int] = (64, 128),
        upsampling: Literal["transposed", "resize"] = "transposed",
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        depth, *sides = shape
        self.sides = [tuple(sides)]
        for _ in channels:
            height, width = self.sides[-1]
            self.sides.append(((height + 1) // 2, (width + 1) // 2))
        self.small = (channels[-1], *self.sides[-1])
        self.linear = nn.Linear(num_inputs, channels[-1] * self.sides[-1][0] * self.sides[-1][1], bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in reversed(channels))
        self.doublings = nn.ModuleList(
            _doubling(fan_in, fan_out, upsampling) for fan_in, fan_out in pairwise((*reversed(channels), depth))
        )
        initialize(self)

    def forward(self, z: Tensor) -> Tensor:
        """Map shape ``(*batch, num_inputs)`` to ``(*batch, channels, height, width)``, within :math:`(-1, 1)`."""
        x = self.linear(z).reshape(-1, *self.small)
        for norm, doubling, (height, width) in zip(self.norms, self.doublings, self.sides[-2::-1], strict=True):
            x = doubling(norm(x).relu())[..., :height, :width]  # an odd side is one less than twice its half
        return x.tanh().unflatten(0, z.shape[:-1])


class DCGANCritic(nn.Module):
    """Images to scores: convolutions of kernel 4 that halve the image, leaky ReLU after each, then one linear layer.

    Args:
        shape: ``(channels, height, width)`` of an image; any height and width that can be halved as often.
        channels: the channels after each halving.
        norm: ``batch`` (not with gradient penalties), ``spectral`` or ``none``.
        num_outputs: scores for each image.
        num_covariates: the length of a vector of covariates, such as a label as one-hot vector, which is seen at each
            pixel.

    Raises:
        UsageError: where the image is too small for that many channels.

    References:
        Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks (Radford et al.,
        2016), https://arxiv.org/abs/1511.06434

        Spectral Normalization for Generative Adversarial Networks (Miyato et al., 2018),
        https://arxiv.org/abs/1802.05957

    Example:
        >>> DCGANCritic((1, 7, 9))(torch.zeros(4, 1, 7, 9)).shape
        torch.Size([4, 1])
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: Sequence[int] = (64, 128),
        norm: Literal["batch", "spectral", "none"] = "none",
        num_outputs: int = 1,
        num_covariates: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.num_covariates = tuple(shape), num_covariates
        depth, height, width = shape
        if min(height, width) < 2 ** len(channels):
            raise UsageError(
                f"an image of {height} x {width} pixels cannot be halved {len(channels)} times: give the critic fewer "
                f"than {len(channels)} channels"
            )
        layers: list[nn.Module] = []
        for i, (fan_in, fan_out) in enumerate(pairwise((depth + num_covariates, *channels))):
            layers += [nn.Conv2d(fan_in, fan_out, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            if norm == "batch" and i:
                layers.insert(-1, nn.BatchNorm2d(fan_out))
            height, width = height // 2, width // 2
        self.convolutions = nn.Sequential(*layers)
        self.linear = nn.Linear(channels[-1] * height * width, num_outputs)
        initialize(self)
        if norm == "spectral":
            for module in (*layers, self.linear):
                if isinstance(module, nn.Conv2d | nn.Linear):
                    spectral_norm(module)

    def features(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Map shape ``(batch, channels, height, width)`` to what the last layer sees, shape ``(batch, features)``."""
        return self.convolutions(with_planes(x, covariates, self.shape, self.num_covariates)).flatten(1)

    def forward(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Map shape ``(batch, channels, height, width)`` to ``(batch, num_outputs)``."""
        return self.linear(self.features(x, covariates))


def with_planes(x: Tensor, covariates: Tensor | None, shape: Sequence[int], count: int) -> Tensor:
    """Show a vector of covariates at each pixel of images, as further channels.

    Args:
        x: images, shape ``(batch, *shape)``.
        covariates: shape ``(batch, count)``; ``None`` for none.

    Raises:
        ProgramError: where images or covariates have another shape.
    """
    given = (len(x), count) if count else None
    found = None if covariates is None else tuple(covariates.shape)
    if tuple(x.shape[1:]) != tuple(shape) or found != given:
        raise ProgramError(
            f"a critic of images of shape {tuple(shape)} with {count} covariates was given images of shape "
            f"{tuple(x.shape[1:])} and {'no covariates' if found is None else f'covariates of shape {found}'}: labels "
            f"go in as one-hot vectors, (batch, num_covariates)"
        )
    if covariates is None:
        return x
    return torch.cat([x, covariates[:, :, None, None].expand(-1, -1, *x.shape[2:]).to(x.dtype)], 1)


def _doubling(fan_in: int, fan_out: int, upsampling: str) -> nn.Module:
    if upsampling == "transposed":
        return nn.ConvTranspose2d(fan_in, fan_out, 4, stride=2, padding=1)
    if upsampling == "resize":
        return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(fan_in, fan_out, 3, padding=1))
    raise ValueError(f"unknown upsampling {upsampling!r}: choose from transposed, resize")


def initialize(network: nn.Module) -> None:
    """Draw weights from N(0, 0.02^2), and those of batch norms from N(1, 0.02^2), as in the paper."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
