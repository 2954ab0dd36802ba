"""Cut data into training, validation and test rows by a seed of their own."""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256

import torch
from torch import Generator, Tensor

from pyrogen.counts import take
from pyrogen.data.dataset import Dataset
from pyrogen.errors import DataError, UsageError
from pyrogen.spec import DataSpec

__all__ = ["own_generator", "rows_of_splits", "split", "standardize"]


def own_generator(seed: int, purpose: str) -> Generator:
    """Return a generator for one purpose, so that two purposes with one seed do not share their random numbers.

    The global generator is neither read nor moved.

    Example:
        >>> a, b = own_generator(0, "split"), own_generator(0, "pixels")
        >>> bool(torch.rand((), generator=a) == torch.rand((), generator=b))
        False
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UsageError(f"seed={seed!r}: expected a whole number")
    digest = sha256(f"pyrogen/{purpose}/{seed}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def split(
    columns: Mapping[str, Tensor],
    spec: DataSpec,
    name: str,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    given_test: Mapping[str, Tensor] | None = None,
) -> Dataset:
    """Cut rows at random into disjoint splits; each fraction is of ``columns``, rounded, and at least one row.

    Args:
        columns: name -> tensor with the same first length ``N``.
        spec: what the data are.
        name: what the data are called.
        validation: fraction of validation rows, in [0, 1); 0 gives an empty split.
        test: fraction of test rows, in [0, 1); not used where there is ``given_test``.
        seed: of the cut. Seed and ``N`` determine the rows.
        given_test: the test rows of data that come with some, such as Fashion-MNIST.

    Raises:
        UsageError: a fraction outside [0, 1).
        DataError: nothing is left to train on.

    Example:
        >>> data = split({"x": torch.zeros(10, 2)}, DataSpec((2,), "real"), "toy", validation=0.2, test=0.0)
        >>> [len(data.split(name)["x"]) for name in ("train", "validation", "test")]
        [8, 2, 0]
    """
    parts = rows_of_splits(len(columns["x"]), name, validation, 0.0 if given_test is not None else test, seed)
    train, held_out, tested = ({key: take(column, rows) for key, column in columns.items()} for rows in parts)
    spec = replace(spec, num_data=len(parts[0]))
    return Dataset(name, train, held_out, tested if given_test is None else dict(given_test), spec)


def rows_of_splits(
    total: int, name: str, validation: float, test: float, seed: int, what: str = "rows"
) -> tuple[Tensor, ...]:
    """Draw which of ``total`` rows, or files, are for training, validation and test, as :func:`split` does.

    Raises:
        UsageError: a fraction outside [0, 1).
        DataError: nothing is left to train on.
    """
    num_validation, num_test = num_rows("validation", validation, total), num_rows("test", test, total)
    num_train = total - num_validation - num_test
    if num_train < 1:
        raise DataError(
            f"{name}: nothing is left to train on, {total} {what} less {num_validation} for validation and {num_test} "
            "for test. Lower these fractions or bring more data"
        )
    order = torch.randperm(total, generator=own_generator(seed, "split"), device="cpu")
    return torch.split(order, [num_train, num_validation, num_test])


def num_rows(name: str, fraction: float, total: int) -> int:
    """Return how many rows a fraction is: none for 0, else at least one."""
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction < 1:
        raise UsageError(f"{name}={fraction!r}: expected a fraction from 0 up to but not including 1, such as 0.1")
    return max(1, round(fraction * total)) if fraction > 0 else 0


def standardize(dataset: Dataset) -> Dataset:
    r"""Map every column of real ``x`` to :math:`(x - m) / s`, the mean and deviation of the *training* rows alone.

    A feature that is constant in training is only centred; values that are missing, NaN, do not count, and stay so.
    """
    x = dataset.train["x"].double()
    m = x.nanmean(0).nan_to_num()  # zero where training data have no value
    s = (x - m).square().nanmean(0).sqrt()
    s = torch.where(s > 0, s, torch.ones_like(s))

    def scaled(columns: dict[str, Tensor]) -> dict[str, Tensor]:
        return columns | {"x": ((columns["x"].double() - m) / s).float()}

    train, validation, test = map(scaled, (dataset.train, dataset.validation, dataset.test))
    return replace(dataset, train=train, validation=validation, test=test)
