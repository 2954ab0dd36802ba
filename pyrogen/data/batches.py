"""Batches that are drawn when they are needed, from the global generator of torch."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from pyrogen.counts import take
from pyrogen.data.checks import nearest
from pyrogen.errors import DataError, UsageError

__all__ = ["Batches"]


class Batches:
    """Iterate over batches; every iteration is one epoch.

    The order is one ``torch.randperm`` from the *global* generator at the start of the epoch, and ``transform`` draws
    from the same generator when its batch is due. Nothing is drawn ahead of need: with the generator's state at the
    start of an epoch, that epoch can be repeated, which is what resuming a run depends on.

    Args:
        columns: name -> tensor, all with the same first length ``N``.
        batch_size: rows a batch.
        shuffle: draw a new order in every epoch.
        drop_last: leave out a last batch that is not full.
        transform: applied to the column ``"x"`` of each batch.
        only: the columns to yield; all by default.
        name: what error messages call the data.

    Raises:
        UsageError: ``batch_size < 1``, or a column that does not exist.
        DataError: no rows, columns of different lengths, or ``batch_size > N`` under ``drop_last``.

    Example:
        >>> batches = Batches({"x": torch.arange(5)}, 2, shuffle=False)
        >>> [batch["x"].tolist() for batch in batches], len(batches), batches.num_data
        ([[0, 1], [2, 3], [4]], 3, 5)
    """

    def __init__(
        self,
        columns: Mapping[str, Tensor],
        batch_size: int,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        transform: Callable[[Tensor], Tensor] | None = None,
        only: Sequence[str] | None = None,
        name: str = "the data",
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise UsageError(f"{name}: batch_size={batch_size!r}, expected a whole number of at least 1")
        self.columns = select(columns, only, name)
        self.num_data = count(columns, name)
        if drop_last and batch_size > self.num_data:
            raise DataError(
                f"{name}: no batch to draw, batch_size={batch_size} exceeds the {self.num_data} rows and drop_last "
                "leaves the rest out. Lower batch_size or set drop_last=False"
            )
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.transform = transform

    def __len__(self) -> int:
        full, rest = divmod(self.num_data, self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        # The CPU is named because a default device of the user's would draw from another generator.
        draw = torch.randperm if self.shuffle else torch.arange
        order = draw(self.num_data, device="cpu")
        for i in range(len(self)):
            rows = order[i * self.batch_size : (i + 1) * self.batch_size]
            batch = {name: take(column, rows) for name, column in self.columns.items()}
            if self.transform is not None and "x" in batch:
                batch["x"] = self.transform(batch["x"])
            yield batch


def select(columns: Mapping[str, Tensor], only: Sequence[str] | None, name: str) -> dict[str, Tensor]:
    """Return the columns named in ``only``."""
    names = list(columns) if only is None else [only] if isinstance(only, str) else list(only)
    for column in names:
        if column not in columns:
            found = ", ".join(map(repr, columns))
            raise UsageError(f"{name}: no column {column!r}, found {found}{nearest(column, columns)}")
    if not names:
        raise UsageError(f"{name}: no column to draw; name at least one in `only`")
    return {column: columns[column] for column in names}


def count(columns: Mapping[str, Tensor], name: str) -> int:
    """Return the number of rows, the same in every column."""
    lengths = {column: len(values) for column, values in columns.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"{name}: columns of different lengths {lengths}; expected one row for each datum in all")
    num_data = next(iter(lengths.values()))
    if num_data == 0:
        raise DataError(f"{name}: no rows, so no batch can be drawn. Give this split a fraction above 0")
    return num_data
