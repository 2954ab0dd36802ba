"""Held to the truth: WaveNet on a process of known entropy, bins of the logistic mixture, labels, compiled steps."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from torch.nn.functional import softplus

from pyrogen.distributions import DiscretizedLogistic, DiscretizedLogisticMixture
from pyrogen.inference import MaximumLikelihood, train
from pyrogen.models import AutoregressiveModel, wavenet
from pyrogen.models.autoregressive import likelihood_of_element
from pyrogen.nn import EmbeddedValues, ScaledValues, WaveNet
from pyrogen.spec import DataSpec

# An autoregressive process of second order: x_t = a x_{t-1} + b x_{t-2} + s e_t, with normal e_t. It is not quantised.
# Its entropy rate is that of the noise; what one step back explains is its first autocorrelation, r = a / (1 - b), and
# s^2 = v (1 - r^2) (1 - b^2) where v is its variance: one who sees one step alone misses -ln(1 - b^2) / 2.
A, B, S = 1.2, -0.7, 0.5
ENTROPY_RATE = 0.5 * math.log(2 * math.pi * math.e * S**2)
GAP = -0.5 * math.log(1 - B**2)
LENGTH, WARM = 250, 20


def ar2(count: int, length: int) -> Tensor:
    """Draw stretches of the process, long after its start."""
    noise = S * torch.randn(length + 200, count)
    x = [torch.zeros(count), torch.zeros(count)]
    for e in noise:
        x.append(A * x[-1] + B * x[-2] + e)
    return torch.stack(x[-length:], 1)


def fitted(model: AutoregressiveModel, columns: dict[str, Tensor], steps: int, rate: float, batch: int) -> None:
    """Fit a model by maximum likelihood, with a rate that falls to zero."""

    def batches():
        while True:
            rows = torch.randint(len(columns["x"]), (batch,))
            yield {name: column[rows] for name, column in columns.items()}

    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)  # noqa: E731
    training = train(MaximumLikelihood(), model, None, batches(), optimizer, num_steps=steps, scheduler=schedule)
    for _ in training:
        pass


def held_out(kernel: int) -> float:
    """Fit a WaveNet with a Gaussian likelihood to the process; return nats per sample of new data, after a start."""
    spec = DataSpec((LENGTH,), "real")
    element = likelihood_of_element(spec)
    network = WaveNet(ScaledValues(None), element.num_features, channels=16, layers=2, kernel=kernel, skip=16)
    model = AutoregressiveModel(network, element, spec)
    fitted(model, {"x": ar2(200, LENGTH)}, 250, 0.01, 8)
    with torch.no_grad():
        x = ar2(400, LENGTH)
        return -float(model.distribution(len(x)).log_probs(x)[:, WARM:].mean())


def reaches_the_entropy_rate(nats: float) -> bool:
    return abs(nats - ENTROPY_RATE) < 0.02


@pytest.mark.slow
def test_a_wavenet_reaches_the_entropy_rate():
    assert reaches_the_entropy_rate(held_out(kernel=2))


@pytest.mark.slow
def test_mutant_that_sees_one_step_back():
    """A kernel of one passes on the element before, and no other."""
    nats = held_out(kernel=1)
    assert not reaches_the_entropy_rate(nats)
    assert nats - ENTROPY_RATE == pytest.approx(GAP, abs=0.03)


def test_what_one_step_back_cannot_know():
    """The gap by simulation: residuals of the best predictions by one and by two steps back."""
    x = ar2(400, LENGTH).double().numpy()
    y, one, two = x[:, 2:].flatten(), x[:, 1:-1].flatten(), x[:, :-2].flatten()
    residuals = [np.linalg.lstsq(np.stack(c, 1), y)[1][0] for c in ([one], [one, two])]
    assert 0.5 * math.log(residuals[0] / residuals[1]) == pytest.approx(GAP, abs=0.01)


# Bins of the logistic mixture

LOCS, SCALES = [-1e3, -3.0, -1.0, -0.9961, 0.0, 0.37, 1.0, 30.0], [1e-9, 1e-4, 1 / 255, 0.1, 3.0, 1e6]
LEVELS = 256


def mixture(cls=DiscretizedLogisticMixture, one=DiscretizedLogistic) -> DiscretizedLogisticMixture:
    """Mix each component of a grid of extremes with one in the middle, in unequal parts."""
    grid = torch.cartesian_prod(torch.tensor(LOCS), torch.tensor(SCALES))
    loc = torch.stack([grid[:, 0], torch.full((len(grid),), 0.1)], -1)
    scale = torch.stack([grid[:, 1], torch.full((len(grid),), 0.2)], -1)
    d = cls(torch.tensor([0.9, 0.1]).log(), loc, scale, LEVELS)
    d.components = one(loc, scale, LEVELS)
    return d


def sums_to_one(d: DiscretizedLogisticMixture) -> bool:
    log_p = d.log_prob(d.enumerate_support())
    return bool(log_p.isfinite().all() and ((log_p.exp().sum(0) - 1).abs() < 1e-10).all())


class ClosedEdges(DiscretizedLogistic):
    """The mutant: the first and the last bin are as wide as the others."""

    def log_prob(self, value: Tensor) -> Tensor:
        half = 1 / (self.levels - 1)
        a, b = ((2 * half * value - 1 - self.loc + side) / self.scale for side in (half, -half))
        return (a.sigmoid() - b.sigmoid()).log()


class EdgesOfItsOwn(DiscretizedLogistic):
    """Another: a bin's upper edge is the next one's lower edge but for rounding, which a small scale makes large."""

    def log_prob(self, value: Tensor) -> Tensor:
        half = 1 / (self.levels - 1)
        a, b = ((2 * half * value - 1 - self.loc + side) / self.scale for side in (half, -half))
        below, above = -softplus(-a), -softplus(b)
        inside = below + above + torch.log(-torch.expm1(-2 * half / self.scale))
        return torch.where(value == 0, below, torch.where(value == self.levels - 1, above, inside))


@pytest.mark.usefixtures("double")
def test_all_bins_of_a_mixture_add_up_to_one_in_extremes():
    assert sums_to_one(mixture())
    assert not sums_to_one(mixture(one=ClosedEdges))
    assert not sums_to_one(mixture(one=EdgesOfItsOwn))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("loc", "scale"), [(-1e3, 3.0), (0.37, 1e-4), (30.0, 0.1), (0.0, 1e6), (-0.9961, 1 / 255)])
def test_bins_are_those_of_the_formula_with_sixty_digits(loc, scale):
    """log P = -softplus(-a) - softplus(b) + log(-expm1(b - a)) with standardised edges b < a, by mpmath."""
    d = DiscretizedLogistic(torch.tensor(loc), torch.tensor(scale), LEVELS)
    with mpmath.workdps(60):
        softplus = lambda x: mpmath.log1p(mpmath.exp(x))  # noqa: E731
        for k in (0, 1, 2, 100, 174, 175, 253, 254, 255):
            a, b = ((mpmath.mpf(2 * k + side) / 255 - 1 - mpmath.mpf(loc)) / mpmath.mpf(scale) for side in (1, -1))
            inner = -softplus(-a) - softplus(b) + mpmath.log(-mpmath.expm1(b - a))
            truth = {0: -softplus(-a), 255: -softplus(b)}.get(k, inner)
            assert float(d.log_prob(torch.tensor(float(k)))) == pytest.approx(float(truth), rel=1e-9, abs=1e-12)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_draws_of_a_mixture_fit_its_bins(shift):
    logits, scale = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.05, 0.2, 0.5])
    d = DiscretizedLogisticMixture(logits, torch.tensor([-0.9, 0.1, 1.2]), scale, 17)
    drawn = DiscretizedLogisticMixture(logits, d.loc + shift, scale, 17).sample((20_000,))
    counts = torch.bincount(drawn.long(), minlength=17)
    p = d.log_prob(d.enumerate_support()).exp()
    fits = chisquare(counts.numpy(), (p * 20_000).numpy()).pvalue > 1e-3
    assert fits == (shift == 0.0)  # the mutant is a shifted sampler


# Labels


def tones(y: Tensor, length: int) -> Tensor:
    """Draw sines of period 16 (label 0) or 6 (label 1), of any phase, in 16 levels."""
    period = torch.where(y == 0, 16.0, 6.0)[:, None]
    phase = 2 * torch.pi * torch.rand(len(y), 1)
    return (7.5 + 7.0 * torch.sin(2 * torch.pi * torch.arange(length) / period + phase)).round()


def pitch(x: Tensor) -> Tensor:
    """Return the label whose frequency is stronger."""
    time = torch.arange(x.shape[-1])
    power = [((x - 7.5) * torch.exp(-2j * torch.pi * time / period)).sum(-1).abs() for period in (16, 6)]
    return torch.stack(power).argmax(0)


def agreement(swap: bool) -> float:
    """Fit a WaveNet given labels; return how often a draw, of double the length, is of the label that was asked for."""
    spec = DataSpec((48,), "levels", levels=16, num_classes=2, sample_rate=48)
    model, _ = wavenet(spec, channels=16, layers=4, skip=16, conditional=True)
    y = torch.arange(256) % 2
    x = tones(y, 48)
    fitted(model, {"x": x, "y": torch.randint(2, y.shape) if swap else y}, 150, 0.01, 32)
    asked = torch.arange(64) % 2
    with torch.no_grad():
        return float((pitch(model(y=asked, length=96)) == asked).float().mean())


@pytest.mark.slow
def test_draws_are_of_the_label_that_is_asked_for():
    assert pitch(tones(torch.arange(50) % 2, 96)).equal(torch.arange(50) % 2)
    assert agreement(swap=False) > 0.9


@pytest.mark.slow
def test_mutant_of_labels_that_say_nothing():
    assert agreement(swap=True) < 0.8


# Steps


@pytest.mark.compiled
def test_compiled_steps_give_what_the_others_give():
    network = WaveNet(EmbeddedValues(256, 8), 256, channels=8, layers=3, skip=8, context=2)
    x, context = torch.randint(0, 256, (3, 20)).float(), torch.randn(3, 2)
    with torch.no_grad():
        whole = network(x, context)
        network.compile_steps()
        state = network.start(3, context)
        steps = [network.step(previous, state) for previous in [None, *x.unbind(1)][:-1]]
    torch.testing.assert_close(torch.stack(steps, 1), whole, atol=1e-5, rtol=0)
