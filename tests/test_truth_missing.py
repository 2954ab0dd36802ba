"""Missing data: bounds, means and draws against the Gaussian model, whose conditional distributions are known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from known_answers import PPCA_TRUTH as T
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

import pyrogen.evaluation.imputation
import pyrogen.inference.renyi
import pyrogen.models.incomplete
from pyrogen.completion import mask_of
from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation import impute
from pyrogen.inference import ELBO, IWAE
from pyrogen.models import PPCA, Imputed, Incomplete, miwae, vae
from pyrogen.models.encoder import StudentTEncoder
from pyrogen.models.likelihood import likelihood_for
from pyrogen.programs import densities, log_weights, renyi_bound
from pyrogen.spec import DataSpec

pytestmark = pytest.mark.usefixtures("double")

NAN = float("nan")
PATTERNS = torch.cartesian_prod(*[torch.tensor([True, False])] * 5)
"""Every way in which of five values some are observed."""


def ppca() -> PPCA:
    model = PPCA(5, 2)
    for p, value in ((model.W, T.W), (model.mu, T.mu), (model.log_sigma, torch.tensor(math.log(T.sigma2) / 2))):
        p.data = value.clone()
        p.requires_grad_(False)
    return model


def every_pattern() -> Tensor:
    return T.X[torch.arange(32) % 6].masked_fill(~PATTERNS, NAN)


COV = T.W @ T.W.T + T.sigma2 * torch.eye(5, dtype=torch.float64)


def log_evidence(row: Tensor) -> float:
    """Return log N(x_o; mu_o, C_oo): a part of a normal vector is normal."""
    o = ~row.isnan()
    return float(MultivariateNormal(T.mu[o], COV[o][:, o]).log_prob(row[o])) if o.any() else 0.0


def conditional(row: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of x_m given x_o: regression of a part of a normal vector on the other."""
    o = ~row.isnan()
    gain = torch.linalg.solve(COV[o][:, o], COV[o][:, ~o]).T
    return T.mu[~o] + gain @ (row[o] - T.mu[o]), COV[~o][:, ~o] - gain @ COV[o][:, ~o]


def posterior(x: Tensor) -> MultivariateNormal:
    """Return p(z | x_o): that of PPCA, with the rows of W that were observed."""
    seen = (~x.isnan()).double()
    M = torch.einsum("ni,ij,ik->njk", seen, T.W, T.W) + T.sigma2 * torch.eye(2)
    loc = torch.linalg.solve(M, ((x.nan_to_num() - T.mu) * seen @ T.W).unsqueeze(-1)).squeeze(-1)
    return dist.MultivariateNormal(loc, precision_matrix=M / T.sigma2)


def exact(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", posterior(x))


def broad(x: Tensor) -> None:
    """A guide that knows nothing of the data."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.2).to_event(1))


# Bounds


def check_tight(model: nn.Module) -> None:
    x = every_pattern()
    wanted = torch.tensor([log_evidence(row) for row in x])
    found = log_weights(model, exact, x, num_particles=3)
    torch.testing.assert_close(found, wanted.expand(3, 32), atol=1e-9, rtol=0)
    for objective in (IWAE(4), ELBO(analytic_kl=False)):
        assert -objective(model, exact, x).item() == pytest.approx(float(wanted.sum()), abs=1e-8)


def test_bounds_are_those_of_what_was_observed_whatever_is_missing():
    check_tight(Incomplete(ppca()))


class ZeroImputed(PyroModule):
    """The mutant that scores what is missing as if it were zero."""

    def __init__(self) -> None:
        super().__init__()
        self.model = ppca()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.nan_to_num())


def test_mutant_likelihood_without_a_mask():
    with pytest.raises(AssertionError):
        check_tight(ZeroImputed())


def test_complete_data_are_scored_as_ever():
    model = ppca()
    pyro.set_rng_seed(0)
    wanted = log_weights(model, broad, T.X, num_particles=7)
    pyro.set_rng_seed(0)
    torch.testing.assert_close(log_weights(Incomplete(model), broad, T.X, num_particles=7), wanted)


def check_rise() -> None:
    x = torch.tensor([[1.0, NAN, 0.2, NAN, NAN], [NAN, -0.2, NAN, -1.2, -0.9]])
    model, gaps = Incomplete(ppca()), {}
    for num_particles in (1, 5, 50, 1000):
        repeats = max(200, 20_000 // num_particles)
        found = torch.stack(
            [-IWAE(num_particles)(model, broad, row.expand(repeats, 5)) / repeats - log_evidence(row) for row in x]
        )
        weights = log_weights(model, broad, x.repeat_interleave(repeats, 0), num_particles=num_particles)
        spread = renyi_bound(weights).reshape(2, repeats).std(1) / repeats**0.5
        gaps[num_particles] = (found, spread)
    for few, many in ((1, 5), (5, 50), (50, 1000)):
        error = 4.5 * (gaps[few][1] ** 2 + gaps[many][1] ** 2).sqrt()
        assert (gaps[few][0] < gaps[many][0] + error).all()
        assert (gaps[many][0] < 4.5 * gaps[many][1]).all()
    assert (gaps[1][0] < -4.5 * gaps[1][1]).all()
    # To first order the gap is -Var(w) / (2 K E[w]^2), here about 5 / 2000.
    assert (gaps[1000][0].abs() < 0.005 + 4.5 * gaps[1000][1]).all()


def test_the_bound_rises_to_the_evidence():
    check_rise()


def test_mutant_missing_log_k(monkeypatch):
    monkeypatch.setattr(pyrogen.inference.renyi, "renyi_bound", lambda log_w, alpha: log_w.logsumexp(0))
    with pytest.raises(AssertionError):
        check_rise()


# Imputation

ROWS = [[1.0, NAN, 0.2, NAN, 0.5], [NAN, -0.2, NAN, NAN, NAN], [0.6, -0.2, NAN, -1.2, -0.9], [NAN] * 4 + [1.5]]


def check_moments(num_particles: int, num_draws: int) -> None:
    """Hold means and covariances to the conditional distribution, by a guide far from the posterior."""
    x = torch.tensor(ROWS)
    found = impute(Incomplete(ppca()), broad, x, num_particles, num_draws)
    seen = ~x.isnan()
    assert torch.equal(found.mean[seen], x[seen])
    assert torch.equal(found.draws[:, seen], x[seen].expand(num_draws, -1))
    assert found.draws.isfinite().all()
    assert (found.effective_particles < 0.6 * num_particles).all()  # the weights have work to do
    for i, row in enumerate(x):
        mean, cov = conditional(row)
        # Of self-normalised weights (Owen, 2013, section 9.2): variance over the effective number, which is that of the
        # mean of z alone; doubled, as weights and values go together.
        error = (2 * cov.diagonal() / found.effective_particles[i]).sqrt()
        assert ((found.mean[i, ~seen[i]] - mean).abs() < 4.5 * error).all()
        draws = found.draws[:, i, ~seen[i]]
        # Draws that share a particle are counted once.
        count = 1 / (1 / num_draws + 1 / float(found.effective_particles[i]))
        assert ((draws.mean(0) - mean).abs() < 4.5 * (cov.diagonal() / count).sqrt()).all()
        error = ((cov.diagonal()[:, None] * cov.diagonal() + cov**2) / count).sqrt()
        assert ((draws.T.cov() - cov).abs() < 4.5 * error).all()


def test_imputations_are_of_the_conditional_distribution():
    check_moments(60_000, 3_000)


def mutated(**changes):
    """Change functions of the module under test, by name."""
    return lambda monkeypatch: [
        monkeypatch.setattr(pyrogen.evaluation.imputation, name, change) for name, change in changes.items()
    ]


log_weights_of, importance_of = pyrogen.evaluation.imputation._log_weights, pyrogen.evaluation.imputation.importance


@pytest.mark.parametrize(
    "change",
    [
        mutated(_log_weights=lambda *args: torch.zeros_like(log_weights_of(*args))),
        mutated(_log_weights=lambda *args: -log_weights_of(*args)),
        mutated(_log_weights=lambda *args: 0.5 * log_weights_of(*args)),
        mutated(importance=lambda traces: importance_of(traces)._replace(log_weights=-densities(traces).log_q)),
    ],
    ids=["the guide's mean", "weights upside down", "weights of half the evidence", "the guide's density alone"],
)
def test_mutant_imputation(change, monkeypatch):
    change(monkeypatch)
    with pytest.raises(AssertionError):
        check_moments(6_000, 300)  # where one particle has all the weight, each draw of it costs a draw of all


def test_mutant_imputation_without_a_mask():
    class Model(PyroModule):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z @ T.W.T + T.mu, T.sigma2**0.5).to_event(1), obs=x.nan_to_num())

    x = torch.tensor(ROWS[:1])
    found = impute(Model(), broad, x, 60_000)
    mean, cov = conditional(x[0])
    error = (2 * cov.diagonal() / found.effective_particles[0]).sqrt()
    assert ((found.mean[0, x[0].isnan()] - mean).abs() > 4.5 * error).any()


def test_the_exact_posterior_has_equal_weights():
    """A mean of equal weights has the error of a mean, to which a draw of each particle's datum adds nothing."""
    x, num_particles = every_pattern(), 2000
    found = impute(Incomplete(ppca()), exact, x, num_particles)
    torch.testing.assert_close(found.effective_particles, torch.full((32,), float(num_particles)))
    for i, row in enumerate(x):
        o = ~row.isnan()
        if o.all():
            continue
        mean, cov = conditional(row) if o.any() else (T.mu, COV)
        of_means = cov.diagonal() - T.sigma2
        assert ((found.mean[i, ~o] - mean).abs() < 4.5 * (of_means / num_particles).sqrt()).all()


def test_rounds_bring_the_guide_of_complete_data_to_the_posterior():
    """Means are right in each round, and weights grow equal: those of zeros are not, where data are far from zero."""
    x, model, found = torch.tensor([[2.2, NAN, 2.5, NAN, -3.8]]), ppca(), []

    def guide(x):
        return model.guide(x.nan_to_num())

    for rounds in (1, 2, 6):
        found.append(impute(Incomplete(model), guide, x, 20_000, rounds=rounds))
        mean, cov = conditional(x[0])
        error = (2 * cov.diagonal() / found[-1].effective_particles).sqrt()
        assert ((found[-1].mean[0, x[0].isnan()] - mean).abs() < 4.5 * error).all()
    first, second, last = (float(of.effective_particles) for of in found)
    assert first < 0.5 * second < 0.5 * last


def test_effective_particles():
    """Of weights 1, 1 and 4: 36 / 18."""

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.tensor([1.0, 1.0, 4.0])))
            loc = k.unsqueeze(-1).double().expand(*k.shape, 2)
            pyro.sample("x", dist.Normal(loc, 1.0).mask(~x.isnan()).to_event(1), obs=x.nan_to_num())

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(torch.ones(3)))

    found = impute(model, guide, torch.full((1, 2), NAN), 30_000)
    assert float(found.effective_particles) / 30_000 == pytest.approx(36 / 18 / 3, rel=0.02)
    torch.testing.assert_close(found.mean, torch.full((1, 2), 9 / 6), atol=0.03, rtol=0)


# Learning from what is missing at random


def observed_information(parameters: Tensor, x: Tensor) -> Tensor:
    """Return minus the second derivatives of log p(x_o), of which each row has its first two values, or all three."""

    def log_p(theta: Tensor) -> Tensor:
        w, mu, log_sigma = theta[:3], theta[3:6], theta[6]
        cov = torch.outer(w, w) + (2 * log_sigma).exp() * torch.eye(3)
        full = ~x[:, 2].isnan()
        both = MultivariateNormal(mu[:2], cov[:2, :2]).log_prob(x[~full, :2]).sum()
        return both + MultivariateNormal(mu, cov).log_prob(x[full]).sum()

    return -torch.autograd.functional.hessian(log_p, parameters)


def test_what_is_missing_at_random_leaves_no_bias():
    """The third value is missing where the first is above zero, so that the mean of those seen is too low."""
    pyro.set_rng_seed(1)
    w, sigma, n = torch.tensor([1.0, 0.5, 1.0]), 0.6, 1000
    x = torch.randn(n, 1) * w + sigma * torch.randn(n, 3)
    x[x[:, 0] > 0, 2] = NAN
    model = PPCA(3, 1)

    def guide(x):
        W, sigma2, seen = model.W, (2 * model.log_sigma).exp(), (~x.isnan()).double()
        precision = 1 + (seen @ W**2) / sigma2
        loc = ((x.nan_to_num() - model.mu) * seen) @ W / sigma2 / precision
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, precision**-0.5).to_event(1))

    # Of the exact posterior, weights are the evidence whatever is drawn, so that a method for exact functions will do.
    optimizer, loss = torch.optim.LBFGS(model.parameters(), max_iter=100), IWAE(1, max_plate_nesting=1)

    def closure():
        optimizer.zero_grad()
        value = loss(Incomplete(model), guide, x) / n
        value.backward()
        return value

    optimizer.step(closure)
    theta = torch.cat([model.W.flatten(), model.mu, model.log_sigma.reshape(1)]).detach()
    error = float(torch.linalg.inv(observed_information(theta, x))[5, 5]) ** 0.5
    assert abs(float(theta[5])) < 4.5 * error
    seen = x[~x[:, 2].isnan(), 2]
    assert float(seen.mean()) < -10 * error  # and the error is small enough to tell


def test_random_masks():
    """Each element is missing with the same probability, whatever others are."""
    n, share = 20_000, 0.3
    missing = mask_of(f"random:{share}", n, (3,), seed=4).double()
    error = (share * (1 - share) / n) ** 0.5
    assert ((missing.mean(0) - share).abs() < 4.5 * error).all()
    correlation = missing.T.corrcoef()
    assert ((correlation - torch.eye(3)).abs() < 4.5 / n**0.5).all()


# Student's t-distribution


def test_the_likelihood_is_students():
    likelihood = likelihood_for(DataSpec((2,), "real"), "student-t")
    features = torch.tensor([0.5, -1.0, -0.3, 2.0, 1.0, -2.0])  # locations, scales, freedoms
    fn, x = likelihood(features), torch.tensor([1.5, 0.7])
    soft = [math.log1p(math.exp(v)) for v in features.tolist()]
    wanted = sum(
        scipy.stats.t.logpdf(x[j].item(), 3 + soft[4 + j], features[j].item(), 1e-3 + soft[2 + j]) for j in range(2)
    )
    assert fn.log_prob(x).item() == pytest.approx(wanted, abs=1e-12)
    assert torch.equal(fn.mean, features[:2])


def test_the_encoder_is_students():
    encoder = StudentTEncoder(nn.Identity(), DataSpec((6,), "real"))
    features = torch.tensor([[0.5, -1.0, -0.3, 2.0, 1.0, -2.0]])
    soft = [math.log1p(math.exp(v)) for v in features[0].tolist()]
    z = torch.tensor([[0.1, -3.0]])
    wanted = sum(
        scipy.stats.t.logpdf(z[0, j].item(), 3 + soft[4 + j], features[0, j].item(), soft[2 + j]) for j in range(2)
    )
    assert encoder.posterior(features).log_prob(z).item() == pytest.approx(wanted, abs=1e-12)


# Programs


@pytest.mark.parametrize("encoder", ["student-t", "gaussian"])
def test_gradients_are_finite_and_reach_every_parameter(encoder):
    model, guide = miwae(DataSpec((5,), "real"), latent=2, hidden=(8,), encoder=encoder)
    IWAE(6)(model, guide, every_pattern()).backward()
    for name, p in [*model.named_parameters(), *guide.named_parameters()]:
        assert p.grad.isfinite().all(), name
        assert (p.grad != 0).any(), name


def test_constants_stand_for_what_is_missing():
    _, guide = miwae(DataSpec((3,), "real"), latent=2, hidden=(8,))
    with torch.no_grad():
        guide.constants.copy_(torch.tensor([1.0, 2.0, 3.0]))
    of_missing = guide.posterior(torch.tensor([[NAN, 0.5, NAN]]))
    torch.testing.assert_close(of_missing.mean, guide.guide.posterior(torch.tensor([[1.0, 0.5, 3.0]])).mean)


def test_images_may_be_incomplete():
    model, encoder = vae(DataSpec((1, 4, 4), "binary"), latent=2, hidden=(8,))
    x = torch.bernoulli(torch.full((6, 1, 4, 4), 0.5))
    x[:, :, 2:] = NAN
    found = impute(Incomplete(model), Imputed(encoder), x, 100, 4)
    assert found.draws.shape == (4, 6, 1, 4, 4)
    assert set(found.draws.unique().tolist()) == {0.0, 1.0}
    assert ((found.mean >= 0) & (found.mean <= 1)).all()


def test_rows_are_imputed_alike_in_parts_and_together(monkeypatch):
    monkeypatch.setattr(pyrogen.evaluation.imputation, "ROWS", 700)
    x = torch.tensor(ROWS).repeat(3, 1)
    found = impute(Incomplete(ppca()), exact, x, 300, 2)
    assert found.mean.shape == (12, 5)
    assert found.draws.shape == (2, 12, 5)
    for row, mean in zip(x, found.mean, strict=True):
        expected, covariance = conditional(row)
        seen = ~row.isnan()
        assert torch.equal(mean[seen], row[seen])
        # Means of particles, given latents from the exact posterior, vary by less than what is missing does.
        assert ((mean[~seen] - expected).abs() < 4.5 * covariance.diagonal().sqrt() / 300**0.5).all()


class Latent(PyroModule):
    """One latent, of which only the second element tells, with some noise."""

    def __init__(self, noise):
        super().__init__()
        self.scale = torch.tensor([1.0, noise])

    def forward(self, x=None, size=1):
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            loc = torch.cat([torch.zeros_like(z), z], -1)
            return pyro.sample("x", dist.Normal(loc, self.scale).to_event(1), obs=x)


def prior(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))


def test_every_part_of_the_particles_is_drawn_from(monkeypatch):
    """Of 100 particles with equal weights, gone through one by one, 100 draws meet 63 on average, give or take 3."""
    monkeypatch.setattr(pyrogen.evaluation.imputation, "ROWS", 1)
    found = impute(Incomplete(Latent(1e-9)), prior, torch.tensor([[0.0, NAN]]), 100, 100)
    met = len((found.draws[:, 0, 1] * 1e5).round().unique())
    assert abs(met - 100 * (1 - 0.99**100)) < 4.5 * 3.1


def test_draws_by_one_particle_differ_by_the_noise_of_the_data():
    found = impute(Incomplete(Latent(0.5)), prior, torch.tensor([[0.0, NAN]]), 1, 2000)
    assert abs(float(found.draws[:, 0, 1].std()) - 0.5) < 4.5 * 0.5 / 4000**0.5


def test_no_data_are_refused():
    with pytest.raises(UsageError, match="x has no rows"):
        impute(Incomplete(ppca()), exact, torch.tensor(ROWS)[:0])


@pytest.mark.parametrize(
    ("model", "settings", "says"),
    [
        (Incomplete(ppca()), {"num_particles": 0}, "at least 1 particle"),
        (Incomplete(ppca()), {"num_draws": -1}, "0 draws"),
        (Incomplete(ppca()), {"rounds": 0}, "1 round"),
        (Incomplete(ppca()), {"site": "y"}, "observes no data at site 'y'"),
        (Incomplete(ppca()), {"site": "z"}, "observes no data at site 'z'"),
        (ppca(), {}, "must read NaN as what is missing"),
    ],
    ids=["particles", "draws", "rounds", "site", "latent", "complete"],
)
def test_what_cannot_be_imputed_is_said(model, settings, says):
    with pytest.raises((UsageError, ProgramError), match=says):
        impute(model, exact, torch.tensor(ROWS), **settings)


def test_elements_that_depend_on_each_other_are_refused():
    def model(x, size):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.MultivariateNormal(torch.zeros(5), torch.eye(5)), obs=x)

    with pytest.raises(ProgramError, match="site 'x': the elements of its MultivariateNormal depend"):
        Incomplete(model)(every_pattern())


def test_data_without_a_mean_are_refused():
    model, encoder = vae(DataSpec((3,), "levels", levels=4), likelihood="categorical", latent=2, hidden=(8,))
    with pytest.raises(ProgramError, match="have no mean"):
        impute(Incomplete(model), Imputed(encoder), torch.tensor([[1.0, NAN, 2.0]]), 10)
