"""Soft Q-learning and soft actor-critic: fixed points, losses and gradients by hand, and the bugs of the field."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from known_answers import SOFT_MDP_TRUTH as T
from torch import nn

from pyrogen.distributions import TanhNormal
from pyrogen.distributions.tanh_normal import Squash
from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation import variational_values
from pyrogen.inference import SAC, SoftQ, sac, train
from pyrogen.mdp import MDP
from pyrogen.models import (
    CategoricalPolicy,
    OptimalTrajectories,
    Policy,
    SoftQPolicy,
    TanhNormalPolicy,
    UniformBox,
    UniformChoice,
    trajectory_plates,
)
from pyrogen.nn import MLP, ActionValues

double = pytest.mark.usefixtures("double")
SOFT, ALPHA = MDP(T.P, T.R), 0.7
PRIOR = torch.tensor([[0.6, 0.4], [0.3, 0.7], [0.5, 0.5], [0.4, 0.6]], dtype=torch.float64)
COPIES = 5  # all probabilities are whole fifths
SGD = torch.optim.SGD


def transitions(horizon=None):
    """Every transition, as often as it comes about: five of each state and action.

    Without a horizon all are cut off, and none is an end.
    """
    rows = (COPIES * T.P).round().long().nonzero().tolist()
    s, a, s_next = torch.tensor(
        [row for row in rows for _ in range(int((COPIES * T.P[tuple(row)]).round()))]
    ).T  # fmt: skip
    t = torch.arange(horizon or 1).repeat_interleave(len(s))
    s, a, s_next = (column.repeat(horizon or 1) for column in (s, a, s_next))
    ends = t == horizon - 1 if horizon else torch.zeros_like(t, dtype=torch.bool)
    columns = {
        "observation": 4 * t + s,
        "action": a,
        "reward": T.R[s, a],
        "next_observation": 4 * (t + (1 if horizon else 0)) + s_next,
        "terminated": ends,
        "truncated": torch.ones_like(ends) if horizon is None else ~ends & ends,
    }
    return {name: column[None] for name, column in columns.items()}


class Prior(nn.Module):
    """Logits that are the same at every time."""

    def forward(self, observation):
        return PRIOR.log()[observation % 4]


def tabular_values(observations):
    critic = ActionValues(num_observations=observations, num_actions=2, hidden=())
    critic.first.bias.requires_grad_(False).zero_()
    return critic


HORIZONS = {"whole": (5, 1.0), "discounted": (5, 0.8), "endless, cut off": (None, 0.5)}
horizons = pytest.mark.parametrize(("horizon", "discount"), HORIZONS.values(), ids=HORIZONS)


def check_soft_q(make, horizon, discount):
    """A step of this length puts each value at the mean of its targets: value iteration, exact after as many steps."""
    columns, observations = transitions(horizon), 4 * ((horizon or 0) + 1)
    model = OptimalTrajectories(CategoricalPolicy(Prior()), ALPHA)
    policy = SoftQPolicy(model.prior, nn.Embedding(observations, 2))
    lr = columns["action"].numel() / COPIES
    for _ in train(make(policy.network, discount, 1.0), model, policy, [columns], partial(SGD, lr=lr),
                   num_steps=horizon or 45):  # fmt: skip
        pass
    best = variational_values(SOFT, PRIOR, temperature=ALPHA, horizon=horizon, discount=discount)
    found = policy.network.weight[: 4 * (horizon or 1)].reshape(best.action_values.shape)
    torch.testing.assert_close(found, best.action_values, atol=1e-9, rtol=0)
    q = policy.distribution(torch.arange(4 * (horizon or 1))).probs.reshape(best.policy.shape)
    torch.testing.assert_close(q, best.policy, atol=1e-9, rtol=0)


@double
@horizons
def test_soft_q_is_value_iteration(horizon, discount):
    check_soft_q(SoftQ, horizon, discount)


@double
def test_the_known_answer():
    """Uniform prior, temperature one, five steps: V(1) = 0.976743."""
    columns = transitions(T.horizon)
    model = OptimalTrajectories(UniformChoice(2))
    policy = SoftQPolicy(model.prior, nn.Embedding(24, 2))
    lr = columns["action"].numel() / COPIES
    for _ in train(SoftQ(policy.network, 1.0, 1.0), model, policy, [columns], partial(SGD, lr=lr),
                   num_steps=T.horizon):  # fmt: skip
        pass
    V = (policy.network.weight[:4] - math.log(2)).logsumexp(-1)
    torch.testing.assert_close(V, T.V_variational, atol=1e-9, rtol=0)
    assert V[1].item() == pytest.approx(0.976743, abs=1e-6)


def check_sac(make, horizon, discount):
    """Critics take the steps of value iteration, and the policy follows: with two actions by Newton's steps, nearly."""
    columns, observations = transitions(horizon), 4 * ((horizon or 0) + 1)
    count = columns["action"].numel() / COPIES
    policy = CategoricalPolicy(nn.Embedding(observations, 2))
    nn.init.zeros_(policy.network.weight)
    objective = make(tabular_values(observations), discount, 1.0)
    for _ in train(objective, OptimalTrajectories(CategoricalPolicy(Prior()), ALPHA), policy, [columns],
                   partial(SGD, lr=count), partial(SGD, lr=count), num_steps=45, validate=False):  # fmt: skip
        pass
    best = variational_values(SOFT, PRIOR, temperature=ALPHA, horizon=horizon, discount=discount)
    for Q in objective.critic.first.weight[:, : 4 * (horizon or 1)]:
        torch.testing.assert_close(Q.reshape(best.action_values.shape), best.action_values, atol=1e-8, rtol=0)
    q = policy.distribution(torch.arange(4 * (horizon or 1))).probs.reshape(best.policy.shape)
    torch.testing.assert_close(q, best.policy, atol=1e-8, rtol=0)


@double
@horizons
def test_sac_of_choices_finds_the_best_bound(horizon, discount):
    check_sac(SAC, horizon, discount)


# Losses and gradients by hand, of networks and an action in a box


def box(seed=0):
    """Networks with any parameters, and any transitions: one ends, one is cut off."""
    pyro.set_rng_seed(seed)
    flags = torch.arange(6)[None]
    columns = {
        "observation": torch.randn(1, 6, 3),
        "action": 1.8 * torch.rand(1, 6, 2) - 0.9,
        "reward": torch.randn(1, 6),
        "next_observation": torch.randn(1, 6, 3),
        "terminated": flags == 2,
        "truncated": flags == 4,
    }
    policy = TanhNormalPolicy(MLP(3, 4, (5,)))
    return columns, policy, ActionValues((3,), num_action_dims=2, hidden=(5,))


def normals(*shape):
    return torch.normal(torch.zeros(shape), torch.ones(shape))


def soft_value(policy, critic, observation, beta):
    """What SAC's paper writes out, appendix C: the change of variables, and the least of two critics."""
    loc, raw = policy.network(observation).chunk(2, -1)
    scale = (-5 + 3.5 * (1 + raw.tanh())).exp()
    eps = normals(1, *loc.shape)[0]
    u = loc + scale * eps
    log_q = (-0.5 * eps**2 - scale.log() - 0.5 * math.log(2 * math.pi) - (1 - u.tanh() ** 2).log()).sum(-1)
    log_p = -2 * math.log(2)
    first, second = critic(observation, u.tanh())
    return torch.where(first < second, first, second) - beta * (log_q - log_p), log_q - log_p


def check_losses(make):
    columns, policy, critic = box()
    objective = make(critic, 0.9, 0.1, 2.5)
    with torch.no_grad():
        objective.log_beta.fill_(math.log(0.3))
        for p in objective.target.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    model = OptimalTrajectories(UniformBox(2), ALPHA)

    pyro.set_rng_seed(1)
    loss = objective(model, policy, **columns)
    pyro.set_rng_seed(1)
    expected = -soft_value(policy, critic, columns["observation"], 0.3)[0].mean()
    torch.testing.assert_close(loss, expected)
    mine, by_hand = (torch.autograd.grad(value, list(policy.parameters())) for value in (loss, expected))
    torch.testing.assert_close(mine, by_hand)

    pyro.set_rng_seed(2)
    loss = objective.critic_loss(model, policy, **columns)
    pyro.set_rng_seed(2)
    with torch.no_grad():
        V, _ = soft_value(policy, objective.target, columns["next_observation"], 0.3)
        y = columns["reward"] / ALPHA + 0.9 * torch.where(columns["terminated"], 0.0, V)
        _, divergence = soft_value(policy, critic, columns["observation"], 0.3)
    errors = [Q - y for Q in critic(columns["observation"], columns["action"])]
    expected = sum(error.square().mean() for error in errors) / 2
    expected = expected + objective.log_beta.exp() * (2.5 - divergence.mean())
    torch.testing.assert_close(loss, expected)
    learned = [p for p in objective.parameters() if p.requires_grad]
    mine, by_hand = (torch.autograd.grad(value, learned) for value in (loss, expected))
    torch.testing.assert_close(mine, by_hand)


@double
def test_losses_and_gradients():
    check_losses(SAC)


class OtherSign(SAC):
    """Mutant: the divergence is added, as the slide prints it."""

    @property
    def beta(self):
        return -super().beta


class Hopeful(SAC):
    """Mutant: the greatest of what critics say."""

    @staticmethod
    def _least(values):
        return values.amax(0)


class TruncationAsTermination(SAC):
    """Mutant: what was not seen is worth nothing."""

    def _targets(self, found, following, columns):
        ends = columns["terminated"] | columns["truncated"]
        return super()._targets(found, following, {**columns, "terminated": ends})


class FollowsTheGradient(SAC):
    """Mutant: targets are those of the critic itself, and learn."""

    def critic_loss(self, model, guide, *args, **kwargs):
        found, following = (read(model, guide, kwargs) for read in (sac.choices, sac.next_choices))
        V = self._soft_values(following, self.critic, kwargs["next_observation"])
        y = found.optimality + self.discount * torch.where(kwargs["terminated"], 0.0, V)
        return 0.5 * (self.critic(kwargs["observation"], kwargs["action"]) - y).square().sum(0).mean()


@double
@pytest.mark.parametrize("mutant", [OtherSign, Hopeful, TruncationAsTermination])
def test_mutant_losses(mutant):
    with pytest.raises(AssertionError):
        check_losses(mutant)


@double
def test_mutant_without_the_determinant(monkeypatch):
    monkeypatch.setattr(Squash, "log_abs_det_jacobian", lambda self, x, y: torch.zeros_like(x))
    with pytest.raises(AssertionError):
        check_losses(SAC)


@double
@pytest.mark.parametrize("mutant", [OtherSign, TruncationAsTermination, FollowsTheGradient])
def test_mutant_fixed_points(mutant):
    with pytest.raises(AssertionError):
        check_sac(mutant, None, 0.5)


# Near the end of a box, and beyond where single precision tells actions apart


class Drawn(Policy):
    """One squashed normal for all."""

    def __init__(self, loc, scale):
        super().__init__()
        self.loc, self.scale = nn.Parameter(torch.tensor(loc)), nn.Parameter(torch.tensor(scale))

    def distribution(self, observation):
        return TanhNormal(self.loc.expand(*observation.shape, 1), self.scale).to_event(1)


class Nothing(nn.Module):
    """Two critics that know no difference."""

    def forward(self, observation, action):
        return torch.zeros(2, *action.shape[:-1])


def entropic(policy, prior, rows=20_000):
    """The loss of a policy that is to be near its prior, and nothing else."""
    nothing, ends = torch.zeros(1, rows), torch.ones(1, rows, dtype=torch.bool)
    columns = {"observation": nothing, "next_observation": nothing, "action": torch.zeros(1, rows, 1)}
    columns |= {"reward": nothing, "terminated": ends, "truncated": ~ends}
    pyro.set_rng_seed(0)
    return SAC(Nothing())(OptimalTrajectories(prior), policy, **columns)


def check_pathwise(loc, scale, rows=20_000):
    """The gradient of the divergence from any action in the box, by quadrature: of -log(1 - tanh^2 u), 2 tanh u."""
    policy = Drawn(loc, scale)
    found = torch.autograd.grad(entropic(policy, UniformBox(1), rows), (policy.loc, policy.scale))
    eps = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    weight = (-0.5 * eps**2).exp() / (-0.5 * eps**2).exp().sum()
    slope = 2 * (loc + scale * eps).tanh()
    for gradient, of_draw, known in zip(found, (slope, slope * eps), (0.0, -1 / scale), strict=True):
        mean = (weight * of_draw).sum()
        error = ((weight * of_draw**2).sum() - mean**2).clamp(min=0).sqrt() / rows**0.5
        assert abs(gradient.item() - (mean + known)) < 4.5 * error + 1e-5 * abs(mean + known)


ENDS = pytest.mark.parametrize(("loc", "scale"), [(4.5, 0.5), (7.0, 0.3), (-9.0, 0.5)])


@ENDS
def test_gradients_near_an_end(loc, scale):
    check_pathwise(loc, scale)


def test_gradients_in_the_middle():
    check_pathwise(0.5, 0.8)


@ENDS
def test_mutant_density_of_rounded_actions(loc, scale, monkeypatch):
    """Mutant: scores are those of recorded actions, which beyond the end no longer tell their variables."""

    def of_actions(policy, num_draws):
        draws = drawn(policy, num_draws)
        return draws._replace(log_prob=policy.log_prob(draws.actions))

    drawn = sac.drawn
    monkeypatch.setattr(sac, "drawn", of_actions)
    with pytest.raises(AssertionError):
        check_pathwise(loc, scale)


@ENDS
def test_a_prior_near_an_end(loc, scale):
    """It is asked by the same variables: a policy does not diverge from itself."""
    assert entropic(policy := Drawn(loc, scale), policy).item() == pytest.approx(0.0, abs=1e-6)


# One decision with a closed form: prior N(0, 1), reward -c (a - m)^2 / 2

CURVATURE, OPTIMUM = 2.0, 1.5


def bandit(temperature):
    """Actions on the real line, of which every one ends an episode."""
    action = torch.linspace(-2, 2, 64)[None, :, None]
    nothing, ends = torch.zeros(1, 64), torch.ones(1, 64, dtype=torch.bool)
    columns = {"observation": nothing, "next_observation": nothing, "action": action, "terminated": ends}
    columns |= {"truncated": ~ends, "reward": -0.5 * CURVATURE * (action.squeeze(-1) - OPTIMUM) ** 2}

    def model(observation, reward, **_):
        with trajectory_plates(observation):
            pyro.sample("action", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.factor("optimality", reward / temperature)

    def guide(observation, **_):
        loc, log_scale = (pyro.param(name, lambda: torch.tensor(0.0)) for name in ("loc", "log_scale"))
        with trajectory_plates(observation):
            pyro.sample("action", dist.Normal(loc.expand(1), log_scale.exp()).to_event(1))

    return model, guide, columns


class Quadratic(nn.Module):
    """Two critics, which say what the reward is."""

    def __init__(self, temperature):
        super().__init__()
        truth = torch.tensor([-0.5 * CURVATURE * OPTIMUM**2, CURVATURE * OPTIMUM, -0.5 * CURVATURE])
        self.weight = nn.Parameter((truth / temperature)[:, None].expand(3, 2).clone())

    def forward(self, observation, action):
        a = action.squeeze(-1)
        return (torch.stack([a**0, a, a**2], -1) @ self.weight).movedim(-1, 0)


def gaussian(beta):
    """The posterior of prior and exp(reward / beta), and its divergence from the prior."""
    precision = 1 + CURVATURE / beta
    loc, variance = CURVATURE / beta * OPTIMUM / precision, 1 / precision
    return loc, variance**0.5, 0.5 * (variance + loc**2 - 1 - math.log(variance))


def check_bandit(make, monkeypatch, beta, temperature, target, num_steps):
    """Draws are quantiles, moved to the mean zero and variance one, so that means of squares are exact."""

    def quantiles(shape, dtype, device):
        eps = torch.special.ndtri((torch.arange(shape[-2]) + 0.5) / shape[-2])
        return (eps / eps.square().mean().sqrt())[:, None].expand(shape)

    monkeypatch.setattr(torch.distributions.normal, "_standard_normal", quantiles)
    (model, guide, columns), objective = bandit(temperature), make(Quadratic(temperature), target_divergence=target)
    for _ in train(objective, model, guide, [columns], partial(SGD, lr=0.2), partial(SGD, lr=0.4),
                   num_steps=num_steps, validate=False):  # fmt: skip
        pass
    loc, scale, divergence = gaussian(beta * temperature)
    assert pyro.param("loc").item() == pytest.approx(loc, abs=1e-6)
    assert pyro.param("log_scale").exp().item() == pytest.approx(scale, abs=1e-6)
    assert float(objective.beta) == pytest.approx(beta, abs=1e-6)
    found_loc, found_scale = pyro.param("loc").item(), pyro.param("log_scale").exp().item()
    found = 0.5 * (found_scale**2 + found_loc**2 - 1) - math.log(found_scale)
    assert found == pytest.approx(divergence if target is None else target, abs=1e-6)


@double
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_posterior_of_one_decision(temperature, monkeypatch):
    """Without a target the temperature is the model's, and the fit Bayes' rule."""
    check_bandit(SAC, monkeypatch, 1.0, temperature, None, 40)


@double
def test_the_multiplier_holds_the_divergence(monkeypatch):
    check_bandit(SAC, monkeypatch, 2.5, 1.0, gaussian(2.5)[2], 140)


class OtherMultiplier(SAC):
    """Mutant: it rises where the divergence is below its target."""

    def critic_loss(self, model, guide, *args, **kwargs):
        found = sac.choices(model, guide, kwargs)
        divergence = self._acted(found)[1].mean().detach()
        return 2 * self.log_beta.exp() * (divergence - self.target_divergence) + super().critic_loss(
            model, guide, *args, **kwargs
        )


@double
def test_mutant_multiplier(monkeypatch):
    with pytest.raises(AssertionError):
        check_bandit(OtherMultiplier, monkeypatch, 2.5, 1.0, gaussian(2.5)[2], 60)


# What does not fit


def test_what_is_refused():
    columns, policy, critic = box()
    model = OptimalTrajectories(UniformBox(2))
    lacking = {name: column for name, column in columns.items() if name != "next_observation"}
    for loss in (SAC(critic), SAC(critic).critic_loss):
        with pytest.raises(UsageError, match="transitions lack next_observation"):
            loss(model, policy, **lacking)
    with pytest.raises(ProgramError, match="the model observes nothing"):
        SAC(critic)(UniformBox(2), policy, **columns)
    with pytest.raises(ProgramError, match=r"the critic returned shape \(2, 6\).*expected \(num_critics, 1, 6\)"):
        SAC(Flat(critic)).critic_loss(model, policy, **columns)
    for setting in ({"discount": 1.1}, {"rate": 0.0}, {"target_divergence": 0.0}):
        with pytest.raises(UsageError, match=f"{next(iter(setting))} must be"):
            SAC(critic, **setting)


class Flat(nn.Module):
    """A critic that forgets the dimension of time where actions were taken."""

    def __init__(self, critic):
        super().__init__()
        self.critic = critic

    def forward(self, observation, action):
        values = self.critic(observation, action)
        return values[:, 0] if action.dim() == 3 else values


def test_a_guide_that_passes_no_gradient():
    columns, _, critic = box()

    def guide(observation, **_):
        with trajectory_plates(observation):
            pyro.sample("action", dist.Poisson(torch.ones(2)).to_event(1))

    columns["action"] = torch.ones(1, 6, 2)
    with pytest.raises(ProgramError, match="draws site 'action' from Poisson, which has no rsample"):
        SAC(critic)(OptimalTrajectories(UniformCounts()), guide, **columns)


class UniformCounts(UniformBox):
    def __init__(self):
        super().__init__(2)

    def distribution(self, observation):
        return dist.Poisson(torch.ones(2)).to_event(1)


def test_soft_q_wants_its_own_policy():
    columns = transitions(5)
    columns["reward"] = columns["reward"].float()
    model, network = OptimalTrajectories(UniformChoice(2)), nn.Embedding(24, 2)
    others = (CategoricalPolicy(nn.Embedding(24, 2)), SoftQPolicy(UniformChoice(2), nn.Embedding(24, 2)))
    for guide in others:
        with pytest.raises(ProgramError, match=r"make it of both, SoftQPolicy\(prior, network\)"):
            SoftQ(network)(model, guide, **columns)
    columns, policy, _ = box()
    with pytest.raises(ProgramError, match="has the distribution Independent, expected a Categorical"):
        SoftQ(nn.Linear(3, 2))(OptimalTrajectories(UniformBox(2)), policy, **columns)
    with pytest.raises(UsageError, match="the prior's distribution is Independent"):
        SoftQPolicy(UniformBox(2), nn.Linear(3, 2)).distribution(torch.zeros(1, 6, 3))
