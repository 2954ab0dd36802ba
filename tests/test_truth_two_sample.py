"""Held to the truth: accuracies of the best classifier, critics in closed form, and nothing where nothing is."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2, norm
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from pyrogen.errors import DataError, ProgramError, UsageError
from pyrogen.evaluation import critic_distance, two_sample_test

NAMES = ("knn", "logistic", "network")


@pytest.mark.parametrize("classifier", ["knn", "logistic"])
def test_equal_distributions_are_not_told_apart(classifier):
    """The accuracy is N(1/2, 1/(4 n)), and a p-value below 5% as rare as it should be."""
    torch.manual_seed(0)
    runs = [two_sample_test(torch.randn(100, 2), torch.randn(130, 2), classifier, seed) for seed in range(150)]
    z = np.array([(run.accuracy.value - 0.5) * 2 * 100**0.5 for run in runs])  # 100 rows are held out
    assert abs(z.mean()) < 4.5 / 150**0.5
    assert abs(z.std() - 1) < 4.5 / 300**0.5
    below = np.mean([run.p_value < 0.05 for run in runs])
    assert abs(below - 0.05) < 4.5 * (0.05 * 0.95 / 150) ** 0.5


@pytest.mark.parametrize("classifier", NAMES)
def test_shifted_normals(classifier):
    r"""No classifier is better than :math:`\Phi(1/2)`; these are as good, up to what votes of many cost."""
    torch.manual_seed(0)
    x, y = torch.randn(4000, 1), torch.randn(4000, 1) + 1
    found = two_sample_test(x, y, classifier)
    assert abs(found.accuracy.value - norm.cdf(0.5)) < 4.5 * found.accuracy.stderr
    assert found.accuracy.stderr == pytest.approx((norm.cdf(0.5) * norm.cdf(-0.5) / 4000) ** 0.5, rel=0.05)
    assert found.p_value == pytest.approx(norm.sf((found.accuracy.value - 0.5) * 2 * 4000**0.5), rel=1e-6)


@pytest.mark.parametrize("classifier", NAMES)
def test_a_difference_that_no_line_sees(classifier):
    """Of N(0, I) and N(0, 4 I) in three dimensions, the best classifier cuts at a radius."""
    torch.manual_seed(0)
    cut = 8 * math.log(2)  # where 3 log 2 = r^2 (1 - 1/4) / 2
    best = (chi2.cdf(cut, 3) + chi2.sf(cut / 4, 3)) / 2
    found = two_sample_test(torch.randn(3000, 3), 2 * torch.randn(3000, 3), classifier).accuracy
    if classifier == "logistic":
        assert found.value < 0.55
    else:
        assert best - 0.04 < found.value < best + 4.5 * found.stderr


def test_a_classifier_of_ones_own():
    x, y = torch.rand(500, 1), torch.rand(500, 1) + 1
    assert two_sample_test(x, y, DecisionTreeClassifier()).accuracy.value > 0.99
    with pytest.raises(UsageError, match="unknown classifier 'forest': choose from knn, logistic, network"):
        two_sample_test(x, y, "forest")
    with pytest.raises(DataError, match="20 data and 20 draws or more, found 19"):
        two_sample_test(x, y[:19])


# Critics


def test_a_linear_critic_in_closed_form():
    r"""The slope that is best for :math:`a \cdot m - \lambda (|a| - 1)^2` is :math:`1 + |m| / 2 \lambda` along m."""
    torch.manual_seed(0)
    m = torch.tensor([3.0, 4.0])
    x, y = torch.randn(4000, 2) + m, torch.randn(4000, 2)
    for weight in (2.0, 50.0):
        found = critic_distance(x, y, nn.Linear(2, 1), 300, learning_rate=1e-2, weight=weight)
        assert abs(found.value - 5 * (1 + 5 / (2 * weight))) < 4.5 * found.stderr
        # var(a x) = a^2 in 2,000 rows of each
        assert found.stderr == pytest.approx((1 + 5 / (2 * weight)) * (2 / 2000) ** 0.5, rel=0.1)


def test_a_critic_of_spreads():
    r"""Of N(0, 1) and N(0, 4), :math:`W_1 = \mathbb{E}|z|`, between which a penalty and a small network put it."""
    torch.manual_seed(0)
    found = critic_distance(2 * torch.randn(4000, 1), torch.randn(4000, 1), num_steps=300, learning_rate=2e-3)
    w = (2 / math.pi) ** 0.5
    assert 0.85 * w < found.value < w * (1 + w / 20) + 4.5 * found.stderr


def test_a_critic_finds_nothing_where_nothing_is():
    """It learns 20 rows by heart, and is asked about others."""
    torch.manual_seed(0)

    def distance():
        critic = nn.Sequential(nn.Linear(8, 32), nn.LeakyReLU(), nn.Linear(32, 1))
        return critic_distance(*torch.randn(2, 40, 8), critic, 40, 20, learning_rate=1e-2)

    found = [distance() for _ in range(30)]
    values = np.array([distance.value for distance in found])
    assert abs(values.mean()) < 4.5 * values.std() / 30**0.5
    assert np.mean([distance.stderr for distance in found]) == pytest.approx(values.std(), rel=0.4)


def test_an_order_does_no_harm():
    """Halves are taken at random: of sorted rows, the first half is another distribution."""
    torch.manual_seed(0)
    x, y = torch.randn(2000, 1).sort(0).values, torch.randn(2000, 1)
    found = critic_distance(x, y, nn.Linear(1, 1), 100, learning_rate=1e-2)
    assert abs(found.value) < 4.5 * found.stderr


def test_critics_that_do_not_fit():
    x = torch.randn(8, 3)
    with pytest.raises(ProgramError, match=r"returned shape \(8, 2\) for 8 rows"):
        critic_distance(x, x, nn.Linear(3, 2), batch_size=8)
    with pytest.raises(ProgramError, match=r"batch normalisation.*'1'"):
        critic_distance(x, x, nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)))
    with pytest.raises(DataError, match=r"four draws or more, found \[8, 3\]"):
        critic_distance(x, x[:3])
    assert critic_distance(x.double(), x.double(), nn.Linear(3, 1), 2).unit == "distance"
