"""Held to the truth: runs ranked by held-out log-likelihoods, against closed forms.

Without torch, so that it runs under either major version of ArviZ:
pytest --noconftest -c /dev/null --rootdir . tests/test_truth_comparison.py
"""

import numpy as np
import pytest

from pyrogen.inferencedata import standings

N = 500
X = np.random.default_rng(0).normal(size=N)


def gaussian(mean, scale):
    return -0.5 * ((X - mean) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


def close(found, true, rel=1e-12):
    assert found == pytest.approx(true, rel=rel, abs=1e-9)


def test_two_gaussians():
    """log N(x; 0, 1) - log N(x; m, 1) = m² / 2 - m x, of mean m² / 2 - m x̄ and variance m² Var(x)."""
    m = 0.5
    found = standings({"shifted": gaussian(m, 1.0), "true": gaussian(0.0, 1.0)})
    assert list(found) == ["true", "shifted"]
    best, other = found.values()
    assert (best.rank, other.rank) == (1, 2)
    close(best.elpd, -N / 2 * np.log(2 * np.pi) - 0.5 * (X**2).sum())
    close(best.se, np.sqrt(N * np.var(X**2)) / 2)
    close(other.elpd_diff, -(N * m**2 / 2 - m * X.sum()))
    close(other.dse, m * np.sqrt(N * np.var(X)))
    close(other.elpd - best.elpd, other.elpd_diff)
    assert (best.elpd_diff, best.dse) == (0.0, 0.0)
    close(best.weight + other.weight, 1.0, rel=1e-6)


def test_mutant_pairs_of_other_data():
    """The sums are as they were, and the difference has the error of data that have nothing in common."""
    values = gaussian(0.5, 1.0)
    right, wrong = (standings({"true": gaussian(0.0, 1.0), "shifted": v})["shifted"] for v in (values, values[::-1]))
    close(wrong.elpd_diff, right.elpd_diff)
    with pytest.raises(AssertionError):
        close(wrong.dse, right.dse)
    assert wrong.dse > 2 * right.dse


@pytest.mark.parametrize("shift", [0.0, -2000.0, 1000.0])
def test_weights_are_those_of_the_best_mixture(shift):
    """Of uniform densities on [0, 1] and [0.9, 1.9], k of n data in the first alone, l in the second, r in both:

    k log w + l log(1 - w) + r log 1 is greatest at w = k / (k + l), wherever r lie; what is common to both, -2000 nats
    for an image, changes nothing.
    """
    low, both, high = 60, 25, 15
    nearly_none = -200.0  # nats that a density has where it has next to nothing
    first = np.array([0.0] * (low + both) + [nearly_none] * high) + shift
    second = np.array([nearly_none] * low + [0.0] * (both + high)) + shift
    found = standings({"first": first, "second": second})
    close(found["first"].weight, low / (low + high), rel=1e-4)
    close(found["second"].weight, high / (low + high), rel=1e-3)
    close(found["first"].elpd, high * nearly_none + 100 * shift)
    close(found["second"].elpd_diff, (low - high) * nearly_none)


def test_the_best_comes_first_whatever_the_order():
    values = {name: gaussian(m, 1.0) for name, m in (("far", 2.0), ("near", 0.2), ("true", float(X.mean())))}
    found = standings(values)
    assert [(name, of.rank) for name, of in found.items()] == [("true", 1), ("near", 2), ("far", 3)]
    for name, of in found.items():
        close(of.elpd, values[name].sum())
        close(of.dse, np.sqrt(N * np.var(values[name] - values["true"])))
    close(sum(of.weight for of in found.values()), 1.0, rel=1e-6)


def test_ten_thousand_images():
    """Sums of millions of nats keep their differences and weights."""
    rng = np.random.default_rng(1)
    common = rng.normal(-2000.0, 300.0, 10_000)
    ahead = rng.normal(1.0, 5.0, 10_000)
    found = standings({"a": common, "b": common + ahead})
    close(found["a"].elpd_diff, -ahead.sum(), rel=1e-7)
    close(found["a"].dse, np.sqrt(10_000 * np.var(ahead)), rel=1e-7)
    assert 0.5 < found["b"].weight < 1.0
    close(found["b"].se, np.sqrt(10_000 * np.var(common + ahead)))
    w = np.linspace(0, 1, 2001)[1:-1]
    score = np.log(w[:, None] * np.exp(ahead) + 1 - w[:, None]).sum(1)
    assert found["b"].weight == pytest.approx(w[score.argmax()], abs=2e-3)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"a": [1.0, 2.0]}, "two models or more"),
        ({"a": [1.0], "b": [2.0]}, "two or more"),
        ({"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0]}, "the same data"),
        ({"a": [1.0, np.nan], "b": [1.0, 2.0]}, "not finite"),
        ({"a": [1.0, -np.inf], "b": [1.0, 2.0]}, "not finite"),
    ],
)
def test_what_cannot_be_compared(values, says):
    with pytest.raises(ValueError, match=says):
        standings(values)
