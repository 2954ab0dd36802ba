"""A page that needs no network and no other file: tables and pictures from a template."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, Template

from pyrogen.exhibits import Exhibit
from pyrogen.runs import Run

__all__ = ["Content", "Evaluation", "Table", "cells", "evaluation", "render", "template"]


class Table(NamedTuple):
    """Rows under a heading; the first table of a page stands before the pictures, the others after them.

    A row of one cell is a heading of those below it.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


class Content(NamedTuple):
    """What there is to say of a run.

    Attributes:
        lead: what it is.
        command: how to repeat it.
        figures: the table that stands before the pictures.
        exhibits: the pictures.
        further: the tables after them.
    """

    lead: str
    command: str
    figures: Table
    exhibits: list[Exhibit]
    further: list[Table]


class Evaluation(NamedTuple):
    """What ``pyrogen evaluate`` found of the checkpoint that a run is judged by.

    Attributes:
        split: of the data.
        figures: by name.
        axes: of the report card, by name.
        pointwise: the log-likelihood datum by datum, see :class:`~pyrogen.pointwise.Pointwise`; ``None`` where there is
            none, and empty where it was not kept.
        returns: of a policy's episodes; empty of a model of data.
    """

    split: str
    figures: dict[str, dict[str, Any]]
    axes: dict[str, dict[str, Any]]
    pointwise: dict[str, Any] | None
    returns: Sequence[float] = ()


def evaluation(run: Run) -> Evaluation:
    """Read a run's figures; there are none where it was not asked yet, or has another checkpoint since."""
    path = run.path / "evaluation.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("step") != run.chosen():
        return Evaluation("", {}, {}, {})
    further = found.get("axes", {}), found.get("pointwise", {}), found.get("returns", ())
    return Evaluation(found["split"], found["metrics"], *further)


def cells(figure: Mapping[str, Any]) -> tuple[str, str]:
    """Write a figure and its standard error for a table."""
    value, stderr = (figure[key] for key in ("value", "stderr"))
    return ("not finite" if value is None else f"{value:.4f}"), ("" if stderr is None else f"{stderr:.4f}")


def render(
    name: str,
    lead: str,
    tables: Sequence[Table],
    exhibits: Sequence[Exhibit],
    command: str = "",
) -> bytes:
    """Render a page.

    Args:
        name: the heading.
        lead: what is below it.
        command: how to repeat it.
    """
    # The pixels of images stay sharp when these are enlarged; charts have a picture for dark pages as well.
    pixels = [exhibit.name for exhibit in exhibits if exhibit.drawing.dark is None]
    values = {"name": name, "lead": lead, "tables": tables, "exhibits": exhibits, "pixels": pixels, "command": command}
    return template("report.html").render(values).encode()


def template(name: str) -> Template:
    """Return one of the package's templates; what it is given is text, and no HTML."""
    environment = Environment(loader=PackageLoader("pyrogen"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(name)
