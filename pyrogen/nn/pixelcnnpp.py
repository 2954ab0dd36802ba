"""PixelCNN++: two streams of gated residual layers at several resolutions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor, nn

from pyrogen.nn.causal import Pointwise, RowConv2d, at, contextual, shift, shift_down
from pyrogen.nn.raster import ImageContext, Raster, RasterState
from pyrogen.nn.resolution import due
from pyrogen.nn.stream import Inputs, Memory, Step, Stream, Whole
from pyrogen.nn.values import ValueEncoder

__all__ = ["PixelCNNPlusPlus"]


def thinned(x: Tensor, stride: int) -> Tensor:
    """Take the rows and columns that a stride comes to, from dimension 2 on.

    Example:
        >>> thinned(torch.zeros(1, 1, 5, 4), 2).shape, thinned(torch.zeros(1, 1), 2).shape
        (torch.Size([1, 1, 3, 2]), torch.Size([1, 1]))
    """
    for dim in range(2, x.dim()):
        x = x[(slice(None),) * dim + (slice(None, None, stride),)]
    return x


@dataclass(kw_only=True)
class TwoStreams(RasterState):
    """Where a drawing stands.

    Attributes:
        rows: what the stream of rows above has seen.
        pixels: what the stream that listens has seen.
        said: what the first says to the layers of the second, by level, of the last row that the level has.
    """

    rows: Memory
    pixels: Memory
    said: list[list[Tensor]] = field(default_factory=list)


class PixelCNNPlusPlus(Raster[TwoStreams]):
    r"""The network of PixelCNN++, for images of one channel.

    One stream sees the rows above a pixel, the other also the pixels to its left, and listens to the first layer by
    layer. Both pass through :math:`n` halvings of the image's sides and back, with short-cuts. A pixel of a coarser
    image, at :math:`(r, c)`, sees what is before pixel :math:`(2r, 2c)` of the finer one and tells it to that one and
    the three that come after it. In steps it is computed when it is the turn of :math:`(2r, 2c)`, and then kept:
    a level costs a quarter of the one before.

    Weights are plain; the paper normalises them, with an initialisation that depends on data.

    Args:
        shape: ``(1, height, width)`` of an image.
        encoder: maps values to ``encoder.width`` features in a new last dimension.
        num_features: how many numbers it says of a pixel.
        channels: of each layer of each stream.
        layers: gated residual layers on the way there, at each resolution; on the way back there is one more at each
            but the coarsest.
        halvings: :math:`n`.
        dropout: the share of units inside of layers that are dropped in training.
        context: the length of the context, or its channels where it is a map; 0 for none.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications
        (Salimans et al., 2017), https://arxiv.org/abs/1701.05517;
        Fast Generation for Convolutional Autoregressive Models (Ramachandran et al., 2017),
        https://arxiv.org/abs/1704.06001

    Example:
        >>> from pyrogen.nn import ScaledValues
        >>> network = PixelCNNPlusPlus((1, 5, 7), ScaledValues(2), 1, channels=4, layers=1)
        >>> network(torch.zeros(3, 1, 5, 7)).shape
        torch.Size([3, 1, 5, 7, 1])
    """

    def __init__(
        self,
        shape: Sequence[int],
        encoder: ValueEncoder,
        num_features: int,
        channels: int = 32,
        layers: int = 5,
        halvings: int = 2,
        dropout: float = 0.0,
        context: int = 0,
    ) -> None:
        super().__init__(shape, encoder, num_features)
        inputs, self.halvings = encoder.width, halvings
        self.first_above = RowConv2d(inputs, channels, 2, 3)
        self.first_beside, self.first_left = RowConv2d(inputs, channels, 1, 3), Pointwise(inputs, channels)
        size = (self.height, self.width)
        self.above = Stream(False, channels, layers, halvings, size, dropout)
        self.before = Stream(True, channels, layers, halvings, size, dropout)
        self.num_layers = [len(level.layers) for level in self.above.levels]
        self.context = ImageContext(context, 4 * channels * sum(self.num_layers)) if context else None
        self.output = nn.Sequential(nn.ELU(), Pointwise(channels, num_features))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        encoded = self.encode(x)
        rows_above = shift_down(encoded)
        of_above, of_before = self._added(contextual(self.context, context))
        walk = Whole(Inputs(None, of_above))
        self.above(self.first_above(rows_above), walk)
        before = self.first_beside(rows_above) + self.first_left(shift(encoded))
        links = self.before.links(walk.outputs)
        return self.decode(self.output(self.before(before, Whole(Inputs(links, of_before)))))

    def _added(self, mapped: Tensor | None) -> list[list[list[Tensor]] | None]:
        """Split what the context adds by stream, level and layer; coarser levels take every so many of its places."""
        if mapped is None:
            return [None, None]
        parts = iter(mapped.chunk(2 * sum(self.num_layers), 1))
        return [
            [[thinned(part, 2**level) for part in islice(parts, count)] for level, count in enumerate(self.num_layers)]
            for _ in range(2)
        ]

    def start(self, batch: int, context: Tensor | None = None) -> TwoStreams:
        return TwoStreams(
            nothing=self.nothing(batch),
            context=contextual(self.context, context),
            above=[self.first_above.start(batch, self.width)],
            made=[[]],
            rows=self.above.start(batch),
            pixels=self.before.start(batch),
            said=[[] for _ in self.num_layers],
        )

    def begin_row(self, state: TwoStreams) -> None:
        row, (above,) = state.index // self.width, state.above
        nothing = state.nothing.unsqueeze(-1).expand(-1, -1, self.width)
        finished = torch.stack(state.made[0], -1) if row else nothing
        num_levels = due(row, self.halvings)
        self.above.begin_row(state.rows, num_levels)
        self.before.begin_row(state.pixels, num_levels)
        taps, stored = self.above.recall(state.rows, num_levels, row)
        added = ImageContext.row(state.context, row)
        state.links, said, saw, blocks = self.row_core(finished, list(above), taps, stored, added)
        above.append(finished)
        state.said[:num_levels] = said
        self.above.learn(state.rows, saw, blocks)

    def row_core(
        self,
        row: Tensor,
        above: list[Tensor],
        taps: list[list[list[Tensor]]],
        stored: Tensor | None,
        added: Tensor | None,
    ) -> tuple[list[Tensor], list[list[Tensor]], list[list[Tensor]], list[Tensor]]:
        """Pass a finished row, and the one above it, through the first stream.

        Return what the next row's pixels see of it at first, what layers say to those of the other stream, what
        convolutions saw, and what coarser levels said.
        """
        walk = Step(taps, stored, Inputs(None, self._added(added)[0]))
        self.above(self.first_above.step(row, above), walk)
        return [self.first_beside.step(row, [])], self.before.links(walk.outputs), walk.saw, walk.blocks

    def pixel(self, x: Tensor, state: TwoStreams) -> Tensor:
        row, column = divmod(state.index, self.width)
        num_levels = min(due(row, self.halvings), due(column, self.halvings))
        taps, stored = self.before.recall(state.pixels, num_levels, row, column)
        links = [[said[..., column >> level] for said in of] for level, of in enumerate(state.said[:num_levels])]
        added = ImageContext.row(state.context, row)
        here = None if added is None else at(added, column)
        features, saw, blocks = self.core(x, state.links[0][..., column], taps, stored, links, here)
        self.before.learn(state.pixels, saw, blocks)
        return features

    def core(
        self,
        x: Tensor,
        beside: Tensor,
        taps: list[list[list[Tensor]]],
        stored: Tensor | None,
        links: list[list[Tensor]],
        added: Tensor | None,
    ) -> tuple[Tensor, list[list[Tensor]], list[Tensor]]:
        """Pass a pixel through the second stream; return its features, what layers saw, and what coarser ones said."""
        walk = Step(taps, stored, Inputs(links, self._added(added)[1]))
        h = self.before(self.first_left(x) + beside, walk)
        return self.output(h), walk.saw, walk.blocks
