"""Figures for fitted programs, each with its error bar."""

from pyrogen.evaluation.classification import accuracy
from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.evaluation.likelihood import elbo, evaluating, iwae, log_likelihood

__all__ = ["Estimate", "accuracy", "elbo", "evaluating", "iwae", "log_likelihood", "mean"]
