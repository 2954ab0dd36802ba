"""One long text, read by characters or bytes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pyrogen.alphabet import BYTES, Alphabet, alphabet_of
from pyrogen.data.batches import Batches
from pyrogen.data.dataset import SPLITS, Columns, Dataset, to_float
from pyrogen.data.splits import num_rows
from pyrogen.errors import DataError, UsageError
from pyrogen.spec import DataSpec

__all__ = ["HELD_OUT", "LENGTH", "Streams", "Text", "Unit", "from_characters", "read_characters"]

Unit = Literal["character", "byte"]

LENGTH = 100
"""Characters in a window, if nothing else is asked for."""

HELD_OUT = 0.05
"""The share of a text that is for validation, and that is for test, if nothing else is asked for."""


class Streams(Batches):
    """Read the windows of a text in several places at once, each batch on from where the last one ended.

    A stream is what one row of the batches reads in an epoch. Streams begin at evenly spaced windows; all have the same
    length, and together they read every window, those at a border perhaps twice.

    Args:
        columns: ``"x"``, windows in their order, and others.
        batch_size: the number of streams; as many as there are windows, if those are fewer.
        only: the columns to yield; all by default.
        name: what error messages call the data.

    Example:
        >>> streams = Streams({"x": torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]]), "begins": torch.zeros(4)}, 2)
        >>> for batch in streams:
        ...     print(batch["x"].tolist(), batch["begins"].tolist())
        [[0.0, 1.0], [4.0, 5.0]] [True, True]
        [[2.0, 3.0], [6.0, 7.0]] [False, False]
    """

    def __init__(
        self, columns: Mapping[str, Tensor], batch_size: int, only: Sequence[str] | None = None, name: str = "the text"
    ) -> None:
        super().__init__(columns, batch_size, shuffle=False, transform=to_float, only=only, name=name)
        count = min(batch_size, self.num_data)
        self.starts = torch.arange(count) * (self.num_data - len(self)) // max(1, count - 1)

    def __len__(self) -> int:
        return -(-self.num_data // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for i in range(len(self)):
            batch = {name: column[self.starts + i] for name, column in self.columns.items()}
            yield batch | {"x": to_float(batch["x"]), "begins": torch.full((len(self.starts),), i == 0)}


@dataclass(frozen=True, eq=False)
class Text(Dataset):
    """One text, the last part of which is for test, and what comes before that for validation.

    It is a :class:`Dataset` whose column ``"x"`` holds the windows of a split, shape ``(windows, length)``, in their
    order, and whose column ``"begins"`` says which of them goes on from none before it. What is left at the end of a
    split is in no window.

    Attributes:
        texts: the numbers of all characters, by split, shape ``(characters,)``.
    """

    texts: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def alphabet(self) -> Alphabet:
        """The characters, in the order of their numbers."""
        return alphabet_of(self.spec.symbols, self.name)

    def batches(
        self,
        batch_size: int,
        split: str = "train",
        *,
        shuffle: bool | None = None,
        drop_last: bool = False,
        only: Sequence[str] | None = None,
    ) -> Batches:
        """Draw batches ``{"x": float32 (B, length), "begins": bool (B,)}``.

        Training batches are :class:`Streams`; without the column ``begins``, or with ``shuffle``, they are windows in
        random order, as of :meth:`Dataset.batches`.
        """
        if split == "train" and not shuffle and (only is None or "begins" in only):
            return Streams(self.train, batch_size, only, f"{self.name}, train split")
        return super().batches(batch_size, split, shuffle=shuffle, drop_last=drop_last, only=only)

    def describe(self) -> str:
        """Say in one line what was found."""
        unit = "bytes" if self.alphabet.is_bytes else "characters"
        counts = " + ".join(f"{len(self.texts[name]):,} {name}" for name in SPLITS)
        different = "" if self.alphabet.is_bytes else f", {len(self.alphabet)} different ones"
        return f"{self.name}: {counts} {unit} in this order{different}, in windows of {self.spec.shape[0]}"

    def fingerprint(self) -> str:
        digest = sha256(super().fingerprint().encode())
        for split in SPLITS:
            digest.update(f"|{split}/{len(self.texts[split])}|".encode())
            digest.update(self.texts[split].numpy().tobytes())
        return digest.hexdigest()


def from_characters(
    text: str | bytes,
    *,
    name: str = "text",
    where: str | None = None,
    length: int | None = None,
    validation: float | None = None,
    test: float | None = None,
) -> Text:
    """Make data of a text: of its characters or, where it is ``bytes``, of these.

    The splits are contiguous: windows cut out at random would be held out next to others that were learned.

    Args:
        name: what it is called.
        where: what error messages call it; ``name`` by default.
        length: characters in a window, over which gradients go back; :data:`LENGTH` if not given.
        validation: the share for validation, :data:`HELD_OUT` if not given.
        test: the share for test, the last of the text, likewise.

    Raises:
        DataError: a text that is empty, is shorter than a window, or has one character alone.
        UsageError: a setting that is out of range.

    Example:
        >>> text = from_characters("abracadabra!", length=2, validation=0.2, test=0.2)
        >>> print(text.describe())
        text: 8 train + 2 validation + 2 test characters in this order, 6 different ones, in windows of 2
        >>> [text.alphabet.decode(text.texts[split]) for split in ("train", "validation", "test")]
        ['abracada', 'br', 'a!']
    """
    where = where or name
    length = LENGTH if length is None else length
    if length < 1:
        raise UsageError(f"length must be at least 1, found {length}")
    if not text:
        raise DataError(f"{where}: an empty text; expected one of some thousand characters at least")
    numbers, symbols = _numbers(text)
    if len(symbols) < 2:
        raise DataError(f"{where}: the text repeats the character {symbols[0]!r}, so that there is nothing to learn")
    total = len(numbers)
    held_out = [num_rows("validation", HELD_OUT if validation is None else validation, total)]
    held_out.append(num_rows("test", HELD_OUT if test is None else test, total))
    kept = total - sum(held_out)
    if kept < length:
        raise DataError(
            f"{where}: {max(0, kept):,} of {total:,} characters are for training, and a window has {length:,}. Lower "
            f"length, or bring more text"
        )
    parts = dict(zip(SPLITS, torch.split(numbers, [kept, *held_out]), strict=True))
    spec = DataSpec((length,), "levels", levels=len(symbols), name=name, num_data=kept // length, symbols=symbols)
    train, held_out_columns, tested = (_windows(parts[split], length) for split in SPLITS)
    return Text(name, train, held_out_columns, tested, spec, texts=parts)


def _numbers(text: str | bytes) -> tuple[Tensor, tuple[str, ...]]:
    """Return the numbers of a text's symbols, in as few bytes as will do, and the symbols."""
    if isinstance(text, bytes):
        return torch.from_numpy(np.frombuffer(text, np.uint8).copy()), BYTES
    points, numbers = np.unique(np.frombuffer(text.encode("utf-32-le"), "<u4"), return_inverse=True)
    kind = np.uint8 if len(points) <= 256 else np.int32
    return torch.from_numpy(numbers.astype(kind)), tuple(map(chr, points.tolist()))


def _windows(numbers: Tensor, length: int) -> Columns:
    x = numbers[: len(numbers) // length * length].reshape(-1, length)
    return {"x": x, "begins": torch.arange(len(x)) == 0}


def read_characters(path: Path, unit: Unit = "character") -> str | bytes:
    """Read a file, or all ``.txt`` files below a folder in the order of their names, with a line's end between them.

    Raises:
        DataError: where there are none, or characters were asked for and one is not UTF-8.
    """
    paths = sorted(inner for inner in path.rglob("*.txt") if inner.is_file()) if path.is_dir() else [path]
    if not paths:
        raise DataError(f"{path}: no .txt files")
    found = [inner.read_bytes() for inner in paths]
    if unit == "byte":
        return b"\n".join(found)
    texts = []
    for inner, content in zip(paths, found, strict=True):
        try:
            texts.append(content.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise DataError(
                f"{inner}: not UTF-8 ({error}). Save it again as UTF-8, or read it byte by byte: unit=byte, on the "
                f"command line --unit byte"
            ) from error
    return "\n".join(texts)


def check_unit(unit: str | None, units: Sequence[str]) -> None:
    """Refuse a unit that is none.

    Raises:
        UsageError: with those that are.
    """
    if unit is not None and unit not in units:
        raise UsageError(f"unit must be {', '.join(units[:-1])} or {units[-1]}, found {unit!r}")
