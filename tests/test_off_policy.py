"""Objectives of replayed transitions, as every objective is held: players, capture, the fit, and noise that is kept."""

import copy
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyrogen.inference.draws
import pyrogen.inference.mpo
from pyrogen.data import Outcome, Rollouts
from pyrogen.errors import ProgramError, UsageError
from pyrogen.inference import MPO, PPO, SAC, VIREL, KLControl, SoftQ, off_policy_entries, train
from pyrogen.models import (
    CategoricalPolicy,
    OptimalTrajectories,
    Policy,
    SoftQPolicy,
    StateDependentExploration,
    TanhNormalPolicy,
    UniformBox,
    UniformChoice,
)
from pyrogen.nn import MLP, ActionValues

ADAM = partial(torch.optim.Adam, lr=0.01)


def transitions(bounded, counted=False):
    flags = torch.arange(6)[None]
    numbers = partial(torch.randint, 5, (1, 6)) if counted else partial(torch.randn, 1, 6, 3)
    return {
        "observation": numbers(),
        "action": 1.8 * torch.rand(1, 6, 2) - 0.9 if bounded else torch.randint(4, (1, 6)),
        "reward": torch.randn(1, 6),
        "next_observation": numbers(),
        "terminated": flags == 2,
        "truncated": flags == 4,
        "log_prob": torch.zeros(1, 6),
    }


def in_a_box(smooth=False, **settings):
    network = MLP(3, 4, (5,))
    features = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
    policy = StateDependentExploration(features, 5, 2) if smooth else TanhNormalPolicy(network)
    objective = SAC(ActionValues((3,), num_action_dims=2, hidden=(5,)), **settings)
    return objective, OptimalTrajectories(UniformBox(2), 0.5), policy, transitions(bounded=True)


def of_choices(counted=False, learned=False, **settings):
    def network():
        return nn.Embedding(5, 4) if counted else MLP(3, 4, (5,))

    shape = {"num_observations": 5} if counted else {"observation_shape": (3,)}
    objective = SAC(ActionValues(**shape, num_actions=4, hidden=(5,)), **settings)
    prior = CategoricalPolicy(network()) if learned else UniformChoice(4)
    return objective, OptimalTrajectories(prior, 0.5), CategoricalPolicy(network()), transitions(False, counted)


class Forbids(CategoricalPolicy):
    """The last choice is never taken."""

    def distribution(self, observation):
        logits = self.network(observation)
        return dist.Categorical(logits=logits.masked_fill(torch.arange(4) == 3, -torch.inf))


def of_allowed_choices(agreed=True, **settings):
    """A policy that forbids a choice, and a prior that does, or permits it."""
    objective, model, _, columns = of_choices(learned=True, **settings)
    prior = Forbids(model.prior.network) if agreed else model.prior
    columns["action"] = columns["action"].clamp(max=2)
    return objective, OptimalTrajectories(prior, 0.5), Forbids(MLP(3, 4, (5,))), columns


def mpo(programs, **settings):
    objective, model, policy, columns = programs()
    return MPO(objective.critic, policy, num_draws=3, period=2, **settings), model, policy, columns


def own_prior():
    """A policy that is its own prior."""
    objective, _, policy, columns = in_a_box()
    return objective, OptimalTrajectories(policy, 0.5), policy, columns


def virel(programs, **settings):
    objective, *rest = programs()
    return VIREL(objective.critic, **settings), *rest


def of_values(prior=None):
    model = OptimalTrajectories(UniformChoice(4) if prior is None else prior, 0.5)
    policy = SoftQPolicy(model.prior, MLP(3, 4, (5,)))
    return SoftQ(policy.network), model, policy, transitions(bounded=False)


ROWS = {
    "sac": in_a_box,
    "sac, tuned": partial(in_a_box, target_divergence=2.0),
    "sac, state-dependent exploration": partial(in_a_box, smooth=True),
    "sac, choices": of_choices,
    "sac, choices, tuned": partial(of_choices, target_divergence=0.5),
    "sac, whole numbers": partial(of_choices, counted=True),
    "sac, learned prior": partial(of_choices, learned=True),
    "soft-q": of_values,
    "mpo": partial(mpo, in_a_box),
    "mpo, choices": partial(mpo, of_choices),
    "mpo, whole numbers": partial(mpo, partial(of_choices, counted=True)),
    "mpo, learned prior": partial(mpo, partial(of_choices, learned=True)),
    "mpo, own prior": partial(mpo, own_prior),
    "virel": partial(virel, in_a_box, num_draws=2),
    "virel, choices": partial(virel, of_choices),
    "virel, learned prior": partial(virel, partial(of_choices, learned=True)),
}
MASKED = {
    "sac": partial(of_allowed_choices, target_divergence=0.5),
    "mpo": partial(mpo, of_allowed_choices),
    "virel": partial(virel, of_allowed_choices),
}
ROWS |= {f"{name}, masked choices": make for name, make in MASKED.items()}
ROWS |= {f"{name}, choices that the prior permits": make for name, make in {
    "sac": partial(of_allowed_choices, agreed=False),
    "mpo": partial(mpo, partial(of_allowed_choices, agreed=False)),
    "virel": partial(virel, partial(of_allowed_choices, agreed=False)),
}.items()}  # fmt: skip
table = pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)


def has_critic(objective):
    return not isinstance(objective, SoftQ)


def fit(make, **settings):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    objective, model, policy, columns = make()
    training = train(objective, model, policy, [columns], ADAM, ADAM if has_critic(objective) else None,
                     num_steps=3, **settings)  # fmt: skip
    losses = [(step.loss, step.critic_loss) for step in training]
    return losses, objective.state_dict() | {f"policy.{k}": v for k, v in policy.state_dict().items()}


@table
def test_players(make):
    """Each loss is a finite scalar, and reaches what its player learns and nothing else of its own."""
    objective, model, policy, columns = make()
    programs = [*model.parameters(), *(p for p in policy.parameters() if all(p is not q for q in model.parameters()))]
    losses = [(objective, programs)]
    if has_critic(objective):
        losses.append((objective.critic_loss, [p for p in objective.parameters() if p.requires_grad]))
    for loss_of, learned in losses:
        loss = loss_of(model, policy, **columns)
        assert loss.shape == ()
        assert loss.isfinite()
        assert all(g.isfinite().all() for g in torch.autograd.grad(loss, learned, retain_graph=True))
        with torch.no_grad():
            assert loss_of(model, policy, **columns).isfinite()
    multipliers = [p for name, p in objective.named_parameters() if name.startswith("log_")]
    reached = torch.autograd.grad(objective(model, policy, **columns), [programs[0], *multipliers], allow_unused=True)
    assert all(g is None for g in reached[1:])
    assert objective.learns_from == "transitions"
    assert all(not p.requires_grad for p in objective.target.parameters())
    if has_critic(objective):
        reached = torch.autograd.grad(loss, programs, allow_unused=True)
        assert all(g is None for g in reached)


@pytest.mark.parametrize("make", MASKED.values(), ids=MASKED)
def test_mutant_mean_over_what_is_never_taken(make, monkeypatch):
    """Nothing times infinity is no number."""
    for module in (pyrogen.inference.draws, pyrogen.inference.mpo):
        monkeypatch.setattr(module, "weighted", lambda weights, values: (weights * values).sum(0))
    with pytest.raises(AssertionError):
        test_players(make)


class Deep(nn.Module):
    """A critic with a dimension too many where actions were taken, as of a linear layer's single output."""

    def __init__(self, critic):
        super().__init__()
        self.critic = critic

    def forward(self, observation, action):
        values = self.critic(observation, action)
        return values.unsqueeze(-1) if action.dim() == 3 else values


@pytest.mark.parametrize("make", [in_a_box, *(ROWS[name] for name in ("mpo", "virel"))], ids=["sac", "mpo", "virel"])
def test_a_critic_of_another_shape(make):
    """It is refused, and not broadcast against its targets."""
    objective, model, policy, columns = make()
    objective.critic = Deep(objective.critic)
    with pytest.raises(ProgramError, match=r"shape \(2, 1, 6, 1\) for actions.*expected \(num_critics, 1, 6\)"):
        objective.critic_loss(model, policy, **columns)


def test_soft_q_wants_its_own_policy_of_allowed_choices():
    """What both forbid is no difference, and hides none."""
    objective, model, policy, columns = of_values(Forbids(MLP(3, 4, (5,))))
    assert objective(model, policy, **columns).isfinite()
    others = (SoftQPolicy(model.prior, MLP(3, 4, (5,))), SoftQPolicy(UniformChoice(4), policy.network))
    for guide in others:
        with pytest.raises(ProgramError, match=r"make it of both, SoftQPolicy\(prior, network\)"):
            objective(model, guide, **columns)


@pytest.mark.slow
@pytest.mark.parametrize("compile", ["capture", pytest.param(True, marks=pytest.mark.compiled)])
@pytest.mark.parametrize("name", ["sac, tuned", "sac, choices", "soft-q", "mpo", "mpo, choices", "virel"])
def test_capture(name, compile):
    """Losses, optimisers and target networks in a graph do what they do without."""
    eager, after = fit(ROWS[name])
    captured, as_well = fit(ROWS[name], compile=compile)
    close = {"atol": 1e-4, "rtol": 1e-4} if compile is True else {}  # another order of the same sums
    torch.testing.assert_close(captured, eager, **close)
    torch.testing.assert_close(as_well, after, **close)


def test_a_policy_that_is_its_own_prior():
    """Its parameters are held once, and move."""
    pyro.clear_param_store()
    objective, model, policy, columns = mpo(own_prior)
    before = copy.deepcopy(policy)
    training = train(objective, model, policy, [columns], ADAM, ADAM)
    next(training)
    assert [id(p) for p in training.parameters.values()] == [id(p) for p in policy.parameters()]
    assert all(not torch.equal(*pair) for pair in zip(before.parameters(), policy.parameters(), strict=True))


@pytest.mark.parametrize("make", [in_a_box, of_values, *(ROWS[name] for name in ("mpo", "virel"))])
def test_the_target_follows(make):
    """By a part of the way from where it was to where a step has led, and by no gradient."""
    pyro.clear_param_store()
    objective, model, policy, columns = make()
    before = copy.deepcopy(objective.target)
    network = objective.critic if has_critic(objective) else policy.network
    next(train(objective, model, policy, [columns], ADAM, ADAM if has_critic(objective) else None))
    for old, new, goal in zip(before.parameters(), objective.target.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(new, 0.995 * old + 0.005 * goal)
        assert not torch.equal(new, old)


# Values of actions


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("bounded", [False, True])
def test_several_networks_are_as_many_apart(bounded, counted):
    """Each is an ordinary network of the same weights, one-hot vectors in the place of whole numbers."""
    columns = transitions(bounded, counted)
    shape = {"num_observations": 5} if counted else {"observation_shape": (3,)}
    shape |= {"num_action_dims": 2} if bounded else {"num_actions": 4}
    values = ActionValues(**shape, num_critics=3, hidden=(7, 6))
    x = nn.functional.one_hot(columns["observation"], 5).float() if counted else columns["observation"]
    if bounded:
        x = torch.cat([x, columns["action"]], -1)
    found = values(columns["observation"], columns["action"])
    assert found.shape == (3, 1, 6)
    for i in range(3):
        network = MLP(x.shape[-1], 1 if bounded else 4, (7, 6), nn.ReLU)
        linear = [layer for layer in network if isinstance(layer, nn.Linear)]
        for mine, theirs in zip([values.first, *values.layers], linear, strict=True):
            theirs.weight.data, theirs.bias.data = mine.weight[i].T, mine.bias[i, 0]
        expected = network(x)
        if not bounded:
            torch.testing.assert_close(values(columns["observation"])[i], expected)
            expected = expected.gather(-1, columns["action"].unsqueeze(-1))
        torch.testing.assert_close(found[i], expected.squeeze(-1))


def test_values_that_are_refused():
    with pytest.raises(UsageError, match="pass num_actions, for choices, or num_action_dims, for a box"):
        ActionValues((3,))
    with pytest.raises(UsageError, match="must be at least 1, found 2, \\[0\\]"):
        ActionValues((3,), num_actions=2, hidden=(0,))
    with pytest.raises(UsageError, match="has no value unless it is given"):
        ActionValues((3,), num_action_dims=2)(torch.zeros(1, 6, 3))


# By name


def test_entries():
    """Critics have the shapes of an example, and begin in the unit of rewards."""
    _, model, policy, columns = in_a_box()
    made = off_policy_entries.sac(model, policy, columns, critic_hidden=(5,))
    assert made.target_divergence == pytest.approx(2 * 1.6931, abs=1e-4)
    assert made.critic(columns["observation"], columns["action"]).shape == (2, 1, 6)
    assert made.critic.scale == 2.0  # temperature 0.5
    assert made.critic_loss(model, policy, **columns).isfinite()
    assert off_policy_entries.sac(model, policy, columns, tuned=False, critic_hidden=(5,)).log_beta is None
    with pytest.raises(UsageError, match="leave it out, or tuned on"):
        off_policy_entries.sac(model, policy, columns, tuned=False, target_divergence=1.0)
    with pytest.raises(
        ProgramError, match=r"events of shape \(\), expected a vector.*: give its distribution .to_event\(1\)"
    ):
        off_policy_entries.sac(OptimalTrajectories(Numbers()), Numbers(), columns | {"action": torch.zeros(1, 6)})
    only = CategoricalPolicy(nn.Linear(3, 1)), columns | {"action": torch.zeros(1, 6)}
    with pytest.raises(UsageError, match="one action to choose, and no divergence to tune: leave tuned off"):
        off_policy_entries.sac(OptimalTrajectories(UniformChoice(1)), *only)
    assert off_policy_entries.sac(OptimalTrajectories(UniformChoice(1)), *only, tuned=False).log_beta is None

    _, model, policy, columns = of_choices(counted=True)
    made = off_policy_entries.sac(model, policy, columns, critic_hidden=())
    assert made.critic(columns["observation"]).shape == (2, 1, 6, 4)
    assert made.target_divergence == pytest.approx(0.6931, abs=1e-4)
    with pytest.raises(UsageError, match=r"how many there are is told by an nn\.Embedding"):
        off_policy_entries.sac(model, Number(MLP(1, 4, (5,))), columns)

    for entry in (off_policy_entries.mpo, off_policy_entries.virel):
        made = entry(model, policy, columns, critic_hidden=())
        assert made.critic(columns["observation"]).shape == (2, 1, 6, 4)
        assert made(model, policy, **columns).isfinite()
    _, model, policy, columns = of_choices()
    made = off_policy_entries.soft_q(model, policy, columns)  # logits are action values: the prior is uniform
    assert made(model, policy, **columns).isfinite()
    with pytest.raises(UsageError, match="this one shows none"):
        off_policy_entries.soft_q(model, UniformChoice(4), columns)


class Numbers(Policy):
    """An action that is a number, and no vector of one."""

    def distribution(self, observation):
        return dist.Normal(torch.zeros(observation.shape[:2]), 1.0)


class Number(CategoricalPolicy):
    """A policy of whole numbers as they are."""

    def distribution(self, observation):
        return super().distribution(observation.float().unsqueeze(-1))


# Noise that is kept


def smooth(environments=1, num_steps=4, scale=0.5):
    features = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
    return StateDependentExploration(features, 5, 2, scale=scale, num_environments=environments, num_steps=num_steps)


def check_density(policy):
    """Over draws of the matrix, actions have the density that is learned by: moments of the normal variables beneath,
    within 4.5 standard errors."""
    observation = torch.randn(1, 3).expand(len(policy.noise), 3)
    u = policy.act(observation).atanh()
    normal = policy.distribution(observation[0]).base_dist.base_dist
    error = normal.scale / len(u) ** 0.5
    assert ((u.mean(0) - normal.loc).abs() < 4.5 * error).all()
    assert ((u.var(0) / normal.scale**2 - 1).abs() < 4.5 * (2 / len(u)) ** 0.5).all()


@pytest.mark.usefixtures("double")
def test_acting_has_the_density():
    pyro.set_rng_seed(0)
    check_density(smooth(20_000, scale=0.2))


@pytest.mark.usefixtures("double")
def test_mutant_noise_that_knows_no_state():
    class Stateless(StateDependentExploration):
        """Mutant: the noise is that of features that are one."""

        def act(self, observation):
            phi = self.features(observation)
            return (self._loc(phi) + 0.2 * torch.randn(len(phi), 5, 2).sum(1)).tanh()

    pyro.set_rng_seed(0)
    policy = smooth(20_000, scale=0.2)
    policy.__class__ = Stateless
    with pytest.raises(AssertionError):
        check_density(policy)


def test_noise_is_kept_for_some_steps():
    policy, observation = smooth(3), torch.randn(3, 3)
    actions = [policy.act(observation) for _ in range(12)]
    for i in range(12):
        assert torch.equal(actions[i], actions[i - i % 4])
    assert not torch.equal(actions[0], actions[4])
    assert not torch.equal(actions[4], actions[8])
    one, same, other = policy.act(observation[:1].expand(3, 3)).unbind()
    assert not torch.equal(one, same)  # each environment has noise of its own
    assert not torch.equal(same, other)
    restored = smooth(3)
    restored.load_state_dict(policy.state_dict())
    assert torch.equal(restored.act(observation), policy.act(observation))


def test_noise_of_other_environments_is_refused():
    with pytest.raises(UsageError, match="keeps noise for 3 environments, and acts in 2"):
        smooth(3).act(torch.zeros(2, 3))
    with pytest.raises(UsageError, match="num_steps must be at least 1"):
        smooth(num_steps=0)
    with pytest.raises(UsageError, match="scale must be above 0"):
        smooth(scale=0.0)


@pytest.mark.parametrize("objective", [KLControl(), PPO(MLP(3, 1, (5,)))], ids=["kl-control", "ppo"])
def test_trajectories_by_noise_that_is_kept(objective):
    """Their density is not the product of those of actions: it is refused, unless noise lasts for one step."""
    columns, model = transitions(bounded=True), OptimalTrajectories(UniformBox(2))
    columns["terminated"] = columns["terminated"] | True
    with pytest.raises(ProgramError, match="keeps its noise for several steps, whose actions depend on one another"):
        objective(model, smooth(6), **columns)
    for policy in (smooth(6, num_steps=1), TanhNormalPolicy(MLP(3, 4, (5,)))):
        columns["log_prob"] = policy.distribution(columns["observation"]).log_prob(columns["action"]).detach()
        assert objective(model, policy, **columns).isfinite()


def test_recordings_by_noise_that_is_kept():
    """The policy acts by itself, and its actions are scored by the density that is learned by."""
    policy = smooth(3)
    expected = copy.deepcopy(policy)

    class Still:
        """A world where nothing happens, and where actions show noise alone."""

        num_environments = 3

        def reset(self):
            return torch.ones(3, 3)

        def step(self, action):
            ends = torch.zeros(3, dtype=torch.bool)
            return Outcome(action.sum(-1), self.reset(), ends, ends, self.reset())

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    pyro.set_rng_seed(0)
    recording = next(iter(Rollouts(Still(), policy, 8)))
    assert torch.equal(recording["action"][0], recording["action"][3])
    assert not torch.equal(recording["action"][3], recording["action"][4])
    log_prob = expected.distribution(recording["observation"]).log_prob(recording["action"])
    torch.testing.assert_close(recording["log_prob"], log_prob)
