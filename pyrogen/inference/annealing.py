"""Weights that change as training goes on."""

import math

import torch
from torch import Tensor, nn

__all__ = ["Annealing", "is_one", "present"]


class Annealing(nn.Module):
    r"""A weight that moves on a straight line from one value to another, and stays there.

    .. math:: \beta_t = \beta_0 + (\beta_1 - \beta_0) \min(t / T, 1)

    The step :math:`t` is a buffer: it is saved with the objective, moves to the device with it, and is read on the
    device. :meth:`advance` is called after each step of the programs by :func:`~pyrogen.inference.train`; under
    ``pyro.infer.SVI``, call ``objective.after_step("programs")`` yourself.

    Args:
        start: :math:`\beta_0`.
        end: :math:`\beta_1`.
        steps: :math:`T`, a number of steps, at least one.

    References:
        Generating Sentences from a Continuous Space (Bowman et al., 2016), https://arxiv.org/abs/1511.06349

    Example:
        >>> beta = Annealing(0.0, 1.0, steps=4)
        >>> beta.advance()
        >>> float(beta())
        0.25
    """

    step: Tensor

    def __init__(self, start: float, end: float, steps: int) -> None:
        super().__init__()
        if steps < 1 or not all(map(math.isfinite, (start, end))):
            raise ValueError(f"annealing needs finite ends and steps >= 1, found {start=}, {end=}, {steps=}")
        self.start, self.end, self.steps = start, end, steps
        self.register_buffer("step", torch.zeros(()))

    def forward(self) -> Tensor:
        """Return the present weight, a scalar on the module's device."""
        return self.start + (self.end - self.start) * (self.step / self.steps).clamp(max=1.0)

    def advance(self) -> None:
        """Count one step."""
        with torch.no_grad():
            self.step.add_(1.0)

    def extra_repr(self) -> str:
        return f"{self.start} -> {self.end} in {self.steps} steps"


def present(weight: float | Annealing) -> Tensor | float:
    """Return a weight as it is now."""
    return weight() if isinstance(weight, Annealing) else weight


def is_one(weight: float | Annealing) -> bool:
    """Say whether a weight is one, and stays so."""
    return not isinstance(weight, Annealing) and weight == 1.0
