"""Distributions that Pyro does not have."""

from pyrogen.distributions.autoregressive import Autoregressive
from pyrogen.distributions.bag_of_words import BagOfWords, TopicMixture
from pyrogen.distributions.choice import Choice
from pyrogen.distributions.dirichlet import log_geometric_mean, log_mean
from pyrogen.distributions.discretized_logistic import DiscretizedLogistic
from pyrogen.distributions.discretized_logistic_mixture import DiscretizedLogisticMixture
from pyrogen.distributions.implicit import Implicit, is_implicit
from pyrogen.distributions.jacobi import JacobiDraws, sample_by_jacobi
from pyrogen.distributions.tanh_normal import TanhNormal

__all__ = [
    "Autoregressive",
    "BagOfWords",
    "Choice",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Implicit",
    "JacobiDraws",
    "TanhNormal",
    "TopicMixture",
    "is_implicit",
    "log_geometric_mean",
    "log_mean",
    "sample_by_jacobi",
]
