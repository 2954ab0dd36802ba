"""What commands say: on stdout what they found, on stderr how they go on."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Result", "say"]


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
