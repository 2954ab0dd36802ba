"""Probabilistic principal component analysis: the latent-variable model whose answers are known."""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import MultivariateNormal
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.spec import DataSpec, check_vectors

__all__ = ["PPCA", "ppca"]


class PPCA(PyroModule):
    r"""A linear Gaussian latent-variable model.

    .. math:: p(z) = \mathcal{N}(0, I), \quad p(x \mid z) = \mathcal{N}(W z + \mu, \sigma^2 I)

    Evidence and posterior are known in closed form, so :meth:`guide` is exact and the ELBO *is* the log-likelihood.
    Sites: ``z`` of event shape ``(latent,)``, ``x`` of event shape ``(num_dims,)``, in plate ``data``.

    Args:
        num_dims: :math:`D`.
        latent: :math:`d`.

    References:
        Probabilistic Principal Component Analysis (Tipping and Bishop, 1999), https://doi.org/10.1111/1467-9868.00196

    Example:
        >>> model = PPCA(num_dims=5, latent=2)
        >>> x = torch.randn(3, 5)
        >>> model.log_evidence(x).shape, model.posterior(x).event_shape
        (torch.Size([3]), torch.Size([2]))
    """

    def __init__(self, num_dims: int, latent: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(num_dims, latent) / math.sqrt(latent))
        self.mu = nn.Parameter(torch.zeros(num_dims))
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """Score data of shape ``(batch, num_dims)``; without data, generate ``size`` of them."""
        W, mu, sigma = self.W, self.mu, self.log_sigma.exp()
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(W.new_zeros(W.shape[1]), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z @ W.T + mu, sigma).to_event(1), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """Draw ``z`` from the exact posterior."""
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.posterior(x))

    def posterior(self, x: Tensor) -> MultivariateNormal:
        r"""Return :math:`p(z \mid x) = \mathcal{N}(M^{-1} W^\top (x - \mu), \sigma^2 M^{-1})`, :math:`M = W^\top W +
        \sigma^2 I`."""
        W, sigma2 = self.W, (2 * self.log_sigma).exp()
        M = W.T @ W + sigma2 * torch.eye(W.shape[1], dtype=W.dtype, device=W.device)
        loc = torch.linalg.solve(M, ((x - self.mu) @ W).unsqueeze(-1)).squeeze(-1)
        return MultivariateNormal(loc, precision_matrix=M / sigma2)

    def log_evidence(self, x: Tensor) -> Tensor:
        r"""Return :math:`\log \mathcal{N}(x; \mu, W W^\top + \sigma^2 I)`, shape ``(batch,)``, in nats."""
        W = self.W
        diagonal = (2 * self.log_sigma).exp().expand(len(W))
        return dist.LowRankMultivariateNormal(self.mu, W, diagonal).log_prob(x)


def ppca(spec: DataSpec, *, latent: int = 2) -> tuple[PPCA, object]:
    """Make a PPCA for data that are vectors of reals.

    Args:
        spec: shape and kind of the data.
        latent: the number of components.

    Returns:
        The model, and its exact posterior for a guide.

    Raises:
        UsageError: where the data are not vectors of reals, or have fewer dimensions than components.
    """
    check_vectors(spec, "PPCA")
    if not 1 <= latent < spec.num_dims:
        raise UsageError(f"latent must be between 1 and {spec.num_dims - 1}, found {latent}")
    model = PPCA(spec.num_dims, latent)
    return model, model.guide
