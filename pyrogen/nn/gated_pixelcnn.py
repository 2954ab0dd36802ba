"""The gated PixelCNN: a stack for the rows above, a stack for the pixels to the left, and no blind spot."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrogen.nn.causal import CausalConv1d, Layers, Pointwise, RowConv2d, at, contextual, gated, see, shift, shift_down
from pyrogen.nn.raster import ImageContext, Raster, RasterState
from pyrogen.nn.values import ValueEncoder

__all__ = ["GatedPixelCNN"]


class GatedLayer(nn.Module):
    r"""One layer of both stacks.

    .. math::
        v' &= g(W_v * v + V_v c) \\
        h' &= h + W_r \, g(W_h * h + {\downarrow} W_l (W_v * v) + V_h c), \qquad
        g(a, b) = \tanh(a) \odot \sigma(b)

    where :math:`\downarrow` moves an image down by one row, zeros coming in: the left sees what the rows *above* say.
    The first layer, which must not see a pixel itself, has no :math:`h` to add to.
    """

    def __init__(self, num_inputs: int, channels: int, kernel: int, is_first: bool) -> None:
        super().__init__()
        reach = kernel // 2
        self.vertical = RowConv2d(num_inputs, 2 * channels, reach + 1, kernel)
        self.link = Pointwise(2 * channels, 2 * channels)
        self.horizontal = CausalConv1d(num_inputs, 2 * channels, reach if is_first else reach + 1)
        self.residual = Pointwise(channels, channels)
        self.skip = Pointwise(channels, channels)
        self.is_first = is_first

    def left(self, h: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Return the horizontal stack's new state, and what it adds to the output, of its gate's input."""
        g = gated(before)
        out = self.residual(g)
        return out if self.is_first else h + out, self.skip(g)


class GatedPixelCNN(Raster[RasterState]):
    """The gated PixelCNN, with residual and skip connections in the horizontal stack.

    Args:
        shape: ``(1, height, width)`` of an image.
        encoder: maps values to ``encoder.width`` features in a new last dimension.
        num_features: how many numbers it says of a pixel.
        channels: of each stack.
        layers: of each stack.
        kernel: the side of a layer's window, an odd number; the first layer's is ``first_kernel``.
        first_kernel: likewise.
        context: the length of the context, or its channels where it is a map; 0 for none.

    References:
        Conditional Image Generation with PixelCNN Decoders (van den Oord et al., 2016),
        https://arxiv.org/abs/1606.05328

    Example:
        >>> from pyrogen.nn import ScaledValues
        >>> network = GatedPixelCNN((1, 5, 4), ScaledValues(2), 1, channels=8, layers=2)
        >>> network(torch.zeros(3, 1, 5, 4)).shape
        torch.Size([3, 1, 5, 4, 1])
    """

    def __init__(
        self,
        shape: Sequence[int],
        encoder: ValueEncoder,
        num_features: int,
        channels: int = 32,
        layers: int = 6,
        kernel: int = 3,
        first_kernel: int = 7,
        context: int = 0,
    ) -> None:
        super().__init__(shape, encoder, num_features)
        inputs, self.channels = encoder.width, channels
        made = [GatedLayer(channels, channels, kernel, is_first=False) for _ in range(layers - 1)]
        self.layers: Layers[GatedLayer] = Layers([GatedLayer(inputs, channels, first_kernel, is_first=True), *made])
        self.context = ImageContext(context, 4 * channels * layers) if context else None
        self.output = nn.Sequential(nn.ReLU(), Pointwise(channels, channels), nn.ReLU())
        self.features = Pointwise(channels, num_features)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        v = self.encode(x)
        h = shift(v)  # the first layer sees the pixels to the left of a pixel, and not itself
        added = self._added(contextual(self.context, context))
        skips: Tensor | float = 0.0
        for i, layer in enumerate(self.layers):
            above = layer.vertical(v)
            left = layer.horizontal(h) + shift_down(layer.link(above))
            if added is not None:
                above, left = above + added[2 * i], left + added[2 * i + 1]
            v = gated(above)
            h, skip = layer.left(h, left)
            skips = skips + skip
        return self.decode(self.features(self.output(skips)))

    def _added(self, mapped: Tensor | None) -> tuple[Tensor, ...] | None:
        """Split what the context adds: for each layer, to the vertical stack and to the horizontal one."""
        return None if mapped is None else mapped.chunk(2 * len(self.layers), 1)

    def start(self, batch: int, context: Tensor | None = None) -> RasterState:
        above = [layer.vertical.start(batch, self.width) for layer in self.layers]
        return RasterState(self.nothing(batch), contextual(self.context, context), above, made=[[]])

    def begin_row(self, state: RasterState) -> None:
        batch, row = len(state.nothing), state.index // self.width
        state.left = [layer.horizontal.start(batch) for layer in self.layers]
        if row == 0:
            state.links = [state.nothing.new_zeros(batch, 2 * self.channels, self.width)] * len(self.layers)
            return
        added = ImageContext.row(state.context, row - 1)
        finished = torch.stack(state.made[0], -1)
        state.links, saw = self.row_core(finished, [list(rows) for rows in state.above], added)
        see(state.above, saw)

    def row_core(self, v: Tensor, above: list[list[Tensor]], added: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """Pass a finished row through the vertical stack; return what it says to the next row, and what layers saw."""
        links, saw, of = [], [], self._added(added)
        for i, (layer, rows) in enumerate(zip(self.layers, above, strict=True)):
            saw.append(v)
            said = layer.vertical.step(v, rows)
            links.append(layer.link(said))
            v = gated(said if of is None else said + of[2 * i])
        return links, saw

    def pixel(self, x: Tensor, state: RasterState) -> Tensor:
        column = state.index % self.width
        links = [link[..., column] for link in state.links]
        taps = [layer.horizontal.taps(seen) for layer, seen in zip(self.layers, state.left, strict=True)]
        added = ImageContext.row(state.context, state.index // self.width)
        here = None if added is None else at(added, column)
        features, saw = self.core(x, taps, links, here)
        see(state.left, saw)
        return features

    def core(
        self, h: Tensor, taps: list[list[Tensor]], links: list[Tensor], added: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Pass a pixel through the horizontal stack; return its features, and what layers saw."""
        saw: list[Tensor] = []
        skips: Tensor | float = 0.0
        of = self._added(added)
        for i, (layer, before, link) in enumerate(zip(self.layers, taps, links, strict=True)):
            saw.append(h)
            left = layer.horizontal.step(h, before) + link
            if of is not None:
                left = left + of[2 * i + 1]
            h, skip = layer.left(h, left)
            skips = skips + skip
        return self.features(self.output(skips)), saw
