"""VIREL: a temperature that the critic's own errors set, and that vanishes with them."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.inference.draws import check_pathwise, drawn
from pyrogen.inference.lagging import follow, frozen
from pyrogen.inference.objective import Objective, Player
from pyrogen.inference.transitions import (
    Choices,
    action_values,
    check_settings,
    choices,
    next_choices,
    td_targets,
    values_taken,
)
from pyrogen.sites import Program, or_nothing

__all__ = ["VIREL"]


class VIREL(Objective):
    r"""Variational inference of the optimal action, by a critic that is trusted as far as it is right.

    A critic's values :math:`Q_\omega(s, a)` stand for all that follows an action, and the action is optimal with a
    probability that grows with :math:`Q_\omega / \varepsilon_\omega`, where the temperature is the critic's mean
    squared Bellman residual. The guide :math:`\pi_\theta` is the posterior's approximation, and the model's prior
    :math:`p(a \mid s)` is what is known of actions before: with a uniform one,
    :math:`-\mathrm{KL}` is the policy's entropy and a constant, and the bound that of the paper,

    .. math::
        \mathcal{L}(\omega, \theta) = \mathbb{E}_s \left[\mathbb{E}_{\pi_\theta(a \mid s)}
        \left[\frac{\min Q_\omega(s, a)}{\varepsilon_\omega}\right] -
        \mathrm{KL}\left(\pi_\theta \,\|\, p\right)\right], \quad
        \varepsilon_\omega = c \, \mathbb{E}_{s, a} \left(\frac{r}{\alpha} +
        \gamma \, \mathbb{E}_{\pi_\theta(a' \mid s')} [\min \bar Q(s', a')] - Q_\omega(s, a)\right)^2

    This is the paper's actor-critic with a temperature from data. Its **E-step**, the programs' loss, is
    :math:`-\varepsilon_\omega \mathcal{L}` with :math:`\varepsilon_\omega` and :math:`Q_\omega` held: multiplied by the
    temperature, which may be zero and needs no floor. Its **M-step**, the critic's loss, is
    :math:`\varepsilon_\omega / c` with the target held, the mean over several networks. Values are *not* soft: the
    prior is in no target, only :math:`r / \alpha` of the model's factor. So a critic that is right leaves
    :math:`\varepsilon_\omega = 0`, and a policy that is greedy.

    :math:`\varepsilon_\omega` is the mean over the programs' batch of the TD errors' squares, whose target has
    lagging networks :math:`\bar Q`. Where rewards or next states are left to chance, given state and action, their
    variance is in it, and the temperature does not vanish; so it is with actions in a box, whose means are over
    ``num_draws`` draws. Those of choices are exact. It is measured in squares of :math:`r / \alpha`:
    with a model's temperature, :math:`Q / \varepsilon` is proportional to :math:`\alpha / c`.

    Args:
        critic: :math:`Q_\omega`, as :class:`~pyrogen.nn.ActionValues`: networks of observations and actions.
        discount: :math:`\gamma`.
        scale: :math:`c`, in the unit of one over :math:`r / \alpha`.
        num_draws: of the policy at each observation, where actions are no choices.
        rate: what share of the way the lagging networks go in each step of the critic.

    Raises:
        UsageError: for settings out of range, and where transitions lack a column.
        ProgramError: where the guide draws anything but ``action``, or that without ``rsample`` and from no finite
            set; where programs do not fit together, or a critic returns another shape.

    References:
        VIREL: A Variational Inference Framework for Reinforcement Learning (Fellows et al., 2019),
        https://arxiv.org/abs/1811.01132

    Example:
        >>> from pyrogen.models import CategoricalPolicy, OptimalTrajectories, UniformChoice
        >>> from pyrogen.nn import ActionValues
        >>> policy, critic = CategoricalPolicy(nn.Linear(4, 2)), ActionValues((4,), num_actions=2, hidden=(8,))
        >>> columns = {"observation": torch.randn(1, 6, 4), "action": torch.ones(1, 6), "reward": torch.ones(1, 6)}
        >>> columns["terminated"] = columns["truncated"] = torch.zeros(1, 6, dtype=torch.bool)
        >>> columns["next_observation"] = torch.randn(1, 6, 4)
        >>> VIREL(critic)(OptimalTrajectories(UniformChoice(2)), policy, **columns).shape
        torch.Size([])
    """

    learns_from: ClassVar[Literal["recordings", "transitions"]] = "transitions"
    sums_over_data = False

    temperature: Tensor

    def __init__(
        self, critic: nn.Module, discount: float = 0.99, scale: float = 1.0, num_draws: int = 1, rate: float = 0.005
    ) -> None:
        super().__init__()
        check_settings(discount, rate, num_draws=num_draws)
        if not scale > 0:
            raise UsageError(f"scale must be above 0, found {scale}")
        self.critic, self.target = critic, frozen(critic)
        self.discount, self.scale, self.num_draws, self.rate = discount, scale, num_draws, rate
        self.register_buffer("temperature", torch.tensor(0.0))

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        r"""Return the programs' loss, the mean of :math:`\varepsilon \, \mathrm{KL} - \mathbb{E}[Q]` in nats."""
        seen = choices(model, or_nothing(guide), kwargs)
        check_pathwise(seen.policy)
        draws = drawn(seen.policy, self.num_draws)
        with torch.no_grad():
            temperature = self.scale * self._residuals(model, guide, seen, kwargs).square().mean()
        values = action_values(self.critic, kwargs["observation"], draws).amin(0)
        divergences = draws.log_prob - draws.log_prob_under(seen.prior)
        return draws.mean(temperature * divergences - values).mean()

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the mean squared residual of the critics, in squares of the unit of their values."""
        with torch.no_grad():
            seen = choices(model, or_nothing(guide), kwargs)
        loss = self._residuals(model, guide, seen, kwargs).square().mean()
        self.temperature.copy_(self.scale * loss.detach())
        return loss

    def after_step(self, player: Player) -> None:
        """Let the lagging critics follow."""
        if player == "critic":
            follow(self.target, self.critic, self.rate)

    def monitored(self) -> dict[str, Tensor]:
        r"""Return :math:`\varepsilon_\omega` of the critic's last batch."""
        return {"temperature": self.temperature}

    def extra_repr(self) -> str:
        return f"discount={self.discount}, scale={self.scale}, num_draws={self.num_draws}"

    def _residuals(self, model: Program, guide: Program | None, seen: Choices, columns: Mapping[str, Tensor]) -> Tensor:
        """Return by how much each critic misses its target, shape ``(num_critics, 1, batch)``."""
        with torch.no_grad():
            after = drawn(next_choices(model, or_nothing(guide), columns).policy, self.num_draws)
            values = action_values(self.target, columns["next_observation"], after).amin(0)
            targets = td_targets(columns, seen.optimality, after.mean(values), self.discount)
        return values_taken(self.critic, columns) - targets
