"""Refuse, when data are loaded, what no model should be fitted to.

**The dtype rule.** Every column passes through exactly one of these three:

- whole numbers with known levels (:func:`check_levels`): bool, any integer dtype, and floats that hold whole numbers
  become **uint8**; that covers up to 256 levels;
- reals (:func:`check_reals`): floats of any width and integers become **float32**; a value beyond its range is refused;
- labels (:func:`check_labels`): bool, integers, and floats that hold whole numbers become **int64**.

Objects, text, complex numbers, dates and records are refused. Nothing else is converted, and nothing silently.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.errors import DataError, UsageError

__all__ = ["MAX_LEVELS", "check_dtype", "check_finite", "check_labels", "check_levels", "check_reals", "nearest"]

Array = NDArray[Any]

MAX_LEVELS = 256

REFUSED = {
    "O": "Python objects; often these are rows of different lengths: cut or pad them to one shape",
    "U": "text; encode it as numbers",
    "S": "bytes; encode them as numbers",
    "c": "complex numbers; save real and imaginary parts as two channels",
    "V": "records with named fields; save plain numbers",
    "M": "dates; save numbers",
    "m": "time differences; save numbers",
}


def nearest(word: str, words: Iterable[str]) -> str:
    """Return ``"; did you mean ...?"``, or nothing where no word is near.

    Example:
        >>> nearest("levles", ["levels", "threshold"])
        "; did you mean 'levels'?"
    """
    matches = get_close_matches(str(word), list(words), n=2)
    return f"; did you mean {' or '.join(map(repr, matches))}?" if matches else ""


def check_dtype(array: Array, where: str) -> None:
    """Refuse an array that has no rows or does not hold plain real numbers."""
    if array.dtype.kind not in "biuf":
        reason = REFUSED.get(array.dtype.kind, "not numbers")
        raise DataError(f"{where}: dtype {array.dtype} holds {reason}. Expected bool, integers or floats")
    if array.ndim == 0:
        raise DataError(f"{where}: found the single number {array}, expected one row for each datum")
    if array.size == 0:
        raise DataError(f"{where}: the data are empty, shape {array.shape}; expected at least one row and one value")


def check_finite(array: Array, where: str, missing: bool = False) -> None:
    """Refuse NaN, but for what is ``missing``, and infinity; say how many and where the first is."""
    if array.dtype.kind != "f":
        return
    bad = np.isinf(array) if missing else ~np.isfinite(array)
    if bad.any():
        detail = locate(array, bad)
        kept = "" if missing else ", or, where NaN is what is missing, say so: missing=true, for a model such as miwae"
        raise DataError(f"{where}: {detail}; expected finite numbers. Drop these rows or fill the values in{kept}")


def check_reals(array: Array, where: str, missing: bool = False) -> Tensor:
    """Return float32 values of the same shape; refuse what is not finite in float32, but for what is ``missing``."""
    check_dtype(array, where)
    check_finite(array, where, missing)
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    bad = np.isinf(values)
    if bad.any():
        raise DataError(f"{where}: {locate(array, bad)} beyond the range of float32 (3.4e38). Rescale the data")
    return torch.from_numpy(values)


def check_levels(array: Array, levels: int, where: str) -> Tensor:
    """Return whole numbers ``0, ..., levels - 1`` as uint8 of the same shape.

    Raises:
        UsageError: ``levels`` is not between 2 and 256.
        DataError: a value is not finite, not whole, or out of range.

    Example:
        >>> check_levels(np.array([[0, 16]]), levels=17, where="here")
        tensor([[ 0, 16]], dtype=torch.uint8)
    """
    if isinstance(levels, bool) or not isinstance(levels, int) or not 2 <= levels <= MAX_LEVELS:
        raise UsageError(f"levels={levels!r}: expected a whole number from 2 to {MAX_LEVELS}")
    check_dtype(array, where)
    check_finite(array, where)
    if array.dtype.kind == "f" and (bad := array != np.floor(array)).any():
        fix = f"multiply data in the unit interval by {levels - 1} and round them, or leave `levels` out for reals"
        raise DataError(f"{where}: {locate(array, bad)}; expected whole numbers 0..{levels - 1}. To mend it {fix}")
    if array.dtype.kind != "b" and (bad := (array < 0) | (array >= levels)).any():
        raise DataError(
            f"{where}: {locate(array, bad)} out of range; expected {levels} levels, 0..{levels - 1}. "
            "Mend these values, or set `levels` to one more than the largest value"
        )
    return torch.from_numpy(array.astype(np.uint8))


def check_labels(labels: Array, num_rows: int, num_classes: int | None, where: str) -> tuple[Tensor, int]:
    """Return labels ``(N,)`` as int64, and the number of classes: the largest label + 1 where it is not given.

    Raises:
        DataError: another length than ``x``, or labels that are fractional, negative or out of range.
    """
    check_dtype(labels, where)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        fix = "For one-hot rows save y.argmax(1)"
        raise DataError(f"{where}: labels have shape {labels.shape}, expected one number a row, ({num_rows},). {fix}")
    if len(labels) != num_rows:
        raise DataError(f"{where}: {len(labels)} labels for {num_rows} rows of x; expected one label a row")
    if num_classes is not None and num_classes < 1:
        raise UsageError(f"num_classes={num_classes}: expected at least 1")
    check_finite(labels, where)
    if labels.dtype.kind == "f" and (bad := labels != np.floor(labels)).any():
        raise DataError(f"{where}: {rows(labels, bad)} fractional; expected class numbers 0, 1, 2, ...")
    values = labels.astype(np.int64)
    # A uint64 beyond int64 wraps round to a negative number here, so that it is refused as well.
    if (bad := values < 0).any():
        raise DataError(f"{where}: {rows(labels, bad)} negative; expected class numbers 0, 1, 2, ...")
    classes = int(values.max()) + 1 if num_classes is None else num_classes
    if (bad := values >= classes).any():
        fix = "Mend these rows or raise num_classes"
        raise DataError(f"{where}: {rows(labels, bad)} out of range; expected classes 0..{classes - 1}. {fix}")
    return torch.from_numpy(values), classes


def locate(array: Array, bad: NDArray[np.bool_]) -> str:
    """Say how many values are bad, and where the first one is."""
    index = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
    return f"{int(bad.sum())} of {bad.size} values are bad, the first is {array[index]} at index {index}"


def rows(labels: Array, bad: NDArray[np.bool_]) -> str:
    """Name the first few bad labels with their rows."""
    found = np.flatnonzero(bad)
    named = ", ".join(f"{labels[i]} in row {i}" for i in found[:5])
    more = ", ..." if len(found) > 5 else ""
    return f"{len(found)} of {len(labels)} labels ({named}{more}) are"
