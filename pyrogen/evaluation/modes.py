"""Which modes of a known mixture a model's draws cover, and how well."""

from math import exp
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Coverage", "mode_coverage"]


class Coverage(NamedTuple):
    """How draws lie on a mixture of equally likely, isotropic normal distributions.

    Attributes:
        modes: how many have at least one draw within three standard deviations.
        high_quality: the share of draws within three standard deviations of a centre; 98.9% for the mixture itself in
            the plane, and more where modes are narrower than they should be.
        kl: the divergence of the modes' shares among these from the uniform distribution, in nats.
        spread: the standard deviation of these around their centres, divided by the mixture's own.
    """

    modes: int
    high_quality: float
    kl: float
    spread: float


def mode_coverage(draws: Tensor, centres: Tensor, sd: float) -> Coverage:
    r"""Assign draws to the nearest centre, and see what each got.

    Beside the papers' two figures, in which one hit is a mode and more quality may be less variance, are the divergence
    of the shares, :math:`\sum_k f_k \log(K f_k)`, and the spread. The latter is relative to the root of
    :math:`\mathbb{E}[r^2 / 2 \mid r < 3] = 1 - \frac{9}{2} e^{-9/2} / (1 - e^{-9/2})`, for a plane.

    Args:
        draws: shape ``(count, 2)``.
        centres: shape ``(modes, 2)``.
        sd: of each coordinate.

    References:
        VEEGAN (Srivastava et al., 2017), https://arxiv.org/abs/1705.07761

        PacGAN (Lin et al., 2018), https://arxiv.org/abs/1712.04086
    """
    distance, nearest = torch.cdist(draws, centres).min(1)
    is_close = distance < 3 * sd
    counts = torch.bincount(nearest[is_close], minlength=len(centres)).double()
    close = float(counts.sum())
    if not close:
        return Coverage(0, 0.0, float("nan"), float("nan"))
    shares = counts / close
    kl = float(torch.xlogy(shares, shares * len(centres)).sum())
    truncated = 1 - 4.5 * exp(-4.5) / (1 - exp(-4.5))
    spread = float((distance[is_close].double().square().mean() / 2 / truncated).sqrt()) / sd
    return Coverage(int((counts > 0).sum()), close / len(draws), kl, spread)
