"""What a policy does when it is let go: whole episodes, what they bring, and how far it is from its prior."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import kl_divergence

from pyrogen.errors import DataError, ProgramError, UsageError
from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.parameters import first_device
from pyrogen.sites import Program, sample_sites, unwrapped

__all__ = ["Episodes", "divergence_figures", "play", "return_figures"]


class Episodes(NamedTuple):
    """Whole episodes of several environments, side by side.

    Attributes:
        returns: the sum of each episode's rewards, shape ``(episodes,)``.
        lengths: its number of steps, same shape.
        steps: the columns ``observation``, ``action`` and ``reward``, shapes ``(time, environments, ...)``.
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
        tensor([5., 5., 5., 5., 5., 5., 5.])
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
        rows.append({"observation": seen, "action": action, "reward": outcome.reward.to(seen.device)})
        owners.append(torch.where(number < last, number, -1))
        ended = (outcome.terminated | outcome.truncated).cpu()
        age = torch.where(ended, 0, age + 1)
        number = number + ended.long()
        observation = outcome.observation
        _check(outcome.reward, age * (number < last), longest)
    steps = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    episode = torch.stack(owners)
    return Episodes(
        _summed(steps["reward"].cpu(), episode, num_episodes),
        _summed(torch.ones(episode.shape), episode, num_episodes).long(),
        steps,
        episode,
    )


def _action(policy: Program, observation: Tensor, deterministic: bool) -> Tensor:
    site = poutine.trace(policy).get_trace(observation=observation).nodes.get("action")
    if site is None:
        raise ProgramError("the policy draws no 'action' to act by: name it so")
    if not deterministic:
        return site["value"][0]
    mode = _closed(lambda: site["fn"].mode, torch.tensor(torch.nan))
    if mode.isnan().any():  # as torch says of a uniform distribution
        raise UsageError(
            f"actions of {type(unwrapped(site['fn'])).__name__} have no mode: let the policy draw, with "
            f"deterministic=False"
        )
    return mode[0]


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


def _summed(values: Tensor, episode: Tensor, num_episodes: int) -> Tensor:
    """Add up the steps of each episode."""
    counted = episode >= 0
    total = torch.zeros(num_episodes, dtype=values.dtype)
    return total.index_add(0, episode[counted], values[counted])


def return_figures(episodes: Episodes) -> dict[str, Estimate]:
    """Return the mean return and the mean length of episodes, with standard errors over episodes."""
    return {
        "mean_return": mean(episodes.returns, "reward"),
        "episode_length": mean(episodes.lengths, "steps"),
    }


@torch.no_grad()
def divergence_figures(model: Program, guide: Program, episodes: Episodes) -> dict[str, Estimate]:
    r"""Say how much a policy leaves to chance, how far it is from its prior, and what it is worth in nats.

    .. math::
        \text{entropy} = \mathbb{E}_q[-\log q(a \mid s)], \quad
        \text{kl\_to\_prior} = \mathbb{E}_q\left[\mathrm{KL}(q(a \mid s) \,\|\, p(a \mid s))\right], \quad
        \text{elbo} = \mathbb{E}_q\left[\sum_t \log p(\text{optimal}_t) - \mathrm{KL}(q_t \,\|\, p_t)\right]

    The first two are means over the steps of all episodes, in nats a step, and the last is over episodes, in nats; the
    factor of a step is what the model observes of it, :math:`r_t / \alpha`. Entropies and divergences are in closed
    form where there is one, else of one action that is drawn anew for each step. Standard errors are over episodes,
    since the steps of one depend on each other.

    Args:
        model: the prior policy with a factor for rewards, as :class:`~pyrogen.models.OptimalTrajectories`.
        guide: the policy.
        episodes: that it drew; of its modes, the first two say what it would be like in these states, and the last
            is no bound.

    Example:
        >>> from pyrogen.data import TabularEnvironment
        >>> from pyrogen.mdp import MDP
        >>> from pyrogen.models import OptimalTrajectories, UniformChoice
        >>> world = TabularEnvironment(MDP(torch.full((4, 2, 4), 0.25), torch.ones(4, 2)), 3, horizon=5)
        >>> drawn = play(world, UniformChoice(2), num_episodes=6)
        >>> found = divergence_figures(OptimalTrajectories(UniformChoice(2)), UniformChoice(2), drawn)
        >>> {name: round(figure.value, 3) for name, figure in found.items()}
        {'entropy': 0.693, 'kl_to_prior': 0.0, 'elbo': 5.0}
    """
    columns = {name: column for name, column in episodes.steps.items() if name != "action"}
    drawn = poutine.trace(guide).get_trace(**columns)
    trace = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(**columns)
    drawn.compute_log_prob()
    trace.compute_log_prob()
    q, p = drawn.nodes["action"], trace.nodes["action"]
    factors = [site["log_prob"] for site in sample_sites(trace) if site["is_observed"]]
    entropy = _closed(lambda: q["fn"].entropy(), -q["log_prob"]).expand_as(q["log_prob"])
    divergence = _closed(lambda: kl_divergence(q["fn"], p["fn"]), q["log_prob"] - p["log_prob"])
    divergence = divergence.expand_as(q["log_prob"])
    worth = sum(factors, -divergence)
    count = len(episodes.returns)
    sums = {
        name: _summed(values.cpu().double(), episodes.episode, count)
        for name, values in {"entropy": entropy, "kl_to_prior": divergence, "elbo": worth}.items()
    }
    elbo = mean(sums.pop("elbo"), "nats")
    return {name: _per_step(values, episodes.lengths.double()) for name, values in sums.items()} | {"elbo": elbo}


def _closed(formula: Any, otherwise: Tensor) -> Tensor:
    try:
        return formula()
    except NotImplementedError:
        return otherwise


def _per_step(sums: Tensor, lengths: Tensor) -> Estimate:
    r"""Divide sums over episodes by numbers of steps, :math:`R = \sum_i x_i / \sum_i n_i`, with the error of a ratio.

    .. math:: \mathrm{se}(R)^2 = \frac{N}{N - 1} \frac{\sum_i (x_i - R n_i)^2}{(\sum_i n_i)^2}
    """
    count, total = len(sums), lengths.sum()
    ratio = sums.sum() / total
    square = (sums - ratio * lengths).square().sum() * count / max(count - 1, 1)
    return Estimate(float(ratio), float(square.sqrt() / total) if count > 1 else None, "nats a step")
