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
from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation import policy_values, variational_values
from pyrogen.inference import MPO, train
from pyrogen.inference.improvement import Improvement, fit_of
from pyrogen.inference.transitions import Draws, drawn
from pyrogen.mdp import MDP
from pyrogen.models import (
    CategoricalPolicy,
    OptimalTrajectories,
    Policy,
    TanhNormalPolicy,
    UniformBox,
    UniformChoice,
)
from pyrogen.nn import MLP, ActionValues

pytestmark = pytest.mark.usefixtures("double")

# The E-step: the best distribution in a trust region, of three states with four actions each


def improvement(scale=1.0):
    """Any gains and probabilities of an old policy."""
    pyro.set_rng_seed(3)
    log_p = torch.randn(4, 1, 3).log_softmax(0)
    return Improvement(Draws(torch.arange(4.0), log_p, log_p), scale * torch.randn(4, 1, 3))


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


def objective_of(policy, **settings):
    objective = MPO(table_critic(), policy, GAMMA, **settings)
    with torch.no_grad():
        objective.log_multiplier.fill_(0.4)
    return objective


def test_weights_by_enumeration():
    """The programs' gradient is that of a weighted likelihood, with weights p^(1/(1+eta)) pi^(eta/(1+eta)) e^(Q/(1+eta)).

    At the copy itself, divergences are flat.
    """
    policy, prior, columns = Table(torch.randn(4, 2)), Table(PRIOR.log()), every_transition()
    objective = objective_of(policy)
    loss = objective(OptimalTrajectories(prior, ALPHA), policy, **columns)
    eta, s = torch.tensor(0.4).exp(), columns["observation"]
    Q, pi = objective.lagging_critic(torch.arange(4)).amin(0), policy.logits.detach().softmax(-1)
    q = (PRIOR * pi**eta * Q.exp()) ** (1 / (1 + eta))
    q = q / q.sum(-1, keepdim=True)
    wanted = [-(q * parameter.log_softmax(-1))[s].sum(-1).mean() for parameter in (policy.logits, prior.logits)]
    for parameter, value in zip((policy.logits, prior.logits), wanted, strict=True):
        found = torch.autograd.grad(loss, parameter, retain_graph=True)[0]
        torch.testing.assert_close(found, torch.autograd.grad(value, parameter)[0])
    # less the room that is left, by multipliers that begin at 1
    assert loss.item() == pytest.approx(sum(wanted).item() - 0.01)


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
    for module in (objective.critic, objective.lagging_critic):
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


class Backups(torch.optim.SGD):
    """Steps of the critic that put the mean of its targets in place of each value, and leave multipliers to others."""

    def __init__(self, params):
        table = [p for p in params if p.dim() == 3]
        others = [p for p in params if p.dim() < 2]
        # the loss of 40 rows, of which 5 are a value's, has the gradient 2 * 5 / 40 * (Q - mean of targets)
        super().__init__([{"params": table, "lr": 4.0}, {"params": others, "lr": 0.05}])


def copies_of_a_fit(mdp, alpha, prior, periods=40, period=10, **settings):
    """Fit to all transitions, and return the probabilities of the copy in each period."""
    pyro.set_rng_seed(0)
    policy = Table(torch.zeros(4, 2))
    critic = table_critic(1)
    critic.first.bias.requires_grad_(False).zero_()
    objective = MPO(critic, policy, GAMMA, period=period, rate=1.0, **settings)
    model = OptimalTrajectories(prior, alpha)
    training = train(objective, model, policy, [every_transition(mdp)], partial(torch.optim.Adam, lr=0.02), Backups,
                     steps=(1, 4), num_steps=periods * period, validate=False)  # fmt: skip
    copies = []
    for step in training:
        if step.index % period == 0:
            copies.append(objective.old_policy.logits.softmax(-1).clone())
    return copies


def check_improvement(alpha=ALPHA, **settings):
    prior = Table(PRIOR.log()).requires_grad_(False)
    copies = copies_of_a_fit(SOFT, alpha, prior, epsilon=0.1, epsilon_policy=0.02, **settings)
    values = torch.stack([policy_values(SOFT, q, PRIOR, temperature=alpha, discount=GAMMA) for q in copies])
    best = variational_values(SOFT, PRIOR, temperature=alpha, discount=GAMMA)
    assert (values[1:] - values[:-1] > -1e-3).all()
    assert (values[5] > values[0] + 0.01).all()
    torch.testing.assert_close(values[-1], best.values, atol=5e-3, rtol=0)
    torch.testing.assert_close(copies[-1], best.policy, atol=2e-2, rtol=0)


def test_improvement_on_a_soft_mdp():
    check_improvement()
