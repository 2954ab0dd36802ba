"""Distributions that Pyro does not have."""

from pyrogen.distributions.discretized_logistic import DiscretizedLogistic

__all__ = ["DiscretizedLogistic"]
