"""Killed, terminated, damaged, moved: what was started ends with the same figures, or says why it cannot."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pyrogen.cli import main
from pyrogen.runs import Run

STEPS = 120
ARGUMENTS = ["--latent", "3", "--hidden", "[16]", "--steps", str(STEPS), "--evaluate-every", "15", "--log-every", "1"]
ARGUMENTS += ["--pixels", "dynamic-binary", "--warmup", "40", "--ema", "0.9", "--schedule", "cosine", "--device", "cpu"]


def start(out: Path, *arguments: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "pyrogen", "train", "vae", *ARGUMENTS, "--out", str(out), *arguments]
    return subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)


def wait_for_checkpoint(out: Path, process: subprocess.Popen[bytes], after: int = 0) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if out.exists() and any(step > after for step in steps_of(out)):
            return
        time.sleep(0.005)
    pytest.fail(f"no checkpoint after step {after}: the process ended with {process.poll()}")


def steps_of(out: Path) -> list[int]:
    return sorted(int(path.name.rpartition("-")[2]) for path in out.glob("checkpoint-*"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    assert main(["train", "vae", *ARGUMENTS, "--out", str(out)]) == 0
    return out


def assert_same(one: Path, other: Path) -> None:
    """Bit for bit: every metric, every parameter, every state of the last checkpoint."""
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    states = [(path / f"checkpoint-{STEPS:08d}" / "state.safetensors").read_bytes() for path in (one, other)]
    assert states[0] == states[1]


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 30])
def test_killed_and_resumed_is_the_same(uninterrupted: Path, tmp_path: Path, after: int) -> None:
    out = tmp_path / "killed"
    with start(out) as process:
        wait_for_checkpoint(out, process, after)
        process.kill()
    assert steps_of(out)[-1] < STEPS
    assert main(["resume", str(out)]) == 0
    assert_same(uninterrupted, out)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_and_saves(uninterrupted: Path, tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "signalled"
    with start(out) as process:
        wait_for_checkpoint(out, process)
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == code
    assert b"pyrogen resume" in err
    assert b"Traceback" not in err
    saved = Run.open(out).restore().step
    assert Run.open(out).metrics()[-1]["step"] == saved  # nothing that was logged is lost
    assert main(["resume", str(out)]) == 0
    assert_same(uninterrupted, out)


def test_resuming_without_the_generators_differs(uninterrupted: Path, tmp_path: Path) -> None:
    """The mutant: a checkpoint that forgets the random number generators does not end with the same figures."""
    out = tmp_path / "forgetful"
    shutil.copytree(uninterrupted, out, symlinks=True)
    run = Run.open(out)
    with run.writing():
        checkpoint = run.restore(step=run.checkpoints()[0])
        run.rewind(checkpoint)
        checkpoint.tree["training"]["rng"]["torch"] = torch.get_rng_state()
        run.save(checkpoint.step, checkpoint.tree)
    assert main(["resume", str(out)]) == 0
    with pytest.raises(AssertionError):
        assert_same(uninterrupted, out)


def test_a_damaged_checkpoint_is_passed_over(
    uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "damaged"
    shutil.copytree(uninterrupted, out, symlinks=True)
    newest = out / f"checkpoint-{STEPS:08d}" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert main(["resume", str(out)]) == 0
    assert "left aside a damaged checkpoint" in capsys.readouterr().err
    assert_same(uninterrupted, out)


def test_resuming_a_finished_run_changes_nothing(uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "finished"
    shutil.copytree(uninterrupted, out, symlinks=True)
    assert main(["resume", str(out)]) == 0
    assert_same(uninterrupted, out)


@pytest.mark.slow
def test_two_writers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shared"
    with start(out, "--steps", "100000") as process:
        wait_for_checkpoint(out, process)
        assert main(["resume", str(out)]) == 74
        assert f"process {process.pid}" in capsys.readouterr().err
        process.kill()


def test_changed_data_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "mine.npy", tmp_path / "run"
    x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    np.save(data, x)
    options = ["--latent", "2", "--hidden", "[4]", "--steps", "2", "--out", str(out)]
    assert main(["train", "vae", "--data", str(data), *options]) == 0
    x[0, 0] += 1
    np.save(data, x)
    for command in ("resume", "evaluate"):
        assert main([command, str(out)]) == 65
        assert "are not those that" in capsys.readouterr().err


def test_another_architecture_is_refused(
    uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint copied from a run of other settings: the differences are named."""
    out = tmp_path / "other"
    assert main(["train", "vae", "--latent", "4", "--hidden", "[16]", "--steps", "1", "--out", str(out)]) == 0
    name = f"checkpoint-{STEPS:08d}"
    shutil.copytree(uninterrupted / name, out / name)
    (out / "best").unlink()
    capsys.readouterr()
    assert main(["evaluate", str(out)]) == 65
    err = capsys.readouterr().err
    assert "the saved parameters belong to other programs" in err
    assert "model.decoder.0.weight: saved (16, 3), (16, 4) here" in err


def test_newer_format_version(uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "future"
    shutil.copytree(uninterrupted, out, symlinks=True)
    manifest = json.loads((out / "manifest.json").read_bytes())
    (out / "manifest.json").write_text(json.dumps(manifest | {"format_version": 99}))
    assert main(["evaluate", str(out)]) == 65
    assert "version 99" in capsys.readouterr().err


@pytest.mark.slow
def test_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: exit 74, and the last checkpoint stays whole."""
    out = tmp_path / "full"
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000));"
        "from pyrogen.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["train", "vae", *ARGUMENTS, "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert done.returncode == 74
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr
    assert not list(out.glob(".checkpoint*"))


def test_non_finite_run_names_the_last_good_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "diverged"
    # A learning rate at which the second loss overflows.
    options = ["--latent", "2", "--hidden", "[8]", "--likelihood", "gaussian", "--pixels", "dequantized"]
    options += ["--learning-rate", "1e20", "--steps", "50", "--evaluate-every", "1"]
    assert main(["train", "vae", *options, "--out", str(out)]) == 65
    err = capsys.readouterr().err
    assert "not finite" in err
    assert "the last good checkpoint is of step 1" in err
    state = Run.open(out).restore().tree["training"]["programs"]
    assert all(torch.isfinite(value).all() for value in state.values())
