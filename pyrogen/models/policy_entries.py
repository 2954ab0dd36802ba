"""Policies by name, with plain settings."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Literal

import torch
from torch import nn

from pyrogen.environment_spec import EnvironmentSpec
from pyrogen.errors import UsageError
from pyrogen.models.policy import (
    CategoricalPolicy,
    OptimalTrajectories,
    Policy,
    TanhNormalPolicy,
    UniformBox,
    UniformChoice,
)
from pyrogen.models.state_dependent_exploration import StateDependentExploration
from pyrogen.nn import MLP, check_widths
from pyrogen.preference import acts, usual

__all__ = ["policy"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}

LAST = 0.01
"""What the weights of the last layer begin with, beside others': a policy that is nearly the same everywhere."""


@acts
@usual(objective="kl-control")
def policy(
    spec: EnvironmentSpec,
    *,
    hidden: Sequence[int] = (64, 64),
    activation: Literal["tanh", "relu", "silu"] = "tanh",
    temperature: float = 1.0,
    exploration: Literal["independent", "state-dependent"] = "independent",
    noise_steps: int = 64,
    copies: int = 1,
) -> tuple[OptimalTrajectories, Policy]:
    """Make optimal trajectories of a uniform prior, and a policy that is a network: a choice, or a squashed normal.

    Args:
        spec: shapes of observations and actions.
        hidden: widths of the hidden layers.
        activation: tanh, relu or silu.
        temperature: of the factor of rewards, in their unit; a higher one keeps the policy nearer to the prior.
        exploration: independent noise in each step, or state-dependent noise that is kept for some, in a box.
        noise_steps: for how many steps it is kept.
        copies: of the environment that are acted in, each with a noise of its own to keep.

    Returns:
        The model and the policy, which is its guide.

    Raises:
        UsageError: for a setting out of range.

    Example:
        >>> model, guide = policy(EnvironmentSpec("CartPole-v1", (4,), num_actions=2), hidden=(8,))
        >>> guide(torch.zeros(5, 3, 4)).shape
        torch.Size([5, 3])
    """
    check_widths(hidden=hidden)
    if activation not in ACTIVATIONS:
        raise UsageError(f"unknown activation {activation!r}: choose from {', '.join(ACTIVATIONS)}")
    if exploration == "state-dependent":
        kept = _exploring(spec, hidden, ACTIVATIONS[activation], copies, noise_steps)
        return OptimalTrajectories(UniformBox(spec.num_action_dims or 1), temperature), kept
    num_outputs = spec.num_actions or 2 * (spec.num_action_dims or 0)
    network = _even(_network(spec, num_outputs, hidden, ACTIVATIONS[activation]))
    if spec.num_action_dims is None:
        return OptimalTrajectories(UniformChoice(num_outputs), temperature), CategoricalPolicy(network)
    return OptimalTrajectories(UniformBox(spec.num_action_dims), temperature), TanhNormalPolicy(network)


def _network(
    spec: EnvironmentSpec, num_outputs: int, hidden: Sequence[int], activation: Callable[[], nn.Module]
) -> nn.Module:
    """Make a network of observations; whole numbers choose a row of the first layer."""
    if spec.num_observations is not None:
        if not hidden:
            return nn.Embedding(spec.num_observations, num_outputs)
        table = nn.Embedding(spec.num_observations, hidden[0])
        return nn.Sequential(table, activation(), MLP(hidden[0], num_outputs, hidden[1:], activation))
    if not spec.observation_shape:
        raise UsageError(f"{spec.name} has observations of no dimension: make them vectors of one number")
    network = MLP(prod(spec.observation_shape), num_outputs, hidden, activation)
    dims = len(spec.observation_shape)
    return network if dims == 1 else nn.Sequential(nn.Flatten(-dims), network)


def _exploring(
    spec: EnvironmentSpec, hidden: Sequence[int], activation: Callable[[], nn.Module], copies: int, num_steps: int
) -> StateDependentExploration:
    """Make a policy whose noise is linear in the last hidden layer."""
    if spec.num_action_dims is None or not hidden:
        raise UsageError(
            "state-dependent exploration is of actions in a box, with a hidden layer: choose --exploration independent"
        )
    *before, last = hidden
    features = nn.Sequential(_network(spec, last, before, activation), activation())
    return StateDependentExploration(features, last, spec.num_action_dims, num_environments=copies, num_steps=num_steps)


def _even(network: nn.Module) -> nn.Module:
    """Let a network begin with nearly the same outputs for all inputs."""
    *_, last = network.modules()
    with torch.no_grad():
        for name, p in last.named_parameters():
            p.mul_(LAST if name == "weight" else 0.0)
    return network
