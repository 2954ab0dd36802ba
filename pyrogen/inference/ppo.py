"""Control by the ELBO within a trust region: a recording serves for several steps."""

from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor, nn

from pyrogen.errors import ProgramError, UsageError
from pyrogen.inference.actor_critic import ActorCritic
from pyrogen.parameters import modules_of
from pyrogen.rehearsal import buffers_restored
from pyrogen.sites import Program, is_latent, sample_sites
from pyrogen.traces import Traces, model_terms

__all__ = ["PPO"]

TARGETS = ("returns", "advantage")


class PPO(ActorCritic):
    r"""Proximal policy optimisation of the ELBO of trajectories: the programs are those of :class:`KLControl`.

    .. math::
        \nabla \mathcal{L} = \sum_t \nabla \min\left(w_t \hat A_t, \,
        \min(\max(w_t, 1 - \epsilon), 1 + \epsilon) \, \hat A_t\right) + \nabla \rho_t, \quad
        w_t = \frac{q(a_t \mid s_t)}{q_{\text{old}}(a_t \mid s_t)}

    where :math:`q_{\text{old}}`, which took the actions, is known by the recorded ``log_prob`` of them. The soft
    rewards are its own, in nats,

    .. math::
        \rho_t = \frac{r_t}{\alpha} + \log p(a_t \mid s_t) - \log q_{\text{old}}(a_t \mid s_t), \quad
        \hat A_t = \sum_{k \ge 0} (\gamma \lambda)^k
        \left(\rho_{t+k} + \gamma V(s_{t+k+1}) - V(s_{t+k})\right) = G^\lambda_t - V(s_t)

    so that the divergence from the prior (with a uniform prior, minus the entropy) is a part of the rewards, of this
    step and of those that follow, and there is no bonus besides. All of it is held by the trust region: beyond
    :math:`1 \pm \epsilon`, in the direction that an advantage asks for, nothing is gained. The prior, if it learns,
    does so by :math:`\nabla \rho_t`. Where :math:`q = q_{\text{old}}`, value and gradient are those of
    ``KLControl(critic, discount, decay, analytic_kl=False)``.

    A recording can be used several times, as a whole or in minibatches of its steps. Those know nothing of what follows
    them, so that :meth:`targets` says it: ``Rollouts(..., uses=10, minibatches=4, targets=partial(ppo.targets, model,
    guide))``, and with a critic ``players=2``, so that both see the same. Advantages are computed anew at each use, by
    the critic as it is then, as the large-scale study below recommends: with ``targets``, of soft rewards by the prior
    as it was at the first use, which is the old one, like the policy that acted; without, by the prior as it is.

    Args:
        critic: :math:`V`, and what is there without one: as for :class:`KLControl`.
        discount: :math:`\gamma` of the λ-returns.
        decay: :math:`\lambda`.
        clip: :math:`\epsilon`, which may be infinite.
        normalize: shift and scale the advantages of each batch, of two steps at least, to mean 0 and standard deviation
            1; which sees the actions, for a bias that vanishes in large batches. The prior's own gradient is not
            scaled.

    Raises:
        UsageError: for a setting out of range; where recordings lack a column, ``log_prob`` among them, or, without a
            critic, stop before an episode ends; where a batch has one of the targets, or in another shape.
        ProgramError: where the guide draws anything but ``action``, or observes; where the model observes nothing, or a
            program says something of the dynamics.

    References:
        Proximal Policy Optimization Algorithms (Schulman et al., 2017), https://arxiv.org/abs/1707.06347

        What Matters for On-Policy Deep Actor-Critic Methods? A Large-Scale Study (Andrychowicz et al., 2021),
        https://arxiv.org/abs/2006.05990

    Example:
        >>> from pyrogen.models import CategoricalPolicy, OptimalTrajectories, UniformChoice
        >>> policy, ends = CategoricalPolicy(nn.Linear(4, 2)), torch.ones(1, 3, dtype=torch.bool)
        >>> recording = {"observation": torch.randn(1, 3, 4), "action": torch.ones(1, 3), "reward": torch.ones(1, 3)}
        >>> flags = {"terminated": ends, "truncated": ~ends, "next_observation": torch.randn(1, 3, 4)}
        >>> log_prob = torch.full((1, 3), 0.5).log()
        >>> loss = PPO()(OptimalTrajectories(UniformChoice(2)), policy, **recording, **flags, log_prob=log_prob)
        >>> loss  # two actions are as probable as by the prior, so that three rewards are left
        tensor(-3., grad_fn=<NegBackward0>)
    """

    needed = ("terminated", "truncated", "log_prob")

    def __init__(
        self,
        critic: nn.Module | None = None,
        discount: float = 1.0,
        decay: float = 1.0,
        clip: float = 0.2,
        normalize: bool = False,
    ) -> None:
        super().__init__(critic, discount, decay)
        if not clip > 0:
            raise UsageError(f"clip must be above 0, found {clip}")
        self.clip = clip
        self.normalize = normalize

    def extra_repr(self) -> str:
        return f"discount={self.discount}, decay={self.decay}, clip={self.clip}, normalize={self.normalize}"

    @torch.no_grad()
    def targets(self, model: Program, guide: Program | None, *args: Any, **recording: Any) -> dict[str, Tensor]:
        r"""Return what each step of a recording is to learn from, by the critic as it is now.

        With the last two among its columns, a batch may hold the steps of a recording in any order, and some of them
        alone, and the critic moves towards these returns.

        Args:
            model: the model.
            guide: the policy.
            *args: what both are called with besides.
            **recording: columns of shape ``(time, environments, ...)``. With ``soft_reward`` of an earlier use of
                this recording among them, neither program runs.

        Returns:
            ``soft_reward``, :math:`\rho_t`, ``returns``, :math:`G^\lambda_t`, and ``advantage``, :math:`\hat A_t`,
            in nats, shape ``(time, environments)``.

        Raises:
            UsageError, ProgramError: as for the objective itself.

        Example:
            >>> from pyrogen.models import CategoricalPolicy, OptimalTrajectories, UniformChoice
            >>> model, policy = OptimalTrajectories(UniformChoice(2)), CategoricalPolicy(nn.Linear(4, 2))
            >>> ends = torch.tensor([[False], [True]])
            >>> recording = {"observation": torch.randn(2, 1, 4), "action": torch.ones(2, 1), "terminated": ends}
            >>> recording |= {"reward": torch.ones(2, 1), "truncated": ends & ~ends}
            >>> PPO().targets(model, policy, **recording, log_prob=torch.full((2, 1), 0.5).log())["returns"]
            tensor([[2.],
                    [1.]])
        """
        with buffers_restored([self, *modules_of(model, guide).values()]):
            if (soft_rewards := recording.get("soft_reward")) is None:
                soft_rewards = self._soft_rewards(self._traces(model, guide, args, recording), recording)
            else:
                self._check(recording)
                if soft_rewards.shape != recording["log_prob"].shape:
                    raise UsageError(
                        f"soft_reward has shape {tuple(soft_rewards.shape)}, expected one for each step, "
                        f"{tuple(recording['log_prob'].shape)}: pass that of an earlier use of this recording, or none"
                    )
            return {"soft_reward": soft_rewards, **super()._targets(soft_rewards, recording)}

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the mean squared distance of the critic's values from λ-returns, in nats squared."""
        if (given := self._given(kwargs)) is None:
            return super().critic_loss(model, guide, *args, **kwargs)
        return self._distance(given["returns"], kwargs)

    def _targets(self, soft_rewards: Tensor, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given = self._given(columns)
        return super()._targets(soft_rewards, columns) if given is None else given

    def _given(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Return a batch's own targets, if it has them."""
        given = {name: columns[name] for name in TARGETS if name in columns}
        if not given:
            return None
        self._check(columns)
        shape = columns["log_prob"].shape
        found = " and ".join(f"{name} of shape {tuple(column.shape)}" for name, column in given.items())
        if [column.shape for column in given.values()] != [shape, shape]:
            raise UsageError(
                f"a batch that knows its targets has returns and advantage, both of shape {tuple(shape)}, one for each "
                f"step: found {found}. Pass both, of PPO.targets, or neither"
            )
        return given

    def _check_guide(self, traces: Traces, columns: Mapping[str, Tensor]) -> None:
        drawn = [site["name"] for site in filter(is_latent, sample_sites(traces.guide))]
        if drawn != ["action"]:
            raise ProgramError(
                f"the guide draws {', '.join(drawn)}, and recordings say how probable an 'action' was, and nothing "
                f"else: put all that it draws at a step into one site 'action'"
            )

    def _soft_rewards(self, traces: Traces, columns: Mapping[str, Tensor]) -> Tensor:
        action = traces.guide.nodes["action"]
        log_q_old = scale_and_mask(columns["log_prob"], action["scale"], action["mask"])
        return sum(term.log_prob for term in model_terms(traces)) - log_q_old

    def _surrogate(self, traces: Traces, columns: Mapping[str, Tensor], advantages: Tensor) -> Tensor:
        action = traces.guide.nodes["action"]
        # Neither ratio nor score is scaled by what a program multiplies its density by.
        log_ratios = scale_and_mask(action["unscaled_log_prob"] - columns["log_prob"], mask=action["mask"])
        if self.normalize:
            if advantages.numel() < 2:
                raise UsageError("normalize compares steps, and this batch has a single step: take larger batches")
            deviation = advantages.std(correction=0)
            advantages = (advantages - advantages.mean()) / (deviation + torch.finfo(deviation.dtype).eps)
        ratios = log_ratios.exp()
        return torch.minimum(ratios * advantages, ratios.clamp(1 - self.clip, 1 + self.clip) * advantages).sum()
