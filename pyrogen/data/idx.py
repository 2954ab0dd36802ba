"""The IDX format of MNIST and its relatives, plain or compressed with gzip.

Two zero bytes, a dtype code, the number of dimensions, each dimension as a big-endian 32-bit number, then the values,
big-endian and row by row (Yann LeCun, Corinna Cortes, Chris Burges, *The MNIST Database*, 1998).
"""

import gzip
import struct
import zlib
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from pyrogen.errors import DataError, MissingInputError, UsageError

__all__ = ["encode_idx", "find_idx_folder", "read_idx", "read_idx_folder"]

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CODES = {np.dtype(name): code for code, name in DTYPES.items()}
MAX_BYTES = 8 * 2**30
MAX_DIMS = 8
# Deflate cannot shrink by more than this, so a header can be refused before anything is decompressed.
MAX_RATIO = 1032

PARTS = {"x_train": "train-images", "y_train": "train-labels", "x_test": "t10k-images", "y_test": "t10k-labels"}
INSIDE = (".", "raw", "FashionMNIST/raw", "MNIST/raw")


def encode_idx(array: NDArray[Any]) -> bytes:
    """Return the bytes of an IDX file, uncompressed.

    Example:
        >>> encode_idx(np.array([7, 9], dtype=np.uint8)).hex(" ")
        '00 00 08 01 00 00 00 02 07 09'
    """
    big_endian = array.dtype.newbyteorder(">")
    if big_endian not in CODES:
        raise DataError(f"IDX has no code for dtype {array.dtype}; expected one of {', '.join(map(str, CODES))}")
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, CODES[big_endian], array.ndim, *array.shape)
    return head + array.astype(big_endian).tobytes()


def read_idx(path: str | Path) -> NDArray[Any]:
    """Read one IDX file, ``.gz`` or plain, into an array of the machine's byte order.

    Raises:
        MissingInputError: no such file.
        DataError: not IDX, truncated, longer than declared, or damaged. Nothing is allocated on the header's word.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file; expected an IDX file")
    try:
        compressed = path.suffix == ".gz"
        limit = path.stat().st_size * (MAX_RATIO if compressed else 1)
        with cast("IO[bytes]", gzip.open(path) if compressed else path.open("rb")) as file:
            return read_stream(file, limit, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: the file cannot be read to its end ({error}). Fetch it again") from error


def read_stream(file: IO[bytes], limit: int, where: str) -> NDArray[Any]:
    """Read header and values; ``limit`` is the most that the file can hold."""
    magic = file.read(4)
    if len(magic) < 4:
        raise DataError(f"{where}: {len(magic)} bytes, expected an IDX file of at least 8. Fetch it again")
    if magic[:2] != b"\0\0" or magic[2] not in DTYPES or not 1 <= magic[3] <= MAX_DIMS:
        raise DataError(
            f"{where}: starts with {magic.hex(' ')}, expected IDX: 00 00, a dtype of "
            f"{', '.join(f'{code:02x}' for code in DTYPES)}, and 1 to {MAX_DIMS} dimensions. Is it another format?"
        )
    head = file.read(4 * magic[3])
    if len(head) < 4 * magic[3]:
        raise DataError(f"{where}: the file ends within its header of {4 + 4 * magic[3]} bytes. Fetch it again")
    shape = struct.unpack(f">{magic[3]}I", head)
    dtype = np.dtype(DTYPES[magic[2]])
    size = prod(shape) * dtype.itemsize
    if size == 0:
        raise DataError(f"{where}: the data are empty, shape {shape}; expected at least one value")
    declared = f"{where}: the header declares shape {shape}, {size} bytes"
    if size > min(limit, MAX_BYTES):
        raise DataError(f"{declared}, more than the file can hold or pyrogen reads ({MAX_BYTES}). Fetch it again")
    # One byte more than declared: it reaches the end of the file, where gzip checks its sum.
    values = file.read(size + 1)
    if len(values) != size:
        found = "more" if len(values) > size else f"{len(values)}"
        raise DataError(f"{declared}, but the file holds {found}. Fetch it again")
    return np.frombuffer(values, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def find_part(folder: Path, stem: str) -> Path | None:
    """Return the file of one part, such as ``train-images-idx3-ubyte.gz``."""
    dims = 3 if stem.endswith("images") else 1
    names = (f"{stem}{dash}idx{dims}-ubyte{end}" for end in ("", ".gz") for dash in "-.")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def find_idx_folder(path: str | Path) -> Path | None:
    """Return the folder at or below ``path`` that holds training images as torchvision lays them out, if any.

    Raises:
        UsageError: there are several.
    """
    found = [Path(path) / inside for inside in INSIDE if find_part(Path(path) / inside, PARTS["x_train"])]
    if len(found) > 1:
        raise UsageError(f"{path}: several data sets, {', '.join(map(str, found))}. Give the path of one of them")
    return found[0] if found else None


def read_idx_folder(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read ``train-images-idx3-ubyte[.gz]`` and its companions in ``path``, ``raw``, or ``FashionMNIST/raw``.

    Returns:
        ``x_train`` (N, H, W), and where they exist ``y_train`` (N,), ``x_test`` (M, H, W), ``y_test`` (M,).
    """
    folder = find_idx_folder(path)
    if folder is None:
        raise MissingInputError(f"{path}: no train-images-idx3-ubyte[.gz], neither here nor in {', '.join(INSIDE[1:])}")
    files = {key: find_part(folder, stem) for key, stem in PARTS.items()}
    return {key: read_idx(file) for key, file in files.items() if file is not None}
