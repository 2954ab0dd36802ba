"""Held to the truth: annealing, against enumerated partition functions, closed-form evidence and unbiasedness."""

from math import e, log, pi

import pyro
import pyro.distributions as dist
import pytest
import torch
from known_answers import BOLTZMANN_TRUTH, CONJUGATE_TRUTH, ISING_TRUTH, PPCA_TRUTH
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from pyrogen.distributions import Implicit
from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation import ais, bdmc, evaluating, smc, with_noise
from pyrogen.evaluation.annealing import anneal, anneal_back, log_mean_exp, sigmoid_schedule
from pyrogen.evaluation.hamiltonian import Hamiltonian, tuned
from pyrogen.evaluation.latents import Latents

W, MU, VARIANCE = PPCA_TRUTH.W, PPCA_TRUTH.mu, PPCA_TRUTH.sigma2
X, LOG_P = PPCA_TRUTH.X, PPCA_TRUTH.log_p_x


@pytest.fixture(autouse=True)
def _double(double):
    pyro.set_rng_seed(0)


def ppca(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        mean = (W * z.unsqueeze(-2)).sum(-1) + MU
        pyro.sample("x", dist.Normal(mean, VARIANCE**0.5).to_event(1), obs=x)


def posterior_of(x: Tensor) -> dist.MultivariateNormal:
    inverse = torch.linalg.inv(W.T @ W + VARIANCE * torch.eye(2))
    return dist.MultivariateNormal((x - MU) @ W @ inverse, VARIANCE * inverse)


def posterior(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", posterior_of(x))


# Discrete states, moved by Gibbs sampling


class Ising:
    """Spins on an open 4 x 4 lattice, from independence to a coupling J; sites of one colour are drawn at once."""

    def __init__(self, coupling: float) -> None:
        row, column = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        distance = (row.reshape(-1, 1) - row.reshape(-1)).abs() + (column.reshape(-1, 1) - column.reshape(-1)).abs()
        self.bonds, self.coupling = (distance == 1).double(), coupling
        self.is_black = ((row + column) % 2 == 0).reshape(-1)

    def log_ratio(self, state: Tensor) -> Tensor:
        return self.coupling * ((state @ self.bonds) * state).sum(-1) / 2

    def move(self, state: Tensor, beta: float, step: int) -> Tensor:
        for colour in (self.is_black, ~self.is_black):
            up = torch.sigmoid(2 * beta * self.coupling * (state @ self.bonds))
            state = torch.where(colour, 2 * torch.bernoulli(up) - 1, state)
        return state

    def select(self, state: Tensor, chains: Tensor) -> Tensor:
        return state[chains]


@pytest.mark.parametrize("coupling", ISING_TRUTH.LOG_Z)
@pytest.mark.parametrize("resample_below", [0.0, 0.5])
def test_partition_function_of_ising(coupling, resample_below):
    start = 2.0 * torch.randint(2, (500, 16)) - 1
    log_w, _ = anneal(Ising(coupling), start.double(), sigmoid_schedule(300), resample_below)
    assert log_w.dtype == torch.float64
    found = float(log_mean_exp(log_w)) + 16 * log(2)
    assert found == pytest.approx(ISING_TRUTH.LOG_Z[coupling], abs=0.05)


class Machine:
    """A restricted Boltzmann machine of 16 visible units and 4 hidden ones, summed out, from its biases alone."""

    def __init__(self) -> None:
        self.weights = BOLTZMANN_TRUTH.weights
        self.visible, self.hidden = BOLTZMANN_TRUTH.visible, BOLTZMANN_TRUTH.hidden

    def log_ratio(self, state: Tensor) -> Tensor:
        return torch.nn.functional.softplus(state @ self.weights + self.hidden).sum(-1) - self.start()

    def start(self) -> Tensor:
        return torch.nn.functional.softplus(self.hidden).sum()

    def move(self, state: Tensor, beta: float, step: int) -> Tensor:
        """Draw units one by one: with powers of a sum over hidden units there is no block to draw."""
        for i in range(16):
            on, off = state.clone(), state.clone()
            on[:, i], off[:, i] = 1.0, 0.0
            logit = self.visible[i] + beta * (self.log_ratio(on) - self.log_ratio(off))
            state = torch.where(torch.bernoulli(torch.sigmoid(logit))[:, None] > 0, on, off)
        return state

    def select(self, state: Tensor, chains: Tensor) -> Tensor:
        return state[chains]


def test_partition_function_of_a_boltzmann_machine():
    machine = Machine()
    start = torch.bernoulli(torch.sigmoid(machine.visible).expand(300, 16))
    log_w, end = anneal(machine, start, sigmoid_schedule(60))
    log_z0 = torch.nn.functional.softplus(machine.visible).sum() + machine.start()
    assert float(log_mean_exp(log_w) + log_z0) == pytest.approx(BOLTZMANN_TRUTH.log_z, abs=0.05)
    weighted = (log_w.softmax(0)[:, None] * end).sum(0)
    assert (weighted - BOLTZMANN_TRUTH.E_v).abs().max() < 0.12


# Programs, moved by Hamiltonian dynamics


def short_path(model, x: Tensor, num_chains: int, num_steps: int) -> tuple[Hamiltonian, list[float]]:
    betas = sigmoid_schedule(num_steps)
    latents = Latents(model, None, {"x": x}, num_chains)
    return Hamiltonian(latents, torch.full((num_steps, len(x)), 0.4), num_leapfrog=2), betas


@pytest.mark.slow
def test_weights_are_unbiased_however_short_the_path():
    r"""E[w] = p(x), and E[w] = 1 / p(x) of chains back; a weight after its move, or one move too few, is neither."""
    x, log_p = X[:1], LOG_P[0]
    with evaluating():
        path, betas = short_path(ppca, x, 40_000, 30)
        forth = (anneal(path, path.latents.draw(), betas)[0] - log_p).exp()
        back = (anneal_back(path, {"z": posterior_of(x).sample((40_000,))}, betas) + log_p).exp()
    for weights in (forth, back):
        error = float(weights.std() / len(weights) ** 0.5)
        assert error < 0.02
        assert float(weights.mean()) == pytest.approx(1.0, abs=4 * error)


def test_resampled_weights_are_unbiased():
    x, log_p = X[:1].expand(2000, 5), LOG_P[0]
    with evaluating():
        path, betas = short_path(ppca, x, 8, 6)
        log_w, _ = anneal(path, path.latents.draw(), betas, resample_below=0.5)
    ratios = (log_mean_exp(log_w) - log_p).exp()
    error = float(ratios.std() / len(ratios) ** 0.5)
    assert error < 0.02
    assert float(ratios.mean()) == pytest.approx(1.0, abs=4 * error)


def test_moves_keep_the_density():
    """Exact draws of the posterior are exact draws after ten moves, also with steps that are too large to be right."""
    x = X[:2]
    with evaluating():
        path, _ = short_path(ppca, x, 20_000, 1)
        path.step_sizes.fill_(0.55)
        state, rejected = {"z": posterior_of(x).sample((20_000,))}, 0.0
        for _ in range(10):
            state = path.move(state, 1.0, 1)
            rejected += float((~path.accepted).double().mean()) / 10
    assert 0.1 < rejected < 0.9
    white = torch.linalg.solve_triangular(
        posterior_of(x).scale_tril, (state["z"] - posterior_of(x).mean).unsqueeze(-1), upper=False
    ).squeeze(-1)
    assert white.mean((0,)).abs().max() < 4 / 20_000**0.5
    assert (white.var(0) - 1).abs().max() < 4 * (2 / 20_000) ** 0.5


def test_an_exact_start_gives_the_exact_evidence():
    """Every weight is p(x), after two steps as after two thousand."""
    found = ais(ppca, [{"x": X}], posterior, num_steps=2, num_chains=3, num_leapfrog=2)
    assert found.value == pytest.approx(float(LOG_P.mean()), abs=1e-9)
    assert found.stderr == pytest.approx(float(LOG_P.std() / len(LOG_P) ** 0.5), abs=1e-9)
    sandwich = bdmc(ppca, [{"x": X}], posterior, num_steps=2, num_chains=3, num_leapfrog=2)
    assert abs(sandwich.gap.value) < 1e-9


@pytest.mark.slow
def test_ppca_is_sandwiched():
    """From the prior; the way back starts at exact draws of the posterior, since these data were not simulated."""
    x, count = X[:1], 100
    gaps = {}
    for num_steps in (50, 1000):
        with evaluating():
            latents = Latents(ppca, None, {"x": x}, count)
            betas = sigmoid_schedule(num_steps)
            path = tuned(latents, betas, 2)
            forth = anneal(path, latents.draw(), betas)[0]
            back = -anneal_back(path, {"z": posterior_of(x).sample((count,))}, betas)
        for bound, sign in ((forth, -1), (back, 1)):
            error = float(bound.std() / count**0.5)
            assert sign * (float(bound.mean()) - float(LOG_P[0])) > -3 * error
        # Mean log-weights, of single chains: the least chance of luck.
        gaps[num_steps] = float(back.mean() - forth.mean())
    assert gaps[1000] < 0.1 < gaps[50]


def test_simulated_data_are_sandwiched():
    x = torch.zeros(200, 5)
    sandwich = bdmc(ppca, [{"x": x}], num_steps=60, num_chains=8, num_leapfrog=2)
    assert 0 < sandwich.gap.value < 1
    assert sandwich.gap.value > 2 * sandwich.gap.stderr
    # The mean of log p(x) over data of the model is minus its entropy.
    covariance = W @ W.T + VARIANCE * torch.eye(5)
    entropy = float(dist.MultivariateNormal(torch.zeros(5), covariance).entropy())
    assert sandwich.lower.value - 3 * sandwich.lower.stderr < -entropy
    assert sandwich.upper.value + 3 * sandwich.upper.stderr > -entropy


def test_too_short_a_path_has_loose_bounds_and_no_wrong_ones():
    """The way back begins at the latents that data were made of: from anywhere else the upper bound is none."""
    sandwich = bdmc(ppca, [{"x": torch.zeros(500, 5)}], num_steps=2, num_chains=2, num_leapfrog=1)
    entropy = float(dist.MultivariateNormal(torch.zeros(5), W @ W.T + VARIANCE * torch.eye(5)).entropy())
    assert sandwich.lower.value + 3 * sandwich.lower.stderr < -entropy
    assert sandwich.upper.value - 3 * sandwich.upper.stderr > -entropy


def test_more_chains_close_the_gap():
    batch = {"x": torch.zeros(100, 5)}
    gaps = []
    for num_chains in (2, 64):
        pyro.set_rng_seed(0)
        gaps.append(bdmc(ppca, [batch], num_steps=30, num_chains=num_chains, num_leapfrog=2).gap.value)
    assert gaps[1] < 0.5 * gaps[0]


@pytest.mark.slow
@pytest.mark.parametrize("estimate", [ais, smc])
def test_estimates_of_ppca(estimate):
    found = estimate(ppca, [{"x": X[:3]}, {"x": X[3:]}], num_steps=60, num_chains=64, num_leapfrog=3)
    assert found.value == pytest.approx(float(LOG_P.mean()), abs=0.1)
    assert (found.unit, found.num_particles) == ("nats", 64)


def test_latents_within_bounds():
    """Ten coins of a Beta-distributed bias and counts at a gamma-distributed rate: evidence in closed form."""

    def model(x, y):
        with pyro.plate("data", len(x)):
            bias = pyro.sample("bias", dist.Beta(2.0, 3.0))
            rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
            pyro.sample("x", dist.Binomial(10, bias), obs=x)
            pyro.sample("y", dist.Poisson(rate), obs=y)

    x, y = torch.tensor([0.0, 4.0, 10.0]), torch.tensor([3.0, 0.0, 7.0])
    exact = dist.BetaBinomial(2.0, 3.0, 10).log_prob(x) + dist.GammaPoisson(2.0, 1.0).log_prob(y)
    found = ais(model, [{"x": x, "y": y}], num_steps=60, num_chains=300, num_leapfrog=3)
    assert found.value == pytest.approx(float(exact.mean()), abs=0.05)


def test_an_implicit_model_is_observed_under_noise():
    """A linear one is PPCA."""

    def pushed(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            mean = (W * z.unsqueeze(-2)).sum(-1) + MU
            fn = Implicit(lambda shape: mean.expand(*shape, 5), event_shape=(5,), batch_shape=mean.shape[:-1])
            pyro.sample("x", fn, obs=x)

    found = ais(with_noise(pushed, VARIANCE**0.5), [{"x": X}], num_steps=60, num_chains=64, num_leapfrog=3)
    assert found.value == pytest.approx(float(LOG_P.mean()), abs=0.1)
    sandwich = bdmc(with_noise(pushed, VARIANCE**0.5), [{"x": X}], posterior, num_steps=2, num_chains=3, num_leapfrog=2)
    assert abs(sandwich.gap.value) < 1e-9
    with pytest.raises(UsageError, match="positive scale"):
        with_noise(pushed, 0.0)
    with pytest.raises(ProgramError, match="no implicit site"):
        with_noise(ppca, 1.0)(X)


def test_moves_within_bounds_keep_the_density():
    """What stretches where bounds are taken away belongs to the density."""

    def model(x):
        with pyro.plate("data", len(x)):
            bias = pyro.sample("bias", dist.Beta(2.0, 3.0).expand([3]).to_event(1))
            pyro.sample("x", dist.Binomial(10, bias.mean(-1)), obs=x)

    with evaluating():
        path, _ = short_path(model, torch.zeros(1), 20_000, 1)
        state = path.latents.draw()
        for _ in range(10):
            state = path.move(state, 0.0, 1)
    bias = torch.sigmoid(state["bias"])
    assert float(path.accepted.double().mean()) > 0.5
    assert (bias.mean((0, 1)) - 0.4).abs().max() < 4 * (0.04 / 20_000) ** 0.5
    assert (bias.var(0) - 0.04).abs().max() < 0.04 * 4 * (2 / 20_000) ** 0.5


def test_a_batch_is_not_scaled_to_all_data():
    def model(x):
        with pyro.plate("data", 600, subsample=x):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal((W * z.unsqueeze(-2)).sum(-1) + MU, VARIANCE**0.5).to_event(1), obs=x)

    found = ais(model, [{"x": X}], num_steps=60, num_chains=64, num_leapfrog=3)
    assert found.value == pytest.approx(float(LOG_P.mean()), abs=0.1)


def test_discrete_latents_are_summed_out():
    """A mixture of two normal distributions whose means are latent, too: each datum has its own."""

    def model(x):
        with pyro.plate("data", len(x)):
            mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
            sign = pyro.sample("sign", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(mean + 6 * sign, 1.0), obs=x)

    x = torch.tensor([-1.0, 3.0, 7.0])
    mixture = dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([0.7, 0.3])), dist.Normal(torch.tensor([0.0, 6.0]), 5**0.5)
    )
    found = ais(model, [{"x": x}], num_steps=100, num_chains=200, num_leapfrog=3)
    assert found.value == pytest.approx(float(mixture.log_prob(x).mean()), abs=0.05)


def test_a_latent_that_all_data_share_makes_one_datum():
    def model(y):
        theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(theta, 1.0), obs=y)

    found = ais(model, [{"y": CONJUGATE_TRUTH.y}], num_steps=60, num_chains=200, num_leapfrog=3)
    assert found.value == pytest.approx(CONJUGATE_TRUTH.log_evidence, abs=0.05)
    with pytest.raises(ProgramError, match="Pass them all at once"):
        ais(model, [{"y": CONJUGATE_TRUTH.y[:3]}, {"y": CONJUGATE_TRUTH.y[3:]}], num_steps=2)


def bounded_by_another(x):
    with pyro.plate("data", len(x)):
        s = pyro.sample("s", dist.Uniform(1.0, 5.0))
        z = pyro.sample("z", dist.Uniform(torch.zeros(()), s))
        pyro.sample("x", dist.Normal(z, 0.1), obs=x)


def of_drawn_data(x):
    with pyro.plate("data", len(x), subsample_size=2) as i:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[i])


def of_part_of_the_data(x):
    theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 600, subsample=x):
        pyro.sample("x", dist.Normal(theta, 1.0), obs=x)


def of_cells(x):
    with pyro.plate("rows", len(x), dim=-2), pyro.plate("columns", 5, dim=-1):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize(
    ("model", "x", "says"),
    [
        (bounded_by_another, torch.ones(3), "'z' has bounds that depend on another"),
        (of_drawn_data, torch.tensor([-6.0, 6.0, 0.0, 3.0]), "plate 'data' draws which data"),
        (of_part_of_the_data, torch.zeros(3), "some sites are scaled"),
        (of_cells, torch.zeros(4, 5), "20 problems of 4 data"),
    ],
)
def test_a_figure_that_would_be_wrong_is_refused(model, x, says):
    with pytest.raises(ProgramError, match=says):
        ais(model, [{"x": x.double()}], num_steps=2, num_chains=4)


def normal(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def with_a_point(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(x))


def within_bounds(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Uniform(torch.zeros_like(x), 1.0))


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (with_a_point, "'z' of the start is a point"),
        (within_bounds, "is within Real.* and within Interval"),
        (AutoNormal(normal), "of the start is a point, or noise"),
    ],
)
def test_a_start_that_does_not_reach_all_is_refused(start, says):
    with pytest.raises(ProgramError, match=says):
        ais(normal, [{"x": torch.zeros(2)}], start, num_steps=2)


def factored(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("f", -50 * (z - 3) ** 2)
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def also_given(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        pyro.sample("y", dist.Normal(z, 0.1), obs=torch.full_like(x, 2.0))


def forced(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        before = torch.nn.functional.pad(x[:, :-1], (1, 0))
        pyro.sample("x", dist.Normal(z.unsqueeze(-1) + before, 1.0).to_event(1), obs=x)


@pytest.mark.parametrize(
    ("model", "x", "says"),
    [
        (factored, torch.zeros(3), "pyro.factor"),
        (also_given, torch.zeros(3), "'y' are not simulated"),
        (forced, torch.zeros(3, 4), "'x' are not simulated"),
    ],
)
def test_bounds_from_above_of_what_is_not_simulated_are_refused(model, x, says):
    with pytest.raises(ProgramError, match=says):
        bdmc(model, [{"x": x}], num_steps=2, num_chains=2)


def test_a_covariate_that_happens_to_equal_the_data_is_kept():
    def model(x, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + c, 1.0), obs=x)

    columns = {"x": torch.zeros(2000), "c": torch.zeros(2000)}
    found = bdmc(model, [columns], num_steps=30, num_chains=8, num_leapfrog=2)
    entropy = 0.5 * log(2 * pi * e * 2)
    assert found.lower.value - 3 * found.lower.stderr < -entropy < found.upper.value + 3 * found.upper.stderr


def test_what_cannot_be_annealed_is_refused():
    def coin(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def known_all(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    with pytest.raises(ProgramError, match="site 'z' is discrete"):
        ais(coin, [{"x": torch.zeros(2)}], num_steps=2)

    def of_components(x):
        with pyro.plate("data", len(x)):
            which = pyro.sample("which", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(which, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ProgramError, match="'z' depends on one that is enumerated"):
        ais(of_components, [{"x": torch.zeros(2)}], num_steps=2)
    with pytest.raises(ProgramError, match="no latent site"):
        ais(known_all, [{"x": torch.zeros(2)}], num_steps=2)
    with pytest.raises(UsageError, match="at least one step, two chains"):
        smc(ppca, [{"x": X}], num_steps=2, num_chains=1)
