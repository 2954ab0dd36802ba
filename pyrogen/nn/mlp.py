"""Fully connected networks."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from pyrogen.errors import UsageError

__all__ = ["MLP", "check_widths"]


class MLP(nn.Sequential):
    """Linear layers with an activation between them, on the last dimension.

    Args:
        num_inputs: the size of the last dimension.
        num_outputs: the size of the last dimension of the result.
        hidden: the widths of the layers between.
        activation: makes the activation module.

    Example:
        >>> import torch
        >>> MLP(4, 2, hidden=(8, 8))(torch.zeros(3, 5, 4)).shape
        torch.Size([3, 5, 2])
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        hidden: Sequence[int] = (400,),
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise((num_inputs, *hidden)):
            layers += [nn.Linear(fan_in, fan_out), activation()]
        super().__init__(*layers, nn.Linear((num_inputs, *hidden)[-1], num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map shape ``(*batch, num_inputs)`` to ``(*batch, num_outputs)``."""
        return super().forward(x)


def check_widths(**widths: Sequence[int] | None) -> None:
    """Check settings that are widths of layers.

    Raises:
        UsageError: where a width is less than one, or there are none of ``channels``.

    Example:
        >>> check_widths(hidden=(400, 400), channels=None)
    """
    for setting, found in widths.items():
        if found is not None and (any(width < 1 for width in found) or (setting == "channels" and not found)):
            raise UsageError(f"{setting} must be widths of at least 1, found {list(found)}")
