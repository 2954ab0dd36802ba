"""Environments of gymnasium, as tensors."""

from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyrogen import catalogue
from pyrogen.data.copies import SeededCopies
from pyrogen.data.outcome import Outcome
from pyrogen.data.spaces import Observations, actions_of, spec_of
from pyrogen.data.vector_copies import VectorCopies
from pyrogen.errors import UsageError

if TYPE_CHECKING:
    from gymnasium import Env
    from gymnasium.vector import VectorEnv

__all__ = ["Episode", "GymnasiumEnvironment"]


class Episode(NamedTuple):
    """An episode that came to its end.

    Attributes:
        num_environment_steps: how many steps all copies had taken by then.
        total_reward: the sum of its rewards as the environment gave them, without discount.
        length: its number of steps.
    """

    num_environment_steps: int
    total_reward: float
    length: int


class GymnasiumEnvironment:
    r"""Copies of a gymnasium environment, on the CPU.

    Observations of a ``Box`` are float32, shape ``(environments, *shape)``, and of a ``Discrete`` space whole numbers
    from zero on. Actions are whole numbers from zero on, shape ``(environments,)``, or coordinates in :math:`(-1, 1)`,
    shape ``(environments, num_action_dims)``, scaled to the bounds of the space. An episode that terminates and is cut
    off in the same step has terminated.

    Every episode of every copy is reset with a seed of its own, derived from ``seed``, the copy and the episode's
    number. A state is these numbers and the actions of the episodes that are running, which are played again: to the
    bit, where an environment depends on nothing but its seed and its actions, and keeps nothing from one episode to the
    next. Where the observation that they lead to is another than before, loading fails.

    Args:
        env: an id of gymnasium such as ``"CartPole-v1"``, or the name of an installed entry point of the group
            ``pyrogen.environments``, a function that makes one copy; or a vector environment, whose state is not saved.
        num_environments: how many copies of an id.
        seed: at least 0.
        settings: of ``gymnasium.make``, for an id; or of the entry point's function.

    Attributes:
        spec: shapes of observations and actions.
        num_environment_steps: how many steps all copies have taken.
        episodes: those that came to their end, oldest first.

    Raises:
        UsageError: without gymnasium; where the id is not known or the environment cannot be made; for spaces of
            another kind, and actions without bounds; for actions that are none.
        DataError: while acting, where an environment raises an error or returns numbers that are none, with its id, the
            copy, the step and the seed of the episode.

    Example:
        >>> world = GymnasiumEnvironment("CartPole-v1", 3)
        >>> world.reset().shape, world.spec.num_actions
        (torch.Size([3, 4]), 2)
        >>> world.step(torch.tensor([0, 1, 0])).reward
        tensor([1., 1., 1.])
    """

    def __init__(self, env: "str | VectorEnv", num_environments: int = 1, seed: int = 0, **settings: Any) -> None:
        if num_environments < 1 or seed < 0:
            raise UsageError(
                f"num_environments must be at least 1 and seed at least 0, found {num_environments} and {seed}"
            )
        self.copies: SeededCopies | VectorCopies
        if isinstance(env, str):
            make = partial(_made, env, **settings)
            with closing(make()) as first:
                self.spec = spec_of(env, first.observation_space, first.action_space)
            observations = Observations(self.spec, first.observation_space)
            self.copies = SeededCopies(env, make, num_environments, seed, observations)
            actions = first.action_space
        else:
            name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
            self.spec = spec_of(name, env.single_observation_space, env.single_action_space)
            observations = Observations(self.spec, env.single_observation_space)
            self.copies = VectorCopies(name, env, seed, observations)
            actions = env.single_action_space
        self.num_environments = self.copies.num_environments
        self.num_environment_steps = 0
        self.episodes: list[Episode] = []
        self._actions = actions_of(actions, self.num_environments)
        self._rewards = np.zeros(self.num_environments)
        self._lengths = np.zeros(self.num_environments, int)

    def reset(self) -> Tensor:
        """Begin an episode in each copy."""
        observation = self.copies.reset()
        self._rewards, self._lengths = np.zeros_like(self._rewards), np.zeros_like(self._lengths)
        return torch.from_numpy(observation)

    def step(self, action: Tensor) -> Outcome:
        """Act in each copy."""
        moved = self.copies.step(self._actions(action))
        self._count(moved.reward, moved.terminated | moved.truncated)
        next_observation = torch.from_numpy(moved.next_observation)
        return Outcome(
            torch.from_numpy(moved.reward),
            next_observation,
            torch.from_numpy(moved.terminated),
            torch.from_numpy(moved.truncated & ~moved.terminated),
            next_observation if moved.observation is moved.next_observation else torch.from_numpy(moved.observation),
        )

    def render(self) -> list[np.ndarray]:
        """Draw each copy that was made with ``render_mode="rgb_array"``, shape ``(height, width, 3)``."""
        assert isinstance(self.copies, SeededCopies)
        return [env.render() for env in self.copies.envs]

    def close(self) -> None:
        """Close the copies."""
        self.copies.close()

    def _count(self, reward: np.ndarray, ended: np.ndarray) -> None:
        self.num_environment_steps += len(reward)
        self._rewards += reward
        self._lengths += 1
        if ended.any():
            for copy in ended.nonzero()[0]:
                total, length = float(self._rewards[copy]), int(self._lengths[copy])
                self.episodes.append(Episode(self.num_environment_steps, total, length))
            self._rewards[ended], self._lengths[ended] = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        """Return where the copies are, and the episodes that came to their end."""
        return {
            "copies": self.copies.state_dict(),
            "num_environment_steps": self.num_environment_steps,
            "episodes": torch.tensor(self.episodes, dtype=torch.float64).reshape(-1, 3),
            "rewards": torch.from_numpy(self._rewards.copy()),
            "lengths": torch.from_numpy(self._lengths.copy()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state, by playing its episodes again.

        Raises:
            DataError: where an environment fails while it is played again.
        """
        self.copies.load_state_dict(state["copies"])
        self.num_environment_steps = state["num_environment_steps"]
        self.episodes = [Episode(int(n), total, int(length)) for n, total, length in state["episodes"].tolist()]
        self._rewards, self._lengths = state["rewards"].numpy().copy(), state["lengths"].numpy().copy()


def _made(name: str, **settings: Any) -> "Env":
    """Make one copy, without a checker of each step.

    Raises:
        UsageError: with the nearest names, or whatever its making raises.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise UsageError("environments need gymnasium: pip install 'pyrogen-ppl[rl]'") from error
    make: Callable[..., Env]
    if name in gymnasium.registry:
        make = partial(gymnasium.make, name, disable_env_checker=True)
    elif name in (installed := catalogue.names("environment")):
        make = catalogue.find("environment", name)
    else:
        raise UsageError(
            f"no environment is registered by the id {name}"
            f"{catalogue.suggestion(name, [*gymnasium.registry, *installed])}: gymnasium.register(...) one of your own "
            f"before, or let its package install an entry point of pyrogen.environments"
        )
    try:
        return make(**settings)
    except Exception as error:  # an environment's own, of whatever kind
        raise UsageError(
            f"{name} cannot be made with the settings {settings}: {type(error).__name__}: {error}"
        ) from error
