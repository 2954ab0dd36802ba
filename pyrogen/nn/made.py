"""Networks of vectors whose elements depend on those before them: FVSBN, NADE and MADE."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from math import prod

import torch
from torch import Tensor, nn

from pyrogen.nn.causal import Causal, Layers, contextual
from pyrogen.nn.values import ValueEncoder

__all__ = ["FVSBN", "MADE", "NADE"]


class Flat(Causal):
    """A network of data of a fixed shape, whose elements come in the order of the flattened datum.

    Args:
        shape: of a datum.
        encoder: maps values to ``encoder.width`` features in a new last dimension.
        num_features: how many numbers it says of an element.
    """

    shape: tuple[int, ...]

    def __init__(self, shape: Sequence[int], encoder: ValueEncoder, num_features: int) -> None:
        super().__init__()
        self.shape, self.encoder, self.num_features = tuple(shape), encoder, num_features
        self.width, self.num_dims = encoder.width, prod(shape)

    def flat(self, x: Tensor) -> Tensor:
        """Map data ``(batch, *shape)`` to ``(batch, num_dims, width)``."""
        return self.encoder(x.flatten(1))

    def shaped(self, features: Tensor) -> Tensor:
        """Bring ``(batch, num_dims, num_features)`` to ``(batch, *shape, num_features)``."""
        return features.reshape(len(features), *self.shape, self.num_features)


@dataclass
class Sum:
    """What the elements so far add up to."""

    total: Tensor
    index: int = 0


class FVSBN(Flat):
    r"""A fully visible sigmoid belief network: features that are linear in the elements before.

    .. math:: f_i = b_i + \sum_{j < i} W_{ij} \, e(x_j)

    Args:
        shape: of a datum.
        encoder: :math:`e`, maps values to ``encoder.width`` features in a new last dimension.
        num_features: how many numbers it says of an element.

    References:
        Connectionist Learning of Belief Networks (Neal, 1992), https://doi.org/10.1016/0004-3702(92)90065-6

    Example:
        >>> from pyrogen.nn import ScaledValues
        >>> FVSBN((1, 5, 4), ScaledValues(2), 1)(torch.zeros(3, 1, 5, 4)).shape
        torch.Size([3, 1, 5, 4, 1])
    """

    before: Tensor

    def __init__(self, shape: Sequence[int], encoder: ValueEncoder, num_features: int) -> None:
        super().__init__(shape, encoder, num_features)
        d = self.num_dims
        self.weight = nn.Parameter(torch.randn(d, self.width, d, num_features) * 0.01)
        self.bias = nn.Parameter(torch.zeros(d, num_features))
        mask = torch.ones(d, d).triu(1)[:, None, :, None]
        self.register_buffer("before", mask, persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        contextual(None, context)
        weight = self.weight * self.before
        sums = self.flat(x).flatten(1) @ weight.flatten(0, 1).flatten(1)
        return self.shaped(self.bias + sums.reshape(len(x), self.num_dims, self.num_features))

    def start(self, batch: int, context: Tensor | None = None) -> Sum:
        contextual(None, context)
        return Sum(self.bias.expand(batch, -1, -1))

    def step(self, previous: Tensor | None, state: Sum) -> Tensor:
        if previous is not None:
            state.total = self.core(self.encoder(previous), self.weight[state.index], state.total)
            state.index += 1
        return state.total[:, state.index]

    def core(self, x: Tensor, weight: Tensor, total: Tensor) -> Tensor:
        """Add what an element says of all others; those before it are not asked again."""
        return total + torch.einsum("nc,cdf->ndf", x, weight)


class NADE(Flat):
    r"""A neural autoregressive distribution estimator: one hidden layer, to which each element adds its share.

    .. math::
        a_i = c + \sum_{j < i} W_j \, e(x_j), \qquad f_i = b_i + V_i \, \sigma(a_i)

    Args:
        shape: of a datum.
        encoder: :math:`e`, maps values to ``encoder.width`` features in a new last dimension.
        num_features: how many numbers it says of an element.
        hidden: the width of the hidden layer.

    References:
        The Neural Autoregressive Distribution Estimator (Larochelle and Murray, 2011),
        https://proceedings.mlr.press/v15/larochelle11a.html

    Example:
        >>> from pyrogen.nn import ScaledValues
        >>> NADE((1, 5, 4), ScaledValues(2), 1, hidden=8)(torch.zeros(3, 1, 5, 4)).shape
        torch.Size([3, 1, 5, 4, 1])
    """

    def __init__(self, shape: Sequence[int], encoder: ValueEncoder, num_features: int, hidden: int = 500) -> None:
        super().__init__(shape, encoder, num_features)
        d = self.num_dims
        self.weight = nn.Parameter(torch.randn(d, self.width, hidden) / d**0.5)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.output = nn.Parameter(torch.randn(d, hidden, num_features) / hidden**0.5)
        self.output_bias = nn.Parameter(torch.zeros(d, num_features))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        contextual(None, context)
        shares = torch.einsum("ndc,dch->ndh", self.flat(x), self.weight)
        before = nn.functional.pad(shares, (0, 0, 1, -1)).cumsum(1)
        hidden = (self.bias + before).sigmoid()
        return self.shaped(torch.einsum("ndh,dhf->ndf", hidden, self.output) + self.output_bias)

    def start(self, batch: int, context: Tensor | None = None) -> Sum:
        contextual(None, context)
        return Sum(self.bias.expand(batch, -1))

    def step(self, previous: Tensor | None, state: Sum) -> Tensor:
        if previous is not None:
            state.total = torch.addmm(state.total, self.encoder(previous), self.weight[state.index])
            state.index += 1
        return self.core(state.total, self.output[state.index], self.output_bias[state.index])

    def core(self, total: Tensor, output: Tensor, bias: Tensor) -> Tensor:
        """Map what the elements so far add up to, to the features of the next."""
        return torch.addmm(bias, total.sigmoid(), output)


@dataclass
class Units:
    """The units that are known so far, by layer: the encoded data first; zeros where they are not."""

    values: list[Tensor]
    index: int = 0


class MADE(Flat):
    r"""A masked autoencoder: a network of dense layers, less the weights by which an element would see a later one.

    Units of hidden layers have degrees :math:`m`, spread evenly over :math:`0, \dots, D - 2` and in order; a unit sees
    the elements, or the units, of degrees up to its own, and the features of element :math:`i` see degrees below
    :math:`i`. They see the elements themselves, too: with fewer units than elements, no unit would tell an element of
    the very one before it. A step computes the units of one degree: drawing a datum computes each unit once.

    Args:
        shape: of a datum.
        encoder: maps values to ``encoder.width`` features in a new last dimension.
        num_features: how many numbers it says of an element.
        hidden: widths of the hidden layers.

    References:
        MADE: Masked Autoencoder for Distribution Estimation (Germain et al., 2015), https://arxiv.org/abs/1502.03509

    Example:
        >>> from pyrogen.nn import ScaledValues
        >>> MADE((1, 5, 4), ScaledValues(2), 1, hidden=(32,))(torch.zeros(3, 1, 5, 4)).shape
        torch.Size([3, 1, 5, 4, 1])
    """

    def __init__(
        self, shape: Sequence[int], encoder: ValueEncoder, num_features: int, hidden: Sequence[int] = (500, 500)
    ) -> None:
        super().__init__(shape, encoder, num_features)
        d = self.num_dims
        top = max(1, d - 1)
        inputs = torch.arange(d).repeat_interleave(self.width)
        outputs = torch.arange(d).repeat_interleave(num_features) - 1
        self.degrees = [inputs, *(torch.arange(n) * top // n for n in hidden), outputs]
        widths = [len(degrees) for degrees in self.degrees]
        self.layers = Layers[nn.Linear](nn.Linear(a, b) for a, b in pairwise(widths))
        self.direct = nn.Parameter(torch.zeros(widths[-1], widths[0]))
        self.register_buffer("mask_direct", (inputs <= outputs[:, None]).float(), persistent=False)
        for i, (below, above) in enumerate(pairwise(self.degrees)):
            self.register_buffer(f"mask_{i}", (below <= above[:, None]).float(), persistent=False)
        self.bounds = [torch.searchsorted(degrees, torch.arange(d + 1)).tolist() for degrees in self.degrees[:-1]]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        contextual(None, context)
        h = flat = self.flat(x).flatten(1)
        for i, layer in enumerate(self.layers):
            weight = layer.weight * self.get_buffer(f"mask_{i}")
            h = nn.functional.linear(h.relu() if i else h, weight, layer.bias)
        h = h + nn.functional.linear(flat, self.direct * self.get_buffer("mask_direct"))
        return self.shaped(h.reshape(len(x), self.num_dims, self.num_features))

    def start(self, batch: int, context: Tensor | None = None) -> Units:
        contextual(None, context)
        like = next(self.parameters())
        return Units([like.new_zeros(batch, len(degrees)) for degrees in self.degrees[:-1]])

    def step(self, previous: Tensor | None, state: Units) -> Tensor:
        if previous is not None:
            self._learn(self.encoder(previous), state)
            state.index += 1
        here = slice(state.index * self.num_features, (state.index + 1) * self.num_features)
        *_, last = self.layers
        known, seen = self.bounds[-1][state.index], state.index * self.width
        directly = self.core(state.values[0][:, :seen], self.direct[here, :seen], last.bias[here])
        return directly + state.values[-1][:, :known] @ last.weight[here, :known].T

    def _learn(self, x: Tensor, state: Units) -> None:
        """Compute the units whose degree is that of the newest element."""
        degree = state.index
        first, last = self.bounds[0][degree], self.bounds[0][degree + 1]
        state.values[0][:, first:last] = x
        for i, layer in enumerate(islice(self.layers, len(self.layers) - 1)):
            known = self.bounds[i][degree + 1]
            first, last = self.bounds[i + 1][degree], self.bounds[i + 1][degree + 1]
            made = self.core(state.values[i][:, :known], layer.weight[first:last, :known], layer.bias[first:last])
            state.values[i + 1][:, first:last] = made.relu()

    def core(self, known: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Map the units that are known to others."""
        return nn.functional.linear(known, weight, bias)
