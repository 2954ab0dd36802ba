"""Variational lower bounds of f-divergences."""

from collections.abc import Callable, Sequence
from math import log
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyrogen.inference.adversarial import Scoring
from pyrogen.inference.penalties import Penalty
from pyrogen.inference.samples import Transform

__all__ = ["FGAN"]


class Divergence(NamedTuple):
    """An f-divergence by its convex conjugate, as functions of any score.

    Attributes:
        activation: g, from a score to the conjugate's domain.
        conjugate: f* of g: written as one, since f* alone loses what g rounded off.
    """

    activation: Callable[[Tensor], Tensor]
    conjugate: Callable[[Tensor], Tensor]


DIVERGENCES = {
    "kl": Divergence(lambda v: v, lambda v: torch.exp(v - 1)),
    "reverse-kl": Divergence(lambda v: -torch.exp(-v), lambda v: v - 1),
    "js": Divergence(lambda v: (log(2) - softplus(-v)) / 2, lambda v: (softplus(v) - log(2)) / 2),
    "pearson": Divergence(lambda v: v, lambda v: v.square() / 4 + v),
    "squared-hellinger": Divergence(lambda v: -torch.expm1(-v) / 2, lambda v: torch.expm1(v) / 2),
    "total-variation": Divergence(lambda v: torch.tanh(v) / 2, lambda v: torch.tanh(v) / 2),
}


class FGAN(Scoring):
    r"""The lower bound of an f-divergence that a critic makes tight.

    .. math::
        D_f(p^* \| p_\theta) = \mathbb{E}_{p_\theta(x)} f\!\left(\frac{p^*(x)}{p_\theta(x)}\right)
        \ge \mathbb{E}_{p^*(x)}[g(V(x))] - \mathbb{E}_{p_\theta(x)}[f^*(g(V(x)))]

    The critic raises the bound, the programs lower it. With :math:`r = p^* / p_\theta`:

    - ``kl``: :math:`f(r) = r \log r`, :math:`g(v) = v`, :math:`f^*(t) = e^{t - 1}`;
    - ``reverse-kl``: :math:`f(r) = -\log r`, :math:`g(v) = -e^{-v}`, :math:`f^*(t) = -1 - \log(-t)`;
    - ``js``: :math:`f(r) = \frac{1}{2} r \log r - \frac{r + 1}{2} \log\frac{r + 1}{2}`,
      :math:`g(v) = \frac{1}{2}(\log 2 - \log(1 + e^{-v}))`, :math:`f^*(t) = -\frac{1}{2}\log(2 - e^{2t})`;
    - ``pearson``: :math:`f(r) = (r - 1)^2`, :math:`g(v) = v`, :math:`f^*(t) = t^2 / 4 + t`;
    - ``squared-hellinger``: :math:`f(r) = \frac{1}{2}(\sqrt r - 1)^2`, :math:`g(v) = \frac{1}{2}(1 - e^{-v})`,
      :math:`f^*(t) = t / (1 - 2t)`;
    - ``total-variation``: :math:`f(r) = \frac{1}{2}|r - 1|`, :math:`g(v) = \frac{1}{2}\tanh v`, :math:`f^*(t) = t`.

    So ``kl`` is :math:`\mathrm{KL}(p^* \| p_\theta)`, ``js`` has the weights one half, and ``squared-hellinger`` is one
    minus the Bhattacharyya coefficient.

    Args:
        critic: from the values of the observed sites (and covariates) to :math:`V(x)`, see :class:`Adversarial`.
        divergence: which of these.
        non_saturating: the programs raise :math:`\mathbb{E}_{p_\theta}[g(V(x))]` instead, whose gradient does not
            vanish where the critic is sure.
        penalties: what is added to the critic's loss.
        covariates: names of the arguments that the critic sees besides; found by themselves if not given.
        transform: applied to each site's values before critic and penalties see them.

    References:
        f-GAN: Training Generative Neural Samplers using Variational Divergence Minimization (Nowozin et al., 2016),
        https://arxiv.org/abs/1606.00709
    """

    saturates = True

    def __init__(
        self,
        critic: nn.Module,
        divergence: Literal["kl", "reverse-kl", "js", "pearson", "squared-hellinger", "total-variation"] = "js",
        non_saturating: bool = False,
        penalties: Sequence[Penalty] = (),
        covariates: Sequence[str] | None = None,
        transform: Transform | None = None,
    ) -> None:
        super().__init__(critic, penalties, covariates, transform)
        if divergence not in DIVERGENCES:
            raise ValueError(f"unknown divergence {divergence!r}: choose from {', '.join(DIVERGENCES)}")
        self.divergence = divergence
        self.non_saturating = non_saturating

    def bound(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the bound, in nats where the divergence is, given scores of data and draws."""
        activation, conjugate = DIVERGENCES[self.divergence]
        return activation(real).mean() - conjugate(fake).mean()

    def loss_of_programs(self, fake: Tensor) -> Tensor:
        activation, conjugate = DIVERGENCES[self.divergence]
        return -activation(fake).mean() if self.non_saturating else -conjugate(fake).mean()

    def loss_of_critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return -self.bound(real, fake)
