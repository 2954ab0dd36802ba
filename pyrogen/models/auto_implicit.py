"""A guide without a density for any model with continuous latents."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.infer.autoguide import AutoContinuous
from torch import Size, Tensor, nn

from pyrogen.distributions import Implicit
from pyrogen.errors import ProgramError
from pyrogen.nn import MLP

__all__ = ["AutoImplicit"]


class AutoImplicit(AutoContinuous):
    r"""An implicit posterior over all latents of a model: noise that a network turns into draws.

    .. math:: u = f_\phi(\epsilon), \quad \epsilon \sim \mathcal{N}(0, I)

    where :math:`u` are the model's latents, unconstrained and side by side. It can have any shape, with several modes;
    it has no density, and is learned by :class:`~pyrogen.inference.AVB`. As with other autoguides, its parameters are
    made at the first call.

    Args:
        model: a Pyro program.
        hidden: widths of the network's hidden layers.
        noise: how many numbers :math:`\epsilon` has; as many as :math:`u` if not given.
        activation: of the hidden layers.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model():
        ...     with pyro.plate("schools", 3):
        ...         pyro.sample("scale", dist.Gamma(torch.tensor(2.0), 1.0))
        >>> AutoImplicit(model)()["scale"].shape
        torch.Size([3])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        hidden: Sequence[int] = (128, 128),
        noise: int | None = None,
        activation: Callable[[], nn.Module] = nn.ELU,
    ) -> None:
        if noise is not None and noise < 1:
            raise ProgramError(f"noise must be at least one number, found {noise}")
        super().__init__(model)
        self.hidden, self.noise, self.activation = tuple(hidden), noise, activation

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        like = next(site["value"] for site in self.prototype_trace.nodes.values() if site["type"] == "sample")
        noise = self.latent_dim if self.noise is None else self.noise
        self.network = MLP(noise, self.latent_dim, self.hidden, self.activation).to(like.device)

    def get_posterior(self, *args: Any, **kwargs: Any) -> Implicit:
        """Return the distribution of the unconstrained latents."""
        return Implicit(self._pushed, event_shape=(self.latent_dim,))

    def _pushed(self, shape: Size) -> Tensor:
        first = next(self.network.parameters())
        return self.network(torch.randn((*shape, first.shape[1]), dtype=first.dtype, device=first.device))
