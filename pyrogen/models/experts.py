"""Guides of several modalities as products of experts."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrogen.models.views import Views, views

__all__ = ["ProductOfExperts", "product_of_experts"]


def product_of_experts(locs: Tensor, precisions: Tensor) -> tuple[Tensor, Tensor]:
    r"""Multiply normal densities, and a standard normal one, to a normal density.

    .. math::
        \mathcal{N}(z; 0, 1) \prod_k \mathcal{N}(z; \mu_k, 1 / \tau_k) \propto
        \mathcal{N}\left(z; \frac{\sum_k \tau_k \mu_k}{1 + \sum_k \tau_k}, \frac{1}{1 + \sum_k \tau_k}\right)

    An expert of precision zero says nothing.

    Args:
        locs: :math:`\mu`, shape ``(experts, *batch)``.
        precisions: :math:`\tau`, not negative, the same shape.

    Returns:
        Location and standard deviation, shape ``(*batch,)``.

    Example:
        >>> product_of_experts(torch.tensor([2.0, 5.0]), torch.tensor([3.0, 0.0]))
        (tensor(1.5000), tensor(0.5000))
    """
    precision = 1 + precisions.sum(0)
    return (precisions * locs).sum(0) / precision, precision.rsqrt()


class ProductOfExperts(PyroModule):
    r"""A normal guide of two modalities, one expert for each, and the prior.

    .. math:: q(z \mid x, y) \propto p(z) \, q(z \mid x) \, q(z \mid y), \quad p(z) = \mathcal{N}(z; 0, I)

    The expert of what is not seen is left out: :math:`q(z \mid x) \propto p(z) \, q(z \mid x)`.

    Args:
        z_given_x: the network from ``x`` to ``(batch, 2 * latent)``: locations :math:`\mu` and numbers :math:`a` with
            precisions :math:`\tau = \log(1 + e^a)`.
        z_given_y: likewise, from ``y``.

    Raises:
        ProgramError: where there are no data, or not as many values of ``x`` as of ``y``.

    References:
        Multimodal Generative Models for Scalable Weakly-Supervised Learning (Wu and Goodman, 2018),
        https://arxiv.org/abs/1802.05335
    """

    def __init__(self, z_given_x: nn.Module, z_given_y: nn.Module) -> None:
        super().__init__()
        self.z_given_x, self.z_given_y = z_given_x, z_given_y

    def posterior(self, x: Tensor | None = None, y: Tensor | None = None) -> TorchDistribution:
        """Return :math:`q(z \\mid x, y)`, :math:`q(z \\mid x)` or :math:`q(z \\mid y)`, a row a datum."""
        return self._posterior(views(x, y, apart=False))

    def forward(self, x: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """Draw ``z``, in training mode three times a datum: given the pair, and given each modality alone."""
        seen = views(x, y, self.training)
        with pyro.plate("data", len(seen.sees_x)):
            return pyro.sample("z", self._posterior(seen))

    def _posterior(self, seen: Views) -> TorchDistribution:
        experts = ((self.z_given_x, seen.x, seen.sees_x), (self.z_given_y, seen.y, seen.sees_y))
        found = [(*encode(values).chunk(2, -1), sees) for encode, values, sees in experts if values is not None]
        locs = torch.stack([loc for loc, _, _ in found])
        precisions = torch.stack([nn.functional.softplus(raw) * sees.unsqueeze(-1) for _, raw, sees in found])
        return dist.Normal(*product_of_experts(locs, precisions)).to_event(1)
