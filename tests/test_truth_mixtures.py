"""The Dirichlet process mixture: sticks, exact density given them, bounds, and how many components data ask for."""

import math
from importlib import import_module

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from pyrogen import evaluation
from pyrogen.inference import ELBO, train
from pyrogen.models import DirichletProcessMixture, StickBreakingPosterior
from pyrogen.models.dirichlet_process_mixture import broken
from pyrogen.programs import log_weights


@pytest.mark.usefixtures("double")
def test_pieces_of_a_stick_add_up_and_have_their_prior_s_means():
    v = dist.Beta(torch.ones(4), 2.0 * torch.ones(4)).sample((200_000,))
    pi = broken(v)
    assert torch.allclose(pi.sum(-1), torch.ones(len(pi)))
    expected = torch.tensor([(1 / 3) * (2 / 3) ** k for k in range(4)] + [(2 / 3) ** 4])
    error = pi.std(0) / len(pi) ** 0.5
    assert bool(((pi.mean(0) - expected).abs() < 4.5 * error).all())


def fixed(model, v, mu, precision):
    return poutine.condition(model, data={"v": v, "mu": mu, "precision": precision})


@pytest.mark.usefixtures("double")
def test_density_given_sticks_and_components_is_the_mixture_s():
    model = DirichletProcessMixture(2, 3, num_data=5)
    v, mu, precision = torch.tensor([0.3, 0.6]), torch.randn(3, 2), torch.rand(3, 2) + 0.5
    x = torch.randn(5, 2)
    pi = torch.tensor([0.3, 0.7 * 0.6, 0.7 * 0.4])
    parts = dist.Normal(mu, precision**-0.5).log_prob(x[:, None]).sum(-1)
    expected = (pi.log() + parts).logsumexp(-1).sum()
    found = -ELBO()(fixed(model, v, mu, precision), None, x)
    prior = dist.Beta(torch.ones(2), torch.ones(2)).log_prob(v).sum()
    prior = prior + dist.Gamma(2.0, 0.5).log_prob(precision).sum()
    prior = prior + dist.Normal(0.0, (0.1 * precision) ** -0.5).log_prob(mu).sum()
    assert float(found) == pytest.approx(float(expected + prior), rel=1e-9)


def clusters(count: int = 300):
    centres = torch.tensor([[2.0, 0.0], [-1.0, 1.8], [-1.0, -1.8]])
    which = torch.arange(count) % 3
    return centres[which] + 0.25 * torch.randn(count, 2), which


def fitted(x, alpha=1.0, components=8, epochs=800):
    model = DirichletProcessMixture(2, components, len(x), alpha)
    guide = StickBreakingPosterior(model)
    guide.loc.data = x[torch.randperm(len(x))[:components]].clone()
    for _ in train(ELBO(), model, guide, [x], lambda p: torch.optim.Adam(p, lr=0.03), epochs=epochs, validate=False):
        pass
    with torch.no_grad():
        pi = torch.stack([broken(poutine.trace(guide).get_trace(x).nodes["v"]["value"]) for _ in range(200)]).mean(0)
    return model, guide, pi


@pytest.mark.slow
def test_three_clusters_take_three_components_of_eight():
    pyro.set_rng_seed(1)
    x, _ = clusters()
    _, guide, pi = fitted(x)
    in_use = pi > 0.1
    assert int(in_use.sum()) == 3
    assert float(pi[in_use].sum()) > 0.95
    centres = guide.loc.detach()[in_use]
    true = torch.tensor([[2.0, 0.0], [-1.0, 1.8], [-1.0, -1.8]])
    assert float(torch.cdist(true, centres).min(1).values.max()) < 0.1


def test_without_sticks_that_break_all_components_weigh_alike(monkeypatch):
    def even(v):
        pieces = v.shape[-1] + 1
        return (v.sum(-1, keepdim=True) * 0 + 1 / pieces).expand(*v.shape[:-1], pieces)

    monkeypatch.setattr(import_module("pyrogen.models.dirichlet_process_mixture"), "broken", even)
    pyro.set_rng_seed(1)
    x, _ = clusters()
    model, guide, _ = fitted(x, epochs=50)
    with torch.no_grad():
        drawn = poutine.trace(guide).get_trace(x)
        pi = poutine.trace(poutine.replay(model, drawn)).get_trace(x).nodes["pi"]["value"]
    assert float(pi.max()) == pytest.approx(1 / 8)


@pytest.mark.usefixtures("double")
def test_the_bound_is_below_the_evidence():
    """Of one datum, whose evidence is a Student's t: with all components alike a priori, sticks do not matter."""
    model = DirichletProcessMixture(1, 3, num_data=1)
    x = torch.tensor([[0.7]])
    # x | tau ~ N(0, (1 + 1 / kappa) / tau), tau ~ Gamma(2, .5): a Student's t of 4 degrees of freedom.
    scale = math.sqrt((1 + 1 / 0.1) * 0.5 / 2.0)
    evidence = float(dist.StudentT(4.0, 0.0, scale).log_prob(x).sum())

    def prior(x):
        pyro.sample("v", dist.Beta(torch.ones(2), torch.ones(2)).to_event(1))
        with pyro.plate("component", 3):
            precision = pyro.sample("precision", dist.Gamma(torch.full((1,), 2.0), 0.5).to_event(1))
            pyro.sample("mu", dist.Normal(torch.zeros(1), (0.1 * precision) ** -0.5).to_event(1))

    weights = log_weights(model, prior, x, num_particles=200_000).sum(1)
    found = float(weights.logsumexp(0)) - math.log(len(weights))
    error = float(weights.exp().std() / weights.exp().mean()) / len(weights) ** 0.5
    assert abs(found - evidence) < 4.5 * error
    guide = StickBreakingPosterior(model)
    for _ in train(ELBO(4), model, guide, [x], lambda p: torch.optim.Adam(p, lr=0.02), num_steps=400, validate=False):
        pass
    bounds = torch.stack([-ELBO(500)(model, guide, x).detach() for _ in range(20)])
    assert float(bounds.mean()) < evidence
    assert float(bounds.mean()) > evidence - 2


def shared_mean(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def known_mean(x):
    pyro.sample("mu", dist.Normal(0.4, 1.5))


@pytest.mark.slow
@pytest.mark.usefixtures("double")
def test_the_predictive_density_is_the_mean_of_densities(monkeypatch):
    """With mu ~ N(.4, 1.5^2) a new datum is N(.4, 1.5^2 + 1)."""
    x = torch.tensor([-1.0, 0.5, 2.0])
    exact = float(dist.Normal(0.4, (1.5**2 + 1) ** 0.5).log_prob(x).mean())
    found = evaluation.log_predictive(shared_mean, known_mean, [{"x": x}], num_particles=4000)
    assert found.value == pytest.approx(exact, abs=0.03)
    # The mutant, a mean of logarithms, is lower by half the variance of mu and more.
    monkeypatch.setattr(Tensor, "logsumexp", lambda self, dim: self.mean(dim) + math.log(self.shape[dim]))
    wrong = evaluation.log_predictive(shared_mean, known_mean, [{"x": x}], num_particles=4000)
    assert wrong.value < exact - 0.3
