"""Planning held to posteriors by quadrature and to Riccati recursions; plans that go on; environments acted in."""

import math
import runpy
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyrogen.data import GymnasiumEnvironment, Outcome, Rollouts
from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation import posterior_regulator, variational_regulator
from pyrogen.lqg import LinearQuadratic
from pyrogen.models import CEM, MPPI, Planner, Policy, UniformBox

double = pytest.mark.usefixtures("double")
ALPHA, SIGMA, H, START = 0.7, 0.8, 3, 1.5
EXAMPLE = Path(__file__).parent.parent / "examples" / "planning.py"
LINE = LinearQuadratic(*(torch.tensor([[x]], dtype=torch.float64) for x in (1.1, 0.8, 0.9, 0.5, 0.4)))


class NormalPrior(Policy):
    """Any action near zero."""

    def distribution(self, observation):
        return dist.Normal(torch.zeros(1, dtype=observation.dtype), math.sqrt(SIGMA)).to_event(1)


def line(noise=0.0):
    """The world of ``LINE``, with its noise or without."""

    def world(s, a):
        after = 1.1 * s + 0.8 * a
        if noise:
            after = pyro.sample("next_observation", dist.Normal(after, noise).to_event(1))
        return after, -0.5 * (0.9 * s.square() + 0.5 * a.square()).sum(-1)

    return world


def first_actions(planner, environments):
    return planner(torch.full((1, environments, 1), START))[0, :, 0]


def errors(make, truth, environments=200):
    """The root of the mean squared error of first actions, of environments that are planned for by themselves."""
    return (first_actions(make(environments), environments) - truth).square().mean().sqrt()


def close(found, truth, bias):
    """A mean over environments is right, by its standard error and a bias of the order of one over the samples."""
    assert abs(found.mean() - truth) < 4.5 * found.std() / math.sqrt(len(found)) + bias


# Weights: the posterior, whatever the proposal


def bandit(s, a):
    return s, (a - 2 * (a - 0.5) ** 2)[..., 0]


def posterior_mean():
    """Of u, where a = tanh u is uniform before the reward is known."""
    u = torch.linspace(-8, 8, 20_001)
    weight = torch.cosh(u) ** -2 * (bandit(u, u.tanh()[:, None])[1] / ALPHA).exp()
    return (weight * u).sum() / weight.sum()


def check_weights(method=MPPI, shift=0.6, scale=0.8):
    environments, samples = 400, 1000
    planner = method(bandit, 1, temperature=ALPHA, horizon=1, num_samples=samples, num_environments=environments,
                     scale=scale)  # fmt: skip
    planner.plan += shift
    close(first_actions(planner, environments).atanh(), posterior_mean(), 5 / samples)


@double
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.6, 0.8), (-0.3, 1.2)])
def test_weights_undo_the_proposal(shift, scale):
    check_weights(shift=shift, scale=scale)


# The Riccati recursion


def mppi(environments, samples, **settings):
    settings = {"world": line(), "temperature": ALPHA, "horizon": H} | settings
    return MPPI(num_dims=1, prior=NormalPrior(), num_samples=samples, num_environments=environments, bounded=False,
                **settings)  # fmt: skip


def regulated(solve, **settings):
    settings = {"temperature": ALPHA, "horizon": H} | settings
    return -START * solve(LINE, torch.tensor([[SIGMA]]), **settings).gains[0, 0, 0]


@double
def test_path_integrals_come_to_the_riccati_action():
    """With sixteen times the samples, a quarter of the error."""
    truth = regulated(variational_regulator)
    few, many = (errors(lambda e, n=n: mppi(e, n), truth) for n in (250, 4000))
    assert 0.15 < many / few < 0.4
    close(first_actions(mppi(200, 4000), 200), truth, 5 / 4000)


@double
def test_iterations_bring_the_proposal_nearer():
    """Drawn around a plan that is good already, as many samples tell more."""
    truth = regulated(variational_regulator)
    once, thrice = (errors(lambda e, n=n: mppi(e, 250, num_iterations=n, scale=0.7), truth) for n in (1, 3))
    assert thrice < 0.7 * once


@double
def test_cross_entropy_comes_to_the_riccati_action():
    """The best plan, and no posterior mean: the action at temperature zero."""
    truth = -START * variational_regulator(LINE, horizon=H).gains[0, 0, 0]

    def cem(environments, samples):
        return CEM(line(), 1, horizon=H, num_samples=samples, num_environments=environments, num_iterations=6,
                   min_scale=1e-3, bounded=False)  # fmt: skip

    few, many = (errors(lambda e, n=n: cem(e, n), truth) for n in (50, 800))
    assert many < 0.4 * few
    assert many < 0.01


@double
def test_two_quantities_in_a_world_of_chance():
    """Plans that are tried once have the exact posterior's action, which hopes for luck; tried often, the regulator's.

    The mean return of a plan is that without noise but for a constant: certainty equivalence.
    """
    lucky, sober = regulated(posterior_regulator), regulated(variational_regulator)
    noise = math.sqrt(0.4)
    assert abs(lucky - sober) > 0.1
    once = first_actions(mppi(300, 1000, world=line(noise)), 300)
    close(once, lucky, 5 / 1000)
    often = first_actions(mppi(50, 300, world=line(noise), num_futures=40), 50)
    close(often, sober, 5 / 300 + abs(lucky - sober) / 40)  # of n futures, a mean has the n-th part of the luck
    with pytest.raises(AssertionError):
        close(once, sober, 5 / 1000)


def test_cross_entropy_at_the_end_of_the_box():
    """Where all of the best plans are at the end, there is still a deviation to draw by."""
    planner = CEM(lambda s, a: (s, a[..., 0]), 1, horizon=2, num_environments=3)
    for _ in range(10):
        action = planner(torch.zeros(1, 3, 1))
    assert (action > 0.99).all()


# Plans that go on


def test_warm_start():
    """The next plan begins with this one's second step; the step that is new has nothing to go by."""
    planner = MPPI(lambda s, a: (s, torch.zeros(a.shape[:-1])), 2, horizon=3, num_environments=4, scale=1e-4)
    planner.plan.copy_(before := torch.randn(3, 4, 2))
    action = planner(torch.zeros(1, 4, 1))
    torch.testing.assert_close(action, before[:1].tanh(), atol=1e-2, rtol=0)
    torch.testing.assert_close(planner.plan, torch.cat([before[1:], torch.zeros(1, 4, 2)]), atol=1e-2, rtol=0)


@pytest.mark.parametrize("method", [MPPI, CEM])
def test_plans_are_saved(method):
    """From a saved plan and seed, the same action."""
    planner, other = (method(bandit, 1, horizon=2, num_samples=50) for _ in range(2))
    planner(torch.zeros(1, 1, 1))
    other.load_state_dict(planner.state_dict())
    found = []
    for each in (planner, other):
        pyro.set_rng_seed(1)
        found.append(each(torch.zeros(1, 1, 1)))
    torch.testing.assert_close(*found, atol=0, rtol=0)


class Walk:
    """Walk to where the others are not: a line, on which environments begin in different places."""

    num_environments = 3

    def reset(self):
        self.place = torch.tensor([[2.0], [-2.0], [0.5]])
        return self.place

    def step(self, action):
        self.place = self.place + action
        ends = torch.zeros(3, dtype=torch.bool)
        return Outcome(-self.place.square().sum(-1), self.place, ends, ends, self.place)


class Learned(nn.Module):
    """A model of the walk that draws, as a program with a parameter."""

    def __init__(self):
        super().__init__()
        self.step = nn.Parameter(torch.tensor(1.0))

    def forward(self, place, action):
        after = pyro.sample("next_observation", dist.Normal(place + self.step * action, 0.01).to_event(1))
        return after, -after.square().sum(-1)


@pytest.mark.parametrize(
    "planner",
    [
        lambda: MPPI(Learned(), 1, horizon=4, temperature=0.3, num_environments=3, num_iterations=2),
        lambda: CEM(Learned(), 1, horizon=4, num_environments=3, num_futures=2),
    ],
    ids=["mppi", "cem"],
)
def test_acts_in_environments(planner):
    """A planner is the policy of a recording; each environment has a plan of its own, and all walk to zero."""
    recording = next(iter(Rollouts(Walk(), planner(), num_steps=6)))
    assert recording["action"].shape == (6, 3, 1)
    assert (recording["action"].abs() < 1).all()
    assert (recording["log_prob"] == 0).all()
    assert (recording["action"][0].sign().flatten() == torch.tensor([-1.0, 1.0, -1.0])).all()
    assert (recording["next_observation"][-1].abs() < 0.15).all()
    assert not recording["action"].requires_grad


# The pendulum of gymnasium, by the example's model of it


def example(monkeypatch, capsys, steps):
    monkeypatch.setattr("sys.argv", ["planning.py", "--steps", str(steps)])
    names = runpy.run_path(str(EXAMPLE), run_name="__main__")
    return names["pendulum"], float(capsys.readouterr().out.split()[1])


def test_the_model_of_the_pendulum_is_true(monkeypatch, capsys):
    pendulum, _ = example(monkeypatch, capsys, 1)
    recording = next(iter(Rollouts(GymnasiumEnvironment("Pendulum-v1", 4), UniformBox(1), 50)))
    after, reward = pendulum(recording["observation"], recording["action"])
    torch.testing.assert_close(after, recording["next_observation"], atol=1e-4, rtol=0)
    torch.testing.assert_close(reward, recording["reward"], atol=1e-4, rtol=1e-4)


def test_pendulum(monkeypatch, capsys):
    """The mean return of 20 episodes is that of a pendulum that is held up, and not the -1,200 of chance."""
    assert example(monkeypatch, capsys, 200)[1] >= -300


# Mutants


class WithoutTheProposal(MPPI):
    """Mutant: plans have the weight of their returns, wherever they were drawn from."""

    def fitted(self, observation, loc, scale):
        q = self.proposal(loc, scale)
        a = q.sample((self.num_samples,))
        returns, _ = self.imagined(observation, a)
        w = (returns / self.temperature).softmax(0)
        return torch.einsum("ke,khed->hed", w, self.coordinates(a)), scale


class WithoutTheTangent(MPPI):
    """Mutant: the proposal's density is that of u, and the prior's that of a."""

    def fitted(self, observation, loc, scale):
        q = self.proposal(loc, scale)
        a = q.sample((self.num_samples,))
        returns, log_p = self.imagined(observation, a, self.prior)
        log_q = dist.Normal(loc, scale).to_event(1).log_prob(a.atanh())
        w = (returns / self.temperature + log_p - log_q.sum(1)).softmax(0)
        return torch.einsum("ke,khed->hed", w, self.coordinates(a)), scale


class OtherSign(MPPI):
    """Mutant: the divergence is added, so that what the prior does not like has weight."""

    def imagined(self, observation, action, prior=None):
        returns, log_prior = super().imagined(observation, action, prior)
        return returns, -log_prior


@double
@pytest.mark.parametrize("mutant", [WithoutTheProposal, WithoutTheTangent])
def test_mutant_weights(mutant):
    with pytest.raises(AssertionError):
        check_weights(mutant)


@double
def test_mutant_prior_of_the_other_sign():
    truth = regulated(variational_regulator)
    settings = {"temperature": ALPHA, "horizon": H, "num_samples": 4000, "num_environments": 200, "bounded": False}
    with pytest.raises(AssertionError):
        close(first_actions(OtherSign(line(), 1, prior=NormalPrior(), **settings), 200), truth, 5 / 4000)


@double
def test_mutant_dynamics_that_are_chosen():
    """A plan that also chooses the noise, as a guide with dynamics of its own would, is the lucky one, tried often too.

    What moves the world by itself is a second action, with the noise for a prior.
    """

    class Both(NormalPrior):
        def distribution(self, observation):
            scale = torch.tensor([math.sqrt(SIGMA), math.sqrt(0.4)], dtype=observation.dtype)
            return dist.Normal(torch.zeros_like(scale), scale).to_event(1)

    def chosen(s, a):
        after, reward = line()(s, a[..., :1])
        return after + a[..., 1:], reward

    planner = MPPI(chosen, 2, prior=Both(), temperature=ALPHA, horizon=H, num_samples=1000, num_environments=200,
                   num_futures=2, bounded=False)  # fmt: skip
    found = first_actions(planner, 200)
    close(found, regulated(posterior_regulator), 5 / 1000)
    with pytest.raises(AssertionError):
        close(found, regulated(variational_regulator), 5 / 1000)


# Returns that are not finite


def hole(s, a, missing=torch.nan):
    """More is better, up to where the world breaks down."""
    return s, torch.where(a[..., 0] > 0.5, missing, a[..., 0])


def check_a_hole(method, missing=torch.nan):
    """What a plan brings that is no number is not what one looks for."""
    planner = method(partial(hole, missing=missing), 1, horizon=1, num_environments=3)
    for _ in range(5):
        action = planner(torch.zeros(1, 3, 1))
    assert (action < 0.5).all()


@pytest.mark.parametrize("missing", [torch.nan, -torch.inf])
@pytest.mark.parametrize("method", [MPPI, CEM])
def test_a_hole_in_the_world(method, missing):
    check_a_hole(method, missing)


class BestIsNaN(CEM):
    """Mutant: plans are sorted as they are, and what is no number comes first."""

    def imagined(self, observation, action, prior=None):
        returns, log_p = super().imagined(observation, action, prior)
        return torch.where(returns.isinf(), torch.inf, returns).clamp(max=1e9), log_p


def test_mutant_no_number_is_best():
    with pytest.raises(AssertionError):
        check_a_hole(BestIsNaN)


@pytest.mark.parametrize("value", [torch.nan, -torch.inf, torch.inf])
@pytest.mark.parametrize("method", [MPPI, CEM])
def test_no_finite_return(method, value):
    with pytest.raises(ProgramError, match="the best have no finite return, or no density under the prior"):
        method(lambda s, a: (s, torch.full(a.shape[:-1], value)), 1)(torch.zeros(1, 1, 1))


def test_too_few_finite_returns():
    """Of 50 best plans, 50 must be known."""

    def few(s, a):
        return s, torch.where(torch.arange(len(a[0])) < count, 0.0, -torch.inf)[:, None].expand(a.shape[:-1])

    for count in (49, 50):
        planner = CEM(few, 1, horizon=1, num_iterations=1)
        with nullcontext() if count == 50 else pytest.raises(ProgramError, match="the best have no finite return"):
            planner(torch.zeros(1, 1, 1))


# What does not fit


def test_what_is_refused():
    def one_reward(s, a):
        return s, torch.tensor(0.0)

    for settings, message in (
        ({"horizon": 0}, "horizon must be at least 1, found 0"),
        ({"num_futures": 0}, "num_futures must be at least 1, found 0"),
        ({"scale": 0.0}, r"scale must be above 0, found 0\.0"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"bounded": False}, "actions without bounds need a prior"),
    ):
        with pytest.raises(UsageError, match=message):
            MPPI(bandit, 1, **settings)
    with pytest.raises(UsageError, match=r"elite_fraction=0\.1 of 10 plans are 1, expected from 2 to 9"):
        CEM(bandit, 1, num_samples=10)
    with pytest.raises(UsageError, match=r"min_scale must be above 0 and at most scale=1\.0, found 2\.0"):
        CEM(bandit, 1, min_scale=2.0)
    with pytest.raises(UsageError, match=r"observation has shape \(1, 2, 1\), expected \(1, 3, ...\)"):
        CEM(bandit, 1, num_environments=3)(torch.zeros(1, 2, 1))
    with pytest.raises(ProgramError, match=r"rewards of shape \(\), expected one for each action: \(1, 500, 1\)"):
        CEM(one_reward, 1)(torch.zeros(1, 1, 1))
    with pytest.raises(NotImplementedError):
        Planner(bandit, 1, horizon=1, num_samples=2, num_iterations=1, num_futures=1, num_environments=1, scale=1.0,
                bounded=True)(torch.zeros(1, 1, 1))  # fmt: skip
    assert isinstance(MPPI(bandit, 1).prior, UniformBox)
