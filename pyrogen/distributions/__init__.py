"""Distributions that Pyro does not have."""

from pyrogen.distributions.discretized_logistic import DiscretizedLogistic
from pyrogen.distributions.implicit import Implicit, is_implicit

__all__ = ["DiscretizedLogistic", "Implicit", "is_implicit"]
