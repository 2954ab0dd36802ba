"""The policy is the guide: the evidence lower bound of optimal trajectories, learned from recordings."""

from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.util import is_validation_enabled
from torch import Tensor, nn

from pyrogen.errors import ProgramError, UsageError
from pyrogen.inference.elbo import analytic_kls
from pyrogen.inference.objective import Objective
from pyrogen.inference.returns import lambda_returns
from pyrogen.sites import Program, is_latent, or_nothing, sample_sites
from pyrogen.traces import Traces, model_terms, trace_pair

__all__ = ["KLControl"]

DYNAMICS = ("observation", "next_observation")
OUTCOMES = (*DYNAMICS, "reward", "terminated", "truncated", "log_prob")
"""The columns of a recording that are no choices of a policy's."""


class KLControl(Objective):
    r"""The negative ELBO of trajectories: entropy-regularised policy gradient.

    .. math::
        \log p(\text{optimal}) \ge \mathbb{E}_{q(\tau)}\left[\sum_t \frac{r_t}{\alpha}\right]
        - \mathrm{KL}\left(q(\tau) \,\|\, p(\tau)\right)
        = \mathbb{E}_{q(\tau)}\left[\sum_t \frac{r_t}{\alpha}
        - \mathrm{KL}\left(q(a_t \mid s_t) \,\|\, p(a_t \mid s_t)\right)\right]

    where :math:`q` and :math:`p` share the dynamics, which cancel. The model is a prior policy with a factor for each
    step's reward, as :class:`~pyrogen.models.OptimalTrajectories`; the guide is the policy. They are called with the
    columns of a recording by its policy, as :class:`~pyrogen.data.Rollouts` makes them: ``terminated``, ``truncated``,
    ``observation`` and ``next_observation``, one for each latent site of the guide, in plates of time and environments,
    and whatever else they read. With soft rewards :math:`\rho_t`, the terms of the sum, its gradient, without discount,
    is

    .. math::
        \nabla \mathcal{L} = \mathbb{E}_{q(\tau)}\left[\sum_t \nabla \log q(a_t \mid s_t)
        \left(G^\lambda_t - V(s_t)\right) + \nabla \rho_t\right]

    with the λ-return :math:`G^\lambda_t` of the soft rewards, and a baseline that does not see the action. The loss is
    the sum over steps and environments of :math:`-\rho_t`, in nats; where recordings are whole episodes, the ELBO's
    negative. With :math:`\gamma = \lambda = 1` and whole episodes, the gradient is without bias, whatever the baseline.

    With :math:`\gamma < 1` the λ-returns are discounted, and nothing else is: the loss is not, and each step's term
    of the gradient has the weight 1 and not :math:`\gamma^t`. It is the usual surrogate, which weighs states by how
    often they come about: not the gradient of the discounted ELBO, nor of any other function.

    Args:
        critic: :math:`V`, called with observations of shape ``(time, environments, ...)``, which returns a value for
            each in nats, shape ``(time, environments)`` or ``(time, environments, 1)``; it is learned by mean squares
            of its distance to λ-returns. Without, the baseline is the mean of what the other environments had from that
            time on, and recordings must be of whole episodes.
        discount: :math:`\gamma` of the λ-returns.
        decay: :math:`\lambda`; below one, less noise and the critic's bias.
        analytic_kl: use the divergence in closed form for sites that have one, as in
            :class:`~pyrogen.inference.ELBO`; else :math:`\log q - \log p` at the recorded action.

    Raises:
        UsageError: for a discount or decay out of range; where recordings lack a column, or, without a critic, stop
            before an episode ends; where ``log_prob`` was recorded, and the guide gives an action another (the last
            two unless Pyro's validation is off).
        ProgramError: where the guide draws what was not recorded, or observes; where the model observes nothing, or a
            program says something of the dynamics.

    References:
        Reinforcement Learning and Control as Probabilistic Inference (Levine, 2018), https://arxiv.org/abs/1805.00909

        Optimal Control as a Graphical Model Inference Problem (Kappen et al., 2012),
        https://doi.org/10.1007/s10994-012-5278-7

    Example:
        >>> from pyrogen.models import CategoricalPolicy, OptimalTrajectories, UniformChoice
        >>> policy = CategoricalPolicy(nn.Linear(4, 2))
        >>> recording = {"observation": torch.randn(5, 3, 4), "action": torch.ones(5, 3), "reward": torch.ones(5, 3)}
        >>> recording["terminated"] = (torch.arange(5) == 4)[:, None].expand(5, 3)
        >>> recording["truncated"], recording["next_observation"] = torch.zeros(5, 3).bool(), torch.randn(5, 3, 4)
        >>> KLControl(analytic_kl=False)(OptimalTrajectories(UniformChoice(2)), policy, **recording).shape
        torch.Size([])
    """

    def __init__(
        self, critic: nn.Module | None = None, discount: float = 1.0, decay: float = 1.0, analytic_kl: bool = True
    ) -> None:
        super().__init__()
        for name, value in (("discount", discount), ("decay", decay)):
            if not 0 <= value <= 1:
                raise UsageError(f"{name} must be between 0 and 1, found {value}")
        if critic is None and decay < 1:
            raise UsageError(f"decay={decay} weighs rewards against what a critic says: pass one, or leave decay at 1")
        self.critic = critic
        self.discount = discount
        self.decay = decay
        self.analytic_kl = analytic_kl

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the negative sum of soft rewards in nats, with the gradient of the policy and the prior."""
        self._check(kwargs)
        traces = _replayed(model, or_nothing(guide), args, kwargs)
        soft_rewards = self._soft_rewards(traces)
        with torch.no_grad():
            returns = self._returns(soft_rewards, kwargs)
            advantages = returns - self._baseline(returns, kwargs)
        surrogate = (advantages * _log_q(traces)).sum()
        return -(soft_rewards.sum() + surrogate - surrogate.detach())

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the mean squared distance of the critic's values from λ-returns, in nats squared."""
        self._check(kwargs)
        with torch.no_grad():
            soft_rewards = self._soft_rewards(_replayed(model, or_nothing(guide), args, kwargs))
            returns = self._returns(soft_rewards, kwargs)
        return (self._values(kwargs["observation"], returns) - returns).square().mean()

    def extra_repr(self) -> str:
        return f"discount={self.discount}, decay={self.decay}, analytic_kl={self.analytic_kl}"

    def _soft_rewards(self, traces: Traces) -> Tensor:
        r"""Return :math:`\rho_t`, shape ``(time, environments)``.

        At recorded actions, :math:`\log q` has a gradient of mean zero, which is left out.
        """
        divergences = analytic_kls(traces) if self.analytic_kl and not traces.enumerates else {}
        minus = {name: term.log_prob for name, term in divergences.items()}
        for site in sample_sites(traces.guide):
            log_prob = site["log_prob"]
            minus.setdefault(site["name"], log_prob.detach() if is_latent(site) else log_prob)
        plus = [term.log_prob for term in model_terms(traces, divergences)]
        return sum(plus) - sum(minus.values())  # type: ignore[return-value]

    def _returns(self, soft_rewards: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        terminated, truncated = columns["terminated"], columns["truncated"]
        if self.critic is None:
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

    def _values(self, observation: Tensor, like: Tensor) -> Tensor:
        assert self.critic is not None
        values = self.critic(observation)
        if values.shape not in (like.shape, (*like.shape, 1)):
            raise ProgramError(
                f"the critic returned shape {tuple(values.shape)} for observations of shape "
                f"{tuple(observation.shape)}, expected a value for each step: {tuple(like.shape)}"
            )
        return values.reshape(like.shape)

    def _check(self, columns: Mapping[str, Any]) -> None:
        needed = ["terminated", "truncated", *(DYNAMICS if self.critic is not None else ())]
        missing = [name for name in needed if name not in columns]
        if missing:
            raise UsageError(
                f"KLControl learns from recordings, and these lack {', '.join(missing)}: pass a dict of columns, as "
                f"pyrogen.data.Rollouts makes them; found {', '.join(columns) or 'none'}"
            )
        if self.critic is None and is_validation_enabled():
            terminated, truncated = columns["terminated"], columns["truncated"]
            stops = int((truncated & ~terminated).sum() + (~(terminated | truncated)[-1]).sum())
            if stops:
                raise UsageError(
                    f"{stops} episodes go on after the last step that was recorded of them, and without a critic their "
                    f"value is not known: pass KLControl a critic, or record whole episodes"
                )


def _log_q(traces: Traces) -> Tensor:
    """Return the log-probability that an action had, whatever a program multiplies it by: a score is not scaled."""
    sites = filter(is_latent, sample_sites(traces.guide))
    return torch.stack([scale_and_mask(site["unscaled_log_prob"], mask=site["mask"]) for site in sites]).sum(0)


def _replayed(model: Program, guide: Program, args: tuple[Any, ...], columns: Mapping[str, Any]) -> Traces:
    """Score both programs with what was recorded at the guide's latent sites, in one pass each.

    Raises:
        ProgramError: where a site was not recorded, is one of the dynamics, or lies in other plates.
    """
    recorded = Trace()
    for name, value in columns.items():
        if name not in OUTCOMES:
            recorded.nodes[name] = {
                "type": "sample", "name": name, "is_observed": False, "value": value, "infer": {}
            }  # fmt: skip
    shape = columns["terminated"].shape
    traces = trace_pair(model, guide, args, columns, 1, len(shape), given=recorded)
    latents = [site["name"] for site in filter(is_latent, sample_sites(traces.guide))]
    if not latents:
        raise ProgramError("the guide draws nothing: it is the policy, and draws an action at each step")
    for name in latents:
        if name not in recorded.nodes and name not in DYNAMICS:
            raise ProgramError(
                f"the guide draws {name!r}, of which there is no recording: recordings have a column for each latent "
                f"site, found {', '.join(recorded.nodes) or 'none'}"
            )
    for site in (*sample_sites(traces.model), *sample_sites(traces.guide)):
        if site["name"] in DYNAMICS:
            raise ProgramError(
                f"a program has a site {site['name']!r}, which the environment draws. Leave it out of both: true "
                f"dynamics cancel, and a guide with others finds a posterior that hopes for luck (log E exp), which no "
                f"policy can bring about"
            )
        if site["log_prob"].shape != shape:
            raise ProgramError(
                f"site {site['name']!r} has log-probabilities of shape {tuple(site['log_prob'].shape)}, expected one "
                f"for each step of each environment, {tuple(shape)}: put it into plates of time (dim=-2) and "
                f"environments (dim=-1), and what is left into the event with .to_event(...)"
            )
    _check_observed(traces)
    if "log_prob" in columns and "action" in latents and is_validation_enabled():
        _check_recorder(traces.guide.nodes["action"]["unscaled_log_prob"], columns["log_prob"])
    return traces


def _check_observed(traces: Traces) -> None:
    """Refuse a policy that observes, and a model that does not: they may have been swapped."""
    in_model, in_guide = (
        [site["name"] for site in sample_sites(trace) if not (is_latent(site) or site["infer"].get("_deterministic"))]
        for trace in traces[:2]
    )
    if in_guide:
        raise ProgramError(
            f"the guide observes {', '.join(in_guide)}: it is the policy, and draws actions alone. Leave that to the "
            f"model, and pass the model first"
        )
    if not in_model:
        raise ProgramError(
            'the model observes nothing, so that rewards say nothing: give it pyro.factor("optimality", reward / '
            "temperature) at each step"
        )


def _check_recorder(log_q: Tensor, log_prob: Tensor) -> None:
    """Refuse actions that another policy took: the gradient is the mean over the policy's own.

    Raises:
        UsageError: where the density of an action is off by more than it is rounded in a change of batch.
    """
    off = (log_q - log_prob.to(log_q.device)).abs()
    allowed = torch.finfo(log_q.dtype).eps ** 0.5 * (10 + log_prob.to(log_q.device).abs())
    if (off > allowed).any():
        raise UsageError(
            f"the guide's log-probabilities of recorded actions are up to {off.max().item():.3g} nats from those they "
            f"were drawn with: it is not the policy that took them, or has learned since. Record by the guide itself, "
            f"with Rollouts(..., uses=1), or uses=2 and train(..., simultaneous=True) with a critic"
        )
