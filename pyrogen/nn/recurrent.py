"""Networks that remember: a sequence can be read in parts, and what is said is that of the whole."""

from abc import abstractmethod
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from pyrogen.nn.causal import Causal

__all__ = ["NOTHING", "Memory", "Recurrent"]

NOTHING = -inf
"""What stands in the place of the element before the first."""


class Memory(NamedTuple):
    """What a network keeps of the elements that it has read.

    Attributes:
        previous: the last of them, shape ``(batch,)``; :data:`NOTHING` before the first.
        hidden: what is kept of those before it, shape ``(batch, ...)``; zero before the first.

    Example:
        >>> memory = Memory(torch.tensor([4.0, 5.0]), torch.ones(2, 3))
        >>> memory.forgetting(torch.tensor([True, False]))
        Memory(previous=tensor([-inf, 5.]), hidden=tensor([[0., 0., 0.],
                [1., 1., 1.]]))
    """

    previous: Tensor
    hidden: Tensor

    def forgetting(self, rows: Tensor) -> "Memory":
        """Return a memory of nothing for some rows, bool of shape ``(batch,)``, and this one for the others."""
        shape = (-1, *[1] * (self.hidden.dim() - 1))
        hidden = torch.where(rows.reshape(shape), torch.zeros_like(self.hidden), self.hidden)
        return Memory(torch.where(rows, torch.full_like(self.previous, NOTHING), self.previous), hidden)

    def detached(self) -> "Memory":
        """Return the memory without its gradient."""
        return Memory(self.previous.detach(), self.hidden.detach())


class Recurrent(Causal):
    r"""A causal network whose memory of all that went before has a fixed size.

    Read in parts, a sequence has the features of the whole:
    ``resume(x2, resume(x1, begin(batch))[1])[0]`` are the last ones of ``forward(torch.cat([x1, x2], 1))``.
    """

    has_any_length = True

    @abstractmethod
    def begin(self, batch: int) -> Memory:
        """Return the memory of nothing."""

    @abstractmethod
    def resume(self, x: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Read on.

        Args:
            x: the next elements, shape ``(batch, time)``.
            memory: of those before them.

        Returns:
            Their features, shape ``(batch, time, num_features)``, and the memory after them.
        """

    @abstractmethod
    def recall(self, memory: Memory) -> object:
        """Return the state of :meth:`step` from which a memory's next element is drawn, given ``memory.previous``."""
