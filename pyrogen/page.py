"""A page that needs no network and no other file: tables and pictures from a template."""

import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader

from pyrogen.exhibits import Exhibit
from pyrogen.runs import Run

__all__ = ["Table", "evaluation", "render"]


class Table(NamedTuple):
    """Rows under a heading; the first table of a page stands before the pictures, the others after them."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def evaluation(run: Run) -> dict[str, dict[str, Any]]:
    """Return what ``pyrogen evaluate`` found of a run, by figure; nothing if it was not asked yet."""
    path = run.path / "evaluation.json"
    return json.loads(path.read_text())["metrics"] if path.exists() else {}


def render(
    name: str,
    lead: str,
    tables: Sequence[Table],
    exhibits: Sequence[Exhibit],
    pixels: Collection[str],
    command: str = "",
) -> bytes:
    """Render a page.

    Args:
        name: the heading.
        lead: what is below it.
        pixels: names of the exhibits whose pixels stay sharp when they are enlarged.
        command: how to repeat it.
    """
    environment = Environment(loader=PackageLoader("pyrogen"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.get_template("report.html")
    values = {"name": name, "lead": lead, "tables": tables, "exhibits": exhibits, "pixels": pixels, "command": command}
    return template.render(values).encode()
