"""Objectives of policies that learn from replayed transitions, by name, with plain settings, for the command line."""

from collections.abc import Mapping, Sequence
from math import log

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrogen.errors import ProgramError, UsageError
from pyrogen.inference.mpo import MPO
from pyrogen.inference.observations import num_observations, scale_of_values
from pyrogen.inference.sac import SAC
from pyrogen.inference.soft_q import SoftQ
from pyrogen.inference.transitions import choices
from pyrogen.inference.virel import VIREL
from pyrogen.nn import ActionValues, check_widths
from pyrogen.parameters import modules_of
from pyrogen.preference import makes
from pyrogen.rehearsal import rehearsal
from pyrogen.sites import Program, or_nothing

__all__ = ["critic_of_actions", "mpo", "sac", "soft_q", "virel"]


@makes(SAC)
def sac(
    model: Program,
    guide: Program | None,
    example: Mapping[str, Tensor],
    *,
    discount: float = 0.99,
    rate: float = 0.005,
    tuned: bool = True,
    target_divergence: float | None = None,
    critic_hidden: Sequence[int] = (256, 256),
) -> SAC:
    """Make soft actor-critic.

    Args:
        discount: of what follows a step.
        rate: by how much target networks move towards the critics with each step.
        tuned: hold the policy's divergence from the prior at a target; else the temperature is the model's.
        target_divergence: in nats; of a box, 1.69 for each of its coordinates if not given, which is the usual target
            entropy, and of choices half of the largest that there is from a uniform prior.
        critic_hidden: widths of the critics' layers between.
    """
    if not tuned and target_divergence is not None:
        raise UsageError("target_divergence is what the divergence is tuned to: leave it out, or tuned on")
    critic = critic_of_actions(model, guide, example, critic_hidden)
    if tuned and target_divergence is None:
        dims, count = critic.num_action_dims, critic.num_actions
        if count == 1:
            raise UsageError("there is one action to choose, and no divergence to tune: leave tuned off")
        target_divergence = log(count or 1) / 2 if dims is None else dims * (1 + log(2))
    return SAC(critic, discount, rate, target_divergence)


@makes(SoftQ)
def soft_q(
    model: Program,
    guide: Program | None,
    example: Mapping[str, Tensor],
    *,
    discount: float = 0.99,
    rate: float = 0.005,
) -> SoftQ:
    """Make soft Q-learning, of a policy whose logits, less those of the prior, are its action values.

    Args:
        discount: of what follows a step.
        rate: by how much the target network moves towards the policy's with each step.
    """
    network = getattr(guide, "network", None)
    if not isinstance(network, nn.Module):
        raise UsageError(
            "soft-q learns the network that its policy is made of, and this one shows none: choose a policy of "
            "choices, or make a SoftQPolicy"
        )
    return SoftQ(network, discount, rate)


@makes(MPO)
def mpo(
    model: Program,
    guide: Program | None,
    example: Mapping[str, Tensor],
    *,
    discount: float = 0.99,
    rate: float = 0.005,
    num_draws: int = 10,
    epsilon: float = 0.1,
    epsilon_policy: float = 0.02,
    epsilon_scale: float = 2e-3,
    period: int = 25,
    critic_hidden: Sequence[int] = (256, 256),
) -> MPO:
    """Make maximum a posteriori policy optimisation.

    Args:
        discount: of what follows a step.
        rate: by how much target networks move towards the critics with each step.
        num_draws: of actions at each observation, where they lie in a box.
        epsilon: how far the best actions may be from the policy's, in nats.
        epsilon_policy: how far the policy may move in a period, in nats; in a box, its location.
        epsilon_scale: how far, in a box, its scale may.
        period: steps of the policy in which it may.
        critic_hidden: widths of the critics' layers between.
    """
    critic = critic_of_actions(model, guide, example, critic_hidden)
    return MPO(critic, guide, discount, num_draws, epsilon, epsilon_policy, epsilon_scale, period, rate)


@makes(VIREL)
def virel(
    model: Program,
    guide: Program | None,
    example: Mapping[str, Tensor],
    *,
    discount: float = 0.99,
    rate: float = 0.005,
    scale: float = 0.1,
    critic_hidden: Sequence[int] = (256, 256),
) -> VIREL:
    """Make VIREL, whose temperature is the critics' own error.

    Args:
        discount: of what follows a step.
        rate: by how much target networks move towards the critics with each step.
        scale: of the temperature, times the mean squared error.
        critic_hidden: widths of the critics' layers between.
    """
    return VIREL(critic_of_actions(model, guide, example, critic_hidden), discount, scale, rate=rate)


def critic_of_actions(
    model: Program, guide: Program | None, example: Mapping[str, Tensor], hidden: Sequence[int]
) -> ActionValues:
    """Make critics of observations and actions like an example's, in the unit of the model's rewards.

    That unit is the model's ``temperature``, or one where it has no attribute of that name.

    Raises:
        UsageError: where observations are whole numbers, and no table of the policy's tells how many there are.
        ProgramError: where an action in a box is no vector.
    """
    check_widths(critic_hidden=hidden)
    with rehearsal(modules_of(model, guide).values()), torch.no_grad():
        policy = choices(model, or_nothing(guide), example).policy
    observation = example["observation"]
    count = num_observations(guide, observation)
    is_choice = isinstance(policy, dist.Categorical)
    if not is_choice and len(policy.event_shape) != 1:
        raise ProgramError(
            f"site 'action' has events of shape {tuple(policy.event_shape)}, expected a vector of an action's "
            f"coordinates: give its distribution .to_event(1)"
        )
    return ActionValues(
        observation.shape[2:],
        num_observations=count,
        num_actions=policy.logits.shape[-1] if is_choice else None,
        num_action_dims=None if is_choice else policy.event_shape[0],
        hidden=hidden,
        scale=scale_of_values(model),
    )
