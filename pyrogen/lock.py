"""One writer at a time, held by the system: however a process ends, its lock ends with it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyrogen.errors import RunLockedError
from pyrogen.files import translate_errors

__all__ = ["locked"]

_HELD: set[int] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only process that writes to a folder.

    Raises:
        RunLockedError: if there is a writer already, in this process or another; names its pid and host.
    """
    lock = folder / ".lock"
    with translate_errors(lock, "lock"):
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    _HELD.add(descriptor)
    try:
        with translate_errors(lock, "lock"):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
                raise RunLockedError(
                    f"{folder}: {holder} is writing to this run; wait for it, stop it, or use another --out"
                ) from None
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on host {os.uname().nodename}\n".encode())
        yield
    finally:
        if descriptor in _HELD:
            _HELD.remove(descriptor)
            os.close(descriptor)


def _leave_locks_to_parent() -> None:
    # A forked data loader that outlives its killed parent for some seconds would otherwise keep the run locked.
    while _HELD:
        os.close(_HELD.pop())


os.register_at_fork(after_in_child=_leave_locks_to_parent)
