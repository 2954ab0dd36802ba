"""Translations between two data sets by the command line: what is measured, shown, kept, and refused."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pyrogen import to_arviz
from pyrogen.arguments import parse_recipe
from pyrogen.cli import main
from pyrogen.data import Unpaired, from_arrays
from pyrogen.errors import ProgramError, UsageError
from pyrogen.loading import load
from pyrogen.models import Translator
from pyrogen.recipe import Recipe
from pyrogen.runs import Run
from pyrogen.spec import DataSpec
from pyrogen.translation import Translations, collapse, figures, in_rows, translations

TINY = ["--channels", "[4]", "--blocks", "0", "--objective-settings.channels", "[4]", "--batch-size", "8"]
TINY += ["--device", "cpu", "--log-every", "1", "--evaluate-every", "5"]


def pyrogen(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def save_images(folder: Path, count: int, shape: tuple[int, ...] = (8, 9), dark: bool = False) -> Path:
    folder.mkdir()
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 128, shape).astype("uint8")
        Image.fromarray(pixels if dark else 255 - pixels).save(folder / f"{i:03}.png")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    path = tmp_path_factory.mktemp("data")
    return str(save_images(path / "days", 120)), str(save_images(path / "nights", 150, dark=True))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, folders: tuple[str, str]) -> Path:
    out = tmp_path_factory.mktemp("runs") / "images"
    a, b = folders
    assert main(["train", "cyclegan", "--data", a, "--data-b", b, *TINY, "--steps", "10", "--out", str(out)]) == 0
    return out


def test_a_run_of_two_folders(run: Path, folders: tuple[str, str]) -> None:
    """The objective of the model's name; both paths, both directions and what a resumed run needs are kept."""
    manifest = Run.open(run).manifest
    assert (manifest["objective"]["name"], manifest["data"]["name"], manifest["data_b"]["name"]) == (
        "cyclegan", *folders
    )  # fmt: skip
    names = {name for row in Run.open(run).metrics() for name in row}
    assert names >= {"loss", "critic_loss", "critic_real", "critic_fake", "cycle_l1_a", "cycle_l1_b", "spacing"}
    assert "validation_minus_energy_distance" in names
    model, guide = load(run)
    assert (model.target, guide.target) == ("b", "a")
    assert model(a=torch.zeros(2, 1, 8, 9)).shape == (2, 1, 8, 9)


def test_the_command_makes_the_run_again(run: Path, tmp_path: Path) -> None:
    command = Recipe.from_json(Run.open(run).manifest).command(tmp_path / "again")
    assert main(shlex.split(command)[1:]) == 0
    again = Run.open(tmp_path / "again")
    assert again.metrics() == Run.open(run).metrics()
    assert again.manifest["fingerprint"] == Run.open(run).manifest["fingerprint"]


def test_resumed_is_the_same(run: Path, tmp_path: Path) -> None:
    """From a checkpoint in the middle, bit for bit: histories and the place in both data sets included."""
    out = tmp_path / "resumed"
    command = Recipe.from_json(Run.open(run).manifest).command(out)
    assert main(shlex.split(command)[1:]) == 0
    half = Run.open(out)
    with half.writing():
        half.rewind(half.restore(5))
    assert main(["resume", str(out)]) == 0
    assert (out / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    states = [(path / "checkpoint-00000010" / "state.safetensors").read_bytes() for path in (out, run)]
    assert states[0] == states[1]


def test_evaluate(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = pyrogen(capsys, "evaluate", str(run), "--json")
    metrics = json.loads(out)["metrics"]
    assert code == 0
    assert set(metrics) == {"cycle_l1_a", "cycle_l1_b", "energy_distance_a", "energy_distance_b"}
    assert all(figure["stderr"] > 0 for figure in metrics.values())


def test_report(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pyrogen(capsys, "evaluate", str(run))
    code, *_ = pyrogen(capsys, "report", str(run))
    page = (run / "report.html").read_text()
    assert code == 0
    for name in ("loss", "critic", "scores", "validation", "a_to_b", "b_to_a"):
        assert f'id="{name}"' in page
        assert (run / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for text in ("cycle_l1_a", "nights", "--data-b", "From b to a and back"):
        assert text in page
    assert not (run / "posterior.nc").exists()
    with pytest.raises(UsageError, match="no posterior"):
        to_arviz(run)


def test_sample_translates_held_out_data(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "translated.npz"
    assert pyrogen(capsys, "sample", str(run), "-n", "5", "--out", str(out))[0] == 0
    with np.load(out, allow_pickle=False) as found:
        assert set(found) == set(Translations._fields)
        assert all(found[name].shape == (5, 1, 8, 9) for name in found)
        model = load(run).model
        model.eval()
        expected = model(a=torch.tensor(found["a"])).detach().numpy()
        np.testing.assert_allclose(found["a_to_b"], expected, rtol=1e-4, atol=1e-3)
    assert pyrogen(capsys, "sample", str(run), "-n", "5", "--out", str(tmp_path / "t.png"))[0] == 0
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = pyrogen(capsys, "sample", str(run), "--out", str(tmp_path / "t.npy"))
    assert code == 2
    assert "use .npz" in err


def test_compare(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    command = Recipe.from_json(Run.open(run).manifest).command(other)
    assert main(shlex.split(command)[1:]) == 0
    for path in (run, other):
        pyrogen(capsys, "evaluate", str(path))
    code, out, _ = pyrogen(capsys, "compare", str(run), str(other), "--out", str(tmp_path / "c.html"), "--json")
    assert code == 0
    assert set(json.loads(out)["runs"]["other"]) >= {"cycle_l1_a", "energy_distance_b"}


def test_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two arrays; a picture of the first two values; no held-out data at all."""
    for name, shift in (("one", 0.0), ("two", 3.0)):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).normal(shift, 1, (50, 3)).astype("float32"))
    out = tmp_path / "run"
    data = ["--data", str(tmp_path / "one.npy"), "--data-b", str(tmp_path / "two.npy"), "--hidden", "[8]"]
    options = ["--steps", "3", "--validation", "0", "--test", "0", "--batch-size", "64", "--out", str(out)]
    assert pyrogen(capsys, "train", "cyclegan", *data, *options)[0] == 0
    assert pyrogen(capsys, "report", str(out))[0] == 0
    assert 'id="a_to_b"' in (out / "report.html").read_text()
    code, _, err = pyrogen(capsys, "evaluate", str(out))
    assert code == 2
    assert "the test split has no rows of a" in err
    assert pyrogen(capsys, "evaluate", str(out), "--split", "train")[0] == 0
    np.save(tmp_path / "two.npy", np.full((50, 3), 0.5, "float32"))
    code, _, err = pyrogen(capsys, "resume", str(out))
    assert code == 65
    assert "one.npy' and '" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cyclegan", "--data", "digits"], "--data digits is one: give the other by --data-b"),
        (["vae", "--data", "digits", "--data-b", "digits"], "vae takes neither: leave it out"),
        (["cyclegan", "--data-b", "digit"], "unknown data 'digit'; did you mean digits?"),
        (["cyclegan", "--data", "iris", "--data-b", "digits"], "one shape"),
        (["cyclegan", "--data", "digits", "--data-b", "digits", "--objective", "elbo"], "are for --objective cyclegan"),
        (["cyclegan", "--data", "iris", "--data-b", "iris", "--network", "resnet"], "use --network mlp"),
        (["vae", "--data", "digits", "--objective", "cyclegan"], "found columns x: give --data and --data-b"),
    ],
)
def test_what_does_not_fit(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = pyrogen(capsys, "train", *arguments, "--steps", "2", "--out", str(tmp_path / "run"))
    assert code in (2, 65)
    assert message in err
    assert "Traceback" not in err


def test_both_domains_are_prepared_alike(folders: tuple[str, str], tmp_path: Path) -> None:
    """Settings of the first are those of the second, as far as it has them; a size makes unequal images equal."""
    save_images(tmp_path / "wide", 30, (8, 20))
    arguments = ["cyclegan", "--data", folders[0], "--data-b", str(tmp_path / "wide"), "--size", "8"]
    recipe, _ = parse_recipe([*arguments, "--validation", "0.2"])
    data = recipe.dataset()
    assert isinstance(data, Unpaired)
    assert data.spec.shape == (1, 8, 8)
    assert (data.a.num_data("validation"), data.b.num_data("validation")) == (24, 6)
    recipe, _ = parse_recipe(["cyclegan", "--data", folders[0], "--data-b", "digits", "--pixels", "dequantized"])
    assert recipe.data_b is not None
    assert recipe.data_b.settings["pixels"] == "dequantized"
    assert "size" not in recipe.data_b.settings


def test_old_manifests_are_of_one_data_set(run: Path) -> None:
    manifest = dict(Run.open(run).manifest)
    del manifest["data_b"]
    assert Recipe.from_json(manifest).data_b is None


@pytest.mark.parametrize(
    ("arguments", "objective"),
    [(["cyclegan"], "cyclegan"), (["vae"], "elbo"), (["cyclegan", "--objective", "gan"], "gan")],
)
def test_the_usual_objective(arguments: list[str], objective: str) -> None:
    assert parse_recipe([*arguments, "--data-b", "digits"])[0].objective.name == objective


# Figures against what is known


class Plus(nn.Module):
    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.shift


def shifted(there: float = 1.0, back: float = -1.0, **settings: Any) -> Translations:
    """Data b are a + 1; translations add and subtract."""
    x = np.random.default_rng(0).normal(size=(40, 2)).astype("float32")
    data = Unpaired(*(from_arrays({"x": x + i}, name=name, test=0.5) for i, name in enumerate("ab")))
    spec = DataSpec((2,), "real")
    model, guide = Translator(Plus(there), spec, "b"), Translator(Plus(back), spec, "a")
    return translations(model, guide, data, "test", **settings)


def check_figures(found: Translations) -> None:
    """Exact translations: the cycles are closed, and draws are the data themselves.

    The unbiased estimate of the energy distance of 20 data to themselves: the mean distance is counted over 400 pairs
    between, and over 380 within: 2 m - 2 m 400 / 380, below zero.
    """
    measured = {name: estimate.value for name, estimate in figures(found, DataSpec((2,), "real")).items()}
    m = float(torch.cdist(found.a, found.a).mean())
    expected = {"cycle_l1_a": 0.0, "cycle_l1_b": 0.0, "energy_distance_a": -m / 9.5, "energy_distance_b": -m / 9.5}
    assert measured == pytest.approx(expected, abs=1e-5)


def test_figures_of_the_true_translation() -> None:
    found = shifted()
    torch.testing.assert_close(found.a_to_b, found.b)
    check_figures(found)
    assert collapse(found, DataSpec((2,), "real")) == pytest.approx({"spacing": 1.0, "coverage": 1.0}, abs=1e-5)
    assert len(shifted(count=7).b_to_b) == 7


@pytest.mark.parametrize(("there", "back", "cycle"), [(3.0, -1.0, 2.0), (-1.0, 1.0, 0.0), (3.0, -3.0, 0.0)])
def test_mutant_wrong_translations(there: float, back: float, cycle: float) -> None:
    """Some close the cycle all the same, and only the distance to the other domain tells."""
    found = shifted(there, back)
    measured = figures(found, DataSpec((2,), "real"))
    assert measured["cycle_l1_a"].value == pytest.approx(cycle, abs=1e-5)
    assert measured["energy_distance_b"].value > 0.5
    with pytest.raises(AssertionError):
        check_figures(found)


def test_collapse_is_the_worse_directions() -> None:
    found = shifted()
    alike = found._replace(b_to_a=torch.zeros_like(found.b_to_a))
    assert collapse(alike, DataSpec((2,), "real"))["spacing"] == 0
    alike = found._replace(a_to_b=torch.zeros_like(found.a_to_b))
    assert collapse(alike, DataSpec((2,), "real"))["spacing"] == 0


def test_a_handful_of_images(tmp_path: Path) -> None:
    """Two held-out images of either domain are too few to have neighbours, and enough to go on."""
    a, b = save_images(tmp_path / "a", 20), save_images(tmp_path / "b", 20, dark=True)
    out = tmp_path / "run"
    arguments = ["--data", str(a), "--data-b", str(b), *TINY, "--steps", "5", "--out", str(out)]
    assert main(["train", "cyclegan", *arguments]) == 0
    names = {name for row in Run.open(out).metrics() for name in row}
    assert "cycle_l1_a" in names
    assert "spacing" not in names


def test_figures_in_units_of_one() -> None:
    """Levels 0 to 16 are scaled to [-1, 1]: four levels are a half."""
    x = torch.zeros(3, 1)
    found = Translations(x, x, x, x, x + 4, x + 8)
    measured = figures(found, DataSpec((1,), "levels", levels=17))
    assert (measured["cycle_l1_a"].value, measured["cycle_l1_b"].value) == (0.5, 1.0)


def test_there_must_be_a_way_back() -> None:
    with pytest.raises(UsageError, match="no program that leads back"):
        translations(Translator(nn.Identity(), DataSpec((2,), "real")), None, shifted_data(), "test")
    with pytest.raises(ProgramError, match="pass a="):
        Translator(nn.Identity(), DataSpec((2,), "real"))(b=torch.zeros(1, 2))


def shifted_data() -> Unpaired:
    x = np.zeros((10, 2), "float32")
    return Unpaired(from_arrays({"x": x}, name="a"), from_arrays({"x": x}, name="b"))


@pytest.mark.parametrize(("count", "columns", "expected"), [(3, 10, [0, 1, 2, 10, 11, 12]), (5, 2, [0, 1, 10, 11])])
def test_rows_of_a_picture(count: int, columns: int, expected: list[int]) -> None:
    """Fewer than a row, and a rest that would not fill one."""
    series = torch.arange(count), torch.arange(count) + 10
    assert in_rows(columns, *series)[: len(expected)].tolist() == expected
    assert len(in_rows(columns, *series)) == 2 * (count if count < columns else count // columns * columns)
