"""Refuse programs that do not fit together, before a wrong number comes out."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from pyro.poutine import Trace
from pyro.util import check_site_shape
from torch import Tensor

from pyrogen.distributions import is_implicit
from pyrogen.errors import ProgramError
from pyrogen.sites import PARTICLES, is_data, is_enumerated, is_latent, sample_sites

__all__ = ["check_densities", "check_observed", "check_pairing", "check_plates", "check_shapes"]


def check_pairing(model_trace: Trace, guide_trace: Trace) -> None:
    """Refuse a latent site of the model that the guide lacks, and the reverse.

    Enumerated sites of the model and sites marked ``infer={"is_auxiliary": True}`` need no partner.
    """
    model_sites = {name for name, site in model_trace.nodes.items() if is_latent(site)}
    guide_sites = {name for name, site in guide_trace.nodes.items() if is_latent(site)}
    for name in sorted(model_sites - guide_sites):
        infer = model_trace.nodes[name]["infer"]
        if infer.get("is_auxiliary") or is_enumerated(model_trace.nodes[name]):
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


def check_densities(trace: Trace, needed: Callable[[Mapping[str, Any]], bool] = lambda site: True) -> None:
    """Refuse a site without a density, of those that need one."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and is_implicit(site["fn"]) and needed(site):
            raise ProgramError(
                f"site {name!r} is Implicit: it can be drawn from and has no density, which this needs. Learn it by an "
                f"objective that compares samples (of data: GAN, FGAN, WGAN, MMD, MMDGAN, EnergyDistance, "
                f"SlicedWasserstein, Sinkhorn; of latents: AVB, AAE, WAE, ALI), or give the site a distribution with a "
                f"density, such as Normal"
            )


def check_observed(model_trace: Trace) -> None:
    """Refuse observed data that a plate would silently repeat: a single datum counted once for every index."""
    for name, site in model_trace.nodes.items():
        if not is_data(site) or not isinstance(site["value"], Tensor):
            continue
        event_dim = site["fn"].event_dim
        batch, event = (site["value"].shape[i] for i in _cut(site["value"].dim() - event_dim))
        if event != site["fn"].event_shape:
            raise ProgramError(
                f"observed site {name!r} has values of shape {tuple(site['fn'].event_shape)} each, but its data of "
                f"shape {tuple(site['value'].shape)} end in {tuple(event)}: numbers would be repeated. Give the data "
                f"the shape of the distribution, or the distribution that of the data."
            )
        for frame in site["cond_indep_stack"]:
            if not frame.vectorized or frame.size == 1:
                continue
            found = batch[frame.dim] if len(batch) >= -frame.dim else None
            if frame.name == PARTICLES and found in (None, 1):
                continue
            if frame.name == PARTICLES:
                raise ProgramError(
                    f"observed site {name!r} has data of shape {tuple(site['value'].shape)} in no plate of its own: "
                    f"each of {frame.size} particles would meet another datum. Put the site into a plate, or make the "
                    f"data part of the event with .to_event(...)."
                )
            if found in (None, 1):
                raise ProgramError(
                    f"observed site {name!r} lies in plate {frame.name!r} of size {frame.size}, but its data of shape "
                    f"{tuple(site['value'].shape)} have {'size 1' if found else 'no size'} along that plate "
                    f"(dim {frame.dim}): one datum would be counted {frame.size} times. Pass one value for each "
                    f"index, or take the site out of the plate."
                )


def _cut(at: int) -> tuple[slice, slice]:
    return slice(None, max(at, 0)), slice(max(at, 0), None)


def check_shapes(model_trace: Trace, guide_trace: Trace, nesting: int) -> None:
    """Refuse a latent site that has another shape in the model than in the guide: it would be scored several times.

    Dimensions left of the plates belong to enumerated sites and may differ.
    """
    for name, q in guide_trace.nodes.items():
        if not is_latent(q) or name not in model_trace.nodes:
            continue
        p = model_trace.nodes[name]
        p_shape, q_shape = _plated_shape(p, nesting), _plated_shape(q, nesting)
        length = max(len(p_shape), len(q_shape))
        if (1,) * (length - len(p_shape)) + p_shape != (1,) * (length - len(q_shape)) + q_shape:
            raise ProgramError(
                f"latent site {name!r} has shape {p_shape} in the model and {q_shape} in the guide: "
                f"one draw would be counted several times. Put the site into the same plates in both, and give both "
                f"distributions the same event shape with .to_event(...)."
            )


def _plated_shape(site: Mapping[str, Any], nesting: int) -> tuple[int, ...]:
    """Return a site's batch shape in the plates, followed by its event shape."""
    fn = site["fn"]
    return (*fn.batch_shape[max(len(fn.batch_shape) - nesting, 0) :], *fn.event_shape)


def check_plates(trace: Trace, nesting: int, enumerated: set[int]) -> None:
    """Refuse a site whose log-probability has batch dimensions that no plate and no enumeration explains."""
    for site in sample_sites(trace):
        shape = site["log_prob"].shape
        strays = [dim for dim in range(-len(shape), -nesting) if shape[dim] > 1 and dim not in enumerated]
        if strays:
            raise ProgramError(
                f"site {site['name']!r} has batch shape {tuple(shape)}, and no plate for its dimensions {strays}. "
                f"Put the site into a plate, or make the dimensions part of the event with .to_event(...)."
            )
        try:
            check_site_shape(site, nesting)
        except ValueError as error:
            raise ProgramError(str(error)) from error
