"""A run directory: settings, checkpoints and metrics of one training run, safe against crashes and second writers.

::

    runs/NAME/
      manifest.json          format version and the caller's settings
      checkpoint-00001000/   see pyrogen.storage; its meta data hold the step and the SHA-256 of the metrics so far
      best -> checkpoint-…   a relative link
      metrics.jsonl          one JSON object a line: step, name → value
      .lock                  held while a process writes; the system releases it however the process ends
"""

import json
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple, Self

from pyrogen import files, storage
from pyrogen.errors import (
    CorruptCheckpointError,
    MissingInputError,
    PyrogenError,
    RunExistsError,
    UsageError,
)
from pyrogen.lock import locked

__all__ = ["Checkpoint", "Run"]

# What a run directory is known to hold; overwriting a run removes these and nothing else.
_CONTENTS = (
    "best",
    "checkpoint-*",
    "metrics.jsonl",
    "evaluation.json",
    "samples.npz",
    "samples.txt",
    "posterior.nc",
    "report.html",
    "*.png",
    "tensorboard",
)
_LISTED = 8


class Checkpoint(NamedTuple):
    """The state after ``step`` steps: ``tree`` as it was saved, tensors on the CPU, and what ``meta`` says of it."""

    step: int
    tree: Any
    meta: dict[str, Any]


class Run:
    """A run directory; made by :meth:`create` or :meth:`open`. Reading is free, writing happens in :meth:`writing`.

    Attributes:
        path: the directory.
        manifest: the settings, as given to :meth:`create`.

    Example:
        >>> import tempfile
        >>> run = Run.create(Path(tempfile.mkdtemp()) / "demo", {"model": "vae", "seed": 0})
        >>> with run.writing():
        ...     run.log(1, loss=0.5)
        ...     run.save(1, {"w": 2.0}, best=True)
        >>> Run.open(run.path).restore().tree
        {'w': 2.0}
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self._writing = False

    def __repr__(self) -> str:
        steps = self.checkpoints()
        return f"Run({str(self.path)!r}, {f'step {steps[-1]:,}' if steps else 'no checkpoint yet'})"

    @classmethod
    def create(cls, path: str | Path, manifest: dict[str, Any], overwrite: bool = False) -> Self:
        """Make a run directory, and its parents.

        Args:
            path: a folder that is empty or not there yet.
            manifest: plain JSON: what is needed to build everything again.
            overwrite: replace a run that has checkpoints; one without is always replaced. A folder that is not a
                run is never overwritten.

        Raises:
            RunExistsError: if the folder holds anything (with ``overwrite``: anything but a run).
            RunLockedError: if another process is writing to the run that is there.
            InputOutputError: if the disk refuses.
        """
        folder, data = Path(path), storage.seal("run", manifest)
        _refuse_to_destroy(folder, overwrite)
        with files.translate_errors(folder, "create"):
            folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            _refuse_to_destroy(folder, overwrite)  # again: another process may have been faster
            for pattern in _CONTENTS:
                for entry in folder.glob(pattern):
                    files.remove(entry)
            files.write_file(folder / "manifest.json", data)
        return cls.open(folder)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open an existing run directory.

        Raises:
            MissingInputError: if there is no run; the message has the nearest names beside or inside ``path``.
            FormatVersionError: if a newer pyrogen wrote it.
            CorruptCheckpointError: if its manifest is damaged.
        """
        folder = Path(path)
        if not os.path.lexists(folder / "manifest.json"):
            raise MissingInputError(f"there is no run at {folder}{_nearest_runs(folder)}")
        manifest = folder / "manifest.json"
        return cls(folder, storage.unseal("run", files.read_file(manifest), manifest))

    @contextmanager
    def writing(self) -> Iterator[Self]:
        """Be the one writer of this run; first cleans up after a writer that was killed.

        Raises:
            RunLockedError: if there is a writer already, in this process or another; names its pid and host.
        """
        with locked(self.path):
            files.sweep(self.path)
            data = self._metrics_so_far()
            self._truncate_metrics(data.rfind(b"\n") + 1)  # a torn last line would spoil the next one
            self._writing = True
            try:
                yield self
            finally:
                self._writing = False

    def log(self, step: int, **values: float | None) -> None:
        """Append one line to the metrics; ``None``, infinities and NaN, which JSON lacks, are written as ``null``.

        Raises:
            TypeError: if a value is not a number (tensors included: when to wait for a device is the caller's choice).
            InputOutputError: if the disk refuses; the metrics are then as they were.
        """
        self._check_writing("log")
        record = {"step": int(step)} | {name: _number(name, value) for name, value in values.items()}
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        with files.translate_errors(self._metrics_path, "append to"), self._metrics_path.open("ab", 0) as file:
            size = file.tell()
            try:
                if file.write(line) < len(line):
                    file.write(line[file.tell() - size :])  # a second attempt makes the system say what is wrong
            except OSError:
                file.truncate(size)
                raise

    def metrics(self) -> list[dict[str, Any]]:
        """Return the metrics, one dict a line, without a last line that a killed writer left unfinished.

        Raises:
            CorruptCheckpointError: if another line is damaged; names the line.
        """
        records = []
        for number, line in enumerate(self._metrics_so_far().split(b"\n")[:-1], start=1):
            try:
                record = json.loads(line, parse_constant=_refuse_constant)
                intact = isinstance(record, dict) and type(record.get("step")) is int
            except (ValueError, RecursionError):
                intact = False
            if not intact:
                raise CorruptCheckpointError(
                    f"{self._metrics_path}: line {number} is damaged: found {line[:60]!r}; expected a JSON object with "
                    "a step. Restore the file from a copy, or remove the line."
                )
            records.append(record)
        return records

    def save(self, step: int, tree: Any, *, best: bool = False, keep: int = 2) -> None:
        """Write a checkpoint, then remove older ones, but neither the best nor the newest ``keep``.

        Args:
            step: the number of steps done.
            tree: what :func:`pyrogen.storage.pack` accepts: all that is needed to continue bit for bit.
            best: whether this is the best so far.
            keep: at least 1; with 2, a damaged newest checkpoint does not lose the run.

        Raises:
            InputOutputError: if the disk refuses; older checkpoints are then unharmed.
        """
        self._check_writing("save")
        if keep < 1 or step < 0:
            raise UsageError(f"cannot save step {step} and keep {keep} checkpoints; expected step >= 0 and keep >= 1")
        data = self._metrics_so_far()
        if data:
            with files.translate_errors(self._metrics_path, "synchronise"), self._metrics_path.open("rb+") as file:
                os.fsync(file.fileno())
        meta = {"step": step, "metrics": {"bytes": len(data), "sha256": storage.sha256(data)}}
        storage.write_folder(self._checkpoint_path(step), tree, None, meta)
        if best:
            files.write_link(self.path / "best", self._checkpoint_path(step).name)
        steps = self.checkpoints()
        for old in set(steps) - set(steps[-keep:]) - {step, self._best_step()}:
            files.remove(self._checkpoint_path(old))

    def checkpoints(self) -> list[int]:
        """Return the steps of the checkpoints that are there, oldest first; none is incomplete, some may be damaged."""
        steps = (_step_of(entry.name) for entry in self.path.glob("checkpoint-*"))
        return sorted(step for step in steps if step is not None)

    def chosen(self) -> int | None:
        """Return the step of the checkpoint that a fit is judged by: the best, or else the newest."""
        best = self._best_step()
        return best if best is not None else next(reversed(self.checkpoints()), None)

    def restore(self, step: int | None = None, best: bool = False) -> Checkpoint:
        """Read and verify a checkpoint: the newest good one, that of a step, or the best.

        Warns:
            UserWarning: for each newer checkpoint that is damaged and left aside; says which and why.

        Raises:
            MissingInputError: if there is no such checkpoint.
            CorruptCheckpointError: if it, or each of them, is damaged, or ``best`` leads elsewhere.
            FormatVersionError: if a newer pyrogen wrote it.
        """
        if best and step is not None:
            raise UsageError(f"asked for both step {step} and the best checkpoint; choose one")
        steps = self.checkpoints()
        if best and (step := self._best_step()) is None:
            raise MissingInputError(f"{self.path}: no checkpoint is marked as the best; restore the newest instead")
        if step is not None:
            if step not in steps:
                raise MissingInputError(f"{self.path}: there is no checkpoint of step {step}; there are {steps}")
            return self._read(step)
        if not steps:
            raise MissingInputError(f"{self.path}: there is no checkpoint yet; train it anew, with overwrite")
        for candidate in reversed(steps):
            try:
                return self._read(candidate)
            except CorruptCheckpointError as error:
                warnings.warn(f"left aside a damaged checkpoint, looking for an older one: {error}", stacklevel=2)
        raise CorruptCheckpointError(f"{self.path}: all checkpoints, {steps}, are damaged. Restore one from a copy.")

    def rewind(self, checkpoint: Checkpoint | None) -> None:
        """Return to the moment of a checkpoint: later metrics, later checkpoints and a later best are removed.

        Without one, that is the beginning.

        Raises:
            CorruptCheckpointError: if the metrics up to the checkpoint are not the ones that were logged.
        """
        self._check_writing("rewind")
        if checkpoint is None:
            self._truncate_metrics(0)
            return
        expected, data = checkpoint.meta["metrics"], self._metrics_so_far()
        size = expected["bytes"]
        if len(data) < size or storage.sha256(data[:size]) != expected["sha256"]:
            raise CorruptCheckpointError(
                f"{self._metrics_path}: it has {len(data)} bytes, and its first {size} are not the ones logged up to "
                f"step {checkpoint.step}. Restore it from a copy, or train anew, with overwrite."
            )
        # Checkpoints go first: killed before the metrics are cut, the run can be rewound once more.
        best = self._best_step()
        if best is not None and best > checkpoint.step:
            files.remove(self.path / "best")
        for step in self.checkpoints():
            if step > checkpoint.step:
                files.remove(self._checkpoint_path(step))
        self._truncate_metrics(size)

    @property
    def _metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    def _metrics_so_far(self) -> bytes:
        with files.translate_errors(self._metrics_path, "read"):
            return self._metrics_path.read_bytes() if self._metrics_path.exists() else b""

    def _truncate_metrics(self, size: int) -> None:
        with files.translate_errors(self._metrics_path, "truncate"):
            if self._metrics_path.exists() and self._metrics_path.stat().st_size != size:
                os.truncate(self._metrics_path, size)

    def _checkpoint_path(self, step: int) -> Path:
        return self.path / f"checkpoint-{step:08d}"

    def _read(self, step: int) -> Checkpoint:
        path = self._checkpoint_path(step)
        if path.is_symlink():
            raise CorruptCheckpointError(f"{path}: it is a link; expected the checkpoint itself. Remove the link.")
        tree, meta = storage.read_folder(path)
        match meta:
            case {"step": int(found), "metrics": {"bytes": int(), "sha256": str()}} if found == step:
                return Checkpoint(step, tree, meta)
        raise CorruptCheckpointError(
            f"{path}: found the meta data {meta}; expected step {step} and the length and SHA-256 of the metrics. "
            "Rename or restore it, or resume from an earlier checkpoint."
        )

    def _best_step(self) -> int | None:
        link = self.path / "best"
        if not os.path.lexists(link):
            return None
        target = os.readlink(link) if link.is_symlink() else "no link"
        step = _step_of(target)
        if step is None or not link.is_dir() or (self.path / target).is_symlink():
            raise CorruptCheckpointError(
                f"{link}: it leads to {target!r}; expected a checkpoint inside the run. Remove it, or link it anew."
            )
        return step

    def _check_writing(self, method: str) -> None:
        if not self._writing:
            raise RuntimeError(f"Run.{method} works inside `with run.writing():` only, so that nobody else writes")


def _step_of(name: str) -> int | None:
    match = re.fullmatch(r"checkpoint-([0-9]{8}|[1-9][0-9]{8,17})", name)
    return int(match[1]) if match else None


def _refuse_to_destroy(folder: Path, overwrite: bool) -> None:
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise RunExistsError(f"{folder} is a file; use another --out")
    # A creator that was killed leaves no more than its lock and a temporary manifest.
    names = sorted(e.name for e in folder.iterdir() if not re.fullmatch(r"\.lock|\.manifest\.json\..+\.tmp", e.name))
    if not names:
        return
    try:
        run = Run.open(folder)
    except PyrogenError as error:
        raise RunExistsError(
            f"{folder} is not empty and not an intact run (it holds {', '.join(names[:_LISTED])}); use another --out"
        ) from error
    # A run that never came to a checkpoint (a first loss that is not finite, say) holds nothing to lose.
    if run.checkpoints() and not overwrite:
        raise RunExistsError(
            f"{folder} holds a run already; use another --out, overwrite it (--overwrite, overwrite=True), or go "
            f"on with `pyrogen resume {folder}`"
        )


def _nearest_runs(folder: Path) -> str:
    inside = sorted(str(manifest.parent) for manifest in folder.glob("*/manifest.json"))
    beside = {manifest.parent.name: str(manifest.parent) for manifest in folder.parent.glob("*/manifest.json")}
    nearest = inside or [beside[name] for name in get_close_matches(folder.name, beside, cutoff=0.4)]
    return f"; did you mean {' or '.join(nearest[:3])}?" if nearest else "; start one with `pyrogen train`"


def _number(name: str, value: float | None) -> float | int | None:
    if value is None:
        return None
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if isfinite(value) else None
    raise TypeError(f"cannot log {name}: found a {type(value).__name__}; expected a number (use .item() on a tensor)")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
