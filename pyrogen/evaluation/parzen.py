"""The likelihood of a kernel density estimate of draws, which papers report and which misranks models."""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyrogen.errors import MisrankingWarning, UsageError
from pyrogen.evaluation.checks import BLOCK, rows
from pyrogen.evaluation.estimate import Estimate, mean

__all__ = ["Parzen", "parzen_log_likelihood"]

WIDTHS = tuple(10 ** (0.5 - i / 8) for i in range(21))
"""Bandwidths to choose from, in units of the validation data's standard deviation: from 3.2 to 0.01."""


class Parzen(NamedTuple):
    """The likelihood of a kernel density estimate.

    Attributes:
        log_likelihood: in nats per datum. The standard error is over the data, for these draws.
        bandwidth: the kernel's standard deviation, in the units of the data.
    """

    log_likelihood: Estimate
    bandwidth: float


def parzen_log_likelihood(
    draws: Tensor, data: Tensor, validation: Tensor, bandwidths: Sequence[float] | None = None
) -> Parzen:
    r"""Average the log-density of data under normal kernels at draws: **it misranks models**.

    .. math:: \frac{1}{N} \sum_n \log \frac{1}{S} \sum_s \mathcal{N}(x_n; y_s, h^2 I)

    with the :math:`h` that is best for validation data. It is here to compare with figures in papers. In more than a
    few dimensions it is far below the model's log-likelihood for any feasible number of draws, and by how much depends
    on the model: draws that are too much alike, such as cluster means, are preferred to draws from the data's own
    distribution. Take :func:`iwae` or :func:`ais` in its place, for an implicit model after :func:`with_noise`.

    Args:
        draws: of the model, shape ``(S, ...)``.
        data: held-out, shape ``(N, ...)``.
        validation: other held-out data, by which the bandwidth is chosen, shape ``(V, ...)``.
        bandwidths: to choose from, in the units of the data; by default 21 from a hundredth of the validation data's
            standard deviation, averaged over features, to three times that.

    Raises:
        UsageError: where bandwidths are not positive, or the validation data are all alike and none are given.

    Warns:
        MisrankingWarning: always.

    References:
        A note on the evaluation of generative models (Theis et al., 2016), https://arxiv.org/abs/1511.01844

        On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2017),
        https://arxiv.org/abs/1611.04273

    Example:
        >>> draws, data = torch.tensor([[0.0], [2.0]]), torch.zeros(2, 1)
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore", MisrankingWarning)
        ...     round(parzen_log_likelihood(draws, data, data, bandwidths=[1.0]).log_likelihood.value, 3)
        -1.485
    """
    warnings.warn(
        "a kernel density estimate of draws misranks models, and is far from their log-likelihood in more than a few "
        "dimensions: compare models by iwae or ais",
        MisrankingWarning,
        stacklevel=2,
    )
    y, x = rows(draws, data)
    _, chosen_by = rows(draws, validation)
    widths = _widths(chosen_by) if bandwidths is None else list(bandwidths)
    tried = torch.tensor(widths, dtype=y.dtype, device=y.device)
    if not len(tried) or not bool((tried > 0).all()):
        raise UsageError(f"bandwidths must be positive numbers, at least one, found {tried.tolist()}")
    best = tried[_log_densities(y, chosen_by, tried).mean(0).argmax()]
    values = _log_densities(y, x, best.reshape(1))[:, 0]
    return Parzen(mean(values, "nats, by a kernel density of draws"), float(best))


def _widths(x: Tensor) -> list[float]:
    spread = float(x.var(0).mean().sqrt())
    return [spread * width for width in WIDTHS]


def _log_densities(y: Tensor, x: Tensor, bandwidths: Tensor) -> Tensor:
    """Return the log-density at each row of ``x`` for each bandwidth, shape ``(N, bandwidths)``."""
    found = []
    for part in x.split(BLOCK):
        squared = torch.cdist(part, y).square()
        found.append(torch.stack([(-squared / (2 * h**2)).logsumexp(1) for h in bandwidths], 1))
    return torch.cat(found) - math.log(len(y)) - y.shape[1] * (bandwidths * math.sqrt(2 * math.pi)).log()
