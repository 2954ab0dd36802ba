"""Figures for fitted programs, each with its error bar."""

from pyrogen.evaluation.classification import accuracy
from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.evaluation.likelihood import elbo, evaluating, iwae, log_likelihood
from pyrogen.evaluation.modes import Coverage, mode_coverage
from pyrogen.evaluation.samples import energy_distance, recall, spacing

__all__ = [
    "Coverage",
    "Estimate",
    "accuracy",
    "elbo",
    "energy_distance",
    "evaluating",
    "iwae",
    "log_likelihood",
    "mean",
    "mode_coverage",
    "recall",
    "spacing",
]
