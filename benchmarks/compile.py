"""Milliseconds a compiled training step, and seconds until the first one: pyrogen, Pyro, torch.compile and NumPyro.

Every contestant takes the same step of the same program on the same batch: the loss with one particle (no closed-form
divergence), its gradient, and Adam. Each runs in a process of its own. Before anything is timed, ``refusals`` turns a
contestant away that computes something else. Contestants take turns within a round, so that whatever else the machine
does meets all of them; ratios are taken within a round. Time is the wall's.

Each program and number of threads appends a line to ``results/compile.jsonl``; what is there is not run again.

Run: ``python benchmarks/compile.py [--rows NAME ...] [--threads 1 2] [--rounds 11] [--fresh]``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from compile_check import Losses, refusals
from compile_programs import ROWS
from compile_table import COMPILED, EAGER, HAND, JAX, LIMIT, PYRO, written
from report import RESULTS
from rounds import take_turns
from workers import ONE_THREAD, Worker, WorkerEndedError, numpyro_python

RECORDS = RESULTS / "compile.jsonl"
TORCH = {PYRO: "pyro", EAGER: "pyrogen", COMPILED: "pyrogen-compiled", HAND: "hand-compiled"}
FIRST_STEPS, DRAWS, CHECK_SECONDS = 30, 300, 10.0

Opener = Callable[[], Worker]


class Contestant:
    """A process that answers questions about its training of one program."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def seconds(self, steps: int) -> float:
        return self.worker.ask(f"run {steps}")["seconds"]

    def losses(self) -> Losses:
        """Train for a while from the start, and return losses at the parameters there and, rewound, at the first."""
        self.worker.ask("first", LIMIT)
        self.seconds(FIRST_STEPS - 2)
        draws = max(10, min(DRAWS, int(CHECK_SECONDS / self.seconds(1))))
        after = self.worker.ask(f"losses {draws}")["losses"]
        self.worker.ask("rewind")
        return Losses(self.worker.ask(f"losses {draws}")["losses"], after)


def openers(row: str, threads: int, python: Path | None, folder: str) -> dict[str, Opener]:
    """Return what starts each contestant; torch's compilers keep their caches in a folder."""
    script = Path(__file__).with_name("compile_worker.py")
    found: dict[str, Opener] = {}
    for name, word in TORCH.items():
        command: list[str | Path] = [sys.executable, script, word, row, str(threads)]
        found[name] = partial(Worker, command, {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/{word}"})
    if python is not None:
        initial = f"{folder}/initial.npz"
        subprocess.run([sys.executable, script, "pyro", row, str(threads), "--save", initial], check=True)
        command = [python, script.with_name("compile_numpyro.py"), row, initial]
        found[JAX] = partial(Worker, command, ONE_THREAD if threads == 1 else {"JAX_PLATFORMS": "cpu"})
    return found


def latencies(found: Mapping[str, Opener]) -> dict[str, dict[str, float | None]]:
    """Return seconds to the end of the first step, in fresh processes: with an empty cache, and then with a full one.

    ``None`` where it did not come within the limit. NumPyro keeps no cache unless told to.
    """
    seconds: dict[str, dict[str, float | None]] = {}
    for name, state in [(COMPILED, "cold"), (COMPILED, "warm"), (HAND, "cold"), (HAND, "warm"), (JAX, "cold")]:
        if name not in found or None in seconds.setdefault(name, {}).values():
            continue
        with found[name]() as worker:
            try:
                seconds[name][state] = worker.ask("first", LIMIT)["seconds"]
            except TimeoutError:
                seconds[name][state] = None
            except WorkerEndedError as error:
                print(f"{name}: {error}", file=sys.stderr)
    return seconds


@contextmanager
def cores(count: int) -> Iterator[None]:
    """Keep processes that start within the body to some cores: XLA's flags leave it further threads, for dispatch."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[-count:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure(row: str, threads: int, rounds: int, python: Path | None) -> dict[str, Any]:
    """Time one program with one number of threads."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        found = openers(row, threads, python, folder)
        latency = latencies(found)
        late = [name for name, seconds in latency.items() if None in seconds.values()]
        with cores(threads):
            workers = {name: stack.enter_context(start()) for name, start in found.items() if name not in late}
        contestants = {name: Contestant(worker) for name, worker in workers.items()}
        losses, refused = {}, dict.fromkeys(late, f"> {LIMIT} s")
        for name, contestant in contestants.items():
            try:
                losses[name] = contestant.losses()
            except (TimeoutError, WorkerEndedError) as error:
                refused[name] = f"failed: {error}"
        refused |= refusals(losses, reference=PYRO, exact=(EAGER, COMPILED))
        for name, reason in refused.items():
            print(f"{row}, {name}: {reason}", file=sys.stderr)
        timed = {name: contestant for name, contestant in contestants.items() if name not in refused}
        return {
            "row": row,
            "threads": threads,
            "rounds": rounds,
            "milliseconds": take_turns(timed, rounds),
            "latency": latency,
            "refused": refused,
            "versions": workers[JAX].ask("versions") if JAX in timed else {},
        }


def measured() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORDS.read_text().splitlines()] if RECORDS.exists() else []


def save(records: list[dict[str, Any]]) -> None:
    RESULTS.mkdir(exist_ok=True)
    RECORDS.write_text("".join(json.dumps(record) + "\n" for record in records))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="NAME", help=", ".join(ROWS)
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--fresh", action="store_true", help="measure again what has been measured")
    options = parser.parse_args()
    wanted = list(product(options.threads, options.rows))
    if options.fresh:
        save([record for record in measured() if (record["threads"], record["row"]) not in wanted])
    python = numpyro_python()
    done = {(record["threads"], record["row"]) for record in measured()}
    for threads, row in wanted:
        if row == "lda" and find_spec("lda") is None:
            print("lda is skipped: the package of that name, which has its corpus, is not installed", file=sys.stderr)
        elif (threads, row) not in done:
            save([*measured(), measure(row, threads, options.rounds, python)])
    print(written(measured()).read_text())


if __name__ == "__main__":
    main()
