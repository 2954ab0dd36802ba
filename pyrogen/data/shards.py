"""A corpus that is larger than memory: files of counts, of which one is in memory at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from scipy.sparse import csr_array, vstack
from torch import Tensor

from pyrogen.counts import parts, take
from pyrogen.data.arrays import member_names, read_members
from pyrogen.data.batches import Batches
from pyrogen.data.corpus import Corpus
from pyrogen.data.count_matrix import checked_words, read_counts, to_tensor
from pyrogen.data.splits import num_rows, own_generator
from pyrogen.errors import DataError
from pyrogen.spec import DataSpec

__all__ = ["ShardBatches", "ShardedCorpus", "is_sharded", "read_shards"]

VOCABULARY = "vocabulary.txt"


class ShardBatches:
    """Iterate over batches ``{"x": ...}`` of documents, one file after another.

    The order of files, and a seed for the order of documents within each, are drawn from the *global* generator of
    torch when the epoch begins, for the reason that :class:`~pyrogen.data.Batches` gives. What a file has left for no
    full batch goes into the next one with documents of the next file: all documents weigh alike.

    Args:
        paths: the files.
        sizes: how many documents each has.
        batch_size: documents a batch.
        shuffle: draw a new order in every epoch.
        drop_last: leave out a last batch that is not full.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        sizes: Sequence[int],
        batch_size: int,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        self.paths, self.sizes = list(paths), list(sizes)
        self.batch_size, self.shuffle, self.drop_last = batch_size, shuffle, drop_last
        self.num_data = sum(sizes)

    def __len__(self) -> int:
        full, rest = divmod(self.num_data, self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        count = len(self.paths)
        order = (torch.randperm if self.shuffle else torch.arange)(count, device="cpu").tolist()
        seeds = torch.randint(2**62, (count,), device="cpu").tolist() if self.shuffle else [None] * count
        rest: csr_array | None = None
        for i, seed in zip(order, seeds, strict=True):
            counts = self._read(i)
            if seed is not None:
                generator = torch.Generator().manual_seed(seed)
                counts = counts[torch.randperm(counts.shape[0], generator=generator).numpy()]
            if rest is not None:
                counts = csr_array(vstack([rest, counts]))
            full = counts.shape[0] - counts.shape[0] % self.batch_size
            for start in range(0, full, self.batch_size):
                yield {"x": to_tensor(counts[start : start + self.batch_size])}
            rest = counts[full:] if full < counts.shape[0] else None
        if rest is not None and not self.drop_last:
            yield {"x": to_tensor(rest)}

    def _read(self, i: int) -> csr_array:
        counts, _ = read_counts(self.paths[i])
        if counts.shape[0] != self.sizes[i]:
            raise DataError(f"{self.paths[i]}: {counts.shape[0]} documents, and {self.sizes[i]} when it was first read")
        return counts


@dataclass(frozen=True, eq=False)
class ShardedCorpus(Corpus):
    """Documents as counts of words, of which the training split stays in files.

    What is in ``train`` is the first file, and stands for all where training data are looked at.

    Attributes:
        paths: the files of the training split.
        sizes: how many documents each has.
    """

    paths: tuple[Path, ...] = ()
    sizes: tuple[int, ...] = ()

    def num_data(self, split: str) -> int:
        return sum(self.sizes) if split == "train" else super().num_data(split)

    def batches(  # type: ignore[override]
        self,
        batch_size: int,
        split: str = "train",
        *,
        shuffle: bool | None = None,
        drop_last: bool = False,
        only: Sequence[str] | None = None,
    ) -> Batches | ShardBatches:
        if split != "train":
            return super().batches(batch_size, split, shuffle=shuffle, drop_last=drop_last, only=only)
        return ShardBatches(self.paths, self.sizes, batch_size, shuffle is None or shuffle, drop_last)

    def describe(self) -> str:
        """Say in one line what was found."""
        return (
            f"{self.name}: {self.num_data('train'):,} train + {self.num_data('validation'):,} validation + "
            f"{self.num_data('test'):,} test documents, {len(self.vocabulary):,} words, training documents in "
            f"{len(self.paths):,} file{'s' if len(self.paths) > 1 else ''}{f'; {self.note}' if self.note else ''}"
        )

    def fingerprint(self) -> str:
        """Return the SHA-256 (hexadecimal) of all files, in their order, and the words."""
        digest = sha256("\n".join(self.vocabulary).encode())
        for path in self.paths:
            with path.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
        for split in ("validation", "test"):
            for part in parts(self.split(split)["x"]):
                digest.update(part.numpy().tobytes())
        return digest.hexdigest()


def is_sharded(folder: Path) -> bool:
    """Tell whether a folder holds a vocabulary and files of counts."""
    return (folder / VOCABULARY).is_file() and any(folder.glob("*.npz"))


def read_shards(folder: Path, *, name: str, validation: float = 0.1, test: float = 0.1, seed: int = 0) -> ShardedCorpus:
    """Read a folder of ``.npz`` files, as ``scipy.sparse.save_npz`` writes them, and ``vocabulary.txt``, a word a line.

    Held-out documents are of the last file by name, the rest of which is left out; fractions are of that file.

    Raises:
        DataError: where there is one file alone, or files do not fit the vocabulary.
    """
    paths = sorted(folder.glob("*.npz"))
    lines = (folder / VOCABULARY).read_text(encoding="utf-8").splitlines()
    vocabulary = tuple(checked_words([line.strip() for line in lines], len(lines), str(folder / VOCABULARY)))
    if len(paths) < 2:
        raise DataError(f"{folder}: one file of counts; expected two or more, the last of which is held out")
    sizes = [_size(path, len(vocabulary)) for path in paths]
    last = to_tensor(read_counts(paths[-1])[0])
    order = torch.randperm(len(last), generator=own_generator(seed, "split"), device="cpu")
    held_out, tested = num_rows("validation", validation, len(last)), num_rows("test", test, len(last))
    spec = DataSpec((len(vocabulary),), "counts", name=name, num_data=sum(sizes[:-1]))
    left = max(0, len(last) - held_out - tested)
    rows = {"validation": order[:held_out], "test": order[held_out : held_out + tested]}
    return ShardedCorpus(
        name,
        {"x": to_tensor(read_counts(paths[0])[0])},
        {"x": take(last, rows["validation"])},
        {"x": take(last, rows["test"])},
        spec,
        vocabulary=vocabulary,
        note=f"{left:,} documents of {paths[-1].name} are left out" if left else "",
        titles={split: tuple(f"{paths[-1].stem}, {row}" for row in of.tolist()) for split, of in rows.items()},
        paths=tuple(paths[:-1]),
        sizes=tuple(sizes[:-1]),
    )


def _size(path: Path, num_words: int) -> int:
    if "shape" not in member_names(path):
        raise DataError(f"{path}: not a CSR matrix as scipy.sparse.save_npz writes it")
    shape = tuple(read_members(path, lambda names: {"shape": "shape"})["shape"].tolist())
    if len(shape) != 2 or shape[1] != num_words:
        raise DataError(f"{path}: counts of shape {shape} for {num_words} words of {VOCABULARY}")
    return int(shape[0])
