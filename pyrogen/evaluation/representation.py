"""What a guide makes of data: codes, how many of them are in use, and what can be read off them."""

from typing import Any, NamedTuple

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from pyrogen.errors import DataError, ProgramError, UsageError
from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.evaluation.likelihood import Batches, of_each
from pyrogen.sites import PARTICLES, Program, is_latent, sample_sites
from pyrogen.traces import draw_trace, plate_nesting

__all__ = ["ACTIVE", "Codes", "active_units", "encode", "knn_probe", "linear_probe"]

ACTIVE = 0.01
"""The variance of posterior means over data from which on a unit counts as active (Burda et al., 2016)."""


class Codes(NamedTuple):
    r"""Moments of a guide's draws, one row a datum, latents of all sites side by side.

    Attributes:
        mean: :math:`\mathbb{E}_q[z \mid x_n]` of some draws, shape ``(data, latents)``.
        variance: :math:`\mathrm{Var}_q[z \mid x_n]`, same shape.
        num_draws: of how many.
    """

    mean: Tensor
    variance: Tensor
    num_draws: int


def encode(guide: Program, batches: Batches, num_draws: int = 32) -> Codes:
    """Take moments of what a guide draws of each datum.

    Args:
        guide: a Pyro program; sites that no plate divides by data, which all data share, are left out.
        batches: dicts of keyword arguments for the guide.
        num_draws: for each datum, at least two.

    Raises:
        ProgramError: where no latent is drawn datum by datum.
        UsageError: where ``num_draws`` is below two.
    """
    if num_draws < 2:
        raise UsageError(f"moments take two draws or more, found {num_draws}")

    def moments(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        columns, count = dict[str, Any](batch), len(next(iter(batch.values())))
        trace = draw_trace(guide, (), columns, num_draws, plate_nesting(guide, guide, **columns))
        draws = []
        for site in filter(is_latent, sample_sites(trace)):
            dims = [f.dim for f in site["cond_indep_stack"] if f.vectorized and f.name != PARTICLES and f.size == count]
            if dims and not site["infer"].get("is_auxiliary"):
                by_datum = site["value"].movedim(max(dims) - site["fn"].event_dim, 1)
                draws.append(by_datum.reshape(num_draws, count, -1))
        if not draws:
            raise ProgramError("the guide draws no latent datum by datum: there is nothing to call a representation")
        values = torch.cat(draws, -1).double()
        return values.mean(0).cpu(), values.var(0).cpu()

    means, variances = zip(*of_each(batches, moments, guide), strict=True)
    return Codes(torch.cat(means), torch.cat(variances), num_draws)


def active_units(codes: Codes) -> int:
    r"""Count the latents whose posterior mean depends on the datum.

    .. math:: A_u = \mathrm{Var}_x\big(\mathbb{E}_{q(u \mid x)}[u]\big) > 0.01

    What means of a few draws vary by on their own, :math:`\mathrm{Var}_q / K`, is taken off.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519

    Example:
        >>> means = torch.stack([torch.linspace(-1, 1, 50), torch.zeros(50)], 1)
        >>> active_units(Codes(means, torch.full((50, 2), 0.1), 1000))
        1
    """
    spread = codes.mean.var(0) - codes.variance.mean(0) / codes.num_draws
    return int((spread > ACTIVE).sum())


def linear_probe(codes: Tensor, labels: Tensor, held_out: Tensor, wanted: Tensor) -> Estimate:
    """Measure how often a linear classifier of codes is right on data that it has not seen.

    Args:
        codes: to learn from, shape ``(data, latents)``; they are standardised, by themselves.
        labels: of these, shape ``(data,)``.
        held_out: codes of other data.
        wanted: labels of those.

    Raises:
        DataError: where the shapes do not fit, or there is one class alone.
    """
    return _probe(LogisticRegression(max_iter=2000), codes, labels, held_out, wanted)


def knn_probe(codes: Tensor, labels: Tensor, held_out: Tensor, wanted: Tensor, neighbors: int = 5) -> Estimate:
    """Measure how often the nearest codes have the label of one that is held out; arguments of :func:`linear_probe`."""
    return _probe(KNeighborsClassifier(min(neighbors, len(codes))), codes, labels, held_out, wanted)


def _probe(classifier: Any, codes: Tensor, labels: Tensor, held_out: Tensor, wanted: Tensor) -> Estimate:
    sizes = len(codes) == len(labels) and len(held_out) == len(wanted)
    if not sizes or codes.dim() != 2 or codes.shape[1:] != held_out.shape[1:]:
        raise DataError(
            f"codes must be of shape (data, latents) and have a label each, found {tuple(codes.shape)} and "
            f"{tuple(labels.shape)} to learn from, {tuple(held_out.shape)} and {tuple(wanted.shape)} to judge by"
        )
    if len(labels.unique()) < 2:
        raise DataError("there is one class alone: nothing is to be told apart")
    fitted = make_pipeline(StandardScaler(), classifier).fit(codes.cpu().numpy(), labels.cpu().numpy())
    right = torch.from_numpy(fitted.predict(held_out.cpu().numpy())) == wanted.cpu()
    return mean(right.double(), "fraction")
