"""Values of actions by several networks at once."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from pyrogen.errors import UsageError

__all__ = ["ActionValues"]


class StackedLinear(nn.Module):
    r"""A linear layer of each of several networks, all by one product of matrices: :math:`y_i = x_i W_i + b_i`."""

    def __init__(self, num_networks: int, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_networks, num_inputs, num_outputs))
        self.bias = nn.Parameter(torch.empty(num_networks, 1, num_outputs))
        for p in (self.weight, self.bias):
            nn.init.uniform_(p, -(num_inputs**-0.5), num_inputs**-0.5)  # as in nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """Map shape ``(num_networks, rows, num_inputs)`` to ``(num_networks, rows, num_outputs)``."""
        return torch.baddbmm(self.bias, x, self.weight)


class ActionValues(nn.Module):
    r"""Several networks of one architecture, which begin apart and are computed together: :math:`Q_i = c \, f_i(s, a)`.

    Actions are either choices, of each of which a network says a value, or lie in a box, and are among its inputs.
    Observations that are whole numbers choose a row of the first layer, as a one-hot vector would; with ``hidden=()``
    that is a table.

    Args:
        observation_shape: of an observation of real numbers.
        num_observations: how many observations there are, where they are whole numbers.
        num_actions: how many choices there are,
        num_action_dims: or how many coordinates an action in a box has.
        num_critics: the number of networks.
        hidden: the widths of their layers between.
        activation: makes the activation module.
        scale: :math:`c`; one over the temperature, where networks are to begin in the unit of rewards.

    Raises:
        UsageError: where the scale is not above zero, a number less than one, both or none of ``num_actions`` and
            ``num_action_dims`` are given, or, in a call, an action in a box is missing.

    Example:
        >>> state, action = torch.zeros(5, 3, 4), torch.zeros(5, 3, 2)
        >>> ActionValues((4,), num_action_dims=2)(state, action).shape
        torch.Size([2, 5, 3])
        >>> ActionValues((4,), num_actions=6)(state).shape
        torch.Size([2, 5, 3, 6])
        >>> ActionValues(num_observations=7, num_actions=6, hidden=())(torch.tensor([0, 6]), torch.tensor([5, 5])).shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        observation_shape: Sequence[int] = (),
        *,
        num_observations: int | None = None,
        num_actions: int | None = None,
        num_action_dims: int | None = None,
        num_critics: int = 2,
        hidden: Sequence[int] = (256, 256),
        activation: Callable[[], nn.Module] = nn.ReLU,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if not scale > 0:
            raise UsageError(f"scale must be above 0, found {scale}")
        if (num_actions is None) == (num_action_dims is None):
            raise UsageError(
                f"pass num_actions, for choices, or num_action_dims, for a box; found {num_actions} and "
                f"{num_action_dims}"
            )
        numbers = [num_critics, *hidden, num_observations, num_actions, num_action_dims]
        if any(number is not None and number < 1 for number in numbers):
            raise UsageError(
                f"num_critics, hidden, num_observations, num_actions and num_action_dims must be at least 1, found "
                f"{num_critics}, {list(hidden)}, {num_observations}, {num_actions} and {num_action_dims}"
            )
        self.observation_shape, self.num_observations = tuple(observation_shape), num_observations
        self.num_critics, self.num_actions, self.num_action_dims = num_critics, num_actions, num_action_dims
        num_inputs = (num_observations or prod(observation_shape)) + (num_action_dims or 0)
        widths = (*hidden, num_actions or 1)
        self.first = StackedLinear(num_critics, num_inputs, widths[0])
        self.layers = nn.ModuleList(StackedLinear(num_critics, *pair) for pair in pairwise(widths))
        self.activation, self.scale = activation(), scale

    def forward(self, observation: Tensor, action: Tensor | None = None) -> Tensor:
        """Return the values of actions, shape ``(num_critics, *batch)``.

        Args:
            observation: shape ``(*batch, *observation_shape)``.
            action: shape ``(*batch,)``, whole numbers, or ``(*batch, num_action_dims)``. Without, the values of all
                choices are returned, shape ``(num_critics, *batch, num_actions)``.
        """
        batch = observation.shape[: observation.dim() - len(self.observation_shape)]
        if self.num_action_dims is not None and action is None:
            raise UsageError("an action in a box has no value unless it is given: pass the observation and the action")
        x = self._first(observation, None if self.num_action_dims is None else action)
        for layer in self.layers:
            x = layer(self.activation(x))
        values = self.scale * x.reshape(self.num_critics, *batch, -1)
        if action is None:
            return values
        if self.num_action_dims is not None:
            return values.squeeze(-1)
        return values.gather(-1, action.long().expand(self.num_critics, *batch).unsqueeze(-1)).squeeze(-1)

    def _first(self, observation: Tensor, action: Tensor | None) -> Tensor:
        given = [] if action is None else [action.reshape(-1, action.shape[-1])]
        if self.num_observations is None:
            rows = torch.cat([observation.reshape(-1, prod(self.observation_shape)), *given], -1)
            return self.first(rows.expand(self.num_critics, *rows.shape))
        x = self.first.bias + self.first.weight.index_select(1, observation.reshape(-1).long())
        for rows in given:
            of_action = self.first.weight[:, self.num_observations :]
            x = torch.baddbmm(x, rows.expand(self.num_critics, *rows.shape), of_action)
        return x

    def extra_repr(self) -> str:
        return f"num_critics={self.num_critics}, num_actions={self.num_actions}, num_action_dims={self.num_action_dims}"
