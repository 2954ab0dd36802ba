"""Sounds for the eye: waves and spectrograms."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann
from torch import Tensor

from pyrogen import pictures
from pyrogen.pictures import Drawing, Ink
from pyrogen.sounds import amplitudes
from pyrogen.spec import DataSpec

__all__ = ["sound_rows"]

WINDOW, DYNAMICS = 0.025, 70.0
"""Seconds that a column of a spectrogram looks at, and how far below the loudest it shows, in decibels."""


def sound_rows(x: Tensor, spec: DataSpec) -> Drawing:
    """Draw sounds of shape ``(count, time)``, each in a row: its wave, and its spectrogram in decibels."""
    rate, waves = spec.sample_rate or 1, amplitudes(x, spec)
    loudest = max(float(np.abs(waves).max()), 1e-3)

    def paint(axes: NDArray[np.object_], ink: Ink) -> None:
        for (left, right), wave in zip(axes, waves, strict=True):
            left.plot(np.arange(len(wave)) / rate, wave, color=ink.series[0], linewidth=0.5)
            left.set(xlim=(0, len(wave) / rate), ylim=(-1.05 * loudest, 1.05 * loudest), ylabel="amplitude")
            _spectrogram(right, wave, rate)
        for last in axes[-1]:
            last.set(xlabel="seconds")

    return pictures.draw_panels(paint, (7.4, 0.4 + 1.45 * len(waves)), (len(waves), 2))


def _spectrogram(axes: Axes, wave: NDArray[np.float64], rate: int) -> None:
    size = min(len(wave), max(8, round(WINDOW * rate)))
    transform = ShortTimeFFT(hann(size), max(1, size // 4), rate, mfft=max(256, size))
    power = transform.spectrogram(wave)
    decibels = 10 * np.log10(np.maximum(power / max(power.max(), 1e-12), 1e-12))
    begin, end, low, high = transform.extent(len(wave))
    extent = (begin, end, low / 1000, high / 1000)
    axes.imshow(decibels, cmap="magma", vmin=-DYNAMICS, vmax=0.0, origin="lower", aspect="auto", extent=extent)
    axes.set(xlim=(0, len(wave) / rate), ylabel="kHz")
