"""What an entry of the catalogue wants of others' settings."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

__all__ = ["Preference", "acts", "makes", "usual"]

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


def acts(entry: Entry) -> Entry:
    """Note on a model's entry that it makes policies, of an :class:`~pyrogen.environment_spec.EnvironmentSpec`."""
    vars(entry)["acts"] = True
    return entry


def makes(kind: type) -> Callable[[Entry], Entry]:
    """Note on an objective's entry which class it makes, which says what that learns from.

    Annotations cannot tell: another package may know the names in them only while types are checked.

    Example:
        >>> @makes(dict)
        ... def entry(model, guide, example): ...
        >>> entry.makes
        <class 'dict'>
    """

    def noted(entry: Entry) -> Entry:
        vars(entry)["makes"] = kind
        return entry

    return noted
