"""What topic models of a corpus are measured by."""

from typing import NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from pyrogen import evaluation
from pyrogen.counts import take
from pyrogen.data import Batches, Corpus
from pyrogen.evaluation import Estimate, evaluating
from pyrogen.evaluation.topics import Means
from pyrogen.parameters import first_device
from pyrogen.sites import Program, or_nothing

__all__ = ["Topics", "completion", "figures", "topics_of"]

ROWS = 2000
"""Documents that topics' shares are taken of, at most."""


class Topics(NamedTuple):
    """The topics of a fitted model.

    Attributes:
        words: probabilities of words, ``(topics, words)``.
        shares: of the training documents' words, ``(topics,)``.
    """

    words: Tensor
    shares: Tensor


def topics_of(model: Program, guide: Program | None, corpus: Corpus) -> Topics:
    """Return the topics' posterior means and how much of the training documents they have."""
    x = corpus.eval_columns("train")["x"]
    x = take(x, torch.arange(min(ROWS, len(x)))).to(first_device(model, guide))
    with evaluating(model, guide):
        with Means():
            drawn = poutine.trace(or_nothing(guide)).get_trace(x=x)
        sites = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(x=x).nodes
        weights = sites["theta"]["value"].T @ (x @ torch.ones(x.shape[1], device=x.device))
    return Topics(sites["phi"]["value"].cpu(), (weights / weights.sum()).cpu())


def completion(model: Program, guide: Program | None, corpus: Corpus, split: str, num_particles: int = 20) -> Estimate:
    """Estimate the log-probability of a word of a document's one half, given the other, in nats."""
    batches = Batches(corpus.eval_columns(split), 500, shuffle=False, only=["x"], name=f"{corpus.name}, {split} split")
    return evaluation.document_completion(model, guide, batches, num_particles)


def figures(
    model: Program, guide: Program | None, corpus: Corpus, split: str, num_particles: int
) -> dict[str, Estimate]:
    """Measure a topic model: the perplexity of half of each document, and its topics' coherence and diversity.

    Coherence is of training documents, where there are enough to meet two words together.
    """
    completed = completion(model, guide, corpus, split, num_particles)
    topics = topics_of(model, guide, corpus).words
    train = corpus.eval_columns("train")["x"]
    top = min(10, topics.shape[1])
    coherence = evaluation.npmi(topics, train, top)
    several = min(25, max(1, topics.shape[1] // len(topics)))  # as many as can all be different
    stderr = float(coherence.std() / len(coherence) ** 0.5)
    return {
        "completion_log_likelihood": completed,
        "perplexity": evaluation.perplexity(completed),
        "npmi": Estimate(float(coherence.mean()), stderr, f"mean over topics, top {top} words"),
        "topic_diversity": Estimate(
            evaluation.topic_diversity(topics, several), None, f"share of the top {several} words"
        ),
    }
