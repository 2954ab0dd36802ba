"""Sounds as windows of one length, cut out of the clips of a folder or out of one recording."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pyrogen.data.checks import MAX_LEVELS
from pyrogen.data.dataset import SPLITS, Columns, Dataset
from pyrogen.data.images import subfolders
from pyrogen.data.mu_law import to_mu_law
from pyrogen.data.splits import num_rows, rows_of_splits
from pyrogen.data.wav import SUFFIX, read_wav
from pyrogen.errors import DataError, MissingInputError, UsageError
from pyrogen.spec import DataSpec

__all__ = ["Clip", "Sounds", "from_wavs", "holds_sounds", "sounds_in", "windows"]

Codes = NDArray[np.uint8]

SECONDS = 1.0
"""How long a window is, where that is not said."""


class Clip(NamedTuple):
    """A sound as levels.

    Attributes:
        name: of its file, as seen from the folder.
        codes: its levels, shape ``(time,)``.
        label: of its sub-folder; ``None`` without any.
    """

    name: str
    codes: Codes
    label: int | None = None


@dataclass(frozen=True, eq=False)
class Sounds(Dataset):
    """Windows of sounds, in three splits that share no file; or no moment, where there is one recording.

    It is a :class:`Dataset` whose column ``"x"`` holds levels of mu-law, uint8 of shape ``(windows, length)``.

    Attributes:
        files: the names of the files that windows were cut out of, by split.
        padded: how many files were shorter than a window, and filled up with silence.
    """

    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    padded: int = 0

    def describe(self) -> str:
        """Say in one line what was found."""
        length, rate = self.spec.shape[0], self.spec.sample_rate or 1
        counts = " + ".join(f"{self.num_data(name):,} {name}" for name in SPLITS)
        files = " + ".join(f"{len(self.files[name]):,}" for name in SPLITS)
        labels = "no labels" if self.spec.num_classes is None else f"{self.spec.num_classes} classes"
        padded = f"; {self.padded:,} files are shorter, and end in silence" if self.padded else ""
        return (
            f"{self.name}: {counts} windows of {length / rate:.4g} s ({length:,} samples, {rate:,} a second) from "
            f"{files} files, mu-law levels ({self.spec.levels}), {labels}{padded}"
        )


def from_wavs(
    path: str | Path,
    *,
    name: str = "sounds",
    seconds: float | None = None,
    length: int | None = None,
    levels: int = MAX_LEVELS,
    has_labels: bool = True,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> Sounds:
    """Read a folder of WAV files, or one file, as windows of mu-law levels.

    The files of a folder are cut into splits as wholes. One file alone is cut by time: what comes last is for test,
    what is before it for validation. For how sounds become windows see :func:`windows`.

    Args:
        path: a WAV file; or a folder of them, at any depth. Where all lie in sub-folders, their sorted names are labels
            0, 1, ...; sub-folders ``train`` and ``test`` with either of these inside are splits instead.
        name: what the data are called.
        seconds: how long a window is; 1 if not given.
        length: likewise, in samples.
        levels: of the mu-law, from 2 to 256.
        has_labels: whether sub-folders are labels.
        validation: fraction of files, or of a recording's time.
        test: likewise; not used where there is a sub-folder ``test``.
        seed: of the cut into splits.

    Raises:
        MissingInputError: no such file or folder.
        UsageError: a setting that is out of range.
        DataError: no WAV files, one that cannot be read, or several sampling rates; the files are named.
    """
    path = Path(path)
    cut = {"validation": validation, "test": test}
    if not path.exists():
        raise MissingInputError(f"{path}: no such file or folder; expected {SUFFIX} files")
    if path.is_file():
        rate, clips = read_clips({path.name: path}, [None], levels)
        parts = by_time(clips[0], name, **cut)
        classes = None
    else:
        found = sounds_in(path)
        names = label_names(found) if has_labels else []
        files = {str(Path(*group, file.relative_to(folder))): file for group, folder, file in found}
        rate, clips = read_clips(files, labels_of(found, names), levels)
        is_test = [group == ("test",) for group, _, _ in found]
        parts = by_file(clips, is_test, name, seed=seed, **cut)
        classes = len(names) or None
    span = window_length(seconds, length, rate)
    train, held_out, tested = (columns_of(part, span, silence(levels)) for part in parts)
    spec = DataSpec(
        (span,),
        "levels",
        levels=levels,
        num_classes=classes,
        name=name,
        num_data=len(train["x"]),
        sample_rate=rate,
    )
    listed = {split: tuple(clip.name for clip in part) for split, part in zip(SPLITS, parts, strict=True)}
    padded = sum(len(clip.codes) < span for part in parts for clip in part)
    return Sounds(name, train, held_out, tested, spec, files=listed, padded=padded)


def windows(codes: Codes, length: int, fill: int) -> Codes:
    """Cut a sound into as few windows as cover it, shape ``(windows, length)``.

    They are spread evenly: the first starts where the sound does, the last ends where it ends, and neighbours share
    what there is too much of. A sound that is shorter than a window is filled up.

    Example:
        >>> windows(np.arange(5, dtype=np.uint8), 3, 128).tolist(), windows(np.zeros(1, np.uint8), 3, 128).tolist()
        ([[0, 1, 2], [2, 3, 4]], [[0, 128, 128]])
    """
    if len(codes) < length:
        return np.concatenate([codes, np.full(length - len(codes), fill, np.uint8)])[None]
    starts = np.linspace(0, len(codes) - length, ceil(len(codes) / length)).round().astype(int)
    return np.stack([codes[start : start + length] for start in starts])


def silence(levels: int) -> int:
    """Return the level of silence."""
    return int(to_mu_law(np.zeros(()), levels))


def window_length(seconds: float | None, length: int | None, rate: int) -> int:
    """Return the length of a window in samples.

    Raises:
        UsageError: where both are given, or it is no sound.
    """
    if seconds is not None and length is not None:
        raise UsageError(f"a window of {seconds} seconds and of {length} samples: give one of `seconds` and `length`")
    found = length if length is not None else round((SECONDS if seconds is None else seconds) * rate)
    if found < 2:
        raise UsageError(f"a window must have at least 2 samples, found {found} at {rate} a second")
    return found


Found = tuple[tuple[str, ...], Path, Path]
"""``("train",)``, ``("test",)`` or nothing; the folder whose sub-folders may be labels; a file in it."""


def sounds_in(folder: Path) -> list[Found]:
    """List the WAV files of a folder at any depth, in the order of their names.

    Raises:
        DataError: where there are none.
    """
    inner = {sub.name: sub for sub in subfolders(folder)}
    groups = [((), folder)] if set(inner) != {"train", "test"} else [((name,), inner[name]) for name in inner]
    found: list[Found] = []
    for group, root in groups:
        files = sorted(wavs(root), key=lambda file: file.parts)
        if not files:
            raise DataError(f"{root}: no sounds; expected {SUFFIX} files")
        found += [(group, root, file) for file in files]
    return found


def wavs(folder: Path) -> Iterator[Path]:
    """Iterate over the visible WAV files in a folder and below."""
    for file in folder.rglob("*"):
        is_hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.suffix.lower() == SUFFIX and not is_hidden and file.is_file():
            yield file


def holds_sounds(folder: Path) -> bool:
    """Say whether there are WAV files in a folder or below."""
    return next(wavs(folder), None) is not None


def label_names(found: Sequence[Found]) -> list[str]:
    """List the sub-folders whose names are labels; none where a file lies in no sub-folder."""
    inside = [file.relative_to(root).parts for _, root, file in found]
    return sorted({parts[0] for parts in inside}) if all(len(parts) > 1 for parts in inside) else []


def labels_of(found: Sequence[Found], names: Sequence[str]) -> list[int | None]:
    """Return the label of each file; ``None`` where there are none."""
    if not names:
        return [None] * len(found)
    return [names.index(file.relative_to(root).parts[0]) for _, root, file in found]


def read_clips(files: Mapping[str, Path], labels: Sequence[int | None], levels: int) -> tuple[int, list[Clip]]:
    """Read files, and check that they have one sampling rate; return it, and the clips."""
    clips: list[Clip] = []
    rates: dict[int, list[str]] = {}
    for (name, file), label in zip(files.items(), labels, strict=True):
        sound = read_wav(file)
        rates.setdefault(sound.rate, []).append(name)
        clips.append(Clip(name, to_mu_law(sound.x, levels), label))
    if len(rates) > 1:
        named = "; ".join(
            f"{rate} a second in {', '.join(names[:3])}{' and others' if len(names) > 3 else ''}"
            for rate, names in sorted(rates.items())
        )
        folder = next(iter(files.values())).parent
        raise DataError(
            f"{folder}: several sampling rates: {named}; expected one. Resample the files, or leave some out"
        )
    return next(iter(rates)), clips


def by_file(
    clips: Sequence[Clip], tested: Sequence[bool], name: str, validation: float, test: float, seed: int
) -> list[list[Clip]]:
    """Deal clips out to the splits; ``tested`` are those that were brought as such."""
    given = [clip for clip, is_test in zip(clips, tested, strict=True) if is_test]
    others = [clip for clip, is_test in zip(clips, tested, strict=True) if not is_test]
    rows = rows_of_splits(len(others), name, validation, 0.0 if given else test, seed, "files")
    parts = [[others[i] for i in part.tolist()] for part in rows]
    return parts if not given else [*parts[:2], given]


def by_time(clip: Clip, name: str, validation: float, test: float) -> list[list[Clip]]:
    """Cut one recording into three, one after another."""
    total = len(clip.codes)
    counts = [num_rows("validation", validation, total), num_rows("test", test, total)]
    if total <= sum(counts):
        raise DataError(f"{name}: nothing is left to train on of {total} samples. Lower `validation` or `test`")
    cuts = np.split(clip.codes, [total - sum(counts), total - counts[1]])
    return [[clip._replace(codes=codes)] if len(codes) else [] for codes in cuts]


def columns_of(clips: Sequence[Clip], length: int, fill: int) -> Columns:
    """Return the windows of clips, and their labels."""
    pieces = [windows(clip.codes, length, fill) for clip in clips]
    columns = {"x": torch.from_numpy(np.concatenate(pieces) if pieces else np.empty((0, length), np.uint8))}
    if any(clip.label is not None for clip in clips):
        labels = [np.full(len(piece), clip.label) for piece, clip in zip(pieces, clips, strict=True)]
        columns["y"] = torch.from_numpy(np.concatenate(labels))
    return columns
