"""Documents as counts of words: from text, from sparse matrices, from files."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array, csc_array, csr_array, issparse
from sklearn.feature_extraction.text import CountVectorizer
from torch import Tensor

from pyrogen.counts import make_csr
from pyrogen.data.arrays import read_members
from pyrogen.data.dataset import SPLITS, Dataset
from pyrogen.data.splits import split
from pyrogen.errors import DataError, UsageError
from pyrogen.spec import DataSpec

__all__ = [
    "Corpus",
    "Pruning",
    "checked_words",
    "from_counts",
    "from_text",
    "read_counts",
    "read_text_folder",
    "to_tensor",
]

LAYOUTS = {b"csr": csr_array, b"csc": csc_array}
"""How a sparse matrix is read, by what its file says of it."""

WORD = r"(?u)\b[^\W\d_][^\W\d_']*[^\W\d_]\b"
"""A word has two letters or more, and no digits."""


@dataclass(frozen=True, eq=False)
class Corpus(Dataset):
    """Documents as counts of words, in three splits.

    It is a :class:`Dataset` whose column ``"x"`` is a CSR tensor ``(documents, words)``, float32.

    Attributes:
        vocabulary: the words, in the order of the columns.
        titles: what documents are called, by split.
        note: what was left out.
    """

    vocabulary: tuple[str, ...] = ()
    titles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    note: str = ""

    def num_tokens(self, split: str) -> int:
        """Return how many words a split has, each as often as it stands there."""
        return int(self.split(split)["x"].values().double().sum())

    def describe(self) -> str:
        """Say in one line what was found."""
        counts = " + ".join(f"{self.num_data(name):,} {name}" for name in SPLITS)
        tokens = sum(self.num_tokens(name) for name in SPLITS)
        note = f"; {self.note}" if self.note else ""
        return f"{self.name}: {counts} documents, {len(self.vocabulary):,} words, {tokens:,} tokens{note}"


@dataclass(frozen=True)
class Pruning:
    """Which words of a corpus are kept.

    Attributes:
        min_documents: the least number of documents that a word must be in.
        max_share: the largest share of documents that it may be in.
        max_words: how many are kept at most, the most frequent; ``None`` for all.
    """

    min_documents: int = 1
    max_share: float = 1.0
    max_words: int | None = None

    def __post_init__(self) -> None:
        if self.min_documents < 1 or not 0 < self.max_share <= 1 or (self.max_words is not None and self.max_words < 1):
            raise UsageError(
                f"min_documents and max_words must be at least 1 and max_share in (0, 1], found {self.min_documents}, "
                f"{self.max_words}, {self.max_share}"
            )

    def kept(self, matrix: csr_array) -> NDArray[np.int64]:
        """Return the columns that are kept, in their order."""
        documents = np.bincount(matrix.indices[matrix.data > 0], minlength=matrix.shape[1])
        keep = (documents >= self.min_documents) & (documents <= self.max_share * matrix.shape[0])
        columns = np.flatnonzero(keep)
        if self.max_words is not None and len(columns) > self.max_words:
            totals = np.asarray(matrix.sum(0)).ravel()[columns]
            columns = np.sort(columns[np.argsort(-totals, kind="stable")[: self.max_words]])
        return columns


def from_counts(
    counts: Any,
    vocabulary: Sequence[str] | None = None,
    *,
    name: str = "corpus",
    where: str | None = None,
    titles: Sequence[str] | None = None,
    pruning: Pruning = Pruning(),
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> Corpus:
    """Make a corpus of a sparse matrix of SciPy's (as scikit-learn makes them), an array, or a corpus of gensim's.

    Args:
        counts: ``(documents, words)``; or for each document, pairs of a word's number and how often it stands there.
        vocabulary: the words, in the order of the columns; numbers if not given. A dictionary of gensim's will do.
        name: what the corpus is called.
        where: what error messages call it; ``name`` by default.
        titles: what documents are called; numbers if not given.
        pruning: which words are kept.
        validation: fraction of validation documents.
        test: fraction of test documents.
        seed: of the cut.

    Raises:
        DataError: counts that are negative or no whole numbers, words that do not fit them, or nothing left.
        UsageError: a setting that is out of range.

    Example:
        >>> corpus = from_counts([[(0, 2), (1, 1)], [(1, 1)]], ["cat", "dog"], validation=0.0, test=0.5)
        >>> print(corpus.describe())
        corpus: 1 train + 0 validation + 1 test documents, 2 words, 4 tokens
    """
    where = where or name
    matrix = checked(counts, where)
    words = checked_words(vocabulary, matrix.shape[1], where)
    columns = pruning.kept(matrix)
    pruned = csr_array(matrix[:, columns])
    full = np.flatnonzero(pruned.sum(1) > 0)
    if not len(full):
        raise DataError(f"{where}: no words are left of {matrix.shape[1]:,}, pruned by {pruning}")
    left_out = []
    if len(columns) < matrix.shape[1]:
        left_out.append(f"{matrix.shape[1] - len(columns):,} of {matrix.shape[1]:,} words pruned")
    if len(full) < matrix.shape[0]:
        left_out.append(f"{matrix.shape[0] - len(full):,} empty documents left out")
    named = [str(number) for number in range(matrix.shape[0])] if titles is None else list(titles)
    if len(named) != matrix.shape[0]:
        raise DataError(f"{where}: {len(named)} titles for {matrix.shape[0]} documents")
    spec = DataSpec((len(columns),), "counts", name=name)
    columns_of = {"x": to_tensor(pruned[full]), "row": torch.from_numpy(full)}
    cut = split(columns_of, spec, name, validation, test, seed)
    parts = {part: cut.split(part) for part in SPLITS}
    return Corpus(
        name,
        {"x": parts["train"]["x"]},
        {"x": parts["validation"]["x"]},
        {"x": parts["test"]["x"]},
        cut.spec,
        vocabulary=tuple(words[column] for column in columns),
        titles={part: tuple(named[row] for row in parts[part]["row"].tolist()) for part in SPLITS},
        note=", ".join(left_out),
    )


def from_text(documents: Iterable[str], *, stop_words: str | None = None, **settings: Any) -> Corpus:
    """Count the words of texts, in lower case: two letters or more, no digits; other settings as of ``from_counts``.

    Args:
        documents: texts.
        stop_words: ``"english"`` leaves scikit-learn's list of function words out.

    Example:
        >>> from_text(["The cat sat.", "A cat!"], validation=0.0, test=0.0).vocabulary
        ('cat', 'sat', 'the')
    """
    if stop_words not in (None, "english"):
        raise UsageError(f"stop_words must be english, or left out, found {stop_words!r}")
    vectorizer = CountVectorizer(token_pattern=WORD, stop_words=stop_words)
    try:
        matrix = vectorizer.fit_transform(documents)
    except ValueError as error:
        name = settings.get("where") or settings.get("name", "corpus")
        raise DataError(f"{name}: no words in these documents ({error})") from error
    return from_counts(matrix, list(vectorizer.get_feature_names_out()), **settings)


def read_text_folder(folder: Path) -> tuple[list[str], list[str]]:
    """Return the texts of all ``.txt`` files below a folder, in the order of their names, and these.

    Raises:
        DataError: where there are none, or one is not UTF-8.
    """
    paths = sorted(path for path in folder.rglob("*.txt") if path.is_file())
    if not paths:
        raise DataError(f"{folder}: no .txt files")
    texts = []
    for path in paths:
        try:
            texts.append(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 ({error}). Save it again as UTF-8") from error
    return texts, [str(path.relative_to(folder)) for path in paths]


def read_counts(path: Path) -> tuple[csr_array, list[str] | None]:
    """Read a bag of words, as ``scipy.sparse.save_npz`` writes it, with an array ``vocabulary`` beside it or without.

    Raises:
        DataError: where the file is damaged, or holds another format than CSR.
    """
    found = read_members(path)
    missing = {"data", "indices", "indptr", "shape"} - set(found)
    layout = bytes(found.get("format", np.array(b"csr")).item())
    if missing or layout not in LAYOUTS:
        raise DataError(f"{path}: not a CSR or CSC matrix as scipy.sparse.save_npz writes it. Save matrix.tocsr()")
    try:
        parts = (found["data"], found["indices"], found["indptr"])
        matrix = LAYOUTS[layout](parts, shape=tuple(found["shape"].tolist()))
        matrix.check_format(full_check=True)
        matrix = csr_array(matrix)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: not a sparse matrix ({error}). Save it again") from error
    matrix = checked(matrix, str(path))
    return matrix, None if "vocabulary" not in found else [str(word) for word in found["vocabulary"].tolist()]


def checked(counts: Any, where: str) -> csr_array:
    """Return counts as a CSR matrix without zeros and duplicates.

    Raises:
        DataError: where they are negative or no whole numbers, or there are none.
    """
    if isinstance(counts, Tensor):
        counts = counts.to_dense().numpy()
    if hasattr(counts, "to_numpy"):  # a table of pandas
        counts = counts.to_numpy()
    if issparse(counts) or isinstance(counts, np.ndarray):
        if counts.ndim != 2:
            raise DataError(f"{where}: counts of shape {counts.shape}; expected a row for each document")
        matrix = csr_array(counts)
    else:
        matrix = _of_pairs(counts, where)
    matrix.sum_duplicates()
    if matrix.shape[0] == 0 or matrix.shape[1] == 0:
        raise DataError(f"{where}: counts of shape {matrix.shape}; expected at least one document and one word")
    data = matrix.data
    if (
        data.dtype.kind not in "biuf"
        or not np.isfinite(data).all()
        or (data < 0).any()
        or (data != np.rint(data)).any()
    ):
        raise DataError(
            f"{where}: counts must be whole numbers of at least 0, found dtype {data.dtype} from {data.min()} to "
            f"{data.max()}. Weights such as tf-idf are none: give the counts"
        )
    matrix.eliminate_zeros()
    return matrix


def _of_pairs(counts: Iterable[Any], where: str) -> csr_array:
    rows, columns, values, documents = [], [], [], 0
    try:
        for document in counts:
            for word, count in document:
                rows.append(documents)
                columns.append(int(word))
                values.append(float(count))
            documents += 1
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: document {documents} is no list of pairs (word, count): {error}. Expected a sparse matrix, an "
            f"array, or for each document such pairs"
        ) from error
    if min(columns, default=0) < 0:
        raise DataError(f"{where}: words are numbered from 0, found {min(columns)}")
    return csr_array(coo_array((values, (rows, columns)), shape=(documents, max(columns, default=-1) + 1)))


def checked_words(vocabulary: Any, size: int, where: str) -> list[str]:
    """Return the words of as many columns; numbers where there is no vocabulary.

    Raises:
        DataError: where there are too few, or one is there twice.
    """
    if vocabulary is None:
        return [str(number) for number in range(size)]
    if isinstance(vocabulary, Mapping) and all(isinstance(word, str) for word in vocabulary):
        vocabulary = sorted(vocabulary, key=lambda word: int(vocabulary[word]))  # of scikit-learn: word -> column
    try:
        words = [str(vocabulary[number]) for number in range(len(vocabulary))]
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"{where}: the vocabulary must be the words in the order of the columns ({error!r}). Of a CountVectorizer, "
            f"give get_feature_names_out(); call compactify() of a dictionary of gensim's"
        ) from error
    if len(words) < size:
        raise DataError(
            f"{where}: {len(words):,} words for {size:,} columns of counts (a dictionary of gensim's with gaps needs "
            f"compactify())"
        )
    if len(set(words)) < len(words):
        raise DataError(f"{where}: the word {Counter(words).most_common(1)[0][0]!r} is in the vocabulary twice")
    return words[:size]


def to_tensor(matrix: csr_array) -> Tensor:
    """Return a sparse matrix of SciPy's as a CSR tensor, float32."""
    offsets, columns = (torch.from_numpy(part.astype(np.int64)) for part in (matrix.indptr, matrix.indices))
    values = torch.from_numpy(matrix.data.astype(np.float32))
    return make_csr(offsets, columns, values, (int(matrix.shape[0]), int(matrix.shape[1])))
