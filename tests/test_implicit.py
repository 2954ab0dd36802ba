"""Objectives that compare samples, with every kind of program that they are for; what critics see; what is refused."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Predictive, Trace_ELBO
from pyro.nn import PyroModule
from test_compile import assert_same_fit
from test_conformance import one_of_each
from torch import nn

from pyrogen.distributions import Implicit
from pyrogen.errors import InfeasibleStartError, NonFiniteError, ProgramError, UsageError
from pyrogen.inference import (
    DRAGAN,
    ELBO,
    FGAN,
    GAN,
    IWAE,
    MMD,
    MMDGAN,
    R1,
    RBF,
    WGAN,
    EnergyDistance,
    Interpolated,
    MaximumLikelihood,
    RationalQuadratic,
    Sinkhorn,
    SlicedWasserstein,
    implicit_entries,
    train,
)  # fmt: skip
from pyrogen.inference.samples import samples_of
from pyrogen.models import dcgan, generator, vae
from pyrogen.nn import MLP
from pyrogen.spec import DataSpec

IMAGES = (1, 4, 5)


class Critic(nn.Module):
    """Scores of whatever is observed and conditioned on, side by side."""

    def __init__(self, num_inputs, num_outputs=1):
        super().__init__()
        self.net = MLP(num_inputs, num_outputs, (8,))

    def forward(self, *values):
        return self.net(torch.cat([value.reshape(len(value), -1) for value in values], 1))


# Objectives, given how many numbers a critic sees of a datum
OBJECTIVES = {
    **{f"GAN, {game}": partial(lambda n, game: GAN(Critic(n), game), game=game)
       for game in ("minimax", "non-saturating", "least-squares", "hinge")},
    "GAN, smoothed": lambda n: GAN(Critic(n), label_smoothing=0.1),
    "GAN-GP": lambda n: GAN(Critic(n), penalties=[Interpolated()]),
    "DRAGAN-NS": lambda n: GAN(Critic(n), penalties=[DRAGAN()]),
    "GAN, two penalties": lambda n: GAN(Critic(n), penalties=[R1(), DRAGAN()]),
    **{f"FGAN, {name}": partial(lambda n, name: FGAN(Critic(n), name), name=name)
       for name in ("kl", "reverse-kl", "js", "pearson", "squared-hellinger", "total-variation")},
    "FGAN, non-saturating": lambda n: FGAN(Critic(n), "kl", non_saturating=True),
    "WGAN": lambda n: WGAN(Critic(n), clip=0.05),
    "WGAN-GP": lambda n: WGAN(Critic(n), [Interpolated()]),
    "MMD": lambda n: MMD(),
    "MMD, mixture": lambda n: MMD(RBF([0.5, 1.0, 2.0]), unbiased=False),
    "MMD, rational quadratic": lambda n: MMD(RationalQuadratic([1.0])),
    "MMDGAN": lambda n: MMDGAN(Critic(n, 3), penalties=[Interpolated()]),
    "EnergyDistance": lambda n: EnergyDistance(),
    "SlicedWasserstein": lambda n: SlicedWasserstein(16),
    "Sinkhorn": lambda n: Sinkhorn(diameter=20.0),
}  # fmt: skip


def mlp():
    model, _ = generator(DataSpec(IMAGES, "levels", levels=4), latent=2, hidden=(8,))
    return model, (torch.randint(0, 4, (6, *IMAGES)).float(),), 20


def conditional():
    model, _ = generator(DataSpec((3,), "real", num_classes=4), latent=2, hidden=(8,), conditional=True)

    def program(x, y):
        pyro.module("model", model)
        return model(x, y=y)

    return program, (torch.randn(6, 3), torch.randint(0, 4, (6,))), 4


def convolutional():
    model, _ = dcgan(DataSpec(IMAGES, "dequantized", levels=4), latent=2, channels=(3, 4))
    return model, (torch.rand(6, *IMAGES),), 20


def autoencoder():
    """A program with a density, by its draws; its guide plays no part."""
    model, _ = vae(DataSpec(IMAGES, "real"), latent=2, hidden=(8,))
    return model, (torch.randn(6, *IMAGES),), 20


class TwoSites(PyroModule):
    """Two observed sites, one with an inner plate, and a covariate for each datum."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 4)

    def forward(self, x, y, c):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            made = self.net(torch.cat([z, c, c], -1))
            pyro.sample("y", Implicit(lambda shape: made[:, :1], batch_shape=y.shape), obs=y)
            with pyro.plate("pixels", 3, dim=-1):
                pyro.sample("x", dist.Normal(made[:, 1:], 0.1), obs=x)


def two_sites():
    return TwoSites(), (torch.randn(6, 3), torch.randn(6, 1), torch.randn(6, 1)), 5


PROGRAMS = {
    "mlp": mlp,
    "conditional": conditional,
    "dcgan": convolutional,
    "vae": autoencoder,
    "two sites": two_sites,
}
ROWS = [(objective, program) for objective in OBJECTIVES for program in PROGRAMS]
table = pytest.mark.parametrize(("objective", "program"), ROWS, ids=[f"{o}-{p}" for o, p in ROWS])


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=1e-3)


def both(learner):
    """The critic's optimiser, where there is a critic."""
    return sgd if any(p.requires_grad for p in learner.parameters()) else None


@table
def test_objective_and_program(objective, program):
    """Finite, and each player's gradient reaches all of its own parameters."""
    model, args, seen = PROGRAMS[program]()
    learner = OBJECTIVES[objective](seen)
    module = next(iter(simulate_modules(model)))
    training = train(learner, model, None, [args], sgd, both(learner), num_steps=2)
    steps = list(training)
    assert all(step.loss.shape == () and step.loss.isfinite() for step in steps)
    held = list(training.parameters.values())
    assert {id(p) for p in held} >= {id(p) for p in module.parameters()}
    gradients = torch.autograd.grad(learner(model, None, *args), held, allow_unused=True)
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert any(g.abs().sum() > 0 for g in gradients)
    critics = list(learner.parameters())
    if critics:
        gradients = torch.autograd.grad(learner.critic_loss(model, None, *args), critics, allow_unused=True)
        # A bias of the last layer shifts all scores: the Wasserstein distance and penalties do not see it.
        assert sum(g is None for g in gradients) <= 1


def simulate_modules(model):
    return [model] if isinstance(model, nn.Module) else [cell.cell_contents for cell in model.__closure__]


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "program"), one_of_each(ROWS))
def test_captured(objective, program):
    """The same losses and parameters as without a graph, both players' steps in it."""
    check_captured(objective, program, "capture")


@pytest.mark.compiled
@pytest.mark.parametrize("program", ["dcgan", "two sites"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_compiled(objective, program):
    check_captured(objective, program, True)


def check_captured(objective, program, how):

    def make():
        model, args, _ = PROGRAMS[program]()
        return model, None, args

    seen = PROGRAMS[program]()[2]
    learner = partial(OBJECTIVES[objective], seen)
    has_critic = both(learner()) is not None

    def seeded():
        torch.manual_seed(2)
        return learner()

    assert_same_fit(make, seeded, how, rtol=1e-3, optimizer=sgd, critic_optimizer=sgd if has_critic else None)


# Players


@pytest.mark.parametrize("simultaneous", [False, True])
def test_either_players_step_leaves_the_other_as_it_was(simultaneous):
    """Batch norm in the generator and spectral norm in the critic: buffers, and optimisers, too."""
    spec = DataSpec((1, 8, 8), "dequantized", levels=4)
    model, _ = dcgan(spec, latent=2, channels=(3, 4))
    learner = implicit_entries.gan(model, None, {}, channels=(3, 4), norm="spectral", penalty="none")
    batches = [torch.rand(6, 1, 8, 8) for _ in range(4)]
    adam = partial(torch.optim.Adam, lr=1e-3)
    training = train(learner, model, None, batches, adam, adam, simultaneous=simultaneous)
    next(training)

    def state(module, player):
        return {name: value.clone() for name, value in module.state_dict().items()}, player.state_dict()

    for kind, mine, others in (("programs", model, learner), ("critic", learner, model)):
        player, other = (training.programs, training.critic)[:: 1 if kind == "programs" else -1]
        before, own = state(others, other), state(mine, player)
        training._turn({kind: ((batches[0],), {})})
        torch.testing.assert_close(state(others, other), before, rtol=0, atol=0)
        with pytest.raises(AssertionError):
            torch.testing.assert_close(state(mine, player), own, rtol=0, atol=0)


def test_clipping():
    model, args, seen = mlp()
    learner = WGAN(Critic(seen), clip=0.01)
    next(train(learner, model, None, [args], sgd, sgd))
    assert all(p.detach().abs().max() <= 0.01 for p in learner.parameters())


@pytest.mark.parametrize("compile", [False, "capture"])
def test_statistics_are_averaged_with_the_parameters(compile):
    """Averaged parameters with the last batch's statistics would be a network that was never there."""
    spec = DataSpec((1, 8, 8), "dequantized", levels=4)
    model, _ = dcgan(spec, latent=2, channels=(3, 4))
    learner = implicit_entries.gan(model, None, {}, channels=(3, 4))
    batches = [torch.rand(6, 1, 8, 8)]
    adam = partial(torch.optim.Adam, lr=1e-2)
    training = train(learner, model, None, batches, adam, adam, num_steps=4, ema=0.75, compile=compile)
    norm = model.network.norms[0]
    expected = norm.running_var.clone()
    for _ in training:
        expected = 0.75 * expected + 0.25 * norm.running_var
    last = norm.running_var.clone()
    with training.averaged():
        torch.testing.assert_close(norm.running_var, expected)
        assert norm.num_batches_tracked > 0
    assert torch.equal(norm.running_var, last)
    assert not torch.allclose(last, expected)
    saved = training.state_dict()["player"]["average"]
    torch.testing.assert_close(saved["model.network.norms.0.running_var"], expected)


# What a critic sees


def test_covariates_are_what_no_site_observes():
    model, (x, y), _ = conditional()
    real, fake, covariates = samples_of(model, (x, y), {})
    assert torch.equal(real[0], x)
    assert fake[0].shape == x.shape
    assert not torch.equal(fake[0], x)
    assert len(covariates) == 1
    assert torch.equal(covariates[0], y)
    assert samples_of(model, (x, y), {}, covariates=()).covariates == ()
    assert len(samples_of(model, (x,), {"y": y}, covariates=("y",)).covariates) == 1


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[:, :3], lambda x: x.reshape(2, 3, 3)[0]])
def test_a_view_of_the_data_is_the_data(view):
    x = torch.randn(6, 3)

    def model(x):
        with pyro.plate("data", len(view(x))):
            pyro.sample("x", dist.Normal(view(x).new_zeros(view(x).shape), 1.0).to_event(1), obs=view(x))

    assert samples_of(model, (x,), {}).covariates == ()


def test_data_that_were_computed_are_not_taken_for_covariates():
    def model(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(y, 1.0), obs=x / 255)

    x, y = torch.randn(6), torch.randn(6)
    with pytest.raises(ProgramError, match=r"'x', 'y' may be what the model computed its data from.*covariates="):
        samples_of(model, (x, y), {})
    [seen] = samples_of(model, (x, y), {}, covariates=("y",)).covariates
    assert seen is y
    with pytest.raises(ProgramError, match="no tensor argument 'z': it has x, y"):
        samples_of(model, (x, y), {}, covariates=("z",))


def value_of_a_critic(model, x):
    torch.manual_seed(0)
    num_inputs = 1 + len(samples_of(model, (x,), {}).covariates)
    learner = GAN(Critic(num_inputs))
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        loss = learner.critic_loss(model, None, x)
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def standard(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x)


def test_a_critic_of_equal_distributions_can_only_guess():
    assert value_of_a_critic(standard, torch.randn(500)) > 1.35  # log 4


def test_mutant_a_critic_that_sees_the_data(monkeypatch):
    """With the data among the covariates, it tells real from fake by comparing: better than is possible."""
    monkeypatch.setattr("pyrogen.inference.covariates._kind", lambda tensor, observed: "free")
    with pytest.raises(AssertionError):
        test_a_critic_of_equal_distributions_can_only_guess()


def test_named_data_are_no_covariates():
    with pytest.raises(ProgramError, match="'x' is what the model observes"):
        samples_of(standard, (torch.randn(6),), {}, covariates=("x",))


def test_columns_of_one_array():
    """Two parts of one array share memory, and it cannot be told whether one is data."""
    both = torch.randn(6, 4)

    def model(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(y[:, None].expand(6, 3), 1.0).to_event(1), obs=x)

    with pytest.raises(ProgramError, match=r"'y' shares memory.*covariates="):
        samples_of(model, (both[:, :3], both[:, 3]), {})
    assert len(samples_of(model, (both[:, :3], both[:, 3]), {}, covariates=("y",)).covariates) == 1
    assert len(samples_of(model, (both[:, :3].clone(), both[:, 3].clone()), {}).covariates) == 1


def test_arguments_without_a_row_a_datum():
    def model(x, y):
        with pyro.plate("data", len(x), subsample_size=3) as i:
            pyro.sample("x", dist.Normal(y[i], 1.0), obs=x[i])

    with pytest.raises(ProgramError, match=r"'x', 'y' has not a row for each of 3 data"):
        samples_of(model, (torch.randn(6), torch.randn(6)), {})
    assert samples_of(model, (torch.randn(6), torch.randn(6)), {}, covariates=()).covariates == ()


@pytest.mark.parametrize("how", ["poutine", "distribution", "obs_mask"])
def test_masked_data_are_refused(how):
    mask = torch.tensor([True, False, True, True, True, True])

    def model(x):
        fn = dist.Normal(x.new_zeros(()), 1.0)
        with pyro.plate("data", len(x)):
            if how == "poutine":
                with pyro.poutine.mask(mask=mask):
                    pyro.sample("x", fn, obs=x)
            elif how == "distribution":
                pyro.sample("x", fn.mask(mask), obs=x)
            else:
                pyro.sample("x", fn, obs=x, obs_mask=mask)

    with pytest.raises(ProgramError, match="is masked"):
        samples_of(model, (torch.randn(6),), {})


def test_plates_are_told_by_name():
    def model(x, y):
        with pyro.plate("a", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x)
        with pyro.plate("b", len(y)):
            pyro.sample("y", dist.Normal(y.new_zeros(()), 1.0), obs=y)

    with pytest.raises(ProgramError, match="in no plate together"):
        samples_of(model, (torch.randn(6), torch.randn(6)), {})


def test_a_datum_is_a_row():
    """What is left of the batch's shape are the site's other plates."""
    model, args, _ = two_sites()
    real, fake, covariates = samples_of(model, args, {})
    assert [tuple(value.shape) for value in real] == [(6,), (6, 3)]
    assert [tuple(value.shape) for value in fake] == [(6,), (6, 3)]
    assert torch.equal(real[0], args[1][:, 0])
    assert torch.equal(real[1], args[0])
    assert torch.equal(covariates[0], args[2])


@pytest.mark.parametrize("shape", [(6, 2), (1,), (6, 1, 1), ()])
def test_scores_of_another_shape(shape):
    class Wrong(nn.Linear):
        def forward(self, x):
            return x.new_zeros(shape)

    model, args, _ = mlp()
    with pytest.raises(ProgramError, match=r"the critic returned shape .* expected \(6,\) or \(6, 1\)"):
        GAN(Wrong(1, 1))(model, None, *args)


# What is refused


def test_a_site_that_passes_no_gradient_on():
    model, _ = vae(DataSpec(IMAGES, "binary"), latent=2, hidden=(8,))
    with pytest.raises(ProgramError, match=r"site 'x' is drawn from Bernoulli.*rsample"):
        GAN(Critic(20))(model, None, torch.rand(6, *IMAGES).round())


def test_a_mixture_passes_no_gradient_on():
    """Its parameters are no arguments of its own: its density is asked."""

    def model(x):
        loc = pyro.param("loc", torch.zeros(2))
        fn = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(loc, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", fn, obs=x)

    with pytest.raises(ProgramError, match="site 'x' is drawn from MixtureSameFamily"):
        MMD()(model, None, torch.randn(6))


def test_a_site_with_nothing_to_learn_may_be_discrete():
    def model(x, k):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(x.new_full((), 0.5)), obs=k)
            pyro.sample("x", dist.Normal(k + pyro.param("loc", torch.tensor(0.0)), 1.0), obs=x)

    assert GAN(Critic(2))(model, None, torch.randn(6), torch.ones(6)).requires_grad


def plateless(x):
    pyro.sample("x", dist.Normal(x.new_zeros(6), 1.0).to_event(1), obs=x)


def stray(x):
    pyro.sample("x", dist.Normal(x.new_zeros(6), 1.0), obs=x)


def blind(x):
    pyro.sample("x", dist.Normal(x.new_zeros(6), 1.0))


def broadcast(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(x.new_zeros(6, 2), 1.0).to_event(1), obs=x[:, None])


@pytest.mark.parametrize(
    ("model", "message"),
    [(plateless, "a datum cannot be told"), (stray, r"no plate for its dimensions \[-1\]"), (blind, "observes no data"),
     (broadcast, r"site 'x' observes data of shape \(6, 1\), and its draws have shape \(6, 2\)")],
)  # fmt: skip
def test_programs_that_do_not_fit(model, message):
    with pytest.raises(ProgramError, match=message):
        samples_of(model, (torch.randn(6),), {})


@pytest.mark.parametrize("objective", [ELBO(), IWAE(3), MaximumLikelihood()], ids=repr)
def test_objectives_that_need_a_density_name_the_site(objective):
    model, _ = generator(DataSpec((2,), "real"), latent=2, hidden=(4,))

    def latentless(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", Implicit(lambda shape: torch.randn(*shape, 2), (2,)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    programs = (latentless, None) if isinstance(objective, MaximumLikelihood) else (model, guide)
    with pytest.raises(ProgramError, match=r"site 'x' is Implicit.*GAN"):
        objective(*programs, torch.randn(6, 2))


def test_batch_norm_and_penalties():
    critic = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    with pytest.raises(ProgramError, match=r"R1 bounds.*'1'"):
        GAN(critic, penalties=[R1()])
    GAN(critic)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: GAN(Critic(1), "zero-sum"), lambda: GAN(Critic(1), label_smoothing=1.0),
        lambda: GAN(Critic(1), "hinge", label_smoothing=0.1), lambda: FGAN(Critic(1), "chi"),
        lambda: WGAN(Critic(1), clip=0.0), lambda: RBF([]), lambda: RBF([-1.0]), lambda: EnergyDistance(2.0),
        lambda: SlicedWasserstein(0), lambda: Sinkhorn(blur=0.0), lambda: R1(-1.0),
    ],
)  # fmt: skip
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match=r"found|choose|no labels"):
        wrong()


@pytest.mark.parametrize("features", [lambda x: x.flatten(1)[:, 0], lambda x: x[:3]])
def test_features_that_are_no_rows(features):
    model, args, _ = PROGRAMS["vae"]()
    for objective in (MMD(features=features), EnergyDistance(features=features)):
        with pytest.raises(ProgramError, match=r"expected \(6, ...\)"):
            objective(model, None, *args)


def test_features_that_would_move():
    with pytest.raises(ValueError, match="requires_grad_"):
        MMD(features=nn.Linear(3, 2))
    MMD(features=nn.Linear(3, 2).requires_grad_(False))


def test_one_datum_has_no_pairs():
    model, (x,), _ = mlp()
    for objective in (MMD(), EnergyDistance()):
        with pytest.raises(ProgramError, match="at least 2 data"):
            objective(model, None, x[:1])


def test_labels_out_of_range():
    model, _ = generator(DataSpec((3,), "real", num_classes=4), latent=2, conditional=True)
    with pytest.raises(ProgramError, match="from 0 to 3, found -1 to 9"):
        model(y=torch.tensor([9, -1]))


def test_a_step_that_is_not_finite_says_so():
    model, args, seen = mlp()
    nothing = (torch.full_like(args[0], torch.nan),)
    training = train(GAN(Critic(seen)), model, None, [args, args, nothing], sgd, sgd)
    next(training)
    with pytest.raises(NonFiniteError, match=r"step 2(?s:.)*x .*the data hold NaN"):
        next(training)


def test_draws_that_are_not_finite_are_named():
    model, args, _ = mlp()
    for p in model.parameters():
        p.data.fill_(torch.nan)
    with pytest.raises(InfeasibleStartError, match=r"x .*no density, and draws   <- not finite"):
        next(train(MMD(), model, None, [args], sgd))


# Units


@pytest.mark.parametrize("name", ["gan", "wgan_gp", "mmd_gan"])
def test_penalties_mean_the_same_in_any_units(name):
    """The same images as 256 levels and as numbers in the unit interval: the same critic's loss."""
    losses = []
    unit = torch.randint(0, 256, (6, *IMAGES)) / 255
    for kind, top in (("levels", 255), ("dequantized", 1)):
        torch.manual_seed(0)
        model, _ = generator(DataSpec(IMAGES, kind, levels=256), latent=2, hidden=(8,))
        learner = getattr(implicit_entries, name)(model, None, {}, hidden=(8,))
        torch.manual_seed(1)
        losses.append(float(learner.critic_loss(model, None, unit * top).detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


# Implicit distributions


def test_implicit_in_plates_and_predictive():
    net = nn.Linear(2, 3)

    def model(size=4):
        with pyro.plate("outer", 2, dim=-2), pyro.plate("data", size, dim=-1):
            return pyro.sample("x", Implicit(lambda shape: net(torch.randn(*shape, 2)), (3,)))

    assert model().shape == (2, 4, 3)
    drawn = Predictive(model, num_samples=5)()["x"]
    assert drawn.shape == (5, 2, 4, 3)
    assert len(drawn.reshape(-1, 3).unique(dim=0)) == 40  # each draw has noise of its own
    masked = Implicit(lambda shape: torch.randn(shape)).expand((3,)).mask(False)
    assert masked.rsample().shape == (3,)


def test_implicit_refuses():
    with pytest.raises(ProgramError, match=r"returned shape \(5,\).*it must return \(4,\)"):
        Implicit(lambda shape: torch.zeros(5)).expand((4,)).rsample()
    with pytest.raises(ProgramError, match="no density"):
        Implicit(torch.randn).log_prob(torch.zeros(()))

    def model():
        pyro.sample("x", Implicit(torch.randn), obs=torch.zeros(()))

    with pytest.raises(ValueError, match="no density"):
        Trace_ELBO().loss(model, lambda: None)


# By name


@pytest.mark.parametrize("program", [generator, dcgan])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("name", implicit_entries.__all__)
def test_entries(name, labelled, program):
    spec = DataSpec((1, 4, 4), "levels", levels=17, num_classes=3)
    model, _ = program(spec, latent=2, conditional=labelled)
    batch = {"x": torch.randint(0, 17, (6, 1, 4, 4))} | ({"y": torch.randint(0, 3, (6,))} if labelled else {})
    learner = getattr(implicit_entries, name)(model, None, batch)
    steps = list(train(learner, model, None, [batch], sgd, both(learner), num_steps=2))
    assert steps[-1].loss.isfinite()


@pytest.mark.parametrize("penalties", [R1(), ["r1"], [R1], "r1"])
def test_penalties_that_are_none(penalties):
    with pytest.raises(ProgramError, match=r"a list of penalties, such as \[R1"):
        GAN(Critic(3), penalties=penalties)


def test_a_penalty_in_the_games_place():
    with pytest.raises(ValueError, match="unknown game"):
        GAN(Critic(3), [R1()])


def test_entries_refuse():
    model, _ = generator(DataSpec((4,), "real"), latent=2)
    with pytest.raises(UsageError, match="--norm spectral is for DCGAN's critic"):
        implicit_entries.gan(model, None, {}, norm="spectral")
    with pytest.raises(UsageError, match="attribute `spec`"):
        implicit_entries.mmd(lambda x: None, None, {"x": torch.zeros(3)})
    with pytest.raises(UsageError, match="has none"):
        generator(DataSpec((4,), "real"), conditional=True)
    with pytest.raises(UsageError, match="images"):
        dcgan(DataSpec((4,), "real"))
