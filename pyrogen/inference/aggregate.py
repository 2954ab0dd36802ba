r"""The aggregate posterior: what a guide's draws are distributed as when the data are drawn, too.

.. math:: q(z) = \frac{1}{N} \sum_{n=1}^N q(z \mid x_n)
"""

import math
from math import prod
from typing import Any, Literal, NamedTuple

import torch
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import Independent, Normal

from pyrogen.errors import ProgramError
from pyrogen.sites import is_latent, sample_sites, unwrapped

__all__ = [
    "LogDensities",
    "Sampling",
    "codes",
    "latent_site",
    "log_densities",
    "log_shares",
    "permuted",
    "size_of_data",
]

Sampling = Literal["stratified", "weighted"]


class LogDensities(NamedTuple):
    r"""Of each datum's code :math:`z`, in nats.

    Attributes:
        given_datum: :math:`\log q(z \mid x)` of its own datum, shape ``(batch,)``.
        aggregate: :math:`\log q(z)`, estimated, shape ``(batch,)``.
        coordinates: :math:`\log q(z_j)`, estimated, shape ``(batch, latent)``.
    """

    given_datum: Tensor
    aggregate: Tensor
    coordinates: Tensor


def latent_site(guide: Trace) -> dict[str, Any]:
    """Return the one latent site of a guide, which lies in one plate, the data.

    Raises:
        ProgramError: where there are more or none, or where it is masked, or passes no gradient on, or where its plate
            is not one or does not explain its batch shape.
    """
    sites = [site for site in sample_sites(guide) if is_latent(site)]
    if len(sites) != 1:
        found = ", ".join(repr(site["name"]) for site in sites) or "none"
        raise ProgramError(
            f"a total correlation is of the coordinates of one latent site, and the guide has {found}. Make them one "
            f"vector, as one site, or learn by ELBO"
        )
    [site] = sites
    plates = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
    shape = tuple(site["fn"].batch_shape)
    if len(plates) != 1 or plates[0].size != prod(shape):
        named = ", ".join(f"{frame.name!r} of size {frame.size}" for frame in plates) or "none"
        raise ProgramError(
            f"latent site {site['name']!r} has batch shape {shape} in plates: {named}. Expected one plate, the data, "
            f"as in pyro.plate('data', len(x)), and the coordinates in the event, by .to_event(1)"
        )
    if site["mask"] is not None and site["mask"] is not True:
        raise ProgramError(
            f"latent site {site['name']!r} is masked, and what is masked would count among the data. Leave such data "
            f"out of the batch, or mask observed sites alone"
        )
    if not site["fn"].has_rsample:
        kind = type(unwrapped(site["fn"])).__name__
        raise ProgramError(
            f"latent site {site['name']!r} is drawn from {kind}, which passes no gradient on. Give the guide a "
            f"distribution with rsample, such as Normal(...).to_event(1)"
        )
    return site


def codes(site: dict[str, Any]) -> Tensor:
    """Return a latent site's draws as vectors, shape ``(batch, latent)``."""
    return site["value"].reshape(prod(site["fn"].batch_shape), -1)


def size_of_data(site: dict[str, Any], num_data: int | None) -> int:
    """Return how many data there are: as given, or as the site's plate says, which may be subsampled.

    Raises:
        ProgramError: where more are in the batch than there are said to be.
    """
    [plate] = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
    if num_data is None:
        return plate.full_size or plate.size
    if num_data < plate.size:
        raise ProgramError(
            f"num_data={num_data}, and plate {plate.name!r} holds {plate.size} at once. Give the number of data in the "
            f"whole training set"
        )
    return num_data


def permuted(z: Tensor) -> Tensor:
    r"""Permute each coordinate over the batch by a permutation of its own: draws of :math:`\prod_j q(z_j)`.

    Example:
        >>> z = permuted(torch.arange(6).reshape(3, 2))
        >>> z.sort(0).values.tolist()
        [[0, 1], [2, 3], [4, 5]]
    """
    orders = torch.rand(z.shape, device=z.device).argsort(0)
    return z.gather(0, orders)


def log_shares(batch: int, num_data: int, sampling: Sampling, like: Tensor) -> Tensor:
    r"""Return the logarithms of what each datum of a batch counts in the aggregate at each datum's code.

    With :math:`M` data of :math:`N` in the batch, drawn without replacement, those who did not bring the code stand
    for all the others (``stratified``):

    .. math::
        \hat q(z_i) = \frac{1}{N} q(z_i \mid x_i) + \frac{N - 1}{N (M - 1)} \sum_{m \ne i} q(z_i \mid x_m)

    which is unbiased, and exact where :math:`M = N`. Or all count alike (``weighted``),

    .. math:: \hat q(z_i) = \frac{1}{N M} \sum_{m=1}^M q(z_i \mid x_m)

    Returns:
        Tensor of shape ``(batch, batch)``: a row a code, a column a datum.

    Example:
        >>> log_shares(2, 4, "stratified", torch.zeros(())).exp()
        tensor([[0.2500, 0.7500],
                [0.7500, 0.2500]])
    """
    if sampling == "weighted":
        return like.new_full((batch, batch), -math.log(num_data * batch))
    of_others = max(num_data - 1, 1) / (num_data * max(batch - 1, 1))
    is_own = torch.eye(batch, dtype=torch.bool, device=like.device)
    return like.new_full((batch, batch), math.log(of_others)).masked_fill(is_own, -math.log(num_data))


def log_densities(site: dict[str, Any], num_data: int, sampling: Sampling) -> LogDensities:
    """Score each datum's code by every datum's posterior, and estimate the aggregate's densities.

    Raises:
        ProgramError: where the posterior is not normal with independent coordinates.
    """
    fn = site["fn"]
    while isinstance(fn, Independent):
        fn = fn.base_dist
    if not isinstance(fn, Normal):
        raise ProgramError(
            f"latent site {site['name']!r} is drawn from {type(fn).__name__}: densities of single coordinates are "
            f"known where a guide draws from Normal(loc, scale).to_event(1). Give it one, or learn by FactorVAE, which "
            f"needs draws alone"
        )
    z = codes(site)
    loc, scale = (part.expand(fn.batch_shape).reshape(z.shape) for part in (fn.loc, fn.scale))
    pairs = Normal(loc, scale, validate_args=False).log_prob(z.unsqueeze(1))  # a row a code, a column a datum
    shares = log_shares(len(z), num_data, sampling, z)
    together = pairs.sum(-1)
    return LogDensities(
        together.diagonal(), (together + shares).logsumexp(1), (pairs + shares.unsqueeze(-1)).logsumexp(1)
    )
