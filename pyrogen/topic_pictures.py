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

ACROSS, BAR = 4, 0.9
"""Topics beside each other, and how far the longest bar of one goes towards the next."""


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
    longest = float(topics.words.max())
    order = topics.shares.argsort(descending=True).tolist()

    def bars(axes: Axes, ink: Ink) -> None:
        for place, k in enumerate(order):
            left, top = place % ACROSS, (place // ACROSS) * (words + 2)
            best = topics.words[k].topk(words)
            y = range(top, top + words)
            axes.text(left, top - 0.8, f"{k}: {topics.shares[k]:.1%}", color=ink.text, fontsize=8, weight="bold")
            axes.barh(
                y, [value * BAR / longest for value in best.values.tolist()], left=left, color=ink.series[0], alpha=0.35
            )
            for at, word in zip(y, best.indices.tolist(), strict=True):
                axes.text(left, at, f" {corpus.vocabulary[word]}", color=ink.text, fontsize=8, va="center")
        rows = -(-len(order) // ACROSS)
        axes.set(xlim=(0, ACROSS), ylim=(rows * (words + 2) - 1, -2), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)

    return pictures.draw(bars, (7.4, 0.16 * (words + 2) * -(-len(order) // ACROSS) + 0.3))


def intertopic_map(topics: Topics, corpus: Corpus) -> Drawing:
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
            word = corpus.vocabulary[int(topics.words[k].argmax())]
            axes.text(a, b, f"{k}\n{word}", color=ink.text, ha="center", va="center", fontsize=8)
        axes.margins(0.2)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)

    return pictures.draw(circles, (5.8, 4.6))
