"""Topics of Reuters and of the King James Bible by pyrogen, scikit-learn, gensim, lda, tomotopy and Pyro's example.

All topics, as points, are scored alike: on held-out documents of the same words, one half of which gives weights by
expectation maximisation, the other a perplexity. Every (corpus, topics, method, seed) appends a line to
``results/topics.jsonl``; what is there is not run again. ``--growth`` adds lines to ``results/topics_growth.jsonl``:
one pass over synthetic documents that are read from files, each size in a process of its own.

Run: ``python benchmarks/topics.py [--seeds 5] [--methods NAME ...] [--peers PYTHON]``; ``PYTHON`` has the peers.
"""

import argparse
import logging
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from math import exp, isfinite
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from lda import LDA as Sampler
from lda.datasets import load_reuters
from pyro.infer import SVI, TraceEnum_ELBO
from report import (
    RESULTS,
    append_row,
    device_name,
    devices,
    header,
    mean_cell,
    missing,
    read_rows,
    table,
    versions,
    write,
)
from scipy.sparse import csr_array, csr_matrix, save_npz
from torch import Tensor, nn

from pyrogen.counts import entries
from pyrogen.data import Batches, Corpus, from_path, kjv, reuters
from pyrogen.data.count_matrix import to_tensor
from pyrogen.distributions import log_geometric_mean, log_mean
from pyrogen.evaluation import log_joint, npmi, topic_diversity, topic_stability
from pyrogen.evaluation.topics import halves
from pyrogen.inference import Annealing, CollapsedVB, NaturalGradient, Objective, Training, train
from pyrogen.models import LDA, MeanField, local_optimum

ROWS, GROWTH, JOINTS, STABLE = (RESULTS / f"topics{part}.jsonl" for part in ("", "_growth", "_joints", "_stability"))
DRAWN = Path(__file__).parent.parent / "runs" / "topics"
ALPHA = ETA = 0.1
FOLD_IN = 0.1
TOPICS = (20, 50)
SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
PEERS = (
    "scikit-learn",
    "scikit-learn, 50 passes",
    "scikit-learn, 50 passes, our priors",
    "gensim",
    "lda",
    "lda, our priors",
    "tomotopy",
    "tomotopy, our priors",
)
EXAMPLE = "Pyro's example"
EXAMPLE_STEPS, EXAMPLE_SECONDS = 3000, 600.0
"""It ends with whichever comes first, or where it diverges."""

NEEDED = 64
"""Words of each document in Pyro's example, which needs them all equally long."""


class Held(NamedTuple):
    """Counts of training and of held-out documents, over the words of the training documents."""

    train: Tensor
    test: Tensor
    vocabulary: tuple[str, ...]


@cache
def corpus_of(name: str) -> Held:
    made: Corpus = {"reuters": reuters, "kjv": kjv}[name](validation=0.0, test=0.1)
    x, y = (csr(made.split(split)["x"]) for split in ("train", "test"))
    kept = np.flatnonzero(np.asarray(x.sum(0)).ravel() > 0)
    words = tuple(made.vocabulary[column] for column in kept)
    parts = [to_tensor(csr_array(counts[:, kept])) for counts in (x, y)]
    path = DRAWN / f"{name}.npz"
    DRAWN.mkdir(parents=True, exist_ok=True)
    save_npz(path, csr(parts[0]))
    return Held(*parts, words)


def csr(x: Tensor) -> csr_matrix:
    return csr_matrix((x.values().numpy(), x.col_indices().numpy(), x.crow_indices().numpy()), x.shape)


def perplexity(topics: Tensor, test: Tensor) -> float:
    """Score topics by one half of each held-out document, given the other."""
    topics = (topics / topics.sum(-1, keepdim=True)).double()
    seen, unseen = halves(test, torch.Generator().manual_seed(0))
    gamma = local_optimum(seen, topics.log(), torch.full((len(topics),), FOLD_IN), log_mean, 1000, 1e-6)
    _, rows, columns, counts = entries(unseen)
    p = ((gamma / gamma.sum(-1, keepdim=True))[rows] * topics.T[columns]).sum(-1)
    return exp(float(-(counts * p.log()).sum() / counts.sum()))


# Ours


class Way(NamedTuple):
    """An objective, the averages of its guide, and how it goes through the documents."""

    objective: Callable[[], Objective]
    average: Callable[[Tensor], Tensor]
    batch_size: int
    epochs: int
    max_steps: int


def annealed(start: float) -> CollapsedVB:
    return CollapsedVB(forgetting=0.0, inverse_temperature=Annealing(start, 1.0, 210))


WAYS = {
    "pyrogen, collapsed": Way(partial(CollapsedVB, forgetting=0.0), log_mean, 10**6, 300, 5),
    "pyrogen, collapsed, annealed": Way(partial(annealed, 0.8), log_mean, 10**6, 300, 5),
    "pyrogen, collapsed, annealed from .6": Way(partial(annealed, 0.6), log_mean, 10**6, 300, 5),
    "pyrogen, collapsed, batches": Way(CollapsedVB, log_mean, 128, 50, 5),
    "pyrogen, natural gradient": Way(NaturalGradient, log_geometric_mean, 128, 50, 100),
}


def training_of(way: Way, x: Tensor, num_topics: int, seed: int, eta: float = ETA) -> tuple[Training, MeanField]:
    torch.manual_seed(seed)
    model = LDA(x.shape[1], num_topics, len(x), ALPHA, eta)
    guide = MeanField(model, way.average, way.max_steps)
    training = train(
        way.objective(), model, guide, Batches({"x": x}, way.batch_size), partial(torch.optim.SGD, lr=1.0),
        epochs=way.epochs, validate=False,
    )  # fmt: skip
    return training, guide


def ours(method: str, held: Held, num_topics: int, seed: int) -> tuple[Tensor, float, list[tuple[float, Tensor]]]:
    """Fit; return the topics, the seconds, and topics after each pass with the seconds until then."""
    training, guide = training_of(WAYS[method], held.train, num_topics, seed)
    per_epoch = -(-len(held.train) // WAYS[method].batch_size)
    passes: list[tuple[float, Tensor]] = []
    seconds, begin = 0.0, time.perf_counter()
    for step in training:
        if step.index % per_epoch == 0:
            seconds += time.perf_counter() - begin
            passes.append((seconds, guide.concentration.detach().clone()))
            begin = time.perf_counter()
    return passes[-1][1], seconds, passes


def pyro_example(held: Held, num_topics: int, seed: int) -> tuple[Tensor, float, list[tuple[float, Tensor]]]:
    """Fit the program of Pyro's example: words' topics enumerated, documents of one length, a point for weights."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    num_words = held.train.shape[1]
    x = held.train.to_dense()
    words = torch.multinomial(x, NEEDED, replacement=True)
    counts = torch.zeros_like(x).scatter_add(1, words, torch.ones_like(words, dtype=x.dtype))
    layers = [nn.Linear(num_words, 100), nn.Sigmoid(), nn.Linear(100, 100), nn.Sigmoid(), nn.Linear(100, num_topics)]
    network = nn.Sequential(*layers, nn.Softmax(-1))

    def model(rows: Tensor) -> None:
        with pyro.plate("topics", num_topics):
            weights = pyro.sample("topic_weights", dist.Gamma(1 / num_topics, 1.0))
            topics = pyro.sample("topic_words", dist.Dirichlet(torch.ones(num_words) / num_words))
        with pyro.plate("documents", len(words), subsample=rows):
            of_document = pyro.sample("doc_topics", dist.Dirichlet(weights))
            with pyro.plate("words", NEEDED):
                z = pyro.sample("word_topics", dist.Categorical(of_document), infer={"enumerate": "parallel"})
                pyro.sample("doc_words", dist.Categorical(topics[z]), obs=words[rows].T)

    def guide(rows: Tensor) -> None:
        positive = dist.constraints.positive
        weights = pyro.param("of_weights", torch.ones(num_topics), constraint=positive)
        above = dist.constraints.greater_than(0.5)
        topics = pyro.param("of_words", torch.rand(num_topics, num_words) + 1.0, constraint=above)
        with pyro.plate("topics", num_topics):
            pyro.sample("topic_weights", dist.Gamma(weights, 1.0))
            pyro.sample("topic_words", dist.Dirichlet(topics))
        pyro.module("network", network)
        with pyro.plate("documents", len(words), subsample=rows):
            pyro.sample("doc_topics", dist.Delta(network(counts[rows]), event_dim=1))

    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.01}), TraceEnum_ELBO(max_plate_nesting=2))
    passes: list[tuple[float, Tensor]] = []
    begin = time.perf_counter()
    with pyro.validation_enabled(False):
        for step in range(1, EXAMPLE_STEPS + 1):
            loss = svi.step(torch.randperm(len(words))[:32])
            seconds, found = time.perf_counter() - begin, pyro.param("of_words").detach().clone()
            if not (isfinite(loss) and found.isfinite().all()):
                break  # its point estimate of a document's weights runs to the simplex's edge, where the prior has none
            if seconds > EXAMPLE_SECONDS * len(passes) / 40 or step == EXAMPLE_STEPS:
                passes.append((seconds, found))
            if seconds > EXAMPLE_SECONDS:
                break
    return passes[-1][1], passes[-1][0], passes


def measure(corpus: str, num_topics: int, method: str, seed: int, peers: str) -> dict[str, Any]:
    held = corpus_of(corpus)
    row: dict[str, Any] = {"corpus": corpus, "topics": num_topics, "method": method, "seed": seed}
    if method in WAYS:
        topics, seconds, passes = ours(method, held, num_topics, seed)
        every = 5 if WAYS[method].batch_size > len(held.train) else 1
        row["passes"] = [(at, perplexity(of, held.test)) for at, of in passes[::every]]
    elif method == EXAMPLE:
        topics, seconds, passes = pyro_example(held, num_topics, seed)
        row["passes"] = [(at, perplexity(of, held.test)) for at, of in passes]
    else:
        out = DRAWN / "peer.npz"
        script = Path(__file__).parent / "topic_peers.py"
        words = [peers, str(script), method, str(DRAWN / f"{corpus}.npz"), str(num_topics), str(seed), str(out)]
        subprocess.run(words, check=True, capture_output=True)
        with np.load(out) as found:
            topics, seconds = torch.from_numpy(found["topics"]), float(found["seconds"])
    np.savez(DRAWN / f"{corpus}, {num_topics}, {method}, {seed}.npz", topics=topics.numpy())
    return row | {
        "device": device_name("cpu"),
        "perplexity": perplexity(topics, held.test),
        "npmi": float(npmi(topics, held.train).mean()),
        "diversity": topic_diversity(topics),
        "seconds": seconds,
    }


# Growth


def write_documents(folder: Path, num_tokens: int, num_words: int = 5000, length: int = 100, shard: int = 2000) -> None:
    """Write documents of 20 topics, 100 words each, into files."""
    generator = np.random.default_rng(0)
    topics = generator.dirichlet(np.full(num_words, 0.05), 20)
    (folder / "vocabulary.txt").write_text("\n".join(f"w{i}" for i in range(num_words)), encoding="utf-8")
    documents = num_tokens // length
    firsts = [*range(0, documents, shard), documents]  # the last file is held out
    for first in firsts:
        size = 200 if first == documents else min(shard, documents - first)
        p = generator.dirichlet(np.full(20, 0.1), size) @ topics
        counts = csr_matrix(np.stack([generator.multinomial(length, row / row.sum()) for row in p]))
        save_npz(folder / f"part-{first:08}.npz", counts)


def grown(num_tokens: int) -> dict[str, Any]:
    """Go once through documents that are in files, in a process of its own, and look at its memory."""
    with tempfile.TemporaryDirectory() as name:
        write_documents(Path(name), num_tokens)
        words = [sys.executable, __file__, "--pass-over", name]
        found = subprocess.run(words, check=True, capture_output=True, text=True)
    seconds, memory, done = map(float, found.stdout.split())
    return {"tokens": num_tokens, "seconds": seconds, "mib": memory, "documents": done}


def pass_over(folder: str) -> None:
    torch.set_num_threads(1)
    corpus = from_path(folder, validation=0.05, test=0.05)
    model = LDA(len(corpus.vocabulary), 20, corpus.num_data("train"), ALPHA, ETA)
    guide = MeanField(model, log_mean, 5)
    batches = corpus.batches(256)
    begin, done = time.perf_counter(), 0
    for step in train(CollapsedVB(), model, guide, batches, partial(torch.optim.SGD, lr=1.0), epochs=1, validate=False):
        done += step.rows
    seconds = time.perf_counter() - begin
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, done)


# Words and their topics


def joints() -> Iterator[dict[str, Any]]:
    """Score words and their topics on all of Reuters: of a Gibbs sampler's trace, and drawn from what we fit."""
    x = reuters(validation=0.0, test=0.0).train["x"]
    alpha, eta = torch.full((20,), 0.1), torch.full((x.shape[1],), 0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it leaves its files open
        counts = load_reuters()
    logging.getLogger("lda").setLevel(logging.ERROR)
    for sweeps in (100, 1500):
        sampler = Sampler(20, n_iter=sweeps, alpha=0.1, eta=0.01, random_state=1, refresh=10**6).fit(counts)
        value = log_joint(torch.from_numpy(sampler.ndz_), torch.from_numpy(sampler.nzw_), alpha, eta)
        yield {"of": f"lda, {sweeps:,} sweeps", "log_joint": float(value), "own": float(sampler.loglikelihood())}
    for method in ("pyrogen, collapsed", "pyrogen, natural gradient"):
        training, guide = training_of(WAYS[method], x, 20, 0, 0.01)
        for _ in training:
            pass
        yield {"of": method, "log_joint": float(log_joint(*drawn(x, guide), alpha, eta))}


def drawn(x: Tensor, guide: MeanField) -> tuple[Tensor, Tensor]:
    """Draw a topic for each word; return how many each document, and each topic of each word, has."""
    _, rows, columns, counts = entries(x)
    weights, topics = guide.weights(x).detach(), guide.concentration.detach()
    r = (weights / weights.sum(-1, keepdim=True))[rows] * (topics / topics.sum(-1, keepdim=True)).T[columns]
    r = (r / r.sum(-1, keepdim=True)).double().numpy()
    z = torch.from_numpy(np.random.default_rng(0).multinomial(counts.long().numpy(), r / r.sum(1, keepdims=True)))
    of_documents = torch.zeros(len(x), z.shape[1], dtype=z.dtype).index_add(0, rows, z)
    of_words = torch.zeros(x.shape[1], z.shape[1], dtype=z.dtype).index_add(0, columns, z)
    return of_documents, of_words.T


# The page


def time_to(row: dict[str, Any], goal: float) -> float:
    """Return the seconds after which a fit was as good as a goal; infinity for one that never was."""
    return next((at for at, value in row["passes"] if value <= goal), float("inf"))


def stability(corpus: str, num_topics: int, method: str) -> dict[str, Any] | None:
    """Compare the topics of the seeds that have been fitted here; None for one alone."""
    name = f"{corpus}, {num_topics}, {method}"
    found = [torch.from_numpy(np.load(path)["topics"]) for path in sorted(DRAWN.glob(f"{name}, ?.npz"))]
    pairs = [float(topic_stability(a, b).mean()) for i, a in enumerate(found) for b in found[:i]]
    of = {"corpus": corpus, "topics": num_topics, "method": method, "seeds": len(found)}
    return of | {"stability": float(np.mean(pairs))} if pairs else None


def report() -> None:
    rows = read_rows(ROWS)
    most = sorted(read_rows(STABLE), key=lambda row: row["seeds"])
    stable = {(row["corpus"], row["topics"], row["method"]): row["stability"] for row in most}
    sections = []
    for corpus in ("reuters", "kjv"):
        for num_topics in TOPICS:
            found = [row for row in rows if row["corpus"] == corpus and row["topics"] == num_topics]
            of = {m: [row for row in found if row["method"] == m] for m in (*WAYS, *PEERS, EXAMPLE)}
            lines = []
            for method, mine in of.items():
                if mine:
                    cells = [mean_cell([row[key] for row in mine], n) for key, n in COLUMNS]
                    alike = stable.get((corpus, num_topics, method))
                    lines.append([method, str(len(mine)), *cells, "–" if alike is None else f"{alike:.2f}"])
            if not lines:
                continue
            sections.append(f"## {corpus}, {num_topics} topics")
            sections.append(table(HEAD, lines))
            sections += [line for peer in (PEERS[0], PEERS[2], EXAMPLE) for line in raced(of, peer)]
    found = versions("torch", "pyro-ppl", "pyrogen-ppl", "scikit-learn", "gensim", "lda")
    top = header("Topics: held-out perplexity, coherence, time", "make bench-topics", 1, found)
    write(
        "topics",
        top,
        LEAD,
        f"Fitted on: {devices(rows)}; times are compared on one alone.",
        *sections,
        *growth(),
        *words_and_topics(),
    )


HEAD = ("method", "seeds", "perplexity", "NPMI", "diversity", "seconds", "stability")
COLUMNS = (("perplexity", 0), ("npmi", 3), ("diversity", 2), ("seconds", 1))
LEAD = (
    f"A tenth of the documents is held out; words that no training document has are left out for all. Topics, as "
    f"points, are scored alike: weights of a held-out document by EM (α = {FOLD_IN}) of one half of its words, "
    f"perplexity of the other half (the same halves for all). NPMI: of a topic's ten most probable words, in the "
    f"training documents. Diversity: different words among the 25 most probable of all topics. Stability: agreement "
    f"(Jaccard) of the ten most probable words of two seeds' topics, paired at best. Mean ± standard error over seeds; "
    f"one thread.\n\n"
    f"Ours: α = η = {ALPHA}; *collapsed*: all documents in a batch, 300 passes; *annealed*: likewise, "
    f"with an inverse temperature that rises from .8, or .6, to 1 in the first 210; *batches*: of 128, 50 passes, with "
    f"steps (10 + t)^-.7; *natural gradient* likewise. Peers have their default priors (scikit-learn, gensim: 1/K; lda "
    f"and tomotopy: .1, .01; tomotopy learns α as it goes), or start from ours. Online VB of scikit-learn: 10 passes, "
    f"its default, or 50; gensim: 20, its evaluations included; lda and tomotopy: 1,000 sweeps. Pyro's example: its "
    f"program in our words, {EXAMPLE_STEPS:,} steps, or {EXAMPLE_SECONDS / 60:.0f} minutes, or until it diverges, "
    f"whichever comes first; it needs documents of one length, so that {NEEDED} words of each were drawn. "
    f"Documents are one cut for all: errors are of seeds alone."
)


def raced(of: dict[str, list[dict[str, Any]]], peer: str) -> list[str]:
    """Say how long ours take to be as good as a peer's end, as a share of its time."""
    peers = {row["seed"]: row for row in of[peer]}
    said = []
    for method in WAYS:
        mine = [(row, peers[row["seed"]]) for row in of[method] if row["seed"] in peers]
        mine = [(row, other) for row, other in mine if row["device"] == other["device"]]
        if mine:
            shares = [time_to(row, other["perplexity"]) / other["seconds"] for row, other in mine]
            said.append(f"{method} {median(shares):.2g}")
    end = f"Time to the final perplexity of {peer}, as a share of its time, median over seeds: {'; '.join(said)}."
    return [end] if said else []


def growth() -> list[str]:
    rows = sorted(read_rows(GROWTH), key=lambda row: row["tokens"])
    if not rows:
        return []
    lines = [
        [f"{n:,}", f"{row['seconds']:.1f}", f"{1e6 * row['seconds'] / n:.2f}", f"{row['mib']:.0f}"]
        for row in rows
        for n in [row["tokens"]]
    ]
    lead = (
        "One pass of *collapsed, batches* over synthetic documents of 100 words (5,000 words, 20 topics), 2,000 "
        "documents a file, one file in memory; seconds without the writing of files, the largest resident size of the "
        "process."
    )
    return ["## Growth", lead, table(("tokens", "seconds", "µs a token", "MiB"), lines)]


def words_and_topics() -> list[str]:
    rows = read_rows(JOINTS)
    if not rows:
        return []
    lead = (
        "log p(w, z) of all of Reuters, 20 topics, α = .1, η = .01: of lda's Gibbs sampler (seed 1; its own figure "
        "beside ours; published: −672,761 after 100 sweeps, −655,849 after 1,000, "
        "https://github.com/lda-project/lda), and of topics drawn from what we fit, which maximises something else."
    )
    lines = [[row["of"], f"{row['log_joint']:,.0f}", f"{row['own']:,.0f}" if "own" in row else "–"] for row in rows]
    return ["## Words and their topics", lead, table(("topics of", "log p(w, z), nats", "by lda itself"), lines)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=[*WAYS, *PEERS, EXAMPLE], metavar="NAME")
    parser.add_argument("--corpora", nargs="+", default=["reuters", "kjv"])
    parser.add_argument("--topics", nargs="+", type=int, default=list(TOPICS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--peers", default=sys.executable, help="a Python that has scikit-learn, gensim, lda, tomotopy")
    parser.add_argument("--growth", action="store_true", help="measure time and memory of larger corpora")
    parser.add_argument("--joints", action="store_true", help="measure log p(w, z) on Reuters")
    parser.add_argument("--pass-over", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.pass_over:
        return pass_over(options.pass_over)
    axes = {"seed": range(options.seeds), "corpus": options.corpora, "topics": options.topics}
    for task in missing(ROWS, **axes, method=options.methods):
        corpus_of(task["corpus"])
        append_row(ROWS, measure(task["corpus"], task["topics"], task["method"], task["seed"], options.peers))
    for corpus, num_topics, method in product(options.corpora, options.topics, options.methods):
        row = stability(corpus, num_topics, method)
        if row and row not in read_rows(STABLE):
            append_row(STABLE, row)
    if options.growth:
        for task in missing(GROWTH, tokens=SIZES):
            append_row(GROWTH, grown(task["tokens"]))
    if options.joints:
        for row in joints():
            append_row(JOINTS, row)
    report()


if __name__ == "__main__":
    main()
