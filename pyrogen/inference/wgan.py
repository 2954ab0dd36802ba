"""The Wasserstein distance by its dual: a critic whose slope is bounded."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.inference.adversarial import Scoring
from pyrogen.inference.objective import Player
from pyrogen.inference.penalties import Penalty
from pyrogen.inference.samples import Transform
from pyrogen.nn.progressive import EqualizedConv2d, EqualizedLinear

__all__ = ["WGAN"]


class WGAN(Scoring):
    r"""The critic's mean score of data, less that of draws: over all functions of slope at most one, the distance.

    .. math::
        W_1(p^*, p_\theta) = \sup_{\lVert D \rVert_L \le 1} \mathbb{E}_{p^*(x)} D(x) - \mathbb{E}_{p_\theta(x)} D(x)

    The slope is bounded by penalties (WGAN-GP: ``penalties=[Interpolated(10.0)]``), by clipping the critic's weights
    after each of its steps, or by spectral normalisation within the critic. Take several steps of the critic in a
    round: ``train(..., steps=(1, 5))``.

    Args:
        critic: from the values of the observed sites (and covariates) to a score a datum, see :class:`Adversarial`.
        penalties: what is added to the critic's loss.
        clip: the critic's parameters are kept within :math:`[-c, c]`; not at all if not given.
        covariates: names of the arguments that the critic sees besides; found by themselves if not given.
        transform: applied to each site's values before critic and penalties see them.

    References:
        Wasserstein GAN (Arjovsky et al., 2017), https://arxiv.org/abs/1701.07875

        Improved Training of Wasserstein GANs (Gulrajani et al., 2017), https://arxiv.org/abs/1704.00028
    """

    def __init__(
        self,
        critic: nn.Module,
        penalties: Sequence[Penalty] = (),
        clip: float | None = None,
        covariates: Sequence[str] | None = None,
        transform: Transform | None = None,
    ) -> None:
        super().__init__(critic, penalties, covariates, transform)
        if clip is not None and not clip > 0:
            raise ValueError(f"clip must be positive, found {clip}")
        if clip is not None and any(isinstance(part, EqualizedConv2d | EqualizedLinear) for part in critic.modules()):
            raise UsageError(
                "the critic's layers have an equalised learning rate: their weights are drawn from N(0, 1) and scaled "
                "when they are used, and clipping would leave nothing of them. Use a gradient penalty (wgan-gp)"
            )
        self.clip = clip

    def loss_of_programs(self, fake: Tensor) -> Tensor:
        return -fake.mean()

    def loss_of_critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def after_step(self, player: Player) -> None:
        """Clip the critic's weights, where that is asked for."""
        if player == "critic" and self.clip is not None:
            with torch.no_grad():
                for p in self.critic.parameters():
                    p.clamp_(-self.clip, self.clip)
