"""`pyrogen outliers` as a person meets it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pyrogen.cli import main
from pyrogen.data import digits
from pyrogen.evaluation import auroc
from pyrogen.loading import load
from pyrogen.recipe import Recipe
from pyrogen.runs import Run

MADE = ["made", "--hidden", "[8]", "--steps", "10", "--device", "cpu"]
TINY = ["--latent", "2", "--hidden", "[8]", "--device", "cpu", "--steps", "2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, options in {
        "model": [],
        "background": ["--mutate", "0.2"],
        "member": ["--seed", "1", "--data-seed", "0"],
        "cut": ["--seed", "1"],
        "binary": ["--pixels", "threshold"],
        "no-validation": ["--validation", "0"],
    }.items():
        assert main(["train", *MADE, *options, "--out", str(folder / name)]) == 0
    x = digits().test["x"].numpy()[:40, 0]
    np.save(folder / "turned.npy", np.ascontiguousarray(np.rot90(x, axes=(1, 2))))
    return folder


def outliers(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["outliers", *map(str, arguments), "--device", "cpu"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_background_learns_from_mutated_batches(runs: Path) -> None:
    """Uniform draws among the values cost the same initial model nats from its first step on."""
    clean, mutated = (Run.open(runs / name).metrics()[0]["loss"] for name in ("model", "background"))
    assert mutated > clean + 5


def test_all_scores_at_once(capsys: pytest.CaptureFixture[str], runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "scores.csv"
    given = [runs / "model", runs / "turned.npy", "--background", runs / "background", "--ensemble", runs / "member"]
    code, printed, _ = outliers(capsys, *given, "--out", out, "--json", "-n", "3")
    assert code == 0
    found = json.loads(printed)
    names = ["likelihood", "ratio", "typicality", "waic"]
    assert list(found["metrics"]) == [f"auroc_{name}" for name in names]
    assert (found["num_data"], found["num_inliers"], found["score"], found["split"]) == (40, 180, "waic", "test")
    assert all(0 < figure["stderr"] < 0.1 for figure in found["metrics"].values())
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["set"] for row in rows] == ["inlier"] * 180 + ["ranked"] * 40
    scores = {
        name: {of: torch.tensor([float(row[name]) for row in rows if row["set"] == of]) for of in ("inlier", "ranked")}
        for name in names
    }
    for name, of in scores.items():
        assert auroc(of["inlier"], of["ranked"]).value == pytest.approx(found["metrics"][f"auroc_{name}"]["value"])
    most = scores["waic"]["ranked"].topk(3)
    assert [datum["row"] for datum in found["most_outlying"]] == most.indices.tolist()
    assert (
        outliers(capsys, *given, "--json", "-n", "3")[1]
        == json.dumps({k: v for k, v in found.items() if k != "out"}) + "\n"
    )


def test_scores_are_those_of_the_rows_of_the_file(
    capsys: pytest.CaptureFixture[str], runs: Path, tmp_path: Path
) -> None:
    """Against the programs themselves, called with the file's rows in their order."""
    out = tmp_path / "scores.csv"
    others = ["--background", runs / "background", "--ensemble", runs / "member"]
    assert outliers(capsys, runs / "model", runs / "turned.npy", *others, "--out", out)[0] == 0
    rows = [row for row in csv.DictReader(out.read_text().splitlines()) if row["set"] == "ranked"]
    x = torch.from_numpy(np.load(runs / "turned.npy")).float().unsqueeze(1)
    usual = digits().eval_columns("validation")["x"]
    with torch.no_grad():
        models = {name: load(runs / name).model for name in ("model", "background", "member")}
        log_p = {name: model.distribution(len(x)).log_prob(x) for name, model in models.items()}
        mean = models["model"].distribution(len(usual)).log_prob(usual).mean()
    a, b = log_p["model"], log_p["member"]
    expected = {
        "likelihood": -a,
        "ratio": log_p["background"] - a,
        "typicality": (a - mean).abs(),
        "waic": (a - b).square() / 2 - (a + b) / 2,
    }
    for name, scores in expected.items():
        assert torch.allclose(torch.tensor([float(row[name]) for row in rows]), scores, atol=2e-3), name


def test_what_a_person_reads(capsys: pytest.CaptureFixture[str], runs: Path) -> None:
    given = [runs / "model", runs / "turned.npy"]
    code, printed, _ = outliers(capsys, *given, "--background", runs / "background")
    lines = printed.splitlines()
    assert code == 0
    assert lines[0] == "inliers: 180 test data of digits; taken as outliers: all 40 data of turned"
    assert "probability that an outlier scores higher" in lines[2]
    assert "most outlying by ratio:" in lines
    assert len(lines) - lines.index("most outlying by ratio:") == 12
    assert "most outlying by typicality:" in outliers(capsys, *given, "--score", "typicality")[1]


def test_own_data_are_ranked_alone(capsys: pytest.CaptureFixture[str], runs: Path) -> None:
    code, printed, _ = outliers(capsys, runs / "model", "digits", "--json")
    found = json.loads(printed)
    assert code == 0
    assert found["metrics"] == {}
    assert found["num_data"] == 180
    scores = [datum["score"] for datum in found["most_outlying"]]
    assert scores == sorted(scores, reverse=True)


def test_latents_are_summed_over_by_importance(capsys: pytest.CaptureFixture[str], runs: Path, tmp_path: Path) -> None:
    assert main(["train", "vae", *TINY, "--out", str(tmp_path / "vae")]) == 0
    figures = []
    for _ in range(2):
        code, printed, _ = outliers(capsys, tmp_path / "vae", runs / "turned.npy", "--num-particles", "5", "--json")
        assert code == 0
        figures.append(json.loads(printed)["metrics"]["auroc_likelihood"])
    assert figures[0] == figures[1]


def test_a_background_is_recorded_and_made_again(runs: Path) -> None:
    recipe = Recipe.from_json(Run.open(runs / "background").manifest)
    assert recipe.training.mutate == 0.2
    assert "--mutate 0.2" in recipe.command(Path("run"))
    member = Recipe.from_json(Run.open(runs / "member").manifest)
    assert (member.seed, member.data.settings["seed"]) == (1, 0)
    assert "--seed 1" in member.command(Path("run"))
    assert "--data-seed 0" in member.command(Path("run"))
    prints = {name: Run.open(runs / name).manifest["fingerprint"] for name in ("model", "background", "member", "cut")}
    assert prints["model"] == prints["background"] == prints["member"] != prints["cut"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["model", "turned.npy", "--score", "ratio"], "give --background RUN"),
        (["model", "turned.npy", "--score", "waic"], "give --ensemble RUN"),
        (["model", "turned.npy", "--score", "magic"], "unknown score 'magic'"),
        (["model", "turned.npy", "--background", "model"], "the same run is given twice"),
        (["model", "turned.npy", "--background", "cut"], "in another cut"),
        (["model", "turned.npy", "--background", "binary"], "of kind binary, levels 2"),
        (["model", "turned.npy", "--split", "tset"], "no split is called 'tset'"),
        (["model", "turned.npy", "--num-particles", "0"], "num_particles must be at least 1"),
        (["model", "turned.npy", "--out", "scores.txt"], "written to .csv"),
        (["model", "iris"], "is prepared as the run's data, digits, were"),
        (["model", "shapes"], "shapes are data of shape"),
        (["no-validation", "turned.npy", "--score", "typicality"], "fit with --validation above 0"),
        (["no-validation", "turned.npy", "--split", "validation"], "no validation data to compare with"),
    ],
)
def test_what_is_refused(capsys: pytest.CaptureFixture[str], runs: Path, arguments: list[str], says: str) -> None:
    known = {path.name for path in runs.iterdir()}
    code, printed, err = outliers(capsys, *(runs / word if word in known else word for word in arguments))
    assert code == 2
    assert says in err
    assert not printed


@pytest.mark.parametrize(
    ("train", "says"),
    [
        (["generator", *TINY, "--objective", "gan"], "its draws have no density"),
        (["vae", "--data", "iris", *TINY, "--objective", "mmd"], "did not fit its density"),
        (["classifier", "--steps", "2", "--device", "cpu"], "it gives labels a probability"),
        (
            ["gated-pixelcnn", "--channels", "2", "--layers", "1", "--steps", "1", "--conditional", "true"],
            "their labels",
        ),
        (["dirichlet-process-mixture", "--data", "iris", "--steps", "2"], "its latents are shared by all data"),
        (["char-rnn", "--data", "TEXT", "--hidden", "4", "--steps", "1"], "text is a text"),
        (["lda", "--data", "TEXTS", "--topics", "2", "--steps", "1"], "texts is documents"),
        (["cyclegan", "--data", "ring", "--data-b", "ring", "--steps", "1"], "is a translation"),
    ],
)
def test_fits_that_cannot_tell(
    capsys: pytest.CaptureFixture[str], runs: Path, tmp_path: Path, train: list[str], says: str
) -> None:
    (tmp_path / "text.txt").write_text("the cat sat on the mat, and the dog sat on the log. " * 60)
    (tmp_path / "texts").mkdir()
    for i in range(30):
        (tmp_path / "texts" / f"{i}.txt").write_text("cat dog cat" if i % 2 else "bond stock bond")
    paths = {"TEXT": tmp_path / "text.txt", "TEXTS": tmp_path / "texts"}
    run = tmp_path / "run"
    assert main(["train", *(str(paths.get(word, word)) for word in train), "--out", str(run)]) == 0
    code, _, err = outliers(capsys, run, runs / "turned.npy")
    assert code == 2, err
    assert says in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["vae", "--latent", "2", "--hidden", "[8]", "--mutate", "1.5"], "mutate=1.5"),
        (["ppca", "--data", "iris", "--mutate", "0.2"], "iris cannot be mutated"),
        (["cyclegan", "--data", "ring", "--data-b", "ring", "--mutate", "0.2"], "a translation has two"),
    ],
)
def test_data_that_are_not_mutated(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], says: str
) -> None:
    assert main(["train", *arguments, "--steps", "1", "--out", str(tmp_path / "run")]) == 2
    assert says in capsys.readouterr().err
