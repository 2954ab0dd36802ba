"""Distributions that can be drawn from and have no density."""

from collections.abc import Callable
from typing import Any

from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor

from pyrogen.errors import ProgramError
from pyrogen.sites import unwrapped

__all__ = ["Implicit", "is_implicit"]


class Implicit(TorchDistribution):
    r"""The distribution of what a sampler returns: noise in, samples out.

    .. math:: x = f(\epsilon), \quad \epsilon \sim p(\epsilon)

    Gradients flow through the draws. It stands at any site of a model or a guide, in plates and under ``Predictive``;
    objectives that compare samples (``GAN``, ``MMD``, ``Sinkhorn``, ...) learn from it, and those that need a density
    refuse it by the site's name.

    Args:
        sampler: returns draws of shape ``shape + event_shape`` for a ``shape`` of independent draws.
        event_shape: the shape of a draw.
        batch_shape: the shape of the draws without plates and further samples.

    Example:
        >>> import torch
        >>> net = torch.nn.Linear(2, 3)
        >>> Implicit(lambda shape: net(torch.randn(*shape, 2)), event_shape=(3,)).expand((5,)).rsample((4,)).shape
        torch.Size([4, 5, 3])
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, sampler: Callable[[Size], Tensor], event_shape: Any = (), batch_shape: Any = ()) -> None:
        self.sampler = sampler
        super().__init__(Size(batch_shape), Size(event_shape), validate_args=False)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Implicit":
        """Return the distribution of more independent draws."""
        new = self._get_checked_instance(Implicit, _instance)
        Implicit.__init__(new, self.sampler, self.event_shape, batch_shape)
        return new

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw, shape ``sample_shape + batch_shape + event_shape``.

        Raises:
            ProgramError: where the sampler returns another shape.
        """
        shape = Size(sample_shape) + self.batch_shape
        value = self.sampler(shape)
        if value.shape != shape + self.event_shape:
            raise ProgramError(
                f"the sampler of an Implicit distribution returned shape {tuple(value.shape)} where "
                f"{tuple(shape)} draws of shape {tuple(self.event_shape)} were asked for: it must return "
                f"{tuple(shape + self.event_shape)}"
            )
        return value

    def log_prob(self, value: Tensor) -> Tensor:
        """Refuse: there is no density.

        Raises:
            ProgramError: always.
        """
        raise ProgramError(
            "an Implicit distribution has no density: learn it by an objective that compares samples (GAN, FGAN, WGAN, "
            "MMD, EnergyDistance, Sinkhorn, SlicedWasserstein)"
        )


def is_implicit(fn: Any) -> bool:
    """Tell whether a distribution, at the bottom of those that wrap it, has no density.

    Example:
        >>> is_implicit(Implicit(lambda shape: shape).to_event(0).mask(False))
        True
    """
    return isinstance(unwrapped(fn), Implicit)
