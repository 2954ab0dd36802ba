"""A density for guides that have none, so that a bound can be given."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import pyro
import pyro.distributions as dist
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to

from pyrogen.distributions import is_implicit
from pyrogen.errors import ProgramError
from pyrogen.sites import PARTICLES, Program, is_latent, is_point, sample_sites
from pyrogen.traces import draw_trace, plate_nesting

__all__ = ["lacks_density", "moment_proposal"]

DRAWS = 64
"""How many draws of a guide its moments are taken of."""

FLOOR = 0.1
"""The least standard deviation of a proposal: a guide without noise has none of its own."""

FREEDOM = 4.0
"""Degrees of freedom: tails that are heavier than a posterior's keep importance weights bounded."""


def lacks_density(guide: Program | None, batch: Mapping[str, Tensor]) -> bool:
    """Tell whether a guide has a latent site that is implicit, or only such as are always the same for a datum.

    Points that are made of auxiliary noise with a density, as autoguides make them, have that density.
    """
    if guide is None:
        return False
    sites = list(filter(is_latent, sample_sites(draw_trace(guide, (), dict[str, Any](batch), 1, 0))))
    are_points = [is_point(site["fn"]) for site in sites]
    return any(is_implicit(site["fn"]) for site in sites) or (bool(sites) and all(are_points))


def moment_proposal(model: Program, guide: Program, batch: Mapping[str, Tensor], num_draws: int = DRAWS) -> Program:
    r"""Make a guide with a density from the moments of another's draws.

    .. math::
        r(z \mid x) = \prod_j t_4\left(z_j; \mu_j(x), s_j(x)\right), \quad s_j^2 = \sigma_j^2(x) + 0.1^2

    of latents that are brought to real numbers, where the model keeps them within bounds. Importance-weighted with it,
    a model has a valid bound, however the guide was learned; a loose one where the guide's draws are correlated or
    have several modes.

    Args:
        model: a Pyro program, whose sites say within which bounds they are.
        guide: a Pyro program, which may be implicit or deterministic.
        batch: keyword arguments of both; the proposal is for these alone.
        num_draws: how many draws the moments are taken of.

    Raises:
        ProgramError: where a site is discrete.
    """
    columns = dict[str, Any](batch)
    trace = draw_trace(guide, (), columns, num_draws, plate_nesting(model, guide, **columns))
    sites_of_model = poutine.trace(poutine.replay(model, trace=trace)).get_trace(**columns).nodes
    moments = {}
    for site in filter(is_latent, sample_sites(trace)):
        if site["infer"].get("is_auxiliary"):
            continue
        support = sites_of_model[site["name"]]["fn"].support
        if support.is_discrete:
            raise ProgramError(
                f"site {site['name']!r} is discrete, and has no proposal by moments: give the guide a density"
            )
        if not support.check(site["value"]).all():
            raise ProgramError(
                f"site {site['name']!r}: the guide draws values that the model gives no probability to, which are "
                f"outside of {support}"
            )
        plates = [f for f in site["cond_indep_stack"] if f.vectorized and f.name != PARTICLES]
        transform = biject_to(support)
        draws = transform.inv(site["value"])
        base = dist.StudentT(FREEDOM, draws.mean(0), (draws.var(0) + FLOOR**2).sqrt())
        moments[site["name"]] = (dist.TransformedDistribution(base.to_event(site["fn"].event_dim), transform), plates)

    def proposal(**_: Any) -> None:
        frames = {frame.name: frame for _, plates in moments.values() for frame in plates}
        made = {name: pyro.plate(name, frame.size, dim=frame.dim) for name, frame in frames.items()}
        for name, (fn, plates) in moments.items():
            with ExitStack() as stack:
                for frame in plates:
                    stack.enter_context(made[frame.name])
                pyro.sample(name, fn)

    return proposal
