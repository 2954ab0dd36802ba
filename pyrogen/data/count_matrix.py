"""Matrices of counts, and the words of their columns: read, checked, and made into tensors."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array, csc_array, csr_array, issparse
from torch import Tensor

from pyrogen.counts import make_csr
from pyrogen.data.arrays import read_members
from pyrogen.errors import DataError

__all__ = ["checked", "checked_words", "read_counts", "to_tensor"]

LAYOUTS = {b"csr": csr_array, b"csc": csc_array}
"""How a sparse matrix is read, by what its file says of it."""


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
