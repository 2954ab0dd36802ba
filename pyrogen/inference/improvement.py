"""The best distribution of actions near a policy, and how a policy is fitted to it: MPO's two steps."""

from typing import NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import kl_divergence

from pyrogen.inference.draws import Draws, normal_below

__all__ = ["Fit", "Improvement", "fit_of"]


class Improvement(NamedTuple):
    r"""The policy :math:`q` that gains most in a trust region around another, :math:`\pi_k`, by its actions.

    .. math::
        \max_q \mathbb{E}_s \left[\mathbb{E}_q[G] - \mathrm{KL}(q \,\|\, \pi_k)\right] \ \text{ where }\
        \mathbb{E}_s \, \mathrm{KL}(q \,\|\, \pi_k) \le \epsilon

    Attributes:
        draws: actions of :math:`\pi_k` at each of some observations.
        gains: :math:`G`, in nats, shape ``(n, 1, batch)``; with :math:`G = Q + \log p - \log \pi_k`, the objective is
            :math:`\mathbb{E}_q[Q] - \mathrm{KL}(q \,\|\, p)`.
    """

    draws: Draws
    gains: Tensor

    def weights(self, multiplier: Tensor) -> Tensor:
        r"""Return :math:`q(a \mid s) \propto \pi_k(a \mid s) \, e^{G / (1 + \eta)}`, shape ``(n, 1, batch)``."""
        return (self.draws.log_weights + self.gains / (1 + multiplier)).softmax(0)

    def dual(self, multiplier: Tensor, epsilon: float) -> Tensor:
        r"""Return :math:`\eta \epsilon + (1 + \eta) \, \mathbb{E}_s \log \mathbb{E}_{\pi_k} e^{G / (1 + \eta)}`.

        It is convex, and least at the multiplier of the constraint, where it is what can be had.
        """
        evidence = (self.draws.log_weights + self.gains / (1 + multiplier)).logsumexp(0)
        return multiplier * epsilon + (1 + multiplier) * evidence.mean()

    def value(self) -> Tensor:
        r"""Return :math:`\mathbb{E}_{\pi_k}[G]`, what :math:`\pi_k` has itself, shape ``(1, batch)``."""
        return self.draws.mean(self.gains)


class Fit(NamedTuple):
    """How a policy fits actions that another drew.

    Attributes:
        log_prob: what a weighted likelihood adds up, in nats, shape ``(n, 1, batch)``.
        divergences: of the other from the policy, mean over observations, in nats: shape ``(1,)``, or, of location and
            scale, ``(2,)``.
    """

    log_prob: Tensor
    divergences: Tensor


def fit_of(draws: Draws, policy: TorchDistribution) -> Fit:
    r"""Score a policy by another's actions; where both are normal (below a tanh), by location and by scale.

    The likelihoods of :math:`\mathcal{N}(\mu, \sigma_k)` and :math:`\mathcal{N}(\mu_k, \sigma)` are added: the gradient
    at :math:`\pi_k` is that of the policy's own, and each of the two divergences has a bound of its own.
    """
    normal, old = normal_below(policy), normal_below(draws.policy)
    if normal is None or old is None or draws.variables is None:
        log_prob = policy.log_prob(draws.actions)
        return Fit(log_prob, draws.mean(draws.log_prob - log_prob).mean().unsqueeze(0))
    parts = dist.Normal(normal.loc, old.scale), dist.Normal(old.loc, normal.scale)
    scores = [sum_rightmost(part.log_prob(draws.variables), policy.event_dim) for part in parts]
    divergences = [sum_rightmost(kl_divergence(old, part), policy.event_dim).mean() for part in parts]
    return Fit(scores[0] + scores[1], torch.stack(divergences))
