"""Soft actor-critic: the policy is the guide, learned from replayed transitions through critics of actions."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.inference.draws import Draws, check_pathwise, drawn
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

__all__ = ["SAC"]


class SAC(Objective):
    r"""The negative soft value of a policy: the ELBO's rest from each state on, as critics see it.

    .. math::
        \mathcal{L} = -\mathbb{E}_{s} \, \mathbb{E}_{q(a \mid s)}\left[\min_i Q_i(s, a)
        - \beta \log \frac{q(a \mid s)}{p(a \mid s)}\right]

    The model is a prior policy with a factor for each step's reward, as :class:`~pyrogen.models.OptimalTrajectories`;
    the guide is the policy. They are called with the columns of replayed transitions, shape ``(1, batch, ...)``:
    ``observation``, ``action``, ``next_observation``, ``terminated`` and ``truncated``, and whatever else they read.
    The mean over actions is that over all of them where these are choices, and else by one reparameterised draw.
    The critics minimise

    .. math::
        &\mathbb{E}_{s, a, s'} \tfrac{1}{2} \sum_i \left(Q_i(s, a) - y\right)^2
        + \beta \left(\kappa - \mathbb{E}_s \mathrm{KL}\left(q(a \mid s) \,\|\, p(a \mid s)\right)\right) \\
        &y = \frac{r}{\alpha} + \gamma \, \mathbb{E}_{q(a' \mid s')}\left[\min_i \bar Q_i(s', a')
        - \beta \log \frac{q(a' \mid s')}{p(a' \mid s')}\right]

    where :math:`r / \alpha` is the model's factor at the recorded action, in nats, and nothing follows a step that
    ``terminated``. Target networks :math:`\bar Q` follow with each of the critics' steps,
    :math:`\bar \theta \leftarrow (1 - \tau) \bar \theta + \tau \theta`, and have no gradient; nor has :math:`y`.

    Without a target :math:`\kappa`, :math:`\beta = 1` and its term is left out: the temperature is the model's, and the
    fixed point that of the discounted ELBO, ``variational_values(discount=...)``. With one, :math:`\beta` is the
    multiplier that holds the divergence from the prior there, in both losses. For a uniform prior in a box of
    :math:`d` coordinates and :math:`\alpha = 1`, it is SAC's temperature, and SAC's target entropy of :math:`-d` the
    target :math:`\kappa = d (1 + \log 2)`.

    Args:
        critic: :math:`Q_i`, called with observations and actions, which returns values in nats, shape
            ``(num_critics, 1, batch)``; where actions are choices, called with observations alone it returns those of
            all, shape ``(num_critics, 1, batch, num_actions)``: :class:`~pyrogen.nn.ActionValues`.
        discount: :math:`\gamma`.
        rate: :math:`\tau`.
        target_divergence: :math:`\kappa` in nats.

    Raises:
        UsageError: for settings out of range; where transitions lack a column.
        ProgramError: where the guide draws anything but ``action``, or that without ``rsample`` and from no finite
            set; where the model observes nothing, a program says something of the dynamics, or a critic returns
            another shape.

    References:
        Soft Actor-Critic Algorithms and Applications (Haarnoja et al., 2018), https://arxiv.org/abs/1812.05905

        Soft Actor-Critic for Discrete Action Settings (Christodoulou, 2019), https://arxiv.org/abs/1910.07207

    Example:
        >>> from pyrogen.models import CategoricalPolicy, OptimalTrajectories, UniformChoice
        >>> from pyrogen.nn import ActionValues
        >>> policy, critic = CategoricalPolicy(nn.Linear(4, 2)), ActionValues((4,), num_actions=2, hidden=(8,))
        >>> transitions = {"observation": torch.randn(1, 6, 4), "next_observation": torch.randn(1, 6, 4)}
        >>> transitions |= {"action": torch.ones(1, 6), "reward": torch.ones(1, 6)}
        >>> transitions["terminated"] = transitions["truncated"] = torch.zeros(1, 6).bool()
        >>> SAC(critic)(OptimalTrajectories(UniformChoice(2)), policy, **transitions).shape
        torch.Size([])
    """

    learns_from: ClassVar[Literal["recordings", "transitions"]] = "transitions"
    sums_over_data = False
    learning_rate = 3e-4

    def __init__(
        self,
        critic: nn.Module,
        discount: float = 0.99,
        rate: float = 0.005,
        target_divergence: float | None = None,
    ) -> None:
        super().__init__()
        check_settings(discount, rate)
        if target_divergence is not None and not target_divergence > 0:
            raise UsageError(f"target_divergence must be above 0, found {target_divergence}: the prior is at 0")
        self.critic, self.target = critic, frozen(critic)
        self.discount, self.rate, self.target_divergence = discount, rate, target_divergence
        self.log_beta = None if target_divergence is None else nn.Parameter(torch.zeros(()))

    @property
    def beta(self) -> Tensor | float:
        r"""The multiplier :math:`\beta` of divergences, without gradient."""
        return 1.0 if self.log_beta is None else self.log_beta.detach().exp()

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the mean over transitions of the policy's negative soft value, in nats."""
        found = choices(model, or_nothing(guide), kwargs)
        return -self._soft_values(found, self.critic, kwargs["observation"]).mean()

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        r"""Return the critics' mean squared soft Bellman error, in nats squared, and the term of :math:`\beta`."""
        with torch.no_grad():
            found = choices(model, or_nothing(guide), kwargs)
            targets = self._targets(found, next_choices(model, or_nothing(guide), kwargs), kwargs)
        loss = 0.5 * (values_taken(self.critic, kwargs) - targets).square().sum(0).mean()
        if self.log_beta is None or self.target_divergence is None:
            return loss
        with torch.no_grad():
            draws, divergences = self._acted(found)
            divergence = draws.mean(divergences).mean()
        return loss + self.log_beta.exp() * (self.target_divergence - divergence)

    def after_step(self, player: Player) -> None:
        """Let the target networks follow the critics."""
        if player == "critic":
            follow(self.target, self.critic, self.rate)

    def monitored(self) -> dict[str, Tensor]:
        return {} if self.log_beta is None else {"beta": self.log_beta.detach().exp()}

    def extra_repr(self) -> str:
        return f"discount={self.discount}, rate={self.rate}, target_divergence={self.target_divergence}"

    def _targets(self, found: Choices, following: Choices, columns: Mapping[str, Tensor]) -> Tensor:
        values = self._soft_values(following, self.target, columns["next_observation"])
        return td_targets(columns, found.optimality, values, self.discount)

    def _soft_values(self, found: Choices, critic: nn.Module, observation: Tensor) -> Tensor:
        """Return soft values in nats, shape ``(1, batch)``."""
        draws, divergences = self._acted(found)
        Q = self._least(action_values(critic, observation, draws))
        return draws.mean(Q - self.beta * divergences)

    def _acted(self, found: Choices) -> tuple[Draws, Tensor]:
        r"""Return actions of the policy, and :math:`\log q - \log p` of each in nats, shape ``(n, 1, batch)``."""
        check_pathwise(found.policy)
        draws = drawn(found.policy, 1)
        return draws, draws.log_prob - draws.log_prob_under(found.prior)

    @staticmethod
    def _least(values: Tensor) -> Tensor:
        """Return the least of what the critics say, since a policy finds out where one says too much."""
        return values.amin(0)
