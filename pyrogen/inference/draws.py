"""Actions of a policy at each of some observations, and means over them."""

from math import log
from typing import NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.util import sum_rightmost
from torch import Tensor

from pyrogen.distributions import TanhNormal
from pyrogen.errors import ProgramError
from pyrogen.sites import unwrapped

__all__ = ["Draws", "check_pathwise", "drawn", "normal_below", "weighted"]


class Draws(NamedTuple):
    r"""Actions at each of some observations, and what each counts in a mean over the policy.

    Attributes:
        policy: :math:`q(a \mid s)`, that they are of.
        actions: all choices, or draws, shape ``(n, 1, batch, ...)``.
        log_prob: their log-probability under the policy, in nats, shape ``(n, 1, batch)``.
        variables: where actions are (hyperbolic tangents of) normal variables, these, shape as ``actions``.
    """

    policy: TorchDistribution
    actions: Tensor
    log_prob: Tensor
    variables: Tensor | None = None

    @property
    def is_choice(self) -> bool:
        """Whether these are all choices that there are."""
        return isinstance(self.policy, dist.Categorical)

    @property
    def log_weights(self) -> Tensor:
        """The logarithm of the probability of a choice, or of one over the draws, shape ``(n, 1, batch)``."""
        return self.log_prob if self.is_choice else torch.full_like(self.log_prob, -log(len(self.actions)))

    def mean(self, values: Tensor) -> Tensor:
        r"""Return :math:`\mathbb{E}_{q(a \mid s)}[f(s, a)]`, shape ``(n, 1, batch)`` to ``(1, batch)``."""
        return weighted(self.log_weights.exp(), values)

    def log_prob_under(self, other: TorchDistribution) -> Tensor:
        """Return the log-probability that another policy gives the actions, in nats, shape ``(n, 1, batch)``.

        By the variables, where both policies are made of them in the same way, since actions are rounded.
        """
        if self.variables is None or type(_inner(self.policy)) is not type(_inner(other)):
            return other.log_prob(self.actions)
        return _made_of(self.variables, other)[1]


def weighted(weights: Tensor, values: Tensor) -> Tensor:
    """Add values up by weights, the first dimension; what weighs nothing counts nothing, however infinite it is."""
    return (weights * torch.where(weights > 0, values, 0.0)).sum(0)


def drawn(policy: TorchDistribution, num_draws: int) -> Draws:
    """Return all choices of a policy, or draws of it, which have a gradient where it has ``rsample``."""
    if isinstance(policy, dist.Categorical):
        return Draws(policy, policy.enumerate_support(), policy.logits.movedim(-1, 0))
    normal = normal_below(policy)
    if normal is None:
        actions = (policy.rsample if policy.has_rsample else policy.sample)((num_draws,))
        return Draws(policy, actions, policy.log_prob(actions))
    variables = normal.rsample((num_draws,))
    return Draws(policy, *_made_of(variables, policy), variables)


def normal_below(policy: TorchDistribution) -> dist.Normal | None:
    """Return the distribution of the normal variables that actions are, or are hyperbolic tangents of, if they are."""
    inner = _inner(policy)
    inner = inner.base_dist if isinstance(inner, TanhNormal) else inner
    return inner if isinstance(inner, dist.Normal) else None


def check_pathwise(policy: TorchDistribution) -> None:
    """Refuse a policy to which critics say nothing of its actions.

    Raises:
        ProgramError: where it has no ``rsample``, and is of no finite set.
    """
    if not (policy.has_rsample or isinstance(policy, dist.Categorical)):
        raise ProgramError(
            f"the guide draws site 'action' from {type(unwrapped(policy)).__name__}, which has no rsample, so that no "
            f"gradient comes through the critics: choose a TanhNormal or a Categorical, or learn by MPO"
        )


def _made_of(variables: Tensor, policy: TorchDistribution) -> tuple[Tensor, Tensor]:
    """Return the actions that normal variables make, and their log-density in nats.

    Near the end of an interval actions are cut off, and have the density of all that they stand for, which has no
    gradient of its own in a variable: that of the variable does, wherever it is.
    """
    normal = normal_below(policy)
    assert normal is not None
    actions, log_prob = variables, normal.log_prob(variables)
    for transform in getattr(_inner(policy), "transforms", ()):
        before, actions = actions, transform(actions)
        log_prob = log_prob - transform.log_abs_det_jacobian(before, actions)
    return actions, sum_rightmost(log_prob, policy.event_dim)


def _inner(policy: TorchDistribution) -> TorchDistribution:
    return policy.base_dist if isinstance(policy, dist.Independent) else policy
