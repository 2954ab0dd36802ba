"""Score-function gradients against exact ones by enumeration, with their baselines.

One call with a plate of many copies of the same problem, each with parameters of its own, gives as many independent
gradients: the objective is Rao-Blackwellised over plates.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from known_answers import SCORE_TRUTH as T

import pyrogen.inference.renyi
from pyrogen.inference import ELBO, IWAE, Renyi

pytestmark = pytest.mark.usefixtures("double")
COPIES = 20_000


def categorical_gradients(objective, copies=COPIES, shift=0.0):
    """Independent estimates of d E[f] / d logits: at p = q the divergence has no gradient and no value."""
    logits = T.logits.expand(copies, 3).clone().requires_grad_()

    def model():
        with pyro.plate("copies", copies):
            z = pyro.sample("z", dist.Categorical(logits=T.logits))
            pyro.factor("f", T.f[z] + shift)

    def guide():
        with pyro.plate("copies", copies):
            pyro.sample("z", dist.Categorical(logits=logits))

    loss = objective(model, guide)
    (gradient,) = torch.autograd.grad(-loss, logits)
    return -loss.item() / copies, gradient


def check_mean(gradient, truth):
    mcse = gradient.std(0) / math.sqrt(len(gradient))
    assert ((gradient.mean(0) - truth).abs() < 4.5 * mcse).all()


def score_elbo(num_particles, leave_one_out):
    return ELBO(num_particles, analytic_kl=False, leave_one_out=leave_one_out)


@pytest.mark.parametrize("num_particles", [1, 4])
@pytest.mark.parametrize("leave_one_out", [False, True])
def test_categorical(num_particles, leave_one_out):
    value, gradient = categorical_gradients(score_elbo(num_particles, leave_one_out))
    assert value == pytest.approx(T.E_f, abs=4.5 * 1.4 / math.sqrt(COPIES * num_particles))  # sd f < 1.4
    check_mean(gradient, T.grad)


def test_spread_without_a_baseline():
    """The gradient of one draw is f(z) d log q(z): known sd, here within the error of 20,000 draws (about 1 %)."""
    _, gradient = categorical_gradients(score_elbo(1, False))
    torch.testing.assert_close(gradient.std(0), T.sd, rtol=0.03, atol=0)


def test_leave_one_out_lowers_the_variance():
    """A constant added to f changes no gradient, and all of its noise is the baseline's to remove."""
    without, with_baseline = (categorical_gradients(score_elbo(4, b), shift=3.0)[1] for b in (False, True))
    check_mean(with_baseline, T.grad)
    assert with_baseline.var(0).sum() < 0.5 * without.var(0).sum()


class SeesItself(ELBO):
    """Mutant: the baseline is the mean over all particles, the particle's own return among them."""

    def _centred(self, returns, particle_dim):
        return returns - returns.mean(particle_dim, keepdim=True)


class NoScore(ELBO):
    """Mutant: the score-function terms are forgotten, as if every site had ``rsample``."""

    def _score_terms(self, *args):
        return None


@pytest.mark.parametrize("mutant", [SeesItself, NoScore])
def test_mutant_baselines(mutant):
    _, gradient = categorical_gradients(mutant(4, analytic_kl=False))
    with pytest.raises(AssertionError):
        check_mean(gradient, T.grad)


# A posterior to approximate: z ~ Bernoulli(.3), x ~ N(2 z, 1), q = Bernoulli(sigmoid(phi)); theta moves the data.

X, PHI = 0.7, 0.4
Z = torch.tensor([0.0, 1.0], dtype=torch.float64)


def log_weight(phi, theta, z):
    return (
        dist.Bernoulli(torch.tensor(0.3)).log_prob(z)
        + dist.Normal(2 * z + theta, 1.0).log_prob(torch.tensor(X))
        - dist.Bernoulli(logits=phi).log_prob(z)
    )


def exact_bound(phi, theta, num_particles, bound):
    """Sum over all 2^K outcomes of K draws."""
    total = 0.0
    for outcome in torch.cartesian_prod(*[Z] * num_particles).reshape(-1, num_particles):
        q = dist.Bernoulli(logits=phi).log_prob(outcome).sum().exp()
        total = total + q * bound(log_weight(phi, theta, outcome))
    return total


def bernoulli_gradients(objective, copies=COPIES):
    phi = torch.full((copies,), PHI).requires_grad_()
    theta = torch.zeros(copies).requires_grad_()

    def model(x):
        with pyro.plate("copies", copies):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.3)))
            pyro.sample("x", dist.Normal(2 * z + theta, 1.0), obs=x)

    def guide(x):
        with pyro.plate("copies", copies):
            pyro.sample("z", dist.Bernoulli(logits=phi))

    loss = objective(model, guide, torch.full((copies,), X))
    return -loss.item() / copies, torch.stack(torch.autograd.grad(-loss, (phi, theta)), -1)


def renyi(alpha):
    def bound(log_w):
        if alpha == 1:
            return log_w.mean()
        return (((1 - alpha) * log_w).logsumexp(0) - math.log(len(log_w))) / (1 - alpha)

    return bound


def check_bernoulli(objective, num_particles, bound, copies=COPIES):
    phi, theta = torch.tensor(PHI, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    truth = exact_bound(phi, theta, num_particles, bound)
    value, gradient = bernoulli_gradients(objective, copies)
    assert value == pytest.approx(truth.item(), abs=4.5 * 1.0 / math.sqrt(copies))  # sd of a log-weight < 1
    check_mean(gradient, torch.stack(torch.autograd.grad(truth, (phi, theta))))


CASES = {
    "ELBO, sampled KL": (ELBO(3, analytic_kl=False), 3, renyi(1)),
    "ELBO, KL in closed form": (ELBO(3), 3, renyi(1)),
    "ELBO, one particle, KL in closed form": (ELBO(), 1, renyi(1)),
    "IWAE 1": (IWAE(1), 1, renyi(0)),
    "IWAE 2": (IWAE(2), 2, renyi(0)),
    "IWAE 3": (IWAE(3), 3, renyi(0)),
    "Renyi .5": (Renyi(0.5, 2), 2, renyi(0.5)),
    "Renyi 1": (Renyi(1.0, 2), 2, renyi(1)),
    "Renyi 2": (Renyi(2.0, 3), 3, renyi(2)),
    "Renyi -1": (Renyi(-1.0, 2), 2, renyi(-1)),
}


@pytest.mark.parametrize(("objective", "num_particles", "bound"), CASES.values(), ids=CASES)
def test_bernoulli(objective, num_particles, bound):
    check_bernoulli(objective, num_particles, bound)


def test_vimco_lowers_the_variance(monkeypatch):
    _, with_baseline = bernoulli_gradients(IWAE(5))
    monkeypatch.setattr(pyrogen.inference.renyi, "_leave_one_out", lambda log_w, alpha: torch.zeros_like(log_w))
    _, without = bernoulli_gradients(IWAE(5))
    assert with_baseline[:, 0].var() < 0.8 * without[:, 0].var()


def test_mutant_vimco_without_its_signal(monkeypatch):
    monkeypatch.setattr(
        pyrogen.inference.renyi,
        "_leave_one_out",
        lambda log_w, alpha: pyrogen.inference.renyi.renyi_bound(log_w, alpha).expand_as(log_w),
    )
    with pytest.raises(AssertionError):
        check_bernoulli(IWAE(2), 2, renyi(0))


def test_mutant_vimco_that_sees_itself(monkeypatch):
    """The baseline keeps the particle's own weight instead of the others' mean for half of it."""

    def seeing(log_w, alpha):
        return (log_w.logsumexp(0) - math.log(len(log_w))).expand_as(log_w) * 0.5 + 0.5 * log_w

    monkeypatch.setattr(pyrogen.inference.renyi, "_leave_one_out", seeing)
    with pytest.raises(AssertionError):
        check_bernoulli(IWAE(2), 2, renyi(0))


@pytest.mark.slow
@pytest.mark.parametrize("objective", [ELBO(4, analytic_kl=False), ELBO(4), IWAE(4)], ids=["sampled", "closed", "iwae"])
def test_global_and_local_sites_together(objective):
    """A discrete global above a plate of discrete locals, both drawn: the mean of 800 gradients is the exact one."""
    x = torch.tensor([0.3, 1.1])
    gamma, phi = torch.tensor(-0.2, requires_grad=True), torch.tensor([0.4, -0.6], requires_grad=True)

    def model():
        g = pyro.sample("g", dist.Bernoulli(torch.tensor(0.4)))
        with pyro.plate("data", 2):
            z = pyro.sample("z", dist.Bernoulli(0.3 + 0.4 * g))
            pyro.sample("x", dist.Normal(2 * z + g, 1.0), obs=x)

    def guide():
        g = pyro.sample("g", dist.Bernoulli(logits=gamma))
        with pyro.plate("data", 2):
            pyro.sample("z", dist.Bernoulli(logits=phi + g))

    outcomes = torch.cartesian_prod(Z, Z, Z)
    g, z = outcomes[:, :1], outcomes[:, 1:]
    log_q = dist.Bernoulli(logits=gamma).log_prob(g)[:, 0] + dist.Bernoulli(logits=phi + g).log_prob(z).sum(1)
    log_p = (
        dist.Bernoulli(torch.tensor(0.4)).log_prob(g)[:, 0]
        + dist.Bernoulli(0.3 + 0.4 * g).log_prob(z).sum(1)
        + dist.Normal(2 * z + g, 1.0).log_prob(x).sum(1)
    )
    if isinstance(objective, IWAE):
        index = torch.cartesian_prod(*[torch.arange(8)] * 4)
        truth = (log_q[index].sum(1).exp() * ((log_p - log_q)[index].logsumexp(1) - math.log(4))).sum()
    else:
        truth = (log_q.exp() * (log_p - log_q)).sum()
    exact = torch.cat([g.reshape(-1) for g in torch.autograd.grad(truth, (gamma, phi))])
    draws = torch.stack([
        torch.cat([g.reshape(-1) for g in torch.autograd.grad(-objective(model, guide), (gamma, phi))])
        for _ in range(800)
    ])  # fmt: skip
    check_mean(draws, exact)
