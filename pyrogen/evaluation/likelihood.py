"""Likelihoods and their bounds, in nats per datum; higher is better."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch import Tensor

from pyrogen.errors import ProgramError
from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.evaluation.proposal import moment_proposal
from pyrogen.parameters import first_device, modules_of
from pyrogen.programs import log_weights, renyi_bound
from pyrogen.sites import Program

__all__ = ["elbo", "iwae", "log_densities", "log_likelihood"]

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
        proposal = moment_proposal(model, guide, batch) if propose and guide is not None else guide
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
