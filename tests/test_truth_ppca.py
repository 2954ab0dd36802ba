"""PPCA: evidence, posterior, bounds and fits against closed forms."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from known_answers import PPCA_TRUTH as T
from torch import Tensor, nn
from torch.distributions import kl_divergence

import pyrogen.inference.elbo
import pyrogen.inference.renyi
from pyrogen.inference import ELBO, IWAE, Renyi, train
from pyrogen.models import PPCA
from pyrogen.programs import log_weights, renyi_bound

pytestmark = pytest.mark.usefixtures("double")


def ppca(sigma: float = math.sqrt(T.sigma2)) -> PPCA:
    model = PPCA(5, 2)
    for p, value in ((model.W, T.W), (model.mu, T.mu), (model.log_sigma, torch.tensor(math.log(sigma)))):
        p.data = value.clone()
        p.requires_grad_(False)
    return model


def known(x: Tensor) -> None:
    """The same model as a plain program without parameters, for fits of the guide alone."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ T.W.T + T.mu, math.sqrt(T.sigma2)).to_event(1), obs=x)


class Normals:
    """A guide with a normal for each latent, of given means and standard deviations."""

    def __init__(self, loc: Tensor, sd: Tensor) -> None:
        self.loc, self.sd = loc, sd

    def __call__(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc, self.sd).to_event(1))


def exact_elbo(loc: Tensor, cov: Tensor) -> float:
    """Return sum_n log p(x_n) - KL(q_n || p(z | x_n)) for normal q: the ELBO's definition, in closed form."""
    posterior = torch.distributions.MultivariateNormal(T.post_mean, T.post_cov)
    q = torch.distributions.MultivariateNormal(loc, cov)
    return T.log_p_total - float(kl_divergence(q, posterior).sum())


def fit(objective, guide, lr=0.05, num_steps=600):
    def scheduler(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.5 * (1 + math.cos(math.pi * n / num_steps)))

    for _ in train(
        objective, known, guide, [T.X], lambda p: torch.optim.Adam(p, lr=lr), num_steps=num_steps, scheduler=scheduler
    ):
        pass


# Evidence and posterior


def check_closed_forms(model: PPCA) -> None:
    torch.testing.assert_close(model.log_evidence(T.X), T.log_p_x, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.posterior(T.X).mean, T.post_mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.posterior(T.X).covariance_matrix, T.post_cov.expand(6, 2, 2), atol=1e-5, rtol=0)


def test_evidence_and_posterior():
    check_closed_forms(ppca())


def test_mutant_variance_passed_as_sd():
    with pytest.raises(AssertionError):
        check_closed_forms(ppca(sigma=T.sigma2))


@pytest.mark.parametrize(
    "objective",
    [
        ELBO(analytic_kl=False),
        ELBO(4, analytic_kl=False),
        ELBO(4, vectorize_particles=False, analytic_kl=False),
        IWAE(3),
        Renyi(0.5, 3),
    ],
    ids=repr,
)
def test_bounds_are_tight_at_the_exact_posterior(objective):
    model = ppca()
    assert -objective(model, model.guide, T.X).item() == pytest.approx(T.log_p_total, abs=1e-5)


# Bounds at guides of known ELBO


def check_elbo(truth: float, loc: Tensor, sd: Tensor, repeats: int = 100, **settings: bool) -> None:
    model, guide, objective = ppca(), Normals(loc, sd), ELBO(200, **settings)
    draws = torch.stack([-objective(model, guide, T.X).detach() for _ in range(repeats)])
    mcse = float(draws.std()) / math.sqrt(repeats)
    assert abs(float(draws.mean()) - truth) < 4.5 * mcse


@pytest.mark.parametrize("analytic_kl", [False, True])
def test_elbo_at_the_prior(analytic_kl):
    check_elbo(T.elbo_q_prior, torch.zeros(6, 2), torch.ones(2), analytic_kl=analytic_kl)


OFF = (T.post_mean + 0.4, torch.tensor([0.5, 0.6], dtype=torch.float64))


@pytest.mark.parametrize("analytic_kl", [False, True])
def test_elbo_off_the_prior(analytic_kl):
    check_elbo(exact_elbo(OFF[0], torch.diag(OFF[1] ** 2).expand(6, 2, 2)), *OFF, analytic_kl=analytic_kl)


@pytest.mark.parametrize("analytic_kl", [False, True])
def test_mutant_kl_sign(analytic_kl, monkeypatch):
    """At q = prior the sign cannot be seen: the case off the prior holds it."""
    elbo = pyrogen.inference.elbo
    kls, model_terms, guide_terms = elbo.analytic_kls, elbo.model_terms, elbo.guide_terms

    def flipped_kls(traces):
        return {name: term._replace(log_prob=-term.log_prob) for name, term in kls(traces).items()}

    def flipped_model(traces, divergences):
        plus, minus = model_terms(traces, divergences), guide_terms(traces, divergences)
        return plus if divergences else [*minus, plus[-1]]

    def flipped_guide(traces, divergences):
        return guide_terms(traces, divergences) if divergences else model_terms(traces)[:-1]

    monkeypatch.setattr(pyrogen.inference.elbo, "analytic_kls", flipped_kls)
    monkeypatch.setattr(elbo, "model_terms", flipped_model)
    monkeypatch.setattr(elbo, "guide_terms", flipped_guide)
    with pytest.raises(AssertionError):
        test_elbo_off_the_prior(analytic_kl)


# Fits


class FullRank(pyro.nn.PyroModule):
    """q(z | x) = N(A x + b, L L^T): the posterior's own family."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Linear(5, 2)
        self.raw = nn.Parameter(torch.zeros(2, 2))

    def scale_tril(self) -> Tensor:
        return self.raw.tril(-1) + torch.diag_embed(self.raw.diagonal().exp())

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(self.loc(x), scale_tril=self.scale_tril()))


def functional_full_rank(x: Tensor) -> None:
    weight = pyro.param("weight", torch.zeros(2, 5))
    bias = pyro.param("bias", torch.zeros(2))
    tril = pyro.param("tril", torch.eye(2), constraint=dist.constraints.lower_cholesky)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.MultivariateNormal(x @ weight.T + bias, scale_tril=tril))


@pytest.mark.slow
@pytest.mark.parametrize("make_guide", [FullRank, lambda: functional_full_rank], ids=["module", "functional"])
def test_full_rank_guide_reaches_the_evidence(make_guide):
    guide = make_guide()
    fit(ELBO(8), guide)
    bound = -ELBO(2000)(known, guide, T.X).item()
    assert T.log_p_total - 0.01 * 6 < bound < T.log_p_total + 0.01 * 6


def mean_field(x: Tensor) -> None:
    loc = pyro.param("loc", torch.zeros(6, 2))
    sd = pyro.param("sd", torch.ones(2), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, sd).to_event(1))


def check_mean_field(analytic_kl: bool) -> None:
    fit(ELBO(8, analytic_kl=analytic_kl), mean_field)
    sd = pyro.param("sd").detach()
    torch.testing.assert_close(sd, T.meanfield_sd, rtol=0.03, atol=0)
    exact = exact_elbo(pyro.param("loc").detach(), torch.diag(sd**2).expand(6, 2, 2))
    assert (T.log_p_total - exact) / 6 == pytest.approx(T.meanfield_gap, abs=0.01)
    estimate = -ELBO(20_000, analytic_kl=analytic_kl)(known, mean_field, T.X).item()
    assert (T.log_p_total - estimate) / 6 == pytest.approx(T.meanfield_gap, abs=0.01)


@pytest.mark.parametrize("analytic_kl", [False, True])
def test_mean_field_guide_reaches_its_optimum(analytic_kl):
    check_mean_field(analytic_kl)


def test_mutant_entropy_dropped(monkeypatch):
    monkeypatch.setattr(pyrogen.inference.elbo, "guide_terms", lambda *args: [])
    with pytest.raises(AssertionError):
        check_mean_field(analytic_kl=False)


# IWAE


def gap(objective: nn.Module, repeats: int) -> tuple[float, float]:
    """Return log p(X) minus the bound's mean, and its standard error."""
    model, guide = ppca(), Normals(T.post_mean, T.meanfield_sd)
    draws = torch.stack([-objective(model, guide, T.X).detach() for _ in range(repeats)])
    return T.log_p_total - float(draws.mean()), float(draws.std()) / math.sqrt(repeats)


def check_iwae() -> None:
    gaps = {k: gap(IWAE(k), repeats) for k, repeats in ((1, 600), (5, 400), (50, 200), (5000, 20))}
    assert abs(gaps[1][0] - 6 * T.meanfield_gap) < 4.5 * gaps[1][1]  # -.553
    for few, many in ((1, 5), (5, 50), (50, 5000)):
        assert gaps[many][0] < gaps[few][0] + 4.5 * math.hypot(gaps[few][1], gaps[many][1])
        assert gaps[many][0] > -4.5 * gaps[many][1]
    assert gaps[50][0] < gaps[1][0] / 2
    assert abs(gaps[5000][0]) < 0.02


def test_iwae_rises_to_the_evidence():
    check_iwae()


def test_mutant_missing_log_k(monkeypatch):
    monkeypatch.setattr(pyrogen.inference.renyi, "renyi_bound", lambda log_w, alpha: log_w.logsumexp(0))
    with pytest.raises(AssertionError):
        check_iwae()


# Rényi's bound on fixed weights


def check_renyi(bound) -> None:
    log_w = log_weights(ppca(), Normals(T.post_mean, T.meanfield_sd), T.X, num_particles=50)
    torch.testing.assert_close(bound(log_w, 1.0), log_w.mean(0))
    torch.testing.assert_close(bound(log_w, 0.0), log_w.exp().mean(0).log())
    torch.testing.assert_close(bound(log_w, 1.0 + 1e-7), log_w.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(bound(log_w, 2.0), -(-log_w).exp().mean(0).log())
    values = torch.stack([bound(log_w, alpha) for alpha in (-5.0, -1.0, 0.0, 0.3, 0.9, 1.0, 1.1, 3.0)])
    assert (values.diff(dim=0) <= 1e-9).all()


def test_renyi_bound_falls_with_alpha():
    check_renyi(renyi_bound)


@pytest.mark.parametrize(
    "mutant",
    [
        lambda log_w, alpha: renyi_bound(log_w, 1 - alpha),
        lambda log_w, alpha: renyi_bound(log_w, alpha) + (math.log(len(log_w)) if alpha != 1 else 0),
        lambda log_w, alpha: renyi_bound(log_w, alpha) * (1 - alpha if alpha != 1 else 1),
    ],
    ids=["alpha for one minus alpha", "missing log K", "power not divided by"],
)
def test_mutant_renyi(mutant):
    with pytest.raises(AssertionError):
        check_renyi(mutant)


def test_renyi_objective_at_its_ends():
    model, guide = ppca(), Normals(T.post_mean, T.meanfield_sd)

    def value(objective):
        pyro.set_rng_seed(3)
        return objective(model, guide, T.X)

    torch.testing.assert_close(value(Renyi(1.0, 7)), value(ELBO(7, analytic_kl=False)))
    torch.testing.assert_close(value(Renyi(0.0, 7)), value(IWAE(7)))
