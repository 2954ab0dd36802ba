"""Guides of topic models: topics with a Dirichlet posterior or as a point, weights by a network or by optimisation."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import Gamma
from torch.nn.functional import softplus

from pyrogen.distributions import log_geometric_mean, log_mean
from pyrogen.models.coordinate_ascent import local_optimum
from pyrogen.models.plates import scaled_plate
from pyrogen.models.topic_model import LDA, UNIT, TopicModel

__all__ = ["DirichletEncoder", "LogisticNormalEncoder", "MeanField", "NormalEncoder", "PointTopics"]


def started(model: TopicModel) -> Tensor:
    """Draw concentrations to start from: near one, and different, or topics would stay alike."""
    return Gamma(100.0, 100.0).sample((model.num_topics, model.num_words))


class MeanField(PyroModule):
    r"""The mean-field posterior of LDA, with the best factor for each document's weights.

    .. math:: q = \prod_k \mathrm{Dirichlet}(\varphi_k; \lambda_k) \prod_d \mathrm{Dirichlet}(\theta_d; \gamma_d)

    :math:`\gamma_d` is found by coordinate ascent in every call, see
    :func:`~pyrogen.models.coordinate_ascent.local_optimum`. :math:`\lambda` is a parameter *as it is*, positive and not
    a logarithm: :class:`~pyrogen.inference.NaturalGradient` learns it.

    Args:
        model: the model.
        log_average: of a Dirichlet distribution, by which topics and weights count in coordinate ascent:
            :func:`~pyrogen.distributions.log_geometric_mean`; or
            :func:`~pyrogen.distributions.log_mean`, for :class:`~pyrogen.inference.CollapsedVB`.
        max_steps: of coordinate ascent.
        tolerance: likewise.
    """

    alpha: Tensor

    def __init__(
        self,
        model: LDA,
        log_average: Callable[[Tensor], Tensor] = log_geometric_mean,
        max_steps: int = 100,
        tolerance: float = 1e-3,
    ) -> None:
        super().__init__()
        self.log_average = log_average
        self.num_data, self.max_steps, self.tolerance = model.num_data, max_steps, tolerance
        self.register_buffer("alpha", model.alpha.clone())
        self.concentration = nn.Parameter(started(model))

    def weights(self, x: Tensor) -> Tensor:
        r"""Return :math:`\gamma`, shape ``(documents, topics)``."""
        log_topics = self.log_average(self.concentration)
        return local_optimum(x, log_topics, self.alpha, self.log_average, self.max_steps, self.tolerance)

    def forward(self, x: Tensor) -> None:
        """Draw topics, and weights for documents ``x``."""
        with pyro.plate("topic", len(self.alpha)):
            pyro.sample("phi", dist.Dirichlet(self.concentration))
        with scaled_plate("document", x, 0, self.num_data):
            pyro.sample("theta", dist.Dirichlet(self.weights(x)))


class PointTopics(PyroModule):
    r"""The mode of LDA's posterior, in the softmax basis.

    There, a Dirichlet prior has its mode inside the simplex, however small its concentration is:
    :math:`\log p(\varphi) + \sum_v \log \varphi_v = \sum_v \eta_v \log \varphi_v + \mathrm{const}`. The Jacobian,
    :math:`-\sum_v \log \varphi_v`, is the log-density of the point. Weights are found by expectation maximisation in
    every call.

    Args:
        model: the model.

    References:
        Choice of Basis for Laplace Approximation (MacKay, 1998), https://doi.org/10.1023/A:1007558615313
    """

    alpha: Tensor

    def __init__(self, model: LDA) -> None:
        super().__init__()
        self.num_data = model.num_data
        self.register_buffer("alpha", model.alpha.clone())
        self.logits = nn.Parameter(started(model).log())

    def forward(self, x: Tensor) -> None:
        """Give the mode of topics, and of weights for documents ``x``."""
        log_topics = self.logits.log_softmax(-1)
        with pyro.plate("topic", len(self.alpha)):
            pyro.sample("phi", point(log_topics))
        with scaled_plate("document", x, 0, self.num_data):
            gamma = local_optimum(x, log_topics.detach(), self.alpha, log_mean)
            pyro.sample("theta", point(log_mean(gamma)))


def point(log_probs: Tensor) -> TorchDistribution:
    """Return a point of the simplex, with the Jacobian of the softmax basis for its density."""
    return dist.Delta(log_probs.exp(), log_density=-log_probs.sum(-1), event_dim=1)


class Encoder(PyroModule):
    """A guide whose weights are a network's; the posterior of topics, where they are latent, is Dirichlet.

    Args:
        model: the model.
        network: from counts ``(documents, words)`` to as many numbers as the encoder needs.
        has_topics: whether the model's topics are latent.
    """

    site = "theta"

    def __init__(self, model: TopicModel, network: nn.Module, has_topics: bool = True) -> None:
        super().__init__()
        self.num_data, self.num_topics = model.num_data, model.num_topics
        self.network = network
        self.log_concentration = nn.Parameter(started(model).log()) if has_topics else None

    def posterior(self, x: Tensor) -> TorchDistribution:
        """Return the distribution of what documents ``x`` have of topics."""
        raise NotImplementedError  # a PyroModule cannot be an ABC

    def forward(self, x: Tensor) -> None:
        """Draw topics, and weights for documents ``x``."""
        if self.log_concentration is not None:
            with pyro.plate("topic", self.num_topics):
                pyro.sample("phi", dist.Dirichlet(self.log_concentration.exp()))
        with scaled_plate("document", x, 0, self.num_data):
            pyro.sample(self.site, self.posterior(x))


class DirichletEncoder(Encoder):
    r"""Weights that are Dirichlet, with pathwise gradients by implicit reparameterisation.

    .. math:: q(\theta \mid x) = \mathrm{Dirichlet}(\operatorname{softplus} f(x) + 10^{-2})

    References:
        Implicit Reparameterization Gradients (Figurnov et al., 2018), https://arxiv.org/abs/1805.08498
    """

    def posterior(self, x: Tensor) -> TorchDistribution:
        return dist.Dirichlet(softplus(self.network(x)) + 1e-2)


class LogisticNormalEncoder(Encoder):
    r"""Weights that are logistic-normal: normal coordinates, one less than topics, broken off a stick one by one."""

    def posterior(self, x: Tensor) -> TorchDistribution:
        return dist.TransformedDistribution(normal(self.network(x)), [dist.transforms.StickBreakingTransform()])


class NormalEncoder(Encoder):
    r"""Normal logits of weights, with independent coordinates, for models whose prior is of logits."""

    site = "z"

    def posterior(self, x: Tensor) -> TorchDistribution:
        return normal(self.network(x))


def normal(outputs: Tensor) -> TorchDistribution:
    """Return a normal distribution of independent coordinates, by means and what scales are made of."""
    loc, raw_scale = outputs.chunk(2, -1)
    return dist.Normal(loc, softplus(raw_scale + UNIT)).to_event(1)
