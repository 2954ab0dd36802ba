"""A critic that won and a generator that collapsed are noticed; healthy fits are left alone."""

import math
import warnings
from functools import partial

import pyro
import pytest
import torch
from torch import nn

from pyrogen.alarm import Alarm
from pyrogen.cli import main
from pyrogen.data import GRID
from pyrogen.errors import CollapseError, CollapseWarning
from pyrogen.evaluation import coverage, spacing
from pyrogen.fitting import fit
from pyrogen.inference import GAN, R1, WGAN, compile, train
from pyrogen.models import generator
from pyrogen.recipe import Named, Recipe, Settings
from pyrogen.runs import Run
from pyrogen.spec import DataSpec


def game(rate, steps=450, shift=0.0, penalties=()):
    """A game on two-dimensional data; with a generator that hardly learns, a shift lets the critic win."""
    pyro.set_rng_seed(0)
    model, _ = generator(DataSpec((2,), "real"), latent=2, hidden=(16,))
    critic = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
    batches = [torch.randn(64, 2) + shift for _ in range(10)]
    adam = partial(torch.optim.Adam, lr=0.01)
    return train(GAN(critic, penalties=penalties), model, None, batches, partial(torch.optim.Adam, lr=rate), adam,
                 num_steps=steps)  # fmt: skip


def test_a_saturated_critic(tmp_path):
    with pytest.warns(CollapseWarning, match=r"critic is saturated.*99%.*penalty") as caught:
        fit(game(1e-8, shift=6.0), Run.create(tmp_path / "run", {}), log_every=10)
    assert len([w for w in caught if w.category is CollapseWarning]) == 1  # once, not at each line
    last = Run.open(tmp_path / "run").metrics()[-1]
    assert last["critic_order"] > 0.99
    assert last["critic_real"] > 1 > -1 > last["critic_fake"]
    assert 0 < last["critic_grad_norm"] < 1


def test_strict_ends_the_fit_with_a_checkpoint(tmp_path):
    run = Run.create(tmp_path / "run", {})
    with pytest.raises(CollapseError, match=r"step \d+: the critic is saturated"):
        fit(game(1e-8, shift=6.0), run, log_every=10, strict=True)
    assert run.checkpoints()


def test_a_healthy_game(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapseWarning)
        fit(game(0.005, penalties=[R1(0.1)]), Run.create(tmp_path / "run", {}), log_every=10, strict=True)
    orders = [row["critic_order"] for row in Run.open(tmp_path / "run").metrics()]
    assert 0.3 < orders[-1] < 0.9


@pytest.mark.parametrize("strict", [False, True])
def test_a_collapsed_generator(strict, tmp_path):
    """The weights of the first layer are zero: all draws are one point."""
    training = game(1e-8, steps=5)
    for p in training.model.parameters():
        p.data.zero_()
    data = torch.randn(100, 2)

    def look():
        fake = training.model(size=100).detach()
        return {"spacing": spacing(data, fake), "coverage": coverage(data, fake)}

    run = Run.create(tmp_path / "run", {})
    with pytest.raises(CollapseError) if strict else pytest.warns(CollapseWarning, match="collapsed.*0.0%"):
        fit(training, run, inspect=look, evaluate_every=5, strict=strict)
    assert run.checkpoints() == [5]
    assert [row["spacing"] for row in run.metrics() if "spacing" in row] == [0.0]


def test_draws_that_drop_most_modes():
    """One of 25 modes, well spread: five looks in a row are enough; a healthy look between starts anew."""
    data, mode = GRID.sample(1000)
    fake, _ = GRID.sample(1000)
    one = data[mode == 3].repeat(50, 1)[:1000] + 0.05 * torch.randn(1000, 2)
    alarm = Alarm(strict=False)
    good, bad = ({"spacing": spacing(data, x), "coverage": coverage(data, x)} for x in (fake, one))
    assert good["coverage"] == pytest.approx(1 - 2**-5, abs=0.03)
    assert bad["spacing"] > 0.05
    assert bad["coverage"] < 0.1
    heard = [alarm.of_draws(found, False) for found in [bad] * 4 + [good] + [bad] * 5]
    assert [message is None for message in heard] == [True] * 9 + [False]
    remembered = Alarm(strict=False)
    remembered.load_state_dict(alarm.state_dict())
    assert remembered.of_draws(bad, True) is None  # said once, over a resume as well
    assert Alarm(strict=False).of_draws({"spacing": math.nan, "coverage": 1.0}, False)
    assert Alarm(strict=False).of_draws(bad, True)


def test_a_wasserstein_critic_may_be_right_all_the_time():
    assert Alarm(strict=True).of_critic(WGAN(nn.Linear(1, 1))) is None
    assert not WGAN.saturates
    assert compile(GAN(nn.Linear(1, 1)), print, None).saturates


def test_mutant_an_alarm_that_hears_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(Alarm, "of_critic", lambda self, objective: None)
    with pytest.raises(pytest.fail.Exception):
        test_strict_ends_the_fit_with_a_checkpoint(tmp_path)


def test_deciding_whether_to_compile_leaves_no_trace():
    """A critic that is made for the estimate draws its weights from the generator that the fit's critic draws from."""
    recipe = Recipe(Named("generator"), Named("gan"), Named("iris"), Settings(steps=5))
    data = recipe.dataset()
    programs = recipe.programs(data.spec)
    before = torch.get_rng_state()
    assert recipe.decided(data, programs).training.compile == "off"
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_on_the_command_line(tmp_path, capsys):
    out = tmp_path / "run"
    words = ["train", "generator", "--data", "iris", "--objective", "gan", "--penalty", "none", "--steps", "600"]
    words += ["--learning-rate", "1e-9", "--critic-learning-rate", "0.01", "--compile", "off", "--out", str(out)]
    assert main([*words, "--strict"]) == 65
    assert "critic is saturated" in capsys.readouterr().err
    assert main(["report", str(out)]) == 0
    assert main(["evaluate", str(out), "--json"]) == 0
    assert '"energy_distance"' in capsys.readouterr().out
