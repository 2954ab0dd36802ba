"""Tell which site of a program is to blame for a loss that is not finite."""

from math import isfinite
from typing import Any

import pyro
import torch
from pyro import poutine

from pyrogen.counts import parts
from pyrogen.distributions import is_implicit
from pyrogen.parameters import modules_of
from pyrogen.rehearsal import rehearsal
from pyrogen.sites import Program, is_data, or_nothing

__all__ = ["site_table"]


def site_table(model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> str:
    """Run the programs once, as a rehearsal, and tabulate each site's log-probability.

    Returns:
        A line a site: program, name, the values' shape, the summed log-probability, and a mark where that is not
        finite.
    """
    guide = or_nothing(guide)
    with rehearsal(modules_of(model, guide).values()), torch.no_grad(), pyro.validation_enabled(False):
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
        rows = []
        for program, trace in (("guide", guide_trace), ("model", model_trace)):
            trace.compute_log_prob(lambda name, site: not is_implicit(site["fn"]))
            for name, site in trace.nodes.items():
                if site["type"] != "sample" or poutine.util.site_is_subsample(site):
                    continue
                shape = tuple(getattr(site["value"], "shape", ()))
                rows.append(f"  {program}  {name:<16} {shape!s:<16} {_described(site)}")
    return "\n".join(rows)


def _described(site: dict[str, Any]) -> str:
    if is_data(site) and not all(part.isfinite().all() for part in parts(torch.as_tensor(site["value"]))):
        return "the data hold NaN or infinity   <- not finite"
    if "log_prob_sum" not in site:
        drawn = site["fn"].rsample()
        return "no density" if drawn.isfinite().all() else "no density, and draws   <- not finite"
    value = float(site["log_prob_sum"])
    return f"log-probability {value:.6g}{'' if isfinite(value) else '   <- not finite'}"
