"""From a density that can be drawn from to one that is to be integrated, by small steps."""

from collections.abc import Sequence
from math import log
from typing import Protocol, TypeVar

import torch
from torch import Tensor

__all__ = ["Path", "anneal", "anneal_back", "log_mean_exp", "sigmoid_schedule"]

State = TypeVar("State")


class Path(Protocol[State]):
    r"""Unnormalised densities between a start and an end, and moves that leave each of them as it is.

    .. math:: \log f_\beta(z) = (1 - \beta) \log f_0(z) + \beta \log f_1(z), \qquad \beta \in [0, 1]

    A state holds several independent chains, of one problem or of many at once.
    """

    def log_ratio(self, state: State) -> Tensor:
        r"""Return :math:`\log f_1(z) - \log f_0(z)`, shape ``(chains, ...)``."""

    def move(self, state: State, beta: float, step: int) -> State:
        r"""Move every chain, such that :math:`f_\beta` is left as it is.

        Args:
            step: which one on the way it is, from 1 on; what was tuned for a step depends on nothing else.
        """

    def select(self, state: State, chains: Tensor) -> State:
        """Return the state whose chains are those of some indices, shape ``(chains, ...)``, problem by problem."""


def sigmoid_schedule(num_steps: int, width: float = 4.0) -> list[float]:
    r"""Make inverse temperatures that are densest at both ends.

    .. math:: \beta_t = \frac{\sigma(w (2t/T - 1)) - \sigma(-w)}{\sigma(w) - \sigma(-w)}, \qquad t = 0, \dots, T

    References:
        On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2017),
        https://arxiv.org/abs/1611.04273

    Example:
        >>> [round(beta, 3) for beta in sigmoid_schedule(4)]
        [0.0, 0.105, 0.5, 0.895, 1.0]
    """
    raw = torch.sigmoid(width * torch.linspace(-1, 1, num_steps + 1, dtype=torch.float64))
    return ((raw - raw[0]) / (raw[-1] - raw[0])).tolist()


def anneal(
    path: Path[State], state: State, betas: Sequence[float], resample_below: float = 0.0
) -> tuple[Tensor, State]:
    r"""Anneal exact draws of the start; their weights estimate the ratio of normalising constants without bias.

    .. math::
        \log w = \sum_{t=1}^T (\beta_t - \beta_{t-1}) \log \frac{f_1(z_{t-1})}{f_0(z_{t-1})}, \quad
        z_t \sim \mathcal{T}_{\beta_t}(\cdot \mid z_{t-1}), \qquad \mathbb{E}[w] = Z_1 / Z_0

    A weight is added before the move at its temperature. By Jensen's inequality, the logarithm of a mean of weights is
    in expectation at most :math:`\log Z_1 / Z_0`.

    Args:
        path: densities and moves.
        state: draws of :math:`f_0`.
        betas: :math:`\beta_0 = 0, \dots, \beta_T = 1`.
        resample_below: draw the chains anew by their weights where fewer than this share of them count: with a value
            above zero this is sequential Monte Carlo; at zero, annealed importance sampling.

    Returns:
        :math:`\log w` in nats, float64, shape ``(chains, ...)``, whose :func:`log_mean_exp` over chains is the
        estimate, and the state at the end.

    References:
        Annealed Importance Sampling (Neal, 2001), https://arxiv.org/abs/physics/9803008
        Sequential Monte Carlo Samplers (Del Moral et al., 2006), https://doi.org/10.1111/j.1467-9868.2006.00553.x
    """
    log_weights: Tensor | None = None
    for step in range(1, len(betas)):
        added = (betas[step] - betas[step - 1]) * path.log_ratio(state).double()
        log_weights = added if log_weights is None else log_weights + added
        if resample_below > 0:
            log_weights, state = _resampled(path, state, log_weights, resample_below)
        state = path.move(state, betas[step], step)
    assert log_weights is not None
    return log_weights, state


def anneal_back(path: Path[State], state: State, betas: Sequence[float]) -> Tensor:
    r"""Take exact draws of the end back to the start; weights estimate the inverse ratio without bias.

    .. math::
        \log w = \sum_{t=T}^1 (\beta_{t-1} - \beta_t) \log \frac{f_1(z_{t-1})}{f_0(z_{t-1})}, \quad
        z_{t-1} \sim \mathcal{T}_{\beta_t}(\cdot \mid z_t), \qquad \mathbb{E}[w] = Z_0 / Z_1

    so that minus the logarithm of their mean is in expectation at least :math:`\log Z_1 / Z_0`. Only where data were
    simulated are there exact draws: the :math:`z` that a datum was made of is one.

    Returns:
        :math:`\log w` in nats, float64, shape ``(chains, ...)``.

    References:
        Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse et al., 2015),
        https://arxiv.org/abs/1511.02543
    """
    log_weights: Tensor | None = None
    for step in range(len(betas) - 1, 0, -1):
        state = path.move(state, betas[step], step)
        added = (betas[step - 1] - betas[step]) * path.log_ratio(state).double()
        log_weights = added if log_weights is None else log_weights + added
    assert log_weights is not None
    return log_weights


def log_mean_exp(log_weights: Tensor) -> Tensor:
    r"""Return :math:`\log \frac{1}{K} \sum_k w_k` over the first dimension.

    Example:
        >>> log_mean_exp(torch.tensor([0.0, log(3.0)])).exp()
        tensor(2.)
    """
    return torch.logsumexp(log_weights, 0) - log(len(log_weights))


def _resampled(path: Path[State], state: State, log_weights: Tensor, below: float) -> tuple[Tensor, State]:
    """Draw chains by their weights, systematically, in those problems where too few of them count."""
    count = len(log_weights)
    shares = log_weights.softmax(0)
    is_poor = 1 / shares.square().sum(0) < below * count
    if not is_poor.any():
        return log_weights, state
    points = torch.arange(count, device=shares.device).reshape(-1, *[1] * is_poor.dim()) + torch.rand_like(shares[:1])
    edges = shares.cumsum(0)
    drawn = (points.unsqueeze(1) / count > edges.unsqueeze(0)).sum(1).clamp(max=count - 1)
    same = torch.arange(count, device=shares.device).reshape(-1, *[1] * is_poor.dim()).expand_as(drawn)
    average = log_mean_exp(log_weights).expand_as(log_weights)
    return torch.where(is_poor, average, log_weights), path.select(state, torch.where(is_poor, drawn, same))
