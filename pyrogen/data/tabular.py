"""Environments that are a Markov decision process whose numbers are known."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyrogen.data.outcome import Outcome
from pyrogen.errors import UsageError
from pyrogen.mdp import MDP, check_distribution

__all__ = ["TabularEnvironment"]


class TabularEnvironment:
    r"""Copies of a Markov decision process, which take their steps together, on the device of its numbers.

    The state is observed. With a horizon it is part of the task that only so many steps are left: the observation is
    :math:`t S + s`, and an episode *terminates* after the last. A time limit is none of the task's: the observation
    does not tell, and an episode is *truncated*.

    Args:
        mdp: the decision process.
        num_environments: how many copies.
        start: the state that episodes begin in, or the distribution of it, shape ``(S,)``; uniform if not given.
        horizon: how many steps an episode has.
        time_limit: after how many steps an episode is cut off.

    Raises:
        UsageError: where a number is less than one, or the start is no state or distribution of states.

    Example:
        >>> mdp = MDP(torch.full((4, 2, 4), 0.25), torch.ones(4, 2))
        >>> world = TabularEnvironment(mdp, 3, start=1, horizon=5)
        >>> world.reset(), world.num_observations
        (tensor([1, 1, 1]), 24)
        >>> world.step(torch.tensor([0, 1, 0])).reward
        tensor([1., 1., 1.])
    """

    def __init__(
        self,
        mdp: MDP,
        num_environments: int,
        start: int | Tensor | None = None,
        *,
        horizon: int | None = None,
        time_limit: int | None = None,
    ) -> None:
        numbers = {"num_environments": num_environments, "horizon": horizon, "time_limit": time_limit}
        for name, number in numbers.items():
            if number is not None and number < 1:
                raise UsageError(f"{name} must be at least 1, found {number}")
        self.mdp = mdp
        self.num_environments = num_environments
        self.start = _distribution_of_start(mdp, start)
        self.horizon, self.time_limit = horizon, time_limit
        self.state = self._begin()
        self.time = torch.zeros_like(self.state)

    @property
    def num_observations(self) -> int:
        """How many different observations there are, those after the last step included."""
        return self.mdp.num_states * (1 if self.horizon is None else self.horizon + 1)

    def reset(self) -> Tensor:
        """Begin an episode in each copy."""
        self.state, self.time = self._begin(), torch.zeros_like(self.time)
        return self._observed()

    def step(self, action: Tensor) -> Outcome:
        """Act by numbers of actions, shape ``(environments,)``.

        Raises:
            UsageError: where they are no whole numbers, or not those of actions.
        """
        self._check(action)
        action = action.to(self.state.device)
        reward = self.mdp.rewards[self.state, action]
        self.state = torch.multinomial(self.mdp.transitions[self.state, action], 1).squeeze(-1)
        self.time = self.time + 1
        next_observation = self._observed()
        terminated = self._after(self.horizon)
        truncated = self._after(self.time_limit) & ~terminated
        ended = terminated | truncated
        self.state = torch.where(ended, self._begin(), self.state)
        self.time = torch.where(ended, torch.zeros_like(self.time), self.time)
        return Outcome(reward, next_observation, terminated, truncated, self._observed())

    def _check(self, action: Tensor) -> None:
        if action.is_floating_point() or action.dtype == torch.bool or action.shape != (self.num_environments,):
            raise UsageError(
                f"found actions of {action.dtype}, shape {tuple(action.shape)}, expected whole numbers, shape "
                f"({self.num_environments},), as a Categorical draws them"
            )
        wrong = ((action < 0) | (action >= self.mdp.num_actions)).nonzero()
        if len(wrong):
            raise UsageError(
                f"environment {int(wrong[0])} was given action {int(action[wrong[0]])}, expected one from 0 to "
                f"{self.mdp.num_actions - 1}"
            )

    def _begin(self) -> Tensor:
        return torch.multinomial(self.start, self.num_environments, replacement=True)

    def _observed(self) -> Tensor:
        return self.state if self.horizon is None else self.time * self.mdp.num_states + self.state

    def _after(self, steps: int | None) -> Tensor:
        return torch.zeros_like(self.time, dtype=torch.bool) if steps is None else self.time >= steps

    def state_dict(self) -> dict[str, Any]:
        """Return each copy's state, and the number of steps of its episode so far."""
        return {"state": self.state, "time": self.time}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""
        self.state, self.time = (state[name].to(self.state.device) for name in ("state", "time"))


def _distribution_of_start(mdp: MDP, start: int | Tensor | None) -> Tensor:
    S = mdp.num_states
    if start is None:
        return torch.full_like(mdp.rewards[:, 0], 1 / S)
    if isinstance(start, int):
        if not 0 <= start < S:
            raise UsageError(f"start must be a state from 0 to {S - 1}, found {start}")
        probabilities = torch.zeros_like(mdp.rewards[:, 0])
        probabilities[start] = 1.0
        return probabilities
    if tuple(start.shape) != (S,):
        raise UsageError(f"start must have shape ({S},), one for each state; found {tuple(start.shape)}")
    check_distribution("start", start)
    return start
