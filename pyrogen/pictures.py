"""Pictures of runs, as PNG bytes."""

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL.Image import fromarray
from torch import Tensor

from pyrogen.spec import DataSpec

__all__ = ["curves", "expected", "image_grid", "scatter"]

LABELS = {
    "loss": "training loss",
    "validation_elbo": "validation ELBO",
    "validation_log_likelihood": "validation log p",
}


def expected(fn: Any) -> Tensor:
    """Return the mean of a site's distribution; of a categorical one over levels, the expected level."""
    base = fn
    while hasattr(base, "base_dist"):
        base = base.base_dist
    if isinstance(base, torch.distributions.Categorical):
        return base.probs @ torch.arange(float(base.probs.shape[-1]), device=base.probs.device)
    return base.mean


def unit_interval(x: Tensor, spec: DataSpec) -> Tensor:
    """Scale values to [0, 1] for a picture: whole levels by their number, reals by their own range."""
    if spec.kind == "real":
        low, high = x.min(), x.max()
        return (x - low) / (high - low).clamp(min=1e-12)
    top = 1 if spec.kind == "dequantized" or spec.levels is None else spec.levels - 1
    return (x / top).clamp(0, 1)


def image_grid(images: Tensor, spec: DataSpec, columns: int, scale: int = 4) -> bytes:
    """Lay images of shape ``(count, channels, height, width)`` out in rows.

    Args:
        columns: images in a row.
        scale: pixels of the picture for each pixel of an image.
    """
    pixels = unit_interval(images.detach().cpu().float(), spec)
    count, channels, height, width = pixels.shape
    rows = math.ceil(count / columns)
    sheet = np.ones((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), dtype=np.float32)
    for i, image in enumerate(pixels.numpy()):
        top, left = 1 + i // columns * (height + 1), 1 + i % columns * (width + 1)
        sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    sheet = sheet.repeat(scale, 0).repeat(scale, 1)
    buffer = BytesIO()
    rgb = np.broadcast_to(sheet[..., :3] if channels >= 3 else sheet[..., :1], (*sheet.shape[:2], 3))
    fromarray((rgb * 255).round().astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def curves(metrics: Sequence[Mapping[str, Any]], names: Sequence[str], unit: str = "nats per datum") -> bytes:
    """Draw the named metrics against the step, one line each."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for name in names:
        points = [(row["step"], row[name]) for row in metrics if row.get(name) is not None]
        if points:
            marker = "o" if len(points) < 40 else None
            axes.plot(*zip(*points, strict=True), label=LABELS.get(name, name), marker=marker, markersize=3)
    axes.set(xlabel="step", ylabel=unit)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def scatter(groups: Mapping[str, Tensor], xlabel: str = "first value", ylabel: str = "second value") -> bytes:
    """Draw the first two values of each group's rows as points."""
    figure = Figure(figsize=(5.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, rows in groups.items():
        points = rows.detach().cpu().flatten(1).numpy()
        axes.scatter(points[:, 0], points[:, min(1, points.shape[1] - 1)], s=8, alpha=0.6, label=name, linewidths=0)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.legend(frameon=False, markerscale=2, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    return buffer.getvalue()
