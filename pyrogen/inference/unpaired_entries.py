"""Objectives of two domains, by name, with critics and plain settings, for the command line."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from pyrogen.errors import UsageError
from pyrogen.inference.critics import Scaling, critic_of_patches, spec_of
from pyrogen.inference.cyclegan import CycleGAN
from pyrogen.sites import Program

__all__ = ["cyclegan"]


def cyclegan(
    model: Program,
    guide: Program | None,
    example: Mapping[str, Tensor],
    *,
    cycle_weight: float = 10.0,
    identity_weight: float = 0.0,
    history: int = 50,
    hidden: Sequence[int] = (256, 256),
    channels: Sequence[int] = (64, 128),
) -> CycleGAN:
    """Make the game of two translators, there and back.

    Args:
        cycle_weight: of coming back to where one began, for data scaled to [-1, 1].
        identity_weight: of leaving alone what is in the target's domain, as a share of that; 0.5 keeps colours.
        history: draws of earlier steps that are kept for the critics.
        hidden: widths of fully connected critics.
        channels: channels of critics of patches, for images that are translated by convolutions.
    """
    if guide is None:
        raise UsageError(
            "cyclegan needs two programs, there and back, and this model has none that leads back: use --model cyclegan"
        )
    if set(example) != {"a", "b"}:
        raise UsageError(
            f"cyclegan learns from two data sets, a and b, and found columns {', '.join(example)}: give --data and "
            f"--data-b, and --model cyclegan"
        )
    for option, value in (("cycle-weight", cycle_weight), ("identity-weight", identity_weight), ("history", history)):
        if not value >= 0:
            raise UsageError(f"--{option} must not be negative, found {value}")
    spec = spec_of(model)
    critic_a, critic_b = (critic_of_patches(model, hidden, channels) for _ in "ab")
    return CycleGAN(critic_a, critic_b, spec.shape, cycle_weight, identity_weight, history, Scaling(spec))
