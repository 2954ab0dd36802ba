r"""What is added to a critic's loss to keep it in bounds.

A penalty goes with any objective that has a critic: WGAN-GP is ``WGAN(critic, [Interpolated(10.0)])``, DRAGAN-NS is
``GAN(critic, penalties=[DRAGAN(10.0)])``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pyrogen.errors import ProgramError

__all__ = ["DRAGAN", "R1", "Drift", "Interpolated", "Penalty", "Score", "Scores"]

Score = Callable[[Sequence[Tensor]], Tensor]


class Scores:
    """A critic's scores, which are not computed again at points where they, or their gradient, were asked for.

    Args:
        score: from the sites' values to shape ``(batch,)``.
    """

    def __init__(self, score: Score) -> None:
        self.score = score
        self.known: list[tuple[Sequence[Tensor], Tensor]] = []

    def __call__(self, values: Sequence[Tensor]) -> Tensor:
        for points, found in self.known:
            if points is values:
                return found
        self.known.append((values, self.score(values)))
        return self.known[-1][1]

    def gradients(self, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the scores' gradient at each datum, by site, in the sites' shapes."""

        def scored(points: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
            scores = self.score(points)
            return scores.sum(), scores

        gradients, scores = torch.func.grad(scored, has_aux=True)(tuple(value.detach() for value in values))
        self.known.append((values, scores))
        return gradients


@dataclass(frozen=True)
class Penalty(ABC):
    """A function of the critic's gradient in its inputs, or of its scores.

    Attributes:
        weight: what the penalty is multiplied by.
    """

    weight: float = 10.0

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise ValueError(f"a penalty's weight must not be negative, found {self.weight}")

    @abstractmethod
    def __call__(self, score: Score, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
        """Return the weighted penalty, a scalar.

        Args:
            score: the critic, from the sites' values to shape ``(batch,)``.
            real: data, by site.
            fake: draws, by site.
        """

    def check(self, critic: nn.Module) -> None:
        """Refuse a critic that normalises over the batch.

        Raises:
            ProgramError: where the critic normalises over the batch.
        """
        for name, module in critic.named_modules():
            if isinstance(module, _BatchNorm):
                raise ProgramError(
                    f"{type(self).__name__} bounds the gradient of each datum's score, which batch normalisation (the "
                    f"critic's {name!r}) mixes with the other data. Leave it out of the critic, or use LayerNorm, "
                    f"GroupNorm or spectral normalisation"
                )


@dataclass(frozen=True)
class Interpolated(Penalty):
    r"""The two-sided penalty of WGAN-GP, between data and draws.

    .. math::
        \lambda \, \mathbb{E}\left(\lVert \nabla_{\hat x} D(\hat x) \rVert_2 - 1\right)^2, \quad
        \hat x = u x + (1 - u) \tilde x, \quad u \sim U(0, 1)

    References:
        Improved Training of Wasserstein GANs (Gulrajani et al., 2017), https://arxiv.org/abs/1704.00028
    """

    def __call__(self, score: Score, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
        u = torch.rand(len(real[0]), device=real[0].device)
        between = [x * _as_rows(u, x) + y * (1 - _as_rows(u, x)) for x, y in zip(real, fake, strict=True)]
        return self.weight * (_norms(score, between) - 1).square().mean()


@dataclass(frozen=True)
class DRAGAN(Penalty):
    r"""The two-sided penalty around the data.

    .. math::
        \lambda \, \mathbb{E}\left(\lVert \nabla_{\hat x} D(\hat x) \rVert_2 - 1\right)^2, \quad
        \hat x = x + c \, \sigma_x \delta, \quad \delta \sim \mathcal{N}(0, I)

    :math:`\sigma_x` is the standard deviation of all values of the batch.

    Attributes:
        spread: :math:`c`.

    References:
        On Convergence and Stability of GANs (Kodali et al., 2017), https://arxiv.org/abs/1705.07215
    """

    spread: float = 0.5

    def __call__(self, score: Score, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
        around = [x + self.spread * x.std() * torch.randn_like(x) for x in real]
        return self.weight * (_norms(score, around) - 1).square().mean()


@dataclass(frozen=True)
class R1(Penalty):
    r"""The penalty at the data, which lets the game converge.

    .. math:: \frac{\lambda}{2} \, \mathbb{E} \lVert \nabla_x D(x) \rVert_2^2

    References:
        Which Training Methods for GANs do actually Converge? (Mescheder et al., 2018), https://arxiv.org/abs/1801.04406
    """

    def __call__(self, score: Score, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
        return self.weight / 2 * _squared_norms(score, real).mean()


@dataclass(frozen=True)
class Drift(Penalty):
    r"""The penalty that keeps scores from drifting away, since the Wasserstein distance does not see their mean.

    .. math:: \lambda \, \mathbb{E} D(x)^2

    References:
        Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al., 2018),
        https://arxiv.org/abs/1710.10196
    """

    weight: float = 0.001

    def __call__(self, score: Score, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
        return self.weight * score(real).square().mean()

    def check(self, critic: nn.Module) -> None:
        pass


def _norms(score: Score, at: Sequence[Tensor]) -> Tensor:
    return (_squared_norms(score, at) + 1e-12).sqrt()  # the root has no gradient at zero


def _squared_norms(score: Score, at: Sequence[Tensor]) -> Tensor:
    """Return the squared norm of each datum's gradient, over all sites, shape ``(batch,)``."""
    for value in at:
        if not value.is_floating_point():
            raise ProgramError(f"a penalty needs sites with real values: there is no gradient in {value.dtype}")
    gradients = (score if isinstance(score, Scores) else Scores(score)).gradients(at)
    return torch.stack([gradient.reshape(len(gradient), -1).square().sum(1) for gradient in gradients]).sum(0)


def _as_rows(weights: Tensor, like: Tensor) -> Tensor:
    return weights.to(like.dtype).reshape(-1, *(1 for _ in like.shape[1:]))
