"""Sparse counts: which words each document has, and how often, as a torch CSR tensor with a row for each document."""

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

__all__ = ["Entries", "as_csr", "entries", "is_csr", "make_csr", "offsets_of", "parts", "take", "weighted_sums"]


class Entries(NamedTuple):
    """What is stored of a CSR tensor, entry by entry, row after row.

    Attributes:
        offsets: where each row begins, and the last one ends, shape ``(rows + 1,)``, int64.
        rows: the row of each entry, shape ``(entries,)``, int64.
        columns: its column, likewise.
        values: its value, shape ``(entries,)``.
    """

    offsets: Tensor
    rows: Tensor
    columns: Tensor
    values: Tensor


def is_csr(x: Any) -> bool:
    """Tell whether a value is a CSR tensor."""
    return isinstance(x, Tensor) and x.layout == torch.sparse_csr


def make_csr(offsets: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Make a CSR tensor of parts that are known to fit; torch's word that these are in beta state is kept back.

    Example:
        >>> make_csr(torch.tensor([0, 1, 3]), torch.tensor([2, 0, 1]), torch.ones(3), (2, 3)).to_dense().tolist()
        [[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(offsets, columns, values, shape, check_invariants=False)


def as_csr(x: Tensor) -> Tensor:
    """Return a matrix as a CSR tensor; what is one already, as it is.

    Example:
        >>> as_csr(torch.tensor([[0.0, 2.0], [0.0, 0.0]])).values()
        tensor([2.])
    """
    if is_csr(x):
        return x
    rows, columns = x.nonzero(as_tuple=True)
    offsets = offsets_of(torch.bincount(rows, minlength=len(x)))
    return make_csr(offsets, columns, x[rows, columns], (x.shape[0], x.shape[1]))


def offsets_of(lengths: Tensor) -> Tensor:
    """Return where rows of some lengths begin, and the last one ends.

    Example:
        >>> offsets_of(torch.tensor([2, 0, 1]))
        tensor([0, 2, 2, 3])
    """
    return pad(lengths.cumsum(0), (1, 0))


def weighted_sums(table: Tensor, which: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    """Add up weighted rows of a table, those that are listed from one offset to the next.

    Example:
        >>> weighted_sums(torch.eye(2), torch.tensor([0, 1, 1]), torch.tensor([2.0, 3.0, 4.0]), torch.tensor([0, 2, 3]))
        tensor([[2., 3.],
                [0., 4.]])
    """
    return embedding_bag(which, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def parts(x: Tensor) -> tuple[Tensor, ...]:
    """Return the dense tensors that a tensor is made of.

    Example:
        >>> len(parts(torch.ones(2))), len(parts(as_csr(torch.ones(2, 2))))
        (1, 3)
    """
    return (x.crow_indices(), x.col_indices(), x.values()) if is_csr(x) else (x,)


def entries(x: Tensor) -> Entries:
    """Return what is stored of a CSR tensor.

    Example:
        >>> entries(as_csr(torch.tensor([[0.0, 2.0], [1.0, 3.0]]))).rows
        tensor([0, 1, 1])
    """
    offsets, columns, values = parts(x)
    every = torch.arange(len(x), device=columns.device)
    rows = every.repeat_interleave(offsets.diff(), output_size=len(columns))
    return Entries(offsets, rows, columns, values)


def take(x: Tensor, rows: Tensor) -> Tensor:
    """Return some rows of a tensor, dense or CSR, in their order.

    Example:
        >>> take(as_csr(torch.tensor([[0.0, 2.0], [1.0, 3.0]])), torch.tensor([1, 0])).to_dense().tolist()
        [[1.0, 3.0], [0.0, 2.0]]
    """
    if not is_csr(x):
        return x[rows]
    start, length = x.crow_indices()[rows], x.crow_indices().diff()[rows]
    offsets = offsets_of(length)
    total = int(offsets[-1])
    shift = (start - offsets[:-1]).repeat_interleave(length, output_size=total)
    taken = shift + torch.arange(total, device=rows.device)
    return make_csr(offsets, x.col_indices()[taken], x.values()[taken], (len(rows), x.shape[1]))
