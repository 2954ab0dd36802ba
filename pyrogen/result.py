"""What commands say: on stdout what they found, on stderr how they go on."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pyrogen.axis import Axis
from pyrogen.evaluation import Estimate

__all__ = ["Result", "figure_lines", "say"]


class Result:
    """What a command has to say: plain JSON, lines for a person, and an exit code."""

    def __init__(self, values: Mapping[str, Any], lines: Sequence[str], as_json: bool, exit_code: int = 0) -> None:
        self.values, self.lines, self.as_json, self.exit_code = values, lines, as_json, exit_code

    def print(self) -> None:
        """Print one JSON object, or the lines, on stdout."""
        print(json.dumps(self.values) if self.as_json else "\n".join(self.lines))


def say(message: str) -> None:
    """Tell the person on stderr."""
    print(message, file=sys.stderr)


def figure_lines(figures: Mapping[str, Estimate], axes: Sequence[Axis] = ()) -> list[str]:
    """Return figures as a table of text, those of a report card by its axes."""
    width = max(22, *map(len, figures))
    lines = [f"{'figure':<{width}} {'value':>12} {'± s.e.':>10} {'reference' if axes else '':>12}".rstrip() + "  unit"]
    for axis in axes:
        lines += [
            "",
            axis.name,
            *(_line(name, width, f, axis.references.get(name)) for name, f in axis.figures.items()),
        ]
        lines += [f"  {note}" for note in axis.notes]
    return lines if axes else lines + [_line(name, width, figure) for name, figure in figures.items()]


def _line(name: str, width: int, estimate: Estimate, reference: Estimate | None = None) -> str:
    stderr = "" if estimate.stderr is None else f"{estimate.stderr:.4f}"
    beside = "" if reference is None else f"{reference.value:.4f}"
    particles = f" ({estimate.num_particles} particles)" if estimate.num_particles else ""
    between = " (95% interval {:.4f} to {:.4f})".format(*estimate.interval) if estimate.interval else ""
    return f"{name:<{width}} {estimate.value:>12.4f} {stderr:>10} {beside:>12}  {estimate.unit}{particles}{between}"
