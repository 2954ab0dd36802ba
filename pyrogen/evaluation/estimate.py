"""A figure with its error bar."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

from torch import Tensor

__all__ = ["Estimate", "mean"]


@dataclass(frozen=True)
class Estimate:
    """A figure, its standard error, and what it is measured in.

    Attributes:
        value: the figure.
        stderr: its standard error over the data; ``None`` where one number cannot tell.
        unit: nats, bits/dim, ...
        num_particles: draws of the guide for each datum, where there are.
    """

    value: float
    stderr: float | None
    unit: str
    num_particles: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, ``None`` for what is not finite; without ``num_particles`` where there are none."""
        value = self.value if isfinite(self.value) else None
        stderr = self.stderr if self.stderr is not None and isfinite(self.stderr) else None
        fields: dict[str, Any] = {"value": value, "stderr": stderr, "unit": self.unit}
        return fields if self.num_particles is None else fields | {"num_particles": self.num_particles}

    def scaled(self, factor: float, shift: float, unit: str) -> "Estimate":
        """Return ``shift + factor * value`` in another unit.

        Example:
            >>> Estimate(-2.0, 0.5, "nats").scaled(-1.0, 0.0, "nats lost").value
            2.0
        """
        stderr = None if self.stderr is None else abs(factor) * self.stderr
        return Estimate(shift + factor * self.value, stderr, unit, self.num_particles)


def mean(values: Tensor, unit: str, num_particles: int | None = None) -> Estimate:
    r"""Average values of shape ``(count,)``, with the standard error :math:`s / \sqrt{n}`.

    Example:
        >>> import torch
        >>> mean(torch.tensor([1.0, 3.0]), "nats")
        Estimate(value=2.0, stderr=1.0, unit='nats', num_particles=None)
    """
    values = values.double()
    stderr = float(values.std() / len(values) ** 0.5) if len(values) > 1 else None
    return Estimate(float(values.mean()), stderr, unit, num_particles)
