"""Collapsed Gibbs sampling of LDA by loops, to hold others to."""

from math import lgamma

import numpy as np


class Gibbs:
    """A chain over the topics of words.

    Args:
        documents: the words of each document.
        num_words: V.
        num_topics: K.
        alpha: concentration of weights.
        eta: concentration of topics.
        seed: of the chain.
    """

    def __init__(self, documents, num_words, num_topics, alpha, eta, seed=0):
        self.documents, self.alpha, self.eta = documents, alpha, eta
        self.generator = np.random.default_rng(seed)
        self.z = [self.generator.integers(num_topics, size=len(words)) for words in documents]
        self.of_document = np.zeros((len(documents), num_topics))
        self.of_word = np.zeros((num_topics, num_words))
        for d, words in enumerate(documents):
            for z, w in zip(self.z[d], words, strict=True):
                self.of_document[d, z] += 1
                self.of_word[z, w] += 1

    def sweep(self):
        for d, words in enumerate(self.documents):
            for n, w in enumerate(words):
                old = self.z[d][n]
                self.of_document[d, old] -= 1
                self.of_word[old, w] -= 1
                p = (self.of_document[d] + self.alpha) * (self.of_word[:, w] + self.eta)
                p = p / (self.of_word.sum(1) + self.eta * self.of_word.shape[1])
                new = self.generator.choice(len(p), p=p / p.sum())
                self.z[d][n] = new
                self.of_document[d, new] += 1
                self.of_word[new, w] += 1


def log_joint(of_document, of_word, alpha, eta):
    """Return log p(w, z) by its definition, one gamma function at a time."""
    total = 0.0
    for counts, concentration in ((of_document, alpha), (of_word, eta)):
        for row in counts:
            total += lgamma(concentration * len(row)) - lgamma(concentration * len(row) + row.sum())
            total += sum(lgamma(concentration + count) - lgamma(concentration) for count in row)
    return total
