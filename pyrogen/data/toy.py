"""Mixtures of narrow normal distributions in the plane: what a model that drops modes is caught by."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyrogen.data.dataset import Dataset
from pyrogen.data.sources import from_arrays

__all__ = ["GRID", "RING", "Modes", "grid", "ring"]


@dataclass(frozen=True)
class Modes:
    """Equally likely normal distributions of one standard deviation.

    Attributes:
        centres: as coordinate pairs.
        sd: the standard deviation of each coordinate around a centre.
    """

    centres: tuple[tuple[float, float], ...]
    sd: float

    def sample(self, size: int) -> tuple[Tensor, Tensor]:
        """Draw points, shape ``(size, 2)``, and which mode each is of, shape ``(size,)``.

        Example:
            >>> [part.shape for part in RING.sample(5)]
            [torch.Size([5, 2]), torch.Size([5])]
        """
        mode = torch.randint(len(self.centres), (size,))
        return torch.tensor(self.centres)[mode] + self.sd * torch.randn(size, 2), mode


_angles = [2 * np.pi * i / 8 for i in range(8)]
RING = Modes(tuple((float(np.cos(a)), float(np.sin(a))) for a in _angles), 0.01)
"""Eight modes of standard deviation .01 on the unit circle (Srivastava et al., 2017; Lin et al., 2018)."""

GRID = Modes(tuple((float(x), float(y)) for x in range(-4, 5, 2) for y in range(-4, 5, 2)), 0.05)
"""Twenty-five modes of standard deviation .05 on a square grid of spacing 2 (the same papers)."""


def ring(*, size: int = 50_000, validation: float = 0.05, test: float = 0.05, seed: int = 0) -> Dataset:
    """Draw points of eight narrow modes on a circle, labelled by mode.

    Sources: VEEGAN, https://arxiv.org/abs/1705.07761; PacGAN, https://arxiv.org/abs/1712.04086.
    """
    return _dataset(RING, "ring", size, validation, test, seed)


def grid(*, size: int = 50_000, validation: float = 0.05, test: float = 0.05, seed: int = 0) -> Dataset:
    """Draw points of twenty-five narrow modes on a square grid, labelled by mode.

    Sources: VEEGAN, https://arxiv.org/abs/1705.07761; PacGAN, https://arxiv.org/abs/1712.04086.
    """
    return _dataset(GRID, "grid", size, validation, test, seed)


def _dataset(modes: Modes, name: str, size: int, validation: float, test: float, seed: int) -> Dataset:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        x, y = modes.sample(size)
    return from_arrays({"x": x.numpy(), "y": y.numpy()}, name=name, validation=validation, test=test, seed=seed)
