"""Objectives that disentangle, with programs that they are for; what is refused; by name."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from test_compile import assert_same_fit
from test_conformance import images, pairs, tutorial
from torch import nn

from pyrogen.errors import ProgramError, UsageError
from pyrogen.inference import BetaTCVAE, FactorVAE, disentangling_entries, train
from pyrogen.models import vae
from pyrogen.nn import MLP
from pyrogen.spec import DataSpec

sgd = partial(torch.optim.SGD, lr=1e-3)


PROGRAMS = {
    "bernoulli": images("binary"),
    "convolutional": images("binary", network="convolutional", channels=(3, 4)),
    "flow prior": images("binary", prior="flow"),
    "gaussian": images("real"),
    "tutorial": tutorial,
    "pairs": pairs,
}
table = pytest.mark.parametrize("program", PROGRAMS)


def factor_vae():
    torch.manual_seed(2)
    return FactorVAE(MLP(2, 1, (8,)), gamma=2.0)


@table
def test_factor_vae(program):
    """Finite; each player's gradient reaches all of its own parameters, and the critic's no other."""
    model, guide, args = PROGRAMS[program]()
    learner = factor_vae()
    training = train(learner, model, guide, [args], sgd, sgd, num_steps=2)
    assert all(step.loss.isfinite() and step.critic_loss.isfinite() for step in training)
    programs, critic = list(training.parameters.values()), list(learner.parameters())
    gradients = torch.autograd.grad(learner(model, guide, *args), programs, allow_unused=True)
    assert all(g is not None and g.isfinite().all() for g in gradients)
    loss = learner.critic_loss(model, guide, *args)
    gradients = torch.autograd.grad(loss, critic + programs, allow_unused=True)
    assert [g is not None for g in gradients] == [True] * len(critic) + [False] * len(programs)


@pytest.mark.slow
@table
def test_captured(program):
    assert_same_fit(PROGRAMS[program], factor_vae, optimizer=sgd, critic_optimizer=sgd)


@pytest.mark.compiled
@table
def test_compiled(program):
    assert_same_fit(PROGRAMS[program], factor_vae, True, rtol=1e-3, optimizer=sgd, critic_optimizer=sgd)


def test_either_players_step_leaves_the_other_as_it_was():
    """The programs' loss passes through the critic, and the critic's through the guide."""
    model, guide, args = pairs()
    learner = factor_vae()
    training = train(learner, model, guide, [args], sgd, sgd)
    next(training)
    sides = {"programs": (model, guide), "critic": (learner,)}

    def state(modules):
        return [{name: value.clone() for name, value in module.state_dict().items()} for module in modules]

    for mover, other in (("programs", "critic"), ("critic", "programs")):
        moved, left = state(sides[mover]), state(sides[other])
        training._turn({mover: (args, {})})
        torch.testing.assert_close(state(sides[other]), left, rtol=0, atol=0)
        with pytest.raises(AssertionError):
            torch.testing.assert_close(state(sides[mover]), moved, rtol=0, atol=0)


def test_what_is_monitored():
    """A moving average of the mean logit, filled by the critic's loss."""

    class Constant(nn.Module):
        def forward(self, z):
            return z.new_full((len(z),), 0.5)

    model, guide, args = pairs()
    learner = FactorVAE(Constant())
    for _ in range(400):
        learner.critic_loss(model, guide, *args)
    assert float(learner.monitored()["total_correlation"]) == pytest.approx(0.5, abs=1e-3)


# What is refused


def observing(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)


def guided(make, mask=True):
    def guide(x):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=mask):
            pyro.sample("z", make(x))

    return guide


def plateless(x):
    pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))


def global_model(x):
    z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)


def both(program):
    """Two latent sites."""

    def doubled(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))
        program(x)

    return doubled


def two_plates(x):
    with pyro.plate("data", len(x), dim=-2), pyro.plate("coordinates", 2, dim=-1):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, None].expand(-1, 2))


def guide_in_two_plates(x):
    with pyro.plate("data", len(x), dim=-2), pyro.plate("coordinates", 2, dim=-1):
        pyro.sample("z", dist.Normal(x[:, None], 1.0))


normal = guided(lambda x: dist.Normal(x[:, None].expand(-1, 2), 1.0).to_event(1))
masked = guided(lambda x: dist.Normal(x[:, None].expand(-1, 2), 1.0).to_event(1), torch.arange(6) > 2)


@pytest.mark.parametrize("objective", [FactorVAE(nn.Linear(2, 1)), BetaTCVAE()], ids=["factor", "beta-tc"])
@pytest.mark.parametrize(
    ("model", "guide", "message"),
    [
        (both(observing), both(normal), r"of one latent site, and the guide has 'w', 'z'"),
        (global_model, plateless, r"'z' has batch shape \(\) in plates: none"),
        (two_plates, guide_in_two_plates, r"'data' of size 6, 'coordinates' of size 2"),
        (observing, masked, r"'z' is masked"),
    ],
    ids=["two sites", "no plate", "two plates", "masked"],
)
def test_programs_that_do_not_fit(objective, model, guide, message):
    with pytest.raises(ProgramError, match=message):
        objective(model, guide, torch.randn(6))


def test_a_guide_that_passes_no_gradient_on():
    def counting(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Poisson(x.new_ones(2)).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    guide = guided(lambda x: dist.Poisson(x.new_ones(6, 2)).to_event(1))
    with pytest.raises(ProgramError, match=r"'z' is drawn from Poisson.*passes no gradient on"):
        FactorVAE(nn.Linear(2, 1))(counting, guide, torch.randn(6))


def test_a_posterior_whose_coordinates_are_not_independent():
    """Weights need densities of coordinates; the critic needs draws alone."""
    guide = guided(lambda x: dist.MultivariateNormal(x[:, None].expand(-1, 2), torch.eye(2)))
    assert FactorVAE(nn.Linear(2, 1))(observing, guide, torch.randn(6)).isfinite()
    with pytest.raises(ProgramError, match=r"'z' is drawn from MultivariateNormal.*FactorVAE"):
        BetaTCVAE()(observing, guide, torch.randn(6))


def test_what_is_normal_underneath_only():
    """The base of a log-normal distribution is normal, and is not what codes are drawn from."""
    guide = guided(lambda x: dist.LogNormal(x[:, None].expand(-1, 2), 1.0).to_event(1))
    with pytest.raises(ProgramError, match="drawn from LogNormal"):
        BetaTCVAE()(observing, guide, torch.randn(6))


def test_a_critic_of_another_shape():
    with pytest.raises(ProgramError, match=r"the critic returned shape \(6, 2\)"):
        FactorVAE(nn.Linear(2, 2)).critic_loss(observing, normal, torch.randn(6))


def test_more_data_in_a_batch_than_there_are():
    with pytest.raises(ProgramError, match=r"num_data=4, and plate 'data' holds 6"):
        BetaTCVAE(num_data=4)(observing, normal, torch.randn(6))


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("sampling", ["stratified", "weighted"])
def test_a_last_batch_may_be_short(size, sampling):
    assert BetaTCVAE(num_data=100, sampling=sampling)(observing, normal, torch.randn(size)).isfinite()
    assert FactorVAE(nn.Linear(2, 1)).critic_loss(observing, normal, torch.randn(size)).isfinite()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: FactorVAE(nn.Linear(2, 1), gamma=-1.0), lambda: BetaTCVAE(alpha=-1.0), lambda: BetaTCVAE(beta=-0.1),
        lambda: BetaTCVAE(gamma=float("nan")), lambda: BetaTCVAE(num_data=0), lambda: BetaTCVAE(sampling="some"),
    ],
)  # fmt: skip
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match=r"found|choose"):
        wrong()


# By name


@pytest.mark.parametrize("name", disentangling_entries.__all__)
def test_entries(name):
    spec = DataSpec((1, 4, 4), "levels", levels=17)
    model, guide = vae(spec, latent=3, hidden=(8,))
    batch = {"x": torch.randint(0, 17, (6, 1, 4, 4)).float()}
    state = torch.get_rng_state()
    learner = getattr(disentangling_entries, name)(model, guide, batch)
    if not list(learner.parameters()):
        assert torch.equal(torch.get_rng_state(), state)
    critic = sgd if list(learner.parameters()) else None
    steps = list(train(learner, model, guide, [batch], sgd, critic, num_steps=2))
    assert steps[-1].loss.isfinite()


def test_entries_refuse():
    model, guide = vae(DataSpec((4,), "real"), latent=2, hidden=(4,))
    batch = {"x": torch.randn(6, 4)}
    for wrong in ({"gamma": -1.0}, {"hidden": (0,)}):
        with pytest.raises(UsageError, match="found"):
            disentangling_entries.factor_vae(model, guide, batch, **wrong)
    with pytest.raises(UsageError, match="unknown sampling"):
        disentangling_entries.beta_tc_vae(model, guide, batch, sampling="some")
    with pytest.raises(ProgramError, match="the guide has none"):
        disentangling_entries.factor_vae(model, None, batch)
