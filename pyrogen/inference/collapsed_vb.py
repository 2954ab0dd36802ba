"""Collapsed variational Bayes for topics: each word is explained by all others."""

from functools import partial
from math import inf
from typing import Any

import torch
from torch import Tensor

from pyrogen.counts import as_csr, entries, offsets_of, weighted_sums
from pyrogen.errors import ProgramError
from pyrogen.inference.annealing import Annealing, is_one, present
from pyrogen.inference.natural_gradient import Averages, NaturalGradient, Site, data_sites, prior_of, traces_at
from pyrogen.inference.objective import Player
from pyrogen.sites import Program

__all__ = ["CollapsedVB"]


class CollapsedVB(NaturalGradient):
    r"""Collapsed variational Bayes of topics and their weights, to order zero (CVB0), in steps of natural gradients.

    Topics and weights are summed out, and the factor of each word's topic sees the expected counts of all other words:

    .. math::
        r_{dvk} \propto \left(\left(n_{dk}^{\neg dv} + \alpha_k\right) \frac{n_{kv}^{\neg dv} + \eta_v}
        {\sum_u (n_{ku}^{\neg dv} + \eta_u)}\right)^\beta, \quad n_{dk} = \sum_v x_{dv} r_{dvk}, \quad
        \hat\lambda_{kv} = \eta_v + \frac{D}{S} \sum_d x_{dv} r_{dvk},

    where :math:`\neg dv` takes :math:`r_{dvk}` off the counts that hold it, those of the document and
    :math:`\lambda - \eta`. Steps towards :math:`\hat\lambda` are those of :class:`NaturalGradient`. The factors start
    anew in each step, from the guide's weights and topics, to the power :math:`\beta`. With all documents in a batch
    and ``forgetting=0``, fits end at a fixed point of CVB0 as ``local_steps`` grow, and near one with few (with one, at
    :math:`\beta = 1`, a few hundredths of the words have another topic, which no figure has shown to matter); in
    batches, this is a stochastic form of it.

    Where it ends depends on where it starts. With an inverse temperature :math:`\beta < 1` that rises to 1
    (``Annealing(0.8, 1.0, steps)``), the factors of words, and nothing else, are less decided at first, and topics that
    are hard to tell apart are tried longer. Where :math:`\beta` is so low that topics become one, they part again as it
    rises, by the rounding of floating-point numbers and not by their start, or not at all.

    The loss, for an eye on progress, is :math:`-\sum_{dv} x_{dv} \log` of what each word has of probability given all
    others. It is *not a bound*.

    Args:
        delay: :math:`\tau` of the steps' size :math:`(\tau + t)^{-\kappa}`, at least one.
        forgetting: :math:`\kappa`, between a half and one for convergence; 0 for steps of one.
        local_steps: updates of the words' factors in a step, which start from the guide's weights.
        inverse_temperature: :math:`\beta`, a positive number, or an :class:`Annealing` of it.

    Raises:
        ValueError: for a setting out of range.
        ProgramError: where the guide has other latents than Dirichlet topics, with a concentration that is a parameter,
            and Dirichlet weights; or the model other data than a :class:`~pyrogen.distributions.TopicMixture` of these.

    References:
        On Smoothing and Inference for Topic Models (Asuncion et al., 2009), https://arxiv.org/abs/1205.2662

        Stochastic Collapsed Variational Bayesian Inference for Latent Dirichlet Allocation (Foulds et al., 2013),
        https://arxiv.org/abs/1305.2452

        Deterministic Annealing Variant of Variational Bayes Method (Katahira et al., 2008),
        https://doi.org/10.1088/1742-6596/95/1/012015
    """

    def __init__(
        self,
        delay: float = 10.0,
        forgetting: float = 0.7,
        local_steps: int = 1,
        inverse_temperature: float | Annealing = 1.0,
    ) -> None:
        super().__init__(delay, forgetting)
        if local_steps < 1:
            raise ValueError(f"local_steps must be at least 1, found {local_steps}")
        values = inverse_temperature
        ends = (values.start, values.end) if isinstance(values, Annealing) else (values,)
        if not all(0 < end < inf for end in ends):
            raise ValueError(f"inverse_temperature must be positive and finite, found {', '.join(map(str, ends))}")
        self.local_steps = local_steps
        self.inverse_temperature = inverse_temperature

    def extra_repr(self) -> str:
        beta = self.inverse_temperature
        said = "" if isinstance(beta, Annealing) else f", inverse_temperature={beta}"
        return f"{super().extra_repr()}, local_steps={self.local_steps}{said}"

    def after_step(self, player: Player) -> None:
        super().after_step(player)
        if isinstance(self.inverse_temperature, Annealing):
            self.inverse_temperature.advance()

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the negative log-probability of each word given all others, in nats."""
        means = Means()
        model_trace, guide_trace = traces_at(means, model, guide, args, kwargs)
        sites = data_sites(model_trace)
        learned = [name for name, is_learned in means.found.items() if is_learned]
        if len(sites) != 1 or len(means.found) != 2 or len(learned) != 1:
            raise ProgramError(
                f"collapsed variational Bayes is of one site of data, of topics whose concentration is a parameter, "
                f"and of weights whose concentration is not; found {len(sites)} sites of data, latents "
                f"{', '.join(means.found)}, of these with a parameter {', '.join(learned) or 'none'}"
            )
        topics, (weights,) = learned[0], means.found.keys() - {learned[0]}
        concentration = guide_trace.nodes[topics]["fn"].concentration
        eta = prior_of(model_trace.nodes[topics]).concentration
        alpha = prior_of(model_trace.nodes[weights]).concentration
        with torch.no_grad():
            counts, loss = self._explained(sites[0], concentration, eta, alpha)
            target = eta + counts * (sites[0]["scale"] / model_trace.nodes[topics]["scale"])
        return loss * sites[0]["scale"] + self.pull(concentration, target)

    def _explained(self, site: Site, concentration: Tensor, eta: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expected counts of words in topics, ``(topics, words)``, and the loss, of a batch."""
        offsets, rows, columns, counts = entries(as_csr(site["value"]))
        weights, topics = site["fn"].weights, site["fn"].topics
        eta, alpha = eta.expand_as(concentration), alpha.expand_as(weights)
        of_all = (concentration - eta).clamp(min=0)
        of_topics, totals = of_all.T[columns], of_all.sum(-1)
        of_prior, prior_totals = eta.T[columns], eta.sum(-1)
        every = torch.arange(len(rows), device=rows.device)
        lengths = counts.new_zeros(len(offsets) - 1).index_add(0, rows, counts)
        beta = self.inverse_temperature
        factors = normalized if is_one(beta) else partial(tempered, beta=present(beta))
        r = factors(weights[rows] * topics.T[columns])
        for _ in range(self.local_steps):
            in_document = weighted_sums(r, every, counts, offsets)[rows] - r + alpha[rows]
            total = in_document * ((of_topics - r).clamp(min=0) + of_prior) / ((totals - r).clamp(min=0) + prior_totals)
            r = factors(total)
        others = (lengths - 1 + alpha.sum(-1))[rows]
        loss = -(counts * (total.sum(-1) / others).log()).sum()
        by_word = columns.argsort(stable=True)
        of_words = offsets_of(torch.bincount(columns, minlength=concentration.shape[-1]))
        return weighted_sums(r, by_word, counts[by_word], of_words).T, loss


def normalized(r: Tensor) -> Tensor:
    """Let the last dimension sum to one."""
    return r / r.sum(-1, keepdim=True)


def tempered(p: Tensor, beta: Tensor | float) -> Tensor:
    """Return probabilities that are proportional to a power; the largest is one before, so that it cannot underflow."""
    return normalized((p / p.amax(-1, keepdim=True)) ** beta)


class Means(Averages):
    """Puts means in the place of draws.

    Attributes:
        found: whether a concentration is a parameter, by site.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, bool] = {}

    def average(self, name: str, concentration: Tensor) -> Tensor:
        self.found[name] = concentration.requires_grad
        fixed = concentration.detach()
        return normalized(fixed)
