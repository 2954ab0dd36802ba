"""The command line: finds the command, and turns what goes wrong into a message and an exit code."""

import json
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from tqdm.auto import tqdm

from pyrogen.catalogue import suggestion
from pyrogen.commands import COMMANDS
from pyrogen.errors import InputOutputError, PyrogenError, UsageError
from pyrogen.files import translate_errors

__all__ = ["main"]

BUG = 70
INTERRUPTED = 130

USAGE = "usage: pyrogen COMMAND ...\n\n{commands}\n\n`pyrogen COMMAND --help` says more of a command."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 fine, 2 usage, 65 bad data, 66 missing input, 70 a bug of pyrogen, 74 input or output, 130 interrupted,
    143 terminated. A user's mistake gives a message, never a traceback.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        lines = [f"  {name:<10} {command.__doc__}" for name, command in COMMANDS.items()]
        print(USAGE.format(commands="\n".join(lines)))
        return 0 if words else UsageError.exit_code
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _warn
            result = _command(words[0])(words[1:])
            with translate_errors("stdout", "write"):
                result.print()
        return result.exit_code
    except PyrogenError as error:
        return _failed(error, error.exit_code, words)
    except KeyboardInterrupt:
        print("pyrogen: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        return _failed(error, InputOutputError.exit_code, words)
    except Exception as error:  # whatever else comes here is ours to mend, and its traceback helps
        traceback.print_exc()
        return _failed(error, BUG, words)


def _command(name: str) -> Any:
    if name not in COMMANDS:
        raise UsageError(f"unknown command {name!r}{suggestion(name, COMMANDS)}; there are {', '.join(COMMANDS)}")
    return COMMANDS[name]


def _failed(error: Exception, exit_code: int, words: Sequence[str]) -> int:
    print("\n".join([f"pyrogen: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
    if "--json" in words:
        print(json.dumps({"error": {"kind": type(error).__name__, "message": str(error)}}))
    return exit_code


def _warn(message: Warning | str, *where: Any, **more: Any) -> None:
    tqdm.write(f"pyrogen: warning: {message}", file=sys.stderr)  # on a line of its own, beside a progress bar
