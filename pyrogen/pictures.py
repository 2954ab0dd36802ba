"""Pictures as PNG bytes, each for a light and for a dark page."""

import math
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL.Image import fromarray
from pyro.distributions import ExpandedDistribution, MaskedDistribution
from torch import Tensor
from torch.distributions import Independent

from pyrogen.spec import DataSpec

__all__ = [
    "Drawing",
    "curves",
    "draw",
    "draw_panels",
    "each_image",
    "expected",
    "histogram",
    "image_grid",
    "scatter",
    "shares",
]


class Ink(NamedTuple):
    """The colours of a page."""

    text: str
    line: str
    series: tuple[str, ...]


# The series are Okabe and Ito's, which most colour-blind readers tell apart; lightened for dark pages.
LIGHT = Ink(
    "#3c4354", "#d5d9e2", ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7a5195", "#6c757d")
)
DARK = Ink(
    "#c3c8d4", "#3a4150", ("#56b4e9", "#f0825a", "#3ec79b", "#e0a3c4", "#e6b84c", "#9ad0f5", "#b69ad6", "#adb5bd")
)


class Drawing(NamedTuple):
    """A picture for light pages and, where it differs, for dark ones.

    Attributes:
        light: PNG bytes.
        dark: PNG bytes, or ``None`` where the picture looks the same on both.
        width: in pixels of the page.
    """

    light: bytes
    dark: bytes | None
    width: int

    def data(self, dark: bool = False) -> str:
        """Return the picture as a ``data:`` address, for a page that needs no other file."""
        png = self.dark if dark and self.dark is not None else self.light
        return f"data:image/png;base64,{b64encode(png).decode()}"


def expected(fn: Any) -> Tensor:
    """Return the mean of a site's distribution; of a categorical one over levels, the expected level."""
    base = fn
    while isinstance(base, Independent | ExpandedDistribution | MaskedDistribution):
        base = base.base_dist
    if isinstance(base, torch.distributions.Categorical):
        return base.probs @ torch.arange(float(base.probs.shape[-1]), device=base.probs.device)
    return base.mean


def image_grid(images: Tensor, spec: DataSpec, columns: int, scale: int = 4) -> Drawing:
    """Lay images of shape ``(count, channels, height, width)`` out in rows, with transparent gaps.

    Args:
        columns: images in a row.
        scale: pixels of the picture for each pixel of an image.
    """
    pixels = _unit_interval(images.detach().cpu().float(), spec)
    count, channels, height, width = pixels.shape
    gap = max(1, round(4 / scale))
    tall, wide = height + gap, width + gap
    sheet = np.zeros((math.ceil(count / columns) * tall - gap, columns * wide - gap, 4), dtype=np.float32)
    for i, image in enumerate(pixels.numpy()):
        top, left = i // columns * tall, i % columns * wide
        sheet[top : top + height, left : left + width, :3] = image.transpose(1, 2, 0)[..., : 3 if channels >= 3 else 1]
        sheet[top : top + height, left : left + width, 3] = 1
    sheet = sheet.repeat(scale, 0).repeat(scale, 1)
    return Drawing(_png(sheet), None, sheet.shape[1])


def each_image(images: Tensor, spec: DataSpec) -> list[Drawing]:
    """Draw images of shape ``(count, channels, height, width)`` apart, all on one scale, a pixel for each of theirs."""
    pixels = _unit_interval(images.detach().cpu().float(), spec).permute(0, 2, 3, 1).numpy()
    shown = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].repeat(3, -1)
    return [Drawing(_png(image), None, image.shape[1]) for image in shown]


def _png(pixels: NDArray[np.float32]) -> bytes:
    """Encode pixels in [0, 1], shape ``(height, width, 3)``, or 4 with how opaque they are."""
    buffer = BytesIO()
    fromarray((pixels * 255).round().astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def curves(
    series: Mapping[str, Sequence[tuple[float, float]]], ylabel: str = "nats per datum", xlabel: str = "step"
) -> Drawing:
    """Draw series of ``(step, value)`` points, one line each."""

    def lines(axes: Axes, ink: Ink) -> None:
        for (name, points), colour in zip(series.items(), ink.series * len(series), strict=False):
            steps, values = zip(*points, strict=True)
            marker = "o" if len(points) <= 40 else None
            axes.plot(steps, values, label=name, color=colour, linewidth=1.4, marker=marker, markersize=3)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        # The first steps fall from far away; what matters is after them.
        tail = np.concatenate([np.array(points)[len(points) // 20 :, 1] for points in series.values()])
        low, high = tail.min(), tail.max()
        if high > low:
            axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        if len(series) > 1:
            _legend(axes, ink)

    return draw(lines, (5.8, 2.9))


def scatter(groups: Mapping[str, Tensor], xlabel: str = "first value", ylabel: str = "second value") -> Drawing:
    """Draw the first two values of each group's rows as points."""

    def points(axes: Axes, ink: Ink) -> None:
        for i, (name, rows) in enumerate(groups.items()):
            xy = rows.detach().cpu().flatten(1).numpy()
            colour, marker = ink.series[i % len(ink.series)], "o" if i < len(ink.series) else "^"
            second = xy[:, min(1, xy.shape[1] - 1)]
            axes.scatter(xy[:, 0], second, s=10, alpha=0.7, label=name, linewidths=0, color=colour, marker=marker)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if len(groups) > 1:
            _legend(axes, ink)

    return draw(points, (5.8, 4.2))


def histogram(values: Sequence[float], xlabel: str, threshold: float | None = None) -> Drawing:
    """Draw how often values occur, with a line at a threshold."""

    def bars(axes: Axes, ink: Ink) -> None:
        axes.hist(values, bins=min(30, max(5, len(values) // 3)), color=ink.series[0])
        if threshold is not None:
            axes.axvline(threshold, color=ink.series[1], linewidth=1.4)
        axes.set(xlabel=xlabel, ylabel="count")

    return draw(bars, (5.8, 2.6))


def shares(groups: Mapping[str, NDArray[Any]], xlabel: str) -> Drawing:
    """Draw how often values occur in each group: of whole numbers each one, of others in forty bins they share."""

    def bars(axes: Axes, ink: Ink) -> None:
        everything = np.concatenate([values.ravel() for values in groups.values()])
        is_whole = everything.dtype.kind == "i"
        low, high = everything.min(), everything.max()
        bins = (np.arange(low, high + 2) - 0.5 if is_whole else np.linspace(low, high, 41)).tolist()
        for (name, values), colour in zip(groups.items(), ink.series, strict=False):
            flat = values.ravel()
            weights = np.full(flat.shape, 1 / len(flat))
            axes.hist(flat, bins, weights=weights, histtype="step", label=name, color=colour, linewidth=1.6)
        if is_whole and high - low < 20:
            axes.set_xticks(range(low, high + 1))
        axes.set(xlabel=xlabel, ylabel="share")
        _legend(axes, ink)

    return draw(bars, (5.8, 2.6))


def draw(paint: Callable[[Axes, Ink], None], size: tuple[float, float]) -> Drawing:
    """Paint a chart twice, in the colours of a light and of a dark page, on a transparent ground."""
    return draw_panels(lambda axes, ink: paint(axes[0, 0], ink), size, (1, 1))


def draw_panels(
    paint: Callable[[Any, Ink], None],
    size: tuple[float, float],
    shape: tuple[int, int],
    heights: Sequence[float] | None = None,
) -> Drawing:
    """Paint charts in rows and columns, as :func:`draw` does one; ``paint`` is given an array of axes of this shape.

    Args:
        size: of the picture in inches.
        shape: how many rows and columns.
        heights: of the rows, relative to each other; alike if not given.
    """
    light, dark = (_panels(paint, ink, size, shape, heights) for ink in (LIGHT, DARK))
    return Drawing(light, dark, round(size[0] * 115))


def _panels(
    paint: Callable[[Any, Ink], None],
    ink: Ink,
    size: tuple[float, float],
    shape: tuple[int, int],
    heights: Sequence[float] | None,
) -> bytes:
    figure = Figure(figsize=size, layout="constrained")
    figure.patch.set_alpha(0)
    panels = figure.subplots(*shape, squeeze=False, height_ratios=heights)
    paint(panels, ink)
    for axes in panels.flat:
        _style(axes, ink)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()


def _style(axes: Axes, ink: Ink) -> None:
    axes.patch.set_alpha(0)
    if not axes.images:  # a grid is for lines
        axes.grid(color=ink.line, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink.line)
    axes.tick_params(colors=ink.text, labelsize=10)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=ink.text, fontsize=10)


def _legend(axes: Axes, ink: Ink) -> None:
    legend = axes.legend(frameon=False, fontsize=9, markerscale=1.5, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for text in legend.get_texts():
        text.set_color(ink.text)


def _unit_interval(x: Tensor, spec: DataSpec) -> Tensor:
    """Scale values to [0, 1] for a picture: whole levels by their number, reals by their own range."""
    if spec.kind == "real":
        low, high = x.min(), x.max()
        return (x - low) / (high - low).clamp(min=1e-12)
    top = 1 if spec.kind == "dequantized" or spec.levels is None else spec.levels - 1
    return (x / top).clamp(0, 1)
