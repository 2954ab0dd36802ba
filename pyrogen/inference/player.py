"""One of the parties of a training: its parameters, its optimiser, and steps that cannot do harm."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from pyro.optim import PyroOptim
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyrogen.errors import ProgramError

__all__ = ["OptimizerLike", "Player", "SchedulerLike"]

OptimizerLike = Optimizer | Callable[[Sequence[Tensor]], Optimizer]
SchedulerLike = Callable[[Optimizer], LRScheduler]


class Player:
    """The holder of some named parameters: takes gradients of them alone, and keeps them finite.

    Args:
        parameters: the player's parameters by name.
        optimizer: a torch optimiser over (some of) them, or a factory of one.
        scheduler: a factory of a learning-rate schedule, which advances with each step.
        clip_norm: gradients of a larger norm are scaled down to it.
        ema: decay of an exponential moving average of the parameters and statistics.
        statistics: buffers that go with the parameters, by name: what batch normalisation remembers of its inputs.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        optimizer: OptimizerLike,
        scheduler: SchedulerLike | None = None,
        clip_norm: float | None = None,
        ema: float | None = None,
        statistics: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.optimizer = _made(optimizer, parameters)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        names = {id(p): name for name, p in parameters.items()}
        self.names = [names.get(id(p), f"parameter {i}") for i, p in enumerate(self.parameters)]
        self.scheduler = None if scheduler is None else scheduler(self.optimizer)
        self.clip_norm = clip_norm
        self.ema = ema
        self._detached = [p.detach() for p in self.parameters]
        self._averaged = dict(zip(self.names, self._detached, strict=True)) | dict(statistics or {})
        self.average = [tensor.clone() for tensor in self._averaged.values()] if ema is not None else []

    def backward(self, loss: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradients, clip them, and return their norm and whether loss and norm are finite."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=[p for p in self.parameters if p.requires_grad])
        grads = [p.grad for p in self.parameters if p.grad is not None]
        norm = get_total_norm(grads)
        if self.clip_norm is not None:
            clip_grads_with_norm_(self.parameters, self.clip_norm, norm)
        return norm, torch.isfinite(loss.detach()) & torch.isfinite(norm)

    def gradients(self, loss: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the parameters that a loss depends on and its gradients, and keep neither."""
        wanted = [p for p in self.parameters if p.requires_grad]
        found = torch.autograd.grad(loss, wanted, allow_unused=True)
        pairs = [(p, g) for p, g in zip(wanted, found, strict=True) if g is not None]
        return [p for p, _ in pairs], [g for _, g in pairs]

    def clipped(self, gradients: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return gradients scaled down to the largest norm allowed, and their norm before."""
        squares = [g.square().sum() for g in gradients] or [self._detached[0].new_zeros(())]
        norm = torch.stack(squares).sum().sqrt()
        if self.clip_norm is None:
            return list(gradients), norm
        factor = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        return [g * factor for g in gradients], norm

    def settings(self) -> tuple[Any, ...]:
        """Return what a captured step depends on: clipping, averaging, and which parameters want gradients."""
        return self.clip_norm, self.ema, *[p.requires_grad for p in self.parameters]

    def average_in(self) -> None:
        """Let the moving average follow the parameters."""
        if self.ema is not None:
            for average, tensor in zip(self.average, self._averaged.values(), strict=True):
                average.copy_(torch.lerp(average, tensor, 1 - self.ema))

    def advance(self) -> None:
        """Let the learning-rate schedule follow a step that was taken by a graph in the optimiser's place."""
        if self.scheduler is not None:
            vars(self.optimizer)["_opt_called"] = True  # what torch's schedules look at to warn of steps left out
            self.scheduler.step()

    def step(self, finite: Tensor | None = None) -> None:
        """Update the parameters; where ``finite`` is given and false, leave every tensor as it was, on the device.

        A learning-rate schedule lives on the host and advances all the same: after a step that is not finite, no other
        is taken.
        """
        before = {} if finite is None else {id(t): t.clone() for t in self._tensors(finite.device)}
        self.optimizer.step()
        if self.ema is not None:
            with torch.no_grad():
                torch._foreach_lerp_(self.average, list(self._averaged.values()), 1 - self.ema)
        if finite is not None:
            for tensor in self._tensors(finite.device):
                # What the optimiser made in this step was nothing before it: zero, as optimisers begin.
                tensor.copy_(torch.where(finite, tensor, before.get(id(tensor), torch.zeros_like(tensor))))
        if self.scheduler is not None:
            self.scheduler.step()

    def _tensors(self, device: torch.device) -> list[Tensor]:
        """List what a step changes on a device; a counter that an optimiser keeps on the host is not in it."""
        state = [value for p in self.parameters for value in self.optimizer.state[p].values() if torch.is_tensor(value)]
        changed = [*self._detached, *state, *self.average]
        return [tensor for tensor in changed if tensor.device == device]

    def non_finite(self) -> list[str]:
        """Name the parameters whose present gradient is not finite."""
        return [
            name
            for name, p in zip(self.names, self.parameters, strict=True)
            if p.grad is not None and not torch.isfinite(p.grad).all()
        ]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the moving average in the parameters' place for the body."""
        tensors = list(self._averaged.values())
        kept = [tensor.clone() for tensor in tensors]
        with torch.no_grad():
            for tensor, value in zip(tensors, self.average, strict=True):
                tensor.copy_(value)
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(tensors, kept, strict=True):
                    tensor.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the states of optimiser, schedule and average; parameters are the programs' own to save."""
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "average": dict(zip(self._averaged, self.average, strict=False)),
        }
        return deepcopy(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a copy of a state of :meth:`state_dict`."""
        self.optimizer.load_state_dict(deepcopy(state["optimizer"]))
        if self.scheduler is not None and state["scheduler"] is not None:
            self.scheduler.load_state_dict(deepcopy(state["scheduler"]))
        for name, average in zip(self._averaged, self.average, strict=False):
            average.copy_(state["average"][name])


def _made(optimizer: OptimizerLike, parameters: Mapping[str, Tensor]) -> Optimizer:
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, PyroOptim):
        raise ProgramError(
            "optimizer must be a torch optimiser or make one from a list of parameters, found one of pyro.optim; for "
            "example: lambda params: torch.optim.Adam(params, lr=1e-3)"
        )
    if not parameters:
        raise ProgramError(
            "there is nothing to fit: the programs have no parameter that requires a gradient. A network that a "
            "function uses must be registered in it: pyro.module('net', net)"
        )
    made = optimizer(list(parameters.values()))
    if not isinstance(made, Optimizer):
        raise ProgramError(
            f"optimizer must be a torch optimiser or make one from a list of parameters, found {type(made).__name__}; "
            f"for example: lambda params: torch.optim.Adam(params, lr=1e-3)"
        )
    return made
