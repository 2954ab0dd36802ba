"""Distributions of the words of documents: of one distribution over words for each, or of topics that it mixes."""

from typing import Any

import torch
from pyro.distributions import Multinomial, TorchDistribution, constraints
from torch import Size, Tensor

from pyrogen.counts import Entries, entries, is_csr
from pyrogen.errors import ProgramError

__all__ = ["BagOfWords", "TopicMixture"]


class BagOfWords(TorchDistribution):
    r"""Documents whose words are independent draws, counted.

    .. math:: \log p(x) = \sum_v x_v \log \pi_v

    This is the probability of the words in the order in which they stood, as topic models have it: without the
    multinomial coefficient, so that perplexities are those of words. A document's length is not modelled.

    Counts of shape ``batch_shape + (words,)`` are scored, or a CSR tensor ``(documents, words)``, whose rows are the
    rightmost dimension of ``batch_shape``: only what is stored is looked at. Draws are dense.

    Args:
        log_probs: :math:`\log \pi`, shape ``batch_shape + (words,)``.
        length: words in a document that is drawn.

    Example:
        >>> from pyrogen.counts import as_csr
        >>> d = BagOfWords(torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log())
        >>> x = torch.tensor([[3.0, 1.0], [0.0, 2.0]])
        >>> d.log_prob(x).exp()
        tensor([0.0625, 0.0100])
        >>> torch.equal(d.log_prob(x), d.log_prob(as_csr(x)))
        True
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = constraints.independent(constraints.nonnegative_integer, 1)

    def __init__(self, log_probs: Tensor, length: int = 100) -> None:
        self.log_probs, self.length = log_probs, length
        super().__init__(log_probs.shape[:-1], log_probs.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "BagOfWords":
        """Return the distribution of more documents."""
        new = self._get_checked_instance(BagOfWords, _instance)
        BagOfWords.__init__(new, self.log_probs.expand(*batch_shape, -1), self.length)
        return new

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw documents, shape ``sample_shape + batch_shape + (words,)``."""
        return Multinomial(self.length, probs=self.every_word().exp(), validate_args=False).sample(Size(sample_shape))

    def every_word(self, wanted: Tensor | None = None) -> Tensor:
        """Return the log-probability of each word, shape ``batch_shape + (words,)``; 0 where it is not wanted."""
        return self.log_probs if wanted is None else self.log_probs.where(wanted, 0.0)

    def stored_words(self, found: Entries) -> Tensor:
        """Return the log-probability of each entry of a CSR tensor, shape ``batch_shape[:-1] + (entries,)``."""
        return self.log_probs[..., found.rows, found.columns]

    def log_prob(self, value: Tensor) -> Tensor:
        """Score documents, shape ``batch_shape``.

        Raises:
            ProgramError: where a CSR tensor does not have as many rows or columns as there are documents or words.
        """
        if not is_csr(value):
            return (value * self.every_word(value > 0)).sum(-1)
        if value.shape != (*self.batch_shape[-1:], *self.event_shape):
            raise ProgramError(
                f"counts of shape {tuple(value.shape)} where there are {tuple(self.batch_shape[-1:])} documents and "
                f"{self.event_shape[0]} words: a row for each document, in a plate over them, a column for each word"
            )
        found = entries(value)
        scores = found.values * self.stored_words(found)
        return scores.new_zeros(*scores.shape[:-1], len(value)).index_add(-1, found.rows, scores)


class TopicMixture(BagOfWords):
    r"""Documents that mix topics, each word's topic summed out.

    .. math:: \log p(x) = \sum_v x_v \log \sum_k \theta_k \, \varphi_{kv}

    Neither weights nor topics are normalised: what they sum to is part of the score.

    Args:
        weights: :math:`\theta`, shape ``batch_shape + (topics,)``.
        topics: :math:`\varphi`, shape ``batch_shape[:-1] + (topics, words)``.
        length: words in a document that is drawn.

    Example:
        >>> d = TopicMixture(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
        >>> d.log_prob(torch.tensor([[1.0, 1.0]])).exp()
        tensor([0.1875])
    """

    def __init__(self, weights: Tensor, topics: Tensor, length: int = 100) -> None:
        dtype = torch.promote_types(weights.dtype, topics.dtype)
        self.weights, self.topics, self.length = weights.to(dtype), topics.to(dtype), length
        TorchDistribution.__init__(self, weights.shape[:-1], topics.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "TopicMixture":
        """Return the distribution of more documents."""
        new = self._get_checked_instance(TopicMixture, _instance)
        topics = self.topics.expand(*batch_shape[:-1], *self.topics.shape[-2:])
        TopicMixture.__init__(new, self.weights.expand(*batch_shape, -1), topics, self.length)
        return new

    def every_word(self, wanted: Tensor | None = None) -> Tensor:
        p = self.weights @ self.topics
        return (p if wanted is None else p.where(wanted, 1.0)).log()

    def stored_words(self, found: Entries) -> Tensor:
        weights = self.weights.index_select(-2, found.rows)
        topics = self.topics.mT.index_select(-2, found.columns)
        return torch.einsum("...k,...k->...", weights, topics).log()
