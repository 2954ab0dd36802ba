"""Returns against their definitions as sums over each episode, and against the solved values of a small chain."""

import pytest
import torch
from torch import Tensor

import pyrogen.inference.returns as module
from pyrogen.errors import UsageError
from pyrogen.inference import discounted_returns, generalized_advantages, lambda_returns, v_trace

pytestmark = pytest.mark.usefixtures("double")
GAMMA, LAMBDA = 0.9, 0.7


def recording(time=9, environments=6):
    """Rewards, values that fit together, and episodes that end in either way, on the same step included."""
    generator = torch.Generator().manual_seed(3)
    rewards, values, after = (torch.randn(time, environments, generator=generator) for _ in range(3))
    terminated, truncated = (torch.rand(time, environments, generator=generator) < 0.2 for _ in range(2))
    ends = terminated | truncated
    ends[-1] = True
    next_values = torch.where(ends, after, torch.cat([values[1:], after[-1:]]))
    assert (terminated & truncated).any()
    assert (terminated & ~truncated)[:-1].any()
    assert (truncated & ~terminated)[:-1].any()
    return rewards, values, next_values, terminated, truncated


def n_step(n, t, rewards, next_values, terminated, truncated):
    """Sum up to n rewards of one environment from step t on, and what follows; return also whether the episode ended.

    The definition, step by step.
    """
    total = 0.0
    for k in range(n):
        total += GAMMA**k * rewards[t + k]
        if terminated[t + k]:
            return total, True
        if truncated[t + k] or t + k == len(rewards) - 1:
            return total + GAMMA ** (k + 1) * next_values[t + k], True
    return total + GAMMA**n * next_values[t + n - 1], False


def by_definition(rewards, next_values, terminated, truncated, decay):
    """Weigh the returns of all numbers of steps of an episode, the last of which has all the weight that is left."""
    found = torch.empty_like(rewards)
    for t in range(rewards.shape[0]):
        for e in range(rewards.shape[1]):
            columns = [x[:, e] for x in (rewards, next_values, terminated, truncated)]
            total, weight, ended, n = 0.0, 1.0, False, 0
            while not ended:
                n += 1
                value, ended = n_step(n, t, *columns)
                total += (weight if ended else (1 - decay) * weight) * value
                weight *= decay
            found[t, e] = total
    return found


def check_discounted():
    rewards, _, *rest = recording()
    torch.testing.assert_close(discounted_returns(rewards, *rest, GAMMA), by_definition(rewards, *rest, 1.0))


def check_lambda(decay):
    rewards, _, *rest = recording()
    torch.testing.assert_close(lambda_returns(rewards, *rest, GAMMA, decay), by_definition(rewards, *rest, decay))


def check_advantages(decay):
    rewards, values, *rest = recording()
    found = generalized_advantages(rewards, values, *rest, GAMMA, decay)
    torch.testing.assert_close(found, by_definition(rewards, *rest, decay) - values)


def v_trace_by_definition(log_ratios, rewards, values, next_values, terminated, truncated, decay, clip_rho, clip_c):
    """Sum the corrections of the paper's first equation; an advantage bootstraps from the next target."""
    time, environments = rewards.shape
    ratios = log_ratios.exp()
    targets, advantages = values.clone(), torch.empty_like(values)
    for e in range(environments):
        for t in reversed(range(time)):
            weight = 1.0
            for k in range(t, time):
                follows = 0.0 if terminated[k, e] else next_values[k, e]
                error = rewards[k, e] + GAMMA * follows - values[k, e]
                targets[t, e] += weight * ratios[k, e].clamp(max=clip_rho) * error
                weight = weight * GAMMA * decay * ratios[k, e].clamp(max=clip_c)
                if terminated[k, e] or truncated[k, e]:
                    break
            ends = terminated[t, e] or truncated[t, e] or t == time - 1
            following = 0.0 if terminated[t, e] else next_values[t, e] if ends else targets[t + 1, e]
            advantages[t, e] = ratios[t, e].clamp(max=clip_rho) * (rewards[t, e] + GAMMA * following - values[t, e])
    return targets, advantages


def check_v_trace(decay=0.8, clip_rho=1.3, clip_c=0.9):
    columns = recording()
    log_ratios = torch.randn(columns[0].shape, generator=torch.Generator().manual_seed(5))
    found = v_trace(log_ratios, *columns, GAMMA, decay, clip_rho, clip_c)
    targets, advantages = v_trace_by_definition(log_ratios, *columns, decay, clip_rho, clip_c)
    torch.testing.assert_close(found.targets, targets)
    torch.testing.assert_close(found.advantages, advantages)


def test_reward_to_go():
    check_discounted()


@pytest.mark.parametrize("decay", [0.0, LAMBDA, 1.0])
def test_lambda_returns(decay):
    check_lambda(decay)


@pytest.mark.parametrize("decay", [0.0, LAMBDA, 1.0])
def test_generalized_advantages(decay):
    check_advantages(decay)


def test_v_trace():
    check_v_trace()


@pytest.mark.parametrize("decay", [LAMBDA, 1.0])
def test_v_trace_on_policy(decay):
    """With the policy's own trajectories, targets are λ-returns, and with no decay the sums of n steps."""
    rewards, values, *rest = recording()
    found = v_trace(torch.zeros_like(rewards), rewards, values, *rest, GAMMA, decay)
    torch.testing.assert_close(found.targets, by_definition(rewards, *rest, decay))


def test_values_of_what_follows_termination_are_not_read():
    """A critic may say anything of a terminal state, and be infinite there."""
    rewards, values, next_values, terminated, truncated = recording()
    poisoned = torch.where(terminated, torch.full_like(next_values, torch.nan), next_values)
    for function in (discounted_returns, lambda_returns):
        torch.testing.assert_close(
            function(rewards, poisoned, terminated, truncated), function(rewards, next_values, terminated, truncated)
        )
    assert generalized_advantages(rewards, values, poisoned, terminated, truncated).isfinite().all()
    found = v_trace(torch.zeros_like(rewards), rewards, values, poisoned, terminated, truncated)
    assert found.targets.isfinite().all()
    assert found.advantages.isfinite().all()


def test_no_gradient():
    """Returns are targets: nothing that a critic or a policy made learns through them."""
    rewards, values, next_values, *flags = recording()
    columns = [x.requires_grad_() for x in (rewards, values, next_values)]
    log_ratios = torch.zeros_like(rewards).requires_grad_()
    found = [
        discounted_returns(rewards, next_values, *flags),
        lambda_returns(rewards, next_values, *flags),
        generalized_advantages(*columns, *flags),
        *v_trace(log_ratios, *columns, *flags),
    ]
    assert not any(x.requires_grad for x in found)


def test_what_weighs_nothing_is_not_looked_at():
    """With a decay of one no value is read but the last; what is not known of an episode stays there."""
    rewards, flags = torch.ones(4), torch.zeros(4, dtype=torch.bool)
    unknown = torch.tensor([torch.nan, torch.inf, torch.nan, 10.0])
    assert lambda_returns(rewards, unknown, flags, flags, decay=1.0).tolist() == [14.0, 13.0, 12.0, 11.0]
    assert lambda_returns(rewards, unknown, flags, flags, discount=0.0).tolist() == [1.0] * 4
    ends = torch.tensor([False, True, False, False])
    apart = lambda_returns(rewards, torch.tensor([0.0, 0.0, 0.0, torch.nan]), ends, flags, decay=1.0)
    assert apart[:2].tolist() == [2.0, 1.0]
    assert apart[2:].isnan().all()


@pytest.mark.parametrize("name", ["discount", "decay"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_settings_out_of_range(name, value):
    rewards, values, *rest = recording()
    message = f"{name} must be between 0 and 1, found {value}"
    with pytest.raises(UsageError, match=message):
        lambda_returns(rewards, *rest, **{name: value})
    with pytest.raises(UsageError, match=message):
        generalized_advantages(rewards, values, *rest, **{name: value})
    with pytest.raises(UsageError, match=message):
        v_trace(torch.zeros_like(rewards), rewards, values, *rest, **{name: value})
    for clip in ("clip_rho", "clip_c"):
        with pytest.raises(UsageError, match=f"{clip} must be at least 0, found -1"):
            v_trace(torch.zeros_like(rewards), rewards, values, *rest, **{clip: -1})


@pytest.mark.parametrize("shape", [(5,), (5, 2, 3)])
def test_environments_are_apart(shape):
    """What one environment brings says nothing of another; any number of dimensions may follow time."""
    rewards, next_values = torch.randn(shape), torch.randn(shape)
    terminated, truncated = torch.rand(shape) < 0.3, torch.rand(shape) < 0.3
    found = lambda_returns(rewards, next_values, terminated, truncated)
    flat = [x.reshape(5, -1) for x in (rewards, next_values, terminated, truncated)]
    apart = torch.stack([lambda_returns(*[x[:, e] for x in flat]) for e in range(flat[0].shape[1])], 1)
    torch.testing.assert_close(found, apart.reshape(shape))


def test_columns_that_do_not_fit():
    rewards, values, next_values, terminated, truncated = recording()
    with pytest.raises(UsageError, match=r"next_values has shape \(8, 6\) and rewards \(9, 6\)"):
        lambda_returns(rewards, next_values[1:], terminated, truncated)
    with pytest.raises(UsageError, match=r"truncated must be boolean, found torch.float64"):
        generalized_advantages(rewards, values, next_values, terminated, truncated.double())
    with pytest.raises(UsageError, match="at least one step"):
        discounted_returns(*[x[:0] for x in (rewards, next_values, terminated, truncated)])


# A chain of three states that a policy moves around in: values by a linear solve

P = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.2, 0.2, 0.6]], dtype=torch.float64)
R = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
ENDS = torch.tensor([0.0, 0.3, 0.1], dtype=torch.float64)  # the chance that nothing follows a step from there


def solved(reward=R, transition=P) -> Tensor:
    r"""Solve V = R + γ (1 - end) P V."""
    return torch.linalg.solve(torch.eye(3) - GAMMA * (1 - ENDS)[:, None] * transition, reward)


def walk(environments, time, transition=P):
    """Recorded steps from every state, cut off at an episode's end, and after four steps where none came."""
    state = torch.arange(environments) % 3
    states, afters, ends, cuts = [], [], [], []
    for t in range(time):
        after = torch.multinomial(transition[state], 1)[:, 0]
        end, cut = torch.rand(environments) < ENDS[state], torch.full((environments,), t % 4 == 3)
        states.append(state)
        afters.append(after)
        ends.append(end)
        cuts.append(cut)
        state = torch.where(end | cut, torch.arange(environments) % 3, after)
    return [torch.stack(x) for x in (states, afters, ends, cuts)]


def check_solved(function):
    """The mean return from each state at the first step is its value, within 4.5 standard errors."""
    V = solved()
    torch.manual_seed(0)
    states, afters, terminated, truncated = walk(30_000, 10)
    returns = function(R[states], V[states], V[afters], terminated, truncated)
    for state in range(3):
        found = returns[:, states[0] == state][0]
        assert abs(found.mean() - V[state]) < 4.5 * found.std() / len(found) ** 0.5


def by_lambda(rewards, values, next_values, terminated, truncated):
    return lambda_returns(rewards, next_values, terminated, truncated, GAMMA, LAMBDA)


def test_means_of_returns_are_the_solved_values():
    check_solved(by_lambda)


def test_v_trace_finds_the_values_of_another_policy():
    """Trajectories of one chain, weighed for another: the target's mean is the other's value, unclipped."""
    other = P.flip(1)
    V = solved(transition=other)
    torch.manual_seed(0)
    states, afters, terminated, truncated = walk(60_000, 4)
    log_ratios = (other / P).log()[states, afters]
    columns = R[states], V[states], V[afters], terminated, truncated
    found = v_trace(log_ratios, *columns, GAMMA, 1.0, float("inf"), float("inf")).targets
    for state in range(3):
        first = found[0, states[0] == state]
        assert abs(first.mean() - V[state]) < 4.5 * first.std() / len(first) ** 0.5


@pytest.mark.parametrize("decay", [0.0, LAMBDA])
def test_fixed_point_of_temporal_differences(decay):
    r"""Expected λ-returns, of all trajectories of three steps by enumeration, leave the solved values as they are.

    From any other values, each sweep comes nearer.
    """
    V, guess = solved(), torch.zeros(3)
    while (guess - V).abs().max() > 1e-9:
        moved = expected_lambda_returns(guess, decay)
        assert (moved - V).abs().max() <= GAMMA * (guess - V).abs().max()
        guess = moved
    torch.testing.assert_close(expected_lambda_returns(V, decay), V)


def expected_lambda_returns(V, decay):
    """Weigh the λ-return of every trajectory of three steps, and of every way to end, by its probability."""
    path = torch.cartesian_prod(*[torch.arange(3)] * 4, *[torch.arange(2)] * 3)
    s, ends = path[:, :4].T, path[:, 4:].T.bool()
    weight = (P[s[:-1], s[1:]] * torch.where(ends, ENDS[s[:-1]], 1 - ENDS[s[:-1]])).prod(0)
    returns = lambda_returns(R[s[:-1]], V[s[1:]], ends, torch.zeros_like(ends), GAMMA, decay)[0]
    return torch.zeros(3).index_add(0, s[0], weight * returns)


# Mutants

CHECKS = [check_discounted, lambda: check_lambda(LAMBDA), lambda: check_advantages(LAMBDA), check_v_trace]


def truncation_as_termination(monkeypatch):
    original = module._bootstrap
    truncated = recording()[-1]

    def mutant(next_values, terminated):
        return original(next_values, terminated | truncated)

    monkeypatch.setattr(module, "_bootstrap", mutant)


def termination_bootstraps(monkeypatch):
    monkeypatch.setattr(module, "_bootstrap", lambda next_values, terminated: next_values)


def truncation_goes_on(monkeypatch):
    original = module._goes_on
    monkeypatch.setattr(module, "_goes_on", lambda r, terminated, truncated: original(r, terminated, terminated))


def termination_goes_on(monkeypatch):
    original = module._goes_on
    monkeypatch.setattr(module, "_goes_on", lambda r, terminated, truncated: original(r, truncated, truncated))


def forwards_in_time(monkeypatch):
    original = module._summed_back
    monkeypatch.setattr(module, "_summed_back", lambda a, f: original(a.flip(0), f.flip(0)).flip(0))


@pytest.mark.parametrize("check", CHECKS, ids=["discounted", "lambda", "advantages", "v-trace"])
@pytest.mark.parametrize(
    "mutate",
    [truncation_as_termination, termination_bootstraps, truncation_goes_on, termination_goes_on, forwards_in_time],
)
def test_mutant_returns(mutate, check, monkeypatch):
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check()


def test_mutant_truncation_as_termination_of_values():
    """The mean return misses the solved value where a cut counts as an end."""

    def mutant(rewards, values, next_values, terminated, truncated):
        return by_lambda(rewards, values, next_values, terminated | truncated, truncated)

    with pytest.raises(AssertionError):
        check_solved(mutant)
