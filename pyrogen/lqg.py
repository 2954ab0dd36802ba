"""Linear dynamics, quadratic costs and normal noise, all of whose numbers are known."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyrogen.errors import UsageError

__all__ = ["LinearQuadratic"]


@dataclass(frozen=True, eq=False)
class LinearQuadratic:
    r"""A state of :math:`n` numbers that actions of :math:`m` numbers move, at a quadratic cost.

    Attributes:
        A: what a state does to the next, shape ``(n, n)``.
        B: what an action does to it, shape ``(n, m)``.
        Q: the cost of states, symmetric and positive semi-definite, shape ``(n, n)``.
        R: the cost of actions, symmetric and positive definite, shape ``(m, m)``.
        W: the covariance of the noise, symmetric and positive semi-definite, shape ``(n, n)``.

    Raises:
        UsageError: where shapes or types do not fit, or a matrix is not finite, not symmetric or has an eigenvalue too
            small.

    Example:
        >>> one = torch.ones(1, 1)
        >>> LinearQuadratic(one, one, one, one, 0.1 * one).num_actions
        1
    """

    A: Tensor
    B: Tensor
    Q: Tensor
    R: Tensor
    W: Tensor

    def __post_init__(self) -> None:
        if self.B.dim() != 2 or not self.B.is_floating_point():
            raise UsageError(f"B must have shape (n, m) and a floating-point type, found {_described(self.B)}")
        n, m = self.B.shape
        for name, size in (("A", n), ("Q", n), ("R", m), ("W", n)):
            check_matrix(name, getattr(self, name), size, self.B, is_covariance=name != "A", is_definite=name == "R")
        _check_finite("B", self.B)

    @property
    def num_actions(self) -> int:
        """How many coordinates an action has."""
        return self.B.shape[1]


def check_matrix(name: str, matrix: Tensor, size: int, like: Tensor, *, is_covariance: bool, is_definite: bool) -> None:
    """Refuse what is no matrix of a size, or no covariance.

    Args:
        name: of the matrix, for the message.
        matrix: what is looked at.
        size: of its rows and columns.
        like: a tensor of the type and device that it must have.
        is_covariance: whether it must be symmetric and positive semi-definite.
        is_definite: whether it must be positive definite.

    Raises:
        UsageError: that names it, and what was found.
    """
    if matrix.shape != (size, size) or matrix.dtype != like.dtype or matrix.device != like.device:
        raise UsageError(
            f"{name} must be {_described(like.new_empty(size, size))}, as goes with B, found {_described(matrix)}"
        )
    _check_finite(name, matrix)
    if not is_covariance:
        return
    if not torch.allclose(matrix, matrix.mT):
        raise UsageError(f"{name} is not symmetric: pass ({name} + {name}.mT) / 2")
    least = float(torch.linalg.eigvalsh(matrix).min())
    margin = size * torch.finfo(matrix.dtype).eps * float(matrix.abs().max())
    if least < -margin or (is_definite and least <= margin):
        raise UsageError(
            f"{name} has an eigenvalue of {least:.4g}, expected {'all above' if is_definite else 'none below'} 0"
        )


def _check_finite(name: str, matrix: Tensor) -> None:
    if not matrix.isfinite().all():
        raise UsageError(f"{name} is not finite: {int((~matrix.isfinite()).sum())} of its elements are no numbers")


def _described(matrix: Tensor) -> str:
    return f"of shape {tuple(matrix.shape)}, {matrix.dtype} on {matrix.device}"
