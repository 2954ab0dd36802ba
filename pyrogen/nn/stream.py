"""A stream of PixelCNN++: gated residual layers at one resolution after the other, and back."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from pyrogen.nn.causal import Layers, Pointwise, RowConv2d, see
from pyrogen.nn.resolution import CornerConv2d, DoubledPixels, DoubledRows

__all__ = ["Inputs", "Memory", "Step", "Stream", "Whole", "concat_elu"]

Convolution = RowConv2d | CornerConv2d


def concat_elu(x: Tensor) -> Tensor:
    """Apply the exponential linear unit to the channels and their negatives, in dimension 1: twice as many.

    Example:
        >>> concat_elu(torch.ones(1, 1))
        tensor([[ 1.0000, -0.6321]])
    """
    return elu(torch.cat([x, -x], 1))


class Inputs(NamedTuple):
    """What enters each layer of a stream from outside, by level and layer; ``None`` where nothing does.

    Attributes:
        links: what the other stream says, shape ``(batch, channels, ...)`` each.
        added: what the context adds to gates, shape ``(batch, 2 channels, ...)`` each.
    """

    links: list[list[Tensor]] | None
    added: list[list[Tensor]] | None


class Walk(ABC):
    """A way through a stream: what it convolves, and when it goes to a coarser level."""

    def __init__(self, inputs: Inputs) -> None:
        self.links, self.added = (None if of is None else [iter(level) for level in of] for of in inputs)
        self.outputs: list[list[Tensor]] = []

    def begin(self, depth: int) -> None:
        """Begin a level."""
        self.outputs.append([])

    def link(self, depth: int) -> Tensor | None:
        """Return what the other stream says to the next layer of a level."""
        return None if self.links is None else next(self.links[depth])

    def gate(self, depth: int) -> Tensor | None:
        """Return what the context adds to the gate of the next layer of a level; called once for each."""
        return None if self.added is None else next(self.added[depth])

    @abstractmethod
    def convolved(self, convolution: Convolution, x: Tensor, depth: int) -> Tensor:
        """Apply the next convolution of a level."""

    @abstractmethod
    def from_coarser(self, coarser: "Coarser", x: Tensor, depth: int) -> Tensor:
        """Return what the coarser level says to this one."""


class Whole(Walk):
    """Whole images at once."""

    def convolved(self, convolution: Convolution, x: Tensor, depth: int) -> Tensor:
        return convolution(x)

    def from_coarser(self, coarser: "Coarser", x: Tensor, depth: int) -> Tensor:
        return coarser.enlarge(coarser.stream(coarser.halve(x), self, depth + 1))


class Step(Walk):
    """A new row or a new pixel, at the levels at which it has a place.

    Args:
        taps: for each of these levels, and each of its convolutions, what it saw before.
        stored: what the next coarser level said of this place when it last had one; ``None`` if there is no such level.
        inputs: of the layers.

    Attributes:
        saw: for each level and convolution, what it sees now.
        blocks: for each level but the last, what the coarser level says, doubled.
    """

    def __init__(self, taps: list[list[list[Tensor]]], stored: Tensor | None, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.taps, self.stored = [iter(level) for level in taps], stored
        self.saw: list[list[Tensor]] = [[] for _ in taps]
        self.blocks: list[Tensor] = []

    def convolved(self, convolution: Convolution, x: Tensor, depth: int) -> Tensor:
        self.saw[depth].append(x)
        return convolution.step(x, next(self.taps[depth]))

    def from_coarser(self, coarser: "Coarser", x: Tensor, depth: int) -> Tensor:
        if self.stored is not None and depth + 1 == len(self.taps):
            self.saw[depth].append(x)
            next(self.taps[depth])
            return self.stored
        halved = self.convolved(coarser.halve, x, depth)
        block = coarser.enlarge.step(coarser.stream(halved, self, depth + 1))
        self.blocks.insert(0, block)  # coarser levels come to this line first
        return coarser.enlarge.part(block, 0, 0)


class GatedResidual(nn.Module):
    r"""A gated residual layer.

    .. math::
        y &= W_1 * e(x) + W_l \, e(l) + W_s \, e(s) \\
        x' &= x + a \odot \sigma(b), \qquad (a, b) = W_2 * \operatorname{dropout}(e(y)) + V c

    with concat-ELU :math:`e`, the other stream's layer :math:`l`, a short-cut :math:`s` and the context :math:`c`.
    """

    def __init__(self, listens: bool, channels: int, has_shortcut: bool, dropout: float) -> None:
        super().__init__()
        self.first = convolution(listens, 2 * channels, channels)
        self.second = convolution(listens, 2 * channels, 2 * channels)
        self.link = Pointwise(2 * channels, channels) if listens else None
        self.shortcut = Pointwise(2 * channels, channels) if has_shortcut else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, shortcut: Tensor | None, walk: Walk, depth: int) -> Tensor:
        y = walk.convolved(self.first, concat_elu(x), depth)
        if (link := walk.link(depth)) is not None:
            y = y + link
        if self.shortcut is not None and shortcut is not None:
            y = y + self.shortcut(concat_elu(shortcut))
        gate = walk.convolved(self.second, self.dropout(concat_elu(y)), depth)
        if (added := walk.gate(depth)) is not None:
            gate = gate + added
        a, b = gate.chunk(2, 1)
        out = x + a * b.sigmoid()
        walk.outputs[depth].append(out)
        return out


def convolution(listens: bool, num_inputs: int, num_outputs: int, stride: int = 1) -> Convolution:
    """Make a convolution of the stream that listens to the other, or of the other."""
    if listens:
        return CornerConv2d(num_inputs, num_outputs, stride)
    return RowConv2d(num_inputs, num_outputs, 2, 3, stride)


@dataclass
class Memory:
    """What a stream has seen, by level.

    Attributes:
        seen: for each convolution, the last rows or pixels that it saw.
        blocks: what the coarser level last said, doubled: of its row, or of the pixels of its row.
    """

    seen: list[list[deque[Tensor]]]
    blocks: list[list[Tensor]]


class Stream(nn.Module):
    """A stream at one resolution, and inside of it the same at the coarser ones.

    Layers on the way back have short-cuts from those on the way there, the last from the first. The stream of rows
    above looks at two rows and three columns, and says something to each layer of the stream that listens, which looks
    at a pixel, the one to its left and the two above these.

    Args:
        listens: whether it is the stream that listens.
        channels: of each layer.
        layers: on the way there; on the way back there is one more, but at the coarsest resolution.
        halvings: how many coarser resolutions there are.
        size: height and width of an image.
        dropout: the share of units inside of layers that are dropped in training.
    """

    def __init__(
        self, listens: bool, channels: int, layers: int, halvings: int, size: tuple[int, int], dropout: float
    ) -> None:
        super().__init__()
        self.width = size[1]
        self.there: Layers[GatedResidual] = Layers(
            GatedResidual(listens, channels, False, dropout) for _ in range(layers)
        )
        self.back: Layers[GatedResidual] = Layers(
            GatedResidual(listens, channels, True, dropout) for _ in range(layers + bool(halvings))
        )
        self.coarser = Coarser(listens, channels, layers, halvings, size, dropout) if halvings else None

    def forward(self, x: Tensor, walk: Walk, depth: int = 0) -> Tensor:
        """Map features, whole images or a row or pixel of them, to the same shape; the walk keeps layers' outputs."""
        walk.begin(depth)
        seen = [x]
        for layer in self.there:
            seen.append(layer(seen[-1], None, walk, depth))
        h = seen.pop() if self.coarser is None else walk.from_coarser(self.coarser, seen[-1], depth)
        for layer in self.back:
            h = layer(h, seen.pop(), walk, depth)
        return h

    @property
    def levels(self) -> list["Stream"]:
        """The stream at each resolution, the finest first."""
        return [self, *(self.coarser.stream.levels if self.coarser is not None else [])]

    @property
    def layers(self) -> list[GatedResidual]:
        """Its layers at its own resolution, in order."""
        return [*self.there, *self.back]

    def links(self, outputs: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Map the outputs of the other stream's layers, by level, to what they say to the layers of this one."""
        return [
            [layer.link(concat_elu(said)) for layer, said in zip(level.layers, outs, strict=True) if layer.link]
            for level, outs in zip(self.levels, outputs, strict=False)
        ]

    def convolutions(self) -> Iterator[Convolution]:
        """Yield its convolutions at its own resolution, in order."""
        for layer in self.there:
            yield from (layer.first, layer.second)
        if self.coarser is not None:
            yield self.coarser.halve
        for layer in self.back:
            yield from (layer.first, layer.second)

    def start(self, batch: int) -> Memory:
        """Return what it has seen of ``batch`` images: nothing."""
        seen = [[layer.start(batch, level.width) for layer in level.convolutions()] for level in self.levels]
        return Memory(seen, [[] for _ in seen])

    def begin_row(self, memory: Memory, num_levels: int) -> None:
        """Begin a row that has a place at so many levels: what coarser levels say will be new, but for the last."""
        for blocks in memory.blocks[: num_levels - 1]:
            blocks.clear()
        for level, queues in zip(self.levels, memory.seen[:num_levels], strict=False):
            for layer, seen in zip(level.convolutions(), queues, strict=True):
                if isinstance(layer, CornerConv2d):
                    layer.begin_row(seen)

    def recall(
        self, memory: Memory, num_levels: int, row: int, column: int = 0
    ) -> tuple[list[list[list[Tensor]]], Tensor | None]:
        """Return what a :class:`Step` needs at a place that so many levels have, its taps and what is stored."""
        levels = self.levels
        taps = [
            [layer.taps(seen) for layer, seen in zip(level.convolutions(), queues, strict=True)]
            for level, queues in zip(levels, memory.seen[:num_levels], strict=False)
        ]
        last = num_levels - 1
        coarser = levels[last].coarser
        if coarser is None:
            return taps, None
        row, column = row >> last, column >> last
        return taps, coarser.enlarge.part(memory.blocks[last][column // 2], row, column)

    @staticmethod
    def learn(memory: Memory, saw: list[list[Tensor]], blocks: list[Tensor]) -> None:
        """Take in what a :class:`Step` saw and what coarser levels said."""
        for queues, newest in zip(memory.seen, saw, strict=False):
            see(queues, newest)
        for said, block in zip(memory.blocks, blocks, strict=False):
            said.append(block)


class Coarser(nn.Module):
    """A stream at half the resolution, and the ways to it and back; arguments as of :class:`Stream`."""

    def __init__(
        self, listens: bool, channels: int, layers: int, halvings: int, size: tuple[int, int], dropout: float
    ) -> None:
        super().__init__()
        half = (size[0] + 1) // 2, (size[1] + 1) // 2
        self.halve = convolution(listens, channels, channels, stride=2)
        self.stream = Stream(listens, channels, layers, halvings - 1, half, dropout)
        self.enlarge = (DoubledPixels if listens else DoubledRows)(channels, *size)
