"""Environments whose observations and rewards are brought to one scale, by what was seen of them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyrogen.data.moments import Moments
from pyrogen.data.outcome import Environment, Outcome
from pyrogen.errors import UsageError

__all__ = ["Normalized"]

LIMIT = 10.0


class Normalized:
    r"""An environment whose observations have mean zero and variance one, and whose rewards those of a return.

    .. math::
        \tilde{s} = \frac{s - m}{\sqrt{\sigma^2 + 10^{-8}}}, \quad \tilde{r} = \frac{r}{\sqrt{\sigma_R^2 + 10^{-8}}},
        \quad R_t = \gamma R_{t - 1} + r_t

    each cut off at :math:`\pm 10`. The statistics are of the observations that were acted on, or are about to be, and
    of all :math:`R_t`, which begin anew with each episode. An observation is scaled once, when it comes, by the
    statistics of then: the policy acts on what is recorded, and ``next_observation`` is what it acts on next. A replay
    keeps what it was given: freeze the statistics before, where they still move.

    Args:
        environment: with observations of a floating-point type, if those are normalised.
        observations: whether to normalise them.
        rewards: whether to scale them.
        discount: :math:`\gamma`, the objective's.

    Attributes:
        frozen: whether the statistics stay as they are; the environment's state holds it.

    Raises:
        UsageError: for a discount out of range; where observations are whole numbers.

    Example:
        >>> from pyrogen.data import GymnasiumEnvironment
        >>> world = Normalized(GymnasiumEnvironment("Pendulum-v1", 64), rewards=True)
        >>> world.reset().mean(0).abs().max() < 1e-6
        tensor(True)
    """

    def __init__(
        self, environment: Environment, observations: bool = True, rewards: bool = False, discount: float = 0.99
    ) -> None:
        if not 0 <= discount <= 1:
            raise UsageError(f"discount must be between 0 and 1, found {discount}")
        self.environment = environment
        self.num_environments = environment.num_environments
        self.observations = Moments() if observations else None
        self.rewards = Moments() if rewards else None
        self.discount = discount
        self.returns = torch.zeros(self.num_environments, dtype=torch.float64)
        self.frozen = False

    @property
    def spec(self) -> Any:
        """The environment's."""
        return self.environment.spec  # type: ignore[attr-defined]

    @property
    def episodes(self) -> Any:
        """The environment's: rewards are those before they were scaled."""
        return self.environment.episodes  # type: ignore[attr-defined]

    def reset(self) -> Tensor:
        """Begin an episode in each copy."""
        self.returns = torch.zeros_like(self.returns)
        observation = self.environment.reset()
        self._see(observation)
        return self._scaled(observation)

    def step(self, action: Tensor) -> Outcome:
        """Act in each copy."""
        outcome = self.environment.step(action)
        self._see(outcome.observation)
        same = outcome.observation is outcome.next_observation
        next_observation = self._scaled(outcome.next_observation)
        return outcome._replace(
            reward=self._scaled_reward(outcome),
            next_observation=next_observation,
            observation=next_observation if same else self._scaled(outcome.observation),
        )

    def for_evaluation(self, environment: Environment) -> "Normalized":
        """Return another environment in the same scale for observations, whose rewards are as they are: to evaluate.

        The statistics are these, and go on with these, but not by what is seen there.
        """
        other = Normalized(environment, discount=self.discount)
        other.observations, other.frozen = self.observations, True
        return other

    def _see(self, observation: Tensor) -> None:
        if self.observations is None or self.frozen:
            return
        if not observation.is_floating_point():
            raise UsageError(
                f"observations are of {observation.dtype}, of which there is no mean: Normalized(..., "
                f"observations=False)"
            )
        self.observations.update(observation)

    def _scaled(self, observation: Tensor) -> Tensor:
        if self.observations is None:
            return observation
        mean, scale = (moment.to(observation.device) for moment in (self.observations.mean, self.observations.scale))
        scaled = (observation - mean) * scale
        return scaled.clamp_(-LIMIT, LIMIT).to(observation.dtype)

    def _scaled_reward(self, outcome: Outcome) -> Tensor:
        if self.rewards is None:
            return outcome.reward
        if not self.frozen:
            self.returns = torch.add(outcome.reward, self.returns.to(outcome.reward.device), alpha=self.discount)
            self.rewards.update(self.returns)
            self.returns = self.returns.masked_fill(outcome.terminated | outcome.truncated, 0.0)
        return (
            (outcome.reward * self.rewards.scale.to(outcome.reward.device))
            .clamp_(-LIMIT, LIMIT)
            .to(outcome.reward.dtype)
        )

    def close(self) -> None:
        """Close the environment."""
        self.environment.close()  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """Return the environment's state and the statistics."""
        return {
            "environment": self.environment.state_dict(),
            "observations": None if self.observations is None else self.observations.state_dict(),
            "rewards": None if self.rewards is None else self.rewards.state_dict(),
            "returns": self.returns,
            "frozen": self.frozen,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state.

        Raises:
            UsageError: where other columns were normalised.
        """
        for name in ("observations", "rewards"):
            saved, found = (moments is not None for moments in (state[name], getattr(self, name)))
            if saved != found:
                raise UsageError(
                    f"{name} were {'' if saved else 'not '}normalised where this was saved, and are "
                    f"{'' if found else 'not '}here: make it as Normalized(..., {name}={saved})"
                )
        self.environment.load_state_dict(state["environment"])
        for name, moments in (("observations", self.observations), ("rewards", self.rewards)):
            if moments is not None:
                moments.load_state_dict(state[name])
        self.returns, self.frozen = state["returns"], state["frozen"]
