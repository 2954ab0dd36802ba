"""The trust region: one step as without it, cases by hand, importance weights by enumeration, fits of known optima."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from known_answers import SOFT_MDP_TRUTH as T
from pyro import poutine
from test_truth_kl_control import (
    ALPHA,
    PRIOR,
    Prior,
    Table,
    any_values,
    logits_of_policy,
    soft_world,
    tabular,
    trajectories,
    value_of,
)
from torch import nn

from pyrogen.data import Outcome, Rollouts
from pyrogen.errors import ProgramError, UsageError
from pyrogen.inference import PPO, KLControl, generalized_advantages, train
from pyrogen.models import CategoricalPolicy, OptimalTrajectories, UniformChoice, trajectory_plates

double = pytest.mark.usefixtures("double")
START = 1


def recorded(horizon, steps=None):
    """Every trajectory, as its policy records it: with the log-probabilities of actions, and cut off after a while."""
    recording, _ = trajectories(horizon)
    policy = CategoricalPolicy(Table(logits_of_policy(horizon).requires_grad_()))
    with torch.no_grad():
        recording["log_prob"] = policy.distribution(recording["observation"]).log_prob(recording["action"])
    if steps is not None:
        recording = {name: column[:steps] for name, column in recording.items()}
        recording["truncated"] = (torch.arange(steps) == steps - 1)[:, None].expand_as(recording["action"])
    return recording, policy


def gradients(objective, recording, policy):
    """The loss, and its gradient in the logits of the policy and the prior."""
    model = Prior()
    logits = policy.network.values
    loss = objective(model, policy, **recording)
    return loss.detach(), *torch.autograd.grad(loss, (logits, model.logits))


# Minibatches: steps by themselves


def check_minibatches(make, critic=True, drop=()):
    """With their targets, steps in any order and number have the gradients, and the critic's losses, that they have
    together."""
    torch.manual_seed(0)
    recording, policy = recorded(3, steps=2) if critic else recorded(3)
    logits = policy.network.values
    ppo = make(Table(any_values(3)), 0.9, 0.5) if critic else make(discount=0.9)
    prior = Prior()
    with torch.no_grad():
        logits += torch.randn_like(logits) / 2  # a later use
    whole = gradients(ppo, recording, policy)
    targets = ppo.targets(prior, policy, **recording)
    columns = recording | {name: target for name, target in targets.items() if name not in drop}
    rows = {name: column.flatten(0, 1)[None] for name, column in columns.items()}
    order = torch.randperm(rows["reward"].shape[1])
    parts = [{name: column[:, some] for name, column in rows.items()} for some in order.split(5)]
    for found, value in zip(zip(*(gradients(ppo, part, policy) for part in parts), strict=True), whole, strict=True):
        torch.testing.assert_close(sum(found), value)
    if critic:
        losses = [ppo.critic_loss(prior, policy, **part) * part["reward"].numel() for part in parts]
        torch.testing.assert_close(sum(losses) / len(order), ppo.critic_loss(prior, policy, **recording))


@double
@pytest.mark.parametrize("critic", [True, False])
def test_minibatches_of_steps(critic):
    check_minibatches(PPO, critic)


@double
def test_mutant_minibatches_without_their_targets():
    """Each step then ends in what the critic says of the next, as if nothing had been recorded of it."""
    with pytest.raises(AssertionError):
        check_minibatches(PPO, drop=("returns", "advantage"))


class OfTheBatch(PPO):
    """The critic moves towards what it says itself of the next step, whatever the batch knows."""

    def critic_loss(self, model, guide, **columns):
        own = {name: column for name, column in columns.items() if name not in ("returns", "advantage")}
        return super().critic_loss(model, guide, **own)


@double
def test_mutant_a_critic_without_its_targets():
    with pytest.raises(AssertionError):
        check_minibatches(OfTheBatch)


def test_targets_are_those_of_the_critic_as_it_is():
    """Columns that hold former ones are computed anew."""
    recording, policy = recorded(3, steps=2)
    critic = Table(any_values(3).float())
    ppo, prior = PPO(critic, 0.9, 0.5), Prior()
    former = ppo.targets(prior, policy, **recording)
    critic.values = critic.values + 1
    now = ppo.targets(prior, policy, **recording)
    assert not torch.allclose(now["advantage"], former["advantage"])
    assert torch.equal(ppo.targets(prior, policy, **recording, **former)["advantage"], now["advantage"])


def test_soft_rewards_are_those_of_the_first_use():
    """Later ones run no program, and see no prior that has learned since."""
    recording, policy = recorded(3, steps=2)
    ppo, prior = PPO(Table(any_values(3).float()), 0.9, 0.5), Prior()
    former = ppo.targets(prior, policy, **recording)
    with torch.no_grad():
        prior.logits += 1 + torch.arange(2)
    assert not torch.allclose(ppo.targets(prior, policy, **recording)["returns"], former["returns"])
    now = ppo.targets(pytest.fail, pytest.fail, **recording, **former)
    assert all(torch.equal(now[name], former[name]) for name in ("soft_reward", "returns", "advantage"))


def test_targets_that_are_refused():
    recording, policy = recorded(3, steps=2)
    ppo, prior = PPO(Table(any_values(3).float())), Prior()
    targets = ppo.targets(prior, policy, **recording)
    with pytest.raises(UsageError, match=r"found returns of shape .* Pass both, of PPO.targets, or neither"):
        ppo.critic_loss(prior, policy, **recording, returns=targets["returns"])
    with pytest.raises(UsageError, match="has returns and advantage, both of shape"):
        ppo(prior, policy, **recording, **{name: target[..., None] for name, target in targets.items()})
    with pytest.raises(UsageError, match=r"soft_reward has shape \(2, 1\), expected one for each step, \(2, 64\)"):
        ppo.targets(prior, policy, **recording, soft_reward=targets["soft_reward"][:, :1])
    without = {name: column for name, column in recording.items() if name != "log_prob"}
    with pytest.raises(UsageError, match="these lack log_prob"):
        ppo.targets(prior, policy, **without, soft_reward=targets["soft_reward"])
    one = {name: column[:1, :1] for name, column in (recording | targets).items()}
    with pytest.raises(UsageError, match="this batch has a single step"):
        PPO(ppo.critic, normalize=True)(prior, policy, **one)


# The first use: the gradient of the ELBO

SETTINGS = {
    "whole returns": {},
    "decay": {"decay": 0.6},
    "discount": {"discount": 0.9, "decay": 0.5},
    "no critic": {"critic": False},
}


def check_first_use(make=PPO, critic=True, steps=None, **settings):
    recording, policy = recorded(3, steps)
    table = Table(any_values(3)) if critic else None
    found = gradients(make(table, **settings), recording, policy)
    expected = gradients(KLControl(table, **settings, analytic_kl=False), recording, policy)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@double
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_first_use_is_kl_control(settings):
    """Loss and gradients, of the policy and of the prior: KLControl's are held to enumeration."""
    check_first_use(**settings)


@double
def test_the_first_use_of_what_was_cut_off():
    check_first_use(decay=0.6, steps=2)


# What is clipped

BY_HAND = [  # ratio, advantage, and the slope in the ratio of what is maximised, for a clip of 0.2
    (1.0, 2.0, 2.0),
    (1.15, 2.0, 2.0),
    (1.5, 2.0, 0.0),  # as probable as a good action may become
    (0.5, 2.0, 2.0),  # a good action that became improbable may come back
    (1.0, -3.0, -3.0),
    (0.85, -3.0, -3.0),
    (0.5, -3.0, 0.0),  # as improbable as a bad action may become
    (1.5, -3.0, -3.0),  # a bad action that became probable may be taken back
]


def check_clipped(objective, ratio, advantage, slope):
    """One step, the second of two actions, whose logit is free; the reward is the advantage and nothing else counts."""
    logit = torch.tensor(-0.8, requires_grad=True)
    q = logit.sigmoid()

    def guide(observation, **_):
        with trajectory_plates(observation):
            pyro.sample("action", dist.Categorical(torch.stack([1 - q, q])))

    def model(observation, reward, log_prob, **_):
        with trajectory_plates(observation):
            pyro.sample("action", dist.Categorical(logits=torch.stack([torch.log1p(-log_prob.exp()), log_prob], -1)))
            pyro.factor("optimality", reward)

    ends, observation = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.long)
    loss = objective(
        model, guide, observation=observation, next_observation=observation, terminated=ends, truncated=~ends,
        action=torch.ones(1, 1), reward=torch.full((1, 1), advantage), log_prob=(q / ratio).log().detach().expand(1, 1),
    )  # fmt: skip
    (found,) = torch.autograd.grad(-loss, logit)
    torch.testing.assert_close(found, slope * ratio * (1 - q.detach()))  # d ratio = ratio d log q, d log q = 1 - q
    assert loss.item() == pytest.approx(-advantage)  # the soft reward: the prior is the recorder, and log p - log q = 0


@double
@pytest.mark.parametrize(("ratio", "advantage", "slope"), BY_HAND)
def test_clipping(ratio, advantage, slope):
    check_clipped(PPO(Table(torch.zeros(1))), ratio, advantage, slope)


@double
def test_without_clipping_the_weights_are_importance_weights():
    """One choice of three: the mean over the recorder's actions is the slope of E_q[rho], wherever q has gone to."""
    recorder, rewards = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.0, 1.0, 2.0])
    logits = torch.tensor([0.1, 1.2, -0.5], requires_grad=True)
    soft = rewards + torch.tensor(1 / 3).log() - recorder.log()
    (expected,) = torch.autograd.grad((logits.softmax(0) * soft).sum(), logits)
    policy, found = CategoricalPolicy(lambda _: logits.expand(1, 1, 3)), torch.zeros(3)
    ends, observation = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.long)
    flags = {"terminated": ends, "truncated": ~ends, "observation": observation, "next_observation": observation}
    objective = PPO(Table(torch.tensor([0.7])), clip=torch.inf)
    for choice in range(3):
        action = torch.tensor([[choice]])
        log_prob, reward = recorder[action].log(), rewards[action]
        loss = objective(
            OptimalTrajectories(UniformChoice(3)), policy, action=action, reward=reward, log_prob=log_prob, **flags
        )
        found -= recorder[choice] * torch.autograd.grad(loss, logits)[0]
    torch.testing.assert_close(found, expected)


@double
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_ratios_are_not_scaled(scale):
    """Where programs temper the divergence, the soft reward has it tempered, and the ratio is that of densities."""
    recording, policy = recorded(2)
    with torch.no_grad():
        policy.network.values.add_(0.3 * torch.randn(12, 2, generator=torch.Generator().manual_seed(1)))

    def tempered(program):
        def tempering(observation, reward, **_):
            with trajectory_plates(observation):
                with poutine.scale(scale=scale):
                    pyro.sample("action", program.distribution(observation))
                if program is prior:
                    pyro.factor("optimality", reward / ALPHA)

        return tempering

    prior, V = Prior(), any_values(2)
    s, a = recording["observation"], recording["action"]
    loss = PPO(Table(V), clip=0.1)(tempered(prior), tempered(policy), **recording)
    (found,) = torch.autograd.grad(-loss, policy.network.values)

    soft = recording["reward"] / ALPHA + scale * (PRIOR.log()[s % 4, a] - recording["log_prob"])
    following = [recording[name] for name in ("terminated", "truncated")]
    A = generalized_advantages(soft, V[s], V[recording["next_observation"]], *following, decay=1.0)
    w = (policy.distribution(s).log_prob(a) - recording["log_prob"]).exp()
    held = ((A > 0) & (w > 1.1)) | ((A < 0) & (w < 0.9))
    assert held.any()
    (expected,) = torch.autograd.grad((w * A)[~held].sum(), policy.network.values)
    torch.testing.assert_close(found, expected)
    assert loss.item() == pytest.approx(-soft.sum().item())


@double
def test_normalized_advantages():
    recording, policy = recorded(2)
    V = any_values(2)
    s = recording["observation"]
    soft = recording["reward"] / ALPHA + PRIOR.log()[s % 4, recording["action"]] - recording["log_prob"]
    flags = [recording[name] for name in ("terminated", "truncated")]
    A = generalized_advantages(soft, V[s], V[recording["next_observation"]], *flags, 0.9, 0.7)
    A = (A - A.mean()) / A.var(correction=0).sqrt()
    log_q = policy.distribution(s).log_prob(recording["action"])
    (expected,) = torch.autograd.grad((log_q * A).sum(), policy.network.values)
    _, found, _ = gradients(PPO(Table(V), 0.9, 0.7, normalize=True), recording, policy)
    torch.testing.assert_close(-found, expected)
    one = {name: column[:, :1] for name, column in recording.items()}
    assert PPO(nn.Embedding(12, 1), normalize=True)(Prior(), policy, **one).isfinite()


@double
def test_what_the_critic_learns_from_is_the_recorders():
    """Its targets stay when the policy learns, and the advantages, too."""
    recording, policy = recorded(3)
    objective = PPO(Table(any_values(3)), 0.9, 0.6)
    before = objective.critic_loss(Prior(), policy, **recording)
    expected = KLControl(objective.critic, 0.9, 0.6, analytic_kl=False).critic_loss(Prior(), policy, **recording)
    torch.testing.assert_close(before, expected)
    with torch.no_grad():
        policy.network.values.mul_(-1.0)
    torch.testing.assert_close(objective.critic_loss(Prior(), policy, **recording), before)


# The bugs of the field


class OtherSide(PPO):
    """Mutant: the maximum of both, which holds on to nothing and clips what would come back."""

    def _surrogate(self, traces, columns, advantages):
        return -super()._surrogate(traces, columns, -advantages)


class OnlyClipped(PPO):
    """Mutant: the clipped ratio alone, without the minimum: what left the region never comes back."""

    def _surrogate(self, traces, columns, advantages):
        log_q = traces.guide.nodes["action"]["unscaled_log_prob"]
        return ((log_q - columns["log_prob"]).exp().clamp(1 - self.clip, 1 + self.clip) * advantages).sum()


class OtherRatio(PPO):
    """Mutant: the recorder's probability over the policy's."""

    def _surrogate(self, traces, columns, advantages):
        log_q = traces.guide.nodes["action"]["unscaled_log_prob"]
        return super()._surrogate(traces, {**columns, "log_prob": 2 * log_q - columns["log_prob"]}, advantages)


class OtherSign(PPO):
    """Mutant: the divergence from the prior is added."""

    def _soft_rewards(self, traces, columns):
        return 2 * traces.model.nodes["optimality"]["log_prob"] - super()._soft_rewards(traces, columns)


class TruncationAsTermination(PPO):
    """Mutant: what was not seen is worth nothing."""

    def _returns(self, soft_rewards, columns):
        return super()._returns(soft_rewards, {**columns, "terminated": columns["terminated"] | columns["truncated"]})


class SeesTheAction(PPO):
    """Mutant: what the action itself brought is in its baseline."""

    def _baseline(self, returns, columns):
        return super()._baseline(returns, columns) + 0.5 * returns


@double
@pytest.mark.parametrize("mutant", [OtherSide, OnlyClipped, OtherRatio])
def test_mutant_clipping(mutant):
    red = 0
    for case in BY_HAND:
        try:
            check_clipped(mutant(Table(torch.zeros(1))), *case)
        except AssertionError:
            red += 1
    assert red


@double
@pytest.mark.parametrize("mutant", [OtherSign, SeesTheAction])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_mutant_gradients(mutant, settings):
    with pytest.raises(AssertionError):
        check_first_use(mutant, **settings)


@double
def test_mutant_truncation_as_termination():
    with pytest.raises(AssertionError):
        check_first_use(TruncationAsTermination, decay=0.6, steps=2)


# What does not fit


def test_what_does_not_fit():
    recording, policy = recorded(2)
    model, unsaid = Prior(), {name: column for name, column in recording.items() if name != "log_prob"}

    def two_choices(observation, reward=None, **_):
        with trajectory_plates(observation):
            pyro.sample("action", dist.Categorical(logits=torch.zeros(2)))
            pyro.sample("gait", dist.Categorical(logits=torch.zeros(2)))
            if reward is not None:
                pyro.factor("optimality", reward)

    def walks(observation, **_):
        two_choices(observation)

    with pytest.raises(UsageError, match="PPO learns from recordings, and these lack log_prob: "):
        PPO()(model, policy, **unsaid)
    with pytest.raises(ProgramError, match="the guide draws action, gait, and recordings say how probable an 'action'"):
        PPO()(two_choices, walks, **recording, gait=recording["action"])
    with pytest.raises(UsageError, match="clip must be above 0, found 0"):
        PPO(clip=0.0)
    with pytest.raises(UsageError, match="pass PPO a critic"):
        PPO()(model, policy, **{name: column[:1] for name, column in recording.items()})


# By the loop


class Bandit:
    """One choice of three, with noisy rewards."""

    num_environments = 256
    means = torch.tensor([0.0, 1.0, 2.0])

    def reset(self):
        return torch.zeros(256, dtype=torch.long)

    def step(self, action):
        ends = torch.ones(256, dtype=torch.bool)
        return Outcome(self.means[action] + 0.1 * torch.randn(256), self.reset(), ends, ~ends, self.reset())


class Prepared(nn.Module):
    """A prior that is no uniform one."""

    def distribution(self, observation):
        return dist.Categorical(torch.tensor([0.5, 0.3, 0.2]))


def fit(objective, model, policy, batches, num_steps, lr=0.05):
    schedule = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda n: 1 - n / num_steps)
    with_critic = objective.critic is not None
    for _ in train(objective, model, policy, batches, partial(torch.optim.Adam, lr=lr),
                   partial(torch.optim.Adam, lr=0.1) if with_critic else None, simultaneous=with_critic,
                   num_steps=num_steps, scheduler=schedule, validate=False):  # fmt: skip
        pass


def check_bandit(make):
    """The posterior is the prior times exp(r / alpha), normalised."""
    pyro.set_rng_seed(0)
    arms = tabular(1)
    arms.network = nn.Embedding(1, 3)
    nn.init.zeros_(arms.network.weight)
    fit(make(), OptimalTrajectories(Prepared(), 1.0), arms, Rollouts(Bandit(), arms, 4, uses=4), 120, 0.1)
    truth = (Prepared().distribution(None).logits + Bandit.means).softmax(0)
    torch.testing.assert_close(arms.distribution(torch.tensor(0)).probs, truth, atol=0.03, rtol=0)


def test_bandit():
    check_bandit(PPO)


def check_soft_mdp(make):
    pyro.set_rng_seed(0)
    world = soft_world(64)
    policy, critic = tabular(world.num_observations), nn.Embedding(world.num_observations, 1)
    nn.init.zeros_(critic.weight)
    rollouts = Rollouts(world, policy, T.horizon, uses=4, players=2)
    fit(make(critic), OptimalTrajectories(UniformChoice(2)), policy, rollouts, 160)
    best, found = T.V_variational[START].item(), value_of(policy)
    assert best - 0.01 < found <= best


def test_soft_mdp():
    """Four steps a recording: the policy comes to the variational value, and never above."""
    check_soft_mdp(PPO)


def test_mutant_fit_with_the_other_sign():
    with pytest.raises(AssertionError):
        check_bandit(OtherSign)
