"""Networks that grow: what they are made of, what they are where they grow, and the fit that grows them."""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from test_compile import assert_same_fit
from torch import nn
from torch.nn.functional import interpolate

import pyrogen
from pyrogen.cli import main
from pyrogen.errors import ProgramError, UsageError
from pyrogen.fitting import fit
from pyrogen.inference import GAN, MMD, R1, WGAN, Interpolated, implicit_entries, train
from pyrogen.inference.samples import samples_of
from pyrogen.models import progressive_gan
from pyrogen.nn import DCGANCritic, Growth, ProgressiveCritic, ProgressiveGenerator
from pyrogen.nn.progressive import EqualizedConv2d, EqualizedLinear, PixelNorm, minibatch_deviation
from pyrogen.runs import Run
from pyrogen.spec import DataSpec

SPEC = DataSpec((1, 8, 8), "levels", levels=17, num_classes=3)
CHANNELS = (4, 6, 8)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-3, betas=(0.0, 0.99))


def grown(growth, rounds):
    for _ in range(rounds):
        growth.advance()


# Growth


def test_stages_and_fades():
    growth = Growth(num_stages=3, phase=2)
    found = []
    for _ in range(11):
        found.append((growth.stage, float(growth.alpha())))
        growth.advance()
    first, second = [(1, 0.0), (1, 0.5), (1, 1.0), (1, 1.0)], [(2, 0.0), (2, 0.5), (2, 1.0), (2, 1.0), (2, 1.0)]
    assert found == [(0, 1.0), (0, 1.0), *first, *second]
    assert growth.length == 8


def test_the_stage_is_restored_with_the_buffer():
    growth, other = Growth(3, 2), Growth(3, 2)
    grown(growth, 5)
    other.load_state_dict(growth.state_dict())
    assert other.stage == 1
    grown(other, 1)
    assert (other.stage, int(other.step)) == (2, 6)


def test_images_of_a_stage():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    growth = Growth(3, 1)
    assert torch.equal(growth(x), torch.full_like(x, 7.5))
    growth.advance()
    assert torch.equal(growth(x), torch.full_like(x, 7.5))  # nothing of the second stage yet
    growth.advance()
    quarters = torch.tensor([[2.5, 4.5], [10.5, 12.5]])[None, None]
    assert torch.equal(growth(x), interpolate(quarters, scale_factor=2.0))
    grown(growth, 2)
    assert torch.equal(growth(x), x)


def networks(growth):
    torch.manual_seed(0)
    return (
        ProgressiveGenerator(5, SPEC.shape, CHANNELS, growth),
        ProgressiveCritic(SPEC.shape, CHANNELS, growth, num_covariates=3),
    )


def where_it_grows(rounds):
    """Draws, scores and the scores' gradients before and after one more round, which begins a stage."""
    growth = Growth(3, 2)
    generator, critic = networks(growth)
    z, x, y = torch.randn(6, 5), torch.randn(6, 1, 8, 8), torch.eye(3).repeat(2, 1)
    found = []
    grown(growth, rounds - 1)
    for _ in range(2):
        gradient = torch.func.grad(lambda x: critic(x, y).sum())(x)
        found.append((generator(z), critic(x, y), gradient))
        growth.advance()
    return found


@pytest.mark.parametrize("rounds", [2, 6])
def test_nothing_changes_where_a_stage_begins(rounds):
    """At alpha = 0 the larger networks are the smaller ones, upsampled, bit for bit; so is a penalty's gradient."""
    before, after = where_it_grows(rounds)
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=0)


def test_mutant_the_new_stage_shows_at_once(monkeypatch):
    monkeypatch.setattr(Growth, "alpha", lambda self: torch.tensor(1.0))
    with pytest.raises(AssertionError):
        test_nothing_changes_where_a_stage_begins(2)


def test_nothing_of_the_old_stage_is_left_at_the_end_of_a_fade():
    growth = Growth(2, 1)
    torch.manual_seed(0)
    generator = ProgressiveGenerator(5, SPEC.shape, (4, 6), growth)
    critic = ProgressiveCritic(SPEC.shape, (4, 6), growth)
    grown(growth, 2)
    z, x = torch.randn(4, 5), torch.randn(4, 1, 8, 8)
    before = generator(z), critic(x)
    with torch.no_grad():
        generator.to_image[0].bias.add_(1.0)
        critic.from_image[0][0].bias.add_(1.0)
    assert torch.equal(generator(z), before[0])
    assert torch.equal(critic(x), before[1])


def test_draws_of_early_stages_are_blocks():
    growth = Growth(3, 1)
    generator, _ = networks(growth)
    for stage, side in enumerate((4, 2, 1)):
        x = generator(torch.randn(2, 5))
        blocks = x.unflatten(3, (-1, side)).unflatten(2, (-1, side))
        assert torch.equal(blocks[:, :, :, :1, :, :1].expand_as(blocks), blocks)
        assert growth.stage == stage
        grown(growth, 2 if stage else 1)


# Layers


@pytest.mark.parametrize("layer", [partial(EqualizedConv2d, 8, 16, 3), partial(EqualizedLinear, 72, 16)])
@pytest.mark.parametrize("gain", [1.0, math.sqrt(2)])
def test_equalised_learning_rate(layer, gain):
    """Weights are standard normal, and outputs of unit-variance inputs have variance gain squared."""
    torch.manual_seed(0)
    made = layer(gain=gain)
    assert abs(float(made.weight.detach().std()) - 1) < 0.1
    assert torch.equal(made.bias, torch.zeros(16))
    x = torch.randn(4000, 8, 3, 3)
    out = made(x if isinstance(made, nn.Conv2d) else x.flatten(1)).detach()
    torch.testing.assert_close(out.square().mean(), torch.tensor(gain**2), rtol=0.1, atol=0)
    # A step of one size changes the output by 1 / root(fan in) of what it would do to weights that are not scaled.
    made.weight.data.add_(1.0)
    moved = made(x if isinstance(made, nn.Conv2d) else x.flatten(1)).detach() - out
    torch.testing.assert_close(moved.flatten(1)[:, 0], gain / math.sqrt(72) * x.flatten(1).sum(1), rtol=1e-3, atol=1e-3)


def test_pixel_norm():
    x = 3 * torch.randn(4, 5, 2, 2)
    torch.testing.assert_close(PixelNorm()(x).square().mean(1), torch.ones(4, 2, 2))


def test_minibatch_deviation_by_hand():
    x = np.random.default_rng(0).normal(size=(8, 3, 2, 2)).astype("float32")
    found = minibatch_deviation(torch.from_numpy(x))
    assert found.shape == (8, 1, 2, 2)
    for i in range(8):
        group = x[[j for j in range(8) if j % 2 == i % 2]]
        np.testing.assert_allclose(found[i], group.std(0).mean(), rtol=1e-5)
    assert float(minibatch_deviation(torch.ones(4, 3, 2, 2)).max()) < 2e-4
    for size, group in ((9, 3), (14, 2), (7, 7)):
        x = torch.randn(size, 3, 2, 2)
        expected = x.unflatten(0, (group, -1)).std(0, correction=0).flatten(1).mean(1)
        torch.testing.assert_close(minibatch_deviation(x)[: size // group, 0, 0, 0], expected, rtol=1e-4, atol=0)


def test_a_critic_sees_draws_that_are_all_alike():
    """One image again and again scores unlike the same image among others."""
    growth = Growth(3, 1)
    _, critic = networks(growth)
    x, y = torch.randn(4, 1, 8, 8), torch.zeros(4, 3)
    alike = x[:1].expand(4, -1, -1, -1)
    assert abs(float((critic(x, y)[0] - critic(alike, y)[0]).detach())) > 1e-3


# The program and its fit


def make(phase=2, conditional=False):
    torch.manual_seed(0)
    model, _ = progressive_gan(SPEC, latent=5, channels=CHANNELS, phase=phase, conditional=conditional)
    return model


def batch(conditional=False):
    torch.manual_seed(1)
    x = torch.randint(0, 17, (8, 1, 8, 8)).float()
    return {"x": x, "y": torch.arange(8) % 3} if conditional else {"x": x}


@pytest.mark.parametrize("conditional", [False, True])
def test_the_program_downsamples_its_own_data(conditional):
    model, data = make(conditional=conditional), batch(conditional)
    real, fake, covariates = samples_of(model, (), data)
    assert torch.equal(real[0], model.view(data["x"]))
    assert not torch.equal(real[0], data["x"])
    assert fake[0].shape == data["x"].shape
    assert len(covariates) == conditional


def penalised(model):
    return implicit_entries.wgan_gp(model, None, {})


@pytest.mark.slow
@pytest.mark.parametrize("how", ["capture", pytest.param(True, marks=pytest.mark.compiled)])
def test_a_graph_for_each_stage(how):
    made = []

    def programs():
        made.append(make())
        return made[-1], None, (batch()["x"],)

    def objective():
        torch.manual_seed(2)
        return penalised(made[-1])

    sgd = partial(torch.optim.SGD, lr=1e-2)
    # The programs are made first: the critic grows with them.
    training = assert_same_fit(programs, objective, how, rtol=1e-4, optimizer=sgd, critic_optimizer=sgd, num_steps=10)
    assert [len(turn.graphs.known) for turn in training._graphs.values()] == [1, 1]  # those of stages past are dropped
    assert made[-1].network.growth.stage == 2


@pytest.mark.slow
@pytest.mark.parametrize(("at", "compile"), [(1, False), (3, False), (6, False), (7, False), (3, "capture")])
def test_resumed_is_the_same(at, compile):
    """Bit for bit: in a fade, and where a stage begins."""

    def training():
        model = make()
        torch.manual_seed(3)
        objective = penalised(model)
        return model, train(objective, model, None, [batch()], adam, adam, num_steps=9, ema=0.9, compile=compile)

    model, fit = training()
    for step in fit:
        if step.index == at:
            state = fit.state_dict()
    other, resumed = training()
    resumed.load_state_dict(state)
    assert [step.index for step in resumed] == list(range(at + 1, 10))
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    for part in ("programs", "objective", "player", "critic"):  # averages and moments, too
        torch.testing.assert_close(resumed.state_dict()[part], fit.state_dict()[part], rtol=0, atol=0)
    assert other.network.growth.stage == model.network.growth.stage == 2


def test_every_layer_learns_in_its_stage():
    model = make(phase=1)
    objective = penalised(model)
    before = {n: p.detach().clone() for n, p in [*model.named_parameters(), *objective.named_parameters()]}
    for _ in train(objective, model, None, [batch()], adam, adam, num_steps=7):
        pass
    # Only the score's bias stays: the Wasserstein distance does not see it.
    same = [n for n, p in [*model.named_parameters(), *objective.named_parameters()] if torch.equal(p, before[n])]
    assert same in ([], ["critic.network.linear.bias"])


def test_without_a_critic():
    """The same program by moment matching: it grows all the same."""
    model = make(phase=1)
    for _ in train(MMD(), model, None, [batch()], adam, num_steps=5):
        pass
    assert model.network.growth.stage == 2


@pytest.mark.parametrize("objective", [WGAN, GAN])
def test_a_critic_of_ones_own(objective):
    model = make(phase=1)
    critic = ProgressiveCritic(SPEC.shape, CHANNELS, model.network.growth)
    learner = objective(critic, penalties=[Interpolated(1.0), R1(0.1)])
    steps = list(train(learner, model, None, [batch()], adam, adam, num_steps=5))
    assert all(step.loss.isfinite() and step.critic_loss.isfinite() for step in steps)


def test_on_the_command_line(tmp_path: Path, capsys):
    out = str(tmp_path / "run")
    words = ["progressive-gan", "--data", "digits", "--objective", "wgan-gp", "--channels", "[4,6]", "--latent", "3"]
    words += ["--phase", "3", "--steps", "8", "--evaluate-every", "4", "--batch-size", "32", "--ema", "0.5"]
    assert main(["train", *words, "--out", out]) == 0
    model = pyrogen.load(out, step=4).model
    assert (model.network.growth.stage, int(model.network.growth.step)) == (1, 4)
    capsys.readouterr()
    assert main(["evaluate", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["energy_distance"]["value"] > 0
    assert main(["report", out]) == 0
    assert main(["train", *words, "--steps", "5", "--out", str(tmp_path / "short")]) == 2
    assert "which takes 6: give more --steps, or a shorter --phase" in capsys.readouterr().err
    assert main(["train", *words, "--objective", "gan", "--norm", "spectral", "--out", str(tmp_path / "norm")]) == 2
    assert "--norm spectral is for DCGAN's critic" in capsys.readouterr().err


def test_a_phase_comes_back_with_the_step(tmp_path: Path):
    run = Run.create(tmp_path / "run", {})
    model = make(phase=1)
    fit(train(MMD(), model, None, [batch()], adam, num_steps=5), run, log_every=1)
    assert [row["stages"] for row in run.metrics() if "stages" in row] == [2, 2, 3, 3, 3]
    other = make(phase=500)
    pyrogen.load(run, model=other)
    assert (other.network.growth.stage, other.network.growth.phase) == (2, 1)
    assert str(other.network.growth) == "Growth(3 of 3 stages, phase=1)"


def test_growths_that_are_not_shared():
    model = make(phase=2)
    learner = WGAN(ProgressiveCritic(SPEC.shape, CHANNELS, Growth(3, 500)))
    with pytest.raises(ProgramError, match=r"a Growth each, which end after 8 and 2,000 rounds.*growth=model.view"):
        next(train(learner, model, None, [batch()], adam, adam))


@pytest.mark.parametrize("network", [ProgressiveCritic, DCGANCritic])
def test_a_critic_says_what_it_takes(network):
    extra = {"growth": Growth(2, 1)} if network is ProgressiveCritic else {}
    critic = network((1, 8, 8), (4, 6), num_covariates=3, **extra)
    x, y = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    assert critic(x, torch.eye(3)[y]).shape == (4, 1)
    for wrong in ((x, y), (x,), (x[..., :4], torch.eye(3)[y]), (x, torch.eye(4)[y])):
        with pytest.raises(ProgramError, match="one-hot vectors"):
            critic(*wrong)


def test_whole_numbers():
    x = torch.randint(0, 17, (8, 1, 8, 8))
    next(train(MMD(), make(), None, [x], adam))


def test_clipping_would_leave_nothing():
    model = make()
    with pytest.raises(UsageError, match=r"clipping would leave nothing.*wgan-gp"):
        implicit_entries.wgan(model, None, {})
    with pytest.raises(UsageError, match="clipping would leave nothing"):
        WGAN(ProgressiveCritic(SPEC.shape, CHANNELS, model.view), clip=0.1)


def test_a_growing_fit_is_not_judged(tmp_path):
    """Draws without detail are far from the data, and no collapse; nor is any of them the best, or out of patience."""
    model = make(phase=2)
    training = train(MMD(), model, None, [batch()], adam, num_steps=12)
    run = Run.create(tmp_path / "run", {})
    values = iter([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, *range(10)])
    outcome = fit(
        training, run, validate=lambda: ("quality", next(values)), inspect=lambda: {"spacing": 0.0, "coverage": 0.0}
        if not training.is_grown else {"spacing": 1.0, "coverage": 1.0}, evaluate_every=1, patience=3, strict=True,
    )  # fmt: skip
    assert (outcome.step, outcome.reason) == (12, "finished")
    assert outcome.best == 4.0 or outcome.best == 5.0
    assert run.chosen() >= 8


def test_images_that_cannot_be_halved():
    with pytest.raises(UsageError, match="10 x 8 pixels cannot be halved 2 times: use fewer stages"):
        progressive_gan(DataSpec((1, 10, 8), "levels", levels=17), channels=CHANNELS)
    with pytest.raises(UsageError, match="channels for each of 2 stages"):
        ProgressiveCritic(SPEC.shape, CHANNELS, Growth(2, 1))
    with pytest.raises(UsageError, match="needs images"):
        progressive_gan(DataSpec((4,), "real"))
    with pytest.raises(UsageError, match="a phase of one round"):
        Growth(2, 0)
