"""Trajectories of several environments, recorded when they are asked for, with the policy as it is then."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pyrogen.data.outcome import Environment
from pyrogen.data.recorder import Actor, Recorder
from pyrogen.errors import UsageError
from pyrogen.sites import Program

__all__ = ["Rollouts"]


class Rollouts:
    r"""Iterate over recordings of a policy, without end; each is made when it is asked for.

    A recording is a dict of columns on the policy's device, time first: ``observation``, ``action``, ``reward``,
    ``next_observation``, ``terminated``, ``truncated``, and ``log_prob``, in nats, of the action under the policy that
    took it. Episodes go on from one recording to the next.

    Where a policy has a ``distribution`` of an observation, and its program draws ``action`` from that and nothing
    else, actions are drawn from it without a trace, by the policy's ``act`` if it has one, and all of a recording are
    scored in one pass.

    Args:
        environment: where to act.
        policy: a program with a site ``action``, called with ``observation`` of shape ``(1, environments, ...)``: the
            guide that learns from the recordings.
        num_steps: how many steps of each environment a recording has.
        uses: how often each recording is learned from.
        minibatches: in how many parts a recording is learned from each time, one after the other, drawn anew for each
            use: groups of equally many environments, or, with ``targets``, of steps.
        targets: further columns of a recording, by which steps can be learned from one by one, computed at the
            beginning of each use from all of its columns as keyword arguments, those of the use before among them:
            :meth:`PPO.targets <pyrogen.inference.PPO.targets>`, applied to programs. What is given out is then one step
            of many environments, ``(1, num_steps * environments)`` or a minibatch of that.
        players: how many draws in a row are of the same part, as many as there are steps in a round of
            :func:`~pyrogen.inference.train`: 2 for a critic and a policy, and 9 with ``steps=(1, 8)``. Where players
            drew by turns from the parts of one recording, each would miss those of the others.

    Raises:
        UsageError: where a number is less than one, or environments, or steps, cannot be parted in equal groups; while
            recording, where what the environment or the policy returns has another shape or type than a column, or a
            target is no new column of the recording's shape.
        ProgramError: where the policy draws no ``action``, while recording.
        DataError: where an observation or a reward is not finite, while recording.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyrogen.data import TabularEnvironment
        >>> from pyrogen.mdp import MDP
        >>> def policy(observation):
        ...     with pyro.plate("time", 1, dim=-2), pyro.plate("environments", 3, dim=-1):
        ...         pyro.sample("action", dist.Categorical(logits=torch.zeros(2)))
        >>> world = TabularEnvironment(MDP(torch.full((4, 2, 4), 0.25), torch.ones(4, 2)), 3)
        >>> recording = next(iter(Rollouts(world, policy, num_steps=5)))
        >>> recording["reward"].shape, sorted(recording)[:3]
        (torch.Size([5, 3]), ['action', 'log_prob', 'next_observation'])
    """

    def __init__(
        self,
        environment: Environment,
        policy: Program,
        num_steps: int,
        *,
        uses: int = 1,
        minibatches: int = 1,
        targets: Callable[..., dict[str, Tensor]] | None = None,
        players: int = 1,
    ) -> None:
        if min(num_steps, uses, minibatches, players) < 1:
            raise UsageError(
                f"num_steps, uses, minibatches and players must be at least 1, found {num_steps}, {uses}, "
                f"{minibatches} and {players}"
            )
        self.num_rows = environment.num_environments * (1 if targets is None else num_steps)
        if self.num_rows % minibatches:
            what = "environments" if targets is None else "steps of all environments"
            raise UsageError(
                f"minibatches={minibatches} does not part {self.num_rows} {what} in equal groups: choose a divisor, or "
                f"other numbers of steps and environments"
            )
        self.environment = environment
        self.recorder = Recorder(environment)
        self.actor = Actor(policy)
        self.num_steps = num_steps
        self.uses = uses
        self.minibatches = minibatches
        self.targets = targets
        self.players = players
        self.recording: dict[str, Tensor] = {}
        self.found: dict[str, Tensor] = {}
        self.in_use: dict[str, Tensor] = {}
        self.groups: list[Tensor] = []
        self.left = 0

    @property
    def num_environment_steps(self) -> int:
        """How many steps all environments have taken."""
        return self.recorder.num_environment_steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            if self.left == 0:
                self.recording = self.recorder.record(self.actor, self.num_steps)
                self.found = {}
                self.left = self.uses * self.minibatches * self.players
            if self.left % (self.minibatches * self.players) == 0:
                self.found = self._found()
                self.in_use = self._in_use()
            self.left -= 1
            yield self.in_use if self.minibatches == 1 else self._minibatch()

    def _found(self) -> dict[str, Tensor]:
        """Return the recording's targets."""
        if self.targets is None:
            return {}
        found, shape = self.targets(**self.recording, **self.found), self.recording["reward"].shape
        for name, column in found.items():
            if name in self.recording or column.shape[:2] != shape:
                raise UsageError(
                    f"targets of a recording are new columns whose shape begins with {tuple(shape)}, found {name!r} of "
                    f"shape {tuple(column.shape)}, beside {', '.join(self.recording)}"
                )
        return found

    def _in_use(self) -> dict[str, Tensor]:
        """Return the recording as it is, or each step by itself, with its targets."""
        if self.targets is None:
            return self.recording
        return {name: column.flatten(0, 1).unsqueeze(0) for name, column in (self.recording | self.found).items()}

    def _minibatch(self) -> dict[str, Tensor]:
        if not self.groups:
            order = torch.randperm(self.num_rows)
            self.groups = list(order.to(self.in_use["reward"].device).chunk(self.minibatches))
        group = self.groups[-1]
        if self.left % self.players == 0:  # the last of the players has it now
            self.groups.pop()
        return {name: column[:, group] for name, column in self.in_use.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return where the episodes are, and the recording that is still to be used."""
        return {
            "recorder": self.recorder.state_dict(),
            "recording": dict(self.recording) if self.left else {},
            "found": dict(self.found) if self.left else {},
            "groups": list(self.groups),
            "left": self.left,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.recorder.load_state_dict(state["recorder"])
        device = self.actor.device
        self.recording = {name: column.to(device) for name, column in state["recording"].items()}
        self.found = {name: column.to(device) for name, column in state["found"].items()}
        self.in_use = self._in_use()
        self.groups = [group.to(device) for group in state["groups"]]
        self.left = state["left"]
