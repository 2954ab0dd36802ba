"""Topic models from the command line: text to topics, report, resume, draws; and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import pyrogen
from test_data_corpus import shards

from pyrogen import to_arviz
from pyrogen.cli import main
from pyrogen.runs import Run

SPORT = "goal team player match ball league coach score"
FOOD = "bread butter oven flour sugar cake dough recipe"
QUIET = ["--device", "cpu"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write texts of two kinds, in which each word is as likely as the others of its kind."""
    folder = tmp_path_factory.mktemp("texts")
    generator = np.random.default_rng(0)
    for i in range(60):
        words = generator.choice((SPORT if i % 2 else FOOD).split(), size=40)
        (folder / f"{i:03}.txt").write_text(" ".join(words) + ".", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "lda"
    words = ["train", "lda", "--data", str(texts), "--topics", "2", "--epochs", "20", "--out", str(out)]
    assert main([*words, *QUIET]) == 0
    return out


def test_a_folder_of_text_becomes_topics(capsys, trained):
    code, out, _ = pyrogen(capsys, "evaluate", str(trained), "--json")
    figures = json.loads(out)["metrics"]
    assert code == 0
    assert set(figures) == {"completion_log_likelihood", "perplexity", "npmi", "topic_diversity"}
    # Eight words of a kind: a perplexity of eight is the best there is, sixteen what guessing gives.
    assert 7.5 < figures["perplexity"]["value"] < 8.6
    code, _, _ = pyrogen(capsys, "report", str(trained))
    page = (trained / "report.html").read_text()
    assert code == 0
    assert "most probable words" in page
    assert (trained / "topics.png").stat().st_size > 1000
    assert (trained / "intertopic_map.png").stat().st_size > 1000


def test_posteriors_have_names_of_words_topics_and_documents(trained):
    data = to_arviz(trained, num_samples=20)
    phi = data["posterior"]["phi"]
    assert phi.dims == ("chain", "draw", "topic", "word")
    assert data["posterior"]["theta"].dims == ("chain", "draw", "document", "topic")
    assert data["log_likelihood"]["x"].dims == ("chain", "draw", "document")
    assert set(phi.coords["word"].values) == set((SPORT + " " + FOOD).split())
    assert all(str(title).endswith(".txt") for title in data["posterior"].coords["document"].values)
    best = phi.mean(("chain", "draw")).sel(topic=0)
    top = set(best.coords["word"].values[np.argsort(-best.values)[:8]])
    assert top in (set(SPORT.split()), set(FOOD.split()))


def test_documents_are_drawn_with_the_topics_that_were_learned(capsys, trained):
    code, _, _ = pyrogen(capsys, "sample", str(trained), "-n", "50", "--out", str(trained / "s.npz"), *QUIET)
    assert code == 0
    with np.load(trained / "s.npz") as found:
        x = found["x"]
        assert x.shape == (50, 16)
        assert (x.sum(1) == 100).all()
        phi = found["phi"]
    best = [set(np.argsort(-topic)[:8]) for topic in phi]
    assert best[0] | best[1] == set(range(16))  # each kind's eight words: what was learned, and no draw of the prior
    assert (phi.max(1) < 0.25).all()


def test_a_run_goes_on_as_if_it_had_not_stopped(capsys, texts, tmp_path):
    words = ["--data", str(texts), "--topics", "2", "--batch-size", "16", *QUIET, "--evaluate-every", "4"]
    pyrogen(capsys, "train", "lda", *words, "--steps", "12", "--out", str(tmp_path / "whole"))
    pyrogen(capsys, "train", "lda", *words, "--steps", "12", "--out", str(tmp_path / "half"))
    half = Run.open(tmp_path / "half")
    for step in half.checkpoints():
        if step > 4:
            shutil.rmtree(half.path / f"checkpoint-{step:08}")
    code, _, _ = pyrogen(capsys, "resume", str(tmp_path / "half"))
    assert code == 0
    states = [Run.open(tmp_path / name).restore(12).tree["training"] for name in ("whole", "half")]
    assert torch.equal(*(next(iter(state["programs"].values())) for state in states))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("lda", ["--objective", "natural-gradient"]),
        ("lda", ["--objective", "elbo"]),
        ("lda", ["--objective", "elbo", "--guide", "map"]),
        ("lda", ["--objective", "elbo", "--guide", "dirichlet"]),
        ("prodlda", []),
        ("correlated-topics", []),
    ],
)
def test_every_topic_model_trains_evaluates_and_reports(capsys, texts, tmp_path, model, settings):
    out = str(tmp_path / "run")
    words = ["--data", str(texts), "--topics", "2", "--steps", "30", "--hidden", "[8]", *QUIET]
    code, _, said = pyrogen(capsys, "train", model, *words, *settings, "--out", out)
    assert code == 0, said
    code, found, _ = pyrogen(capsys, "evaluate", out, "--json")
    assert code == 0
    assert 7.5 < json.loads(found)["metrics"]["perplexity"]["value"] < 40
    assert pyrogen(capsys, "report", out)[0] == 0
    assert pyrogen(capsys, "sample", out, "-n", "3")[0] == 0


def test_files_of_counts_train_and_report(capsys, tmp_path):
    folder = shards(tmp_path)
    out = str(tmp_path / "run")
    code, _, said = pyrogen(
        capsys, "train", "lda", "--data", str(folder), "--topics", "2", "--steps", "6", "--out", out
    )
    assert code == 0, said
    assert "training documents in 2 files" in said
    assert pyrogen(capsys, "evaluate", out)[0] == 0
    assert pyrogen(capsys, "report", out)[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lda", "--data", "digits"], "topic models need counts of words"),
        (["vae", "--data", "{texts}"], "counts of words, for which lda"),
        (["generator", "--data", "{texts}"], "a BagOfWords or a TopicMixture"),
        (["classifier", "--data", "{texts}"], "needs labels"),
        (["lda", "--data", "{texts}", "--topics", "1"], "topics must be at least 2"),
        (["lda", "--data", "{texts}", "--eta", "0"], "alpha and eta must be positive"),
        (["lda", "--data", "{texts}", "--delay", "0"], "delay must be at least 1"),
        (["lda", "--data", "{texts}", "--local-steps", "0"], "local_steps must be at least 1"),
        (["lda", "--data", "{texts}", "--objective", "natural-gradient", "--guide", "dirichlet"], "computed from"),
        (["prodlda", "--data", "{texts}", "--objective", "natural-gradient"], "Dirichlet sites"),
        (["lda", "--data", "{texts}", "--max-share", "2"], "max_share in"),
    ],
)
def test_what_does_not_go_together_is_refused_in_words(capsys, texts, tmp_path, words, message):
    code, _, said = pyrogen(
        capsys, "train", *(word.format(texts=texts) for word in words), "--steps", "2", "--out", str(tmp_path / "x")
    )
    assert code != 0
    assert message in said
    assert "Traceback" not in said


def test_a_graph_of_sparse_counts_is_not_compiled_and_says_so(capsys, texts, tmp_path):
    words = ["lda", "--data", str(texts), "--compile", "on", "--steps", "2", "--out", str(tmp_path / "x")]
    code, _, said = pyrogen(capsys, "train", *words)
    assert code == 0
    assert "warning: not compiled" in said
    assert "sparse" in said


@pytest.mark.slow
def test_components_of_a_mixture_are_trained_measured_and_drawn_as_they_were_learned(capsys, tmp_path):
    out = str(tmp_path / "run")
    words = ["--data", "iris", "--components", "6", "--steps", "300", "--learning-rate", "0.03", "--out", out, *QUIET]
    assert pyrogen(capsys, "train", "dirichlet-process-mixture", *words)[0] == 0
    code, found, _ = pyrogen(capsys, "evaluate", out, "--json")
    assert code == 0
    assert (
        json.loads(found)["metrics"]["log_predictive"]["value"] > -5.0
    )  # a normal of the training data has about -4.6
    assert pyrogen(capsys, "report", out)[0] == 0
    assert pyrogen(capsys, "sample", out, "-n", "200", "--out", str(tmp_path / "s.npz"))[0] == 0
    with np.load(tmp_path / "s.npz") as drawn:
        assert np.abs(drawn["x"].mean(0)).max() < 0.5  # the data are standardised; draws of the prior are far away
        assert drawn["x"].std(0).max() < 2.0


def test_nothing_held_out_is_no_reason_for_no_report(capsys, texts, tmp_path):
    out = str(tmp_path / "run")
    words = ["--data", str(texts), "--topics", "2", "--steps", "3", "--validation", "0", "--test", "0", *QUIET]
    assert pyrogen(capsys, "train", "lda", *words, "--out", out)[0] == 0
    assert pyrogen(capsys, "report", out)[0] == 0


def test_the_loss_is_per_document_whatever_the_batch(capsys, texts, tmp_path):
    losses = []
    for size in ("48", "20"):
        words = [
            "--data",
            str(texts),
            "--topics",
            "2",
            "--steps",
            "12",
            "--batch-size",
            size,
            "--log-every",
            "1",
            *QUIET,
        ]
        pyrogen(capsys, "train", "lda", *words, "--out", str(tmp_path / size))
        rows = [row["loss"] for row in Run.open(tmp_path / size).metrics() if row.get("loss") is not None]
        losses.append(max(rows) / min(rows))
    assert losses[1] < 1.5 * losses[0]


def test_draws_need_no_data(capsys, texts, tmp_path):
    here = tmp_path / "texts"
    shutil.copytree(texts, here)
    out = str(tmp_path / "run")
    assert (
        pyrogen(capsys, "train", "lda", "--data", str(here), "--topics", "2", "--steps", "2", "--out", out, *QUIET)[0]
        == 0
    )
    shutil.rmtree(here)
    assert pyrogen(capsys, "sample", out, "-n", "3")[0] == 0
