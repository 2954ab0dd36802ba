"""Particle smoothing: trajectories of the exact posterior, given that all their steps are optimal."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from pyro.distributions import Categorical, TorchDistribution
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from pyrogen.errors import ProgramError, UsageError
from pyrogen.inference.resampling import effective, log_mean, resampled, systematic, taken
from pyrogen.world import World, imagine, transition

__all__ = ["SmoothedTrajectories", "particle_smoothing"]

Choice = Callable[[Tensor], TorchDistribution]
"""What a policy says of actions, given observations: its ``distribution``."""


class SmoothedTrajectories(NamedTuple):
    r"""Trajectories of the exact posterior, each as good as any other; the last dimensions are those of a column.

    Attributes:
        log_evidence: the logarithm of an estimate of :math:`\mathbb{E}_{p(\tau)}[e^{\sum_t r_t / \alpha}]` that has no
            bias, in nats, shape ``(environments,)``.
        observation: :math:`s_t`, shape ``(horizon + 1, num_particles, environments, ...)``.
        action: :math:`a_t`, shape ``(horizon, num_particles, environments, ...)``.
        effective: :math:`(\sum_k w_k)^2 / \sum_k w_k^2`, how many particles counted at each time, shape
            ``(horizon + 1, environments)``.
    """

    log_evidence: Tensor
    observation: Tensor
    action: Tensor
    effective: Tensor


class Step(NamedTuple):
    """Particles of a time step, before they are drawn anew: weights without what lies ahead, and whose the next are."""

    observation: Tensor
    action: Tensor
    log_weights: Tensor
    parents: Tensor


@torch.no_grad()
def particle_smoothing(
    prior: Choice,
    world: World,
    start: Tensor,
    *,
    horizon: int,
    temperature: float = 1.0,
    num_particles: int = 1000,
    value: Callable[[Tensor], Tensor] | None = None,
    proposal: Choice | None = None,
    backward: bool = True,
    resample_below: float = 0.5,
) -> SmoothedTrajectories:
    r"""Draw trajectories from the exact posterior by sequential Monte Carlo, and estimate the evidence.

    .. math:: p(\tau \mid \text{optimal}) \propto p(s_0) \prod_t p(a_t \mid s_t) \, e^{r_t / \alpha} \,
        p(s_{t+1} \mid s_t, a_t)

    Particles take steps of :math:`p`, or actions of a proposal :math:`q`, and have weights

    .. math:: w_t \propto w_{t-1} \, \frac{e^{r_{t-1} / \alpha} \, e^{V(s_t)}}{e^{V(s_{t-1})}}
        \frac{p(a_t \mid s_t)}{q(a_t \mid s_t)}

    by which they are drawn anew, systematically, where few count. :math:`V`, which twists what is aimed at on the way,
    and not in the end, looks ahead for them. Then trajectories are drawn backwards,

    .. math:: p(s_t^k, a_t^k \mid s_{t+1}) \propto w_t^k \, e^{-V(s_t^k) + r_t / \alpha} \, p(s_{t+1} \mid s_t^k, a_t^k)

    which takes the square of the number of particles; or, without, as particles descend from one another, where at
    early times they are soon all the same.

    This is the *exact* posterior, of :func:`~pyrogen.evaluation.smooth_trajectories`, and the evidence that of
    :func:`~pyrogen.evaluation.posterior_values`, :math:`\log \mathbb{E}[e^{\sum r / \alpha}]`: luck is part of it. The
    policy to act by is the *variational* one, of :func:`~pyrogen.evaluation.variational_values` and
    :class:`~pyrogen.inference.KLControl`, and the two are the same only where the world leaves nothing to chance.

    Args:
        prior: :math:`p(a \mid s)`, a policy's ``distribution``.
        world: what a step brings, a :data:`~pyrogen.world.World`; to draw backwards, a program that draws
            ``next_observation``.
        start: :math:`s_0`, shape ``(environments, ...)``.
        horizon: how many steps there are.
        temperature: :math:`\alpha`, in the unit of rewards.
        num_particles: how many trajectories of each environment.
        value: :math:`V`, what is to be had from observations on, in nats, shape ``(*batch, ...)`` to ``(*batch,)``: a
            soft value, exact, learned or guessed. It changes the noise and not the aim.
        proposal: :math:`q(a \mid s)`, which has a density wherever the prior has one; the prior if not given.
        backward: whether trajectories are drawn backwards.
        resample_below: the share of particles that must count, or they are drawn anew.

    Returns:
        Trajectories, and the estimate of the evidence.

    Raises:
        UsageError: where a setting is out of range.
        ProgramError: where the world has no density to draw backwards by, or returns other shapes; where all particles
            of an environment have the weight zero (unless Pyro's validation is off).

    References:
        Monte Carlo Smoothing for Nonlinear Time Series (Godsill et al., 2004),
        https://doi.org/10.1198/016214504000000151

        An Introduction to Twisted Particle Filters and Parameter Estimation in Non-linear State-space Models
        (Ala-Luhtala et al., 2016), https://arxiv.org/abs/1509.09175

        Probabilistic Planning with Sequential Monte Carlo Methods (Piché et al., 2019),
        https://openreview.net/forum?id=ByetGn0cYX

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def world(position, move):
        ...     after = pyro.sample("next_observation", dist.Normal(position + move, 1.0))
        ...     return after, -position.square()
        >>> def prior(position):
        ...     return dist.Normal(torch.zeros_like(position), 1.0)
        >>> particle_smoothing(prior, world, torch.zeros(2), horizon=3, num_particles=50).action.shape
        torch.Size([3, 50, 2])
    """
    _check(horizon, temperature, num_particles, resample_below)
    s = start.expand(num_particles, *start.shape)
    log_w = ahead = _ahead(value, s)
    log_evidence, counts = torch.zeros_like(log_w[0]), []
    steps: list[Step] = []
    for t in range(horizon):
        a, log_ratio = _acted(prior, proposal, s, log_w)
        log_w = log_w + log_ratio
        counts.append(effective(log_w))
        parents, gained, kept = resampled(log_w, counts[-1] < resample_below * num_particles)
        steps.append(Step(s, a, log_w - ahead, parents))
        s, a, passed = (taken(column, parents) for column in (s, a, ahead))
        s, reward = imagine(world, s, a, log_w.shape)
        ahead = _ahead(value if t + 1 < horizon else None, s)
        log_evidence, log_w = log_evidence + gained, kept + reward / temperature + ahead - passed
    counts.append(effective(log_w))
    log_evidence = log_evidence + log_mean(log_w)
    _check_weights(log_evidence)
    chosen = systematic(log_w)
    last, path = taken(s, chosen), []
    s = last
    for step in reversed(steps):
        chosen = _before(world, step, s, temperature) if backward else taken(step.parents, chosen)
        s = taken(step.observation, chosen)
        path.append((s, taken(step.action, chosen)))
    observations, actions = zip(*path[::-1], strict=True)
    return SmoothedTrajectories(
        log_evidence, torch.stack([*observations, last]), torch.stack(actions), torch.stack(counts)
    )


def _ahead(value: Callable[[Tensor], Tensor] | None, s: Tensor) -> Tensor:
    """Look ahead; after the last step, and without a value, nothing is to be seen."""
    return torch.zeros(s.shape[:2], device=s.device) if value is None else value(s)


def _acted(prior: Choice, proposal: Choice | None, s: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Draw actions, and say by how much the prior prefers them."""
    p = prior(s)
    q = p if proposal is None else proposal(s)
    a = q.expand(like.shape).sample()
    return a, torch.zeros_like(like) if proposal is None else p.log_prob(a) - q.log_prob(a)


def _before(world: World, step: Step, after: Tensor, temperature: float) -> Tensor:
    """Draw from which particle each trajectory came to where it is."""
    shape = torch.Size((len(after), *step.log_weights.shape))
    s, a = (column.expand(len(after), *column.shape) for column in (step.observation, step.action))
    towards = after.unsqueeze(1).expand(*shape, *after.shape[2:])
    log_prob, reward = transition(world, s, a, towards, shape)
    return Categorical(logits=(step.log_weights + reward / temperature + log_prob).movedim(1, -1)).sample()


def _check_weights(log_evidence: Tensor) -> None:
    """Refuse trajectories of particles without any weight, which are of no posterior."""
    if is_validation_enabled() and not log_evidence.isfinite().all():
        where = int((~log_evidence.isfinite()).nonzero()[0])
        raise ProgramError(
            f"the logarithm of the evidence in environment {where} is {float(log_evidence[where])}, so that no "
            f"particle has a weight: look at the world's rewards, or let more particles, or a proposal, come to where "
            f"they are finite"
        )


def _check(horizon: int, temperature: float, num_particles: int, resample_below: float) -> None:
    for name, number in (("horizon", horizon), ("num_particles", num_particles)):
        if number < 1:
            raise UsageError(f"{name} must be at least 1, found {number}")
    if not temperature > 0:
        raise UsageError(f"temperature must be above 0, found {temperature}")
    if not 0 <= resample_below <= 1:
        raise UsageError(f"resample_below must be between 0 and 1, found {resample_below}")
