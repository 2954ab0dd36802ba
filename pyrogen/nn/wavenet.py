"""WaveNet: dilated causal convolutions over a sequence."""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from pyrogen.nn.causal import Causal, CausalConv1d, Pointwise, at, contextual, gated, queue, see, shift, uniform
from pyrogen.nn.values import ValueEncoder

__all__ = ["WaveNet"]


@dataclass
class SequenceState:
    """Where a sequence stands.

    Attributes:
        nothing: the encoded element before the first: zeros.
        first: the last inputs of the first convolution.
        seen: for each dilated one, the last inputs that it saw.
        context: what is added to gates, shape ``(layers, batch, 2 channels, time or 1)``.
        index: the number of elements before the present one.
    """

    nothing: Tensor
    first: deque[Tensor]
    seen: list[deque[Tensor]]
    context: Tensor | None
    index: int = 0


class WaveNet(Causal):
    r"""WaveNet: gated convolutions, each of whose outputs goes on to the next and, past all of them, to the end.

    .. math::
        g_l = \tanh(W_f * x_l + V_f c) \odot \sigma(W_g * x_l + V_g c), \qquad
        x_{l + 1} = x_l + W_r g_l, \qquad s = \sum_l W_s g_l

    The receptive field is :math:`k + (k - 1) \sum_l d_l` elements, with dilations
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

    has_any_length = True

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
        self.dilations, self.kernel = [2**i for i in range(layers)] * stacks, kernel
        n, c = len(self.dilations), channels
        self.first = CausalConv1d(encoder.width, c, kernel)
        self.dilated = uniform(n, kernel, c, 2 * c, fan_in=kernel * c)
        self.dilated_bias = uniform(n, 2 * c, fan_in=kernel * c)
        self.residual, self.residual_bias = uniform(n, c, c, fan_in=c), uniform(n, c, fan_in=c)
        self.skip, self.skip_bias = uniform(n, c, skip, fan_in=c), uniform(skip, fan_in=c)
        self.context = Pointwise(context, 2 * c * n) if context else None
        self.output = nn.Sequential(nn.ReLU(), Pointwise(skip, skip), nn.ReLU(), Pointwise(skip, num_features))

    @property
    def receptive_field(self) -> int:
        """How many elements before it an element depends on."""
        return 1 + self.first.memory + (self.kernel - 1) * sum(self.dilations)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map sequences ``(batch, time)`` to ``(batch, time, num_features)``.

        Args:
            x: values.
            context: shape ``(batch, num_context)``, or ``(batch, num_context, time)``: one for each element.
        """
        h = self.first(shift(self.encoder(x).movedim(-1, 1)))
        added = self._added(context)
        skips = self.skip_bias[:, None]
        for i, dilation in enumerate(self.dilations):
            # Each layer pads its own input: padding the first one's alone would fill the others with biases.
            padded = pad(h, ((self.kernel - 1) * dilation, 0))
            before = conv1d(padded, self.dilated[i].permute(2, 1, 0), self.dilated_bias[i], dilation=dilation)
            g = gated(before if added is None else before + added[i])
            skips = skips + conv1d(g, self.skip[i].T.unsqueeze(-1))
            h = h + conv1d(g, self.residual[i].T.unsqueeze(-1), self.residual_bias[i])
        return self.output(skips).movedim(1, -1)

    def _added(self, context: Tensor | None) -> Tensor | None:
        sequence = context.unsqueeze(-1) if context is not None and context.dim() == 2 else context
        mapped = contextual(self.context, sequence)
        return None if mapped is None else mapped.unflatten(1, (len(self.dilations), -1)).movedim(1, 0)

    def start(self, batch: int, context: Tensor | None = None) -> SequenceState:
        nothing = self.skip_bias.new_zeros(batch, self.encoder.width)
        zeros = nothing.new_zeros(batch, self.channels)
        seen = [queue((self.kernel - 1) * dilation, zeros) for dilation in self.dilations]
        return SequenceState(nothing, self.first.start(batch), seen, self._added(context))

    def step(self, previous: Tensor | None, state: SequenceState) -> Tensor:
        x = state.nothing if previous is None else self.encoder(previous)
        taps = [seen[i * dilation] for seen, dilation in zip(state.seen, self.dilations, strict=True) for i in self.old]
        added = state.context
        here = None if added is None else at(added, state.index)
        features, saw = self.core(x, self.first.taps(state.first), torch.stack(taps), here)
        state.first.append(x)
        see(state.seen, saw.unbind(0))
        state.index += 1
        return features

    @property
    def old(self) -> range:
        """Which elements of a kernel are not the newest."""
        return range(self.kernel - 1)

    def core(self, x: Tensor, first: list[Tensor], taps: Tensor, added: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pass an element through the network; return its features, and what dilated convolutions saw.

        What was kept is known before the element is: its share of all layers is one product.
        """
        n, batch = len(self.dilations), len(x)
        kept = taps.unflatten(0, (n, self.kernel - 1)).transpose(1, 2).reshape(n, batch, -1)
        before = torch.baddbmm(self.dilated_bias.unsqueeze(1), kept, self.dilated[:, :-1].flatten(1, 2))
        before = before if added is None else before + added
        h = self.first.step(x, first)
        saw, gates = [], []
        layers = (before, self.dilated[:, -1], self.residual, self.residual_bias)
        for rest, newest, residual, bias in zip(*(of.unbind(0) for of in layers), strict=True):
            saw.append(h)
            g = gated(torch.addmm(rest, h, newest))
            gates.append(g)
            h = torch.addmm(h + bias, g, residual)
        skips = torch.addmm(self.skip_bias, torch.cat(gates, -1), self.skip.flatten(0, 1))
        return self.output(skips), torch.stack(saw)
