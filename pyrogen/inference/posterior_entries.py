"""Objectives with critics of latents, by name, with plain settings, for the command line."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pyro import poutine
from torch import Tensor

from pyrogen.discrepancy import RationalQuadratic
from pyrogen.errors import UsageError
from pyrogen.inference.aae import AAE, WAE
from pyrogen.inference.ali import ALI
from pyrogen.inference.alpha_gan import AlphaGAN
from pyrogen.inference.autoencoding import Autoencoder, Decode
from pyrogen.inference.avb import AVB
from pyrogen.inference.critics import Scaling, critic_for, critic_of_latents, critic_of_pairs, spec_of
from pyrogen.inference.entries import check_noise
from pyrogen.inference.gan import GAN
from pyrogen.inference.implicit_entries import PenaltyName, penalties_of
from pyrogen.inference.mmd import MMD
from pyrogen.inference.ratio import ESTIMATORS, Ratio
from pyrogen.inference.veegan import VEEGAN
from pyrogen.parameters import first_device, modules_of
from pyrogen.preference import Preference
from pyrogen.rehearsal import rehearsal
from pyrogen.sites import Program, is_data, sample_sites, unwrapped

__all__ = ["aae", "ali", "alpha_gan", "avb", "veegan", "wae"]

Example = Mapping[str, Tensor]
Estimator = Literal["logistic", "kliep", "nwj", "dv", "least-squares"]


through_data = Preference(
    {"pixels": "dequantized", "likelihood": "laplace"}, "passes gradients through the data that a model draws"
)


def avb(
    model: Program,
    guide: Program | None,
    example: Example,
    *,
    contrast: int = 16,
    num_particles: int = 1,
    estimator: Estimator = "logistic",
    hidden: Sequence[int] = (256, 256),
    channels: Sequence[int] | None = None,
) -> AVB:
    """Make adversarial variational Bayes: the ELBO of a guide that needs no density.

    Args:
        contrast: draws of the guide whose moments adaptive contrast takes; 0 for none.
        num_particles: draws of the guide for each estimate.
        estimator: of the density ratio: logistic, kliep, nwj, dv or least-squares.
        hidden: widths of the critic's fully connected layers.
        channels: channels of a convolutional critic.
    """
    if contrast < 0 or contrast == 1 or num_particles < 1:
        raise UsageError(
            f"contrast must be 0 or at least 2, and num_particles at least 1; found {contrast} and {num_particles}"
        )
    if estimator not in ESTIMATORS:
        raise UsageError(f"unknown estimator {estimator!r}: choose from {', '.join(ESTIMATORS)}")
    check_noise(guide)
    critic = critic_of_pairs(model, "y" in example, _sizes(model, guide, example), hidden, channels, scales=True)
    return AVB(Ratio(critic, estimator), contrast=contrast, num_particles=num_particles)


def aae(
    model: Program,
    guide: Program | None,
    example: Example,
    *,
    weight: float = 1.0,
    game: Literal["minimax", "non-saturating", "least-squares", "reverse-kl", "hinge"] = "non-saturating",
    penalty: PenaltyName = "none",
    penalty_weight: float = 1.0,
    hidden: Sequence[int] = (256, 256),
) -> AAE:
    """Make the adversarial autoencoder: a critic matches the aggregate posterior to the prior.

    Args:
        weight: of the critic's term.
        game: minimax, non-saturating, least-squares, reverse-kl or hinge.
        penalty: of the critic's gradient: none, interpolated, dragan or r1.
        penalty_weight: its weight.
        hidden: widths of the critic.
    """
    _check_weight(weight)
    critic = critic_of_latents(model, "y" in example, _sizes(model, guide, example), hidden)
    return AAE(GAN(critic, game, penalties_of(penalty, penalty_weight)), weight)


def wae(
    model: Program,
    guide: Program | None,
    example: Example,
    *,
    weight: float = 10.0,
    bandwidths: Sequence[float] | None = None,
) -> WAE:
    """Make the Wasserstein autoencoder, by the maximum mean discrepancy with inverse multiquadratic kernels.

    Args:
        weight: of the discrepancy, for each datum.
        bandwidths: of the kernels; by default a quarter to four times the root of the number of latents.
    """
    _check_weight(weight)
    if bandwidths is None:
        typical = sum(_sizes(model, guide, example)) ** 0.5  # the paper's C = 2 d is twice its square
        bandwidths = [factor * typical for factor in (0.25, 0.5, 1.0, 2.0, 4.0)]
    return WAE(MMD(RationalQuadratic(list(bandwidths))), weight)


@through_data.of
def alpha_gan(
    model: Program,
    guide: Program | None,
    example: Example,
    *,
    weight: float = 0.1,
    decode: Decode = "mean",
    penalty: PenaltyName = "r1",
    penalty_weight: float = 1.0,
    hidden: Sequence[int] = (256, 256),
    channels: Sequence[int] | None = None,
) -> AlphaGAN:
    """Make the alpha-GAN: a critic of data, a critic of latents, and a reconstruction.

    Args:
        weight: of the reconstruction.
        decode: what the critic sees of the model: a sample, or the mean.
        penalty: of the gradient of the critic of data: none, interpolated, dragan or r1.
        penalty_weight: its weight, for data scaled to [-1, 1].
        hidden: widths of the critics' fully connected layers.
        channels: channels of a convolutional critic of data.
    """
    _check_weight(weight)
    critic = critic_for(model, "y" in example, hidden, channels, "none")
    game = GAN(critic, "reverse-kl", penalties_of(penalty, penalty_weight), transform=Scaling(spec_of(model)))
    latent_critic = critic_of_latents(model, "y" in example, _sizes(model, guide, example, decode), hidden)
    return AlphaGAN(game, latent_critic, weight, decode)


@through_data.of
def ali(
    model: Program,
    guide: Program | None,
    example: Example,
    *,
    game: Literal["non-saturating", "minimax", "least-squares"] = "non-saturating",
    decode: Decode = "sample",
    penalty: PenaltyName = "r1",
    penalty_weight: float = 1.0,
    hidden: Sequence[int] = (256, 256),
    channels: Sequence[int] | None = None,
) -> ALI:
    """Make adversarially learned inference: a critic of pairs of data and latents.

    Args:
        game: non-saturating, minimax or least-squares.
        decode: what the critic sees of the model: a sample, or the mean, from which no scale is learned.
        penalty: of the critic's gradient: none, interpolated, dragan or r1.
        penalty_weight: its weight, for data scaled to [-1, 1].
        hidden: widths of the critic's fully connected layers.
        channels: channels of a convolutional critic.
    """
    critic = critic_of_pairs(model, "y" in example, _sizes(model, guide, example, decode), hidden, channels)
    return ALI(critic, game, penalties_of(penalty, penalty_weight), decode, transform=Scaling(spec_of(model)))


@through_data.of
def veegan(
    model: Program,
    guide: Program | None,
    example: Example,
    *,
    weight: float = 0.05,
    distance: Literal["density", "squared"] = "density",
    decode: Decode = "sample",
    penalty: PenaltyName = "r1",
    penalty_weight: float = 1.0,
    hidden: Sequence[int] = (256, 256),
    channels: Sequence[int] | None = None,
) -> VEEGAN:
    """Make VEEGAN: a critic of pairs, and a reconstruction of latents.

    Args:
        weight: of the reconstruction, a sum over latents; where it outweighs the critic, draws are patterns that tell
            latents, and no data.
        distance: density, or squared, for guides without a density.
        decode: what the critic sees of the model: a sample, or the mean, from which no scale is learned.
        penalty: of the critic's gradient: none, interpolated, dragan or r1.
        penalty_weight: its weight, for data scaled to [-1, 1].
        hidden: widths of the critic's fully connected layers.
        channels: channels of a convolutional critic.
    """
    _check_weight(weight)
    if distance == "density":
        check_noise(guide)
        if not getattr(guide, "has_density", True):
            raise UsageError("an implicit encoder has no density: choose --distance squared, or --encoder gaussian")
    critic = critic_of_pairs(model, "y" in example, _sizes(model, guide, example, decode), hidden, channels)
    found = penalties_of(penalty, penalty_weight)
    return VEEGAN(critic, distance, weight, found, decode, transform=Scaling(spec_of(model)))


def _sizes(model: Program, guide: Program | None, example: Example, decode: Decode = "mean") -> list[int]:
    """Find how many numbers each latent site has for a datum, from a run on a few; check draws, if shown."""
    if guide is None:
        raise UsageError(
            "this objective needs a guide, which draws latents for data, and the model has none: choose a model with "
            "one, such as vae, or --objective gan"
        )
    device = first_device(model, guide)
    few = {name: column[:2].to(device) for name, column in example.items()}
    with rehearsal(modules_of(model, guide).values()), torch.no_grad():
        inferred = Autoencoder(model, guide, (), dict[str, Any](few), decode=decode).reconstruction().pairs
        if decode == "sample":
            _check_draws(model, few)
    return [z[0].numel() for z in inferred.latents]


def _check_draws(model: Program, few: Example) -> None:
    """Refuse a likelihood whose draws pass no gradient on, before all sites of both programs are spelled out."""
    for site in filter(is_data, sample_sites(poutine.trace(model).get_trace(**few))):
        if not site["fn"].has_rsample:
            raise UsageError(
                f"this objective learns through the data that a model draws, and a draw of "
                f"{type(unwrapped(site['fn'])).__name__} passes no gradient: leave --likelihood and --pixels out, or "
                f"choose --decode mean"
            )


def _check_weight(weight: float) -> None:
    if not weight > 0:
        raise UsageError(f"weight must be positive, found {weight}")
