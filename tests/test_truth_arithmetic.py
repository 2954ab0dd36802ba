"""Attribute arithmetic where its chances can be computed, and data with known factors."""

import numpy as np
import pytest
import torch

from pyrogen.data import render, shapes
from pyrogen.data.shapes import Factors, draw_factors
from pyrogen.errors import UsageError
from pyrogen.evaluation import arithmetic, attribute_arithmetic


def signs(x):
    return (x[:, :2] > 0).long()


def simulated(exemplars, count=400_000):
    """The chance of success where attributes are the signs of two normal latents, by NumPy."""
    rng = np.random.default_rng(0)

    def half():
        return abs(rng.normal(size=(count, exemplars))).mean(1)

    added = half() + half() - half()  # with, minus without, plus without
    kept = half() - half() + half()  # the other's own two cancel on average
    return [float(right.mean()) for right in ((added > 0) & (kept > 0), kept > 0, added > 0)]


@pytest.mark.parametrize("exemplars", [1, 3])
def test_signs_of_normal_latents(exemplars):
    torch.manual_seed(0)
    z = torch.randn(20_000, 5)
    found = attribute_arithmetic(lambda z: z, signs, z, exemplars=exemplars, repeats=4000)
    for share, expected in zip(found[:3], simulated(exemplars), strict=True):
        assert abs(share.value - expected) < 4 * share.stderr
    assert found.chance == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("mutant", ["subtracts nothing", "keeps the other"])
def test_mutant_sums(monkeypatch, mutant):
    def sums(z, attributes, wanted, exemplars):
        if mutant == "keeps the other":
            return honest(z, attributes, 1 - wanted, exemplars)
        rows = [z[(attributes == torch.tensor([kept, 0])).all(1)][:exemplars].mean(0) for kept in (0, 1)]
        return honest(z, attributes, wanted, exemplars) + torch.stack(rows)[1 - wanted]  # what was subtracted

    honest = arithmetic.sums
    monkeypatch.setattr(arithmetic, "sums", sums)
    with pytest.raises(AssertionError):
        test_signs_of_normal_latents(3)


def test_attributes_that_no_draw_has():
    with pytest.raises(UsageError, match=r"0 of 50 draws have attributes \(0, 1\).*fit the model longer"):
        attribute_arithmetic(lambda z: z, lambda x: torch.zeros(len(x), 2, dtype=torch.long), torch.randn(50, 3))


@pytest.mark.parametrize(
    ("classify", "message"),
    [
        (lambda x: x[:, :2].sigmoid(), "two attributes, 0 or 1"),
        (lambda x: (x[:, :3] > 0).long(), r"in shape \(50, 2\), found shape \(50, 3\)"),
        (lambda x: (x > 0).numpy(), "found ndarray"),
    ],
)
def test_classifiers_of_something_else(classify, message):
    with pytest.raises(UsageError, match=message):
        attribute_arithmetic(lambda z: z, classify, torch.randn(50, 3))


def test_no_sums():
    with pytest.raises(UsageError, match="at least 1, found 0 and 500"):
        attribute_arithmetic(lambda z: z, signs, torch.randn(50, 3), exemplars=0)


def test_shapes_have_the_ink_of_their_factors():
    """The area of a disc is pi r^2, of a square 4 r^2, and a quarter of it is missing where it is hollow."""
    factors = draw_factors(400, seed=3)
    ink = render(factors).sum((1, 2)) / 255
    area = np.where(factors.square, 4, np.pi) * factors.radius**2 * (1 - factors.hollow / 4)
    np.testing.assert_allclose(ink, area, rtol=0.06)
    pixels = np.arange(16) + 0.5
    images = render(factors) / 255
    np.testing.assert_allclose((images.sum(1) * pixels).sum(1) / images.sum((1, 2)), factors.x, atol=0.1)
    np.testing.assert_allclose((images.sum(2) * pixels).sum(1) / images.sum((1, 2)), factors.y, atol=0.1)


def test_shapes_by_label():
    data = shapes(size=300, seed=1)
    assert data.spec.shape == (1, 16, 16)
    one = Factors(*(np.array([value]) for value in (1, 0, 5.0, 8.0, 8.0)))
    assert (render(one)[0, 4:12, 4:12] == 255).all()
    x, y = data.train["x"].float(), data.train["y"]
    middle = x[:, 0, 7:9, 7:9].mean((1, 2))
    assert middle[y % 2 == 1].median() < 100 < middle[y % 2 == 0].median()
    assert shapes(size=300, seed=1).fingerprint() == data.fingerprint() != shapes(size=300, seed=2).fingerprint()
