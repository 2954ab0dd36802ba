"""Environments of gymnasium: what is recorded of them, that they resume to the bit, and how they break."""

import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from torch import nn

from pyrogen.data import GymnasiumEnvironment, Normalized, Rollouts
from pyrogen.data.copies import SeededCopies, episode_seed
from pyrogen.data.vector_copies import VectorCopies
from pyrogen.environment_spec import EnvironmentSpec
from pyrogen.errors import DataError, UsageError
from pyrogen.inference.returns import lambda_returns
from pyrogen.models import TanhNormalPolicy, UniformBox, UniformChoice
from pyrogen.trees import pack, unpack


class Clock(gymnasium.Env):
    """It tells the time, and pays it; the hour at which an episode ends is drawn, and the first is one past ten."""

    observation_space = Box(-100.0, 100.0, (2,), np.float32)
    action_space = Discrete(2)
    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, breaks=None, at=3):
        self.breaks, self.at = breaks, at
        if breaks == "making":
            raise OSError("the spring is lost")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.end = 10, 12 + int(self.np_random.integers(4))
        return self.observed(), {}

    def observed(self):
        broken = self.breaks == "observation" and self.time - 10 == self.at
        return np.array([self.time, np.nan if broken else self.end], np.float32)

    def step(self, action):
        self.time += 1
        if self.breaks == "raise" and self.time - 10 == self.at:
            raise RuntimeError("the spring is broken")
        reward = np.nan if self.breaks == "reward" and self.time - 10 == self.at else float(self.time)
        return self.observed(), reward, self.time == self.end, False, {}


class Spaces(gymnasium.Env):
    """One that has spaces, and nothing else."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space


class Forgetful(Clock):
    """One that does not begin anew by its seed."""

    resets = 0

    def reset(self, *, seed=None, options=None):
        Forgetful.resets += 1
        observation, info = super().reset(seed=seed)
        return observation + np.float32(Forgetful.resets), info


for entry_point in (Clock, Spaces, Forgetful):
    gymnasium.register(f"{entry_point.__name__}-v0", entry_point)


def played(world, steps, generator, observation=None):
    """Act at random, and return all that came of it."""
    found = [world.reset()] if observation is None else []
    for _ in range(steps):
        shape = (world.num_environments,)
        if world.spec.num_actions is None:
            action = 2 * torch.rand(*shape, world.spec.num_action_dims, generator=generator) - 1
        else:
            action = torch.randint(world.spec.num_actions, shape, generator=generator)
        found += world.step(action)
    return found


# What is recorded


def test_a_step_is_gymnasiums():
    """The same seeds and scaled actions by hand give the same numbers, a cut and a new episode included."""
    world = GymnasiumEnvironment("Pendulum-v1", 2, seed=5, max_episode_steps=4)
    observation = world.reset()
    for copy in range(2):
        by_hand = gymnasium.make("Pendulum-v1", max_episode_steps=4)
        start, _ = by_hand.reset(seed=episode_seed(5, copy, 0))
        assert torch.equal(observation[copy], torch.from_numpy(start))
    action = torch.tensor([[-1.0], [0.25]])
    for step in range(4):
        outcome = world.step(action)
        found, reward, _, truncated, _ = by_hand.step(np.array([0.5], np.float32))  # torques are from -2 to 2
        assert torch.equal(outcome.next_observation[1], torch.from_numpy(found))
        assert outcome.reward[1].item() == np.float32(reward)
        assert outcome.truncated.tolist() == [truncated] * 2 == [step == 3] * 2
        assert not outcome.terminated.any()
    start, _ = by_hand.reset(seed=episode_seed(5, 1, 1))
    assert torch.equal(outcome.observation[1], torch.from_numpy(start))
    assert [episode[2] for episode in world.episodes] == [4, 4]


def test_kinds_of_spaces():
    assert GymnasiumEnvironment("FrozenLake-v1").spec == EnvironmentSpec("FrozenLake-v1", (), 16, num_actions=4)
    assert GymnasiumEnvironment("Pendulum-v1").spec == EnvironmentSpec("Pendulum-v1", (3,), num_action_dims=1)
    lake = GymnasiumEnvironment("FrozenLake-v1", 3)
    recording = next(iter(Rollouts(lake, UniformChoice(4), 9)))
    assert recording["observation"].dtype == torch.long
    assert recording["reward"].dtype == torch.float32


def test_numbers_from_another_start():
    class Shifted(Spaces):
        def __init__(self):
            super().__init__(Discrete(3, start=5), Discrete(2, start=-1))

        def reset(self, *, seed=None, options=None):
            return 5, {}

        def step(self, action):
            return 6 + action, float(action), False, False, {}

    gymnasium.register("Shifted-v0", Shifted)
    world = GymnasiumEnvironment("Shifted-v0", 2)
    assert world.reset().tolist() == [0, 0]
    outcome = world.step(torch.tensor([0, 1]))
    assert outcome.reward.tolist() == [-1.0, 0.0]
    assert outcome.observation.tolist() == [0, 1]


def check_clock(world, steps=40):
    """No row is of a step that was none: time goes on by one, pays itself, and begins at ten."""
    recording = next(iter(Rollouts(world, UniformChoice(2), steps)))
    before, after = recording["observation"], recording["next_observation"]
    ended = recording["terminated"] | recording["truncated"]
    assert ended.sum() > 10
    assert torch.equal(after[..., 0], before[..., 0] + 1)
    assert torch.equal(recording["reward"], after[..., 0])
    assert torch.equal(recording["terminated"], after[..., 0] == after[..., 1])
    assert torch.equal(before[..., 1], after[..., 1])
    assert (before[1:][ended[:-1]][:, 0] == 10).all()
    assert torch.equal(before[1:][~ended[:-1]], after[:-1][~ended[:-1]])
    return recording


def test_copies_of_an_id():
    world = GymnasiumEnvironment("Clock-v0", 4)
    recording = check_clock(world)
    lengths = [int(length) for _, _, length in world.episodes]
    assert len(lengths) == recording["terminated"].sum()
    assert set(lengths) == {2, 3, 4, 5}
    assert all(total == sum(range(11, 11 + length)) for _, total, length in world.episodes)
    assert world.episodes[-1].num_environment_steps <= world.num_environment_steps == 160


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("parallel", [False, True])
def test_vector_environments(mode, parallel):
    """Whoever begins the next episode, and when: a step in between is in no recording."""
    envs = (AsyncVectorEnv if parallel else SyncVectorEnv)([Clock] * 4, autoreset_mode=mode)
    world = GymnasiumEnvironment(envs, seed=3)
    recording = check_clock(world)
    assert {int(length) for _, _, length in world.episodes} == {2, 3, 4, 5}
    assert recording["terminated"].sum() == len(world.episodes)
    world.close()


def test_vector_environments_that_cannot_leave_a_step_out():
    with pytest.raises(
        UsageError, match=r"CartPoleVectorEnv with autoreset_mode=.*NEXT_STEP.*SAME_STEP, or pass the id"
    ):
        GymnasiumEnvironment(gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="vector_entry_point"))
    workers = AsyncVectorEnv([Clock] * 2, shared_memory=False)
    with pytest.raises(UsageError, match="could be recorded: make it with autoreset_mode="):
        GymnasiumEnvironment(workers)
    workers.close()
    with pytest.raises(UsageError, match="where the vector environment Clock-v0 is cannot be saved: pass the id"):
        GymnasiumEnvironment(gymnasium.make_vec("Clock-v0", 2, vectorization_mode="sync")).state_dict()


def check_bootstraps():
    """With a value of 7 everywhere, what was cut off is worth it, and what ended is not."""
    for name, settings, worth in (("Clock-v0", {}, 0.0), ("Pendulum-v1", {"max_episode_steps": 3}, 7.0)):
        world = GymnasiumEnvironment(name, 4, **settings)
        policy = UniformChoice(2) if name == "Clock-v0" else UniformBox(1)
        recording = next(iter(Rollouts(world, policy, 12)))
        reward, terminated, truncated = (recording[column] for column in ("reward", "terminated", "truncated"))
        returns = lambda_returns(reward, torch.full_like(reward, 7.0), terminated, truncated, 1.0, 1.0)
        last = terminated | truncated
        assert last.sum() > 4
        torch.testing.assert_close(returns[last], reward[last] + worth)


def test_truncation_bootstraps_and_termination_does_not():
    check_bootstraps()


def test_an_end_goes_before_a_cut():
    """Where an episode terminates at the very step of the time limit, nothing follows."""
    world = GymnasiumEnvironment("Clock-v0", 4, max_episode_steps=2)
    recording = next(iter(Rollouts(world, UniformChoice(2), 40)))
    assert recording["terminated"].any()
    assert recording["truncated"].any()
    assert not (recording["terminated"] & recording["truncated"]).any()


# To resume


def check_resume(name, at, settings):
    generator = torch.Generator().manual_seed(at)
    world = GymnasiumEnvironment(name, 3, seed=1, **settings)
    played(world, at, generator)
    skeleton, tensors = pack(world.state_dict())
    state = unpack(skeleton, tensors)
    where = generator.get_state()
    expected = played(world, 30, generator, observation=True)
    again = GymnasiumEnvironment(name, 3, seed=99, **settings)
    again.load_state_dict(state)
    generator.set_state(where)
    found = played(again, 30, generator, observation=True)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert again.episodes == world.episodes
    assert again.num_environment_steps == world.num_environment_steps


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("CartPole-v1", {}),
        ("Pendulum-v1", {"max_episode_steps": 20}),
        ("FrozenLake-v1", {}),
        ("Acrobot-v1", {}),
        ("MountainCarContinuous-v0", {}),
        ("Clock-v0", {}),
    ],
)
def test_resume(name, settings):
    """From what a run directory can hold, in the middle of episodes, to the bit; chance within episodes included."""
    for at in (0, 1, *np.random.default_rng(0).integers(2, 60, 4).tolist()):
        check_resume(name, at, settings)


def test_a_seed_for_each_episode():
    """Copies and episodes differ, and are the same wherever they are played."""
    assert len({episode_seed(s, c, e) for s in range(3) for c in range(4) for e in range(50)}) == 600
    few, many = GymnasiumEnvironment("CartPole-v1", 2, seed=7), GymnasiumEnvironment("CartPole-v1", 5, seed=7)
    assert torch.equal(few.reset(), many.reset()[:2])


def test_what_does_not_come_back():
    """An environment that keeps something from one episode to the next is not taken up elsewhere."""
    world = GymnasiumEnvironment("Forgetful-v0", 2)
    world.reset()
    state = world.state_dict()
    with pytest.raises(
        DataError, match=r"did not come back to where it was saved.*copy 0, step 0 of.*let reset\(seed="
    ):
        world.load_state_dict(state)
    world = GymnasiumEnvironment("Clock-v0", 2)
    played(world, 1, torch.Generator())
    state = world.state_dict()
    state["copies"]["observation"] = state["copies"]["observation"] + torch.tensor([[0.0], [1.0]])
    with pytest.raises(DataError, match=r"did not come back to where it was saved.*copy 1, step 1 of"):
        world.load_state_dict(state)


def test_what_breaks_when_it_is_played_again():
    """The step is that of the episode which failed now, and not the one after the last that was saved."""
    world = GymnasiumEnvironment("Clock-v0", 2)
    world.reset()
    world.step(torch.zeros(2, dtype=torch.long))
    state, worn = world.state_dict(), world.copies.envs[1].unwrapped
    worn.breaks, worn.at = "raise", 1
    with pytest.raises(DataError, match=r"played again: the spring is broken: copy 1, step 1 of.*let reset\(seed="):
        world.load_state_dict(state)
    assert world.copies.envs == []


# What breaks


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        ("raise", "raised RuntimeError: the spring is broken"),
        ("observation", "returned an observation that is not finite"),
        ("reward", "returned a reward that is not finite"),
    ],
)
def test_an_environment_that_breaks(breaks, message):
    """It is named, with the copy, the step and the seed; it is closed; and what came before can be gone on from."""
    world = GymnasiumEnvironment("Clock-v0", 2, seed=4, breaks=breaks, at=2)
    rollouts = iter(Rollouts(world, UniformChoice(2), 1))
    first = next(rollouts)
    state = world.state_dict()
    seed = episode_seed(4, 0, 0)
    with pytest.raises(DataError, match=rf"^Clock-v0 {message}: copy 0, step 2 of the episode with seed {seed}\. Lo"):
        next(rollouts)
    assert first["reward"].tolist() == [[11.0, 11.0]]
    assert world.copies.envs == []
    assert world.num_environment_steps == 2
    for name, value in world.state_dict()["copies"].items():
        assert repr(value) == repr(state["copies"][name])
    with pytest.raises(UsageError, match="was closed: begin with reset"):
        world.step(torch.zeros(2, dtype=torch.long))
    world.load_state_dict(state)
    with pytest.raises(DataError, match=message):
        world.step(torch.zeros(2, dtype=torch.long))


def test_a_start_that_is_none():
    with pytest.raises(
        DataError, match=rf"returned an observation that is not finite: copy 0, step 0 of .* {episode_seed(0, 0, 0)}"
    ):
        GymnasiumEnvironment("Clock-v0", breaks="observation", at=0).reset()


@pytest.mark.filterwarnings("ignore:.*ERROR:UserWarning")  # how gymnasium logs
@pytest.mark.parametrize("breaks", ["raise", "observation", "reward"])
@pytest.mark.parametrize("parallel", [False, True])
def test_a_vector_environment_that_breaks(breaks, parallel):
    envs = (AsyncVectorEnv if parallel else SyncVectorEnv)([Clock, lambda: Clock(breaks, 2)])
    world = GymnasiumEnvironment(envs, seed=4)
    where = "a copy, after [1, 1] steps" if breaks == "raise" else "copy 1, step 2"
    with pytest.raises(DataError) as caught:
        next(iter(Rollouts(world, UniformChoice(2), 10)))
    assert f"{where} of the episode, of copies first reset with seed 4" in str(caught.value)
    assert envs.closed
    if parallel:
        assert not any(process.is_alive() for process in envs.processes)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (torch.tensor([0, 2]), "environment 1 was given action 2, expected one from 0 to 1"),
        (torch.tensor([-1, 0]), "environment 0 was given action -1"),
        (torch.tensor([0.0, 1.0]), "found actions of torch.float32"),
        (torch.tensor([[0], [1]]), r"shape \(2, 1\), expected whole numbers, shape \(2,\)"),
    ],
)
def test_choices_that_are_none(action, message):
    world = GymnasiumEnvironment("CartPole-v1", 2)
    world.reset()
    with pytest.raises(UsageError, match=message):
        world.step(action)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (torch.tensor([[0.0], [1.5]]), "environment 1 was given 1.5 for coordinate 0"),
        (torch.tensor([[torch.nan], [0.5]]), "environment 0 was given nan for coordinate 0"),
        (torch.tensor([[0], [1]]), "found actions of torch.int64"),
        (torch.tensor([0.0, 1.0]), r"shape \(2,\), expected coordinates in \(-1, 1\), shape \(2, 1\)"),
    ],
)
def test_coordinates_that_are_none(action, message):
    world = GymnasiumEnvironment("Pendulum-v1", 2)
    world.reset()
    with pytest.raises(UsageError, match=message):
        world.step(action)


def test_what_is_refused(monkeypatch):
    with pytest.raises(UsageError, match=r"by the id CartPole-v0?9.*did you mean CartPole-v1"):
        GymnasiumEnvironment("CartPole-v9")
    with pytest.raises(UsageError, match=r"Pendulum-v1 cannot be made with the settings \{'mass': 3\}: TypeError: "):
        GymnasiumEnvironment("Pendulum-v1", mass=3)
    with pytest.raises(UsageError, match=r"cannot be made with the settings \{'map_name': '9x9'\}: KeyError: '9x9'"):
        GymnasiumEnvironment("FrozenLake-v1", map_name="9x9")
    with pytest.raises(UsageError, match=r"Clock-v0 cannot be made with .*: OSError: the spring is lost"):
        GymnasiumEnvironment("Clock-v0", breaks="making")
    with pytest.raises(UsageError, match="was saved with 2 copies, and there are 1: make as many"):
        GymnasiumEnvironment("Pendulum-v1").load_state_dict(GymnasiumEnvironment("Pendulum-v1", 2).state_dict())
    with pytest.raises(UsageError, match="num_environments must be at least 1 and seed at least 0, found 0 and 0"):
        GymnasiumEnvironment("Pendulum-v1", 0)
    bounded = Box(-1.0, 1.0, (2,))
    with pytest.raises(UsageError, match=r"has observations in Dict.*FlattenObservation, and register"):
        GymnasiumEnvironment("Spaces-v0", observation_space=Dict(a=bounded), action_space=bounded)
    with pytest.raises(UsageError, match="has actions without bounds"):
        GymnasiumEnvironment("Spaces-v0", observation_space=bounded, action_space=Box(-1.0, np.inf, (2,)))
    with pytest.raises(UsageError, match="expected one of them: actions are a choice or a box"):
        EnvironmentSpec("world", (3,), num_actions=2, num_action_dims=1)
    with pytest.raises(UsageError, match="num_actions must be at least 1, found 0"):
        EnvironmentSpec("world", (3,), num_actions=0)
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(UsageError, match=r"environments need gymnasium: pip install 'pyrogen-ppl\[rl\]'"):
        GymnasiumEnvironment("CartPole-v1")


# Normalised


def raw(world, steps, seed=0):
    """Return the rows that a random policy saw, and its rewards and ends."""
    generator = torch.Generator().manual_seed(seed)
    seen, outcomes = [world.reset()], []
    for _ in range(steps):
        action = 2 * torch.rand(world.num_environments, 1, generator=generator) - 1
        outcomes.append(world.step(action))
        seen.append(outcomes[-1].observation)
    return seen, outcomes


def check_statistics():
    """At each step, what came is scaled by mean and variance, in two passes, of all that came so far."""
    settings = {"num_environments": 3, "max_episode_steps": 7}
    seen, outcomes = raw(GymnasiumEnvironment("Pendulum-v1", **settings), 25)
    world = Normalized(GymnasiumEnvironment("Pendulum-v1", **settings), rewards=True, discount=0.9)
    scaled, scaled_outcomes = raw(world, 25)
    returns, running = [], torch.zeros(3, dtype=torch.float64)
    for n in range(26):
        so_far = torch.cat(seen[: n + 1]).double()
        mean, spread = so_far.mean(0), (so_far.var(0, correction=0) + 1e-8).sqrt()
        torch.testing.assert_close(scaled[n].double(), ((seen[n] - mean) / spread).clamp(-10, 10), atol=1e-5, rtol=1e-5)
        if n:
            outcome, found = outcomes[n - 1], scaled_outcomes[n - 1]
            last = ((outcome.next_observation - mean) / spread).clamp(-10, 10)
            torch.testing.assert_close(found.next_observation.double(), last, atol=1e-5, rtol=1e-5)
            running = 0.9 * running + outcome.reward
            returns.append(running)
            spread = (torch.cat(returns).var(correction=0) + 1e-8).sqrt()
            expected = (outcome.reward / spread).clamp(-10, 10)
            torch.testing.assert_close(found.reward.double(), expected.double(), atol=1e-5, rtol=1e-5)
            running = running * ~outcome.truncated
    assert world.episodes == world.environment.episodes
    assert world.episodes[0].total_reward == pytest.approx(sum(o.reward[0].item() for o in outcomes[:7]), rel=1e-5)


def test_statistics():
    check_statistics()


def test_what_is_recorded_is_what_was_acted_on():
    """One pass over a recording gives each action the density that it had, though the statistics moved on."""
    policy = TanhNormalPolicy(nn.Linear(3, 2))
    world = Normalized(GymnasiumEnvironment("Pendulum-v1", 3, max_episode_steps=5))
    seen = []

    class Watched(Normalized):
        def step(self, action):
            outcome = super().step(action)
            seen.append(outcome.observation)
            return outcome

    world.__class__ = Watched
    recording = next(iter(Rollouts(world, policy, 12)))
    assert torch.equal(recording["observation"][1:], torch.stack(seen[:-1]))
    going_on = ~recording["truncated"][:-1]
    assert torch.equal(recording["observation"][1:][going_on], recording["next_observation"][:-1][going_on])
    log_q = policy.distribution(recording["observation"]).log_prob(recording["action"])
    torch.testing.assert_close(log_q, recording["log_prob"])


def test_statistics_resume_and_freeze():
    world = Normalized(GymnasiumEnvironment("Pendulum-v1", 2, max_episode_steps=5), rewards=True)
    rollouts = Rollouts(world, UniformBox(1), 8)
    next(iter(rollouts))
    skeleton, tensors = pack(rollouts.state_dict())
    rng = torch.get_rng_state()
    expected = next(iter(rollouts))
    again = Normalized(GymnasiumEnvironment("Pendulum-v1", 2, max_episode_steps=5), rewards=True)
    resumed = Rollouts(again, UniformBox(1), 8)
    resumed.load_state_dict(unpack(skeleton, tensors))
    torch.set_rng_state(rng)
    found = next(iter(resumed))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    mean = world.observations.mean
    test = world.for_evaluation(GymnasiumEnvironment("Pendulum-v1", 4, seed=1))
    recording = next(iter(Rollouts(test, UniformBox(1), 5)))
    assert recording["reward"].min() < -1  # as they are
    assert torch.equal(world.observations.mean, mean)
    world.frozen = True
    next(iter(rollouts))
    assert torch.equal(world.observations.mean, mean)
    with pytest.raises(UsageError, match=r"of torch.int64, of which there is no mean: Normalized\(..., observations=F"):
        Normalized(GymnasiumEnvironment("FrozenLake-v1")).reset()
    for name in ("observations", "rewards"):
        settings = {"observations": True, "rewards": True}
        both, one = (
            Normalized(GymnasiumEnvironment("Pendulum-v1"), **(settings | {name: has})) for has in (True, False)
        )
        with pytest.raises(
            UsageError, match=f"^{name} were normalised where this was saved, and are not here: make.*=Tr"
        ):
            one.load_state_dict(both.state_dict())
        with pytest.raises(
            UsageError, match=f"^{name} were not normalised where this was saved, and are here: make.*=F"
        ):
            both.load_state_dict(one.state_dict())
    with pytest.raises(UsageError, match="discount must be between 0 and 1, found 2"):
        Normalized(GymnasiumEnvironment("Pendulum-v1"), discount=2)


# Mutants


def test_mutant_next_step_as_it_comes(monkeypatch):
    """Without a reset of its own, a step that is none comes into the recording: reward zero, and time runs back."""
    monkeypatch.setattr(SyncVectorEnv, "reset", lambda self, options=None, original=SyncVectorEnv.reset, **settings: (
        (self._observations.copy(), {}) if options else original(self, **settings)
    ))  # fmt: skip
    with pytest.raises(AssertionError):
        check_clock(GymnasiumEnvironment(SyncVectorEnv([Clock] * 4)))


def test_mutant_start_for_the_last_observation(monkeypatch):
    """In the same step, what a vector environment returns is the new episode's."""
    original = VectorCopies.step

    def mutant(self, actions):
        moved = original(self, actions)
        return moved._replace(next_observation=moved.observation)

    monkeypatch.setattr(VectorCopies, "step", mutant)
    with pytest.raises(AssertionError):
        check_clock(GymnasiumEnvironment(SyncVectorEnv([Clock] * 4, autoreset_mode=AutoresetMode.SAME_STEP)))


def test_mutant_cut_for_an_end(monkeypatch):
    original = GymnasiumEnvironment.step

    def mutant(self, action):
        outcome = original(self, action)
        ended = outcome.terminated | outcome.truncated
        return outcome._replace(terminated=ended, truncated=ended & ~ended)

    monkeypatch.setattr(GymnasiumEnvironment, "step", mutant)
    with pytest.raises(AssertionError):
        check_bootstraps()


def test_mutant_actions_forgotten(monkeypatch):
    """The running episodes would begin anew; without the look at where they lead, nobody would be told."""
    original = SeededCopies.state_dict
    monkeypatch.setattr(SeededCopies, "state_dict", lambda self: {**original(self), "actions": [None] * 3})
    with pytest.raises(DataError, match="did not come back to where it was saved"):
        check_resume("CartPole-v1", 5, {})


def test_mutant_one_generator_for_all_episodes(monkeypatch):
    """Where later episodes go on from the first's generator, seed and actions of the last do not say where it is."""
    original = SeededCopies._begun

    def mutant(self, copy, episode):
        return original(self, copy, episode) if episode == 0 else self.envs[copy].reset()[0]

    monkeypatch.setattr(SeededCopies, "_begun", mutant)
    with pytest.raises((AssertionError, DataError)):
        check_resume("CartPole-v1", 59, {})


def test_mutant_next_observation_by_older_statistics(monkeypatch):
    original = Normalized.step

    def mutant(self, action):
        self._see, see = lambda observation: None, self._see
        outcome = original(self, action)
        self._see = see
        return outcome

    monkeypatch.setattr(Normalized, "step", mutant)
    with pytest.raises(AssertionError):
        check_statistics()
