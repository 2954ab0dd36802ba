"""Stop between two steps when asked to."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Stop", "stop_requests"]


class Stop:
    """Whether a signal has come, and which."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM, as shells have it."""
        return 128 + (self.signal or 0)


@contextmanager
def stop_requests() -> Iterator[Stop]:
    """Note the first SIGINT or SIGTERM instead of dying; a second one has its usual effect.

    Outside the main thread, where Python takes no signals, nothing is noted.

    Example:
        >>> with stop_requests() as stop:
        ...     signal.raise_signal(signal.SIGTERM)
        >>> stop.exit_code
        143
    """
    stop = Stop()
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        for each, handler in before.items():
            signal.signal(each, handler)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:
        yield stop
        return
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
