"""A vector environment of gymnasium's, made to begin a new episode in the same step that ends one."""

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from pyrogen.data.copies import Moved, check_finite
from pyrogen.data.spaces import Observations
from pyrogen.errors import DataError, UsageError

__all__ = ["VectorCopies"]


class VectorCopies:
    """Copies in a vector environment, in any of gymnasium's modes of beginning a new episode.

    In ``SAME_STEP`` the vector environment does that itself. In ``DISABLED`` and ``NEXT_STEP`` the copies that ended
    are reset here, by a mask: a ``NEXT_STEP`` environment would else ignore their next action, return reward zero and
    call the new episode's start what followed, and that transition never came about.

    Args:
        name: what the environment is called.
        env: the vector environment.
        seed: what the first reset is seeded with.
        observations: makes arrays of what copies return.

    Raises:
        UsageError: where the mode is not known, or a mask would be ignored.
    """

    def __init__(self, name: str, env: Any, seed: int, observations: Observations) -> None:
        self.name, self.env, self.seed, self.observations = name, env, seed, observations
        self.num_environments = int(env.num_envs)
        self.resets_itself = _resets_itself(name, env)
        self.seeded = False
        self.steps = np.zeros(self.num_environments, int)

    def reset(self) -> np.ndarray:
        """Begin an episode in each copy."""
        try:
            rows, _ = self.env.reset(seed=None if self.seeded else self.seed)
        except Exception as error:
            self._fail(None, f"could not be reset, {type(error).__name__}: {error}", error)
        self.seeded, self.steps = True, np.zeros_like(self.steps)
        return self._checked(self.observations(rows))

    def step(self, actions: np.ndarray) -> Moved:
        """Act in each copy, and begin a new episode where one ended.

        Raises:
            DataError: where an environment raises an error or returns numbers that are none.
        """
        try:
            rows, reward, terminated, truncated, info = self.env.step(actions)
            ended = terminated | truncated
            next_observation = observation = self.observations(rows)
            if ended.any() and self.resets_itself:
                next_observation = observation.copy()
                for copy in ended.nonzero()[0]:
                    next_observation[copy] = self.observations([info["final_obs"][copy]])[0]
            elif ended.any():
                begun, _ = self.env.reset(options={"reset_mask": ended})
                observation = self.observations(begun)
        except Exception as error:
            self._fail(None, f"raised {type(error).__name__}: {error}", error)
        rewards = reward.astype(np.float32)
        self._checked(next_observation, rewards)
        self._checked(observation)
        self.steps = np.where(ended, 0, self.steps + 1)
        return Moved(rewards, next_observation, terminated.copy(), truncated.copy(), observation)

    def close(self) -> None:
        """Close the vector environment and its workers."""
        self.env.close()

    def state_dict(self) -> dict[str, Any]:
        """Refuse: where a vector environment is cannot be read from it.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"where the vector environment {self.name} is cannot be saved: pass the id of an environment, copies of "
            f"which are played again from their seeds"
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Refuse, as :meth:`state_dict` does."""
        self.state_dict()

    def _checked(self, observation: np.ndarray, reward: np.ndarray | None = None) -> np.ndarray:
        broken = check_finite(observation, reward)
        if broken is not None:
            self._fail(broken[1], f"returned {broken[0]} that is not finite")
        return observation

    def _fail(self, copy: int | None, what: str, cause: Exception | None = None) -> NoReturn:
        self.env.close(terminate=True)
        where = (
            f"a copy, after {self.steps.tolist()} steps of"
            if copy is None
            else f"copy {copy}, step {self.steps[copy] + 1} of"
        )
        raise DataError(
            f"{self.name} {what}: {where} the episode, of copies first reset with seed {self.seed}. All copies are "
            f"closed, and what was recorded before is as it was: look at what the environment does there"
        ) from cause


def _resets_itself(name: str, env: Any) -> bool:
    """Say whether a vector environment begins episodes in the step that ends one.

    Raises:
        UsageError: where a step between episodes could not be left out.
    """
    from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

    mode = env.metadata.get("autoreset_mode")
    inner = env.unwrapped
    # Workers without shared memory would begin once more after a mask; what other classes do is not known.
    masked = isinstance(inner, SyncVectorEnv) or (isinstance(inner, AsyncVectorEnv) and inner.shared_memory)
    if mode == AutoresetMode.NEXT_STEP and masked:
        return False
    if mode in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
        return mode == AutoresetMode.SAME_STEP
    raise UsageError(
        f"{name} is a {type(inner).__name__} with autoreset_mode={mode}, of which a step that is none between two "
        f"episodes could be recorded: make it with autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP, or pass "
        f"the id of an environment"
    )
