"""Topic models by name, with plain settings, for the command line."""

from collections.abc import Callable, Sequence
from typing import Literal

from pyro.nn import PyroModule

from pyrogen.distributions import log_geometric_mean, log_mean
from pyrogen.errors import UsageError
from pyrogen.models.topic_guides import DirichletEncoder, LogisticNormalEncoder, MeanField, NormalEncoder, PointTopics
from pyrogen.models.topic_model import LDA, CorrelatedTopicModel, ProdLDA
from pyrogen.nn import BagOfWordsMLP, check_widths
from pyrogen.preference import usual
from pyrogen.spec import DataSpec

__all__ = ["correlated_topics", "lda", "prodlda"]


@usual(objective="collapsed-vb", data="reuters")
def lda(
    spec: DataSpec,
    *,
    topics: int = 20,
    guide: Literal["mean-field", "collapsed", "logistic-normal", "dirichlet", "map"] = "logistic-normal",
    alpha: float = 0.1,
    eta: float = 0.1,
    hidden: Sequence[int] = (100, 100),
    max_steps: int = 100,
    tolerance: float = 1e-3,
) -> tuple[LDA, PyroModule]:
    """Make latent Dirichlet allocation for counts of words.

    Args:
        spec: the data.
        topics: the number of topics.
        guide: mean-field, with the best weights for each document by coordinate ascent (for natural-gradient);
            collapsed, likewise with means for geometric means (for collapsed-vb); logistic-normal or dirichlet, by a
            network; or map, the mode.
        alpha: concentration of the prior of weights.
        eta: concentration of the prior of topics.
        hidden: widths of the network's hidden layers.
        max_steps: of coordinate ascent.
        tolerance: change of a document's concentrations at which coordinate ascent stops.

    Returns:
        The model and its guide.

    Raises:
        UsageError: where the data are not counts, or a setting is out of range.
    """
    num_words, num_data = _checked(spec, topics, hidden)
    if min(alpha, eta) <= 0:
        raise UsageError(f"alpha and eta must be positive, found {alpha} and {eta}")
    if max_steps < 1 or tolerance < 0:
        raise UsageError(f"max_steps must be at least 1 and tolerance not negative, found {max_steps}, {tolerance}")
    model = LDA(num_words, topics, num_data, alpha, eta)
    guides: dict[str, Callable[[], PyroModule]] = {
        "mean-field": lambda: MeanField(model, log_geometric_mean, max_steps, tolerance),
        "collapsed": lambda: MeanField(model, log_mean, max_steps, tolerance),
        "logistic-normal": lambda: LogisticNormalEncoder(model, BagOfWordsMLP(num_words, hidden, 2 * (topics - 1))),
        "dirichlet": lambda: DirichletEncoder(model, BagOfWordsMLP(num_words, hidden, topics)),
        "map": lambda: PointTopics(model),
    }
    return model, guides[guide]()


@usual(data="reuters")
def prodlda(
    spec: DataSpec,
    *,
    topics: int = 20,
    alpha: float = 1.0,
    hidden: Sequence[int] = (100, 100),
    dropout: float = 0.2,
) -> tuple[ProdLDA, NormalEncoder]:
    """Make ProdLDA, topics as factors of a product of experts, for counts of words.

    Args:
        spec: the data.
        topics: the number of topics.
        alpha: concentration of the Dirichlet prior that a logistic-normal one stands for.
        hidden: widths of the encoder's hidden layers.
        dropout: the share of topics, and of the encoder's units, that are dropped in training.

    Returns:
        The model and its guide.

    Raises:
        UsageError: where the data are not counts, or a setting is out of range.
    """
    num_words, num_data = _checked(spec, topics, hidden)
    if alpha <= 0 or not 0 <= dropout < 1:
        raise UsageError(f"alpha must be positive and dropout in [0, 1), found {alpha} and {dropout}")
    model = ProdLDA(num_words, topics, num_data, alpha, dropout)
    return model, NormalEncoder(model, BagOfWordsMLP(num_words, hidden, 2 * topics, dropout), has_topics=False)


@usual(data="reuters")
def correlated_topics(
    spec: DataSpec, *, topics: int = 20, eta: float = 0.1, hidden: Sequence[int] = (100, 100)
) -> tuple[CorrelatedTopicModel, NormalEncoder]:
    """Make the correlated topic model for counts of words.

    Args:
        spec: the data.
        topics: the number of topics.
        eta: concentration of the prior of topics.
        hidden: widths of the encoder's hidden layers.

    Returns:
        The model and its guide.

    Raises:
        UsageError: where the data are not counts, or a setting is out of range.
    """
    num_words, num_data = _checked(spec, topics, hidden)
    if eta <= 0:
        raise UsageError(f"eta must be positive, found {eta}")
    model = CorrelatedTopicModel(num_words, topics, num_data, eta)
    return model, NormalEncoder(model, BagOfWordsMLP(num_words, hidden, 2 * topics))


def _checked(spec: DataSpec, topics: int, hidden: Sequence[int]) -> tuple[int, int]:
    if spec.kind != "counts":
        raise UsageError(
            f"topic models need counts of words, and {spec.name} are of kind {spec.kind!r}: give --data a folder of "
            f"text, reuters, kjv, or a sparse matrix in an .npz file"
        )
    if topics < 2:
        raise UsageError(f"topics must be at least 2, found {topics}")
    if not hidden:
        raise UsageError("hidden must hold one width at least, found none")
    check_widths(hidden=hidden)
    return spec.num_dims, spec.num_data or 1
