"""Held-out data whose missing part is drawn: masks, the command, what it refuses."""

import json
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch

from pyrogen import catalogue
from pyrogen.cli import main
from pyrogen.completion import mask_of
from pyrogen.errors import DataError, UsageError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "made"
    words = f"train made --data digits --pixels threshold --hidden [32] --steps 20 --compile off --out {out}"
    assert main(words.split()) == 0
    return out


def complete(run, *words, capsys):
    assert main(["complete", str(run), "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("mask", ["bottom", "top", "left", "right", "random:0.3"])
def test_what_is_known_stays(run, mask, tmp_path, capsys):
    out = tmp_path / "found.npz"
    sweeps = () if mask == "bottom" else ("--sweeps", "1")
    words = ("--mask", mask, "-n", "3", "--draws", "2", *sweeps, "--out", str(out))
    said = complete(run, *words, capsys=capsys)
    how = {"method": "exact" if mask == "bottom" else "gibbs", "exact": mask == "bottom"}
    assert said == {"out": str(out), **how, "shape": [2, 3, 1, 8, 8]}
    with np.load(out) as found:
        x, missing, completed = (found[name] for name in ("x", "missing", "completed"))
    assert 0 < missing.mean() < 1
    assert (completed == x)[:, ~missing].all()
    assert set(np.unique(completed)) <= {0.0, 1.0}


def test_a_mask_from_a_file(run, tmp_path, capsys):
    mask = np.zeros((1, 8, 8), dtype=np.uint8)
    mask[0, 7, 7] = 1
    np.save(tmp_path / "mask.npy", mask)
    out = tmp_path / "found.npz"
    assert complete(run, "--mask", str(tmp_path / "mask.npy"), "--out", str(out), capsys=capsys)["exact"]
    with np.load(out) as found:
        assert found["missing"].sum(axis=(1, 2, 3)).tolist() == [1] * 8


def test_images_are_drawn_in_columns(run, capsys):
    said = complete(run, "-n", "4", "--draws", "2", capsys=capsys)
    assert said["out"] == str(run / "completions.png")
    assert (run / "completions.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_draws_the_same(run, tmp_path, capsys):
    found = []
    for seed in (0, 0, 1):
        complete(run, "--seed", str(seed), "--out", str(tmp_path / "a.npz"), capsys=capsys)
        with np.load(tmp_path / "a.npz") as arrays:
            found.append(arrays["completed"])
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--mask", "middle"], "expected one of top, bottom, left, right, random:SHARE, FILE"),
        (["--mask", "missing"], "nothing is missing"),
        (["--mask", "random:2"], "expected a share above 0 and at most 1"),
        (["--mask", "nowhere.npy"], "nowhere.npy"),
        (["--out", "x.gif"], ".npz or .png"),
        (["--number", "0"], "number must be at least 1"),
        (["--draws", "0"], "draws must be at least 1"),
        (["--sweeps", "-1"], "sweeps must be at least 0"),
        (["--split", "rest"], "rest"),
    ],
)
def test_what_cannot_be_done_is_said(run, words, says, capsys):
    assert main(["complete", str(run), *words]) in (2, 65, 66)
    assert says in capsys.readouterr().err


def test_other_models_are_refused_with_the_reason(tmp_path, capsys):
    train = "train vae --hidden [8] --encoder deterministic --objective wae --data digits --pixels threshold --steps 5"
    assert main(f"{train} --compile off --out {tmp_path / 'wae'}".split()) == 0
    assert main(["complete", str(tmp_path / "wae")]) == 2
    assert "depend on 'z'" in capsys.readouterr().err


@pytest.fixture(scope="module", params=["generator --hidden [8]", "dcgan --channels [8] --conditional true"])
def implicit(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "implicit"
    train = f"train {request.param} --latent 4 --data digits --objective mmd --steps 5 --compile off --out {out}"
    assert main(train.split()) == 0
    return out


@pytest.mark.slow
def test_implicit_models_complete_by_a_search(implicit, tmp_path, capsys):
    out = tmp_path / "found.npz"
    words = ("--mask", "random:0.5", "-n", "3", "--starts", "2", "--noise", "0.5", "--out", str(out))
    said = complete(implicit, *words, capsys=capsys)
    assert (said["method"], said["exact"], said["shape"]) == ("latent-search", False, [1, 3, 1, 8, 8])
    with np.load(out) as found:
        x, missing, completed, generated = (found[name] for name in ("x", "missing", "completed", "generated"))
    assert (completed == x)[:, ~missing].all()
    assert (completed == generated)[:, missing].all()
    known = np.where(missing, 0.0, generated - x).reshape(3, -1)
    error = np.sqrt((known**2).sum(1) / (~missing).reshape(3, -1).sum(1))
    assert said["metrics"]["known_rmse"]["value"] == pytest.approx(error.mean(), rel=1e-4)
    assert said["metrics"]["known_rmse"]["value"] < said["metrics"]["start_rmse"]["value"]
    assert said["beyond_nearest_training"] == 3  # after five steps
    assert complete(implicit, *words, capsys=capsys) == said


def test_a_search_says_what_it_is(implicit, capsys):
    assert main(["complete", str(implicit), "-n", "2", "--starts", "2"]) == 0
    said = capsys.readouterr().out
    assert "no draw of a posterior" in said
    assert "root mean squared error on the known elements" in said
    assert "another training datum is nearer to 2 of 2" in said
    assert (implicit / "completions.png").read_bytes().startswith(b"\x89PNG")


def test_options_of_another_way_are_refused(run, implicit, capsys):
    for of, words, says in (
        (implicit, ["--draws", "3"], "has one completion of each datum"),
        (implicit, ["--noise", "0"], "must be positive"),
        (implicit, ["--starts", "0"], "starts must be at least 1"),
        (implicit, ["--sweeps", "5"], "leave --sweeps out"),
        (run, ["--noise", "1"], "leave --noise out"),
        (run, ["--starts", "16"], "leave --starts out"),
        (run, ["--mask", "bottom", "--sweeps", "1"], "leave --sweeps out"),
    ):
        assert main(["complete", str(of), *words]) == 2
        assert says in capsys.readouterr().err


@pytest.mark.slow
def test_where_nothing_is_known_there_is_no_error(implicit, capsys):
    """And not one of zero."""
    said = complete(implicit, "--mask", "random:1", "-n", "2", "--starts", "2", capsys=capsys)
    assert "metrics" not in said
    assert said["beyond_nearest_training"] == 0
    assert main(["complete", str(implicit), "--mask", "random:1", "-n", "2", "--starts", "2"]) == 0
    assert "nothing is known of 2 of 2" in capsys.readouterr().out


def test_reals_are_searched_for_in_their_own_scale(tmp_path, capsys):
    np.save(tmp_path / "table.npy", 100 * np.random.default_rng(0).normal(size=(60, 3)).astype("float32"))
    train = f"train generator --data {tmp_path / 'table.npy'} --hidden [8] --objective mmd --steps 3 --compile off"
    assert main(f"{train} --out {tmp_path / 'run'}".split()) == 0
    capsys.readouterr()
    said = complete(tmp_path / "run", capsys=capsys)
    assert said["shape"] == [1, 6, 3]
    assert said["metrics"]["start_rmse"]["value"] > 10


def test_a_vae_completes_by_its_posterior(tmp_path, capsys):
    out = tmp_path / "vae"
    assert main(f"train vae --data digits --pixels threshold --hidden [8] --steps 5 --out {out}".split()) == 0
    capsys.readouterr()
    words = ("--mask", "top", "-n", "3", "--draws", "2", "--sweeps", "1", "--out", str(tmp_path / "found.npz"))
    said = complete(out, *words, capsys=capsys)
    out = str(tmp_path / "found.npz")
    figures = said.pop("metrics")
    assert said == {"out": out, "method": "posterior", "exact": False, "shape": [2, 3, 1, 8, 8]}
    assert 1 <= figures["effective_particles_min"]["value"] <= figures["effective_particles"]["value"] <= 5000
    with np.load(tmp_path / "found.npz") as found:
        x, missing, completed = (found[name] for name in ("x", "missing", "completed"))
    assert (completed == x)[:, ~missing].all()
    assert set(np.unique(completed)) <= {0.0, 1.0}


@pytest.fixture
def with_miwae(monkeypatch):
    """Know the entry even where the package was installed before it had one."""
    entry = EntryPoint("miwae", "pyrogen.models:miwae", "pyrogen.models")
    installed = catalogue._installed
    monkeypatch.setattr(
        catalogue, "_installed", lambda kind: installed(kind) | ({"miwae": entry} if kind == "model" else {})
    )


@pytest.mark.slow
def test_a_table_with_missing_values_from_the_command_line(with_miwae, tmp_path, capsys):
    """Trained on a table with NaN, measured, drawn from, and filled in."""
    x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    x[::2, 1] = np.nan
    np.save(tmp_path / "table.npy", x)
    out = tmp_path / "run"
    words = f"train miwae --data {tmp_path / 'table.npy'} --missing true --hidden [8] --latent 2 --steps 10 --out {out}"
    assert main([*words.split(), "--num_particles", "5"]) == 0
    assert "16% missing" in capsys.readouterr().err
    assert main(["evaluate", str(out), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["metrics"]
    assert all(np.isfinite(figures[name]["value"]) for name in ("elbo", "iwae"))
    assert main(["report", str(out)]) == 0
    assert main(["sample", str(out)]) == 0
    capsys.readouterr()
    complete(out, "-n", "6", "--mask", "left", "--split", "train", capsys=capsys)
    with np.load(out / "completions.npz") as found:
        assert np.isfinite(found["completed"]).all()
        assert found["missing"][:, 0].all()
        assert (found["missing"][:, 1] == np.isnan(found["x"][:, 1])).all()
        known = ~found["missing"]
        assert (found["completed"][:, known] == found["x"][known]).all()
    assert main(["complete", str(out), "--mask", "left", "--sweeps", "5"]) == 2
    assert "leave --sweeps out" in capsys.readouterr().err
    assert main(["complete", str(out), "--mask", "left", "-n", "6", "--draws", "600"]) == 0
    said = capsys.readouterr().out
    assert "weighed, 1 round\n" in said
    assert "equal weights of 5,000 on average" in said
    assert "less than 10 for each draw of 6 of 6" in said
    complete(out, "-n", "6", "--mask", "missing", "--split", "train", capsys=capsys)
    with np.load(out / "completions.npz") as found:
        assert (found["missing"] == np.isnan(found["x"])).all()
        assert np.isfinite(found["completed"]).all()


def test_tables_with_nan_are_refused_where_none_is_meant(tmp_path, capsys):
    np.save(tmp_path / "table.npy", np.array([[1.5, np.nan], [2.0, 1.0], [0.5, 3.0]]))
    assert main(["train", "vae", "--data", str(tmp_path / "table.npy"), "--out", str(tmp_path / "run")]) == 65
    assert "missing=true, for a model such as miwae" in capsys.readouterr().err


def test_latents_that_all_data_share_complete_nothing(tmp_path, capsys):
    np.save(tmp_path / "table.npy", np.random.default_rng(0).normal(size=(40, 2)).astype("float32"))
    for model, code in (("dirichlet-process-mixture --components 3", 2), ("ppca --latent 1", 0)):
        out = tmp_path / model.split()[0]
        assert main(f"train {model} --data {tmp_path / 'table.npy'} --steps 3 --compile off --out {out}".split()) == 0
        assert main(["complete", str(out)]) == code
    assert "says nothing of a part of a datum given the rest" in capsys.readouterr().err


def test_halves_and_files_of_the_wrong_shape(tmp_path):
    assert mask_of("right", 2, (4,)).tolist() == [[False, False, True, True]] * 2
    with pytest.raises(UsageError, match="have no top"):
        mask_of("top", 1, (4,))
    np.save(tmp_path / "mask.npy", np.ones((3, 3)))
    with pytest.raises(DataError, match=r"expected that of a datum, \(1, 8, 8\)"):
        mask_of(str(tmp_path / "mask.npy"), 2, (1, 8, 8))
    np.savez(tmp_path / "two.npz", x=np.ones((4, 2)), y=np.arange(4))
    with pytest.raises(DataError, match="a mask is one"):
        mask_of(str(tmp_path / "two.npz"), 2, (4,))
    assert torch.equal(mask_of("random:0.5", 3, (9,), 1), mask_of("random:0.5", 3, (9,), 1))


@pytest.mark.slow
def test_samples_given_labels_keep_them(tmp_path, capsys):
    out = tmp_path / "gated"
    train = "train gated-pixelcnn --data digits --pixels threshold --conditional true --channels 4 --layers 1 --steps 5"
    assert main(f"{train} --compile off --out {out}".split()) == 0
    assert main(["sample", str(out), "-n", "12", "--out", str(tmp_path / "all.npz")]) == 0
    assert main(["sample", str(out), "-n", "3", "--label", "7", "--out", str(tmp_path / "sevens.npz")]) == 0
    for name, labels in (("all", [*range(10), 0, 1]), ("sevens", [7, 7, 7])):
        with np.load(tmp_path / f"{name}.npz") as found:
            assert found["y"].tolist() == labels
            assert len(found["x"]) == len(labels)
    capsys.readouterr()
    assert main(["sample", str(out), "--label", "10"]) == 2
    assert "--label must be from 0 to 9, found 10" in capsys.readouterr().err
    assert main(["report", str(out)]) == 0


def test_labels_are_for_models_that_are_given_them(run, capsys):
    assert main(["sample", str(run), "--label", "1"]) == 2
    assert "leave --label out" in capsys.readouterr().err


def test_a_mask_that_is_none_is_refused(run, tmp_path, capsys):
    for mask, says in ((np.random.rand(1, 8, 8), "of bools"), (np.zeros((8, 8)), "nothing is missing")):
        np.save(tmp_path / "mask.npy", mask)
        assert main(["complete", str(run), "--mask", str(tmp_path / "mask.npy")]) in (2, 65)
        assert says in capsys.readouterr().err
