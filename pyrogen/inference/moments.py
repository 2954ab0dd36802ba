"""What adaptive contrast compares a guide with: a normal distribution of its own moments."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal

from pyrogen.inference.rows import repeated

__all__ = ["Moments"]


class Moments(NamedTuple):
    """Location and scale of each number of a group of sites, a row for each index of its plates."""

    loc: list[Tensor]
    scale: list[Tensor]

    @classmethod
    def of(cls, values: Sequence[Tensor], num_draws: int) -> "Moments":
        """Take the moments of values of ``num_draws`` draws, one after the other, site by site."""
        draws = [z.unflatten(0, (num_draws, -1)) for z in values]
        return cls([z.mean(0) for z in draws], [(z.var(0) + 1e-8).sqrt() for z in draws])

    def standardized(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Bring values to location zero and scale one; particles of all data are one after the other."""
        return [(z - loc) / scale for z, loc, scale in self._beside(values)]

    def log_prob(self, values: Sequence[Tensor]) -> Tensor:
        """Return the logarithm of the normal density of these moments, shape ``(rows,)``."""
        densities = [Normal(loc, scale).log_prob(z) for z, loc, scale in self._beside(values)]
        return torch.stack([density.reshape(len(density), -1).sum(1) for density in densities]).sum(0)

    def _beside(self, values: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Put location and scale beside each site's values, repeated for particles."""
        for z, loc, scale in zip(values, self.loc, self.scale, strict=True):
            yield z, repeated(loc, len(z) // len(loc)), repeated(scale, len(z) // len(scale))
