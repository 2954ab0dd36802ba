r"""Planning as inference: policies that look ahead with a model of the world, and draw and weigh plans.

A plan is :math:`a_{1:H}`, actions that are taken whatever comes. Of plans that are drawn from a proposal
:math:`q(a_{1:H})` and tried out in the model, those of the posterior given that all steps are optimal have weights

.. math:: w \propto \frac{p(a_{1:H}) \, e^{\sum_t r_t / \alpha}}{q(a_{1:H})}

and the proposal is fitted to them by maximum likelihood, so that it comes as near to the posterior
in :math:`\mathrm{KL}(p \| q)` as it can. Methods differ in what they take for the weights:
:class:`~pyrogen.models.MPPI` takes them as they are, and :class:`~pyrogen.models.CEM` ones and zeros.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from pyrogen.distributions import TanhNormal
from pyrogen.errors import ProgramError, UsageError
from pyrogen.models.policy import Policy, trajectory_plates
from pyrogen.world import World, imagine

__all__ = ["Planner"]


class Planner(PyroModule):
    r"""A policy that plans anew at each step, by proposals of normal plans, and takes the first action.

    .. math:: q(a_{1:H}) = \prod_t \mathcal{N}(u_t; m_t, \sigma_t^2), \quad a_t = \tanh u_t

    where actions are bounded, and else :math:`a_t = u_t`. It begins with its last plan, shifted by one step, and zero
    for the step that is new, where an episode ends, too: ``planner.plan[:, ended] = 0`` lets it begin anew. Nothing of
    the action is left to chance but the drawing of plans: the site ``action`` has the log-density zero, and plans are
    drawn under no handler.

    In a world that draws, the weights of plans that are tried once are those of plans *and* of luck, and the posterior
    is the exact one, see :func:`~pyrogen.evaluation.posterior_values`. The mean return over many futures is what a plan
    is worth by itself, as in :func:`~pyrogen.evaluation.variational_values`.

    Args:
        world: what a step brings, a :data:`~pyrogen.world.World`.
        num_dims: the number of coordinates of an action.
        horizon: :math:`H`, how many steps a plan has.
        num_samples: how many plans are drawn.
        num_iterations: how often the proposal is fitted, before an action.
        num_futures: how often each plan is tried out.
        num_environments: for how many environments it plans, each by itself.
        scale: :math:`\sigma` of the first proposal, of :math:`u`.
        bounded: whether actions lie in :math:`(-1, 1)`.

    Raises:
        UsageError: where a setting is out of range.
    """

    plan: Tensor

    def __init__(
        self,
        world: World,
        num_dims: int,
        *,
        horizon: int,
        num_samples: int,
        num_iterations: int,
        num_futures: int,
        num_environments: int,
        scale: float,
        bounded: bool,
    ) -> None:
        super().__init__()
        numbers = {
            "num_dims": num_dims, "horizon": horizon, "num_samples": num_samples, "num_iterations": num_iterations,
            "num_futures": num_futures, "num_environments": num_environments,
        }  # fmt: skip
        for name, number in numbers.items():
            if number < 1:
                raise UsageError(f"{name} must be at least 1, found {number}")
        if not scale > 0:
            raise UsageError(f"scale must be above 0, found {scale}")
        self.world = world
        self.num_samples, self.num_iterations, self.num_futures = num_samples, num_iterations, num_futures
        self.scale = scale
        self.bounded = bounded
        self.register_buffer("plan", torch.zeros(horizon, num_environments, num_dims))

    def fitted(self, observation: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Fit a proposal, shapes ``(horizon, environments, num_dims)``, to the weights of plans drawn from it."""
        raise NotImplementedError  # a PyroModule cannot be an ABC

    def proposal(self, loc: Tensor, scale: Tensor) -> TorchDistribution:
        """Return the distribution of actions for parameters of the coordinates :math:`u`."""
        return (TanhNormal if self.bounded else dist.Normal)(loc, scale).to_event(1)

    def coordinates(self, action: Tensor) -> Tensor:
        """Return :math:`u` of actions."""
        return action.atanh() if self.bounded else action

    @torch.no_grad()
    def forward(self, observation: Tensor, **recorded: Any) -> Tensor:
        """Plan for observations of shape ``(1, environments, ...)``, and draw the action that each plan begins with."""
        environments = self.plan.shape[1]
        if observation.shape[:2] != (1, environments):
            raise UsageError(
                f"observation has shape {tuple(observation.shape)}, expected (1, {environments}, ...): a planner acts "
                f"one step at a time, in as many environments as num_environments says"
            )
        loc, scale = self.plan, torch.full_like(self.plan, self.scale)
        for _ in range(self.num_iterations):
            loc, scale = self.fitted(observation[0], loc, scale)
            if is_validation_enabled() and not loc.isfinite().all():
                raise ProgramError(
                    "of the plans that were tried, the best have no finite return, or no density under the prior: look "
                    "at what the world makes of actions within bounds"
                )
        self.plan.copy_(torch.cat([loc[1:], torch.zeros_like(loc[:1])]))
        action = loc[:1].tanh() if self.bounded else loc[:1]
        with trajectory_plates(observation):
            return pyro.sample("action", dist.Delta(action, event_dim=1))

    def imagined(self, observation: Tensor, action: Tensor, prior: Policy | None = None) -> tuple[Tensor, Tensor]:
        r"""Try plans out; one whose return is no number is worth least of all.

        Args:
            observation: where they begin, shape ``(environments, ...)``.
            action: plans, shape ``(num_samples, horizon, environments, num_dims)``.
            prior: of whose actions to add up the log-densities.

        Returns:
            :math:`\sum_t r_t` and :math:`\sum_t \log p(a_t \mid s_t)`, means over futures, shape
            ``(num_samples, environments)``.
        """
        tried = action.expand(self.num_futures, *action.shape).movedim(2, 0)
        s = observation.expand(*tried.shape[1:3], *observation.shape)
        returns, states = torch.zeros(tried.shape[1:-1], dtype=action.dtype, device=action.device), []
        for a in tried:
            states.append(s)
            s, reward = imagine(self.world, s, a, returns.shape)
            returns = returns + reward
        returns = torch.where(returns.isnan(), -torch.inf, returns)
        if prior is None:
            return returns.mean(0), torch.zeros_like(returns[0])
        return returns.mean(0), prior.distribution(torch.stack(states)).log_prob(tried).sum(0).mean(0)
