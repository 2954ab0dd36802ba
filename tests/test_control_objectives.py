"""One table: every objective of recordings with every kind of policy that it is for, and the catalogue's critics."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from test_compile import BACKENDS
from torch import nn

from pyrogen import catalogue
from pyrogen.data import Rollouts, TabularEnvironment
from pyrogen.errors import UsageError
from pyrogen.inference import PPO, KLControl, train
from pyrogen.mdp import MDP
from pyrogen.models import (
    CategoricalPolicy,
    OptimalTrajectories,
    TanhNormalPolicy,
    UniformBox,
    UniformChoice,
    trajectory_plates,
)
from pyrogen.nn import MLP, StateValues

OBJECTIVES = {
    "KLControl": partial(KLControl, discount=0.9, decay=0.8),
    "KLControl, sampled KL": partial(KLControl, discount=0.9, decay=0.8, analytic_kl=False),
    "PPO": partial(PPO, discount=0.9, decay=0.8),
    "PPO, normalized": partial(PPO, discount=0.9, decay=0.8, normalize=True),
}


def choice():
    return OptimalTrajectories(UniformChoice(3), 0.5), CategoricalPolicy(MLP(4, 3, (8,)))


def box():
    return OptimalTrajectories(UniformBox(2), 0.5), TanhNormalPolicy(MLP(4, 4, (8,)))


def learned_prior():
    return OptimalTrajectories(CategoricalPolicy(MLP(4, 3, (8,))), 0.5), CategoricalPolicy(MLP(4, 3, (8,)))


def tables():
    return OptimalTrajectories(UniformChoice(3), 0.5), CategoricalPolicy(nn.Embedding(7, 3))


def functions():
    """Plain functions, with ``pyro.param`` and ``pyro.module``."""
    network = nn.Linear(4, 3)

    def model(observation, reward, **_):
        with trajectory_plates(observation):
            pyro.sample("action", dist.Categorical(logits=pyro.param("prior", torch.zeros(3))))
            pyro.factor("optimality", 2.0 * reward)

    def guide(observation, **_):
        pyro.module("network", network)
        with trajectory_plates(observation):
            pyro.sample("action", dist.Categorical(logits=network(observation)))

    return model, guide


PROGRAMS = {
    "choice": choice, "box": box, "learned prior": learned_prior, "tables": tables, "functions": functions
}  # fmt: skip
table = pytest.mark.parametrize(
    ("objective", "program"), [(objective, program) for objective in OBJECTIVES for program in PROGRAMS]
)


def recording(program, guide):
    """Numbers that nobody acted by, with the guide's own log-probabilities."""
    observation = torch.randint(7, (6, 3)) if program == "tables" else torch.randn(6, 3, 4)
    trace = pyro.poutine.trace(guide).get_trace(observation=observation)
    site = trace.nodes["action"]
    return {
        "observation": observation,
        "action": site["value"].detach(),
        "reward": torch.randn(6, 3),
        "next_observation": observation.roll(-1, 0),
        "terminated": torch.rand(6, 3) < 0.2,
        "truncated": torch.rand(6, 3) < 0.2,
        "log_prob": site["fn"].log_prob(site["value"]).detach(),
    }


def fitted(objective, program, how):
    """Fit to one recording for three rounds; from a fixed seed."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model, guide = PROGRAMS[program]()
    batch = recording(program, guide)
    critic = StateValues(num_observations=7, hidden=()) if program == "tables" else StateValues((4,), hidden=(8,))
    learner = OBJECTIVES[objective](critic)
    optimizer = partial(torch.optim.SGD, lr=1e-3, momentum=0.9)
    with pyro.validation_enabled(False):  # KLControl would see that the policy has learned since
        training = train(learner, model, guide, [batch], optimizer, optimizer, simultaneous=True, num_steps=3,
                         compile=how)  # fmt: skip
        return list(training), training, batch


@table
def test_objective_and_policy(objective, program):
    """Scalars, finite; gradients reach exactly the programs' parameters by one loss, the critic's by the other."""
    steps, training, batch = fitted(objective, program, False)
    assert all(step.loss.shape == step.critic_loss.shape == () for step in steps)
    assert all(step.loss.isfinite() and step.critic_loss.isfinite() for step in steps)
    learner, programs = training.objective, (training.model, training.guide)
    critic = list(learner.parameters())
    own = list(training.parameters.values())
    with pyro.validation_enabled(False):
        losses = learner(*programs, **batch), learner.critic_loss(*programs, **batch)
    for loss, mine, others in ((losses[0], own, critic), (losses[1], critic, own)):
        found = torch.autograd.grad(loss, [*mine, *others], allow_unused=True)
        assert all(g is not None and g.isfinite().all() for g in found[: len(mine)])
        assert all(g is None for g in found[len(mine) :])


CAPTURED = [
    *(("PPO, normalized", program) for program in PROGRAMS),
    *(("KLControl", program) for program in ("choice", "box", "tables")),
]


@pytest.mark.slow
@pytest.mark.parametrize("how", BACKENDS)
@pytest.mark.parametrize(("objective", "program"), CAPTURED)
def test_captured(objective, program, how):
    """A whole step of both players, as one graph, is the same step."""
    expected, by_hand, _ = fitted(objective, program, False)
    parameters = {name: p.detach().clone() for name, p in by_hand.parameters.items()}
    found, training, _ = fitted(objective, program, how)
    assert all(graph is not None for turn in training._graphs.values() for graph in turn.graphs.known.values())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.loss, other.loss, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one.critic_loss, other.critic_loss, rtol=1e-4, atol=1e-4)
    for name, value in parameters.items():
        torch.testing.assert_close(training.parameters[name].detach(), value, rtol=1e-4, atol=1e-4)


# The catalogue


@pytest.mark.parametrize(("name", "kind"), [("kl-control", KLControl), ("ppo", PPO)])
@pytest.mark.parametrize("program", ["choice", "box", "tables"])
def test_entries(name, kind, program):
    """A critic of the right shape, that speaks of nats: one over the temperature times what its network says."""
    model, guide = PROGRAMS[program]()
    example = recording(program, guide)
    objective = catalogue.find("objective", name)(model, guide, example, decay=0.7, critic_hidden=(8,))
    assert type(objective) is kind
    assert (objective.learns_from, objective.decay, objective.critic.scale) == ("recordings", 0.7, 2.0)
    assert objective(model, guide, **example).isfinite()
    assert objective.critic_loss(model, guide, **example).isfinite()


def test_entries_of_what_cannot_be_told():
    model, guide = functions()
    example = recording("tables", tables()[1])
    with pytest.raises(UsageError, match="how many there are is told by an nn"):
        catalogue.find("objective", "ppo")(model, guide, example)
    with pytest.raises(UsageError, match=r"pass observation_shape, .* found \(\) and None"):
        StateValues()
    with pytest.raises(UsageError, match="scale must be above 0, found 0"):
        StateValues((4,), scale=0.0)


def test_values_are_the_networks_in_another_unit():
    pyro.set_rng_seed(0)
    one, ten = StateValues((2, 2)), StateValues((2, 2), scale=10.0)
    ten.load_state_dict(one.state_dict())
    x = torch.randn(5, 3, 2, 2)
    torch.testing.assert_close(ten(x), 10 * one.network(x.reshape(5, 3, 4))[..., 0])


# By the loop


def test_minibatches_of_environments():
    """Each round draws a group for both players: a recording is four rounds."""
    mdp = MDP(torch.full((4, 2, 4), 0.25), torch.tensor([[0.0, 1.0]] * 4))
    world = TabularEnvironment(mdp, 4, time_limit=8)
    policy = CategoricalPolicy(nn.Embedding(4, 2))
    rollouts = Rollouts(world, policy, 16, uses=2, minibatches=2, players=2)
    optimizer = partial(torch.optim.Adam, lr=0.05)
    objective = PPO(StateValues(num_observations=4, hidden=()), 0.9, 0.9)
    for _ in train(objective, OptimalTrajectories(UniformChoice(2)), policy, rollouts, optimizer, optimizer,
                   simultaneous=True, num_steps=120):  # fmt: skip
        pass
    assert rollouts.num_environment_steps == 120 // 4 * 16 * 4
    truth = 1 / (1 + math.exp(-1.0))  # all states are the same, and so is what follows
    assert policy.distribution(torch.arange(4)).probs[:, 1].mean().item() == pytest.approx(truth, abs=0.05)
