"""What to_arviz puts where: groups, dimensions, coordinates, and the same draws in all of them."""

import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from known_answers import PPCA_TRUTH as T
from pyro.distributions import TorchDistribution
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal, init_to_median
from pyro.infer.mcmc.api import _UnarySampler

from pyrogen import DataSpec, to_arviz
from pyrogen.cli import main
from pyrogen.data import digits
from pyrogen.errors import ProgramError, UsageError
from pyrogen.inferencedata import IS_TREE, write_netcdf
from pyrogen.models import PPCA, GaussianMixture, vae
from pyrogen.runs import Run

CITIES, YEARS = ["A", "B", "C"], [2001, 2002, 2003, 2004]
DATA = torch.arange(12.0).reshape(3, 4) / 6
BEYOND = {"posterior", "posterior_predictive", "prior", "prior_predictive"}
ALL = BEYOND | {"log_likelihood", "sample_stats", "observed_data"}


def names(data):
    return set(data.children) if IS_TREE else set(data.groups())


def tensor(variable):
    """Return a variable's first chain."""
    return torch.as_tensor(np.array(variable)[0])


# Two plates


def two_plates(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    shift = pyro.sample("shift", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    cities, years = pyro.plate("city", 3, dim=-2), pyro.plate("year", 4, dim=-1)
    with cities:
        theta = pyro.sample("theta", dist.Normal(mu, 1.0))
        pyro.deterministic("twice", 2 * theta)
        with years:
            mean = pyro.deterministic("mean", theta + shift[..., 0], event_dim=0)
            pyro.deterministic("pair", torch.stack([mean, -mean], -1), event_dim=1)
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
    pyro.deterministic("turned", shift.flip(-1), event_dim=1)
    pyro.deterministic("exp_mu", mu.exp())
    pyro.deterministic("total", theta.sum(-2))


def two_plates_guide(y):
    pyro.sample("mu", dist.Normal(0.2, 0.5))
    pyro.sample("shift", dist.Normal(torch.tensor([0.1, 0.0]), 0.3).to_event(1))
    with pyro.plate("city", 3, dim=-2):
        pyro.sample("theta", dist.Normal(torch.arange(3.0)[:, None] / 3, 0.4))


@pytest.fixture(scope="module")
def two():
    coords = {"city": CITIES, "year": YEARS, "axis": ["x", "y"]}
    dims = {"shift": ["axis"], "turned": ["axis"]}
    return to_arviz((two_plates, two_plates_guide), DATA, num_samples=50, coords=coords, dims=dims)


def test_groups(two):
    assert names(two) == ALL
    latent = {"mu", "shift", "theta", "twice", "mean", "pair", "turned", "exp_mu", "total"}
    assert set(two["posterior"]) == set(two["prior"]) == latent
    for group in ("posterior_predictive", "prior_predictive", "log_likelihood", "observed_data"):
        assert set(two[group]) == {"y"}
    assert set(two["sample_stats"]) == {"lp", "log_weight"}


@pytest.mark.parametrize("group", ["posterior", "prior"])
@pytest.mark.parametrize(
    ("site", "dims", "shape"),
    [
        ("mu", (), ()),
        ("shift", ("axis",), (2,)),
        ("theta", ("city",), (3,)),
        ("twice", ("city",), (3,)),
        ("mean", ("city", "year"), (3, 4)),
        ("pair", ("city", "year", "pair_dim_0"), (3, 4, 2)),
        ("turned", ("axis",), (2,)),
        ("exp_mu", (), ()),
        ("total", (), ()),
    ],
)
def test_dims(two, group, site, dims, shape):
    if site == "total":
        dims = two[group][site].dims[2:]  # a sum over one of two plates keeps the other's size, 1, as its event
        shape = (1,) * len(dims)
    assert two[group][site].dims == ("chain", "draw", *dims)
    assert two[group][site].shape == (1, 50, *shape)


def test_deterministic_sites_follow_their_parents(two):
    for group in ("posterior", "prior"):
        values = {site: np.array(two[group][site])[0] for site in two[group]}
        np.testing.assert_allclose(values["twice"], 2 * values["theta"])
        mean = np.broadcast_to((values["theta"] + values["shift"][:, :1])[..., None], (50, 3, 4))
        np.testing.assert_allclose(values["mean"], mean)
        np.testing.assert_allclose(values["pair"], np.stack([mean, -mean], -1))
        np.testing.assert_allclose(values["turned"], values["shift"][:, ::-1])
        np.testing.assert_allclose(values["exp_mu"], np.exp(values["mu"]), rtol=1e-6)
        np.testing.assert_allclose(values["total"].reshape(50), values["theta"].sum(-1), rtol=1e-5)


@pytest.mark.parametrize("group", [*sorted(BEYOND - {"posterior", "prior"}), "log_likelihood", "observed_data"])
def test_data_and_coords(two, group):
    y = two[group]["y"]
    assert y.dims == (("city", "year") if group == "observed_data" else ("chain", "draw", "city", "year"))
    assert list(y["city"].values) == CITIES
    assert list(y["year"].values) == YEARS


def test_observed_data_are_the_data(two):
    np.testing.assert_array_equal(two["observed_data"]["y"], DATA.numpy())
    assert two["observed_data"]["y"].dtype == np.float32


def test_new_data_belong_to_their_draws(two):
    """y - mean is standard normal noise: 600 numbers of variance 1, in each group."""
    for before in ("posterior", "prior"):
        noise = np.array(two[f"{before}_predictive"]["y"] - two[before]["mean"])
        assert abs(noise.mean()) < 4.5 / np.sqrt(600)
        assert abs(noise.var() - 1) < 4.5 * np.sqrt(2 / 600)


def by_hand(data):
    """log p(y | z), log p(y, z) and log q(z) at the posterior's draws."""
    mu, shift, theta = (tensor(data["posterior"][site]) for site in ("mu", "shift", "theta"))
    mean = (theta + shift[:, :1])[..., None]
    log_lik = dist.Normal(mean, 1.0).log_prob(DATA)
    lp = dist.Normal(0.0, 1.0).log_prob(mu) + dist.Normal(0.0, 1.0).log_prob(shift).sum(-1)
    lp = lp + dist.Normal(mu[:, None], 1.0).log_prob(theta).sum(-1) + log_lik.sum((-1, -2))
    log_q = dist.Normal(0.2, 0.5).log_prob(mu) + dist.Normal(torch.tensor([0.1, 0.0]), 0.3).log_prob(shift).sum(-1)
    return log_lik, lp, log_q + dist.Normal(torch.arange(3.0) / 3, 0.4).log_prob(theta).sum(-1)


def check_by_hand(data, draws=slice(None)):
    log_lik, lp, log_q = (values[draws] for values in by_hand(data))
    close = {"atol": 1e-3, "rtol": 0}
    torch.testing.assert_close(tensor(data["log_likelihood"]["y"]), log_lik, **close)
    torch.testing.assert_close(tensor(data["sample_stats"]["lp"]), lp, **close)
    torch.testing.assert_close(tensor(data["sample_stats"]["log_weight"]), lp - log_q, **close)


def test_densities_at_the_same_draws(two):
    check_by_hand(two)
    assert two["sample_stats"].attrs["constant_weights"] == 0
    assert np.isfinite(two["sample_stats"].attrs["pareto_k"])


def test_mutant_weights_of_other_draws(two):
    with pytest.raises(AssertionError):
        check_by_hand(two, torch.arange(50).roll(1))


def test_plates_without_coords_are_numbered():
    data = to_arviz((two_plates, two_plates_guide), DATA, num_samples=2)
    assert list(data["posterior"]["theta"]["city"].values) == [0, 1, 2]
    assert data["posterior"]["shift"].dims == ("chain", "draw", "shift_dim_0")
    check_by_hand(data)


# Files

READ = """
import sys, warnings
warnings.simplefilter("ignore")
import arviz
data = arviz.from_netcdf(sys.argv[1])
print(*data["posterior"]["theta"].dims, *data["posterior"]["theta"]["city"].values, data["log_likelihood"]["y"].shape)
"""
OTHER = Path("/tmp/az/v312/bin/python")
"""A Python with the other major version of ArviZ, where there is one."""


@pytest.mark.parametrize("python", [Path(sys.executable), OTHER], ids=["installed", "other"])
def test_either_version_of_arviz_reads_the_file(two, tmp_path, python):
    if not python.exists():
        pytest.skip(f"no {python}")
    write_netcdf(two, tmp_path / "posterior.nc")
    command = [str(python), "-c", READ, str(tmp_path / "posterior.nc")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout == "chain draw city A B C (1, 50, 3, 4)\n", done.stderr


# Seeds


def test_seed_and_global_generators():
    def draws(seed):
        return np.array(to_arviz((two_plates, two_plates_guide), DATA, num_samples=5, seed=seed)["prior"]["theta"])

    def state():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    before = state()
    first = draws(1)
    assert state() == before
    torch.rand(3)
    np.testing.assert_array_equal(draws(1), first)
    assert (draws(2) != first).all()


# Guides


@pytest.mark.parametrize("family", [AutoNormal, AutoMultivariateNormal])
def test_autoguides(family):
    guide = family(two_plates, init_loc_fn=init_to_median(num_samples=3))
    guide(DATA)
    data = to_arviz((two_plates, guide), DATA, num_samples=20)
    assert data["posterior"]["theta"].shape == (1, 20, 3)
    assert data["posterior"]["shift"].shape == (1, 20, 2)
    assert set(data["posterior"]) == set(data["prior"])  # no auxiliary site
    log_lik, lp, _ = by_hand(data)
    torch.testing.assert_close(tensor(data["log_likelihood"]["y"]), log_lik, atol=1e-3, rtol=0)
    torch.testing.assert_close(tensor(data["sample_stats"]["lp"]), lp, atol=1e-3, rtol=0)
    assert data["sample_stats"]["log_weight"].shape == (1, 20)


def test_a_point_guide_has_no_weights():
    """They would all be the same, as an exact guide's are."""
    guide = AutoDelta(two_plates, init_loc_fn=init_to_median(num_samples=3))
    data = to_arviz((two_plates, guide), DATA, num_samples=5)
    assert (np.array(data["posterior"]["theta"]) == np.array(data["posterior"]["theta"])[:, :1]).all()
    assert set(data["sample_stats"]) == {"lp"}
    assert "a point" in data["sample_stats"].attrs["log_weight"]
    assert "constant_weights" not in data["sample_stats"].attrs


class Implicit(TorchDistribution):
    """A sampler without a density."""

    arg_constraints = {}  # noqa: RUF012
    support = dist.constraints.real
    has_rsample = True

    def __init__(self, shape=()):
        super().__init__(torch.Size(shape), torch.Size(), validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return Implicit(batch_shape)

    def rsample(self, sample_shape=()):
        return torch.randn(*sample_shape, *self.batch_shape) ** 3

    def log_prob(self, value):
        raise NotImplementedError


def local(y):
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def test_implicit_guide():
    def guide(y):
        with pyro.plate("data", len(y)):
            pyro.sample("z", Implicit())

    y = torch.tensor([0.3, -1.0, 2.0])
    data = to_arviz((local, guide), y, num_samples=40)
    z = tensor(data["posterior"]["z"])
    assert z.shape == (40, 3)
    assert len(z.unique()) == 120
    assert set(data["sample_stats"]) == {"lp"}
    torch.testing.assert_close(tensor(data["log_likelihood"]["y"]), dist.Normal(z, 1.0).log_prob(y))
    assert "estimate" not in data["log_likelihood"].attrs


def test_a_full_rank_guide_ties_local_latents_together():
    """One weight for all data: no importance-weighted estimate a datum."""
    y = torch.tensor([0.3, -1.0, 2.0])
    data = to_arviz((local, AutoMultivariateNormal(local)), y, num_samples=40)
    z = tensor(data["posterior"]["z"])
    torch.testing.assert_close(tensor(data["log_likelihood"]["y"]), dist.Normal(z, 1.0).log_prob(y))
    assert "pareto_k" in data["sample_stats"].attrs


def test_no_guide_for_a_latent_site():
    with pytest.raises(ProgramError, match="'z' is missing in the guide"):
        to_arviz((local, None), torch.zeros(3))


def test_neither_pair_nor_mcmc_nor_run():
    with pytest.raises(UsageError, match="found function"):
        to_arviz(local, torch.zeros(3))


# Local latents


@pytest.mark.usefixtures("double")
def test_ppca_estimates_the_evidence_datum_by_datum():
    model = PPCA(5, 2).double()
    model.W.data, model.mu.data, model.log_sigma.data = T.W, T.mu, torch.tensor(T.sigma2).sqrt().log()
    data = to_arviz((model, model.guide), T.X, num_samples=20)
    assert data["log_likelihood"].attrs["estimate"] == "iwae"
    assert data["log_likelihood"].attrs["num_particles"] == 20
    assert data["log_likelihood"]["x"].dims == ("chain", "draw", "data")
    np.testing.assert_allclose(np.array(data["log_likelihood"]["x"])[0, 0], T.log_p_x, atol=1e-4)
    np.testing.assert_allclose(data["sample_stats"]["log_weight"], np.full((1, 20), T.log_p_total), atol=1e-4)
    assert data["sample_stats"].attrs["constant_weights"] == 1
    assert np.isnan(data["sample_stats"]["pareto_k"]).all()
    np.testing.assert_array_equal(data["observed_data"]["x"], T.X)


def test_vae():
    model, guide = vae(DataSpec((1, 8, 8), "binary"), latent=3, hidden=(16,))
    x = (torch.rand(7, 1, 8, 8) > 0.5).float()
    data = to_arviz((model, guide), x, num_samples=30)
    assert data["posterior"]["z"].shape == (1, 30, 7, 3)
    assert data["posterior_predictive"]["x"].shape == (1, 30, 7, 1, 8, 8)
    assert data["sample_stats"]["pareto_k"].shape == (7,)
    with torch.no_grad():
        z = tensor(data["posterior"]["z"])
        log_w = model.prior().log_prob(z) + model.likelihood(model.decoder(z)).log_prob(x)
        log_w = log_w - guide.posterior(x).log_prob(z)
    iwae = tensor(data["log_likelihood"]["x"])[0]
    torch.testing.assert_close(iwae, log_w.logsumexp(0) - torch.tensor(30.0).log(), atol=1e-3, rtol=0)
    torch.testing.assert_close(tensor(data["sample_stats"]["log_weight"]), log_w.sum(1), atol=1e-3, rtol=0)
    assert guide.training


def test_a_run(tmp_path):
    settings = "--latent 2 --hidden [8] --epochs 1 --batch-size 500"
    assert main(f"train vae --data digits {settings} --out {tmp_path / 'run'}".split()) == 0
    state = torch.get_rng_state()
    data = to_arviz(Run.open(tmp_path / "run"), num_samples=4)
    assert torch.equal(torch.get_rng_state(), state)  # although building the programs seeds it
    assert data["posterior"]["z"].shape == (1, 4, 50, 2)
    assert data["observed_data"]["x"].shape == (50, *digits().spec.shape)


# Enumeration


def mixture():
    model = GaussianMixture(2, 3)
    model.logits.data = torch.tensor([0.5, -0.3, 1.0])
    return model


def test_enumerated_sites_are_drawn_from_their_posterior():
    model, x = mixture(), torch.randn(5, 2)
    data = to_arviz((model, None), x, num_samples=4000)
    with torch.no_grad():
        parts = dist.MultivariateNormal(model.loc, scale_tril=model.scale_tril()).log_prob(x[:, None])
        joint = model.logits.log_softmax(0) + parts
    probs = joint.softmax(-1)
    k = tensor(data["posterior"]["k"])
    frequencies = torch.stack([(k == i).float().mean(0) for i in range(3)], -1)
    mcse = (probs * (1 - probs) / 4000).sqrt()
    assert ((frequencies - probs).abs() < 4.5 * mcse + 1e-3).all()
    prior = torch.tensor([(tensor(data["prior"]["k"]) == i).float().mean() for i in range(3)])
    torch.testing.assert_close(prior, model.logits.detach().softmax(0), atol=0.02, rtol=0)
    log_lik = tensor(data["log_likelihood"]["x"])
    torch.testing.assert_close(log_lik, joint.logsumexp(-1).expand(4000, 5), atol=1e-4, rtol=0)
    torch.testing.assert_close(tensor(data["sample_stats"]["lp"]), joint.logsumexp(-1).sum().expand(4000))
    # Predictions come from the assignments in the posterior: x - loc[k] has the component's covariance.
    with torch.no_grad():
        residual = tensor(data["posterior_predictive"]["x"]) - model.loc[k]
        white = torch.linalg.solve_triangular(model.scale_tril()[k], residual[..., None], upper=False)
    assert abs(float(white.var()) - 1) < 4.5 * (2 / 40_000) ** 0.5


@pytest.mark.usefixtures("double")
def test_latents_below_enumerated_ones_stay_out_of_the_likelihood():
    """log p(x | theta) = log sum_k p(k) p(theta | k) p(x | theta, k) - log sum_k p(k) p(theta | k)."""
    probs, locs, x = torch.tensor([0.3, 0.7]), torch.tensor([-1.0, 2.0]), torch.tensor([0.1, 1.9, -0.4])

    def model(x, direct):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(probs), infer={"enumerate": "parallel"})
            theta = pyro.sample("theta", dist.Normal(locs[k], 1.0))
            pyro.sample("x", dist.Normal(theta + (locs[k] if direct else 0.0), 0.5), obs=x)
        pyro.sample("free", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})

    def guide(x, direct):
        level = pyro.sample("level", dist.Normal(0.0, 0.1), infer={"is_auxiliary": True})
        with pyro.plate("data", len(x)):
            pyro.sample("theta", dist.Normal(level + x, 0.5))

    for direct in (False, True):
        data = to_arviz((model, guide), x, direct, num_samples=7)
        theta = tensor(data["posterior"]["theta"])[..., None]
        prior = probs.log() + dist.Normal(locs, 1.0).log_prob(theta)
        log_lik = dist.Normal(theta + (locs if direct else 0.0), 0.5).log_prob(x[:, None])
        truth = (prior + log_lik).logsumexp(-1) - prior.logsumexp(-1)
        assert set(data["log_likelihood"]) == {"x"}
        torch.testing.assert_close(tensor(data["log_likelihood"]["x"]), truth)
        torch.testing.assert_close(tensor(data["sample_stats"]["lp"]), (prior + log_lik).logsumexp(-1).sum(-1))


def test_an_enumerating_guide_draws_and_has_no_weights():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(0.8), infer={"enumerate": "parallel"})

    x = torch.tensor([0.5, -1.0])
    data = to_arviz((model, guide), x, num_samples=500)
    z = tensor(data["posterior"]["z"])
    assert abs(float(z.mean()) - 0.8) < 4.5 * (0.16 / 1000) ** 0.5
    torch.testing.assert_close(tensor(data["log_likelihood"]["x"]), dist.Normal(z, 1.0).log_prob(x))
    assert set(data["sample_stats"]) == {"lp"}


# Subsamples and masks

Y = torch.arange(12.0)


def subsampled(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 12, subsample_size=4) as i:
        pyro.sample("y", dist.Normal(mu, 3.0), obs=y[i])


def normal_guide(*args):
    pyro.sample("mu", dist.Normal(4.0, 0.8))


def check_subsample(factor):
    data = to_arviz((subsampled, normal_guide), Y, num_samples=20)
    index = np.array(data["observed_data"]["y"]["data"])
    assert len(set(index)) == 4
    np.testing.assert_array_equal(data["observed_data"]["y"], Y[index])  # the site's data are y[i] = i
    mu = tensor(data["posterior"]["mu"])
    log_lik = dist.Normal(mu[:, None], 3.0).log_prob(Y[index])
    torch.testing.assert_close(tensor(data["log_likelihood"]["y"]), factor * log_lik)
    lp = dist.Normal(0.0, 1.0).log_prob(mu) + 3 * log_lik.sum(1)
    torch.testing.assert_close(tensor(data["sample_stats"]["lp"]), lp)
    log_q = dist.Normal(4.0, 0.8).log_prob(mu)
    torch.testing.assert_close(tensor(data["sample_stats"]["log_weight"]), lp - log_q, atol=1e-4, rtol=1e-5)


def test_subsampling_scales_the_posterior_and_no_datum():
    check_subsample(1.0)


def test_mutant_log_likelihood_scaled_by_the_plate():
    with pytest.raises(AssertionError):
        check_subsample(3.0)


def test_pareto_k_of_a_datum_knows_no_subsampling():
    def model(y, full):
        with pyro.plate("data", full, subsample_size=3):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def guide(y, full):
        with pyro.plate("data", full, subsample_size=3):
            pyro.sample("z", dist.Normal(y / 2, 0.5))

    y, ks, totals = torch.tensor([0.0, 1.0, 2.0]), [], []
    for full in (3, 30):
        data = to_arviz((model, guide), y, full, num_samples=500)
        weights = tensor(data["sample_stats"]["pareto_k"])
        ks.append(weights)
        z = tensor(data["posterior"]["z"])
        log_w = (
            dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(y) - dist.Normal(y / 2, 0.5).log_prob(z)
        )
        totals.append(tensor(data["sample_stats"]["log_weight"]) / (full / 3 * log_w.sum(1)))
    assert ((ks[0] - ks[1]).abs() < 0.5).all()  # another seed's draws; scaled by ten they would be above 2
    torch.testing.assert_close(torch.cat(totals), torch.ones(1000), atol=1e-3, rtol=0)


def test_masked_data_have_no_likelihood():
    seen = torch.tensor([True, False, True])

    def model(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3), pyro.poutine.mask(mask=seen):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    y = torch.tensor([1.0, float("nan"), 2.0])
    data = to_arviz((model, normal_guide), y, num_samples=6)
    log_lik = tensor(data["log_likelihood"]["y"])
    assert (log_lik[:, 1] == 0).all()
    mu = tensor(data["posterior"]["mu"])[:, None]
    torch.testing.assert_close(log_lik[:, seen], dist.Normal(mu, 1.0).log_prob(y[seen]))


# MCMC


@pytest.fixture(scope="module")
def chains():
    pyro.set_rng_seed(3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "num_chains=2 is more than available_cpu")
        mcmc = MCMC(NUTS(two_plates), num_samples=15, warmup_steps=15, num_chains=2, disable_progbar=True)
    # One after the other, which is Pyro's way where there are fewer cores than chains.
    mcmc.sampler = _UnarySampler(mcmc.kernel, 15, 15, 2, disable_progbar=True)
    mcmc.run(DATA)
    return mcmc


def test_mcmc(chains):
    data = to_arviz(chains, DATA, coords={"city": CITIES})
    assert names(data) == ALL
    samples = chains.get_samples(group_by_chain=True)
    for site in ("mu", "shift"):
        np.testing.assert_array_equal(data["posterior"][site], samples[site])
    np.testing.assert_array_equal(data["posterior"]["theta"], samples["theta"][..., 0])
    assert data["posterior"]["theta"].dims == ("chain", "draw", "city")
    assert data["posterior"]["mean"].shape == (2, 15, 3, 4)
    mean = samples["theta"][..., 0] + samples["shift"][..., :1]
    log_lik = dist.Normal(mean[..., None], 1.0).log_prob(DATA)
    np.testing.assert_allclose(data["log_likelihood"]["y"], log_lik, atol=1e-4)
    lp = dist.Normal(0.0, 1.0).log_prob(samples["mu"]) + dist.Normal(0.0, 1.0).log_prob(samples["shift"]).sum(-1)
    lp = lp + dist.Normal(samples["mu"][..., None], 1.0).log_prob(samples["theta"][..., 0]).sum(-1)
    np.testing.assert_allclose(data["sample_stats"]["lp"], lp + log_lik.sum((-1, -2)), atol=1e-3)
    assert data["sample_stats"]["diverging"].dtype == bool


def test_divergences_are_where_they_happened(chains, monkeypatch):
    monkeypatch.setattr(chains, "_diagnostics", [{"divergences": [3]}, {"divergences": [0, 14]}])
    diverging = np.array(to_arviz(chains, DATA)["sample_stats"]["diverging"])
    assert np.argwhere(diverging).tolist() == [[0, 3], [1, 0], [1, 14]]


def test_mcmc_before_its_run():
    with pytest.raises(UsageError, match="call its run"):
        to_arviz(MCMC(NUTS(two_plates), num_samples=1), DATA)
