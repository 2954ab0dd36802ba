"""What a policy does when it is let go: whole episodes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from pyrogen.errors import DataError, ProgramError, UsageError
from pyrogen.parameters import first_device
from pyrogen.sites import Program, unwrapped

__all__ = ["Episodes", "play", "summed"]


BROUGHT = ("reward", "next_observation", "terminated", "truncated")
"""What a step brings that programs may read, as they do of a recording."""


class Episodes(NamedTuple):
    """Whole episodes of several environments, side by side.

    Attributes:
        returns: the sum of each episode's rewards, in float64, shape ``(episodes,)``.
        lengths: its number of steps, same shape.
        steps: the columns ``observation``, ``action`` and those of an :class:`~pyrogen.data.Outcome`, shapes
            ``(time, environments, ...)``: ``reward``, ``next_observation``, ``terminated`` and ``truncated``.
        episode: which episode each step belongs to, shape ``(time, environments)``; -1 where an environment only waited
            for the others.
    """

    returns: Tensor
    lengths: Tensor
    steps: dict[str, Tensor]
    episode: Tensor


@torch.no_grad()
def play(
    environment: Any,
    policy: Program,
    num_episodes: int,
    *,
    deterministic: bool = False,
    longest: int = 100_000,
    watch: Callable[[], object] | None = None,
) -> Episodes:
    """Let a policy act for a number of whole episodes.

    How many episodes each environment plays is settled before the first: the first to end are the short ones, and
    taking these would make returns those of short episodes.

    Args:
        environment: see :class:`pyrogen.data.Environment`; its rewards are what returns are sums of.
        policy: a program with a site ``action``, called with ``observation`` of shape ``(1, environments, ...)``.
        num_episodes: how many.
        deterministic: take the mode of each action's distribution: what is most probable of a choice, and the
            hyperbolic tangent of the location of a :class:`~pyrogen.distributions.TanhNormal`.
        longest: give up where an episode has more steps.
        watch: called before each step, to draw the environment, say.

    Raises:
        UsageError: where there are no episodes to play, or actions have no mode.
        ProgramError: where the policy draws no ``action``.
        DataError: where a reward is not finite, or an episode does not end.

    Example:
        >>> from pyrogen.data import TabularEnvironment
        >>> from pyrogen.mdp import MDP
        >>> from pyrogen.models import UniformChoice
        >>> world = TabularEnvironment(MDP(torch.full((4, 2, 4), 0.25), torch.ones(4, 2)), 3, horizon=5)
        >>> play(world, UniformChoice(2), num_episodes=7).returns
        tensor([5., 5., 5., 5., 5., 5., 5.], dtype=torch.float64)
    """
    if num_episodes < 1:
        raise UsageError(f"num_episodes must be at least 1, found {num_episodes}")
    count = environment.num_environments
    first = torch.arange(count + 1) * num_episodes // count  # of each environment's episodes
    number, last = first[:-1].clone(), first[1:]
    observation, device = environment.reset(), first_device(policy)
    rows, owners, age = [], [], torch.zeros(count, dtype=torch.long)
    while bool((number < last).any()):
        if watch is not None:
            watch()
        seen = observation if device is None else observation.to(device)
        action = _action(policy, seen.unsqueeze(0), deterministic)
        outcome = environment.step(action)
        brought = {name: getattr(outcome, name).to(seen.device) for name in BROUGHT}
        rows.append({"observation": seen, "action": action, **brought})
        owners.append(torch.where(number < last, number, -1))
        ended = (outcome.terminated | outcome.truncated).cpu()
        age = torch.where(ended, 0, age + 1)
        number = number + ended.long()
        observation = outcome.observation
        _check(outcome.reward, age * (number < last), longest)
    steps = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    episode = torch.stack(owners)
    return Episodes(
        summed(steps["reward"].cpu().double(), episode, num_episodes),
        summed(torch.ones(episode.shape), episode, num_episodes).long(),
        steps,
        episode,
    )


def _action(policy: Program, observation: Tensor, deterministic: bool) -> Tensor:
    site = poutine.trace(policy).get_trace(observation=observation).nodes.get("action")
    if site is None:
        raise ProgramError("the policy draws no 'action' to act by: name it so")
    if not deterministic:
        return site["value"][0]
    mode = _mode(site["fn"])
    if mode.isnan().any():  # as torch says of a uniform distribution
        raise UsageError(
            f"actions of {type(unwrapped(site['fn'])).__name__} have no mode: let the policy draw, with "
            f"deterministic=False"
        )
    return mode[0]


def _mode(distribution: Any) -> Tensor:
    try:
        return distribution.mode
    except NotImplementedError:
        return torch.tensor(torch.nan)


def _check(reward: Tensor, age: Tensor, longest: int) -> None:
    if not reward.isfinite().all():
        where = int((~reward.isfinite()).nonzero()[0])
        raise DataError(
            f"the reward of environment {where} is {float(reward[where])}: look at what it makes of actions"
        )
    if int(age.max()) > longest:
        raise DataError(
            f"environment {int(age.argmax())} has not come to an episode's end in {longest:,} steps: give it a time "
            f"limit, such as max_episode_steps of gymnasium.make"
        )


def summed(values: Tensor, episode: Tensor, num_episodes: int) -> Tensor:
    """Add up the steps of each episode."""
    counted = episode >= 0
    total = torch.zeros(num_episodes, dtype=values.dtype)
    return total.index_add(0, episode[counted], values[counted])
