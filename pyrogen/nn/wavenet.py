"""WaveNet: dilated causal convolutions over a sequence."""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyrogen.nn.causal import Causal, CausalConv1d, Layers, Pointwise, ValueEncoder, gated, shift

__all__ = ["WaveNet"]


class DilatedLayer(nn.Module):
    r"""A gated convolution, whose output goes on to the next layer and, past all of them, to the end.

    .. math:: g = \tanh(W_f * x + V_f c) \odot \sigma(W_g * x + V_g c), \qquad x' = x + W_r g, \quad s = W_s g
    """

    def __init__(self, channels: int, skip: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.dilated = CausalConv1d(channels, 2 * channels, kernel, dilation)
        self.output = Pointwise(channels, channels + skip)
        self.channels = channels

    def finish(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next layer's input and what is skipped to the end, of the gate's input."""
        out = self.output(gated(before))
        return x + out[:, : self.channels], out[:, self.channels :]


@dataclass
class SequenceState:
    """Where a sequence stands.

    Attributes:
        nothing: the encoded element before the first: zeros.
        seen: for each convolution, the last inputs that it saw.
        context: what is added to gates, shape ``(batch, channels, time or 1)``.
        index: the number of elements before the present one.
    """

    nothing: Tensor
    seen: list[deque[Tensor]]
    context: Tensor | None
    index: int = 0


class WaveNet(Causal):
    r"""WaveNet.

    The receptive field is :math:`2 + (k - 1) \sum_l d_l` elements, with dilations
    :math:`d_l = 1, 2, 4, \dots` in each stack.

    Args:
        encoder: maps values to ``encoder.width`` features in a new last dimension.
        num_features: how many numbers it says of an element.
        channels: of each layer.
        layers: in a stack, whose dilations are 1, 2, ..., 2^(layers - 1).
        stacks: how many.
        kernel: elements that a convolution sees.
        skip: channels that go past all layers; as ``channels`` if not given.
        context: the length of the context (global), or its channels where it is a sequence (local); 0 for none.

    References:
        WaveNet: A Generative Model for Raw Audio (van den Oord et al., 2016), https://arxiv.org/abs/1609.03499;
        Fast Wavenet Generation Algorithm (Paine et al., 2016), https://arxiv.org/abs/1611.09482

    Example:
        >>> from pyrogen.nn import EmbeddedValues
        >>> network = WaveNet(EmbeddedValues(256, 8), 256, channels=8, layers=3, stacks=1)
        >>> network(torch.zeros(2, 20)).shape, network.receptive_field
        (torch.Size([2, 20, 256]), 9)
    """

    def __init__(
        self,
        encoder: ValueEncoder,
        num_features: int,
        channels: int = 32,
        layers: int = 10,
        stacks: int = 1,
        kernel: int = 2,
        skip: int | None = None,
        context: int = 0,
    ) -> None:
        super().__init__()
        skip = channels if skip is None else skip
        self.encoder, self.num_features, self.channels = encoder, num_features, channels
        self.first = CausalConv1d(encoder.width, channels, kernel)
        dilations = [2**i for i in range(layers)] * stacks
        self.layers: Layers[DilatedLayer] = Layers(
            DilatedLayer(channels, skip, kernel, dilation) for dilation in dilations
        )
        self.context = Pointwise(context, 2 * channels * len(dilations)) if context else None
        self.output = nn.Sequential(nn.ReLU(), Pointwise(skip, skip), nn.ReLU(), Pointwise(skip, num_features))

    @property
    def receptive_field(self) -> int:
        """How many elements before it an element depends on."""
        return 1 + self.first.memory + sum(layer.dilated.memory for layer in self.layers)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map sequences ``(batch, time)`` to ``(batch, time, num_features)``.

        Args:
            x: values.
            context: shape ``(batch, num_context)``, or ``(batch, num_context, time)``: one for each element.
        """
        h = self.first(shift(self.encoder(x).movedim(-1, 1)))
        added = self._added(context)
        skips: Tensor | float = 0.0
        for i, layer in enumerate(self.layers):
            before = layer.dilated(h)
            h, skip = layer.finish(h, before if added is None else before + added[i])
            skips = skips + skip
        return self.output(skips).movedim(1, -1)

    def _added(self, context: Tensor | None) -> tuple[Tensor, ...] | None:
        if (context is None) != (self.context is None):
            has = "with" if self.context is not None else "without"
            called = "with" if context is not None else "without"
            raise ValueError(f"a network {has} a context was called {called} one")
        if context is None or self.context is None:
            return None
        mapped = self.context(context if context.dim() == 3 else context.unsqueeze(-1))
        return mapped.chunk(len(self.layers), 1)

    def start(self, batch: int, context: Tensor | None = None) -> SequenceState:
        convolutions = [self.first, *(layer.dilated for layer in self.layers)]
        nothing = self.first.bias.new_zeros(batch, self.encoder.width)
        added = self._added(context)
        seen = [layer.start(batch) for layer in convolutions]
        return SequenceState(nothing, seen, None if added is None else torch.cat(added, 1))

    def step(self, previous: Tensor | None, state: SequenceState) -> Tensor:
        x = state.nothing if previous is None else self.encoder(previous)
        convolutions = [self.first, *(layer.dilated for layer in self.layers)]
        taps = [layer.taps(seen) for layer, seen in zip(convolutions, state.seen, strict=True)]
        added = state.context
        here = None if added is None else added[..., min(state.index, added.shape[-1] - 1)]
        features, saw = self.core(x, taps, here)
        for seen, newest in zip(state.seen, saw, strict=True):
            seen.append(newest)
        state.index += 1
        return features

    def core(self, x: Tensor, taps: list[list[Tensor]], added: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Pass an element through the network; return its features, and what convolutions saw."""
        saw = [x]
        h = self.first.step(x, taps[0])
        of = None if added is None else added.chunk(len(self.layers), 1)
        skips: Tensor | float = 0.0
        for i, (layer, before) in enumerate(zip(self.layers, taps[1:], strict=True)):
            saw.append(h)
            gate = layer.dilated.step(h, before)
            h, skip = layer.finish(h, gate if of is None else gate + of[i])
            skips = skips + skip
        return self.output(skips), saw
