"""Whether the parts of a representation are one each for the factors that data are made of, where these are known."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score
from sklearn.svm import LinearSVC

from pyrogen.errors import DataError

__all__ = [
    "DCI",
    "attribute_predictability",
    "beta_vae_score",
    "dci",
    "factor_vae_score",
    "levels_of",
    "mutual_information_gap",
]

Codes = NDArray[np.float64]
Factors = NDArray[np.int64]

HELD_OUT = 1 / 3
"""The share of data by which predictions from codes are judged: the last ones."""

COLLAPSED = 0.05
"""A code is left out of the FactorVAE score where its variance is below this share of the largest one."""


class DCI(NamedTuple):
    """Disentanglement, completeness and informativeness.

    Attributes:
        disentanglement: 1 where every code is of use for one factor alone.
        completeness: 1 where every factor is told by one code alone.
        informativeness: the share of held-out levels that are told, mean over factors.
    """

    disentanglement: float
    completeness: float
    informativeness: float


def levels_of(values: ArrayLike, bins: int = 20) -> NDArray[np.int64]:
    """Number the bins of equal width that values fall into, column by column; constant columns have one.

    Args:
        values: shape ``(count, ...)``.
        bins: how many.

    Example:
        >>> levels_of([0.0, 0.24, 0.26, 1.0], bins=4)
        array([0, 0, 1, 3])
    """
    table = np.asarray(values, dtype=np.float64)
    low, width = table.min(0), np.ptp(table, axis=0)
    return np.clip((table - low) / np.where(width > 0, width, 1.0) * bins, 0, bins - 1).astype(np.int64)


def mutual_information_gap(codes: ArrayLike, factors: ArrayLike, bins: int = 20) -> float:
    r"""Measure by how much the best code of each factor tells more of it than the second best.

    .. math:: \frac{1}{F} \sum_k \frac{I(c_{j(k)}; v_k) - \max_{j \ne j(k)} I(c_j; v_k)}{H(v_k)}

    where codes are sorted into bins of equal width. It is biased upwards and downwards by little where there are many
    more data than pairs of bins.

    Args:
        codes: a representation, shape ``(data, codes)``, such as the means of a guide. The original takes draws: what
            is made of draws and of means cannot be compared.
        factors: levels, integers, shape ``(data, factors)``; see :func:`levels_of` for continuous ones.
        bins: of each code.

    Returns:
        From 0 to 1.

    Raises:
        DataError: where the tables do not fit, are not finite, or a factor is constant.

    References:
        Isolating Sources of Disentanglement in VAEs (Chen et al., 2018), https://arxiv.org/abs/1802.04942
    """
    table, known = _checked(codes, factors)
    binned = levels_of(table, bins)
    gaps = []
    for factor in known.T:
        entropy = mutual_info_score(factor, factor)
        told = sorted(mutual_info_score(code, factor) for code in binned.T)
        gaps.append((told[-1] - (told[-2] if len(told) > 1 else 0.0)) / entropy)
    return float(np.mean(gaps))


def attribute_predictability(codes: ArrayLike, factors: ArrayLike) -> float:
    r"""Measure by how much the best code of each factor predicts it better than the second best: the SAP score.

    .. math:: \frac{1}{F} \sum_k \left(S_{j(k) k} - \max_{j \ne j(k)} S_{jk}\right)

    :math:`S_{jk}` is the accuracy on held-out data of a linear support vector machine that is given code :math:`j`
    alone. Of a factor of more than two levels, a line can only cut off the ends.

    Args:
        codes: shape ``(data, codes)``.
        factors: levels, integers, shape ``(data, factors)``.

    Raises:
        DataError: as of :func:`mutual_information_gap`.

    References:
        Variational Inference of Disentangled Latent Concepts (Kumar et al., 2018), https://arxiv.org/abs/1711.00848
    """
    table, known = _checked(codes, factors)
    cut = _cut(table)
    table = _standardised(table, cut)
    gaps = []
    for factor in known.T:
        scores = []
        for code in table.T[:, :, None]:
            machine = LinearSVC(C=0.01, class_weight="balanced").fit(code[:cut], factor[:cut])
            scores.append(machine.score(code[cut:], factor[cut:]))
        scores.sort()
        gaps.append(scores[-1] - (scores[-2] if len(scores) > 1 else 0.0))
    return float(np.mean(gaps))


def dci(codes: ArrayLike, factors: ArrayLike, num_trees: int = 10, seed: int = 0) -> DCI:
    r"""Measure disentanglement, completeness and informativeness by how trees predict factors from codes.

    With :math:`R_{jk} \ge 0`, the importance of code :math:`j` for factor :math:`k`,

    .. math::
        D = \sum_j \frac{\sum_k R_{jk}}{\sum_{ik} R_{ik}} \Big(1 - H_F\big(R_{j \cdot}\big)\Big), \qquad
        C = \sum_k \frac{\sum_j R_{jk}}{\sum_{ji} R_{ji}} \Big(1 - H_L\big(R_{\cdot k}\big)\Big)

    where :math:`H_n` is the entropy to the base :math:`n` of what is normalised to 1.

    Args:
        codes: shape ``(data, codes)``, at least two codes.
        factors: levels, integers, shape ``(data, factors)``, at least two factors.
        num_trees: rounds of gradient boosting for each level.
        seed: of ties between features.

    Raises:
        DataError: as of :func:`mutual_information_gap`, and where there is but one code or factor.

    References:
        A Framework for the Quantitative Evaluation of Disentangled Representations (Eastwood and Williams, 2018),
        https://openreview.net/forum?id=By-7dz-AZ
    """
    table, known = _checked(codes, factors)
    if min(table.shape[1], known.shape[1]) < 2:
        raise DataError(f"found {table.shape[1]} codes and {known.shape[1]} factors: there must be two of each")
    cut = _cut(table)
    importance, told = np.zeros((table.shape[1], known.shape[1])), []
    for k, factor in enumerate(known.T):
        trees = GradientBoostingClassifier(n_estimators=num_trees, random_state=seed).fit(table[:cut], factor[:cut])
        importance[:, k] = trees.feature_importances_
        told.append(trees.score(table[cut:], factor[cut:]))
    of_codes, of_factors = (np.asarray(importance.sum(axis)) / importance.sum() for axis in (1, 0))
    disentanglement = of_codes @ (1 - _entropy(importance))
    completeness = of_factors @ (1 - _entropy(importance.T))
    return DCI(float(disentanglement), float(completeness), float(np.mean(told)))


def beta_vae_score(codes: ArrayLike, factors: ArrayLike, batch: int = 64, votes: int = 3000, seed: int = 0) -> float:
    r"""Measure how well a linear classifier tells which factor pairs of data have in common, from how codes differ.

    .. math:: \hat k\Big(\frac{1}{B} \sum_b |c(x_b) - c(x_b')|\Big), \qquad v_k(x_b) = v_k(x_b')

    Args:
        codes: shape ``(data, codes)``.
        factors: levels, integers, shape ``(data, factors)``. Pairs are taken of these data, so that each level should
            have many.
        batch: :math:`B`.
        votes: differences, two thirds of which teach the classifier.
        seed: of what is drawn.

    Returns:
        The accuracy on the last third; chance is one over the number of factors.

    Raises:
        DataError: as of :func:`mutual_information_gap`.

    References:
        beta-VAE (Higgins et al., 2017), https://openreview.net/forum?id=Sy2fzU9gl
    """
    table, known = _checked(codes, factors)
    rng, alike = np.random.default_rng(seed), _by_level(known)
    which = rng.integers(known.shape[1], size=votes)
    differences = np.empty((votes, table.shape[1]))
    for vote, k in enumerate(which):
        first = rng.integers(len(table), size=batch)
        second = [rng.choice(alike[k][level]) for level in known[first, k]]
        differences[vote] = np.abs(table[first] - table[second]).mean(0)
    cut = _cut(differences)
    differences = _standardised(differences, cut)
    classifier = LogisticRegression(max_iter=1000).fit(differences[:cut], which[:cut])
    return float(classifier.score(differences[cut:], which[cut:]))


def factor_vae_score(codes: ArrayLike, factors: ArrayLike, batch: int = 64, votes: int = 3000, seed: int = 0) -> float:
    r"""Measure how well the code that varies least tells which factor is held at a level.

    .. math:: d = \arg\min_j \frac{\mathrm{Var}_b\, c_j(x_b)}{\mathrm{Var}\, c_j}, \qquad v_k(x_1) = \dots = v_k(x_B)

    Each code votes for the factor with which it most often was least; codes whose variance is below 5% of the largest
    are left out, since what does not vary at all would always be least.

    Args:
        codes: shape ``(data, codes)``.
        factors: levels, integers, shape ``(data, factors)``. Batches are taken of these data, so that each level should
            have many.
        batch: :math:`B`.
        votes: how many, two thirds of which teach the classifier.
        seed: of what is drawn.

    Returns:
        The accuracy on the last third; chance is one over the number of factors.

    Raises:
        DataError: as of :func:`mutual_information_gap`.

    References:
        Disentangling by Factorising (Kim and Mnih, 2018), https://arxiv.org/abs/1802.05983
    """
    table, known = _checked(codes, factors)
    variance = table.var(0)
    kept = np.flatnonzero(variance >= COLLAPSED * variance.max())
    rng, alike = np.random.default_rng(seed), _by_level(known)
    which = rng.integers(known.shape[1], size=votes)
    least = np.empty(votes, dtype=np.int64)
    for vote, k in enumerate(which):
        rows = rng.choice(alike[k][rng.integers(len(alike[k]))], size=batch)
        least[vote] = np.argmin(table[rows][:, kept].var(0) / variance[kept])
    cut = _cut(least)
    counts = np.zeros((len(kept), known.shape[1]))
    np.add.at(counts, (least[:cut], which[:cut]), 1)
    return float(np.mean(counts.argmax(1)[least[cut:]] == which[cut:]))


def _checked(codes: ArrayLike, factors: ArrayLike) -> tuple[Codes, Factors]:
    table, known = np.asarray(codes, dtype=np.float64), np.asarray(factors)
    if table.ndim != 2 or known.ndim != 2 or len(table) != len(known) or len(table) < 10:
        raise DataError(
            f"codes must be of shape (data, codes) and factors (data, factors), of ten data or more, found "
            f"{table.shape} and {known.shape}"
        )
    if not np.isfinite(table).all():
        raise DataError("codes must be finite")
    if not np.issubdtype(known.dtype, np.integer):
        raise DataError(f"factors must be levels, integers, found {known.dtype}: sort them into bins by levels_of")
    constant = np.flatnonzero(np.ptp(known, axis=0) == 0)
    if len(constant):
        raise DataError(f"factor {constant[0]} has one level alone: leave it out")
    return table, np.stack([np.unique(column, return_inverse=True)[1] for column in known.T], 1)


def _cut(table: NDArray[np.generic]) -> int:
    return len(table) - round(HELD_OUT * len(table))


def _standardised(table: Codes, cut: int) -> Codes:
    """Move and scale columns so that the first rows have mean zero and variance one; a constant column has zero."""
    scale = table[:cut].std(0)
    return (table - table[:cut].mean(0)) / np.where(scale > 0, scale, 1.0)


def _by_level(factors: Factors) -> list[list[NDArray[np.int64]]]:
    """List, for each factor and level, the rows that have it."""
    return [[np.flatnonzero(factor == level) for level in range(factor.max() + 1)] for factor in factors.T]


def _entropy(importance: Codes) -> Codes:
    """Return the entropy of each row, to the base of its length, of what is normalised to 1; 1 where all is zero."""
    total = importance.sum(1, keepdims=True)
    shares = np.where(total > 0, importance / np.where(total > 0, total, 1.0), 1 / importance.shape[1])
    logs = np.log(np.where(shares > 0, shares, 1.0))
    return -(shares * logs).sum(1) / np.log(importance.shape[1])
