"""Translation between two domains: programs that it is for, both players, resuming, and what is refused."""

import copy
import re
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from test_compile import assert_same_fit
from torch import nn

from pyrogen.distributions import Implicit
from pyrogen.errors import ProgramError, UsageError
from pyrogen.inference import GAN, CycleGAN, train, unpaired_entries
from pyrogen.inference.samples import samples_of
from pyrogen.models import Translator, cyclegan, generator
from pyrogen.nn import MLP, PatchCritic, ResNetTranslator
from pyrogen.spec import DataSpec

VECTORS, IMAGES = (3,), (1, 8, 9)


class Scores(nn.Module):
    """One score a datum."""

    def __init__(self, num_inputs):
        super().__init__()
        self.net = MLP(num_inputs, 1, (8,))

    def forward(self, x):
        return self.net(x.flatten(1))


def vectors():
    model, guide = cyclegan(DataSpec(VECTORS, "real"), hidden=(8,))
    return model, guide, (torch.randn(6, *VECTORS), torch.randn(6, *VECTORS)), partial(Scores, 3)


def connected():
    model, guide = cyclegan(DataSpec(IMAGES, "levels", levels=4), network="mlp", hidden=(8,))
    a, b = torch.randint(0, 4, (2, 6, *IMAGES)).float()
    return model, guide, (a, b), partial(PatchCritic, IMAGES, (3, 4))


def convolutional():
    model, guide = cyclegan(DataSpec(IMAGES, "dequantized", levels=4), channels=(3, 4), blocks=1)
    return model, guide, tuple(torch.rand(2, 6, *IMAGES)), partial(PatchCritic, IMAGES, (3, 4))


class There(nn.Module):
    """A program of one's own, with a density and noise."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 3)

    def forward(self, a, b):
        with pyro.plate("data", len(a)):
            pyro.sample("b", dist.Laplace(self.net(a), 0.1).to_event(1), obs=b)


def functions():
    """A program that is an object, and one that is a function with ``pyro.module``."""
    back = nn.Linear(3, 3)

    def guide(a, b):
        pyro.module("back", back)
        with pyro.plate("data", len(b)):
            pyro.sample("a", dist.Normal(back(b), 0.1).to_event(1), obs=a)

    return There(), guide, (torch.randn(6, 3), torch.randn(6, 3)), partial(Scores, 3)


PROGRAMS = {"vectors": vectors, "mlp of images": connected, "resnet": convolutional, "functions": functions}
SETTINGS = {
    "default": {},
    "identity": {"identity": 0.5},
    "no history": {"history": 0},
    "small history": {"history": 4},
    "no cycle": {"cycle": 0.0},
}
ROWS = [(program, setting) for program in PROGRAMS for setting in SETTINGS]
table = pytest.mark.parametrize(("program", "setting"), ROWS, ids=[f"{p}-{s}" for p, s in ROWS])


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=1e-3)


def learner_for(program, setting):
    *_, (a, _), critic = PROGRAMS[program]()
    return CycleGAN(critic(), critic(), a.shape[1:], **SETTINGS[setting])


@table
def test_both_players(program, setting):
    """Scalars, finite, and each player's gradient reaches all of its own parameters."""
    model, guide, args, _ = PROGRAMS[program]()
    learner = learner_for(program, setting)
    training = train(learner, model, guide, [args], sgd, sgd, num_steps=2)
    for step in training:
        assert step.loss.shape == step.critic_loss.shape == ()
        assert step.loss.isfinite()
        assert step.critic_loss.isfinite()
    held = training.parameters
    assert {name.partition(".")[0] for name in held} == {"model", "param" if program == "functions" else "guide"}
    critics = list(learner.parameters())
    for loss_of, parameters in ((learner, list(held.values())), (learner.critic_loss, critics)):
        gradients = torch.autograd.grad(loss_of(model, guide, *args), parameters, allow_unused=True)
        assert all(g is not None and g.isfinite().all() for g in gradients)
        assert any(g.abs().sum() > 0 for g in gradients)


@pytest.mark.slow
@table
def test_captured(program, setting):
    """The same losses and parameters as without a graph, histories in it."""
    check_captured(program, setting, "capture")


@pytest.mark.compiled
@pytest.mark.parametrize("program", PROGRAMS)
def test_compiled(program):
    check_captured(program, "identity", True)


def check_captured(program, setting, how):
    def seeded():
        torch.manual_seed(2)
        return learner_for(program, setting)

    def make():
        return PROGRAMS[program]()[:3]

    assert_same_fit(make, seeded, how, rtol=1e-3, optimizer=sgd, critic_optimizer=sgd)


def test_by_position_and_by_name():
    model, guide, (a, b), _ = vectors()
    learner = learner_for("vectors", "default")
    assert torch.equal(learner(model, guide, a, b), learner(model, guide, b=b, a=a))
    assert not torch.equal(learner(model, guide, a, b), learner(model, guide, b, a))


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-3)


def state(module, player):
    return {name: value.clone() for name, value in module.state_dict().items()}, player.state_dict()


@pytest.mark.parametrize("compile", [False, "capture"])
def test_either_players_step_leaves_the_other_as_it_was(compile):
    """Histories belong to the critics: the programs' step does not move them, though it draws as well."""
    model, guide, args, _ = convolutional()
    programs = nn.ModuleList([model, guide])
    learner = learner_for("resnet", "small history")
    training = train(learner, model, guide, [args], adam, adam, compile=compile)
    next(training)
    for kind, mine, others in (("programs", programs, learner), ("critic", learner, programs)):
        player, other = (training.programs, training.critic)[:: 1 if kind == "programs" else -1]
        before, own = state(others, other), state(mine, player)
        training._turn({kind: (args, {})})
        torch.testing.assert_close(state(others, other), before, rtol=0, atol=0)
        with pytest.raises(AssertionError):
            torch.testing.assert_close(state(mine, player), own, rtol=0, atol=0)


def new(seed, how):
    torch.manual_seed(seed)
    model, guide, _, _ = vectors()
    learner = learner_for("vectors", "small history")
    batches = [{"a": torch.full((3, 3), float(i)), "b": torch.full((3, 3), -float(i))} for i in range(4)]
    return train(learner, model, guide, batches, adam, adam, compile=how)


@pytest.mark.slow
@pytest.mark.parametrize("how", [False, "capture"])
def test_resuming_is_bit_exact(how):
    whole = new(0, how)
    losses, saved = [], {}
    for _ in range(8):
        step = next(whole)
        losses.append((step.loss.item(), step.critic_loss.item()))
        saved[step.index] = copy.deepcopy(whole.state_dict())
    for stop in (1, 3, 6):
        resumed = new(99, how)
        resumed.load_state_dict(copy.deepcopy(saved[stop]))
        again = [next(resumed) for _ in range(8 - stop)]
        assert [(step.loss.item(), step.critic_loss.item()) for step in again] == losses[stop:]
        torch.testing.assert_close(resumed.state_dict()["objective"], saved[8]["objective"], rtol=0, atol=0)


def test_mutant_a_checkpoint_without_the_histories():
    whole = new(0, False)
    for _ in range(4):
        next(whole)
    saved = copy.deepcopy(whole.state_dict())
    losses = [next(whole).critic_loss.item() for _ in range(4)]
    for name in ("history_a.items", "history_b.items"):
        saved["objective"][name].zero_()
    resumed = new(99, False)
    resumed.load_state_dict(saved)
    assert [next(resumed).critic_loss.item() for _ in range(4)] != losses


def test_scores_are_watched():
    learner = CycleGAN(nn.Identity(), nn.Identity(), (), cycle=0.0)
    a, b = torch.full((4,), 1.0), torch.full((4,), 3.0)

    def there(a, b):
        with pyro.plate("data", len(a)):
            pyro.sample("b", dist.Delta(a - 2.0), obs=b)

    def back(a, b):
        with pyro.plate("data", len(b)):
            pyro.sample("a", dist.Delta(b + 2.0), obs=a)

    for _ in range(400):
        learner.critic_loss(there, back, a, b)
    seen = learner.monitored()
    assert float(seen["critic_real"]) == pytest.approx(2.0, abs=0.01)  # the mean of 1 and 3
    assert float(seen["critic_fake"]) == pytest.approx(2.0, abs=0.01)  # of -1 and 5


def test_one_direction_is_a_game_without_covariates():
    """Unpaired data shown beside translations would be told from them by looking."""
    model, _, (a, b), critic = vectors()
    real, fake, covariates = samples_of(model, (a, b), {})
    assert torch.equal(real[0], b)
    assert torch.equal(fake[0], model.network(a))
    assert covariates == ()
    assert GAN(critic(), "least-squares")(model, None, a, b).requires_grad


# What is refused


def observing(site, value=None):
    def program(a, b):
        with pyro.plate("data", len(a)):
            pyro.sample(site, Implicit(lambda shape: a * 1.0, (3,), (len(a),)), obs=b if value is None else value(a, b))

    return program


A, B = torch.zeros(4, 3), torch.ones(4, 3)


@pytest.mark.parametrize(
    ("model", "guide", "message"),
    [
        (observing("b"), None, "Found no guide"),
        (observing("x"), observing("a"), "the model must observe one site, 'b', and observes 'x'"),
        (observing("a"), observing("b"), "the model must observe one site, 'b', and observes 'a'"),
        (observing("b"), observing("b"), "the guide must observe one site, 'a', and observes 'b'"),
        (lambda a, b: None, observing("a"), "observes none"),
        (observing("b", lambda a, b: b / 255), observing("a"), "must observe its argument 'b' as it is"),
        (observing("b", lambda a, b: b[:1]), observing("a"), "its draws have shape"),
    ],
)
def test_programs_that_do_not_fit(model, guide, message):
    with pytest.raises(ProgramError, match=message):
        CycleGAN(Scores(3), Scores(3), (3,))(model, guide, A, B)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((A,), {}, "Found 1 without a name"),
        ((), {"x": A}, "Found 'x'"),
        ((), {}, "Found nothing"),
        ((A, B, A), {}, "Found 3 without a name"),
        ((A,), {"a": B}, "Found 1 without a name, 'a'"),
        ((A, B[:2]), {}, r"found 4 and 2.*Unpaired"),
    ],
)
def test_batches_that_do_not_fit(args, kwargs, message):
    model, guide, *_ = vectors()
    with pytest.raises(ProgramError, match=message):
        CycleGAN(Scores(3), Scores(3), (3,))(model, guide, *args, **kwargs)


def test_a_site_that_passes_no_gradient_on():
    model, guide, args, _ = vectors()

    def coins(a, b):
        with pyro.plate("data", len(a)):
            pyro.sample("b", dist.Bernoulli(logits=model.network(a)).to_event(1), obs=b)

    with pytest.raises(ProgramError, match=r"site 'b' is drawn from Bernoulli.*rsample"):
        CycleGAN(Scores(3), Scores(3), (3,))(coins, guide, *args)


@pytest.mark.parametrize("scores", [lambda x: x.mean(), lambda x: x[:1]])
def test_scores_of_another_shape(scores):
    class Wrong(nn.Module):
        def forward(self, x):
            return scores(x)

    model, guide, args, _ = vectors()
    with pytest.raises(ProgramError, match=r"a critic returned shape .* for 6 data"):
        CycleGAN(Wrong(), Wrong(), (3,))(model, guide, *args)


@pytest.mark.parametrize("settings", [{"cycle": -1.0}, {"identity": -0.5}, {"history": -1}])
def test_wrong_settings(settings):
    with pytest.raises(ValueError, match=r"must not be negative, found -"):
        CycleGAN(Scores(3), Scores(3), (3,), **settings)


# Programs and networks


def test_a_translator_translates_its_source():
    spec = DataSpec((2,), "levels", levels=3)
    model, guide = cyclegan(spec, hidden=(4,))
    x = torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    torch.testing.assert_close(model(a=x), model.network(x - 1) + 1)  # levels 0, 1, 2 are -1, 0, 1 to a network
    torch.testing.assert_close(guide(b=x), guide.network(x - 1) + 1)
    assert torch.equal(model(x, x), x)  # observed
    for program, missing in ((model, "a"), (guide, "b")):
        with pytest.raises(ProgramError, match=f"pass {missing}="):
            program(**{"ab".replace(missing, ""): x})
    with pytest.raises(ValueError, match="found 'c'"):
        Translator(nn.Identity(), spec, "c")


@pytest.mark.parametrize(
    ("side", "channels"), [(8, [32]), (28, [32]), (32, [32, 64]), (64, [32, 64, 128]), (256, [32, 64, 128])]
)
def test_small_images_are_not_halved(side, channels):
    model, _ = cyclegan(DataSpec((1, side, side + 4), "levels", levels=256))
    convolutions = [part for part in model.network.layers if isinstance(part, nn.Conv2d)]
    assert [part.out_channels for part in convolutions] == channels


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 7, 9), (1, 8, 5)])
def test_any_size_of_images(shape):
    x = torch.randn(2, *shape)
    found = ResNetTranslator(shape, (3, 4), 1)(x)
    assert found.shape == x.shape
    assert (found.abs() < 1).all()


def test_a_patch_of_70_pixels():
    """A score depends on 70 x 70 pixels, as the paper's; instance norms, which see all, are taken out."""
    critic = PatchCritic((1, 128, 128), (4, 4, 4, 4))
    critic.layers = nn.Sequential(*(part for part in critic.layers if not isinstance(part, nn.InstanceNorm2d)))
    x = torch.randn(1, 1, 128, 128, requires_grad=True)
    critic(x)[0, 0, 7, 7].backward()
    rows = x.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert int(rows.max() - rows.min()) + 1 == 70


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNetTranslator((1, 3, 8)), "3 x 8 pixels is too small"),
        (lambda: ResNetTranslator((1, 4, 4), (3, 4, 5)), "too small for a translator of 3 widths"),
        (lambda: PatchCritic((1, 4, 4), (3, 4, 5)), "no patches after 3 convolutions"),
        (lambda: cyclegan(DataSpec((3,), "real"), network="resnet"), "use --network mlp"),
        (lambda: cyclegan(DataSpec((3,), "real"), hidden=(0,)), "hidden must be widths"),
        (lambda: cyclegan(DataSpec(IMAGES, "binary"), channels=()), "channels must be widths"),
        (lambda: cyclegan(DataSpec(IMAGES, "binary"), blocks=-1), "blocks must not be negative"),
    ],
)
def test_networks_that_do_not_fit(make, message):
    with pytest.raises(UsageError, match=message):
        make()


# By name


@pytest.mark.parametrize("spec", [DataSpec(VECTORS, "real"), DataSpec((1, 8, 8), "levels", levels=17)])
@pytest.mark.parametrize("network", ["auto", "mlp"])
def test_entry(spec, network):
    model, guide = cyclegan(spec, network=network, channels=(4, 8), blocks=1, hidden=(8,))
    batch = {name: torch.randint(0, 17, (6, *spec.shape)).float() for name in ("a", "b")}
    learner = unpaired_entries.cyclegan(model, guide, batch, hidden=(8,), identity_weight=0.5)
    has_patches = network == "auto" and len(spec.shape) == 3
    assert isinstance(learner.critic_a, PatchCritic) == has_patches
    assert learner.critic_a is not learner.critic_b
    for step in train(learner, model, guide, [batch], sgd, sgd, num_steps=2):
        assert step.loss.isfinite()


def test_entry_scales_data():
    """The weight of a cycle means the same in any units."""
    losses = []
    unit = torch.randint(0, 256, (2, 6, 1, 8, 8)) / 255
    for kind, top in (("levels", 255), ("dequantized", 1)):
        torch.manual_seed(0)
        model, guide = cyclegan(DataSpec((1, 8, 8), kind, levels=256), channels=(4,), blocks=0)
        learner = unpaired_entries.cyclegan(model, guide, {"a": unit[0], "b": unit[1]}, identity_weight=0.5)
        losses.append([f(model, guide, *(unit * top)).item() for f in (learner, learner.critic_loss)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_entry_refuses():
    model, guide = cyclegan(DataSpec(VECTORS, "real"))
    single, _ = generator(DataSpec(VECTORS, "real"), latent=2)
    with pytest.raises(UsageError, match=re.escape("needs two programs")):
        unpaired_entries.cyclegan(single, None, {"x": A})
    with pytest.raises(UsageError, match="--data-b"):
        unpaired_entries.cyclegan(model, guide, {"x": A})
