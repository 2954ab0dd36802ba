"""Files that hold either what they held before or all of what was to be written, whatever happens.

Everything is written to a hidden sibling, synchronised and renamed.
"""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from pyrogen.errors import CorruptCheckpointError, InputOutputError, PyrogenError

__all__ = [
    "SIZE_LIMIT",
    "corrupt",
    "read_file",
    "remove",
    "staged",
    "sweep",
    "synchronise",
    "translate_errors",
    "write_file",
    "write_link",
    "write_synchronised",
]

SIZE_LIMIT = 2**24
"""The most bytes that are read from a file of which nothing says how long it is."""


def read_file(path: str | Path, size: int | None = None) -> bytes:
    """Read a regular file; its length, where known, is checked before anything is read.

    Raises:
        CorruptCheckpointError: if it is missing, a link, no regular file, or not ``size`` bytes long.
        InputOutputError: if the disk refuses.
    """
    with translate_errors(path, "read"):
        try:
            # Neither follow a link nor wait for the other end of a pipe.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise corrupt(path, "it is a link; expected the file itself") from error
            if error.errno == errno.ENOENT:
                raise corrupt(path, "it is missing") from error
            raise
        try:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise corrupt(path, "it is not a regular file")
            if info.st_size != size if size is not None else info.st_size > SIZE_LIMIT:
                limit = size if size is not None else f"at most {SIZE_LIMIT}"
                raise corrupt(path, f"it has {info.st_size} bytes; expected {limit}")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(info.st_size)
        finally:
            os.close(descriptor)


def write_file(path: str | Path, data: bytes) -> None:
    """Write or replace a file as a whole; on InputOutputError what was there before is unharmed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "notes"
        >>> write_file(path, b"all or nothing")
        >>> path.read_bytes()
        b'all or nothing'
    """
    with staged(Path(path)) as stage:
        write_synchronised(stage, data)


def write_named(path: str | Path, data: bytes) -> None:
    """Write a file where someone asked for it, as :func:`write_file`, and make its folder where there is none."""
    with translate_errors(path, "write"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_file(path, data)


def write_link(path: str | Path, target: str) -> None:
    """Make or replace a symbolic link in one step; on InputOutputError the old link is unharmed."""
    with staged(Path(path)) as stage:
        stage.symlink_to(target)


def remove(path: str | Path) -> None:
    """Remove a file, link or folder in one step as seen from outside: a killed process leaves all of it or nothing."""
    with translate_errors(path, "remove"):
        stage = _sibling(Path(path), "tmp")
        os.rename(path, stage)
        _discard(stage)


def sweep(folder: str | Path) -> None:
    """Clean up after killed writers; for whoever knows to be the only writer in this folder."""
    with translate_errors(folder, "clean up"):
        for entry in list(Path(folder).iterdir()):
            if not (match := re.fullmatch(r"\.(.+)\.[0-9a-f]{16}\.(tmp|old)", entry.name)):
                continue
            original = entry.with_name(match[1])
            if match[2] == "old" and not os.path.lexists(original):
                os.rename(entry, original)  # the writer was killed between moving the old away and the new in
            else:
                _discard(entry)


@contextmanager
def translate_errors(path: str | Path, action: str) -> Iterator[None]:
    """Raise what the disk has to say as InputOutputError, with the path and the way out."""
    try:
        yield
    except PyrogenError:
        raise
    except OSError as error:
        raise InputOutputError(
            f"cannot {action} {path}: {error.strerror or error}. What was written before is unharmed; "
            "free some space or see to the permissions, then try again."
        ) from error


@contextmanager
def staged(path: Path, *, is_folder: bool = False) -> Iterator[Path]:
    """Lend a hidden name beside ``path``; what was made there moves to ``path``, or vanishes after an error.

    Raises:
        InputOutputError: where the disk refuses, or a file would take the place of a folder and all that is in it.
    """
    stage, old = _sibling(path, "tmp"), _sibling(path, "old")
    with translate_errors(path, "write"):
        try:
            replaced = path.is_dir() and not path.is_symlink()
            if replaced and not is_folder:
                raise InputOutputError(f"cannot write the file {path}: it is a folder. Name a file, in that folder say")
            yield stage
            if replaced:
                os.rename(path, old)  # no system call for everyone replaces a folder that is not empty
            os.replace(stage, path)
            synchronise(path.parent)
        except BaseException:
            if os.path.lexists(old) and not os.path.lexists(path):
                os.rename(old, path)
            _discard(stage)
            raise
        _discard(old)


def _sibling(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{token_hex(8)}.{suffix}")


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_synchronised(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def synchronise(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def corrupt(where: str | Path, problem: str) -> CorruptCheckpointError:
    return CorruptCheckpointError(f"{where}: {problem}. Restore it from a copy, or resume from an earlier checkpoint.")
