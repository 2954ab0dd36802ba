"""What objectives of recordings by the policy itself have in common: soft rewards, their returns, and a baseline."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pyro.poutine.util import is_validation_enabled
from torch import Tensor, nn

from pyrogen.errors import ProgramError, UsageError
from pyrogen.inference.objective import Objective
from pyrogen.inference.recordings import DYNAMICS, replayed
from pyrogen.inference.returns import lambda_returns
from pyrogen.parameters import owners
from pyrogen.sites import Program, or_nothing
from pyrogen.traces import Traces

__all__ = ["ActorCritic"]


class ActorCritic(Objective):
    r"""The negative sum of soft rewards :math:`\rho_t` that were recorded, with the gradient of a surrogate.

    .. math::
        \nabla \mathcal{L} = \sum_t \nabla S\left(q(a_t \mid s_t), \hat A_t\right) + \nabla \rho_t, \quad
        \hat A_t = G^\lambda_t - V(s_t)

    Args:
        critic: :math:`V`, in nats.
        discount: :math:`\gamma` of the λ-returns.
        decay: :math:`\lambda`.
    """

    learns_from: ClassVar[Literal["recordings", "transitions"]] = "recordings"
    """What batches hold: recordings by the policy itself, or transitions by whomever."""

    needed: tuple[str, ...] = ("terminated", "truncated")
    """The columns that it cannot do without."""

    def __init__(self, critic: nn.Module | None, discount: float, decay: float) -> None:
        super().__init__()
        for name, value in (("discount", discount), ("decay", decay)):
            if not 0 <= value <= 1:
                raise UsageError(f"{name} must be between 0 and 1, found {value}")
        if critic is None and decay < 1:
            raise UsageError(f"decay={decay} weighs rewards against what a critic says: pass one, or leave decay at 1")
        self.critic = critic
        self.discount = discount
        self.decay = decay

    @abstractmethod
    def _check_guide(self, traces: Traces, columns: Mapping[str, Tensor]) -> None:
        """Refuse a guide that is not the policy of the recording."""

    @abstractmethod
    def _soft_rewards(self, traces: Traces, columns: Mapping[str, Tensor]) -> Tensor:
        r"""Return :math:`\rho_t` in nats, shape ``(time, environments)``."""

    @abstractmethod
    def _surrogate(self, traces: Traces, columns: Mapping[str, Tensor], advantages: Tensor) -> Tensor:
        r"""Return :math:`\sum_t S`, a scalar, of which only the gradient counts."""

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the negative sum of soft rewards in nats, with the gradient of the policy and the prior."""
        traces = self._traces(model, guide, args, kwargs)
        soft_rewards = self._soft_rewards(traces, kwargs)
        advantages = self._targets(soft_rewards, kwargs)["advantage"]
        surrogate = self._surrogate(traces, kwargs, advantages)
        return -(soft_rewards.sum() + surrogate - surrogate.detach())

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the mean squared distance of the critic's values from λ-returns, in nats squared."""
        with torch.no_grad():
            soft_rewards = self._soft_rewards(self._traces(model, guide, args, kwargs), kwargs)
            returns = self._returns(soft_rewards, kwargs)
        return self._distance(returns, kwargs)

    def _traces(
        self, model: Program, guide: Program | None, args: tuple[Any, ...], columns: Mapping[str, Any]
    ) -> Traces:
        self._check(columns)
        self._check_noise(guide)
        traces = replayed(model, or_nothing(guide), args, columns)
        self._check_guide(traces, columns)
        return traces

    @torch.no_grad()
    def _targets(self, soft_rewards: Tensor, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the λ-returns of a recording, and what they are above the baseline."""
        returns = self._returns(soft_rewards, columns)
        return {"returns": returns, "advantage": returns - self._baseline(returns, columns)}

    def _returns(self, soft_rewards: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        terminated, truncated = columns["terminated"], columns["truncated"]
        if self.critic is None:
            self._check_ends(terminated, truncated)
            # Nobody knows the value of what was not recorded: a step that would need it is not finite.
            unseen = torch.cat([truncated[:-1], torch.ones_like(truncated[-1:])])
            following = torch.zeros_like(soft_rewards).masked_fill(unseen, torch.nan)
        else:
            following = self._values(columns["next_observation"], soft_rewards)
        return lambda_returns(soft_rewards, following, terminated, truncated, self.discount, self.decay)

    def _baseline(self, returns: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        """Return what to expect of each step before its action is known."""
        if self.critic is not None:
            return self._values(columns["observation"], returns)
        others = returns.sum(1, keepdim=True) - returns
        return others / max(returns.shape[1] - 1, 1)

    def _distance(self, returns: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        """Return the critic's mean squared distance from returns."""
        return (self._values(columns["observation"], returns) - returns).square().mean()

    def _values(self, observation: Tensor, like: Tensor) -> Tensor:
        assert self.critic is not None
        values = self.critic(observation)
        if values.shape not in (like.shape, (*like.shape, 1)):
            raise ProgramError(
                f"the critic returned shape {tuple(values.shape)} for observations of shape "
                f"{tuple(observation.shape)}, expected a value for each step: {tuple(like.shape)}"
            )
        return values.reshape(like.shape)

    def _check_noise(self, guide: Program | None) -> None:
        """Refuse a guide that is not, as it acts, the product of the probabilities that its actions are scored by."""
        if any(getattr(owner, "keeps_noise", False) for owner in owners(guide).values()):
            raise ProgramError(
                f"{type(self).__name__} scores each recorded action by itself, and the guide keeps its noise for "
                f"several steps, whose actions depend on one another: draw it at each step, num_steps=1, or learn from "
                f"transitions, by SAC, MPO or VIREL"
            )

    def _check(self, columns: Mapping[str, Any]) -> None:
        name = type(self).__name__
        needed = [*self.needed, *(DYNAMICS if self.critic is not None else ())]
        missing = [column for column in needed if column not in columns]
        if missing:
            raise UsageError(
                f"{name} learns from recordings, and these lack {', '.join(missing)}: pass a dict of columns, as "
                f"pyrogen.data.Rollouts makes them; found {', '.join(columns) or 'none'}"
            )

    def _check_ends(self, terminated: Tensor, truncated: Tensor) -> None:
        """Refuse episodes that go on beyond the recording, where nobody knows what follows."""
        if is_validation_enabled():
            stops = int((truncated & ~terminated).sum() + (~(terminated | truncated)[-1]).sum())
            if stops:
                raise UsageError(
                    f"{stops} episodes go on after the last step that was recorded of them, and without a critic their "
                    f"value is not known: pass {type(self).__name__} a critic, or record whole episodes"
                )
