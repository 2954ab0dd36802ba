"""MPO: its dual against a solver of the primal, its two steps by enumeration and quadrature, and its fixed points."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from known_answers import SOFT_MDP_TRUTH as T
from scipy.optimize import minimize, minimize_scalar
from torch import nn

import pyrogen.inference.mpo
from pyrogen.distributions import TanhNormal
from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation import policy_values, variational_values
from pyrogen.inference import MPO, train
from pyrogen.inference.draws import drawn
from pyrogen.inference.improvement import Improvement, fit_of
from pyrogen.mdp import MDP
from pyrogen.models import (
    OptimalTrajectories,
    Policy,
    TanhNormalPolicy,
    UniformChoice,
)
from pyrogen.nn import ActionValues

pytestmark = pytest.mark.usefixtures("double")

# The E-step: the best distribution in a trust region, of three states with four actions each


def improvement(scale=1.0):
    """Any gains and probabilities of an old policy."""
    pyro.set_rng_seed(3)
    log_p = torch.randn(4, 1, 3).log_softmax(0)
    return Improvement(drawn(dist.Categorical(logits=log_p.movedim(0, -1)), 1), scale * torch.randn(4, 1, 3))


def kl(q, log_p):
    return (q * (q.log() - log_p)).sum(0).mean()


def solved(improved, epsilon):
    """Solve the primal problem over all distributions, without a dual: its value, and what is best."""
    log_p, gains = improved.draws.log_weights, improved.gains

    def of(logits):
        return torch.as_tensor(logits).reshape(4, 1, 3).softmax(0)

    def minus_objective(logits):
        q = of(logits)
        return (kl(q, log_p) - (q * gains).sum(0).mean()).item()

    room = {"type": "ineq", "fun": lambda logits: epsilon - kl(of(logits), log_p).item()}
    found = minimize(minus_objective, log_p.flatten().numpy(), constraints=[room], method="SLSQP", tol=1e-13,
                     options={"maxiter": 500})  # fmt: skip
    assert found.success
    return -found.fun, of(found.x)


def least(dual, epsilon):
    """Minimise a dual over multipliers: where, and its value."""
    found = minimize_scalar(
        lambda x: dual(torch.tensor(x), epsilon).item(), bounds=(0, 100), method="bounded", options={"xatol": 1e-10}
    )
    return torch.tensor(found.x), found.fun


def check_dual(dual, epsilon=0.05):
    improved = improvement()
    value, q = solved(improved, epsilon)
    multiplier, at_least = least(partial(dual, improved), epsilon)
    assert at_least == pytest.approx(value, abs=1e-7)
    assert kl(q, improved.draws.log_weights).item() == pytest.approx(epsilon, abs=1e-6)  # the bound is met
    torch.testing.assert_close(improved.weights(multiplier), q, atol=1e-4, rtol=0)
    assert kl(improved.weights(multiplier), improved.draws.log_weights).item() == pytest.approx(epsilon, abs=1e-5)


def test_dual_is_that_of_the_primal_problem():
    check_dual(Improvement.dual)


def test_mutant_sign_of_the_dual():
    with pytest.raises(AssertionError):
        check_dual(lambda improved, multiplier, epsilon: improved.dual(multiplier, -epsilon))


def test_mutant_dual_without_the_prior():
    """The paper's eta, that of a prior that is the policy: another problem."""
    with pytest.raises(AssertionError):
        check_dual(lambda improved, multiplier, epsilon: improved.dual(multiplier - 1, epsilon) + epsilon)


def test_room_to_spare():
    """Where the best distribution of all lies in the trust region, the multiplier is zero, and it is what is found."""
    improved = improvement(0.1)
    multiplier, value = least(improved.dual, epsilon=0.5)
    assert multiplier.item() == pytest.approx(0.0, abs=1e-6)
    best = (improved.draws.log_weights + improved.gains).softmax(0)
    torch.testing.assert_close(improved.weights(multiplier), best, atol=1e-6, rtol=0)
    assert value == pytest.approx((improved.draws.log_weights + improved.gains).logsumexp(0).mean().item(), abs=1e-6)


# The objective's own E-step, by probabilities that are written out

SOFT = MDP(T.P, T.R)
GAMMA, ALPHA = 0.9, 0.5
PRIOR = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5], [0.2, 0.8]], dtype=torch.float64)


class Table(Policy):
    """A policy of four states: a softmax of logits."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits.clone())

    def distribution(self, observation):
        return dist.Categorical(logits=self.logits[observation])


def every_transition(mdp=SOFT, terminated=False):
    """Transitions in a batch, each pair of state and action five times, in which each next state has its share."""
    s, a, k = torch.cartesian_prod(torch.arange(4), torch.arange(2), torch.arange(5)).T
    used_up = (5 * mdp.transitions[s, a].cumsum(-1)).round() <= k[:, None]
    following = used_up.sum(-1)
    flag = torch.zeros(1, len(s), dtype=torch.bool)
    columns = {"observation": s[None], "action": a[None], "reward": mdp.rewards[s, a][None]}
    return columns | {"next_observation": following[None], "terminated": flag | terminated, "truncated": flag}


def test_rows_are_the_mdp():
    columns = every_transition()
    counted = torch.zeros(4, 2, 4)
    counted.index_put_([columns[n][0] for n in ("observation", "action", "next_observation")], torch.tensor(0.2),
                       accumulate=True)  # fmt: skip
    torch.testing.assert_close(counted, T.P)


def table_critic(num_critics=2):
    return ActionValues(num_observations=4, num_actions=2, hidden=(), num_critics=num_critics)


def objective_of(policy, make=MPO, **settings):
    objective = make(table_critic(), policy, GAMMA, **settings)
    with torch.no_grad():
        objective.log_multiplier.fill_(0.4)
    return objective


def check_weights(make=MPO):
    """The programs' gradient is that of a weighted likelihood, with weights (p pi^eta e^Q)^(1 / (1 + eta)).

    At the copy itself, divergences are flat.
    """
    pyro.set_rng_seed(0)
    policy, prior, columns = Table(torch.randn(4, 2)), Table(PRIOR.log()), every_transition()
    objective = objective_of(policy, make)
    loss = objective(OptimalTrajectories(prior, ALPHA), policy, **columns)
    eta, s = torch.tensor(0.4).exp(), columns["observation"]
    Q, pi = objective.target(torch.arange(4)).amin(0), policy.logits.detach().softmax(-1)
    q = (PRIOR * pi**eta * Q.exp()) ** (1 / (1 + eta))
    q = q / q.sum(-1, keepdim=True)
    wanted = [-(q * parameter.log_softmax(-1))[s].sum(-1).mean() for parameter in (policy.logits, prior.logits)]
    for parameter, value in zip((policy.logits, prior.logits), wanted, strict=True):
        found = torch.autograd.grad(loss, parameter, retain_graph=True)[0]
        torch.testing.assert_close(found, torch.autograd.grad(value, parameter)[0])
    # less the room that is left, by multipliers that begin at 1
    assert loss.item() == pytest.approx(sum(wanted).item() - 0.02)


def test_weights_by_enumeration():
    check_weights()


def test_mutant_the_greatest_of_what_critics_say(monkeypatch):
    values = pyrogen.inference.mpo.action_values
    monkeypatch.setattr(pyrogen.inference.mpo, "action_values", lambda *args: values(*args).amax(0, keepdim=True))
    with pytest.raises(AssertionError):
        check_weights()


class OtherSide(MPO):
    """Mutant: the programs' loss rewards a policy for leaving its trust region."""

    def forward(self, model, guide, **columns):
        loss, excess = super().forward(model, guide, **columns), trust(self, model, guide, columns) - self.bounds[:1]
        return loss - 2 * (self.log_multipliers[:1].detach().exp() * excess).sum()


def trust(objective, model, guide, columns):
    """How far a policy is from its copy."""
    found = pyrogen.inference.mpo.choices(model, guide, columns)
    return fit_of(objective._improved(found, columns["observation"]).draws, found.policy).divergences


def test_mutant_trust_of_the_other_sign():
    with pytest.raises(AssertionError):
        check_weights(OtherSide)


def check_multiplier(make=MPO, epsilon=0.05):
    """Values that are held: the multiplier comes to rest where the best distribution is as far as it may be."""
    pyro.set_rng_seed(1)
    policy, columns = Table(torch.randn(4, 2)), every_transition()
    model, objective = OptimalTrajectories(Table(PRIOR.log()), ALPHA), objective_of(policy, make, epsilon=epsilon)
    objective.target.first.weight.copy_(2 * torch.randn(2, 4, 2))
    optimizer = torch.optim.Adam([objective.log_multiplier], lr=0.1)
    for _ in range(120):
        optimizer.zero_grad()
        objective.critic_loss(model, policy, **columns).backward()
        optimizer.step()
    seen = pyrogen.inference.mpo.choices(model, policy, columns)
    improved = objective._improved(seen, columns["observation"])
    found = kl(improved.weights(objective.multiplier.detach()), improved.draws.log_weights)
    assert found.item() == pytest.approx(epsilon, rel=0.01)


def test_multiplier_holds_the_bound():
    check_multiplier()


class StillMultiplier(MPO):
    """Mutant: the dual is not minimised."""

    @property
    def multiplier(self):
        return super().multiplier.detach() + 0 * self.log_multiplier


class OtherDual(MPO):
    """Mutant: the multiplier shrinks where the bound is passed."""

    @property
    def multiplier(self):
        return 2 * super().multiplier.detach() - super().multiplier


@pytest.mark.parametrize("mutant", [StillMultiplier, OtherDual])
def test_mutant_multiplier(mutant):
    with pytest.raises(AssertionError):
        check_multiplier(mutant)


# The critic: values of the copy's trajectories, prior included


def exact_values(pi, gamma=GAMMA):
    """Action values by those of states, which are solved for."""
    V = policy_values(SOFT, pi, PRIOR, temperature=ALPHA, discount=gamma)
    return T.R / ALPHA + gamma * T.P @ V


def check_targets(**flags):
    """At the exact values of the copy, the critic's gradient vanishes; so it does nowhere else."""
    policy = Table(torch.randn(4, 2))
    objective, columns = objective_of(policy, rate=1.0), every_transition() | flags
    Q = exact_values(policy.logits.detach().softmax(-1))
    for module in (objective.critic, objective.target):
        module.first.bias.data.zero_()
        module.first.weight.data.copy_(Q.expand(2, 4, 2))
    loss = objective.critic_loss(OptimalTrajectories(Table(PRIOR.log()), ALPHA), policy, **columns)
    gradient = torch.autograd.grad(loss, objective.critic.first.weight)[0]
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-9, rtol=0)


@pytest.mark.parametrize("cut", [False, True])
def test_values_of_the_copy(cut):
    """What was cut off is not over."""
    check_targets(truncated=torch.full((1, 40), cut))


def test_nothing_follows_termination():
    with pytest.raises(AssertionError):
        check_targets(terminated=torch.ones(1, 40, dtype=torch.bool))
    policy = Table(torch.randn(4, 2))
    objective, columns = objective_of(policy), every_transition(terminated=True)
    loss = objective.critic_loss(OptimalTrajectories(Table(PRIOR.log()), ALPHA), policy, **columns)
    found = torch.autograd.grad(loss, objective.critic.first.weight)[0]
    Q = objective.critic(columns["observation"], columns["action"])
    wanted = torch.autograd.grad((Q - columns["reward"] / ALPHA).square().mean((1, 2)).sum(),
                                 objective.critic.first.weight)[0]  # fmt: skip
    torch.testing.assert_close(found, wanted)


def test_mutant_truncation_as_termination(monkeypatch):
    targets = pyrogen.inference.mpo.td_targets

    def mutant(columns, *args):
        return targets({**columns, "terminated": columns["terminated"] | columns["truncated"]}, *args)

    monkeypatch.setattr(pyrogen.inference.mpo, "td_targets", mutant)
    with pytest.raises(AssertionError):
        test_values_of_the_copy(True)


# Both steps: each copy of the policy is better than the one before, and the last is the best there is


def backups(parameters):
    """Steps of the critic that put the mean of its targets in place of each value."""
    table = [p for p in parameters if p.dim() == 3]
    multipliers = [p for p in parameters if p.dim() < 2]
    # The loss of 40 rows, of which 5 are a value's, has the gradient 2 * 5 / 40 * (Q - mean of targets).
    return torch.optim.SGD([{"params": table, "lr": 4.0}, {"params": multipliers, "lr": 0.05}])


def copies_of_a_fit(model, make=MPO, periods=16, period=5, **settings):
    """Fit a policy of four states to all transitions, and return its copy in each period, and how far it went."""
    pyro.set_rng_seed(0)
    policy, critic = Table(torch.zeros(4, 2)), table_critic(1)
    critic.first.bias.requires_grad_(False).zero_()
    objective = make(critic, policy, GAMMA, epsilon=0.1, period=period, rate=1.0, **settings)
    training = train(objective, model, policy, [every_transition()], partial(torch.optim.Adam, lr=0.1), backups,
                     steps=(1, 2), num_steps=periods * period, validate=False, compile="capture")  # fmt: skip
    copies = [policy.logits.detach().softmax(-1)]
    for step in training:
        if step.index % period == 0:
            copies.append(objective.old_policy.logits.softmax(-1).clone())
    return torch.stack(copies)


def values_of(copies, alpha):
    return torch.stack([policy_values(SOFT, q, PRIOR, temperature=alpha, discount=GAMMA) for q in copies])


def check_improvement(make=MPO, alpha=ALPHA):
    """Each is at least as good as the one before, and the last is the best that there is."""
    copies = copies_of_a_fit(OptimalTrajectories(Table(PRIOR.log()).requires_grad_(False), alpha), make)
    values, best = values_of(copies, alpha), variational_values(SOFT, PRIOR, temperature=alpha, discount=GAMMA)
    assert (values[1:] > values[:-1]).all()
    assert (best.values - values[0] > 5).all()
    torch.testing.assert_close(values[-1], best.values, atol=1e-3, rtol=0)
    torch.testing.assert_close(copies[-1], best.policy, atol=5e-3, rtol=0)


def test_improvement_on_a_soft_mdp():
    check_improvement()


class OtherGains(MPO):
    """Mutant: the prior has been left out, as if it were the policy."""

    def _improved(self, seen, observation):
        found = super()._improved(seen, observation)
        prior = seen.prior.log_prob(found.draws.actions) - found.draws.log_prob
        return found._replace(gains=found.gains - prior)


def test_mutant_fit_without_the_prior():
    with pytest.raises(AssertionError):
        check_improvement(OtherGains)


def test_small_temperatures_find_the_optimal_policy():
    """That of rewards alone: the best of all deterministic policies."""
    copies = copies_of_a_fit(OptimalTrajectories(UniformChoice(2), 0.02), periods=24)
    deterministic = torch.eye(2)[torch.cartesian_prod(*[torch.arange(2)] * 4)]
    returns = torch.stack([policy_values(SOFT, q, q, discount=GAMMA) for q in deterministic])
    torch.testing.assert_close(copies[-1], deterministic[returns.sum(1).argmax()], atol=2e-2, rtol=0)


# Normal policies, and their hyperbolic tangents


class Gaussian(Policy):
    """One normal policy for all states."""

    def __init__(self, loc, scale):
        super().__init__()
        self.loc, self.log_scale = nn.Parameter(torch.tensor(loc)), nn.Parameter(torch.tensor(scale).log())

    def distribution(self, observation):
        return dist.Normal(self.loc.expand(1, 1), self.log_scale.exp()).to_event(1)


class Reward(nn.Module):
    """The value of an action that ends everything."""

    def __init__(self, of):
        super().__init__()
        self.of = of

    def forward(self, observation, action):
        return self.of(action).squeeze(-1).unsqueeze(0)


def one_step(batch=16):
    flag = torch.zeros(1, batch, dtype=torch.bool)
    columns = {"observation": torch.zeros(1, batch), "next_observation": torch.zeros(1, batch), "reward": flag.double()}
    return columns | {"action": torch.zeros(1, batch, 1), "terminated": ~flag, "truncated": flag}


def fit_of_bandit(of, num_steps, policy, decays=False, make=MPO, **settings):
    """Fit a normal policy to given rewards of one step, and return the location and scale of each copy of it."""
    prior = Gaussian(0.0, 1.0).requires_grad_(False)
    objective = make(Reward(of), policy, num_draws=64, period=5, **settings)
    scheduler = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda n: 1 - decays * n / num_steps)
    training = train(objective, OptimalTrajectories(prior), policy, [one_step()], partial(torch.optim.Adam, lr=0.05),
                     partial(torch.optim.Adam, lr=0.05), num_steps=num_steps, scheduler=scheduler, validate=False,
                     compile="capture")  # fmt: skip
    old = objective.old_policy
    copies = [torch.stack([old.loc, old.log_scale.exp()]).detach() for step in training if step.index % 5 == 0]
    return torch.stack(copies).unbind(1)


def test_quadratic_bandit():
    """A reward of -2 (a - 1)^2 and a standard normal prior have a normal posterior, which is found."""
    locs, scales = fit_of_bandit(lambda a: -2 * (a - 1) ** 2, 150, Gaussian(0.0, 1.0), decays=True)
    assert locs[-1].item() == pytest.approx(4 / 5, abs=0.03)
    assert scales[-1].item() == pytest.approx(5**-0.5, abs=0.03)


def check_constraint(make=MPO):
    """Where more is to be had farther away, without an end, each copy is left as far behind as it may."""
    policy = Gaussian(0.0, 1.0)
    policy.log_scale.requires_grad_(False)
    locs, scales = fit_of_bandit(lambda a: 30 * a, 300, policy, make=make, epsilon_policy=0.005)
    assert (scales == 1).all()
    divergences = (locs[1:] - locs[:-1]).square() / 2
    assert (divergences[:5] > 0.02).all()  # before the multiplier has found its value
    assert divergences[35:].mean().item() == pytest.approx(0.005, rel=0.2)


def test_a_constraint_holds_in_the_mean():
    check_constraint()


class OtherTrust(MPO):
    """Mutant: the multiplier of the trust region falls where the policy goes too far."""

    def critic_loss(self, model, guide, **columns):
        with torch.no_grad():
            excess = trust(self, model, guide, columns) - self.bounds
        return super().critic_loss(model, guide, **columns) + 2 * (self.log_multipliers.exp() * excess).sum()


def test_mutant_multiplier_of_the_trust_region():
    with pytest.raises(AssertionError):
        check_constraint(OtherTrust)


QUADRATURE = torch.linspace(-9, 9, 4001, dtype=torch.float64)


def check_divergences(fit_of=fit_of):
    """Divergences of the squashed policies, by integrals over actions, each with one of both parts of the new one."""
    old, new = (TanhNormalPolicy(nn.Identity()).distribution(torch.tensor([[outputs]], dtype=torch.float64))
                for outputs in ([0.3, -0.2], [0.5, -0.1]))  # fmt: skip
    found = fit_of(drawn(old, 3), new).divergences
    (loc, scale), (new_loc, new_scale) = ((d.base_dist.base_dist.loc, d.base_dist.base_dist.scale) for d in (old, new))
    a = QUADRATURE.tanh()[:, None, None, None]
    weight = (1 - a.square()).squeeze(-1) * (QUADRATURE[1] - QUADRATURE[0])
    for k, part in enumerate((TanhNormal(new_loc, scale).to_event(1), TanhNormal(loc, new_scale).to_event(1))):
        truth = (weight * old.log_prob(a).exp() * (old.log_prob(a) - part.log_prob(a))).sum()
        assert found[k].item() == pytest.approx(truth.item(), abs=1e-6)


def test_divergences_of_squashed_policies():
    check_divergences()


def test_mutant_direction_of_the_divergence():
    with pytest.raises(AssertionError):
        check_divergences(lambda draws, new: fit_of(drawn(new, 3), draws.policy))


def test_divergence_of_choices():
    """That of the old policy from the new, by the definition; of a policy of no known kind, by its draws."""
    old, new = dist.Categorical(logits=torch.randn(1, 3, 4)), dist.Categorical(logits=torch.randn(1, 3, 4))
    truth = (old.probs * (old.probs / new.probs).log()).sum(-1).mean()
    torch.testing.assert_close(fit_of(drawn(old, 1), new).divergences, truth[None])
    old, new = (dist.Beta(x, torch.ones(1, 2000)) for x in (2.0, 3.0))
    draws = drawn(old, 20)
    off = (draws.log_prob - new.log_prob(draws.actions)).std().item() / 40_000**0.5
    truth = torch.distributions.kl_divergence(old, new).mean().item()
    assert fit_of(draws, new).divergences.item() == pytest.approx(truth, abs=4.5 * off)


# Copies that are renewed on time, and what does not fit


def test_copies_are_renewed_on_time():
    policy = Table(torch.randn(4, 2))
    objective, model = objective_of(policy, period=3, rate=0.25), OptimalTrajectories(UniformChoice(2))
    lagging = objective.target.first.weight.clone()
    training = train(objective, model, policy, [every_transition()], partial(torch.optim.Adam, lr=0.1),
                     partial(torch.optim.Adam, lr=0.1), num_steps=4)  # fmt: skip
    copies, policies = [], []
    for step in training:
        copies.append(objective.old_policy.logits.clone())
        policies.append(policy.logits.detach().clone())
        if step.index == 1:
            wanted = 0.75 * lagging + 0.25 * objective.critic.first.weight.detach()
            torch.testing.assert_close(objective.target.first.weight, wanted)
    assert torch.equal(copies[0], copies[1])
    assert not torch.equal(copies[1], copies[2])
    assert torch.equal(copies[2], policies[2])
    assert torch.equal(copies[3], copies[2])


def test_a_prior_that_is_the_policy():
    """The paper's own: at the copy, a policy gains its values alone."""
    policy = Table(torch.randn(4, 2))
    objective, columns = objective_of(policy), every_transition()
    found = pyrogen.inference.mpo.choices(OptimalTrajectories(policy), policy, columns)
    improved = objective._improved(found, columns["observation"])
    torch.testing.assert_close(improved.gains, improved.gains.new_tensor(0.0) + objective.target(
        columns["observation"]).amin(0).movedim(-1, 0))  # fmt: skip


def test_settings_and_programs_that_do_not_fit():
    policy, model, columns = Table(torch.zeros(4, 2)), OptimalTrajectories(UniformChoice(2)), every_transition()
    for settings, message in (
        ({"discount": 1.5}, "discount must be between 0 and 1, found 1.5"),
        ({"epsilon": 0.0}, "epsilon must be above 0, found 0.0: it is a bound"),
        ({"epsilon_policy": -1.0}, "epsilon_policy must be above 0, found -1.0"),
        ({"period": 0}, "period must be at least 1, found 0"),
        ({"num_draws": 0}, "num_draws must be at least 1, found 0"),
        ({"rate": 2.0}, "rate must be above 0 and at most 1, found 2.0"),
    ):
        with pytest.raises(UsageError, match=message):
            MPO(table_critic(), policy, **settings)
    with pytest.raises(ProgramError, match=r"cannot copy a function: write the guide as a pyrogen\.models\.Policy"):
        MPO(table_critic(), lambda observation: None)
    objective = MPO(table_critic(), policy)
    for loss in (objective, objective.critic_loss):
        with pytest.raises(ProgramError, match="the guide is not the one that MPO was made for"):
            loss(model, Table(torch.zeros(4, 2)), **columns)
    with pytest.raises(UsageError, match="transitions lack terminated: pass a dict of columns"):
        objective(model, policy, **{k: v for k, v in columns.items() if k != "terminated"})
    with pytest.raises(ProgramError, match=r"returned shape \(2, 3, 1, 40\), expected \(num_critics, 2, 1, 40"):
        MPO(ActionValues(num_observations=4, num_actions=3, hidden=()), policy)(model, policy, **columns)
