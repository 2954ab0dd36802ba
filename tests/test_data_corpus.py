"""Corpora: text, counts, files of counts; what is kept, what is refused, and what training draws."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, random_array, save_npz

from pyrogen.data import Pruning, ShardedCorpus, from_counts, from_path, from_text, kjv, reuters
from pyrogen.errors import DataError, MissingInputError, UsageError

TEXTS = ["The cat sat; the cat ate.", "A dog ate 12 bones!", "cats and dogs", "Ate, ate, ate."]


def folder_of_text(tmp_path):
    for i, text in enumerate(TEXTS * 5):
        (tmp_path / f"{i:02}.txt").write_text(text, encoding="utf-8")
    return tmp_path


def test_text_is_counted():
    corpus = from_text(TEXTS, validation=0.0, test=0.0)
    assert corpus.vocabulary == ("and", "ate", "bones", "cat", "cats", "dog", "dogs", "sat", "the")
    assert corpus.num_tokens("train") == 6 + 3 + 3 + 3
    of = dict(zip(corpus.titles["train"], corpus.train["x"].to_dense().tolist(), strict=True))
    assert of["0"] == [0, 1, 0, 2, 0, 0, 0, 1, 2]
    assert "the" not in from_text(TEXTS, stop_words="english", validation=0.0, test=0.0).vocabulary


def test_a_folder_of_text_is_a_corpus(tmp_path):
    corpus = from_path(folder_of_text(tmp_path), min_documents=2, max_share=0.6)
    assert corpus.spec.kind == "counts"
    assert corpus.spec.num_data == 11
    assert "ate" not in corpus.vocabulary  # in three quarters of the documents
    assert corpus.describe().endswith("1 of 9 words pruned, 5 empty documents left out")


def test_words_are_pruned_by_documents_and_by_number():
    counts = np.array([[1, 5, 0, 0], [1, 0, 2, 0], [1, 0, 0, 3]])
    kept = {
        "a word of all": (Pruning(max_share=0.5), ("b", "c", "d")),
        "rare words": (Pruning(min_documents=2), ("a",)),
        "few words": (Pruning(max_words=2), ("a", "b")),
    }
    for pruning, words in kept.values():
        corpus = from_counts(counts, list("abcd"), pruning=pruning, validation=0.0, test=0.0)
        assert corpus.vocabulary == words


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.arange(5), "a row for each document"),
        (np.array([[0.5, 1.0]]), "whole numbers"),
        (np.array([[-1, 1]]), "whole numbers"),
        (np.array([[np.nan, 1.0]]), "whole numbers"),
        (np.zeros((2, 2)), "no words are left"),
        ([[(0, 1)], [3]], "document 1 is no list of pairs"),
        ([[(-1, 1)]], "numbered from 0"),
    ],
)
def test_counts_that_are_none_are_refused(counts, message):
    with pytest.raises(DataError, match=message):
        from_counts(counts)


def test_words_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="1 words for 2 columns"):
        from_counts(np.ones((2, 2)), ["a"])
    with pytest.raises(DataError, match="'a' is in the vocabulary twice"):
        from_counts(np.ones((2, 2)), ["a", "a"])
    with pytest.raises(DataError, match="1 titles for 2 documents"):
        from_counts(np.ones((2, 2)), titles=["one"])
    with pytest.raises(DataError, match="no words"):
        from_text(["1 2 3", "..."])
    with pytest.raises(UsageError, match="max_share"):
        Pruning(max_share=0.0)
    with pytest.raises(UsageError, match="stop_words"):
        from_text(TEXTS, stop_words="klingon")


def test_a_file_of_counts_is_a_corpus(tmp_path):
    matrix = csr_matrix(np.arange(12).reshape(4, 3))
    save_npz(tmp_path / "counts.npz", matrix)
    corpus = from_path(tmp_path / "counts.npz", validation=0.0, test=0.25)
    assert corpus.vocabulary == ("0", "1", "2")
    assert corpus.num_tokens("train") + corpus.num_tokens("test") == 66
    parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": matrix.shape}
    np.savez(tmp_path / "named.npz", vocabulary=np.array(["a", "b", "c"]), **parts)
    assert from_path(tmp_path / "named.npz").vocabulary == ("a", "b", "c")
    np.savez(tmp_path / "broken.npz", **(parts | {"indices": matrix.indices + 7}))
    with pytest.raises(DataError, match="not a sparse matrix"):
        from_path(tmp_path / "broken.npz")
    save_npz(tmp_path / "columns.npz", matrix.tocsc())
    assert from_path(tmp_path / "columns.npz", validation=0.0, test=0.25).num_tokens("train") == corpus.num_tokens(
        "train"
    )
    save_npz(tmp_path / "coordinates.npz", matrix.tocoo())
    with pytest.raises(DataError, match=r"Save matrix.tocsr"):
        from_path(tmp_path / "coordinates.npz")
    with pytest.raises(UsageError, match="`pixels` is not for words"):
        from_path(tmp_path / "counts.npz", pixels="levels")
    with pytest.raises(UsageError, match="`stop_words` is not for counts"):
        from_path(tmp_path / "counts.npz", stop_words="english")


def test_text_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="not UTF-8"):
        from_path(tmp_path)


def test_settings_of_words_are_refused_for_others(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((20, 2)))
    with pytest.raises(UsageError, match="`max_words` are for words"):
        from_path(tmp_path / "x.npy", max_words=3)


def shards(tmp_path, count: int = 3, documents: int = 40, words: int = 12):
    generator = np.random.default_rng(0)
    (tmp_path / "vocabulary.txt").write_text("\n".join(f"w{i}" for i in range(words)), encoding="utf-8")
    for i in range(count):
        counts = random_array((documents, words), density=0.4, rng=generator, format="csr")
        counts.data = np.ceil(5 * counts.data)
        save_npz(tmp_path / f"part-{i}.npz", csr_matrix(counts))
    return tmp_path


def test_files_of_counts_are_read_one_at_a_time_and_each_document_once_an_epoch(tmp_path):
    corpus = from_path(shards(tmp_path))
    assert isinstance(corpus, ShardedCorpus)
    assert [corpus.num_data(split) for split in ("train", "validation", "test")] == [80, 4, 4]
    assert corpus.spec.num_data == 80
    batches = corpus.batches(30)
    assert len(batches) == 3
    drawn = [batch["x"].to_dense() for batch in batches]
    assert [len(x) for x in drawn] == [30, 30, 20]
    parts = [from_path(tmp_path / f"part-{i}.npz", validation=0.0, test=0.0) for i in (0, 1)]
    whole = torch.cat([part.train["x"].to_dense() for part in parts])
    assert sorted(map(tuple, torch.cat(drawn).tolist())) == sorted(map(tuple, whole.tolist()))
    again = [batch["x"].to_dense() for batch in batches]
    assert not torch.equal(torch.cat(drawn), torch.cat(again))


def test_files_of_counts_that_do_not_fit_are_refused(tmp_path):
    folder = shards(tmp_path, count=1)
    with pytest.raises(DataError, match="one file of counts"):
        from_path(folder)
    save_npz(folder / "part-1.npz", csr_matrix(np.ones((3, 5))))
    with pytest.raises(DataError, match="for 12 words"):
        from_path(folder)
    with pytest.raises(UsageError, match=r"prune when you make them"):
        from_path(folder, max_words=3)


def test_reuters_is_what_was_published():
    corpus = reuters()
    assert sum(corpus.num_data(split) for split in ("train", "validation", "test")) == 395
    assert len(corpus.vocabulary) == 4258
    assert sum(corpus.num_tokens(split) for split in ("train", "validation", "test")) == 84_010
    assert "UK: Prince Charles spearheads British royal revolution. LONDON 1996-08-20" in {
        title for titles in corpus.titles.values() for title in titles
    }


def test_a_missing_bible_says_how_to_bring_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PYROGEN_DATA", str(tmp_path))
    with pytest.raises(MissingInputError, match="make data"):
        kjv()
    (tmp_path / "kjv.txt").write_text("Ge1:1 In the beginning", encoding="utf-8")
    with pytest.raises(DataError, match="SHA-256"):
        kjv()


def test_batches_of_a_corpus_are_sparse_and_repeat_with_the_generator():
    corpus = reuters()
    state = torch.get_rng_state()
    first = next(iter(corpus.batches(32)))["x"]
    torch.set_rng_state(state)
    again = next(iter(corpus.batches(32)))["x"]
    assert first.layout == torch.sparse_csr
    assert torch.equal(first.to_dense(), again.to_dense())
    assert corpus.fingerprint() == reuters().fingerprint() != reuters(seed=1).fingerprint()


def test_files_of_counts_come_in_an_order_that_training_does_not_change(tmp_path):
    batches = from_path(shards(tmp_path)).batches(15)
    state = torch.get_rng_state()
    drawn = [batch["x"].to_dense() for batch in batches]
    torch.set_rng_state(state)
    for batch, before in zip(batches, drawn, strict=True):
        assert torch.equal(batch["x"].to_dense(), before)
        torch.rand(7)  # as training does between batches, and going on with a run does not
