"""What is installed, by name: models, objectives and data sets, ours and third parties' alike."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pyrogen.errors import UsageError

__all__ = ["GROUPS", "describe", "find", "names", "suggestion"]

GROUPS = {"model": "pyrogen.models", "objective": "pyrogen.objectives", "data": "pyrogen.data"}
"""Entry-point groups. A model is a factory ``(spec, **settings) -> (model, guide)``, an objective
``(model, guide, example_batch, **settings) -> Objective``, data ``(**settings) -> Dataset``."""


def _installed(kind: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUPS[kind])}


def names(kind: str) -> list[str]:
    """List what is installed of a kind: ``"model"``, ``"objective"`` or ``"data"``.

    Example:
        >>> "vae" in names("model")
        True
    """
    return sorted(_installed(kind))


def find(kind: str, name: str) -> Callable[..., Any]:
    """Return the factory that is installed under a name.

    Raises:
        UsageError: where there is none, with the nearest names; or where its package does not import.
    """
    found = _installed(kind).get(name)
    if found is None:
        raise UsageError(f"unknown {kind} {name!r}{suggestion(name, names(kind))}; `pyrogen list` shows all")
    try:
        return found.load()
    except (ImportError, AttributeError) as error:
        package = found.dist.name if found.dist else "its package"
        raise UsageError(f"{kind} {name!r} of {package} cannot be imported: {error}. Reinstall {package}.") from error


def describe(kind: str, name: str) -> str:
    """Return the first line of a factory's docstring."""
    try:
        text = find(kind, name).__doc__ or ""
    except UsageError as error:
        return str(error)
    return text.strip().partition("\n")[0]


def suggestion(name: str, known: Iterable[str]) -> str:
    """Name what is nearest to a slip of the pen.

    Example:
        >>> suggestion("digit", ["digits", "iris"])
        '; did you mean digits?'
    """
    matches = get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""
