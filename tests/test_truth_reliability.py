"""Reliability of forecasts against closed forms and scikit-learn; bands of ranks against what uniform ones do."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import binom, chi2
from sklearn.calibration import calibration_curve

from pyrogen.calibration_pictures import rank_band
from pyrogen.errors import DataError, ProgramError, UsageError
from pyrogen.evaluation import (
    Forecasts,
    accuracy,
    calibration_error,
    forecast_calibration,
    label_forecasts,
    reliability,
)


def forecasts(count: int, sharper: float = 1.0) -> Forecasts:
    """Draw outcomes of known probabilities, and say these or, by logits that are multiplied, surer ones."""
    logits = 2 * torch.randn(count).double()
    return Forecasts((sharper * logits).sigmoid(), torch.bernoulli(logits.sigmoid()))


def test_bins_by_hand() -> None:
    """Two forecasts of 0.2 and 0.4, and a sure one, which is in the last bin and not beyond it."""
    found = reliability(torch.tensor([0.2, 0.4, 1.0, 0.6]), torch.tensor([0.0, 1.0, 1.0, 0.0]), bins=4)
    assert found.counts.tolist() == [1, 1, 1, 1]
    assert found.probability.tolist() == pytest.approx([0.2, 0.4, 0.6, 1.0], abs=1e-7)
    assert found.share.tolist() == [0.0, 1.0, 0.0, 1.0]
    assert found.stderr.tolist() == pytest.approx([0.4, 0.24**0.5, 0.24**0.5, 0.0], abs=1e-7)
    pair = reliability(torch.tensor([0.2, 0.4]), torch.tensor([0.0, 1.0]), bins=2)
    assert float(pair.stderr[0]) == pytest.approx((0.16 + 0.24) ** 0.5 / 2, abs=1e-7)
    assert pair.counts.tolist() == [2, 0]
    assert pair.share[1].isnan()


def test_points_are_those_of_scikit_learn() -> None:
    probability, outcome = forecasts(5000)
    found = reliability(probability, outcome, bins=10)
    share, said = calibration_curve(outcome.numpy(), probability.numpy(), n_bins=10)
    torch.testing.assert_close(found.share, torch.from_numpy(share), atol=1e-12, rtol=0)
    torch.testing.assert_close(found.probability, torch.from_numpy(said), atol=1e-12, rtol=0)
    gaps = (found.counts.double() / 5000 * (found.share - found.probability).abs()).sum()
    assert calibration_error(probability, outcome, bins=10) == pytest.approx(float(gaps), abs=1e-12)


def test_right_forecasts_lie_within_their_errors() -> None:
    """Squared distances in standard errors sum to a chi-squared number where forecasts are right, and there alone."""
    p_values = {}
    for sharper in (1.0, 1.5):
        found = reliability(*forecasts(20_000, sharper), bins=20)
        squares = ((found.share - found.probability) / found.stderr).square().sum()
        p_values[sharper] = chi2.sf(float(squares), 20)
    assert p_values[1.0] > 1e-4
    assert p_values[1.5] < 1e-12


def test_forecasts_that_are_too_sure_have_an_error_beyond_a_perfect_forecasters() -> None:
    (right, ideal), (sure, sure_ideal) = (forecast_calibration(forecasts(5000, by)) for by in (1.0, 2.0))
    assert ideal.stderr is not None
    assert sure_ideal.stderr is not None
    assert abs(right.value - ideal.value) < 4.5 * ideal.stderr
    assert sure.value > sure_ideal.value + 20 * sure_ideal.stderr
    # Of n sure coin tosses in one bin, the distance of the share from 1/2 is that of a folded normal.
    half = torch.full((400,), 0.5)
    _, coins = forecast_calibration(Forecasts(half, torch.bernoulli(half)))
    assert coins.stderr is not None
    assert abs(coins.value - 0.025 * (2 / torch.pi) ** 0.5) < 4.5 * coins.stderr / 200**0.5


def test_uniform_ranks_lie_in_their_band() -> None:
    size, bins = 200, 20
    low, high = rank_band(size, bins)
    outside = binom.cdf(low - 1, size, 1 / bins) + binom.sf(high, size, 1 / bins)
    assert bins * outside < 0.01  # by Bonferroni's inequality
    narrower = binom.cdf(low, size, 1 / bins) + binom.sf(high - 1, size, 1 / bins)
    assert bins * narrower > 0.01
    counts = torch.stack([torch.bincount(torch.randint(bins, (size,)), minlength=bins) for _ in range(2000)])
    assert ((counts >= low) & (counts <= high)).all(1).double().mean() > 0.985


def test_what_is_no_forecast_is_refused() -> None:
    with pytest.raises(DataError, match="1 of 2 probabilities are not between 0 and 1"):
        reliability(torch.tensor([0.5, 1.5]), torch.ones(2))
    with pytest.raises(DataError, match=r"found \(2,\) and \(3,\)"):
        reliability(torch.rand(2), torch.ones(3))
    with pytest.raises(UsageError, match="bins must be at least 1"):
        reliability(torch.rand(2), torch.ones(2), bins=0)


def test_outcomes_are_zeros_and_ones():
    with pytest.raises(DataError, match="no label"):
        reliability(torch.tensor([0.5, 0.9]), torch.tensor([3.0, 1.0]))


def test_missing_labels_are_no_forecasts():
    def model(x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=torch.stack([x, -x], -1)), obs=y)

    x = torch.tensor([3.0, -3.0, 3.0, -3.0])
    batch = {"x": x, "y": torch.tensor([0, 1, -1, -1])}
    assert accuracy(model, [batch]).value == 1.0
    assert len(label_forecasts(model, [batch]).outcome) == 2
    with pytest.raises(ProgramError, match="categorical site 'label'"):
        accuracy(model, [batch], site="label")
