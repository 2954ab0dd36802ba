"""What a network's output means: the distribution of a datum."""

from abc import ABC, abstractmethod

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyrogen.distributions import DiscretizedLogistic, DiscretizedLogisticMixture
from pyrogen.errors import UsageError
from pyrogen.spec import DataSpec

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Categorical",
    "DiscretizedLogisticPixels",
    "Gaussian",
    "Laplace",
    "Likelihood",
    "LogisticMixturePixels",
    "StudentT",
    "likelihood_for",
]


class Likelihood(nn.Module, ABC):
    """The distribution of ``x`` given a network's output of ``features_per_dim`` numbers for each of its values.

    Args:
        spec: the data; a kind that the distribution gives no probability to is refused.

    Raises:
        UsageError: where the data are of the wrong kind, with the choices that fit.
    """

    kinds: tuple[str, ...]
    features_per_dim = 1

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        if spec.kind not in self.kinds:
            name = next(name for name, cls in LIKELIHOODS.items() if cls is type(self))
            fitting = [name for name, cls in LIKELIHOODS.items() if spec.kind in cls.kinds]
            raise UsageError(
                f"a {name} likelihood gives no probability to data of kind {spec.kind!r}: it needs "
                f"{' or '.join(map(repr, self.kinds))}. Choose --likelihood {' or '.join(fitting)}, or change the data "
                f"with --pixels."
            )
        self.spec = spec

    @property
    def num_features(self) -> int:
        """How many numbers the network must give for a datum."""
        return self.features_per_dim * self.spec.num_dims

    def forward(self, features: Tensor) -> TorchDistribution:
        """Map features of shape ``(*batch, num_features)`` to a distribution over ``(*batch, *spec.shape)``."""
        batch, shape = features.shape[:-1], self.spec.shape
        return self.distribution(features.reshape(*batch, self.features_per_dim, *shape)).to_event(len(shape))

    @abstractmethod
    def distribution(self, features: Tensor) -> TorchDistribution:
        """Map features of shape ``(*batch, features_per_dim, *shape)`` to independent values."""

    def _parts(self, features: Tensor) -> tuple[Tensor, ...]:
        return features.unbind(-1 - len(self.spec.shape))


class Bernoulli(Likelihood):
    """A coin for each pixel."""

    kinds = ("binary",)

    def distribution(self, features: Tensor) -> TorchDistribution:
        return dist.Bernoulli(logits=self._parts(features)[0])


class Categorical(Likelihood):
    """One logit for each level of each pixel."""

    kinds = ("binary", "levels")

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        assert spec.levels is not None
        self.features_per_dim = spec.levels

    def distribution(self, features: Tensor) -> TorchDistribution:
        return dist.Categorical(logits=features.movedim(-1 - len(self.spec.shape), -1))


class DiscretizedLogisticPixels(Likelihood):
    """A logistic distribution cut into levels; location and scale for each pixel.

    Logarithms of scales are clamped: below, a pixel that is always the same has unbounded gradients; above, all levels
    are equally probable already.
    """

    kinds = ("binary", "levels")
    features_per_dim = 2
    log_scale_range = (-7.0, 3.0)

    def distribution(self, features: Tensor) -> TorchDistribution:
        loc, log_scale = self._parts(features)
        assert self.spec.levels is not None
        return DiscretizedLogistic(loc, log_scale.clamp(*self.log_scale_range).exp(), self.spec.levels)


class LogisticMixturePixels(Likelihood):
    """A mixture of ten logistic distributions cut into levels; a weight, a location and a scale of each for each pixel.

    Logarithms of scales are clamped as those of :class:`DiscretizedLogisticPixels`.
    """

    kinds = ("binary", "levels")
    components = 10
    features_per_dim = 3 * components

    def distribution(self, features: Tensor) -> TorchDistribution:
        logits, loc, log_scale = features.movedim(-1 - len(self.spec.shape), -1).chunk(3, -1)
        low, high = DiscretizedLogisticPixels.log_scale_range
        assert self.spec.levels is not None
        return DiscretizedLogisticMixture(logits, loc, log_scale.clamp(low, high).exp(), self.spec.levels)


class _LocationScale(Likelihood):
    """A location from the network and one learned scale for each of the datum's values."""

    kinds = ("dequantized", "real")
    family: type[TorchDistribution]

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.log_scale = nn.Parameter(torch.full(spec.shape, -1.0 if spec.kind == "dequantized" else 0.0))

    def distribution(self, features: Tensor) -> TorchDistribution:
        return self.family(self._parts(features)[0], self.log_scale.exp())


class Gaussian(_LocationScale):
    """A normal distribution around the network's output."""

    family = dist.Normal


class Laplace(_LocationScale):
    """A Laplace distribution around the network's output: the likelihood of an L1 loss."""

    family = dist.Laplace


class StudentT(Likelihood):
    r"""Student's t-distribution; location, scale and degrees of freedom for each value, all from the network.

    .. math:: \mathrm{St}\left(\mu, \; 10^{-3} + \operatorname{softplus} a, \; 3 + \operatorname{softplus} b\right)

    The least scale keeps densities bounded, where data are of unit variance; the least freedom keeps variances finite.

    References:
        MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets (Mattei and Frellsen, 2019),
        https://arxiv.org/abs/1812.02633
    """

    kinds = ("dequantized", "real")
    features_per_dim = 3
    min_scale, min_freedom = 1e-3, 3.0

    def distribution(self, features: Tensor) -> TorchDistribution:
        loc, raw_scale, raw_freedom = self._parts(features)
        return dist.StudentT(self.min_freedom + softplus(raw_freedom), loc, self.min_scale + softplus(raw_scale))


DEFAULTS = {
    "binary": "bernoulli",
    "levels": "discretized-logistic",
    "dequantized": "gaussian",
    "real": "gaussian",
}


def likelihood_for(spec: DataSpec, name: str | None = None) -> Likelihood:
    """Make a likelihood by name, or by the data's kind if there is none.

    Raises:
        UsageError: where there is none of that name, or it does not fit the data.

    Example:
        >>> type(likelihood_for(DataSpec((4,), "real"))).__name__
        'Gaussian'
    """
    if spec.kind not in DEFAULTS:
        raise UsageError(
            f"{spec.name} are {spec.kind} of words, for which lda, prodlda and correlated-topics have a likelihood of "
            f"their own: choose one of these models"
        )
    name = DEFAULTS[spec.kind] if name is None else name
    if name not in LIKELIHOODS:
        raise UsageError(f"unknown likelihood {name!r}: choose from {', '.join(LIKELIHOODS)}")
    return LIKELIHOODS[name](spec)


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "categorical": Categorical,
    "discretized-logistic": DiscretizedLogisticPixels,
    "gaussian": Gaussian,
    "laplace": Laplace,
    "logistic-mixture": LogisticMixturePixels,
    "student-t": StudentT,
}
