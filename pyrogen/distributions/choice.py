"""How elements are chosen when data are drawn one by one."""

from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from pyrogen.errors import UsageError

__all__ = ["Choice"]


class Choice(NamedTuple):
    r"""How elements are chosen when a datum is drawn: the density is that of the model all the same.

    Attributes:
        temperature: :math:`\tau`; probabilities become :math:`p^{1 / \tau}`, normalised.
        top_k: choose among the so many most probable values alone.
        top_p: choose among the most probable values that make up this much probability alone (nucleus sampling).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def checked(self) -> "Choice":
        """Return the choice.

        Raises:
            UsageError: for values out of range.
        """
        if not 0 < self.temperature < inf:
            raise UsageError(
                f"temperature must be positive and finite, found {self.temperature}: top_k=1 takes the most probable"
            )
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k must be at least 1, found {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"top_p must be above 0 and at most 1, found {self.top_p}")
        return self

    def logits(self, log_probs: Tensor) -> Tensor:
        """Map log-probabilities, values last, to those that are drawn from, up to a constant.

        Example:
            >>> Choice(top_k=1).logits(torch.tensor([0.3, 0.7]).log())
            tensor([   -inf, -0.3567])
        """
        logits = log_probs / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            most = logits.topk(self.top_k, -1).indices
            logits = logits.where(torch.zeros_like(logits, dtype=torch.bool).scatter(-1, most, True), -torch.inf)
        if self.top_p is not None:
            ordered, order = logits.sort(-1, descending=True)
            p = ordered.softmax(-1)
            # A value stays while those before it do not make up the share: the most probable always does.
            kept = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, p.cumsum(-1) - p < self.top_p)
            logits = logits.where(kept, -torch.inf)
        return logits
