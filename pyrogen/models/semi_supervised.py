"""Semi-supervised learning: a model of data and labels, most of which are missing."""

from collections.abc import Sequence
from math import log
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.models.likelihood import Likelihood, likelihood_for
from pyrogen.nn import MLP, check_widths
from pyrogen.sites import Program
from pyrogen.spec import DataSpec, one_hot, scaled

__all__ = ["M2", "m2"]

NEVER = -1e4
"""The log-probability of what a point does not hold: finite, and its exponential is zero in every dtype."""

SHARE = 0.1
"""Of the class term in the paper: it weighs as much as so many nats for each of all data."""


class M2(nn.Module):
    r"""The generative semi-supervised model: a label and a style make a datum.

    .. math::
        p(x, y, z) = p(y) \, p(z) \, p(x \mid y, z), \qquad q(y, z \mid x) = q(y \mid x) \, q(z \mid x, y)

    :meth:`model` and :meth:`guide` are the two programs. Where a label is known, the guide's :math:`q(y \mid x)` is a
    point there; where it is missing (-1), it is summed out. In training mode, :class:`~pyrogen.inference.ELBO` of the
    two is therefore

    .. math::
        \sum_{\text{labelled}} \big[\mathcal{L}(x, y) + w \log q(y \mid x)\big] + \sum_{\text{unlabelled}} \sum_y
        q(y \mid x) \big[\mathcal{L}(x, y) - \log q(y \mid x)\big]

    .. math::
        \mathcal{L}(x, y) = \mathbb{E}_{q(z \mid x, y)}[\log p(x \mid y, z) + \log p(y) + \log p(z) -
        \log q(z \mid x, y)]

    Without the class term, of weight :math:`w`, labels would not teach :math:`q(y \mid x)` anything. In evaluation mode
    there is none, and labels are drawn in the place of sums: a bound of :math:`\log p(x)`, or of :math:`\log p(x, y)`
    with labels.

    Sites: ``y``, ``z`` of event shape ``(latent,)``, ``x`` of event shape ``spec.shape``, and ``known_y``, the class
    term, all in plate ``data``.

    Args:
        classifier: of :math:`q(y \mid x)`, from ``(batch, *spec.shape)`` to logits ``(batch, num_classes)``.
        encoder: of :math:`q(z \mid x, y)`, from data ``(batch, *spec.shape)`` and labels ``(*batch,)`` to
            ``(*batch, 2 * latent)``: locations, and numbers :math:`a` of scales :math:`2 / (1 + e^{-a})`.
        decoder: of :math:`p(x \mid y, z)`, from ``z`` ``(*batch, latent)`` and labels ``(*batch,)`` to
            ``(*batch, likelihood.num_features)``.
        likelihood: what the decoder's output means.
        latent: the size of :math:`z`.
        class_weight: :math:`w`, of each labelled datum; zero for no class term.
        enumerates: whether missing labels are summed out in training, and not drawn.

    References:
        Semi-supervised Learning with Deep Generative Models (Kingma et al., 2014), https://arxiv.org/abs/1406.5298
    """

    zero: Tensor
    even: Tensor

    def __init__(
        self,
        classifier: nn.Module,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        latent: int,
        class_weight: float,
        enumerates: bool = True,
    ) -> None:
        super().__init__()
        self.classifier, self.encoder, self.decoder = classifier, encoder, decoder
        self.likelihood = likelihood
        self.class_weight = class_weight
        self.enumerates = enumerates
        classes = self.spec.num_classes
        assert classes is not None
        self.register_buffer("zero", torch.zeros(latent), persistent=False)
        self.register_buffer("even", torch.full((classes,), -log(classes)), persistent=False)

    @property
    def spec(self) -> DataSpec:
        """The data."""
        return self.likelihood.spec

    def q_y(self, x: Tensor) -> TorchDistribution:
        r"""Return :math:`q(y \mid x)` of data of shape ``(batch, *spec.shape)``."""
        return dist.Categorical(logits=self.classifier(scaled(x, self.spec)))

    def q_z(self, x: Tensor, y: Tensor) -> TorchDistribution:
        r"""Return :math:`q(z \mid x, y)`; there may be several labels for each datum, in dimensions to the left."""
        loc, raw_scale = self.encoder(scaled(x, self.spec), y).chunk(2, -1)
        return dist.Normal(loc, 2 * raw_scale.sigmoid()).to_event(1)

    def model(self, x: Tensor | None = None, y: Tensor | None = None, size: int = 1) -> Tensor:
        """Score data of shape ``(batch, *spec.shape)`` and labels ``(batch,)``, -1 where they are missing; or draw.

        Without data, ``size`` are drawn; those of given labels, where there are some.
        """
        if x is None and y is not None:
            with pyro.plate("data", len(y)):
                return self._x(y, None)
        with pyro.plate("data", size if x is None else len(x)):
            if x is not None and y is not None and self.training and self.class_weight:
                with poutine.mask(mask=y >= 0), poutine.scale(scale=self.class_weight):
                    pyro.sample("known_y", self.q_y(x), obs=y.clamp(min=0))
            return self._x(pyro.sample("y", dist.Categorical(logits=self.even)), x)

    def _x(self, y: Tensor, x: Tensor | None) -> Tensor:
        z = pyro.sample("z", dist.Normal(self.zero, 1.0).to_event(1))
        return pyro.sample("x", self.likelihood(self.decoder(z, y)), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """Draw labels and styles of data; labels are those that are given, where they are not -1."""
        sums = self.enumerates and self.training
        with pyro.plate("data", len(x)):
            q_y = self.q_y(x) if y is None else self._where_known(y, self.q_y(x))
            label = pyro.sample("y", q_y, infer={"enumerate": "parallel"} if sums else {})
            pyro.sample("z", self.q_z(x, label))

    def _where_known(self, y: Tensor, q_y: TorchDistribution) -> TorchDistribution:
        """Put a point where a label is known."""
        point = (1 - one_hot(y, self.spec)) * NEVER
        return dist.Categorical(logits=torch.where((y >= 0).unsqueeze(-1), point.to(q_y.logits), q_y.logits))


class Labelled(nn.Module):
    """A network of values and a label; what the first layer makes of values is shared by all labels.

    Args:
        num_inputs: how many values there are.
        num_outputs: the size of the last dimension of the result.
        hidden: the widths of the layers between, at least one.
        spec: the data, whose labels they are.
    """

    def __init__(self, num_inputs: int, num_outputs: int, hidden: Sequence[int], spec: DataSpec) -> None:
        super().__init__()
        assert spec.num_classes is not None
        first, *others = hidden
        self.of_values = nn.Linear(num_inputs, first)
        self.of_label = nn.Linear(spec.num_classes, first, bias=False)
        self.rest = nn.Sequential(nn.SiLU(), MLP(first, num_outputs, others))
        self.spec = spec

    def forward(self, values: Tensor, y: Tensor) -> Tensor:
        """Map values ``(*batch, ...)`` and labels ``(*batch,)``, which broadcast, to ``(*batch, num_outputs)``."""
        label = one_hot(y, self.spec).to(self.of_label.weight)
        return self.rest(self.of_values(values) + self.of_label(label))


class FlatLabelled(Labelled):
    """The same of data of any shape."""

    def forward(self, values: Tensor, y: Tensor) -> Tensor:
        return super().forward(values.flatten(-len(self.spec.shape)), y)


def m2(
    spec: DataSpec,
    *,
    likelihood: str | None = None,
    latent: int = 50,
    hidden: Sequence[int] = (500,),
    class_weight: float | None = None,
    missing: Literal["summed", "drawn"] = "summed",
) -> tuple[Program, Program]:
    """Make a semi-supervised model of data, of which some have labels; labels of -1 are missing.

    Args:
        spec: shape, kind and number of classes of the data.
        likelihood: bernoulli, categorical, discretized-logistic, logistic-mixture, gaussian or laplace; by the data's
            kind if not given.
        latent: the number of latent variables beside the label.
        hidden: widths of the hidden layers of classifier, encoder and decoder.
        class_weight: of what labels teach the classifier, for each labelled datum; 0.1 N / (number of labels) of N
            data, as in the paper, if not given.
        missing: summed: sum over the labels that are missing; drawn: draw them, which does not learn.

    Returns:
        The model and its guide, two methods of one :class:`M2`.

    Raises:
        UsageError: where the data have no labels, the likelihood does not fit them, or a setting is out of range.

    Example:
        >>> model, guide = m2(DataSpec((1, 8, 8), "binary", num_classes=10), latent=4, hidden=(32,))
        >>> model(size=3).shape, model(y=torch.tensor([7, 2])).shape
        (torch.Size([3, 1, 8, 8]), torch.Size([2, 1, 8, 8]))
    """
    if spec.num_classes is None:
        raise UsageError(f"m2 learns from labels, and {spec.name} has none: give the data a column y")
    if latent < 1 or not hidden:
        raise UsageError(f"latent and the number of hidden layers must be at least 1, found {latent} and {len(hidden)}")
    check_widths(hidden=hidden)
    if class_weight is None:
        class_weight = SHARE * (spec.num_data or 1) / (spec.num_labelled or spec.num_data or 1)
    if not 0 <= class_weight < float("inf"):
        raise UsageError(f"class_weight must be at least 0 and finite, found {class_weight}")
    chosen = likelihood_for(spec, likelihood)
    both = M2(
        nn.Sequential(nn.Flatten(-len(spec.shape)), MLP(spec.num_dims, spec.num_classes, hidden)),
        FlatLabelled(spec.num_dims, 2 * latent, hidden, spec),
        Labelled(latent, chosen.num_features, hidden, spec),
        chosen,
        latent,
        class_weight,
        enumerates=missing == "summed",
    )
    return both.model, both.guide
