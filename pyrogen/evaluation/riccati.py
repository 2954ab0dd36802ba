"""Values of linear-quadratic control over endless time, as fixed points of matrix equations."""

import torch
from torch import Tensor

from pyrogen.errors import NonFiniteError
from pyrogen.lqg import LinearQuadratic

__all__ = ["riccati", "stein"]

DOUBLINGS = 64
r"""Steps of the doubling algorithm at most; the k-th has looked :math:`2^k` steps ahead."""


def riccati(problem: LinearQuadratic, Q: Tensor, R: Tensor, discount: float) -> Tensor:
    r"""Solve the Riccati equation of endless time by doubling: each pass looks twice as far ahead.

    .. math:: P = Q + \gamma A^\top P (A - B K), \quad K = (R + \gamma B^\top P B)^{-1} \gamma B^\top P A

    Args:
        problem: of which :math:`A` and :math:`B` are read.
        Q: the cost of states, shape ``(n, n)``.
        R: the cost of actions, shape ``(m, m)``.
        discount: :math:`\gamma`.

    Returns:
        :math:`P`, the cost of the best policy, shape ``(n, n)``.

    Raises:
        NonFiniteError: where there is none, as actions do not reach what grows.

    References:
        Iterative and Doubling Algorithms for Riccati-Type Matrix Equations: A Comparative Introduction (Poloni, 2020),
        https://arxiv.org/abs/2005.08903

    Example:
        >>> one = torch.ones(1, 1)
        >>> riccati(LinearQuadratic(one, one, one, one, one), one, one, 1.0)
        tensor([[1.6180]])
    """
    A, P = discount**0.5 * problem.A, Q
    G = discount * problem.B @ torch.linalg.solve(R, problem.B.mT)
    identity = torch.eye(len(A), dtype=A.dtype, device=A.device)
    for _ in range(DOUBLINGS):
        if not (G.isfinite().all() and P.isfinite().all()):
            break
        ahead, reach = torch.linalg.solve(identity + G @ P, torch.cat([A, G @ A.mT], -1)).chunk(2, -1)
        before, P = P, P + A.mT @ P @ ahead
        A, G = A @ ahead, G + A @ reach
        if (P - before).abs().max() <= torch.finfo(P.dtype).eps * P.abs().max():
            return (P + P.mT) / 2
    raise NonFiniteError(
        f"over endless time the cost of the best policy is infinite, or nearly so: actions do not reach what grows. "
        f"Lower the discount from {discount}, or give a horizon"
    )


def stein(moved: Tensor, curvature: Tensor) -> Tensor:
    r"""Solve the Stein equation, :math:`P = Q + F^\top P F`: what a policy costs over endless time.

    Args:
        moved: :math:`F`, what the policy makes of a state, times the root of the discount, shape ``(n, n)``.
        curvature: :math:`Q`, the cost of a step, shape ``(n, n)``.

    Returns:
        :math:`P`, shape ``(n, n)``; differentiable.

    Raises:
        NonFiniteError: where the spectral radius of :math:`F` is not below one.

    Example:
        >>> stein(torch.tensor([[0.5]]), torch.tensor([[3.0]]))
        tensor([[4.]])
    """
    growth = float(torch.linalg.eigvals(moved.detach()).abs().max())
    if not growth < 1:
        raise NonFiniteError(
            f"over endless time the policy's cost is infinite: what it does not hold grows by {growth:.4g} a step, of "
            f"which the discount's root is a factor. Lower the discount, or give a horizon"
        )
    n = len(moved)
    system = torch.eye(n * n, dtype=moved.dtype, device=moved.device) - torch.kron(moved.mT, moved.mT)
    return torch.linalg.solve(system, curvature.reshape(-1)).reshape(n, n)
