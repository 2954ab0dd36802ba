"""A figure with its error bar."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from torch import Tensor

from pyrogen.spec import DataSpec

__all__ = ["Estimate", "mean"]


@dataclass(frozen=True)
class Estimate:
    """A figure, its standard error, and what it is measured in.

    Attributes:
        value: the figure.
        stderr: its standard error over the data; ``None`` where one number cannot tell.
        unit: nats, bits/dim, ...
        num_particles: draws of the guide for each datum, where there are.
        interval: the ends of a 95% interval, where a standard error does not tell how far it may be off.
        values: what it is made of, datum by datum, shape ``(data,)``; ``None`` where that is not at hand.
    """

    value: float
    stderr: float | None
    unit: str
    num_particles: int | None = None
    interval: tuple[float, float] | None = field(default=None, repr=False)
    values: Tensor | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, ``None`` for what is not finite; ``num_particles`` and ``interval`` where they are."""
        value = self.value if isfinite(self.value) else None
        stderr = self.stderr if self.stderr is not None and isfinite(self.stderr) else None
        fields: dict[str, Any] = {"value": value, "stderr": stderr, "unit": self.unit}
        further = {"num_particles": self.num_particles, "interval": self.interval and list(self.interval)}
        return fields | {name: value for name, value in further.items() if value is not None}

    def scaled(self, factor: float, shift: float, unit: str) -> "Estimate":
        """Return ``shift + factor * value`` in another unit.

        Example:
            >>> Estimate(-2.0, 0.5, "nats").scaled(-1.0, 0.0, "nats lost").value
            2.0
        """
        stderr = None if self.stderr is None else abs(factor) * self.stderr
        return Estimate(shift + factor * self.value, stderr, unit, self.num_particles)

    def plus(self, other: "Estimate", unit: str) -> "Estimate":
        """Add an estimate that is independent of this one; there is no error where either has none.

        Example:
            >>> Estimate(1.0, 3.0, "nats").plus(Estimate(2.0, 4.0, "nats"), "nats")
            Estimate(value=3.0, stderr=5.0, unit='nats', num_particles=None)
        """
        errors = self.stderr, other.stderr
        stderr = None if errors[0] is None or errors[1] is None else (errors[0] ** 2 + errors[1] ** 2) ** 0.5
        return Estimate(self.value + other.value, stderr, unit)

    def in_bits_per_dim(self, spec: DataSpec) -> "Estimate":
        """Return a log-likelihood in nats, or a bound of it, as bits per dimension of discrete or dequantised data.

        Raises:
            ValueError: where the data are real numbers, which have none.

        Example:
            >>> Estimate(0.0, None, "nats").in_bits_per_dim(DataSpec((2,), "dequantized", levels=256)).value
            8.0
        """
        at_zero, at_one = spec.bits_per_dim(0.0), spec.bits_per_dim(1.0)
        if at_zero is None or at_one is None:
            raise ValueError(f"{spec.kind} data have no bits per dimension")
        return self.scaled(at_one - at_zero, at_zero, "bits/dim")


def mean(values: Tensor, unit: str, num_particles: int | None = None) -> Estimate:
    r"""Average values of shape ``(count,)``, with the standard error :math:`s / \sqrt{n}`.

    Example:
        >>> import torch
        >>> mean(torch.tensor([1.0, 3.0]), "nats")
        Estimate(value=2.0, stderr=1.0, unit='nats', num_particles=None)
    """
    values = values.double()
    stderr = float(values.std() / len(values) ** 0.5) if len(values) > 1 else None
    return Estimate(float(values.mean()), stderr, unit, num_particles, values=values)
