"""What ArviZ says of our posteriors, against closed forms and against NUTS."""

import math
import warnings

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from known_answers import CONJUGATE_TRUTH as C
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import AutoMultivariateNormal

from pyrogen import ELBO, to_arviz, train
from pyrogen.inferencedata import IS_TREE, Variable, pareto_k, to_inference_data

pytestmark = pytest.mark.usefixtures("double")

# Leave-one-out: y_i | the others ~ N(sum of the others / 5, 1 + 1 / 5), from prior N(0, 1) and noise of variance 1
LOO = -7.229997


def normal_model(y):
    theta = pyro.sample("theta", dist.Normal(torch.zeros(()), 1.0))
    with pyro.plate("datum", len(y)):
        pyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def exact_guide(y):
    pyro.sample("theta", dist.Normal(torch.tensor(C.post_mean), C.post_sd))


@pytest.fixture
def exact():
    return to_arviz((normal_model, exact_guide), C.y, num_samples=20_000)


def elpd(data):
    found = arviz.loo(data)
    return float(found.elpd if IS_TREE else found.elpd_loo)


def test_the_truth_of_leave_one_out():
    others = (C.y.sum() - C.y) / 5
    assert float(dist.Normal(others, math.sqrt(1.2)).log_prob(C.y).sum()) == pytest.approx(LOO, abs=1e-6)


def test_loo(exact):
    assert elpd(exact) == pytest.approx(LOO, abs=0.05)


def test_mutant_log_likelihood_summed_over_data(exact):
    """One datum of all five: there is nothing left to predict from."""
    summed = np.array(exact["log_likelihood"]["y"]).sum(-1, keepdims=True)
    groups = {
        "posterior": {"theta": Variable(np.array(exact["posterior"]["theta"]), ("chain", "draw"))},
        "log_likelihood": {"y": Variable(summed, ("chain", "draw", "datum"))},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ doubts it too
        found = elpd(to_inference_data(groups, {}))
    assert abs(found - LOO) > 0.05


def test_exact_guide_has_constant_weights(exact):
    np.testing.assert_allclose(exact["sample_stats"]["log_weight"], C.log_evidence, atol=1e-6)
    assert exact["sample_stats"].attrs["constant_weights"] == 1
    assert np.isnan(exact["sample_stats"].attrs["pareto_k"])


# Pareto's k of a guide that is too narrow, and of one that is too wide


def check_k(factor, bar):
    """Ten independent conjugate normals, their guide's standard deviation off by a factor.

    The weights' tail has shape 1 - factor^2 below 1 (k = 0.91 at 0.3); they are bounded above it.
    """
    y = torch.linspace(-1, 1, 10)

    def model(y):
        theta = pyro.sample("theta", dist.Normal(torch.zeros(10), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(theta, 1.0).to_event(1), obs=y)

    def guide(y):
        pyro.sample("theta", dist.Normal(y / 2, factor * math.sqrt(0.5)).to_event(1))

    data = to_arviz((model, guide), y, num_samples=4000)
    assert data["sample_stats"].attrs["constant_weights"] == 0
    assert bar(data["sample_stats"].attrs["pareto_k"])
    return data, y


def test_a_narrow_guide_is_found_out():
    check_k(0.3, lambda k: k > 0.7)


def test_a_wide_guide_passes():
    check_k(1.2, lambda k: k < 0.5)


def test_mutant_weights_of_other_draws():
    """log p at the posterior's draws against log q at others: even an exact guide then looks untrustworthy."""
    data, y = check_k(1.2, lambda k: k < 0.5)
    theta = torch.as_tensor(np.array(data["posterior"]["theta"])[0])
    log_p = (dist.Normal(0.0, 1.0).log_prob(theta) + dist.Normal(theta, 1.0).log_prob(y)).sum(-1)
    log_q = dist.Normal(y / 2, 1.2 * math.sqrt(0.5)).log_prob(theta).sum(-1)
    found = np.array(data["sample_stats"]["log_weight"])[0]
    np.testing.assert_allclose(found, log_p - log_q)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(found, log_p - log_q.roll(1))
    assert pareto_k((log_p - log_q.roll(1)).numpy()) > 0.5


# Eight schools

EFFECTS = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], dtype=torch.float64)
ERRORS = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], dtype=torch.float64)


def schools(y=EFFECTS):
    """Estimation in Parallel Randomized Experiments (Rubin, 1981), https://doi.org/10.3102/10769986006004377"""
    mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(5.0)))
    with pyro.plate("school", 8):
        eta = pyro.sample("eta", dist.Normal(torch.zeros(()), 1.0))
        theta = pyro.deterministic("theta", mu + tau * eta)
        pyro.sample("y", dist.Normal(theta, ERRORS), obs=y)


def exact_means():
    """Posterior means of mu and tau by a grid over tau; given tau, y is normal and mu conjugate."""
    tau = torch.linspace(0.0025, 400.0, 80_000, dtype=torch.float64)
    variances = ERRORS**2 + tau[:, None] ** 2
    loading = torch.full((8, 1), 5.0, dtype=torch.float64)
    evidence = dist.LowRankMultivariateNormal(torch.zeros(8, dtype=torch.float64), loading, variances)
    weight = (evidence.log_prob(EFFECTS) + dist.HalfCauchy(5.0).log_prob(tau)).softmax(0)
    mu = (EFFECTS / variances).sum(-1) / (1 / 25 + (1 / variances).sum(-1))
    return {"mu": float(weight @ mu), "tau": float(weight @ tau)}


def means(data):
    return {name: float(data["posterior"][name].mean()) for name in ("mu", "tau")}


@pytest.fixture(scope="module")
def nuts():
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    pyro.set_rng_seed(0)
    mcmc = MCMC(NUTS(schools), num_samples=300, warmup_steps=100, disable_progbar=True)
    mcmc.run()
    data = to_arviz(mcmc)
    torch.set_default_dtype(dtype)
    return means(data)


def svi(num_steps):
    guide = AutoMultivariateNormal(schools, init_scale=0.1)
    anneal = lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 - n / num_steps)  # noqa: E731
    adam = lambda parameters: torch.optim.Adam(parameters, lr=0.05)  # noqa: E731
    for _ in train(ELBO(8), schools, guide, None, adam, num_steps=num_steps, scheduler=anneal):
        pass
    return to_arviz((schools, guide), num_samples=4000)


def check_schools(found, truth):
    assert found["mu"] == pytest.approx(truth["mu"], abs=0.5)
    assert found["tau"] == pytest.approx(truth["tau"], abs=1.0)


@pytest.mark.slow
def test_eight_schools_by_svi_and_by_nuts(nuts):
    """Both against the exact posterior: a normal guide in log tau misses some of its tail, hence the bar for tau."""
    truth = exact_means()
    data = svi(800)
    check_schools(means(data), truth)
    check_schools(nuts, truth)
    assert data["posterior"]["theta"].dims == ("chain", "draw", "school")
    assert np.isfinite(data["sample_stats"].attrs["pareto_k"])


def test_mutant_unfitted_guide():
    with pytest.raises(AssertionError):
        check_schools(means(svi(2)), exact_means())
