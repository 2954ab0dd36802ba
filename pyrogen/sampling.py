"""What draws are of: how long, of which labels, and how fast where they are made element by element."""

import time

import torch
from torch import Tensor

from pyrogen.errors import UsageError
from pyrogen.evaluation import evaluating
from pyrogen.inference import can_compile
from pyrogen.nn.causal import Causal
from pyrogen.parameters import first_device
from pyrogen.sites import Program
from pyrogen.spec import DataSpec

__all__ = ["compile_steps", "labels_in_turn", "length_of", "speed"]

COMPILING, SAVED = 20.0, 0.5
"""Seconds that compiling steps takes, and the part of their time that it saves."""

TRIED = 5
"""Steps that are timed."""


def length_of(spec: DataSpec, length: int | None, seconds: float | None) -> int | None:
    """Return how many elements a draw shall have; ``None`` where that is not said.

    Raises:
        UsageError: where it is said twice, in seconds of what is no sound, or is less than one.

    Example:
        >>> length_of(DataSpec((4000,), "levels", levels=256, sample_rate=8000), None, 1.5)
        12000
    """
    if seconds is not None:
        if length is not None:
            raise UsageError("--length and --seconds say the same: give one of them")
        if spec.sample_rate is None:
            raise UsageError(f"--seconds is for sounds, and {spec.name} are none: give --length")
        length = round(seconds * spec.sample_rate)
    if length is not None and length < 1:
        raise UsageError(f"a draw must have one element at least, found {length}")
    return length


def labels_in_turn(model: Program, spec: DataSpec, number: int) -> dict[str, Tensor]:
    """Return labels ``y``, all in turn, for a model that draws data given their labels; none for others."""
    if spec.num_classes is None or "y" not in getattr(model, "covariates", ()):
        return {}
    return {"y": torch.arange(number, device=first_device(model)) % spec.num_classes}


def compile_steps(mode: str, model: Program, spec: DataSpec, number: int, length: int | None) -> None:
    """Compile a model's steps if that is asked for: on, off, or auto, where it pays.

    Raises:
        UsageError: for another mode; or where it is on, and there are no steps or is no compiler.
    """
    if mode not in ("on", "off", "auto"):
        raise UsageError(f"--compile must be on, off or auto, found {mode!r}")
    network = getattr(model, "network", None)
    if mode == "on" and not isinstance(network, Causal):
        raise UsageError("--compile on is for models that draw element by element, and this one does not: leave it out")
    if mode == "on" and not can_compile():
        raise UsageError("--compile on needs a C++ compiler, g++ or clang++, and there is none: leave it out")
    if mode == "off" or not isinstance(network, Causal) or not can_compile():
        return
    steps = spec.num_dims if length is None else length
    pays = steps > 10 * TRIED and SAVED * steps * _seconds_per_step(network, model, spec, number) > 1.5 * COMPILING
    if mode == "on" or pays:
        network.compile_steps()


def speed(number: int, length: int, rate: int, seconds: float) -> str:
    """Say how fast sounds were drawn.

    Example:
        >>> speed(2, 4000, 8000, 10.0)
        '1 s of sound in 10.0 s: 0.1 seconds of sound a second'
    """
    sound = number * length / rate
    return f"{sound:.4g} s of sound in {seconds:.1f} s: {sound / seconds:.3g} seconds of sound a second"


def _seconds_per_step(network: Causal, model: Program, spec: DataSpec, number: int) -> float:
    """Time some steps of a network, which draw nothing."""
    device = first_device(model)
    has_context = getattr(model, "covariates", ()) == ("y",)
    context = torch.zeros(number, spec.num_classes or 0, device=device) if has_context else None
    with evaluating(model):
        state = network.start(number, context)
        network.step(None, state)
        begin = time.perf_counter()
        for _ in range(TRIED):
            network.step(torch.zeros(number, device=device), state)
        return (time.perf_counter() - begin) / TRIED
