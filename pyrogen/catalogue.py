"""What is installed, by name: models, objectives, data sets and environments, ours and third parties' alike."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pyrogen.errors import UsageError

__all__ = ["GROUPS", "describe", "find", "names", "suggestion", "those"]

GROUPS = {
    "model": "pyrogen.models",
    "objective": "pyrogen.objectives",
    "data": "pyrogen.data",
    "environment": "pyrogen.environments",
}
"""Entry-point groups. A model is a factory ``(spec, **settings) -> (model, guide)``, an objective
``(model, guide, example_batch, **settings) -> Objective``, data ``(**settings) -> Dataset``, an environment, beside
those that gymnasium knows, ``(**settings) -> gymnasium.Env``."""


def _installed(kind: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUPS[kind])}


def names(kind: str) -> list[str]:
    """List what is installed of a kind: ``"model"``, ``"objective"``, ``"data"`` or ``"environment"``.

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
    except Exception as error:  # whatever a package does when it is imported
        package = found.dist.name if found.dist else "its package"
        what = f"{type(error).__name__}: {error}"
        raise UsageError(f"{kind} {name!r} of {package} cannot be imported: {what}. Reinstall {package}.") from error


def those(kind: str, holds: Callable[[Callable[..., Any]], bool]) -> list[str]:
    """List what is installed of a kind for which something holds; what cannot be imported is not in it.

    Example:
        >>> those("model", lambda factory: factory.__name__ == "vae")
        ['vae']
    """
    found = []
    for name in names(kind):
        with suppress(UsageError):
            found += [name] * holds(find(kind, name))
    return found


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
