"""Soft Q-learning: the guide is made of its action values, which are learned from replayed transitions."""

from typing import Any, ClassVar, Literal

import pyro.distributions as dist
import torch
from pyro.poutine.util import is_validation_enabled
from torch import Tensor, nn

from pyrogen.errors import ProgramError
from pyrogen.inference.lagging import follow, frozen
from pyrogen.inference.objective import Objective, Player
from pyrogen.inference.transitions import Choices, check_settings, choices, next_choices, td_targets
from pyrogen.sites import Program, or_nothing

__all__ = ["SoftQ"]


class SoftQ(Objective):
    r"""The mean squared soft Bellman error of action values, of which the policy is made.

    .. math::
        &\mathcal{L} = \mathbb{E}_{s, a, s'} \tfrac{1}{2} \left(Q(s, a) - y\right)^2, \quad
        y = \frac{r}{\alpha} + \gamma \log \sum_{a'} p(a' \mid s') \, e^{\bar Q(s', a')} \\
        &q(a \mid s) = p(a \mid s) \, e^{Q(s, a) - V(s)}, \quad V(s) = \log \sum_a p(a \mid s) \, e^{Q(s, a)}

    The model is a prior policy of choices with a factor for each step's reward, :math:`r / \alpha` in nats, as
    :class:`~pyrogen.models.OptimalTrajectories`; the guide is the policy :math:`q` of the same prior and the network
    :math:`Q`, :class:`~pyrogen.models.SoftQPolicy`. They are called with the columns of replayed transitions, shape
    ``(1, batch, ...)``: ``observation``, ``action``, ``next_observation``, ``terminated`` and ``truncated``, and
    whatever else they read. Nothing follows a step that ``terminated``. With each step the target network follows,
    :math:`\bar \theta \leftarrow (1 - \tau) \bar \theta + \tau \theta`; it has no gradient, and there is no critic.

    The fixed point is that of the largest discounted ELBO, ``variational_values(discount=...)``.

    Args:
        network: :math:`Q`, the guide's own, from observations of shape ``(1, batch, ...)`` to
            ``(1, batch, num_actions)``.
        discount: :math:`\gamma`.
        rate: :math:`\tau`.

    Raises:
        UsageError: for settings out of range; where transitions lack a column.
        ProgramError: where the guide draws anything but ``action``, from a choice, or is not the policy of this
            network and the model's prior (unless Pyro's validation is off); where the model observes nothing, or a
            program says something of the dynamics.

    References:
        Reinforcement Learning with Deep Energy-Based Policies (Haarnoja et al., 2017),
        https://arxiv.org/abs/1702.08165

    Example:
        >>> from pyrogen.models import OptimalTrajectories, SoftQPolicy, UniformChoice
        >>> policy = SoftQPolicy(UniformChoice(2), nn.Linear(4, 2))
        >>> transitions = {"observation": torch.randn(1, 6, 4), "next_observation": torch.randn(1, 6, 4)}
        >>> transitions |= {"action": torch.ones(1, 6), "reward": torch.ones(1, 6)}
        >>> transitions["terminated"] = transitions["truncated"] = torch.zeros(1, 6).bool()
        >>> SoftQ(policy.network)(OptimalTrajectories(UniformChoice(2)), policy, **transitions).shape
        torch.Size([])
    """

    learns_from: ClassVar[Literal["recordings", "transitions"]] = "transitions"
    sums_over_data = False

    def __init__(self, network: nn.Module, discount: float = 0.99, rate: float = 0.005) -> None:
        super().__init__()
        check_settings(discount, rate)
        self.target = frozen(network)
        self._followed = (network,)  # in a tuple, since it is the guide's, and no critic
        self.discount, self.rate = discount, rate

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the mean over transitions of the squared soft Bellman error, in nats squared."""
        found = choices(model, or_nothing(guide), kwargs)
        Q = self._followed[0](kwargs["observation"])
        self._check(found, Q)
        with torch.no_grad():
            following = next_choices(model, or_nothing(guide), kwargs)
            Q_bar = self.target(kwargs["next_observation"])
            targets = td_targets(
                kwargs, found.optimality, (following.prior.logits + Q_bar).logsumexp(-1), self.discount
            )
        values = Q.gather(-1, kwargs["action"].long().unsqueeze(-1)).squeeze(-1)
        return 0.5 * (values - targets).square().mean()

    def after_step(self, player: Player) -> None:
        """Let the target network follow."""
        follow(self.target, self._followed[0], self.rate)

    def extra_repr(self) -> str:
        return f"discount={self.discount}, rate={self.rate}"

    def _check(self, found: Choices, Q: Tensor) -> None:
        """Refuse a guide that would do something else than what the network learns."""
        others = [type(d).__name__ for d in (found.policy, found.prior) if not isinstance(d, dist.Categorical)]
        if others:
            raise ProgramError(
                f"site 'action' has the distribution {others[0]}, expected a Categorical: soft Q-learning sums over "
                f"all actions. SAC learns policies in a box"
            )
        if is_validation_enabled():
            expected = (found.prior.logits + Q).log_softmax(-1)
            both_forbid = (expected == -torch.inf) & (found.policy.logits == -torch.inf)
            off = torch.where(both_forbid, 0.0, found.policy.logits - expected).abs().max()
            largest = torch.where(expected == -torch.inf, 0.0, expected).abs().max()
            if not off <= torch.finfo(Q.dtype).eps ** 0.5 * (10 + largest):  # nor is NaN below a bound
                raise ProgramError(
                    f"the guide's log-probabilities are up to {off.item():.3g} nats from those of the model's prior "
                    f"and the network: make it of both, SoftQPolicy(prior, network)"
                )
