"""Recordings of tabular environments: what is in them, who acted, and how a fit by them resumes."""

from functools import lru_cache, partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from known_answers import SOFT_MDP_TRUTH as T
from torch import nn

from pyrogen.data import Outcome, Rollouts, TabularEnvironment
from pyrogen.errors import DataError, ProgramError, UsageError
from pyrogen.inference import PPO, KLControl, train
from pyrogen.mdp import MDP
from pyrogen.models import (
    CategoricalPolicy,
    OptimalTrajectories,
    TanhNormalPolicy,
    UniformBox,
    UniformChoice,
    trajectory_plates,
)
from pyrogen.traces import trace_pair

SOFT = MDP(T.P.float(), T.R.float())


def record(environments=3, num_steps=7, policy=None, **settings):
    world = TabularEnvironment(SOFT, environments, **settings)
    policy = policy or CategoricalPolicy(nn.Embedding(world.num_observations, 2))
    return next(iter(Rollouts(world, policy, num_steps)))


def test_columns():
    recording = record(horizon=4)
    assert {name: tuple(column.shape) for name, column in recording.items()} == dict.fromkeys(
        ["observation", "action", "reward", "next_observation", "terminated", "truncated", "log_prob"], (7, 3)
    )
    states = recording["observation"] % 4
    torch.testing.assert_close(recording["reward"], SOFT.rewards[states, recording["action"]])
    assert (SOFT.transitions[states, recording["action"], recording["next_observation"] % 4] > 0).all()


def check_horizon():
    """The last step of the task terminates, and the next row is of a new episode, at time zero and in the start."""
    recording = record(environments=50, num_steps=10, start=2, horizon=4)
    time = recording["observation"] // 4
    assert time[:, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert (recording["next_observation"] // 4)[:, 0].tolist() == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert recording["terminated"][:, 0].nonzero()[:, 0].tolist() == [3, 7]
    assert not recording["truncated"].any()
    assert (recording["observation"][[0, 4, 8]] == 2).all()
    follows = ~recording["terminated"][:-1]
    assert (recording["observation"][1:] == recording["next_observation"][:-1])[follows].all()


def check_time_limit():
    """A cut is no end: nothing in the observation tells of it, and what the step led to is kept beside the start."""
    recording = record(environments=50, num_steps=10, start=2, time_limit=4)
    assert recording["truncated"][:, 0].nonzero()[:, 0].tolist() == [3, 7]
    assert not recording["terminated"].any()
    assert recording["observation"].max() < 4
    assert (recording["observation"][[0, 4, 8]] == 2).all()
    assert (recording["next_observation"][[3, 7]] != 2).any()


def test_horizon_terminates():
    check_horizon()


def test_time_limit_truncates():
    check_time_limit()


def test_the_horizon_goes_before_a_time_limit():
    recording = record(horizon=3, time_limit=3)
    assert recording["terminated"][2].all()
    assert not recording["truncated"].any()


def test_frequencies():
    """Starts and transitions come as often as they should, within 4.5 standard errors."""
    pyro.set_rng_seed(0)
    start = torch.tensor([0.1, 0.2, 0.3, 0.4])
    recording = record(20_000, 1, policy=UniformChoice(2), start=start)
    s, a, after = (recording[name].flatten() for name in ("observation", "action", "next_observation"))
    counts = torch.bincount(s, minlength=4) / len(s)
    assert ((counts - start).abs() < 4.5 * (start * (1 - start) / len(s)).sqrt()).all()
    for state in range(4):
        for action in range(2):
            here = (s == state) & (a == action)
            p, n = SOFT.transitions[state, action], int(here.sum())
            found = torch.bincount(after[here], minlength=4) / n
            assert ((found - p).abs() <= 4.5 * (p * (1 - p) / n).sqrt()).all()


@pytest.mark.parametrize("bounded", [False, True])
def test_one_pass_scores_what_was_acted(bounded):
    """Replayed as one program in plates of time and environments, a policy gives each action the density it was
    drawn with."""

    class Numbers:
        """A world of two numbers, moved by bounded actions."""

        num_environments = 3
        last = torch.zeros(3, 2)

        def reset(self):
            return self.last

        def step(self, action):
            self.last = 0.5 * self.last + action
            ends = torch.zeros(3, dtype=torch.bool)
            return Outcome(self.last.sum(-1), self.last, ends, ends, self.last)

    world = Numbers() if bounded else TabularEnvironment(SOFT, 3, horizon=5)
    policy = TanhNormalPolicy(nn.Linear(2, 4)) if bounded else CategoricalPolicy(nn.Embedding(24, 2))
    model = OptimalTrajectories(UniformBox(2) if bounded else UniformChoice(2))
    recording = next(iter(Rollouts(world, policy, 6)))
    given = pyro.poutine.Trace()
    action = {"type": "sample", "name": "action", "is_observed": False, "value": recording["action"], "infer": {}}
    given.nodes["action"] = action
    traces = trace_pair(model, policy, (), recording, 1, 2, given=given)
    log_q = traces.guide.nodes["action"]["log_prob"]
    assert log_q.shape == (6, 3)
    torch.testing.assert_close(log_q, recording["log_prob"], atol=1e-6, rtol=1e-5)
    log_prior = torch.full((6, 3), 0.25 if bounded else 0.5).log()
    torch.testing.assert_close(traces.model.nodes["action"]["log_prob"], log_prior)
    torch.testing.assert_close(traces.model.nodes["optimality"]["log_prob"], recording["reward"])


def test_the_policy_acts_as_it_is_now():
    """Nothing is recorded ahead of need: what the policy has learned is in the next recording."""
    network = nn.Embedding(4, 2)
    rollouts = iter(Rollouts(TabularEnvironment(SOFT, 20), CategoricalPolicy(network), 5))
    for action in (1, 0, 1):
        with torch.no_grad():
            network.weight.copy_(100.0 * torch.nn.functional.one_hot(torch.tensor(action), 2).expand(4, 2))
        assert (next(rollouts)["action"] == action).all()


@pytest.mark.parametrize("times", ["uses", "players"])
def test_uses(times):
    """A recording may be learned from twice, and a critic and a policy may learn from the same."""
    rollouts = iter(Rollouts(TabularEnvironment(SOFT, 3), UniformChoice(2), 5, **{times: 2}))
    first, second, third = next(rollouts), next(rollouts), next(rollouts)
    assert first is second
    assert not torch.equal(first["action"], third["action"])
    assert torch.equal(first["next_observation"][-1], third["observation"][0])


def check_minibatches():
    """Each use parts the environments anew, in groups that have each of them once, with all of its columns."""
    rollouts = Rollouts(TabularEnvironment(SOFT, 6), UniformChoice(2), 5, uses=2, minibatches=3)
    batches = iter(rollouts)
    parts = [next(batches) for _ in range(6)]
    whole, orders = rollouts.recording, []
    for use in (parts[:3], parts[3:]):
        key = torch.cat([whole[name].double() for name in ("observation", "action", "reward", "next_observation")])
        found = torch.cat([
            torch.cat([part[name].double() for name in ("observation", "action", "reward", "next_observation")])
            for part in use
        ], dim=1)  # fmt: skip
        same = (found.T[:, None] == key.T).all(-1)
        assert same.sum(0).tolist() == same.sum(1).tolist() == [1] * 6
        orders.append(same.nonzero()[:, 1].tolist())
    assert orders[0] != orders[1]
    assert all(part["reward"].shape == (5, 2) for part in parts)
    next(batches)
    assert rollouts.recording is not whole
    assert rollouts.num_environment_steps == 60


def test_minibatches():
    check_minibatches()


class Signed(TabularEnvironment):
    """Each environment signs its rewards with its number."""

    def step(self, action):
        outcome = super().step(action)
        return outcome._replace(reward=torch.arange(float(self.num_environments)))


class Noting(PPO):
    """It notes which environments each step of a player has learned from."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.latest, self.steps = {}, {"critic": [], "programs": []}

    def forward(self, model, guide, **columns):
        self.latest["programs"] = columns["reward"][0].long().tolist()
        return super().forward(model, guide, **columns)

    def critic_loss(self, model, guide, **columns):
        self.latest["critic"] = columns["reward"][0].long().tolist()
        return super().critic_loss(model, guide, **columns)

    def after_step(self, kind):
        self.steps[kind].append(self.latest[kind])


def check_players(critic_steps, simultaneous, **parts):
    """Over three recordings: either player learns from each environment at each use, and all of a round from the same
    group."""
    pyro.set_rng_seed(0)
    world = Signed(SOFT, 8, time_limit=4)
    policy, objective = CategoricalPolicy(nn.Embedding(4, 2)), Noting(nn.Embedding(4, 1))
    rollouts, optimizer = Rollouts(world, policy, 3, **parts), partial(torch.optim.SGD, lr=0.01)
    for _ in train(objective, OptimalTrajectories(UniformChoice(2)), policy, rollouts, optimizer, optimizer,
                   steps=(1, critic_steps), simultaneous=simultaneous, num_steps=3 * 2 * 4):  # fmt: skip
        pass
    assert rollouts.num_environment_steps == 3 * 3 * 8
    programs, critic = objective.steps["programs"], objective.steps["critic"]
    assert critic == [group for group in programs for _ in range(critic_steps)]
    for use in range(6):
        groups = programs[4 * use : 4 * use + 4]
        assert sorted(sum(groups, [])) == list(range(8))  # noqa: RUF017


PLAYERS = pytest.mark.parametrize(("critic_steps", "simultaneous"), [(1, True), (1, False), (3, False)])


@PLAYERS
def test_players_learn_from_all_environments(critic_steps, simultaneous):
    check_players(critic_steps, simultaneous, uses=2, minibatches=4, players=1 + critic_steps)


@PLAYERS
def test_mutant_players_that_share_the_groups(critic_steps, simultaneous):
    """As many draws of a recording, by turns: each player misses what the others got."""
    with pytest.raises(AssertionError):
        check_players(critic_steps, simultaneous, uses=2 * (1 + critic_steps), minibatches=4)


def check_minibatches_of_steps():
    """Each use computes targets anew, from those of the use before, and parts the steps anew: each is in one group."""
    recordings = []

    def targets(**recording):
        recordings.append(recording)
        return {"returns": 1000 * len(recordings) + 100 * recording["reward"] + torch.arange(5)[:, None]}

    rollouts = Rollouts(Signed(SOFT, 6), UniformChoice(2), 5, uses=2, minibatches=3, targets=targets, players=2)
    batches, orders = iter(rollouts), []
    for use in (1, 2):
        drawn = [next(batches) for _ in range(6)]
        parts = drawn[::2]
        assert all(
            torch.equal(one[name], two[name]) for one, two in zip(parts, drawn[1::2], strict=True) for name in one
        )
        assert all(part["reward"].shape == (1, 10) for part in parts)
        reward, returns, seen = (
            torch.cat([part[name] for part in parts], 1)[0] for name in ("reward", "returns", "observation")
        )
        returns = returns - 1000 * use
        step = (returns - 100 * reward).long()
        assert sorted(returns.tolist()) == [100 * environment + time for environment in range(6) for time in range(5)]
        assert torch.equal(seen, recordings[0]["observation"][step, reward.long()])
        orders.append(returns.tolist())
    assert orders[0] != orders[1]
    assert len(recordings) == 2
    next(batches)
    assert rollouts.num_environment_steps == 60
    assert ["returns" in recording for recording in recordings] == [False, True, False]
    former = 1000 + 100 * recordings[0]["reward"] + torch.arange(5)[:, None]
    assert torch.equal(recordings[1]["returns"], former)


def test_minibatches_of_steps():
    check_minibatches_of_steps()


def test_mutant_targets_of_another_recording(monkeypatch):
    """What one recording had is no start for the next."""
    found = Rollouts._found

    def kept(self):
        self.found = self.found or self.last
        self.last = found(self)
        return self.last

    monkeypatch.setattr(Rollouts, "last", {}, raising=False)
    monkeypatch.setattr(Rollouts, "_found", kept)
    with pytest.raises(AssertionError):
        check_minibatches_of_steps()


def test_mutant_targets_once_a_recording(monkeypatch):
    """Those of the first use are out of date in the second."""
    monkeypatch.setattr(Rollouts, "_found", lru_cache(Rollouts._found))
    with pytest.raises(AssertionError):
        check_minibatches_of_steps()


def test_mutant_steps_in_another_order_than_their_targets(monkeypatch):
    flatten = torch.Tensor.flatten
    monkeypatch.setattr(torch.Tensor, "flatten", lambda x, *dims: flatten(x.T if x.is_floating_point() else x, *dims))
    with pytest.raises(AssertionError):
        check_minibatches_of_steps()


@pytest.mark.parametrize("targets", [None, lambda **of: {"returns": of["reward"] + of.get("returns", 0)}])
@pytest.mark.parametrize("players", [1, 2])
@pytest.mark.parametrize("at", [1, 2, 5, 6, 9])
def test_minibatches_resume(at, players, targets):
    """Between the players of one group as well."""
    found = []
    for stops in (False, True):
        pyro.set_rng_seed(0)
        settings = {"uses": 2, "minibatches": 3, "players": players, "targets": targets}
        rollouts = Rollouts(TabularEnvironment(SOFT, 6), UniformChoice(2), 5, **settings)
        batches = iter(rollouts)
        for _ in range(at):
            next(batches)
        if stops:
            state = rollouts.state_dict()
            rollouts = Rollouts(TabularEnvironment(SOFT, 6), UniformChoice(2), 5, **settings)
            rollouts.load_state_dict(state)
            batches = iter(rollouts)
        torch.manual_seed(5)
        found.append([next(batches) for _ in range(7)])
    for one, other in zip(*found, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


class Own(CategoricalPolicy):
    """A policy that counts its traces."""

    def __init__(self, network, says_more=False):
        super().__init__(network)
        self.says_more, self.traces = says_more, 0

    def forward(self, observation, **recorded):
        self.traces += 1
        with trajectory_plates(observation):
            if self.says_more:
                pyro.sample("option", dist.Bernoulli(0.5))
            return pyro.sample("action", self.distribution(observation))


def test_acting_without_a_trace():
    """A policy that draws from its distribution is traced once; actions and their density are the program's."""
    found = []
    for says_more in (False, True):
        pyro.set_rng_seed(3)
        policy = Own(nn.Linear(1, 2), says_more)
        recording = next(iter(Rollouts(Clock(), policy, 6)))
        found.append(policy.traces)
        log_q = policy.distribution(recording["observation"]).log_prob(recording["action"])
        torch.testing.assert_close(recording["log_prob"], log_q)
    assert found == [1, 7]


def check_draws(policy):
    """What a policy draws by itself has its distribution: frequencies, or the means of actions and their squares."""
    observation = torch.zeros(40_000, 1)
    with torch.no_grad():
        action = policy.act(observation)
        distribution = policy.distribution(torch.zeros(1))
    if isinstance(policy, CategoricalPolicy):
        found, p = torch.bincount(action, minlength=3) / 40_000, distribution.probs
        assert ((found - p).abs() < 4.5 * (p * (1 - p) / 40_000).sqrt()).all()
    else:
        for power in (1, 2):
            one, other = action**power, distribution.sample((40_000,)) ** power
            mcse = ((one.var(0) + other.var(0)) / 40_000).sqrt()
            assert ((one.mean(0) - other.mean(0)).abs() < 4.5 * mcse).all()


def drawing(kind):
    policy = kind(nn.Linear(1, 3 if kind is CategoricalPolicy else 4))
    with torch.no_grad():
        bias = [0.5, -1.0, 0.1] if kind is CategoricalPolicy else [0.5, -2.0, 0.3, 0.9]
        policy.network.bias.copy_(torch.tensor(bias))
    return policy


@pytest.mark.parametrize("kind", [CategoricalPolicy, TanhNormalPolicy])
def test_draws(kind):
    check_draws(drawing(kind))


def test_draws_of_another_distribution():
    """A subclass that changes the distribution alone is not drawn from by what it inherits."""

    class Second(CategoricalPolicy):
        def distribution(self, observation):
            return dist.Categorical(logits=self.network(observation) + torch.tensor([0.0, 100.0]))

    assert (next(iter(Rollouts(Clock(), Second(nn.Linear(1, 2)), 6)))["action"] == 1).all()


def test_one_step_is_scored():
    """Recordings of one step have the density that one pass gives them."""
    for policy in (CategoricalPolicy(nn.Linear(1, 2)), UniformChoice(2)):
        recording = next(iter(Rollouts(Clock(), policy, 1)))
        log_q = policy.distribution(recording["observation"]).log_prob(recording["action"])
        assert recording["log_prob"].shape == (1, 3)
        torch.testing.assert_close(recording["log_prob"], log_q)


class Clock:
    """A world of a number."""

    num_environments = 3
    ends = torch.zeros(3, dtype=torch.bool)

    def reset(self):
        self.time = torch.rand(3, 1)
        return self.time

    def step(self, action):
        self.time = self.time + 1
        return Outcome(action.float(), self.time, self.ends, self.ends, self.time)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize("layer", [nn.Dropout(), nn.BatchNorm1d(1)])
def test_density_that_depends_on_more_than_the_observation(layer):
    """Where one pass would give actions another density than they were drawn with, each is scored as it is drawn."""

    class Rows(nn.Module):
        """Layers of rows, whatever the batch."""

        def __init__(self):
            super().__init__()
            self.layer, self.linear, self.seen = layer, nn.Linear(1, 2), []

        def forward(self, observation):
            logits = self.linear(self.layer(observation.flatten(0, -2))).reshape(*observation.shape[:-1], 2)
            self.seen.append(logits.detach())
            return logits

    policy = CategoricalPolicy(Rows())
    recording = next(iter(Rollouts(Clock(), policy, 6)))
    drawn_by = dist.Categorical(logits=torch.cat(policy.network.seen[-6:]))
    torch.testing.assert_close(recording["log_prob"], drawn_by.log_prob(recording["action"]))


def check_open_distribution():
    """A distribution without a batch shape draws for each environment, and not one for all."""
    recording = next(iter(Rollouts(TabularEnvironment(SOFT, 50), UniformChoice(2), 4)))
    assert (recording["action"].float().mean(1) - 0.5).abs().max() < 4.5 * 0.5 / 50**0.5


def test_open_distribution():
    check_open_distribution()


@pytest.mark.parametrize("with_critic", [False, True])
@pytest.mark.parametrize("at", [1, 3])
def test_resume(at, with_critic):
    """A fit that goes on from a saved state takes the same steps, to the bit, in the middle of episodes as well."""

    def fit():
        pyro.clear_param_store()
        pyro.set_rng_seed(1)
        world = TabularEnvironment(SOFT, 4, **({"time_limit": 4} if with_critic else {"horizon": 2}))
        policy = CategoricalPolicy(nn.Embedding(world.num_observations, 2))
        objective = KLControl(nn.Embedding(world.num_observations, 1) if with_critic else None)
        parts = {"uses": 2, "minibatches": 2, "players": 2} if with_critic else {}
        rollouts = Rollouts(world, policy, 6, **parts)
        optimizer = partial(torch.optim.Adam, lr=0.1)
        model = OptimalTrajectories(UniformChoice(2))
        return train(objective, model, policy, rollouts, optimizer, optimizer if with_critic else None, num_steps=6,
                     validate=False)  # fmt: skip  # what another policy recorded is not refused then

    whole = fit()
    losses = []
    for step in whole:
        losses.append(step.loss.item())
        if step.index == at:
            state = whole.state_dict()
    resumed = fit()
    pyro.set_rng_seed(99)
    resumed.load_state_dict(state)
    assert [step.loss.item() for step in resumed] == losses[at:]


def test_what_is_refused():
    world = TabularEnvironment(SOFT, 3)

    def moves(observation):
        with pyro.plate("environments", 3):
            pyro.sample("move", dist.Categorical(logits=torch.zeros(2)))

    with pytest.raises(ProgramError, match="draws no 'action' to act by, found move:"):
        next(iter(Rollouts(world, moves, 2)))
    with pytest.raises(UsageError, match="minibatches and players must be at least 1, found 0, 1, 1 and 1"):
        Rollouts(world, moves, 0)
    with pytest.raises(UsageError, match="minibatches=2 does not part 3 environments in equal groups"):
        Rollouts(world, moves, 2, minibatches=2)
    with pytest.raises(UsageError, match="minibatches=4 does not part 6 steps of all environments in equal groups"):
        Rollouts(world, moves, 2, minibatches=4, targets=dict)
    for found in ({"returns": torch.zeros(3, 3)}, {"returns": torch.zeros(6)}, {"reward": torch.zeros(2, 3)}):
        with pytest.raises(
            UsageError, match=r"targets of a recording are new columns whose shape begins with \(2, 3\)"
        ):
            next(iter(Rollouts(world, UniformChoice(2), 2, targets=lambda found=found, **_: found)))
    with pytest.raises(UsageError, match="horizon must be at least 1"):
        TabularEnvironment(SOFT, 3, horizon=0)
    with pytest.raises(UsageError, match="start must be a state from 0 to 3, found 4"):
        TabularEnvironment(SOFT, 3, start=4)
    with pytest.raises(UsageError, match=r"start must have shape \(4,\)"):
        TabularEnvironment(SOFT, 3, start=torch.ones(3) / 3)
    with pytest.raises(UsageError, match=r"start\[\] is"):
        TabularEnvironment(SOFT, 3, start=torch.ones(4))


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("reward", lambda x: x.tolist(), "reward is of type list, expected a tensor"),
        ("reward", lambda x: x[:, None], r"reward has shape \(3, 1\), expected \(3,\)"),
        ("reward", lambda x: x[0], r"reward has shape \(\), expected \(3,\): one value for each environment"),
        ("reward", lambda x: x.long(), "reward must be of a floating-point type, found torch.int64"),
        ("terminated", lambda x: x.long(), "terminated must be boolean, found torch.int64"),
        ("truncated", lambda x: x.float(), "truncated must be boolean, found torch.float32"),
        ("next_observation", lambda x: x.numpy(), "next_observation is of type ndarray"),
        ("observation", lambda x: x[:2], r"observation has shape \(2,\), expected \(3, ...\): a row for each"),
    ],
)
def test_what_an_environment_returns(column, change, message):
    """Columns of another kind are refused in the first step, by their name."""

    class Other(TabularEnvironment):
        def step(self, action):
            outcome = super().step(action)
            return outcome._replace(**{column: change(getattr(outcome, column))})

    with pytest.raises(UsageError, match=message):
        next(iter(Rollouts(Other(SOFT, 3), UniformChoice(2), 1)))


def test_first_observation_that_is_no_tensor():
    class Lists(TabularEnvironment):
        def reset(self):
            return super().reset().tolist()

    with pytest.raises(UsageError, match="observation is of type list"):
        next(iter(Rollouts(Lists(SOFT, 3), UniformChoice(2), 1)))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (torch.tensor([0, -1, 1]), "environment 1 was given action -1, expected one from 0 to 1"),
        (torch.tensor([0, 1, 2]), "environment 2 was given action 2"),
        (torch.tensor([0.0, 1.0, 1.0]), "found actions of torch.float32"),
        (torch.tensor([True, False, True]), "found actions of torch.bool"),
        (torch.tensor([[0], [1], [1]]), r"shape \(3, 1\), expected whole numbers, shape \(3,\)"),
    ],
)
def test_actions_that_are_none(action, message):
    world = TabularEnvironment(SOFT, 3)
    with pytest.raises(UsageError, match=message):
        world.step(action)


@pytest.mark.parametrize("column", ["observation", "reward", "next_observation"])
def test_numbers_that_are_none(column):
    """They never come into a recording: the error says of which environment and when."""

    class Broken(TabularEnvironment):
        def step(self, action):
            outcome = super().step(action)
            self.steps = getattr(self, "steps", 0) + 1
            values = getattr(outcome, column).float()
            values[1] = torch.nan if self.steps == 3 else values[1]
            return outcome._replace(**{column: values})

    with pytest.raises(
        DataError, match=f"^{column} of environment 1 is not finite at step {3 if column == 'observation' else 2}"
    ):
        next(iter(Rollouts(Broken(SOFT, 3), UniformChoice(2), 5)))


# Mutants


@pytest.mark.parametrize("kind", [CategoricalPolicy, TanhNormalPolicy])
def test_mutant_other_noise(monkeypatch, kind):
    """Normal noise on logits is no Gumbel noise; uniform noise has another variance."""
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: self.normal_().exp_())
    monkeypatch.setattr(torch, "randn_like", lambda x: 2 * torch.rand_like(x) - 1)
    with pytest.raises(AssertionError):
        check_draws(drawing(kind))


def test_mutant_the_same_order_for_each_use(monkeypatch):
    monkeypatch.setattr(torch, "randperm", torch.arange)
    with pytest.raises(AssertionError):
        check_minibatches()


def test_mutant_flags_swapped(monkeypatch):
    original = TabularEnvironment.step

    def swapped(self, action):
        outcome = original(self, action)
        return outcome._replace(terminated=outcome.truncated, truncated=outcome.terminated)

    monkeypatch.setattr(TabularEnvironment, "step", swapped)
    for check in (check_horizon, check_time_limit):
        with pytest.raises(AssertionError):
            check()


def test_mutant_next_observation_of_the_new_episode(monkeypatch):
    """The value of a start would stand for that of the state which an episode was cut off in."""
    original = TabularEnvironment.step

    def mutant(self, action):
        outcome = original(self, action)
        return outcome._replace(next_observation=outcome.observation)

    monkeypatch.setattr(TabularEnvironment, "step", mutant)
    for check in (check_horizon, check_time_limit):
        with pytest.raises(AssertionError):
            check()
