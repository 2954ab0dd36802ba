"""The discretised logistic is a distribution at every scale, and its draws follow it; bits per dimension."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyrogen.distributions import DiscretizedLogistic
from pyrogen.evaluation import Estimate
from pyrogen.spec import DataSpec, scaled

pytestmark = pytest.mark.usefixtures("double")

LEVELS = [2, 3, 17, 256]
LOCS, SCALES = [-30.0, -1.0, -0.31, 0.0, 0.5, 1.0, 1e3], [1e-7, 1e-3, 0.05, 1.0, 1e4]
GRID = torch.cartesian_prod(torch.tensor(LOCS, dtype=torch.float64), torch.tensor(SCALES, dtype=torch.float64))


def check_sums_to_one(cls, levels: int) -> None:
    d = cls(GRID[:, 0], GRID[:, 1], levels)
    log_p = d.log_prob(d.enumerate_support())
    torch.testing.assert_close(log_p.exp().sum(0), torch.ones(len(GRID)), atol=1e-10, rtol=0)
    assert log_p.isfinite().all()


@pytest.mark.parametrize("levels", LEVELS)
def test_sums_to_one(levels):
    check_sums_to_one(DiscretizedLogistic, levels)


def check_middle(cls) -> None:
    """Each probability is a difference of logistic distribution functions at the edges, the outer ones open."""
    loc, scale, levels = torch.tensor(0.2), torch.tensor(0.3), 5
    edges = torch.tensor([-math.inf, -0.75, -0.25, 0.25, 0.75, math.inf])  # centres -1, -.5, 0, .5, 1
    truth = torch.sigmoid((edges - loc) / scale).diff()
    torch.testing.assert_close(cls(loc, scale, levels).log_prob(torch.arange(5.0)).exp(), truth)


def test_edges():
    check_middle(DiscretizedLogistic)


class HalfTheBin(DiscretizedLogistic):
    """Mutant: edges at half the distance they should have."""

    def log_prob(self, value: Tensor) -> Tensor:
        half = 1 / (self.levels - 1)
        c = 2 * half * value - 1 - self.loc
        p = torch.sigmoid((c + half / 2) / self.scale) - torch.sigmoid((c - half / 2) / self.scale)
        return p.log()


class ClosedTails(DiscretizedLogistic):
    """Mutant: the outer bins are not open, so mass is lost."""

    def log_prob(self, value: Tensor) -> Tensor:
        half = 1 / (self.levels - 1)
        c = 2 * half * value - 1 - self.loc
        return (torch.sigmoid((c + half) / self.scale) - torch.sigmoid((c - half) / self.scale)).log()


@pytest.mark.parametrize("mutant", [HalfTheBin, ClosedTails])
def test_mutant_bins(mutant):
    with pytest.raises(AssertionError):
        check_middle(mutant)
    with pytest.raises(AssertionError):
        check_sums_to_one(mutant, 17)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tails_and_gradients_are_finite(dtype):
    grid = GRID.to(dtype)
    loc, scale = (column.clone().requires_grad_() for column in grid.unbind(1))
    log_p = DiscretizedLogistic(loc, scale, 256).log_prob(torch.arange(256, dtype=dtype)[:, None])
    assert log_p.isfinite().all()
    for gradient in torch.autograd.grad(log_p.sum(), (loc, scale)):
        assert gradient.isfinite().all()


def test_a_location_far_off_in_single_precision():
    """A network may answer anything: the width of a bin must not be taken as a difference of two large numbers."""
    loc, scale = torch.tensor(3e5, dtype=torch.float32, requires_grad=True), torch.tensor(1.0, dtype=torch.float32)
    log_p = DiscretizedLogistic(loc, scale, 256).log_prob(torch.arange(256, dtype=torch.float32))
    # Deep in the lower tail sigma(u) = e^u: log P(100) = (c_100 - mu) / s up to a few nats
    assert log_p[100].item() == pytest.approx(-3e5, rel=1e-3)
    assert torch.autograd.grad(log_p.sum(), loc)[0].isfinite()


def test_gradients_against_differences():
    loc, scale = torch.tensor([0.2, -0.9], requires_grad=True), torch.tensor([0.3, 0.01], requires_grad=True)
    values = torch.tensor([[0.0], [3.0], [8.0], [16.0]])
    assert torch.autograd.gradcheck(lambda m, s: DiscretizedLogistic(m, s, 17).log_prob(values), (loc, scale))


def chi_square(d: DiscretizedLogistic, draws: Tensor) -> float:
    counts = torch.bincount(draws.long(), minlength=d.levels)
    expected = d.log_prob(torch.arange(float(d.levels))).exp() * len(draws)
    return ((counts - expected) ** 2 / expected).sum().item()


@pytest.mark.parametrize(("loc", "scale"), [(0.2, 0.3), (-1.0, 0.2), (2.0, 0.5)])
def test_draws_follow_the_probabilities(loc, scale):
    """Chi-square with 8 degrees of freedom exceeds 44 with probability 6e-7."""
    d = DiscretizedLogistic(torch.tensor(loc), torch.tensor(scale), 9)
    assert chi_square(d, d.sample((50_000,))) < 44
    wrong = DiscretizedLogistic(torch.tensor(loc + 0.1), torch.tensor(scale), 9)  # mutant: a shifted sampler
    assert chi_square(d, wrong.sample((50_000,))) > 44


@pytest.mark.parametrize("levels", LEVELS)
def test_mean(levels):
    d = DiscretizedLogistic(GRID[:, 0], GRID[:, 1], levels)
    k = d.enumerate_support()
    torch.testing.assert_close(d.mean, (k * d.log_prob(k).exp()).sum(0))


def test_expand():
    d = DiscretizedLogistic(torch.tensor([0.1, -0.4]), torch.tensor(0.2), 17)
    wide = d.expand((3, 2))
    assert wide.batch_shape == (3, 2)
    assert wide.sample((4,)).shape == (4, 3, 2)
    values = torch.tensor([3.0, 9.0])
    torch.testing.assert_close(wide.log_prob(values), d.log_prob(values).expand(3, 2))
    assert wide.to_event(1).log_prob(values.expand(3, 2)).shape == (3,)
    assert d.enumerate_support(expand=False).shape == (17, 1)
    assert d.enumerate_support().shape == (17, 2)


@pytest.mark.parametrize("value", [-1.0, 0.5, 17.0])
def test_values_off_the_support_are_refused(value):
    with pytest.raises(ValueError, match="support"):
        DiscretizedLogistic(torch.tensor(0.0), torch.tensor(1.0), 17, validate_args=True).log_prob(torch.tensor(value))


# Bits per dimension


def check_uniform(bits) -> None:
    """A uniform distribution over L levels costs log2 L bits a dimension, however the data are presented."""
    shape = (3, 5)
    assert bits(DataSpec(shape, "levels", levels=32), -15 * math.log(32)) == pytest.approx(5)
    assert bits(DataSpec(shape, "binary"), -15 * math.log(2)) == pytest.approx(1)
    assert bits(DataSpec(shape, "dequantized", levels=32), 0.0) == pytest.approx(5)  # density 1 on the unit cube


def test_bits_per_dim():
    check_uniform(DataSpec.bits_per_dim)
    assert DataSpec((4,), "real").bits_per_dim(-1.0) is None


@pytest.mark.parametrize(
    "mutant",
    [
        lambda spec, log_p: -log_p / spec.num_dims,
        lambda spec, log_p: -log_p / math.log(2),
        lambda spec, log_p: -log_p / spec.num_dims / math.log(2),
    ],
    ids=["nats", "not per dimension", "no level shift"],
)
def test_mutant_bits(mutant):
    with pytest.raises(AssertionError):
        check_uniform(mutant)


def in_bits(spec: DataSpec, log_p: float) -> float:
    return Estimate(log_p, None, "nats").in_bits_per_dim(spec).value


def test_an_estimate_in_bits_per_dim():
    """Its value is that of the data, and its error is divided alike, without the shift, and has no sign."""
    check_uniform(in_bits)
    found = Estimate(-7.0, 3.0, "nats", 10).in_bits_per_dim(DataSpec((3, 5), "dequantized", levels=32))
    assert found.stderr == pytest.approx(3 / (15 * math.log(2)))
    assert (found.unit, found.num_particles) == ("bits/dim", 10)
    with pytest.raises(ValueError, match="real data have no bits per dimension"):
        Estimate(-1.0, None, "nats").in_bits_per_dim(DataSpec((4,), "real"))


def test_mutant_an_estimate_without_the_shift(monkeypatch):
    plain = Estimate.scaled
    monkeypatch.setattr(Estimate, "scaled", lambda self, factor, shift, unit: plain(self, factor, 0.0, unit))
    with pytest.raises(AssertionError):
        check_uniform(in_bits)


def test_dequantised_density_agrees_with_the_levels_it_came_from():
    """P(k) = density of (k + u) / L, times the bin's volume 1 / L: equal bits for a histogram."""
    probs = torch.tensor([0.1, 0.2, 0.3, 0.4])
    log_density = (probs * 4).log()  # a histogram on the unit interval, four bins
    levels, dequantised = DataSpec((1,), "levels", levels=4), DataSpec((1,), "dequantized", levels=4)
    for log_p, log_d in zip(dist.Categorical(probs).logits, log_density, strict=True):
        assert levels.bits_per_dim(log_p.item()) == pytest.approx(dequantised.bits_per_dim(log_d.item()))


def test_scaled_to_the_interval():
    levels = DataSpec((1,), "levels", levels=5)
    torch.testing.assert_close(scaled(torch.tensor([0.0, 2.0, 4.0]), levels), torch.tensor([-1.0, 0.0, 1.0]))
    torch.testing.assert_close(scaled(torch.tensor([0.0, 1.0]), DataSpec((1,), "binary")), torch.tensor([-1.0, 1.0]))
    torch.testing.assert_close(
        scaled(torch.tensor([0.0, 0.5]), DataSpec((1,), "dequantized", levels=9)), torch.tensor([-1.0, 0.0])
    )
    torch.testing.assert_close(scaled(torch.tensor([7.0]), DataSpec((1,), "real")), torch.tensor([7.0]))
