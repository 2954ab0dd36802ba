"""What programs and critics say of actions at replayed observations, those that were never taken included."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyrogen.errors import ProgramError, UsageError
from pyrogen.inference.draws import Draws
from pyrogen.inference.recordings import replayed
from pyrogen.inference.returns import lambda_returns
from pyrogen.sites import Program, is_latent, sample_sites

__all__ = [
    "Choices",
    "action_values",
    "check_settings",
    "choices",
    "next_choices",
    "td_targets",
    "values_taken",
]

NEEDED = ("observation", "action", "next_observation", "terminated", "truncated")


class Choices(NamedTuple):
    r"""What programs say of the action at each of some observations, in plates of shape ``(1, batch)``.

    Attributes:
        policy: the guide's :math:`q(a \mid s)`.
        prior: the model's :math:`p(a \mid s)`.
        optimality: the logarithm of the model's factors, such as :math:`r / \alpha`, in nats, shape ``(1, batch)``.
    """

    policy: TorchDistribution
    prior: TorchDistribution
    optimality: Tensor


def choices(model: Program, guide: Program, columns: Mapping[str, Any]) -> Choices:
    """Run programs on transitions, of which they see everything but how likely an action was when it was taken.

    Raises:
        UsageError: where transitions lack a column.
        ProgramError: where the guide draws anything but ``action``, or a site is scaled or masked, and as in
            :func:`~pyrogen.inference.recordings.replayed`.
    """
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise UsageError(
            f"transitions lack {', '.join(missing)}: pass a dict of columns, as pyrogen.data.Replay makes them; found "
            f"{', '.join(columns) or 'none'}"
        )
    traces = replayed(model, guide, (), {name: column for name, column in columns.items() if name != "log_prob"})
    latents = [site["name"] for site in filter(is_latent, sample_sites(traces.guide))]
    if latents != ["action"]:
        raise ProgramError(
            f"the guide draws {', '.join(latents)}, expected 'action' alone: values are those of one action at each "
            f"step, whose parts go into its event with .to_event(...)"
        )
    for trace in traces[:2]:
        site = trace.nodes["action"]
        if site["scale"] != 1.0 or site["mask"] is not None:
            raise ProgramError(
                "site 'action' is scaled or masked, which transitions that are drawn at random leave no room for: put "
                "the weight of the prior into the temperature of the model's factor"
            )
    factors = [site["log_prob"] for site in sample_sites(traces.model) if not is_latent(site)]
    return Choices(traces.guide.nodes["action"]["fn"], traces.model.nodes["action"]["fn"], torch.stack(factors).sum(0))


def next_choices(model: Program, guide: Program, columns: Mapping[str, Any]) -> Choices:
    """Run programs on the observations that transitions led to; factors are those of the transitions themselves."""
    return choices(model, guide, {**columns, "observation": columns.get("next_observation")})


def action_values(critic: nn.Module, observation: Tensor, draws: Draws) -> Tensor:
    """Return what each of several critics says of actions, shape ``(num_critics, n, 1, batch)``.

    Raises:
        ProgramError: where a critic returns another shape.
    """
    expected = draws.log_prob.shape
    if draws.is_choice:
        values = critic(observation).movedim(-1, 1)
    else:
        values = critic(observation.expand(len(draws.actions), *observation.shape), draws.actions)
    if values.shape[1:] != expected:
        raise ProgramError(
            f"the critic returned shape {tuple(values.shape)}, expected (num_critics, {', '.join(map(str, expected))}) "
            f"for actions of shape {tuple(draws.actions.shape)}: pyrogen.nn.ActionValues of as many actions"
        )
    return values


def values_taken(critic: nn.Module, columns: Mapping[str, Tensor]) -> Tensor:
    """Return what each of several critics says of the actions that were taken, shape ``(num_critics, 1, batch)``.

    Raises:
        ProgramError: where a critic returns another shape.
    """
    values, expected = critic(columns["observation"], columns["action"]), columns["terminated"].shape
    if values.shape[1:] != expected:
        raise ProgramError(
            f"the critic returned shape {tuple(values.shape)} for actions that were taken, expected (num_critics, "
            f"{', '.join(map(str, expected))}): pyrogen.nn.ActionValues of as many actions"
        )
    return values


def td_targets(columns: Mapping[str, Tensor], rewards: Tensor, next_values: Tensor, discount: float) -> Tensor:
    r"""Return :math:`r + \gamma V(s')`, without :math:`V` where the episode terminated; truncation ends nothing."""
    return lambda_returns(rewards, next_values, columns["terminated"], columns["truncated"], discount, decay=0.0)


def check_settings(discount: float, rate: float, **numbers: int) -> None:
    """Refuse settings of critics and of the copies that follow them, and numbers, that are out of range.

    Raises:
        UsageError: that names the setting.
    """
    if not 0 <= discount <= 1:
        raise UsageError(f"discount must be between 0 and 1, found {discount}")
    if not 0 < rate <= 1:
        raise UsageError(f"rate must be above 0 and at most 1, found {rate}")
    for name, number in numbers.items():
        if number < 1:
            raise UsageError(f"{name} must be at least 1, found {number}")
