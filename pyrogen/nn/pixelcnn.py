"""The PixelCNN: masked convolutions, and the blind spot that comes with them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrogen.nn.causal import CausalConv1d, Layers, Pointwise, RowConv2d, contextual, see, shift, shift_down
from pyrogen.nn.raster import Raster, RasterState
from pyrogen.nn.values import ValueEncoder

__all__ = ["MaskedConv2d", "PixelCNN"]


class MaskedConv2d(nn.Module):
    """A convolution that sees the rows above, and in its own row the pixels to the left: only such weights exist.

    Args:
        num_inputs: channels that come in.
        num_outputs: channels that go out.
        kernel: the side of the window, an odd number.
        sees_itself: whether a pixel sees the input at its own place: not in the first layer (mask A), but in all others
            (mask B), where the input is what the first layer made of other pixels.
    """

    def __init__(self, num_inputs: int, num_outputs: int, kernel: int, sees_itself: bool) -> None:
        super().__init__()
        reach = kernel // 2
        self.above = RowConv2d(num_inputs, num_outputs, reach, kernel)
        self.left = CausalConv1d(num_inputs, num_outputs, reach + 1 if sees_itself else reach)
        self.sees_itself = sees_itself

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, num_inputs, height, width)`` to ``(batch, num_outputs, height, width)``."""
        return shift_down(self.above(x)) + self.left(x if self.sees_itself else shift(x))


class Block(nn.Module):
    """A residual block with half as many channels inside."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.narrow = nn.Sequential(nn.ReLU(), Pointwise(channels, channels // 2), nn.ReLU())
        self.masked = MaskedConv2d(channels // 2, channels // 2, kernel, sees_itself=True)
        self.widen = nn.Sequential(nn.ReLU(), Pointwise(channels // 2, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.widen(self.masked(self.narrow(x)))


class PixelCNN(Raster[RasterState]):
    """The PixelCNN: a masked convolution, residual blocks of masked convolutions, and two layers on each pixel.

    A pixel does not see some of those above it to the right, however deep the network: the blind spot, which
    :class:`~pyrogen.nn.GatedPixelCNN` does not have.

    Args:
        shape: ``(1, height, width)`` of an image.
        encoder: maps values to ``encoder.width`` features in a new last dimension.
        num_features: how many numbers it says of a pixel.
        channels: between blocks, an even number.
        layers: how many blocks.
        kernel: the side of a block's window, an odd number; the first layer's is ``first_kernel``.
        first_kernel: likewise.

    References:
        Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner and Kavukcuoglu, 2016),
        https://arxiv.org/abs/1601.06759

    Example:
        >>> from pyrogen.nn import ScaledValues
        >>> network = PixelCNN((1, 5, 4), ScaledValues(2), 1, channels=8, layers=2)
        >>> network(torch.zeros(3, 1, 5, 4)).shape
        torch.Size([3, 1, 5, 4, 1])
    """

    def __init__(
        self,
        shape: Sequence[int],
        encoder: ValueEncoder,
        num_features: int,
        channels: int = 64,
        layers: int = 6,
        kernel: int = 3,
        first_kernel: int = 7,
    ) -> None:
        super().__init__(shape, encoder, num_features)
        self.first = MaskedConv2d(encoder.width, channels, first_kernel, sees_itself=False)
        self.blocks: Layers[Block] = Layers(Block(channels, kernel) for _ in range(layers))
        self.output = nn.Sequential(nn.ReLU(), Pointwise(channels, channels), nn.ReLU())
        self.features = Pointwise(channels, num_features)

    @property
    def masked(self) -> list[MaskedConv2d]:
        """The masked convolutions, in order."""
        return [self.first, *(block.masked for block in self.blocks)]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        contextual(None, context)
        h = self.first(self.encode(x))
        for block in self.blocks:
            h = block(h)
        return self.decode(self.features(self.output(h)))

    def start(self, batch: int, context: Tensor | None = None) -> RasterState:
        contextual(None, context)
        above = [layer.above.start(batch, self.width) for layer in self.masked]
        return RasterState(self.nothing(batch), None, above, made=[[] for _ in self.masked])

    def begin_row(self, state: RasterState) -> None:
        batch = len(state.nothing)
        state.left = [layer.left.start(batch) for layer in self.masked]
        if state.index == 0:
            wide = [layer.above.bias.new_zeros(batch, len(layer.above.bias), self.width) for layer in self.masked]
            state.links = wide
            return
        finished = [torch.stack(pixels, -1) for pixels in state.made]
        state.links = self.row_core(finished, [list(rows) for rows in state.above])
        see(state.above, finished)

    def row_core(self, finished: list[Tensor], above: list[list[Tensor]]) -> list[Tensor]:
        """Return what a finished row, and those above it, say to the next row."""
        return [layer.above.step(row, rows) for layer, row, rows in zip(self.masked, finished, above, strict=True)]

    def pixel(self, x: Tensor, state: RasterState) -> Tensor:
        column = state.index % self.width
        links = [link[..., column] for link in state.links]
        taps = [layer.left.taps(seen) for layer, seen in zip(self.masked, state.left, strict=True)]
        features, saw = self.core(x, taps, links)
        see(state.left, saw)
        see(state.made[1:], saw[1:])
        return features

    def core(self, x: Tensor, taps: list[list[Tensor]], links: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Pass a pixel through the network; return its features, and what masked convolutions saw."""
        saw = [x]
        h = self.first.left.step(x, taps[0]) + links[0]
        for block, before, link in zip(self.blocks, taps[1:], links[1:], strict=True):
            narrow = block.narrow(h)
            saw.append(narrow)
            h = h + block.widen(block.masked.left.step(narrow, before) + link)
        return self.features(self.output(h)), saw
