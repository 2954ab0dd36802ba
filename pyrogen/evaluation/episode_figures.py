"""What whole episodes of a policy bring, and how far it is from its prior."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import kl_divergence

from pyrogen.evaluation.episodes import Episodes, summed
from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.pairing import check_pairing
from pyrogen.sites import Program, is_latent, sample_sites

__all__ = ["divergence_figures", "return_figures"]


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
    factor of a step is what the model observes of it, :math:`r_t / \alpha`. Where the policy draws more than an action,
    :math:`a` is all of it, and both are sums over its sites, each given those before it. They are in closed form where
    there is one, else of one value that is drawn anew for each step. Standard errors are over episodes, since the steps
    of one depend on each other.

    Args:
        model: the prior policy with a factor for rewards, as :class:`~pyrogen.models.OptimalTrajectories`.
        guide: the policy.
        episodes: that it drew; of its modes, the first two say what it would be like in these states, and the last
            is no bound.

    Raises:
        ProgramError: where one of both programs draws what the other does not.

    Example:
        >>> from pyrogen.data import TabularEnvironment
        >>> from pyrogen.evaluation import play
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
    check_pairing(trace, drawn)
    drawn.compute_log_prob()
    trace.compute_log_prob()
    pairs = [(site, trace.nodes[site["name"]]) for site in filter(is_latent, sample_sites(drawn))]
    factors = [site["log_prob"] for site in sample_sites(trace) if site["is_observed"]]
    entropy = torch.stack([_entropy(q) for q, _ in pairs]).sum(0)
    divergence = torch.stack([_divergence(q, p) for q, p in pairs]).sum(0)
    worth = sum(factors, -divergence)
    count = len(episodes.returns)
    sums = {
        name: summed(values.cpu().double(), episodes.episode, count)
        for name, values in {"entropy": entropy, "kl_to_prior": divergence, "elbo": worth}.items()
    }
    elbo = mean(sums.pop("elbo"), "nats")
    return {name: _per_step(values, episodes.lengths.double()) for name, values in sums.items()} | {"elbo": elbo}


def _entropy(q: Mapping[str, Any]) -> Tensor:
    return _closed(lambda: q["fn"].entropy(), -q["log_prob"]).expand_as(q["log_prob"])


def _divergence(q: Mapping[str, Any], p: Mapping[str, Any]) -> Tensor:
    found = _closed(lambda: kl_divergence(q["fn"], p["fn"]), q["log_prob"] - p["log_prob"])
    return found.expand_as(q["log_prob"])


def _closed(formula: Callable[[], Tensor], otherwise: Tensor) -> Tensor:
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
