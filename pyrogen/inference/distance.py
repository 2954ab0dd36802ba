"""Distances between data and draws that need no critic."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyrogen.errors import ProgramError
from pyrogen.inference.objective import Objective
from pyrogen.inference.samples import Samples, samples_of
from pyrogen.sites import Program

__all__ = ["Distance", "Features", "flat"]

Features = Callable[..., Tensor]
"""From the values of the observed sites (and covariates) to what is compared, shape ``(batch, ...)``."""


class Distance(Objective):
    """What all objectives without a critic of samples have in common.

    Several observed sites and covariates are compared together, laid side by side.

    Args:
        features: what is compared instead of the values themselves: a function of the sites' values and covariates.
        covariates: names of the arguments that data are conditioned on; found by themselves if not given.

    Raises:
        ValueError: where features have parameters that want gradients: they would stay as they are.
    """

    sums_over_data = False
    by_samples = True
    fits_guide = False

    def __init__(self, features: Features | None, covariates: Sequence[str] | None) -> None:
        super().__init__()
        if isinstance(features, nn.Module) and any(p.requires_grad for p in features.parameters()):
            raise ValueError(
                "features that are compared must not move, and these found parameters that want gradients: freeze "
                "them, by features.requires_grad_(False), or let a critic learn features, in MMDGAN"
            )
        self.features, self.covariates = features, covariates

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the distance of the program's draws from data."""
        return self.between(*flat(samples_of(model, args, kwargs, self.covariates), self.features))

    @abstractmethod
    def between(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distance of draws ``y`` from data ``x``, both of shape ``(batch, features)``."""


def flat(samples: Samples, features: Features | None = None) -> tuple[Tensor, Tensor]:
    """Lay each datum's values, or their features, out as a vector: real and fake, shapes ``(batch, features)``.

    Raises:
        ProgramError: where features are not a row a datum.
    """
    compare = features or _side_by_side
    real, fake = (compare(*values, *samples.covariates) for values in (samples.real, samples.fake))
    batch = len(samples.real[0])
    for found in (real, fake):
        if found.dim() < 2 or len(found) != batch:
            raise ProgramError(
                f"the features of {batch} data have shape {tuple(found.shape)}, expected ({batch}, ...): a row a datum"
            )
    return real.flatten(1), fake.flatten(1)


def _side_by_side(*values: Tensor) -> Tensor:
    dtype = next((value.dtype for value in values if value.is_floating_point()), torch.get_default_dtype())
    return torch.cat([value.reshape(len(value), -1).to(dtype) for value in values], 1)
