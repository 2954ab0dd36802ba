"""The step of one player, or of both at the same point, as one graph."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyrogen.inference.feed import Batch
from pyrogen.inference.graphs import Graphs
from pyrogen.inference.objective import Objective
from pyrogen.inference.objective import Player as Kind
from pyrogen.inference.player import Player
from pyrogen.inference.updates import update_for
from pyrogen.rehearsal import buffers_restored, rehearsal
from pyrogen.sites import Program

__all__ = ["Outcome", "Turn", "loss_of"]


class Outcome(NamedTuple):
    """What a player's step brought: the loss, the gradient's norm before clipping, and whether both are finite."""

    loss: Tensor
    norm: Tensor
    finite: Tensor


class Turn:
    """Losses, gradients, clipping, optimisers, moving averages and ``after_step`` in one graph.

    Where an optimiser is not one that :func:`~pyrogen.inference.updates.update_for` knows, the graph ends with the
    gradients, and the optimiser takes its step by itself.

    Args:
        objective: the learning principle.
        model: a Pyro program.
        guide: a Pyro program, or ``None``.
        players: the players that step at the same point, by kind.
        modules: the programs' modules.
        healthy: whether all steps so far were finite, shape ``()``; no step is taken once it is false.
        compiled: compile the graph, or run it operation by operation.
    """

    def __init__(
        self,
        objective: Objective,
        model: Program,
        guide: Program | None,
        players: Mapping[Kind, Player],
        modules: Sequence[nn.Module],
        healthy: Tensor,
        compiled: bool,
    ) -> None:
        self.objective, self.model, self.guide = objective, model, guide
        self.players, self.modules, self.healthy = players, list(modules), healthy
        updates = {kind: update_for(player.optimizer) for kind, player in players.items()}
        self.updates = {kind: update for kind, update in updates.items() if update is not None}
        self.takes_steps = len(self.updates) == len(players)
        self.graphs = Graphs(
            self._compute,
            self._rehearse,
            (model, guide, objective),
            [*modules, objective],
            first=1,
            finite=0,
            free=[healthy],
            tolerance=objective.rounding,
            compiled=compiled,
            depends=self._depends,
        )

    def __call__(self, batches: Sequence[Batch]) -> dict[Kind, Outcome] | None:
        """Compute losses and gradients, one batch a player, and take the steps if :attr:`takes_steps`.

        Returns:
            What it brought; ``None`` where there is no graph for these batches, and nothing was done.
        """
        for update in self.updates.values():
            if update.refresh():
                self.graphs.forget()
        found = self.graphs(batches)
        if found is None:
            return None
        outputs, present = found
        count = len(self.players)
        if not self.takes_steps:
            gradients = iter(outputs[1 + 2 * count :])
            for player, parameters in zip(self.players.values(), present, strict=True):
                player.optimizer.zero_grad(set_to_none=True)
                given: set[int] = set()
                for p in parameters:
                    gradient = next(gradients)
                    # A compiler may return one tensor for two that are equal, and optimisers change gradients.
                    p.grad = gradient.clone() if id(gradient) in given else gradient
                    given.add(id(gradient))
        finite = outputs[0]
        return {k: Outcome(outputs[1 + i], outputs[1 + count + i], finite) for i, k in enumerate(self.players)}

    def _compute(self, batches: Sequence[Batch]) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Return the flag, losses, norms and, if the optimisers want them, gradients; and the parameters of these."""
        losses, norms, gradients, present = [], [], [], []
        finite = self.healthy
        for (kind, player), batch in zip(self.players.items(), batches, strict=True):
            with buffers_restored(self._others(kind)):
                loss = loss_of(self.objective, kind, self.model, self.guide, batch)
                reached, found = player.gradients(loss)
            clipped, norm = player.clipped(found)
            finite = finite & torch.isfinite(loss.detach()) & torch.isfinite(norm)
            losses.append(loss.detach())
            norms.append(norm)
            gradients.append(clipped)
            present.append(reached)
        with torch.no_grad():
            self.healthy.copy_(finite)
            if not self.takes_steps:
                return [finite, *losses, *norms, *chain.from_iterable(gradients)], present
            for (kind, player), reached, clipped in zip(self.players.items(), present, gradients, strict=True):
                self.updates[kind](reached, clipped)
                player.average_in()
                self.objective.after_step(kind)
        return [finite, *losses, *norms], present

    def _rehearse(self, batches: Sequence[Batch]) -> list[Tensor]:
        """Run losses and gradients once, with Pyro's validation as it is set, and make the optimisers' states.

        Returns:
            The losses, then the norms of their gradients.
        """
        losses, norms = [], []
        with rehearsal([*self.modules, self.objective]):
            for (kind, player), batch in zip(self.players.items(), batches, strict=True):
                with buffers_restored(self._others(kind)):
                    loss = loss_of(self.objective, kind, self.model, self.guide, batch)
                    reached, found = player.gradients(loss)
                losses.append(loss.detach())
                norms.append(player.clipped(found)[1])
                if self.takes_steps:
                    self.updates[kind].prepare(reached)
        return [*losses, *norms]

    def _depends(self) -> Hashable:
        return (
            tuple([update.structure for update in self.updates.values()]),
            tuple([player.settings() for player in self.players.values()]),
        )

    def _others(self, kind: Kind) -> list[nn.Module]:
        """List the modules whose buffers a player's loss must leave alone."""
        return self.modules if kind == "critic" else [self.objective]


def loss_of(objective: Objective, kind: Kind, model: Program, guide: Program | None, batch: Batch) -> Tensor:
    """Compute a player's loss on a batch."""
    args, kwargs = batch
    return (objective.critic_loss if kind == "critic" else objective)(model, guide, *args, **kwargs)
