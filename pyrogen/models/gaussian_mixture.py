"""A mixture of normal distributions."""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.spec import DataSpec, check_vectors

__all__ = ["GaussianMixture", "gaussian_mixture"]


class GaussianMixture(PyroModule):
    r"""A mixture with enumerated assignments, so that its density is exact.

    .. math:: p(x) = \sum_{k=1}^K \pi_k \, \mathcal{N}(x; \mu_k, L_k L_k^\top)

    Sites: ``k``, enumerated in parallel, and ``x`` of event shape ``(num_dims,)``, in plate ``data``. Fit it by
    ``MaximumLikelihood`` or, which is the same here, by ``ELBO`` without a guide.

    Args:
        num_dims: :math:`D`.
        components: :math:`K`.
        min_scale: a floor under the diagonal of :math:`L_k`: without one, a component that closes in on a single datum
            has unbounded likelihood.

    Example:
        >>> GaussianMixture(num_dims=2, components=3)(size=4).shape
        torch.Size([4, 2])
    """

    def __init__(self, num_dims: int, components: int, min_scale: float = 1e-2) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, num_dims))
        self.raw_scale = nn.Parameter(torch.zeros(components, num_dims, num_dims))
        self.min_scale = min_scale

    def scale_tril(self) -> Tensor:
        """Return :math:`L_k`, shape ``(components, num_dims, num_dims)``."""
        raw = self.raw_scale
        diagonal = raw.diagonal(dim1=-2, dim2=-1).exp() + self.min_scale
        return raw.tril(-1) + torch.diag_embed(diagonal)

    def forward(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """Score data of shape ``(batch, num_dims)``; without data, generate ``size`` of them."""
        logits, loc, scale_tril = self.logits, self.loc, self.scale_tril()
        with pyro.plate("data", size if x is None else len(x)):
            k = pyro.sample("k", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
            return pyro.sample("x", dist.MultivariateNormal(loc[k], scale_tril=scale_tril[k]), obs=x)


def gaussian_mixture(spec: DataSpec, *, components: int = 10) -> tuple[GaussianMixture, None]:
    """Make a mixture for data that are vectors of reals.

    Args:
        spec: shape and kind of the data.
        components: the number of components.

    Returns:
        The model, and no guide.

    Raises:
        UsageError: where the data are not vectors of reals.
    """
    check_vectors(spec, "a Gaussian mixture")
    if components < 1:
        raise UsageError(f"components must be at least 1, found {components}")
    return GaussianMixture(spec.num_dims, components), None
