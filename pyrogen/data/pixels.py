r"""The choices that make different data sets out of the same images.

Grey images have whole levels :math:`x = 0, \dots, L - 1`. A likelihood of them means nothing until one of these is
chosen, and numbers from two choices must never be compared:

==================  ==================================================  ==========================================
choice              value                                               when it is drawn
==================  ==================================================  ==========================================
``levels``          :math:`x`                                           never
``static-binary``   :math:`b \sim \mathrm{Bernoulli}(x / (L - 1))`      once, by the seed: fixed for all epochs
``dynamic-binary``  :math:`b \sim \mathrm{Bernoulli}(x / (L - 1))`      anew in every training batch
``threshold``       :math:`[x > (L - 1) / 2]`                           never; a third binary data set
``dequantized``     :math:`(x + u) / L,\ u \sim U(0, 1)`                anew in every training batch
==================  ==================================================  ==========================================

Validation and test values are always drawn once by the seed, so that figures can be repeated. Static and dynamic
binarisation of MNIST differ by about 2 nats for the same model (Burda, Grosse, Salakhutdinov, *Importance Weighted
Autoencoders*, 2016, https://arxiv.org/abs/1509.00519).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from pyrogen.data.checks import MAX_LEVELS, nearest
from pyrogen.data.dataset import SPLITS, Columns, Dataset
from pyrogen.data.splits import own_generator
from pyrogen.errors import UsageError
from pyrogen.spec import Kind

__all__ = ["PIXELS", "PixelChoice", "apply_pixels", "bernoulli", "dequantize", "threshold"]

NOISE_STEPS = 2**15
ROWS = 4096  # a draw for 70,000 images at once would need half a gigabyte


def whole(x: Tensor, levels: int, generator: Generator | None = None) -> Tensor:
    """Return the levels themselves, in float32."""
    return x.to(torch.float32)


def threshold(x: Tensor, levels: int, generator: Generator | None = None) -> Tensor:
    """Return :math:`[x > (L - 1) / 2]`, in float32."""
    return (2 * x.to(torch.int32) > levels - 1).to(torch.float32)


def bernoulli(x: Tensor, levels: int, generator: Generator | None = None) -> Tensor:
    r"""Draw :math:`b \sim \mathrm{Bernoulli}(x / (L - 1))`, in float32; from the global generator where none is given.

    Level 0 is always 0 and level ``L - 1`` always 1, because :math:`u \in [0, 1)`.
    """
    u = torch.rand(x.shape, generator=generator, device=x.device, dtype=torch.float32)
    return (u < x.to(torch.float32) / (levels - 1)).to(torch.float32)


def dequantize(x: Tensor, levels: int, generator: Generator | None = None) -> Tensor:
    r"""Draw :math:`(x + u) / L`, in float32, such that :math:`\lfloor L\,y \rfloor = x` exactly.

    ``u`` is uniform over the midpoints of :math:`2^{15}` equal cells of the unit interval. An ordinary float32 ``u``
    so near to 1 that ``x + u`` rounds up would leave its level: 255 + u does so once in 130,000 draws. A midpoint makes
    ``x + u`` exact in 24 bits, and leaves more room on both sides than the division can lose, for up to 256 levels.
    """
    m = torch.randint(NOISE_STEPS, x.shape, generator=generator, device=x.device)
    u = (m.to(torch.float32) + 0.5) / NOISE_STEPS
    return (x.to(torch.float32) + u) / levels


@dataclass(frozen=True)
class PixelChoice:
    """One row of the table.

    Attributes:
        kind: what the values become, see :class:`pyrogen.spec.DataSpec`.
        value: ``(x, levels, generator) -> float32`` values of the same shape.
        fresh: whether training values are drawn anew in every batch.
        stored: the dtype that holds fixed values without loss.
    """

    kind: Kind
    value: Callable[[Tensor, int, Generator | None], Tensor]
    fresh: bool
    stored: torch.dtype


PIXELS: dict[str, PixelChoice] = {
    "levels": PixelChoice("levels", whole, False, torch.uint8),
    "static-binary": PixelChoice("binary", bernoulli, False, torch.uint8),
    "dynamic-binary": PixelChoice("binary", bernoulli, True, torch.uint8),
    "threshold": PixelChoice("binary", threshold, False, torch.uint8),
    "dequantized": PixelChoice("dequantized", dequantize, True, torch.float32),
}


@dataclass(frozen=True)
class FreshDraw:
    """The transform of a training batch: a new draw from the global generator, by a row of :data:`PIXELS`."""

    choice: str
    levels: int

    def __call__(self, x: Tensor) -> Tensor:
        return PIXELS[self.choice].value(x, self.levels, None)


def apply_pixels(dataset: Dataset, choice: str, seed: int = 0) -> Dataset:
    """Return the data set that a row of :data:`PIXELS` makes of images with levels.

    ``batches`` of the result draws fresh training values where the choice asks for it; ``eval_columns`` and the
    batches of the other splits are fixed by the seed. The global generator is not touched here.

    Raises:
        UsageError: an unknown choice, data without levels, or data to which a choice was applied before.

    Example:
        >>> from pyrogen.data import digits
        >>> apply_pixels(digits(), "dequantized").spec.kind
        'dequantized'
    """
    if choice not in PIXELS:
        raise UsageError(f"pixels={choice!r}: expected one of {', '.join(PIXELS)}{nearest(choice, PIXELS)}")
    levels = dataset.spec.levels
    if levels is None or levels > MAX_LEVELS:
        raise UsageError(
            f"pixels={choice!r}: {dataset.name} holds real numbers, and a pixel choice needs whole levels 0..L-1. "
            "Leave `pixels` out, or say how many levels there are with `levels`"
        )
    if dataset.transform is not None or dataset.spec.kind == "dequantized" or dataset.pixels not in (None, "levels"):
        raise UsageError(
            f"pixels={choice!r}: {dataset.pixels or dataset.spec.kind!r} was applied to {dataset.name} before. "
            "Load the data with this choice instead"
        )
    row = PIXELS[choice]

    def fixed(split: str) -> Columns:
        # One generator a split: the test values do not depend on how many rows were kept for validation.
        generator = own_generator(seed, f"pixels/{split}")
        columns = dataset.split(split)
        parts = [row.value(x, levels, generator).to(row.stored) for x in torch.split(columns["x"], ROWS)]
        return columns | {"x": torch.cat(parts)}

    train, validation, test = (dataset.train if row.fresh and s == "train" else fixed(s) for s in SPLITS)
    return Dataset(
        dataset.name,
        train,
        validation,
        test,
        spec=replace(dataset.spec, kind=row.kind, levels=levels if row.kind != "binary" else 2),
        transform=FreshDraw(choice, levels) if row.fresh else None,
        pixels=choice,
    )
