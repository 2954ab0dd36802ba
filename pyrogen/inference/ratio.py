r"""Density ratios, learned from samples of both densities.

.. math:: \log r(z) = \log q(z) - \log p(z)

A ratio replaces what has no density: the logarithm of an implicit :math:`q(z)` is :math:`\log r(z) + \log p(z)`. What
comes of it is an estimate and not a bound: no classifier tells how much rarer than one in :math:`n` its :math:`n`
samples of :math:`q` are under :math:`p`, so that large divergences are underestimated (McAllester and Stratos, 2020,
https://arxiv.org/abs/1811.04251). Two remedies: compare with a :math:`p` that is nearer, as in
:class:`~pyrogen.inference.AVB` by adaptive contrast; or go there in small steps, by :class:`Telescoping`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyrogen.inference.adversarial import checked_critic, scores_of

__all__ = ["ESTIMATORS", "LogRatio", "Ratio", "Telescoping"]


class Estimator(NamedTuple):
    """How a ratio is learned from a critic's scores :math:`T`.

    Attributes:
        loss: of scores under :math:`q` and under :math:`p`.
        log_ratio: what a score says of :math:`\\log r`, up to a constant where it is normalised.
        is_normalised: whether :math:`\\log \\mathbb{E}_p e^T` has to be taken off.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    log_ratio: Callable[[Tensor], Tensor]
    is_normalised: bool = False


def _log_mean_exp(scores: Tensor) -> Tensor:
    return scores.logsumexp(0) - torch.log(torch.ones_like(scores).sum())


def _log_softplus(scores: Tensor) -> Tensor:
    r"""Return :math:`\log \log(1 + e^T)`, which is :math:`T` itself where :math:`e^T` vanishes."""
    return torch.where(scores < -15, scores, softplus(scores.clamp(min=-15)).log())


ESTIMATORS = {
    "logistic": Estimator(lambda q, p: softplus(-q).mean() + softplus(p).mean(), lambda t: t),
    "kliep": Estimator(lambda q, p: p.exp().mean() - q.mean(), lambda t: t),
    "nwj": Estimator(lambda q, p: (p - 1).exp().mean() - q.mean(), lambda t: t - 1),
    "dv": Estimator(lambda q, p: _log_mean_exp(p) - q.mean(), lambda t: t, is_normalised=True),
    "least-squares": Estimator(lambda q, p: softplus(p).square().mean() / 2 - softplus(q).mean(), _log_softplus),
}


class LogRatio(nn.Module, ABC):
    r"""An estimate of :math:`\log r(z \mid c) = \log q(z \mid c) - \log p(z \mid c)`.

    One without parameters, such as a formula, is an oracle: it is not learned.
    """

    @abstractmethod
    def forward(self, values: Sequence[Tensor], conditions: Sequence[Tensor] = ()) -> Tensor:
        """Return the estimate, shape ``(batch,)``.

        Args:
            values: :math:`z`, site by site, a row a datum.
            conditions: :math:`c`, likewise.
        """

    @abstractmethod
    def loss(self, of_q: Sequence[Tensor], of_p: Sequence[Tensor], conditions: Sequence[Tensor] = ()) -> Tensor:
        """Return what the ratio is learned by, a scalar, given samples of both under the same conditions."""


class Ratio(LogRatio):
    r"""A ratio by one critic.

    The critic's scores :math:`T` minimise

    =================  ===========================================================  ======================
    ``logistic``       :math:`-\mathbb{E}_q \log \sigma(T)                          :math:`\log r = T`
                       - \mathbb{E}_p \log(1 - \sigma(T))`
    ``kliep``          :math:`\mathbb{E}_p e^T - \mathbb{E}_q T`                    :math:`\log r = T`
    ``nwj``            :math:`\mathbb{E}_p e^{T - 1} - \mathbb{E}_q T`              :math:`\log r = T - 1`
    ``dv``             :math:`\log \mathbb{E}_p e^T - \mathbb{E}_q T`               :math:`\log r = T
                                                                                    - \log \mathbb{E}_p e^T`
    ``least-squares``  :math:`\frac{1}{2} \mathbb{E}_p r^2 - \mathbb{E}_q r`,       :math:`r = \log(1 + e^T)`
    =================  ===========================================================  ======================

    ``kliep`` is the Lagrangian form: :math:`\mathbb{E}_p r = 1` holds at its optimum. The normaliser of ``dv`` is a
    moving average of :math:`\mathbb{E}_p e^T` over batches.

    Args:
        critic: the network, called with values and then conditions; shape ``(batch,)`` or ``(batch, 1)``.
        estimator: which of these.

    Raises:
        ValueError: where there is no such estimator.
        ProgramError: where the critic returns another shape.

    References:
        Density Ratio Estimation in Machine Learning (Sugiyama et al., 2012), https://doi.org/10.1017/CBO9781139035613

        Estimating Divergence Functionals and the Likelihood Ratio by Convex Risk Minimization (Nguyen et al., 2010),
        https://arxiv.org/abs/0809.0853

        Mutual Information Neural Estimation (Belghazi et al., 2018), https://arxiv.org/abs/1801.04062

    Example:
        >>> ratio = Ratio(nn.Linear(2, 1))
        >>> ratio([torch.randn(5, 2)]).shape, ratio.loss([torch.randn(5, 2)], [torch.randn(5, 2)]).shape
        (torch.Size([5]), torch.Size([]))
    """

    log_mean: Tensor

    def __init__(self, critic: nn.Module, estimator: str = "logistic") -> None:
        super().__init__()
        if estimator not in ESTIMATORS:
            raise ValueError(f"unknown estimator {estimator!r}: choose from {', '.join(ESTIMATORS)}")
        self.critic = checked_critic(critic)
        self.estimator = estimator
        self.register_buffer("log_mean", torch.tensor(0.0))

    def forward(self, values: Sequence[Tensor], conditions: Sequence[Tensor] = ()) -> Tensor:
        estimator = ESTIMATORS[self.estimator]
        log_ratio = estimator.log_ratio(self.scores(values, conditions))
        return log_ratio - self.log_mean if estimator.is_normalised else log_ratio

    def loss(self, of_q: Sequence[Tensor], of_p: Sequence[Tensor], conditions: Sequence[Tensor] = ()) -> Tensor:
        estimator = ESTIMATORS[self.estimator]
        under_q, under_p = self.scores(of_q, conditions), self.scores(of_p, conditions)
        if estimator.is_normalised:
            with torch.no_grad():
                found = _log_mean_exp(under_p).to(self.log_mean.dtype)
                self.log_mean.copy_(torch.logaddexp(self.log_mean + math.log(0.9), found + math.log(0.1)))
        return estimator.loss(under_q, under_p)

    def scores(self, values: Sequence[Tensor], conditions: Sequence[Tensor] = ()) -> Tensor:
        """Return the critic's scores :math:`T`, shape ``(batch,)``."""
        return scores_of(self.critic, *values, *conditions)

    def extra_repr(self) -> str:
        return f"estimator={self.estimator!r}"


class Telescoping(LogRatio):
    r"""A ratio as a product of ratios between neighbours on a way from one density to the other.

    .. math::
        \log r(z) = \sum_{k=0}^{m-1} T_k(z), \quad z_k = \sqrt{1 - a_k^2} \, z_p + a_k z_q, \quad
        0 = a_0 < \dots < a_m = 1

    where :math:`T_k` tells :math:`z_{k+1}` from :math:`z_k`, by the logistic loss; each is asked for a ratio that is
    small enough to be learned. It is for values that are real numbers.

    Args:
        critics: :math:`T_0, \dots, T_{m-1}`, as in :class:`Ratio`.

    References:
        Telescoping Density-Ratio Estimation (Rhodes et al., 2020), https://arxiv.org/abs/2006.12204
    """

    def __init__(self, critics: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(critics) < 1:
            raise ValueError("telescoping needs at least one critic")
        self.ratios = nn.ModuleList([Ratio(critic) for critic in critics])

    def forward(self, values: Sequence[Tensor], conditions: Sequence[Tensor] = ()) -> Tensor:
        return torch.stack([ratio(values, conditions) for ratio in self.ratios]).sum(0)

    def loss(self, of_q: Sequence[Tensor], of_p: Sequence[Tensor], conditions: Sequence[Tensor] = ()) -> Tensor:
        count = len(self.ratios)
        way = [
            [(1 - (k / count) ** 2) ** 0.5 * p + k / count * q for q, p in zip(of_q, of_p, strict=True)]
            for k in range(count + 1)
        ]
        losses = [ratio.loss(way[k + 1], way[k], conditions) for k, ratio in enumerate(self.ratios)]  # type: ignore[operator]
        return torch.stack(losses).sum()
