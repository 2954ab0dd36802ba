"""Distributions of data whose elements are drawn one after the other."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor

from pyrogen.distributions.choice import Choice
from pyrogen.errors import ProgramError, UsageError
from pyrogen.nn.causal import Causal
from pyrogen.nn.recurrent import Memory, Recurrent

__all__ = ["Autoregressive"]

Element = Callable[[Tensor], TorchDistribution]
"""Maps features of shape ``(*shape, num_features)`` to a distribution of batch shape ``shape``."""


ANY = Choice()
"""Draws of the model's own distribution."""


class Autoregressive(TorchDistribution):
    r"""Data whose elements depend on those before them, in the order of the flattened datum.

    .. math:: p(x \mid c) = \prod_i p(x_i \mid x_{<i}, c)

    The density is exact and takes one pass of the network; a draw takes one step of it for each element.

    Args:
        network: maps data, and a context, to the features of each element.
        element: maps features ``(*shape, num_features)`` to the distribution of elements, of batch shape ``shape``. It
            is called with the features of whole data, and of one element of each: what elements depend on besides goes
            into the context.
        event_shape: shape of a datum.
        context: :math:`c`, shape ``batch_shape + (...)``; ``None`` where the network needs none.
        batch_shape: of the distribution; if not given, the context's without its last dimension, or that of one datum.
        support: of an element.
        choice: how a draw chooses elements.
        memory: what a :class:`~pyrogen.nn.Recurrent` network has read before these data, of the batch's shape; each
            datum is then what follows.

    Raises:
        ProgramError: where a context or a memory does not have the batch's shape, the network has no memory, is none of
            elements in their order, or models data of another shape.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyrogen.nn import FVSBN, ScaledValues
        >>> coin = lambda features: dist.Bernoulli(logits=features[..., 0])
        >>> d = Autoregressive(FVSBN((4,), ScaledValues(2), 1), coin, (4,))
        >>> d.sample((3,)).shape, d.log_prob(torch.zeros(3, 4)).shape
        (torch.Size([3, 4]), torch.Size([3]))
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(
        self,
        network: Causal,
        element: Element,
        event_shape: Sequence[int],
        context: Tensor | None = None,
        batch_shape: Sequence[int] | None = None,
        support: Any = constraints.real,
        choice: Choice = ANY,
        memory: Memory | None = None,
    ) -> None:
        if not isinstance(network, Causal):
            raise ProgramError(f"{type(network).__name__} is no pyrogen.nn.Causal: it has no steps to draw elements by")
        if network.shape is not None and network.shape != tuple(event_shape):
            raise ProgramError(
                f"{type(network).__name__} models data of shape {network.shape}, found event_shape {tuple(event_shape)}"
            )
        if batch_shape is None:
            batch_shape = () if context is None else context.shape[:-1]
        self.network, self.element, self.context, self.choice = network, element, context, choice.checked()
        self.memory = memory
        self._last: tuple[Tensor, int, Tensor, Memory] | None = None
        if context is not None and tuple(context.shape[: len(batch_shape)]) != tuple(batch_shape):
            raise ProgramError(
                f"a context of shape {tuple(context.shape)} where the batch has shape {tuple(batch_shape)}: its first "
                f"dimensions must be the batch's"
            )
        if memory is not None and memory.previous.shape != tuple(batch_shape):
            raise ProgramError(
                f"a memory of {tuple(memory.previous.shape)} sequences where the batch has shape {tuple(batch_shape)}"
            )
        if memory is not None and not isinstance(network, Recurrent):
            raise ProgramError(f"a memory is given, and {type(network).__name__} has none: leave it out")
        self.element_support = support
        self.values: Tensor | None = None
        self.known: Tensor | None = None
        super().__init__(Size(batch_shape), Size(event_shape), validate_args=False)

    @property
    def support(self) -> Any:
        """Elements' own, in the datum's shape."""
        return constraints.independent(self.element_support, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Autoregressive":
        """Return the distribution of more data."""
        batch_shape = Size(batch_shape)
        context = self.context
        if context is not None:
            context = context.expand(*batch_shape, *context.shape[len(self.batch_shape) :])
        memory = None if self.memory is None else self._expanded(self.memory, batch_shape)
        new = self._get_checked_instance(Autoregressive, _instance)
        Autoregressive.__init__(
            new,
            self.network,
            self.element,
            self.event_shape,
            context,
            batch_shape,
            self.element_support,
            self.choice,
            memory,
        )
        if batch_shape == self.batch_shape:
            new._last = self._last
        if self.known is not None and self.values is not None:
            new.known = self.known.expand(batch_shape + self.event_shape)
            new.values = self.values.expand(batch_shape + self.event_shape)
        return new

    def by(self, choice: Choice) -> "Autoregressive":
        """Return the distribution whose draws choose elements in another way."""
        new = self.expand(self.batch_shape)
        new.choice = choice.checked()
        return new

    def given(self, values: Tensor, known: Tensor) -> "Autoregressive":
        r"""Return the distribution with some elements held fixed.

        Draws have these values; the density is that of the other elements as they are drawn,

        .. math:: \prod_{i \notin K} p(x_i \mid x_{<i})

        Where what is known comes first (:attr:`is_exact`), that is the conditional :math:`p(x_{\bar K} \mid x_K)`.
        Otherwise it is not: an element is drawn without a look at the known ones after it. For draws of the exact
        conditional of any subset, see :func:`pyrogen.evaluation.complete`.

        Args:
            values: shape ``batch_shape + event_shape`` or one that expands to it; what is not known is not looked at.
            known: which elements are, bool, likewise.
        """
        shape = self._extended_shape()
        new = self.expand(self.batch_shape)
        new.known, new.values = known.expand(shape), values.expand(shape)
        return new

    @property
    def is_exact(self) -> bool:
        """Whether draws are of the conditional distribution given what is known."""
        if self.known is None:
            return True
        known = self.known.flatten(len(self.batch_shape))
        return bool((known[..., 1:] <= known[..., :-1]).all())

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density in nats; where elements are given, of the others, and -inf if given ones differ."""
        return self.log_probs(value).sum(tuple(range(-len(self.event_shape), 0)))

    def log_probs(self, value: Tensor) -> Tensor:
        r"""Return :math:`\log p(x_i \mid x_{<i})` of each element, in the shape of the value."""
        features = self.features(value)
        scores = self.elements(features).log_prob(_floating(value, features.dtype).expand(features.shape[:-1]))
        if self.known is None or self.values is None:
            return scores
        differs = torch.where(value == self.values, 0.0, -torch.inf)
        return torch.where(self.known, differs.to(scores.dtype), scores)

    def features(self, value: Tensor) -> Tensor:
        """Return what the network says of each element given those before, shape ``(*shape, num_features)``.

        Raises:
            ProgramError: where the value has another shape than data.
        """
        if value.shape[value.dim() - len(self.event_shape) :] != self.event_shape:
            raise ProgramError(
                f"a value of shape {tuple(value.shape)}, where the last dimensions must be those of a datum, "
                f"{tuple(self.event_shape)}"
            )
        lead = torch.broadcast_shapes(value.shape[: value.dim() - len(self.event_shape)], self.batch_shape)
        if self.memory is not None:
            features, _ = self._resumed(value, self.memory, lead)
        else:
            x = _floating(value, self._dtype).expand(lead + self.event_shape).reshape(-1, *self.event_shape)
            features = self.network(x, self._flat_context(lead))
        return features.reshape(*lead, *self.event_shape, features.shape[-1])

    @property
    def _dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.network.parameters()), torch.get_default_dtype())

    def elements(self, features: Tensor) -> TorchDistribution:
        """Return the distribution of elements, of batch shape ``shape`` for features ``(*shape, num_features)``.

        Raises:
            ProgramError: where ``element`` makes something else of them.
        """
        cause: RuntimeError | None = None
        try:
            found: Any = self.element(features)
        except RuntimeError as error:
            found = cause = error
        shape = getattr(found, "batch_shape", None)
        if shape != features.shape[:-1] or found.event_shape:
            what = f"{type(found).__name__} {cause or ''}".strip() if shape is None else f"batch shape {tuple(shape)}"
            raise ProgramError(
                f"element must map features of shape {tuple(features.shape)} to a distribution of batch shape "
                f"{tuple(features.shape[:-1])} and no event shape, found {what}. It may look at features alone: what "
                f"elements depend on besides is the network's context"
            ) from cause
        return found

    def after(self, value: Tensor) -> Memory:
        """Return the network's memory after it has read data of the batch's shape as well.

        The features that come with it are kept: to score the same tensor takes no further pass.

        Raises:
            ProgramError: where the distribution has no memory to go on from.
        """
        if self.memory is None:
            raise ProgramError("there is no memory to go on from: give the distribution one, of network.begin(batch)")
        features, memory = self._resumed(value, self.memory, self.batch_shape)
        self._last = value, value._version, features, memory
        return memory

    def _resumed(self, value: Tensor, memory: Memory, lead: Size) -> tuple[Tensor, Memory]:
        if self._last is not None and self._last[0] is value and self._last[1] == value._version:
            return self._last[2:]
        assert isinstance(self.network, Recurrent)
        x = value.expand(lead + self.event_shape).reshape(prod(lead), -1)
        return self.network.resume(x, self._flat_memory(memory, lead))

    def _expanded(self, memory: Memory, lead: Size) -> Memory:
        own = memory.hidden.shape[len(self.batch_shape) :]
        return Memory(memory.previous.expand(lead), memory.hidden.expand(*lead, *own))

    def _flat_memory(self, memory: Memory, lead: Size) -> Memory:
        previous, hidden = self._expanded(memory, lead)
        return Memory(previous.reshape(-1), hidden.reshape(prod(lead), *hidden.shape[len(lead) :]))

    def _flat_context(self, lead: Size) -> Tensor | None:
        if self.context is None:
            return None
        own = self.context.shape[len(self.batch_shape) :]
        return self.context.expand(*lead, *own).reshape(-1, *own)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw data, shape ``sample_shape + batch_shape + event_shape``: a step of the network for each element.

        Raises:
            UsageError: where values are to be chosen by temperature, top_k or top_p, and cannot be listed.
        """
        lead = Size(sample_shape) + self.batch_shape
        size = prod(self.event_shape)
        known = values = None
        if self.known is not None and self.values is not None:
            known, values = (x.expand(lead + self.event_shape).reshape(-1, size) for x in (self.known, self.values))
        with torch.no_grad():
            previous, state = self._start(lead)
            drawn: list[Tensor] = []
            for i in range(size):
                features = self.network.step(drawn[-1] if drawn else previous, state)
                value = self._choose(self.elements(features)).to(features.dtype)
                if known is not None and values is not None:
                    value = torch.where(known[:, i], values[:, i].to(value.dtype), value)
                drawn.append(value)
            return torch.stack(drawn, -1).reshape(lead + self.event_shape)

    def _start(self, lead: Size) -> tuple[Tensor | None, Any]:
        """Return the element before the first, and the state that its step is to be taken from."""
        if self.memory is None:
            return None, self.network.start(prod(lead), self._flat_context(lead))
        assert isinstance(self.network, Recurrent)
        memory = self._flat_memory(self.memory, lead)
        return memory.previous, self.network.recall(memory)

    def _choose(self, element: TorchDistribution) -> Tensor:
        if self.choice == ANY:
            return element.sample()
        values, logits = self.listed(element, "temperature, top_k and top_p")
        return values[torch.distributions.Categorical(logits=logits, validate_args=False).sample()]

    def listed(self, element: TorchDistribution, wanted_by: str) -> tuple[Tensor, Tensor]:
        """List the values of elements, and how probable draws are to choose each: logits, values last.

        Raises:
            UsageError: where values cannot be listed.
        """
        if not element.has_enumerate_support:
            raise UsageError(
                f"{wanted_by} choose among values that can be listed, and those of {type(element).__name__} cannot: "
                f"leave them out"
            )
        values = element.enumerate_support(expand=False)
        return values.flatten(), self.choice.logits(element.log_prob(values).movedim(0, -1))


def _floating(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return whole numbers as floats, as they are drawn."""
    return value if value.is_floating_point() else value.to(dtype)
