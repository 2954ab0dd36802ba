"""Objectives without densities, against closed forms and quadrature. Each has a mutant."""

import math
from dataclasses import replace
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from known_answers import GAUSSIAN_PAIRS
from torch import nn
from torch.nn.functional import softplus

from pyrogen import discrepancy
from pyrogen.data import GRID, RING
from pyrogen.discrepancy import RBF, energy_distance, mmd2, sliced_wasserstein2
from pyrogen.evaluation import mode_coverage
from pyrogen.inference import (
    DRAGAN,
    FGAN,
    GAN,
    MMDGAN,
    R1,
    WGAN,
    Drift,
    Interpolated,
    Sinkhorn,
    fgan,
    gan,
    penalties,
    train,
)

PAIRS = GAUSSIAN_PAIRS.TRUTHS
SMALL = [(1.0, 1.0), (0.0, 2.0)]
P = dist.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)


def normal(loc, scale):
    """A program without parameters: the second distribution of a pair."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_tensor(loc), scale), obs=x)

    return model


def log_ratio(x, pair):
    """log p(x) - log q(x)."""
    return P.log_prob(x) - dist.Normal(torch.tensor(pair[0], dtype=x.dtype), pair[1]).log_prob(x)


# The value of the game, and bounds of f-divergences


class Polynomial(nn.Module):
    """Scores a + b x + c x^2: the exact logit of two normal distributions is among them."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def forward(self, x):
        return torch.stack([torch.ones_like(x), x, x.square()], -1) @ self.weights


class Wavy(nn.Module):
    """A small network, for scores that are no polynomials."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)).double()

    def forward(self, x):
        return self.net(x[:, None])


def best_critic(objective, pair, rounds=40, size=20_000):
    """Train a critic on one sample, by L-BFGS; the program's draws are the same at each call."""
    model, x = normal(*pair), torch.randn(size, dtype=torch.float64)
    optimizer = torch.optim.LBFGS(objective.parameters(), max_iter=rounds, line_search_fn="strong_wolfe")

    def closure():
        torch.manual_seed(1)
        optimizer.zero_grad()
        loss = objective.critic_loss(model, None, x)
        loss.backward()
        return loss

    optimizer.step(closure)
    return -closure().detach()


def held_out(objective, pair, terms, size=400_000):
    """Return a value on other data, and its standard error, given the terms whose means it is the sum of."""
    x = torch.randn(size, dtype=torch.float64)
    loc, scale = pair
    with torch.no_grad():
        real, fake = (objective.scores([values]) for values in (x, loc + scale * torch.randn_like(x)))
        parts = terms(real, fake)
    return float(sum(part.mean() for part in parts)), float(sum(part.var() / size for part in parts) ** 0.5)


def gan_terms(real, fake):
    return -nn.functional.softplus(-real), -nn.functional.softplus(fake)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_games_value_at_the_best_critic(pair):
    """2 JSD - log 4; on data that the critic did not see, never above, and within .01 nat."""
    truth, objective = PAIRS[pair]["gan"], GAN(Polynomial())
    best_critic(objective, pair)
    value, error = held_out(objective, pair, gan_terms)
    assert truth - 0.01 < value < truth + 3 * error
    assert truth == pytest.approx(2 * PAIRS[pair]["js"] - math.log(4), abs=1e-9)


def test_mutant_labels_swapped(monkeypatch):
    game = gan.GAMES["non-saturating"]
    monkeypatch.setitem(gan.GAMES, "non-saturating", game._replace(real=game.fake, fake=game.real))
    with pytest.raises(AssertionError):
        test_the_games_value_at_the_best_critic((1.0, 1.0))


BEST = {  # the score whose activation is f'(r), given log r
    "kl": lambda r: 1 + r,
    "reverse-kl": lambda r: r,
    "js": lambda r: r,
    "pearson": lambda r: 2 * (r.exp() - 1),
    "squared-hellinger": lambda r: r / 2,
    "total-variation": lambda r: 1e6 * r,
}


@pytest.mark.parametrize("pair", SMALL)
@pytest.mark.parametrize("divergence", fgan.DIVERGENCES)
def test_bounds_are_tight_at_the_best_score(divergence, pair):
    """By quadrature: E_p g(V) - E_q f*(g(V)) at V = g^-1(f'(p / q)) is the divergence itself."""
    x = torch.linspace(-14, 14, 400_001, dtype=torch.float64)
    p = P.log_prob(x).exp()
    q = (P.log_prob(x) - log_ratio(x, pair)).exp()
    activation, conjugate = fgan.DIVERGENCES[divergence]
    score = BEST[divergence](log_ratio(x, pair))
    value = torch.trapezoid(p * activation(score) - q * conjugate(score), x)
    assert float(value) == pytest.approx(PAIRS[pair][divergence], abs=1e-5)


@pytest.mark.parametrize(
    ("divergence", "other"),
    [("kl", "reverse-kl"), ("squared-hellinger", "js"), ("pearson", "kl"), ("js", "reverse-kl")],
)
def test_mutant_wrong_conjugates(divergence, other, monkeypatch):
    """Of another divergence: a number, and a wrong one."""
    right = dict(fgan.DIVERGENCES)
    monkeypatch.setitem(fgan.DIVERGENCES, divergence, right[divergence]._replace(conjugate=right[other].conjugate))
    with pytest.raises(AssertionError, match=r"assert -?\d"):
        test_bounds_are_tight_at_the_best_score(divergence, (0.0, 2.0))


@pytest.mark.parametrize("divergence", fgan.DIVERGENCES)
def test_conjugates_of_activations_are_what_their_formulas_say(divergence):
    """As one function they keep what f* after g loses to rounding: finite, with gradients, at scores of 40."""
    formulas = {
        "kl": lambda t: torch.exp(t - 1),
        "reverse-kl": lambda t: -1 - torch.log(-t),
        "js": lambda t: -torch.log(2 - torch.exp(2 * t)) / 2,
        "pearson": lambda t: t.square() / 4 + t,
        "squared-hellinger": lambda t: t / (1 - 2 * t),
        "total-variation": lambda t: t,
    }
    activation, conjugate = fgan.DIVERGENCES[divergence]
    v = torch.linspace(-6, 6, 101, dtype=torch.float64)
    torch.testing.assert_close(conjugate(v), formulas[divergence](activation(v)))
    large = torch.tensor([-40.0, 40.0], requires_grad=True)
    (activation(large).sum() - conjugate(large).sum()).backward()
    assert large.grad.isfinite().all()
    assert conjugate(large).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("pair", SMALL)
@pytest.mark.parametrize("divergence", fgan.DIVERGENCES)
def test_trained_bounds(divergence, pair):
    """On other data: never above the truth by more than chance, and at least 90% of it (Pearson 80%)."""
    critic = Wavy() if divergence in ("pearson", "total-variation") else Polynomial()  # the others' best is in there
    objective, truth = FGAN(critic, divergence), PAIRS[pair][divergence]
    best_critic(objective, pair, rounds=60)
    activation, conjugate = fgan.DIVERGENCES[divergence]
    value, error = held_out(objective, pair, lambda r, f: (activation(r), -conjugate(f)))
    assert (0.8 if divergence == "pearson" else 0.9) * truth < value < truth + 3 * error


def test_mutant_the_value_on_the_critics_own_data():
    """A critic with room to learn a small sample by heart is above the truth on it, and not on other data."""
    pair, truth = (1.0, 1.0), PAIRS[1.0, 1.0]["gan"]
    objective = GAN(Wavy())
    seen = float(best_critic(objective, pair, rounds=200, size=60))
    value, error = held_out(objective, pair, gan_terms)
    assert seen > truth + 0.05
    assert value < truth + 3 * error


def at_quantiles(pair, size=20_001):
    """Points whose mean is an expectation: real, fake, and how probable it is that a point is real."""
    u = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    real = P.icdf(u)
    fake = pair[0] + pair[1] * real
    return real, fake, torch.sigmoid(log_ratio(real, pair)), torch.sigmoid(log_ratio(fake, pair))


BEST_SCORES = {  # given the probability that a point is real, and how many labels of data are turned
    "minimax": lambda real, turned: torch.logit((1 - turned) * real),
    "non-saturating": lambda real, turned: torch.logit((1 - turned) * real),
    "reverse-kl": lambda real, turned: torch.logit((1 - turned) * real),
    "least-squares": lambda real, turned: (1 - turned) * real,
    "hinge": lambda real, turned: (real - 0.5).sign(),
}


@pytest.mark.parametrize(
    ("game", "turned"), [*((game, 0.0) for game in gan.GAMES), ("non-saturating", 0.2), ("least-squares", 0.2)]
)
@pytest.mark.parametrize("pair", SMALL)
def test_the_best_scores_of_each_game(pair, game, turned):
    """The critic's loss is least there, and has the value of a divergence: JSD, a chi-squared one, total variation."""
    objective = GAN(Polynomial(), game, label_smoothing=turned)
    *_, of_real, of_fake = at_quantiles(pair)
    real, fake = (BEST_SCORES[game](probability, turned) for probability in (of_real, of_fake))
    least = float(objective.loss_of_critic(real, fake))
    for factor, shift in ((1.1, 0.0), (0.9, 0.0), (1.0, 0.1), (1.0, -0.1)):
        assert float(objective.loss_of_critic(factor * real + shift, factor * fake + shift)) > least
    truth = {
        "least-squares": float((1 - of_real).mean()) / 2,  # half the integral of p q / (p + q)
        "hinge": 2 * (1 - PAIRS[pair]["total-variation"]),
    }.get(game, -PAIRS[pair]["gan"])
    if not turned:
        assert least == pytest.approx(truth, abs=2e-3)


@pytest.mark.parametrize("game", gan.GAMES)
def test_programs_raise_scores(game):
    score = torch.linspace(-3.0, 0.9, 50, requires_grad=True)
    GAN(Polynomial(), game).loss_of_programs(score).backward()
    assert (score.grad < 0).all()


@pytest.mark.parametrize("game", gan.GAMES)
def test_mutant_draws_are_scored_as_data(game, monkeypatch):
    monkeypatch.setitem(gan.GAMES, game, gan.GAMES[game]._replace(fake=gan.GAMES[game].real))
    with pytest.raises(AssertionError):
        test_the_best_scores_of_each_game((1.0, 1.0), game, 0.0)


# Distances between samples


@pytest.mark.parametrize("pair", PAIRS)
def test_mmd_and_energy_in_closed_form(pair):
    """Unbiased estimates of 40 samples, within 4.5 standard errors of the mean."""
    loc, scale = pair
    found = {"mmd2": [], "energy": []}
    for _ in range(40):
        x, y = torch.randn(500, 1), loc + scale * torch.randn(500, 1)
        found["mmd2"].append(mmd2(x, y, RBF([1.0])))
        found["energy"].append(energy_distance(x, y))
    for name, values in found.items():
        values = torch.stack(values)
        assert abs(values.mean() - PAIRS[pair][name]) < 4.5 * values.std() / 40**0.5


def test_mutant_the_biased_estimate():
    """It is above zero where the distributions are equal; the unbiased one is not, and may be below."""
    pairs = [(torch.randn(50, 1), torch.randn(50, 1)) for _ in range(100)]
    unbiased, biased = (torch.stack([mmd2(x, y, RBF([1.0]), which) for x, y in pairs]) for which in (True, False))
    assert abs(unbiased.mean()) < 4.5 * unbiased.std() / 10
    assert (unbiased < 0).any()
    assert biased.mean() > 4.5 * biased.std() / 10


def test_mutant_squared_distances(monkeypatch):
    monkeypatch.setattr(discrepancy, "distances", discrepancy.squared_distances)
    with pytest.raises(AssertionError):
        test_mmd_and_energy_in_closed_form((1.0, 1.0))


def test_mutant_directions_of_any_length(monkeypatch):
    monkeypatch.setattr(discrepancy, "normalize", lambda directions, dim: directions)
    with pytest.raises(AssertionError):
        test_sliced_wasserstein_in_one_dimension((1.0, 1.0))


def test_mmd_gan_of_the_values_themselves():
    """A critic that changes nothing: the closed form, which the programs lower and the critic raises."""
    truth = PAIRS[1.0, 1.0]["mmd2"]
    objective, model = MMDGAN(nn.Flatten(), RBF([1.0]), transform=lambda x: x[:, None]), normal(1.0, 1.0)
    found = torch.stack([objective(model, None, torch.randn(500)) for _ in range(40)])
    assert abs(found.mean() - truth) < 4.5 * found.std() / 40**0.5
    x = torch.randn(500)
    torch.manual_seed(1)
    loss = objective(model, None, x)
    torch.manual_seed(1)
    torch.testing.assert_close(objective.critic_loss(model, None, x), -loss)


def test_mutant_the_root_of_the_discrepancy(monkeypatch):
    monkeypatch.setattr("pyrogen.inference.mmd.mmd2", lambda *args: mmd2(*args).relu().sqrt())
    with pytest.raises(AssertionError):
        test_mmd_gan_of_the_values_themselves()


def test_the_median_heuristic_is_of_the_data():
    x = torch.tensor([[0.0], [1.0], [3.0]])  # distances 1, 2, 3
    expected = mmd2(x, x + 5, RBF([2.0]))
    torch.testing.assert_close(mmd2(x, x + 5, RBF()), expected)


@pytest.mark.parametrize("pair", PAIRS)
def test_sliced_wasserstein_in_one_dimension(pair):
    """There it is the squared 2-Wasserstein distance of the sorted samples."""
    loc, scale = pair
    x, y = torch.randn(100_000, 1), loc + scale * torch.randn(100_000, 1)
    assert float(sliced_wasserstein2(x, y, 3)) == pytest.approx(PAIRS[pair]["w2_squared"], rel=0.02)


def test_sliced_wasserstein_of_a_shift():
    x = torch.randn(100, 5)
    shift = torch.tensor([1.0, 2.0, 0.0, 0.0, 2.0])
    assert float(sliced_wasserstein2(x, x + shift, 20_000)) == pytest.approx(9 / 5, rel=0.03)


def test_sinkhorn():
    """Nothing between a sample and itself; between a sample and its shift, the squared shift."""
    x = torch.randn(300, 2)

    def between(x, y, **settings):
        def model(x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Delta(y, event_dim=1), obs=x)

        return float(Sinkhorn(blur=0.5, scaling=0.9, **settings)(model, None, x))

    assert between(x, x) == pytest.approx(0.0, abs=1e-5)
    assert between(x, x + torch.tensor([1.0, 2.0])) == pytest.approx(5.0, rel=0.01)
    assert between(x, x + torch.tensor([1.0, 2.0]), diameter=20.0) == pytest.approx(5.0, rel=0.01)


def test_mutant_sinkhorn_without_its_debiasing(monkeypatch):
    geomloss = pytest.importorskip("geomloss")
    monkeypatch.setattr(geomloss, "SamplesLoss", partial(geomloss.SamplesLoss, debias=False))
    with pytest.raises(AssertionError):
        test_sinkhorn()


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5])
def test_gradients_of_the_energy_distance_are_finite_at_ties(beta):
    x = torch.zeros(4, 2, requires_grad=True)
    energy_distance(torch.zeros(3, 2), x, beta).backward()
    assert x.grad.isfinite().all()


# Penalties


def score_of(function):
    return lambda values: function(values[0])


def test_penalties_of_a_plane():
    """The gradient of w x is w, wherever: (|w| - 1)^2 and |w|^2 / 2, and their own gradients in w."""
    w = torch.tensor([3.0, 4.0], requires_grad=True)
    real, fake = [torch.randn(7, 2)], [torch.randn(7, 2)]
    for penalty, value, slope in [
        (Interpolated(2.0), 2 * 16.0, 2 * 2 * 4 / 5), (DRAGAN(2.0), 2 * 16.0, 2 * 2 * 4 / 5), (R1(2.0), 25.0, 2.0),
    ]:  # fmt: skip
        found = penalty(score_of(lambda x: x @ w), real, fake)
        assert float(found.detach()) == pytest.approx(value, rel=1e-4)
        (gradient,) = torch.autograd.grad(found, w)
        torch.testing.assert_close(gradient, slope * w.detach(), rtol=1e-4, atol=1e-5)


def test_where_penalties_look():
    """The gradient of x^2 / 2 is x: between data at one and draws at zero; at the data; near the data."""
    half_square = score_of(lambda x: x.square().sum(1) / 2)
    n = 200_000
    ones, zeros = [torch.ones(n, 1)], [torch.zeros(n, 1)]
    assert float(Interpolated(1.0)(half_square, ones, zeros)) == pytest.approx(1 / 3, rel=0.01)
    assert float(R1(1.0)(half_square, ones, zeros)) == pytest.approx(0.5)
    real = [torch.randn(n, 1) + 10]
    # 10 + e + c d with c = .5 std(e): the mean of (. - 1)^2 is 9^2 + 1 + c^2
    assert float(DRAGAN(1.0)(half_square, real, zeros)) == pytest.approx(81 + 1 + 0.25, rel=0.002)
    assert float(replace(DRAGAN(1.0), spread=2.0)(half_square, real, zeros)) == pytest.approx(81 + 1 + 4, rel=0.005)


def test_drift():
    """The mean of squared scores of the data; a critic may mix them, since no gradient is taken."""
    real, fake = [torch.tensor([[1.0], [3.0]])], [torch.zeros(2, 1)]
    assert float(Drift(0.1)(score_of(lambda x: x[:, 0]), real, fake)) == pytest.approx(0.5)
    Drift().check(torch.nn.BatchNorm1d(1))


def test_penalties_take_the_gradient_of_all_sites_together():
    values = [torch.zeros(5, 2), torch.zeros(5, 3)]
    found = R1(2.0)(lambda v: 3 * v[0][:, 0] + 4 * v[1][:, 0], values, values)
    assert float(found) == pytest.approx(25.0)


def test_mutant_the_gradient_of_a_mean(monkeypatch):
    """A score averaged before it is differentiated: a batch of seven has a seventh of the gradient."""
    mean = lambda score, at: penalties_squared(lambda v: score(v) / len(at[0]), at)  # noqa: E731
    penalties_squared = penalties._squared_norms
    monkeypatch.setattr(penalties, "_squared_norms", mean)
    with pytest.raises(AssertionError):
        test_penalties_of_a_plane()


# Dynamics


class Line(nn.Module):
    """The generator of the parallel lines: (theta, u)."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Uniform(x.new_zeros(()), 1.0))
            fake = torch.stack([self.theta.expand(len(x)), u], -1)
            pyro.sample("x", dist.Delta(fake, event_dim=1), obs=x)


def arrives(game, penalties=(), rounds=300):
    """Where the generator is, by plain gradient descent against a critic that is nearly the best at each step."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    batches = [torch.stack([torch.zeros(128), torch.rand(128)], -1) for _ in range(20)]
    model = Line()
    objective = GAN(critic, game, penalties)
    first = torch.optim.Adam(critic.parameters(), lr=1e-3)
    for i in range(1000):
        first.zero_grad()
        objective.critic_loss(model, None, batches[i % 20]).backward()
        first.step()
    training = train(
        objective, model, None, batches, torch.optim.SGD(model.parameters(), lr=0.02),
        torch.optim.Adam(critic.parameters(), lr=1e-3), steps=(1, 5), num_steps=rounds,
    )  # fmt: skip
    return any(abs(model.theta) < 0.05 for _ in training)


def test_the_wasserstein_distance_by_a_penalised_critic():
    """Between N(0, 1) and N(1, 1) it is 1: a critic of slope one gives it."""
    critic = nn.Sequential(nn.Linear(1, 32), nn.Softplus(), nn.Linear(32, 1))
    objective = WGAN(critic, [Interpolated(20.0)], transform=lambda x: x[:, None])
    optimizer, model = torch.optim.Adam(critic.parameters(), lr=5e-3), normal(1.0, 1.0)
    for _ in range(500):
        optimizer.zero_grad()
        objective.critic_loss(model, None, torch.randn(512)).backward()
        optimizer.step()
    with torch.no_grad():
        value = WGAN(critic, transform=objective.transform).critic_loss(model, None, torch.randn(100_000))
    assert float(-value) == pytest.approx(1.0, abs=0.06)


@pytest.mark.slow
def test_parallel_lines():
    """Where the critic is sure, minimax has no gradient left; the non-saturating game has."""
    assert arrives("non-saturating")
    assert arrives("non-saturating", [Interpolated(0.1)])
    assert not arrives("minimax")


@pytest.mark.slow
def test_mutant_the_generator_lowers_what_it_should_raise(monkeypatch):
    monkeypatch.setitem(gan.GAMES, "non-saturating", gan.GAMES["minimax"])
    with pytest.raises(AssertionError):
        test_parallel_lines()


# Modes


@pytest.mark.parametrize("modes", [RING, GRID])
def test_coverage_of_the_mixture_itself(modes):
    """All modes; 1 - exp(-9/2) within three standard deviations; shares and widths as chance has them."""
    draws, labels = modes.sample(100_000)
    found = mode_coverage(draws, torch.tensor(modes.centres), modes.sd)
    assert found.modes == len(modes.centres)
    assert found.high_quality == pytest.approx(1 - math.exp(-4.5), abs=4.5 * (0.011 / 100_000) ** 0.5)
    assert found.kl < 10 * len(modes.centres) / 200_000  # (K - 1) / 2N on average
    assert found.spread == pytest.approx(1.0, abs=0.02)
    assert len(labels.unique()) == len(modes.centres)


def test_mutants_of_the_mixture_are_caught():
    """A mode less, uneven modes, narrow modes and a generator that draws one point: each figure has its own."""
    centres = torch.tensor(GRID.centres)
    draws, labels = GRID.sample(100_000)
    assert mode_coverage(draws[labels > 0], centres, GRID.sd).modes == 24
    kept = (labels < 12) | (torch.rand(len(labels)) < 0.25)
    assert mode_coverage(draws[kept], centres, GRID.sd).kl > 0.1
    narrow = centres[labels] + 0.4 * (draws - centres[labels])
    found = mode_coverage(narrow, centres, GRID.sd)
    assert found.high_quality > 0.995
    assert found.spread < 0.5
    one = mode_coverage(centres[:1].expand(2500, 2), centres, GRID.sd)
    assert (one.modes, one.kl) == (1, pytest.approx(math.log(25)))
    assert mode_coverage(draws + 1, centres, GRID.sd).high_quality < 0.01


class Counting(torch.nn.Module):
    """A critic that counts its calls."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Softplus(), torch.nn.Linear(8, 1))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.net(x)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_a_penalty_at_the_data_shares_their_scores(weight):
    """The loss and its gradient are those of the definition, and the critic sees data and draws once each."""
    torch.manual_seed(0)
    critic, x = Counting(), torch.randn(9, 2)

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(2), 1.0).to_event(1), obs=x)

    learner = GAN(critic, penalties=[R1(weight)])
    torch.manual_seed(1)
    found = torch.autograd.grad(learner.critic_loss(model, None, x), critic.parameters(), allow_unused=True)
    assert critic.calls == 2
    torch.manual_seed(1)
    fake, real = torch.randn(9, 2), x.clone().requires_grad_()
    scores = critic(real)
    (slope,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
    by_hand = softplus(-scores).mean() + softplus(critic(fake)).mean() + weight / 2 * slope.square().sum(1).mean()
    torch.testing.assert_close(found, torch.autograd.grad(by_hand, critic.parameters()))


def test_mutant_a_penalty_that_passes_no_gradient_on(monkeypatch):
    gradients = penalties.Scores.gradients
    detached = lambda self, values: tuple(g.detach() for g in gradients(self, values))  # noqa: E731
    monkeypatch.setattr(penalties.Scores, "gradients", detached)
    with pytest.raises(AssertionError):
        test_a_penalty_at_the_data_shares_their_scores(0.7)
