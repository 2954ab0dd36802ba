"""Held to the truth: scores of representations that are the factors themselves, rotations of them, or noise."""

from itertools import product

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score

from pyrogen.errors import DataError
from pyrogen.evaluation import disentanglement
from pyrogen.evaluation.disentanglement import (
    _entropy,
    attribute_predictability,
    beta_vae_score,
    dci,
    factor_vae_score,
    levels_of,
    mutual_information_gap,
)

SIZES = (2, 5, 10, 20)
"""Levels of the four factors."""

ALL = np.array(list(product(*map(range, SIZES))))
"""Every combination once: factors that are independent in the data, and not only in expectation."""

RNG = np.random.default_rng(0)


def standardised(factors: np.ndarray) -> np.ndarray:
    return (factors - factors.mean(0)) / factors.std(0)


def rotated(first: int, second: int) -> np.ndarray:
    codes = standardised(ALL)
    a, b = codes[:, first].copy(), codes[:, second].copy()
    codes[:, first], codes[:, second] = (a + b) / 2**0.5, (a - b) / 2**0.5
    return codes


SHUFFLED = RNG.permutation(len(ALL))


def test_factors_themselves_have_a_gap_of_one():
    assert mutual_information_gap(standardised(ALL), ALL) == pytest.approx(1.0, abs=1e-9)
    assert mutual_information_gap(-3 * ALL[:, ::-1] + 7, ALL) == pytest.approx(1.0, abs=1e-9)


def test_the_gap_of_a_rotation_is_that_of_a_tie():
    """Both codes of the pair say the same of both factors, up to the bins; the two other factors keep their gap."""
    gap = mutual_information_gap(rotated(2, 3), ALL)
    assert gap == pytest.approx(0.5, abs=0.02)
    alone = mutual_information_gap(rotated(2, 3)[:, 2:], ALL[:, 2:])
    assert alone < 0.05


def test_a_code_that_is_there_twice_closes_the_gap():
    assert mutual_information_gap(np.repeat(ALL, 2, axis=1), ALL) == pytest.approx(0.0, abs=1e-9)


def test_the_gap_is_that_of_its_definition():
    codes = RNG.normal(size=(len(ALL), 3)) + ALL[:, [0, 1, 3]]
    binned = [np.digitize(code, np.histogram(code, 20)[1][:-1]) for code in codes.T]
    gaps = []
    for factor, size in zip(ALL.T, SIZES, strict=True):
        _, second, first = sorted(mutual_info_score(code, factor) for code in binned)
        gaps.append((first - second) / np.log(size))
    assert mutual_information_gap(codes, ALL) == pytest.approx(np.mean(gaps), abs=1e-9)


@pytest.mark.parametrize("score", [beta_vae_score, factor_vae_score])
def test_votes(score):
    kept, chance = standardised(ALL), 1 / len(SIZES)
    assert score(kept, ALL, votes=600) > 0.99
    assert score(kept[:, ::-1], ALL, votes=600) > 0.99
    assert score(RNG.normal(size=(len(ALL), 4)), ALL, votes=600) == pytest.approx(chance, abs=0.12)


def test_votes_are_centred_before_they_teach(monkeypatch):
    """Means of differences are ten times their spread: left in, the classifier takes 110 iterations in place of 13."""
    monkeypatch.setattr(disentanglement, "LogisticRegression", lambda **_: LogisticRegression(max_iter=50))
    tangled = standardised(ALL) @ np.linalg.qr(RNG.normal(size=(10, 10)))[0][:4]
    assert beta_vae_score(tangled + 0.1 * RNG.normal(size=tangled.shape), ALL, votes=600) > 0.9


def test_a_rotated_pair_is_not_told_apart_by_what_varies_least():
    """Held at a level, either factor makes the same two codes vary less: a third of four is 3 / 4, not 1."""
    assert factor_vae_score(rotated(2, 3), ALL, votes=900) < 0.85


def test_what_does_not_vary_has_no_vote():
    """A code that is almost always the same is the one that varies least, whatever is held."""
    noisy = standardised(ALL) + 0.1 * RNG.normal(size=ALL.shape)
    spikes = 1e-3 * (np.arange(len(ALL)) % 500 == 0)[:, None]
    assert factor_vae_score(np.concatenate([noisy, spikes], 1), ALL, votes=600) > 0.99


def test_variances_are_those_of_codes_of_one_scale():
    noisy = (standardised(ALL) + 0.3 * RNG.normal(size=ALL.shape)) * [4.0, 1.0, 1.0, 1.0]
    assert factor_vae_score(noisy, ALL, votes=600) > 0.99


def test_importance_by_trees():
    kept, known = standardised(ALL)[SHUFFLED], ALL[SHUFFLED][:, :3]
    found = dci(kept[:, :3], known)
    assert min(found) > 0.98
    tangled = kept @ np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    mixed = dci(tangled, known)
    assert mixed.disentanglement < 0.6
    assert mixed.completeness < 0.6
    # One code for two factors is complete, and not disentangled; two codes for one are disentangled, and not complete.
    one = dci(np.stack([known[:, 0] + 2 * known[:, 1], known[:, 2]], 1), known)
    assert one.completeness > 0.98 > 0.8 > one.disentanglement
    halves = np.stack([known[:, 0], known[:, 1] // 3, known[:, 1] % 3, known[:, 2]], 1)
    two = dci(halves, known)
    assert two.disentanglement > 0.98 > 0.9 > two.completeness


def test_what_trees_learn_by_heart_is_not_told():
    coins = RNG.integers(2, size=(900, 2))
    assert dci(RNG.normal(size=(900, 3)), coins, num_trees=50).informativeness == pytest.approx(0.5, abs=0.07)


def test_importance_is_spread_from_none_to_all():
    found = _entropy(np.array([[1.0, 0.0, 0.0], [2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]))
    np.testing.assert_allclose(found, [0.0, 1.0, 1.0, np.log(2) / np.log(3)])


def test_predictability():
    """A coin's own code tells it always, and every other one half of the time; twice the code, and there is no gap."""
    coins = RNG.integers(2, size=(3000, 3))
    assert attribute_predictability(coins - 0.5, coins) == pytest.approx(0.5, abs=0.05)
    assert attribute_predictability(np.repeat(coins, 2, axis=1) - 0.5, coins) == pytest.approx(0.0, abs=1e-9)


def test_bins_have_equal_width():
    assert levels_of(np.array([[0.0, 5.0], [1.0, 5.0], [10.0, 5.0]]), 10).tolist() == [[0, 0], [1, 0], [9, 0]]


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="ten data or more"):
        mutual_information_gap(ALL[:50], ALL[:40])
    with pytest.raises(DataError, match="sort them into bins"):
        mutual_information_gap(ALL, ALL / 2)
    with pytest.raises(DataError, match="factor 1 has one level"):
        mutual_information_gap(ALL, ALL * [1, 0, 1, 1])
    with pytest.raises(DataError, match="finite"):
        beta_vae_score(np.full((20, 2), np.nan), ALL[:20])
    with pytest.raises(DataError, match="two of each"):
        dci(ALL[:, :1], ALL)
