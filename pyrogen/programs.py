"""What every other room asks of a program: its draws, and its importance weights."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrogen.errors import ProgramError
from pyrogen.sites import (
    PARTICLES,
    Generating,
    Program,
    is_data,
    is_enumerated,
    is_latent,
    is_shared,
    or_nothing,
    plates_of_data,
    sample_sites,
)
from pyrogen.traces import Term, Traces, guide_terms, model_terms, plate_nesting, plate_scale, trace_pair

__all__ = [
    "Densities",
    "Importance",
    "Program",
    "densities",
    "importance",
    "log_weights",
    "observed_columns",
    "per_datum",
    "renyi_bound",
    "shared_latents",
    "simulate",
]


def simulate(program: Program, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
    r"""Run a program with its data unconditioned and return the value of every site.

    Observed sites are drawn from their distribution instead: a fake :math:`x \sim p_\theta` from the program that
    scores a real one. Gradients flow through sites with ``rsample``.

    Returns:
        Site name to value; subsampling and ``pyro.factor`` sites are left out.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x=None, size=3):
        ...     with pyro.plate("data", size):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> sorted((name, tuple(value.shape)) for name, value in simulate(model).items())
        [('x', (3,)), ('z', (3,))]
    """
    trace = poutine.trace(Generating()(program)).get_trace(*args, **kwargs)
    return {
        name: site["value"]
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site) and not isinstance(site["fn"], Unit)
    }


def observed_columns(sites: Iterable[Mapping[str, Any]], columns: Mapping[str, Tensor]) -> dict[str, str]:
    """Find the site at which a model observes each column of data, in whatever shape and dtype.

    A site whose value lies in a column's memory observes that; of others, values are compared, where NaN, which is
    missing, is as good as zero.

    Args:
        sites: of a trace of the model that was called with the columns.
        columns: its keyword arguments.

    Returns:
        Column to site; a column that the model only conditions on is left out.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x, y):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("target", dist.Normal(x, 1.0), obs=y)
        >>> columns = {"x": torch.zeros(3), "y": torch.ones(3)}
        >>> observed_columns(sample_sites(poutine.trace(model).get_trace(**columns)), columns)
        {'y': 'target'}
    """
    data = list(filter(is_data, sites))
    found = {name: site["name"] for name, values in columns.items() for site in data if _is(site["value"], values)}
    others = [site for site in data if site["name"] not in found.values()]
    alike = {
        name: site["name"] for name, values in columns.items() for site in others if _equals(site["value"], values)
    }
    return alike | found


def _is(value: Tensor, column: Tensor) -> bool:
    same_memory = value.untyped_storage().data_ptr() == column.untyped_storage().data_ptr()
    return same_memory and value.storage_offset() == column.storage_offset() and value.numel() == column.numel()


def _equals(value: Tensor, column: Tensor) -> bool:
    return value.numel() == column.numel() and torch.equal(
        *(x.flatten().double().nan_to_num() for x in (value, column))
    )


def shared_latents(model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Trace:
    """Draw from the guide, and keep the latents that lie in no plate of the data: those that all data share.

    Returns:
        A trace of these sites alone, to replay the model with: its data are then drawn as they were learned, and not
        with new draws of the prior.
    """
    drawn = poutine.trace(or_nothing(guide)).get_trace(*args, **kwargs)
    sites = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(*args, **kwargs).nodes.values()
    plates = plates_of_data(sites)
    kept = Trace()
    for name, site in drawn.nodes.items():
        if is_latent(site) and is_shared(site, plates):
            kept.nodes[name] = site
    return kept


class Importance(NamedTuple):
    r"""Importance weights of a guide's draws, one column a datum.

    Attributes:
        log_weights: :math:`\log p(x_n, z_{kn}) - \log q(z_{kn} \mid x_n)`, shape ``(num_particles, batch)``.
        log_scores: :math:`\log q` of the sites that cannot be reparameterised, same shape; ``None`` without any.
        scale: what a plate's subsampling multiplies each datum by.
    """

    log_weights: Tensor
    log_scores: Tensor | None
    scale: float


def importance(traces: Traces) -> Importance:
    """Reduce traces to one importance weight per particle and datum.

    A datum is an index of the plates that *every* site lies in; weights factorise over those and no others. Where no
    plate is shared by all (a global latent variable), the whole data set is one datum.

    Raises:
        ProgramError: where the guide enumerates a site: an enumerated draw has no importance weight.
    """
    log_p, log_q, shared = densities(traces)
    scores = [
        Term(site["cond_indep_stack"], site["score_parts"].score_function)
        for site in sample_sites(traces.guide)
        if isinstance(site["score_parts"].score_function, Tensor)
    ]
    log_scores = per_datum(scores, traces.particle_dim, shared) + torch.zeros_like(log_p) if scores else None
    scale = plate_scale(shared)
    return Importance((log_p - log_q) / scale, log_scores, scale)


class Densities(NamedTuple):
    r"""What a model and a guide say of the guide's draws, one column a datum, scaled as their plates are.

    Attributes:
        log_p: :math:`\log p(x_n, z_{kn})`, shape ``(num_particles, batch)``.
        log_q: :math:`\log q(z_{kn} \mid x_n)`, same shape.
        shared: the plates that every site lies in, outermost first: a datum is an index of these.
    """

    log_p: Tensor
    log_q: Tensor
    shared: list[Any]


def densities(traces: Traces) -> Densities:
    """Add up what traces say of each particle and datum.

    Raises:
        ProgramError: where the guide enumerates a site: an enumerated draw has no importance weight.
    """
    if any(is_enumerated(site) for site in sample_sites(traces.guide)):
        raise ProgramError(
            "importance weights need draws, but the guide enumerates a site; remove its infer={'enumerate': ...}, "
            "or enumerate the site in the model alone."
        )
    plus, minus = model_terms(traces), guide_terms(traces)
    shared = _shared_plates(plus + minus)
    log_p = per_datum(plus, traces.particle_dim, shared)
    log_q = per_datum(minus, traces.particle_dim, shared) if minus else torch.zeros_like(log_p)
    return Densities(log_p, log_q, shared)


def _shared_plates(terms: list[Term]) -> list[Any]:
    """List the plates that all terms lie in, outermost first."""
    plates = [{frame for frame in term.frames if frame.vectorized and frame.name != PARTICLES} for term in terms]
    return sorted(set.intersection(*plates), key=lambda frame: frame.dim) if plates else []


def per_datum(terms: list[Term], particle_dim: int | None, shared: list[Any]) -> Tensor:
    """Add the terms up to shape ``(num_particles, batch)``: the batch indexes the shared plates, the rest is summed."""
    kept = ([] if particle_dim is None else [particle_dim]) + [frame.dim for frame in shared]
    total: Tensor | float = 0.0
    for term in terms:
        log_prob = term.log_prob
        summed = [dim for dim in range(-log_prob.dim(), 0) if dim not in kept]
        if summed:
            log_prob = log_prob.sum(summed, keepdim=True)
        leading = [1] * (max((-dim for dim in kept), default=0) - log_prob.dim())
        log_prob = log_prob.reshape((*leading, *log_prob.shape))
        total = total + log_prob
    assert isinstance(total, Tensor)
    # Every dimension but the kept ones has size one by now, and the particles' is the outermost.
    return total.reshape(1 if particle_dim is None else total.shape[particle_dim], -1)


def log_weights(
    model: Program,
    guide: Program | None,
    *args: Any,
    num_particles: int = 1,
    max_plate_nesting: int | None = None,
    **kwargs: Any,
) -> Tensor:
    r"""Draw from the guide and return the logarithms of the importance weights.

    .. math:: \log w_{kn} = \log p(x_n, z_{kn}) - \log q(z_{kn} \mid x_n), \quad z_{kn} \sim q(z \mid x_n)

    Sites that the model alone enumerates are summed out exactly. The subsampling scales of the
    plates that all sites share are left out, so that each column belongs to one datum.

    Args:
        guide: the proposal; ``None`` for a model whose latent sites are all enumerated, or which has none.
        num_particles: :math:`K`, vectorised in an outermost plate.
        max_plate_nesting: how deep the programs' plates nest; found by a rehearsal if not given.

    Returns:
        Tensor of shape ``(num_particles, batch)``, in nats.

    Raises:
        ProgramError: where the programs' sites do not pair, or the guide enumerates.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def posterior(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
        >>> log_w = log_weights(model, posterior, torch.tensor([0.0, 1.0]), num_particles=5)
        >>> log_w.shape, bool((log_w.std(0) < 1e-6).all())  # the exact posterior has constant weights
        (torch.Size([5, 2]), True)
    """
    guide = or_nothing(guide)
    if max_plate_nesting is None:
        max_plate_nesting = plate_nesting(model, guide, *args, **kwargs)
    traces = trace_pair(model, guide, args, kwargs, num_particles, max_plate_nesting)
    return importance(traces).log_weights


def renyi_bound(log_weights: Tensor, alpha: float = 0.0) -> Tensor:
    r"""Reduce log-weights to a Monte Carlo estimate of Rényi's variational bound, one a datum.

    .. math::
        \hat{\mathcal{L}}_\alpha = \frac{1}{1 - \alpha} \log \frac{1}{K} \sum_{k=1}^K w_k^{1 - \alpha},
        \qquad \hat{\mathcal{L}}_1 = \frac{1}{K} \sum_{k=1}^K \log w_k

    ``alpha=0`` is IWAE's bound, ``alpha=1`` the ELBO.

    Args:
        log_weights: :math:`\log w_k` in nats, shape ``(num_particles, batch)``.

    Returns:
        Tensor of shape ``(batch,)``, in nats.

    Example:
        >>> renyi_bound(torch.tensor([[0.0], [math.log(3.0)]])).exp()  # the mean of 1 and 3
        tensor([2.])
    """
    if alpha == 1.0:
        return log_weights.mean(0)
    power = 1.0 - alpha
    return (torch.logsumexp(power * log_weights, 0) - math.log(len(log_weights))) / power
