r"""Returns of recorded trajectories: what an action brought, of tensors whose first dimension is time.

The value of the state that a step leads to is an argument of its own, ``next_values``: where an episode ends, the next
row of the recording belongs to another. ``terminated`` says that nothing follows, whatever is said of the next state;
``truncated`` says that the recording stops and the world does not, so that the value of the next state stands for what
was not seen. The last row is taken as truncated. No gradient flows through what these functions return.
"""

from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from pyrogen.errors import UsageError

__all__ = ["VTrace", "discounted_returns", "generalized_advantages", "lambda_returns", "v_trace"]


def discounted_returns(
    rewards: Tensor, next_values: Tensor, terminated: Tensor, truncated: Tensor, discount: float = 1.0
) -> Tensor:
    r"""Add up the rewards from each step on: the reward-to-go.

    .. math:: G_t = \sum_{k=0}^{n-1} \gamma^k r_{t+k} + \gamma^n V(s_{t+n})

    where step :math:`t + n - 1` is the last of the episode that was recorded, and :math:`V = 0` if it terminated.

    Args:
        rewards: :math:`r_t`, shape ``(time, ...)``; the other dimensions are those of environments.
        next_values: :math:`V(s_{t+1})`, in the unit of rewards, same shape; of a new episode's first state never.
        terminated: whether nothing follows step :math:`t`, boolean, same shape.
        truncated: whether the episode was cut off after step :math:`t`, boolean, same shape.
        discount: :math:`\gamma`, from 0 to 1.

    Returns:
        :math:`G_t`, same shape, without gradient.

    Raises:
        UsageError: where shapes differ, a flag is not boolean, or a setting is out of range.

    Example:
        >>> rewards, flags = torch.ones(3), torch.zeros(3, dtype=torch.bool)
        >>> discounted_returns(rewards, torch.full((3,), 10.0), flags, flags)
        tensor([13., 12., 11.])
        >>> discounted_returns(rewards, torch.full((3,), 10.0), torch.tensor([False, True, False]), flags)
        tensor([ 2.,  1., 11.])
    """
    return lambda_returns(rewards, next_values, terminated, truncated, discount, 1.0)


@torch.no_grad()
def lambda_returns(
    rewards: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float = 1.0,
    decay: float = 0.95,
) -> Tensor:
    r"""Average the returns of all numbers of steps, by weights that decay with the number.

    .. math::
        G^\lambda_t = r_t + \gamma \left((1 - \lambda) V(s_{t+1}) + \lambda G^\lambda_{t+1}\right)
        = (1 - \lambda) \sum_{n=1}^{N-1} \lambda^{n-1} G^{(n)}_t + \lambda^{N-1} G^{(N)}_t

    where :math:`G^{(n)}_t = \sum_{k<n} \gamma^k r_{t+k} + \gamma^n V(s_{t+n})` and :math:`N` steps of the episode are
    left. With :math:`\lambda = 0` it is the target of TD(0), and with 1 the reward-to-go.

    Args:
        rewards: :math:`r_t`, shape ``(time, ...)``.
        next_values: :math:`V(s_{t+1})`, same shape; of a new episode's first state never.
        terminated: whether nothing follows step :math:`t`, boolean, same shape.
        truncated: whether the episode was cut off after step :math:`t`, boolean, same shape.
        discount: :math:`\gamma`, from 0 to 1.
        decay: :math:`\lambda`, from 0 to 1.

    Returns:
        :math:`G^\lambda_t`, same shape, without gradient.

    Raises:
        UsageError: where shapes differ, a flag is not boolean, or a setting is out of range.

    References:
        Learning to Predict by the Methods of Temporal Differences (Sutton, 1988), https://doi.org/10.1007/BF00115009

    Example:
        >>> rewards, flags = torch.ones(3), torch.zeros(3, dtype=torch.bool)
        >>> lambda_returns(rewards, torch.full((3,), 8.0), flags, flags, decay=0.5)
        tensor([9.7500, 9.5000, 9.0000])
    """
    _check_range(1.0, discount=discount, decay=decay)
    _check(rewards, next_values=next_values, terminated=terminated, truncated=truncated)
    bootstrap = _bootstrap(next_values, terminated)
    goes_on = _goes_on(rewards, terminated, truncated)
    return _summed_back(rewards + _weighed(discount * (1 - decay * goes_on), bootstrap), discount * decay * goes_on)


@torch.no_grad()
def generalized_advantages(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float = 1.0,
    decay: float = 0.95,
) -> Tensor:
    r"""Estimate by how much each action was better than what a state's value says.

    .. math::
        \hat A_t = \sum_{k \ge 0} (\gamma \lambda)^k \delta_{t+k}, \quad
        \delta_t = r_t + \gamma V(s_{t+1}) - V(s_t)

    The sum ends where the episode does. It is :math:`G^\lambda_t - V(s_t)` where ``next_values`` and ``values`` are of
    the same :math:`V`.

    Args:
        rewards: :math:`r_t`, shape ``(time, ...)``.
        values: :math:`V(s_t)`, same shape.
        next_values: :math:`V(s_{t+1})`, same shape; of a new episode's first state never.
        terminated: whether nothing follows step :math:`t`, boolean, same shape.
        truncated: whether the episode was cut off after step :math:`t`, boolean, same shape.
        discount: :math:`\gamma`, from 0 to 1.
        decay: :math:`\lambda`, from 0 to 1.

    Returns:
        :math:`\hat A_t`, same shape, without gradient.

    Raises:
        UsageError: where shapes differ, a flag is not boolean, or a setting is out of range.

    References:
        High-Dimensional Continuous Control Using Generalized Advantage Estimation (Schulman et al., 2016),
        https://arxiv.org/abs/1506.02438

    Example:
        >>> rewards, flags = torch.ones(3), torch.zeros(3, dtype=torch.bool)
        >>> generalized_advantages(rewards, torch.full((3,), 8.0), torch.full((3,), 8.0), flags, flags, decay=0.5)
        tensor([1.7500, 1.5000, 1.0000])
    """
    _check_range(1.0, discount=discount, decay=decay)
    _check(rewards, values=values, next_values=next_values, terminated=terminated, truncated=truncated)
    errors = rewards + discount * _bootstrap(next_values, terminated) - values
    return _summed_back(errors, discount * decay * _goes_on(rewards, terminated, truncated))


class VTrace(NamedTuple):
    r"""What :func:`v_trace` returns, without gradient.

    Attributes:
        targets: :math:`v_t`, what the critic is to say of :math:`s_t`, shape ``(time, ...)``.
        advantages: :math:`\rho_t (r_t + \gamma v_{t+1} - V(s_t))`, what the policy gradient weighs a score by.
    """

    targets: Tensor
    advantages: Tensor


@torch.no_grad()
def v_trace(
    log_ratios: Tensor,
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float = 1.0,
    decay: float = 1.0,
    clip_rho: float = 1.0,
    clip_c: float = 1.0,
) -> VTrace:
    r"""Correct returns of trajectories that another policy took, by clipped importance weights.

    .. math::
        v_t = V(s_t) + \sum_{k \ge 0} \gamma^k \left(\prod_{i=t}^{t+k-1} c_i\right)
        \rho_{t+k} \left(r_{t+k} + \gamma V(s_{t+k+1}) - V(s_{t+k})\right)

    with :math:`\rho_t = \min(\bar\rho, w_t)`, :math:`c_t = \lambda \min(\bar c, w_t)` and
    :math:`w_t = \pi(a_t \mid s_t) / \mu(a_t \mid s_t)`. Its fixed point is the value of :math:`\pi` where nothing is
    clipped, and else that of a policy between :math:`\mu` and :math:`\pi`, which :math:`\bar\rho` alone decides.
    It is there for :math:`\gamma < 1`, and repeated targets come to it for :math:`\bar\rho \ge \bar c`, where
    :math:`\mathbb{E}_\mu[\rho_t]` is bounded away from zero in each state.
    Where :math:`\mu = \pi`, :math:`v_t` is the λ-return.

    Args:
        log_ratios: :math:`\log w_t` in nats, shape ``(time, ...)``.
        rewards: :math:`r_t`, same shape.
        values: :math:`V(s_t)`, same shape.
        next_values: :math:`V(s_{t+1})`, same shape; of a new episode's first state never.
        terminated: whether nothing follows step :math:`t`, boolean, same shape.
        truncated: whether the episode was cut off after step :math:`t`, boolean, same shape.
        discount: :math:`\gamma`, from 0 to 1.
        decay: :math:`\lambda`, from 0 to 1.
        clip_rho: :math:`\bar\rho`, at least 0; may be infinite.
        clip_c: :math:`\bar c`, likewise.

    Returns:
        Targets and advantages.

    Raises:
        UsageError: where shapes differ, a flag is not boolean, or a setting is out of range.

    References:
        IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner Architectures (Espeholt et al.,
        2018), https://arxiv.org/abs/1802.01561

    Example:
        >>> rewards, zeros, flags = torch.ones(3), torch.zeros(3), torch.zeros(3, dtype=torch.bool)
        >>> v_trace(zeros, rewards, zeros, zeros, flags, flags).targets
        tensor([3., 2., 1.])
        >>> v_trace(zeros - 20.0, rewards, zeros + 8.0, zeros + 8.0, flags, flags).targets  # of another policy
        tensor([8., 8., 8.])
    """
    _check_range(1.0, discount=discount, decay=decay)
    _check_range(inf, clip_rho=clip_rho, clip_c=clip_c)
    flags = {"terminated": terminated, "truncated": truncated}
    _check(rewards, log_ratios=log_ratios, values=values, next_values=next_values, **flags)
    ratios = log_ratios.exp()
    rho, c = ratios.clamp(max=clip_rho), decay * ratios.clamp(max=clip_c)
    goes_on = _goes_on(rewards, terminated, truncated)
    bootstrap = _bootstrap(next_values, terminated)
    corrections = _summed_back(rho * (rewards + discount * bootstrap - values), discount * c * goes_on)
    targets = values + corrections
    following = torch.where(goes_on > 0, torch.cat([targets[1:], bootstrap[-1:]]), bootstrap)
    return VTrace(targets, rho * (rewards + discount * following - values))


def _check_range(most: float, **settings: float) -> None:
    for name, value in settings.items():
        if not 0 <= value <= most:
            expected = "at least 0" if most == inf else f"between 0 and {most:g}"
            raise UsageError(f"{name} must be {expected}, found {value}")


def _check(rewards: Tensor, **others: Tensor) -> None:
    if rewards.dim() < 1 or not len(rewards):
        raise UsageError(f"rewards must have shape (time, ...) with at least one step, found {tuple(rewards.shape)}")
    for name, tensor in others.items():
        if tensor.shape != rewards.shape:
            raise UsageError(
                f"{name} has shape {tuple(tensor.shape)} and rewards {tuple(rewards.shape)}: expected one value for "
                f"each step of each environment, time first"
            )
        if name in ("terminated", "truncated") and tensor.dtype != torch.bool:
            raise UsageError(f"{name} must be boolean, found {tensor.dtype}: pass {name}.bool()")


def _bootstrap(next_values: Tensor, terminated: Tensor) -> Tensor:
    """Return the value of what follows: nothing does after termination, though a critic may say anything of it."""
    return torch.where(terminated, torch.zeros_like(next_values), next_values)


def _goes_on(rewards: Tensor, terminated: Tensor, truncated: Tensor) -> Tensor:
    """Return one where the next row continues the episode, and zero where it does not, as at the end."""
    goes_on = (~(terminated | truncated)).to(rewards.dtype)
    return torch.cat([goes_on[:-1], torch.zeros_like(goes_on[-1:])])


def _summed_back(terms: Tensor, factors: Tensor) -> Tensor:
    r"""Solve :math:`x_t = a_t + f_t x_{t+1}` by doubling: after :math:`k` rounds, :math:`x_t` spans :math:`2^k` steps.

    .. math:: a_t \leftarrow a_t + f_t a_{t+n}, \quad f_t \leftarrow f_t f_{t+n}, \quad n = 1, 2, 4, \dots
    """
    n = 1
    while n < len(terms):
        terms = torch.cat([terms[:-n] + _weighed(factors[:-n], terms[n:]), terms[-n:]])
        factors = torch.cat([factors[:-n] * factors[n:], factors[-n:]])
        n *= 2
    return terms


def _weighed(factor: Tensor, value: Tensor) -> Tensor:
    """Multiply, where a weight of zero does not even look: what it weighs may be infinite, or not known."""
    return torch.where(factor == 0, torch.zeros_like(value), factor * value)
