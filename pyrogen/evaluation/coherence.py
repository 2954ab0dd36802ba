"""What topics are worth to a reader: do their words belong together, do they differ, would another seed find them?"""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pyrogen.counts import as_csr, entries

__all__ = ["npmi", "topic_diversity", "topic_stability"]


def npmi(topics: Tensor, documents: Tensor, top: int = 10) -> Tensor:
    r"""Return the coherence of topics: whether their most probable words stand in the same documents.

    .. math::
        \binom{T}{2}^{-1} \sum_{i<j} \log \frac{p(v_i, v_j)}{p(v_i) \, p(v_j)} \Big/ \bigl(-\log p(v_i, v_j)\bigr)

    with probabilities the shares of documents that hold words. It is 1 for words that always come together (unless they
    are in every document), 0 for independent ones, and near -1 for words that never do; a word that no document has
    scores 0 with any other. It equals gensim's ``c_npmi`` with documents for windows.

    Args:
        topics: probabilities of words, ``(topics, words)``.
        documents: counts to look words up in, ``(documents, words)``, CSR or dense.
        top: :math:`T`.

    Returns:
        One number for each topic.

    References:
        Normalized (Pointwise) Mutual Information in Collocation Extraction (Bouma, 2009)

        Exploring the Space of Topic Coherence Measures (Röder et al., 2015), https://doi.org/10.1145/2684822.2685324

    Example:
        >>> topics = torch.tensor([[0.6, 0.4, 0.0], [0.5, 0.0, 0.5]])
        >>> npmi(topics, torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), top=2)
        tensor([ 1.0000, -0.9456], dtype=torch.float64)
    """
    best = topics.topk(top, -1).indices.cpu()
    offsets, rows, columns, counts = (part.cpu() for part in entries(as_csr(documents)))
    words = best.unique()
    place = torch.full((documents.shape[1],), -1)
    place[words] = torch.arange(len(words))
    kept = (place[columns] >= 0) & (counts > 0)
    holds = torch.zeros(len(offsets) - 1, len(words), dtype=torch.float64)
    holds[rows[kept], place[columns[kept]]] = 1.0
    together = holds.T @ holds / len(holds)
    share = together.diagonal()
    joint = together + TINY
    expected = share[:, None] * share
    measure = torch.where(expected > 0, (joint / expected.clamp(min=TINY**2)).log() / -joint.log(), 0.0)
    pairs = torch.triu_indices(top, top, 1)
    at = place[best]
    return measure[at[:, pairs[0]], at[:, pairs[1]]].mean(-1)


TINY = 1e-12
"""Added to the share of documents that hold both of two words, as gensim does."""


def topic_diversity(topics: Tensor, top: int = 25) -> float:
    """Return the share of different words among the most probable ones of all topics.

    References:
        Topic Modeling in Embedding Spaces (Dieng et al., 2020), https://doi.org/10.1162/tacl_a_00325

    Example:
        >>> topic_diversity(torch.tensor([[0.6, 0.4, 0.0], [0.5, 0.0, 0.5]]), top=2)
        0.75
    """
    best = topics.topk(min(top, topics.shape[-1]), -1).indices
    return len(best.unique()) / best.numel()


def topic_stability(topics: Tensor, others: Tensor, top: int = 10) -> Tensor:
    r"""Return how much the topics of two fits agree, after the pairing that agrees most.

    .. math:: |A_k \cap B_{\pi(k)}| \, / \, |A_k \cup B_{\pi(k)}|

    of the sets of the most probable words.

    Args:
        topics: ``(topics, words)``.
        others: of another fit, likewise.
        top: the size of the sets.

    Returns:
        One number for each pair, as many as the fit with fewer topics has, in [0, 1].

    Example:
        >>> topic_stability(torch.eye(3), torch.eye(3)[[2, 0, 1]], top=1)
        tensor([1., 1., 1.], dtype=torch.float64)
    """
    top = min(top, topics.shape[-1])
    a, b = (
        torch.zeros_like(t, dtype=torch.float64).scatter(-1, t.topk(top, -1).indices, 1.0) for t in (topics, others)
    )
    common = a @ b.T
    similar = common / (2 * top - common)
    rows, columns = linear_sum_assignment(-similar.cpu().numpy())
    return similar[torch.from_numpy(rows), torch.from_numpy(columns)]
