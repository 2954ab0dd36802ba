"""Run a model against a guide, refuse pairs that do not fit, and collect their log-probabilities."""

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.infer.traceenum_elbo import _compute_model_factors  # the only implementation of marginalisation in Pyro
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_site_shape
from torch import Tensor

from pyrogen.errors import ProgramError
from pyrogen.parameters import modules_of
from pyrogen.rehearsal import rehearsal

__all__ = [
    "Program",
    "Structure",
    "Term",
    "Traces",
    "guide_terms",
    "is_data",
    "is_latent",
    "model_terms",
    "nothing",
    "sample_sites",
    "structure",
    "total",
    "trace_pair",
]

Program = Callable[..., Any]
"""Any callable that makes Pyro statements: a function, a bound method, a ``PyroModule``, an autoguide."""

PARTICLES = "num_particles_vectorized"


def nothing(*args: Any, **kwargs: Any) -> None:
    """The guide of a model without latent variables."""


class Structure(NamedTuple):
    """What one run of a pair of programs shows: how deep its plates nest, and whether it enumerates in parallel."""

    max_plate_nesting: int
    enumerates: bool


class Traces(NamedTuple):
    """A guide's trace and the trace of the model that was replayed against it.

    ``particle_dim`` is the (negative) batch dimension of vectorised particles, ``None`` with one particle;
    ``enumerates`` tells whether some site was enumerated in parallel.
    """

    model: Trace
    guide: Trace
    particle_dim: int | None
    enumerates: bool


class Term(NamedTuple):
    """A log-probability, scaled and masked, and the plates that it lies in."""

    frames: tuple[Any, ...]
    log_prob: Tensor


def sample_sites(trace: Trace) -> Iterator[dict[str, Any]]:
    return (site for site in trace.nodes.values() if site["type"] == "sample")


def is_data(site: Mapping[str, Any]) -> bool:
    """Tell whether a trace's site holds observed data; ``pyro.factor`` and ``pyro.deterministic`` sites do not."""
    return (
        site["type"] == "sample"
        and site["is_observed"]
        and not isinstance(site["fn"], Unit)
        and not site["infer"].get("_deterministic")
    )


def is_latent(site: Mapping[str, Any]) -> bool:
    """Tell whether a trace's site is a random variable that was drawn and not observed."""
    return (
        site["type"] == "sample"
        and not site["is_observed"]
        and not poutine.util.site_is_subsample(site)
        and not isinstance(site["fn"], Unit)
    )


def structure(model: Program, guide: Program, *args: Any, **kwargs: Any) -> Structure:
    """Run both programs once, as a rehearsal, to see how deep their plates nest and whether they enumerate."""
    with rehearsal(modules_of(model, guide).values()), poutine.block(), pyro.validation_enabled(False):
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    sites = [site for trace in (model_trace, guide_trace) for site in sample_sites(trace)]
    dims = [frame.dim for site in sites for frame in site["cond_indep_stack"] if frame.vectorized]
    enumerates = any(is_latent(site) and site["infer"].get("enumerate") == "parallel" for site in sites)
    return Structure(-min(dims, default=0), enumerates)


def _in_particles(program: Program, num_particles: int, dim: int) -> Program:
    def vectorized(*args: Any, **kwargs: Any) -> Any:
        with pyro.plate(PARTICLES, num_particles, dim=dim):
            return program(*args, **kwargs)

    return vectorized


def trace_pair(
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    num_particles: int,
    shape: Structure,
    draw_from_model: bool = False,
) -> Traces:
    r"""Draw latents from the guide, replay the model with them, and score every site of both.

    Args:
        num_particles: draws; more than one are vectorised in an outermost plate.
        shape: from :func:`structure`.
        draw_from_model: draw from the model, held fixed, and replay the guide instead.

    Raises:
        ProgramError: where a latent site of one program is missing in the other, where observed data would silently
            be broadcast along a plate, or where a site's batch dimensions lie in no plate.
    """
    nesting = shape.max_plate_nesting
    particle_dim = None
    if num_particles > 1:
        nesting += 1
        particle_dim = -nesting
        model, guide = (_in_particles(program, num_particles, particle_dim) for program in (model, guide))
    if shape.enumerates:
        guide = poutine.enum(guide, first_available_dim=-1 - nesting)
        model = poutine.enum(model)
    if draw_from_model:
        with torch.no_grad():
            model_trace = poutine.trace(model).get_trace(*args, **kwargs)
        guide_trace = poutine.trace(poutine.replay(guide, trace=model_trace)).get_trace(*args, **kwargs)
    else:
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    check_pairing(model_trace, guide_trace)
    check_observed(model_trace)
    model_trace, guide_trace = prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace)
    model_trace.compute_log_prob()
    guide_trace.compute_score_parts()
    if pyro.distributions.is_validation_enabled():
        check_plates(model_trace, nesting)
        check_plates(guide_trace, nesting)
    if shape.enumerates:
        guide_trace.pack_tensors()
        model_trace.pack_tensors(guide_trace.plate_to_symbol)
    return Traces(model_trace, guide_trace, particle_dim, shape.enumerates)


def check_pairing(model_trace: Trace, guide_trace: Trace) -> None:
    """Refuse a latent site of the model that the guide lacks, and the reverse.

    Enumerated sites of the model and sites marked ``infer={"is_auxiliary": True}`` need no partner.
    """
    model_sites = {name for name, site in model_trace.nodes.items() if is_latent(site)}
    guide_sites = {name for name, site in guide_trace.nodes.items() if is_latent(site)}
    for name in sorted(model_sites - guide_sites):
        infer = model_trace.nodes[name]["infer"]
        if infer.get("is_auxiliary") or infer.get("_enumerate_dim") is not None:
            continue
        raise ProgramError(
            f"the model's latent site {name!r} is missing in the guide{_nearest(name, guide_sites)}. "
            f"Sample {name!r} in the guide, observe it in the model, or enumerate it with "
            f'infer={{"enumerate": "parallel"}} where it is discrete.'
        )
    for name in sorted(guide_sites - model_sites):
        if guide_trace.nodes[name]["infer"].get("is_auxiliary"):
            continue
        if name in model_trace.nodes and model_trace.nodes[name]["type"] == "sample":
            raise ProgramError(f"the guide samples site {name!r}, which the model observes. Remove it from the guide.")
        raise ProgramError(
            f"the guide's site {name!r} is missing in the model{_nearest(name, model_sites)}. "
            f"Sample {name!r} in the model too, or mark it with infer={{'is_auxiliary': True}} in the guide."
        )


def _nearest(name: str, others: set[str]) -> str:
    matches = get_close_matches(name, others, n=1)
    if matches:
        return f" (which has {matches[0]!r}: is it a slip of the pen?)"
    return f" (which has {', '.join(map(repr, sorted(others)))})" if others else " (which has no latent site)"


def check_observed(model_trace: Trace) -> None:
    """Refuse observed data that a plate would silently repeat: a single datum counted once for every index."""
    for name, site in model_trace.nodes.items():
        if not is_data(site) or not isinstance(site["value"], Tensor):
            continue
        batch = site["value"].shape[: site["value"].dim() - site["fn"].event_dim]
        for frame in site["cond_indep_stack"]:
            if not frame.vectorized or frame.name == PARTICLES or frame.size == 1:
                continue
            found = batch[frame.dim] if len(batch) >= -frame.dim else None
            if found in (None, 1):
                raise ProgramError(
                    f"observed site {name!r} lies in plate {frame.name!r} of size {frame.size}, but its data of shape "
                    f"{tuple(site['value'].shape)} have {'size 1' if found else 'no size'} along that plate "
                    f"(dim {frame.dim}): one datum would be counted {frame.size} times. Pass one value for each "
                    f"index, or take the site out of the plate."
                )


def check_plates(trace: Trace, max_plate_nesting: int) -> None:
    """Refuse a site whose log-probability has batch dimensions that no plate explains."""
    for site in sample_sites(trace):
        try:
            check_site_shape(site, max_plate_nesting)
        except ValueError as error:
            raise ProgramError(str(error)) from error


def model_terms(traces: Traces) -> list[Term]:
    """Collect the model's log-probabilities, with the sites that it enumerates (and the guide does not) summed out.

    .. math:: \\log p(x, z) = \\log \\sum_k p(x, z, k)
    """
    trace = traces.model
    if not traces.enumerates:
        return [Term(site["cond_indep_stack"], site["log_prob"]) for site in sample_sites(trace)]
    costs, factors, _, sum_dims, scale = _compute_model_factors(trace, traces.guide)
    marginals = {plates: [packed.scale_and_mask(term, scale) for term in terms] for plates, terms in
                 contract_tensor_tree(factors, sum_dims, cache={}).items()} if factors else {}  # fmt: skip
    frames = {
        trace.plate_to_symbol[frame.name]: frame
        for site in sample_sites(trace)
        for frame in site["cond_indep_stack"]
        if frame.vectorized
    }
    return [
        Term(tuple(frames[symbol] for symbol in plates), packed.unpack(term, trace.symbol_to_dim))
        for group in (costs, marginals)
        for plates, terms in group.items()
        for term in terms
    ]


def guide_terms(traces: Traces) -> list[Term]:
    """Collect the guide's log-probabilities."""
    return [Term(site["cond_indep_stack"], site["log_prob"]) for site in sample_sites(traces.guide)]


def total(terms: list[Term]) -> Tensor:
    """Add all log-probabilities up, to a scalar."""
    return torch.stack([term.log_prob.sum() for term in terms]).sum() if terms else torch.zeros(())
