"""What happens to a run directory when disks, cables, colleagues and attackers do their worst.

Run as a script, this file is the process that is killed, or that fills its disk: ``python test_faults_storage.py
kill|full|linger FOLDER [MUTANT]``.
"""

import errno
import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as to_safetensors

import pyrogen.errors
from pyrogen import files, lock, storage
from pyrogen.errors import CorruptCheckpointError, FormatVersionError, InputOutputError, PyrogenError, RunLockedError
from pyrogen.files import write_file
from pyrogen.runs import Run
from pyrogen.storage import read_folder, write_folder
from pyrogen.trees import pack

KILLS = 30
FLIPS = 2000
SLOWEST = 5.0
TREE = {"w": torch.linspace(-1, 1, 7), "lr": 0.1, "rng": torch.arange(9, dtype=torch.uint8), 0: (None, True, "adam")}
META = {"step": 12, "metrics": {"bytes": 0, "sha256": "0" * 64}}


def fingerprint(tree: Any) -> tuple[str, dict[str, tuple[Any, ...]]]:
    skeleton, tensors = pack(tree)
    return json.dumps(skeleton), {k: (t.dtype, t.shape, t.numpy().tobytes()) for k, t in tensors.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "c", TREE, {"notes.txt": b"hello"}, META)
    return tmp_path / "c"


def outcome(folder: Path) -> str:
    """Whether a damaged folder is refused, gives exactly the original, or (the one thing forbidden) something else."""
    start = time.monotonic()
    try:
        tree, meta = read_folder(folder)
    except (CorruptCheckpointError, FormatVersionError):
        return "refused"
    finally:
        assert time.monotonic() - start < SLOWEST
    return "same" if meta == META and fingerprint(tree) == fingerprint(TREE) else "silent"


def damaged(folder: Path, name: str, data: bytes) -> str:
    good = (folder / name).read_bytes()
    try:
        (folder / name).write_bytes(data)
        return outcome(folder)
    finally:
        (folder / name).write_bytes(good)


def flips(folder: Path, count: int) -> Iterator[str]:
    """Flip one random bit at a time; each file gets the same share, so that the small ones are not left out."""
    draw = random.Random(0)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    for index in range(count):
        name = sorted(files)[index % len(files)]
        spoilt = bytearray(files[name])
        spoilt[draw.randrange(len(spoilt))] ^= 1 << draw.randrange(8)
        yield damaged(folder, name, bytes(spoilt))


# Row 16: bit flips -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_flipped_bit_is_refused(folder: Path) -> None:
    assert outcome(folder) == "same"
    results = list(flips(folder, FLIPS))
    assert results.count("refused") == FLIPS >= 1000


@pytest.mark.slow
def test_every_bit_of_the_manifest_is_refused(folder: Path) -> None:
    good = (folder / "manifest.json").read_bytes()
    for bit in range(8 * len(good)):
        spoilt = bytearray(good)
        spoilt[bit // 8] ^= 1 << bit % 8
        assert damaged(folder, "manifest.json", bytes(spoilt)) == "refused", bit


def test_mutant_without_digests_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "sha256", lambda data: "0" * 64)
    write_folder(tmp_path / "c", TREE, None, META)
    assert list(flips(tmp_path / "c", 300)).count("silent") > 20


# Row 15: truncation ------------------------------------------------------------------------------------------------


def test_every_truncation_and_extension_is_refused(folder: Path) -> None:
    for path in list(folder.iterdir()):
        good = path.read_bytes()
        results = {damaged(folder, path.name, good[:length]) for length in range(len(good))}
        assert results == {"refused"}, path.name
        assert damaged(folder, path.name, good + b"\n") == "refused"


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "state.safetensors", "notes.txt"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CorruptCheckpointError, match=rf"{name}: it is missing\. Restore it .*earlier checkpoint"):
        read_folder(folder)


def test_messages_say_what_was_found_and_expected(folder: Path) -> None:
    path = folder / "state.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(
        CorruptCheckpointError, match=rf"safetensors: it has {len(good) - 1} bytes; expected {len(good)}"
    ):
        read_folder(folder)
    path.write_bytes(good[:-1] + b"\xff")
    with pytest.raises(CorruptCheckpointError, match=r"its SHA-256 is [0-9a-f]{64}; expected [0-9a-f]{64}"):
        read_folder(folder)


# Rows 17 and 18: malice. The attacker knows the format, and makes manifests that agree with what they list. ----------


def forge(folder: Path, files: dict[str, bytes], **changes: Any) -> None:
    """Put files and a manifest with right digests into a folder; ``changes`` replace entries of its list of files."""
    listing = {n: {"bytes": len(d), "sha256": storage.sha256(d)} for n, d in files.items()} | changes
    for name, data in files.items():
        (folder / name).write_bytes(data)
    manifest = storage.seal("checkpoint", {"files": listing, "meta": META})
    (folder / "manifest.json").write_bytes(manifest)


def good_files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("state.safetensors", "state.json")}


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("forged", [True, False])
@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_not_executed(folder: Path, tmp_path: Path, name: str, forged: bool, zipped: bool) -> None:
    canary = tmp_path / "canary"
    bomb = tmp_path / "bomb"
    if zipped:
        torch.save(Bomb(canary), bomb)
    else:
        bomb.write_bytes(pickle.dumps(Bomb(canary)))
    if forged and name != "manifest.json":
        forge(folder, good_files(folder) | {name: bomb.read_bytes()})
    else:
        (folder / name).write_bytes(bomb.read_bytes())
    assert outcome(folder) == "refused"
    assert not canary.exists()
    torch.load(bomb, weights_only=False) if zipped else pickle.loads(bomb.read_bytes())  # noqa: S301
    assert canary.exists()  # the bomb was armed


def test_a_pickle_in_place_of_a_checkpoint(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "r", {})
    canary = tmp_path / "canary"
    (run.path / "checkpoint-00000001").write_bytes(pickle.dumps(Bomb(canary)))
    with pytest.warns(UserWarning, match="not a folder"), pytest.raises(CorruptCheckpointError):
        run.restore()
    assert not canary.exists()


@pytest.mark.parametrize(
    "name", ["../secret", "{}/secret", "..", ".", "", "a/../../secret", "a\\b", "\0", ".hidden", "…"]
)
def test_names_in_a_manifest_stay_inside(folder: Path, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s")
    name = name.format(tmp_path)
    forge(folder, good_files(folder), **{name: {"bytes": 1, "sha256": storage.sha256(b"s")}})
    with pytest.raises(CorruptCheckpointError, match="expected the plain name of a file in this folder"):
        read_folder(folder)


@pytest.mark.parametrize("name", ["state.json", "state.safetensors", "manifest.json"])
def test_links_and_pipes_are_not_followed(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(CorruptCheckpointError, match="it is a link"):
        read_folder(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(CorruptCheckpointError, match="not a regular file"):
        read_folder(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(CorruptCheckpointError, match="not a regular file"):
        read_folder(folder)


@pytest.mark.parametrize(
    "target", ["/etc", "../other", "checkpoint-00000009", "..", ".", "checkpoint-1", "manifest.json"]
)
def test_best_leads_to_a_checkpoint_of_the_run(tmp_path: Path, target: str) -> None:
    run = Run.create(tmp_path / "r", {})
    with run.writing():
        run.save(1, {}, best=True)
    write_folder(tmp_path / "other", {}, None, META)
    (run.path / "best").unlink()
    (run.path / "best").symlink_to(target)
    with pytest.raises(CorruptCheckpointError, match="expected a checkpoint inside the run"):
        run.restore(best=True)
    (run.path / "checkpoint-00000012").symlink_to(tmp_path / "other")
    with pytest.raises(CorruptCheckpointError, match="it is a link"):
        run.restore(step=12)


def header(declared: int, body: bytes) -> bytes:
    return declared.to_bytes(8, "little") + body


def declare(**tensor: Any) -> bytes:
    text = json.dumps({"t": tensor}).encode()
    return header(len(text), text)


HOSTILE = {
    "header of 2^60 bytes": header(2**60, b"{}"),
    "header of 2^64 - 1 bytes": header(2**64 - 1, b"{}"),
    "tensor of 2^60 elements": declare(dtype="F32", shape=[2**60], data_offsets=[0, 2**62]),
    "shape that overflows": declare(dtype="F32", shape=[2**63, 2**63], data_offsets=[0, 4]),
    "shape that wraps round": declare(dtype="U8", shape=[2**32, 2**32], data_offsets=[0, 0]),
    "empty tensor of an absurd shape": declare(dtype="U8", shape=[0, 2**62, 2**62], data_offsets=[0, 0]),
    "unknown type": declare(dtype="OBJ", shape=[1], data_offsets=[0, 1]),
    "overlap": header(
        130, b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8"}}'.ljust(130) + b"ab"
    ),
    "nothing": b"",
    "deep header": header(100_000, b"[" * 100_000),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_headers(folder: Path, data: bytes) -> None:
    forge(folder, good_files(folder) | {"state.safetensors": data})
    assert outcome(folder) == "refused"


@pytest.mark.parametrize(
    "text",
    [b"[" * 100_000, b'{"x":' * 100_000, b"9" * 10_000, b'{"tensor": "none"}', b'{"os.system": ["true"]}', b"\xff"],
)
def test_hostile_skeletons(folder: Path, text: bytes) -> None:
    forge(folder, {"state.safetensors": to_safetensors({}), "state.json": text})
    assert outcome(folder) == "refused"


@pytest.mark.parametrize(
    "entry", [None, 3, {}, {"bytes": 2**60, "sha256": "0"}, {"bytes": -1}, {"bytes": True}, {"bytes": "12"}]
)
def test_hostile_lists(folder: Path, entry: Any) -> None:
    forge(folder, good_files(folder), **{"state.json": entry})
    assert outcome(folder) == "refused"


def test_a_huge_manifest_is_not_read(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(2**40)  # sparse
    assert outcome(folder) == "refused"


# Row 27: versions --------------------------------------------------------------------------------------------------


def test_a_newer_version_is_said_first(folder: Path) -> None:
    manifest = {"format": "of the future", "format_version": 7, "files": "elsewhere"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "state.json").unlink()
    with pytest.raises(FormatVersionError, match=r"version 7, and this pyrogen reads up to version 1\. Upgrade"):
        read_folder(folder)


# Row 19: disks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["fsync", "replace", "rename", "mkdir"])
@pytest.mark.parametrize("call", range(6))
def test_a_failure_at_any_moment_leaves_the_old(
    folder: Path, monkeypatch: pytest.MonkeyPatch, function: str, call: int
) -> None:
    real, calls = getattr(os, function), 0

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, function, failing)
    message = ""
    try:
        write_folder(folder, {"new": 1}, None, META)
    except InputOutputError as error:
        message = str(error)
    # After the folder was renamed into place, only its parent's fsync can fail: then the new one is complete.
    if not message or (function == "fsync" and call == 4):
        assert read_folder(folder)[0] == {"new": 1}
    else:
        assert "No space left on device" in message
        assert "free some space" in message
        assert outcome(folder) == "same"
    monkeypatch.undo()
    files.sweep(folder.parent)
    assert [p.name for p in folder.parent.iterdir()] == ["c"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders; the full disk stands in for it")
def test_read_only(folder: Path) -> None:
    folder.parent.chmod(0o500)
    try:
        with pytest.raises(InputOutputError, match="Permission denied"):
            write_folder(folder, {"new": 1}, None, META)
        with pytest.raises(InputOutputError, match="Permission denied"):
            write_file(folder.parent / "f", b"")
        assert outcome(folder) == "same"
    finally:
        folder.parent.chmod(0o700)


def script(*arguments: str) -> dict[str, Any]:
    """Run this file in a process of its own; returns the JSON object that it prints."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(pyrogen.errors.__file__).parents[1]),
    }
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    assert script("full", str(tmp_path / "r")) == {
        "errors": ["InputOutputError"] * 4, "restored": True, "manifest": True, "metrics": [1, 2], "left over": [],
    }  # fmt: skip


def fill_the_disk(path: Path) -> dict[str, Any]:
    run = Run.create(path, {"seed": 1})
    errors = []
    with run.writing():
        run.log(1, loss=1.0)
        run.save(1, truth(1), best=True)
        run.log(2, loss=2.0)
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (run._metrics_path.stat().st_size + 5, limit[1]))
        attempts: list[Callable[[], Any]] = [
            lambda: run.save(1, truth(2)),
            lambda: run.save(2, truth(2), best=True),
            lambda: run.log(3, loss=3.0),
            lambda: write_file(path / "manifest.json", b" " * 2000),
        ]
        for attempt in attempts:
            try:
                attempt()
            except PyrogenError as error:
                errors.append(type(error).__name__)
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    return {
        "errors": errors,
        "restored": fingerprint(run.restore(best=True).tree) == fingerprint(truth(1)) and run.checkpoints() == [1],
        "manifest": Run.open(path).manifest == {"seed": 1},
        "metrics": [record["step"] for record in run.metrics()],
        "left over": [p.name for p in path.iterdir() if p.name.endswith((".tmp", ".old"))],
    }


# Rows 21 and 38: kills and second writers ---------------------------------------------------------------------------


def truth(step: int) -> dict[str, Any]:
    """The state after a number of steps, the same however often the run was killed."""
    generator = torch.Generator().manual_seed(step)
    return {"step": step, "w": torch.rand(20_000, generator=generator), "rng": generator.get_state()}


def write_forever(path: Path, mutant: str, progress: int) -> None:
    """Log and save step after step, and say so before each save by a byte to a pipe."""
    if mutant == "in place":
        storage.staged = written_in_place  # type: ignore[assignment]
    run = Run.open(path)
    with run.writing():
        step = 0
        if run.checkpoints():
            checkpoint = run.restore()
            run.rewind(checkpoint)
            step = checkpoint.step
        while True:
            step += 1
            run.log(step, loss=1.0 / step)
            os.write(progress, b".")
            run.save(step, truth(step), best=step % 3 == 0)


@contextmanager
def written_in_place(path: Path, *, is_folder: bool = False) -> Iterator[Path]:
    files._discard(path)
    yield path


def kill_writers(path: Path, kills: int, mutant: str) -> dict[str, Any]:
    """Kill a writer again and again at random moments, and look at what it leaves before the next one cleans up.

    The moments are spread over a save, however long it takes: where other work goes on, one would not even begin in a
    time that is fixed.
    """
    run, draw, problems, locks = Run.create(path, {}), random.Random(0), [], 0
    for _ in range(kills):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                warnings.simplefilter("ignore")
                write_forever(path, mutant, writing)
            finally:
                os._exit(1)
        os.close(writing)
        os.read(reading, 1)
        began = time.monotonic()
        for _ in range(draw.randint(1, 3)):
            os.read(reading, 1)
            began, saved_in = time.monotonic(), time.monotonic() - began
        time.sleep(draw.uniform(0.0, saved_in))
        os.kill(child, signal.SIGKILL)
        os.close(reading)
        os.waitpid(child, 0)
        try:
            inspect(run)
        except (PyrogenError, UserWarning, AssertionError) as error:
            problems.append(repr(error))
        with run.writing():
            locks += 1
    steps = run.checkpoints()
    return {"problems": problems, "locks": locks, "steps": steps[-1] if steps else 0}


def inspect(run: Run) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if not run.checkpoints():
            return
        checkpoint = run.restore()
        assert fingerprint(checkpoint.tree) == fingerprint(truth(checkpoint.step))
        logged = [record["step"] for record in run.metrics()]
        assert logged[: checkpoint.step] == list(range(1, checkpoint.step + 1))
        prefix = run._metrics_path.read_bytes()[: checkpoint.meta["metrics"]["bytes"]]
        assert storage.sha256(prefix) == checkpoint.meta["metrics"]["sha256"]
        if os.path.lexists(run.path / "best"):
            assert run.restore(best=True).step % 3 == 0


def test_a_killed_writer_loses_nothing(tmp_path: Path) -> None:
    result = script("kill", str(tmp_path / "r"))
    assert result["problems"] == []
    assert result["locks"] == KILLS
    assert result["steps"] > KILLS / 4  # it got somewhere: the kills fell into saves


def test_mutant_that_writes_in_place_is_caught(tmp_path: Path) -> None:
    assert len(script("kill", str(tmp_path / "r"), "in place")["problems"]) > KILLS / 10


def test_a_second_process_is_refused_until_the_first_dies(tmp_path: Path) -> None:
    result = script("linger", str(tmp_path / "r"))
    assert result == {"while alive": "named", "after the kill": "free"}


def test_mutant_whose_forked_worker_keeps_the_lock_is_caught(tmp_path: Path) -> None:
    result = script("linger", str(tmp_path / "r"), "inherit")
    assert result == {"while alive": "named", "after the kill": "locked"}


def outlive_the_writer(path: Path, mutant: str) -> dict[str, str]:
    """Lock a run in a child that forks a worker, as data loaders do; kill the child, not the worker."""
    run = Run.create(path, {})
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with run.writing():
            if mutant == "inherit":
                lock._HELD.clear()
            if os.fork() == 0:  # the worker tells itself that it is there: what a fork runs first has run by then
                os.write(writing, os.getpid().to_bytes(4, "little"))
            time.sleep(60)
            os._exit(0)
    worker = int.from_bytes(os.read(reading, 4), "little")
    result = {"while alive": "free", "after the kill": "free"}
    try:
        with run.writing():
            pass
    except RunLockedError as error:
        result["while alive"] = (
            "named" if f"process {child} on host {os.uname().nodename}" in str(error) else str(error)
        )
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        with run.writing():
            pass
    except RunLockedError:
        result["after the kill"] = "locked"
    os.kill(worker, signal.SIGKILL)
    return result


if __name__ == "__main__":
    what, where, mutant = (*sys.argv[1:], "")[:3]
    if what == "kill":
        print(json.dumps(kill_writers(Path(where), KILLS, mutant)))
    elif what == "linger":
        print(json.dumps(outlive_the_writer(Path(where), mutant)))
    else:
        print(json.dumps(fill_the_disk(Path(where))))
