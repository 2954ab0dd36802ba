"""VIREL: its temperature by enumeration, its two steps' gradients, and the greedy policy that it ends with."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from known_answers import SOFT_MDP_TRUTH as T
from test_truth_mpo import ALPHA, GAMMA, PRIOR, Table
from torch import nn

import pyrogen.inference.virel
from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation import policy_values
from pyrogen.inference import VIREL, train
from pyrogen.mdp import MDP
from pyrogen.models import OptimalTrajectories, Policy, UniformChoice
from pyrogen.nn import ActionValues

pytestmark = pytest.mark.usefixtures("double")

SCALE = 0.3
STATES, ACTIONS = torch.cartesian_prod(torch.arange(4), torch.arange(2)).T
SURE = MDP(torch.eye(4, dtype=torch.float64)[T.P.argmax(-1)], T.R)
"""The soft MDP with the likeliest next state for certain."""


def every_transition(terminated=False, truncated=False):
    """The transitions of the MDP that is sure, each once, in a batch."""
    flag = torch.zeros(1, 8, dtype=torch.bool)
    columns = {"observation": STATES[None], "action": ACTIONS[None], "reward": SURE.rewards[STATES, ACTIONS][None]}
    columns["next_observation"] = SURE.transitions[STATES, ACTIONS].argmax(-1)[None]
    return columns | {"terminated": flag | terminated, "truncated": flag | truncated}


def critic_of(Q):
    """Networks that are tables, one for each of several tables of values."""
    critic = ActionValues(num_observations=4, num_actions=2, hidden=(), num_critics=len(Q))
    critic.first.bias.requires_grad_(False).zero_()
    critic.first.weight.data.copy_(Q)
    return critic


def programs(make=VIREL):
    """A model and a guide, and a critic whose networks lag behind it."""
    pyro.set_rng_seed(4)
    model, policy = OptimalTrajectories(Table(PRIOR.log()), ALPHA), Table(torch.randn(4, 2))
    objective = make(critic_of(torch.randn(2, 4, 2)), GAMMA, SCALE)
    objective.target.first.weight.copy_(torch.randn(2, 4, 2))
    return objective, model, policy


def targets_of(objective, policy):
    """The Bellman operator, written out: of the least of the values that lag, by the policy's mean."""
    least = objective.target.first.weight.amin(0)
    return T.R / ALPHA + GAMMA * SURE.transitions @ (policy.logits.detach().softmax(-1) * least).sum(-1)


def residuals(objective, policy):
    return objective.critic.first.weight - targets_of(objective, policy)


def check_temperature(make=VIREL, **flags):
    """The critic's loss is the mean squared residual, with the gradient of values and not of targets."""
    objective, model, policy = programs(make)
    loss = objective.critic_loss(model, policy, **every_transition(**flags))
    found = residuals(objective, policy)
    assert loss.item() == pytest.approx(found.square().mean().item(), abs=1e-12)
    assert objective.monitored()["temperature"].item() == pytest.approx(SCALE * loss.item(), abs=1e-12)
    gradient = torch.autograd.grad(loss, objective.critic.first.weight)[0]
    torch.testing.assert_close(gradient, 2 * found.detach() / found.numel())


def test_temperature_by_enumeration():
    check_temperature()


def test_truncation_bootstraps():
    check_temperature(truncated=True)


def test_nothing_follows_termination():
    with pytest.raises(AssertionError):
        check_temperature(terminated=True)
    objective, model, policy = programs()
    loss = objective.critic_loss(model, policy, **every_transition(terminated=True))
    assert loss.item() == pytest.approx((objective.critic.first.weight - T.R / ALPHA).square().mean().item())


def test_mutant_truncation_as_termination(monkeypatch):
    targets = pyrogen.inference.virel.td_targets

    def mutant(columns, *args):
        return targets({**columns, "terminated": columns["terminated"] | columns["truncated"]}, *args)

    monkeypatch.setattr(pyrogen.inference.virel, "td_targets", mutant)
    with pytest.raises(AssertionError):
        test_truncation_bootstraps()


class WholeGradient(VIREL):
    """Mutant: the target has a gradient, and is of the critic itself."""

    def _residuals(self, model, guide, seen, columns):
        q = guide.distribution(columns["next_observation"]).probs.detach()
        V = (q * self.critic(columns["next_observation"]).amin(0)).sum(-1)
        return self.critic(columns["observation"], columns["action"]) - seen.optimality - GAMMA * V


def test_mutant_target_with_a_gradient():
    """Its value is right where networks do not lag, and its gradient is another."""
    with pytest.raises(AssertionError):
        check_temperature(WholeGradient)
    objective, model, policy = programs(WholeGradient)
    objective.target.load_state_dict(objective.critic.state_dict())
    loss = objective.critic_loss(model, policy, **every_transition())
    found = residuals(objective, policy)
    assert loss.item() == pytest.approx(found.square().mean().item(), abs=1e-12)
    gradient = torch.autograd.grad(loss, objective.critic.first.weight)[0]
    assert (gradient - 2 * found.detach() / found.numel()).abs().max() > 0.01


def test_chance_is_in_the_temperature():
    """Where next states are drawn, the mean square is that of the residual, and the variance of targets besides."""
    objective, model, policy = programs()
    least = objective.target.first.weight.amin(0)
    V = (policy.logits.detach().softmax(-1) * least).sum(-1)
    mean = T.P @ V
    variance = T.P @ V.square() - mean.square()
    s, a, following = torch.cartesian_prod(torch.arange(4), torch.arange(2), torch.arange(4)).T
    rows = torch.repeat_interleave(torch.arange(32), (5 * T.P.flatten()).round().long())  # each in its share
    flag = torch.zeros(1, len(rows), dtype=torch.bool)
    columns = {"observation": s[rows][None], "action": a[rows][None], "next_observation": following[rows][None]}
    columns |= {"reward": T.R[s, a][rows][None], "terminated": flag, "truncated": flag}
    errors = objective.critic.first.weight - (T.R / ALPHA + GAMMA * mean)
    loss = objective.critic_loss(model, policy, **columns)
    assert loss.item() == pytest.approx((errors.square() + GAMMA**2 * variance).mean().item(), abs=1e-12)


# The E-step


def check_programs_loss(make=VIREL):
    """Minus the temperature times the bound, for each state's mean over actions, the temperature held."""
    objective, model, policy = programs(make)
    loss = objective(model, policy, **every_transition())
    temperature = SCALE * residuals(objective, policy).square().mean().detach()
    Q, q, log_p = (
        objective.critic.first.weight.amin(0).detach(),
        policy.logits.softmax(-1),
        model.prior.logits.log_softmax(-1),
    )
    wanted = -(q * (Q - temperature * (q.log() - log_p))).sum(-1).mean()
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-12)
    for parameter in (policy.logits, model.prior.logits):
        found = torch.autograd.grad(loss, parameter, retain_graph=True)[0]
        torch.testing.assert_close(found, torch.autograd.grad(wanted, parameter, retain_graph=True)[0])


def test_programs_loss_by_enumeration():
    check_programs_loss()


class OfTheBest(VIREL):
    """Mutant: the residual of one of the critics alone."""

    def _residuals(self, *args):
        return super()._residuals(*args)[:1]


def test_mutant_one_critics_residual():
    with pytest.raises(AssertionError):
        check_programs_loss(OfTheBest)


class Gaussian(Policy):
    """A normal policy, with a location and a scale of its own in each row: independent gradients."""

    def __init__(self, loc, scale, rows):
        super().__init__()
        self.loc, self.scale = (nn.Parameter(torch.full((1, rows, 1), x)) for x in (loc, scale))

    def distribution(self, observation):
        return dist.Normal(self.loc, self.scale).to_event(1)


class Quadratic(nn.Module):
    """Values -(a - 1)^2 / 2."""

    def forward(self, observation, action):
        return -(action - 1).square().sum(-1).unsqueeze(0) / 2


def test_actions_in_a_line():
    """The pathwise gradient is without bias: that of the bound in closed form, and none at the posterior.

    Rewards are 0.6 off what the critic says, so that the temperature is 0.36, and the posterior of a standard normal
    prior is normal, of precision 1 + 1 / 0.36.
    """
    rows, epsilon = 20_000, 0.36
    flag = torch.zeros(1, rows, dtype=torch.bool)
    columns = {"observation": torch.zeros(1, rows), "next_observation": torch.zeros(1, rows), "truncated": flag}
    columns |= {"terminated": ~flag, "action": torch.ones(1, rows, 1), "reward": torch.full((1, rows), 0.6)}
    precision = 1 + 1 / epsilon
    for loc, scale in ((1 / epsilon / precision, precision**-0.5), (0.3, 0.8)):
        policy, prior = Gaussian(loc, scale, rows), Gaussian(0.0, 1.0, rows).requires_grad_(False)
        loss = VIREL(Quadratic())(OptimalTrajectories(prior), policy, **columns)
        found = [rows * g.flatten() for g in torch.autograd.grad(loss, (policy.loc, policy.scale))]
        # E[(a - 1)^2] / 2 = ((loc - 1)^2 + scale^2) / 2, KL = (scale^2 + loc^2 - 1) / 2 - log(scale)
        wanted = loc - 1 + epsilon * loc, scale + epsilon * (scale - 1 / scale)
        for gradient, truth in zip(found, wanted, strict=True):
            assert gradient.mean().item() == pytest.approx(truth, abs=4.5 * gradient.std().item() / rows**0.5)


# Both steps


def backups(parameters):
    """Steps of the critic that put its target in the place of each value: the loss is a mean over eight."""
    return torch.optim.SGD(parameters, lr=4.0)


def check_fit(make=VIREL, num_steps=300):
    """The temperature vanishes, and the policy is the best of all that are deterministic."""
    policy, model = Table(torch.zeros(4, 2)), OptimalTrajectories(UniformChoice(2), ALPHA)
    objective = make(critic_of(torch.zeros(1, 4, 2)), GAMMA, scale=10.0, rate=1.0)
    training = train(objective, model, policy, [every_transition()], partial(torch.optim.Adam, lr=0.2), backups,
                     num_steps=num_steps, validate=False, compile="capture")  # fmt: skip
    temperatures = [objective.temperature.item() for _ in training]
    assert temperatures[0] == pytest.approx(10 * (T.R / ALPHA).square().mean().item())
    assert temperatures[-1] < 1e-7
    deterministic = torch.eye(2)[torch.cartesian_prod(*[torch.arange(2)] * 4)]
    returns = torch.stack([policy_values(SURE, q, q, temperature=ALPHA, discount=GAMMA) for q in deterministic])
    best = returns.sum(1).argmax()
    q = policy.logits.detach().softmax(-1)
    torch.testing.assert_close(q, deterministic[best], atol=1e-2, rtol=0)
    torch.testing.assert_close(
        policy_values(SURE, q, q, temperature=ALPHA, discount=GAMMA), returns[best], atol=0.05, rtol=0
    )


def test_greedy_in_the_end():
    check_fit()


class Soft(VIREL):
    """Mutant: the temperature is held, as that of maximum entropy."""

    def forward(self, model, guide, **columns):
        residual = super()._residuals
        self._residuals = lambda *args: torch.ones_like(residual(*args))
        loss = super().forward(model, guide, **columns)
        del self._residuals
        return loss


def test_mutant_temperature_that_stays():
    with pytest.raises(AssertionError):
        check_fit(Soft)


# What does not fit


def test_settings_and_programs_that_do_not_fit():
    critic = critic_of(torch.zeros(1, 4, 2))
    for settings, message in (
        ({"discount": 1.5}, "discount must be between 0 and 1, found 1.5"),
        ({"rate": 0.0}, "rate must be above 0 and at most 1, found 0.0"),
        ({"scale": 0.0}, "scale must be above 0, found 0.0"),
        ({"num_draws": 0}, "num_draws must be at least 1, found 0"),
    ):
        with pytest.raises(UsageError, match=message):
            VIREL(critic, **settings)
    objective, model, policy = programs()
    with pytest.raises(UsageError, match="transitions lack next_observation: pass a dict of columns"):
        objective(model, policy, **{k: v for k, v in every_transition().items() if k != "next_observation"})

    class NoGradient(Gaussian):
        def distribution(self, observation):
            return dist.Poisson(self.scale).to_event(1)

    with pytest.raises(ProgramError, match="draws site 'action' from Poisson, which has no rsample"):
        VIREL(Quadratic())(OptimalTrajectories(NoGradient(1.0, 1.0, 8)), NoGradient(1.0, 2.0, 8),
                           **every_transition() | {"action": torch.zeros(1, 8, 1)})  # fmt: skip
