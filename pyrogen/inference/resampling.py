"""Particles that are drawn anew by their weights: the first dimension is theirs, the second that of environments."""

from math import log

import torch
from torch import Tensor

__all__ = ["effective", "log_mean", "resampled", "systematic", "taken"]


def resampled(log_w: Tensor, few: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return parents, what the evidence is multiplied by, and weights; environments where many count are left alone."""
    same = torch.arange(len(log_w), device=log_w.device)[:, None].expand_as(log_w)
    return (
        torch.where(few, systematic(log_w), same),
        torch.where(few, log_mean(log_w), 0.0),
        torch.where(few, torch.zeros_like(log_w), log_w),
    )


def systematic(log_w: Tensor) -> Tensor:
    """Draw particles of each environment by their weights, evenly spaced with one start."""
    ends = log_w.softmax(0).cumsum(0).mT.contiguous()
    ends, number = ends / ends[:, -1:], ends.shape[1]  # rounded, sums fall short of one
    grid = torch.arange(number, device=ends.device, dtype=ends.dtype) + torch.rand_like(ends[:, :1])
    return torch.searchsorted(ends, grid / number).clamp(max=number - 1).mT


def taken(values: Tensor, which: Tensor) -> Tensor:
    """Take particles, of each environment its own."""
    return values[which, torch.arange(which.shape[1], device=which.device)]


def effective(log_w: Tensor) -> Tensor:
    r"""Return :math:`1 / \sum_k \bar w_k^2`, of normalised weights: how many particles count."""
    return 1 / log_w.softmax(0).square().sum(0)


def log_mean(log_w: Tensor) -> Tensor:
    r"""Return :math:`\log \sum_k w_k - \log n`."""
    return log_w.logsumexp(0) - log(len(log_w))
