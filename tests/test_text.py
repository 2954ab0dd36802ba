"""Texts as data, and the command line's way with them."""

import json
from pathlib import Path

import pytest
import torch

from pyrogen.alphabet import BYTES, Alphabet
from pyrogen.cli import main
from pyrogen.data import Corpus, Streams, Text, from_characters, from_path, kjv
from pyrogen.errors import DataError, UsageError
from pyrogen.fitting import fit
from pyrogen.models import char_rnn, lda, transformer
from pyrogen.recipe import Named, Recipe, Settings
from pyrogen.runs import Run
from pyrogen.spec import DataSpec

WORDS = "in the beginning was the word, and the word was with the reader.\n"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "words.txt"
    file.write_text(WORDS * 40)
    return file


# Data


def test_splits_are_contiguous() -> None:
    text = from_characters(WORDS * 40, length=30)
    parts = [text.alphabet.decode(text.texts[split]) for split in ("train", "validation", "test")]
    assert "".join(parts) == WORDS * 40
    assert len(parts[1]) == len(parts[2]) == 130  # a twentieth of 2,600
    assert text.train["x"].flatten().tolist() == text.texts["train"][: 78 * 30].tolist()
    assert text.train["begins"].tolist() == [True] + [False] * 77


@pytest.mark.parametrize(("windows", "batch_size"), [(12, 4), (13, 4), (7, 3), (3, 5), (1, 2), (100, 7)])
def test_streams_read_every_window_in_order(windows: int, batch_size: int) -> None:
    x = torch.arange(windows)[:, None]
    streams = Streams({"x": x, "begins": x[:, 0] == 0}, batch_size)
    batches = list(streams)
    read = torch.cat([batch["x"] for batch in batches], 1)
    assert len(batches) == len(streams) == -(-windows // batch_size)
    assert set(read.flatten().long().tolist()) == set(range(windows))
    assert (read.diff(dim=1) == 1).all()
    assert [bool(batch["begins"].all()) for batch in batches] == [True] + [False] * (len(batches) - 1)
    assert not any(batch["begins"].any() for batch in batches[1:])


def test_batches_without_a_beginning_are_shuffled() -> None:
    text = from_characters(WORDS * 40, length=10)
    torch.manual_seed(0)
    x = torch.cat([batch["x"] for batch in text.batches(8, only=["x"])])
    assert not torch.equal(x, text.train["x"].float())
    assert torch.equal(x.sort(0).values, text.train["x"].float().sort(0).values)


def test_an_alphabet_is_of_characters_or_bytes() -> None:
    letters = Alphabet.of("häß\n")
    assert letters.symbols == ("\n", "h", "ß", "ä")
    assert letters.decode(letters.encode("ßä")) == "ßä"
    octets = Alphabet(BYTES)
    assert octets.is_bytes
    assert not letters.is_bytes
    assert octets.encode("ß").tolist() == [0xC3, 0x9F]
    assert octets.decode([0xC3, 0x9F, 0xFF]) == "ß\ufffd"
    with pytest.raises(DataError, match=r"the character 'H' at position 1, and 1 more, is not among the 4 .*; 'h' is"):
        letters.encode("hHx")


def test_more_characters_than_a_byte_can_number() -> None:
    text = from_characters("".join(map(chr, range(0x4E00, 0x4E00 + 300))) * 20, length=10)
    assert text.spec.levels == 300
    assert text.train["x"].dtype == torch.int32
    assert text.alphabet.decode(text.texts["train"][:3]) == "一丁丂"


def test_manifests_of_other_data_stay_what_they_were() -> None:
    spec = DataSpec((1, 8, 8), "levels", levels=17)
    assert set(spec.to_json()) == {"shape", "kind", "levels", "num_classes", "name", "num_data"}
    text = from_characters("abracadabra", length=2).spec
    assert DataSpec.from_json(json.loads(json.dumps(text.to_json()))) == text


def test_a_fingerprint_is_of_every_character() -> None:
    one = from_characters("ab" * 50, length=7)
    prints = {one.fingerprint(), from_characters("ab" * 49 + "aa", length=7).fingerprint()}
    prints |= {from_characters("ab" * 50, length=8).fingerprint(), from_characters("ac" * 50, length=7).fingerprint()}
    assert len(prints) == 4
    assert one.fingerprint() == from_characters("ab" * 50, length=7).fingerprint()


def test_a_text_by_its_path(path: Path, tmp_path: Path) -> None:
    text = from_path(path)
    assert isinstance(text, Text)
    assert (text.name, text.spec.shape) == ("words", (100,))
    octets = from_path(path, unit="byte", length=20, test=0.0)
    assert octets.spec.levels == 256
    assert "2,470 train + 130 validation + 0 test bytes" in octets.describe()
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_text(f"the text of {name} " * 20)
    folder = from_path(tmp_path, unit="character", length=5)
    assert isinstance(folder, Text)
    assert folder.alphabet.decode(folder.texts["train"][:17]) == "the text of a.txt"
    assert isinstance(from_path(tmp_path, validation=0.0), Corpus)


def test_the_bible_is_a_corpus_or_a_text() -> None:
    with pytest.raises(UsageError, match="unit must be chapter, book, character or byte, found 'verse'"):
        kjv(unit="verse")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="are for words, not for characters"):
        kjv(unit="character", max_words=100)
    with pytest.raises(UsageError, match="length is for a text"):
        kjv(length=50)


def test_bad_texts_are_refused(tmp_path: Path) -> None:
    def file(content: bytes) -> Path:
        (tmp_path / "bad.txt").write_bytes(content)
        return tmp_path / "bad.txt"

    with pytest.raises(DataError, match=r"bad.txt: an empty text"):
        from_path(file(b""))
    with pytest.raises(DataError, match="the text repeats the character 'a'"):
        from_path(file(b"aaaa"))
    with pytest.raises(DataError, match="26 of 30 characters are for training, and a window has 100"):
        from_path(file(b"abc" * 10))
    with pytest.raises(DataError, match=r"not UTF-8 .* --unit byte"):
        from_path(file(b"caf\xe9" * 100))
    assert from_path(tmp_path / "bad.txt", unit="byte").spec.levels == 256
    with pytest.raises(UsageError, match="`pixels` is not for one text"):
        from_path(tmp_path / "bad.txt", pixels="binary")
    with pytest.raises(UsageError, match="length must be at least 1"):
        from_path(file(b"abc" * 10), length=0)
    torch.save({}, tmp_path / "x.npz")
    with pytest.raises(UsageError, match="unit character is for text, and this is none"):
        from_path(tmp_path / "x.npz", unit="character")


def test_models_of_text_need_one() -> None:
    for entry in (char_rnn, transformer):
        with pytest.raises(UsageError, match="digits are no text: give --data kjv"):
            entry(DataSpec((1, 8, 8), "levels", levels=17, name="digits"))
    spec = from_characters("abracadabra", length=2).spec
    with pytest.raises(UsageError, match="topic models need counts of words"):
        lda(spec)
    with pytest.raises(UsageError, match="dropout must be in"):
        char_rnn(spec, dropout=1.0)
    with pytest.raises(UsageError, match="width must be a multiple of twice the heads"):
        transformer(spec, width=12, heads=4)


# Resuming


def recipe(path: Path, **model: object) -> Recipe:
    settings = Settings(steps=20, batch_size=4, learning_rate=0.01, compile="off", schedule="cosine", ema=0.9)
    named = Named("char-rnn", {"hidden": 8, "layers": 2, "dropout": 0.2, **model})
    return Recipe(named, Named("maximum-likelihood"), Named(str(path), {"length": 20}), settings)


class KilledError(Exception):
    """What ends a run in its middle."""


def go(path: Path, out: Path, killed_at: int | None = None, resume: bool = False, forgets: bool = False) -> Run:
    made = recipe(path)
    dataset = made.dataset()
    programs = made.programs(dataset.spec)
    run = Run.open(out) if resume else Run.create(out, made.to_json(dataset))
    training = made.fit(dataset, programs)

    def track(step: int, values: object) -> None:
        if forgets:
            programs.model.hidden.zero_()  # type: ignore[union-attr]
        if step == killed_at:
            raise KilledError

    fit(training, run, evaluate_every=7, log_every=1, resume=resume, track=track)
    return run


def test_a_run_that_is_killed_within_an_epoch_goes_on_bit_for_bit(path: Path, tmp_path: Path) -> None:
    assert len(recipe(path).dataset().batches(4)) == 30  # so that all steps are of the first epoch
    whole = go(path, tmp_path / "whole")
    with pytest.raises(KilledError):
        go(path, tmp_path / "killed", killed_at=11)
    killed = go(path, tmp_path / "killed", resume=True)
    assert killed.path.joinpath("metrics.jsonl").read_bytes() == whole.path.joinpath("metrics.jsonl").read_bytes()
    states = [(run.path / "checkpoint-00000020" / "state.safetensors").read_bytes() for run in (whole, killed)]
    assert states[0] == states[1]
    forgetful = go(path, tmp_path / "forgetful", forgets=True)
    assert forgetful.metrics() != whole.metrics()


# The command line


def pyrogen(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


TINY = ["--steps", "12", "--batch-size", "4", "--length", "20", "--device", "cpu", "--compile", "off"]


@pytest.fixture(scope="module", params=["char-rnn", "transformer"])
def run(request: pytest.FixtureRequest, path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / request.param
    size = ["--hidden", "8"] if request.param == "char-rnn" else ["--width", "8", "--layers", "1", "--heads", "2"]
    assert main(["train", request.param, "--data", str(path), "--out", str(out), *size, *TINY]) == 0
    return out


def test_evaluate(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    code, out, _ = pyrogen(capsys, "evaluate", str(run), "--dynamic-rate", "0.1", "--json")
    found = json.loads(out)["metrics"]
    assert code == 0
    assert set(found) == {"log_likelihood_per_char", "bits_per_char", "bits_per_char_dynamic"}
    assert found["bits_per_char"]["unit"] == "bits/char"
    assert 0 < found["bits_per_char"]["value"] < 6
    assert found["bits_per_char"]["stderr"] > 0
    _, out, _ = pyrogen(capsys, "evaluate", str(run), "--json")
    assert "bits_per_char_dynamic" not in json.loads(out)["metrics"]


def test_sample(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    code, out, _ = pyrogen(capsys, "sample", str(run), "--prefix", "in the ", "--length", "30", "-n", "2")
    assert code == 0
    texts = (run / "samples.txt").read_text().split(f"\n{'-' * 40}\n")
    assert [len(text) for text in texts] == [37, 37]
    assert all(text.startswith("in the ") for text in texts)
    assert "\n".join(texts) == out.removesuffix("\n")
    greedy = [pyrogen(capsys, "sample", str(run), "--top-k", "1", "--length", "9", "--seed", seed)[1] for seed in "01"]
    assert greedy[0] == greedy[1]
    code, _, err = pyrogen(capsys, "sample", str(run), "--prefix", "In the")
    assert code == 65
    assert "the character 'I' at position 0 is not among the" in err
    assert "'i' is" in err
    code, _, err = pyrogen(capsys, "sample", str(run), "--temperature", "0")
    assert code == 2
    assert "temperature must be positive" in err


def test_report(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    assert pyrogen(capsys, "report", str(run))[0] == 0
    page = (run / "report.html").read_text()
    assert "What surprises it" in page
    assert "Samples" in page
    assert (run / "surprises.png").exists()


def test_what_is_no_text_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = pyrogen(capsys, "train", "char-rnn", "--data", "digits", "--out", str(tmp_path / "run"))
    assert code == 2
    assert "digits are no text" in err
    out = str(tmp_path / "vae")
    tiny = ["--hidden", "[4]", "--latent", "2", "--steps", "2", "--compile", "off"]
    assert pyrogen(capsys, "train", "vae", "--data", "digits", *tiny, "--out", out)[0] == 0
    for option, message in (("--prefix=a", "leave --prefix out"), ("--top-k=1", "leave --temperature, --top-k")):
        code, _, err = pyrogen(capsys, "sample", out, option)
        assert code == 2
        assert message in err
    code, _, err = pyrogen(capsys, "evaluate", out, "--dynamic-rate", "0.1")
    assert code == 2
    assert "a dynamic rate is for models of text" in err
