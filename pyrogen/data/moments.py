"""Mean and variance of rows that come one batch after the other."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["Moments"]

EPSILON = 1e-8


class Moments:
    r"""Mean and variance of all rows so far, in float64, one batch after the other.

    .. math::
        w = \frac{k}{n + k}, \quad \delta = \bar{x} - m, \quad m' = m + w \delta, \quad
        v' = v + w (s^2 - v) + w (1 - w) \delta^2

    with mean :math:`\bar{x}` and variance :math:`s^2` of :math:`k` new rows, after :math:`n`.

    References:
        Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (Chan, Golub and LeVeque, 1979),
        http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf

    Attributes:
        count: how many rows there were.
        mean: of them.
        scale: one over the standard deviation, for which one stands before there are two rows.

    Example:
        >>> moments = Moments()
        >>> for rows in (torch.tensor([1.0, 2.0]), torch.tensor([6.0])):
        ...     moments.update(rows)
        >>> moments.mean.item(), round(moments.variance.item(), 3)
        (3.0, 4.667)
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros((), dtype=torch.float64)
        self.variance = torch.zeros((), dtype=torch.float64)
        self.scale = torch.ones((), dtype=torch.float64)

    def update(self, rows: Tensor) -> None:
        """Count in rows, first dimension."""
        variance, mean = torch.var_mean(rows.double(), 0, correction=0)
        self.count += len(rows)
        w = len(rows) / self.count
        delta = mean - self.mean.to(mean.device)
        self.mean = self.mean.to(mean.device) + w * delta
        self.variance = torch.lerp(self.variance.to(mean.device), variance, w).addcmul(delta, delta, value=w * (1 - w))
        self._rescale()

    def _rescale(self) -> None:
        self.scale = (self.variance + EPSILON).rsqrt() if self.count > 1 else torch.ones_like(self.variance)

    def state_dict(self) -> dict[str, Any]:
        """Return the numbers that the next rows are counted in to."""
        return {"count": self.count, "mean": self.mean, "variance": self.variance}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""
        self.count, self.mean, self.variance = state["count"], state["mean"], state["variance"]
        self._rescale()
