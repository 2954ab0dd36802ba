"""Causal networks: what they say of an element depends on the elements before it, and one step costs one element."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from math import sqrt
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, linear, pad

__all__ = [
    "Causal",
    "CausalConv1d",
    "Layers",
    "Pointwise",
    "RowConv2d",
    "at",
    "contextual",
    "gated",
    "queue",
    "see",
    "shift",
    "shift_down",
    "uniform",
]


class Causal(nn.Module, ABC):
    """A network that maps data to features of the distribution of each element, given the elements before it.

    Elements come in the order of the flattened datum: for images, row by row. Two ways lead to the same features:

    - ``forward(x, context)`` gives all of them in one pass, as training needs them;
    - ``start`` and ``step`` give them one by one, as sampling needs them. A step computes what one new element adds and
      keeps the rest in the state: its cost does not grow with what has gone before (attention apart).

    A state holds what layers saw in queues (:func:`queue`). The arithmetic of a step is in methods that see tensors
    alone, named in ``cores``, which :meth:`compile_steps` compiles.

    Attributes:
        num_features: how many numbers it says of an element.
        shape: of a datum; ``None`` where any will do, as of sequences of any length.
        has_any_length: whether data are sequences, and may have any length.
    """

    cores: tuple[str, ...] = ("core",)
    num_features: int
    shape: tuple[int, ...] | None = None
    has_any_length: bool = False

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data of shape ``(batch, *event)`` to features ``(batch, *event, num_features)``.

        Args:
            x: the data.
            context: what their distribution depends on, shape ``(batch, ...)``.
        """

    @abstractmethod
    def start(self, batch: int, context: Tensor | None = None) -> Any:
        """Return the state before the first element of ``batch`` data."""

    @abstractmethod
    def step(self, previous: Tensor | None, state: Any) -> Tensor:
        """Return the next element's features, shape ``(batch, num_features)``, and bring the state up to date.

        Args:
            previous: the element before it, shape ``(batch,)``; ``None`` for the first.
            state: of :meth:`start`, and of the steps before.
        """

    def compile_steps(self) -> None:
        """Compile the arithmetic of steps: the next one takes seconds, those that follow a fraction of their time."""
        # On the host, the calls between kernels cost more in Python than many kernels do.
        on_host = all(parameter.device.type == "cpu" for parameter in self.parameters())
        for name in self.cores:
            method = getattr(type(self), name).__get__(self)
            setattr(self, name, torch.compile(method, dynamic=False, options={"cpp_wrapper": on_host}))

    def __getstate__(self) -> dict[str, Any]:
        """Leave what was compiled to the original: it reads that one's parameters."""
        return {name: value for name, value in self.__dict__.items() if name not in self.cores}


def queue(length: int, zeros: Tensor) -> deque[Tensor]:
    """Return a queue that is full of zeros: what a layer with this much memory has seen before the first element.

    Example:
        >>> seen = queue(2, torch.zeros(1))
        >>> seen.append(torch.ones(1))
        >>> [float(x) for x in seen]
        [0.0, 1.0]
    """
    return deque([zeros] * length, length)


def see(queues: Iterable[deque[Tensor] | list[Tensor]], newest: Iterable[Tensor]) -> None:
    """Let each queue, or list, see what is new to it.

    Example:
        >>> seen = [queue(1, torch.zeros(1)), []]
        >>> see(seen, [torch.ones(1), torch.ones(1)])
        >>> [float(x) for of in seen for x in of]
        [1.0, 1.0]
    """
    for seen, x in zip(queues, newest, strict=True):
        seen.append(x)


def shift(x: Tensor) -> Tensor:
    """Move a sequence ``(..., time)`` on by one element; a zero comes in.

    Example:
        >>> shift(torch.tensor([1, 2, 3]))
        tensor([0, 1, 2])
    """
    return pad(x, (1, -1))


def shift_down(x: Tensor) -> Tensor:
    """Move images ``(..., height, width)`` down by one row; zeros come in."""
    return pad(x, (0, 0, 1, -1))


def gated(x: Tensor) -> Tensor:
    r"""Return :math:`\tanh(a) \odot \sigma(b)` of the two halves of the channels, in dimension 1.

    Example:
        >>> gated(torch.zeros(2, 6)).shape
        torch.Size([2, 3])
    """
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()


def contextual(layer: nn.Module | None, context: Tensor | None) -> Tensor | None:
    """Map a context by the layer that a network has for it, if it has one.

    Raises:
        ValueError: where the network has such a layer and is called without a context, or the reverse.

    Example:
        >>> contextual(Pointwise(2, 3), torch.zeros(4, 2)).shape, contextual(None, None)
        (torch.Size([4, 3]), None)
    """
    if (context is None) != (layer is None):
        has, called, mend = ("without", "with", "leave it out") if layer is None else ("with", "without", "give one")
        raise ValueError(f"a network {has} a context was called {called} one: {mend}")
    return None if context is None or layer is None else layer(context)


def at(mapped: Tensor, index: int) -> Tensor:
    """Return what a mapped context ``(..., time or 1)`` adds to an element: its own part, or the one that all share.

    Example:
        >>> at(torch.tensor([1, 2, 3]), 1), at(torch.tensor([7]), 1)
        (tensor(2), tensor(7))
    """
    return mapped[..., min(index, mapped.shape[-1] - 1)]


Layer = TypeVar("Layer", bound=nn.Module)


class Layers(nn.ModuleList, Generic[Layer]):
    """A list of layers of one kind.

    Example:
        >>> len(Layers([Pointwise(2, 2), Pointwise(2, 2)]))
        2
    """

    def __iter__(self) -> Iterator[Layer]:
        return super().__iter__()  # type: ignore[return-value]


def uniform(*shape: int, fan_in: int) -> nn.Parameter:
    r"""Draw weights as torch's own layers do, between :math:`\pm 1 / \sqrt{n}` for a fan-in of :math:`n`.

    Example:
        >>> bool((uniform(100, fan_in=4).abs() < 0.5).all())
        True
    """
    return nn.Parameter((2 * torch.rand(shape) - 1) / sqrt(fan_in))


class CausalConv1d(nn.Module):
    r"""A convolution whose output at :math:`t` sees its input up to and including :math:`t`.

    .. math:: y_t = b + \sum_{i=0}^{k-1} W_i \, x_{t - (k - 1 - i) d}

    The layer pads its own input with zeros: padding the first layer's alone would fill the others with its bias.

    Args:
        num_inputs: channels of :math:`x`.
        num_outputs: channels of :math:`y`.
        kernel: :math:`k`.
        dilation: :math:`d`.

    Example:
        >>> layer = CausalConv1d(1, 1, 2, dilation=4)
        >>> x = torch.zeros(1, 1, 6)
        >>> x[..., 0] = 1.0
        >>> (layer(x) != layer(torch.zeros_like(x))).flatten().tolist()
        [True, False, False, False, True, False]
    """

    def __init__(self, num_inputs: int, num_outputs: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        self.kernel, self.dilation, self.num_inputs = kernel, dilation, num_inputs
        self.weight = uniform(kernel, num_inputs, num_outputs, fan_in=kernel * num_inputs)
        self.bias = uniform(num_outputs, fan_in=kernel * num_inputs)

    @property
    def memory(self) -> int:
        """How many inputs before the present one it sees, or passes over."""
        return (self.kernel - 1) * self.dilation

    def forward(self, x: Tensor) -> Tensor:
        """Map sequences ``(batch, num_inputs, time)``, or the rows of images, to as many ``num_outputs``."""
        weight, padded = self.weight.permute(2, 1, 0), pad(x, (self.memory, 0))
        if x.dim() == 3:
            return conv1d(padded, weight, self.bias, dilation=self.dilation)
        return conv2d(padded, weight.unsqueeze(-2), self.bias, dilation=(1, self.dilation))

    def start(self, batch: int) -> deque[Tensor]:
        """Return the queue of what it has seen: nothing."""
        return queue(self.memory, self.bias.new_zeros(batch, self.num_inputs))

    def taps(self, seen: deque[Tensor]) -> list[Tensor]:
        """Take from the queue what the next output needs, the oldest first."""
        return [seen[i * self.dilation] for i in range(self.kernel - 1)]

    def step(self, x: Tensor, taps: Sequence[Tensor]) -> Tensor:
        """Map the newest input ``(batch, num_inputs)``, and those before it, to the newest output."""
        return torch.addmm(self.bias, torch.cat([*taps, x], -1), self.weight.flatten(0, 1))


class Pointwise(nn.Module):
    """The same linear map of the channels everywhere: a convolution of kernel one.

    Args:
        num_inputs: channels that come in.
        num_outputs: channels that go out.

    Example:
        >>> layer = Pointwise(2, 3)
        >>> layer(torch.zeros(4, 2)).shape, layer(torch.zeros(4, 2, 5, 5)).shape
        (torch.Size([4, 3]), torch.Size([4, 3, 5, 5]))
    """

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.weight = uniform(num_outputs, num_inputs, fan_in=num_inputs)
        self.bias = uniform(num_outputs, fan_in=num_inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, num_inputs)``, sequences, rows or images of them, to as many ``num_outputs``."""
        if x.dim() == 2:
            return linear(x, self.weight, self.bias)
        if x.dim() == 3:
            return conv1d(x, self.weight.unsqueeze(-1), self.bias)
        return conv2d(x, self.weight[..., None, None], self.bias)


class RowConv2d(nn.Module):
    """A convolution whose output in a row sees its input in that row and the rows above, to either side.

    Args:
        num_inputs: channels that come in.
        num_outputs: channels that go out.
        rows: how many rows it sees, the present one among them.
        columns: how many columns it sees, an odd number.
        stride: give every so many rows, and of these every so many columns, the first of each included.

    Example:
        >>> RowConv2d(1, 2, 2, 3)(torch.zeros(4, 1, 5, 5)).shape
        torch.Size([4, 2, 5, 5])
        >>> RowConv2d(1, 2, 2, 3, stride=2)(torch.zeros(4, 1, 5, 5)).shape
        torch.Size([4, 2, 3, 3])
    """

    def __init__(self, num_inputs: int, num_outputs: int, rows: int, columns: int, stride: int = 1) -> None:
        super().__init__()
        self.rows, self.columns, self.num_inputs, self.stride = rows, columns, num_inputs, stride
        self.weight = uniform(num_outputs, num_inputs, rows, columns, fan_in=num_inputs * rows * columns)
        self.bias = uniform(num_outputs, fan_in=num_inputs * rows * columns)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(batch, num_inputs, height, width)`` to as many ``num_outputs``, of each side's stride-th."""
        return self._convolved(pad(x, (0, 0, self.rows - 1, 0)))

    def start(self, batch: int, width: int) -> deque[Tensor]:
        """Return the queue of the rows that it has seen: none."""
        return queue(self.rows - 1, self.bias.new_zeros(batch, self.num_inputs, width))

    @staticmethod
    def taps(seen: deque[Tensor]) -> list[Tensor]:
        """Take from the queue what the next output needs, the oldest first: all of it."""
        return list(seen)

    def step(self, row: Tensor, taps: Sequence[Tensor]) -> Tensor:
        """Map the newest row ``(batch, num_inputs, width)``, and those above it, to the newest output row."""
        return self._convolved(torch.stack([*taps, row], -2)).squeeze(-2)

    def _convolved(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, self.bias, self.stride, (0, self.columns // 2))
