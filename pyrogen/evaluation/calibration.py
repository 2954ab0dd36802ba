"""Whether posteriors are right on average over what a model itself makes: simulation-based calibration."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from pyrogen.errors import ProgramError
from pyrogen.evaluation.likelihood import evaluating
from pyrogen.programs import simulate
from pyrogen.sites import Program, is_latent, sample_sites
from pyrogen.traces import draw_trace

__all__ = ["Calibration", "simulation_based_calibration", "uniformity"]

LOG_LIKELIHOOD = "log_likelihood"


class Calibration(NamedTuple):
    """Ranks of what was true among draws of a posterior.

    Attributes:
        ranks: by name, one rank from 0 to ``num_draws`` for each simulation; of each number of each latent site, as
            ``z[0]``, and of the log-likelihood.
        p_values: of the hypothesis that they are uniform, by name.
        num_draws: how many draws of the posterior there were for each.
    """

    ranks: Mapping[str, Tensor]
    p_values: Mapping[str, float]
    num_draws: int

    def __repr__(self) -> str:
        worst = min(self.p_values, key=lambda name: self.p_values[name])
        return f"Calibration(worst of {len(self.ranks)}: {worst}, p = {self.p_values[worst]:.2g})"


def simulation_based_calibration(
    model: Program,
    guide: Program,
    data: Sequence[str] = ("x",),
    size: int = 1000,
    num_draws: int = 99,
    bins: int = 20,
    covariates: Mapping[str, Tensor] | None = None,
) -> Calibration:
    r"""Rank what a model drew among what a guide draws for the data that the model made of it.

    .. math::
        z^* \sim p(z), \quad x \sim p(x \mid z^*), \quad z_1, \dots, z_L \sim q(z \mid x), \quad
        \operatorname{rank} = \#\{l : f(z_l) < f(z^*)\}

    which is uniform on 0 to L where :math:`q(z \mid x)` is the posterior, whatever :math:`f`: each number of :math:`z`,
    and :math:`\log p(x \mid z)`, without which a guide that ignores data, and draws the prior, would pass.
    Among draws that equal what was true, as labels do, its place is drawn.

    Args:
        model: a Pyro program that makes ``size`` data if it is given none, with all its sites in one plate over data.
        guide: a Pyro program that is called with these data.
        data: names of the sites that the model observes, which are also the names of the programs' arguments.
        size: how many data are simulated.
        num_draws: :math:`L`; one less than a multiple of ``bins`` fills these evenly.
        bins: of the chi-squared test.
        covariates: other arguments of both programs, by name, with ``size`` rows.

    Raises:
        ProgramError: where ``num_draws`` does not fill the bins evenly, where there are too few data for the test, or
            where the model has no site of a name.

    References:
        Validating Bayesian Inference Algorithms with Simulation-Based Calibration (Talts et al., 2018),
        https://arxiv.org/abs/1804.06788

        Simulation-Based Calibration Checking for Bayesian Computation: The Choice of Test Quantities Shapes Sensitivity
        (Modrák et al., 2023), https://arxiv.org/abs/2211.02383
    """
    if bins < 2 or (num_draws + 1) % bins or size < 5 * bins:
        raise ProgramError(
            f"num_draws + 1 must be a multiple of bins, at least 2, and size at least five times bins; found "
            f"num_draws={num_draws}, bins={bins}, size={size}"
        )
    twice = set(data) & set(covariates or {})
    if twice:
        raise ProgramError(f"{min(twice)!r} is data that the model simulates, and cannot be a covariate as well")
    with evaluating(model, guide):
        truth = simulate(model, size=size, **(covariates or {}))
        absent = [name for name in data if name not in truth]
        if absent:
            raise ProgramError(
                f"the model has no site {absent[0]!r} to simulate data at: its sites are {', '.join(truth)}. Arguments "
                f"that no site observes are covariates"
            )
        given = {name: truth[name] for name in data} | dict(covariates or {})
        drawn = draw_trace(guide, (), given, num_draws, 1)
        latents = [site["name"] for site in sample_sites(drawn) if is_latent(site) and site["name"] in truth]
        ranks: dict[str, Tensor] = {}
        for name in latents:
            columns = _rank(drawn.nodes[name]["value"], truth[name]).reshape(size, -1).unbind(1)
            ranks |= {f"{name}[{i}]" if len(columns) > 1 else name: column for i, column in enumerate(columns)}
        at_truth = poutine.condition(model, data={name: truth[name] for name in latents})
        of_truth = _log_likelihood(draw_trace(at_truth, (), given, 1, 1), data)
        of_draws = _log_likelihood(draw_trace(poutine.replay(model, trace=drawn), (), given, num_draws, 1), data)
        ranks[LOG_LIKELIHOOD] = _rank(of_draws, of_truth).flatten()
    return Calibration(ranks, {n: uniformity(rank, num_draws, bins) for n, rank in ranks.items()}, num_draws)


def _rank(draws: Tensor, truth: Tensor) -> Tensor:
    """Count the draws below the truth; among those that equal it, its place is drawn."""
    below, equal = (draws < truth).sum(0), (draws == truth).sum(0)
    return below + (torch.rand(equal.shape, device=equal.device) * (equal + 1)).long()


def _log_likelihood(trace: Trace, data: Sequence[str]) -> Tensor:
    """Return the log-likelihood of each datum, shape ``(*draws, size)``."""
    trace.compute_log_prob(lambda name, _: name in data)
    return torch.stack([trace.nodes[name]["unscaled_log_prob"] for name in data]).sum(0)


def uniformity(ranks: Tensor, num_draws: int, bins: int) -> float:
    """Return the p-value of a chi-squared test that ranks from 0 to ``num_draws`` are uniform.

    Example:
        >>> uniformity(torch.arange(100).repeat(10), 99, 20)
        1.0
    """
    ranks = ranks.cpu()
    counts = torch.bincount(ranks.flatten() * bins // (num_draws + 1), minlength=bins).double()
    statistic = ((counts - counts.mean()).square() / counts.mean()).sum()
    freedom = torch.tensor((bins - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic / 2))
