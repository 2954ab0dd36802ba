"""Returns of policies where their values are known, and intervals where all resamples can be counted."""

from itertools import product

import pytest
import torch
from scipy.stats import trim_mean
from torch import nn

from pyrogen.data import Outcome, TabularEnvironment
from pyrogen.errors import DataError, ProgramError, UsageError
from pyrogen.evaluation import (
    divergence_figures,
    interquartile_mean,
    play,
    policy_values,
    return_figures,
    returns_interval,
)
from pyrogen.evaluation import episodes as episodes_module
from pyrogen.mdp import MDP
from pyrogen.models import CategoricalPolicy, OptimalTrajectories, TanhNormalPolicy, UniformBox, UniformChoice

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
    monkeypatch.setattr(episodes_module, "_closed", lambda formula, otherwise: otherwise)
    drawn = divergence_figures(model, policy, played)
    for name in ("entropy", "kl_to_prior", "elbo"):
        assert_near(drawn[name], closed[name].value)
        assert drawn[name].stderr > closed[name].stderr


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


def test_long_episodes_count_as_often_as_short_ones() -> None:
    """Taking the first ten to end, the mutant, would find a mean of 1.8 instead of 5."""
    played = play(Stops(), UniformChoice(2), 10)
    assert played.returns.tolist() == [1.0] * 5 + [9.0] * 5
    assert played.lengths.tolist() == [1] * 5 + [9] * 5


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
