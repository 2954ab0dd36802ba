"""Distances of samples in features, against closed forms and by hand."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from pyrogen.errors import DataError, UsageError
from pyrogen.evaluation import (
    coverage,
    energy_distance,
    features,
    frechet_distance,
    kernel_distance,
    precision_recall,
    spacing,
)


def correlated(count, seed, shift=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    return scale * torch.randn(count, 6, generator=generator) @ mixing + shift


def test_frechet_distance_of_the_moments():
    """Against the definition, with SciPy's matrix root; and nothing between a sample and itself."""
    x, y = correlated(400, 2), correlated(300, 3, 0.5, 1.7)[:, [1, 0, 2, 4, 3, 5]]
    a, b = np.cov(x.T.double()), np.cov(y.T.double())
    shift = (x.double().mean(0) - y.double().mean(0)).square().sum()
    expected = float(shift) + np.trace(a + b - 2 * np.real(sqrtm(a @ b)))
    assert frechet_distance(x, y).value == pytest.approx(expected, rel=1e-6)
    assert abs(frechet_distance(x, x).value) < 1e-6


def test_frechet_distance_of_normals():
    """N(0, I) and N(m, s^2 I) in d dimensions: |m|^2 + d (s - 1)^2, with an honest standard error."""
    torch.manual_seed(0)
    found = frechet_distance(torch.randn(20_000, 4), 0.5 + 2 * torch.randn(20_000, 4))
    assert abs(found.value - 5.0) < 4 * found.stderr
    values = [frechet_distance(torch.randn(500, 4), 0.5 + 2 * torch.randn(500, 4)) for _ in range(60)]
    spread = float(np.std([v.value for v in values]))
    assert np.mean([v.stderr for v in values]) == pytest.approx(spread, rel=0.3)


def test_mutant_root_of_the_wrong_product(monkeypatch):
    eigvalsh = torch.linalg.eigvalsh
    monkeypatch.setattr(features.torch.linalg, "eigvalsh", lambda product: eigvalsh(product).square())
    with pytest.raises(AssertionError):
        test_frechet_distance_of_the_moments()


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance, precision_recall, coverage, energy_distance])
def test_samples_that_cannot_be_compared(measure):
    good, one_bad = torch.randn(20, 3), torch.randn(20, 3)
    one_bad[4, 1] = torch.nan
    for x, y, message in (
        (good, one_bad, "1 of 20 rows of fake are not finite"),
        (one_bad, good, "1 of 20 rows of real are not finite"),
        (good, good[:1], "fake has 1 rows"),
        (good, torch.randn(20, 4), r"in one shape.*\(20, 4\)"),
        (torch.randn(20), torch.randn(20), "a row for each"),
    ):
        with pytest.raises(DataError, match=message):
            measure(x, y)
    assert measure(good.numpy(), good.numpy()) == measure(good, good)


def test_neighbours_that_are_not_there():
    x = torch.randn(5, 2)
    for measure in (precision_recall, coverage):
        for neighbours in (0, 5):
            with pytest.raises(UsageError, match="neighbours must be between 1 and 4"):
                measure(x, x, neighbours=neighbours)
    with pytest.raises(UsageError, match="block must be at least 2"):
        kernel_distance(x, x, block=1)
    with pytest.raises(UsageError, match="as many draws as data"):
        spacing(x, x[:4])


def test_an_order_does_no_harm():
    """A sorted sample has blocks from all over."""
    x, y = torch.randn(4000, 1).sort(0).values, torch.randn(4000, 1)
    found = kernel_distance(x, y, block=100)
    assert abs(found.value) < 4 * found.stderr


def test_kernel_distance_by_hand():
    x, y = correlated(7, 4), correlated(7, 5, 1.0)

    def kernel(a, b):
        return (float(a.double() @ b.double()) / 6 + 1) ** 3

    pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
    within = sum(kernel(s[i], s[j]) for s in (x, y) for i, j in pairs) / 42
    between = sum(kernel(a, b) for a in x for b in y) / 49
    assert kernel_distance(x, y).value == pytest.approx(within - 2 * between, rel=1e-9)


def test_kernel_distance_is_unbiased():
    """Zero on average for small samples of one distribution, where the Fréchet distance is far from it."""
    torch.manual_seed(0)
    found = kernel_distance(torch.randn(4000, 5), torch.randn(4000, 5), block=20)
    assert abs(found.value) < 3 * found.stderr
    assert frechet_distance(torch.randn(20, 5), torch.randn(20, 5)).value > 0.3


def test_mutant_kernel_distance_with_the_diagonal(monkeypatch):
    monkeypatch.setattr(features.Tensor, "fill_diagonal_", lambda self, value: self)
    with pytest.raises(AssertionError):
        test_kernel_distance_is_unbiased()


def test_precision_and_recall_by_hand():
    torch.manual_seed(0)
    x, y = torch.randn(30, 2), 0.6 * torch.randn(40, 2) + 0.3

    def within(points, sample):
        radius = [sorted(float((a - b).norm()) for b in sample)[3] for a in sample]
        return np.mean([any(float((p - a).norm()) <= r for a, r in zip(sample, radius, strict=True)) for p in points])

    assert precision_recall(x, y) == pytest.approx((within(y, x), within(x, y)))


def test_precision_without_recall_and_the_reverse():
    torch.manual_seed(0)
    data = torch.cat([torch.randn(500, 2), torch.randn(500, 2) + 20])
    one_mode, too_wide = (
        torch.randn(1000, 2),
        torch.cat([torch.randn(500, 2), torch.randn(500, 2) + 20, torch.randn(1000, 2) - 20]),
    )
    precision, recall = precision_recall(data, one_mode)
    assert precision > 0.9
    assert recall < 0.55
    precision, recall = precision_recall(data, too_wide)
    assert precision < 0.55
    assert recall > 0.9


def test_mutant_precision_and_recall_exchanged(monkeypatch):
    share = features.neighbourhoods
    monkeypatch.setattr(features, "neighbourhoods", lambda points, sample, k: share(sample, points, k))
    with pytest.raises(AssertionError):
        test_precision_and_recall_by_hand()
