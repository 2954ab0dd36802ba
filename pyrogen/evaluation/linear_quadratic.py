r"""Control as inference where everything is linear, quadratic and normal: soft Riccati recursions.

.. math::
    s_{t+1} = A s_t + B a_t + w_t, \quad w_t \sim \mathcal{N}(0, W), \qquad
    r(s, a) = -\tfrac{1}{2} \left(s^\top Q s + a^\top R a\right)

With actions of a normal prior :math:`p(a) = \mathcal{N}(0, \Sigma)`, both quantities that are called a soft value, see
:mod:`pyrogen.evaluation.control`, are quadratic, :math:`V(s) = -\tfrac{1}{2} s^\top P s + c`, and both policies normal,
:math:`\mathcal{N}(-K s, C)`. Noise tells them apart: the variational policy is what it is without, which is certainty
equivalence, and the exact posterior hopes for noise that does its work.
"""

from collections.abc import Callable, Sequence
from math import log, pi
from typing import NamedTuple

import torch
from torch import Tensor

from pyrogen.errors import UsageError
from pyrogen.evaluation.control import check_soft_values
from pyrogen.evaluation.riccati import riccati, stein
from pyrogen.lqg import LinearQuadratic, check_matrix

__all__ = [
    "QuadraticValues",
    "Regulator",
    "posterior_regulator",
    "regulator_returns",
    "regulator_values",
    "variational_regulator",
]


class QuadraticValues(NamedTuple):
    r"""Values :math:`V_t(s) = -\tfrac{1}{2} s^\top P_t s + c_t`; with a horizon, for each time step.

    Attributes:
        curvatures: :math:`P_t`, shape ``(H, n, n)``, or ``(n, n)`` without a horizon.
        constants: :math:`c_t`, shape ``(H,)``, or ``()``.
    """

    curvatures: Tensor
    constants: Tensor

    def __call__(self, state: Tensor, time: int = 0) -> Tensor:
        """Return the values of states at a time, shape ``(*batch, n)`` to ``(*batch,)``."""
        P, c = self if self.curvatures.dim() == 2 else (self.curvatures[time], self.constants[time])
        return c - 0.5 * (state @ P * state).sum(-1)


class Regulator(NamedTuple):
    r"""A policy :math:`\mathcal{N}(-K_t s, C_t)` and the soft values that it belongs to.

    Attributes:
        gains: :math:`K_t`, shape ``(H, m, n)``, or ``(m, n)`` without a horizon.
        covariances: :math:`C_t`, shape ``(H, m, m)``, or ``(m, m)``.
        values: :math:`V_t` in nats.
    """

    gains: Tensor
    covariances: Tensor
    values: QuadraticValues


Lookahead = Callable[[QuadraticValues], QuadraticValues]
"""What values of next states, as a function of the next state, make of it as a function of its mean."""


def variational_regulator(
    problem: LinearQuadratic,
    prior: Tensor | None = None,
    *,
    temperature: float = 1.0,
    horizon: int | None = None,
    discount: float = 1.0,
) -> Regulator:
    r"""Compute the largest ELBO that a policy can reach under the true dynamics, and that policy.

    .. math::
        C^{-1} &= R / \alpha + \Sigma^{-1} + \gamma B^\top P' B, \quad
        K = C \, \gamma B^\top P' A, \quad
        P = Q / \alpha + \gamma A^\top P' (A - B K) \\
        c &= \gamma \left(c' - \tfrac{1}{2} \operatorname{tr}(P' W)\right)
        + \tfrac{1}{2} \log |2 \pi C| - \tfrac{1}{2} \log |2 \pi \Sigma|

    with :math:`P', c'` of the next time step, zero after the last. Without a prior, :math:`\Sigma^{-1} = 0` and its
    normalisation is left out: minus the divergence is then the policy's entropy. :math:`C` goes to zero with
    :math:`\alpha`, and :math:`K` without a prior is that of the linear-quadratic regulator at any :math:`\alpha`.

    Args:
        problem: dynamics, costs and noise.
        prior: :math:`\Sigma`, shape ``(m, m)``; any action with the density 1 if not given.
        temperature: :math:`\alpha`, in the unit of rewards.
        horizon: how many steps there are; without, they go on forever, and the discount must be below one.
        discount: :math:`\gamma`.

    Returns:
        Gains, covariances and values.

    Raises:
        UsageError: for a prior that is no covariance, or settings out of range.
        NonFiniteError: where no policy has a finite value over endless time.

    References:
        Optimal Control as a Graphical Model Inference Problem (Kappen et al., 2012),
        https://doi.org/10.1007/s10994-012-5278-7

    Example:
        >>> one = torch.ones(1, 1)
        >>> found = variational_regulator(LinearQuadratic(one, one, one, one, one), horizon=50)
        >>> found.values.curvatures[0], found.gains[0]  # the golden ratio, and its inverse
        (tensor([[1.6180]]), tensor([[0.6180]]))
    """
    check_soft_values(temperature, horizon, discount)
    precision, log_scale = _prior(problem, prior)
    if horizon is None:
        P = riccati(problem, problem.Q / temperature, problem.R / temperature + precision, discount)
        regulator = _improved(
            problem, precision, log_scale, temperature, QuadraticValues(discount * P, P.new_zeros(()))
        )
        noise = 0.5 * discount * (P @ problem.W).trace()
        values = QuadraticValues(P, (regulator.values.constants - noise) / (1 - discount))
        return regulator._replace(values=values)

    def expected(V: QuadraticValues) -> QuadraticValues:
        return QuadraticValues(
            discount * V.curvatures, discount * (V.constants - 0.5 * (V.curvatures @ problem.W).trace())
        )

    return _iterated(problem, precision, log_scale, temperature, horizon, expected)


def posterior_regulator(
    problem: LinearQuadratic, prior: Tensor | None = None, *, temperature: float = 1.0, horizon: int
) -> Regulator:
    r"""Compute the log-evidence of optimality from each state, and the exact posterior over actions.

    .. math::
        V(s) = \log \int p(a) \, e^{r(s, a) / \alpha} \, \mathbb{E}_{p(s' \mid s, a)}\left[e^{V(s')}\right] \, da

    The recursion is that of :func:`variational_regulator`, with what noise makes of an exponential of a square,

    .. math:: P' \to P' (I + W P')^{-1}, \quad c' \to c' - \tfrac{1}{2} \log |I + W P'|

    in the place of :math:`P'` and of :math:`c' - \tfrac{1}{2} \operatorname{tr}(P' W)`. It is the risk-*seeking*
    regulator: it does less than it should, and leaves the rest to luck.

    Args:
        problem: dynamics, costs and noise.
        prior: :math:`\Sigma`, shape ``(m, m)``; any action with the density 1 if not given.
        temperature: :math:`\alpha`, in the unit of rewards.
        horizon: how many steps there are.

    Returns:
        Gains, covariances and values.

    Raises:
        UsageError: for a prior that is no covariance, or settings out of range.

    References:
        Optimal Stochastic Linear Systems with Exponential Performance Criteria and Their Relation to Deterministic
        Differential Games (Jacobson, 1973), https://doi.org/10.1109/TAC.1973.1100265

    Example:
        >>> one = torch.ones(1, 1)
        >>> problem = LinearQuadratic(one, one, one, one, one)
        >>> posterior_regulator(problem, horizon=2).gains[0], variational_regulator(problem, horizon=2).gains[0]
        (tensor([[0.3333]]), tensor([[0.5000]]))
    """
    check_soft_values(temperature, horizon, 1.0)
    precision, log_scale = _prior(problem, prior)
    identity = torch.eye(len(problem.A), dtype=problem.A.dtype, device=problem.A.device)

    def lucky(V: QuadraticValues) -> QuadraticValues:
        spread = identity + problem.W @ V.curvatures
        return QuadraticValues(
            torch.linalg.solve(spread.mT, V.curvatures).mT, V.constants - 0.5 * torch.linalg.slogdet(spread)[1]
        )

    return _iterated(problem, precision, log_scale, temperature, horizon, lucky)


def regulator_values(
    problem: LinearQuadratic,
    gains: Tensor,
    covariances: Tensor,
    prior: Tensor | None = None,
    *,
    temperature: float = 1.0,
    horizon: int | None = None,
    discount: float = 1.0,
) -> QuadraticValues:
    r"""Compute the ELBO of a policy :math:`\mathcal{N}(-K s, C)` from each state, exactly.

    .. math::
        P &= Q / \alpha + K^\top (R / \alpha + \Sigma^{-1}) K + \gamma (A - B K)^\top P' (A - B K) \\
        c &= \gamma \left(c' - \tfrac{1}{2} \operatorname{tr}(P' W)\right)
        - \tfrac{1}{2} \operatorname{tr}\left((R / \alpha + \Sigma^{-1} + \gamma B^\top P' B) \, C\right)
        + \tfrac{1}{2} \log |2 \pi e C| - \tfrac{1}{2} \log |2 \pi \Sigma|

    At most that of :func:`variational_regulator`, which is at most that of :func:`posterior_regulator`.

    Args:
        problem: dynamics, costs and noise.
        gains: :math:`K`, shape ``(m, n)``, or ``(horizon, m, n)``.
        covariances: :math:`C`, shape ``(m, m)``, or ``(horizon, m, m)``.
        prior: :math:`\Sigma`, shape ``(m, m)``; any action with the density 1 if not given.
        temperature: :math:`\alpha`, in the unit of rewards; may be infinite, for minus the divergence alone.
        horizon: how many steps there are; without, they go on forever, and the discount must be below one.
        discount: :math:`\gamma`.

    Returns:
        Values in nats; differentiable in the gains and covariances.

    Raises:
        UsageError: where shapes do not fit, or settings are out of range.
        NonFiniteError: where the policy's value over endless time is minus infinity.

    Example:
        >>> one = torch.ones(1, 1)
        >>> problem = LinearQuadratic(one, one, one, one, one)
        >>> best = variational_regulator(problem, horizon=5)
        >>> bool(regulator_values(problem, 0.9 * best.gains, best.covariances, horizon=5)(one) < best.values(one))
        True
    """
    check_soft_values(temperature, horizon, discount)
    precision, log_scale = _prior(problem, prior)
    gains, covariances = _policy(problem, gains, covariances, horizon)
    free = 0.5 * problem.num_actions * (1 + log(2 * pi)) + log_scale + 0.5 * torch.linalg.slogdet(covariances)[1]
    costs = (problem.Q / temperature, problem.R / temperature + precision)
    return _followed(problem, gains, covariances, costs, free, horizon, discount)


def regulator_returns(
    problem: LinearQuadratic,
    gains: Tensor,
    covariances: Tensor,
    *,
    horizon: int | None = None,
    discount: float = 1.0,
) -> QuadraticValues:
    r"""Compute the expected return of a policy :math:`\mathcal{N}(-K s, C)` from each state, exactly.

    As :func:`regulator_values` without the divergence, and in the unit of rewards.

    Args:
        problem: dynamics, costs and noise.
        gains: :math:`K`, shape ``(m, n)``, or ``(horizon, m, n)``.
        covariances: :math:`C`, shape ``(m, m)``, or ``(horizon, m, m)``; may be zero.
        horizon: how many steps there are; without, they go on forever, and the discount must be below one.
        discount: :math:`\gamma`.

    Returns:
        :math:`\mathbb{E}[\sum_t \gamma^t r_t]`, differentiable in the gains and covariances.

    Raises:
        UsageError: where shapes do not fit, or settings are out of range.
        NonFiniteError: where the return over endless time is minus infinity.

    Example:
        >>> one = torch.ones(1, 1)
        >>> regulator_returns(LinearQuadratic(one, one, one, one, one), one, 0 * one, horizon=2)(one)
        tensor([-2.])
    """
    check_soft_values(1.0, horizon, discount)
    gains, covariances = _policy(problem, gains, covariances, horizon)
    free = problem.R.new_zeros(len(gains))
    return _followed(problem, gains, covariances, (problem.Q, problem.R), free, horizon, discount)


def _improved(
    problem: LinearQuadratic, precision: Tensor, log_scale: Tensor, temperature: float, after: QuadraticValues
) -> Regulator:
    """Take the best step, by what is expected after it."""
    A, B, P = problem.A, problem.B, after.curvatures
    sharpness = problem.R / temperature + precision + B.mT @ P @ B
    K = torch.linalg.solve(sharpness, B.mT @ P @ A)
    curvature = problem.Q / temperature + A.mT @ P @ (A - B @ K)
    spread = 0.5 * problem.num_actions * log(2 * pi) - 0.5 * torch.linalg.slogdet(sharpness)[1]
    values = QuadraticValues((curvature + curvature.mT) / 2, after.constants + spread + log_scale)
    return Regulator(K, torch.linalg.inv(sharpness), values)


def _iterated(
    problem: LinearQuadratic, precision: Tensor, log_scale: Tensor, temperature: float, horizon: int, look: Lookahead
) -> Regulator:
    """Go backwards in time from values of zero."""
    values = QuadraticValues(torch.zeros_like(problem.Q), problem.Q.new_zeros(()))
    steps = []
    for _ in range(horizon):
        steps.append(_improved(problem, precision, log_scale, temperature, look(values)))
        values = steps[-1].values
    gains, covariances, values_of_steps = zip(*steps[::-1], strict=True)
    return Regulator(torch.stack(gains), torch.stack(covariances), _stacked(values_of_steps))


def _followed(
    problem: LinearQuadratic,
    gains: Tensor,
    covariances: Tensor,
    costs: tuple[Tensor, Tensor],
    free: Tensor,
    horizon: int | None,
    discount: float,
) -> QuadraticValues:
    """Evaluate a policy, for given costs of states and actions and what each step brings besides, in rows of time."""
    Q, R = costs
    moved = problem.A - problem.B @ gains
    curvature = Q + gains.mT @ R @ gains

    def constant(t: int, P: Tensor) -> Tensor:
        acted = (R + discount * problem.B.mT @ P @ problem.B) @ covariances[t]
        return free[t] - 0.5 * acted.trace() - 0.5 * discount * (P @ problem.W).trace()

    if horizon is None:
        P = stein(discount**0.5 * moved[0], curvature[0])
        return QuadraticValues(P, constant(0, P) / (1 - discount))
    values = [QuadraticValues(torch.zeros_like(Q), Q.new_zeros(()))]
    for t in reversed(range(horizon)):
        P, c = values[-1]
        values.append(
            QuadraticValues(curvature[t] + discount * moved[t].mT @ P @ moved[t], constant(t, P) + discount * c)
        )
    return _stacked(values[:0:-1])


def _stacked(values: Sequence[QuadraticValues]) -> QuadraticValues:
    curvatures, constants = zip(*values, strict=True)
    return QuadraticValues(torch.stack(curvatures), torch.stack(constants))


def _prior(problem: LinearQuadratic, prior: Tensor | None) -> tuple[Tensor, Tensor]:
    r"""Return :math:`\Sigma^{-1}`, and the logarithm of the normalisation that goes with it."""
    if prior is None:
        return torch.zeros_like(problem.R), problem.R.new_zeros(())
    check_matrix("prior", prior, problem.num_actions, problem.B, is_covariance=True, is_definite=True)
    return torch.linalg.inv(prior), -0.5 * torch.linalg.slogdet(2 * pi * prior)[1]


def _policy(problem: LinearQuadratic, gains: Tensor, covariances: Tensor, horizon: int | None) -> tuple[Tensor, Tensor]:
    """Return gains and covariances with a row for each time step; of one row without a horizon."""
    m, n = problem.B.mT.shape
    for name, given, shape in (("gains", gains, (m, n)), ("covariances", covariances, (m, m))):
        timed = None if horizon is None else (horizon, *shape)
        if tuple(given.shape) not in (shape, timed):
            expected = f"{shape}{'' if timed is None else f' or {timed}'}"
            raise UsageError(f"{name} must have shape {expected}, found {tuple(given.shape)}")
    return gains.expand(horizon or 1, m, n), covariances.expand(horizon or 1, m, m)
