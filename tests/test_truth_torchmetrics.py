"""Figures that torchmetrics has as well agree with it, to 1e-4 or better; its own networks are not needed for that."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyrogen.evaluation import (
    accuracy,
    auroc,
    calibration_error,
    frechet_distance,
    kernel_distance,
    label_calibration,
    log_likelihood,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports
    torchmetrics = pytest.importorskip("torchmetrics", reason="the extra `metrics` is not installed")
    from torchmetrics.classification import (
        BinaryAUROC,
        BinaryCalibrationError,
        MulticlassAccuracy,
        MulticlassCalibrationError,
    )
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance
    from torchmetrics.text import Perplexity

TOLERANCE = 1e-4
CLASSES = 5


class Features(nn.Identity):
    """Values that are features already."""

    num_features = 8


@pytest.fixture
def clouds(double) -> tuple[Tensor, Tensor]:
    mixing = torch.randn(8, 8)
    return torch.randn(500, 8), torch.randn(400, 8) @ mixing / 3 + 0.2


def said(metric, real: Tensor, fake: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return metric.compute()


def test_frechet_distance(clouds) -> None:
    theirs = float(said(FrechetInceptionDistance(Features()), *clouds))
    assert frechet_distance(*clouds).value == pytest.approx(theirs, abs=TOLERANCE)
    assert theirs > 1


def test_kernel_distance_of_one_block(clouds) -> None:
    real, fake = (of[:400] for of in clouds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps all features
        metric = KernelInceptionDistance(Features(), subsets=1, subset_size=400)
    theirs, _ = said(metric, real, fake)
    assert kernel_distance(real, fake, block=400).value == pytest.approx(float(theirs), abs=TOLERANCE)
    assert float(theirs) > 0.1


@pytest.mark.parametrize("bins", [10, 15])
def test_calibration_error(bins: int) -> None:
    logits = 2 * torch.randn(3000)
    probability, outcome = (1.5 * logits).sigmoid(), torch.bernoulli(logits.sigmoid())
    theirs = float(BinaryCalibrationError(n_bins=bins, norm="l1")(probability, outcome.long()))
    assert calibration_error(probability, outcome, bins) == pytest.approx(theirs, abs=TOLERANCE)
    assert theirs > 0.03


def labels(x: Tensor, y: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Categorical(logits=x), obs=y)


def test_labels() -> None:
    """The most probable label's calibration, how often it is right, and the perplexity."""
    logits = 2 * torch.randn(2000, CLASSES)
    y = dist.Categorical(logits=0.7 * logits).sample()
    batches = [{"x": logits[:1500], "y": y[:1500]}, {"x": logits[1500:], "y": y[1500:]}]
    probs = logits.softmax(-1)
    said, _ = label_calibration(labels, batches)
    theirs = MulticlassCalibrationError(CLASSES, n_bins=15, norm="l1")(probs, y)
    assert said.value == pytest.approx(float(theirs), abs=TOLERANCE)
    right = MulticlassAccuracy(CLASSES, average="micro")(probs, y)
    assert accuracy(labels, batches).value == pytest.approx(float(right), abs=TOLERANCE)
    perplexity = float(Perplexity()(logits.unsqueeze(0), y.unsqueeze(0)))
    assert math.exp(-log_likelihood(labels, batches).value) == pytest.approx(perplexity, abs=TOLERANCE)


def test_area_under_the_curve_with_ties() -> None:
    inliers, outliers = torch.randn(300).round(decimals=1), (torch.randn(200) + 0.7).round(decimals=1)
    scores, is_outlier = torch.cat([inliers, outliers]), torch.cat([torch.zeros(300), torch.ones(200)]).long()
    theirs = float(BinaryAUROC()((scores / 10).sigmoid(), is_outlier))
    assert auroc(inliers, outliers).value == pytest.approx(theirs, abs=TOLERANCE)
