"""NumPy's ``.npy`` and ``.npz``, without pickle, and sized before anything is allocated."""

import zipfile
import zlib
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pyrogen.errors import DataError, MissingInputError

__all__ = ["LAYOUTS", "check_keys", "member_names", "read_arrays", "read_members"]

MAX_BYTES = 8 * 2**30

LAYOUTS = tuple(
    frozenset(keys.split())
    for keys in ("x", "x y", "x_train", "x_train y_train", "x_train x_test", "x_train y_train x_test y_test")
)

# What NumPy and zipfile raise for files that are damaged or made up; NumPy parses its header as a Python literal, and
# warns of headers from Python 2 and of types by old names, which is an error where warnings are.
DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    TokenError,
    TypeError,
    OverflowError,
    MemoryError,
    KeyError,
    RecursionError,
    Warning,
)
ZIP_DAMAGE = (*DAMAGE, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


def read_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read ``.npy`` (one array, as ``x``) or ``.npz`` (one of :data:`LAYOUTS`, such as ``x`` and ``y``).

    An ``.npz`` with a single array of another name is taken as ``x``.

    Raises:
        MissingInputError: no such file.
        DataError: damaged, an array of Python objects (these need pickle, which can run code), names that are not
            understood, or more than 8 GiB.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file; expected a .npy or .npz file")
    if path.suffix.lower() == ".npz":
        return read_npz(path)
    try:
        with path.open("rb") as file:
            return {"x": read_entry(file, path.stat().st_size, str(path))}
    except DataError:
        raise
    except DAMAGE as error:
        raise damaged(str(path), error) from error


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of a zip file, after their names and sizes were checked."""
    return read_members(path, lambda names: check_keys(names, str(path)))


def member_names(path: Path) -> list[str]:
    """List the names of the arrays in a zip file; none of another file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except ZIP_DAMAGE:
        return []


def read_members(path: Path, chosen: Callable[[Any], Mapping[str, str]] | None = None) -> dict[str, NDArray[Any]]:
    """Read the arrays of a zip file, or some: ``chosen`` maps what to call them to their names, given all names."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            names = {name: name for name in entries} if chosen is None else chosen(entries)
            total = sum(entry.file_size for entry in entries.values())
            if total > MAX_BYTES:
                raise DataError(f"{path}: {total} bytes when unpacked, expected at most {MAX_BYTES}. Save fewer rows")
            arrays = {}
            for key, name in names.items():
                with archive.open(entries[name]) as file:
                    arrays[key] = read_entry(file, entries[name].file_size, f"{path}, array {name!r}")
            return arrays
    except DataError:
        raise
    except ZIP_DAMAGE as error:
        raise damaged(str(path), error) from error


def check_keys(names: Any, where: str) -> dict[str, str]:
    """Map ``x``, ``y``, ... to the names in the file.

    Example:
        >>> check_keys(["arr_0"], "data.npz")
        {'x': 'arr_0'}
    """
    found = list(names)
    if frozenset(found) in LAYOUTS:
        return {name: name for name in found}
    if len(found) == 1:
        return {"x": found[0]}
    listed = ", ".join(map(repr, found)) if found else "nothing"
    expected = "; ".join(", ".join(sorted(keys)) for keys in LAYOUTS)
    raise DataError(
        f"{where}: found the arrays {listed}; expected exactly one of: {expected}. Rename or drop the others"
    )


def read_entry(file: IO[bytes], size: int, where: str) -> NDArray[Any]:
    """Read one array from a stream that holds ``size`` bytes, its header first."""
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise DataError(f"{where}: .npy version {version}, expected 1.0 or 2.0. Save it again with numpy.save")
    shape, fortran_order, dtype = read_header(file)
    if dtype.hasobject:
        raise DataError(
            f"{where}: an array of Python objects, which needs pickle, and pickle can run code: it is never read. "
            "Save an array of numbers; rows of different lengths must be cut or padded to one shape"
        )
    needed = prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or needed > min(size, MAX_BYTES):
        raise DataError(
            f"{where}: the header declares shape {shape} of {dtype}, {needed} bytes, but the file holds at most {size} "
            f"(and pyrogen reads at most {MAX_BYTES}). The file is truncated or damaged: save it again"
        )
    values = file.read(needed)
    if len(values) != needed:
        raise DataError(f"{where}: {len(values)} bytes of values, expected {needed} for shape {shape}. Save it again")
    array = np.frombuffer(values, dtype).reshape(shape, order="F" if fortran_order else "C")
    # Not in place: a copy that owns its memory, row by row, in the machine's byte order.
    return np.array(array, dtype=dtype.newbyteorder("="), order="C")


def damaged(where: str, error: BaseException) -> DataError:
    """Return the error for a file that NumPy or zipfile cannot read."""
    return DataError(
        f"{where}: not a readable .npy or .npz file ({error}). Save it again with numpy.save or numpy.savez"
    )
