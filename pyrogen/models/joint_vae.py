"""The variational autoencoder of pairs: images and labels, or any other two."""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.models.experts import ProductOfExperts
from pyrogen.models.likelihood import likelihood_for
from pyrogen.models.views import views
from pyrogen.nn import MLP
from pyrogen.spec import DataSpec, one_hot, scaled

__all__ = ["JointVAE", "joint_vae", "to_images", "to_labels"]


class JointVAE(PyroModule):
    r"""A latent-variable model of two modalities that are independent given the latent variables.

    .. math:: p(x, y) = \int p(z) \, p(x \mid z) \, p(y \mid z) \, \mathrm{d}z

    In training mode each datum is seen three times, as a pair and each modality alone, so that :class:`ELBO` is

    .. math:: \mathcal{L}(x, y) + \mathcal{L}(x) + \mathcal{L}(y),

    a bound of :math:`\log p(x, y) + \log p(x) + \log p(y)` where :math:`\lambda = 1`. In evaluation mode it is a
    bound of :math:`\log p(x, y)`. Where a modality is missing (a whole number below zero, such as the label -1, or a
    real that is NaN) only the bound of the other counts, once; where ``y`` or ``x`` is not given at all, likewise.

    Sites: ``z`` of event shape ``(latent,)``, ``x`` and ``y``, in plate ``data``, of three rows a datum in training
    mode.

    Args:
        x_given_z: from ``(*batch, latent)`` to the distribution of a datum's ``x``.
        y_given_z: likewise, of ``y``.
        latent: the size of :math:`z`.
        spec: the data.
        y_weight: :math:`\lambda`, what :math:`\log p(y \mid z)` is multiplied by in training mode. A label of a few
            nats is soon forgotten beside an image of hundreds.

    Raises:
        ProgramError: where there are not as many values of ``x`` as of ``y``.

    References:
        Multimodal Generative Models for Scalable Weakly-Supervised Learning (Wu and Goodman, 2018),
        https://arxiv.org/abs/1802.05335
    """

    zero: Tensor

    def __init__(
        self, x_given_z: nn.Module, y_given_z: nn.Module, latent: int, spec: DataSpec, y_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.x_given_z, self.y_given_z = x_given_z, y_given_z
        self.spec = spec
        self.y_weight = y_weight
        self.register_buffer("zero", torch.zeros(latent), persistent=False)

    def prior(self) -> TorchDistribution:
        """Return :math:`p(z)`."""
        return dist.Normal(self.zero, 1.0).to_event(1)

    def forward(
        self, x: Tensor | None = None, y: Tensor | None = None, size: int = 1
    ) -> tuple[Tensor | None, Tensor | None]:
        """Score ``x`` of shape ``(batch, *spec.shape)``, ``y`` of shape ``(batch, ...)``, or both; or draw pairs."""
        if x is None and y is None:
            with pyro.plate("data", size):
                z = pyro.sample("z", self.prior())
                return pyro.sample("x", self.x_given_z(z)), pyro.sample("y", self.y_given_z(z))
        seen = views(x, y, self.training)
        with pyro.plate("data", len(seen.sees_x)):
            z = pyro.sample("z", self.prior())
            if seen.x is not None:
                with pyro.poutine.mask(mask=seen.sees_x):
                    pyro.sample("x", self.x_given_z(z), obs=seen.x)
            if seen.y is not None:
                weight = self.y_weight if self.training else 1.0
                with pyro.poutine.mask(mask=seen.sees_y), pyro.poutine.scale(scale=weight):
                    pyro.sample("y", self.y_given_z(z), obs=seen.y)
        return seen.x, seen.y


def to_labels(model: JointVAE, guide: ProductOfExperts, x: Tensor) -> Tensor:
    r"""Translate: draw :math:`y \sim p(y \mid z), z \sim q(z \mid x)` for each ``x``, without gradients."""
    with torch.no_grad():
        return model.y_given_z(guide.posterior(x=x).sample()).sample()


def to_images(model: JointVAE, guide: ProductOfExperts, y: Tensor) -> Tensor:
    r"""Translate: draw :math:`x \sim p(x \mid z), z \sim q(z \mid y)` for each ``y``, without gradients."""
    with torch.no_grad():
        return model.x_given_z(guide.posterior(y=y).sample()).sample()


class Scaled(nn.Module):
    """Data as vectors, scaled to [-1, 1] where they are bounded."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        return scaled(x, self.spec).flatten(1)


class OneHot(nn.Module):
    """Labels as vectors."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, y: Tensor) -> Tensor:
        return one_hot(y, self.spec)


class Label(nn.Module):
    """Logits as the distribution of a label."""

    def forward(self, logits: Tensor) -> TorchDistribution:
        return dist.Categorical(logits=logits)


def joint_vae(
    spec: DataSpec,
    *,
    likelihood: str | None = None,
    latent: int = 16,
    hidden: Sequence[int] = (256, 256),
    label_hidden: Sequence[int] = (64,),
    label_weight: float = 50.0,
) -> tuple[JointVAE, ProductOfExperts]:
    """Make a variational autoencoder of data and their labels; labels of -1 are missing.

    Args:
        spec: shape, kind and number of classes of the data.
        likelihood: bernoulli, categorical, discretized-logistic, logistic-mixture, gaussian or laplace; by the data's
            kind if not given.
        latent: the number of latent variables.
        hidden: widths of the hidden layers between data and latent variables.
        label_hidden: widths of the hidden layers between labels and latent variables.
        label_weight: what the log-probabilities of labels are multiplied by in training.

    Returns:
        The model and its guide.

    Raises:
        UsageError: where the data have no labels, or the likelihood does not fit them.

    Example:
        >>> model, guide = joint_vae(DataSpec((1, 8, 8), "binary", num_classes=10), latent=4, hidden=(32,))
        >>> x, y = model(size=3)
        >>> x.shape, y.shape, to_images(model, guide, torch.tensor([7, 2])).shape
        (torch.Size([3, 1, 8, 8]), torch.Size([3]), torch.Size([2, 1, 8, 8]))
    """
    if spec.num_classes is None:
        raise UsageError(f"a joint model needs labels, and {spec.name} has none: give the data a column y")
    if latent < 1 or any(width < 1 for width in (*hidden, *label_hidden)):
        raise UsageError(
            f"latent and hidden widths must be at least 1, found {latent}, {list(hidden)}, {list(label_hidden)}"
        )
    if not label_weight > 0:
        raise UsageError(f"label_weight must be positive, found {label_weight}")
    chosen, classes = likelihood_for(spec, likelihood), spec.num_classes
    model = JointVAE(
        nn.Sequential(MLP(latent, chosen.num_features, hidden), chosen),
        nn.Sequential(MLP(latent, classes, label_hidden), Label()),
        latent,
        spec,
        label_weight,
    )
    guide = ProductOfExperts(
        nn.Sequential(Scaled(spec), MLP(spec.num_dims, 2 * latent, hidden)),
        nn.Sequential(OneHot(spec), MLP(classes, 2 * latent, label_hidden)),
    )
    return model, guide
