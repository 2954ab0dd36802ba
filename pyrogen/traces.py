"""Run a model against a guide, refuse pairs that do not fit, and collect their log-probabilities."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.infer.traceenum_elbo import _compute_model_factors  # the only implementation of marginalisation in Pyro
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites, site_is_subsample
from torch import Tensor

from pyrogen.errors import ProgramError
from pyrogen.pairing import check_densities, check_observed, check_pairing, check_plates, check_shapes
from pyrogen.parameters import modules_of
from pyrogen.rehearsal import rehearsal
from pyrogen.sites import PARTICLES, Program, is_enumerated, is_latent, sample_sites

__all__ = [
    "Learned",
    "Term",
    "Traces",
    "draw_trace",
    "guide_terms",
    "marginal_terms",
    "model_terms",
    "plate_nesting",
    "plate_scale",
    "subsamples",
    "total",
    "trace_pair",
    "trace_pair_from_model",
]


class Traces(NamedTuple):
    """A guide's trace and the trace of the model that was replayed against it.

    ``particle_dim`` is the (negative) batch dimension of vectorised particles, ``None`` with one particle;
    ``enumerates`` tells whether some site was enumerated in parallel.
    """

    model: Trace
    guide: Trace
    particle_dim: int | None
    enumerates: bool


Learned = Callable[[Trace, Trace], None]
"""What gives sites of a guide's trace, the second, a density, given the model's."""


class Term(NamedTuple):
    """A log-probability, scaled and masked, and the plates that it lies in."""

    frames: tuple[Any, ...]
    log_prob: Tensor


def plate_nesting(model: Program, guide: Program, *args: Any, **kwargs: Any) -> int:
    """Run both programs once, as a rehearsal, to see how deep their plates nest."""
    with rehearsal(modules_of(model, guide).values()), poutine.block(), pyro.validation_enabled(False):
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    sites = [site for trace in (model_trace, guide_trace) for site in sample_sites(trace)]
    dims = [frame.dim for site in sites for frame in site["cond_indep_stack"] if frame.vectorized]
    return -min(dims, default=0)


def _in_particles(
    model: Program, guide: Program, num_particles: int, nesting: int
) -> tuple[Program, Program, int, int | None]:
    """Put both programs into an outermost plate of particles, if there are several."""
    if num_particles == 1:
        return model, guide, nesting, None

    def vectorized(program: Program, *args: Any, **kwargs: Any) -> Any:
        with pyro.plate(PARTICLES, num_particles, dim=-1 - nesting):
            return program(*args, **kwargs)

    return partial(vectorized, model), partial(vectorized, guide), nesting + 1, -1 - nesting


@contextmanager
def _noting_particles(num_particles: int) -> Iterator[None]:
    """Add to an error of shapes what a program that never met particles cannot know."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if num_particles > 1:
            error.add_note(
                f"The programs ran with {num_particles} particles in an outermost plate, so that every draw has batch "
                f"dimensions in front: write (w * x).sum(-1) for x @ w, and loc[..., k] for loc[k]. ELBO can also draw "
                f"particles one by one, with vectorize_particles=False."
            )
        raise


def trace_pair(
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    num_particles: int,
    max_plate_nesting: int,
    learned: Learned | None = None,
    given: Trace | None = None,
) -> Traces:
    r"""Draw latents from the guide, replay the model with them, and score every site of both.

    Args:
        num_particles: draws; more than one are vectorised in an outermost plate.
        max_plate_nesting: how deep the programs' own plates nest, see :func:`plate_nesting`.
        learned: called with the model's and the guide's trace before they are scored, to give sites of the guide the
            density that they lack. The model is replayed with views of the draws, so that its own gradient in them
            can be told from that of what the guide drew later.
        given: values of the guide's latents, in the place of draws.

    Raises:
        ProgramError: where a latent site of one program is missing in the other or has another shape there, where
            observed data would silently be repeated, or where a site's batch dimensions lie in no plate.
    """
    model, guide, nesting, particle_dim = _in_particles(model, guide, num_particles, max_plate_nesting)
    guide = poutine.enum(guide, first_available_dim=-1 - nesting)
    if given is not None:
        guide = poutine.replay(guide, trace=given)
    with _noting_particles(num_particles):
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        if learned is not None:
            for site in filter(is_latent, sample_sites(guide_trace)):
                site["value"] = site["value"].view_as(site["value"])
        model_trace = poutine.trace(poutine.replay(poutine.enum(model), trace=guide_trace)).get_trace(*args, **kwargs)
        if learned is not None:
            check_densities(model_trace)
            check_pairing(model_trace, guide_trace)
            learned(model_trace, guide_trace)
        return _scored(model_trace, guide_trace, nesting, particle_dim)


def subsamples(trace: Trace) -> Trace:
    """Return which data each subsampled plate has drawn, as a trace to replay: nothing else is in it."""
    found = Trace()
    found.nodes.update({name: site for name, site in trace.nodes.items() if site_is_subsample(site)})
    return found


def draw_trace(
    program: Program, args: tuple[Any, ...], kwargs: Mapping[str, Any], num_particles: int, max_plate_nesting: int
) -> Trace:
    """Run a program in an outermost plate of particles, if there are several, and score nothing."""
    program, _, _, _ = _in_particles(program, program, num_particles, max_plate_nesting)
    with _noting_particles(num_particles):
        return poutine.trace(program).get_trace(*args, **kwargs)


def trace_pair_from_model(
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    num_particles: int,
    max_plate_nesting: int,
) -> Traces:
    """Draw latents from the model, held fixed, and replay the guide with them; else as :func:`trace_pair`.

    Nothing is enumerated: every site of the model is drawn, and must be in the guide.
    """
    model, guide, nesting, particle_dim = _in_particles(model, guide, num_particles, max_plate_nesting)
    with torch.no_grad():
        model_trace = poutine.trace(model).get_trace(*args, **kwargs)
    guide_trace = poutine.trace(poutine.replay(guide, trace=model_trace)).get_trace(*args, **kwargs)
    return _scored(model_trace, guide_trace, nesting, particle_dim)


def _scored(model_trace: Trace, guide_trace: Trace, nesting: int, particle_dim: int | None) -> Traces:
    check_densities(model_trace)
    check_densities(guide_trace)
    check_pairing(model_trace, guide_trace)
    check_observed(model_trace)
    model_trace, guide_trace = prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace)
    check_shapes(model_trace, guide_trace, nesting)
    model_trace.compute_log_prob()
    guide_trace.compute_score_parts()
    sites = [*sample_sites(model_trace), *sample_sites(guide_trace)]
    enumerated = {site["infer"]["_enumerate_dim"] for site in sites if is_enumerated(site)}
    check_plates(model_trace, nesting, enumerated)
    check_plates(guide_trace, nesting, enumerated)
    if enumerated:
        guide_trace.pack_tensors()
        model_trace.pack_tensors(guide_trace.plate_to_symbol)
    return Traces(model_trace, guide_trace, particle_dim, bool(enumerated))


def model_terms(traces: Traces, without: Container[str] = ()) -> list[Term]:
    r"""Collect the model's log-probabilities, with the sites that it enumerates (and the guide does not) summed out.

    Sites can be left out by name where nothing is enumerated.

    .. math:: \log p(x, z) = \log \sum_k p(x, z, k)
    """
    if not traces.enumerates:
        return _site_terms(traces.model, without)
    costs, marginals = _costs_and_marginals(traces)
    return costs + marginals


def marginal_terms(traces: Traces) -> list[Term]:
    """Collect what the sites that the model enumerates, and those that depend on them, leave when summed out."""
    return _costs_and_marginals(traces)[1]


def _site_terms(trace: Trace, without: Container[str] = ()) -> list[Term]:
    sites = (site for site in sample_sites(trace) if site["name"] not in without)
    return [Term(site["cond_indep_stack"], site["log_prob"]) for site in sites]


def _costs_and_marginals(traces: Traces) -> tuple[list[Term], list[Term]]:
    trace = traces.model
    if not traces.enumerates:
        return _site_terms(trace), []
    costs, factors, _, sum_dims, scale = _compute_model_factors(trace, traces.guide)
    summed = contract_tensor_tree(factors, sum_dims, cache={}) if factors else {}
    marginals = {plates: [packed.scale_and_mask(term, scale) for term in terms] for plates, terms in summed.items()}
    frames = {
        trace.plate_to_symbol[frame.name]: frame
        for site in sample_sites(trace)
        for frame in site["cond_indep_stack"]
        if frame.vectorized
    }

    def unpacked(group: Mapping[frozenset[str], Sequence[Tensor]]) -> list[Term]:
        return [
            Term(tuple(frames[symbol] for symbol in plates), packed.unpack(term, trace.symbol_to_dim))
            for plates, terms in group.items()
            for term in terms
        ]

    return unpacked(costs), unpacked(marginals)


def guide_terms(traces: Traces, without: Container[str] = ()) -> list[Term]:
    """Collect the guide's log-probabilities, without the sites of some names."""
    return _site_terms(traces.guide, without)


def plate_scale(frames: Sequence[Any]) -> float:
    """Return what subsampling multiplies a log-probability by within some plates."""
    return prod((frame.full_size or frame.size) / frame.size for frame in frames)


def total(plus: Sequence[Term], minus: Sequence[Term] = ()) -> Tensor:
    """Add log-probabilities up, and take others off, to a scalar.

    Raises:
        ProgramError: where there are none at all.
    """
    if not plus and not minus:
        raise ProgramError("the programs have no site: sample or observe something with pyro.sample(...)")
    # Starting from a zero tensor would bring in a device and a dtype of its own.
    return sum(term.log_prob.sum() for term in plus) - sum(term.log_prob.sum() for term in minus)  # type: ignore[return-value]
