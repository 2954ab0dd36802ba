"""The evidence of data by annealing: from below, and of simulated data from both sides."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine import Trace
from torch import Tensor

from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation.annealing import anneal, anneal_back, log_mean_exp, sigmoid_schedule
from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.evaluation.hamiltonian import Hamiltonian, tuned
from pyrogen.evaluation.latents import Latents
from pyrogen.evaluation.likelihood import over
from pyrogen.parameters import modules_of
from pyrogen.programs import observed_columns
from pyrogen.rehearsal import rehearsal
from pyrogen.sites import Generating, Program, is_data, is_latent, sample_sites

__all__ = ["Sandwich", "ais", "bdmc", "smc"]

Batches = Iterable[Mapping[str, Tensor]]

RESAMPLE_BELOW = 0.5
"""The share of chains that must count, or they are drawn anew: the usual choice in sequential Monte Carlo."""


class Sandwich(NamedTuple):
    r"""What the evidence of simulated data lies between, in expectation.

    Attributes:
        lower: by annealing draws of the start to the posterior.
        upper: by annealing the latents that the data were made of back to the start.
        gap: upper less lower, datum by datum: a bound, in expectation, on the error of either.
    """

    lower: Estimate
    upper: Estimate
    gap: Estimate


def ais(
    model: Program,
    batches: Batches,
    start: Program | None = None,
    *,
    num_steps: int = 500,
    num_chains: int = 16,
    num_leapfrog: int = 10,
) -> Estimate:
    r"""Estimate :math:`\log p(x)` per datum by annealed importance sampling with Hamiltonian moves.

    .. math:: \frac{1}{N} \sum_n \log \frac{1}{K} \sum_k w_{kn}, \qquad \mathbb{E}[w_{kn}] = p(x_n)

    The path goes from ``start`` to the posterior, see :func:`~pyrogen.evaluation.annealing.anneal`; in expectation the
    estimate is too low, and the less so the longer the path. Step sizes are found by going along it once, and are then
    frozen: tuned on the way they would bias the weights.

    Args:
        model: a Pyro program with continuous latents, or such as it enumerates.
        batches: dicts of keyword arguments for the programs.
        start: a guide with a density, or the model's :func:`~pyrogen.evaluation.latents.prior` if not given. The better
            it fits, the shorter the path need be; a prior tests a guide independently.
        num_steps: :math:`T`, of the path.
        num_chains: :math:`K`, for each datum; at least two.
        num_leapfrog: steps in a move.

    Returns:
        In nats per datum, its standard error over the data.

    Raises:
        ProgramError: where the model has no latents, or a discrete one that is drawn.
        UsageError: where a number is out of range.

    References:
        On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2017),
        https://arxiv.org/abs/1611.04273
    """
    return _annealed(Way(model, start, num_steps, num_chains, num_leapfrog), batches, 0.0)


def smc(
    model: Program,
    batches: Batches,
    start: Program | None = None,
    *,
    num_steps: int = 500,
    num_chains: int = 16,
    num_leapfrog: int = 10,
) -> Estimate:
    r"""Estimate :math:`\log p(x)` per datum by sequential Monte Carlo: :func:`ais` whose chains are drawn anew.

    Where fewer than half of a datum's chains count, :math:`1 / \sum_k \bar w_k^2 < K / 2`, they are drawn by their
    weights, systematically. The arguments are those of :func:`ais`.

    References:
        Sequential Monte Carlo Samplers (Del Moral et al., 2006), https://doi.org/10.1111/j.1467-9868.2006.00553.x
    """
    return _annealed(Way(model, start, num_steps, num_chains, num_leapfrog), batches, RESAMPLE_BELOW)


def bdmc(
    model: Program,
    batches: Batches,
    start: Program | None = None,
    *,
    num_steps: int = 500,
    num_chains: int = 16,
    num_leapfrog: int = 10,
) -> Sandwich:
    r"""Sandwich the evidence of data that the model simulates, by bidirectional Monte Carlo.

    .. math::
        \mathbb{E}\Big[\log \frac{1}{K} \sum_k w_k\Big] \le \log p(x) \le
        \mathbb{E}\Big[-\log \frac{1}{K} \sum_k \tilde w_k\Big], \qquad x, z \sim p(x, z)

    The chains back, with weights :math:`\tilde w`, begin at the :math:`z` that :math:`x` was made of, an exact draw of
    its posterior. For data that were not simulated there is none, and so no upper bound; the gap tells how far
    :func:`ais` can be trusted with the same settings, as far as simulated data are like them.

    Args:
        batches: dicts of keyword arguments for the programs. As many data are simulated; what the model does not
            observe, such as labels to condition on, is kept.

    The other arguments, and the errors, are those of :func:`ais`.

    References:
        Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse et al., 2015),
        https://arxiv.org/abs/1511.02543
    """
    way = Way(model, start, num_steps, num_chains, num_leapfrog)

    def bounds(batch: dict[str, Tensor]) -> Tensor:
        """Return lower and upper bounds, shape ``(data, 2)``."""
        with rehearsal(modules_of(model).values()):
            sites = observed_columns(sample_sites(poutine.trace(model).get_trace(**batch)), batch)
        if not sites:
            raise ProgramError("the model observes none of the data that it is given: there is nothing to simulate")
        drawn = poutine.trace(Generating()(model)).get_trace(**batch)
        columns = batch | {name: drawn.nodes[site]["value"].reshape(batch[name].shape) for name, site in sites.items()}
        _check_simulated(model, columns, drawn)
        path = way.path(columns)
        forth, _ = anneal(path, path.latents.draw(), way.betas)
        back = anneal_back(path, path.latents.copies(drawn), way.betas)
        return torch.stack([log_mean_exp(forth), -log_mean_exp(back)], -1)

    lower, upper = way.over(batches, bounds).unbind(-1)
    return Sandwich(*(mean(values, "nats", num_chains) for values in (lower, upper, upper - lower)))


class Way:
    """How far, with how many chains and between which programs is annealed.

    Raises:
        UsageError: where a number is out of range.
    """

    def __init__(
        self, model: Program, start: Program | None, num_steps: int, num_chains: int, num_leapfrog: int
    ) -> None:
        check_lengths(num_steps, num_chains, num_leapfrog)
        self.model, self.start, self.num_chains, self.num_leapfrog = model, start, num_chains, num_leapfrog
        self.betas = sigmoid_schedule(num_steps)

    def path(self, columns: Mapping[str, Any]) -> Hamiltonian:
        """Return the path for some data, with moves that are tuned."""
        latents = Latents(self.model, self.start, columns, self.num_chains)
        rows = _rows(columns)
        if latents.num_data not in (1, rows):
            raise ProgramError(
                f"the programs make {latents.num_data} problems of {rows} data: put every site into one plate over the "
                f"data, and what is within a datum into the event by .to_event(...)"
            )
        return tuned(latents, self.betas, self.num_leapfrog)

    def over(self, batches: Batches, evidence: Callable[[dict[str, Tensor]], Tensor]) -> Tensor:
        """Concatenate the evidences of each batch.

        Raises:
            ProgramError: where one is not finite, or several batches are one datum each: they would be averaged.
        """
        batches = list(batches)
        values = over(batches, evidence, self.model, self.start)
        if 1 < len(values) < sum(map(_rows, batches)):
            raise ProgramError(
                f"{len(batches)} batches have {len(values)} evidences: data that share a latent, or a site outside of "
                f"their plate, are one datum. Pass them all at once, as one batch"
            )
        if not values.isfinite().all():
            raise ProgramError(
                f"the evidence of {int((~values.isfinite()).sum())} of {len(values)} data is not finite: a density is "
                f"infinite, or not a number, where a latent is at its bounds. Run the programs in double precision"
            )
        return values


def check_lengths(num_steps: int, num_chains: int, num_leapfrog: int = 1) -> None:
    """Refuse a path that is none.

    Raises:
        UsageError: where a number is out of range.
    """
    if num_steps < 1 or num_chains < 2 or num_leapfrog < 1:
        raise UsageError(
            f"the path must have at least one step, two chains and one leapfrog step, found {num_steps}, {num_chains} "
            f"and {num_leapfrog}"
        )


def _annealed(way: Way, batches: Batches, resample_below: float) -> Estimate:
    def bound(batch: dict[str, Tensor]) -> Tensor:
        path = way.path(batch)
        return log_mean_exp(anneal(path, path.latents.draw(), way.betas, resample_below)[0])

    return mean(way.over(batches, bound), "nats", way.num_chains)


def _check_simulated(model: Program, columns: dict[str, Tensor], drawn: Trace) -> None:
    """Refuse a model whose draws are not made of what it draws alone: its latents would be no draw of a posterior.

    Raises:
        ProgramError: where there is a factor, or data that the simulation does not replace, or that it goes by.
    """
    if any(isinstance(site["fn"], Unit) for site in sample_sites(drawn)):
        raise ProgramError("a model with pyro.factor draws no data: what it is conditioned on cannot be simulated")
    latents = Trace()
    latents.nodes.update({site["name"]: site for site in sample_sites(drawn) if is_latent(site)})
    scored = poutine.trace(poutine.replay(model, trace=latents)).get_trace(**columns)
    drawn.compute_log_prob()
    scored.compute_log_prob()
    for site in filter(is_data, sample_sites(scored)):
        told, here = drawn.nodes[site["name"]], site["value"]
        if not torch.equal(told["value"].reshape(here.shape).to(here.dtype), here) or not torch.allclose(
            told["log_prob"], site["log_prob"], rtol=1e-4, atol=1e-3
        ):
            raise ProgramError(
                f"data at site {site['name']!r} are not simulated: they are no argument of the model, or an argument "
                f"that it also goes by. Bounds from above are of models that draw their data from their latents alone"
            )


def _rows(columns: Mapping[str, Any]) -> int:
    return max(len(column) for column in columns.values())
