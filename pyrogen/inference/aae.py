"""Autoencoders whose aggregate posterior is matched to the prior: by a critic, or by a distance."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pyro.poutine import Trace
from torch import Tensor, nn

from pyrogen.errors import ProgramError
from pyrogen.inference.adversarial import Scoring
from pyrogen.inference.autoencoding import Autoencoder
from pyrogen.inference.distance import Distance, flat
from pyrogen.inference.gan import as_game
from pyrogen.inference.objective import Objective, Player
from pyrogen.inference.samples import Samples
from pyrogen.sites import Program, is_data, sample_sites

__all__ = ["AAE", "WAE"]


class AAE(Objective):
    r"""The adversarial autoencoder.

    .. math::
        -\sum_n \mathbb{E}_{q(z \mid x_n)} \log p(x_n \mid z) + \lambda \sum_n \mathbb{E}_{q(z \mid x_n)} g(D(z)), \quad
        q(z) = \frac{1}{N} \sum_n q(z \mid x_n)

    A critic tells draws of the prior, which it takes for real, from draws of the aggregate posterior :math:`q(z)`, and
    the guide plays the game's :math:`g` against it: :math:`-\log \sigma(D)` if non-saturating, :math:`-D` if
    ``reverse-kl``, which estimates :math:`\mathrm{KL}(q(z) \| p(z))`. The guide may be deterministic (``Delta``), have
    a density, or be implicit; its latents need no density in either program. Nothing keeps :math:`q(z \mid x)` of a
    datum near a posterior: the loss is *not a bound*, and a deterministic guide may match the prior and memorise.

    *Supervised*: let labels be a covariate, and the model decode latents and labels. *Semi-supervised* and
    *clustering*: let the guide draw a label, as a point on the simplex, beside a style, with a critic for each of the
    two sites; what the guide *observes*, such as labels where they are known, is scored like data,
    :math:`-\log q(y_n \mid x_n)`.

    Args:
        critic: from latents (and covariates) to a logit a row, or a game of its own: a :class:`GAN`, :class:`WGAN` or
            :class:`FGAN` with a critic and penalties. With a mapping from site to critic, each site has its own;
            without one, it sees all sites side by side.
        weight: :math:`\lambda`.
        covariates: names of the arguments to show to the critic; found by themselves if not given.

    Raises:
        ProgramError: where sites do not pair, or an observed one has no density.

    References:
        Adversarial Autoencoders (Makhzani et al., 2016), https://arxiv.org/abs/1511.05644

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Delta(x / 2))
        >>> class Even(nn.Module):
        ...     def forward(self, z): return 0 * z
        >>> x = torch.tensor([1.0, 2.0])
        >>> loss = AAE(Even())(model, guide, x)  # a critic that cannot tell costs log 2 a datum
        >>> bool(torch.isclose(loss, 2 * torch.tensor(2.0).log() - dist.Normal(x / 2, 1.0).log_prob(x).sum()))
        True
    """

    saturates = True

    def __init__(
        self,
        critic: nn.Module | Mapping[str, nn.Module],
        weight: float = 1.0,
        covariates: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if not weight > 0:
            raise ValueError(f"weight must be positive, found {weight}")
        critics = dict(critic) if isinstance(critic, Mapping) else {"": critic}
        self.names = list(critics)
        self.games = nn.ModuleList([as_game(c, "non-saturating") for c in critics.values()])
        self.weight = weight
        self.covariates = covariates

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss in nats, summed over the data."""
        run = Autoencoder(model, guide, args, kwargs, self.covariates, observes=True)
        log_likelihood, pairs = run.reconstruction()
        loss = -log_likelihood - _of_labels(run.inferred)
        for game, which in self._games(pairs.names):
            scores = game.scores([pairs.latents[i] for i in which], pairs.covariates)
            loss = loss + self.weight * pairs.scale * len(scores) * game.loss_of_programs(scores)
        return loss

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the critics' loss, with their penalties."""
        with torch.no_grad():
            compared = self._compared(model, guide, args, kwargs)
        return torch.stack([game.critic_loss_of(samples) for game, samples in compared.values()]).sum()

    def log_ratios(
        self, model: Program, guide: Program | None, *args: Any, **kwargs: Any
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the critics' logits of draws of the prior and of the guide, by site if each has its own."""
        compared = self._compared(model, guide, args, kwargs)
        return {name: game.both(samples) for name, (game, samples) in compared.items() if game.has_log_ratios}

    def elbo_estimate(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor | None:
        r"""Return :math:`\log p(x \mid z) + D(z)`, where logits are log-ratios of prior to *aggregate* posterior.

        Besides being no bound, this leaves out how much latents tell of data,
        :math:`\mathrm{KL}(q(z \mid x) \| p(z)) = \mathrm{KL}(q(z) \| p(z)) + \mathrm{I}(x; z)` on average.
        """
        if not all(game.has_log_ratios for game in self.games):
            return None
        run = Autoencoder(model, guide, args, kwargs, self.covariates, observes=True)
        log_likelihood, pairs = run.reconstruction()
        scores = [
            game.scores([pairs.latents[i] for i in which], pairs.covariates).sum()
            for game, which in self._games(pairs.names)
        ]
        return log_likelihood + pairs.scale * torch.stack(scores).sum()

    def monitored(self) -> dict[str, Tensor]:
        """Return what the games keep an eye on, the highest ``critic_order`` of all."""
        orders = torch.stack([game.critic_order for game in self.games])  # type: ignore[misc]
        first = self.games[0].monitored()  # type: ignore[operator]
        return first | {"critic_order": orders.max()}

    def after_step(self, player: Player) -> None:
        for game in self.games:
            game.after_step(player)  # type: ignore[operator]

    def _compared(
        self, model: Program, guide: Program | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, tuple[Scoring, Samples]]:
        """Return each game with draws of the prior and of the guide."""
        run = Autoencoder(model, guide, args, kwargs, self.covariates, observes=True)
        of_prior, of_guide = run.prior()
        compared = {}
        for name, (game, which) in zip(self.names, self._games(of_prior.names), strict=True):
            real, fake = (tuple(pairs.latents[i] for i in which) for pairs in (of_prior, of_guide))
            compared[name or "latents"] = game, Samples(real, fake, of_prior.covariates)
        return compared

    def _games(self, names: Sequence[str]) -> list[tuple[Scoring, list[int]]]:
        """Pair each game with the places of its sites among all latents."""
        if self.names == [""]:
            return [(self.games[0], list(range(len(names))))]  # type: ignore[list-item]
        if set(self.names) != set(names):
            raise ProgramError(
                f"there are critics for the sites {', '.join(self.names)}, and the model's latents are "
                f"{', '.join(names)}: give each a critic"
            )
        return [(game, [names.index(name)]) for name, game in zip(self.names, self.games, strict=True)]  # type: ignore[misc]


class WAE(Objective):
    r"""The Wasserstein autoencoder, by a distance between draws of the aggregate posterior and of the prior.

    .. math::
        \sum_n \mathbb{E}_{q(z \mid x_n)} c(x_n, z) + \lambda N \, \mathcal{D}(q(z), p(z)), \quad
        c(x, z) = -\log p(x \mid z)

    The program chooses the cost: a normal likelihood of fixed scale :math:`\sigma` costs
    :math:`\lVert x - f(z) \rVert^2 / 2 \sigma^2`, and a Laplace likelihood absolute differences, up to a constant. The
    adversarial form, WAE-GAN, is :class:`AAE`.

    Args:
        divergence: :math:`\mathcal{D}`, an objective that needs no critic: :class:`MMD` (the paper's kernel is
            ``RationalQuadratic``), :class:`SlicedWasserstein`, :class:`Sinkhorn`, :class:`EnergyDistance`.
        weight: :math:`\lambda`.
        covariates: names of the arguments that latents are conditioned on; found by themselves if not given.

    References:
        Wasserstein Auto-Encoders (Tolstikhin et al., 2018), https://arxiv.org/abs/1711.01558

    Example:
        >>> from pyrogen.inference import MMD
        >>> WAE(MMD(), weight=10.0).weight
        10.0
    """

    def __init__(self, divergence: Distance, weight: float = 1.0, covariates: Sequence[str] | None = None) -> None:
        super().__init__()
        if not isinstance(divergence, Distance):
            raise ProgramError(
                f"divergence must be one that needs no critic, such as MMD(), found {type(divergence).__name__}; with "
                f"a critic, use AAE"
            )
        if not weight > 0:
            raise ValueError(f"weight must be positive, found {weight}")
        self.divergence = divergence
        self.weight = weight
        self.covariates = covariates

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss, summed over the data."""
        run = Autoencoder(model, guide, args, kwargs, self.covariates, observes=True)
        log_likelihood, pairs = run.reconstruction()
        of_prior, _ = run.prior()
        real, fake = flat(Samples(of_prior.latents, pairs.latents, pairs.covariates), self.divergence.features)
        distance = self.divergence.between(real, fake)
        return -log_likelihood - _of_labels(run.inferred) + self.weight * pairs.scale * len(fake) * distance


def _of_labels(guide_trace: Trace) -> Tensor | float:
    """Return the logarithm of the density of what the guide observes."""
    guide_trace.compute_log_prob(lambda _, site: is_data(site))
    return sum(site["log_prob"].sum() for site in sample_sites(guide_trace) if is_data(site))
