"""The command that has people judge draws, and counts what they said."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyrogen.answers import Key, counted, read_answers, read_key
from pyrogen.arguments import device_of, make_parser, parse
from pyrogen.errors import UsageError
from pyrogen.evaluation import WinRate
from pyrogen.files import write_named
from pyrogen.judging import Judging, key_path, write_judging
from pyrogen.result import Result

__all__ = ["judge"]

LEVEL = 0.95

OF_ONE = "Wilson, of one judge's answers: where the rate over pairs lies that this judge might see"
OF_SEVERAL = "Wilson, by the variance between judges and between pairs: where the rate over both lies"


def judge(arguments: Sequence[str]) -> Result:
    """Write a page on which people choose between two runs' draws, blindly, or count what they chose."""
    parser = make_parser("judge", str(judge.__doc__))
    parser.add_argument("runs", type=str, nargs="*", help="two run directories, or one with --data true: write a page")
    parser.add_argument("--answers", type=str, nargs="+", default=[], help="files that judges saved: count them")
    parser.add_argument("--key", type=str, default=None, help="of the page that they are of (default: judge.key.json)")
    parser.add_argument("--pairs", type=int, default=None, help="how many there are on the page (default: 50)")
    parser.add_argument("--data", type=bool, default=None, help="true: held-out data against the draws of one run")
    parser.add_argument("--split", type=str, default=None, help="whose data: train, validation or test (default: test)")
    parser.add_argument("--length", type=int, default=None, help="of sounds and texts, where it can be chosen")
    parser.add_argument("--seconds", type=float, default=None, help="likewise, of sounds")
    parser.add_argument("--question", type=str, default=None, help="what judges are asked")
    parser.add_argument("--seed", type=int, default=None, help="of the draws, and of who is left (default: 0)")
    parser.add_argument("--out", type=str, default=None, help="the page (default: judge.html), or the figures (.json)")
    parser.add_argument("--device", type=str, default=None, help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout")
    options = parse(parser, arguments)
    if options["answers"]:
        return _count(options)
    if not options["runs"]:
        raise UsageError(
            "give two runs to write a page, `pyrogen judge RUN RUN`, or answers to count, `pyrogen judge --answers "
            "FILE --key judge.key.json`"
        )
    if options["key"] is not None:
        raise UsageError("--key is for counting answers: give --answers, too, or leave it out")
    given = _given(options)
    how = Judging(**given | {"device": device_of(given.get("device", "auto"))})
    if "split" in given and not how.data:
        raise UsageError("--split is of held-out data, which two runs' draws are not set against: leave it out")
    page, key = write_judging(options["runs"], options["out"] or "judge.html", how)
    lines = [
        f"{page}: {how.pairs} pairs, for judges to open in a browser",
        f"{key}: whose draws they are, which is not for judges",
        f"then: pyrogen judge --answers FILE ... --key {key}",
    ]
    return Result({"page": str(page), "key": str(key), "pairs": how.pairs}, lines, options["json"])


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was said of a page, by the name of its field."""
    return {name: options[name] for name in Judging._fields if options[name] is not None}


def _count(options: Mapping[str, Any]) -> Result:
    if options["runs"]:
        raise UsageError("give runs to write a page, or --answers to count, and not both")
    if given := _given(options):
        named = ", ".join(f"--{name}" for name in given)
        raise UsageError(f"{named}: this is of a page, which was written before answers are counted: leave it out")
    path = Path(options["key"] or key_path("judge.html"))
    key = read_key(path)
    out = Path(options["out"] or path.with_name(f"{path.name.removesuffix('.json').removesuffix('.key')}.json"))
    if out.suffix != ".json" or out.resolve() in {Path(file).resolve() for file in (path, *options["answers"])}:
        raise UsageError(f"the figures go to a .json file of their own, found {str(out)!r}: give another --out")
    together, by_judge = counted(key, [read_answers(file, key) for file in options["answers"]])
    of = OF_ONE if len(by_judge) == 1 else OF_SEVERAL
    values = {"page": key.page, "a": key.a, "b": key.b, "num_pairs": len(key.left), "num_judges": len(by_judge)}
    values |= _to_json(together) | {"interval_of": of, "level": LEVEL}
    values |= {"judges": {name: _to_json(found) for name, found in by_judge.items()}}
    write_named(out, json.dumps(values, indent=2).encode())
    return Result(values | {"out": str(out)}, _lines(key, together, by_judge, of), options["json"])


def _to_json(found: WinRate) -> dict[str, Any]:
    values: dict[str, Any] = {"wins": found.wins, "losses": found.losses, "ties": found.ties}
    values |= {"metrics": {"win_rate": found.rate.to_json()}, "interval": list(found.interval)}
    return values | {"p_value": found.p_value}


def _lines(key: Key, together: WinRate, by_judge: Mapping[str, WinRate], of: str) -> list[str]:
    a, b = (f"draws of {key.a}", key.b) if key.is_data else (key.a, key.b)
    what = "a was taken for real" if key.is_data else "a was preferred"
    lines = [f"a: {a}", f"b: {b}", f"{len(key.left)} pairs; win rate: how often {what}, ties half", ""]
    head = f"{'a':>5} {'b':>5} {'ties':>5} {'win rate':>9} {'± s.e.':>7} {f'{LEVEL:.0%} interval':>16} {'p':>8}"
    lines.append(f"{'judge':<20} {head}")
    for name, found in [*by_judge.items(), *([("all", together)] if len(by_judge) > 1 else [])]:
        low, high = found.interval
        lines.append(
            f"{name:<20} {found.wins:>5} {found.losses:>5} {found.ties:>5} {found.rate.value:>9.3f} "
            f"{found.rate.stderr:>7.3f} {f'{low:.3f} to {high:.3f}':>16} {found.p_value:>8.2g}"
        )
    return [*lines, "", f"interval: {of}", "p: of such a difference, either way, where both have one distribution"]
