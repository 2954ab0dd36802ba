"""What networks of images share that see pixels row after row, and in each row from left to right."""

from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch import Tensor, nn

from pyrogen.nn.causal import Causal, Pointwise
from pyrogen.nn.values import ValueEncoder

__all__ = ["ImageContext", "Raster", "RasterState"]


@dataclass
class RasterState:
    """Where a drawing stands.

    Attributes:
        nothing: what lies outside the image, shape ``(batch, channels)`` of an encoded pixel: zeros.
        context: what the network made of the context: shape ``(batch, channels, height or 1, width or 1)``.
        above: for each layer that looks at rows above, the last ones that it saw.
        left: for each layer that looks at pixels to the left, the last ones of this row that it saw.
        links: what the rows above say to each layer of this row, shape ``(batch, channels, width)`` each.
        made: for each layer whose output the rows below look at, the pixels of this row so far.
        index: the number of pixels before the present one.
    """

    nothing: Tensor
    context: Tensor | None
    above: list[deque[Tensor]]
    left: list[deque[Tensor]] = field(default_factory=list)
    links: list[Tensor] = field(default_factory=list)
    made: list[list[Tensor]] = field(default_factory=list)
    index: int = 0


State = TypeVar("State", bound=RasterState)


class Raster(Causal, Generic[State]):
    """A network of images of one channel that draws row after row.

    What the rows above say is computed for a whole row when it begins (:meth:`begin_row`), which costs each pixel a
    constant share; what the pixels to the left say is computed pixel by pixel (:meth:`pixel`).

    Args:
        shape: ``(1, height, width)`` of an image.
        encoder: maps values to features in a new last dimension.
        num_features: how many numbers it says of a pixel.

    Raises:
        ValueError: for images of more than one channel.
    """

    cores = ("core", "row_core")

    def __init__(self, shape: Sequence[int], encoder: ValueEncoder, num_features: int) -> None:
        super().__init__()
        self.shape = tuple(shape)
        depth, self.height, self.width = shape
        if depth != 1:
            raise ValueError(f"pixels are drawn one number at a time, found images of {depth} channels: give one")
        self.encoder, self.num_features = encoder, num_features

    def encode(self, x: Tensor) -> Tensor:
        """Map images ``(batch, 1, height, width)`` to ``(batch, channels, height, width)``."""
        return self.encoder(x.squeeze(1)).movedim(-1, 1)

    @staticmethod
    def decode(features: Tensor) -> Tensor:
        """Bring ``(batch, num_features, height, width)`` to ``(batch, 1, height, width, num_features)``."""
        return features.movedim(1, -1).unsqueeze(1)

    def nothing(self, batch: int) -> Tensor:
        """Return what lies outside of images: zeros for an encoded pixel."""
        return next(self.parameters()).new_zeros(batch, self.encoder.width)

    @abstractmethod
    def begin_row(self, state: State) -> None:
        """Set ``links``, bring ``above`` up to date, and empty ``left``; the finished row is in ``made``."""

    @abstractmethod
    def pixel(self, x: Tensor, state: State) -> Tensor:
        """Return the features of a pixel, given the encoded one to its left, or zeros."""

    def step(self, previous: Tensor | None, state: State) -> Tensor:
        x = state.nothing if previous is None else self.encoder(previous)
        if previous is not None:
            state.made[0].append(x)
        if state.index % self.width == 0:
            self.begin_row(state)
            state.made = [[] for _ in state.made]
            x = state.nothing
        features = self.pixel(x, state)
        state.index += 1
        return features


class ImageContext(nn.Module):
    """Map a context, the same for all pixels or a map of its own, to channels that are added to a network's.

    Args:
        num_inputs: the length of the context, or its channels.
        num_outputs: the channels.

    Example:
        >>> import torch
        >>> layer = ImageContext(3, 8)
        >>> layer(torch.zeros(2, 3)).shape, layer(torch.zeros(2, 3, 5, 5)).shape
        (torch.Size([2, 8, 1, 1]), torch.Size([2, 8, 5, 5]))
    """

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.linear = Pointwise(num_inputs, num_outputs)

    def forward(self, context: Tensor) -> Tensor:
        """Map ``(batch, num_inputs)`` or ``(batch, num_inputs, height, width)``."""
        return self.linear(context if context.dim() == 4 else context[..., None, None])

    @staticmethod
    def row(mapped: Tensor | None, row: int) -> Tensor | None:
        """Return what is added in a row, shape ``(batch, channels, width or 1)``."""
        return None if mapped is None else mapped[:, :, min(row, mapped.shape[2] - 1)]
