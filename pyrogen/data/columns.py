"""What arrays mean: shape, kind and number of levels of ``x``, and classes of ``y``.

**The rule for kinds**, over training and test rows together:

==========================================  ==========================================================
values of ``x``                             kind
==========================================  ==========================================================
``levels=L`` is given                       ``levels`` with L levels; ``binary`` for L = 2
bool, or only 0 and 1 in any dtype          ``binary``
integers, only 0 and one other value        ``binary``: the other value (such as 255) becomes 1
integers 0..16                              ``levels``: one more than the largest value
integers 0..255                             ``levels``: 256
other integers                              refused: give ``levels``, or save floats for reals
floats                                      ``real``
NaN among any of these, where it is missing ``real``
==========================================  ==========================================================

**The rule for shapes**: (N,) -> (1,); (N, D) -> (D,); (N, H, W) -> (1, H, W); (N, H, W, C) and (N, C, H, W) with C of
1 or 3 -> (C, H, W), where (N, H, W, C) wins if both fit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.data.checks import MAX_LEVELS, check_dtype, check_finite, check_labels, check_levels, check_reals
from pyrogen.errors import DataError, UsageError
from pyrogen.spec import DataSpec, Kind

__all__ = ["channels_first", "kind_and_levels", "read_columns"]

Array = NDArray[Any]
CHANNELS = (1, 3)
FEW_LEVELS = 16


def read_columns(
    arrays: Mapping[str, Array],
    name: str,
    where: str,
    levels: int | None = None,
    num_classes: int | None = None,
    missing: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None, DataSpec]:
    """Check arrays and turn them into columns, the columns of a given test set or ``None``, and their spec.

    Args:
        arrays: ``x`` and perhaps ``y``; or ``x_train``, ``y_train``, ``x_test``, ``y_test``.
        name: what the data are called.
        where: the file that error messages name.
        levels: how many levels ``x`` has, where the rule above would be wrong.
        num_classes: how many classes ``y`` has, where the largest label + 1 would be wrong.
        missing: whether a value of ``x`` that is NaN is missing, and not a mistake.

    Raises:
        UsageError: ``missing`` with ``levels``.
        DataError: empty, not numbers, not finite, out of range, or shapes and lengths that do not fit; likewise where
            some element of ``x`` has no value in any row.

    Example:
        >>> columns, _, spec = read_columns({"x": np.eye(3, dtype=np.uint8), "y": np.arange(3)}, "toy", "here")
        >>> spec.kind, spec.shape, spec.num_classes
        ('binary', (3,), 3)
    """
    xs = {key: array for key, array in arrays.items() if key.startswith("x")}
    shaped = {key: channels_first(array, f"{where}, {key}") for key, array in xs.items()}
    shapes = {key: array.shape[1:] for key, array in shaped.items()}
    if len(set(shapes.values())) != 1:
        raise DataError(f"{where}: rows of different shapes {shapes}; expected one shape in training and test data")
    for key, array in shaped.items():
        check_finite(array, f"{where}, {key}", missing)
        if missing:
            check_missing(array, levels, f"{where}, {key}")
    kind, found_levels, unit = kind_and_levels(list(shaped.values()), levels, where)
    parts: dict[str, dict[str, Tensor]] = {"train": {}, "test": {}}
    for key, array in shaped.items():
        values = array if unit == 1 else array // unit
        at = f"{where}, {key}"
        parts[split_of(key)]["x"] = (
            check_reals(values, at, missing) if found_levels is None else check_levels(values, found_levels, at)
        )
    classes = read_labels(arrays, parts, num_classes, where)
    shape = next(iter(shapes.values()))
    spec = DataSpec(shape, kind, levels=found_levels, num_classes=classes, name=name)
    return parts["train"], parts["test"] or None, spec


def check_missing(array: Array, levels: int | None, where: str) -> None:
    """Refuse what leaves nothing to learn from, and settings that NaN does not go with."""
    if levels is not None:
        raise UsageError(f"{where}: levels are whole numbers, none of which is NaN. Leave out `missing`, or `levels`")
    if array.dtype.kind == "f" and (empty := np.isnan(array).all(0)).any():
        raise DataError(f"{where}: {int(empty.sum())} of {empty.size} columns have no value in any row. Drop these")


def read_labels(
    arrays: Mapping[str, Array], parts: dict[str, dict[str, Tensor]], num_classes: int | None, where: str
) -> int | None:
    """Check the labels into ``parts`` and return the number of classes, the same for training and test labels."""
    classes = []
    for key, labels in arrays.items():
        if not key.startswith("y"):
            continue
        part = parts[split_of(key)]
        part["y"], found = check_labels(labels, len(part["x"]), num_classes, f"{where}, {key}")
        classes.append(found)
    if parts["test"] and set(parts["train"]) != set(parts["test"]):
        raise DataError(f"{where}: labels for only one of training and test data; expected both or none")
    return max(classes, default=None)


def split_of(key: str) -> str:
    """Return ``"test"`` for ``x_test`` and ``y_test``, else ``"train"``."""
    return "test" if key.endswith("_test") else "train"


def channels_first(array: Array, where: str) -> Array:
    """Return rows of shape (D,) or (C, H, W), by the rule of this module."""
    check_dtype(array, where)
    match array.ndim:
        case 1:
            return array[:, None]
        case 2:
            return array
        case 3:
            return array[:, None]
        case 4 if array.shape[3] in CHANNELS:
            return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
        case 4 if array.shape[1] in CHANNELS:
            return array
    raise DataError(
        f"{where}: shape {array.shape}; expected (N,), (N, D), (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 "
        "or 3. Reshape the data"
    )


def kind_and_levels(xs: Sequence[Array], levels: int | None, where: str) -> tuple[Kind, int | None, int]:
    """Return kind, levels, and the unit by which two-valued integers are divided; the rule is this module's.

    Example:
        >>> kind_and_levels([np.array([[0, 255]], dtype=np.uint8)], None, "here")
        ('binary', 2, 255)
    """
    if levels is not None:
        return ("binary" if levels == 2 else "levels"), levels, 1
    if all(((x == 0) | (x == 1)).all() for x in xs):
        return "binary", 2, 1
    if any(x.dtype.kind == "f" for x in xs):
        return "real", None, 1
    low, high = min(int(x.min()) for x in xs), max(int(x.max()) for x in xs)
    if low == 0 and all(((x == 0) | (x == high)).all() for x in xs):
        return "binary", 2, high
    if low < 0 or high >= MAX_LEVELS:
        raise DataError(
            f"{where}: integers {low}..{high}; expected levels within 0..{MAX_LEVELS - 1}. "
            "For reals save them as floats (x.astype('float32')); for levels rescale them to 8 bits"
        )
    return "levels", MAX_LEVELS if high > FEW_LEVELS else high + 1, 1
