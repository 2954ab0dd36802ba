"""Soft linear-quadratic control: Riccati equations, integrals, slopes, simulation, limits, and wrong recursions."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

import pyrogen.evaluation.linear_quadratic as module
from pyrogen.errors import NonFiniteError, UsageError
from pyrogen.evaluation import (
    QuadraticValues,
    posterior_regulator,
    regulator_returns,
    regulator_values,
    variational_regulator,
)
from pyrogen.inference import KLControl
from pyrogen.lqg import LinearQuadratic
from pyrogen.models import trajectory_plates

pytestmark = pytest.mark.usefixtures("double")


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)


PLANE = LinearQuadratic(
    A=tensor([[1.0, 0.3], [-0.2, 1.1]]),
    B=tensor([[0.1, 0.4], [0.9, -0.3]]),
    Q=tensor([[1.0, 0.2], [0.2, 0.5]]),
    R=tensor([[0.7, 0.1], [0.1, 0.4]]),
    W=tensor([[0.3, 0.1], [0.1, 0.2]]),
)
LINE = LinearQuadratic(*(tensor([[x]]) for x in (1.1, 0.8, 0.9, 0.5, 0.4)))
PRIOR = tensor([[0.9, 0.2], [0.2, 0.6]])
ALPHA, GAMMA, H = 0.7, 0.9, 4
STATES = tensor([[1.0, -0.5], [0.0, 0.0], [-2.0, 0.3]])


def quiet(problem):
    return LinearQuadratic(problem.A, problem.B, problem.Q, problem.R, 0 * problem.W)


# Known equations


@pytest.mark.parametrize("prior", [None, PRIOR])
@pytest.mark.parametrize("discount", [0.5, GAMMA])
def test_algebraic_riccati_equation(prior, discount):
    """Scaled by the discount's root, the soft problem has the equation of the plain one, with the prior as a cost."""
    found = variational_regulator(PLANE, prior, temperature=ALPHA, discount=discount)
    R = PLANE.R / ALPHA + (0 if prior is None else prior.inverse())
    root = math.sqrt(discount)
    arrays = (x.numpy() for x in (root * PLANE.A, root * PLANE.B, PLANE.Q / ALPHA, R))
    P = torch.as_tensor(scipy.linalg.solve_discrete_are(*arrays))
    torch.testing.assert_close(found.values.curvatures, P)
    gain = torch.linalg.solve(R + discount * PLANE.B.T @ P @ PLANE.B, discount * PLANE.B.T @ P @ PLANE.A)
    torch.testing.assert_close(found.gains, gain)


def test_endless_is_the_limit_of_long():
    endless = variational_regulator(PLANE, PRIOR, temperature=ALPHA, discount=GAMMA)
    long = variational_regulator(PLANE, PRIOR, temperature=ALPHA, discount=GAMMA, horizon=400)
    for one, other in ((endless.values, long.values), (endless[:2], long[:2])):
        for whole, step in zip(one, other, strict=True):
            torch.testing.assert_close(whole, step[0])
    K, C = endless.gains + 0.05, 1.3 * endless.covariances
    settings = {"temperature": ALPHA, "discount": GAMMA}
    for whole, step in zip(
        regulator_values(PLANE, K, C, PRIOR, **settings),
        regulator_values(PLANE, K, C, PRIOR, horizon=400, **settings),
        strict=True,
    ):
        torch.testing.assert_close(whole, step[0])


# Integrals: each value is one of the next values, by quadrature


def nodes(covariance: Tensor, mean: Tensor, number: int = 40) -> tuple[Tensor, Tensor]:
    """Points and weights that integrate against a normal density of one dimension, those of Gauss and Hermite."""
    x, w = (torch.as_tensor(values) for values in np.polynomial.hermite_e.hermegauss(number))
    return mean.unsqueeze(-1) + covariance.sqrt() * x, w / math.sqrt(2 * math.pi)


def check_bellman(solve, *, hopes: bool, prior: Tensor | None = None, **discounted: float) -> None:
    """The definition of each quantity in one dimension: log of an integral over actions, of what is to be expected."""
    found = solve(LINE, prior, temperature=ALPHA, horizon=H, **discounted)
    discount = discounted.get("discount", 1.0)
    s = tensor([0.0, 0.7, -1.5])[:, None]
    a = torch.linspace(-12, 12, 4001)
    log_prior = torch.zeros(()) if prior is None else -0.5 * (a.square() / prior + (2 * math.pi * prior).log())[0]
    for t in range(H):
        after, w = nodes(LINE.W[0, 0], LINE.A[0, 0] * s + LINE.B[0, 0] * a)
        V = found.values(after.unsqueeze(-1), t + 1) if t + 1 < H else torch.zeros_like(after)
        expected = (V + w.log()).logsumexp(-1) if hopes else (V * w).sum(-1)
        Q = -0.5 * (LINE.Q * s.square() + LINE.R * a.square()) / ALPHA + discount * expected
        log_joint = log_prior + Q
        log_value = log_joint.logsumexp(-1) + (a[1] - a[0]).log()
        torch.testing.assert_close(found.values(s, t), log_value, atol=1e-7, rtol=0)
        weight = log_joint.softmax(-1)
        mean = (weight * a).sum(-1)
        torch.testing.assert_close(-(found.gains[t] @ s.T)[0], mean, atol=1e-7, rtol=0)
        variance = (weight * a.square()).sum(-1) - mean.square()
        torch.testing.assert_close(found.covariances[t, 0].expand(3), variance, atol=1e-7, rtol=0)


BELLMAN = [(variational_regulator, False), (posterior_regulator, True)]


@pytest.mark.parametrize("prior", [None, tensor([[0.8]])])
@pytest.mark.parametrize(("solve", "hopes"), BELLMAN)
def test_bellman_equation(solve, hopes, prior):
    check_bellman(solve, hopes=hopes, prior=prior)


def test_bellman_equation_with_a_discount():
    check_bellman(variational_regulator, hopes=False, prior=tensor([[0.8]]), discount=GAMMA)


# Slopes


@pytest.mark.parametrize("horizon", [None, H])
def test_the_best_policy_is_level(horizon):
    """Its ELBO is its value; no change of gains or covariances raises that, to first order or by a step."""
    settings = {"temperature": ALPHA, "horizon": horizon, "discount": GAMMA}
    best = variational_regulator(PLANE, PRIOR, **settings)
    K, C = best.gains.clone().requires_grad_(), best.covariances.clone().requires_grad_()
    values = regulator_values(PLANE, K, C, PRIOR, **settings)
    for found, expected in zip(values, best.values, strict=True):
        torch.testing.assert_close(found, expected)
    for slope in torch.autograd.grad(values(STATES).sum(), (K, C)):
        torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-9, rtol=0)
    for change in (0.9, 1.1):
        assert (regulator_values(PLANE, change * K, C, PRIOR, **settings)(STATES[:1]) < values(STATES[:1])).all()
        assert (regulator_values(PLANE, K, change * C, PRIOR, **settings)(STATES) < values(STATES)).all()


def test_bounds():
    """Any policy is below the best, and the best below the evidence by what noise does."""
    best = variational_regulator(PLANE, PRIOR, temperature=ALPHA, horizon=H)
    evidence = posterior_regulator(PLANE, PRIOR, temperature=ALPHA, horizon=H)
    hopeful = regulator_values(PLANE, *evidence[:2], PRIOR, temperature=ALPHA, horizon=H)
    assert (hopeful(STATES[::2]) < best.values(STATES[::2])).all()
    assert (best.values(STATES) < evidence.values(STATES)).all()
    without = [f(quiet(PLANE), PRIOR, temperature=ALPHA, horizon=H) for f, _ in BELLMAN]
    torch.testing.assert_close(without[0], without[1])


def test_certainty_equivalence():
    """Noise changes no variational policy, and every hopeful one but the last."""
    for (solve, _), same in zip(BELLMAN, (True, False), strict=True):
        noisy, without = (solve(problem, PRIOR, horizon=H).gains for problem in (PLANE, quiet(PLANE)))
        assert torch.allclose(noisy[:-1], without[:-1]) is same
        torch.testing.assert_close(noisy[-1], without[-1])


def test_limits_of_temperature():
    """At zero it is the regulator of control theory, in the unit of rewards; at infinity, the prior."""
    cold = variational_regulator(PLANE, PRIOR, temperature=1e-8, horizon=H)
    plain = variational_regulator(PLANE, temperature=123.0, horizon=H)
    torch.testing.assert_close(cold.gains, plain.gains, atol=1e-7, rtol=0)
    torch.testing.assert_close(1e-8 * cold.values(STATES), regulator_returns(PLANE, plain.gains, 0 * PRIOR, horizon=H)(
        STATES), atol=1e-5, rtol=0)  # fmt: skip
    hot = variational_regulator(PLANE, PRIOR, temperature=math.inf, horizon=H)
    torch.testing.assert_close(hot.gains, torch.zeros(H, 2, 2))
    torch.testing.assert_close(hot.covariances, PRIOR.expand(H, 2, 2))
    torch.testing.assert_close(hot.values(STATES), torch.zeros(3), atol=1e-12, rtol=0)


# Simulation


def simulated(gains, covariances, number=40_000):
    """Returns of trajectories from the first state, and the divergence of each from the prior."""
    generator = torch.Generator().manual_seed(0)
    s = STATES[0].expand(number, 2)
    total, divergence = torch.zeros(number), torch.zeros(number)
    prior = torch.distributions.MultivariateNormal(torch.zeros(2), PRIOR)
    for t in range(H):
        noise = torch.randn(2, number, 2, generator=generator)
        mean = -s @ gains[t].mT
        a = mean + noise[0] @ torch.linalg.cholesky(covariances[t]).mT
        total += -0.5 * ((s @ PLANE.Q * s).sum(-1) + (a @ PLANE.R * a).sum(-1))
        divergence += torch.distributions.MultivariateNormal(mean, covariances[t]).log_prob(a) - prior.log_prob(a)
        s = s @ PLANE.A.mT + a @ PLANE.B.mT + noise[1] @ torch.linalg.cholesky(PLANE.W).mT
    return total, divergence


def test_simulation():
    """Return, ELBO and evidence, the last by importance weights of the exact posterior's actions."""

    def check(found, draws):
        assert abs(found - draws.mean()) < 4.5 * draws.std() / math.sqrt(len(draws))

    K, C = variational_regulator(PLANE, PRIOR, temperature=ALPHA, horizon=H)[:2]
    total, divergence = simulated(0.8 * K, 1.2 * C)
    check(regulator_returns(PLANE, 0.8 * K, 1.2 * C, horizon=H)(STATES[0]), total)
    elbo = regulator_values(PLANE, 0.8 * K, 1.2 * C, PRIOR, temperature=ALPHA, horizon=H)(STATES[0])
    check(elbo, total / ALPHA - divergence)
    evidence = posterior_regulator(PLANE, PRIOR, temperature=3.0, horizon=H)
    total, divergence = simulated(*evidence[:2])
    check(1.0, (total / 3.0 - divergence - evidence.values(STATES[0])).exp())


# The policy is the guide: trajectories of all points of a quadrature, which is exact for what is here


def trajectories(gains, scales):
    """Recordings of a policy in one dimension, one environment for each path of points, and what each path weighs.

    Three points integrate polynomials up to the fifth degree; a score times a return has the fourth in each draw.
    """
    horizon = len(gains)
    x, w = nodes(torch.ones(()), torch.zeros(()), 3)
    draws = torch.cartesian_prod(*[x] * (2 * horizon)).T
    weight = torch.cartesian_prod(*[w] * (2 * horizon)).prod(-1)
    states, actions = [torch.full_like(weight, 0.7)], []
    for t in range(horizon):
        actions.append(-gains[t] * states[t] + scales[t] * draws[t])
        noise = LINE.W[0, 0].sqrt() * draws[horizon + t]
        states.append(LINE.A[0, 0] * states[t] + LINE.B[0, 0] * actions[t] + noise)
    state, action = torch.stack(states), torch.stack(actions)
    terminated = (torch.arange(horizon) == horizon - 1)[:, None].expand_as(action)
    return {
        "observation": state[:-1],
        "action": action,
        "reward": -0.5 * (LINE.Q[0] * state[:-1].square() + LINE.R[0] * action.square()),
        "next_observation": state[1:],
        "terminated": terminated,
        "truncated": torch.zeros_like(terminated),
    }, weight


class AnyValues(nn.Module):
    """A baseline that does not see the action."""

    def forward(self, observation):
        return 0.3 * observation.square() - 1.0


def model(observation, reward, **_):
    with trajectory_plates(observation):
        pyro.sample("action", dist.Normal(0.0, 0.8**0.5))
        pyro.factor("optimality", reward / ALPHA)


def policy_of(gains, log_scales):
    def policy(observation, **_):
        with trajectory_plates(observation):
            pyro.sample("action", dist.Normal(-gains * observation, log_scales.exp()))

    return policy


def slopes(gains, scales, **settings):
    """The mean slopes in gains and log-scales: each path has parameters of its own, whose slope has its weight."""
    recording, weight = trajectories(gains, scales)
    own = [x[:, None].repeat(1, len(weight)).requires_grad_() for x in (gains, scales.log())]
    loss = KLControl(AnyValues(), **settings)(model, policy_of(*own), **recording)
    return torch.stack([(weight * slope).sum(-1) for slope in torch.autograd.grad(-loss, own)])


def exact_slopes(gains, scales):
    K, log_scales = gains.clone().requires_grad_(), scales.log().requires_grad_()
    C = (2 * log_scales).exp()[:, None, None]
    settings = {"temperature": ALPHA, "horizon": len(K)}
    value = regulator_values(LINE, K[:, None, None], C, tensor([[0.8]]), **settings)(tensor([0.7]))
    return torch.stack(torch.autograd.grad(value, (K, log_scales)))


def best_in_one_dimension(horizon=2):
    found = variational_regulator(LINE, tensor([[0.8]]), temperature=ALPHA, horizon=horizon)
    return found.gains[:, 0, 0], found.covariances[:, 0, 0].sqrt(), found.values(tensor([0.7]))


@pytest.mark.parametrize("analytic_kl", [False, True])
def test_policy_gradient_is_zero_at_the_best_policy(analytic_kl):
    """And elsewhere the slope of the ELBO that the recursion computes."""
    gains, scales, _ = best_in_one_dimension()
    found = slopes(gains, scales, analytic_kl=analytic_kl)
    torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-12, rtol=0)
    found = slopes(gains + 0.1, 1.2 * scales, analytic_kl=analytic_kl)
    assert found.abs().min() > 0.05
    torch.testing.assert_close(found, exact_slopes(gains + 0.1, 1.2 * scales))


def test_elbo_of_the_best_policy_is_its_value():
    gains, scales, value = best_in_one_dimension()
    recording, weight = trajectories(gains, scales)
    policy = policy_of(gains[:, None], scales.log()[:, None])
    paths = ({name: column[:, e : e + 1] for name, column in recording.items()} for e in range(len(weight)))
    elbo = sum(-weight[e] * KLControl()(model, policy, **path) for e, path in enumerate(paths))
    torch.testing.assert_close(elbo, value)


# Mutants


def without_entropy(monkeypatch):
    original = module._improved

    def mutant(*args):
        found = original(*args)
        after = args[-1].constants
        return found._replace(values=QuadraticValues(found.values.curvatures, after))

    monkeypatch.setattr(module, "_improved", mutant)


def without_the_priors_cost(monkeypatch):
    original = module._prior
    monkeypatch.setattr(module, "_prior", lambda *args: (0 * original(*args)[0], original(*args)[1]))


@pytest.mark.parametrize("mutate", [without_entropy, without_the_priors_cost])
@pytest.mark.parametrize(("solve", "hopes"), BELLMAN)
def test_mutant_recursions(mutate, solve, hopes, monkeypatch):
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check_bellman(solve, hopes=hopes, prior=tensor([[0.8]]))


@pytest.mark.parametrize(("solve", "hopes"), BELLMAN)
def test_mutant_the_other_quantity(solve, hopes):
    """One is not the other, though both are soft values."""
    with pytest.raises(AssertionError):
        check_bellman(solve, hopes=not hopes)


def test_mutant_policy_gradient_at_the_hopeful_policy():
    """The exact posterior's policy is not where KL control comes to rest."""
    found = posterior_regulator(LINE, tensor([[0.8]]), temperature=ALPHA, horizon=2)
    assert slopes(found.gains[:, 0, 0], found.covariances[:, 0, 0].sqrt()).abs().max() > 0.01


def test_mutant_risk_that_is_shunned():
    """With the sign of noise turned, the regulator is the risk-averse one of control theory."""

    def averse(problem, *args, **settings):
        object.__setattr__(problem := quiet(problem), "W", -LINE.W)
        return posterior_regulator(problem, *args, **settings)

    with pytest.raises(AssertionError):
        check_bellman(averse, hopes=True, prior=tensor([[0.8]]))


# What does not fit


def test_what_is_refused():
    one, two = torch.eye(1), torch.eye(2)
    with pytest.raises(UsageError, match=r"B must have shape \(n, m\)"):
        LinearQuadratic(one, one[0], one, one, one)
    with pytest.raises(UsageError, match=r"Q must be of shape \(1, 1\), torch.float64 on cpu.*found of shape \(2, 2\)"):
        LinearQuadratic(one, one, two, one, one)
    with pytest.raises(UsageError, match="Q is not symmetric"):
        LinearQuadratic(two, two, tensor([[1.0, 0.5], [0.0, 1.0]]), two, two)
    with pytest.raises(UsageError, match="R has an eigenvalue of 0, expected all above 0"):
        LinearQuadratic(one, one, one, 0 * one, one)
    with pytest.raises(UsageError, match="W has an eigenvalue of -1, expected none below 0"):
        LinearQuadratic(one, one, one, one, -one)
    for name in "ABQRW":
        with pytest.raises(UsageError, match=f"{name} is not finite: 1 of its elements"):
            LinearQuadratic(**(dict.fromkeys("ABQRW", one) | {name: torch.nan * one}))
    with pytest.raises(UsageError, match="prior is not finite"):
        variational_regulator(LINE, torch.inf * one, horizon=2)
    with pytest.raises(UsageError, match="prior must be of shape"):
        variational_regulator(PLANE, one, horizon=2)
    with pytest.raises(UsageError, match=r"gains must have shape \(2, 2\) or \(4, 2, 2\), found \(3, 2, 2\)"):
        regulator_values(PLANE, torch.zeros(3, 2, 2), two, horizon=H)
    with pytest.raises(UsageError, match="endless trajectories need a discount below 1"):
        variational_regulator(PLANE)
    with pytest.raises(UsageError, match="temperature must be above 0"):
        posterior_regulator(PLANE, temperature=0.0, horizon=2)
    with pytest.raises(UsageError, match="temperature must be above 0"):
        regulator_values(PLANE, two, two, temperature=-1.0, horizon=2)


def test_what_grows():
    """Of two numbers that double at each step, actions reach one."""
    two, one = torch.eye(2), torch.eye(1)
    lost = LinearQuadratic(2 * two, tensor([[1.0], [0.0]]), two, one, two)
    with pytest.raises(NonFiniteError, match=r"actions do not reach what grows\. Lower the discount from 0\.9"):
        variational_regulator(lost, discount=GAMMA)
    assert variational_regulator(lost, discount=0.2).values(STATES).isfinite().all()
    with pytest.raises(NonFiniteError, match=r"what it does not hold grows by 1\.897 a step"):
        regulator_returns(lost, torch.zeros(1, 2), one, discount=GAMMA)
