"""Pictures of calibration: forecasts, ranks and replicates beside what they are where all is right."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from matplotlib.axes import Axes
from scipy.stats import binom
from torch import Tensor

from pyrogen import evaluation, pictures
from pyrogen.evaluation import Calibration, Forecasts, PredictiveCheck
from pyrogen.pictures import Drawing, Ink

__all__ = ["check_histograms", "rank_band", "rank_histograms", "reliability_diagram"]

BINS = 15
"""Of a reliability diagram: few enough to have forecasts in each."""

ACROSS = 3
"""Panels beside each other."""


def reliability_diagram(forecasts: Forecasts) -> Drawing:
    """Draw how often forecasts came true by what they said, above how many said it.

    Bars about the diagonal are two binomial standard errors to either side, where 95% of right forecasts' points lie.
    """
    found = evaluation.reliability(*forecasts, bins=BINS)
    used = found.counts > 0
    counts, said, came, error = (values[used].tolist() for values in found)

    def panels(axes: Any, ink: Ink) -> None:
        above, below = axes[0, 0], axes[1, 0]
        above.plot((0, 1), (0, 1), color=ink.text, linewidth=1, alpha=0.6)
        bars = zip(said, error, strict=True)
        low, high = zip(*((max(0, p - 2 * e), min(1, p + 2 * e)) for p, e in bars), strict=True)
        above.vlines(said, low, high, color=ink.series[7], linewidth=5, alpha=0.45)
        above.plot(said, came, "o", color=ink.series[0], markersize=5)
        above.set(xlim=(-0.02, 1.02), ylim=(-0.05, 1.05), ylabel="came true")
        above.tick_params(labelbottom=False)
        below.bar(said, counts, width=0.6 / BINS, color=ink.series[0])
        for x, count in zip(said, counts, strict=True):
            below.annotate(f"{count:,}", (x, count), (0, 2), textcoords="offset points", ha="center", va="bottom")
            below.texts[-1].set(color=ink.text, fontsize=7)
        below.set(xlim=(-0.02, 1.02), ylim=(0, 1.25 * max(counts)), xlabel="said", ylabel="forecasts")

    return pictures.draw_panels(panels, (4.6, 5.0), (2, 1), (3, 1))


def rank_band(size: int, bins: int, level: float = 0.99) -> tuple[int, int]:
    """Return counts between which all bars of a histogram of uniform ranks lie, with a probability of at least a level.

    Each bar is binomial, and Bonferroni's inequality goes over the bars.

    Example:
        >>> rank_band(200, 20)
        (1, 22)
    """
    tail = (1 - level) / (2 * bins)
    return int(binom.ppf(tail, size, 1 / bins)), int(binom.ppf(1 - tail, size, 1 / bins))


def rank_histograms(found: Calibration, bins: int = 20) -> Drawing:
    """Draw ranks of what was true among draws of a posterior, in panels, with a band that uniform ones lie in.

    Of more ranks than there are panels for, the worst are shown.
    """
    shown = sorted(found.p_values, key=lambda name: found.p_values[name])[: 2 * ACROSS]
    size = len(next(iter(found.ranks.values())))
    low, high = rank_band(size, bins)

    def panel(axes: Axes, ink: Ink, name: str) -> None:
        counts = torch.bincount(found.ranks[name].cpu() * bins // (found.num_draws + 1), minlength=bins)
        axes.axhspan(low, high, color=ink.series[1], alpha=0.15, linewidth=0)
        axes.bar(range(bins), counts.tolist(), width=0.9, color=ink.series[0])
        axes.hlines((low, high), -0.5, bins - 0.5, color=ink.series[1], linewidth=1.2, linestyles="dashed")
        axes.set(xticks=[-0.5, bins - 0.5], xticklabels=[0, found.num_draws])

    return _panels({name.replace("_", " "): name for name in shown}, panel)


def check_histograms(checks: Mapping[str, PredictiveCheck]) -> Drawing:
    """Draw statistics of replicates, in panels, with a line at what the data have."""

    def panel(axes: Axes, ink: Ink, name: str) -> None:
        check = checks[name]
        axes.hist(check.replicated.tolist(), bins=_bins(check.replicated), color=ink.series[0])
        axes.axvline(check.observed, color=ink.series[1], linewidth=1.8)
        axes.locator_params("x", nbins=4)
        axes.locator_params("y", nbins=4, integer=True)

    return _panels({f"{name}: p = {check.p_value.value:.3f}": name for name, check in checks.items()}, panel)


def _bins(values: Tensor) -> int:
    return 1 if bool((values == values[0]).all()) else min(20, max(5, len(values) // 5))


def _panels(titles: Mapping[str, str], panel: Callable[[Axes, Ink, str], None]) -> Drawing:
    """Draw a panel for each title, in rows; those that are left over stay empty."""
    columns = min(ACROSS, len(titles))
    rows = math.ceil(len(titles) / columns)

    def paint(axes: Any, ink: Ink) -> None:
        places = list(axes.flat)
        for place, (title, name) in zip(places, titles.items(), strict=False):
            panel(place, ink, name)
            place.set_title(title, color=ink.text, fontsize=9)
        for place in places[len(titles) :]:
            place.set_axis_off()

    return pictures.draw_panels(paint, (2.4 * columns + 0.2, 1.7 * rows + 0.2), (rows, columns))
