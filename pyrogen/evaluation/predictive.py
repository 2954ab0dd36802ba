"""The posterior predictive density, for models whose latents are shared by all data."""

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.evaluation.likelihood import over
from pyrogen.programs import log_weights, shared_latents
from pyrogen.sites import Program

__all__ = ["log_predictive"]


def log_predictive(
    model: Program, guide: Program, batches: Iterable[Mapping[str, Tensor]], num_particles: int = 20
) -> Estimate:
    r"""Estimate the log-density of a new datum, given what the guide learned of latents that all data share.

    .. math:: \frac{1}{N} \sum_n \log \frac{1}{S} \sum_s p(x_n \mid z_s), \quad z_s \sim q(z)

    Sites that the model enumerates are summed out.

    Args:
        batches: dicts of keyword arguments for the programs.
        num_particles: :math:`S`.
    """

    def scored(batch: dict[str, Tensor]) -> Tensor:
        found = []
        for _ in range(num_particles):
            data = {name: site["value"] for name, site in shared_latents(model, guide, **batch).nodes.items()}
            given = poutine.block(poutine.condition(model, data=data), hide_fn=partial(_is_shared, data))
            arguments: dict[str, Any] = dict(batch)
            found.append(log_weights(given, None, **arguments)[0])
        return torch.stack(found).logsumexp(0) - math.log(num_particles)

    return mean(over(batches, scored, model, guide), "nats", num_particles)


def _is_shared(data: Mapping[str, Tensor], site: Mapping[str, Any]) -> bool:
    """Tell whether a site is one of the latents that all data share, or is computed of such."""
    return site["type"] == "sample" and (site["name"] in data or bool(site["infer"].get("_deterministic")))
