"""Implicit models: noise that a network turns into data, without a density."""

from collections.abc import Sequence
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrogen.distributions import Implicit
from pyrogen.errors import UsageError
from pyrogen.models.labels import labels_or_random
from pyrogen.nn import MLP, DCGANGenerator, Growth, ProgressiveGenerator
from pyrogen.spec import DataSpec, num_labels, one_hot, unscaled

__all__ = ["ConditionalGenerator", "Generator", "dcgan", "generator", "progressive_gan"]


class Generator(PyroModule):
    r"""A network of standard normal noise.

    .. math:: z \sim \mathcal{N}(0, I), \quad x = f_\theta(z)

    Sites: ``z`` of event shape ``(latent,)``, ``x`` of event shape ``spec.shape``, in plate ``data``.

    Args:
        network: :math:`f_\theta` from ``(batch, latent)`` to ``(batch, *spec.shape)``, within :math:`[-1, 1]` where
            data are bounded.
        spec: the data, to whose range draws are brought.
        latent: the size of :math:`z`.
        view: what is modelled of the data, in their own shape; by default, all.

    Attributes:
        covariates: names of the arguments that draws are conditioned on.
    """

    zero: Tensor
    covariates: tuple[str, ...] = ()

    def __init__(self, network: nn.Module, spec: DataSpec, latent: int, view: nn.Module | None = None) -> None:
        super().__init__()
        self.network = network
        self.view = nn.Identity() if view is None else view
        self.spec = spec
        self.register_buffer("zero", torch.zeros(latent), persistent=False)

    def forward(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """Draw as many data as ``x`` has, shape ``(batch, *spec.shape)``, or ``size``."""
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(self.zero, 1.0).to_event(1))
            return pyro.sample("x", self.pushed(z), obs=x if x is None else self.view(x))

    def pushed(self, inputs: Tensor) -> Implicit:
        """Return the distribution of what the network makes of its inputs, one a row."""
        return Implicit(
            lambda shape: unscaled(self.network(inputs), self.spec).reshape(*shape, *self.spec.shape),
            event_shape=self.spec.shape,
            batch_shape=inputs.shape[:-1],
        )


class ConditionalGenerator(Generator):
    r"""A network of standard normal noise and a label.

    .. math:: z \sim \mathcal{N}(0, I), \quad x = f_\theta(z, y)

    Sites as in :class:`Generator`; ``y`` is a covariate, which no site observes.

    Args:
        network: from ``(batch, latent + spec.num_classes)``, the label as a one-hot vector at the end.
        spec: the data.
        latent: the size of :math:`z`.
        view: what is modelled of the data.

    References:
        Conditional Generative Adversarial Nets (Mirza and Osindero, 2014), https://arxiv.org/abs/1411.1784
    """

    covariates = ("y",)

    def forward(self, x: Tensor | None = None, size: int = 1, y: Tensor | None = None) -> Tensor:
        """Draw a datum for each label ``y`` of shape ``(batch,)``; without labels, for ``size`` labels at random."""
        y = labels_or_random(y, size if x is None else len(x), self.spec, self.zero.device)
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(self.zero, 1.0).to_event(1))
            given = torch.cat([z, one_hot(y, self.spec).to(z.dtype)], -1)
            return pyro.sample("x", self.pushed(given), obs=x if x is None else self.view(x))


def generator(
    spec: DataSpec, *, latent: int = 64, hidden: Sequence[int] = (256, 256), conditional: bool = False
) -> tuple[Generator, None]:
    """Make a fully connected generator for some data.

    Args:
        spec: shape and kind of the data.
        latent: the number of latent variables.
        hidden: widths of the hidden layers.
        conditional: draw data given their labels.

    Returns:
        The model, and no guide.

    Raises:
        UsageError: where the data have no labels to condition on.

    Example:
        >>> model, _ = generator(DataSpec((1, 8, 8), "levels", levels=17), latent=4, hidden=(32,))
        >>> model(size=3).shape
        torch.Size([3, 1, 8, 8])
    """
    _check(latent, hidden, "hidden")
    layers: list[nn.Module] = [MLP(latent + num_labels(spec, conditional), spec.num_dims, hidden, nn.ReLU)]
    if spec.kind != "real":
        layers.append(nn.Tanh())
    network = nn.Sequential(*layers, nn.Unflatten(-1, spec.shape))
    return (ConditionalGenerator if conditional else Generator)(network, spec, latent), None


def dcgan(
    spec: DataSpec,
    *,
    latent: int = 100,
    channels: Sequence[int] = (64, 128),
    upsampling: Literal["transposed", "resize"] = "transposed",
    conditional: bool = False,
) -> tuple[Generator, None]:
    """Make DCGAN's generator of images.

    Args:
        spec: shape and kind of the data.
        latent: the number of latent variables.
        channels: channels of the layers, from the image inwards; the image is halved as many times.
        upsampling: transposed or resize (which leaves no checkerboards).
        conditional: draw images given their labels.

    Returns:
        The model, and no guide.

    Raises:
        UsageError: where the data are no images, or have no labels to condition on.
    """
    _check(latent, channels, "channels")
    if len(spec.shape) != 3 or spec.kind == "real":
        raise UsageError(
            f"dcgan needs images (channels, height, width) with bounded pixels, found {spec.kind} data of shape "
            f"{spec.shape}: use --model generator"
        )
    network = DCGANGenerator(latent + num_labels(spec, conditional), spec.shape, channels, upsampling)
    return (ConditionalGenerator if conditional else Generator)(network, spec, latent), None


def progressive_gan(
    spec: DataSpec,
    *,
    latent: int = 100,
    channels: Sequence[int] = (32, 64, 128),
    phase: int = 1000,
    conditional: bool = False,
) -> tuple[Generator, None]:
    """Make a generator of images that grows from a small resolution to that of the data.

    Until it is grown, draws and data alike have the detail of the stage that it is at. The last layer is linear, as in
    the paper: draws may leave the range of bounded data a little.

    Args:
        spec: shape and kind of the data.
        latent: the number of latent variables.
        channels: channels at each resolution, from the image's own inwards; as many stages.
        phase: rounds of training for each phase: the first stage, then fading in and training each of the others.
        conditional: draw images given their labels.

    Returns:
        The model, and no guide.

    Raises:
        UsageError: where the data are no images, cannot be halved that often, or have no labels to condition on.
    """
    _check(latent, channels, "channels")
    if len(spec.shape) != 3:
        raise UsageError(
            f"progressive-gan needs images (channels, height, width), found data of shape {spec.shape}: use --model "
            f"generator"
        )
    growth = Growth(len(channels), phase)
    network = ProgressiveGenerator(latent + num_labels(spec, conditional), spec.shape, channels, growth)
    return (ConditionalGenerator if conditional else Generator)(network, spec, latent, growth), None


def _check(latent: int, widths: Sequence[int], name: str) -> None:
    if latent < 1:
        raise UsageError(f"latent must be at least 1, found {latent}")
    if not widths or any(width < 1 for width in widths):
        raise UsageError(f"{name} must be widths of at least 1, found {list(widths)}")
