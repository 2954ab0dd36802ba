"""A fit under way: its players, its position in the data, and its steps."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from textwrap import shorten
from typing import Any, Literal

import pyro
import torch
from torch import Tensor, nn

from pyrogen.errors import InfeasibleStartError, NonFiniteError, ProgramError
from pyrogen.inference.diagnosis import site_table
from pyrogen.inference.feed import Batch, Feed
from pyrogen.inference.objective import Objective
from pyrogen.inference.objective import Player as Kind
from pyrogen.inference.player import Player
from pyrogen.inference.turns import Outcome, Turn, loss_of
from pyrogen.parameters import (
    check_held,
    check_one_device,
    live_state,
    modules_of,
    program_parameters,
    running_statistics,
    take_state,
)
from pyrogen.rehearsal import buffers_restored, get_rng_state, rehearsal, set_rng_state
from pyrogen.schedule import Schedule, check_shared, schedules
from pyrogen.sites import Program

__all__ = ["Step", "Training"]

CHECK_EVERY = 50
"""Steps between looks at an accelerator's flag for non-finite steps: each look makes the host wait."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one round of steps left behind; the tensors stay on the device until somebody reads them.

    Attributes:
        index: how many rounds have been done.
        epoch: which pass over the batches the last batch came from, from zero.
        loss: the programs' last loss, shape ``()``.
        grad_norm: the norm of its gradient before clipping, shape ``()``.
        critic_loss: the critic's last loss, shape ``()``; ``None`` without a critic.
        critic_grad_norm: the norm of its gradient, likewise.
        rows: the length of the first tensor in the programs' last batch; 1 without data.
    """

    index: int
    epoch: int
    loss: Tensor
    grad_norm: Tensor
    critic_loss: Tensor | None
    critic_grad_norm: Tensor | None
    rows: int


class Training(Iterator[Step]):
    """The state of a fit, and an iterator over its steps. Made by :func:`pyrogen.inference.train`."""

    def __init__(
        self,
        objective: Objective,
        model: Program,
        guide: Program | None,
        feed: Feed,
        make_programs: partial[Player],
        make_critic: partial[Player] | None,
        *,
        steps: tuple[int, int],
        simultaneous: bool,
        num_steps: int | None,
        epochs: int | None,
        device: torch.device | None,
        validate: bool,
        compile: bool | Literal["capture"],
    ) -> None:
        self.objective, self.model, self.guide, self.feed = objective, model, guide, feed
        self.steps, self.simultaneous = steps, simultaneous
        self.num_steps, self.epochs = num_steps, epochs
        self.device, self.validate, self.compile = device, validate, compile
        self.index = 0
        self.programs: Player | None = None
        self.critic: Player | None = None
        self.parameters: dict[str, Tensor] = {}
        self.example: dict[str, Any] = {}
        self.modules: list[nn.Module] = []
        self.schedules: list[Schedule] = []
        self._make_programs, self._make_critic = make_programs, make_critic
        self._pending: Mapping[str, Any] | None = None
        self._healthy: Tensor | None = None
        self._graphs: dict[tuple[Kind, ...], Turn] = {}
        programs: list[tuple[Kind, ...]] = [("programs",)] * steps[0]
        critic: list[tuple[Kind, ...]] = [("critic",)] * (steps[1] if make_critic is not None else 0)
        # Whose turn it is in a round, one after the other; who steps at the same point shares a turn.
        self._order: list[tuple[Kind, ...]] = [("critic", "programs")] if simultaneous and critic else critic + programs

    def __repr__(self) -> str:
        total = "" if self.num_steps is None else f" of {self.num_steps:,}"
        parameters = f", {sum(p.numel() for p in self.parameters.values()):,} parameters" if self.parameters else ""
        return f"Training({type(self.objective).__name__}, step {self.index:,}{total}{parameters})"

    def __iter__(self) -> "Training":
        return self

    def __next__(self) -> Step:
        if self.programs is None and self.device is None:
            self.device = check_one_device(self.model, self.guide, self.objective)
        try:
            batch = self._first_batch()
        except StopIteration:
            self._check_health()
            raise
        if self.programs is None:
            self._prepare(batch)
            if self._pending is not None:
                state, self._pending = self._pending, None
                self._take(state)
                return next(self)
        return self._round(batch)

    def _first_batch(self) -> Batch:
        """Draw the first batch of a round, or stop where the last round was the last."""
        if self.num_steps is not None and self.index >= self.num_steps:
            raise StopIteration
        if self.epochs is not None and self.feed.epoch >= self.epochs:
            raise StopIteration
        return self.feed.draw(self.device, self.epochs)

    @property
    def is_grown(self) -> bool:
        """Whether all schedules within the programs and the objective are done, so that draws can be judged."""
        return all(schedule.is_done for schedule in self.schedules)

    def averaged(self) -> AbstractContextManager[None]:
        """Put the moving average of the programs' parameters, if one is kept, in their place for a ``with`` body."""
        return nullcontext() if self.programs is None or self.programs.ema is None else self.programs.averaged()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on, as nested dicts of tensors and plain values.

        Raises:
            ProgramError: before the first step, when nothing is known yet.
        """
        if self._pending is not None:
            return dict(self._pending)
        if self.programs is None:
            raise ProgramError("there is no state to save before the first step")
        self._check_health()
        return {
            "index": self.index,
            "programs": {
                name: tensor.detach().clone()
                for name, tensor in live_state((self.model, self.guide), self.parameters).items()
            },
            "objective": deepcopy(dict(self.objective.state_dict())),
            "player": self.programs.state_dict(),
            "critic": None if self.critic is None else self.critic.state_dict(),
            "feed": self.feed.state_dict(),
            "rng": get_rng_state(),
            "example": self.example,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state of :meth:`state_dict`; with programs that have not run yet, at the first step.

        Raises:
            ProgramError: where names or shapes of the parameters differ, with the difference.
        """
        if self.programs is None:
            self._pending = state
        else:
            self._take(state)

    def _take(self, state: Mapping[str, Any]) -> None:
        assert self.programs is not None
        take_state((self.model, self.guide), self.parameters, state["programs"])
        self.objective.load_state_dict(state["objective"])
        self.programs.load_state_dict(state["player"])
        if self.critic is not None:
            self.critic.load_state_dict(state["critic"])
        self.index = state["index"]
        self.feed.load_state_dict(state["feed"])
        set_rng_state(state["rng"])
        assert self._healthy is not None
        self._healthy.fill_(True)
        self._graphs.clear()  # they change the tensors that the optimisers had before

    def _prepare(self, batch: Batch) -> None:
        """Rehearse the first step: find the parameters, check that all fits together, make the optimisers."""
        args, kwargs = batch
        programs = (self.model, self.guide)
        with (
            rehearsal([*modules_of(*programs).values(), self.objective]),
            self._explaining(batch, InfeasibleStartError),
        ):
            run = partial(self.objective, self.model, self.guide, *args, **kwargs)
            self.parameters, loss = program_parameters(programs, run)
            losses = [loss]
            critic_parameters = {f"critic.{n}": p for n, p in self.objective.named_parameters() if p.requires_grad}
            if critic_parameters:
                losses.append(self.objective.critic_loss(self.model, self.guide, *args, **kwargs))
        for value in losses:
            if not isinstance(value, Tensor) or value.dim() != 0:
                raise ProgramError(f"{type(self.objective).__name__} must return a scalar tensor, found {value!r}")
            value = value.detach()
            if not torch.isfinite(value):
                raise InfeasibleStartError(
                    f"the first loss is {float(value)}: some site has no density at the initial values, or data are "
                    f"not finite. Change the initial values or the data.\n"
                    f"{site_table(self.model, self.guide, *args, **kwargs)}"
                )
        self._make_players(critic_parameters, losses, [*args, *kwargs.values()])
        self.modules = list(modules_of(*programs).values())
        self.schedules = schedules([*self.modules, self.objective])
        check_shared(self.schedules)
        if self.device is None:
            self.device = losses[0].device
        self._healthy = torch.ones((), dtype=torch.bool, device=losses[0].device)
        self.example = {
            "args": [_outline(x) for x in args],
            "kwargs": {name: _outline(x) for name, x in kwargs.items()},
        }

    def _make_players(self, critic_parameters: Mapping[str, Tensor], losses: list[Tensor], inputs: list[Any]) -> None:
        name = type(self.objective).__name__
        if critic_parameters and self._make_critic is None:
            raise ProgramError(f"{name} has a critic: pass critic_optimizer, too")
        if self._make_critic is not None and not critic_parameters:
            raise ProgramError(f"{name} has no critic: leave critic_optimizer out")
        self.programs = self._make_programs(self.parameters, statistics=running_statistics((self.model, self.guide)))
        self.critic = None if self._make_critic is None else self._make_critic(critic_parameters)
        held = [*self.programs.parameters, *(self.critic.parameters if self.critic else ())]
        named = self.parameters | dict(critic_parameters)
        for loss in losses:
            check_held(loss, named, held, (self.model, self.guide, self.objective), inputs)

    def _round(self, batch: Batch) -> Step:
        assert self.programs is not None
        batches = self._batches(batch)
        outcomes: dict[Kind, Outcome] = {}
        for kinds in self._order:
            drawn = {kind: next(batches) for kind in kinds}
            outcomes |= self._turn(drawn)
        self.index += 1
        changed = [schedule.advance() for schedule in self.schedules]
        if any(changed):
            self._graphs.clear()
        last, critic = outcomes["programs"], outcomes.get("critic")
        return Step(
            index=self.index,
            epoch=self.feed.epoch,
            loss=last.loss,
            grad_norm=last.norm,
            critic_loss=None if critic is None else critic.loss,
            critic_grad_norm=None if critic is None else critic.norm,
            rows=_rows(drawn["programs"]),
        )

    def _batches(self, first: Batch) -> Iterator[Batch]:
        yield first
        while True:
            yield self.feed.draw(self.device)

    def _turn(self, drawn: dict[Kind, Batch]) -> dict[Kind, Outcome]:
        """Take the step of one player, or of both at the same point."""
        rng = torch.get_rng_state()
        if self.compile:
            turn = self._captured_turn(tuple(drawn))
            with self._explaining(next(iter(drawn.values())), NonFiniteError):
                outcomes = turn(list(drawn.values()))
            if outcomes is not None:
                self._look(outcomes, drawn, rng)
                for kind in drawn:
                    if turn.takes_steps:
                        self._player(kind).advance()
                    else:
                        self._apply(kind, outcomes[kind].finite)
                return outcomes
        outcomes = {kind: self._gradient(kind, batch) for kind, batch in drawn.items()}
        for kind, outcome in outcomes.items():
            self._apply(kind, outcome.finite)
        return outcomes

    def _captured_turn(self, kinds: tuple[Kind, ...]) -> Turn:
        if kinds not in self._graphs:
            players = {kind: self._player(kind) for kind in kinds}
            assert self._healthy is not None
            self._graphs[kinds] = Turn(
                self.objective, self.model, self.guide, players, self.modules, self._healthy, self.compile != "capture"
            )
        return self._graphs[kinds]

    def _player(self, kind: Kind) -> Player:
        player = self.critic if kind == "critic" else self.programs
        assert player is not None
        return player

    def _gradient(self, kind: Kind, batch: Batch) -> Outcome:
        """Compute one player's loss and gradient, with the other's buffers kept.

        The player's own buffers are kept, too, if the step is not finite.
        """
        player = self._player(kind)
        own, others = ([self.objective], self.modules) if kind == "critic" else (self.modules, [self.objective])
        rng = torch.get_rng_state()
        kept = [(buffer, buffer.clone()) for module in own for buffer in module.buffers()]
        validation = nullcontext() if self.validate else pyro.validation_enabled(False)
        with buffers_restored(others), validation, self._explaining(batch, NonFiniteError):
            loss = loss_of(self.objective, kind, self.model, self.guide, batch)
            norm, finite = player.backward(loss)
        self._note(finite)
        for buffer, value in kept:
            buffer.copy_(torch.where(finite, buffer, value))
        outcome = Outcome(loss.detach(), norm, finite)
        if self._looks(finite) and not finite:
            self._stop(player, outcome, batch, rng)
        return outcome

    def _looks(self, finite: Tensor) -> bool:
        """Tell whether the host looks at a flag now: at each step where that is free, else now and then."""
        return finite.device.type == "cpu" or self.index % CHECK_EVERY == 0

    def _look(self, outcomes: Mapping[Kind, Outcome], drawn: Mapping[Kind, Batch], rng: Tensor) -> None:
        """Stop where a graph's step was not finite: repeat it without a graph, to see whose gradient was not."""
        finite = next(iter(outcomes.values())).finite
        if not self._looks(finite) or finite:
            return
        torch.set_rng_state(rng)
        for kind, batch in drawn.items():
            player, before = self._player(kind), torch.get_rng_state()
            with buffers_restored([*self.modules, self.objective]), pyro.validation_enabled(False):
                _, fine = player.backward(loss_of(self.objective, kind, self.model, self.guide, batch))
            if not fine or kind == list(drawn)[-1]:
                self._stop(player, outcomes[kind], batch, before)

    @contextmanager
    def _explaining(self, batch: Batch, kind: type[NonFiniteError]) -> Iterator[None]:
        """Turn what Pyro's validation says of a value without density into an error with all sites' densities."""
        try:
            yield
        except ValueError as error:
            message = str(error).partition(", but found invalid values")[0]
            if not message.startswith(("Expected parameter", "Expected value argument", "Error while computing")):
                raise
            args, kwargs = batch
            raise kind(
                f"step {self.index + 1}: {shorten(message, 240)}. The parameters are those of the step before. "
                f"Lower the learning rate, change the initial values, or mend the data: NaN, values outside of a "
                f"distribution's support, reals that were not standardised.\n"
                f"{site_table(self.model, self.guide, *args, **kwargs)}"
            ) from error

    def _note(self, finite: Tensor) -> None:
        """Remember on the device that a step was not finite, so that none after it is taken."""
        assert self._healthy is not None
        self._healthy &= finite
        finite.copy_(self._healthy)

    def _check_health(self) -> None:
        """Look at what an accelerator remembered since the last look."""
        if self._healthy is not None and self._healthy.device.type != "cpu" and not self._healthy:
            raise NonFiniteError(
                f"a loss or gradient of the last {CHECK_EVERY} steps before step {self.index} was not finite. No step "
                f"was taken since: the parameters are finite. Lower the learning rate or set clip_norm."
            )

    def _apply(self, kind: Kind, finite: Tensor) -> None:
        self._player(kind).step(None if finite.device.type == "cpu" else finite)
        self.objective.after_step(kind)

    def _stop(self, player: Player, outcome: Outcome, batch: Batch, rng: Tensor) -> None:
        args, kwargs = batch
        gradients = player.non_finite()
        torch.set_rng_state(rng)
        raise NonFiniteError(
            f"step {self.index + 1}: the loss is {float(outcome.loss):g}, and the gradient is not finite at "
            f"{', '.join(gradients) or 'no parameter'}. The step was not taken: the parameters are those of the step "
            f"before. Lower the learning rate, set clip_norm, or look at the sites below.\n"
            f"{site_table(self.model, self.guide, *args, **kwargs)}"
        )


def _rows(batch: Batch) -> int:
    tensors = (value for value in (*batch[0], *batch[1].values()) if isinstance(value, Tensor) and value.dim())
    return next((len(tensor) for tensor in tensors), 1)


def _outline(value: Any) -> Any:
    """Return what a program must be given to make its parameters: shape and dtype of a tensor, other values as such."""
    if isinstance(value, Tensor):
        return {"shape": list(value.shape), "dtype": str(value.dtype)}
    return value if isinstance(value, bool | int | float | str | None) else None
