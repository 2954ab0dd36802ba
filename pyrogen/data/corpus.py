"""Documents as counts of words, in three splits: from text, and from matrices of counts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer

from pyrogen.data.count_matrix import checked, checked_words, to_tensor
from pyrogen.data.dataset import SPLITS, Dataset
from pyrogen.data.splits import split
from pyrogen.errors import DataError, UsageError
from pyrogen.spec import DataSpec

__all__ = ["Corpus", "Pruning", "from_counts", "from_text", "read_text_folder"]

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
