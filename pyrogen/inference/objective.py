"""The contract of every learning principle."""

from abc import ABC, abstractmethod
from typing import Any, Literal

from torch import Tensor, nn

from pyrogen.sites import Program
from pyrogen.traces import plate_nesting

__all__ = ["Objective", "Player", "Wrapper"]

Player = Literal["programs", "critic"]


class Objective(nn.Module, ABC):
    """A loss on a pair of programs.

    An algorithm is a model and a learning principle; this is the principle. Parameters that an objective owns are its
    *critic*: with none there is one player, the programs; with some there are two, and :func:`~pyrogen.inference.train`
    lets each take its own steps. An objective never steps an optimiser.

    An objective without a critic is also a loss of ``pyro.infer.SVI``::

        SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), loss=ELBO())
    """

    sums_over_data = True
    """Whether the loss is a sum over the data of a batch, as of likelihoods, and not a figure of the whole batch."""

    by_samples = False
    """Whether a fit is judged by the model's draws, since the density of data is no part of what it learns by."""

    fits_guide = True
    """Whether a guide, where there is one, learns; else it plays no part."""

    optimizer = "adam"
    learning_rate = 1e-3
    """How the programs' steps are usually taken."""

    rounding = 1e-3
    """By how much, relatively, another order of the same sums may change losses and gradients."""

    saturates = False
    """Whether a critic that is always right has nothing left to teach, as a classifier, and not a distance, does."""

    @abstractmethod
    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the programs' loss, a scalar, for the data in ``args`` and ``kwargs``."""

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the critic's loss, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} has no critic")

    def monitored(self) -> dict[str, Tensor]:
        """Name what to keep an eye on besides the losses, scalars on the device: buffers that the losses fill."""
        return {}

    def elbo_estimate(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor | None:
        """Return what critics say the ELBO of a batch is, in nats, summed over data; ``None`` where they do not say.

        It is *not a bound*: critics underestimate divergences.
        """
        return None

    def log_ratios(
        self, model: Program, guide: Program | None, *args: Any, **kwargs: Any
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return what critics that estimate log-ratios of densities say of samples, by what they compare.

        Returns:
            For each such critic its logits, shapes ``(batch,)``, of samples of the ratio's numerator, and then of its
            denominator.
        """
        return {}

    def after_step(self, player: Player) -> None:
        """Do what follows a player's step: advance a schedule, clip weights, move a target network."""


class Wrapper(Objective):
    """An objective that computes another's losses in a way of its own, and is in all else what that is.

    Args:
        objective: the other.
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective
        self.sums_over_data, self.by_samples = objective.sums_over_data, objective.by_samples
        self.fits_guide, self.saturates = objective.fits_guide, objective.saturates
        self.optimizer, self.learning_rate = objective.optimizer, objective.learning_rate

    def monitored(self) -> dict[str, Tensor]:
        return self.objective.monitored()

    def elbo_estimate(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor | None:
        return self.objective.elbo_estimate(model, guide, *args, **kwargs)

    def log_ratios(
        self, model: Program, guide: Program | None, *args: Any, **kwargs: Any
    ) -> dict[str, tuple[Tensor, Tensor]]:
        return self.objective.log_ratios(model, guide, *args, **kwargs)

    def after_step(self, player: Player) -> None:
        self.objective.after_step(player)


class PlateNesting:
    """Remembers the plate nesting of the last pair of programs, so that only the first call rehearses them."""

    def __init__(self, max_plate_nesting: int | None) -> None:
        self.max_plate_nesting = max_plate_nesting
        self.seen: tuple[Program, Program, int] | None = None

    def __call__(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> int:
        if self.max_plate_nesting is not None:
            return self.max_plate_nesting
        if self.seen is None or self.seen[0] != model or self.seen[1] != guide:
            self.seen = (model, guide, plate_nesting(model, guide, *args, **kwargs))
        return self.seen[2]
