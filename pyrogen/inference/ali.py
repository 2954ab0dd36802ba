"""Adversarially learned inference."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pyrogen.inference.autoencoding import Autoencoder, Decode, checked_decode
from pyrogen.inference.gan import GAMES, GAN
from pyrogen.inference.objective import Objective
from pyrogen.inference.penalties import Penalty
from pyrogen.inference.samples import Samples, Transform
from pyrogen.sites import Program

__all__ = ["ALI"]


class ALI(Objective):
    r"""Adversarially learned inference, or the bidirectional GAN.

    A critic tells data with the latents that the guide draws for them, :math:`q(z \mid x) p^*(x)`, from latents with
    the data that the model draws from them, :math:`p(x \mid z) p(z)`; both programs learn to be mistaken for each
    other. The critic minimises

    .. math::
        -\mathbb{E}_{q(z, x)} \log \sigma(D(z, x)) - \mathbb{E}_{p(z, x)} \log(1 - \sigma(D(z, x)))

    and the programs, in the ``minimax`` game, its opposite; in others, the critic's loss with its labels swapped:

    .. math::
        -\mathbb{E}_{p(z, x)} \log \sigma(D(z, x)) - \mathbb{E}_{q(z, x)} \log(1 - \sigma(D(z, x)))

    At the optimum the joint densities agree, so that :math:`q(z \mid x)` is the posterior. There is no term of
    reconstruction; no density is asked for, in neither program. Several latents, data sites and covariates are seen
    side by side; pairs come from one trace each.

    Args:
        critic: called with latents, then data, then covariates; it returns a logit a row.
        game: ``"non-saturating"``, ``"minimax"`` or ``"least-squares"``.
        penalties: what is added to the critic's loss.
        decode: what stands for data that the model makes, ``"sample"`` or the ``"mean"`` of their distribution.
        covariates: names of the arguments to show to the critic; found by themselves if not given.
        transform: applied to data before the critic sees them.

    Raises:
        ProgramError: where sites do not pair, or where one passes no gradient to its parameters.

    References:
        Adversarially Learned Inference (Dumoulin et al., 2017), https://arxiv.org/abs/1606.00704

        Adversarial Feature Learning (Donahue et al., 2017), https://arxiv.org/abs/1605.09782

    Example:
        >>> ALI(nn.Bilinear(2, 3, 1)).game.game
        'non-saturating'
    """

    sums_over_data = False
    by_samples = True
    saturates = True

    def __init__(
        self,
        critic: nn.Module,
        game: Literal["non-saturating", "minimax", "least-squares"] = "non-saturating",
        penalties: Sequence[Penalty] = (),
        decode: Decode = "sample",
        covariates: Sequence[str] | None = None,
        transform: Transform | None = None,
    ) -> None:
        super().__init__()
        if game not in ("non-saturating", "minimax", "least-squares"):
            raise ValueError(f"game must be 'non-saturating', 'minimax' or 'least-squares', found {game!r}")
        self.game = GAN(critic, game, penalties)
        self.decode = checked_decode(decode)
        self.covariates = covariates
        self.transform = transform

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the programs' loss."""
        inferred, generated, covariates = self._pairs(model, guide, args, kwargs)
        of_inferred, of_generated = (self.game.scores(pairs, covariates) for pairs in (inferred, generated))
        if self.game.game == "minimax":
            return -self.game.loss_of_critic(of_inferred, of_generated)
        return GAMES[self.game.game].real(of_generated).mean() + GAMES[self.game.game].fake(of_inferred).mean()

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the critic's loss, with its penalties."""
        with torch.no_grad():
            samples = Samples(*self._pairs(model, guide, args, kwargs))
        return self.game.critic_loss_of(samples)

    def log_ratios(
        self, model: Program, guide: Program | None, *args: Any, **kwargs: Any
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the critic's logits of pairs that the guide inferred, and that the model drew."""
        if not self.game.has_log_ratios:
            return {}
        return {"pairs": self.game.both(Samples(*self._pairs(model, guide, args, kwargs)))}

    def monitored(self) -> dict[str, Tensor]:
        """Return what a GAN's critic keeps an eye on; what the guide inferred counts as real."""
        return self.game.monitored()

    def _pairs(
        self, model: Program, guide: Program | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
        run = Autoencoder(model, guide, args, kwargs, self.covariates, self.decode)
        generated, inferred, _ = run.generated()
        return inferred.seen(self.transform), generated.seen(self.transform), generated.covariates
