"""Sites that are summed out: mixtures, hidden Markov models, enumerated guides."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from known_answers import HMM_TRUTH as H
from torch import Tensor

from pyrogen.inference import ELBO, IWAE, MaximumLikelihood, Renyi
from pyrogen.models import GaussianMixture
from pyrogen.programs import log_weights

pytestmark = pytest.mark.usefixtures("double")

EXACT = {
    "MaximumLikelihood": MaximumLikelihood(),
    "ELBO": ELBO(),
    "ELBO of 3 particles": ELBO(3),
    "IWAE": IWAE(3),
    "Renyi": Renyi(0.5, 3),
}
exact = pytest.mark.parametrize("objective", EXACT.values(), ids=EXACT)


def hmm(transition: Tensor):
    def model(y):
        z = None
        for t in pyro.markov(range(len(y))):
            probs = H.pi if z is None else transition[z]
            z = pyro.sample(f"z_{t}", dist.Categorical(probs), infer={"enumerate": "parallel"})
            pyro.sample(f"y_{t}", dist.Normal(H.mu[z], H.sd), obs=y[t])

    return model


def check_hmm(objective, transition):
    assert -objective(hmm(transition), None, H.y).item() == pytest.approx(H.log_evidence, abs=1e-6)


@exact
def test_hidden_markov_model(objective):
    check_hmm(objective, H.T)


def test_mutant_transposed_transition():
    with pytest.raises(AssertionError):
        check_hmm(MaximumLikelihood(), H.T.T)


def test_gradient_of_the_hidden_markov_model_is_the_posterior():
    """d log p(y) / d mu_1 = sum_t P(z_t = 1 | y) (y_t - mu_1) / sd^2 (Fisher's identity)."""
    mu = H.mu.clone().requires_grad_()

    def model(y):
        z = None
        for t in pyro.markov(range(len(y))):
            z = pyro.sample(f"z_{t}", dist.Categorical(H.pi if z is None else H.T[z]), infer={"enumerate": "parallel"})
            pyro.sample(f"y_{t}", dist.Normal(mu[z], H.sd), obs=y[t])

    (gradient,) = torch.autograd.grad(-MaximumLikelihood()(model, None, H.y), mu)
    torch.testing.assert_close(gradient[1], (H.P_z_eq_1 * (H.y - H.mu[1])).sum())


def mixture() -> GaussianMixture:
    model = GaussianMixture(2, 3).double()
    model.logits.data = torch.tensor([0.5, -0.3, 1.0])
    model.raw_scale.data = torch.randn(3, 2, 2) * 0.4
    return model


def density(model: GaussianMixture, x: Tensor, weighted: bool = True) -> Tensor:
    parts = torch.distributions.MultivariateNormal(model.loc, scale_tril=model.scale_tril()).log_prob(x[:, None])
    weights = model.logits.log_softmax(0) if weighted else torch.full((3,), -math.log(3))
    return (weights + parts).logsumexp(-1)


@exact
def test_gaussian_mixture(objective):
    model, x = mixture(), torch.randn(7, 2)
    torch.testing.assert_close(-objective(model, None, x), density(model, x).sum())


def test_gaussian_mixture_datum_by_datum():
    model, x = mixture(), torch.randn(7, 2)
    torch.testing.assert_close(log_weights(model, None, x, num_particles=2), density(model, x).expand(2, 7))


def test_gradients_of_the_gaussian_mixture():
    model, x = mixture(), torch.randn(7, 2)
    loss = MaximumLikelihood()(model, None, x)
    parameters = [model.logits, model.loc, model.raw_scale]
    for found, truth in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(-density(model, x).sum(), parameters), strict=True
    ):
        torch.testing.assert_close(found, truth)


def test_mutant_mixture_weights_omitted():
    model, x = mixture(), torch.randn(7, 2)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(-MaximumLikelihood()(model, None, x), density(model, x, weighted=False).sum())


def test_mutant_sum_of_logs_for_log_of_sum():
    """A trace that scores the sites without contracting them, as a plain ``log_prob_sum`` would."""
    model, x = mixture(), torch.randn(7, 2)
    parts = torch.distributions.MultivariateNormal(model.loc, scale_tril=model.scale_tril()).log_prob(x[:, None])
    with pytest.raises(AssertionError):
        torch.testing.assert_close(-MaximumLikelihood()(model, None, x), (model.logits.log_softmax(0) + parts).sum())


@exact
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_subsampling_scales_outside_the_logarithm(objective, scale):
    """A minibatch of 3 from 12 with weight s: 4 s log sum_k, and not log sum_k of powers 4 s."""
    x = torch.tensor([-1.0, 0.5, 2.0])

    def model(x):
        with pyro.plate("data", 12, subsample_size=3), pyro.poutine.scale(scale=scale):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.8])), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(torch.tensor([-1.0, 2.0])[k], 1.0), obs=x)

    parts = dist.Normal(torch.tensor([-1.0, 2.0]), 1.0).log_prob(x[:, None]) + torch.tensor([0.2, 0.8]).log()
    torch.testing.assert_close(-objective(model, None, x), 4 * scale * parts.logsumexp(-1).sum())


# Enumerated guides


def bernoulli_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(2 * z - 1, 1.0), obs=x)


def bernoulli_guide(logits):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=logits), infer={"enumerate": "parallel"})

    return guide


def exact_elbo(x, logits, weights=None):
    z = torch.tensor([0.0, 1.0])[:, None]
    log_q = dist.Bernoulli(logits=logits).log_prob(z)
    log_p = dist.Bernoulli(0.3).log_prob(z) + dist.Normal(2 * z - 1, 1.0).log_prob(x)
    return ((log_q.exp() if weights is None else weights) * (log_p - log_q)).sum()


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("analytic_kl", [False, True])
def test_enumerated_guide(num_particles, analytic_kl):
    x, logits = torch.tensor([-0.5, 0.2, 1.7]), torch.tensor([0.4, -1.0, 0.1], requires_grad=True)
    found = -ELBO(num_particles, analytic_kl=analytic_kl)(bernoulli_model, bernoulli_guide(logits), x)
    truth = exact_elbo(x, logits)
    torch.testing.assert_close(found, truth)
    torch.testing.assert_close(torch.autograd.grad(found, logits), torch.autograd.grad(truth, logits))
    with pytest.raises(AssertionError):  # mutant: outcomes weighted evenly
        torch.testing.assert_close(found, exact_elbo(x, logits, weights=torch.tensor(0.5)))


def test_enumerated_guide_above_an_enumerated_model():
    """A discrete global in the guide, a local in the model: sum_g q (log p(g) - log q + sum_n log p(x_n | g))."""
    x, logits = torch.tensor([-0.5, 0.2, 1.7]), torch.tensor(0.4, requires_grad=True)

    def model(x):
        g = pyro.sample("g", dist.Bernoulli(0.3))
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.2 + 0.5 * g), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(2 * k - 1, 1.0), obs=x)

    def guide(x):
        pyro.sample("g", dist.Bernoulli(logits=logits), infer={"enumerate": "parallel"})

    g, k = torch.tensor([0.0, 1.0])[:, None, None], torch.tensor([0.0, 1.0])[:, None]
    log_x = (dist.Bernoulli(0.2 + 0.5 * g).log_prob(k) + dist.Normal(2 * k - 1, 1.0).log_prob(x)).logsumexp(1).sum(-1)
    log_q = dist.Bernoulli(logits=logits).log_prob(g.flatten())
    truth = (log_q.exp() * (dist.Bernoulli(0.3).log_prob(g.flatten()) - log_q + log_x)).sum()
    found = -ELBO()(model, guide, x)
    torch.testing.assert_close(found, truth)
    torch.testing.assert_close(torch.autograd.grad(found, logits), torch.autograd.grad(truth, logits))


def test_batches_with_and_without_labels_enumerate_as_they_need():
    """Semi-supervised learning: whether a site is enumerated depends on the batch, not on the first batch seen."""

    def model(x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(0.3), obs=y)
            pyro.sample("x", dist.Normal(2 * y - 1, 1.0), obs=x)

    logits = torch.tensor([0.4, -1.0, 0.1])

    def guide(x, y=None):
        if y is None:
            bernoulli_guide_y(x)

    def bernoulli_guide_y(x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Bernoulli(logits=logits), infer={"enumerate": "parallel"})

    x, y, objective = torch.tensor([-0.5, 0.2, 1.7]), torch.tensor([0.0, 1.0, 1.0]), ELBO()
    joint = (dist.Bernoulli(0.3).log_prob(y) + dist.Normal(2 * y - 1, 1.0).log_prob(x)).sum()
    for _ in range(2):
        torch.testing.assert_close(-objective(model, guide, x, y), joint)
        torch.testing.assert_close(-objective(model, guide, x), exact_elbo(x, logits))
