"""Density ratios against closed forms, and how large divergences are underestimated. Each truth has a mutant."""

import math

import pytest
import torch
from torch import nn

from pyrogen.inference import Ratio, Telescoping
from pyrogen.inference import ratio as ratios

DOUBLE = torch.float64


class Quadratic(nn.Module):
    """Scores that are polynomials of degree two in each number: the exact log-ratio of normal distributions."""

    def __init__(self, num_inputs=1):
        super().__init__()
        self.linear = nn.Linear(2 * num_inputs, 1, dtype=DOUBLE)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, *values):
        z = torch.cat([value.reshape(len(value), -1) for value in values], 1)
        return self.linear(torch.cat([z, z.square()], 1))


def learned(ratio, q, p, steps=60):
    """Fit a ratio to two samples, to convergence."""
    optimizer = torch.optim.LBFGS(ratio.parameters(), max_iter=steps, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = ratio.loss([q], [p])
        loss.backward()
        return loss

    optimizer.step(closure)
    for _ in range(100):  # the normaliser's moving average
        ratio.loss([q], [p])
    return ratio


def log_normal_ratio(z):
    r"""log N(z; 1, 1) - log N(z; 0, 1) = z - 1/2."""
    return z - 0.5


def error_of(estimator):
    torch.manual_seed(0)
    q, p = torch.randn(100_000, 1, dtype=DOUBLE) + 1, torch.randn(100_000, 1, dtype=DOUBLE)
    ratio = learned(Ratio(Quadratic(), estimator), q, p)
    z = torch.linspace(-1.5, 2.5, 9, dtype=DOUBLE)[:, None]
    return float((ratio([z]) - log_normal_ratio(z[:, 0])).abs().max().detach())


@pytest.mark.parametrize("estimator", ["logistic", "kliep", "nwj", "dv"])
def test_estimators_find_the_ratio(estimator):
    """Within 0.05 of the truth where nearly all samples are: about four standard errors of its three coefficients."""
    assert error_of(estimator) < 0.05


def test_least_squares_finds_a_ratio_that_it_can_express():
    r"""With :math:`r = \log(1 + e^T)`, a ratio that is constant between steps: q uniform on [0, 1), p on [0, 2)."""
    torch.manual_seed(0)

    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.levels = nn.Parameter(torch.zeros(2, dtype=DOUBLE))

        def forward(self, z):
            return self.levels[(z[:, 0] >= 1).long()]

    q, p = torch.rand(50_000, 1, dtype=DOUBLE), 2 * torch.rand(50_000, 1, dtype=DOUBLE)
    ratio = learned(Ratio(Step(), "least-squares"), q, p, steps=200)
    inside, outside = ratio([torch.tensor([[0.5], [1.5]], dtype=DOUBLE)]).detach().exp()
    assert abs(float(inside) - 2.0) < 0.05
    assert float(outside) < 0.02


def test_mutant_nwj_without_its_one(monkeypatch):
    entry = ratios.ESTIMATORS["nwj"]
    monkeypatch.setitem(ratios.ESTIMATORS, "nwj", entry._replace(log_ratio=lambda t: t))
    assert error_of("nwj") > 0.9


def test_mutant_dv_without_its_normaliser(monkeypatch):
    """The bound does not change with a constant, so that where the scores end is where they began."""
    entry = ratios.ESTIMATORS["dv"]
    monkeypatch.setitem(ratios.ESTIMATORS, "dv", entry._replace(is_normalised=False))
    assert error_of("dv") > 0.2


def test_mutant_labels_swapped(monkeypatch):
    entry = ratios.ESTIMATORS["logistic"]
    monkeypatch.setitem(ratios.ESTIMATORS, "logistic", entry._replace(loss=lambda q, p: entry.loss(p, q)))
    assert error_of("logistic") > 1.0


def normaliser(rows):
    r"""Learn nothing, in small batches: for T = 2 z and z ~ N(0, 1), log E e^T = 2."""

    class Twice(nn.Module):
        def forward(self, z):
            return 2 * z

    torch.manual_seed(0)
    ratio, found = Ratio(Twice(), "dv"), []
    for step in range(40_000 // rows):
        ratio.loss([torch.randn(rows, 1)], [torch.randn(rows, 1)])
        if step >= 2000 // rows:
            found.append(ratio.log_mean.clone())
    return float(torch.stack(found).exp().mean().log())


def check_normaliser():
    """The mean of e^T over many small batches, whose relative standard deviation is 7.3 a row, within a quarter."""
    assert abs(normaliser(4) - 2) < 0.25


def test_the_normaliser_of_small_batches():
    check_normaliser()


def test_mutant_a_normaliser_that_averages_logarithms(monkeypatch):
    monkeypatch.setattr(torch, "logaddexp", lambda a, b: 0.9 * (a - math.log(0.9)) + 0.1 * (b - math.log(0.1)))
    with pytest.raises(AssertionError):
        check_normaliser()


def test_ratios_that_vanish_keep_their_logarithm():
    score = torch.tensor([-110.0, -20.0, 0.0, 30.0], requires_grad=True)
    log_r = ratios.ESTIMATORS["least-squares"].log_ratio(score)
    [slope] = torch.autograd.grad(log_r.sum(), score)
    torch.testing.assert_close(log_r[:2], score[:2])
    torch.testing.assert_close(log_r[2:], torch.tensor([math.log(math.log(2)), math.log(30.0)]))
    assert slope.isfinite().all()
    assert float(slope[0]) == 1


# KL(N(m, I) || N(0, I)) = |m|^2 / 2 as it grows


def network(dims):
    return nn.Sequential(nn.Linear(dims, 64), nn.ReLU(), nn.Linear(64, 1))


def estimated(ratio, shift, dims, steps=400, batch=256, held_out=20_000):
    """Learn a ratio by Adam from fresh samples; return the estimate of the KL on others, and its standard error."""

    def draw(count):
        return torch.randn(count, dims) + shift / math.sqrt(dims), torch.randn(count, dims)

    optimizer = torch.optim.Adam(ratio.parameters(), lr=2e-3)
    for _ in range(steps):
        q, p = draw(batch)
        optimizer.zero_grad()
        ratio.loss([q], [p]).backward()
        optimizer.step()
    with torch.no_grad():
        log_r = ratio([draw(held_out)[0]])
    return float(log_r.mean()), float(log_r.std() / math.sqrt(held_out))


@pytest.mark.parametrize("dims", [2, 16])
def test_a_classifier_underestimates_large_divergences(dims):
    """As the KL grows from 1/2 to 32 nats, the estimate falls further below the truth; it is never far above."""
    torch.manual_seed(dims)
    missing = []
    for shift in (1.0, 4.0, 8.0):
        truth = shift**2 / 2
        estimate, stderr = estimated(Ratio(network(dims)), shift, dims)
        assert estimate < truth + 3 * stderr + 0.05
        missing.append(truth - estimate)
    assert missing[0] < 0.1
    assert missing[0] < missing[1] < missing[2]
    assert missing[2] > 8


def test_telescoping_finds_what_one_classifier_misses():
    """Of 32 nats, eight small steps find most; one classifier finds less than three quarters."""
    torch.manual_seed(0)
    one, _ = estimated(Ratio(network(2)), 8.0, 2)
    many, _ = estimated(Telescoping([network(2) for _ in range(8)]), 8.0, 2)
    assert one < 24
    assert abs(many - 32) < 3.2


def test_telescoping_is_exact_where_each_step_is():
    """The products of exact ratios of neighbours are the ratio of the ends."""
    torch.manual_seed(0)
    q, p = 2 + torch.randn(100_000, 1, dtype=DOUBLE), torch.randn(100_000, 1, dtype=DOUBLE)
    ratio = learned(Telescoping([Quadratic() for _ in range(4)]), q, p)
    z = torch.linspace(0.0, 2.0, 5, dtype=DOUBLE)[:, None]
    assert float((ratio([z]) - (2 * z[:, 0] - 2)).abs().max().detach()) < 0.1


def test_mutant_a_way_that_is_no_way(monkeypatch):
    """Waypoints in the wrong order turn the ratio round."""

    def loss(self, of_q, of_p, conditions=()):
        return Telescoping.original(self, of_p, of_q, conditions)

    monkeypatch.setattr(Telescoping, "original", Telescoping.loss, raising=False)
    monkeypatch.setattr(Telescoping, "loss", loss)
    with pytest.raises(AssertionError):
        test_telescoping_is_exact_where_each_step_is()


@pytest.mark.parametrize("wrong", [lambda: Ratio(nn.Linear(1, 1), "mine"), lambda: Telescoping([])])
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match=r"estimator|critic"):
        wrong()
