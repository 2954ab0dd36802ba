"""Variational bounds whose latent coordinates are kept independent: disentangling."""

from abc import abstractmethod
from typing import Any, get_args

import torch
from pyro import poutine
from torch import Tensor, nn

from pyrogen.inference.adversarial import REMEMBERED, checked_critic, scores_of
from pyrogen.inference.aggregate import Sampling, codes, latent_site, log_densities, permuted, size_of_data
from pyrogen.inference.elbo import ELBO
from pyrogen.inference.gan import GAMES
from pyrogen.inference.objective import Objective
from pyrogen.sites import Program, or_nothing
from pyrogen.traces import Traces, trace_pair

__all__ = ["BetaTCVAE", "Decomposed", "FactorVAE"]


class Decomposed(Objective):
    """An evidence lower bound, and what is added for each datum that depends on the aggregate posterior.

    The programs have one latent site, of independent data in one plate.

    Args:
        analytic_kl: use divergences in closed form in the bound, see :class:`ELBO`.
        max_plate_nesting: how deep the programs' plates nest; found by a rehearsal if not given.
    """

    def __init__(self, analytic_kl: bool, max_plate_nesting: int | None) -> None:
        super().__init__()
        self.elbo = ELBO(analytic_kl=analytic_kl, max_plate_nesting=max_plate_nesting)

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the programs' loss in nats, summed over the data and scaled as the bound is."""
        guide = or_nothing(guide)
        traces = trace_pair(model, guide, args, kwargs, 1, self.elbo.nesting(model, guide, *args, **kwargs))
        site = latent_site(traces.guide)
        added = self.added(traces, site).reshape(site["fn"].batch_shape)
        return self.elbo.loss_of(traces) + (site["scale"] * added).sum()

    @abstractmethod
    def added(self, traces: Traces, site: dict[str, Any]) -> Tensor:
        """Return what is added to the negative bound for each datum, given the latent site, shape ``(batch,)``."""


class FactorVAE(Decomposed):
    r"""The evidence lower bound, less the total correlation of the latent coordinates, by a critic.

    .. math::
        -\mathcal{L} + \gamma \, \mathrm{TC}, \quad
        \mathrm{TC} = \mathrm{KL}\Big(q(z) \,\Big\|\, \prod_j q(z_j)\Big) \approx \mathbb{E}_{q(z)} D(z), \quad
        q(z) = \mathbb{E}_{p^*(x)} \, q(z \mid x)

    summed over the data and scaled by the plate, as the bound :math:`\mathcal{L}` is. The critic is the second player:
    its logit :math:`D(z)` tells codes from codes :math:`\bar z` whose coordinates were each permuted over the batch,

    .. math:: -\mathbb{E}_{q(z)} \log \sigma(D(z)) - \mathbb{E} \log(1 - \sigma(D(\bar z)))

    and is best where it is the density ratio's logarithm. Its batches are its own. In a batch of :math:`M`, two
    coordinates of :math:`\bar z` are of one datum in one case of :math:`M`: small batches lower the estimate. It is an
    estimate and no bound, and so is the loss.

    Args:
        critic: from codes of shape ``(batch, latent)`` to a logit a datum.
        gamma: :math:`\gamma`; zero is the bound alone.
        analytic_kl: use divergences in closed form in the bound, see :class:`ELBO`.
        max_plate_nesting: how deep the programs' plates nest; found by a rehearsal if not given.

    Raises:
        ProgramError: where the guide has not one latent site with ``rsample`` in one plate, or the critic returns
            another shape.

    References:
        Disentangling by Factorising (Kim and Mnih, 2018), https://arxiv.org/abs/1802.05983

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        ...         pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)
        >>> def guide(x):  # over data of unit variance, the codes' correlation is one half
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x[:, None].expand(-1, 2), 1.0).to_event(1))
        >>> class LogRatio(nn.Module):
        ...     def forward(self, z):
        ...         together = dist.MultivariateNormal(torch.zeros(2), torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
        ...         return together.log_prob(z) - dist.Normal(0.0, 2**0.5).log_prob(z).sum(-1)
        >>> x, losses = dist.Normal(0.0, 1.0).icdf((torch.arange(50_000) + 0.5) / 50_000), []
        >>> for objective in (FactorVAE(LogRatio(), gamma=1.0), ELBO()):
        ...     pyro.set_rng_seed(1)
        ...     losses.append(objective(model, guide, x) / len(x))
        >>> round(float(losses[0] - losses[1]), 2)  # -log(1 - 1/4) / 2
        0.14
    """

    total_correlation: Tensor

    def __init__(
        self, critic: nn.Module, gamma: float = 10.0, analytic_kl: bool = True, max_plate_nesting: int | None = None
    ) -> None:
        super().__init__(analytic_kl, max_plate_nesting)
        if not gamma >= 0:
            raise ValueError(f"gamma must not be negative, found {gamma}")
        self.critic = checked_critic(critic)
        self.gamma = gamma
        self.register_buffer("total_correlation", torch.tensor(0.0))

    def added(self, traces: Traces, site: dict[str, Any]) -> Tensor:
        return self.gamma * scores_of(self.critic, codes(site))

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the critic's loss, in nats."""
        [(real, fake)] = self.log_ratios(model, guide, *args, **kwargs).values()
        with torch.no_grad():
            self.total_correlation.lerp_(real.mean().to(self.total_correlation.dtype), 1 - REMEMBERED)
        game = GAMES["minimax"]
        return game.real(real).mean() + game.fake(fake).mean()

    def log_ratios(
        self, model: Program, guide: Program | None, *args: Any, **kwargs: Any
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the critic's logits of codes, and of codes whose coordinates come from different data each."""
        with torch.no_grad():
            z = codes(latent_site(poutine.trace(or_nothing(guide)).get_trace(*args, **kwargs)))
            of_product = permuted(z)
        return {"codes": (scores_of(self.critic, z), scores_of(self.critic, of_product))}

    def monitored(self) -> dict[str, Tensor]:
        """Return a moving average of the total correlation, as the critic sees it, in nats."""
        return {"total_correlation": self.total_correlation}

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}"


class BetaTCVAE(Decomposed):
    r"""The evidence lower bound with weights on the three parts of its divergence, without a critic.

    .. math::
        -\mathbb{E}_{q(z \mid x)} \log p(x \mid z)
        + \alpha \underbrace{\mathbb{E} \log \frac{q(z \mid x)}{q(z)}}_{\text{index-code information}}
        + \beta \underbrace{\mathbb{E} \log \frac{q(z)}{\prod_j q(z_j)}}_{\text{total correlation}}
        + \gamma \underbrace{\mathbb{E} \log \frac{\prod_j q(z_j)}{p(z)}}_{\text{dimension-wise KL}}

    summed over the data and scaled by the plate. It is computed as :math:`-\mathcal{L}` plus the parts times
    :math:`\alpha - 1`, :math:`\beta - 1`, :math:`\gamma - 1`: with weights of one, it is the loss of :class:`ELBO`. The
    last part is a sum of divergences where the prior's coordinates are independent.

    The aggregate :math:`q(z)` over :math:`N` data is estimated from the batch's :math:`M`, see
    :func:`~pyrogen.inference.aggregate.log_shares`: exactly where the batch is the data set, and else without bias
    (``stratified``) or by the paper's minibatch weights (``weighted``), whose sum is :math:`1 / N`. Logarithms are too
    low on average. Stratified, they are lower in all coordinates together than in each, and understate the total
    correlation; weighted, each is too low by about :math:`\log N`, and the total correlation's value too high by as
    much for each coordinate after the first.

    Args:
        alpha: weight of the index-code mutual information.
        beta: weight of the total correlation.
        gamma: weight of the dimension-wise divergence.
        num_data: :math:`N`; by default, what the guide's plate is subsampled from. Where it is not subsampled, the
            batch is taken for the data.
        sampling: stratified or weighted.
        analytic_kl: use divergences in closed form in the bound, see :class:`ELBO`.
        max_plate_nesting: how deep the programs' plates nest; found by a rehearsal if not given.

    Raises:
        ProgramError: where the guide has not one latent site in one plate, normal with independent coordinates, or
            where the batch has more than ``num_data`` data.

    References:
        Isolating Sources of Disentanglement in Variational Autoencoders (Chen et al., 2018),
        https://arxiv.org/abs/1802.04942

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        ...         pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)
        >>> def guide(x):  # over data of unit variance, the codes' correlation is one half
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x[:, None].expand(-1, 2), 1.0).to_event(1))
        >>> x, losses = dist.Normal(0.0, 1.0).icdf((torch.arange(2_000) + 0.5) / 2_000), []
        >>> for objective in (BetaTCVAE(beta=2.0), ELBO()):
        ...     pyro.set_rng_seed(0)
        ...     losses.append(objective(model, guide, x) / len(x))
        >>> round(float(losses[0] - losses[1]), 2)  # -log(1 - 1/4) / 2
        0.14
    """

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 6.0,
        gamma: float = 1.0,
        num_data: int | None = None,
        sampling: Sampling = "stratified",
        analytic_kl: bool = True,
        max_plate_nesting: int | None = None,
    ) -> None:
        super().__init__(analytic_kl, max_plate_nesting)
        for name, weight in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
            if not weight >= 0:
                raise ValueError(f"{name} must not be negative, found {weight}")
        if sampling not in get_args(Sampling):
            raise ValueError(f"unknown sampling {sampling!r}: choose from {', '.join(get_args(Sampling))}")
        if num_data is not None and num_data < 1:
            raise ValueError(f"num_data must be at least 1, found {num_data}")
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.num_data = num_data
        self.sampling: Sampling = sampling

    def added(self, traces: Traces, site: dict[str, Any]) -> Tensor:
        log_q = log_densities(site, size_of_data(site, self.num_data), self.sampling)
        log_p = traces.model.nodes[site["name"]]["unscaled_log_prob"].reshape(-1)
        product = log_q.coordinates.sum(1)
        information = log_q.given_datum - log_q.aggregate
        total_correlation = log_q.aggregate - product
        dimension_wise = product - log_p
        return (self.alpha - 1) * information + (self.beta - 1) * total_correlation + (self.gamma - 1) * dimension_wise

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, beta={self.beta}, gamma={self.gamma}, sampling={self.sampling!r}"
