"""pyrogen's own commands, as a user gives them."""

import json
import subprocess
import sys
from typing import Any

__all__ = ["command"]


def command(*words: str) -> dict[str, Any]:
    """Run a command and return the object that it prints."""
    done = subprocess.run([sys.executable, "-m", "pyrogen", *words, "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)
