"""Each pixel choice makes the data set that it names, and the wrong formulas do not."""

import pickle

import numpy as np
import pytest
import torch

from pyrogen.data import PIXELS, apply_pixels, digits, from_arrays, iris
from pyrogen.data.pixels import bernoulli, dequantize, threshold
from pyrogen.errors import UsageError
from pyrogen.spec import DataSpec


def epoch(data, **settings):
    return torch.cat([batch["x"] for batch in data.batches(500, shuffle=False, **settings)])


@pytest.fixture(scope="module")
def raw():
    return digits()


@pytest.mark.parametrize("choice", PIXELS)
def test_every_choice_gives_float_batches_and_fixed_evaluation(raw, choice):
    torch.manual_seed(0)
    data = apply_pixels(raw, choice, seed=3)
    assert data.spec.kind == PIXELS[choice].kind
    assert epoch(data).dtype == torch.float32
    for name in ("train", "validation", "test"):
        values = data.eval_columns(name)["x"]
        assert values.dtype == torch.float32
        assert torch.equal(values, data.eval_columns(name)["x"])
        assert torch.equal(values, apply_pixels(raw, choice, seed=3).eval_columns(name)["x"])
    assert torch.equal(data.eval_columns("test")["x"], torch.cat([b["x"] for b in data.batches(64, "test")]))
    assert choice in data.describe() or choice == "levels"
    assert data.fingerprint() == apply_pixels(raw, choice, seed=3).fingerprint()


def test_fingerprints_of_choices_differ(raw):
    assert len({apply_pixels(raw, choice).fingerprint() for choice in PIXELS}) == len(PIXELS)


@pytest.mark.parametrize(
    ("choice", "same"), [("static-binary", True), ("dynamic-binary", False), ("dequantized", False)]
)
def test_what_is_drawn_anew(raw, choice, same):
    data = apply_pixels(raw, choice)
    assert torch.equal(epoch(data), epoch(data)) is same


def test_fresh_draws_repeat_with_the_global_generator(raw):
    data = apply_pixels(raw, "dynamic-binary")
    state = torch.get_rng_state()
    first = torch.cat([b["x"] for b in data.batches(100)])
    torch.set_rng_state(state)
    assert torch.equal(first, torch.cat([b["x"] for b in data.batches(100)]))


@pytest.mark.parametrize("choice", ["static-binary", "dynamic-binary"])
def test_test_values_do_not_depend_on_the_validation_fraction(choice):
    arrays = {"x_train": np.arange(17).repeat(4).reshape(-1, 2), "x_test": np.arange(16).repeat(4).reshape(-1, 2)}
    some, more = (from_arrays(arrays, levels=17, pixels=choice, validation=v) for v in (0.1, 0.5))
    assert torch.equal(some.test["x"], more.test["x"])


def test_seed_moves_static_binarisation(raw):
    assert not torch.equal(*(apply_pixels(raw, "static-binary", seed=s).train["x"] for s in (0, 1)))


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_bernoulli_has_the_right_mean(levels):
    # 20,000 draws a level, standard error sqrt(p (1 - p) / n), bar 4.5 of them.
    n = 20_000
    x = torch.arange(levels, dtype=torch.uint8)[:, None].expand(levels, n)
    p = torch.arange(levels, dtype=torch.float64) / (levels - 1)
    bar = 4.5 * (p * (1 - p) / n).sqrt()

    def off(divisor):
        draws = bernoulli(x, divisor + 1, torch.Generator().manual_seed(0))
        return ((draws.double().mean(1) - p).abs() > bar).any()

    assert not off(levels - 1)
    # mutant: x / L never reaches 1 at the highest level
    assert off(levels)


@pytest.mark.parametrize("levels", [2, 3, 17, 100, 129, 200, 251, 255, 256])
def test_dequantised_values_give_their_levels_back(levels):
    x = torch.arange(levels, dtype=torch.uint8).repeat(20_000)
    y = dequantize(x, levels, torch.Generator().manual_seed(0))
    assert torch.equal((y * levels).floor().to(torch.uint8), x)
    assert (y > 0).all()
    assert (y < 1).all()
    # mutant: dividing by L - 1 leaves the unit interval and the levels
    mutant = y * levels / (levels - 1)
    assert not torch.equal((mutant * levels).floor(), x.float())


@pytest.mark.parametrize("levels", range(2, 257))
def test_extreme_noise_gives_the_levels_back(levels, monkeypatch):
    x = torch.arange(levels, dtype=torch.uint8)
    for extreme in (0, 2**15 - 1):
        monkeypatch.setattr(torch, "randint", lambda high, shape, extreme=extreme, **_: torch.full(shape, extreme))
        assert torch.equal((dequantize(x, levels) * levels).floor().to(torch.uint8), x)


def test_why_noise_is_not_a_plain_float32():
    # mutant: torch.rand's largest value, 1 - 2^-24, added to 255 rounds up to the next level
    largest = torch.tensor(1 - 2**-24, dtype=torch.float32)
    assert (((255 + largest) / 256) * 256).floor() == 256


def test_dequantisation_noise_is_uniform():
    # mean 1/2 and variance 1/12; standard errors sqrt(1/12/n) and sqrt(1/180/n), bar 4.5 of them.
    n = 400_000
    u = dequantize(torch.zeros(n, dtype=torch.uint8), 1, torch.Generator().manual_seed(0)).double()
    assert abs(u.mean() - 1 / 2) < 4.5 * (1 / 12 / n) ** 0.5
    assert abs(u.var() - 1 / 12) < 4.5 * (1 / 180 / n) ** 0.5


def test_threshold():
    assert threshold(torch.tensor([0, 8, 9, 16], dtype=torch.uint8), 17).tolist() == [0, 0, 1, 1]
    assert threshold(torch.tensor([127, 128], dtype=torch.uint8), 256).tolist() == [0, 1]
    # mutant: 2 * x in uint8 wraps round
    assert (2 * torch.tensor([128], dtype=torch.uint8) > 255).tolist() == [False]


def test_reals_have_no_pixels():
    with pytest.raises(UsageError, match=r"pixels='threshold': iris holds real numbers.*needs whole levels"):
        iris(pixels="threshold")


def test_a_choice_is_made_once(raw):
    for choice in ("static-binary", "dynamic-binary", "dequantized"):
        with pytest.raises(UsageError, match=f"'{choice}' was applied to digits before"):
            apply_pixels(apply_pixels(raw, choice), "threshold")


def test_unknown_choice(raw):
    with pytest.raises(UsageError, match=r"'treshold': expected one of levels.*did you mean 'threshold'"):
        apply_pixels(raw, "treshold")


def test_a_data_set_travels_to_another_process(raw):
    data = apply_pixels(raw, "dynamic-binary")
    assert pickle.loads(pickle.dumps(data)).fingerprint() == data.fingerprint()  # noqa: S301


def test_spec_of_digits(raw):
    assert raw.spec == DataSpec((1, 8, 8), "levels", levels=17, num_classes=10, name="digits", num_data=1437)
    assert raw.train["x"].dtype == torch.uint8
    assert sum(len(raw.split(s)["x"]) for s in ("train", "validation", "test")) == 1797
