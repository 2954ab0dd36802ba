"""Held to the truth: intervals and tests of what judges said, in closed form, by enumeration and over many panels."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from scipy.stats import binom, binomtest, norm

from pyrogen.errors import DataError, UsageError
from pyrogen.evaluation import exchange_test, wilson_interval, win_rate

PAIRS = 50


def panel(
    rng: np.random.Generator, judges: int, taste: float, quality: float, mean: float = 0.0, ties: float = 0.0
) -> torch.Tensor:
    """Let judges with tastes of their own see the same pairs: a logistic model with normal effects of both.

    What is within ``ties`` of zero is a tie.
    """
    seen = mean + taste * rng.normal(size=(judges, 1)) + quality * rng.normal(size=(1, PAIRS))
    seen = seen - logit(rng.random((judges, PAIRS)))
    return torch.from_numpy(np.where(abs(seen) < ties, 0.5, seen > 0))


def true_rate(taste: float, quality: float, mean: float, ties: float) -> float:
    """Integrate over the sum of both effects, which is normal."""
    effects, weights = np.polynomial.hermite_e.hermegauss(60)
    place = mean + (taste**2 + quality**2) ** 0.5 * effects
    return float((expit(place - ties) + expit(place + ties)) @ weights / (2 * weights.sum()))


@pytest.mark.parametrize(("wins", "count"), [(0, 8), (1, 20), (14, 20), (25, 50), (33, 50), (99, 100), (7, 7)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_one_judge_is_a_binomial(wins, count, level):
    found = win_rate(torch.tensor([[1.0] * wins + [0.0] * (count - wins)]), level)
    truth = binomtest(wins, count)
    assert found.interval == pytest.approx(tuple(truth.proportion_ci(level, "wilson")), abs=1e-12)
    assert found.p_value == pytest.approx(truth.pvalue, rel=1e-12)
    assert found[:3] == (wins, count - wins, 0)
    assert found.rate.value == wins / count
    assert found.rate.stderr == pytest.approx((wins * (count - wins) / count**2 / (count - 1)) ** 0.5)


def test_ties_count_half_and_are_left_out_of_the_test():
    found = win_rate(torch.tensor([[1.0] * 13 + [0.5] * 8 + [0.0] * 4]))
    assert found[:3] == (13, 4, 8)
    assert found.rate.value == 17 / 25
    assert found.p_value == pytest.approx(binomtest(13, 17).pvalue, rel=1e-12)
    assert found.interval == pytest.approx(wilson_interval(17 / 25, 25, ties=8 / 25))
    assert win_rate(torch.full((1, 9), 0.5)).p_value == 1


@pytest.mark.parametrize(
    ("rate", "count", "ties"), [(0.54, 250, 0.92), (0.5, 9, 1.0), (0.6, 30, 0.3), (0.975, 20, 0.05)]
)
def test_the_ends_are_where_the_score_is_the_quantile(rate, count, ties):
    """(p - x)² = q² (x (1 - x) - τ / 4) / n, with τ of the judgements and q² coins together."""
    share = ties * count / (count + 1.96**2)
    for end in wilson_interval(rate, count, 1.96, ties):
        assert (rate - end) ** 2 == pytest.approx(1.96**2 * (end * (1 - end) - share / 4) / count, abs=1e-12)


def test_ties_are_no_coins():
    """Twenty wins, no loss and 230 ties: the interval agrees with the error and the p-value of its row."""
    y = torch.full((5, 50), 0.5)
    y.view(-1)[torch.arange(20) * 12] = 1.0
    found = win_rate(y)
    low, high = found.interval
    assert found[:3] == (20, 0, 230)
    assert found.p_value < 1e-4
    assert low > 0.5
    assert high - low < 3 * 2 * 1.96 * found.rate.stderr
    coins = wilson_interval(0.54, 250)
    assert coins[0] < 0.5  # the mutant
    alone = win_rate(torch.full((1, 50), 0.5)).interval  # at most 3.7 of 50 are no ties
    assert alone == pytest.approx((0.5 - 0.036, 0.5 + 0.036), abs=1e-3)


@pytest.mark.parametrize("ties", [0.3, 0.8, 0.95])
@pytest.mark.parametrize("share", [0.5, 0.7, 1.0])
def test_coverage_of_one_judge_with_ties(ties, share):
    """Over all numbers of ties and of wins among the others."""
    rate, covered = ties / 2 + (1 - ties) * share, 0.0
    for tied in range(PAIRS + 1):
        wins = np.arange(PAIRS - tied + 1)
        ends = [wilson_interval((w + tied / 2) / PAIRS, PAIRS, ties=tied / PAIRS) for w in wins]
        inside = [low <= rate <= high for low, high in ends]
        covered += binom.pmf(tied, PAIRS, ties) * binom.pmf(wins, PAIRS - tied, share)[inside].sum()
    assert covered > 0.94


@pytest.mark.parametrize("margins", [[3, -1, 0, 2, 1, -2, 3, 3], [1, 2, 3, 4, 5], [-4, 0], [0, 0, 0], [2, 2, 2, -1]])
def test_all_ways_of_changing_places(margins):
    ways = product((-1, 1), repeat=len(margins))
    sums = [abs(sum(s * m for s, m in zip(signs, margins, strict=True))) for signs in ways]
    truth = np.mean([value >= abs(sum(margins)) for value in sums])
    assert exchange_test(torch.tensor(margins)) == pytest.approx(truth, abs=1e-14)


def test_one_judge_coverage():
    """Exactly, over all numbers of wins of 50: known to go up and down about 95% with the rate."""
    wins = np.arange(PAIRS + 1)
    ends = [win_rate(torch.tensor([[1.0] * w + [0.0] * (PAIRS - w)])).interval for w in wins]

    def coverage(rate):
        return binom.pmf(wins, PAIRS, rate)[[low <= rate <= high for low, high in ends]].sum()

    # Rates are in the interval of all wins that are not further from them than 1.96 of their own standard deviations:
    # of 1/2, those of 19 to 31.
    assert coverage(0.5) == pytest.approx(binom.cdf(31, PAIRS, 0.5) - binom.cdf(18, PAIRS, 0.5), abs=1e-12)
    assert coverage(0.7) > 0.94
    assert coverage(0.9) > 0.94
    assert 0.94 < np.mean([coverage(rate) for rate in np.linspace(0.05, 0.95, 181)]) < 0.96


def test_judges_that_prefer_one():
    """Seven in ten say the first: the rate, its standard error and its interval over many of them."""
    rng = np.random.default_rng(0)
    count = 500
    found = [win_rate(torch.from_numpy((rng.random((1, PAIRS)) < 0.7).astype(float))) for _ in range(count)]
    values = np.array([one.rate.value for one in found])
    truth = (0.21 / PAIRS) ** 0.5
    assert abs(values.mean() - 0.7) < 4.5 * truth / count**0.5
    assert np.mean([one.rate.stderr for one in found]) == pytest.approx(truth, rel=0.02)
    covered = np.mean([one.interval[0] <= 0.7 <= one.interval[1] for one in found])
    assert covered > 0.94 - 2 * (0.94 * 0.06 / count) ** 0.5


SEVERAL = [(2, 0.5, 1.5), (3, 0.5, 1.5), (5, 0.0, 1.5), (5, 1.0, 1.0), (10, 0.5, 0.0), (10, 0.5, 1.5)]


@pytest.mark.parametrize(("judges", "taste", "quality"), SEVERAL)
def test_several_judges_coverage(judges, taste, quality):
    """Of new judges and new pairs; intervals that know of one kind of them alone, or of neither, cover too little."""
    rng = np.random.default_rng(judges)
    count = 400
    found = [win_rate(panel(rng, judges, taste, quality)) for _ in range(count)]
    covered = np.mean([one.interval[0] <= 0.5 <= one.interval[1] for one in found])
    assert covered > 0.94 - 2 * (0.94 * 0.06 / count) ** 0.5
    values = np.array([one.rate.value for one in found])
    pooled = [wilson_interval(one.rate.value, judges * PAIRS) for one in found]
    assert np.mean([low <= 0.5 <= high for low, high in pooled]) < 0.9  # the mutant
    variance = np.mean([one.rate.stderr**2 for one in found])
    assert abs(variance / values.var() - 1) < 4.5 * (2 / count) ** 0.5
    if judges == 10:
        width = np.mean([high - low for low, high in (one.interval for one in found)])
        assert width < 1.2 * 2 * norm.ppf(0.975) * values.std()


AWAY = [(2, 0.5, 1.5, 1.0, 0.0), (5, 1.0, 1.0, 1.0, 0.0), (5, 0.0, 1.5, 2.0, 0.0), (10, 0.5, 1.5, -1.0, 0.0)]
TIED = [(2, 0.5, 1.5, 0.0, 2.0), (5, 1.0, 1.0, 0.0, 3.0), (5, 1.0, 1.0, 1.0, 3.0), (10, 0.5, 1.5, 1.0, 4.0)]


@pytest.mark.parametrize(("judges", "taste", "quality", "mean", "ties"), AWAY + TIED)
def test_several_judges_coverage_away_from_half_and_with_ties(judges, taste, quality, mean, ties):
    rng = np.random.default_rng(judges)
    count = 300
    truth = true_rate(taste, quality, mean, ties)
    found = [win_rate(panel(rng, judges, taste, quality, mean, ties)) for _ in range(count)]
    covered = np.mean([one.interval[0] <= truth <= one.interval[1] for one in found])
    assert covered > 0.94 - 2 * (0.94 * 0.06 / count) ** 0.5
    values = np.array([one.rate.value for one in found])
    assert abs(values.mean() - truth) < 4.5 * values.std() / count**0.5
    if ties and judges == 10:
        width = np.mean([high - low for low, high in (one.interval for one in found)])
        assert width < 1.3 * 2 * norm.ppf(0.975) * values.std()


@pytest.mark.parametrize(("judges", "taste", "quality"), [(2, 0.5, 0.0), (3, 1.0, 0.0)])
def test_mutant_bootstrap_of_few_judges(judges, taste, quality):
    """Resampling two or three judges covers far less than it says, which is why it is not what is done."""
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(200):
        of_judges = panel(rng, judges, taste, quality).numpy().mean(1)
        means = of_judges[rng.integers(0, judges, (400, judges))].mean(1)
        low, high = np.quantile(means, [0.025, 0.975])
        hits.append(low <= 0.5 <= high)
    assert np.mean(hits) < 0.85


def test_components_of_variance_by_hand():
    """Two judges and three pairs, by the sums of squares of a table of two ways."""
    y = torch.tensor([[1.0, 1.0, 0.5], [0.0, 1.0, 0.0]])
    of_judges, of_pairs, mean = [5 / 6, 1 / 3], [0.5, 1.0, 0.25], 7 / 12
    judges = sum((m - mean) ** 2 for m in of_judges) / 1 / 2
    pairs = sum((m - mean) ** 2 for m in of_pairs) / 2 / 3
    rest = sum((float(y[j, p]) - of_judges[j] - of_pairs[p] + mean) ** 2 for j in (0, 1) for p in (0, 1, 2)) / 2 / 6
    assert min(judges, pairs) > rest
    found = win_rate(y)
    assert found.rate.value == pytest.approx(mean)
    assert found.rate.stderr == pytest.approx((judges + pairs - rest) ** 0.5)


def test_judges_who_agree_add_nothing_but_certainty_of_judges():
    """Copies of one judge are one judge: no narrower, and with the same p-value."""
    one = torch.tensor([[1.0] * 30 + [0.0] * 20])
    alone, copies = win_rate(one), win_rate(one.repeat(5, 1))
    assert copies.p_value == pytest.approx(alone.p_value)
    assert copies.rate.stderr == pytest.approx(alone.rate.stderr)
    assert copies.interval == pytest.approx(alone.interval, abs=0.01)
    assert binomtest(150, 250).pvalue < 0.01 < 0.1 < copies.p_value  # the mutant, of 250 judgements
    assert win_rate(torch.ones(3, 20)).interval == pytest.approx(wilson_interval(1.0, 20))


def test_the_size_of_the_test():
    """Where both have one distribution, p < .05 is as rare as that, though judges agree and prefer the left."""
    rng = np.random.default_rng(0)
    count, below, pooled = 600, 0, 0
    for _ in range(count):
        looks, is_left = rng.normal(size=PAIRS), rng.random(PAIRS) < 0.5
        place = 3 * looks + 1.5 * np.where(is_left, 1, -1)
        y = (rng.random((4, PAIRS)) < expit(place)).astype(float)
        below += win_rate(torch.from_numpy(y)).p_value < 0.05
        pooled += binomtest(int(y.sum()), y.size).pvalue < 0.05
    error = (0.05 * 0.95 / count) ** 0.5
    assert 0.02 < below / count < 0.05 + 4.5 * error
    assert pooled / count > 0.15  # the mutant


def test_what_is_no_judgement():
    wrong = torch.ones(3), torch.ones(0, 4), torch.ones(2, 1), torch.tensor([[0.0, 2.0]]), torch.full((1, 4), 0.3)
    for outcomes in wrong:
        with pytest.raises(DataError, match="expected 0, 1/2 or 1 for each judge"):
            win_rate(outcomes)
    with pytest.raises(UsageError, match="between 0 and 1, found 95"):
        win_rate(torch.ones(1, 4), 95)
