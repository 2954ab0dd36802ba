"""Contestants in processes of their own, among them NumPyro, in an environment of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import Any

__all__ = ["ONE_THREAD", "Worker", "WorkerEndedError", "numpyro_python"]

NUMPYRO = Path(__file__).parent.parent / ".venv-numpyro"
ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "NPROC": "1",
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class WorkerEndedError(RuntimeError):
    """A process ended before it answered; its own message is on stderr."""


class Worker:
    """A process that answers one line of JSON to each line of its input, and ends with its input."""

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
            start_new_session=True,
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.kill()
        if self.process.poll() is None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()

    def kill(self) -> None:
        """End the process and those that it started, such as compilers, which would hold its output open."""
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()

    def ask(self, question: str, limit: float | None = None) -> dict[str, Any]:
        """Return the answer to a question; with a limit, the process is ended after that many seconds.

        Raises:
            TimeoutError: where the limit was reached.
            WorkerEndedError: where the process ended by itself.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        timer, start = Timer(limit or 0.0, self.kill), time.monotonic()
        if limit is not None:
            timer.start()
        try:
            print(question, file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            timer.cancel()
        if not answer and limit is not None and time.monotonic() - start >= limit:
            raise TimeoutError(f"no answer to {question!r} after {limit:g} s")
        if not answer:
            raise WorkerEndedError(f"ended at {question!r}; its message is above")
        return json.loads(answer)


def numpyro_python() -> Path | None:
    """Return the interpreter of NumPyro's environment, made if need be; ``None`` where it cannot be."""
    python = NUMPYRO / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    commands = [
        [sys.executable, "-m", "venv", str(NUMPYRO)],
        [str(python), "-m", "pip", "install", "--quiet", "numpyro", "jax"],
    ]
    installed = python.exists() and not subprocess.run([python, "-c", "import numpyro"], capture_output=True).returncode
    for command in [] if installed else commands:
        if subprocess.run(command).returncode:
            return None
    return python
