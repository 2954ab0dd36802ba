"""The page that ``compile.py`` writes: times, their ratios and the goals for them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from report import header, table, versions, write
from rounds import ratio

__all__ = ["COMPILED", "EAGER", "HAND", "JAX", "LIMIT", "PYRO", "written"]

PYRO, EAGER, COMPILED = "Pyro SVI", "pyrogen eager", "pyrogen compiled"
HAND, JAX = "torch.compile by hand", "NumPyro jit"
LIMIT = 300
"""Seconds within which a first step must end."""


class Size(NamedTuple):
    """What a program spends its time on, and the goals that follow."""

    faster: float
    by_hand: float


TINY, MIDDLE, PRODUCTS = Size(10.0, 0.7), Size(5.0, 1.05), Size(1.4, 1.05)
NUMPYRO_GOAL, COLD_GOAL, WARM_GOAL = 1.0, 60.0, 2.0
ROWS = {
    "vae-400-128": ("VAE 784-400-20, batch 128", PRODUCTS),
    "vae-64-64": ("VAE 784-64-20, batch 64", MIDDLE),
    "vae-16-16": ("VAE 784-16-20, batch 16", TINY),
    "eight-schools": ("eight schools, AutoNormal", TINY),
    "logistic": ("logistic regression 1,000 × 54, AutoNormal", TINY),
    "mixture": ("5 Gaussians, 1,000 points, enumerated", TINY),
    "lda": ("LDA, 20 topics, 64 Reuters documents", PRODUCTS),
    "dmm": ("deep Markov model, 129 steps, batch 20", MIDDLE),
}
GOALS = (
    f"Goals, ✓ where met and ✗ where not: at least {TINY.faster:g} × faster than Pyro where Pyro's own work dominates "
    f"(VAE of batch 16, eight schools, logistic regression, Gaussians), {PRODUCTS.faster:g} × where large matrix "
    f"products do (VAE of batch 128, LDA), {MIDDLE.faster:g} × in between; at most {MIDDLE.by_hand} of `torch.compile` "
    f"by hand, and {TINY.by_hand} where Pyro's own work dominates; at most {NUMPYRO_GOAL} of NumPyro; the first step "
    f"within {COLD_GOAL:g} s, or {WARM_GOAL:g} s where the cache on disk has the graph."
)
ABOUT = (
    "A step is the loss with one particle (no closed-form divergence), its gradient, and Adam, in single precision, on "
    "the same batch each time. Pyro and pyrogen run the same programs; pyrogen's whole step is one graph, and it also "
    "takes the gradient's norm and refuses a step that is not finite. By hand, the loss is written in torch and "
    "compiled, and torch's fused Adam follows. NumPyro runs the same program in its own words. The script checks first "
    "that all contestants take the same step. Assignments of the mixture are summed out by enumeration in Pyro and "
    "pyrogen; the deep Markov model is a Python loop over time everywhere but in NumPyro, which scans. Data are "
    "synthetic but for the schools and Reuters."
)


def written(records: Sequence[dict[str, Any]]) -> Path:
    """Write the page of all that was measured."""
    others: dict[str, str] = next((record["versions"] for record in records if record["versions"]), {})
    threads = sorted({record["threads"] for record in records})
    parts = [
        header(
            "Time of a compiled training step",
            "make bench-compile",
            threads=threads[-1],
            versions=versions("torch", "pyro-ppl", "pyrogen-ppl") | others,
        ),
        ABOUT,
        GOALS,
    ]
    for count in threads:
        chosen = {record["row"]: record for record in records if record["threads"] == count}
        parts += [f"## {count} thread{'s' if count > 1 else ''}", *_tables(chosen)]
    return write("compile", *parts)


def _tables(records: Mapping[str, dict[str, Any]]) -> list[str]:
    rounds = sorted({record["rounds"] for record in records.values()})
    return [
        f"Milliseconds a step by the wall, the median of {' or '.join(map(str, rounds))} interleaved rounds; then "
        f"Pyro's time over compiled pyrogen's, and compiled pyrogen's over the others', in the same round: median "
        f"(quartiles).",
        table(
            ["", f"{PYRO}: ms", f"{EAGER}: ms", f"{COMPILED}: ms", "× faster than Pyro", f"/ {HAND}", f"/ {JAX}"],
            [[title, *_speed(records.get(row), size)] for row, (title, size) in ROWS.items()],
        ),
        "Seconds until the first step has ended, in a fresh process that may use all cores: cold with an empty cache "
        "on disk, warm with the one that the cold run left. What a compiler imports (torch, Inductor and pyrogen; JAX "
        "and NumPyro) is imported before the clock starts. NumPyro keeps no cache on disk unless told to.",
        table(
            ["", f"{COMPILED}: cold", "warm", f"{HAND}: cold", "warm", JAX],
            [[title, *_latency(records.get(row))] for row, (title, _) in ROWS.items()],
        ),
    ]


def _speed(record: dict[str, Any] | None, size: Size) -> list[str]:
    if record is None:
        return ["not measured", *[""] * 5]
    times, refused = record["milliseconds"], record["refused"]
    milliseconds = [
        f"{median(times[name]):#.3g}" if name in times else _briefly(refused, name) for name in (PYRO, EAGER, COMPILED)
    ]
    pairs = [(PYRO, COMPILED, size.faster, 1), (COMPILED, HAND, size.by_hand, -1), (COMPILED, JAX, NUMPYRO_GOAL, -1)]
    return milliseconds + [_compared(times, refused, *pair) for pair in pairs]


def _compared(
    times: Mapping[str, list[float]], refused: Mapping[str, str], one: str, other: str, goal: float, sign: int
) -> str:
    """Write one contestant's time over another's, and whether the goal is met: at least it, or at most if negative."""
    absent = [name for name in (one, other) if name not in times]
    if absent:
        return _briefly(refused, absent[0])
    middle, low, high = ratio(times[one], times[other])
    return f"{middle:.2f} ({low:.2f}–{high:.2f}) {_mark(sign * middle >= sign * goal)}"


def _briefly(refused: Mapping[str, str], name: str) -> str:
    reason = refused.get(name, "not installed")
    return reason if reason.startswith(">") else reason.partition(":")[0]


def _latency(record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return ["not measured", *[""] * 4]
    mine, by_hand = (record["latency"].get(name, {}) for name in (COMPILED, HAND))
    return [
        _seconds(mine, "cold", COLD_GOAL),
        _seconds(mine, "warm", WARM_GOAL),
        _seconds(by_hand, "cold"),
        _seconds(by_hand, "warm"),
        _seconds(record["latency"].get(JAX, {}), "cold"),
    ]


def _seconds(latency: Mapping[str, float | None], state: str, goal: float | None = None) -> str:
    if state not in latency:
        return "–"
    seconds = latency[state]
    if seconds is None:
        return f"> {LIMIT}" if goal is None else f"> {LIMIT} ✗"
    return f"{seconds:.1f}" if goal is None else f"{seconds:.1f} {_mark(seconds <= goal)}"


def _mark(met: bool) -> str:
    return "✓" if met else "✗"
