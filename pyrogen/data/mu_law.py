r"""Sounds as levels, and back, by the mu-law: fine steps where it is quiet, coarse ones where it is loud.

.. math:: f(x) = \operatorname{sign}(x) \frac{\ln(1 + \mu |x|)}{\ln(1 + \mu)}, \qquad x \in [-1, 1]

References:
    Pulse Code Modulation (PCM) of Voice Frequencies (ITU-T, 1988), https://www.itu.int/rec/T-REC-G.711
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrogen.data.checks import MAX_LEVELS
from pyrogen.errors import UsageError

__all__ = ["from_mu_law", "to_mu_law"]


def to_mu_law(x: NDArray[Any], levels: int = MAX_LEVELS) -> NDArray[np.uint8]:
    r"""Map amplitudes in [-1, 1] to levels :math:`0, \dots, \mu`, where :math:`\mu` is ``levels - 1``.

    .. math:: k = \operatorname{round}\!\left(\mu \, \frac{f(x) + 1}{2}\right)

    Zero is half-way between two levels where there is an even number of them, and becomes the upper one.

    Args:
        x: amplitudes, of any shape.
        levels: how many, from 2 to 256.

    Raises:
        UsageError: another number of levels.

    Example:
        >>> to_mu_law(np.array([-1.0, -0.01, 0.0, 0.01, 1.0]))
        array([  0,  98, 128, 157, 255], dtype=uint8)
    """
    mu = _mu(levels)
    f = np.sign(x) * np.log1p(mu * np.abs(x, dtype=np.float64)) / np.log1p(mu)
    return np.floor(mu * (f + 1) / 2 + 0.5).astype(np.uint8)


def from_mu_law(codes: NDArray[Any], levels: int = MAX_LEVELS) -> NDArray[np.float64]:
    r"""Map levels to the amplitudes in their middle; :func:`to_mu_law` maps these to the same levels.

    .. math:: x = \operatorname{sign}(y) \frac{(1 + \mu)^{|y|} - 1}{\mu}, \qquad y = \frac{2 k}{\mu} - 1

    Args:
        codes: levels, of any shape, whole numbers though they may be floats.
        levels: how many there are, from 2 to 256.

    Raises:
        UsageError: another number of levels.

    Example:
        >>> from_mu_law(np.array([0, 128, 255])).round(6)
        array([-1.0e+00,  8.6e-05,  1.0e+00])
    """
    mu = _mu(levels)
    y = 2 * codes.astype(np.float64) / mu - 1
    return np.sign(y) * np.expm1(np.abs(y) * np.log1p(mu)) / mu


def _mu(levels: int) -> int:
    if isinstance(levels, bool) or not isinstance(levels, int) or not 2 <= levels <= MAX_LEVELS:
        raise UsageError(f"levels={levels!r}: expected a whole number from 2 to {MAX_LEVELS}")
    return levels - 1
