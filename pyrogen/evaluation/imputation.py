"""What is missing of data, given what was observed of them, by importance sampling of the latents."""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation.likelihood import ROWS, of_each
from pyrogen.programs import importance
from pyrogen.sites import Program, is_data
from pyrogen.traces import Traces, plate_nesting, trace_pair

__all__ = ["Imputation", "impute"]


class Imputation(NamedTuple):
    r"""Data with their missing values filled in.

    Attributes:
        mean: :math:`\mathbb{E}[x^m \mid x^o]` where a value is missing, the value elsewhere, shape ``(data, *event)``.
        draws: of :math:`p(x^m \mid x^o)`, likewise, shape ``(num_draws, data, *event)``.
        effective_particles: how many equal weights are worth as much, :math:`(\sum_l w_l)^2 / \sum_l w_l^2`, shape
            ``(data,)``: where there are few, the guide is far from the posterior, and more particles are needed.
    """

    mean: Tensor
    draws: Tensor
    effective_particles: Tensor


def impute(
    model: Program,
    guide: Program,
    x: Tensor,
    num_particles: int = 1000,
    num_draws: int = 0,
    rounds: int = 1,
    site: str = "x",
) -> Imputation:
    r"""Fill in what is missing: its conditional mean, and draws from its conditional distribution.

    .. math::
        \mathbb{E}[x^m \mid x^o] \approx \sum_{l=1}^L w_l \, \mathbb{E}[x^m \mid z_l], \quad
        w_l \propto \frac{p(x^o \mid z_l) \, p(z_l)}{q(z_l \mid x^o)}, \quad z_l \sim q(z \mid x^o)

    where weights sum to one. A draw is :math:`x^m_l \sim p(x^m \mid z_l)` for an :math:`l` that is taken with
    probability :math:`w_l`, independently of other draws (sampling importance resampling): multiple imputation, to be
    analysed one by one, where a mean would hide what is not known. Both are exact as :math:`L` grows, whatever the
    guide is; the guide's own mean would not be.

    The programs run in ``eval`` mode and without gradients.

    Args:
        model: a Pyro program that leaves out of its density what is NaN, such as
            :class:`~pyrogen.models.Incomplete`.
        guide: a Pyro program that reads such data, such as :class:`~pyrogen.models.Imputed`.
        x: data, shape ``(data, *event)``, NaN where they are missing.
        num_particles: :math:`L`.
        num_draws: how many imputations to draw for each datum, far fewer than particles.
        rounds: after the first, the guide reads what the one before has filled in, for a guide that was trained on
            complete data: its draws come nearer to the posterior, and weights correct for what is left.
        site: at which the model observes ``x``.

    Raises:
        ProgramError: where the model does not observe the data at that site, its density of them is not a number, or it
            has no mean of them.
        UsageError: where a number is out of range.

    References:
        MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets (Mattei and Frellsen, 2019),
        https://arxiv.org/abs/1812.02633

        Multiple Imputation for Nonresponse in Surveys (Rubin, 1987), https://doi.org/10.1002/9780470316696

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([1]).to_event(1))
        ...         fn = dist.Normal(z.expand(*z.shape[:-1], 2), 0.1).mask(~x.isnan()).to_event(1)
        ...         pyro.sample("x", fn, obs=x.nan_to_num())
        >>> def posterior(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x[:, :1] / 1.01, (0.01 / 1.01) ** 0.5).to_event(1))
        >>> found = impute(model, posterior, torch.tensor([[2.0, float("nan")]]))
        >>> bool((found.mean - torch.tensor([2.0, 2.0 / 1.01])).abs().max() < 0.02)
        True
    """
    if num_particles < 1 or num_draws < 0 or rounds < 1:
        raise UsageError(
            f"there must be at least 1 particle, 0 draws and 1 round, found {num_particles}, {num_draws} and {rounds}"
        )
    if not len(x):
        raise UsageError("there are no data to fill in: x has no rows")
    rows = max(1, ROWS // num_particles)
    found = of_each(
        [{"x": part} for part in x.split(rows)],
        lambda batch: _in_rounds(model, guide, batch["x"], num_particles, num_draws, rounds, site),
        model,
        guide,
    )
    mean, draws, effective_particles = zip(*found, strict=True)
    parts = torch.cat(mean), torch.cat(draws, 1), torch.cat(effective_particles)
    return Imputation(*(part.to(x.device) for part in parts))


def _in_rounds(
    model: Program, guide: Program, x: Tensor, num_particles: int, num_draws: int, rounds: int, site: str
) -> tuple[Tensor, Tensor, Tensor]:
    proposal = guide
    for left in reversed(range(rounds)):
        found = _imputed(model, proposal, x, num_particles, 0 if left else num_draws, site)
        proposal = partial(_reading, guide, found[0])
    return found


def _reading(guide: Program, filled: Tensor, x: Tensor) -> Any:
    """Call a guide with data that were filled in, in the place of those that were not."""
    return guide(x=filled)


def _imputed(
    model: Program, guide: Program, x: Tensor, num_particles: int, num_draws: int, site: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Go through the particles in parts, with running totals of their weights and of the squares of these."""
    nesting = plate_nesting(model, guide, x=x)
    at_once = max(1, min(num_particles, ROWS // len(x)))
    counts = [min(at_once, num_particles - done) for done in range(0, num_particles, at_once)]
    mean, draws = torch.zeros_like(x), x.new_zeros(num_draws, *x.shape)
    total = squares = x.new_full((len(x),), -torch.inf)
    for count in counts:
        traces = trace_pair(model, guide, (), {"x": x}, count, nesting)
        log_w, fn = _log_weights(traces, x, site), traces.model.nodes[site]["fn"]
        before, total = total, torch.logaddexp(total, log_w.logsumexp(0))
        squares = torch.logaddexp(squares, (2 * log_w).logsumexp(0))
        kept = (before - total).exp()
        mean = _over(kept, x) * mean + torch.einsum("ln,ln...->n...", (log_w - total).exp(), _means(fn, count, x, site))
        if num_draws:
            # Each draw stays with the share that the earlier particles have of all weights, and else is one of these.
            chosen = torch.distributions.Categorical(logits=log_w.T).sample(torch.Size([num_draws]))
            taken = _drawn(fn, chosen, count, x)
            stays = torch.rand_like(kept.expand(num_draws, -1)) < kept
            draws = torch.where(_over(stays, x), draws, taken)
    is_missing = x.isnan()
    return torch.where(is_missing, mean, x), torch.where(is_missing, draws, x), (2 * total - squares).exp()


def _drawn(fn: Any, chosen: Tensor, count: int, x: Tensor) -> Tensor:
    """Draw the data of chosen particles, shape ``(draws, data, *event)``, those of the same particle one by one.

    A sample of the distribution has data of all particles, which are independent: it serves all draws that have not
    chosen the same one.
    """
    taken, rows = x.new_empty(*chosen.shape, *x.shape[1:]), torch.arange(len(x), device=x.device).expand_as(chosen)
    times = _times_before(chosen)
    for time in range(int(times.max()) + 1):
        now = times == time
        taken[now] = fn.sample().reshape(count, *x.shape)[chosen[now], rows[now]]
    return taken


def _times_before(chosen: Tensor) -> Tensor:
    """Count how often each entry of a column has stood in it before, shape ``(rows, columns)``.

    Example:
        >>> _times_before(torch.tensor([[5], [2], [5], [5]])).T
        tensor([[0, 0, 1, 2]])
    """
    values, order = chosen.sort(stable=True, dim=0)
    place = torch.arange(len(chosen), device=chosen.device)[:, None].expand_as(chosen)
    begins = torch.cat([torch.ones_like(values[:1]).bool(), values[1:] != values[:-1]])
    since = torch.where(begins, place, 0).cummax(0).values
    return torch.empty_like(place.contiguous()).scatter_(0, order, place - since)


def _log_weights(traces: Traces, x: Tensor, site: str) -> Tensor:
    """Return the log-weights of particles, shape ``(particles, data)``."""
    if site not in traces.model.nodes or not is_data(traces.model.nodes[site]):
        raise ProgramError(f"the model observes no data at site {site!r}: name the site at which it observes x")
    log_w = importance(traces).log_weights
    if log_w.shape[1] != len(x):
        raise ProgramError(
            f"the programs give {log_w.shape[1]} importance weights for {len(x)} data: put every site into one plate "
            f"over the data, and what is within a datum into the event by .to_event(...)"
        )
    if not log_w.logsumexp(0).isfinite().all():
        raise ProgramError(
            "the density of what was observed is not finite: the programs must read NaN as what is missing, as "
            "Incomplete(model) and Imputed(guide) do"
        )
    return log_w


def _means(fn: Any, count: int, x: Tensor, site: str) -> Tensor:
    """Return the mean of the data for each particle, shape ``(particles, data, *event)``."""
    means = fn.mean.reshape(count, *x.shape)
    if not means.isfinite().all():
        raise ProgramError(
            f"the values of site {site!r} have no mean to be filled in, as those of a Categorical and of a Cauchy "
            f"distribution have none"
        )
    return means


def _over(values: Tensor, x: Tensor) -> Tensor:
    """Append dimensions of size one for those of an event."""
    return values[(..., *[None] * (x.dim() - 1))]
