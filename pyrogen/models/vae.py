"""The variational autoencoder."""

from collections.abc import Sequence
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.models.likelihood import LIKELIHOODS, Likelihood
from pyrogen.nn import MLP, ConvolutionalDecoder, ConvolutionalEncoder, LazyDistribution, spline_flow
from pyrogen.spec import DataSpec, scaled

__all__ = ["VAE", "GaussianEncoder", "vae"]

DEFAULT_LIKELIHOOD = {
    "binary": "bernoulli",
    "levels": "discretized-logistic",
    "dequantized": "gaussian",
    "real": "gaussian",
}


class VAE(PyroModule):
    r"""A deep latent-variable model.

    .. math:: p(x) = \int p(x \mid f_\theta(z)) \, p(z) \, \mathrm{d}z

    Sites: ``z`` of event shape ``(latent,)``, ``x`` of event shape ``spec.shape``, in plate ``data``.

    Args:
        decoder: the network :math:`f_\theta` from ``(*batch, latent)`` to ``(*batch, likelihood.num_features)``.
        likelihood: what its output means.
        latent: the size of :math:`z`.
        prior: a zuko flow for :math:`p(z)`; a standard normal if not given.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114
    """

    zero: Tensor

    def __init__(
        self, decoder: nn.Module, likelihood: Likelihood, latent: int, prior: LazyDistribution | None = None
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.likelihood = likelihood
        self.flow = prior
        self.register_buffer("zero", torch.zeros(latent), persistent=False)

    @property
    def spec(self) -> DataSpec:
        """The data."""
        return self.likelihood.spec

    def prior(self) -> TorchDistribution:
        """Return :math:`p(z)`."""
        if self.flow is not None:
            return ZukoToPyro(self.flow())
        return dist.Normal(self.zero, 1.0).to_event(1)

    def forward(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """Score the data ``x`` of shape ``(batch, *spec.shape)``; without data, generate ``size`` of them."""
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)


class GaussianEncoder(PyroModule):
    r"""An amortised normal guide with independent coordinates.

    .. math:: q(z \mid x) = \mathcal{N}\left(z; \mu_\phi(x), \operatorname{diag} \sigma^2_\phi(x)\right)

    Args:
        encoder: the network from ``(*batch, *spec.shape)`` to ``(*batch, 2 * latent)``: :math:`\mu` and a
            number :math:`a` with :math:`\sigma = 2 / (1 + e^{-a})`. The prior has :math:`\sigma = 1`, which data only
            narrow where the likelihood is log-concave; unbounded, one unusual datum lands far outside all that the
            decoder has seen, and costs as much as thousands of others.
        spec: the data, to scale them to :math:`[-1, 1]` for the network.
    """

    def __init__(self, encoder: nn.Module, spec: DataSpec) -> None:
        super().__init__()
        self.encoder = encoder
        self.spec = spec

    def posterior(self, x: Tensor) -> TorchDistribution:
        """Return :math:`q(z \\mid x)` for data of shape ``(*batch, *spec.shape)``."""
        loc, raw_scale = self.encoder(scaled(x, self.spec)).chunk(2, -1)
        return dist.Normal(loc, 2 * raw_scale.sigmoid()).to_event(1)

    def forward(self, x: Tensor) -> Tensor:
        """Draw ``z`` for data of shape ``(batch, *spec.shape)``."""
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.posterior(x))


def vae(
    spec: DataSpec,
    *,
    likelihood: str | None = None,
    latent: int = 50,
    hidden: Sequence[int] = (400, 400),
    network: Literal["mlp", "convolutional"] = "mlp",
    channels: Sequence[int] = (32, 64),
    prior: Literal["normal", "flow"] = "normal",
) -> tuple[VAE, GaussianEncoder]:
    """Make a variational autoencoder for some data.

    Args:
        spec: shape and kind of the data.
        likelihood: bernoulli, categorical, discretized-logistic, gaussian or laplace; by the data's kind if not given.
        latent: the number of latent variables.
        hidden: widths of the hidden layers of encoder and decoder (mlp).
        network: mlp, or convolutional for images.
        channels: channels after each halving of the image (convolutional).
        prior: normal, or flow: a neural spline flow, learned.

    Returns:
        The model and its guide.

    Raises:
        UsageError: where the likelihood or the network does not fit the data.

    Example:
        >>> model, guide = vae(DataSpec((1, 8, 8), "binary"), latent=4, hidden=(32,))
        >>> model(size=3).shape
        torch.Size([3, 1, 8, 8])
    """
    name = DEFAULT_LIKELIHOOD[spec.kind] if likelihood is None else likelihood
    if name not in LIKELIHOODS:
        raise UsageError(f"unknown likelihood {name!r}: choose from {', '.join(LIKELIHOODS)}")
    if latent < 1:
        raise UsageError(f"latent must be at least 1, found {latent}")
    for setting, widths in (("hidden", hidden), ("channels", channels)):
        if any(width < 1 for width in widths) or (setting == "channels" and not widths):
            raise UsageError(f"{setting} must be widths of at least 1, found {list(widths)}")
    chosen = LIKELIHOODS[name](spec)
    encoder: nn.Module
    decoder: nn.Module
    if network == "convolutional":
        if len(spec.shape) != 3:
            raise UsageError(f"a convolutional network needs images (channels, height, width), found {spec.shape}")
        depth, *sides = spec.shape
        encoder = ConvolutionalEncoder(spec.shape, 2 * latent, channels)
        images = ConvolutionalDecoder(latent, (chosen.features_per_dim * depth, *sides), channels)
        decoder = nn.Sequential(images, nn.Flatten(-3))
    else:
        encoder = nn.Sequential(nn.Flatten(-len(spec.shape)), MLP(spec.num_dims, 2 * latent, hidden))
        decoder = MLP(latent, chosen.num_features, hidden)
    flow = spline_flow(latent) if prior == "flow" else None
    return VAE(decoder, chosen, latent, flow), GaussianEncoder(encoder, spec)
