"""Two players: a critic that compares real data with a program's draws, and the program that answers to it."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pyrogen.errors import ProgramError, PyrogenError
from pyrogen.inference.objective import Objective
from pyrogen.inference.penalties import Penalty, Score, Scores
from pyrogen.inference.samples import Samples, Transform, samples_of
from pyrogen.sites import Program

__all__ = ["REMEMBERED", "Adversarial", "Scoring", "checked_critic", "scores_of", "shown"]

REMEMBERED = 0.98
"""How much of a moving average is left after a step."""


class Adversarial(Objective):
    """What all objectives with a critic of samples have in common.

    The critic is called with the values of the observed sites, in the program's order, each of shape
    ``(batch, *shape of a datum)``, and then with the covariates: arguments of the program that no site observes, such
    as labels. A guide plays no part.

    Args:
        critic: the network; its parameters are the second player.
        penalties: what is added to the critic's loss, see :mod:`~pyrogen.inference.penalties`.
        covariates: names of the arguments to show to the critic; found by themselves if not given.
        transform: applied to each site's values before critic and penalties see them, so that a penalty's weight means
            the same in any units.
    """

    sums_over_data = False
    by_samples = True
    fits_guide = False

    def __init__(
        self,
        critic: nn.Module,
        penalties: Sequence[Penalty] = (),
        covariates: Sequence[str] | None = None,
        transform: Transform | None = None,
    ) -> None:
        super().__init__()
        self.critic = checked_critic(critic)
        if not isinstance(penalties, list | tuple) or not all(isinstance(penalty, Penalty) for penalty in penalties):
            raise ProgramError(f"penalties must be a list of penalties, such as [R1(1.0)], found {penalties!r}")
        self.penalties = tuple(penalties)
        self.covariates = covariates
        self.transform = transform
        for penalty in self.penalties:
            penalty.check(critic)

    def samples(self, model: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Samples:
        """Return data and draws as the critic sees them."""
        return samples_of(model, args, kwargs, self.covariates).transformed(self.transform)

    def penalty(self, score: Score, samples: Samples) -> Tensor | float:
        """Return the sum of the penalties, given the function that they keep in bounds."""
        return sum(penalty(score, samples.real, samples.fake) for penalty in self.penalties)


class Scoring(Adversarial):
    """An objective whose critic returns one number a datum.

    Raises:
        ProgramError: where the critic returns another shape than ``(batch,)`` or ``(batch, 1)``.
    """

    has_log_ratios = False
    """Whether the best critic's score is the logarithm of the ratio of densities, real to fake."""

    critic_order: Tensor
    critic_real: Tensor
    critic_fake: Tensor

    def __init__(
        self,
        critic: nn.Module,
        penalties: Sequence[Penalty] = (),
        covariates: Sequence[str] | None = None,
        transform: Transform | None = None,
    ) -> None:
        super().__init__(critic, penalties, covariates, transform)
        self.register_buffer("critic_order", torch.tensor(0.5))
        self.register_buffer("critic_real", torch.tensor(0.0))
        self.register_buffer("critic_fake", torch.tensor(0.0))

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the programs' loss."""
        _, fake, covariates = self.samples(model, args, kwargs)
        return self.loss_of_programs(self.scores(fake, covariates))

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the critic's loss, with its penalties."""
        with torch.no_grad():
            samples = self.samples(model, args, kwargs)
        return self.critic_loss_of(samples)

    def critic_loss_of(self, samples: Samples) -> Tensor:
        """Return the critic's loss, with its penalties, for data and draws as it sees them."""
        score = Scores(partial(self.scores, covariates=samples.covariates))
        penalty = self.penalty(score, samples)  # first: a penalty at the data scores them on the way
        of_real, of_fake = score(samples.real), score(samples.fake)
        with torch.no_grad():
            self.critic_order.lerp_((of_real > of_fake).to(self.critic_order.dtype).mean(), 1 - REMEMBERED)
            self.critic_real.lerp_(of_real.mean().to(self.critic_real.dtype), 1 - REMEMBERED)
            self.critic_fake.lerp_(of_fake.mean().to(self.critic_fake.dtype), 1 - REMEMBERED)
        return self.loss_of_critic(of_real, of_fake) + penalty

    def log_ratios(
        self, model: Program, guide: Program | None, *args: Any, **kwargs: Any
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the critic's logits of data and of draws, where they are log-ratios."""
        return {"data": self.both(self.samples(model, args, kwargs))} if self.has_log_ratios else {}

    def both(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """Return the critic's scores of data and of draws as it sees them, shapes ``(batch,)``."""
        return self.scores(samples.real, samples.covariates), self.scores(samples.fake, samples.covariates)

    def monitored(self) -> dict[str, Tensor]:
        """Return moving averages: how often the critic scored a datum above a draw, and its scores of either.

        ``critic_order`` of one half is a critic that guesses; near one it has won, and its gradient may have nothing
        left to teach. ``critic_real`` and ``critic_fake`` are logits where the critic is a classifier.
        """
        return {"critic_order": self.critic_order, "critic_real": self.critic_real, "critic_fake": self.critic_fake}

    @abstractmethod
    def loss_of_programs(self, fake: Tensor) -> Tensor:
        """Return the programs' loss, given the critic's scores of their draws, shape ``(batch,)``."""

    @abstractmethod
    def loss_of_critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the critic's loss, given its scores of data and draws, shapes ``(batch,)``."""

    def scores(self, values: Sequence[Tensor], covariates: Sequence[Tensor] = ()) -> Tensor:
        """Return the critic's scores, shape ``(batch,)``."""
        return scores_of(self.critic, *values, *covariates)


def checked_critic(critic: Any) -> nn.Module:
    """Return a critic, if it is a module, which has its parameters.

    Raises:
        ProgramError: where it is none.
    """
    if not isinstance(critic, nn.Module):
        raise ProgramError(
            f"a critic must be a torch.nn.Module, whose parameters are learned, found {type(critic).__name__}: make "
            f"the function its forward"
        )
    return critic


def shown(critic: nn.Module, *values: Tensor) -> Tensor:
    """Return what a critic makes of values of shapes ``(batch, ...)``.

    Raises:
        ProgramError: where it does not take them.
    """
    try:
        return critic(*values)
    except (torch.OutOfMemoryError, PyrogenError):
        raise
    except (RuntimeError, TypeError) as error:
        shapes = ", ".join(str(tuple(value.shape)) for value in values)
        raise ProgramError(
            f"the critic {type(critic).__name__} was shown values of shapes {shapes} (latents first, then data, then "
            f"covariates, as far as it sees them), and failed: {error}"
        ) from error


def scores_of(critic: nn.Module, *values: Tensor) -> Tensor:
    """Return a critic's scores of values of shapes ``(batch, ...)``, shape ``(batch,)``.

    Raises:
        ProgramError: where it does not take the values, or returns another shape than ``(batch,)`` or ``(batch, 1)``.
    """
    found = shown(critic, *values)
    batch = len(values[0])
    if found.shape not in ((batch,), (batch, 1)):
        raise ProgramError(
            f"the critic returned shape {tuple(found.shape)} for {batch} data, expected ({batch},) or "
            f"({batch}, 1): other shapes would be broadcast against each other"
        )
    return found.reshape(batch)
