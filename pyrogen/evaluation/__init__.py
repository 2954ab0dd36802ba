"""Figures for fitted programs, each with its error bar."""

from pyrogen.evaluation.arithmetic import Arithmetic, attribute_arithmetic
from pyrogen.evaluation.calibration import Calibration, simulation_based_calibration, uniformity
from pyrogen.evaluation.classes import ClassCoverage, class_coverage
from pyrogen.evaluation.classification import (
    accuracy,
    guide_accuracy,
    guide_forecasts,
    label_calibration,
    label_forecasts,
)
from pyrogen.evaluation.coherence import npmi, topic_diversity, topic_stability
from pyrogen.evaluation.completion import complete
from pyrogen.evaluation.control import (
    Smoothing,
    SoftValues,
    policy_values,
    posterior_values,
    smooth_trajectories,
    variational_values,
)
from pyrogen.evaluation.critic import critic_distance
from pyrogen.evaluation.disentanglement import (
    DCI,
    attribute_predictability,
    beta_vae_score,
    dci,
    factor_vae_score,
    levels_of,
    mutual_information_gap,
)
from pyrogen.evaluation.episode_figures import divergence_figures, return_figures
from pyrogen.evaluation.episodes import Episodes, play
from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.evaluation.evidence import Sandwich, ais, bdmc, smc
from pyrogen.evaluation.features import (
    PrecisionRecall,
    fingerprint,
    frechet_distance,
    frechet_distance_limit,
    kernel_distance,
    precision_recall,
)
from pyrogen.evaluation.imputation import Imputation, impute
from pyrogen.evaluation.judgement import WinRate, exchange_test, wilson_interval, win_rate
from pyrogen.evaluation.latent_search import LatentSearch, latent_search
from pyrogen.evaluation.likelihood import (
    Convergence,
    elbo,
    evaluating,
    iwae,
    iwae_convergence,
    log_densities,
    log_likelihood,
)
from pyrogen.evaluation.linear_quadratic import (
    QuadraticValues,
    Regulator,
    posterior_regulator,
    regulator_returns,
    regulator_values,
    variational_regulator,
)
from pyrogen.evaluation.memorisation import Copying, Neighbours, data_copying, nearest_neighbours
from pyrogen.evaluation.modes import Coverage, mode_coverage
from pyrogen.evaluation.observation import with_noise
from pyrogen.evaluation.outliers import (
    auroc,
    likelihood_ratio,
    negative_log_likelihood,
    typicality,
    watanabe_akaike,
)
from pyrogen.evaluation.parzen import Parzen, parzen_log_likelihood
from pyrogen.evaluation.predictive import log_predictive
from pyrogen.evaluation.predictive_checks import PredictiveCheck, predictive_checks
from pyrogen.evaluation.proposal import lacks_density, moment_proposal
from pyrogen.evaluation.reliability import (
    Forecasts,
    Reliability,
    calibration_error,
    forecast_calibration,
    reliability,
)
from pyrogen.evaluation.representation import Codes, active_units, encode, knn_probe, linear_probe
from pyrogen.evaluation.returns_interval import Interval, interquartile_mean, returns_interval
from pyrogen.evaluation.samples import coverage, density, energy_distance, spacing
from pyrogen.evaluation.text import bits_per_char, surprises, text_distribution
from pyrogen.evaluation.topics import document_completion, left_to_right, log_joint, perplexity
from pyrogen.evaluation.two_sample import TwoSample, two_sample_test
from pyrogen.evaluation.uncertainty import (
    Uncertainty,
    label_draws,
    mutual_information,
    predictive_entropy,
    uncertainty,
)

__all__ = [
    "DCI",
    "Arithmetic",
    "Calibration",
    "ClassCoverage",
    "Codes",
    "Convergence",
    "Copying",
    "Coverage",
    "Episodes",
    "Estimate",
    "Forecasts",
    "Imputation",
    "Interval",
    "LatentSearch",
    "Neighbours",
    "Parzen",
    "PrecisionRecall",
    "PredictiveCheck",
    "QuadraticValues",
    "Regulator",
    "Reliability",
    "Sandwich",
    "Smoothing",
    "SoftValues",
    "TwoSample",
    "Uncertainty",
    "WinRate",
    "accuracy",
    "active_units",
    "ais",
    "attribute_arithmetic",
    "attribute_predictability",
    "auroc",
    "bdmc",
    "beta_vae_score",
    "bits_per_char",
    "calibration_error",
    "class_coverage",
    "complete",
    "coverage",
    "critic_distance",
    "data_copying",
    "dci",
    "density",
    "divergence_figures",
    "document_completion",
    "elbo",
    "encode",
    "energy_distance",
    "evaluating",
    "exchange_test",
    "factor_vae_score",
    "fingerprint",
    "forecast_calibration",
    "frechet_distance",
    "frechet_distance_limit",
    "guide_accuracy",
    "guide_forecasts",
    "impute",
    "interquartile_mean",
    "iwae",
    "iwae_convergence",
    "kernel_distance",
    "knn_probe",
    "label_calibration",
    "label_draws",
    "label_forecasts",
    "lacks_density",
    "latent_search",
    "left_to_right",
    "levels_of",
    "likelihood_ratio",
    "linear_probe",
    "log_densities",
    "log_joint",
    "log_likelihood",
    "log_predictive",
    "mean",
    "mode_coverage",
    "moment_proposal",
    "mutual_information",
    "mutual_information_gap",
    "nearest_neighbours",
    "negative_log_likelihood",
    "npmi",
    "parzen_log_likelihood",
    "perplexity",
    "play",
    "policy_values",
    "posterior_regulator",
    "posterior_values",
    "precision_recall",
    "predictive_checks",
    "predictive_entropy",
    "regulator_returns",
    "regulator_values",
    "reliability",
    "return_figures",
    "returns_interval",
    "simulation_based_calibration",
    "smc",
    "smooth_trajectories",
    "spacing",
    "surprises",
    "text_distribution",
    "topic_diversity",
    "topic_stability",
    "two_sample_test",
    "typicality",
    "uncertainty",
    "uniformity",
    "variational_regulator",
    "variational_values",
    "watanabe_akaike",
    "wilson_interval",
    "win_rate",
    "with_noise",
]
