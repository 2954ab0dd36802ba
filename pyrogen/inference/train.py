"""The training loop: an iterator that the caller drives."""

from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from pyrogen.errors import ProgramError
from pyrogen.inference.feed import Feed
from pyrogen.inference.objective import Objective
from pyrogen.inference.player import OptimizerLike, Player, SchedulerLike
from pyrogen.inference.training import Training
from pyrogen.sites import Program

__all__ = ["train"]


def train(
    objective: Objective,
    model: Program,
    guide: Program | None,
    batches: Iterable[Any] | None,
    optimizer: OptimizerLike,
    critic_optimizer: OptimizerLike | None = None,
    *,
    steps: tuple[int, int] = (1, 1),
    simultaneous: bool = False,
    num_steps: int | None = None,
    epochs: int | None = None,
    scheduler: SchedulerLike | None = None,
    critic_scheduler: SchedulerLike | None = None,
    clip_norm: float | None = None,
    ema: float | None = None,
    device: torch.device | str | None = None,
    validate: bool = True,
    compile: bool | Literal["capture"] = False,
) -> Training:
    """Fit programs to an objective, one round of steps for each item of the iterator returned.

    Logging, evaluation, stopping and saving are the body of the caller's ``for``. Every step of either player draws
    its own batch, and nothing is drawn ahead of need. Either player's step leaves the other's parameters, buffers and
    optimiser bitwise as they were. A step whose loss or gradient is not finite changes nothing and stops the fit.

    The first batch is used twice: once in a rehearsal that finds the parameters, checks that the programs and the
    objective fit together, and is undone; then in the first step.

    Args:
        objective: the learning principle; with parameters of its own (a critic), there are two players.
        model: a Pyro program, called with each batch.
        guide: a Pyro program, or ``None`` where the objective needs none.
        batches: an iterable to go through again and again, over tensors, tuples (positional arguments) or dicts
            (keyword arguments); ``None`` for programs without data. Tensors are moved to the programs' device.
        optimizer: a torch optimiser, or a factory of one from a list of parameters: autoguides and functions with
            ``pyro.param`` have no parameters before their first call.
        critic_optimizer: the same for the critic.
        steps: how many steps of the programs and of the critic make a round; the critic goes first.
        simultaneous: take both players' gradients at the same point, then both steps; one step each.
        num_steps: stop after that many rounds.
        epochs: stop after that many passes over the batches.
        scheduler: a factory of a learning-rate schedule from the optimiser; it advances with each step.
        critic_scheduler: the same for the critic.
        clip_norm: the programs' gradient is scaled down to this norm.
        ema: decay of an exponential moving average of the programs' parameters, see :meth:`Training.averaged`.
        device: where to move batches; the programs' device if not given.
        validate: keep Pyro's validation as it is set; ``False`` turns it off after the rehearsal, which is faster and,
            on an accelerator, spares reads by the host.
        compile: capture each player's whole step as one graph and compile it, see :mod:`pyrogen.inference.compile`;
            after the rehearsal, graphs look at no values, as where Pyro's validation is off;
            ``"capture"`` runs the graphs operation by operation, to try what can be captured without a compiler.

    Returns:
        An iterator with ``state_dict`` and ``load_state_dict`` for a bit-exact resume.

    Raises:
        ProgramError: where programs, objective and optimisers do not fit together.
        InfeasibleStartError: where the first loss is not finite, with every site's log-probability.
        NonFiniteError: where a later loss or gradient is not.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyrogen.inference import ELBO
        >>> def model(x):
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     loc = pyro.param("loc", torch.tensor(0.0))
        ...     pyro.sample("z", dist.Normal(loc, 0.4082))
        >>> x = torch.tensor([1.2, -0.4, 0.7, 2.1, 0.3])  # the posterior mean is 0.65
        >>> pyro.clear_param_store()
        >>> adam = lambda p: torch.optim.Adam(p, lr=0.05)
        >>> for step in train(ELBO(num_particles=10), model, guide, [x], adam, num_steps=400):
        ...     pass
        >>> bool(abs(pyro.param("loc") - 0.65) < 0.1)
        True
    """
    if not isinstance(objective, Objective):
        raise ProgramError(
            f"objective must be a pyrogen Objective, found {type(objective).__name__}; "
            f"wrap one of Pyro's ELBOs as PyroELBO(elbo)"
        )
    if isinstance(batches, tuple) and batches and all(isinstance(part, Tensor) for part in batches):
        raise ProgramError("batches is one tuple of tensors, which would be taken for several batches: pass [(x, y)]")
    if batches is None and epochs is not None:
        raise ProgramError("without batches there are no epochs: use num_steps")
    if min(steps) < 1 or (simultaneous and steps != (1, 1)):
        raise ProgramError(f"steps must be at least one for each player, and (1, 1) if simultaneous; found {steps}")
    return Training(
        objective,
        model,
        guide,
        Feed(batches),
        partial(Player, optimizer=optimizer, scheduler=scheduler, clip_norm=clip_norm, ema=ema),
        None if critic_optimizer is None else partial(Player, optimizer=critic_optimizer, scheduler=critic_scheduler),
        steps=(1, 1) if simultaneous else steps,
        simultaneous=simultaneous,
        num_steps=num_steps,
        epochs=epochs,
        device=None if device is None else torch.device(device),
        validate=validate,
        compile=compile,
    )
