"""Control by the ELBO: exact gradients by enumeration, Pyro's own, a fit of the soft MDP, and the bugs of the field."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from known_answers import SOFT_MDP_TRUTH as T
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, TraceGraph_ELBO
from pyro.poutine.messenger import Messenger
from torch import nn

from pyrogen.data import Rollouts, TabularEnvironment
from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation import policy_values, posterior_values, variational_values
from pyrogen.inference import KLControl, train
from pyrogen.mdp import MDP
from pyrogen.models import (
    CategoricalPolicy,
    OptimalTrajectories,
    TanhNormalPolicy,
    UniformBox,
    UniformChoice,
    trajectory_plates,
)

double = pytest.mark.usefixtures("double")
SOFT = MDP(T.P, T.R)
START, ALPHA = 1, 0.7
PRIOR = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5], [0.2, 0.8]], dtype=torch.float64)


def logits_of_policy(horizon):
    return 0.6 * torch.randn((horizon + 1) * 4, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def trajectories(horizon):
    """Recordings of every trajectory that can come about, one an environment, and the probability of its dynamics."""
    path = torch.cartesian_prod(*[torch.arange(4)] * horizon, *[torch.arange(2)] * horizon)
    s = torch.cat([torch.full((1, len(path)), START), path[:, :horizon].T])
    a = path[:, horizon:].T
    probability = T.P[s[:-1], a, s[1:]].prod(0)
    s, a, probability = s[:, probability > 0], a[:, probability > 0], probability[probability > 0]
    t = torch.arange(horizon)[:, None]
    recording = {
        "observation": 4 * t + s[:-1],
        "action": a,
        "reward": T.R[s[:-1], a],
        "next_observation": 4 * (t + 1) + s[1:],
        "terminated": (t == horizon - 1).expand_as(a),
        "truncated": torch.zeros_like(a, dtype=torch.bool),
    }
    return recording, probability


class Prior(nn.Module):
    """A prior with parameters, which say the same at every time."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(PRIOR.log())

    def distribution(self, observation):
        return dist.Categorical(logits=self.logits[observation % 4])

    def forward(self, observation, reward, **_):
        with trajectory_plates(observation):
            pyro.sample("action", self.distribution(observation))
            pyro.factor("optimality", reward / ALPHA)


def copies(logits, environments):
    """A guide with logits of its own for each environment."""

    def guide(observation, **_):
        with trajectory_plates(observation):
            own = torch.arange(environments).expand_as(observation)
            pyro.sample("action", dist.Categorical(logits=logits[own, observation]))

    return guide


def exact(horizon):
    """The gradient of the ELBO in the policy's logits at each observation, and in the prior's."""
    logits, prior = logits_of_policy(horizon).requires_grad_(), PRIOR.log().requires_grad_()
    q = logits.softmax(-1).reshape(horizon + 1, 4, 2)[:horizon]
    elbo = policy_values(SOFT, q, prior.softmax(-1), temperature=ALPHA, horizon=horizon)
    return elbo, *torch.autograd.grad(elbo[0, START], (logits, prior))


class Table(nn.Module):
    """Values of observations: any, or those given."""

    def __init__(self, values):
        super().__init__()
        self.register_buffer("values", values)

    def forward(self, observation):
        return self.values[observation]


def values_of(horizon):
    return torch.cat([exact(horizon)[0].detach().flatten(), torch.zeros(4)])


def any_values(horizon):
    return torch.randn(4 * (horizon + 1), generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def expected(objective, horizon, steps=None):
    """Weigh each trajectory's gradient by its probability: the mean, without any draw."""
    recording, probability = trajectories(horizon)
    environments = recording["action"].shape[1]
    logits = logits_of_policy(horizon).expand(environments, -1, -1).clone().requires_grad_()
    own = torch.arange(environments)
    log_q = logits.detach().log_softmax(-1)[own, recording["observation"], recording["action"]]
    weight = probability * log_q.sum(0).exp()
    assert weight.sum().item() == pytest.approx(1.0)
    if steps is not None:
        recording = {name: column[:steps] for name, column in recording.items()}
        recording["truncated"] = (torch.arange(steps) == steps - 1)[:, None].expand_as(recording["action"])
    loss = objective(Prior(), copies(logits, environments), **recording)
    (gradient,) = torch.autograd.grad(-loss, logits)
    return (weight[:, None, None] * gradient).sum(0), weight


OBJECTIVES = {
    "any critic": lambda horizon: KLControl(Table(any_values(horizon))),
    "any critic, sampled KL": lambda horizon: KLControl(Table(any_values(horizon)), analytic_kl=False),
    "exact critic, TD": lambda horizon: KLControl(Table(values_of(horizon)), decay=0.0),
    "exact critic, sampled KL, decay": lambda horizon: KLControl(
        Table(values_of(horizon)), decay=0.6, analytic_kl=False
    ),
}


def check_gradient(objective, horizon=3):
    torch.testing.assert_close(expected(objective, horizon)[0], exact(horizon)[1])


@double
@pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)
def test_gradient_by_enumeration(make):
    """With whole returns any baseline will do, as long as it does not see the action; else it must be right."""
    check_gradient(make(3))


@double
def test_value_and_gradient_of_the_prior():
    """Both are means over trajectories, here of one environment after the other."""
    horizon = 2
    recording, probability = trajectories(horizon)
    model, logits = Prior(), logits_of_policy(horizon)
    policy = CategoricalPolicy(Table(logits))
    log_q = logits.log_softmax(-1)[recording["observation"], recording["action"]].sum(0)
    total = 0.0
    for e in range(len(probability)):
        one = {name: column[:, e : e + 1] for name, column in recording.items()}
        loss = KLControl(analytic_kl=False)(model, policy, **one)
        total = total - probability[e] * log_q[e].exp() * loss
    elbo, _, of_prior = exact(horizon)
    assert total.item() == pytest.approx(elbo[0, START].item(), abs=1e-12)
    (gradient,) = torch.autograd.grad(total, model.logits)
    torch.testing.assert_close(gradient, of_prior)


def check_truncated(objective, horizon=3):
    """Cut off before the end, with the value of what was not seen: the gradient of the steps that were."""
    gradient, _ = expected(objective, horizon, steps=2)
    torch.testing.assert_close(gradient[:8], exact(horizon)[1][:8])


@double
@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_truncation_bootstraps(decay):
    check_truncated(KLControl(Table(values_of(3)), decay=decay))


def pairs(objective, horizon=2):
    """The mean gradient of two environments, over all pairs of trajectories: a baseline may couple them."""
    recording, probability = trajectories(horizon)
    logits = logits_of_policy(horizon).requires_grad_()
    guide = CategoricalPolicy(Table(logits))
    guide.network.values = logits
    log_q = logits.detach().log_softmax(-1)[recording["observation"], recording["action"]].sum(0)
    weight = probability * log_q.exp()
    total = torch.zeros_like(logits)
    for i in range(len(weight)):
        for j in range(i + 1):
            two = {name: column[:, [i, j]] for name, column in recording.items()}
            (gradient,) = torch.autograd.grad(-objective(Prior(), guide, **two), logits)
            total += (1 if i == j else 2) * weight[i] * weight[j] * gradient
    return total / 2


@double
def test_the_mean_of_the_others_is_no_bias():
    torch.testing.assert_close(pairs(KLControl()), exact(2)[1])


@double
def test_discount_and_decay():
    """One environment, whose advantages are written out: soft rewards from each step on, and what a critic says."""
    recording, _ = trajectories(3)
    one = {name: column[:, 5:6] for name, column in recording.items()}
    logits = logits_of_policy(3).requires_grad_()
    policy = CategoricalPolicy(Table(logits))
    policy.network.values = logits
    s, a, V = one["observation"][:, 0], one["action"][:, 0], any_values(3)
    log_q = logits.log_softmax(-1)[s, a]
    soft = (one["reward"][:, 0] / ALPHA + PRIOR.log()[s % 4, a] - log_q).detach()
    after = torch.stack([V[one["next_observation"][0, 0]], V[one["next_observation"][1, 0]], torch.tensor(0.0)])
    last = soft[2]
    middle = soft[1] + 0.9 * (0.4 * after[1] + 0.6 * last)
    first = soft[0] + 0.9 * (0.4 * after[0] + 0.6 * middle)
    returns = torch.stack([first, middle, last])
    objective = KLControl(Table(V), discount=0.9, decay=0.6, analytic_kl=False)
    (found,) = torch.autograd.grad(-objective(Prior(), policy, **one), logits)
    (expected,) = torch.autograd.grad((log_q * (returns - V[s])).sum(), logits)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(objective.critic_loss(Prior(), policy, **one), (returns - V[s]).square().mean())


@double
@pytest.mark.parametrize("analytic_kl", [False, True])
def test_divergence_that_is_scaled(analytic_kl):
    """With sites scaled by a tempering of 0.1 the gradient is that of E[r] - 0.1 KL: the score is no part of it.

    One choice of three, by the mean over what is chosen.
    """
    scale, rewards = 0.1, torch.tensor([0.0, 1.0, 2.0])
    logits = torch.tensor([0.3, -0.2, 0.5], requires_grad=True)

    def guide(observation, **_):
        with trajectory_plates(observation), poutine.scale(scale=scale):
            pyro.sample("action", dist.Categorical(logits=logits))

    def model(observation, reward, **_):
        with trajectory_plates(observation):
            with poutine.scale(scale=scale):
                pyro.sample("action", dist.Categorical(logits=torch.zeros(3)))
            pyro.factor("optimality", reward)

    q = logits.softmax(0)
    elbo = (q * (rewards - scale * (q / (1 / 3)).log())).sum()
    ends, observation = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1)
    flags = {"terminated": ends, "truncated": ~ends, "observation": observation, "next_observation": observation}
    found = torch.zeros(3)
    for choice in range(3):
        action = torch.tensor([[choice]])
        loss = KLControl(analytic_kl=analytic_kl)(model, guide, action=action, reward=rewards[action], **flags)
        found -= q[choice].item() * torch.autograd.grad(loss, logits)[0]
    torch.testing.assert_close(found, torch.autograd.grad(elbo, logits)[0])


@double
def test_the_mean_of_the_others_removes_what_all_have():
    """The same reward more for each step changes no gradient at all."""
    recording, _ = trajectories(2)
    logits = logits_of_policy(2).requires_grad_()
    policy = CategoricalPolicy(Table(logits))
    policy.network.values = logits
    more = {**recording, "reward": recording["reward"] + 5.0}
    found = [torch.autograd.grad(KLControl()(Prior(), policy, **r), logits)[0] for r in (recording, more)]
    torch.testing.assert_close(*found)


# Pyro's own


def sequential(horizon, logits, learned=None):
    """The programs as one would write them in Pyro, step by step, dynamics included: model and guide."""

    def model():
        s = torch.tensor(START)
        for t in range(horizon):
            a = pyro.sample(f"a{t}", dist.Categorical(PRIOR[s]))
            pyro.factor(f"optimality{t}", T.R[s, a] / ALPHA)
            s = pyro.sample(f"s{t + 1}", dist.Categorical(T.P[s, a]))

    def guide():
        s = torch.tensor(START)
        for t in range(horizon):
            a = pyro.sample(f"a{t}", dist.Categorical(logits=logits[4 * t + s]))
            s = pyro.sample(f"s{t + 1}", dist.Categorical(T.P[s, a] if learned is None else learned(t, s, a)))

    return model, guide


class Forced(Messenger):
    """Draw, and put another value in the draw's place: Pyro follows what a draw depends on through its tensors."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg):
        if msg["name"] in self.values:
            msg["value"], msg["done"] = 0 * msg["fn"]() + self.values[msg["name"]], True


@double
def test_gradient_is_that_of_pyro():
    """TraceGraph_ELBO gives the same for each trajectory, and so in expectation, which is exact."""
    horizon = 2
    recording, probability = trajectories(horizon)
    logits = logits_of_policy(horizon).requires_grad_()
    model, guide = sequential(horizon, logits)
    policy = CategoricalPolicy(Table(logits))
    policy.network.values = logits
    total = torch.zeros_like(logits)
    for e in range(len(probability)):
        one = {name: column[:, e : e + 1] for name, column in recording.items()}
        actions, states = one["action"][:, 0], one["next_observation"][:, 0] % 4
        forced = {f"a{t}": actions[t] for t in range(horizon)} | {f"s{t + 1}": states[t] for t in range(horizon)}
        logits.grad = None
        loss = TraceGraph_ELBO().loss_and_grads(model, Forced(forced)(guide))
        ours = KLControl(analytic_kl=False)(Prior(), policy, **one)
        assert ours.item() == pytest.approx(loss, abs=1e-12)
        torch.testing.assert_close(torch.autograd.grad(ours, logits)[0], logits.grad)
        log_q = logits.detach().log_softmax(-1)[one["observation"], one["action"]].sum()
        total -= probability[e] * log_q.exp() * logits.grad
    torch.testing.assert_close(total, exact(horizon)[1])


# The bugs of the field


class SeesTheAction(KLControl):
    """Mutant: what the action itself brought is in its baseline."""

    def _baseline(self, returns, columns):
        return super()._baseline(returns, columns) + 0.5 * returns


class SeesItself(KLControl):
    """Mutant: the mean over all environments, its own among them."""

    def _baseline(self, returns, columns):
        return returns.mean(1, keepdim=True).expand_as(returns)


class OtherSign(KLControl):
    """Mutant: the divergence is added, as the slide prints it."""

    def _soft_rewards(self, traces, columns):
        optimality = traces.model.nodes["optimality"]["log_prob"]
        return 2 * optimality - super()._soft_rewards(traces, columns)


class TruncationAsTermination(KLControl):
    """Mutant: what was not seen is worth nothing."""

    def _returns(self, soft_rewards, columns):
        ends = columns["terminated"] | columns["truncated"]
        return super()._returns(soft_rewards, {**columns, "terminated": ends})


class OwnStepOnly(KLControl):
    """Mutant: an action is weighed by its own reward, and not by what follows."""

    def _returns(self, soft_rewards, columns):
        return soft_rewards


@double
@pytest.mark.parametrize("mutant", [SeesTheAction, OtherSign, OwnStepOnly])
@pytest.mark.parametrize("analytic_kl", [False, True])
def test_mutant_gradients(mutant, analytic_kl):
    with pytest.raises(AssertionError):
        check_gradient(mutant(Table(any_values(3)), analytic_kl=analytic_kl))


@double
def test_mutant_baseline_of_all_environments():
    found = pairs(SeesItself())
    with pytest.raises(AssertionError):
        torch.testing.assert_close(found, exact(2)[1])


@double
def test_mutant_truncation_as_termination():
    with pytest.raises(AssertionError):
        check_truncated(TruncationAsTermination(Table(values_of(3))))


@double
def test_mutant_dynamics_that_are_learned():
    """With a guide that may choose the next state, the same ELBO rises to the evidence: hope, and not a policy.

    Pyro's TraceEnum_ELBO sums over all trajectories, so that nothing is left to chance.
    """
    horizon = 2
    settings = {"temperature": ALPHA, "horizon": horizon}
    variational = variational_values(SOFT, PRIOR, **settings).values[0, START].item()
    evidence = posterior_values(SOFT, PRIOR, **settings).values[0, START].item()
    assert evidence > variational + 0.05

    def fitted(optimistic):
        logits = torch.zeros(4 * horizon, 2, requires_grad=True)
        lean = torch.zeros(horizon, 4, 2, 4, requires_grad=True)

        def learned(t, s, a):
            return (T.P[s, a].log().clamp(min=-1e3) + lean[t, s, a]).softmax(-1)

        model, guide = sequential(horizon, logits, learned if optimistic else None)
        guide = poutine.infer_config(guide, lambda site: {"enumerate": "parallel"})
        optimizer = torch.optim.LBFGS([logits, lean] if optimistic else [logits], line_search_fn="strong_wolfe")

        def loss():
            optimizer.zero_grad()
            loss = TraceEnum_ELBO(max_plate_nesting=0).differentiable_loss(model, guide)
            loss.backward()
            return loss

        for _ in range(3):
            value = -optimizer.step(loss).item()
        return value

    assert fitted(optimistic=False) == pytest.approx(variational, abs=1e-6)
    assert fitted(optimistic=True) == pytest.approx(evidence, abs=1e-6)


def test_dynamics_are_refused():
    recording, _ = trajectories(2)

    def world(observation, reward=None, **_):
        with trajectory_plates(observation):
            pyro.sample("action", dist.Categorical(logits=torch.zeros(2)))
            pyro.sample("next_observation", dist.Categorical(logits=torch.zeros(12)))

    def learned(observation, next_observation, reward=None, **_):
        with trajectory_plates(observation):
            pyro.sample("action", dist.Categorical(logits=torch.zeros(2)))
            pyro.sample("next_observation", dist.Categorical(logits=torch.zeros(12)), obs=next_observation)

    with pytest.raises(ProgramError, match="finds a posterior that hopes for luck"):
        KLControl()(world, world, **recording)
    with pytest.raises(ProgramError, match="has a site 'next_observation', which the environment draws"):
        KLControl()(learned, CategoricalPolicy(nn.Embedding(12, 2)), **recording)


# What does not fit


def test_sites_that_do_not_fit():
    recording, _ = trajectories(2)
    policy = CategoricalPolicy(nn.Embedding(12, 2))
    model = OptimalTrajectories(UniformChoice(2))

    def acts_otherwise(observation, **_):
        with trajectory_plates(observation):
            pyro.sample("move", dist.Categorical(logits=torch.zeros(2)))

    def global_factor(observation, reward, **_):
        with trajectory_plates(observation):
            pyro.sample("action", dist.Categorical(logits=torch.zeros(2)))
        pyro.factor("optimality", reward.sum())

    with pytest.raises(ProgramError, match=r"the guide draws 'move', of which there is no recording.*found action"):
        KLControl()(acts_otherwise, acts_otherwise, **recording)
    with pytest.raises(ProgramError, match=r"'optimality' has log-probabilities of shape \(\), expected one for each"):
        KLControl()(global_factor, policy, **recording)
    with pytest.raises(ProgramError, match="the guide draws nothing"):
        KLControl()(lambda **_: None, None, **recording)
    with pytest.raises(UsageError, match="these lack terminated: pass a dict of columns"):
        KLControl()(model, policy, **{k: v for k, v in recording.items() if k != "terminated"})
    with pytest.raises(UsageError, match="these lack next_observation"):
        KLControl(nn.Embedding(12, 1))(model, policy, **{k: v for k, v in recording.items() if "next" not in k})
    with pytest.raises(ProgramError, match=r"the critic returned shape \(2, 16, 3\)"):
        KLControl(nn.Embedding(12, 3))(model, policy, **recording)
    with pytest.raises(UsageError, match="discount must be between 0 and 1"):
        KLControl(discount=1.01)
    with pytest.raises(UsageError, match="pass one, or leave decay at 1"):
        KLControl(decay=0.9)
    with pytest.raises(UsageError, match="temperature must be above 0"):
        OptimalTrajectories(UniformChoice(2), temperature=0.0)
    with pytest.raises(UsageError, match=r"expected \(time, environments, ...\)"):
        policy(torch.zeros(3, dtype=torch.long))


def test_programs_that_are_swapped():
    """The sum would be minimised, and no error be seen."""
    recording, _ = trajectories(2)
    policy, model = CategoricalPolicy(nn.Embedding(12, 2)), OptimalTrajectories(UniformChoice(2))
    with pytest.raises(ProgramError, match=r"the guide observes optimality: .* pass the model first"):
        KLControl()(policy, model, **recording)
    with pytest.raises(ProgramError, match="the model observes nothing, so that rewards say nothing"):
        KLControl()(UniformChoice(2), policy, **recording)


@pytest.mark.parametrize("critic", [False, True])
def test_actions_of_another_policy(critic):
    """Of a recording that is used again after a step, or that others made, the gradient is off: it is refused."""
    world, model = soft_world(8), OptimalTrajectories(UniformChoice(2))
    policy = tabular(world.num_observations)
    objective = KLControl(nn.Embedding(world.num_observations, 1) if critic else None)
    optimizer = partial(torch.optim.Adam, lr=0.1)
    rollouts = Rollouts(world, policy, T.horizon, uses=2, players=2 if critic else 1)
    critic_optimizer = optimizer if critic else None
    # Graphs do not look at values, here as elsewhere.
    again = train(objective, model, policy, rollouts, optimizer, critic_optimizer, num_steps=2, compile=False)
    with pytest.raises(UsageError, match=r"up to 0.* it is not the policy that took them, or has learned since"):
        list(again)
    recording = next(iter(Rollouts(world, UniformChoice(2), T.horizon)))
    nn.init.normal_(policy.network.weight)
    for function in (objective, *([objective.critic_loss] if critic else [])):
        with pytest.raises(UsageError, match="not the policy that took them"):
            function(model, policy, **recording)
        assert function(model, UniformChoice(2), **recording).isfinite()
        with pyro.validation_enabled(False):
            assert function(model, policy, **recording).isfinite()


def test_unfinished_episodes_need_a_critic():
    recording, _ = trajectories(2)
    model, policy = OptimalTrajectories(UniformChoice(2)), CategoricalPolicy(nn.Embedding(12, 2))
    unfinished = {name: column[:1] for name, column in recording.items()}
    with pytest.raises(UsageError, match="16 episodes go on after the last step"):
        KLControl()(model, policy, **unfinished)
    cut = {**recording, "terminated": recording["truncated"], "truncated": recording["terminated"]}
    with pytest.raises(UsageError, match="16 episodes go on after the last step"):
        KLControl()(model, policy, **cut)
    early = {**recording, "truncated": (torch.arange(2) == 0)[:, None].expand_as(recording["action"])}
    with pytest.raises(UsageError, match="16 episodes go on after the last step"):  # cut off before the last row
        KLControl()(model, policy, **early)
    with pyro.validation_enabled(False):  # not looked at, and not taken for worth nothing
        gradient = torch.autograd.grad(KLControl()(model, policy, **unfinished), policy.network.weight)[0]
    assert gradient.isnan().any()
    assert KLControl(nn.Embedding(12, 1))(model, policy, **unfinished).isfinite()


# By the loop


def soft_world(environments):
    mdp = MDP(T.P.float(), T.R.float())
    return TabularEnvironment(mdp, environments, start=START, horizon=T.horizon)


def value_of(policy):
    """The exact ELBO of a policy of time and state."""
    q = policy.distribution(torch.arange(20)).probs.detach().double().reshape(5, 4, 2)
    return policy_values(SOFT, q, horizon=5)[0, START].item()


def tabular(observations):
    network = nn.Embedding(observations, 2)
    nn.init.zeros_(network.weight)
    return CategoricalPolicy(network)


def fit(objective, num_steps=120):
    world, model = soft_world(64), OptimalTrajectories(UniformChoice(2))
    policy, with_critic = tabular(world.num_observations), objective.critic is not None
    batches = Rollouts(world, policy, T.horizon, players=2 if with_critic else 1)
    critic_optimizer = partial(torch.optim.Adam, lr=0.1) if with_critic else None
    scheduler = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda n: 1 - n / num_steps)
    for _ in train(objective, model, policy, batches, partial(torch.optim.Adam, lr=0.05), critic_optimizer,
                   simultaneous=with_critic, num_steps=num_steps, scheduler=scheduler, validate=False):  # fmt: skip
        pass
    return model, policy


def check_fit(objective):
    """The policy comes to the variational value, and never above; new recordings by it have losses that say so."""
    model, policy = fit(objective)
    best, found = T.V_variational[START].item(), value_of(policy)
    assert best - 0.01 < found <= best
    world = soft_world(256)
    with torch.no_grad():
        elbos = torch.stack([
            -objective(model, policy, **recording) / 256
            for _, recording in zip(range(40), Rollouts(world, policy, T.horizon), strict=False)
        ])  # fmt: skip
    mcse = elbos.std().item() / math.sqrt(40)
    assert mcse < 0.02
    assert elbos.mean().item() == pytest.approx(found, abs=4.5 * mcse)


@pytest.mark.parametrize("with_critic", [False, True])
def test_soft_mdp(with_critic):
    critic = None
    if with_critic:
        critic = nn.Embedding(24, 1)
        nn.init.zeros_(critic.weight)
    check_fit(KLControl(critic))


def test_mutant_fit_with_the_other_sign():
    """It runs away from the prior: the loss falls without end, and the value is that of a greedy policy or worse."""
    with pytest.raises(AssertionError):
        check_fit(OtherSign())


def test_critic_learns_the_values_of_a_policy():
    """Held on the policy that does anything, the critic comes to its exact ELBO from each observation."""
    world = soft_world(256)
    world.start = torch.full((4,), 0.25)
    policy, critic = UniformChoice(2), nn.Embedding(24, 1)
    objective = KLControl(critic)
    model = OptimalTrajectories(UniformChoice(2))
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 - n / 100)
    for _, recording in zip(range(100), Rollouts(world, policy, 5), strict=False):
        optimizer.zero_grad()
        objective.critic_loss(model, policy, **recording).backward()
        optimizer.step()
        schedule.step()
    truth = policy_values(SOFT, torch.full((4, 2), 0.5).double(), horizon=5)
    torch.testing.assert_close(critic.weight[:20, 0].double().reshape(5, 4), truth, atol=0.15, rtol=0)


# Bounded actions: one step, where everything is an integral over an interval


def bandit_gradient(environments, objective):
    """Many copies of one choice of a number in (-1, 1), each with parameters of its own: independent gradients."""
    outputs = torch.tensor([0.4, 0.3]).expand(1, environments, 2).clone().requires_grad_()
    policy = TanhNormalPolicy(nn.Identity())
    with torch.no_grad():
        action = policy.distribution(outputs).sample()
    ends = torch.ones(1, environments, dtype=torch.bool)
    recording = {"observation": outputs, "action": action, "reward": bandit_reward(action)[..., 0]}
    flags = {"terminated": ends, "truncated": ~ends, "next_observation": outputs}
    loss = objective(OptimalTrajectories(UniformBox(1), ALPHA), policy, **recording, **flags)
    (gradient,) = torch.autograd.grad(-loss, outputs)
    return -loss.item() / environments, gradient[0]


def bandit_reward(a):
    return a - 2 * (a - 0.5) ** 2


def bandit_truth():
    outputs = torch.tensor([0.4, 0.3], requires_grad=True)
    u = torch.linspace(-12, 12, 20_001)
    a = u.tanh().clamp(-1 + 1e-12, 1 - 1e-12)
    log_q = TanhNormalPolicy(nn.Identity()).distribution(outputs).log_prob(a[:, None])
    weight = torch.cosh(u) ** -2 * (u[1] - u[0])
    elbo = (weight * log_q.exp() * (bandit_reward(a) / ALPHA + math.log(0.5) - log_q)).sum()
    return elbo.item(), torch.autograd.grad(elbo, outputs)[0]


@double
def test_bounded_actions():
    """Recorded actions have no pathwise gradient: the mean of score-function gradients is the integral's slope."""
    pyro.set_rng_seed(0)
    elbo, slope = bandit_truth()
    value, gradient = bandit_gradient(20_000, KLControl())
    assert value == pytest.approx(elbo, abs=4.5 * 1.5 / math.sqrt(20_000))  # sd of a soft reward < 1.5
    mcse = gradient.std(0) / math.sqrt(20_000)
    assert ((gradient.mean(0) - slope).abs() < 4.5 * mcse).all()


# As other objectives: captured, and on any device of the right kind


@pytest.mark.parametrize("critic", [False, True])
def test_captured(critic):
    """A whole step, recorded as one graph, does what the step does."""
    recording, _ = trajectories(3)
    recording = {k: v.float() if v.is_floating_point() else v for k, v in recording.items()}
    found = []
    for how in (False, "capture"):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        policy, objective = tabular(16), KLControl(nn.Embedding(16, 1) if critic else None)
        training = train(objective, OptimalTrajectories(UniformChoice(2)), policy, [recording],
                         partial(torch.optim.Adam, lr=0.1), partial(torch.optim.Adam, lr=0.1) if critic else None,
                         simultaneous=critic, num_steps=4, compile=how)  # fmt: skip
        found.append([*(step.loss for step in training), policy.network.weight.detach().clone()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
