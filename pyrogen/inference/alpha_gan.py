"""The α-GAN: an autoencoder with a critic of data and a critic of latents."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyrogen.inference.autoencoding import Autoencoder, Decode, checked_decode
from pyrogen.inference.gan import as_game
from pyrogen.inference.objective import Objective, Player
from pyrogen.inference.samples import Samples
from pyrogen.sites import Program

__all__ = ["AlphaGAN"]


class AlphaGAN(Objective):
    r"""The α-GAN: both terms of the ELBO by ratios, and a reconstruction besides.

    .. math::
        \sum_n \mathbb{E}_{q(z \mid x_n)}\left[-\lambda \log p(x_n \mid z) - C(z) - D(\hat x)\right] - D(x'), \quad
        \hat x \sim p(x \mid \operatorname{sg} z), \; x' \sim p(x)

    where the logits are those of critics that take data, and draws of the prior, for real, so that
    :math:`-D = -\log \sigma(D) + \log(1 - \sigma(D))` is the paper's :math:`\mathcal{R}`. With the best critics,
    :math:`-C(z)` is :math:`\log q(z) - \log p(z)` and :math:`-D(x')` is :math:`\log p_\theta(x') - \log p^*(x')`. With
    :math:`\operatorname{sg}`, which passes no gradient, the guide learns from the first two terms and the model from
    all but the second. The paper's reconstruction :math:`\lambda \lVert x - \hat x \rVert_1` is that of a Laplace
    likelihood of scale :math:`1 / \lambda`, up to a constant.

    The critic of data minimises the mean of its losses for :math:`\hat x` and :math:`x'`: the sum, as in the paper,
    shifts its logits by a constant. What comes of it is *not a bound*.

    Args:
        critic: of data: from the observed sites' values (and covariates) to a logit a row, or a game of its own.
        latent_critic: of latents, likewise.
        weight: :math:`\lambda`.
        decode: what stands for data that the model makes, ``"sample"`` or the ``"mean"`` of their distribution.
        covariates: names of the arguments to show to the critics; found by themselves if not given.

    Raises:
        ProgramError: where sites do not pair, where an observed one has no density, or where it passes no gradient on.

    References:
        Variational Approaches for Auto-Encoding Generative Adversarial Networks (Rosca et al., 2017),
        https://arxiv.org/abs/1706.04987

    Example:
        >>> AlphaGAN(nn.Linear(3, 1), nn.Linear(2, 1), weight=2.0).game.game
        'reverse-kl'
    """

    saturates = True

    def __init__(
        self,
        critic: nn.Module,
        latent_critic: nn.Module,
        weight: float = 1.0,
        decode: Decode = "sample",
        covariates: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if not weight > 0:
            raise ValueError(f"weight must be positive, found {weight}")
        self.game = as_game(critic, "reverse-kl", transforms=True)
        self.latent_game = as_game(latent_critic, "reverse-kl")
        self.weight = weight
        self.decode = checked_decode(decode)
        self.covariates = covariates

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss, summed over the data."""
        run = Autoencoder(model, guide, args, kwargs, self.covariates, self.decode)
        log_likelihood, pairs = run.reconstruction()
        reconstructed, (generated, _, _) = run.decoded(), run.generated()
        count = pairs.scale * len(pairs.data[0])
        of_latents = self.latent_game.loss_of_programs(self.latent_game.scores(pairs.latents, pairs.covariates))
        scores = [self._scores(made.data, made.covariates) for made in (reconstructed, generated)]
        of_data = torch.stack([self.game.loss_of_programs(found) for found in scores]).sum()
        return -self.weight * log_likelihood + count * (of_latents + of_data)

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return both critics' loss, with their penalties."""
        with torch.no_grad():
            of_data, of_latents = self._compared(model, guide, args, kwargs)
        losses = [self.game.critic_loss_of(samples) for samples in of_data]
        return torch.stack(losses).mean() + self.latent_game.critic_loss_of(of_latents)

    def log_ratios(
        self, model: Program, guide: Program | None, *args: Any, **kwargs: Any
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return logits of data, of reconstructions and draws together, and of latents of the prior and the guide."""
        of_data, of_latents = self._compared(model, guide, args, kwargs)
        found = {}
        if self.game.has_log_ratios:  # a critic of both estimates the ratio of data to their mixture
            of_real, of_made = zip(*map(self.game.both, of_data), strict=True)
            found["data"] = torch.cat(of_real), torch.cat(of_made)
        if self.latent_game.has_log_ratios:
            found["latents"] = self.latent_game.both(of_latents)
        return found

    def elbo_estimate(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor | None:
        r"""Return :math:`\log p(x \mid z) + C(z)`, where logits are log-ratios, as :class:`AAE` does."""
        if not self.latent_game.has_log_ratios:
            return None
        log_likelihood, pairs = Autoencoder(model, guide, args, kwargs, self.covariates).reconstruction()
        return log_likelihood + pairs.scale * self.latent_game.scores(pairs.latents, pairs.covariates).sum()

    def monitored(self) -> dict[str, Tensor]:
        """Return what the critic of data keeps an eye on, and how often the one of latents is right."""
        return self.game.monitored() | {"latent_critic_order": self.latent_game.critic_order}

    def after_step(self, player: Player) -> None:
        self.game.after_step(player)
        self.latent_game.after_step(player)

    def _compared(
        self, model: Program, guide: Program | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[list[Samples], Samples]:
        """Return data with reconstructions and with draws, and latents of the prior with those of the guide."""
        run = Autoencoder(model, guide, args, kwargs, self.covariates, self.decode)
        reconstructed = run.decoded()
        fake, real, _ = run.generated()
        of_data = [
            Samples(real.data, made.data, made.covariates).transformed(self.game.transform)
            for made in (reconstructed, fake)
        ]
        return of_data, Samples(fake.latents, real.latents, fake.covariates)

    def _scores(self, data: Sequence[Tensor], covariates: Sequence[Tensor]) -> Tensor:
        seen = data if self.game.transform is None else [self.game.transform(x) for x in data]
        return self.game.scores(seen, covariates)
