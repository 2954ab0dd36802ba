r"""Soft values of trajectories without end, by linear solves in double precision.

What is left of a solution that is iterated is an error of the last change times :math:`1 / (1 - \gamma)`; none is left
of a linear solve but its rounding. Probabilities are divided by their sums first: in single precision a sum is off by
some :math:`10^{-8}`, which over endless time is another discount.
"""

from math import inf

import torch
from torch import Tensor

from pyrogen.errors import NonFiniteError
from pyrogen.mdp import MDP

__all__ = ["Endless", "relative"]


class Endless:
    r"""A decision process that goes on with probability :math:`\gamma` after each step, all in double precision.

    Args:
        mdp: the decision process.
        prior: :math:`p(a \mid s)`, shape ``(S, A)``.
        temperature: :math:`\alpha`, in the unit of rewards.
        discount: :math:`\gamma`, below one.
    """

    def __init__(self, mdp: MDP, prior: Tensor, temperature: float, discount: float) -> None:
        self.transitions = _normalized(mdp.transitions)
        self.log_prior = _normalized(prior).log()
        self.rewards = mdp.rewards.double() / temperature
        self.temperature = temperature
        self.discount = discount

    def evidence(self) -> Tensor:
        r"""Solve for the log-evidence from each state, :math:`\log u`.

        .. math::
            u = M (\gamma P u + 1 - \gamma), \quad M P = \sum_a p(a \mid s) \, e^{r(s, a) / \alpha} p(s' \mid s, a)

        The series :math:`\sum_k (\gamma M P)^k M (1 - \gamma)` is summed in logarithms until each state has had its
        turn, and the system solved for what :math:`u` is a multiple of it, so that nothing overflows.

        Raises:
            NonFiniteError: where the spectral radius of :math:`\gamma M P` is not below one, so that :math:`u` is
                infinite.
        """
        gamma = self.rewards.new_tensor(self.discount)
        weight = self.log_prior + self.rewards
        moved = gamma.log() + (weight.unsqueeze(-1) + self.transitions.log()).logsumexp(1)
        ends = (1 - gamma).log() + weight.logsumexp(1)
        V = ends
        for _ in range(len(V)):
            V = torch.logaddexp(ends, (moved + V).logsumexp(1))
        relative_moved = (moved + V - V.unsqueeze(1)).exp()
        self._check_growth(relative_moved)
        return V + _solve(relative_moved, (ends - V).exp()).log()

    def best(self) -> Tensor:
        """Evaluate a policy, improve it by its values, and so on, from the prior on, until its values rise no more."""
        q, before = self.log_prior.exp(), None
        while True:
            V = self.value(q)
            if before is not None and not V.sum() > before.sum():
                return V
            q, before = (self.log_prior + self.rewards + self.discount * (self.transitions @ V)).softmax(-1), V

    def value(self, policy: Tensor) -> Tensor:
        r"""Solve :math:`(I - \gamma P_q) V = \mathbb{E}_q[r / \alpha - \log (q / p)]`, for the ELBO of a policy."""
        q = _normalized(policy)
        gained = (q * self.rewards - relative(q, self.log_prior)).sum(-1)
        return _solve(self.discount * torch.einsum("sa,sat->st", q, self.transitions), gained)

    def _check_growth(self, moved: Tensor) -> None:
        growth = float(torch.linalg.eigvals(moved).abs().max()) if moved.isfinite().all() else inf
        if not growth < 1:
            raise NonFiniteError(
                f"the evidence of endless trajectories is infinite: each step multiplies it by {growth:.4g}. Raise the "
                f"temperature from {self.temperature}, lower the discount from {self.discount}, or give a horizon"
            )


def relative(q: Tensor, log_prior: Tensor) -> Tensor:
    r"""Return :math:`q \log (q / p)`, which is zero where :math:`q` is."""
    taken = q > 0
    # What torch.where leaves out still has a gradient, of 0 times infinity: it must not see a logarithm of zero.
    ratio = torch.where(taken, q, 1.0).log() - torch.where(taken, log_prior, 0.0)
    return torch.where(taken, q * ratio, 0.0)


def _normalized(probabilities: Tensor) -> Tensor:
    probabilities = probabilities.double()
    return probabilities / probabilities.sum(-1, keepdim=True)


def _solve(moved: Tensor, gained: Tensor) -> Tensor:
    return torch.linalg.solve(torch.eye(len(moved), dtype=moved.dtype, device=moved.device) - moved, gained)
