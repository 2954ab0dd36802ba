"""Scores of outliers of normal programs in closed form, the area under the curve by counting, and mutated data."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pyrogen.data import digits, from_arrays, mutated
from pyrogen.errors import DataError, UsageError
from pyrogen.evaluation import (
    auroc,
    iwae,
    likelihood_ratio,
    log_densities,
    negative_log_likelihood,
    typicality,
    watanabe_akaike,
)
from pyrogen.inference.feed import Feed

pytestmark = pytest.mark.usefixtures("double")

D = 40


def normal(loc, scale):
    """Return a program of vectors whose elements are independent."""

    def model(x):
        loc_, scale_ = (torch.as_tensor(v, dtype=torch.float64).expand(x.shape[1:]) for v in (loc, scale))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc_, scale_).to_event(1), obs=x)

    return model


def log_p(model, *parts):
    """Score data that come in batches."""
    return log_densities(model, None, [{"x": x} for x in parts])


def of_normal(x, loc, scale):
    """Write the density of independent normal elements down."""
    z = (x - loc) / scale
    return -(z.square() / 2 + math.log(scale) + math.log(2 * math.pi) / 2).sum(-1)


# Densities


def test_exact_densities_of_each_datum_in_order():
    x = torch.randn(7, D)
    assert torch.allclose(log_p(normal(1.0, 2.0), x[:3], x[3:]), of_normal(x, 1.0, 2.0))
    assert torch.allclose(negative_log_likelihood(log_p(normal(1.0, 2.0), x)), -of_normal(x, 1.0, 2.0))


def test_a_bound_of_each_datum_with_the_exact_posterior():
    """z ~ N(0, 1), x | z ~ N(z, 1): with the posterior as the guide every draw has the weight p(x), N(0, 2)."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def posterior(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    def prior(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    x = torch.tensor([0.0, 1.0, -3.0])
    exact = of_normal(x.unsqueeze(1), 0.0, 2**0.5)
    assert torch.allclose(log_densities(model, posterior, [{"x": x}], num_particles=3), exact)
    many = log_densities(model, prior, [{"x": x}], num_particles=40_000)
    assert torch.allclose(many, exact, atol=0.05)  # at x = -3 a weight's coefficient of variation is 3: 3 / 200 = .015
    assert iwae(model, posterior, [{"x": x}], num_particles=3).value == pytest.approx(float(exact.mean()))


# Scores


def test_typical_data_of_a_normal_lie_on_a_shell():
    """The likeliest point of N(0, I) is the least typical: -log p(0) = D/2 log 2 pi, and the mean is D/2 above it."""
    model = normal(0.0, 1.0)
    held_out = torch.randn(200_000, D)
    entropy = D / 2 * (1 + math.log(2 * math.pi))
    mode = torch.zeros(1, D)
    score = typicality(log_p(model, mode), log_p(model, held_out))
    stderr = (D / 2) ** 0.5 / 200_000**0.5  # -log p is a chi-square over two, of variance D / 2
    assert abs(float(score) - D / 2) < 4 * stderr
    far = torch.full((1, D), 2.0)  # |x|^2 / 2 = 2 D
    assert abs(float(typicality(log_p(model, far), log_p(model, held_out))) - 1.5 * D) < 4 * stderr
    exact = torch.full((3,), -entropy)
    assert torch.allclose(typicality(log_p(model, mode), exact), torch.tensor([D / 2]))


def test_a_likelihood_alone_takes_shrunk_data_for_inliers():
    """Draws of N(0, s^2 I), s = 1/2, are likelier under N(0, I) than its own: AUROC 0; their typicality tells them."""
    model, held_out = normal(0.0, 1.0), torch.randn(2000, D)
    inliers, shrunk = log_p(model, torch.randn(500, D)), log_p(model, torch.randn(500, D) / 2)
    likelihood = auroc(negative_log_likelihood(inliers), negative_log_likelihood(shrunk))
    usual = log_p(model, held_out)
    typical = auroc(typicality(inliers, usual), typicality(shrunk, usual))
    assert likelihood.value < 0.01
    assert typical.value > 0.98


def test_typicality_of_groups():
    """The mean of a group's log-densities, and then the distance, which sums of opposite signs cancel in."""
    held_out = torch.tensor([-2.0, -4.0])
    groups = torch.tensor([[-1.0, -5.0], [-6.0, -5.0], [-1.0, -2.0]])
    assert typicality(groups, held_out).tolist() == [0.0, 2.5, 1.5]
    assert typicality(groups.flatten(), held_out).tolist() == [2.0, 2.0, 3.0, 2.0, 2.0, 1.0]


def test_a_ratio_leaves_what_the_background_shares():
    """x = (semantic, background), independent: with the background's program beside N(0, 9) elsewhere, only the
    semantic part's ratio is left, whatever the other part, in closed form."""
    semantic, background = torch.randn(50, 10) + 1, 5 * torch.randn(50, 30)
    x = torch.cat([semantic, background], 1)
    scale = torch.cat([torch.ones(10), torch.full((30,), 2.0)])
    loc = torch.cat([torch.ones(10), torch.full((30,), -1.0)])
    model = normal(loc, scale)
    blurred = normal(torch.cat([torch.zeros(10), loc[10:]]), torch.cat([torch.full((10,), 3.0), scale[10:]]))
    found = likelihood_ratio(log_p(model, x), log_p(blurred, x))
    expected = -(of_normal(semantic, 1.0, 1.0) - of_normal(semantic, 0.0, 3.0))
    assert torch.allclose(found, expected)
    other = x.clone()
    other[:, 10:] = 100.0
    assert torch.allclose(likelihood_ratio(log_p(model, other), log_p(blurred, other)), expected)
    outlying = x.clone()
    outlying[:, :10] = -3.0
    scores = likelihood_ratio(log_p(model, outlying), log_p(blurred, outlying))
    assert auroc(found, scores).value == 1.0


def test_waic_of_a_known_ensemble():
    """Three fits N(m, 1) at m = -1, 0, 1: log p_m(x) = c - (x - m)^2 / 2 has the mean c - (x^2 + 2/3) / 2 and, as a
    function m x - m^2 / 2 of m but for a constant, the variance x^2 + 1/12 with two in its denominator."""
    x = torch.tensor([[0.0], [2.0], [-3.0]])
    values = torch.stack([log_p(normal(m, 1.0), x) for m in (-1.0, 0.0, 1.0)])
    c = -math.log(2 * math.pi) / 2
    expected = -(c - (x.square() + 2 / 3) / 2) + x.square() + 1 / 12
    assert torch.allclose(watanabe_akaike(values), expected.flatten())


def test_waic_of_fits_that_agree_is_their_likelihood():
    values = log_p(normal(0.0, 1.0), torch.randn(4, D)).expand(3, 4)
    assert torch.allclose(watanabe_akaike(values), -values[0])


# The area under the curve


@pytest.mark.parametrize(("m", "n", "levels"), [(1, 1, 3), (7, 4, 3), (30, 50, 5), (40, 25, 10_000)])
def test_area_by_counting_pairs(m, n, levels):
    s, t = (torch.randint(levels, (count,)).double() for count in (m, n))
    pairs = [(a > b) + 0.5 * (a == b) for a in s.tolist() for b in t.tolist()]
    found = auroc(inliers=t, outliers=s).value
    assert found == pytest.approx(sum(pairs) / (m * n), abs=1e-12)
    truth = np.concatenate([np.ones(m), np.zeros(n)])
    assert found == pytest.approx(roc_auc_score(truth, torch.cat([s, t]).numpy()), abs=1e-12)


def test_error_of_an_area_by_enumeration():
    """DeLong's structural components, written with two loops."""
    s, t = torch.randint(6, (12,)).double(), torch.randint(5, (9,)).double()
    psi = torch.tensor([[float(a > b) + 0.5 * float(a == b) for b in t.tolist()] for a in s.tolist()])
    expected = psi.mean(1).var() / 12 + psi.mean(0).var() / 9
    found = auroc(t, s).stderr
    assert found is not None
    assert found**2 == pytest.approx(float(expected), rel=1e-12)


def test_error_of_an_area_by_simulation():
    """N(1, 2^2) against N(0, 1): the area is Phi(1 / 5^(1/2)), and areas spread over it as they say."""
    exact = float(dist.Normal(0.0, 1.0).cdf(torch.tensor(1 / 5**0.5)))
    repeats = 600
    found = [auroc(torch.randn(60), 1 + 2 * torch.randn(30)) for _ in range(repeats)]
    values = torch.tensor([a.value for a in found])
    errors = torch.tensor([a.stderr for a in found])
    spread = float(values.std())
    assert abs(float(values.mean()) - exact) < 4 * spread / repeats**0.5
    # The relative error of a standard deviation of 600 values is 1 / (2 * 600)^(1/2) = 2.9%.
    assert float(errors.square().mean().sqrt()) == pytest.approx(spread, rel=0.116)


def test_areas_at_the_ends():
    low, high = torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0, torch.inf])
    assert auroc(low, high) == auroc(low, high)
    assert (auroc(low, high).value, auroc(low, high).stderr) == (1.0, 0.0)
    assert auroc(high, low).value == 0.0
    assert auroc(low, low).value == 0.5
    assert auroc(low[:1], high).stderr is None
    assert auroc(low, high[:1]).stderr is None


# What is refused


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda nan: auroc(torch.zeros(0), torch.zeros(2)), "0 of inliers and 2 of outliers"),
        (lambda nan: auroc(nan, torch.zeros(2)), "1 of 2 values of inliers are NaN"),
        (lambda nan: negative_log_likelihood(nan), "1 of 2 values of log_p are NaN"),
        (lambda nan: likelihood_ratio(torch.zeros(3), torch.zeros(2)), r"\(3,\) of the model and \(2,\)"),
        (lambda nan: likelihood_ratio(torch.tensor([-torch.inf]), torch.tensor([-torch.inf])), "the ratio are NaN"),
        (lambda nan: typicality(torch.zeros(2), torch.zeros(0)), "found 0, of which 0"),
        (lambda nan: typicality(torch.zeros(2), torch.tensor([0.0, -torch.inf])), "found 2, of which 1"),
        (lambda nan: watanabe_akaike(torch.zeros(1, 3)), r"shape \(1, 3\)"),
        (lambda nan: watanabe_akaike(torch.zeros(3)), r"shape \(3,\)"),
        (lambda nan: watanabe_akaike(torch.stack([nan, nan])), "1 of 2 data are impossible"),
    ],
)
def test_what_has_no_score(call, says):
    with pytest.raises(DataError, match=says):
        call(torch.tensor([0.0, torch.nan]))


# Mutated data


@pytest.mark.parametrize("pixels", ["levels", "static-binary", "dynamic-binary", "dequantized"])
def test_mutated_values_are_uniform_and_the_others_as_they_were(pixels):
    """Where all data are level 0, a share mu (1 - 1/L) differs, evenly over the other levels."""
    x = np.zeros((400, 8, 8), dtype=np.uint8)
    data = from_arrays({"x": x}, levels=17, pixels=pixels, validation=0.1, test=0.1)
    levels = 17 if pixels in ("levels", "dequantized") else 2
    drawn = next(iter(mutated(data, 0.3).batches(320)))["x"]
    assert drawn.dtype == torch.float32
    found = (drawn * levels).floor() if pixels == "dequantized" else drawn
    count = found.numel()
    share = torch.bincount(found.long().flatten(), minlength=levels).double() / count
    assert len(share) == levels
    for level, p in enumerate([0.7 + 0.3 / levels] + [0.3 / levels] * (levels - 1)):
        assert abs(float(share[level]) - p) < 4.5 * (p * (1 - p) / count) ** 0.5
    if pixels == "dequantized":
        assert abs(float((drawn * levels).frac().mean()) - 0.5) < 4.5 / (12 * count) ** 0.5


def test_only_training_batches_are_mutated():
    data = digits()
    changed = mutated(data, 0.5)
    assert changed.fingerprint() == data.fingerprint()
    for split in ("validation", "test"):
        assert torch.equal(changed.eval_columns(split)["x"], data.eval_columns(split)["x"])
        batches = (next(iter(d.batches(64, split)))["x"] for d in (changed, data))
        assert torch.equal(*batches)
    one, other = (next(iter(changed.batches(64, shuffle=False)))["x"] for _ in range(2))
    assert not torch.equal(one, other)  # drawn anew
    clean = next(iter(data.batches(64, shuffle=False)))["x"]
    assert torch.equal(next(iter(mutated(data, 1e-9).batches(64, shuffle=False)))["x"], clean)


def test_mutation_is_resumed():
    batches = mutated(digits(), 0.2).batches(200)
    feed = Feed(batches)
    for _ in range(3):
        feed.draw(None)
    state = feed.state_dict()
    expected = feed.draw(None)[1]["x"]
    torch.manual_seed(5)
    again = Feed(batches)
    again.load_state_dict(state)
    assert torch.equal(again.draw(None)[1]["x"], expected)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, math.nan, True])
def test_rates_that_are_none(rate):
    with pytest.raises(UsageError, match="expected a probability above 0"):
        mutated(digits(), rate)


def test_reals_have_no_levels_to_draw():
    with pytest.raises(UsageError, match=r"cannot be mutated.*'real'"):
        mutated(from_arrays({"x": np.linspace(0, 1, 40).reshape(20, 2)}), 0.2)
