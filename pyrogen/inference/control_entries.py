"""Objectives of policies that learn from their own recordings, by name, with plain settings, for the command line."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from pyrogen.inference.control import KLControl
from pyrogen.inference.observations import num_observations, scale_of_values
from pyrogen.inference.ppo import PPO
from pyrogen.nn import StateValues
from pyrogen.preference import Preference, makes
from pyrogen.sites import Program

__all__ = ["kl_control", "ppo"]


@makes(KLControl)
@Preference(
    {
        "temperature": 0.1,
        "recording_steps": 8,
        "critic_steps": 8,
        "learning_rate": 2e-3,
        "critic_learning_rate": 3e-3,
        "schedule": "cosine",
        "clip_norm": 20.0,
    },
    "learns from each recording once, after a critic that has seen it: less noise, and a little bias",
).of
def kl_control(
    model: Program,
    guide: Program | None,
    example: Mapping[str, Tensor],
    *,
    discount: float = 0.99,
    decay: float = 0.95,
    analytic_kl: bool = True,
    critic_hidden: Sequence[int] = (64, 64),
) -> KLControl:
    """Make the evidence lower bound of optimal trajectories: entropy-regularised policy gradient.

    Args:
        discount: of the returns that actions are weighed by.
        decay: of what a return sees before it trusts the critic, from 0 to 1.
        analytic_kl: use divergences from the prior in closed form where there are.
        critic_hidden: widths of the critic's layers between.
    """
    critic = critic_of_states(model, guide, example, critic_hidden)
    return KLControl(critic, discount=discount, decay=decay, analytic_kl=analytic_kl)


@makes(PPO)
@Preference(
    {"temperature": 0.1, "recording_steps": 64, "uses": 10, "minibatches": 4},
    "learns from each recording within a trust region",
).of
def ppo(
    model: Program,
    guide: Program | None,
    example: Mapping[str, Tensor],
    *,
    discount: float = 0.99,
    decay: float = 0.95,
    clip: float = 0.2,
    normalize: bool = False,
    critic_hidden: Sequence[int] = (64, 64),
) -> PPO:
    """Make the same within a trust region, so that a recording serves for several steps.

    Args:
        discount: of the returns that actions are weighed by.
        decay: of what a return sees before it trusts the critic, from 0 to 1.
        clip: by how much the probability of an action may change, relatively, with a recording.
        normalize: scale advantages to a standard deviation of 1 in each batch.
        critic_hidden: widths of the critic's layers between.
    """
    critic = critic_of_states(model, guide, example, critic_hidden)
    return PPO(critic, discount=discount, decay=decay, clip=clip, normalize=normalize)


def critic_of_states(
    model: Program, guide: Program | None, example: Mapping[str, Tensor], hidden: Sequence[int]
) -> StateValues:
    """Make a critic of observations like an example's, in the unit of the model's rewards.

    Raises:
        UsageError: where observations are whole numbers, and no table of the policy's tells how many there are.
    """
    observation = example["observation"]
    count, scale = num_observations(guide, observation), scale_of_values(model)
    shape = observation.shape[2:] if count is None else ()
    return StateValues(shape, num_observations=count, hidden=hidden, scale=scale)
