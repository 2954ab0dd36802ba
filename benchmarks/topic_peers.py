"""Topics of other packages: fit one of them to a matrix of counts, and save its topics and how long it took.

It imports none of pyrogen, and runs in an environment of its own, see ``topics.py``.

Run: ``python benchmarks/topic_peers.py METHOD COUNTS.npz TOPICS SEED OUT.npz``.
"""

import logging
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, load_npz

Topics = NDArray[np.float64]
ALPHA, ETA = 0.1, 0.1
TINY = 1e-12


def scikit_learn(x: csr_matrix, num_topics: int, seed: int, passes: int, priors: float | None) -> Topics:
    from sklearn.decomposition import LatentDirichletAllocation

    settings = {"learning_method": "online", "max_iter": passes, "random_state": seed}
    fitted = LatentDirichletAllocation(num_topics, doc_topic_prior=priors, topic_word_prior=priors, **settings).fit(x)
    return fitted.components_


def gensim(x: csr_matrix, num_topics: int, seed: int) -> Topics:
    from gensim.models import LdaModel

    rows = (x[d] for d in range(x.shape[0]))
    corpus = [list(zip(row.indices.tolist(), row.data.tolist(), strict=True)) for row in rows]
    words = {word: str(word) for word in range(x.shape[1])}
    return LdaModel(corpus, num_topics, words, passes=20, iterations=100, random_state=seed).get_topics()


def lda(x: csr_matrix, num_topics: int, seed: int, alpha: float, eta: float) -> Topics:
    from lda import LDA

    logging.getLogger("lda").setLevel(logging.ERROR)
    return (
        LDA(num_topics, n_iter=1000, alpha=alpha, eta=eta, random_state=seed, refresh=10**6)
        .fit(x.toarray())
        .topic_word_
    )


def tomotopy(x: csr_matrix, num_topics: int, seed: int, **priors: float) -> Topics:
    from tomotopy import LDAModel

    model = LDAModel(k=num_topics, seed=seed + 1, **priors)
    for d in range(x.shape[0]):
        model.add_doc(np.repeat(x[d].indices, x[d].data).astype(str).tolist())
    model.train(1000, workers=1, show_progress=False)
    topics = np.full((num_topics, x.shape[1]), TINY)
    topics[:, np.array(model.used_vocabs, dtype=int)] = [model.get_topic_word_dist(k) for k in range(num_topics)]
    return topics


METHODS: dict[str, Callable[[csr_matrix, int, int], Topics]] = {
    "scikit-learn": lambda x, k, seed: scikit_learn(x, k, seed, 10, None),
    "scikit-learn, 50 passes": lambda x, k, seed: scikit_learn(x, k, seed, 50, None),
    "scikit-learn, 50 passes, our priors": lambda x, k, seed: scikit_learn(x, k, seed, 50, ALPHA),
    "gensim": gensim,
    "lda": lambda x, k, seed: lda(x, k, seed, 0.1, 0.01),
    "lda, our priors": lambda x, k, seed: lda(x, k, seed, ALPHA, ETA),
    "tomotopy": tomotopy,
    "tomotopy, our priors": lambda x, k, seed: tomotopy(x, k, seed, alpha=ALPHA, eta=ETA),
}


def main() -> None:
    method, counts, num_topics, seed, out = sys.argv[1:]
    x = csr_matrix(load_npz(counts)).astype(np.int64)
    METHODS[method](x[:20], 2, 0)  # imports, and what is compiled at first
    start = time.perf_counter()
    topics = METHODS[method](x, int(num_topics), int(seed))
    seconds = time.perf_counter() - start
    np.savez(out, topics=topics, seconds=seconds)


if __name__ == "__main__":
    main()
