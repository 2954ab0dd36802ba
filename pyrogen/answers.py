"""What judges answered about a page of pairs: read, checked, and counted by the page's key."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrogen.errors import MissingInputError, UsageError
from pyrogen.evaluation import WinRate, win_rate
from pyrogen.files import SIZE_LIMIT, translate_errors

__all__ = ["Answers", "Key", "counted", "read_answers", "read_key"]

CHOICES = ("left", "right", "tie")


class Key(NamedTuple):
    """Whose draws the pairs of a page are.

    Attributes:
        page: the page's name, a digest of its pairs.
        a: the first run.
        b: the second run, or held-out data.
        is_data: whether it is the latter.
        seed: that the page was made with.
        left: which of ``"a"`` and ``"b"`` is left, by pair.
    """

    page: str
    a: str
    b: str
    is_data: bool
    seed: int
    left: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """Return the key as it is in a file."""
        return json.dumps(self._asdict(), indent=1).encode()


class Answers(NamedTuple):
    """What one judge answered.

    Attributes:
        judge: a name.
        choices: ``"left"``, ``"right"`` or ``"tie"``, by pair.
    """

    judge: str
    choices: tuple[str, ...]


def read_key(path: str | Path) -> Key:
    """Read the key that ``pyrogen judge RUN RUN`` wrote beside a page.

    Raises:
        MissingInputError: where there is none.
        UsageError: where it is something else.
    """
    match _read(path):
        case {"page": str(), "a": str(), "b": str(), "is_data": bool(), "seed": int(), "left": list(left)} as found:
            if len(left) > 1 and all(side in ("a", "b") for side in left) and set(found) == set(Key._fields):
                return Key(**{**found, "left": tuple(left)})
    raise UsageError(f"{path}: this is no key: give the .key.json file that was written beside the page")


def read_answers(path: str | Path, key: Key) -> Answers:
    """Read one judge's file, and make sure that it answers each pair of the key's page once.

    A judge without a name goes by that of the file.

    Raises:
        MissingInputError: where there is none.
        UsageError: where it is something else, of another page, or not complete, with the pairs that are missing,
            unknown or there twice.
    """
    match _read(path):
        case {"page": str(page), "judge": str(judge), "answers": list(answers)}:
            pass
        case _:
            raise UsageError(f"{path}: these are no answers: give the file that the page saves at its end")
    if page != key.page:
        raise UsageError(f"{path}: these are answers to another page, {page!r}, and the key is of {key.page!r}")
    choices: dict[int, str] = {}
    for answer in answers:
        match answer:
            case {"pair": int(pair), "choice": str(choice)} if choice in CHOICES and not isinstance(pair, bool):
                pass
            case _:
                raise UsageError(f"{path}: found {json.dumps(answer)[:80]}; expected a pair, and left, right or tie")
        if not 1 <= pair <= len(key.left):
            raise UsageError(f"{path}: there is no pair {pair}; the page has pairs 1 to {len(key.left)}")
        if pair in choices:
            raise UsageError(f"{path}: pair {pair} is answered twice: save the answers again from the page")
        choices[pair] = choice
    if missing := [str(pair) for pair in range(1, len(key.left) + 1) if pair not in choices]:
        listed = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise UsageError(f"{path}: {len(missing)} of {len(key.left)} pairs are not answered: {listed}")
    name = " ".join(judge.encode(errors="replace").decode().split())
    return Answers(name or Path(path).stem, tuple(choices[pair] for pair in range(1, len(key.left) + 1)))


def counted(key: Key, answers: Sequence[Answers]) -> tuple[WinRate, dict[str, WinRate]]:
    """Return how often the first run was preferred, by all judges together, and by each.

    Raises:
        UsageError: where there are no answers, or a judge is there twice.

    Example:
        >>> key = Key("page", "runs/one", "runs/two", False, 0, ("a", "b", "b"))
        >>> counted(key, [Answers("me", ("left", "left", "tie"))])[0][:3]
        (1, 1, 1)
    """
    judges = [answer.judge for answer in answers]
    if not judges:
        raise UsageError("there are no answers to count: give the files that the page saves at its end")
    if twice := sorted({judge for judge in judges if judges.count(judge) > 1}):
        raise UsageError(
            f"there are several files by {', '.join(map(repr, twice))}: a judge counts once; if these are several "
            f"people, change 'judge' in the files"
        )
    outcomes = torch.stack([_outcomes(key, answer) for answer in answers])
    return win_rate(outcomes), {judge: win_rate(row[None]) for judge, row in zip(judges, outcomes, strict=True)}


def _outcomes(key: Key, answers: Answers) -> Tensor:
    """Return 1 for each pair of which a judge preferred the first run, 0 for the second, 1/2 for neither."""
    worth = {("a", "left"): 1.0, ("a", "right"): 0.0, ("b", "left"): 0.0, ("b", "right"): 1.0}
    return torch.tensor([worth.get(pair, 0.5) for pair in zip(key.left, answers.choices, strict=True)])


def _read(path: str | Path) -> Mapping[str, Any]:
    """Read an object of JSON."""
    file = Path(path)
    if not file.exists():
        raise MissingInputError(f"there is no file {path}")
    with translate_errors(path, "read"):
        if file.stat().st_size > SIZE_LIMIT:
            raise UsageError(f"{path}: more than {SIZE_LIMIT:,} bytes are no answers and no key")
        data = file.read_bytes()
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: this is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path}: expected an object of JSON, found {type(found).__name__}")
    return found
