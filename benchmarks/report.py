"""What every benchmark's table carries: the machine, the versions, the date and the command that makes it again."""

import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product
from math import isnan
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

__all__ = [
    "RESULTS",
    "append_row",
    "device_name",
    "devices",
    "header",
    "machine",
    "mean_cell",
    "missing",
    "read_rows",
    "table",
    "versions",
    "write",
]

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """Name the processor, its cores and its system.

    Example:
        >>> "core" in machine()
        True
    """
    cores = os.cpu_count() or 1
    return f"{_processor()}, {cores} core{'s' if cores > 1 else ''}, {platform.system()} {platform.machine()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown processor")


def device_name(device: str) -> str:
    """Name the accelerator, or the machine."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else machine()


def devices(rows: Iterable[Mapping[str, Any]]) -> str:
    """Name all devices that rows were measured on."""
    return "; ".join(sorted({row["device"] for row in rows}))


def versions(*distributions: str) -> dict[str, str]:
    """Look up the versions of Python and of some installed distributions.

    Example:
        >>> list(versions("torch"))
        ['Python', 'torch']
    """
    return {"Python": platform.python_version()} | {name: version(name) for name in distributions}


def header(title: str, command: str, threads: int, versions: Mapping[str, str]) -> str:
    """Open a result: where, when and with what it was measured, and how to measure it again."""
    return "\n".join(
        [
            f"# {title}",
            "",
            f"- machine: {machine()}; {threads} thread{'s' if threads > 1 else ''} used",
            f"- versions: {', '.join(f'{name} {number}' for name, number in versions.items())}",
            f"- date: {datetime.now(UTC):%Y-%m-%d}",
            f"- reproduce: `{command}`",
        ]
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay rows of cells out as a markdown table.

    Example:
        >>> print(table(["n", "ms"], [["1", "0.5"]]))
        | n | ms |
        |---|---|
        | 1 | 0.5 |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines).replace("| --- ", "|---").replace("--- |", "---|")


def mean_cell(values: Sequence[float], digits: int) -> str:
    """Write the mean and, of several values, its standard error; ``undefined`` where one of them is NaN.

    Example:
        >>> mean_cell([1.0, 3.0], 1), mean_cell([1.0], 1), mean_cell([1.0, float("nan")], 1)
        ('2.0 ± 1.0', '1.0', 'undefined')
    """
    if any(map(isnan, values)):
        return "undefined"
    error = f" ± {stdev(values) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{error}"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read what earlier runs have appended to a file, one object a line; nothing where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def missing(path: Path, **axes: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Go through all combinations of some settings that no row of a file has, the last setting fastest.

    The file is read anew for each, so that several runs may fill it.

    Example:
        >>> list(missing(Path("none.jsonl"), seed=[0], name=["a", "b"]))
        [{'seed': 0, 'name': 'a'}, {'seed': 0, 'name': 'b'}]
    """
    for values in product(*axes.values()):
        wanted = dict(zip(axes, values, strict=True))
        if not any(all(row[key] == value for key, value in wanted.items()) for row in read_rows(path)):
            yield wanted


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row as soon as it is measured, so that nothing is lost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def write(name: str, *parts: str) -> Path:
    """Write a result's parts, a blank line between them, to ``benchmarks/results/NAME.md``."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path
