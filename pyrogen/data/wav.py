"""Sounds in WAV files: what they hold as amplitudes, and amplitudes as a file that plays."""

import struct
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.io import wavfile

from pyrogen.errors import DataError, MissingInputError

__all__ = ["SUFFIX", "Sound", "encode_wav", "read_wav"]

SUFFIX = ".wav"
MAX_BYTES = 2 * 2**30
# What SciPy raises for files that are damaged or made up.
DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    ZeroDivisionError,
    MemoryError,
    UnboundLocalError,
    struct.error,
    UserWarning,
)


class Sound(NamedTuple):
    """A sound of one channel.

    Attributes:
        rate: samples a second.
        x: amplitudes in [-1, 1], float32 of shape ``(time,)``.
    """

    rate: int
    x: NDArray[np.float32]


def read_wav(path: str | Path) -> Sound:
    """Read a WAV file of 8, 16, 24 or 32 bits, or of floats; several channels become their mean.

    Whole numbers are divided by the largest that their bits can hold: full scale is 1.

    Raises:
        MissingInputError: no such file.
        DataError: damaged or cut off, another encoding, no samples, or amplitudes that are not finite or beyond 1.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file; expected a .wav file")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_BYTES}. Cut it into several files")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", wavfile.WavFileWarning)
            # Names of pieces, marks and the like stand in chunks that are passed over.
            warnings.filterwarnings("ignore", "Chunk .non-data. not understood", wavfile.WavFileWarning)
            rate, samples = wavfile.read(path)
    except DAMAGE as error:
        raise DataError(f"{path}: not a readable WAV file ({error}). Save it again as PCM of 16 bits") from error
    if rate < 1 or not samples.size:
        raise DataError(f"{path}: {samples.shape[0]} samples at {rate} a second; expected a sound. Remove the file")
    x = amplitudes(samples)
    peak = np.abs(x).max()
    if not peak <= 1:  # not a number included
        raise DataError(f"{path}: amplitudes up to {peak:.4g}, expected numbers within [-1, 1]. Scale the sound down")
    return Sound(int(rate), x.astype(np.float32))


def amplitudes(samples: NDArray[Any]) -> NDArray[np.float64]:
    """Map samples of shape ``(time,)`` or ``(time, channels)`` to their mean over channels, full scale being 1.

    Example:
        >>> amplitudes(np.array([[-(2**15), 2**14]], dtype=np.int16)), amplitudes(np.array([128, 0], dtype=np.uint8))
        (array([-0.25]), array([ 0., -1.]))
    """
    x = samples.astype(np.float64)
    if samples.dtype.kind == "u":  # eight bits, whose silence is in the middle
        x = x / 128 - 1
    elif samples.dtype.kind == "i":
        x = x / 2.0 ** (8 * samples.dtype.itemsize - 1)
    return x if x.ndim == 1 else x.mean(1)


def encode_wav(x: NDArray[Any], rate: int) -> bytes:
    """Return amplitudes in [-1, 1], shape ``(time,)``, as a WAV file of 16 bits and one channel.

    Example:
        >>> len(encode_wav(np.zeros(100), 8000)) - 2 * 100  # the header's
        44
    """
    buffer = BytesIO()
    wavfile.write(buffer, rate, np.rint(x * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16))
    return buffer.getvalue()
