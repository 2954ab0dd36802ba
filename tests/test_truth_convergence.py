"""Held to the truth: importance-weighted bounds of 1, 2, 4, ... draws, by enumeration and against exact evidence."""

from math import comb, exp, log

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from known_answers import PPCA_TRUTH
from torch.distributions import Normal

from pyrogen.errors import UsageError
from pyrogen.evaluation import elbo, iwae, iwae_convergence

DATUM, PRIOR, GUIDE = 1.5, 0.3, 0.5


@pytest.fixture(autouse=True)
def _double(double):
    pyro.set_rng_seed(0)


def switch(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(torch.tensor(PRIOR)))
        pyro.sample("x", dist.Normal(2 * z, 1.0), obs=x)


def coin(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(torch.tensor(GUIDE)))


def batches(size=1000):
    return [{"x": torch.full((size,), DATUM)}, {"x": torch.full((size // 2,), DATUM)}]


def bound_by_enumeration(count):
    """Sum over how many of the draws are ones."""
    density = [exp(float(Normal(2.0 * z, 1.0).log_prob(torch.tensor(DATUM)))) for z in (0, 1)]
    off, on = (1 - PRIOR) * density[0] / (1 - GUIDE), PRIOR * density[1] / GUIDE
    return sum(
        comb(count, j) * GUIDE**j * (1 - GUIDE) ** (count - j) * log((j * on + (count - j) * off) / count)
        for j in range(count + 1)
    )


def test_bounds_by_enumeration():
    found = iwae_convergence(switch, coin, batches(), num_particles=32)
    assert list(found.bounds) == [1, 2, 4, 8, 16, 32]
    assert list(found.gains) == [2, 4, 8, 16, 32]
    for count, bound in found.bounds.items():
        assert bound.num_particles == count
        assert abs(bound.value - bound_by_enumeration(count)) < 4.5 * bound.stderr
    for count, gain in found.gains.items():
        truth = bound_by_enumeration(count) - bound_by_enumeration(count // 2)
        assert abs(gain.value - truth) < 4.5 * gain.stderr
        assert gain.value == pytest.approx(found.bounds[count].value - found.bounds[count // 2].value)
        assert gain.num_particles == count


def test_no_bound_is_below_that_of_fewer_draws():
    """In each run, though of two data alone."""
    for _ in range(20):
        gains = iwae_convergence(switch, coin, [{"x": torch.tensor([DATUM, -DATUM])}], 64).gains
        assert all(gain.value > 0 for gain in gains.values())


def test_the_ends_are_elbo_and_iwae():
    """Of the same draws."""
    found = iwae_convergence(switch, coin, batches(), num_particles=64).bounds
    for figure, count in ((elbo, 1), (iwae, 64)):
        pyro.set_rng_seed(0)
        expected = figure(switch, coin, batches(), 64)
        assert found[count].value == pytest.approx(expected.value, rel=1e-12)
        assert found[count].stderr == pytest.approx(expected.stderr, rel=1e-12)


def test_standard_errors_are_honest():
    runs = [iwae_convergence(switch, coin, batches(200), num_particles=8) for _ in range(150)]
    for found in ([run.gains[8] for run in runs], [run.bounds[4] for run in runs]):
        spread = np.std([estimate.value for estimate in found])
        assert np.mean([estimate.stderr for estimate in found]) == pytest.approx(spread, rel=0.25)


def test_evidence_of_ppca():
    """From the ELBO of the best factorised guide, up to the exact evidence."""
    factor, mu, variance = PPCA_TRUTH.W, PPCA_TRUTH.mu, PPCA_TRUTH.sigma2

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            mean = (factor * z.unsqueeze(-2)).sum(-1) + mu
            pyro.sample("x", dist.Normal(mean, variance**0.5).to_event(1), obs=x)

    def factorised(x):
        with pyro.plate("data", len(x)):
            mean = PPCA_TRUTH.post_mean[0].expand(len(x), 2)
            pyro.sample("z", dist.Normal(mean, PPCA_TRUTH.meanfield_sd).to_event(1))

    x = PPCA_TRUTH.X[:1].expand(1000, 5)
    bounds, gains = iwae_convergence(model, factorised, [{"x": x}], num_particles=256)
    assert abs(bounds[1].value - (PPCA_TRUTH.log_p_x[0] - PPCA_TRUTH.meanfield_gap)) < 4.5 * bounds[1].stderr
    assert abs(bounds[256].value - PPCA_TRUTH.log_p_x[0]) < 4.5 * bounds[256].stderr
    assert 0 < gains[256].value < gains[2].value / 30

    def points(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(PPCA_TRUTH.post_mean[0].expand(len(x), 2), event_dim=1))

    proposed, _ = iwae_convergence(model, points, [{"x": x[:200]}], num_particles=1024, propose=True)
    assert abs(proposed[1024].value - PPCA_TRUTH.log_p_x[0]) < 4.5 * proposed[1024].stderr + 0.01


@pytest.mark.parametrize("num_particles", [0, 3, 12, -2])
def test_counts_that_do_not_halve(num_particles):
    with pytest.raises(UsageError, match="a power of two, found"):
        iwae_convergence(switch, coin, batches(), num_particles)
