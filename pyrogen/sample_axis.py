"""The axis of samples: how near draws are to held-out data, and how near training data are."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from pyrogen import evaluation
from pyrogen.axis import Axis, Fitted
from pyrogen.card import compared, learned
from pyrogen.errors import UsageError
from pyrogen.evaluation import Estimate, evaluating
from pyrogen.feature_network import fit_features
from pyrogen.parameters import first_device
from pyrogen.spec import scaled

__all__ = ["samples"]

INCOMPLETE = "data lack values, and draws lack none: there is no distance between them"


def samples(axis: Axis, fitted: Fitted, features: nn.Module | None) -> None:
    """Add how near draws are to held-out data, and how near as many training data are."""
    dataset, roles = fitted.dataset, fitted.roles
    if "x" not in roles.observed:
        axis.notes.append(f"the model draws no data: it is of {', '.join(roles.observed) or 'nothing'}, given x")
        return
    held_out, training = dataset.eval_columns(fitted.split), dataset.eval_columns("train")["x"].float()
    if held_out["x"].isnan().any() or training.isnan().any():
        axis.notes.append(INCOMPLETE)
        return
    model = learned(fitted.model, fitted.guide, dataset.spec)
    real, fake = compared(model, dataset, fitted.batches, roles)
    training = scaled(training, dataset.spec)
    seen = training[torch.randperm(len(training))[: len(real)]]
    axis.measure("energy_distance", evaluation.energy_distance, real, fake, seen)
    if features is None and dataset.spec.num_classes is not None:
        features = fit_features(dataset)
    if features is None:
        axis.notes.append("the data have no labels to learn features by: distances are of the values themselves")
        features = nn.Identity()
    else:
        sha256 = evaluation.fingerprint(features)
        axis.notes.append(f"distances are in features of a network whose tensors have the SHA-256 {sha256[:12]}...")
    real, fake, seen, training = (_features(features, x) for x in (real, fake, seen, training))
    for name, measure in IN_FEATURES.items():
        axis.measure(name, measure, real, fake, seen)
    if "y" in held_out:
        axis.measure("worst_class_coverage", partial(_worst_class, held_out["y"][: len(real)]), real, fake, seen)
    axis.measure("nearer_training", lambda x, y: evaluation.data_copying(training, y, x).nearer, real, fake)


def _features(network: nn.Module, x: Tensor) -> Tensor:
    with evaluating(network):
        return torch.cat([network(part.to(first_device(network))).cpu() for part in x.split(BATCH)]).flatten(1)


BATCH = 1000

NEIGHBOURS = 5
BLOCKS = 10


def _frechet(real: Tensor, fake: Tensor) -> Estimate:
    if real.shape[1] >= len(real):
        raise UsageError(f"a covariance of {real.shape[1]:,} features takes more data than {len(real):,}")
    return evaluation.frechet_distance(real, fake)


def _density(real: Tensor, fake: Tensor) -> Estimate:
    return Estimate(evaluation.density(real, fake, NEIGHBOURS), None, "relative to the data's own")


IN_FEATURES: dict[str, Callable[[Tensor, Tensor], Estimate]] = {
    "frechet_distance": _frechet,
    "kernel_distance": lambda x, y: evaluation.kernel_distance(x, y, max(2, len(x) // BLOCKS)),
    "precision": lambda x, y: _share(evaluation.precision_recall(x, y, NEIGHBOURS).precision, len(y), "draws"),
    "recall": lambda x, y: _share(evaluation.precision_recall(x, y, NEIGHBOURS).recall, len(x), "data"),
    "density": _density,
    "coverage": lambda x, y: _share(evaluation.coverage(x, y, NEIGHBOURS), len(x), "data"),
    "two_sample_accuracy": lambda x, y: evaluation.two_sample_test(x, y).accuracy,
}
"""By name, what compares data and draws."""


def _worst_class(labels: Tensor, real: Tensor, fake: Tensor) -> Estimate:
    found = evaluation.class_coverage(real, labels, fake, neighbours=NEIGHBOURS).covered
    label = min(found, key=lambda label: found[label].value)
    return replace(found[label], unit=f"share of data of class {label}")


def _share(value: float, count: int, of: str) -> Estimate:
    return Estimate(value, (value * (1 - value) / count) ** 0.5, f"share of {count:,} {of}")
