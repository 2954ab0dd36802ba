"""Amortised guides of a VAE: a network of the data, with a density, without noise, or without a density."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Size, Tensor, nn
from torch.nn.functional import softplus

from pyrogen.distributions import Implicit
from pyrogen.nn import MLP
from pyrogen.spec import DataSpec, scaled

__all__ = ["DeterministicEncoder", "Encoder", "GaussianEncoder", "ImplicitEncoder", "StudentTEncoder"]


class Encoder(PyroModule):
    """A guide that draws ``z`` of event shape ``(latent,)`` for each datum, in plate ``data``.

    Args:
        encoder: a network from ``(*batch, *spec.shape)`` to as many numbers as the encoder needs.
        spec: the data, to scale them to :math:`[-1, 1]` for the network.
    """

    has_noise = True
    """Whether it draws other latents each time."""

    has_density = True
    """Whether it says how probable they are."""

    def __init__(self, encoder: nn.Module, spec: DataSpec) -> None:
        super().__init__()
        self.encoder = encoder
        self.spec = spec

    def posterior(self, x: Tensor) -> TorchDistribution:
        """Return :math:`q(z \\mid x)` for data of shape ``(*batch, *spec.shape)``."""
        raise NotImplementedError  # a PyroModule cannot be an ABC

    def forward(self, x: Tensor) -> Tensor:
        """Draw ``z`` for data of shape ``(batch, *spec.shape)``."""
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.posterior(x))


class GaussianEncoder(Encoder):
    r"""A normal guide with independent coordinates.

    .. math:: q(z \mid x) = \mathcal{N}\left(z; \mu_\phi(x), \operatorname{diag} \sigma^2_\phi(x)\right)

    Args:
        encoder: the network from ``(*batch, *spec.shape)`` to ``(*batch, 2 * latent)``: :math:`\mu` and a
            number :math:`a` with :math:`\sigma = 2 / (1 + e^{-a})`. The prior has :math:`\sigma = 1`, which data only
            narrow where the likelihood is log-concave; unbounded, one unusual datum lands far outside all that the
            decoder has seen, and costs as much as thousands of others.
        spec: the data.
    """

    def posterior(self, x: Tensor) -> TorchDistribution:
        loc, raw_scale = self.encoder(scaled(x, self.spec)).chunk(2, -1)
        return dist.Normal(loc, 2 * raw_scale.sigmoid()).to_event(1)


class StudentTEncoder(Encoder):
    r"""A guide whose coordinates are independent, with tails that keep importance weights bounded.

    .. math::
        q(z \mid x) = \prod_j \mathrm{St}\left(z_j; \mu_j(x), \sigma_j(x), \nu_j(x)\right), \quad
        \sigma = \operatorname{softplus} a, \quad \nu = 3 + \operatorname{softplus} b

    Args:
        encoder: the network from ``(*batch, *spec.shape)`` to ``(*batch, 3 * latent)``: :math:`\mu`, :math:`a` and
            :math:`b`.
        spec: the data.
    """

    def posterior(self, x: Tensor) -> TorchDistribution:
        loc, raw_scale, raw_freedom = self.encoder(scaled(x, self.spec)).chunk(3, -1)
        return dist.StudentT(3.0 + softplus(raw_freedom), loc, softplus(raw_scale)).to_event(1)


class DeterministicEncoder(Encoder):
    r"""A guide that draws the same latents each time.

    .. math:: z = f_\phi(x)

    It is for objectives that match the aggregate posterior, :class:`~pyrogen.inference.AAE` and
    :class:`~pyrogen.inference.WAE`; under an ELBO it has no entropy.
    """

    has_noise = has_density = False

    def posterior(self, x: Tensor) -> TorchDistribution:
        return dist.Delta(self.encoder(scaled(x, self.spec))).to_event(1)


class ImplicitEncoder(Encoder):
    r"""A guide without a density: noise goes in beside what a network makes of the data.

    .. math:: z = g_\phi(h_\phi(x), \epsilon), \quad \epsilon \sim \mathcal{N}(0, I)

    It is learned by :class:`~pyrogen.inference.AVB` and all objectives that compare latents.

    Args:
        encoder: the network :math:`h` from ``(*batch, *spec.shape)`` to ``(*batch, features)``.
        spec: the data.
        features: the size of :math:`h`.
        latent: the size of :math:`z`.
        noise: the size of :math:`\epsilon`.

    References:
        Adversarial Variational Bayes (Mescheder et al., 2017), https://arxiv.org/abs/1701.04722
    """

    has_density = False

    def __init__(self, encoder: nn.Module, spec: DataSpec, features: int, latent: int, noise: int) -> None:
        super().__init__(encoder, spec)
        self.noise, self.latent = noise, latent
        self.head = MLP(features + noise, latent, (features,), nn.SiLU)

    def posterior(self, x: Tensor) -> TorchDistribution:
        features = self.encoder(scaled(x, self.spec))

        def drawn(shape: Size) -> Tensor:
            noise = torch.randn((*shape, self.noise), dtype=features.dtype, device=features.device)
            return self.head(torch.cat([features.expand(*shape, -1), noise], -1))

        return Implicit(drawn, event_shape=(self.latent,), batch_shape=features.shape[:-1])
