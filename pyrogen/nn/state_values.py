"""Values of states, for critics of policies."""

from collections.abc import Callable, Sequence
from math import prod

from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.nn.mlp import MLP, check_widths

__all__ = ["StateValues"]


class StateValues(nn.Module):
    r"""A fully connected network of observations, in a unit of its own: :math:`V(s) = c \, f(s)`.

    A soft value is a sum of many rewards over a temperature, and a network's outputs begin near one. Where :math:`c` is
    one over the temperature, the network says values in the unit of rewards, whatever the temperature is.

    Args:
        observation_shape: of an observation of real numbers.
        num_observations: how many observations there are, where they are whole numbers: the first layer is then a
            table, and with ``hidden=()`` the only one.
        hidden: the widths of the layers between.
        activation: makes the activation module.
        scale: :math:`c`.

    Raises:
        UsageError: where a width is less than one, the scale is not above zero, or both or none of
            ``observation_shape`` and ``num_observations`` are given.

    Example:
        >>> import torch
        >>> StateValues((4,), scale=10.0)(torch.zeros(5, 3, 4)).shape
        torch.Size([5, 3])
        >>> StateValues(num_observations=7, hidden=())(torch.tensor([[0, 6]])).shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        observation_shape: Sequence[int] = (),
        *,
        num_observations: int | None = None,
        hidden: Sequence[int] = (64, 64),
        activation: Callable[[], nn.Module] = nn.Tanh,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_widths(hidden=hidden)
        if bool(observation_shape) == (num_observations is not None):
            raise UsageError(
                f"pass observation_shape, for real numbers, or num_observations, for whole ones; found "
                f"{tuple(observation_shape)} and {num_observations}"
            )
        if not scale > 0:
            raise UsageError(f"scale must be above 0, found {scale}")
        self.observation_shape, self.scale = tuple(observation_shape), scale
        if num_observations is None:
            self.network: nn.Module = MLP(prod(observation_shape), 1, hidden, activation)
        elif not hidden:
            self.network = nn.Embedding(num_observations, 1)
        else:
            table = nn.Embedding(num_observations, hidden[0])
            self.network = nn.Sequential(table, activation(), MLP(hidden[0], 1, hidden[1:], activation))

    def forward(self, observation: Tensor) -> Tensor:
        """Map observations of shape ``(*batch, *observation_shape)`` to values of shape ``(*batch,)``."""
        dims = len(self.observation_shape)
        rows = observation.flatten(observation.dim() - dims) if dims else observation
        return self.scale * self.network(rows).squeeze(-1)
