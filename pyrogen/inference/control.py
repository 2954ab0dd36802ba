"""The policy is the guide: the evidence lower bound of optimal trajectories, learned from recordings."""

from collections.abc import Mapping

import torch
from pyro.poutine.util import is_validation_enabled
from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.inference.actor_critic import ActorCritic
from pyrogen.inference.elbo import analytic_kls
from pyrogen.inference.recordings import score
from pyrogen.sites import is_latent, sample_sites
from pyrogen.traces import Traces, model_terms

__all__ = ["KLControl"]


class KLControl(ActorCritic):
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
    negative. With :math:`\gamma = \lambda = 1` and whole episodes, the gradient is without bias for any such baseline.

    With :math:`\gamma < 1` the λ-returns are discounted, and nothing else is: the loss is not, and each step's term
    of the gradient has the weight 1 and not :math:`\gamma^t`. It is the usual surrogate, which weighs states by how
    often they come about: not the gradient of the discounted ELBO, nor of any other function.

    Args:
        critic: :math:`V`, called with observations of shape ``(time, environments, ...)``, which returns a value for
            each in nats, shape ``(time, environments)`` or ``(time, environments, 1)``; it is learned by mean squares
            of its distance to λ-returns. One that has taken steps with a recording, as the second player before the
            first, has seen its actions: a part of what is subtracted from the returns is these returns, for less noise
            and some bias. Without, the baseline is the mean of what the other environments had from that time on, and
            recordings must be of whole episodes.
        discount: :math:`\gamma` of the λ-returns.
        decay: :math:`\lambda`; below one, less noise and the critic's bias.
        analytic_kl: use the divergence in closed form for sites that have one, as in
            :class:`~pyrogen.inference.ELBO`; else :math:`\log q - \log p` at the recorded action.

    Raises:
        UsageError: for a discount or decay out of range; where recordings lack a column, or, without a critic, stop
            before an episode ends; where ``log_prob`` was recorded, and the guide gives an action another (the last
            two unless Pyro's validation is off, as it is in graphs after the rehearsal).
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
        super().__init__(critic, discount, decay)
        self.analytic_kl = analytic_kl

    def extra_repr(self) -> str:
        return f"discount={self.discount}, decay={self.decay}, analytic_kl={self.analytic_kl}"

    def _check_guide(self, traces: Traces, columns: Mapping[str, Tensor]) -> None:
        if "log_prob" in columns and "action" in traces.guide.nodes and is_validation_enabled():
            _check_recorder(traces.guide.nodes["action"]["unscaled_log_prob"], columns["log_prob"])

    def _soft_rewards(self, traces: Traces, columns: Mapping[str, Tensor]) -> Tensor:
        r"""Return :math:`\rho_t`.

        At recorded actions, :math:`\log q` has a gradient of mean zero, which is left out.
        """
        divergences = analytic_kls(traces) if self.analytic_kl and not traces.enumerates else {}
        minus = {name: term.log_prob for name, term in divergences.items()}
        for site in sample_sites(traces.guide):
            log_prob = site["log_prob"]
            minus.setdefault(site["name"], log_prob.detach() if is_latent(site) else log_prob)
        plus = [term.log_prob for term in model_terms(traces, divergences)]
        return sum(plus) - sum(minus.values())  # type: ignore[return-value]

    def _surrogate(self, traces: Traces, columns: Mapping[str, Tensor], advantages: Tensor) -> Tensor:
        return (advantages * score(traces)).sum()


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
            f"with Rollouts(..., uses=1), and, with a critic, players=2 and train(..., simultaneous=True); PPO learns "
            f"from one recording several times"
        )
