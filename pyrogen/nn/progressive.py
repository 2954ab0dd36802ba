"""Networks that begin with small images and grow, one resolution after another."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, linear

from pyrogen.errors import UsageError
from pyrogen.nn.dcgan import with_planes
from pyrogen.schedule import Schedule

__all__ = ["Growth", "ProgressiveCritic", "ProgressiveGenerator"]

GROUPS = (4, 3, 2)
"""How many images' deviation from each other is taken together: the first that divides a batch."""


class Growth(Schedule):
    r"""How far networks have grown, and images with no more detail than that.

    At stage :math:`s = 0, \dots, S - 1`, images are :math:`2^{S - 1 - s}` times smaller. The first stage is trained for
    ``phase`` rounds. Each other is faded in for ``phase`` rounds, :math:`\alpha` rising from 0 to 1, and trained for as
    many more. Generator, critic and program share one growth.

    Args:
        num_stages: :math:`S`.
        phase: rounds of each phase.

    Attributes:
        stage: :math:`s`.
        rounds: ``phase`` as a buffer.

    References:
        Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al., 2018),
        https://arxiv.org/abs/1710.10196

    Example:
        >>> growth = Growth(num_stages=2, phase=4)
        >>> growth(torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]])).flatten()
        tensor([3., 3., 3., 3.])
        >>> [growth.advance() for _ in range(6)]
        [False, False, False, True, False, False]
        >>> growth.stage, float(growth.alpha())
        (1, 0.5)
        >>> growth(torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]])).flatten()
        tensor([1.5000, 2.5000, 3.5000, 4.5000])
    """

    rounds: Tensor

    def __init__(self, num_stages: int, phase: int) -> None:
        super().__init__()
        if not (isinstance(num_stages, int) and isinstance(phase, int)) or num_stages < 1 or phase < 1:
            raise UsageError(f"growth needs at least one stage and a phase of one round: found {num_stages}, {phase}")
        self.num_stages, self.phase, self.stage = num_stages, phase, 0
        self.register_buffer("rounds", torch.tensor(phase))  # a phase is saved, and comes back, with the step

    @property
    def length(self) -> int:
        return 2 * (self.num_stages - 1) * self.phase

    def refresh(self) -> None:
        self.phase = int(self.rounds)
        super().refresh()

    def at(self, step: int) -> bool:
        before, self.stage = self.stage, min((step // self.phase + 1) // 2, self.num_stages - 1)
        return self.stage != before

    @property
    def halvings(self) -> int:
        """How often the data are halved to the present resolution."""
        return self.num_stages - 1 - self.stage

    def alpha(self) -> Tensor:
        r"""Return :math:`\alpha`, how much of the present stage there is beside the one before, shape ``()``."""
        begin = (2 * self.stage - 1) * self.phase
        return ((self.step - begin) / self.phase).clamp(0.0, 1.0)

    def faded(self, before: Tensor, present: Tensor) -> Tensor:
        r"""Return :math:`(1 - \alpha)` of the stage before and :math:`\alpha` of the present one."""
        return torch.lerp(before, present, self.alpha().to(present.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Return images of the same size, shape ``(batch, channels, height, width)``, with the detail of the stage."""
        x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        present = doubled(halved(x, self.halvings), self.halvings)
        if not self.stage:
            return present
        coarser = self.halvings + 1
        return self.faded(doubled(halved(x, coarser), coarser), present)

    def extra_repr(self) -> str:
        return f"{self.stage + 1} of {self.num_stages} stages, phase={self.phase}"

    def figures(self) -> dict[str, float]:
        return {"stages": self.stage + 1}


class ProgressiveGenerator(nn.Module):
    r"""Vectors to images: a linear layer, then blocks that double the image and have two convolutions each.

    Every layer has an equalised learning rate, leaky ReLU and pixel norm; a linear layer of one pixel makes the
    channels of an image at each resolution. Images of all stages have the full size: those of earlier ones are blocks
    of equal pixels. All layers are there from the beginning, and those of later stages have no gradient until then.

    Args:
        num_inputs: the length of the vector.
        shape: ``(channels, height, width)`` of an image, which is halved once for each stage but the first.
        channels: those within the network at each resolution, from the image's own inwards; one a stage.
        growth: the stage.

    Raises:
        UsageError: where the image cannot be halved that often.

    References:
        Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al., 2018),
        https://arxiv.org/abs/1710.10196

    Example:
        >>> network = ProgressiveGenerator(10, (1, 8, 12), (16, 32), Growth(2, phase=100))
        >>> network(torch.zeros(4, 10)).shape
        torch.Size([4, 1, 8, 12])
    """

    def __init__(self, num_inputs: int, shape: Sequence[int], channels: Sequence[int], growth: Growth) -> None:
        super().__init__()
        depth, height, width = _small(shape, channels, growth)
        inwards = list(reversed(channels))
        self.channels, self.growth = tuple(channels), growth
        self.small = (inwards[0], height, width)
        self.first = nn.Sequential(
            PixelNorm(),
            EqualizedLinear(num_inputs, inwards[0] * height * width, gain=sqrt(2) / 4),
            nn.Unflatten(1, self.small),
            *_active(PixelNorm()),
            EqualizedConv2d(inwards[0], inwards[0], 3, padding=1),
            *_active(PixelNorm()),
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Upsample(scale_factor=2),
                EqualizedConv2d(fan_in, fan_out, 3, padding=1),
                *_active(PixelNorm()),
                EqualizedConv2d(fan_out, fan_out, 3, padding=1),
                *_active(PixelNorm()),
            )
            for fan_in, fan_out in pairwise(inwards)
        )
        self.to_image = nn.ModuleList(EqualizedConv2d(width, depth, 1, gain=1.0) for width in inwards)

    def forward(self, z: Tensor) -> Tensor:
        """Map shape ``(*batch, num_inputs)`` to ``(*batch, channels, height, width)``."""
        stage = self.growth.stage
        x = before = self.first(z.reshape(-1, z.shape[-1]))
        for block in self.blocks[:stage]:
            before, x = x, block(x)
        image = self.to_image[stage](x)
        if stage:
            image = self.growth.faded(doubled(self.to_image[stage - 1](before)), image)
        return doubled(image, self.growth.halvings).unflatten(0, z.shape[:-1])


class ProgressiveCritic(nn.Module):
    r"""Images to scores: blocks of two convolutions that halve the image, and the deviation within the minibatch.

    It takes images of the full size, and halves them to the resolution of the stage. A gradient penalty is thus in
    units of full-size images at every stage, and does not jump where the networks grow: at :math:`\alpha = 0` a score
    and its gradient are those of the smaller network. Through the deviation, a score depends a little on the other
    images of its group, also where a penalty bounds its gradient: so it does in the paper.

    Args:
        shape: ``(channels, height, width)`` of an image.
        channels: those within the network at each resolution, from the image's own inwards; one a stage.
        growth: the stage.
        num_outputs: scores for each image.
        num_covariates: the length of a vector of covariates, such as a label as one-hot vector, seen at each pixel.

    Raises:
        UsageError: where the image cannot be halved that often.

    References:
        Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al., 2018),
        https://arxiv.org/abs/1710.10196
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: Sequence[int],
        growth: Growth,
        num_outputs: int = 1,
        num_covariates: int = 0,
    ) -> None:
        super().__init__()
        depth, height, width = _small(shape, channels, growth)
        inwards = list(reversed(channels))
        self.shape, self.num_covariates, self.growth = tuple(shape), num_covariates, growth
        self.from_image = nn.ModuleList(
            nn.Sequential(EqualizedConv2d(depth + num_covariates, width, 1), *_active()) for width in inwards
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                EqualizedConv2d(fan_in, fan_in, 3, padding=1),
                *_active(),
                EqualizedConv2d(fan_in, fan_out, 3, padding=1),
                *_active(),
                nn.AvgPool2d(2),
            )
            for fan_out, fan_in in pairwise(inwards)
        )
        self.last = nn.Sequential(
            EqualizedConv2d(inwards[0] + 1, inwards[0], 3, padding=1),
            *_active(),
            nn.Flatten(),
            EqualizedLinear(inwards[0] * height * width, inwards[0]),
            *_active(),
        )
        self.linear = EqualizedLinear(inwards[0], num_outputs, gain=1.0)

    def features(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Map shape ``(batch, channels, height, width)`` to what the last layer sees, shape ``(batch, features)``."""
        stage = self.growth.stage
        x = halved(with_planes(x, covariates, self.shape, self.num_covariates), self.growth.halvings)
        seen = self.from_image[stage](x)
        if stage:
            seen = self.growth.faded(self.from_image[stage - 1](halved(x)), self.blocks[stage - 1](seen))
        for i in reversed(range(stage - 1)):
            seen = self.blocks[i](seen)
        return self.last(torch.cat([seen, minibatch_deviation(seen)], 1))

    def forward(self, x: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Map shape ``(batch, channels, height, width)`` to ``(batch, num_outputs)``."""
        return self.linear(self.features(x, covariates))


class EqualizedConv2d(nn.Conv2d):
    r"""A convolution whose weights are drawn from :math:`\mathcal{N}(0, 1)` and scaled when they are used.

    .. math:: \hat w = w \, g / \sqrt{\text{fan in}}

    Adam, which takes steps of equal size, then lets all layers learn equally fast.

    Args:
        gain: :math:`g`.
    """

    def __init__(self, fan_in: int, fan_out: int, kernel: int, padding: int = 0, gain: float = sqrt(2)) -> None:
        super().__init__(fan_in, fan_out, kernel, padding=padding)
        self.scale = _equalize(self, gain)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * self.scale, self.bias)


class EqualizedLinear(nn.Linear):
    """A linear layer, likewise."""

    def __init__(self, fan_in: int, fan_out: int, gain: float = sqrt(2)) -> None:
        super().__init__(fan_in, fan_out)
        self.scale = _equalize(self, gain)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight * self.scale, self.bias)


def _equalize(layer: Any, gain: float) -> float:
    nn.init.normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return gain / sqrt(layer.weight[0].numel())


class PixelNorm(nn.Module):
    r"""Division by the root mean square over the features, dimension 1: :math:`x / \sqrt{\overline{x^2} + 10^{-8}}`."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def _active(*following: nn.Module) -> Iterator[nn.Module]:
    yield nn.LeakyReLU(0.2)
    yield from following


def minibatch_deviation(x: Tensor) -> Tensor:
    """Return how much each image's group of four differs, as one more feature, shape ``(batch, 1, height, width)``.

    The standard deviation over the group is averaged over features and pixels. Where four does not divide the batch,
    groups are of three or two, or else the batch itself.
    """
    groups = x.unflatten(0, (next((size for size in GROUPS if len(x) % size == 0), len(x)), -1))
    deviation = (groups.var(0, correction=0) + 1e-8).sqrt().flatten(1).mean(1)
    return deviation.repeat(len(groups))[:, None, None, None].expand(-1, 1, *x.shape[2:])


def halved(x: Tensor, times: int = 1) -> Tensor:
    """Halve images by means of two by two pixels."""
    for _ in range(times):
        x = avg_pool2d(x, 2)
    return x


def doubled(x: Tensor, times: int = 1) -> Tensor:
    """Double images by repeating pixels."""
    return interpolate(x, scale_factor=float(2**times)) if times else x


def _small(shape: Sequence[int], channels: Sequence[int], growth: Growth) -> tuple[int, int, int]:
    """Return the shape of an image at the first stage."""
    depth, height, width = shape
    if len(channels) != growth.num_stages:
        raise UsageError(f"expected channels for each of {growth.num_stages} stages, found {list(channels)}")
    times = growth.num_stages - 1
    if height % 2**times or width % 2**times:
        raise UsageError(
            f"an image of {height} x {width} pixels cannot be halved {times} times: use fewer stages, which are as "
            f"many as channels, or data of another size"
        )
    return depth, height // 2**times, width // 2**times
