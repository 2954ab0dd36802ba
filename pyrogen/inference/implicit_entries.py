"""Objectives that compare samples, by name, with critics and plain settings, for the command line."""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from pyrogen.discrepancy import RBF, squared_median
from pyrogen.errors import UsageError
from pyrogen.inference.critics import Scaling, SideBySide, critic_for, spec_of
from pyrogen.inference.fgan import FGAN
from pyrogen.inference.gan import GAN
from pyrogen.inference.mmd import MMD, MMDGAN
from pyrogen.inference.optimal_transport import EnergyDistance, Sinkhorn, SlicedWasserstein
from pyrogen.inference.penalties import DRAGAN, R1, Drift, Interpolated, Penalty
from pyrogen.inference.wgan import WGAN
from pyrogen.sites import Program

__all__ = [
    "energy_distance",
    "fgan",
    "gan",
    "mmd",
    "mmd_gan",
    "sinkhorn",
    "sliced_wasserstein",
    "wgan",
    "wgan_gp",
]

PENALTIES: dict[str, type[Penalty] | None] = {
    "none": None,
    "interpolated": Interpolated,
    "dragan": DRAGAN,
    "r1": R1,
}
PenaltyName = Literal["none", "interpolated", "dragan", "r1"]
Norm = Literal["batch", "spectral", "none"]
COMPARED = 1000
"""Data whose distances are measured, at most."""

Example = Mapping[str, Tensor]


def gan(
    model: Program,
    guide: Program | None,
    example: Example,
    *,
    game: Literal["minimax", "non-saturating", "least-squares", "reverse-kl", "hinge"] = "non-saturating",
    penalty: PenaltyName = "r1",
    penalty_weight: float = 1.0,
    label_smoothing: float = 0.0,
    hidden: Sequence[int] = (256, 256),
    channels: Sequence[int] | None = None,
    norm: Norm = "none",
) -> GAN:
    """Make the adversarial game.

    Args:
        game: minimax, non-saturating, least-squares, reverse-kl or hinge.
        penalty: of the critic's gradient: none, interpolated (WGAN-GP's), dragan or r1.
        penalty_weight: its weight, for data scaled to [-1, 1].
        label_smoothing: the share of data that the critic is told are fake.
        hidden: widths of a fully connected critic.
        channels: channels of a convolutional critic; as those of the program's network, if not given.
        norm: of a convolutional critic: batch, spectral or none.
    """
    critic = critic_for(model, "y" in example, hidden, channels, norm)
    return GAN(critic, game, penalties_of(penalty, penalty_weight), label_smoothing, transform=Scaling(spec_of(model)))


def fgan(
    model: Program,
    guide: Program | None,
    example: Example,
    *,
    divergence: Literal["kl", "reverse-kl", "js", "pearson", "squared-hellinger", "total-variation"] = "js",
    non_saturating: bool = True,
    penalty: PenaltyName = "r1",
    penalty_weight: float = 1.0,
    hidden: Sequence[int] = (256, 256),
    channels: Sequence[int] | None = None,
    norm: Norm = "none",
) -> FGAN:
    """Make the lower bound of an f-divergence.

    Args:
        divergence: kl, reverse-kl, js, pearson, squared-hellinger or total-variation.
        non_saturating: let the programs raise what they would otherwise lower.
        penalty: of the critic's gradient: none, interpolated (WGAN-GP's), dragan or r1.
        penalty_weight: its weight, for data scaled to [-1, 1].
        hidden: widths of a fully connected critic.
        channels: channels of a convolutional critic; as those of the program's network, if not given.
        norm: of a convolutional critic: batch, spectral or none.
    """
    critic = critic_for(model, "y" in example, hidden, channels, norm)
    return FGAN(
        critic, divergence, non_saturating, penalties_of(penalty, penalty_weight), transform=Scaling(spec_of(model))
    )


def wgan(
    model: Program,
    guide: Program | None,
    example: Example,
    *,
    clip: float = 0.01,
    hidden: Sequence[int] = (256, 256),
    channels: Sequence[int] | None = None,
    norm: Norm = "none",
) -> WGAN:
    """Make the Wasserstein distance by a critic whose weights are clipped.

    Args:
        clip: the largest weight of the critic.
        hidden: widths of a fully connected critic.
        channels: channels of a convolutional critic; as those of the program's network, if not given.
        norm: of a convolutional critic: batch, spectral or none.
    """
    critic = critic_for(model, "y" in example, hidden, channels, norm)
    return WGAN(critic, clip=clip, transform=Scaling(spec_of(model)))


def wgan_gp(
    model: Program,
    guide: Program | None,
    example: Example,
    *,
    penalty_weight: float = 10.0,
    drift_weight: float = 0.001,
    hidden: Sequence[int] = (256, 256),
    channels: Sequence[int] | None = None,
    norm: Norm = "none",
) -> WGAN:
    """Make the Wasserstein distance by a critic with a gradient penalty.

    Args:
        penalty_weight: of the interpolated penalty, for data scaled to [-1, 1].
        drift_weight: of the penalty that keeps scores near zero.
        hidden: widths of a fully connected critic.
        channels: channels of a convolutional critic; as those of the program's network, if not given.
        norm: of a convolutional critic: batch, spectral or none.
    """
    critic = critic_for(model, "y" in example, hidden, channels, norm)
    penalties = [Interpolated(penalty_weight), Drift(drift_weight)]
    return WGAN(critic, penalties, transform=Scaling(spec_of(model)))


def mmd(model: Program, guide: Program | None, example: Example, *, bandwidths: Sequence[float] | None = None) -> MMD:
    """Make the maximum mean discrepancy.

    Args:
        bandwidths: of RBF kernels, for data scaled to [-1, 1]; by default a quarter to four times the median distance.
    """
    scale = SideBySide(spec_of(model))
    if bandwidths is None:
        columns = [example[name][:COMPARED] for name in ("x", "y") if name in example]
        median = float(squared_median(scale(*columns).float()).sqrt())
        bandwidths = [factor * median for factor in (0.25, 0.5, 1.0, 2.0, 4.0)]
    return MMD(RBF(list(bandwidths)), features=scale)


def mmd_gan(
    model: Program,
    guide: Program | None,
    example: Example,
    *,
    features: int = 16,
    penalty: PenaltyName = "interpolated",
    penalty_weight: float = 1.0,
    hidden: Sequence[int] = (256, 256),
    channels: Sequence[int] | None = None,
    norm: Norm = "none",
) -> MMDGAN:
    """Make the maximum mean discrepancy in features that a critic learns.

    Args:
        features: how many.
        penalty: of the witness function's gradient: none, interpolated, dragan or r1.
        penalty_weight: its weight, for data scaled to [-1, 1].
        hidden: widths of a fully connected critic.
        channels: channels of a convolutional critic; as those of the program's network, if not given.
        norm: of a convolutional critic: batch, spectral or none.
    """
    if features < 1:
        raise UsageError(f"features must be at least 1, found {features}")
    critic = critic_for(model, "y" in example, hidden, channels, norm, features)
    return MMDGAN(critic, penalties=penalties_of(penalty, penalty_weight), transform=Scaling(spec_of(model)))


def energy_distance(
    model: Program, guide: Program | None, example: Example, *, exponent: float = 1.0
) -> EnergyDistance:
    """Make the energy distance.

    Args:
        exponent: the power of the distances, between 0 and 2.
    """
    return EnergyDistance(exponent, features=SideBySide(spec_of(model)))


def sliced_wasserstein(
    model: Program, guide: Program | None, example: Example, *, num_projections: int = 128
) -> SlicedWasserstein:
    """Make the sliced 2-Wasserstein distance.

    Args:
        num_projections: directions, drawn anew at each step.
    """
    return SlicedWasserstein(num_projections, features=SideBySide(spec_of(model)))


def sinkhorn(
    model: Program, guide: Program | None, example: Example, *, blur: float = 0.5, scaling: float = 0.5
) -> Sinkhorn:
    """Make the debiased Sinkhorn divergence.

    Args:
        blur: the length below which data are not told apart, for data scaled to [-1, 1].
        scaling: between 0 and 1; nearer to 1 for a better solution in more time.
    """
    spec = spec_of(model)
    labels = 2.0 if "y" in example else 0.0  # two one-hot vectors are the root of two apart
    # Reals have no bound, but twice the span of a batch is rarely left; beyond it, the solution is only less accurate.
    span = 4.0 * spec.num_dims if spec.kind != "real" else 4 * float(example["x"].flatten(1).square().sum(1).max())
    return Sinkhorn(blur, diameter=(span + labels) ** 0.5, scaling=scaling, features=SideBySide(spec))


def penalties_of(name: str, weight: float) -> list[Penalty]:
    if name not in PENALTIES:
        raise UsageError(f"unknown penalty {name!r}: choose from {', '.join(PENALTIES)}")
    kind = PENALTIES[name]
    return [] if kind is None else [kind(weight)]
