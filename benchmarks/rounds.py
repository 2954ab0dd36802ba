"""Fair turns: contestants are timed in interleaved rounds, and compared within a round."""

from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Protocol

__all__ = ["Timed", "ratio", "take_turns"]

BLOCKS, BLOCK_SECONDS = 5, 0.03


class Timed(Protocol):
    def seconds(self, steps: int) -> float:
        """Take training steps, and return the seconds that they took."""


def take_turns(contestants: Mapping[str, Timed], rounds: int) -> dict[str, list[float]]:
    """Let every contestant run once a round; each round starts with another one. A turn is the median of its blocks.

    Returns:
        Milliseconds a step, one for each round, by contestant.
    """
    steps = {
        name: max(1, round(BLOCK_SECONDS / (contestant.seconds(10) / 10))) for name, contestant in contestants.items()
    }
    names = list(contestants)
    times: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            contestants[name].seconds(1)
            blocks = [contestants[name].seconds(steps[name]) / steps[name] for _ in range(BLOCKS)]
            times[name].append(1e3 * median(blocks))
    return times


def ratio(times: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Divide one contestant's times by another's, round by round; return the median and the quartiles around it.

    Example:
        >>> ratio([2.0, 2.0, 3.0], [1.0, 2.0, 1.0])
        (2.0, 1.5, 2.5)
    """
    ratios = [its / other for its, other in zip(times, others, strict=True)]
    low, middle, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return middle, low, high
