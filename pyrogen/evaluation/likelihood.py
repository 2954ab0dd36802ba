"""Likelihoods and their bounds, in nats per datum; higher is better."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.evaluation.proposal import moment_proposal
from pyrogen.parameters import first_device, modules_of
from pyrogen.programs import log_weights, renyi_bound
from pyrogen.sites import Program

__all__ = ["Convergence", "elbo", "iwae", "iwae_convergence", "log_densities", "log_likelihood"]

Batches = Iterable[Mapping[str, Tensor]]

ROWS = 20_000
"""Data times particles in one pass of the programs: a bound on memory."""


def elbo(model: Program, guide: Program | None, batches: Batches, num_particles: int = 10) -> Estimate:
    r"""Estimate the evidence lower bound per datum.

    .. math:: \frac{1}{N} \sum_n \mathbb{E}_{q(z \mid x_n)}[\log p(x_n, z) - \log q(z \mid x_n)]

    The programs run in ``eval`` mode and *sample*: a posterior mean in the place of draws gives no bound.

    Args:
        batches: dicts of keyword arguments for the programs.
        num_particles: draws of the guide for each datum.
    """
    values = over(batches, lambda batch: _log_weights(model, guide, batch, num_particles).mean(0), model, guide)
    return mean(values, "nats", num_particles)


def iwae(
    model: Program, guide: Program | None, batches: Batches, num_particles: int = 100, propose: bool = False
) -> Estimate:
    r"""Estimate the importance-weighted bound per datum, which tends to :math:`\log p(x)` as :math:`K` grows.

    .. math:: \frac{1}{N} \sum_n \log \frac{1}{K} \sum_k \frac{p(x_n, z_k)}{q(z_k \mid x_n)}

    Args:
        batches: dicts of keyword arguments for the programs.
        num_particles: :math:`K`.
        propose: draw from :func:`~pyrogen.evaluation.moment_proposal` of the guide in its place: for a guide without a
            density.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
    """

    return mean(log_densities(model, guide, batches, num_particles, propose), "nats", num_particles)


class Convergence(NamedTuple):
    """How the importance-weighted bound grows with the number of draws.

    Attributes:
        bounds: by :math:`K`, which is 1, 2, 4, ...; in nats per datum. The first is the ELBO.
        gains: by :math:`K`, what it has on the bound of half as many. The standard error is that of the difference,
            which is much smaller than those of the two bounds, as these have the data in common.
    """

    bounds: dict[int, Estimate]
    gains: dict[int, Estimate]


def iwae_convergence(
    model: Program, guide: Program | None, batches: Batches, num_particles: int = 1024, propose: bool = False
) -> Convergence:
    r"""Estimate the importance-weighted bound for 1, 2, 4, ... draws, all from one set of them.

    .. math::
        \frac{K}{S} \sum_{s=1}^{S / K} \log \frac{1}{K} \sum_{k=1}^K w_{(s - 1) K + k}, \qquad
        K = 1, 2, 4, \dots, S

    averaged over data. Each is unbiased for the bound of its :math:`K`, and none is below that of a smaller one, by
    Jensen's inequality for each pair of groups. Where a gain is still a good part of the one before, the last bound is
    far from :math:`\log p(x)`. That gains vanish is a necessary sign, not a sufficient one: a guide that misses a mode
    of the posterior misses it with all its draws.

    Args:
        batches: dicts of keyword arguments for the programs.
        num_particles: :math:`S`, a power of two.
        propose: see :func:`iwae`.

    Raises:
        UsageError: where ``num_particles`` is not a power of two.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519

    Example:
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def prior(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> bounds, _ = iwae_convergence(model, prior, [{"x": torch.zeros(500)}], num_particles=256)
        >>> [round(bounds[k].value, 1) for k in (1, 256)]  # log N(0; 0, 2) is -1.27
        [-1.4, -1.3]
    """
    if num_particles < 1 or num_particles & (num_particles - 1):
        raise UsageError(f"num_particles must be a power of two, found {num_particles}")
    counts = [2**i for i in range(num_particles.bit_length())]

    def nested(batch: dict[str, Tensor]) -> Tensor:
        log_w = _log_weights(model, _proposal(model, guide, batch, propose), batch, num_particles).double()
        groups = (log_w.reshape(-1, count, log_w.shape[1]).transpose(0, 1) for count in counts)
        return torch.stack([renyi_bound(group).mean(0) for group in groups], 1)

    table = over(batches, nested, model, guide).unbind(1)
    bounds = {count: mean(values, "nats", count) for count, values in zip(counts, table, strict=True)}
    pairs = zip(counts[1:], table[1:], table, strict=False)
    return Convergence(bounds, {count: mean(values - half, "nats", count) for count, values, half in pairs})


def _proposal(model: Program, guide: Program | None, batch: Mapping[str, Tensor], propose: bool) -> Program | None:
    return moment_proposal(model, guide, batch) if propose and guide is not None else guide


def log_likelihood(model: Program, batches: Batches) -> Estimate:
    r"""Average the exact :math:`\log p(x)` or :math:`\log p(y \mid x)` of a model without latents to integrate out.

    Raises:
        ProgramError: where the model has a latent site that is not enumerated.
    """
    return mean(log_densities(model, None, batches, 1), "nats")


def log_densities(
    model: Program, guide: Program | None, batches: Batches, num_particles: int = 100, propose: bool = False
) -> Tensor:
    r"""Return :math:`\log p(x_n)` of each datum, or the importance-weighted bound of a model with latents.

    Args:
        guide: ``None`` for a model without latents to integrate out, whose value is exact.
        batches: as of :func:`elbo`.
        num_particles: as of :func:`iwae`; of no use without a guide.
        propose: likewise.

    Returns:
        Tensor of shape ``(data,)`` on the CPU, in nats.

    Raises:
        ProgramError: where there is no guide and the model has a latent site that is not enumerated, or there is no
            figure per datum.

    Example:
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Uniform(0.0, 2.0), obs=x)
        >>> log_densities(model, None, [{"x": torch.tensor([0.5, 1.5])}]).exp()
        tensor([0.5000, 0.5000])
    """

    def bound(batch: dict[str, Tensor]) -> Tensor:
        proposal = _proposal(model, guide, batch, propose)
        return renyi_bound(_log_weights(model, proposal, batch, 1 if guide is None else num_particles))

    return over(batches, bound, model, guide)


@contextmanager
def evaluating(*programs: Any) -> Iterator[None]:
    """Put the programs' modules into ``eval`` mode for the body, without gradients and validation."""
    modules = [inner for module in modules_of(*programs).values() for inner in module.modules()]
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        with torch.no_grad(), pyro.validation_enabled(False):
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def over(batches: Batches, values: Callable[[dict[str, Tensor]], Tensor], *programs: Any) -> Tensor:
    """Concatenate what a function makes of each batch, see :func:`of_each`."""
    return torch.cat(of_each(batches, lambda batch: values(batch).cpu(), *programs))


def of_each(batches: Batches, values: Callable[[dict[str, Tensor]], Any], *programs: Any) -> list[Any]:
    """List what a function makes of each batch, with the programs in ``eval`` mode and data on their device."""
    device = first_device(*programs)
    with evaluating(*programs):
        return [values({name: x.to(device) for name, x in batch.items()}) for batch in batches]


def _log_weights(model: Program, guide: Program | None, batch: Mapping[str, Tensor], num_particles: int) -> Tensor:
    rows = max((len(column) for column in batch.values()), default=1)
    at_once = max(1, min(num_particles, ROWS // rows))
    counts = [at_once] * (num_particles // at_once) + ([num_particles % at_once] if num_particles % at_once else [])
    columns: dict[str, Any] = dict(batch)
    weights = torch.cat([log_weights(model, guide, num_particles=count, **columns) for count in counts])
    if weights.shape[1] != rows:
        raise ProgramError(
            f"the programs give {weights.shape[1]} importance weights for {rows} data, so that there is no figure per "
            f"datum: put every site into one plate over the data, and what is within a datum into the event by "
            f".to_event(...). With a latent variable that all data share, use pyrogen.log_weights on all data at once."
        )
    return weights
