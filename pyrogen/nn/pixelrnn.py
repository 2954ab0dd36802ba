"""PixelRNN: LSTMs that go over an image row by row, or along its diagonals."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pyrogen.nn.causal import Layers, Pointwise, contextual, queue, see
from pyrogen.nn.image_lstm import DiagonalLayer, RecurrentLayer, RowLayer
from pyrogen.nn.pixelcnn import MaskedConv2d
from pyrogen.nn.raster import Raster, RasterState
from pyrogen.nn.values import ValueEncoder

__all__ = ["DiagonalBiLSTM", "RowLSTM"]


class PixelRNN(Raster[RasterState]):
    """A masked convolution, recurrent layers with residual connections, and two layers on each pixel.

    There are ``margin`` empty columns past the end of each row.

    Args:
        shape: ``(1, height, width)`` of an image.
        encoder: maps values to ``encoder.width`` features in a new last dimension.
        num_features: how many numbers it says of a pixel.
        channels: units of each LSTM; between layers there are twice as many channels.
        layers: how many LSTM layers.
        first_kernel: the side of the masked convolution's window, an odd number.

    References:
        Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner and Kavukcuoglu, 2016),
        https://arxiv.org/abs/1601.06759
    """

    layer: ClassVar[type[RowLayer] | type[DiagonalLayer]]
    margin: ClassVar[int]

    def __init__(
        self,
        shape: Sequence[int],
        encoder: ValueEncoder,
        num_features: int,
        channels: int = 16,
        layers: int = 7,
        first_kernel: int = 7,
    ) -> None:
        super().__init__(shape, encoder, num_features)
        width = 2 * channels
        self.first = MaskedConv2d(encoder.width, width, first_kernel, sees_itself=False)
        self.layers: Layers[RecurrentLayer] = Layers(self.layer(channels) for _ in range(layers))
        self.output = nn.Sequential(nn.ReLU(), Pointwise(width, width), nn.ReLU())
        self.features = Pointwise(width, num_features)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        contextual(None, context)
        h = self.first(pad(self.encode(x), (0, self.margin)))
        for layer in self.layers:
            h = layer(h)
        return self.decode(self.features(self.output(h[..., : self.width])))

    def start(self, batch: int, context: Tensor | None = None) -> RasterState:
        contextual(None, context)
        nothing = self.nothing(batch)
        width = self.width + self.margin
        above = [self.first.above.start(batch, width)]
        depths = [len(self.first.above.bias), *(layer.num_links for layer in self.layers)]
        links = [nothing.new_zeros(batch, depth, width) for depth in depths]
        return RasterState(nothing, None, above, links=links, made=[[] for _ in depths])

    def begin_row(self, state: RasterState) -> None:
        if state.index:
            self._finish_row(state)
        batch = len(state.nothing)
        left = [queue(1, state.nothing.new_zeros(batch, layer.num_left)) for layer in self.layers]
        state.left = [self.first.left.start(batch), *left]

    def _finish_row(self, state: RasterState) -> None:
        for column in range(self.width, self.width + self.margin):
            self._advance(state.made[0][-1], state, column)
            state.made[0].append(state.nothing)
        finished = [torch.stack(pixels, -1) for pixels in state.made]
        state.links = self.row_core(finished, list(state.above[0]), state.links)
        state.above[0].append(finished[0])

    def row_core(self, finished: list[Tensor], above: list[Tensor], links: list[Tensor]) -> list[Tensor]:
        """Return what a finished row, and those above it, say to the next row."""
        said = [layer.row(row, link) for layer, row, link in zip(self.layers, finished[1:], links[1:], strict=True)]
        return [self.first.above.step(finished[0], above), *said]

    def pixel(self, x: Tensor, state: RasterState) -> Tensor:
        return self._advance(x, state, state.index % self.width)

    def _advance(self, x: Tensor, state: RasterState, column: int) -> Tensor:
        links = [link[..., column] for link in state.links]
        taps = [self.first.left.taps(state.left[0]), *(list(seen) for seen in state.left[1:])]
        features, handed_on, left_behind = self.core(x, taps, links)
        see(state.left, [x, *handed_on])
        see(state.made[1:], left_behind)
        return features

    def core(
        self, x: Tensor, taps: list[list[Tensor]], links: list[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Pass a pixel through the network; return its features, what layers hand on, and what they leave behind."""
        h = self.first.left.step(x, taps[0]) + links[0]
        handed_on, left_behind = [], []
        for layer, (left,), link in zip(self.layers, taps[1:], links[1:], strict=True):
            h, right, below = layer.pixel(h, left, link)
            handed_on.append(right)
            left_behind.append(below)
        return self.features(self.output(h)), handed_on, left_behind


class RowLSTM(PixelRNN):
    r"""The PixelRNN whose LSTMs go from row to row.

    .. math:: (o, f, i, g)_r = K_{is} * x_r + K_{ss} * h_{r - 1}

    A pixel sees a triangle above it, which to the right grows by one pixel with every row; :class:`DiagonalBiLSTM`
    sees all.

    Args:
        shape: ``(1, height, width)`` of an image.
        encoder: maps values to ``encoder.width`` features in a new last dimension.
        num_features: how many numbers it says of a pixel.
        channels: units of each LSTM; between layers there are twice as many channels.
        layers: how many LSTM layers.
        first_kernel: the side of the masked convolution's window that comes first, an odd number.

    References:
        Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner and Kavukcuoglu, 2016),
        https://arxiv.org/abs/1601.06759

    Example:
        >>> from pyrogen.nn import ScaledValues
        >>> network = RowLSTM((1, 5, 4), ScaledValues(2), 1, channels=4, layers=2)
        >>> network(torch.zeros(3, 1, 5, 4)).shape
        torch.Size([3, 1, 5, 4, 1])
    """

    layer = RowLayer
    margin = 0


class DiagonalBiLSTM(PixelRNN):
    r"""The PixelRNN whose LSTMs go along diagonals, from both sides: a pixel sees all that come before it.

    .. math:: (o, f, i, g)_{r,c} = W_{is} x_{r,c} + W_1 h_{r,c-1} + W_0 h_{r-1,c}

    from the left; those from the right, likewise, speak to the row below. In steps these go over a row once it is
    finished, and those from the left pixel by pixel.

    What a layer knows at a pixel does not include that pixel: for the last one of a row to be known where those from
    the right begin, the row has one more column, which is empty and not drawn.

    Args:
        shape: ``(1, height, width)`` of an image.
        encoder: maps values to ``encoder.width`` features in a new last dimension.
        num_features: how many numbers it says of a pixel.
        channels: units of each LSTM; between layers there are twice as many channels.
        layers: how many layers of two LSTMs.
        first_kernel: the side of the masked convolution's window that comes first, an odd number.

    References:
        Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner and Kavukcuoglu, 2016),
        https://arxiv.org/abs/1601.06759

    Example:
        >>> from pyrogen.nn import ScaledValues
        >>> network = DiagonalBiLSTM((1, 5, 4), ScaledValues(2), 1, channels=4, layers=2)
        >>> network(torch.zeros(3, 1, 5, 4)).shape
        torch.Size([3, 1, 5, 4, 1])
    """

    layer = DiagonalLayer
    margin = 1
