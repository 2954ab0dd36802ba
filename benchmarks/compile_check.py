"""The gate of ``compile.py``: who does not compute what the others compute is not timed."""

from collections.abc import Collection, Mapping
from math import hypot
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np

__all__ = ["Losses", "refusals"]


class Losses(NamedTuple):
    """Losses at the first parameters, and at those after some steps; the draws of either have the same seeds."""

    initial: list[float]
    after: list[float]


def refusals(losses: Mapping[str, Losses], reference: str, exact: Collection[str]) -> dict[str, str]:
    """Say of each contestant that computes something else what gives it away.

    At the first parameters, mean losses must agree within five standard errors and float tolerance. The steps must
    have made the loss fall, at the same draws, and to within two percent of where the reference's has fallen.
    Contestants with the reference's noise must also have its losses, draw by draw.
    """
    found = {}
    for name, its in losses.items():
        reason = _reason(its, losses[reference], name in exact)
        if reason is not None:
            found[name] = reason
    return found


def _reason(its: Losses, reference: Losses, exact: bool) -> str | None:
    expected, initial, after = mean(reference.initial), mean(its.initial), mean(its.after)
    margin = 5 * hypot(_error(its.initial), _error(reference.initial)) + 1e-4 * abs(expected)
    if abs(initial - expected) > margin:
        return f"has another loss: {initial:.3f}, expected {expected:.3f} ± {margin:.3f}"
    if after >= initial:
        return f"does not learn: {initial:.3f} before, {after:.3f} after some steps"
    if abs(after - mean(reference.after)) > 0.02 * abs(mean(reference.after)):
        return f"learns something else: {after:.3f} after some steps, expected {mean(reference.after):.3f}"
    if exact and not (_equal(its.initial, reference.initial, 1e-4) and _equal(its.after, reference.after, 1e-3)):
        return f"has other losses: {its.initial[:3]} and {its.after[:3]}, expected {reference}"
    return None


def _error(draws: list[float]) -> float:
    return stdev(draws) / len(draws) ** 0.5


def _equal(losses: list[float], expected: list[float], tolerance: float) -> bool:
    count = min(len(losses), len(expected))
    return np.allclose(losses[:count], expected[:count], rtol=tolerance, atol=0)
