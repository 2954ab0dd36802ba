"""Sounds for the ear."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.data import encode_wav, from_mu_law
from pyrogen.spec import DataSpec

__all__ = ["amplitudes", "to_wav"]

PAUSE = 0.25
"""Seconds of silence between sounds in one file."""


def amplitudes(x: Tensor, spec: DataSpec) -> NDArray[np.float64]:
    """Return sounds, levels of mu-law of any shape, as amplitudes in [-1, 1].

    Example:
        >>> from torch import tensor
        >>> amplitudes(tensor([0.0, 255.0]), DataSpec((2,), "levels", levels=256, sample_rate=8000))
        array([-1.,  1.])
    """
    assert spec.levels is not None
    return from_mu_law(x.detach().cpu().numpy(), spec.levels)


def to_wav(x: Tensor, spec: DataSpec) -> bytes:
    """Return sounds of shape ``(count, time)`` as one WAV file, one after another with a quarter second between."""
    assert spec.sample_rate is not None
    between = np.zeros(round(PAUSE * spec.sample_rate))
    pieces = [piece for sound in amplitudes(x, spec) for piece in (between, sound)]
    return encode_wav(np.concatenate(pieces[1:]), spec.sample_rate)
