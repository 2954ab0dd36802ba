"""The variational autoencoder."""

from collections.abc import Callable, Sequence
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.models.encoder import DeterministicEncoder, Encoder, GaussianEncoder, ImplicitEncoder, StudentTEncoder
from pyrogen.models.likelihood import Likelihood, likelihood_for
from pyrogen.nn import (
    MLP,
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    LazyDistribution,
    check_widths,
    spline_flow,
)
from pyrogen.spec import DataSpec

__all__ = ["VAE", "vae"]

FEATURES = 256
"""What an implicit encoder's network makes of a datum, before noise goes in."""


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


def vae(
    spec: DataSpec,
    *,
    likelihood: str | None = None,
    latent: int = 50,
    hidden: Sequence[int] = (400, 400),
    network: Literal["mlp", "convolutional"] = "mlp",
    channels: Sequence[int] = (32, 64),
    prior: Literal["normal", "flow"] = "normal",
    encoder: Literal["gaussian", "student-t", "deterministic", "implicit"] = "gaussian",
    noise: int = 16,
) -> tuple[VAE, Encoder]:
    """Make a variational autoencoder for some data.

    Args:
        spec: shape and kind of the data.
        likelihood: bernoulli, categorical, discretized-logistic, logistic-mixture, gaussian, laplace or student-t; by
            the data's kind if not given.
        latent: the number of latent variables.
        hidden: widths of the hidden layers of encoder and decoder (mlp).
        network: mlp, or convolutional for images.
        channels: channels after each halving of the image (convolutional).
        prior: normal, or flow: a neural spline flow, learned.
        encoder: gaussian, student-t (for iwae: tails are heavy), deterministic (for aae and wae), or implicit: noise
            goes in, and there is no density (for avb, aae, wae, alpha-gan, ali).
        noise: the size of an implicit encoder's noise.

    Returns:
        The model and its guide.

    Raises:
        UsageError: where the likelihood or the network does not fit the data.

    Example:
        >>> model, guide = vae(DataSpec((1, 8, 8), "binary"), latent=4, hidden=(32,))
        >>> model(size=3).shape
        torch.Size([3, 1, 8, 8])
    """
    if latent < 1:
        raise UsageError(f"latent must be at least 1, found {latent}")
    check_widths(hidden=hidden, channels=channels)
    chosen = likelihood_for(spec, likelihood)
    if noise < 1:
        raise UsageError(f"noise must be at least 1, found {noise}")
    network_of_data: nn.Module
    decoder: nn.Module
    num_outputs = {
        "gaussian": 2 * latent,
        "student-t": 3 * latent,
        "deterministic": latent,
        "implicit": FEATURES,
    }[encoder]
    if network == "convolutional":
        if len(spec.shape) != 3:
            raise UsageError(f"a convolutional network needs images (channels, height, width), found {spec.shape}")
        depth, *sides = spec.shape
        network_of_data = ConvolutionalEncoder(spec.shape, num_outputs, channels)
        images = ConvolutionalDecoder(latent, (chosen.features_per_dim * depth, *sides), channels)
        decoder = nn.Sequential(images, nn.Flatten(-3))
    else:
        network_of_data = nn.Sequential(nn.Flatten(-len(spec.shape)), MLP(spec.num_dims, num_outputs, hidden))
        decoder = MLP(latent, chosen.num_features, hidden)
    flow = spline_flow(latent) if prior == "flow" else None
    guides: dict[str, Callable[[], Encoder]] = {
        "gaussian": lambda: GaussianEncoder(network_of_data, spec),
        "student-t": lambda: StudentTEncoder(network_of_data, spec),
        "deterministic": lambda: DeterministicEncoder(network_of_data, spec),
        "implicit": lambda: ImplicitEncoder(network_of_data, spec, FEATURES, latent, noise),
    }
    return VAE(decoder, chosen, latent, flow), guides[encoder]()
