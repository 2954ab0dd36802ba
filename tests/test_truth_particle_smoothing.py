"""Particle smoothing held to exact posteriors, of tables and of linear, quadratic and normal worlds."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from known_answers import SOFT_MDP_TRUTH as T

import pyrogen.inference.resampling as resampling
import pyrogen.inference.smoothing as module
from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation import posterior_regulator, posterior_values, smooth_trajectories, variational_values
from pyrogen.inference import particle_smoothing
from pyrogen.lqg import LinearQuadratic
from pyrogen.mdp import MDP
from pyrogen.models import UniformChoice

pytestmark = pytest.mark.usefixtures("double")
SOFT = MDP(T.P, T.R)
PRIOR = UniformChoice(2).distribution
START, H = 1, T.horizon


def world(s, a):
    """The table, as a program."""
    return pyro.sample("next_observation", dist.Categorical(T.P[s, a])), T.R[s, a]


def lean(s):
    """Actions of another policy than the prior."""
    return dist.Categorical(torch.tensor([[0.7, 0.3], [0.4, 0.6], [0.3, 0.7], [0.5, 0.5]])[s])


def guess(s):
    """Values that are wrong, and the same at all times."""
    return torch.tensor([0.5, 0.3, 0.9, 1.5])[s]


def smoothed(environments, particles, **settings):
    start = torch.full((environments,), START)
    return particle_smoothing(PRIOR, world, start, horizon=H, num_particles=particles, **settings)


SETTINGS = {
    "plain": {},
    "always drawn anew": {"resample_below": 1.0},
    "never drawn anew": {"resample_below": 0.0},
    "twisted": {"value": guess},
    "proposed": {"proposal": lean},
    "twisted, proposed, as they descend": {"value": guess, "proposal": lean, "backward": False},
}


def check_evidence(**settings):
    """The estimate has no bias with as few as four particles; its logarithm has, downwards."""
    found = smoothed(20_000, 4, **{"backward": False} | settings).log_evidence
    ratio = (found - T.V_posterior[START]).exp()
    assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / math.sqrt(len(ratio))
    low = T.V_posterior[START] - found
    assert low.mean() > 4.5 * low.std() / math.sqrt(len(ratio))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_evidence(settings):
    check_evidence(**settings)


def check_marginals(**settings):
    """Those of states and of actions with their states, by the spread of independent runs; the bias is of order 1/N."""
    environments, particles = 150, 40
    found = smoothed(environments, particles, **settings)
    truth = smooth_trajectories(SOFT, torch.eye(4)[START], horizon=H)
    states = torch.eye(4)[found.observation]
    pairs = torch.eye(8)[2 * found.observation[:-1] + found.action]
    for seen, exact in ((states, truth.states), (pairs, truth.actions.flatten(1))):
        each = seen.mean(1)
        error = (each.mean(1) - exact).abs()
        assert (error <= 4.5 * each.std(1) / math.sqrt(environments) + 0.5 / particles).all()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_marginals(settings):
    check_marginals(**settings)


def test_trajectories_can_come_about():
    """Each step of a trajectory is one that the world takes."""
    found = smoothed(2, 50)
    s, a, after = found.observation[:-1], found.action, found.observation[1:]
    assert (T.P[s, a, after] > 0).all()
    assert (s[0] == START).all()


# Values and a proposal that are exact: nothing is left to chance but what the world does


def timed(found):
    """What a table of a horizon says of observations that tell the time."""
    values = torch.cat([found.values.flatten(), torch.zeros(4)])
    policy = torch.cat([found.policy.flatten(0, 1), torch.full((4, 2), 0.5)])
    return {"value": lambda o: values[o], "proposal": lambda o: dist.Categorical(policy[o])}


def timed_world(transitions):
    def world(o, a):
        s = o % 4
        after = torch.zeros(*a.shape, 4 * (H + 1))
        places = 4 * (o // 4 + 1).unsqueeze(-1) + torch.arange(4)
        return pyro.sample("next_observation", dist.Categorical(after.scatter(-1, places, transitions[s, a]))), T.R[
            s, a
        ]

    return world


def test_one_particle_is_enough_where_nothing_is_left_to_chance():
    certain = torch.nn.functional.one_hot(T.P.argmax(-1), 4).double()
    exact = timed(posterior_values(MDP(certain, T.R), horizon=H))
    found = particle_smoothing(PRIOR, timed_world(certain), torch.arange(4), horizon=H, num_particles=1, **exact)
    torch.testing.assert_close(found.log_evidence, T.V_deterministic, atol=1e-9, rtol=0)


def test_exact_values_leave_the_worlds_chance_alone():
    """In a world of chance, they leave less noise than no values; the evidence is the exact posterior's."""
    spread = {}
    for name, settings in (("exact", timed(posterior_values(SOFT, horizon=H))), ("none", {})):
        found = particle_smoothing(PRIOR, timed_world(T.P), torch.full((600,), START), horizon=H, num_particles=60,
                                   backward=False, **settings).log_evidence  # fmt: skip
        spread[name] = found.std()
        assert abs((found - T.V_posterior[START]).exp().mean() - 1) < 4.5 * spread[name] / math.sqrt(len(found))
        assert abs(found.mean() - T.V_variational[START]) > 0.1
    assert spread["exact"] < 0.9 * spread["none"]


# Numbers in place of tables


LINE = LinearQuadratic(*(torch.tensor([[x]], dtype=torch.float64) for x in (1.1, 0.8, 0.9, 0.5, 0.4)))
SIGMA = 0.8


def line(s, a):
    after = pyro.sample("next_observation", dist.Normal(1.1 * s + 0.8 * a, math.sqrt(0.4)))
    return after, -0.5 * (0.9 * s.square() + 0.5 * a.square())


def normal(s):
    return dist.Normal(torch.zeros_like(s), math.sqrt(SIGMA))


@pytest.mark.parametrize("backward", [False, True])
def test_linear_quadratic_and_normal(backward):
    """Evidence and first action are those of the risk-seeking Riccati recursion."""
    exact = posterior_regulator(LINE, torch.tensor([[SIGMA]]), temperature=0.7, horizon=4)
    environments, particles = 150, 60
    start = torch.full((environments,), 1.5)
    found = particle_smoothing(
        normal, line, start, horizon=4, temperature=0.7, num_particles=particles, backward=backward
    )  # fmt: skip
    ratio = (found.log_evidence - exact.values(torch.tensor([1.5]))).exp()
    assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / math.sqrt(environments)
    for t in range(2):
        off = (found.action[t] + exact.gains[t, 0, 0] * found.observation[t]).mean(0)
        assert abs(off.mean()) < 4.5 * off.std() / math.sqrt(environments) + 0.5 / particles


def test_backward_draws_do_not_share_their_ancestors():
    """Particles that descend from one another soon have few ancestors; drawn backwards they have many."""
    start = torch.zeros(1)
    settings = {"horizon": 20, "temperature": 0.05, "num_particles": 200}
    ancestors = [
        len(particle_smoothing(normal, line, start, backward=backward, **settings).action[0].unique())
        for backward in (False, True)
    ]
    assert ancestors[0] < 10
    assert ancestors[1] > 2 * ancestors[0]


# Mutants


def filtered(world, step, after, temperature):
    """Mutant: particles are drawn by their own weights, wherever the trajectory went on."""
    logits = step.log_weights.expand(len(after), *step.log_weights.shape).movedim(1, -1)
    return dist.Categorical(logits=logits).sample()


def rewardless(world, step, after, temperature):
    """Mutant: the reward of the step itself is left out."""
    return original_before(world, step, after, math.inf)


original_before = module._before


@pytest.mark.parametrize("mutant", [filtered, rewardless])
def test_mutant_backward_weights(mutant, monkeypatch):
    monkeypatch.setattr(module, "_before", mutant)
    with pytest.raises(AssertionError):
        check_marginals()


def test_mutant_proposal_without_its_density(monkeypatch):
    original = module._acted
    monkeypatch.setattr(
        module, "_acted", lambda prior, proposal, s, like: (original(prior, proposal, s, like)[0], 0 * like)
    )
    for check in (check_evidence, check_marginals):
        with pytest.raises(AssertionError):
            check(proposal=lean)


def test_mutant_weights_that_are_not_averaged(monkeypatch):
    """The mean of logarithms is a bound, and no estimate without bias."""
    for each in (module, resampling):
        monkeypatch.setattr(each, "log_mean", lambda log_w: log_w.mean(0))
    with pytest.raises(AssertionError):
        check_evidence()


def test_mutant_evidence_of_the_other_quantity():
    """It is not the variational value."""
    with pytest.raises(AssertionError):
        torch.testing.assert_close(
            smoothed(1000, 100, backward=False).log_evidence.mean(),
            variational_values(SOFT, horizon=H).values[0, START], atol=0.05, rtol=0,
        )  # fmt: skip


def test_what_weighs_nothing_is_not_drawn():
    """Sums of many shares in single precision end short of one, and the last particle is not what is left over."""
    pyro.set_rng_seed(0)
    log_w = torch.randn(100_000, 20, dtype=torch.float32)
    log_w[-1] = -torch.inf
    assert (log_w.softmax(0).cumsum(0)[-1] < 1).any()
    assert resampling.systematic(log_w).max() < len(log_w) - 1


# What does not fit


def test_what_is_refused():
    start = torch.zeros(3)

    def silent(s, a):
        return s + a, -s.square()

    def one_reward(s, a):
        return s + a, torch.tensor(1.0)

    def lost(s, a):
        return pyro.sample("next_observation", dist.Normal(s + a, 1.0)), torch.full_like(s, -torch.inf)

    def events(s, a):
        return pyro.sample("next_observation", dist.Normal(s + a, 1.0)), -s.square().sum(-1)

    with pytest.raises(ProgramError, match=r"has no site 'next_observation'.* or do without backward sampling"):
        particle_smoothing(normal, silent, start, horizon=2, num_particles=5)
    found = particle_smoothing(normal, silent, start, horizon=2, num_particles=5, backward=False)
    torch.testing.assert_close(found.observation[1:], found.observation[:-1] + found.action)
    with pytest.raises(ProgramError, match=r"rewards of shape \(\), expected one for each action: \(5, 3\)"):
        particle_smoothing(normal, one_reward, start, horizon=2, num_particles=5)
    with pytest.raises(ProgramError, match=r"log-densities of shape \(5, 5, 3, 1\), expected \(5, 5, 3\).*to_event"):
        particle_smoothing(
            lambda s: dist.Normal(torch.zeros_like(s), 1.0).to_event(1), events, start[:, None], horizon=2,
            num_particles=5,
        )  # fmt: skip
    for backward in (False, True):
        with pytest.raises(ProgramError, match="evidence in environment 0 is -inf, so that no particle has a weight"):
            particle_smoothing(normal, lost, start, horizon=2, num_particles=5, backward=backward)
    with pyro.validation_enabled(False):
        found = particle_smoothing(normal, lost, start, horizon=2, num_particles=5, backward=False)
    assert (found.log_evidence == -torch.inf).all()
    for settings, message in (
        ({"horizon": 0}, "horizon must be at least 1, found 0"),
        ({"num_particles": 0}, "num_particles must be at least 1"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"resample_below": 1.5}, "resample_below must be between 0 and 1"),
    ):
        with pytest.raises(UsageError, match=message):
            particle_smoothing(normal, silent, start, **{"horizon": 2} | settings)
