"""Notices adversarial fits that come to nothing."""

from collections.abc import Mapping
from typing import Any

from pyrogen.inference import Objective

__all__ = ["Alarm"]

WON, LINES = 0.99, 10
"""A critic that orders more pairs of a datum and a draw than this, for so many lines of metrics, has won."""

ALIKE = 0.05
"""Draws whose spacing is less than this share of the data's are all alike."""

MISSED, LOOKS = 0.1, 5
"""A model whose draws are near fewer of the data than this, for so many validations, drops most of them."""


REMEDIES = (
    "With a critic, add a penalty of its gradient, lower the learning rates, or set Adam's first beta to 0. Or learn "
    "by MMD, EnergyDistance or Sinkhorn with large batches, which cannot be won by one point."
)


class Alarm:
    """What to say of a fit that comes to nothing, once for each reason.

    Attributes:
        strict: whether that ends a fit.
    """

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.lines = self.looks = 0
        self.rung: set[str] = set()

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered."""
        return {"lines": self.lines, "looks": self.looks, "rung": sorted(self.rung)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what was remembered."""
        self.lines, self.looks, self.rung = state["lines"], state["looks"], set(state["rung"])

    def of_critic(self, objective: Objective) -> str | None:
        """Say that a critic has won, where it was right in 99 of 100 pairs in ten lines of metrics in a row."""
        if not objective.saturates:
            return None
        self.lines = self.lines + 1 if float(objective.monitored()["critic_order"]) > WON else 0
        if self.lines < LINES:
            return None
        return self._once(
            "critic",
            f"the critic is saturated: it has scored data above draws in more than {WON:.0%} of pairs for "
            f"{LINES} lines of metrics. Its gradient may have nothing left to teach: add or raise a penalty (R1, "
            f"Interpolated), lower the critic's learning rate or steps, make it smaller, or play another game "
            f"(non-saturating, WGAN with a penalty).",
        )

    def of_draws(self, found: Mapping[str, float], is_last: bool) -> str | None:
        """Say that draws are all alike, by their ``spacing``, or drop most of the data, by their ``coverage``.

        Coverage may begin low: it counts after five looks in a row, or at the last one.
        """
        if "spacing" not in found:
            return None
        spacing, coverage = found["spacing"], found["coverage"]
        self.looks = 0 if coverage >= MISSED else self.looks + 1
        if not spacing >= ALIKE:
            return self._once(
                "alike",
                f"the generator has collapsed: the typical distance from a draw to the next is {spacing:.1%} of that "
                f"between data. {REMEDIES}",
            )
        if self.looks < (1 if is_last else LOOKS):
            return None
        return self._once(
            "missed",
            f"the generator misses the data: only {coverage:.1%} of them have a draw near them. It may need more "
            f"steps. If it has had thousands: {REMEDIES[0].lower()}{REMEDIES[1:]}",
        )

    def _once(self, kind: str, message: str) -> str | None:
        if kind in self.rung:
            return None
        self.rung.add(kind)
        return message
