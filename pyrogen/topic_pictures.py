"""Topics for a reader: their words, and how far apart they are."""

import numpy as np
from matplotlib.axes import Axes
from scipy.spatial.distance import pdist, squareform
from sklearn.manifold import MDS

from pyrogen import evaluation, pictures
from pyrogen.data import Corpus
from pyrogen.pictures import Drawing, Ink
from pyrogen.topics import Topics

__all__ = ["intertopic_map", "word_bars", "word_rows"]

BARS, WORDS = 8, 12
"""Words with a bar in a picture, and words of a topic in a table."""


def word_rows(topics: Topics, corpus: Corpus) -> list[list[str]]:
    """List topics, the largest first: number, share, coherence, most probable words."""
    num_words = topics.words.shape[1]
    coherence = evaluation.npmi(topics.words, corpus.eval_columns("train")["x"], min(10, num_words))
    rows = []
    for k in topics.shares.argsort(descending=True).tolist():
        best = topics.words[k].topk(min(WORDS, num_words)).indices.tolist()
        words = ", ".join(corpus.vocabulary[word] for word in best)
        rows.append([str(k), f"{topics.shares[k]:.1%}", f"{coherence[k]:.2f}", words])
    return rows


def word_bars(topics: Topics, corpus: Corpus) -> Drawing:
    """Draw the most probable words of each topic as bars, the largest topic first."""
    words = min(BARS, topics.words.shape[1])

    def bars(axes: Axes, ink: Ink) -> None:
        places: list[float] = []
        labels: list[str] = []
        y = 0
        for k in topics.shares.argsort(descending=True).tolist():
            best = topics.words[k].topk(words)
            axes.text(0, y - 0.8, f"topic {k}, {topics.shares[k]:.1%}", color=ink.text, fontsize=8, weight="bold")
            axes.barh(range(y, y + words), best.values.tolist(), color=ink.series[0], height=0.7)
            places += range(y, y + words)
            labels += [corpus.vocabulary[word] for word in best.indices.tolist()]
            y += words + 2
        axes.set_yticks(places, labels)
        axes.set_ylim(y - 1, -2)
        axes.set_xlabel("probability")

    return pictures.draw(bars, (5.8, 0.17 * (words + 2) * len(topics.words) + 0.6))


def intertopic_map(topics: Topics) -> Drawing:
    """Place topics by how far apart their words are (Jensen-Shannon distance), as large as their shares."""
    distances = squareform(pdist(topics.words.double().numpy(), "jensenshannon"))
    places = MDS(2, metric="precomputed", n_init=4, init="random", random_state=0).fit_transform(
        np.nan_to_num(distances)
    )

    def circles(axes: Axes, ink: Ink) -> None:
        axes.scatter(
            places[:, 0], places[:, 1], s=4000 * topics.shares.numpy(), color=ink.series[0], alpha=0.35, linewidths=0
        )
        for k, (a, b) in enumerate(places):
            axes.text(a, b, str(k), color=ink.text, ha="center", va="center", fontsize=9)
        axes.margins(0.2)
        axes.set(xticks=[], yticks=[])

    return pictures.draw(circles, (5.8, 4.6))
