"""Figures for fitted programs, each with its error bar."""

from pyrogen.evaluation.arithmetic import Arithmetic, attribute_arithmetic
from pyrogen.evaluation.calibration import Calibration, simulation_based_calibration, uniformity
from pyrogen.evaluation.classification import accuracy, calibration_error
from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.evaluation.features import PrecisionRecall, frechet_distance, kernel_distance, precision_recall
from pyrogen.evaluation.likelihood import elbo, evaluating, iwae, log_likelihood
from pyrogen.evaluation.modes import Coverage, mode_coverage
from pyrogen.evaluation.proposal import lacks_density, moment_proposal
from pyrogen.evaluation.samples import coverage, energy_distance, spacing

__all__ = [
    "Arithmetic",
    "Calibration",
    "Coverage",
    "Estimate",
    "PrecisionRecall",
    "accuracy",
    "attribute_arithmetic",
    "calibration_error",
    "coverage",
    "elbo",
    "energy_distance",
    "evaluating",
    "frechet_distance",
    "iwae",
    "kernel_distance",
    "lacks_density",
    "log_likelihood",
    "mean",
    "mode_coverage",
    "moment_proposal",
    "precision_recall",
    "simulation_based_calibration",
    "spacing",
    "uniformity",
]
