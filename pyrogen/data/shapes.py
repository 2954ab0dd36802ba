"""Images of discs and squares, solid and hollow: data whose factors of variation are known."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyrogen.data.dataset import Dataset
from pyrogen.data.sources import from_arrays

__all__ = ["Factors", "draw_factors", "render", "shapes"]

SIDE = 16
Array = NDArray[np.float64]


class Factors(NamedTuple):
    """What an image is made of, each of shape ``(size,)``.

    Attributes:
        square: 0 for a disc, 1 for a square.
        hollow: 1 where the middle is empty, up to half of the radius.
        radius: half of the side or diameter, in pixels.
        x: the middle's distance from the left edge, in pixels.
        y: the middle's distance from the upper edge.
    """

    square: NDArray[np.int64]
    hollow: NDArray[np.int64]
    radius: Array
    x: Array
    y: Array


def draw_factors(size: int, seed: int = 0) -> Factors:
    """Draw factors, all independent: kinds with equal chances, radii in [4, 6], middles in [6, 10]."""
    rng = np.random.default_rng(seed)
    square, hollow = rng.integers(2, size=(2, size))
    return Factors(square, hollow, rng.uniform(4, 6, size), *rng.uniform(6, 10, (2, size)))


def render(factors: Factors) -> NDArray[np.uint8]:
    """Paint images of 16 x 16 pixels with 256 levels, shape ``(size, 16, 16)``; edges are smooth over one pixel.

    Example:
        >>> image = render(draw_factors(3, seed=1))[0]
        >>> image.shape, int(image.max())
        ((16, 16), 255)
    """
    pixels = np.arange(SIDE) + 0.5
    square, hollow, radius, x, y = (factor[:, None, None] for factor in factors)
    across, down = pixels[None, None, :] - x, pixels[None, :, None] - y
    distance = np.where(square, np.maximum(abs(across), abs(down)), np.hypot(across, down))
    ink = np.clip(radius - distance + 0.5, 0, 1)
    gap = np.clip(radius / 2 - distance + 0.5, 0, 1) * hollow
    return np.round(255 * (ink - gap)).astype(np.uint8)


def shapes(
    *, size: int = 20_000, pixels: str = "levels", validation: float = 0.05, test: float = 0.05, seed: int = 0
) -> Dataset:
    """Paint discs and squares, solid and hollow, labelled ``2 * square + hollow``; 16 x 16 pixels with 256 levels."""
    factors = draw_factors(size, seed)
    arrays = {"x": render(factors), "y": 2 * factors.square + factors.hollow}
    return from_arrays(
        arrays, name="shapes", levels=256, num_classes=4, pixels=pixels, validation=validation, test=test, seed=seed
    )
