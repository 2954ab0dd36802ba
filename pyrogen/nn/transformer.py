"""A transformer over a sequence, each of whose elements attends to those before it."""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from pyrogen.nn.causal import Causal, Layers, Pointwise, at, contextual
from pyrogen.nn.values import ValueEncoder

__all__ = ["CausalTransformer", "rotated"]


def rotated(x: Tensor, positions: Tensor, base: float = 10_000.0) -> Tensor:
    r"""Turn pairs of elements by angles that grow with the position.

    .. math::
        \begin{pmatrix} x'_i \\ x'_{i + d/2} \end{pmatrix} =
        \begin{pmatrix} \cos m \theta_i & -\sin m \theta_i \\ \sin m \theta_i & \cos m \theta_i \end{pmatrix}
        \begin{pmatrix} x_i \\ x_{i + d/2} \end{pmatrix}, \qquad \theta_i = b^{-2 i / d}

    The inner product of two vectors, turned so, depends on how far apart their positions are and not on where.

    Args:
        x: shape ``(..., time, d)`` of an even :math:`d`.
        positions: :math:`m`, shape ``(time,)``.
        base: :math:`b`.

    References:
        RoFormer: Enhanced Transformer with Rotary Position Embedding (Su et al., 2021),
        https://arxiv.org/abs/2104.09864

    Example:
        >>> rotated(torch.tensor([[1.0, 0.0]]), torch.tensor([torch.pi / 2])).round()
        tensor([[-0., 1.]])
    """
    width = x.shape[-1]
    theta = base ** (torch.arange(0, width, 2, dtype=x.dtype, device=x.device) / -width)
    angles = positions.to(x.dtype)[:, None] * theta
    cos, sin = angles.cos(), angles.sin()
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class TransformerLayer(nn.Module):
    r"""Attention and a network of each position, with normalisation before and a residual connection around each.

    .. math::
        y &= x + W \operatorname{Attention}(R q, R k, v), \qquad (q, k, v) = V \operatorname{Norm}(x) \\
        x' &= y + \operatorname{MLP}(\operatorname{Norm}(y))

    where :math:`R` turns queries and keys by their positions: :func:`rotated`.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, 1 / sqrt(width // heads)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Map ``(batch, time, width)``, at positions ``(time,)``, to the same shape."""
        q, k, v = self._heads(x, positions)
        return self._finish(x, scaled_dot_product_attention(q, k, v, is_causal=True))

    def step(self, x: Tensor, position: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Map the newest element ``(batch, 1, width)``; return also its key and value.

        Args:
            x: the element.
            position: its place, shape ``(1,)``.
            past: keys and values of those before it, shape ``(2, batch, heads, capacity, width / heads)``, with room
                for more.
        """
        q, k, v = self._heads(x, position)
        keys, values = past
        is_past = torch.arange(past.shape[-2], device=x.device) < position
        before = (q @ keys.mT).where(is_past, -torch.inf)
        weights = (torch.cat([before, q @ k.mT], -1) * self.scale).softmax(-1)
        attended = weights[..., :-1] @ values + weights[..., -1:] * v
        return self._finish(x, attended), torch.stack([k, v])

    def _heads(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = self.inputs(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        return rotated(q, positions), rotated(k, positions), v

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        y = x + self.dropout(self.output(attended.transpose(1, 2).flatten(2)))
        return y + self.dropout(self.mlp(self.mlp_norm(y)))


@dataclass
class TransformerState:
    """Where a sequence stands.

    Attributes:
        past: for each layer, keys and values of the elements before, shape ``(2, batch, heads, capacity, depth)``.
        context: what is added to elements, shape ``(batch, width, time or 1)``.
        index: the number of elements before the present one.
    """

    past: list[Tensor]
    context: Tensor | None
    index: int = 0


class CausalTransformer(Causal):
    r"""A transformer that is a decoder alone, of any length: positions are rotations.

    The element before the first is a learned vector. Steps keep keys and values: a step's attention costs as much as
    there are elements before, all the rest is constant. There is room for ``capacity`` elements, which doubles when it
    is full, so that few shapes have to be compiled.

    Args:
        encoder: maps values to ``encoder.width`` features in a new last dimension.
        num_features: how many numbers it says of an element.
        width: of each layer, a multiple of twice the heads.
        layers: how many.
        heads: of attention.
        dropout: the share of what layers add that is dropped in training.
        context: the length of the context (global), or its channels where it is a sequence (local); 0 for none.

    Raises:
        ValueError: where heads do not divide the width into pairs.

    References:
        Attention Is All You Need (Vaswani et al., 2017), https://arxiv.org/abs/1706.03762;
        On Layer Normalization in the Transformer Architecture (Xiong et al., 2020), https://arxiv.org/abs/2002.04745;
        RoFormer: Enhanced Transformer with Rotary Position Embedding (Su et al., 2021),
        https://arxiv.org/abs/2104.09864

    Example:
        >>> from pyrogen.nn import EmbeddedValues
        >>> network = CausalTransformer(EmbeddedValues(256, 8), 256, width=16, layers=2, heads=2)
        >>> network(torch.zeros(2, 20)).shape
        torch.Size([2, 20, 256])
    """

    has_any_length = True
    capacity = 32

    def __init__(
        self,
        encoder: ValueEncoder,
        num_features: int,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
        context: int = 0,
    ) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"width must be a multiple of twice the heads, found {width} for {heads} heads")
        self.encoder, self.num_features, self.heads = encoder, num_features, heads
        self.embedding = nn.Linear(encoder.width, width)
        self.before_first = nn.Parameter(torch.randn(width))
        self.context = Pointwise(context, width) if context else None
        self.dropout = nn.Dropout(dropout)
        self.layers: Layers[TransformerLayer] = Layers(TransformerLayer(width, heads, dropout) for _ in range(layers))
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_features))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map sequences ``(batch, time)`` to ``(batch, time, num_features)``.

        Args:
            x: values.
            context: shape ``(batch, num_context)``, or ``(batch, num_context, time)``: one for each element.
        """
        batch, time = x.shape
        first = self.before_first.expand(batch, 1, -1)
        h = torch.cat([first, self.embedding(self.encoder(x[:, :-1]))], 1)
        added = self._added(context)
        h = self.dropout(h if added is None else h + added.mT)
        positions = torch.arange(time, device=x.device)
        for layer in self.layers:
            h = layer(h, positions)
        return self.output(h)

    def _added(self, context: Tensor | None) -> Tensor | None:
        sequence = context.unsqueeze(-1) if context is not None and context.dim() == 2 else context
        return contextual(self.context, sequence)

    def start(self, batch: int, context: Tensor | None = None) -> TransformerState:
        depth = len(self.before_first) // self.heads
        past = [self.before_first.new_zeros(2, batch, self.heads, self.capacity, depth) for _ in self.layers]
        return TransformerState(past, self._added(context))

    def step(self, previous: Tensor | None, state: TransformerState) -> Tensor:
        batch, room = state.past[0].shape[1], state.past[0].shape[-2]
        first = self.before_first.expand(batch, -1)
        h = first if previous is None else self.embedding(self.encoder(previous))
        if state.context is not None:
            h = h + at(state.context, state.index)
        if state.index == room:
            state.past = [pad(past, (0, 0, 0, room)) for past in state.past]
        position = torch.full((1,), state.index, device=h.device)
        features, said = self.core(h, position, state.past)
        for past, newest in zip(state.past, said, strict=True):
            past[..., state.index, :] = newest.squeeze(-2)
        state.index += 1
        return features

    def core(self, h: Tensor, position: Tensor, past: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Pass an element ``(batch, width)`` through the network; return its features, and keys and values."""
        h, said = self.dropout(h).unsqueeze(1), []
        for layer, before in zip(self.layers, past, strict=True):
            h, newest = layer.step(h, position, before)
            said.append(newest)
        return self.output(h).squeeze(1), said
