"""Copies of one gymnasium environment, stepped in a loop, each of whose episodes has a seed of its own."""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch

from pyrogen.data.spaces import Observations
from pyrogen.errors import DataError, UsageError

__all__ = ["Moved", "SeededCopies", "check_finite", "episode_seed"]


ANEW = "Its state is more than seed and actions: let reset(seed=...) seed all of it, or begin a new run"
"""What to do where an episode cannot be played again."""


class Moved(NamedTuple):
    """What a step brought to several copies, as arrays; :class:`~pyrogen.data.Outcome` says what they are."""

    reward: np.ndarray
    next_observation: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    observation: np.ndarray


def episode_seed(seed: int, copy: int, episode: int) -> int:
    """Return the seed of one episode of one copy: the same wherever and in whatever order it is played.

    What a seed has above 32 bits is a stream of its own: streams have no episode in common, whatever is below.

    Example:
        >>> episode_seed(0, 1, 2) == episode_seed(0, 1, 2) != episode_seed(0, 2, 1)
        True
    """
    stream, seed = divmod(seed, 2**32)
    key = (stream,) if stream else ()
    return int(np.random.SeedSequence([seed, copy, episode], spawn_key=key).generate_state(1)[0])


def check_finite(observation: np.ndarray, reward: np.ndarray | None = None) -> tuple[str, int] | None:
    """Name the first column that has a number which is none, and the copy; ``None`` where all are finite."""
    for name, values in (("an observation", observation), ("a reward", reward)):
        if values is None or values.dtype.kind != "f":
            continue
        flat = values.reshape(-1)
        # The square of what is not finite is not, and one product is faster than a look at each: it is done every step.
        if not isfinite(flat.dot(flat)) and not np.isfinite(flat).all():
            return name, int((~np.isfinite(values)).reshape(len(values), -1).any(-1).argmax())
    return None


class SeededCopies:
    """Copies that are reset with seeds of their own, so that an episode's seed and actions say where it is.

    A state is those: the environment itself is not saved but played again. That goes back to the same place to the bit
    where an environment is a function of the seed that it was reset with and the actions since.

    Args:
        name: what the environment is called.
        make: makes one copy.
        num_environments: how many copies.
        seed: what the seeds of episodes are derived from.
        observations: makes arrays of what copies return.
    """

    def __init__(
        self, name: str, make: Callable[[], Any], num_environments: int, seed: int, observations: Observations
    ) -> None:
        self.name, self.make, self.seed, self.observations = name, make, seed, observations
        self.num_environments = num_environments
        self.envs: list[Any] = []
        self.episodes = [-1] * num_environments
        self.actions: list[list[Any]] = [[] for _ in range(num_environments)]
        self.observation: np.ndarray | None = None

    def reset(self) -> np.ndarray:
        """Begin the next episode of each copy."""
        self._open()
        episodes = [episode + 1 for episode in self.episodes]
        rows = self.observations([self._begun(copy, episode) for copy, episode in enumerate(episodes)])
        self.episodes, self.actions, self.observation = episodes, [[] for _ in episodes], rows
        return rows

    def step(self, actions: np.ndarray) -> Moved:
        """Act in each copy, and begin the next episode where one ended; where that fails, nothing has happened.

        Raises:
            DataError: where an environment raises an error or returns numbers that are none.
        """
        if not self.envs:
            raise UsageError(f"{self.name} was closed: begin with reset(), or load a state")
        taken = list(actions)
        copy, results = 0, []
        try:
            for copy, env in enumerate(self.envs):
                results.append(env.step(taken[copy]))
        except Exception as error:
            self._fail(copy, f"raised {type(error).__name__}: {error}", error)
        observed, reward, terminated, truncated, _ = zip(*results, strict=True)
        ended = [copy for copy in range(len(results)) if terminated[copy] or truncated[copy]]
        next_observation, rewards = self.observations(observed), np.array(reward, np.float32)
        broken = check_finite(next_observation, rewards)
        if broken is not None:
            self._fail(broken[1], f"returned {broken[0]} that is not finite")
        observation = self._begin_again(next_observation, ended)
        for copy, action in enumerate(taken):
            self.actions[copy].append(action)
        for copy in ended:
            self.episodes[copy] += 1
            self.actions[copy] = []
        self.observation = observation
        return Moved(rewards, next_observation, np.array(terminated, bool), np.array(truncated, bool), observation)

    def close(self) -> None:
        """Close the copies; :meth:`reset` and :meth:`load_state_dict` make new ones."""
        for env in self.envs:
            env.close()
        self.envs = []

    def state_dict(self) -> dict[str, Any]:
        """Return the number of each copy's episode, and its actions so far."""
        return {
            "seed": self.seed,
            "episodes": list(self.episodes),
            "actions": [torch.as_tensor(np.array(actions)) if actions else None for actions in self.actions],
            "observation": None if self.observation is None else torch.as_tensor(self.observation),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Play the running episodes again.

        Raises:
            UsageError: where there were more or fewer copies.
            DataError: where they lead elsewhere than before.
        """
        if len(state["episodes"]) != self.num_environments:
            raise UsageError(
                f"{self.name} was saved with {len(state['episodes'])} copies, and there are {self.num_environments}: "
                f"make as many"
            )
        self.seed, self.episodes, self.observation = state["seed"], list(state["episodes"]), None
        self.actions = [[] if played is None else list(played.numpy()) for played in state["actions"]]
        if state["observation"] is None:
            return
        self._open()
        self.observation = self.observations([self._replayed(copy) for copy in range(self.num_environments)])
        for copy, (here, there) in enumerate(zip(self.observation, state["observation"].numpy(), strict=True)):
            if not np.array_equal(here, there):
                what = "did not come back to where it was saved, by the same seed and actions"
                self._fail(copy, what, at=(self.episodes[copy], len(self.actions[copy])), advice=ANEW)

    def _open(self) -> None:
        self.envs = self.envs or [self.make() for _ in range(self.num_environments)]

    def _begin_again(self, observation: np.ndarray, ended: list[int]) -> np.ndarray:
        if not ended:
            return observation
        observation = observation.copy()
        for copy in ended:
            observation[copy] = self.observations([self._begun(copy, self.episodes[copy] + 1)])[0]
        return observation

    def _begun(self, copy: int, episode: int) -> Any:
        try:
            observation, _ = self.envs[copy].reset(seed=episode_seed(self.seed, copy, episode))
        except Exception as error:
            self._fail(copy, f"raised {type(error).__name__}: {error}", error, (episode, 0))
        if check_finite(self.observations([observation])):
            self._fail(copy, "returned an observation that is not finite", None, (episode, 0))
        return observation

    def _replayed(self, copy: int) -> Any:
        episode = self.episodes[copy]
        observation = self._begun(copy, episode)
        for step, action in enumerate(self.actions[copy], 1):
            try:
                observation, *_ = self.envs[copy].step(action)
            except Exception as error:
                what = f"raised {type(error).__name__} when it was played again: {error}"
                self._fail(copy, what, error, at=(episode, step), advice=ANEW)
        return observation

    def _fail(
        self,
        copy: int,
        what: str,
        cause: Exception | None = None,
        at: tuple[int, int] | None = None,
        advice: str = "Look at what the environment does there",
    ) -> NoReturn:
        """Close all copies and say where it was: at the step that was being taken, if not at that of an episode."""
        self.close()
        episode, step = at or (self.episodes[copy], len(self.actions[copy]) + 1)
        raise DataError(
            f"{self.name} {what}: copy {copy}, step {step} of the episode with seed "
            f"{episode_seed(self.seed, copy, episode)}. {advice}. All copies are closed, and what was recorded before "
            f"is as it was"
        ) from cause
