"""Held to the truth: kernel densities are SciPy's and a mixture's, and they put the worse of two models first."""

import math

import pytest
import torch
from scipy.stats import gaussian_kde
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from pyrogen.errors import MisrankingWarning, UsageError
from pyrogen.evaluation import parzen, parzen_log_likelihood


def kernel_density(draws, bandwidth):
    kernels = Independent(Normal(draws.double().flatten(1), bandwidth), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(draws), dtype=torch.float64)), kernels)


def test_a_mixture_of_normals_at_draws():
    torch.manual_seed(0)
    draws, data, validation = (torch.randn(count, 2, 3) for count in (60, 50, 40))
    with pytest.warns(MisrankingWarning, match="misranks models"):
        found = parzen_log_likelihood(draws, data, validation, [0.3, 0.6, 0.9, 1.5])
    by_validation = {
        h: float(kernel_density(draws, h).log_prob(validation.double().flatten(1)).mean()) for h in (0.3, 0.6, 0.9, 1.5)
    }
    assert found.bandwidth == max(by_validation, key=by_validation.get) == 0.9
    values = kernel_density(draws, found.bandwidth).log_prob(data.double().flatten(1))
    assert found.log_likelihood.value == pytest.approx(float(values.mean()), rel=1e-12)
    assert found.log_likelihood.stderr == pytest.approx(float(values.std()) / 50**0.5, rel=1e-9)


@pytest.mark.filterwarnings("ignore::pyrogen.errors.MisrankingWarning")
def test_scipys_kernel_density():
    torch.manual_seed(0)
    draws, data = torch.randn(70, 1), torch.randn(30, 1)
    factor = 0.4 / float(draws.double().std())
    expected = gaussian_kde(draws.double()[:, 0].numpy(), factor).logpdf(data.double()[:, 0].numpy()).mean()
    found = parzen_log_likelihood(draws, data, data, [0.4]).log_likelihood
    assert found.value == pytest.approx(expected, rel=1e-9)


@pytest.mark.filterwarnings("ignore::pyrogen.errors.MisrankingWarning")
def test_bandwidths_scale_with_the_draws(monkeypatch):
    torch.manual_seed(0)
    draws, data, validation = torch.randn(3, 200, 2)
    one = parzen_log_likelihood(draws, data, validation)
    other = parzen_log_likelihood(50 * draws, 50 * data, 50 * validation)
    assert other.bandwidth == pytest.approx(50 * one.bandwidth)
    assert other.log_likelihood.value == pytest.approx(one.log_likelihood.value - 2 * math.log(50))
    assert 0.02 < one.bandwidth < 1
    # The best kernel of draws that are all 0 has the second moment of the data, here 1.
    at_zero = parzen_log_likelihood(torch.zeros(200, 2), data, validation)
    assert at_zero.bandwidth == pytest.approx(float(validation.double().square().mean().sqrt()), rel=0.16)
    monkeypatch.setattr(parzen, "BLOCK", 7)
    assert parzen_log_likelihood(draws, data, validation).log_likelihood.value == pytest.approx(
        one.log_likelihood.value, rel=1e-12
    )


@pytest.mark.filterwarnings("ignore::pyrogen.errors.MisrankingWarning")
def test_the_worse_model_comes_first():
    r"""Data are N(0, I): a model of half the spread has 20 (3/2 - log 2) = 16 nats less, and by kernels more."""
    torch.manual_seed(0)
    data, validation = torch.randn(2, 1000, 20)
    true, narrow = (parzen_log_likelihood(s * torch.randn(500, 20), data, validation) for s in (1.0, 0.5))
    exact = {s: float(Normal(0.0, s).log_prob(data).sum(1).mean()) for s in (1.0, 0.5)}
    assert exact[1.0] - exact[0.5] > 15
    assert narrow.log_likelihood.value - true.log_likelihood.value > 4.5 * true.log_likelihood.stderr
    assert true.log_likelihood.value < exact[1.0] - 1  # far from what it is said to estimate


@pytest.mark.filterwarnings("ignore::pyrogen.errors.MisrankingWarning")
def test_bandwidths_are_of_the_validation_data():
    """By default in units of its standard deviation, averaged over features."""
    torch.manual_seed(0)
    draws, data, validation = torch.zeros(50, 2), 3 * torch.randn(200, 2), 0.5 * torch.randn(200, 2)
    assert parzen_log_likelihood(draws, data, validation, [0.5, 3.0]).bandwidth == 0.5
    found = parzen_log_likelihood(draws, data, validation).bandwidth / float(validation.double().var(0).mean().sqrt())
    assert any(found == pytest.approx(width, rel=1e-9) for width in parzen.WIDTHS)


@pytest.mark.filterwarnings("ignore::pyrogen.errors.MisrankingWarning")
def test_bandwidths_that_cannot_be():
    x = torch.randn(10, 2)
    for bandwidths in ([], [0.1, 0.0], [-1.0]):
        with pytest.raises(UsageError, match="bandwidths must be positive"):
            parzen_log_likelihood(x, x, x, bandwidths)
    with pytest.raises(UsageError, match="bandwidths must be positive"):
        parzen_log_likelihood(x, x, torch.zeros(10, 2))
