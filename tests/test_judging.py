"""`pyrogen judge` as those who ask and those who judge meet it."""

import json
import re
from base64 import b64decode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

from pyrogen import judging
from pyrogen.answers import Answers, Key, counted
from pyrogen.cli import main
from pyrogen.data import digits, encode_wav, read_wav
from pyrogen.errors import DataError, UsageError
from pyrogen.evaluation import wilson_interval
from pyrogen.judging import Judging, write_judging
from pyrogen.runs import Run
from pyrogen.spec import DataSpec

WORDS = '<b>in the beginning</b> was the word & the word was "read". </script>\n'
NAMES = ["first-of-two", "second-of-two"]
FAST = ["--device", "cpu", "--steps", "1", "--compile", "off"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "words.txt").write_text(WORDS * 60)
    rng = np.random.default_rng(0)
    for i in range(10):
        (folder / "wavs").mkdir(exist_ok=True)
        (folder / "wavs" / f"{i}.wav").write_bytes(encode_wav(rng.uniform(-0.5, 0.5, 800), 8000))
    tiny, vae = ["--hidden", "[8]", "--latent", "2"], ["vae", "--data", "digits"]
    text = ["--data", str(folder / "words.txt"), "--hidden", "8", "--length", "20", "--test", "0.3"]
    wavenet = ["--layers", "2", "--channels", "4", "--skip", "4"]
    for name, options in {
        NAMES[0]: [*vae, *tiny],
        NAMES[1]: ["generator", "--objective", "mmd", "--hidden", "[8]"],
        "other-seed": [*vae, *tiny, "--seed", "1"],
        "binary": [*vae, *tiny, "--pixels", "threshold"],
        "labelled": ["dcgan", "--objective", "mmd", "--channels", "[4]", "--latent", "4", "--conditional", "true"],
        "classifier": ["classifier", "--hidden", "[8]"],
        "table": ["ppca", "--data", "iris"],
        "text": ["char-rnn", *text],
        "sounds": ["wavenet", "--data", str(folder / "wavs"), "--seconds", "0.05", *wavenet],
    }.items():
        assert main(["train", *options, *FAST, "--out", str(folder / name)]) == 0
    return folder


def pyrogen(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def data_of(page: Path) -> dict[str, Any]:
    """Read what the script of a page reads."""
    [found] = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page.read_text(), re.S)
    return json.loads(found)


def pixels(address: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(b64decode(address.removeprefix("data:image/png;base64,")))))


def left(page: Path) -> list[str]:
    return json.loads(page.with_suffix(".key.json").read_text())["left"]


def answer(page: Path, out: Path, choices: Sequence[str], judge: str = "") -> Path:
    answers = [{"pair": i, "choice": choice} for i, choice in enumerate(choices, 1)]
    out.write_text(json.dumps({"page": data_of(page)["page"], "judge": judge, "answers": answers}))
    return out


# The page


def test_a_page_says_nothing_of_the_runs(capsys, runs, tmp_path):
    page, key = tmp_path / "new" / "judge.html", tmp_path / "new" / "judge.key.json"
    code, printed, _ = pyrogen(capsys, "judge", *(runs / name for name in NAMES), "--out", page, "--json")
    assert code == 0
    assert json.loads(printed) == {"page": str(page), "key": str(key), "pairs": 50}
    text = re.sub(r"data:image/png;base64,[\w+/=]+", "", page.read_text())
    for secret in (*NAMES, str(runs), "vae", "generator", "mmd", "digits", str(tmp_path)):
        assert secret not in text
    # Nothing of the network: all that is fetched is in the page.
    assert not re.findall(r"https?:|src=|@import|url\(|fetch|XMLHttpRequest", text)
    assert "default-src 'none'" in text
    found = data_of(page)
    assert set(found) == {"page", "kind", "pairs"}
    assert [pair["pair"] for pair in found["pairs"]] == list(range(1, 51))
    assert all(set(pair) == {"pair", "left", "right"} for pair in found["pairs"])
    assert {pixels(pair[side]).shape for pair in found["pairs"] for side in ("left", "right")} == {(8, 8, 3)}
    kept = json.loads(key.read_text())
    assert (kept["a"], kept["b"], kept["page"]) == (*(str(runs / name) for name in NAMES), found["page"])
    assert len(kept["left"]) == 50


@pytest.mark.parametrize("kind", ["image", "sound", "text"])
def test_the_script_finds_what_it_looks_for(kind):
    pairs = [{"pair": 1, "left": "data:,", "right": "data:,"}] * 2
    page = judging.template("judge.html").render(page="p", kind=kind, pairs=pairs, question="<which>?")
    assert "&lt;which&gt;?" in page
    ids = re.findall(r' id="([\w-]+)"', page)
    assert len(set(ids)) == len(ids)
    choices = {"left", "tie", "right"}
    used = set(re.findall(r'element\("([\w-]+)"\)', page)) | choices - {"tie"} | {f"choose-{c}" for c in choices}
    assert used | {"start", "judging", "end", "pair"} == set(ids)


def test_the_key_is_right(monkeypatch, runs, tmp_path):
    """The first run's draws are 1, 2, 3, ... and the second's half a level less: a pair is of draws of one rank."""
    rows = {name: torch.arange(1.0, 17) for name in NAMES}
    spec = DataSpec((1, 8, 8), "levels", levels=17)

    def drawn(contender, programs, how, y):
        values = rows[contender.run.path.name] - (0.5 if contender.run.path.name == NAMES[1] else 0)
        return values[:, None, None, None].expand(16, 1, 8, 8)

    monkeypatch.setattr(judging, "_draws", drawn)
    page, _ = write_judging([runs / name for name in NAMES], tmp_path / "a.html", Judging(pairs=16))
    order = []
    for pair, side in zip(data_of(page)["pairs"], left(page), strict=True):
        levels = {name: float(pixels(pair[name])[0, 0, 0]) / 255 * (spec.levels - 1) for name in ("left", "right")}
        a, b = (levels[name] for name in (("left", "right") if side == "a" else ("right", "left")))
        assert a - b == pytest.approx(0.5, abs=0.1)
        order.append(round(a))
    assert sorted(order) == list(range(1, 17))
    assert order != sorted(order)  # labels that come in turn would tell a model that is given them


def test_a_side_says_nothing(monkeypatch, runs, tmp_path):
    """Coins: a judge who always says left is for neither, and no pair tells of the next."""
    monkeypatch.setattr(judging, "_draws", lambda contender, programs, how, y: torch.rand(how.pairs, 1, 8, 8))
    sides = []
    for seed in range(3):
        how = Judging(pairs=400, seed=seed)
        page, _ = write_judging([runs / name for name in NAMES], tmp_path / f"{seed}.html", how)
        sides.append([side == "a" for side in left(page)])
        key = Key("", "", "", False, 0, tuple(left(page)))
        rate = counted(key, [Answers("left", ("left",) * 400)])[0].rate
        assert abs(rate.value - 0.5) < 4.5 * rate.stderr
    flat = np.concatenate(sides)
    assert binomtest(int(flat.sum()), flat.size).pvalue > 1e-5
    assert binomtest(int((flat[1:] == flat[:-1]).sum()), flat.size - 1).pvalue > 1e-5
    assert abs(np.corrcoef(sides)[0, 1:]).max() < 4.5 / 400**0.5


def test_the_same_again_and_another(runs, tmp_path):
    pages = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        page, _ = write_judging([runs / n for n in NAMES], tmp_path / f"{name}.html", Judging(pairs=12, seed=seed))
        pages[name] = page
    assert pages["a"].read_bytes() == pages["b"].read_bytes()
    assert left(pages["a"]) == left(pages["b"])
    assert data_of(pages["a"])["page"] != data_of(pages["c"])["page"]
    draws = [{pair[side] for pair in data_of(pages[name])["pairs"] for side in ("left", "right")} for name in "ac"]
    assert [len(found) for found in draws] == [24, 24]
    assert not draws[0] & draws[1]


def test_held_out_data_against_draws(capsys, runs, tmp_path):
    page = tmp_path / "real.html"
    assert pyrogen(capsys, "judge", runs / NAMES[0], "--data", "true", "--pairs", "180", "--out", page)[0] == 0
    assert "One of the two is real. Which?" in page.read_text()
    test = {(x[0].numpy() / 16 * 255).round().astype(np.uint8).tobytes() for x in digits().eval_columns("test")["x"]}
    held_out, draws = [], []
    for pair, side in zip(data_of(page)["pairs"], left(page), strict=True):
        a, b = ("left", "right") if side == "a" else ("right", "left")
        draws.append(pixels(pair[a])[..., 0].tobytes())
        held_out.append(pixels(pair[b])[..., 0].tobytes())
    assert set(held_out) == test  # each once
    assert not test & set(draws)
    out = tmp_path / "me.json"
    fooled = answer(page, out, ["right" if side == "b" else "left" for side in left(page)])
    code, printed, _ = pyrogen(capsys, "judge", "--answers", fooled, "--key", tmp_path / "real.key.json")
    assert code == 0
    assert "a was taken for real" in printed
    assert re.search(r"me +180 +0 +0 +1\.000", printed)


def test_held_out_data_are_beside_draws_of_their_own_label(monkeypatch, runs, tmp_path):
    """A stand-in for the draws is as dark as the label that it was given."""

    def as_labels(programs, size, y):
        return {"x": y.float()[:, None, None, None].expand(size, 1, 8, 8)}

    monkeypatch.setattr(judging, "simulate", as_labels)
    page, _ = write_judging([runs / "labelled"], tmp_path / "a.html", Judging(pairs=40, data=True))
    test = digits().eval_columns("test")
    of = {
        (x[0].numpy() / 16 * 255).round().astype(np.uint8).tobytes(): y
        for x, y in zip(test["x"], test["y"].tolist(), strict=True)
    }
    labels = []
    for pair, side in zip(data_of(page)["pairs"], left(page), strict=True):
        a, b = ("left", "right") if side == "a" else ("right", "left")
        labels.append((of[pixels(pair[b])[..., 0].tobytes()], round(pixels(pair[a])[0, 0, 0] / 255 * 16)))
    assert all(held_out == drawn for held_out, drawn in labels)
    assert len(set(labels)) > 5


def test_text_is_shown_as_it_is(capsys, runs, tmp_path):
    page = tmp_path / "text.html"
    options = ["--data", "true", "--pairs", "8", "--length", "30", "--out", page]
    assert pyrogen(capsys, "judge", runs / "text", *options)[0] == 0
    found = data_of(page)
    assert found["kind"] == "text"
    for pair, side in zip(found["pairs"], left(page), strict=True):
        a, b = ("left", "right") if side == "a" else ("right", "left")
        assert pair[b] in WORDS * 3
        assert len(pair[a]) == len(pair[b]) == 30
        assert set(pair[a]) <= set(WORDS)
    assert len({pair["left"] for pair in found["pairs"]}) > 1
    assert page.read_text().count("</script>") == 2  # that of the text is not the page's


def test_sounds_can_be_heard(capsys, runs, tmp_path):
    page = tmp_path / "sounds.html"
    options = ["--data", "true", "--split", "train", "--pairs", "4", "--seconds", "0.03", "--out", page]
    assert pyrogen(capsys, "judge", runs / "sounds", *options)[0] == 0
    assert '<audio id="left" controls' in page.read_text()
    for pair in data_of(page)["pairs"]:
        for side in ("left", "right"):
            (tmp_path / "a.wav").write_bytes(b64decode(pair[side].removeprefix("data:audio/wav;base64,")))
            sound = read_wav(tmp_path / "a.wav")
            assert (sound.rate, len(sound.x)) == (8000, 240)


def test_what_cannot_be_judged(capsys, runs, tmp_path):
    a, b = (str(runs / name) for name in NAMES)
    for given, said in [
        ([str(runs / "table"), "--data", "true"], "numbers of shape (4,), and no person can say which look real"),
        ([str(runs / "classifier"), b], "classifier draws no data"),
        ([a], "takes two runs, or one and --data true"),
        ([a, b, "--data", "true"], "takes two runs, or one and --data true"),
        ([a, a], "the same run is given twice"),
        ([a, str(runs / "binary")], "kind levels, levels 17 and of kind binary, levels 2: fit both"),
        ([a, str(runs / "text")], "judges would tell the runs apart"),
        ([a, b, "--pairs", "1"], "at least 2, found 1"),
        ([a, b, "--question", " "], "the question is empty"),
        ([a, b, "--split", "train"], "--split is of held-out data"),
        ([a, b, "--out", "a.txt"], "the page is an .html file"),
        ([a, b, "--length", "5"], "draws data of one shape"),
        ([a, b, "--seconds", "5"], "--seconds is for sounds"),
        ([a, b, "--key", "a.key.json"], "--key is for counting"),
        ([a, "--data", "true", "--pairs", "181"], "digits has 180 test data for 181 pairs"),
        ([a, "--data", "true", "--split", "tests"], "no split is called 'tests'"),
        ([], "give two runs to write a page"),
    ]:
        out = [] if "--out" in given else ["--out", str(tmp_path / "a.html")]
        code, _, err = pyrogen(capsys, "judge", *given, *out)
        assert (code, said in err) == (2, True), err
    assert not list(tmp_path.iterdir())
    assert pyrogen(capsys, "judge", a, runs / "missing")[0] == 66


def test_kinds_of_data_that_nobody_can_judge(runs, tmp_path):
    """Told from the manifest, before anything is loaded."""
    manifest = Run.open(runs / NAMES[0]).manifest
    spec, other = manifest["spec"], {"name": "digits", "settings": {}}
    for i, (changed, said) in enumerate(
        [
            ({"data_b": other}, "digits are a translation, whose draws are of given data, and no person can say"),
            ({"spec": spec | {"kind": "counts", "shape": [40]}}, "digits are counts of 40 words a document"),
            ({"spec": spec | {"kind": "real", "shape": [2]}}, r"numbers of shape \(2,\), and no person can say which"),
            ({"data": {**other, "name": "shapes"}}, "fitted to different data, digits and shapes"),
        ]
    ):
        run = Run.create(tmp_path / str(i), manifest | changed)
        one = "data" not in changed
        with pytest.raises(UsageError, match=said):
            write_judging([run.path] if one else [runs / NAMES[0], run.path], tmp_path / "a.html", Judging(data=one))


def test_draws_that_are_not_finite(monkeypatch, runs, tmp_path):
    monkeypatch.setattr(judging, "_draws", lambda contender, programs, how, y: torch.full((2, 1, 8, 8), torch.nan))
    with pytest.raises(DataError, match=f"{NAMES[0]}: 2 of 2 are not finite"):
        write_judging([runs / name for name in NAMES], tmp_path / "a.html", Judging(pairs=2))


def test_a_seed_of_the_fit_may_differ_and_a_key_is_kept(capsys, runs, tmp_path):
    """The splits of the data differ by then, and draws do not depend on them."""
    given = ["judge", runs / NAMES[0], runs / "other-seed", "--pairs", "4", "--out", tmp_path / "a.html"]
    assert pyrogen(capsys, *given)[0] == 0
    assert pyrogen(capsys, *given)[0] == 0
    key = (tmp_path / "a.key.json").read_bytes()
    code, _, err = pyrogen(capsys, *given, "--seed", "1")
    assert code == 2
    assert "the key of another page, whose answers could not be read without it" in err
    assert (tmp_path / "a.key.json").read_bytes() == key


# The answers


@pytest.fixture
def page(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_judging([runs / name for name in NAMES], "judge.html", Judging(pairs=20))[0].resolve()


def choices(page: Path, wins: int, ties: int) -> list[str]:
    """Prefer the first run so often, then neither, then the second."""
    other = {"left": "right", "right": "left"}
    mine = ["left" if side == "a" else "right" for side in left(page)]
    return [*mine[:wins], *["tie"] * ties, *(other[side] for side in mine[wins + ties :])]


def test_answers_are_counted(capsys, page, tmp_path, runs):
    one = answer(page, tmp_path / "one.json", choices(page, 14, 2), " Ada\n L. ")
    code, printed, _ = pyrogen(capsys, "judge", "--answers", one, "--json")
    found = json.loads(printed)
    assert code == 0
    assert (found["wins"], found["losses"], found["ties"], found["num_pairs"], found["num_judges"]) == (14, 4, 2, 20, 1)
    assert found["metrics"]["win_rate"]["value"] == 0.75
    assert found["interval"] == pytest.approx(wilson_interval(0.75, 20, ties=0.1))
    assert found["p_value"] == pytest.approx(binomtest(14, 18).pvalue)
    assert (found["a"], found["b"]) == tuple(str(runs / name) for name in NAMES)
    assert list(found["judges"]) == ["Ada L."]
    assert found["interval_of"].startswith("Wilson, of one judge's")
    assert found.pop("out") == "judge.json"
    assert json.loads((tmp_path / "judge.json").read_text()) == found
    code, printed, _ = pyrogen(capsys, "judge", "--answers", one, "--key", "judge.key.json", "--out", "new/a.json")
    assert re.search(r"Ada L\. +14 +4 +2 +0\.750 +0\.\d{3} +0\.541 to 0\.878 +0\.031\n", printed)
    assert (tmp_path / "new" / "a.json").exists()


def test_judges_are_counted_together_and_apart(capsys, page, tmp_path):
    files = [
        answer(page, tmp_path / f"{name}.json", choices(page, wins, 0), judge)
        for name, judge, wins in (("x", "Bo", 15), ("y", "", 12), ("z", "all", 18))
    ]
    code, printed, _ = pyrogen(capsys, "judge", "--answers", *files, "--json")
    found = json.loads(printed)
    assert code == 0
    assert (found["wins"], found["losses"], found["num_judges"]) == (45, 15, 3)
    assert {name: one["wins"] for name, one in found["judges"].items()} == {"Bo": 15, "y": 12, "all": 18}
    assert found["interval_of"].startswith("Wilson, by the variance between judges and between pairs")
    pooled = binomtest(45, 60).proportion_ci(method="wilson")
    assert found["interval"][1] - found["interval"][0] > pooled.high - pooled.low
    lines = pyrogen(capsys, "judge", "--answers", *files)[1].splitlines()
    assert [line.split()[0] for line in lines[5:9]] == ["Bo", "y", "all", "all"]


def test_answers_that_are_none(capsys, page, tmp_path):
    good = json.loads(answer(page, tmp_path / "good.json", choices(page, 10, 0)).read_text())
    answers, key = good["answers"], json.loads((tmp_path / "judge.key.json").read_text())

    def said(content: Any, *more: object) -> tuple[int, str]:
        (tmp_path / "bad.json").write_text(content if isinstance(content, str) else json.dumps(content))
        code, _, err = pyrogen(capsys, "judge", "--answers", tmp_path / "bad.json", *more)
        return code, err

    for content, message in [
        ("{", "this is no JSON"),
        ("[" * 100_000, "this is no JSON"),
        ("[]", "expected an object of JSON, found list"),
        (key, "these are no answers"),
        ({**good, "judge": 3}, "these are no answers"),
        ({**good, "page": "another"}, "answers to another page, 'another'"),
        ({**good, "answers": answers[:-1]}, "1 of 20 pairs are not answered: 20"),
        ({**good, "answers": answers[:3]}, "17 of 20 pairs are not answered: 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, ..."),
        ({**good, "answers": [*answers, answers[4]]}, "pair 5 is answered twice"),
        ({**good, "answers": [*answers, {"pair": 21, "choice": "tie"}]}, "there is no pair 21"),
        ({**good, "answers": [*answers, {"pair": 0, "choice": "tie"}]}, "there is no pair 0"),
        ({**good, "answers": [{"pair": True, "choice": "left"}, *answers[1:]]}, "expected a pair, and left, right"),
        ({**good, "answers": [{"pair": 1, "choice": "a"}, *answers[1:]]}, "expected a pair, and left, right or tie"),
    ]:
        code, err = said(content)
        assert (code, message in err) == (2, True), err
    code, err = said(good, tmp_path / "good.json")
    assert (code, "several files by" in err) == (0, False)  # without names, those of the files
    answer(page, tmp_path / "good.json", choices(page, 10, 0), "Bo")
    code, err = said({**good, "judge": "Bo"}, tmp_path / "good.json")
    assert (code, "several files by 'Bo': a judge counts once" in err) == (2, True)
    for bad in (good, {**key, "left": ["a"]}, {**key, "left": ["a", "c"]}, {**key, "more": 1}):
        (tmp_path / "bad.key.json").write_text(json.dumps(bad))
        code, err = said(good, "--key", tmp_path / "bad.key.json")
        assert (code, "this is no key" in err) == (2, True)
    for out in ("judge.key.json", "bad.json", "a.txt"):
        code, err = said(good, "--out", out)
        assert (code, "a .json file of their own" in err) == (2, True)
    assert pyrogen(capsys, "judge", "run", "--answers", "bad.json")[0] == 2
    for option, value in (("pairs", 10), ("data", "true"), ("seed", 0), ("device", "cpu"), ("question", "Which?")):
        code, err = said(good, f"--{option}", value)
        assert (code, f"--{option}: this is of a page" in err) == (2, True), err
    assert pyrogen(capsys, "judge", "--answers", "missing.json")[0] == 66
    assert pyrogen(capsys, "judge", "--answers", "bad.json", "--key", "missing.json")[0] == 66


# The documentation


def test_the_page_on_judging(capsys, tmp_path, monkeypatch):
    """The commands, with few steps, and two judges who say left and right."""
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parent.parent / "docs/judging.md").read_text()
    for command in re.findall(r"^pyrogen (.*)", text, re.M):
        if "--answers" in command:
            answer(Path("judge.html"), Path("answers-ada.json"), ["left"] * 50, "ada")
            answer(Path("judge.html"), Path("answers-bo.json"), ["right"] * 50, "bo")
        assert main(re.sub(r"--epochs \d+", "--steps 1 --compile off", command).split()) == 0
    assert re.search(r"all +50 +50 +0 +0\.500", capsys.readouterr().out)
    [block] = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(compile(block, "docs/judging.md", "exec"), {})
    rate, _, low, high = map(float, re.findall(r"\d\.\d\d", capsys.readouterr().out))
    assert 0.5 < low < rate < high
