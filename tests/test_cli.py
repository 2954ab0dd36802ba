"""The command line as a person meets it: output, exit codes, messages."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyrogen import ELBO, fitting, train
from pyrogen.cli import main
from pyrogen.errors import UsageError
from pyrogen.inferencedata import read_netcdf
from pyrogen.report import write_report
from pyrogen.runs import Run

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TINY = ["--latent", "2", "--hidden", "[8]", "--device", "cpu"]


def pyrogen(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process and return its exit code, stdout and stderr."""
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "digits"
    arguments = ["train", "vae", "--data", "digits", "--steps", "30", "--evaluate-every", "10", "--out", str(path)]
    assert main([*arguments, *TINY]) == 0
    return path


def test_list_shows_what_is_built_in(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = pyrogen(capsys, "list", "--json")
    found = json.loads(out)
    assert code == 0
    assert {"vae", "ppca", "classifier", "gaussian-mixture"} <= found["models"].keys()
    assert {"elbo", "iwae", "renyi", "maximum-likelihood"} <= found["objectives"].keys()
    assert {"digits", "fashion-mnist"} <= found["data"].keys()


def test_json_is_exactly_one_object(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    code, out, _ = pyrogen(capsys, "evaluate", str(run), "--num-particles", "20", "--json")
    metrics = json.loads(out)["metrics"]
    assert code == 0
    assert set(metrics) == {"elbo", "iwae", "elbo_bits_per_dim", "iwae_bits_per_dim"}
    assert metrics["iwae"]["num_particles"] == 20
    assert metrics["iwae"]["value"] >= metrics["elbo"]["value"]
    assert all(figure["stderr"] > 0 for figure in metrics.values())
    assert metrics["elbo_bits_per_dim"]["value"] == pytest.approx(-metrics["elbo"]["value"] / 64 / np.log(2))


@pytest.mark.slow
def test_evidence_by_annealing(capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path) -> None:
    words = ["--num-particles", "4", "--ais-steps", "40", "--ais-chains", "4", "--ais-data", "20", "--json"]
    code, out, _ = pyrogen(capsys, "evaluate", str(run), *words)
    assert code == 0
    found = {name: figure["value"] for name, figure in json.loads(out)["metrics"].items()}
    assert {"ais", "ais_lower", "ais_upper"} <= set(found)
    assert found["ais_lower"] < found["ais_upper"]
    assert ("ais_bits_per_dim" in found) == ("iwae_bits_per_dim" in found)


def test_evidence_of_an_implicit_model_under_noise(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    words = ["--latent", "2", "--hidden", "[8]", "--objective", "mmd", "--steps", "2", "--out", out]
    assert pyrogen(capsys, "train", "generator", *words)[0] == 0
    annealed = ["--ais-steps", "5", "--ais-chains", "2", "--ais-data", "3", "--noise", "4"]
    code, printed, _ = pyrogen(capsys, "evaluate", out, *annealed, "--json")
    assert code == 0
    assert {"ais", "ais_lower", "ais_upper", "energy_distance"} == set(json.loads(printed)["metrics"])


@pytest.mark.parametrize(
    ("train", "evaluate", "says"),
    [
        (["vae", *TINY], ["--ais-steps", "0"], "at least one step, two chains"),
        (["classifier"], ["--ais-steps", "5"], "whose data have their own latents"),
        (["vae", *TINY], ["--ais-steps", "5", "--noise", "1"], "for an implicit model, and for no other"),
        (["generator", "--latent", "2", "--hidden", "[8]", "--objective", "mmd"], ["--ais-steps", "5"], "--noise"),
    ],
)
def test_what_has_no_evidence_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, train: list[str], evaluate: list[str], says: str
) -> None:
    out = str(tmp_path / "run")
    assert pyrogen(capsys, "train", *train, "--steps", "2", "--out", out)[0] == 0
    code, _, err = pyrogen(capsys, "evaluate", out, *evaluate)
    assert code == 2
    assert says in err


def test_evaluation_is_repeatable(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    outputs = [pyrogen(capsys, "evaluate", str(run), "--num-particles", "10", "--json")[1] for _ in range(2)]
    assert outputs[0] == outputs[1]


def test_report_stands_alone(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    pyrogen(capsys, "evaluate", str(run), "--num-particles", "10")
    code, out, _ = pyrogen(capsys, "report", str(run))
    page = (run / "report.html").read_text()
    assert code == 0
    assert out.strip() == str(run / "report.html")
    assert not re.search(r"""(src|href|srcset)=["'](?!data:|#)""", page)
    assert len(page) < 5 * 2**20
    for text in ("elbo_bits_per_dim", "Samples", "Reconstructions", "pyrogen train vae", "torch"):
        assert text in page
    pictures = [
        "loss",
        "validation",
        "samples",
        "reconstructions",
        "neighbours",
        "interpolations",
        "traversals",
        "latents",
        "pareto",
        "ranks",
        "replicates",
    ]
    assert all((run / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert all(f'id="{name}"' in page for name in pictures)
    assert page.count("alt=") == len(pictures)
    assert "prefers-color-scheme: dark" in page
    posterior = read_netcdf(run / "posterior.nc")
    assert posterior["posterior"]["z"].dims == ("chain", "draw", "data", "z_dim_0")


def test_compare_puts_runs_side_by_side(capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    pyrogen(capsys, "train", "vae", "--steps", "5", *TINY, "--out", str(other))
    out = tmp_path / "both.html"
    code, _, err = pyrogen(capsys, "compare", str(run), str(other), "--out", str(out))
    assert code == 2
    assert "other has no figures yet" in err
    for path in (run, other):
        pyrogen(capsys, "evaluate", str(path), "--num-particles", "10")
    code, printed, _ = pyrogen(capsys, "compare", str(run), str(other), "--out", str(out), "--json")
    figures = json.loads(printed)["runs"]
    assert code == 0
    assert list(figures) == ["digits", "other"]
    page = out.read_text()
    for name in figures:
        assert f"Samples of {name}" in page
        assert f"{figures[name]['elbo']['value']:.4f}" in page
    pyrogen(capsys, "train", "ppca", "--data", "iris", "--steps", "2", "--out", str(tmp_path / "iris"))
    assert "different data" in pyrogen(capsys, "compare", str(run), str(tmp_path / "iris"))[2]


def test_own_programs_get_a_report_too(tmp_path: Path) -> None:
    def model(y: torch.Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("person", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    def guide(y: torch.Tensor) -> None:
        pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 0.408))

    y = torch.tensor([1.2, -0.4, 0.7, 2.1, 0.3])
    run = Run.create(tmp_path / "mine", {"what": "five people"})
    fit = train(ELBO(), model, guide, [y], lambda p: torch.optim.Adam(p, lr=0.1), num_steps=100)
    outcome = fitting.fit(fit, run)
    assert "finished at step 100" in outcome._repr_html_()
    assert "<img" in outcome._repr_html_()
    assert repr(fit) == "Training(ELBO, step 100 of 100, 1 parameters)"
    assert repr(run).endswith("step 100)")
    with pytest.raises(UsageError, match="programs of its own"):
        write_report(run)
    page = write_report(run, model, guide, y).read_text()
    assert "five people" in page
    assert "Posterior intervals" in page
    assert "its importance weights can be trusted" in page


def test_tensorboard(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "tracked"
    arguments = ["--steps", "20", "--track", "tensorboard", "--out", str(out), *TINY]
    assert pyrogen(capsys, "train", "vae", *arguments)[0] == 0
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    logged = {event.step: event.value for event in events.Scalars("loss")}
    assert logged == {row["step"]: pytest.approx(row["loss"]) for row in Run.open(out).metrics() if "loss" in row}


def test_samples(capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path) -> None:
    for suffix in (".npz", ".npy", ".png"):
        assert pyrogen(capsys, "sample", str(run), "-n", "5", "--out", str(tmp_path / f"s{suffix}"))[0] == 0
    with np.load(tmp_path / "s.npz", allow_pickle=False) as draws:
        assert draws["x"].shape == (5, 1, 8, 8)
        assert set(np.unique(draws["x"])) <= set(range(17))
        assert (np.load(tmp_path / "s.npy", allow_pickle=False) == draws["x"]).all()
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["trian", "vae"], 2, "did you mean train"),
        (["train", "vea"], 2, "did you mean vae"),
        (["train"], 2, "which model? Choose from"),
        (["train", "vae", "--data", "digit"], 2, "did you mean digits"),
        (["train", "vae", "--objective", "elbow"], 2, "did you mean elbo"),
        (["train", "vae", "--latents", "3"], 2, "did you mean latent"),
        (["train", "vae", "--latent", "many"], 2, "Expected a <class 'int'>"),
        (["train", "vae", "--latent", "0"], 2, "latent must be at least 1"),
        (["train", "vae", "--likelihood", "bernoulli"], 2, "gives no probability to data of kind 'levels'"),
        (["train", "vae", "--likelihood", "bernouli"], 2, "unknown likelihood"),
        (["train", "vae", "--device", "tpu"], 2, "device 'tpu' is not there"),
        (["train", "vae", "--learning-rate", "-1"], 2, "learning_rate must be positive"),
        (["train", "vae", "--steps", "0"], 2, "steps must be at least 1"),
        (["train", "vae", "--config", "nowhere.yaml"], 66, "no configuration file nowhere.yaml"),
        (["train", "ppca", "--data", "digits"], 2, "PPCA needs vectors of reals"),
        (["train", "vae", "--objective", "maximum-likelihood"], 2, "needs an exact density"),
        (["train", "vae", "--objective", "avb", "--encoder", "deterministic"], 2, "draws no noise"),
        (["train", "vae", "--encoder", "deterministic"], 2, "draws no noise"),
        (["train", "vae", "--objective", "veegan", "--encoder", "implicit"], 2, "choose --distance squared"),
        (
            ["train", "vae", "--objective", "ali", "--pixels", "static-binary", "--likelihood", "bernoulli"],
            2,
            "a draw of Bernoulli passes no gradient: leave --likelihood",
        ),
        (["train", "vae", "--objective", "aae", "--objective_settings.hidden", "[0]"], 2, "hidden must be widths"),
        (
            ["train", "cyclegan", "--data", "digits", "--data-b", "digits", "--cycle-weight", "-1"],
            2,
            "--cycle-weight must not be negative",
        ),
        (["train", "vae", "--data", "./nowhere.npy"], 66, "nowhere.npy"),
        (["evaluate", "runs/nowhere"], 66, "there is no run at runs/nowhere"),
        (["resume", "runs/nowhere"], 66, "there is no run at runs/nowhere"),
        ([], 2, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_are_explained(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, _, err = pyrogen(capsys, *arguments)
    assert found == code
    assert expected in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("runs/*/checkpoint-*"))


def test_errors_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = pyrogen(capsys, "train", "vea", "--json")
    assert code == 2
    assert json.loads(out)["error"]["kind"] == "UsageError"


def test_config_file_repeats_a_command(capsys: pytest.CaptureFixture[str], tmp_path: Path, run: Path) -> None:
    arguments = ["train", "vae", "--steps", "30", "--evaluate-every", "10", *TINY]
    with pytest.raises(SystemExit) as leaving:
        main([*arguments, "--print-config"])
    assert leaving.value.code == 0
    config = tmp_path / "config.yaml"
    config.write_text(capsys.readouterr().out)
    assert pyrogen(capsys, "train", "--config", str(config), "--out", str(tmp_path / "again"))[0] == 0
    assert (tmp_path / "again/metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


def test_the_reported_command_repeats_the_run(capsys: pytest.CaptureFixture[str], tmp_path: Path, run: Path) -> None:
    import shlex

    from pyrogen.recipe import Recipe

    words = shlex.split(Recipe.from_json(Run.open(run).manifest).command(tmp_path / "again"))
    assert words[0] == "pyrogen"
    assert pyrogen(capsys, *words[1:])[0] == 0
    assert (tmp_path / "again/metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["ppca", "--data", "iris"],
        ["gaussian-mixture", "--data", "iris", "--components", "3", "--objective", "maximum-likelihood"],
        ["classifier", "--data", "digits", "--objective", "maximum-likelihood"],
        ["vae", "--data", "digits", "--pixels", "dynamic-binary", "--objective", "iwae", *TINY],
        ["vae", "--data", "breast-cancer", "--objective", "renyi", "--alpha", "0.5", *TINY],
        ["vae", "--network", "convolutional", "--channels", "[4]", "--prior", "flow", "--warmup", "3", "--latent", "2"],
        ["vae", "--pixels", "dequantized", "--likelihood", "laplace", "--ema", "0.9", "--clip-norm", "9", *TINY],
    ],
    ids=lambda arguments: " ".join(arguments[:5]),
)
def test_every_family_trains_and_is_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str]
) -> None:
    out = str(tmp_path / "run")
    assert pyrogen(capsys, "train", *arguments, "--steps", "4", "--schedule", "cosine", "--out", out)[0] == 0
    code, printed, _ = pyrogen(capsys, "evaluate", out, "--num-particles", "4", "--json")
    assert code == 0
    assert all(np.isfinite(figure["value"]) for figure in json.loads(printed)["metrics"].values())
    assert pyrogen(capsys, "report", out)[0] == 0


def test_existing_run_is_kept(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    before = (run / "metrics.jsonl").read_bytes()
    code, _, err = pyrogen(capsys, "train", "vae", "--steps", "3", *TINY, "--out", str(run))
    assert code == 2
    assert "holds a run already" in err
    assert (run / "metrics.jsonl").read_bytes() == before


def test_patience_stops_early(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--learning-rate", "1e-9", "--steps", "500", "--evaluate-every", "5", "--patience", "2", "--json"]
    code, out, _ = pyrogen(capsys, "train", "vae", *TINY, *arguments, "--out", str(tmp_path / "run"))
    outcome = json.loads(out)
    assert code == 0
    assert outcome["reason"] == "patience"
    assert outcome["step"] < 500


def as_data(tmp_path: Path, x: Any, **more: Any) -> str:
    path = tmp_path / "data.npz"
    np.savez(path, x=x, **more)
    return str(path)


@pytest.mark.parametrize(
    ("x", "more", "expected"),
    [
        (np.where(np.arange(60).reshape(20, 3) == 37, np.nan, 0.5), {}, "(12, 1)"),
        (np.zeros((0, 3)), {}, "empty"),
        (np.ones((20, 3)) * 0.5, {"y": np.r_[np.arange(19), -1]}, "19"),
        (np.array(["a", "b"]), {}, "dtype"),
    ],
    ids=["nan", "empty", "label", "strings"],
)
def test_bad_data_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, x: Any, more: dict[str, Any], expected: str
) -> None:
    code, _, err = pyrogen(
        capsys, "train", "vae", "--data", as_data(tmp_path, x, **more), "--out", str(tmp_path / "run"), *TINY
    )
    assert code == 65
    assert "data.npz" in err
    assert expected in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_plugin_package(tmp_path: Path) -> None:
    """A wheel of somebody else's brings a model, an objective and data, which are listed and train together."""
    import zipfile

    module = '''
import numpy as np, pyro, pyro.distributions as dist, torch
from pyro.nn import PyroModule
from pyrogen import ELBO
from pyrogen.data import from_arrays

class Half(PyroModule):
    def __init__(self): super().__init__(); self.loc = torch.nn.Parameter(torch.zeros(3))
    def forward(self, x=None, size=1):
        with pyro.plate("data", size if x is None else len(x)):
            return pyro.sample("x", dist.Normal(self.loc, 1.0).to_event(1), obs=x)

def half(spec, *, unused: int = 3):
    """Make half a model."""
    return Half(), None

class Double(ELBO):
    def forward(self, *args, **kwargs): return 2 * super().forward(*args, **kwargs)

def double(model, guide, example, *, unused: float = 1.0):
    """Make twice the ELBO."""
    assert example["x"].shape[1:] == (3,)
    return Double()

def blobs(*, seed: int = 0, rows: int = 40):
    """Draw blobs."""
    return from_arrays({"x": np.random.default_rng(seed).normal(2.0, 1.0, (rows, 3))}, name="blobs")
'''
    groups = {"models": "half", "objectives": "double", "data": "blobs"}
    entries = "".join(f"[pyrogen.{group}]\n{name} = pyrogen_toys:{name}\n" for group, name in groups.items())
    info = "pyrogen_toys-1.0.dist-info"
    wheel = tmp_path / "pyrogen_toys-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pyrogen_toys.py", module)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: pyrogen-toys\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", entries)
        archive.writestr(f"{info}/RECORD", "")
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)

    def command(*arguments: str) -> dict[str, Any]:
        import os

        environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
        words = [sys.executable, "-m", "pyrogen", *arguments, "--json"]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    listed = command("list")
    assert listed["models"]["half"] == "Make half a model."
    assert "double" in listed["objectives"]
    assert "blobs" in listed["data"]
    options = ["--objective", "double", "--rows", "50", "--steps", "200", "--learning-rate", "0.05", "--out", "run"]
    assert command("train", "half", "--data", "blobs", *options)["step"] == 200
    # N(2, 1) in three dimensions has entropy 3 (log(2 pi) + 1) / 2 = 4.26 nats: a fitted mean comes near it.
    assert command("evaluate", "run")["metrics"]["log_likelihood"]["value"] > -6.0
