"""Stacked recurrent networks with skip connections."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pyrogen.nn.causal import Layers, contextual
from pyrogen.nn.recurrent import NOTHING, Memory, Recurrent
from pyrogen.nn.values import ValueEncoder

__all__ = ["CharRNN"]


@dataclass
class HiddenState:
    """What the layers keep of the elements before the one that a step is given, shape ``(batch, parts, hidden)``."""

    hidden: Tensor


class CharRNN(Recurrent):
    r"""Stacked layers of LSTM or GRU cells; each sees the input, and the output sees each.

    .. math::
        h^1_t = \mathcal{H}(e(x_{t-1}), h^1_{t-1}), \qquad
        h^l_t = \mathcal{H}([e(x_{t-1}), h^{l-1}_t], h^l_{t-1}), \qquad
        y_t = b + W [h^1_t, \dots, h^L_t]

    Data of more dimensions are read as one sequence. A forget gate starts out open, with a bias of one (Jozefowicz et
    al., 2015, https://proceedings.mlr.press/v37/jozefowicz15.html).

    Args:
        encoder: :math:`e`, maps values to ``encoder.width`` features in a new last dimension.
        num_features: the length of :math:`y_t`, how many numbers it says of an element.
        cell: lstm or gru.
        hidden: the length of :math:`h^l_t`.
        layers: :math:`L`.
        dropout: the share of each :math:`h^l_t` that is dropped in training, on its way up and not on that to
            :math:`t + 1`.

    References:
        Generating Sequences With Recurrent Neural Networks (Graves, 2013), https://arxiv.org/abs/1308.0850;
        Recurrent Neural Network Regularization (Zaremba et al., 2014), https://arxiv.org/abs/1409.2329

    Example:
        >>> from pyrogen.nn import EmbeddedValues
        >>> network = CharRNN(EmbeddedValues(5, 3), 5, hidden=8, layers=2)
        >>> x = torch.tensor([[0.0, 4.0, 2.0, 1.0]])
        >>> features, memory = network.resume(x[:, :1], network.begin(1))
        >>> more, memory = network.resume(x[:, 1:], memory)
        >>> torch.allclose(torch.cat([features, more], 1), network(x), atol=1e-6), memory.previous
        (True, tensor([1.]))
    """

    def __init__(
        self,
        encoder: ValueEncoder,
        num_features: int,
        cell: Literal["lstm", "gru"] = "lstm",
        hidden: int = 256,
        layers: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder, self.num_features, self.hidden, self.is_lstm = encoder, num_features, hidden, cell == "lstm"
        make: Callable[..., nn.RNNBase] = nn.LSTM if self.is_lstm else nn.GRU
        widths = [encoder.width + (hidden if i else 0) for i in range(layers)]
        self.layers: Layers[nn.RNNBase] = Layers(make(width, hidden, batch_first=True) for width in widths)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(layers * hidden, num_features)
        if self.is_lstm:
            for layer in self.layers:
                _, _, bias, other_bias = layer.all_weights[0]
                bias.data[hidden : 2 * hidden] = 1.0
                other_bias.data[hidden : 2 * hidden] = 0.0

    @property
    def parts(self) -> int:
        """How many vectors are kept for the next element: one for each layer, or two for one of LSTM cells."""
        return len(self.layers) * (2 if self.is_lstm else 1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        contextual(None, context)
        features, _ = self.resume(x.flatten(1), self.begin(len(x)))
        return features.reshape(*x.shape, self.num_features)

    def begin(self, batch: int) -> Memory:
        weight = self.output.weight
        return Memory(weight.new_full((batch,), NOTHING), weight.new_zeros(batch, self.parts, self.hidden))

    def resume(self, x: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        encoded = torch.cat([self._encoded(memory.previous).unsqueeze(1), self.encoder(x[:, :-1])], 1)
        before = [part.unsqueeze(0).contiguous() for part in memory.hidden.unbind(1)]
        inputs, after, outputs = encoded, [], []
        for i, layer in enumerate(self.layers):
            if self.is_lstm:
                h, last = layer(inputs, (before[2 * i], before[2 * i + 1]))
                after += last
            else:
                h, last = layer(inputs, before[i])
                after.append(last)
            outputs.append(self.dropout(h))
            inputs = torch.cat([encoded, outputs[-1]], -1)
        return self.output(torch.cat(outputs, -1)), Memory(x[:, -1], torch.cat(after).transpose(0, 1))

    def _encoded(self, previous: Tensor) -> Tensor:
        """Encode an element that there may not be: zeros stand for none."""
        there = previous != NOTHING
        return self.encoder(torch.where(there, previous, 0.0)) * there.unsqueeze(-1)

    def recall(self, memory: Memory) -> HiddenState:
        return HiddenState(memory.hidden)

    def start(self, batch: int, context: Tensor | None = None) -> HiddenState:
        contextual(None, context)
        return HiddenState(self.begin(batch).hidden)

    def step(self, previous: Tensor | None, state: HiddenState) -> Tensor:
        if previous is None:
            previous = state.hidden.new_full((len(state.hidden),), NOTHING)
        features, state.hidden = self.core(self._encoded(previous), state.hidden)
        return features

    def core(self, encoded: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Pass an element through the layers; return what is said of the next one, and what they keep."""
        before = hidden.unbind(1)
        after: list[Tensor] = []
        inputs, outputs = encoded, []
        for i, layer in enumerate(self.layers):
            (weights,) = layer.all_weights
            if self.is_lstm:
                h, c = torch.lstm_cell(inputs, before[2 * i : 2 * i + 2], *weights)
                after += h, c
            else:
                h = torch.gru_cell(inputs, before[i], *weights)
                after.append(h)
            outputs.append(self.dropout(h))
            inputs = torch.cat([encoded, outputs[-1]], -1)
        return self.output(torch.cat(outputs, -1)), torch.stack(after, 1)
