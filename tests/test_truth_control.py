"""Exact control as inference: known answers, sums over all trajectories, linear solves, limits of temperature."""

import math

import pytest
import torch
from known_answers import SOFT_MDP_TRUTH as T

import pyrogen.evaluation.control as module
from pyrogen.errors import NonFiniteError, UsageError
from pyrogen.evaluation import policy_values, posterior_values, smooth_trajectories, variational_values
from pyrogen.mdp import MDP

pytestmark = pytest.mark.usefixtures("double")
SOFT = MDP(T.P, T.R)
GAMMA = 0.8
PRIOR = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5], [0.2, 0.8]], dtype=torch.float64)


def check_known_answers():
    for function, V, policy in (
        (variational_values, T.V_variational, T.policy_variational),
        (posterior_values, T.V_posterior, T.policy_posterior),
    ):
        found = function(SOFT, horizon=T.horizon)
        assert found.values.shape == (5, 4)
        assert found.policy.shape == found.action_values.shape == (5, 4, 2)
        torch.testing.assert_close(found.values[0], V, atol=1e-9, rtol=0)
        torch.testing.assert_close(found.policy[0], policy, atol=1e-9, rtol=0)


def test_known_answers():
    check_known_answers()


def test_both_quantities_are_one_where_nothing_is_left_to_chance():
    certain = torch.nn.functional.one_hot(T.P.argmax(-1), 4).double()
    for function in (variational_values, posterior_values):
        found = function(MDP(certain, T.R), horizon=T.horizon)
        torch.testing.assert_close(found.values[0], T.V_deterministic, atol=1e-9, rtol=0)


def trajectories(mdp, start, prior, temperature, horizon):
    """List all trajectories: states, actions, the logarithm of their prior, and of their weight."""
    path = torch.cartesian_prod(
        *[torch.arange(mdp.num_states)] * (horizon + 1), *[torch.arange(mdp.num_actions)] * horizon
    )
    s, a = path[:, : horizon + 1].T, path[:, horizon + 1 :].T
    log_p = start.log()[s[0]] + mdp.transitions.log()[s[:-1], a, s[1:]].sum(0)
    log_prior = prior.log()[torch.arange(horizon)[:, None], s[:-1], a].sum(0)
    return s, a, log_p, log_prior, mdp.rewards[s[:-1], a].sum(0) / temperature


def check_enumeration(temperature=0.7, horizon=3):
    """Evidence, marginals, and posterior policy are sums over all trajectories, with a prior for each time step."""
    start = torch.tensor([0.1, 0.6, 0.3, 0.0])
    prior = torch.stack([PRIOR, PRIOR.flip(0), PRIOR.flip(1)])
    s, a, log_p, log_prior, optimal = trajectories(SOFT, start, prior, temperature, horizon)
    log_joint = log_p + log_prior + optimal
    found = smooth_trajectories(SOFT, start, prior, temperature=temperature, horizon=horizon)
    torch.testing.assert_close(found.log_evidence, log_joint.logsumexp(0))
    weight = log_joint.softmax(0)
    policy = posterior_values(SOFT, prior, temperature=temperature, horizon=horizon).policy
    for t in range(horizon + 1):
        states = torch.zeros(4).index_add(0, s[t], weight)
        torch.testing.assert_close(found.states[t], states)
        if t < horizon:
            actions = torch.zeros(8).index_add(0, 2 * s[t] + a[t], weight).reshape(4, 2)
            torch.testing.assert_close(found.actions[t], actions)
            torch.testing.assert_close((actions / states[:, None])[states > 0], policy[t][states > 0])


def test_sum_over_all_trajectories():
    check_enumeration()


def test_evidence_of_the_known_answers_by_enumeration():
    s, _, log_p, log_prior, optimal = trajectories(
        SOFT, torch.eye(4)[1], torch.full((5, 4, 2), 0.5), 1.0, T.horizon
    )  # fmt: skip
    assert s.shape[1] == 4**6 * 2**5
    assert (log_p + log_prior + optimal).logsumexp(0).item() == pytest.approx(T.V_posterior[1].item(), abs=1e-12)
    found = smooth_trajectories(SOFT, torch.eye(4)[1], horizon=T.horizon)
    assert found.log_evidence.item() == pytest.approx(T.V_posterior[1].item(), abs=1e-12)


def check_policy_values(horizon=3, temperature=0.7):
    """The ELBO of a policy is the mean over its trajectories of optimality less the log-ratio to the prior."""
    q = torch.stack([PRIOR, PRIOR.flip(1), PRIOR.flip(0)])
    prior = PRIOR.roll(1, 0).expand(3, 4, 2)
    found = policy_values(SOFT, q, prior[0], temperature=temperature, horizon=horizon)
    for state in range(4):
        start = torch.eye(4)[state]
        _, _, log_p, log_q, optimal = trajectories(SOFT, start, q, temperature, horizon)
        log_prior = trajectories(SOFT, start, prior, temperature, horizon)[3]
        elbo = ((log_p + log_q).exp() * (optimal + log_prior - log_q)).sum()
        torch.testing.assert_close(found[0, state], elbo)


def test_elbo_of_a_policy():
    check_policy_values()


def test_bounds():
    """The best policy has the variational value, any other less; above is the evidence, by what dynamics cannot do."""
    for discount in (GAMMA, 1.0):
        best = variational_values(SOFT, PRIOR, horizon=5, discount=discount)
        torch.testing.assert_close(policy_values(SOFT, best.policy, PRIOR, horizon=5, discount=discount), best.values)
    hopeful = posterior_values(SOFT, PRIOR, horizon=5)
    assert (policy_values(SOFT, hopeful.policy, PRIOR, horizon=5)[0] < best.values[0]).all()
    assert (best.values[:4] < hopeful.values[:4]).all()


def test_gradient_at_the_best_policy_is_zero():
    """Of the ELBO in the policy's logits: the value is the largest."""
    logits = variational_values(SOFT, horizon=5).policy.log().requires_grad_()
    (gradient,) = torch.autograd.grad(policy_values(SOFT, logits.softmax(-1), horizon=5)[0].sum(), logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


def test_a_policy_that_never_does_something():
    """Nothing is lost by an action that is not taken; one that the prior excludes may not be."""
    never = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    assert policy_values(SOFT, never, horizon=2)[1, 0].item() == pytest.approx(0.6 - math.log(2))
    with pytest.raises(UsageError, match="takes action 1 in state 0, which the prior excludes"):
        policy_values(SOFT, torch.full((4, 2), 0.5), never, horizon=2)
    torch.testing.assert_close(variational_values(SOFT, never, horizon=2).policy, never.expand(2, 4, 2))


@pytest.mark.parametrize("settings", [{"horizon": 2}, {"discount": 0.5}])
@pytest.mark.parametrize("excluded", [False, True])
def test_gradient_where_an_action_is_never_taken(settings, excluded):
    """By logits so far apart that a probability is 0, the others have their gradient, and it none."""
    logits = torch.tensor([[2000.0, 0.0], [0.3, 0.1], [0.0, 0.5], [1.0, 0.0]], requires_grad=True)
    prior = torch.cat([torch.tensor([[1.0, 0.0]]), PRIOR[1:]]) if excluded else PRIOR

    def value(logits):
        return policy_values(SOFT, logits.softmax(-1), prior, **settings).sum()

    (found,) = torch.autograd.grad(value(logits), logits)
    with torch.no_grad():
        steps = 1e-5 * torch.eye(8).reshape(8, 4, 2)
        differences = torch.stack([(value(logits + step) - value(logits - step)) / 2e-5 for step in steps])
    torch.testing.assert_close(found, differences.reshape(4, 2), atol=1e-8, rtol=1e-6)
    never = logits.softmax(-1).detach().requires_grad_()
    assert torch.autograd.grad(policy_values(SOFT, never, prior, **settings).sum(), never)[0].isfinite().all()


# Without end


def test_discounted_values():
    """One sweep changes nothing, a long horizon comes there, and a linear solve finds the policy's ELBO the same."""
    for function in (variational_values, posterior_values):
        found = function(SOFT, PRIOR, discount=0.5)
        long = function(SOFT, PRIOR, horizon=1000, discount=0.5)
        torch.testing.assert_close(found.values, long.values[0])
        torch.testing.assert_close(found.policy, long.policy[0])
    best = variational_values(SOFT, PRIOR, discount=GAMMA)
    torch.testing.assert_close(policy_values(SOFT, best.policy, PRIOR, discount=GAMMA), best.values)


def check_linear_evidence():
    r"""With u = exp V, the evidence is linear: u = M (γ P u + 1 - γ), M = sum over actions of p(a|s) exp(r/α)."""
    weight = PRIOR * SOFT.rewards.exp()
    moved = torch.einsum("sa,sat->st", weight, SOFT.transitions)
    u = torch.linalg.solve(torch.eye(4) - 0.5 * moved, 0.5 * weight.sum(1))
    torch.testing.assert_close(posterior_values(SOFT, PRIOR, discount=0.5).values, u.log())


def test_discounted_evidence_by_a_linear_solve():
    check_linear_evidence()


def test_endless_evidence_may_be_infinite():
    with pytest.raises(NonFiniteError, match="evidence of endless trajectories is infinite"):
        posterior_values(SOFT, discount=0.95)
    assert variational_values(SOFT, discount=0.95).values.isfinite().all()


def test_no_discount_left():
    for function in (variational_values, posterior_values):
        torch.testing.assert_close(function(SOFT, discount=0.0).values, (0.5 * SOFT.rewards.exp()).sum(1).log())


@pytest.mark.parametrize("discount", [0.9, 0.999, 0.9999])
def test_single_precision_without_end(discount):
    """Values of long endless trajectories are right to the last digits that single precision has.

    The truth is in double precision: of a step that brings c the posterior's u is e^c (γ u + 1 - γ), and the best
    policy's value is that of its own linear system, to which no single change of an action adds anything.
    """
    single = MDP(T.P.float(), T.R.float())
    found = variational_values(single, discount=discount)
    assert found.values.dtype == found.policy.dtype == torch.float32
    best = variational_values(SOFT, discount=discount)
    V = policy_values(SOFT, best.policy, discount=discount)
    improved = (T.R + discount * T.P @ V).logsumexp(1) - math.log(2)
    torch.testing.assert_close(improved, V, atol=0, rtol=1e-11)
    torch.testing.assert_close(found.values, V.float(), atol=0, rtol=4e-7)
    torch.testing.assert_close(policy_values(single, found.policy, discount=discount), V.float(), atol=0, rtol=4e-7)
    c = -1e-4
    step = MDP(torch.full((3, 1, 3), 1 / 3, dtype=torch.float32), torch.full((3, 1), c, dtype=torch.float32))
    log_u = math.log1p(-discount) + c - math.log1p(-discount * math.exp(c))
    torch.testing.assert_close(
        posterior_values(step, discount=discount).values, torch.full((3,), log_u).float(), atol=0, rtol=4e-7
    )


def test_evidence_that_single_numbers_cannot_hold():
    """Of a cost of 2000 nats in a state, and of a gain of 800 on the way out of one, only logarithms can be kept."""
    moves = torch.tensor([[[0.0, 1.0, 0.0]], [[0.0, 0.5, 0.5]], [[0.0, 0.0, 1.0]]])
    found = posterior_values(MDP(moves, torch.tensor([[800.0], [-2000.0], [0.0]])), discount=0.5)
    # u2 = 1, and e^-4000 adds nothing to u1 = e^-2000 (0.25 + 0.5)
    u1 = -2000 + math.log(0.75)
    assert found.values.tolist() == pytest.approx([800 + math.log(0.5), u1, 0.0], abs=1e-9)


# Limits of temperature


def test_infinite_temperature_gives_the_prior():
    for temperature in (1e9, math.inf):
        for function in (variational_values, posterior_values):
            found = function(SOFT, PRIOR, temperature=temperature, horizon=5)
            torch.testing.assert_close(found.policy, PRIOR.expand(5, 4, 2), atol=1e-8, rtol=0)
            torch.testing.assert_close(found.values, torch.zeros(5, 4), atol=1e-8, rtol=0)


def optimal(horizon, next_value):
    """Plan backwards, by the mean over next states, or by the best that can be reached: values and first actions."""
    V = torch.zeros(4)
    for _ in range(horizon):
        Q = T.R + next_value(V)
        V = Q.max(1).values
    return V, Q.argmax(1)


def mean_next(V):
    return T.P @ V


def best_next(V):
    return torch.where(T.P > 0, V, -math.inf).max(-1).values


def check_zero_temperature():
    alpha = 1e-4
    planned, hoped = optimal(5, mean_next), optimal(5, best_next)
    for function, (V, _) in ((variational_values, planned), (posterior_values, hoped)):
        found = function(SOFT, temperature=alpha, horizon=5)
        # each step adds at most log A, and log 1/p of each step of the best trajectory, times alpha
        torch.testing.assert_close(alpha * found.values[0], V, atol=alpha * 5 * math.log(2 / 0.2), rtol=0)
    at_zero = variational_values(SOFT, temperature=alpha, horizon=5).policy[0]
    torch.testing.assert_close(at_zero, torch.nn.functional.one_hot(planned[1], 2).double(), atol=1e-6, rtol=0)


def test_zero_temperature():
    """One plans for the mean, the other for luck: the variational policy is optimal."""
    check_zero_temperature()


def test_the_posterior_hopes_for_luck():
    """In states 2 and 3 the two policies differ at low temperatures: any action may lead to the best next state."""
    planned = variational_values(SOFT, temperature=1e-4, horizon=5).policy[0].argmax(1)
    hoped = posterior_values(SOFT, temperature=1e-4, horizon=5).policy[0].argmax(1)
    assert planned.tolist() == optimal(5, mean_next)[1].tolist()
    assert (planned != hoped).nonzero()[:, 0].tolist() == [2, 3]


# What is refused


def test_what_is_no_decision_process():
    with pytest.raises(UsageError, match=r"found \(4, 2, 3\)"):
        MDP(T.P[..., :3], T.R)
    off = T.P.clone()
    off[1, 0, 2] = 0.25
    with pytest.raises(UsageError, match=r"transitions\[1, 0\] is \[0.8, 0.0, 0.25, 0.0\]"):
        MDP(off, T.R)
    with pytest.raises(UsageError, match="not finite"):
        MDP(T.P, T.R.log())
    with pytest.raises(UsageError, match=r"transitions\[0, 0\]"):
        MDP(T.P - 0.3, T.R)
    with pytest.raises(UsageError, match=r"one floating-point type on one device, found torch.float64 .* torch.int64"):
        MDP(T.P, T.R.long())
    with pytest.raises(UsageError, match=r"found torch.float64 on cpu and torch.float32 on cpu: write rewards.to"):
        MDP(T.P, T.R.float())
    with pytest.raises(UsageError, match=r"found torch.int64 on cpu and torch.int64 on cpu"):
        MDP(torch.ones(1, 2, 1, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 5, "temperature": 0.0}, "temperature must be above 0"),
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"horizon": 5, "discount": 1.5}, "discount must be between 0 and 1"),
        ({}, "need a discount below 1"),
        ({"horizon": 5, "prior": PRIOR[:3]}, r"prior must have shape \(4, 2\) or \(5, 4, 2\), found \(3, 2\)"),
        ({"horizon": 5, "prior": 2 * PRIOR}, r"prior\[0\] is \[1.8, 0.2\]"),
        ({"discount": 0.9, "prior": PRIOR.expand(1, 4, 2)}, r"prior must have shape \(4, 2\), found \(1, 4, 2\)"),
    ],
)
def test_settings_out_of_range(settings, message):
    for function in (variational_values, posterior_values):
        with pytest.raises(UsageError, match=message):
            function(SOFT, **settings)


def test_start_must_be_a_distribution():
    with pytest.raises(UsageError, match=r"start must have shape \(4,\)"):
        smooth_trajectories(SOFT, torch.ones(3) / 3, horizon=2)
    with pytest.raises(UsageError, match=r"start\[\] is"):
        smooth_trajectories(SOFT, torch.ones(4), horizon=2)
    with pytest.raises(UsageError, match="horizon must be at least 1, found -1"):
        smooth_trajectories(SOFT, torch.ones(4) / 4, horizon=-1)


# Mutants


def test_mutant_quantities_swapped(monkeypatch):
    monkeypatch.setitem(globals(), "variational_values", posterior_values)
    with pytest.raises(AssertionError):
        check_known_answers()
    with pytest.raises(AssertionError):
        check_zero_temperature()


def test_mutant_messages_without_the_dynamics_lean(monkeypatch):
    """Smoothing with the variational messages: its evidence is only a bound."""
    monkeypatch.setattr(module, "posterior_values", variational_values)
    with pytest.raises(AssertionError):
        check_enumeration()


def test_mutant_divergence_of_the_wrong_sign(monkeypatch):
    original = module.relative
    monkeypatch.setattr(module, "relative", lambda q, log_prior: -original(q, log_prior))
    with pytest.raises(AssertionError):
        check_policy_values()
