"""Returns of policies where their values are known, and intervals where all resamples can be counted."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import trim_mean
from torch import nn

from pyrogen.data import GymnasiumEnvironment, Outcome, TabularEnvironment
from pyrogen.errors import DataError, ProgramError, UsageError
from pyrogen.evaluation import (
    Episodes,
    divergence_figures,
    interquartile_mean,
    play,
    policy_values,
    return_figures,
    returns_interval,
)
from pyrogen.evaluation import episode_figures as figures_module
from pyrogen.mdp import MDP
from pyrogen.models import (
    CategoricalPolicy,
    OptimalTrajectories,
    TanhNormalPolicy,
    UniformBox,
    UniformChoice,
    trajectory_plates,
)

LEFT, RIGHT = torch.eye(4)[[0, 0, 1, 2]], torch.eye(4)[[1, 2, 3, 3]]
HORIZON, TEMPERATURE = 5, 0.5


@pytest.fixture
def chain(double: None) -> MDP:
    left, right = LEFT.double(), RIGHT.double()
    moves = torch.stack([0.8 * left + 0.2 * right, 0.2 * left + 0.8 * right], 1)
    return MDP(moves, torch.tensor([[0.6, -0.1], [0.0, -0.1], [0.0, -0.1], [1.0, 0.9]]))


@pytest.fixture
def policy(chain: MDP) -> CategoricalPolicy:
    return CategoricalPolicy(nn.Embedding(4 * (HORIZON + 1), 2))


def assert_near(estimate, truth: float) -> None:
    """Within four standard errors: of ten thousand seeds, less than one is farther off."""
    assert abs(estimate.value - truth) < 4 * estimate.stderr


def test_figures_are_those_of_exact_values(chain: MDP, policy: CategoricalPolicy) -> None:
    """The ELBO of a policy, its return and its divergence from the prior, against backward recursions."""
    world = TabularEnvironment(chain, 64, start=0, horizon=HORIZON)
    q = policy.distribution(torch.arange(4 * HORIZON)).probs.detach().reshape(HORIZON, 4, 2)
    elbo = float(policy_values(chain, q, temperature=TEMPERATURE, horizon=HORIZON)[0, 0])
    divergence = float(-policy_values(MDP(chain.transitions, 0 * chain.rewards), q, horizon=HORIZON)[0, 0])
    played = play(world, policy, 2000)
    found = return_figures(played) | divergence_figures(
        OptimalTrajectories(UniformChoice(2), TEMPERATURE), policy, played
    )
    assert_near(found["elbo"], elbo)
    assert_near(found["mean_return"], TEMPERATURE * (elbo + divergence))
    assert_near(found["kl_to_prior"], divergence / HORIZON)
    # With a uniform prior, KL(q || p) = log A - H(q), whatever the states.
    sum_of_both = found["kl_to_prior"].value + found["entropy"].value
    assert sum_of_both == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-12)
    assert found["episode_length"].value == HORIZON
    # The mutant: + KL for - KL is far from the truth.
    wrong = elbo + 2 * divergence
    assert abs(found["elbo"].value - wrong) > 10 * found["elbo"].stderr


def test_drawn_divergences_are_the_closed_ones_on_average(
    chain: MDP, policy: CategoricalPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = TabularEnvironment(chain, 64, start=0, horizon=HORIZON)
    model, played = OptimalTrajectories(UniformChoice(2), TEMPERATURE), play(world, policy, 2000)
    closed = divergence_figures(model, policy, played)
    monkeypatch.setattr(figures_module, "_closed", lambda formula, otherwise: otherwise)
    drawn = divergence_figures(model, policy, played)
    for name in ("entropy", "kl_to_prior", "elbo"):
        assert_near(drawn[name], closed[name].value)
        assert drawn[name].stderr > closed[name].stderr


OPTIONS = torch.tensor([0.05, 0.95]).double()
ACTIONS = torch.tensor([[0.3, 0.7], [0.8, 0.2]]).double()


def options(observation: torch.Tensor, **columns: torch.Tensor) -> None:
    """A policy that takes an option first, and an action by that."""
    with trajectory_plates(observation):
        option = pyro.sample("option", dist.Categorical(OPTIONS))
        pyro.sample("action", dist.Categorical(ACTIONS[option]))


def fair_options(
    observation: torch.Tensor, reward: torch.Tensor, terminated: torch.Tensor, **columns: torch.Tensor
) -> None:
    """Its prior, which is glad of an end by three nats."""
    with trajectory_plates(observation):
        for name in ("option", "action"):
            pyro.sample(name, dist.Categorical(torch.ones(2).double()))
        pyro.factor("optimality", reward + 3.0 * terminated)


def check_options(chain: MDP) -> None:
    """Entropy and divergence are of all that a policy draws, by the chain rule."""
    world = TabularEnvironment(chain, 64, start=0, horizon=HORIZON)
    played = play(world, options, 2000)
    found = return_figures(played) | divergence_figures(fair_options, options, played)
    joint = (OPTIONS[:, None] * ACTIONS).flatten()
    entropy = float(-(joint * joint.log()).sum())
    assert_near(found["entropy"], entropy)
    assert_near(found["kl_to_prior"], float(torch.tensor(4.0).double().log()) - entropy)
    lost = HORIZON * found["kl_to_prior"].value
    assert found["elbo"].value == pytest.approx(found["mean_return"].value + 3.0 - lost, abs=1e-9)


def test_divergence_of_all_that_is_drawn(chain: MDP) -> None:
    check_options(chain)
    played = play(TabularEnvironment(chain, 3, start=0, horizon=HORIZON), options, 3)
    with pytest.raises(ProgramError, match="the guide's site 'option' is missing in the model"):
        divergence_figures(OptimalTrajectories(UniformChoice(2)), options, played)


def test_mutant_divergence_of_actions_alone(chain: MDP, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_module, "is_latent", lambda site: site["name"] == "action")
    with pytest.raises(AssertionError):
        check_options(chain)


def test_programs_read_all_columns_of_a_recording(chain: MDP) -> None:
    """What a step led to, and whether it ended or was cut off, is there as it is for the objectives."""
    for settings, last in (({"horizon": HORIZON}, "terminated"), ({"time_limit": HORIZON}, "truncated")):
        steps = play(TabularEnvironment(chain, 4, start=0, **settings), UniformChoice(2), 8).steps
        for name in ("terminated", "truncated"):
            assert steps[name].nonzero()[:, 0].unique().tolist() == [HORIZON - 1, 2 * HORIZON - 1] * (name == last)
        going_on = ~steps[last][:-1]
        assert torch.equal(steps["next_observation"][:-1][going_on], steps["observation"][1:][going_on])


def test_returns_are_those_of_training() -> None:
    """Summed in float64, as the environment's own record of its episodes is; float32 would lose the sixth digit."""
    world = GymnasiumEnvironment("Pendulum-v1", 4)
    returns = play(world, UniformBox(1), 4).returns
    assert returns.tolist() == pytest.approx([episode.total_reward for episode in world.episodes], rel=1e-13)


class Stops:
    """The first environment's episodes have one step, the others' have nine; each step brings one."""

    num_environments = 2

    def __init__(self) -> None:
        self.age = torch.zeros(2, dtype=torch.long)

    def reset(self) -> torch.Tensor:
        return torch.zeros(2, 1)

    def step(self, action: torch.Tensor) -> Outcome:
        self.age = self.age + 1
        ends = self.age >= torch.tensor([1, 9])
        self.age = torch.where(ends, 0, self.age)
        return Outcome(torch.ones(2), self.reset(), ends, torch.zeros(2, dtype=torch.bool), self.reset())


def check_long_episodes(play: Callable[..., Episodes]) -> None:
    played = play(Stops(), UniformChoice(2), 10)
    assert float(played.returns.mean()) == 5.0
    assert sorted(played.returns.tolist()) == [1.0] * 5 + [9.0] * 5
    assert sorted(played.lengths.tolist()) == [1] * 5 + [9] * 5


def first_to_end(environment: Any, policy: Any, num_episodes: int) -> Episodes:
    """Play more, and take those that end first: nine short ones and a long one, whose mean is 1.8."""
    found = play(environment, policy, 10 * num_episodes)
    end = [int((found.episode == number).nonzero()[-1, 0]) for number in range(10 * num_episodes)]
    first = torch.tensor(end).argsort(stable=True)[:num_episodes]
    return found._replace(returns=found.returns[first], lengths=found.lengths[first])


def test_long_episodes_count_as_often_as_short_ones() -> None:
    check_long_episodes(play)


def test_mutant_the_first_to_end() -> None:
    with pytest.raises(AssertionError, match=r"1\.8"):
        check_long_episodes(first_to_end)


def test_the_mode_of_a_policy(double: None) -> None:
    class Echo(Stops):
        def step(self, action: torch.Tensor) -> Outcome:
            self.seen = action
            return super().step(action)

    network = nn.Linear(1, 2)
    world = Echo()
    play(world, TanhNormalPolicy(network), 2, deterministic=True)
    assert torch.equal(world.seen, network.bias[:1].tanh().expand(2, 1))
    play(world, CategoricalPolicy(network), 2, deterministic=True)
    assert torch.equal(world.seen, network.bias.argmax().expand(2))
    assert play(world, UniformBox(1), 2).returns.sum() == 10
    with pytest.raises(UsageError, match="have no mode"):
        play(world, UniformBox(1), 2, deterministic=True)


def test_what_cannot_be_played_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        play(Stops(), UniformChoice(2), 0)
    with pytest.raises(DataError, match="environment 1 has not come to an episode's end in 7 steps"):
        play(Stops(), UniformChoice(2), 2, longest=7)
    with pytest.raises(ProgramError, match="no 'action'"):
        play(Stops(), lambda observation: None, 2)


def test_interquartile_mean() -> None:
    scores = torch.randn(3, 10, generator=torch.Generator().manual_seed(0)).double()
    for size in (1, 3, 4, 7, 10):
        expected = [trim_mean(row, 0.25) for row in scores[:, :size].numpy()]
        assert interquartile_mean(scores[:, :size]).tolist() == pytest.approx(expected, abs=1e-12)
    with pytest.raises(UsageError, match="without scores"):
        interquartile_mean(torch.zeros(0))


def test_the_interval_of_all_resamples() -> None:
    """Four scores have 256 resamples, all as probable: the interval's ends are quantiles of these."""
    scores = torch.tensor([0.0, 1.0, 3.0, 10.0]).double()
    every = interquartile_mean(scores[torch.tensor(list(product(range(4), repeat=4)))])
    found = returns_interval([scores], level=0.8, num_resamples=50_000)
    assert found.value == 2.0
    # Quantiles of a distribution in steps of at least a quarter, none of whose jumps is at 0.1 or 0.9.
    assert (found.low, found.high) == tuple(every.quantile(torch.tensor([0.1, 0.9]).double()).tolist())


def coverage(statistic, num_runs: int, trials: int = 400) -> float:
    """Say how often an interval of 95% of normal scores holds their mean, which is zero."""
    scores = torch.randn(trials, num_runs, generator=torch.Generator().manual_seed(0)).double()
    found = [returns_interval([row], statistic, num_resamples=400, seed=i) for i, row in enumerate(scores)]
    return sum(interval.low <= 0 <= interval.high for interval in found) / trials


def test_coverage() -> None:
    r"""The mean's bootstrap has the variance (n - 1) / n s² / n, so that it covers as a t interval that is too short.

    With n = 20, P(|t_19| < 1.96 sqrt(19 / 20)) = 0.928, and 400 trials have a standard error of 0.013.
    """
    assert abs(coverage(lambda scores: scores.mean(-1), 20) - 0.928) < 4 * 0.013
    assert 0.88 < coverage(interquartile_mean, 20) < 0.97


def test_strata_are_resampled_each_for_itself() -> None:
    """Tasks with other returns are no noise: the mutant, which draws of all together, finds some."""
    strata = [torch.zeros(4), torch.ones(4)]
    assert returns_interval(strata, lambda x: x.mean(-1))[:3] == (0.5, 0.5, 0.5)
    together = returns_interval([torch.cat(strata)], lambda x: x.mean(-1))
    assert together.high - together.low > 0.4


def test_one_score_has_no_interval() -> None:
    assert returns_interval([torch.tensor([70.0])])[:3] == (70.0, None, None)
    assert returns_interval([torch.tensor([1.0, 2.0]), torch.tensor([3.0])]).low is None


def test_intervals_point_the_right_way() -> None:
    low, high = torch.linspace(0, 1, 8), torch.linspace(10, 11, 8)
    assert returns_interval([low]).high < returns_interval([high]).low
    wide, narrow = (returns_interval([torch.linspace(0, 1, n)]) for n in (8, 80))
    assert wide.high - wide.low > narrow.high - narrow.low
    before = torch.get_rng_state()
    assert returns_interval([low]) == returns_interval([low])
    assert torch.equal(torch.get_rng_state(), before)
    for wrong in ([], [torch.zeros(0)], [torch.zeros(2, 2)]):
        with pytest.raises(UsageError, match="shape"):
            returns_interval(wrong)
    with pytest.raises(UsageError, match="level"):
        returns_interval([low], level=1.0)
