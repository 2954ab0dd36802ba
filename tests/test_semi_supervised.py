"""Semi-supervised learning by the command line, and on codes."""

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrogen import catalogue
from pyrogen.cli import main
from pyrogen.data import Dataset, digits, keep_labels, standardize
from pyrogen.distributions import Implicit
from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation import guide_accuracy
from pyrogen.loading import load
from pyrogen.models import vae
from pyrogen.recipe import Recipe
from pyrogen.runs import Run
from pyrogen.spec import DataSpec
from pyrogen.stacking import encoded, features


def shifting(x):
    """A guide of two latents, of which the second knows nothing of the datum."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.flatten(1).mean(1), 0.5))
        pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))


def test_codes_are_data():
    data = digits(labels=50)
    codes = encoded(shifting, data)
    assert codes.spec.shape == (1,)
    assert (codes.spec.kind, codes.spec.num_classes, codes.spec.num_labelled) == ("real", 10, 50)
    for split in ("train", "validation", "test"):
        assert torch.equal(codes.split(split)["y"], data.split(split)["y"])
    mean = data.eval_columns("test")["x"].flatten(1).mean(1)
    torch.testing.assert_close(codes.eval_columns("test")["x"][:, 0], mean)


def test_codes_are_drawn_anew_for_training():
    """Of 200 draws for each datum the mean is the guide's, and the scale 0.5, within 4.5 standard errors."""
    data = digits()
    codes, count = encoded(shifting, data), 200
    batches = codes.batches(2000, shuffle=False)
    pyro.set_rng_seed(0)
    draws = torch.stack([next(iter(batches))["x"][:, 0] for _ in range(count)])
    mean = data.eval_columns("train")["x"].flatten(1).mean(1)
    total = len(mean) * count
    assert abs((draws - mean).mean()) < 4.5 * 0.5 / total**0.5
    assert abs((draws - mean).std() - 0.5) < 4.5 * 0.5 / (2 * total) ** 0.5
    assert torch.equal(codes.eval_columns("train")["x"], codes.eval_columns("train")["x"])


def test_guides_that_encode_nothing_are_refused():
    def blind(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0).expand([len(x)]))

    def implicit(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", Implicit(lambda shape: torch.zeros(*shape, 2), event_shape=(2,), batch_shape=(len(x),)))

    with pytest.raises(ProgramError, match="no latent's mean"):
        encoded(blind, digits())
    with pytest.raises(ProgramError, match="'z' has no mean"):
        encoded(implicit, digits())
    with pytest.raises(UsageError, match="no validation data"):
        encoded(shifting, digits(validation=0.0))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name what the package's own metadata name, whether or not it was installed since."""
    found = catalogue._installed
    ours = {
        "model": {"m2": EntryPoint("m2", "pyrogen.models:m2", "pyrogen.models")},
        "data": {"features": EntryPoint("features", "pyrogen.stacking:features", "pyrogen.data")},
    }
    monkeypatch.setattr(catalogue, "_installed", lambda kind: found(kind) | ours.get(kind, {}))


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = "--latent 4 --hidden [16] --steps 10"
    assert main(f"train vae --out m1 {tiny} --learning-rate 0.02".split()) == 0
    assert main(f"train m2 --data features --run m1 --labels 50 --out m1-m2 {tiny}".split()) == 0
    assert main(f"train m2 --labels 50 --class-weight 20 --out m2 {tiny}".split()) == 0
    for run in ("m1-m2", "m2"):
        capsys.readouterr()
        assert main(f"evaluate {run} --num-particles 2 --json".split()) == 0
        metrics = json.loads(capsys.readouterr().out)["metrics"]
        assert 0 <= metrics["accuracy"]["value"] <= 1
        opened = Run.open(run)
        data = Recipe.from_json(opened.manifest).dataset_of(opened.manifest)
        right = guide_accuracy(load(opened).guide, [data.eval_columns("test")])
        assert metrics["accuracy"]["value"] == pytest.approx(right.value, abs=1e-9)
        assert main(f"sample {run} --number 3 --out {run}.npz".split()) == 0
        assert main(f"report {run}".split()) == 0
    assert main(["train", "classifier", "--out", "c", "--steps", "2"]) == 0
    with pytest.raises(UsageError, match="no guide"):
        features(run="c")


def test_a_vae_encodes():
    data = digits()
    _, guide = vae(data.spec, latent=4, hidden=(8,))
    codes = encoded(guide, data)
    x = data.eval_columns("test")["x"]
    means = guide.posterior(x).mean
    kept = guide.posterior(data.eval_columns("train")["x"]).mean.var(0) > 0.01
    torch.testing.assert_close(codes.eval_columns("test")["x"], means[:, kept])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["classifier", "--data", "iris", "--labels", "9"], "learns from data that all have labels"),
        (["vae", "--data", "table.npy", "--missing", "true"], "vae reads no data that lack values"),
    ],
)
def test_models_that_need_all_labels_or_values_say_so(options, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(40, 3))
    np.save("table.npy", np.where(x > 1, np.nan, x))
    assert main(["train", *options, "--steps", "2"]) == 2
    assert says in capsys.readouterr().err


def test_labels_that_are_missing_do_not_count():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=torch.eye(2)[(x[:, 0] > 0).long()]))

    batch = {"x": torch.tensor([[1.0], [1.0], [-1.0], [1.0]]), "y": torch.tensor([1, 0, -1, -1])}
    assert guide_accuracy(guide, [batch]).value == 0.5


def test_few_of_few_labels_are_kept():
    few = keep_labels(keep_labels(digits(), 50), 20, seed=1)
    assert int((few.train["y"] >= 0).sum()) == 20 == few.spec.num_labelled
    with pytest.raises(UsageError, match="expected 1 to 20"):
        keep_labels(few, 21)


def test_values_that_no_training_row_has_stay_as_they_are():
    x = torch.tensor([[1.0, torch.nan], [3.0, torch.nan]])
    held_out = {"x": torch.tensor([[2.0, 5.0]])}
    data = standardize(Dataset("t", {"x": x}, held_out, held_out, DataSpec((2,), "real")))
    assert data.test["x"].tolist() == [[0.0, 5.0]]


def test_what_compared_draws_completes_nothing(tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["train", "vae", "--objective", "mmd", "--data", "iris", "--steps", "2", "--out", run]) == 0
    assert main(["complete", run]) == 2
    assert "did not fit the density" in capsys.readouterr().err
