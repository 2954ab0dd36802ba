"""Whether a classifier can tell draws from data."""

from collections.abc import Callable
from math import erfc, sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from pyrogen.errors import DataError, UsageError
from pyrogen.evaluation.checks import rows
from pyrogen.evaluation.estimate import Estimate, mean

__all__ = ["CLASSIFIERS", "TwoSample", "two_sample_test"]

CLASSIFIERS: dict[str, Callable[[int, int], Any]] = {
    "knn": lambda count, _: KNeighborsClassifier(int(count**0.5) | 1),  # an odd number of votes has no ties
    "logistic": lambda *_: LogisticRegression(max_iter=2000),
    # Stopped by the loss on a tenth of what it learns from: a bound on steps alone would bring a warning.
    "network": lambda _, seed: MLPClassifier((100,), early_stopping=True, max_iter=500, random_state=seed),
}
"""By name, what makes one from how many rows it learns from and a seed."""

LEAST = 20
"""Rows of either sample, at least: below, the accuracy is far from normal."""


class TwoSample(NamedTuple):
    """How well a classifier tells data and draws apart that it has not seen.

    Attributes:
        accuracy: 1/2 where nothing tells them apart, 1 where all are.
        p_value: of an accuracy so high, where the distributions are equal.
    """

    accuracy: Estimate
    p_value: float


def two_sample_test(real: Tensor, fake: Tensor, classifier: Any = "knn", seed: int = 0) -> TwoSample:
    r"""Test whether data and draws have one distribution by a classifier that is to tell them apart.

    It learns from half of either sample. On the :math:`n` rows of the other halves, where the distributions are equal,

    .. math:: \hat a \sim \mathcal{N}\left(\tfrac{1}{2}, \tfrac{1}{4 n}\right)

    approximately. Where they are not, the accuracy is in expectation below that of the best classifier, which is half
    of one plus the total variation. A large p-value says that *this* classifier finds nothing.

    Args:
        real: shape ``(m, ...)``.
        fake: shape ``(n, ...)``; of the larger sample, as many rows as the smaller one has are taken at random.
        classifier: ``"knn"`` with :math:`\lfloor \sqrt{n} \rfloor` neighbours, or one more where that is even,
            ``"logistic"``, ``"network"`` with a hidden layer of 100, or any with scikit-learn's ``fit`` and
            ``predict``; all but the last see standardised features.
        seed: of what is taken, of the halves and of a network.

    Raises:
        UsageError: where there is no classifier of a name.
        DataError: where a sample has fewer than 20 rows.

    References:
        Revisiting Classifier Two-Sample Tests (Lopez-Paz and Oquab, 2017), https://arxiv.org/abs/1610.06545

    Example:
        >>> _ = torch.manual_seed(0)
        >>> found = two_sample_test(torch.randn(2000, 1), torch.randn(2000, 1) + 1, "logistic")
        >>> abs(found.accuracy.value - 0.6915) < 4.5 * found.accuracy.stderr, found.p_value < 1e-9  # Phi(1/2)
        (True, True)
    """
    samples = [values.cpu().numpy() for values in rows(real, fake)]
    size = min(map(len, samples))
    if size < LEAST:
        raise DataError(f"the test takes {LEAST} data and {LEAST} draws or more, found {size}")
    rng, half = np.random.default_rng(seed), size // 2
    shuffled = [values[rng.permutation(len(values))[:size]] for values in samples]
    learned, held_out = (np.concatenate([s[part] for s in shuffled]) for part in (slice(half), slice(half, None)))
    fitted = _classifier(classifier, 2 * half, seed).fit(learned, _labels(half))
    right = fitted.predict(held_out) == _labels(size - half)
    accuracy = mean(torch.from_numpy(right).double(), "fraction")
    return TwoSample(accuracy, erfc((accuracy.value - 0.5) * 2 * sqrt(len(right)) / sqrt(2)) / 2)


def _labels(count: int) -> NDArray[np.int64]:
    """Label as many data, and then as many draws."""
    return np.repeat([1, 0], count)


def _classifier(classifier: Any, count: int, seed: int) -> Any:
    if not isinstance(classifier, str):
        return classifier
    if classifier not in CLASSIFIERS:
        raise UsageError(f"unknown classifier {classifier!r}: choose from {', '.join(CLASSIFIERS)}, or give one")
    return make_pipeline(StandardScaler(), CLASSIFIERS[classifier](count, seed))
