"""Models of the world, by which it is imagined what actions bring."""

from collections.abc import Callable

from pyro import poutine
from torch import Size, Tensor

from pyrogen.errors import ProgramError

__all__ = ["World", "imagine", "transition"]

World = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A function or a Pyro program, known or learned, that may draw.

It is called with observations of shape ``(*batch, ...)`` and actions of shape ``(*batch, ...)``, and returns next
observations, and rewards of shape ``(*batch,)``. Where episodes end, it keeps to observations without rewards.
"""


def imagine(world: World, observation: Tensor, action: Tensor, batch: Size) -> tuple[Tensor, Tensor]:
    """Take a step in a model of the world, whose sites no handler sees: they are imagined.

    Args:
        world: the model.
        observation: shape ``(*batch, ...)``.
        action: shape ``(*batch, ...)``.
        batch: the shape of rewards.

    Raises:
        ProgramError: where rewards have another.

    Example:
        >>> import torch
        >>> def world(position, move):
        ...     return position + move, -position.square().sum(-1)
        >>> imagine(world, torch.ones(3, 1), torch.ones(3, 1), Size([3]))[1]
        tensor([-1., -1., -1.])
    """
    with poutine.block():
        after, reward = world(observation, action)
    return after, _checked(reward, batch)


def transition(world: World, observation: Tensor, action: Tensor, after: Tensor, batch: Size) -> tuple[Tensor, Tensor]:
    r"""Score a step that led somewhere, :math:`\log p(s' \mid s, a)`, by a program with a site ``next_observation``.

    Args:
        world: the model.
        observation: :math:`s`, shape ``(*batch, ...)``.
        action: :math:`a`, shape ``(*batch, ...)``.
        after: :math:`s'`, shape ``(*batch, ...)``.
        batch: the shape of what is returned.

    Returns:
        Log-densities, and rewards.

    Raises:
        ProgramError: where there is no such site, or shapes are others.

    Example:
        >>> import pyro, torch, pyro.distributions as dist
        >>> def world(position, move):
        ...     after = pyro.sample("next_observation", dist.Normal(position + move, 1.0).to_event(1))
        ...     return after, -position.square().sum(-1)
        >>> transition(world, torch.ones(3, 1), torch.ones(3, 1), torch.full((3, 1), 2.0), Size([3]))
        (tensor([-0.9189, -0.9189, -0.9189]), tensor([-1., -1., -1.]))
    """
    with poutine.block():
        given = poutine.condition(world, data={"next_observation": after})
        trace = poutine.trace(given).get_trace(observation, action)
    site = trace.nodes.get("next_observation")
    if site is None:
        raise ProgramError(
            "the world has no site 'next_observation', so that its transitions have no density: draw the next "
            "observation by pyro.sample, or do without backward sampling"
        )
    log_prob = site["fn"].log_prob(after)
    if log_prob.shape != batch:
        raise ProgramError(
            f"site 'next_observation' has log-densities of shape {tuple(log_prob.shape)}, expected {tuple(batch)}: put "
            f"what is left into the event with .to_event(...)"
        )
    return log_prob, _checked(trace.nodes["_RETURN"]["value"][1], batch)


def _checked(reward: Tensor, batch: Size) -> Tensor:
    if reward.shape != batch:
        raise ProgramError(
            f"the world returned rewards of shape {tuple(reward.shape)}, expected one for each action: {tuple(batch)}"
        )
    return reward
