"""Maximum a posteriori policy optimisation: a posterior over actions that nobody parametrised, and a policy's fit."""

from math import log
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pyrogen.errors import ProgramError, UsageError
from pyrogen.inference.draws import drawn, weighted
from pyrogen.inference.improvement import Improvement, fit_of
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

__all__ = ["MPO"]


class MPO(Objective):
    r"""Maximum a posteriori policy optimisation: improve the policy without its parameters, and fit it to that.

    Both steps raise one bound, the ELBO of optimal trajectories, with a discount :math:`\gamma`: that of
    :func:`~pyrogen.evaluation.variational_values`. The model has a factor :math:`e^{r / \alpha}` and a prior
    :math:`p(a \mid s)`; the guide is the policy :math:`\pi_\theta`, and :math:`\pi_k` a copy of it, renewed every
    ``period`` steps. What each learns:

    **Critic**, the value of the copy's trajectories in nats, prior included, by least squares, with lagging networks
    :math:`\bar Q` in the targets; of several networks, :math:`\min` is the least value:

    .. math::
        Q(s, a) \to \frac{r}{\alpha} + \gamma \, \mathbb{E}_{\pi_k(a' \mid s')}\left[\min \bar Q(s', a')
        + \log p(a' \mid s') - \log \pi_k(a' \mid s')\right]

    **E-step**, the best distribution of actions near the copy: with the gain
    :math:`G(s, a) = \min \bar Q(s, a) + \log p(a \mid s) - \log \pi_k(a \mid s)`,

    .. math::
        q = \arg\max_q \mathbb{E}_s\left[\mathbb{E}_q[\min \bar Q] - \mathrm{KL}(q \,\|\, p)\right]
        \ \text{ where }\ \mathbb{E}_s \, \mathrm{KL}(q \,\|\, \pi_k) \le \epsilon, \qquad
        q(a \mid s) \propto \pi_k(a \mid s) \, e^{G(s, a) / (1 + \eta)}

    with a multiplier :math:`\eta \ge 0` that minimises the convex dual

    .. math:: g(\eta) = \eta \, \epsilon + (1 + \eta) \, \mathbb{E}_s \log \mathbb{E}_{\pi_k} e^{G(s, a) / (1 + \eta)}

    **M-step**, weighted likelihood of actions of the copy, in a trust region:

    .. math::
        \max_\theta \mathbb{E}_s \, \mathbb{E}_q[\log \pi_\theta(a \mid s)]
        \ \text{ where }\ \mathbb{E}_s \, \mathrm{KL}(\pi_k \,\|\, \pi_\theta) \le \epsilon_\pi

    whose multiplier :math:`\lambda` is learned, too. Where actions are choices, sums over all of them are exact; else
    they are means over ``num_draws`` draws of the copy. Policies that are normal, or hyperbolic tangents of normal
    variables :math:`u`, which have the divergence of these, have two bounds, so that a policy may move without losing
    its width. Likelihood and divergence are taken of :math:`\mathcal{N}(\mu_\theta, \sigma_k)`, with
    :math:`\epsilon_\pi`, and of :math:`\mathcal{N}(\mu_k, \sigma_\theta)`, with :math:`\epsilon_\sigma`, and added. A
    prior with parameters is fitted by :math:`\mathbb{E}_q[\log p(a \mid s)]`, without a bound.

    The paper's prior is the policy itself, :math:`p = \pi_k`: its E-step is :math:`\pi_k e^{Q / \eta}`, and nothing is
    asked of the policy's entropy. A model whose prior is the guide, ``OptimalTrajectories(policy)``, is of that kind,
    up to what the policy has moved in a period. With a fixed prior it is the limit of small :math:`\alpha`,
    where the divergence from the prior is nothing to rewards: :math:`\alpha (1 + \eta)` is then the paper's
    :math:`\eta`, in the unit of rewards.

    The programs' loss is the mean over transitions of :math:`-\mathbb{E}_q[\log \pi_\theta + \log p] + \lambda
    (\mathrm{KL} - \epsilon_\pi)`; the critic's is the sum of mean squares, of :math:`g`, and of
    :math:`\lambda (\epsilon_\pi - \mathrm{KL})`. The critic takes its steps with Adam: the logarithms of
    :math:`\eta` and :math:`\lambda` move by its learning rate.

    Args:
        critic: :math:`Q`, as :class:`~pyrogen.nn.ActionValues`: several networks of observations and actions.
        guide: the policy that is to learn, a module with ``distribution(observation)``.
        discount: :math:`\gamma`.
        num_draws: of the old policy at each observation, where actions are no choices.
        epsilon: bound of the E-step, in nats.
        epsilon_policy: :math:`\epsilon_\pi`, bound of the M-step, in nats; of normal policies, for their location.
        epsilon_scale: :math:`\epsilon_\sigma`, for their scale.
        period: steps of the policy until its copy is renewed: bounds are on what happens in between.
        rate: what share of the way the lagging networks go in each step of the critic.

    Raises:
        UsageError: for settings out of range, and where transitions lack a column.
        ProgramError: for a guide that is no such module, or not the one that learns; where the guide draws anything but
            ``action``, programs do not fit together, or a critic returns another shape.

    References:
        Maximum a Posteriori Policy Optimisation (Abdolmaleki et al., 2018), https://arxiv.org/abs/1806.06920

        Relative Entropy Regularized Policy Iteration (Abdolmaleki et al., 2018), https://arxiv.org/abs/1812.02256: the
        two bounds of normal policies

        Leverage the Average: an Analysis of KL Regularization in RL (Vieillard et al., 2020),
        https://arxiv.org/abs/2003.14089: both divergences in one step

    Example:
        >>> from pyrogen.models import OptimalTrajectories, TanhNormalPolicy, UniformBox
        >>> from pyrogen.nn import ActionValues
        >>> policy = TanhNormalPolicy(nn.Linear(4, 2))
        >>> objective = MPO(ActionValues((4,), num_action_dims=1, hidden=(8,)), policy)
        >>> columns = {"observation": torch.randn(1, 6, 4), "action": torch.zeros(1, 6, 1), "reward": torch.ones(1, 6)}
        >>> columns["terminated"] = columns["truncated"] = torch.zeros(1, 6, dtype=torch.bool)
        >>> columns["next_observation"] = torch.randn(1, 6, 4)
        >>> objective(OptimalTrajectories(UniformBox(1), temperature=0.1), policy, **columns).shape
        torch.Size([])
    """

    learns_from: ClassVar[Literal["recordings", "transitions"]] = "transitions"
    sums_over_data = False

    old_policy: Any
    bounds: Tensor
    steps: Tensor
    divergences: Tensor

    def __init__(
        self,
        critic: nn.Module,
        guide: Program | None,
        discount: float = 0.99,
        num_draws: int = 10,
        epsilon: float = 0.1,
        epsilon_policy: float = 0.02,
        epsilon_scale: float = 2e-3,
        period: int = 25,
        rate: float = 0.005,
    ) -> None:
        super().__init__()
        if not isinstance(guide, nn.Module) or not hasattr(guide, "distribution"):
            raise ProgramError(
                f"MPO keeps a copy of the policy as it was, and cannot copy a {type(guide).__name__}: write the guide "
                f"as a pyrogen.models.Policy, a module with a method distribution(observation)"
            )
        check_settings(discount, rate, num_draws=num_draws, period=period)
        bounds = {"epsilon": epsilon, "epsilon_policy": epsilon_policy, "epsilon_scale": epsilon_scale}
        for name, bound in bounds.items():
            if not bound > 0:
                raise UsageError(f"{name} must be above 0, found {bound}: it is a bound of a divergence, in nats")
        self.critic, self.target = critic, frozen(critic)
        self.old_policy = frozen(guide)
        self._guide = (guide,)  # in a tuple: what a module holds by itself would be part of the critic
        self.discount, self.num_draws = discount, num_draws
        self.epsilon, self.period, self.rate = epsilon, period, rate
        self.log_multiplier = nn.Parameter(torch.tensor(0.0))
        self.log_multipliers = nn.Parameter(torch.tensor([0.0, log(10.0)]))
        self.register_buffer("bounds", torch.tensor([epsilon_policy, epsilon_scale]))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("divergences", torch.zeros(2))

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the programs' loss, that of the M-step, in nats."""
        self._check(guide)
        seen = choices(model, or_nothing(guide), kwargs)
        improved = self._improved(seen, kwargs["observation"])
        fit = fit_of(improved.draws, seen.policy)
        log_p = improved.draws.log_prob_under(seen.prior)
        excess = fit.divergences - self.bounds[: len(fit.divergences)]
        multipliers = self.log_multipliers.detach().exp()[: len(excess)]
        weights = improved.weights(self.multiplier.detach())
        return -weighted(weights, fit.log_prob + log_p).mean() + (multipliers * excess).sum()

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the critics' mean squared errors, the dual of the E-step, and that of the M-step, added up."""
        self._check(guide)
        with torch.no_grad():
            seen, following = choices(model, or_nothing(guide), kwargs), next_choices(model, or_nothing(guide), kwargs)
            improved = self._improved(seen, kwargs["observation"])
            divergences = fit_of(improved.draws, seen.policy).divergences
            self.divergences[: len(divergences)].copy_(divergences)
            after = self._improved(following, kwargs["next_observation"])
            targets = td_targets(kwargs, seen.optimality, after.value(), self.discount)
        errors = (values_taken(self.critic, kwargs) - targets).square().mean((1, 2)).sum()
        room = self.bounds[: len(divergences)] - divergences
        return (
            errors
            + improved.dual(self.multiplier, self.epsilon)
            + (self.log_multipliers.exp()[: len(room)] * room).sum()
        )

    def after_step(self, player: Player) -> None:
        """Let the lagging critics follow, or, every so many steps, renew the copy of the policy."""
        if player == "critic":
            follow(self.target, self.critic, self.rate)
            return
        self.steps.copy_((self.steps + 1) % self.period)
        follow(self.old_policy, self._guide[0], (self.steps == 0).to(self.bounds.dtype))

    def monitored(self) -> dict[str, Tensor]:
        r"""Return :math:`\eta`, and how far the policy is from its copy by the critic's last batch, in nats."""
        return {"multiplier": self.multiplier.detach(), "divergence": self.divergences.sum()}

    def extra_repr(self) -> str:
        return f"discount={self.discount}, epsilon={self.epsilon}, period={self.period}"

    @property
    def multiplier(self) -> Tensor:
        r"""Return :math:`\eta`, shape ``()``."""
        return self.log_multiplier.exp()

    @torch.no_grad()
    def _improved(self, seen: Choices, observation: Tensor) -> Improvement:
        old = self.old_policy.distribution(observation).expand(seen.policy.batch_shape)
        draws = drawn(old, self.num_draws)
        values = action_values(self.target, observation, draws).amin(0)
        is_possible = draws.log_weights > -torch.inf  # what neither does gains nothing, and not inf - inf
        relative = torch.where(is_possible, draws.log_prob_under(seen.prior) - draws.log_prob, 0.0)
        return Improvement(draws, values + relative)

    def _check(self, guide: Program | None) -> None:
        if guide is not self._guide[0]:
            raise ProgramError(
                "the guide is not the one that MPO was made for, and keeps a copy of: make another, MPO(critic, guide)"
            )
