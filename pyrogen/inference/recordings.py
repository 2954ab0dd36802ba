"""Programs replayed with what was recorded: every step of all environments in one pass."""

from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor

from pyrogen.errors import ProgramError
from pyrogen.sites import Program, is_latent, sample_sites
from pyrogen.traces import Traces, trace_pair

__all__ = ["DYNAMICS", "replayed", "score"]

DYNAMICS = ("observation", "next_observation")
OUTCOMES = (*DYNAMICS, "reward", "terminated", "truncated", "log_prob")
"""The columns of a recording that are no choices of a policy's."""


def score(traces: Traces) -> Tensor:
    """Return the log-probability that an action had, whatever a program multiplies it by: a score is not scaled."""
    sites = filter(is_latent, sample_sites(traces.guide))
    return torch.stack([scale_and_mask(site["unscaled_log_prob"], mask=site["mask"]) for site in sites]).sum(0)


def replayed(model: Program, guide: Program, args: tuple[Any, ...], columns: Mapping[str, Any]) -> Traces:
    """Score both programs with what was recorded at the guide's latent sites, in one pass each.

    Raises:
        ProgramError: where a site was not recorded, is one of the dynamics, or lies in other plates.
    """
    recorded = Trace()
    for name, value in columns.items():
        if name not in OUTCOMES:
            recorded.nodes[name] = {
                "type": "sample", "name": name, "is_observed": False, "value": value, "infer": {}
            }  # fmt: skip
    shape = columns["terminated"].shape
    traces = trace_pair(model, guide, args, columns, 1, len(shape), given=recorded)
    latents = [site["name"] for site in filter(is_latent, sample_sites(traces.guide))]
    if not latents:
        raise ProgramError("the guide draws nothing: it is the policy, and draws an action at each step")
    for name in latents:
        if name not in recorded.nodes and name not in DYNAMICS:
            raise ProgramError(
                f"the guide draws {name!r}, of which there is no recording: recordings have a column for each latent "
                f"site, found {', '.join(recorded.nodes) or 'none'}"
            )
    for site in (*sample_sites(traces.model), *sample_sites(traces.guide)):
        if site["name"] in DYNAMICS:
            raise ProgramError(
                f"a program has a site {site['name']!r}, which the environment draws. Leave it out of both: true "
                f"dynamics cancel, and a guide with others finds a posterior that hopes for luck (log E exp), which no "
                f"policy can bring about"
            )
        if site["log_prob"].shape != shape:
            raise ProgramError(
                f"site {site['name']!r} has log-probabilities of shape {tuple(site['log_prob'].shape)}, expected one "
                f"for each step of each environment, {tuple(shape)}: put it into plates of time (dim=-2) and "
                f"environments (dim=-1), and what is left into the event with .to_event(...)"
            )
    _check_observed(traces)
    return traces


def _check_observed(traces: Traces) -> None:
    """Refuse a policy that observes, and a model that does not: they may have been swapped."""
    in_model, in_guide = (
        [site["name"] for site in sample_sites(trace) if not (is_latent(site) or site["infer"].get("_deterministic"))]
        for trace in traces[:2]
    )
    if in_guide:
        raise ProgramError(
            f"the guide observes {', '.join(in_guide)}: it is the policy, and draws actions alone. Leave that to the "
            f"model, and pass the model first"
        )
    if not in_model:
        raise ProgramError(
            'the model observes nothing, so that rewards say nothing: give it pyro.factor("optimality", reward / '
            "temperature) at each step"
        )
