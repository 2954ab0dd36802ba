"""Replayed transitions: which are kept, how often each is drawn, and that they resume to the bit."""

from functools import partial

import gymnasium
import pyro
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from known_answers import SOFT_MDP_TRUTH as T
from torch import nn

from pyrogen.data import GymnasiumEnvironment, Outcome, Replay, Rollouts, TabularEnvironment
from pyrogen.errors import DataError, UsageError
from pyrogen.inference import KLControl, train
from pyrogen.mdp import MDP
from pyrogen.models import CategoricalPolicy, OptimalTrajectories, UniformChoice
from pyrogen.trees import pack, unpack

SOFT = MDP(T.P.float(), T.R.float())
START = torch.tensor([0.1, 0.2, 0.3, 0.4])


class Numbered:
    """A world that numbers its transitions, cuts every fifth off, ends every seventh, and may break."""

    num_environments = 3

    def __init__(self, breaks_at=None):
        self.steps, self.breaks_at = 0, breaks_at

    def number(self):
        return torch.arange(3.0) + 3 * self.steps

    def reset(self):
        return self.number()

    def step(self, action):
        number = self.number()
        self.steps += 1
        broken = torch.nan if self.steps == self.breaks_at else 0.0
        ends, cuts = number % 7 == 0, (number % 5 == 0) & (number % 7 > 0)
        return Outcome(100 + number + broken, 0.5 + number, ends, cuts, self.number())

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


class Right(UniformChoice):
    """One that always takes the second of two actions."""

    def distribution(self, observation):
        return pyro.distributions.Categorical(logits=torch.tensor([-torch.inf, 0.0]), validate_args=False)


def draws(replay, count):
    """Collect batches, columns flat."""
    batches = [batch for _, batch in zip(range(count), replay, strict=False)]
    return {name: torch.cat([batch[name].flatten() for batch in batches]) for name in batches[0]}


def check_latest(rows, num_steps, times):
    """After so many interactions, the latest transitions and no others are drawn, each of one piece."""
    replay = Replay(Numbered(), UniformChoice(2), 3 * rows + 2, 400, num_steps=num_steps)
    *_, (_, batch) = zip(range(times), replay, strict=False)
    found = {name: column[0] for name, column in batch.items()}
    number, taken = found["observation"], 3 * num_steps * times
    assert sorted(set(number.tolist())) == list(range(max(0, taken - 3 * rows), taken))
    assert torch.equal(found["next_observation"], number + 0.5)
    assert torch.equal(found["reward"], number + 100)
    assert torch.equal(found["terminated"], number % 7 == 0)
    assert torch.equal(found["truncated"], (number % 5 == 0) & (number % 7 > 0))
    assert torch.equal(found["log_prob"], torch.full_like(number, 0.5).log())


@pytest.mark.parametrize(("num_steps", "times"), [(1, 1), (1, 8), (1, 11), (3, 1), (3, 3), (3, 7), (8, 2)])
def test_the_latest_are_kept(num_steps, times):
    check_latest(8, num_steps, times)


def test_shapes():
    """One step of as many environments, in the columns of a recording: a program scores them as they are."""
    policy = CategoricalPolicy(nn.Embedding(4, 2))
    world = TabularEnvironment(SOFT, 3)
    batch = next(iter(Replay(world, policy, 30, 5)))
    recording = next(iter(Rollouts(world, policy, 2)))
    assert {name: (1, 5, *column.shape[2:]) for name, column in recording.items()} == {
        name: tuple(column.shape) for name, column in batch.items()
    }
    assert {name: column.dtype for name, column in recording.items()} == {n: c.dtype for n, c in batch.items()}
    assert policy(**batch).shape == (1, 5)


def test_uses_and_warmup():
    """Steps are taken before each group of draws, and the first of them by the policy that explores."""
    replay = Replay(Numbered(), UniformChoice(2), 90, 64, num_steps=2, uses=3, warmup=10, explore=Right(2))
    batches = iter(replay)
    counts = []
    for _ in range(7):
        next(batches)
        counts.append(replay.num_environment_steps)
    assert counts == [18, 18, 18, 24, 24, 24, 30]  # 12 are the first multiple of 3 that is not below 10
    assert (replay.columns["action"][:4] == 1).all()
    assert torch.equal(replay.columns["log_prob"][:4], torch.zeros(4, 3))
    assert (replay.columns["log_prob"][4:10] < -0.5).all()


def check_frequencies(replay):
    """What is drawn comes as often as it should: within 4.5 standard errors of what is kept and what is drawn."""
    kept, drawn = 9000, 40 * 500
    batch = draws(replay, 40)
    s, a, after = (batch[name] for name in ("observation", "action", "next_observation"))
    found = torch.bincount(8 * s + 4 * a + after, minlength=32).reshape(4, 2, 4) / drawn
    p = START[:, None, None] * 0.5 * SOFT.transitions
    assert ((found - p).abs() <= 4.5 * (p * (1 - p) * (1 / kept + 1 / drawn)).sqrt()).all()


def start_replay(policy=None):
    """Every step is an episode, so that all transitions are independent; the buffer has been gone through twice."""
    world = TabularEnvironment(SOFT, 1000, START, time_limit=1)
    return Replay(world, policy or UniformChoice(2), 9000, 500, num_steps=9, uses=40, warmup=9000)


def test_frequencies():
    check_frequencies(start_replay())


def check_steps_of_cartpole():
    """Its rewards are one; a step that is none, between two episodes, would have zero."""
    world = GymnasiumEnvironment(gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="sync"))
    replay = Replay(world, UniformChoice(2), 600, 10, num_steps=200)
    next(iter(replay))
    assert replay.columns["terminated"].sum() > 10
    assert (replay.columns["reward"] == 1).all()


def test_no_step_between_episodes():
    check_steps_of_cartpole()


@pytest.mark.parametrize("name", ["CartPole-v1", "numbered"])
def test_resume(name):
    """From what a run directory can hold, also where the ring has been gone through, and in a group of draws."""
    for at in (1, 2, 7, 12, 29):
        pyro.set_rng_seed(at)

        def replay():
            world = Numbered() if name == "numbered" else GymnasiumEnvironment(name, 3, seed=2)
            policy = UniformChoice(2) if name == "numbered" else CategoricalPolicy(nn.Linear(4, 2))
            return Replay(world, policy, 60, 8, num_steps=2, uses=3, warmup=9)

        whole = replay()
        for _ in zip(range(at), whole, strict=False):
            pass
        skeleton, tensors = pack(whole.state_dict())
        again = replay()
        if name == "CartPole-v1":
            again.actor.policy.load_state_dict(whole.actor.policy.state_dict())
        again.load_state_dict(unpack(skeleton, tensors))
        rng = torch.get_rng_state()
        expected = draws(whole, 9)
        torch.set_rng_state(rng)
        found = draws(again, 9)
        assert all(torch.equal(found[column], expected[column]) for column in expected)
        assert again.num_environment_steps == whole.num_environment_steps


def test_a_state_is_a_snapshot():
    """What is recorded later does not come into it."""
    replay = iter(source := Replay(Numbered(), UniformChoice(2), 6, 4))
    next(replay)
    next(replay)
    saved = source.state_dict()["columns"]["observation"]
    before = saved.clone()
    next(replay)
    assert torch.equal(saved, before)


@pytest.mark.parametrize("at", [1, 4])
def test_a_fit_resumes(at):
    """Each player's step draws a batch; a fit that goes on from a saved state takes the same steps, to the bit."""

    def fit():
        pyro.clear_param_store()
        pyro.set_rng_seed(1)
        policy, critic = CategoricalPolicy(nn.Linear(4, 2)), nn.Linear(4, 1)
        replay = Replay(GymnasiumEnvironment("CartPole-v1", 2), policy, 50, 16, num_steps=2, uses=3, warmup=20)
        optimizer = partial(torch.optim.Adam, lr=0.1)
        model = OptimalTrajectories(UniformChoice(2))
        return train(KLControl(critic, 0.9), model, policy, replay, optimizer, optimizer, num_steps=7,
                     validate=False), replay  # fmt: skip  # what another policy recorded is not refused then

    whole, replay = fit()
    losses = []
    for step in whole:
        losses.append(step.loss.item())
        if step.index == at:
            state = whole.state_dict()
    assert replay.num_environment_steps == 20 + 4 * 5  # of 14 draws
    resumed, _ = fit()
    pyro.set_rng_seed(99)
    resumed.load_state_dict(state)
    assert [step.loss.item() for step in resumed] == losses[at:]


def test_numbers_that_are_none():
    """They are refused before the buffer, which holds what it held."""
    replay = Replay(Numbered(breaks_at=4), UniformChoice(2), 30, 4)
    batches = iter(replay)
    for _ in range(3):
        next(batches)
    before = {name: column.clone() for name, column in replay.columns.items()}
    with pytest.raises(DataError, match="reward of environment 0 is not finite at step 0"):
        next(batches)
    assert replay.size == 3
    assert all(torch.equal(replay.columns[name][:3], before[name][:3]) for name in before)
    assert not any(column.isnan().any() for column in replay.state_dict()["columns"].values())


def test_what_is_refused():
    with pytest.raises(UsageError, match="at least 1 and warmup at least 0, found 0, 1, 1 and 0"):
        Replay(Numbered(), UniformChoice(2), 30, 0)
    with pytest.raises(UsageError, match="capacity=5 is less than the 6 transitions that are recorded at a time"):
        Replay(Numbered(), UniformChoice(2), 5, 4, num_steps=2)
    large = Replay(Numbered(), UniformChoice(2), 30, 4, num_steps=5)
    next(iter(large))
    with pytest.raises(UsageError, match="keeps 10 steps of all environments, and this one 3: make it with the same"):
        Replay(Numbered(), UniformChoice(2), 9, 4).load_state_dict(large.state_dict())


# Mutants


def test_mutant_around_the_end(monkeypatch):
    """Rows that do not go around the end overwrite the latest, or are lost."""

    def mutant(self, recording):
        self.row = min(self.row, self.rows - len(recording["reward"]))
        original(self, recording)

    original = Replay._keep
    monkeypatch.setattr(Replay, "_keep", mutant)
    with pytest.raises(AssertionError):
        check_latest(8, 3, 7)


def test_mutant_drawn_from_the_first_rows(monkeypatch):
    """The place of the next row is not how many are filled."""
    original = Replay._drawn

    def mutant(self):
        self.size, size = self.row or 1, self.size
        batch = original(self)
        self.size = size
        return batch

    monkeypatch.setattr(Replay, "_drawn", mutant)
    with pytest.raises(AssertionError):
        check_latest(8, 1, 11)


def test_mutant_columns_drawn_apart(monkeypatch):
    original = Replay._drawn

    def mutant(self):
        return original(self) | {"reward": original(self)["reward"]}

    monkeypatch.setattr(Replay, "_drawn", mutant)
    with pytest.raises(AssertionError):
        check_latest(8, 1, 11)


def test_mutant_another_policy():
    """The truth of frequencies sees a policy that is not uniform."""
    policy = CategoricalPolicy(nn.Embedding(4, 2))
    with torch.no_grad():
        policy.network.weight.copy_(torch.tensor([0.2, 0.0]).expand(4, 2))
    with pytest.raises(AssertionError):
        check_frequencies(start_replay(policy))


def test_mutant_next_step_as_it_comes(monkeypatch):
    original = SyncVectorEnv.reset
    monkeypatch.setattr(SyncVectorEnv, "reset", lambda self, options=None, **settings: (
        (self._observations.copy(), {}) if options else original(self, **settings)
    ))  # fmt: skip
    with pytest.raises(AssertionError):
        check_steps_of_cartpole()
