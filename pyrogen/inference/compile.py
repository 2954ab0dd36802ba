"""Programs at the speed of one fused graph.

Dynamo cannot look through Pyro's handlers. Recording what reaches torch can: the handlers run once, in Python, on
tensors without values, and what they did becomes a graph of tensor operations. Loss, gradient and optimiser are
compiled together from it: by ``train(..., compile=True)`` for training loops, by :func:`compile` for any other loop.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import pyro
import torch
from pyro import poutine
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyrogen.errors import ProgramError
from pyrogen.inference.feed import Arguments, Batch
from pyrogen.inference.graphs import Graphs
from pyrogen.inference.objective import Objective, Wrapper
from pyrogen.inference.player import OptimizerLike
from pyrogen.inference.train import train
from pyrogen.parameters import leaves, modules_of, program_parameters
from pyrogen.rehearsal import rehearsal
from pyrogen.sites import Program

__all__ = ["CompiledObjective", "CompiledStep", "compile"]


def compile(
    objective: Objective,
    model: Program,
    guide: Program | None,
    optimizer: OptimizerLike | None = None,
    critic_optimizer: OptimizerLike | None = None,
    **settings: Any,
) -> "CompiledObjective | CompiledStep":
    """Compile an objective on its programs, or a whole step of their training.

    The programs are left as they are, and so are their names in ``state_dict()``. A graph is made when a batch of a new
    signature comes: other shapes, strides, types or devices of arguments, other values of arguments that are neither
    tensors nor floating-point numbers, other modes of modules (``train()``, ``eval()``), other plain numbers in what
    the programs read from attributes, closures and globals. Values of tensors, floating-point arguments, and learning
    rates are inputs of the graph. The noise is the same as without a compiler, from the same generator.

    What cannot be captured runs without a graph, after one :class:`~pyrogen.errors.CompileWarning` that says where and
    why: reads of values (``.item()``, ``if tensor > 0``), shapes that depend on values, NumPy arrays as arguments.

    Args:
        objective: the learning principle.
        model: a Pyro program.
        guide: a Pyro program, or ``None`` where the objective needs none.
        optimizer: as for :func:`~pyrogen.inference.train`. The steps of ``Adam``, ``AdamW`` and ``SGD`` become part of
            the graph; others take theirs after it.
        critic_optimizer: the same for the critic.
        settings: with an optimiser, further ones of :func:`~pyrogen.inference.train`; without, ``compile``.

    Returns:
        Without an optimiser, an objective with the same signature, whose loss hands gradients to ``backward()``: for
        optimisers, accumulation and multi-process training of any kind. With one, a function of a batch that takes a
        whole step and returns the loss before it.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyrogen.inference import ELBO
        >>> def model(x):
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 0.4082))
        >>> pyro.clear_param_store(), pyro.set_rng_seed(0)
        (None, None)
        >>> step = compile(ELBO(), model, guide, lambda p: torch.optim.Adam(p, lr=0.05), compile="capture")
        >>> losses = [float(step(torch.tensor([1.2, -0.4, 0.7, 2.1, 0.3]))) for _ in range(300)]
        >>> bool(abs(pyro.param("loc") - 0.65) < 0.15)
        True
    """
    if optimizer is not None:
        return CompiledStep(objective, model, guide, optimizer, critic_optimizer, **({"compile": True} | settings))
    unknown = settings.keys() - {"compile"}
    if critic_optimizer is not None or unknown:
        raise ProgramError(f"{', '.join(sorted(unknown)) or 'critic_optimizer'}: only together with an optimizer")
    return CompiledObjective(objective, model, guide, **settings)


class CompiledObjective(Wrapper):
    """An objective on programs whose loss and gradient are one graph. Made by :func:`compile`."""

    def __init__(
        self, objective: Objective, model: Program, guide: Program | None, compile: Literal[True, "capture"] = True
    ) -> None:
        super().__init__(objective)
        self._programs = (model, guide)
        self._compiled = compile != "capture"
        self._graphs: dict[str, Graphs] = {}
        self._sites: list[str] = []

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the programs' loss; its gradient is known already, and is handed out by ``backward()``.

        Raises:
            ProgramError: for other programs than it was compiled for.
        """
        return self._loss("programs", model, guide, (args, kwargs))

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the critic's loss, likewise."""
        return self._loss("critic", model, guide, (args, kwargs))

    def _loss(self, kind: str, model: Program, guide: Program | None, batch: Batch) -> Tensor:
        if (model, guide) != self._programs:
            raise ProgramError("these are not the programs that the objective was compiled for: compile it for them")
        eager = self.objective if kind == "programs" else self.objective.critic_loss
        compute = partial(eager, model, guide)
        wants = any(isinstance(x, Tensor) and x.requires_grad for x in (*batch[0], *batch[1].values()))
        if wants or not all(isinstance(handler, TraceMessenger) for handler in _PYRO_STACK):
            return compute(*batch[0], **batch[1])  # gradients of data, or handlers that change what programs mean
        if kind not in self._graphs:
            self._graphs[kind] = self._graphs_of(compute, batch)
        found = self._graphs[kind]([batch])
        if found is None:
            return compute(*batch[0], **batch[1])
        if _PYRO_STACK:
            for name in self._sites:
                pyro.param(name)  # so that Pyro's SVI, which listens, learns what to optimise
        (loss, *gradients), reached = found
        return HandOut.apply(loss, gradients[: len(reached)], *reached)  # unused draws follow

    def _graphs_of(self, compute: Callable[..., Tensor], batch: Batch) -> Graphs:
        modules = [*modules_of(*self._programs).values(), self.objective]
        with rehearsal(modules), poutine.trace(param_only=True) as met:
            program_parameters(self._programs, lambda: compute(*batch[0], **batch[1]))
        self._sites = [name for name in met.trace.param_nodes if name in pyro.get_param_store()]

        def step(batches: Sequence[Batch]) -> tuple[list[Tensor], list[Tensor]]:
            [(args, kwargs)] = batches
            with torch.enable_grad():
                loss = compute(*args, **kwargs)
                reached = [leaf for leaf in leaves(loss) if leaf.requires_grad]
                found = torch.autograd.grad(loss, reached)
            return [loss.detach(), *found], reached

        def rehearse(batches: Sequence[Batch]) -> list[Tensor]:
            with rehearsal(modules):
                outputs, _ = step(batches)
            return outputs

        def depends() -> tuple[Any, ...]:
            wanted = [p.requires_grad for module in modules for p in module.parameters()]
            return *wanted, *map(id, pyro.get_param_store()._params.values())

        watched = (*self._programs, self.objective)
        return Graphs(
            step, rehearse, watched, modules, first=0, tolerance=self.objective.rounding, compiled=self._compiled,
            depends=depends,
        )  # fmt: skip


class HandOut(torch.autograd.Function):
    """A loss whose gradient is known already."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *[weight * gradient for gradient in ctx.gradients]


class CompiledStep:
    """A function of a batch that takes one round of training steps. Made by :func:`compile`.

    Attributes:
        training: what takes the steps, with ``state_dict`` and ``load_state_dict``.
    """

    def __init__(
        self,
        objective: Objective,
        model: Program,
        guide: Program | None,
        optimizer: OptimizerLike,
        critic_optimizer: OptimizerLike | None,
        **settings: Any,
    ) -> None:
        self.batch = Arguments((), {})
        self.training = train(objective, model, guide, self, optimizer, critic_optimizer, **settings)

    def __iter__(self) -> Iterator[Arguments]:
        while True:
            yield self.batch

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Take a step on a batch, the same for both players, and return the programs' loss, shape ``()``."""
        self.batch = Arguments(args, kwargs)
        return next(self.training).loss
