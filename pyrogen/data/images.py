"""A folder of images: all directly inside, or one sub-folder a class."""

import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pyrogen.errors import DataError, MissingInputError, UsageError

__all__ = ["holds_images", "read_image_folder"]

SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm"])
GREY = ("1", "L", "LA")
EIGHT_BITS = (*GREY, "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB")
MAX_BYTES = 8 * 2**30
# What Pillow raises for files that are damaged or made up.
DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    UserWarning,
)


def read_image_folder(
    path: str | Path, size: int | tuple[int, int] | None = None, grayscale: bool = False
) -> dict[str, NDArray[np.uint8]]:
    """Read all images in the order of their names.

    Args:
        path: images directly inside; or one sub-folder a class, whose sorted names become labels 0, 1, ...; or the two
            sub-folders ``train`` and ``test`` with either of these inside.
        size: height and width to resize to (one number for a square); without it all images must have one size.
        grayscale: turn colours into grey. Without it one colour image makes all of them colour images.

    Returns:
        ``x`` uint8 (N, H, W, C) with C of 1 or 3, and ``y`` int64 (N,) where there are classes; or ``x_train``,
        ``x_test``, and so on.

    Raises:
        MissingInputError: no such folder.
        DataError: no images, an unreadable or differently sized image, transparency, or more than 8 bits; the file
            is named.
    """
    path = Path(path)
    if not path.is_dir():
        raise MissingInputError(f"{path}: no such folder; expected a folder of images")
    height_width = check_size(size)
    folders = {folder.name: folder for folder in subfolders(path)}
    if "train" not in folders:
        groups = {"": list_images(path)}
    elif set(folders) == {"train", "test"}:
        groups = {"_train": list_images(folders["train"]), "_test": list_images(folders["test"])}
    else:
        found = ", ".join(map(repr, folders))
        raise DataError(f"{path}: sub-folders {found}; expected 'train' and 'test' and no other, or one for each class")
    classes = [sorted({file.parent.name for file in files}) for files, labelled in groups.values() if labelled]
    if classes and classes != [classes[0]] * len(groups):
        raise DataError(f"{path}: training and test folders hold different classes, {classes}; expected the same")
    everything = [file for files, _ in groups.values() for file in files]
    shape = common_shape(everything, height_width, grayscale)
    arrays: dict[str, NDArray[Any]] = {}
    for suffix, (files, labelled) in groups.items():
        arrays[f"x{suffix}"] = read_all(files, shape)
        if labelled:
            arrays[f"y{suffix}"] = np.array([classes[0].index(file.parent.name) for file in files])
    return arrays


def check_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Return height and width."""
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(n, int) and n >= 1 for n in pair):
        raise UsageError(f"size={size!r}: expected a whole number of pixels, or height and width")
    return pair[0], pair[1]


def images_in(folder: Path) -> list[Path]:
    """Return the image files directly inside, sorted."""
    files = (file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    return sorted(file for file in files if file.suffix.lower() in SUFFIXES)


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders directly inside, sorted."""
    return sorted(inner for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))


def holds_images(path: Path) -> bool:
    """Say whether there are images in the folder or up to two folders deep."""
    return bool(images_in(path)) or any(
        images_in(inner) or any(images_in(innermost) for innermost in subfolders(inner)) for inner in subfolders(path)
    )


def list_images(folder: Path) -> tuple[list[Path], bool]:
    """Return the files, and whether their folders are classes."""
    direct = images_in(folder)
    classes = {inner: images_in(inner) for inner in subfolders(folder)}
    if direct and any(classes.values()):
        raise DataError(f"{folder}: images directly inside and in sub-folders as well; expected one or the other")
    if direct:
        return direct, False
    for inner, files in classes.items():
        if not files:
            raise DataError(f"{inner}: a class without images; expected {', '.join(sorted(SUFFIXES))}. Remove it")
    if not classes:
        raise DataError(f"{folder}: no images; expected files ending in {', '.join(sorted(SUFFIXES))}")
    return [file for files in classes.values() for file in files], True


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; every complaint of Pillow's becomes a DataError that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                yield image
    except DataError:
        raise
    except (*DAMAGE, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image ({error}). Save it again or remove it") from error


def common_shape(
    files: Sequence[Path], size: tuple[int, int] | None, grayscale: bool
) -> tuple[tuple[int, int] | None, tuple[int, int], str]:
    """Return ``(size to resize to or None, (H, W), mode)`` from the headers alone, before anything is allocated."""
    found: tuple[int, int] | None = None
    colour = False
    for file in files:
        with opened(file) as image:
            if image.mode not in EIGHT_BITS:
                fix = "Convert it to 8 bits, or save the values in a .npy file"
                raise DataError(f"{file}: pixels of mode {image.mode!r}, expected 8 bits a channel. {fix}")
            height_width = (image.height, image.width)
            colour = colour or image.mode not in GREY
        found = found or height_width
        if size is None and height_width != found:
            raise DataError(
                f"{file}: {height_width[0]} x {height_width[1]} pixels (height x width), but {files[0]} has "
                f"{found[0]} x {found[1]}. Give `size` to resize all images, or remove this one"
            )
    assert found is not None
    mode = "RGB" if colour and not grayscale else "L"
    height, width = size or found
    total = len(files) * height * width * len(mode)
    if total > MAX_BYTES:
        raise DataError(
            f"{files[0].parent}: {total} bytes of pixels, expected at most {MAX_BYTES}. Give a smaller `size`"
        )
    return size, (height, width), mode


def read_all(files: Sequence[Path], shape: tuple[tuple[int, int] | None, tuple[int, int], str]) -> NDArray[np.uint8]:
    """Decode images into one array (N, H, W, C)."""
    size, (height, width), mode = shape
    pixels = np.empty((len(files), height, width, len(mode)), dtype=np.uint8)
    for i, file in enumerate(files):
        with opened(file) as image:
            check_opaque(image, file)
            plain = image.convert(mode)
            if size is not None and plain.size != (width, height):
                plain = plain.resize((width, height), Image.Resampling.BILINEAR)
            pixels[i] = np.asarray(plain).reshape(height, width, len(mode))
    return pixels


def check_opaque(image: Image.Image, file: Path) -> None:
    """Refuse transparency: the colours below it are arbitrary, and would be learned."""
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise DataError(f"{file}: transparent pixels, expected opaque ones. Flatten the image on a background first")
