"""Implicit posteriors and their relatives against closed forms. Each truth has a mutant."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroModule
from torch import nn

from pyrogen.distributions import Implicit
from pyrogen.errors import ProgramError
from pyrogen.evaluation import iwae, lacks_density, simulation_based_calibration
from pyrogen.inference import (
    AAE,
    ALI,
    AVB,
    ELBO,
    GAN,
    MMD,
    RBF,
    VEEGAN,
    WAE,
    AlphaGAN,
    EnergyDistance,
    LogRatio,
    autoencoding,
    avb,
    moments,
    train,
)
from pyrogen.inference.autoencoding import Autoencoder, Pairs
from pyrogen.inference.samples import Samples


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    pyro.set_rng_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


# An oracle's ratio gives the ELBO and its gradient


class Hierarchy(PyroModule):
    """A global latent, two local ones, one with a learned density given the other; a mask, a subsampled plate."""

    def __init__(self):
        super().__init__()
        self.loc, self.weight, self.log_noise = (nn.Parameter(torch.tensor(v)) for v in (0.3, 0.8, -0.5))

    def forward(self, x, mask):
        g = pyro.sample("g", dist.Normal(self.loc, 1.0))
        with pyro.plate("data", 12, subsample=torch.arange(6)), poutine.mask(mask=mask):
            a = pyro.sample("a", self.of_a(g))
            b = pyro.sample("b", self.of_b(a))
            pyro.sample("x", dist.Normal(a + b.sum(-1), self.log_noise.exp()), obs=x)

    def of_a(self, g, weight=None):
        return dist.Normal((self.weight if weight is None else weight) * g, 1.0)

    def of_b(self, a, weight=None):
        loc = (self.weight if weight is None else weight) * a
        return dist.Normal(loc.unsqueeze(-1).expand(*loc.shape, 2), 1.5).to_event(1)


class Posterior(PyroModule):
    """A normal guide for it; implicit, it draws the same numbers and tells no density."""

    def __init__(self, implicit):
        super().__init__()
        self.implicit = implicit
        self.slope, self.log_sd = nn.Parameter(torch.tensor(0.4)), nn.Parameter(torch.tensor(-0.3))

    def forward(self, x, mask):
        hide = without_density if self.implicit else lambda fn: fn
        g = pyro.sample("g", hide(self.of_g(x)))
        with pyro.plate("data", 12, subsample=torch.arange(6)), poutine.mask(mask=mask):
            a = pyro.sample("a", hide(self.of_a(x, g)))
            pyro.sample("b", hide(self.of_b(a)))

    def of_g(self, x):
        return dist.Normal(self.slope * x.mean(), self.log_sd.exp())

    def of_a(self, x, g):
        return dist.Normal(self.slope * x + 0.1 * g, self.log_sd.exp())

    def of_b(self, a):
        loc = self.slope * a
        return dist.Normal(loc.unsqueeze(-1).expand(*loc.shape, 2), self.log_sd.exp()).to_event(1)


def without_density(fn):
    return Implicit(lambda shape: fn.expand(shape).rsample(), fn.event_shape, fn.batch_shape)


class Oracle(LogRatio):
    """A ratio that is known."""

    def __init__(self, formula):
        super().__init__()
        self.formula = formula

    def forward(self, values, conditions=()):
        return self.formula(*values, *conditions)

    def loss(self, of_q, of_p, conditions=()):
        raise AssertionError("an oracle has nothing to learn")


def oracles(model, guide, x):
    """The exact ratio of each site: of the guide's density to that of the model, as it is now."""
    loc, weight = model.loc.detach(), model.weight.detach()
    return {
        "g": Oracle(lambda g: guide.of_g(x).log_prob(g) - dist.Normal(loc, 1.0).log_prob(g)),
        "a": Oracle(lambda a, x, g, mask: guide.of_a(x, g).log_prob(a) - model.of_a(g, weight).log_prob(a)),
        "b": Oracle(lambda b, x, g, a, mask: guide.of_b(a).log_prob(b) - model.of_b(a, weight).log_prob(b)),
    }


def loss_and_gradients(objective, model, guide, *args):
    pyro.set_rng_seed(0)
    parameters = [*model.parameters(), *guide.parameters()]
    loss = objective(model, guide, *args)
    gradients = torch.autograd.grad(loss, parameters)
    return torch.stack([loss.detach(), *gradients])


def against_the_elbo(num_particles):
    x, mask = torch.randn(6), torch.tensor([1, 1, 0, 1, 0, 1]).bool()
    model, implicit, normal = Hierarchy(), Posterior(True), Posterior(False)
    # What an oracle's critics are shown are rows, as many as there are particles and data.
    objective = AVB(oracles(model, implicit, x), num_particles=num_particles)
    found = loss_and_gradients(objective, model, implicit, x, mask)
    truth = loss_and_gradients(ELBO(num_particles, analytic_kl=False), model, normal, x, mask)
    torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("num_particles", [1, 3])
def test_oracles_give_the_elbo_and_its_gradient(num_particles):
    """At the same draws, in every parameter: through plates, subsampling, a mask, particles and a learned prior."""
    against_the_elbo(num_particles)


def test_mutant_a_prior_that_is_not_learned(monkeypatch):
    """Where T + log p cancels log p as a function of the model's parameters, too."""

    def of_everything(traces, names):
        return sum((s := traces.model.nodes[n])["log_prob"].sum() - s["log_prob"].sum().detach() for n in names)

    monkeypatch.setattr(avb, "_of_draws_alone", of_everything)
    with pytest.raises(AssertionError, match="not close"):
        against_the_elbo(1)


def test_mutant_a_cancelled_prior_that_pulls_the_guide(monkeypatch):
    monkeypatch.setattr(avb, "_of_draws_alone", lambda traces, names: 0.0)
    with pytest.raises(AssertionError, match="not close"):
        against_the_elbo(1)


def test_mutant_a_ratio_that_is_not_masked(monkeypatch):
    """A logit stands for a log-density, and is masked and scaled as one."""
    original = avb._make_point

    def unmasked(site, log_density):
        original(site, log_density)
        site["mask"] = None

    monkeypatch.setattr(avb, "_make_point", unmasked)
    with pytest.raises(AssertionError, match="not close"):
        against_the_elbo(1)


def subsampled(objective):
    """Run on a random few of many data, whose posteriors are all far apart; return what the critic was shown."""
    data, seen = torch.arange(1000.0), []

    class See(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, z, x):
            seen.append((z.detach(), x.detach()))
            return self.weight * 0 * z

    def model(x):
        with pyro.plate("data", 1000, subsample_size=5) as i:
            z = pyro.sample("z", dist.Normal(torch.zeros(5), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[i])

    def guide(x):
        with pyro.plate("data", 1000, subsample_size=5) as i:
            pyro.sample("z", without_density(dist.Normal(x[i], 1e-3)))

    objective(See()).critic_loss(model, guide, data)
    return seen


def check_same_data():
    """Latents that the guide draws stand beside the data that it drew them for, whichever a plate chooses."""
    z, x = subsampled(lambda critic: ALI(critic, covariates=()))[0]
    assert x.max() > 10  # what the guide drew, beside data
    torch.testing.assert_close(z, x, atol=0.01, rtol=0)
    for z, _ in subsampled(lambda critic: AVB(critic, covariates=(), contrast=50)):
        assert z.abs().max() < 10  # in units of the guide's own moments


def test_pairs_of_a_random_subsample():
    check_same_data()


def test_mutant_a_subsample_for_each_program(monkeypatch):
    monkeypatch.setattr(autoencoding, "subsamples", lambda trace: poutine.Trace())
    with pytest.raises(AssertionError, match="not close"):
        check_same_data()


def test_mutant_moments_of_another_subsample(monkeypatch):
    monkeypatch.setattr(avb, "subsamples", lambda trace: poutine.Trace())
    with pytest.raises(AssertionError):
        check_same_data()


def conjugate(x):
    pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)


@pytest.mark.parametrize("contrast", [0, 2000])
def test_the_gradient_through_draws_alone_is_that_of_the_elbo(contrast):
    r"""With T a function of z alone, the gradient in the guide's parameters is the ELBO's in expectation.

    :math:`\mathcal{L} = -\frac{1}{2}[(x - m)^2 + m^2 + 2 s^2] + \log s + c` for :math:`q = N(m, s^2)`, so that
    :math:`\partial_m = x - 2 m` and :math:`\partial_s = 1/s - 2 s`.
    """
    m, s, x = torch.tensor(0.2, requires_grad=True), torch.tensor(0.9, requires_grad=True), torch.tensor(1.0)

    def guide(x):
        pyro.sample("z", Implicit(lambda shape: m + s * torch.randn(shape)))

    q = dist.Normal(m.detach(), s.detach())

    def formula(z):
        if not contrast:
            return q.log_prob(z) - dist.Normal(0.0, 1.0).log_prob(z)
        # q against its own moments, in units of them: nothing is left to learn but the moments' own errors
        return torch.zeros_like(z)

    loss = AVB(Oracle(formula), contrast=contrast, num_particles=50_000)(conjugate, guide, x)
    found = -torch.stack(torch.autograd.grad(loss, [m, s]))
    truth = torch.stack([x - 2 * m, 1 / s - 2 * s]).detach()
    tolerance = 4.5 * 1.5 / math.sqrt(50_000 if not contrast else 2000)  # moments of 2,000 draws are as exact as those
    torch.testing.assert_close(found, truth, rtol=0, atol=tolerance)


@pytest.mark.parametrize("auto", [AutoNormal, AutoMultivariateNormal])
def test_noise_of_an_autoguide_is_not_counted_twice(auto):
    """Its draws are made of auxiliary noise with a density of its own; learned, log q(z) has that in it."""
    x = torch.tensor(1.0)
    guide = auto(conjugate, init_loc_fn=lambda site: torch.tensor(0.5), init_scale=0.5**0.5)
    guide(x)
    q = dist.Normal(0.5, 0.5**0.5)
    oracle = Oracle(lambda z: q.log_prob(z.reshape(-1)) - dist.Normal(0.0, 1.0).log_prob(z.reshape(-1)))
    found = -AVB(oracle, num_particles=7)(conjugate, guide, x)
    torch.testing.assert_close(found, dist.Normal(0.0, 2**0.5).log_prob(x))


def test_mutant_contrast_in_the_wrong_units(monkeypatch):
    """The density of what was standardised, without the Jacobian, has another gradient in the scale."""

    def log_prob(self, values):
        unit = moments.Moments([torch.zeros_like(m) for m in self.loc], [torch.ones_like(s) for s in self.scale])
        return unit.plain(self.standardized(values))

    monkeypatch.setattr(moments.Moments, "plain", moments.Moments.log_prob, raising=False)
    monkeypatch.setattr(moments.Moments, "log_prob", log_prob)
    x, seen = torch.tensor(1.0), []
    for scale in (0.5, 2.0):
        guide = lambda x, scale=scale: pyro.sample("z", Implicit(lambda shape: scale * torch.randn(shape)))  # noqa: E731
        seen.append(AVB(Oracle(torch.zeros_like), contrast=500, num_particles=20_000)(conjugate, guide, x).detach())
    # The true bounds differ by (2^2 - 0.5^2) - log 4; the mutant's by the first term alone.
    assert abs(float(seen[1] - seen[0]) - (3.75 - math.log(4))) > 1.0


# Linear-Gaussian models: x = w z + noise, with the noise at its true value


WEIGHT, NOISE, SIZE = 1.5, 0.8, 2000
MARGINAL = math.sqrt(WEIGHT**2 + NOISE**2)
SLOPE, SD = WEIGHT / (WEIGHT**2 + NOISE**2), NOISE / math.sqrt(WEIGHT**2 + NOISE**2)


class Line(PyroModule):
    """x ~ N(w z, 0.8^2): the noise is fixed, since any correlation of x and z fits if it is free."""

    def __init__(self, weight=0.7):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x=None, size=1):
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(self.weight * z, NOISE), obs=x)


class Encoder(PyroModule):
    """z = a x + b + s noise, with or without a density."""

    def __init__(self, hide):
        super().__init__()
        self.hide = hide
        self.slope, self.loc, self.log_sd = (nn.Parameter(torch.tensor(v)) for v in (0.2, 0.3, 0.0))

    def forward(self, x):
        fn = dist.Normal(self.slope * x + self.loc, self.log_sd.exp())
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.hide(fn))


class Quadratic(nn.Module):
    """All products of its inputs of degree two: the exact log-ratio of normal distributions is among them."""

    def __init__(self, num_inputs):
        super().__init__()
        self.num_inputs = num_inputs
        self.linear = nn.Linear(num_inputs + num_inputs * (num_inputs + 1) // 2, 1)
        nn.init.zeros_(self.linear.weight)

    def forward(self, *values):
        v = torch.stack([value.reshape(-1) for value in values], 1)
        rows, columns = torch.triu_indices(self.num_inputs, self.num_inputs)
        return self.linear(torch.cat([v, v[:, rows] * v[:, columns]], 1))


def adam(learning_rate):
    return lambda parameters: torch.optim.Adam(parameters, lr=learning_rate, betas=(0.5, 0.99))


def fit(objective, hide=without_density, num_steps=600, learning_rate=8e-3, critic_steps=3, critic_rate=3e-2):
    """Fit both programs to fresh batches, and return them with the moving averages of their parameters."""
    model, guide = Line(), Encoder(hide)
    data = torch.randn(SIZE, generator=torch.Generator().manual_seed(1)) * MARGINAL
    data = (data - data.mean()) / data.std() * MARGINAL  # so that the best fit is the truth itself

    def batches():
        while True:
            yield data[torch.randint(SIZE, (400,))]

    steps = train(
        objective,
        model,
        guide,
        batches(),
        adam(learning_rate),
        adam(critic_rate) if list(objective.parameters()) else None,
        steps=(1, critic_steps),
        num_steps=num_steps,
        ema=0.99,
        validate=False,
    )
    for _ in steps:
        pass
    with torch.no_grad():
        for average, parameter in zip(steps.programs.average, steps.programs.parameters, strict=False):
            parameter.copy_(average)
    return model, guide


@torch.no_grad()
def fitted(objective, **settings):
    """Fit both programs, and return what they have become."""
    with torch.enable_grad():
        model, guide = fit(objective, **settings)
    return {
        "weight": float(model.weight.abs()),
        "slope": float(guide.slope * model.weight.sign()),
        "loc": float(guide.loc),
        "sd": float(guide.log_sd.exp()),
    }


POSTERIORS = {
    "AVB, adaptive contrast": lambda: AVB(Quadratic(2), contrast=64),
    "AVB": lambda: AVB(Quadratic(2)),
    "ALI": lambda: ALI(Quadratic(2)),
}


def check_posterior(found):
    assert abs(found["weight"] - WEIGHT) < 0.05 * WEIGHT
    assert abs(found["sd"] - SD) < 0.05 * SD
    for x in (-MARGINAL, 0.0, MARGINAL):
        assert abs(found["slope"] * x + found["loc"] - SLOPE * x) < 0.1 * SD


@pytest.mark.slow
@pytest.mark.parametrize("name", POSTERIORS)
def test_posteriors_of_a_line(name):
    check_posterior(fitted(POSTERIORS[name]()))


@pytest.mark.slow
def test_calibration_of_an_implicit_posterior():
    """1,000 data from the model that was learned, 99 draws each: ranks of z and of the log-likelihood are uniform.

    Controls: a guide whose standard deviation is 0.7 of that, and one that ignores the data. The latter fails by the
    log-likelihood alone.
    """
    model, guide = fit(POSTERIORS["AVB, adaptive contrast"]())
    pyro.set_rng_seed(0)
    found = simulation_based_calibration(model, guide).p_values
    assert set(found) == {"z", "log_likelihood"}
    assert min(found.values()) > 1e-4
    with torch.no_grad():
        guide.log_sd += math.log(0.7)
    assert simulation_based_calibration(model, guide).p_values["z"] < 1e-4

    def prior(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    found = simulation_based_calibration(model, prior).p_values
    assert found["z"] > 1e-4
    assert found["log_likelihood"] < 1e-4


def test_calibration_with_a_covariate():
    """The exact posterior passes where a covariate shifts the latent, and fails with another's."""
    shift = torch.randn(1000)

    def model(shift, x=None, size=1000):
        with pyro.plate("data", size):
            z = pyro.sample("z", dist.Normal(shift, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(shift, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((shift + x) / 2, 0.5**0.5))

    found = simulation_based_calibration(model, guide, covariates={"shift": shift})
    assert min(found.p_values.values()) > 1e-4
    assert "worst of 2: " in repr(found)
    assert len(repr(found)) < 100
    wrong = simulation_based_calibration(model, lambda shift, x: guide(shift.flip(0), x), covariates={"shift": shift})
    assert wrong.p_values["z"] < 1e-4
    with pytest.raises(ProgramError, match="no site 'y' to simulate"):
        simulation_based_calibration(model, guide, ("x", "y"), covariates={"shift": shift})
    with pytest.raises(ProgramError, match="cannot be a covariate as well"):
        simulation_based_calibration(model, guide, covariates={"shift": shift, "x": shift})


@pytest.mark.parametrize("wrong", [{"num_draws": 100}, {"size": 50}, {"bins": 0}])
def test_calibration_refuses(wrong):
    with pytest.raises(ProgramError, match="multiple of bins"):
        simulation_based_calibration(Line(), Encoder(without_density), **wrong)


# A bound for guides without a density


def check_proposal(num_particles=2000):
    """Within 0.02 nat below the exact evidence, for real and for positive latents; and never above it."""
    x = torch.randn(50)

    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(2.0, torch.ones(len(x))))
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).expand([len(x), 2]).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1) + rate, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            rate = dist.Gamma(2.0, torch.ones(len(x)))
            z = dist.Normal((x[:, None] - 2) / 3 * torch.ones(2), 0.8).to_event(1)
            pyro.sample("rate", without_density(rate))
            pyro.sample("z", without_density(z))

    grid = torch.linspace(1e-4, 25.0, 20_001)
    joint = dist.Gamma(2.0, 1.0).log_prob(grid) + dist.Normal(grid, math.sqrt(3.0)).log_prob(x[:, None])
    exact = (joint.logsumexp(1) + math.log(float(grid[1] - grid[0]))).mean()
    assert lacks_density(guide, {"x": x})
    found = iwae(model, guide, [{"x": x}], num_particles, propose=True)
    assert -0.02 < found.value - float(exact) < 4.5 * 0.3 / math.sqrt(50 * num_particles / 10)


def test_a_proposal_by_moments_gives_a_bound():
    check_proposal()


def test_mutant_a_proposal_without_the_jacobian(monkeypatch):
    """A positive latent's density is that of its logarithm by a Jacobian more."""
    identity = torch.distributions.transforms.ExpTransform.log_abs_det_jacobian
    monkeypatch.setattr(
        torch.distributions.transforms.ExpTransform, "log_abs_det_jacobian", lambda s, x, y: 0 * identity(s, x, y)
    )
    with pytest.raises(AssertionError):
        check_proposal()


def test_what_critics_say_the_elbo_is():
    """With oracles, the estimates are what they stand for; AAE's leaves the information of latents out."""
    (x,), q = (torch.randn(400) * MARGINAL,), dist.Normal
    model, guide = Line(WEIGHT), Encoder(without_density)
    with torch.no_grad():
        guide.slope.fill_(SLOPE)
        guide.loc.zero_()
        guide.log_sd.fill_(math.log(SD))
    prior = q(torch.zeros(()), 1.0)
    oracle = Oracle(lambda z, x: q(SLOPE * x, SD).log_prob(z) - prior.log_prob(z))
    found = AVB(oracle).elbo_estimate(model, guide, x)
    torch.testing.assert_close(found, q(torch.zeros(()), MARGINAL).log_prob(x).sum())  # the bound is tight

    class Even(nn.Module):
        def forward(self, z):
            return 0 * z

    pyro.set_rng_seed(0)
    said = AAE(Even()).elbo_estimate(model, guide, x)
    pyro.set_rng_seed(0)
    torch.testing.assert_close(said, -AAE(Even()).forward(model, guide, x) + len(x) * math.log(2))
    assert AAE(GAN(Even(), "least-squares")).elbo_estimate(model, guide, x) is None


def check_alpha_gan_estimate():
    """Its estimate is the reconstruction and the logit of each datum's latents, and nothing of the critic of data."""
    model, guide, x = Line(), Encoder(without_density), torch.randn(7)

    class Known(nn.Module):
        def forward(self, z):
            return 3 - z

    objective = AlphaGAN(Quadratic(1), Known(), weight=0.2)
    pyro.set_rng_seed(1)
    said = objective.elbo_estimate(model, guide, x)
    pyro.set_rng_seed(1)
    z = dist.Normal(guide.slope * x + guide.loc, guide.log_sd.exp()).rsample()
    torch.testing.assert_close(said, (dist.Normal(model.weight * z, NOISE).log_prob(x) + 3 - z).sum())


def test_what_alpha_gans_critic_says():
    check_alpha_gan_estimate()


def test_mutant_an_estimate_that_is_the_loss(monkeypatch):
    """The loss weighs the reconstruction, and counts the critic of data."""
    monkeypatch.setattr(AlphaGAN, "elbo_estimate", lambda self, *args: -self(*args))
    with pytest.raises(AssertionError, match="not close"):
        check_alpha_gan_estimate()


def check_wae():
    """The distance counts once for each datum, times its weight and what scales a latent's density."""
    model, guide, x = Line(), Encoder(without_density), torch.randn(7)

    class Gap(EnergyDistance):
        def between(self, x, y):
            return (x.mean() - y.mean()).square()

    pyro.set_rng_seed(1)
    found = WAE(Gap(), weight=5.0)(poutine.scale(model, 0.5), poutine.scale(guide, 0.5), x)
    pyro.set_rng_seed(1)
    z = dist.Normal(guide.slope * x + guide.loc, guide.log_sd.exp()).rsample()
    of_prior = torch.randn(7)
    log_likelihood = dist.Normal(model.weight * z, NOISE).log_prob(x).sum()
    truth = 0.5 * (5.0 * 7 * (of_prior.mean() - z.mean()).square() - log_likelihood)
    torch.testing.assert_close(found, truth)


def test_the_loss_of_a_wasserstein_autoencoder():
    check_wae()


def test_mutant_a_distance_that_counts_once(monkeypatch):
    original = autoencoding._scale
    monkeypatch.setattr(autoencoding, "_scale", lambda trace: original(trace) / 7)
    with pytest.raises(AssertionError, match="not close"):
        check_wae()


@pytest.mark.slow
def test_mutant_labels_of_the_ratio_swapped(monkeypatch):
    """The critic learns log p(z) - log q(z | x), and the guide runs away from the prior: its slope is .5 else."""
    original = AVB._compared

    def swapped(self, *args):
        of_q, of_p, conditions = original(self, *args)
        return of_p, of_q, conditions

    monkeypatch.setattr(AVB, "_compared", swapped)
    assert fitted(POSTERIORS["AVB"](), num_steps=300)["slope"] > 1.2


@pytest.mark.slow
def test_mutant_a_critic_that_sees_no_data(monkeypatch):
    """With T(z) in the place of T(z, x), only the aggregate posterior is matched, and the guide is too narrow."""
    monkeypatch.setattr(AVB, "_conditions", lambda self, run, names, model, guide: (_shared(names, guide), ()))
    with pytest.raises(AssertionError):
        check_posterior(fitted(AVB(Quadratic(1))))


def _shared(names, guide_trace):
    return avb.shared_plates([guide_trace.nodes[name] for name in names])


def test_mutant_mismatched_pairs(monkeypatch):
    """Latents of one datum beside another: the guide learns the prior, of standard deviation one; it is .5 else."""
    original = Pairs.seen
    monkeypatch.setattr(Pairs, "seen", lambda self, transform=None: (self.latents[0].roll(1, 0), *original(self)[1:]))
    assert fitted(POSTERIORS["ALI"](), num_steps=300)["sd"] > 0.85


# The aggregate posterior, and the marginal


def check_aggregate(found, of_data=False):
    """q(z) has mean 0 and standard deviation 1; the model's p(x) has the data's standard deviation."""
    aggregate = math.hypot(found["slope"] * MARGINAL, found["sd"])
    assert abs(aggregate - 1) < 0.05
    assert abs(found["loc"]) < 0.05
    if of_data:
        assert abs(math.hypot(found["weight"], NOISE) - MARGINAL) < 0.05 * MARGINAL


AGGREGATES = {
    "AAE, KL": lambda: AAE(GAN(Quadratic(1), "reverse-kl")),
    "AAE, non-saturating": lambda: AAE(Quadratic(1)),
    "WAE": lambda: WAE(MMD(RBF([0.5, 1.0, 2.0])), weight=20.0),
    # The reconstruction pulls q(z) apart, towards x / w: at this weight, by 3%.
    "AlphaGAN": lambda: AlphaGAN(Quadratic(1), Quadratic(1), weight=0.2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AGGREGATES)
def test_aggregate_posteriors_of_a_line(name):
    num_steps = 250 if name == "WAE" else 600
    check_aggregate(fitted(AGGREGATES[name](), num_steps=num_steps), of_data=name == "AlphaGAN")


def check_veegan(found):
    r"""The guide is the posterior of the model, and the model's variance is *twice* the data's.

    With the best guide and critic, the loss is :math:`\mathrm{KL}(p_\gamma(x) \| p^*(x)) + \mathrm{H}(z \mid x)`: in
    the variance :math:`v` of :math:`x`, :math:`v / 2 M^2 - \log v` up to constants, with its minimum at
    :math:`v = 2 M^2`. The distance of latents draws a model's data apart.
    """
    variance = found["weight"] ** 2 + NOISE**2
    assert abs(variance - 2 * MARGINAL**2) < 0.1 * MARGINAL**2
    assert abs(found["sd"] - NOISE / math.sqrt(variance)) < 0.05 * NOISE / math.sqrt(variance)
    assert abs(found["slope"] - found["weight"] / variance) < 0.1 * found["sd"] / math.sqrt(variance)


@pytest.mark.slow
def test_veegan_of_a_line():
    check_veegan(fitted(VEEGAN(Quadratic(2)), hide=lambda fn: fn, num_steps=800))


def check_classes():
    """What the model makes, near 50 here, is the critic's first class; and the model lowers its logit."""
    model, guide = Line(), Encoder(lambda fn: fn)

    class Far(nn.Module):
        def __init__(self, sign):
            super().__init__()
            self.sign = nn.Parameter(torch.tensor(sign))

        def forward(self, z, x):
            return self.sign * (x.abs() - 25)

    def far(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(50 + model.weight * z, NOISE), obs=x)

    right, wrong = (VEEGAN(Far(sign)).critic_loss(far, guide, torch.randn(20)) for sign in (1.0, -1.0))
    assert right < 0.01
    assert wrong > 10
    pyro.set_rng_seed(0)
    above = VEEGAN(Far(1.0))(far, guide, torch.randn(20))
    pyro.set_rng_seed(0)
    assert above > VEEGAN(Far(-1.0))(far, guide, torch.randn(20))


def test_classes_of_veegan():
    check_classes()


def test_mutant_veegan_with_its_classes_swapped(monkeypatch):
    monkeypatch.setattr(Samples, "__new__", lambda cls, real, fake, c: tuple.__new__(cls, (fake, real, c)))
    with pytest.raises(AssertionError, match=r"< 0\.01"):
        check_classes()


def test_mutant_alpha_gan_whose_guide_answers_to_the_critic_of_data(monkeypatch):
    """Without the stop, the guide's latents are chosen for data that pass for real: the gradients differ."""

    def gradient():
        pyro.set_rng_seed(0)
        model, guide, x = Line(), Encoder(without_density), torch.randn(20)
        critic = Quadratic(1)
        with torch.no_grad():
            critic.linear.weight.fill_(1.0)
        objective = AlphaGAN(critic, Quadratic(1))
        pyro.set_rng_seed(1)
        loss = objective(model, guide, x)
        return torch.stack(torch.autograd.grad(loss, [guide.slope, guide.log_sd]))

    def of_two_terms():
        """The guide's own terms alone: the reconstruction and the critic of latents, which is level here."""
        pyro.set_rng_seed(0)
        model, guide, x = Line(), Encoder(without_density), torch.randn(20)
        pyro.set_rng_seed(1)
        with pyro.plate("data", 20):
            z = dist.Normal(guide.slope * x + guide.loc, guide.log_sd.exp()).rsample()
        loss = -dist.Normal(model.weight * z, NOISE).log_prob(x).sum()
        return torch.stack(torch.autograd.grad(loss, [guide.slope, guide.log_sd]))

    torch.testing.assert_close(gradient(), of_two_terms())

    def decoded(self):
        trace, observed = self._generated(poutine.replay(self.model, trace=self.inferred))
        return self._pairs(trace, observed, autoencoding._plates(trace))

    monkeypatch.setattr(Autoencoder, "decoded", decoded)
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(gradient(), of_two_terms())
