"""What an entry of the catalogue wants of others' settings."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

__all__ = ["Preference", "usual"]

Entry = TypeVar("Entry", bound=Callable[..., Any])


class Preference(NamedTuple):
    """What an objective's entry wants of settings of a model, of data and of training, or a model's of the latter two.

    Attributes:
        settings: values by setting.
        because: what the objective or the model does that asks for them.
    """

    settings: Mapping[str, Any]
    because: str

    def of(self, entry: Entry) -> Entry:
        """Note the preference on an entry, where ``pyrogen train`` finds it."""
        vars(entry)["prefers"] = self
        return entry


def usual(**names: str) -> Callable[[Entry], Entry]:
    """Note on a model's entry which objective and data it goes with where none are named.

    Example:
        >>> @usual(objective="maximum-likelihood", data="kjv")
        ... def entry(spec): ...
        >>> entry.data
        'kjv'
    """

    def noted(entry: Entry) -> Entry:
        vars(entry).update(names)
        return entry

    return noted
