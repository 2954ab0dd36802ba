"""Networks of sparse counts."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrogen.counts import entries, is_csr, weighted_sums
from pyrogen.nn.mlp import MLP

__all__ = ["BagOfWordsMLP"]


class BagOfWordsMLP(nn.Module):
    r"""A network whose first layer adds up a vector for each word, :math:`\sum_v \log(1 + x_v) \, w_v`.

    Args:
        num_words: :math:`V`.
        hidden: widths of the hidden layers, at least one.
        out: the number of outputs.
        dropout: the share of the last hidden layer's units that are dropped in training.

    Example:
        >>> BagOfWordsMLP(7, (16,), 3)(torch.ones(2, 7)).shape
        torch.Size([2, 3])
    """

    def __init__(self, num_words: int, hidden: Sequence[int], out: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.randn(num_words, hidden[0]) / num_words**0.5)
        self.bias = nn.Parameter(torch.zeros(hidden[0]))
        self.dropout = nn.Dropout(dropout)
        self.rest = MLP(hidden[0], out, hidden[1:], nn.Softplus)

    def forward(self, x: Tensor) -> Tensor:
        """Map counts ``(documents, words)``, CSR or dense, to ``(documents, out)``."""
        if is_csr(x):
            offsets, _, columns, counts = entries(x)
            first = weighted_sums(self.words, columns, counts.log1p(), offsets)
        else:
            first = x.log1p() @ self.words
        return self.rest(self.dropout(nn.functional.softplus(first + self.bias)))
