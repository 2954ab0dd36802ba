"""LSTM layers of images, which see them row by row or along their diagonals."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pyrogen.nn.causal import CausalConv1d, Pointwise, shift_down

__all__ = ["DiagonalLayer", "RecurrentLayer", "RowLayer", "lstm", "skew", "unskew"]


def lstm(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the state and the cell of an LSTM, given four parts of dimension 1 and the cell before.

    .. math:: c' = \sigma(f) \odot c + \sigma(i) \odot \tanh(g), \qquad h = \sigma(o) \odot \tanh(c')

    Example:
        >>> h, c = lstm(torch.zeros(2, 12), torch.ones(2, 3))
        >>> h.shape, float(c[0, 0])
        (torch.Size([2, 3]), 0.5)
    """
    o, f, i, g = gates.chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def skew(x: Tensor) -> Tensor:
    """Move row i of images ``(..., height, width)`` to the right by i: ``(..., height, height + width - 1)``.

    Example:
        >>> skew(torch.tensor([[1, 2], [3, 4]]))
        tensor([[1, 2, 0],
                [0, 3, 4]])
    """
    height, width = x.shape[-2:]
    rows = pad(x, (0, height)).flatten(-2)[..., : height * (height + width - 1)]
    return rows.unflatten(-1, (height, height + width - 1))


def unskew(x: Tensor) -> Tensor:
    """Undo :func:`skew`.

    Example:
        >>> unskew(torch.tensor([[1, 2, 0], [0, 3, 4]]))
        tensor([[1, 2],
                [3, 4]])
    """
    height, width = x.shape[-2], x.shape[-1] - x.shape[-2] + 1
    return pad(x.flatten(-2), (0, height)).unflatten(-1, (height, height + width))[..., :width]


class RecurrentLayer(nn.Module, ABC):
    """A residual connection around an LSTM of ``channels`` units, between images of twice as many channels.

    A step is a pixel's. Three things are kept: what the pixel to the left hands on, zeros of ``num_left`` channels
    where there is none; what the row above says to each pixel, zeros of ``num_links`` channels where there is none;
    and what each pixel leaves behind, of which that is made once the row is finished.
    """

    num_left: int
    num_links: int

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, 2 channels, height, width)`` to the same shape."""

    @abstractmethod
    def row(self, left_behind: Tensor, links: Tensor) -> Tensor:
        """Return what a finished row ``(batch, ..., width)``, and those above it, say to the next row."""

    @abstractmethod
    def pixel(self, x: Tensor, left: Tensor, link: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map a pixel ``(batch, 2 channels)``; return also what it hands on and what it leaves behind."""


class RowLayer(RecurrentLayer):
    r"""An LSTM that sees a row at a time, from the top to the bottom.

    .. math:: (o, f, i, g)_r = K_{is} * x_r + K_{ss} * h_{r - 1}, \qquad x'_r = x_r + W h_r

    where :math:`K_{is}` sees a pixel and the one to its left (a window of three, masked), and :math:`K_{ss}` the pixel
    above and both its neighbours.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input_to_state = CausalConv1d(2 * channels, 4 * channels, 2)
        self.state_to_state = nn.Conv1d(channels, 4 * channels, 3, padding=1, bias=False)
        self.output = Pointwise(channels, 2 * channels)
        self.channels, self.num_left, self.num_links = channels, 2 * channels, 5 * channels

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), self.channels, x.shape[-1])
        rows = []
        for said in self.input_to_state(x).unbind(-2):
            h, c = lstm(said + self.state_to_state(h), c)
            rows.append(h)
        return x + self.output(torch.stack(rows, -2))

    def row(self, left_behind: Tensor, links: Tensor) -> Tensor:
        h, c = left_behind.chunk(2, 1)
        return torch.cat([self.state_to_state(h), c], 1)

    def pixel(self, x: Tensor, left: Tensor, link: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        said, c = link.split([4 * self.channels, self.channels], 1)
        h, c = lstm(self.input_to_state.step(x, [left]) + said, c)
        return x + self.output(h), x, torch.cat([h, c], 1)


class DiagonalLSTM(nn.Module):
    r"""An LSTM whose state at a pixel depends on those to its left and above.

    .. math:: (o, f, i, g)_{r,c} = W_{is} x_{r,c} + W_1 h_{r,c-1} + W_0 h_{r-1,c}

    Skewed, pixels of a diagonal are a column, and both states are in the column before: a column is computed at once.
    States outside the image are zeros.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input_to_state = Pointwise(2 * channels, 4 * channels)
        self.state_to_state = CausalConv1d(channels, 4 * channels, 2)
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(batch, 2 channels, height, width)`` to states ``(batch, channels, height, width)``."""
        inside = skew(x.new_ones(x.shape[-2:]))
        h = c = x.new_zeros(len(x), self.channels, x.shape[-2])
        columns = []
        for said, is_inside in zip(skew(self.input_to_state(x)).unbind(-1), inside.unbind(-1), strict=True):
            h, c = (state * is_inside for state in lstm(said + self.state_to_state(h), c))
            columns.append(h)
        return unskew(torch.stack(columns, -1))

    def pixel(self, x: Tensor, left: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
        """Return the state and what it hands on: state and cell, as ``left`` is; ``above`` is the state above."""
        h, c = left.chunk(2, 1)
        h, c = lstm(self.input_to_state(x) + self.state_to_state.step(h, [above]), c)
        return h, torch.cat([h, c], 1)

    def row(self, x: Tensor, above: Tensor) -> Tensor:
        """Map a row ``(batch, 2 channels, width)`` to its states, given those of the row above."""
        left = x.new_zeros(len(x), 2 * self.channels)
        states = []
        for pixel, state in zip(x.unbind(-1), above.unbind(-1), strict=True):
            h, left = self.pixel(pixel, left, state)
            states.append(h)
        return torch.stack(states, -1)


class DiagonalLayer(RecurrentLayer):
    r"""Two diagonal LSTMs, of which the one that comes from the right speaks to the row below its own.

    .. math:: x' = x + W (\overrightarrow{h} + {\downarrow} \overleftarrow{h})

    where :math:`\downarrow` moves an image down by one row: in its own row that one has seen what is still to come.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rightwards, self.leftwards = DiagonalLSTM(channels), DiagonalLSTM(channels)
        self.output = Pointwise(channels, 2 * channels)
        self.channels, self.num_left, self.num_links = channels, 2 * channels, 2 * channels

    def forward(self, x: Tensor) -> Tensor:
        from_the_right = self.leftwards(x.flip(-1)).flip(-1)
        return x + self.output(self.rightwards(x) + shift_down(from_the_right))

    def row(self, left_behind: Tensor, links: Tensor) -> Tensor:
        x, h = left_behind.split([2 * self.channels, self.channels], 1)
        _, above = links.chunk(2, 1)
        return torch.cat([h, self.leftwards.row(x.flip(-1), above.flip(-1)).flip(-1)], 1)

    def pixel(self, x: Tensor, left: Tensor, link: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        above, from_the_right = link.chunk(2, 1)
        h, left = self.rightwards.pixel(x, left, above)
        return x + self.output(h + from_the_right), left, torch.cat([x, h], 1)
