"""Sounds in and out: mu-law, WAV files, windows, splits by file, and the command line on a folder of WAVs."""

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from pyrogen.cli import main
from pyrogen.data import encode_wav, fetch, from_mu_law, from_path, from_wavs, read_wav, speech, to_mu_law
from pyrogen.data.audio import windows
from pyrogen.errors import DataError, MissingInputError, ProgramError, UsageError
from pyrogen.models import made, wavenet
from pyrogen.runs import Run
from pyrogen.sampling import compile_steps, length_of
from pyrogen.sounds import to_wav
from pyrogen.spec import DataSpec

RATE = 4000


def tone(frequency: float, seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def write(path: Path, x: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_wav(x, rate))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(10):
        write(tmp_path / "tones" / "low" / f"{i}.wav", tone(200 + i))
        write(tmp_path / "tones" / "high" / f"{i}.wav", tone(800 + i, 0.3))
    return tmp_path / "tones"


# mu-law


def survives(levels: int, mu: int) -> bool:
    """Tell whether levels are what they were after a way to amplitudes and back by mu."""
    codes = np.arange(levels)
    y = 2 * codes / (levels - 1) - 1
    x = np.sign(y) * ((1 + mu) ** np.abs(y) - 1) / mu  # the inverse as ITU-T G.711 has it, written out
    return bool((to_mu_law(x, levels) == codes).all())


@pytest.mark.parametrize("levels", [2, 3, 17, 255, 256])
def test_levels_survive_the_way_to_amplitudes_and_back(levels):
    codes = np.arange(levels)
    x = from_mu_law(codes, levels)
    assert (x[0], x[-1]) == pytest.approx((-1, 1), abs=1e-15)
    assert (np.diff(x) > 0).all()
    assert (to_mu_law(x, levels) == codes).all()
    assert survives(levels, levels - 1)


def test_mutant_of_another_mu():
    assert not survives(256, 100)
    assert not survives(256, 256 * 4)


def test_levels_survive_a_file_of_sixteen_bits(tmp_path):
    codes = np.arange(256)
    path = write(tmp_path / "a.wav", from_mu_law(codes))
    assert (to_mu_law(read_wav(path).x) == codes).all()


def test_companding_is_as_published():
    """f(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu): at x = 1/255 it is ln 2 / ln 256 = 1/8."""
    assert to_mu_law(np.array([1 / 255, -1 / 255])).tolist() == [143, 112]  # 127.5 (1 + 1/8) = 143.44, and 111.56
    assert to_mu_law(np.zeros(3)).tolist() == [128] * 3
    with pytest.raises(UsageError, match="levels=257"):
        to_mu_law(np.zeros(1), 257)


# WAV files

X = np.array([0.0, 0.5, -0.5, 0.25, -1.0])
FORMATS = {
    "8 bits": (np.rint(X * 128 + 128).astype(np.uint8), 2**-7),
    "16 bits": (np.rint(X * 2**15).astype(np.int16), 2**-15),
    "32 bits": (np.rint(X * 2**31).astype(np.int32), 2**-24),
    "float32": (X.astype(np.float32), 0.0),
    "float64": (X, 0.0),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_format_is_read(tmp_path, name, channels):
    samples, error = FORMATS[name]
    wavfile.write(tmp_path / "a.wav", 11025, np.stack([samples] * channels, 1) if channels > 1 else samples)
    sound = read_wav(tmp_path / "a.wav")
    assert sound.rate == 11025
    assert sound.x.dtype == np.float32
    np.testing.assert_allclose(sound.x, X, atol=error, rtol=0)


def test_twenty_four_bits_are_read(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((2, 3, 8000, 0, "NONE", "not compressed"))
        for value in np.rint(X * 2**23).astype(int).tolist():
            file.writeframes(value.to_bytes(3, "little", signed=True) + (0).to_bytes(3, "little"))
    np.testing.assert_array_equal(read_wav(tmp_path / "a.wav").x, (X / 2).astype(np.float32))  # the mean of two


def test_chunks_with_names_and_marks_are_passed_over(tmp_path):
    sound = encode_wav(X, 8000)
    note = b"LIST" + (4).to_bytes(4, "little") + b"INFO"
    (tmp_path / "a.wav").write_bytes(sound[:4] + (len(sound) - 8 + 12).to_bytes(4, "little") + sound[8:] + note)
    assert len(read_wav(tmp_path / "a.wav").x) == len(X)


@pytest.mark.parametrize("cut", [0, 3, 20, 43, 44, 300])
def test_what_is_cut_off_is_refused(tmp_path, cut):
    (tmp_path / "a.wav").write_bytes(encode_wav(tone(100), 8000)[:cut])
    with pytest.raises(DataError, match=r"a\.wav"):
        read_wav(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("x", "said"), [([0.0, np.nan], "up to nan"), ([0.0, 1.5], "up to 1.5.*Scale the sound down"), ([], "0 samples")]
)
def test_what_is_no_sound_is_refused(tmp_path, x, said):
    wavfile.write(tmp_path / "a.wav", 8000, np.array(x, dtype=np.float32))
    with pytest.raises(DataError, match=f"a.wav: .*{said}"):
        read_wav(tmp_path / "a.wav")
    with pytest.raises(MissingInputError):
        read_wav(tmp_path / "b.wav")


# Windows and splits


@pytest.mark.parametrize("total", [1, 9, 10, 11, 25, 40])
def test_windows_cover_a_sound(total):
    codes = np.arange(1, total + 1, dtype=np.uint8)
    found = windows(codes, 10, 0)
    assert found.shape == (-(-total // 10), 10)
    assert set(found.flatten().tolist()) - {0} == set(codes.tolist())
    assert (found == 0).sum() == max(0, 10 - total)
    assert (np.diff(found.astype(int)[:, : min(total, 10)]) == 1).all()


def test_a_folder_of_sub_folders_has_labels(folder):
    data = from_path(folder, seconds=0.2)
    assert data.spec == DataSpec(
        (800,), "levels", levels=256, num_classes=2, name="tones", num_data=len(data.train["x"]), sample_rate=RATE
    )
    for split in ("train", "validation", "test"):
        per_file = [3 if name.startswith("low") else 2 for name in data.files[split]]  # high, low: 0, 1
        assert data.split(split)["y"].tolist() == [
            int(name.startswith("low")) for name, n in zip(data.files[split], per_file, strict=True) for _ in range(n)
        ]
        assert len(data.split(split)["x"]) == sum(per_file)
    assert data.train["x"].dtype == torch.uint8
    assert "windows of 0.2 s (800 samples, 4,000 a second) from 16 + 2 + 2 files" in data.describe()
    assert from_path(folder, length=800).fingerprint() == data.fingerprint() != from_path(folder).fingerprint()


def overlap(first: np.ndarray, second: np.ndarray) -> bool:
    return any((row == other).all() for row in first for other in second)


def test_held_out_are_whole_files(tmp_path):
    rng = np.random.default_rng(0)
    sounds = {f"{i}.wav": rng.uniform(-1, 1, 1000) for i in range(10)}
    for name, x in sounds.items():
        write(tmp_path / name, x)
    data = from_wavs(tmp_path, length=100, validation=0.2, test=0.2)
    files = [set(data.files[split]) for split in ("train", "validation", "test")]
    assert [len(part) for part in files] == [6, 2, 2]
    assert set.union(*files) == sounds.keys()
    for split in ("train", "validation", "test"):
        own = np.concatenate([windows(to_mu_law(read_wav(tmp_path / n).x), 100, 0) for n in data.files[split]])
        np.testing.assert_array_equal(data.split(split)["x"].numpy(), own)
    # Mutant: windows that are dealt out one by one take held-out ones from files that are trained on.
    x = torch.cat([data.train["x"], data.test["x"]])[torch.randperm(80)]
    of_file = [windows(to_mu_law(read_wav(tmp_path / name).x), 100, 0) for name in sounds]
    origin = [next(i for i, own in enumerate(of_file) if overlap(window[None], own)) for window in x.numpy()]
    assert set(origin[:60]) & set(origin[60:])


def test_one_recording_is_cut_by_time(tmp_path):
    path = write(tmp_path / "long.wav", np.linspace(-1, 1, 1000))
    data = from_path(path, length=50)
    ends = [(int(data.split(s)["x"].min()), int(data.split(s)["x"].max())) for s in ("train", "validation", "test")]
    assert ends[0][0] == 0
    assert ends[0][1] <= ends[1][0] <= ends[1][1] <= ends[2][0]
    assert ends[2][1] == 255
    assert [len(data.split(s)["x"]) for s in ("train", "validation", "test")] == [16, 2, 2]
    assert len(from_path(path, length=50, test=0.0).test["x"]) == 0


def test_given_test_files_and_files_without_labels(tmp_path, folder):
    for i in range(3):
        write(tmp_path / "split" / "train" / f"{i}.wav", tone(100))
    write(tmp_path / "split" / "test" / "b.wav", tone(100))
    assert from_path(tmp_path / "split").files["test"] == (str(Path("test", "b.wav")),)
    write(folder / "outside.wav", tone(50))
    assert from_path(folder).spec.num_classes is None


def test_what_does_not_go_together_is_refused(tmp_path, folder):
    write(folder / "low" / "fast.wav", tone(100, rate=8000), 8000)
    with pytest.raises(DataError, match=r"rates: 4000 a second in .* others; 8000 a second in low.fast.wav;"):
        from_path(folder)
    write(tmp_path / "single" / "a.wav", tone(100))
    with pytest.raises(DataError, match="1 files less 1 for validation and 1 for test"):
        from_path(tmp_path / "single")
    with pytest.raises(UsageError, match="give one of `seconds` and `length`"):
        from_path(tmp_path / "single" / "a.wav", seconds=1.0, length=100)
    with pytest.raises(UsageError, match="at least 2 samples"):
        from_path(tmp_path / "single" / "a.wav", seconds=0.0)
    with pytest.raises(UsageError, match="not for sounds"):
        from_path(tmp_path / "single", pixels="threshold")
    with pytest.raises(UsageError, match="`max_words` are for words"):
        from_path(tmp_path / "single", max_words=3)
    with pytest.raises(MissingInputError, match="nowhere: no such file or folder"):
        from_wavs(tmp_path / "nowhere")
    np.save(tmp_path / "x.npy", np.zeros((5, 3)))
    with pytest.raises(UsageError, match="`seconds` is not for"):
        from_path(tmp_path / "x.npy", seconds=1.0)


def test_a_spec_without_a_rate_is_written_as_before():
    assert "sample_rate" not in DataSpec((4,), "real").to_json()
    spec = DataSpec((4,), "levels", levels=256, sample_rate=8000)
    assert DataSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_speech_where_it_is_there(monkeypatch, tmp_path):
    try:
        data = speech()
    except MissingInputError as error:
        pytest.skip(str(error))
    assert sum(map(len, data.files.values())) == 568
    assert data.spec.sample_rate == 8000
    assert data.spec.shape == (4000,)
    monkeypatch.setattr("pyrogen.data.recordings.SPEECH_FOLDER", tmp_path / "nowhere")
    monkeypatch.setenv("PYROGEN_DATA", str(tmp_path))
    with pytest.raises(MissingInputError, match="make data"):
        speech()
    write(tmp_path / "speech" / "a.wav", tone(100))
    with pytest.raises(DataError, match=r"1 WAV files of SHA-256 .*expected 568 of 4ed4f885"):
        speech()
    monkeypatch.setenv("PATH", "")
    assert fetch.main(["speech", "--strict"]) == 1


# The model by name


@pytest.mark.parametrize(
    ("spec", "settings", "said"),
    [
        (DataSpec((1, 8, 8), "binary"), {}, "wavenet models sequences"),
        (DataSpec((8,), "counts"), {}, "wavenet models sequences"),
        (DataSpec((8,), "real"), {"likelihood": "categorical"}, "gives no probability"),
        (DataSpec((8,), "real"), {"kernel": 1}, "kernel must be at least 2"),
        (DataSpec((8,), "real"), {"channels": 0}, "channels must be"),
        (DataSpec((8,), "real"), {"conditional": True}, "conditional needs labels"),
    ],
)
def test_what_is_not_for_a_wavenet_is_refused(spec, settings, said):
    with pytest.raises(UsageError, match=said):
        wavenet(spec, **settings)


@pytest.mark.parametrize(
    ("kind", "levels", "likelihood"),
    [
        ("levels", 256, None),
        ("levels", 256, "logistic-mixture"),
        ("levels", 9, "discretized-logistic"),
        ("binary", 2, None),
        ("dequantized", 16, None),
        ("real", None, None),
        ("real", None, "laplace"),
    ],
)
def test_every_kind_of_sequence_has_a_wavenet(kind, levels, likelihood):
    spec = DataSpec((20,), kind, levels=levels)
    model, _ = wavenet(spec, likelihood=likelihood, channels=4, layers=2, skip=4)
    drawn = model(size=3, length=31)
    assert drawn.shape == (3, 31)
    assert model.distribution(3, length=31).log_prob(drawn).isfinite().all()
    assert model(drawn).equal(drawn)


def test_other_models_have_one_length():
    model, _ = made(DataSpec((4,), "binary"), hidden=[8])
    with pytest.raises(ProgramError, match="no other length"):
        model(size=2, length=5)


def test_lengths_and_compiling_are_asked_for_with_sense():
    sound = DataSpec((400,), "levels", levels=256, sample_rate=RATE)
    assert length_of(sound, None, None) is None
    assert length_of(sound, None, 2.0) == 2 * RATE
    for spec, length, seconds, said in [
        (sound, 5, 1.0, "say the same"),
        (sound, 0, None, "at least"),
        (DataSpec((4,), "real"), None, 1.0, "is for sounds"),
    ]:
        with pytest.raises(UsageError, match=said):
            length_of(spec, length, seconds)
    for mode, said in [("maybe", "must be on, off or auto"), ("on", "element by element")]:
        with pytest.raises(UsageError, match=said):
            compile_steps(mode, lambda size=1: None, sound, 1, None)


def test_auto_compiles_where_there_are_many_slow_steps(monkeypatch):
    spec = DataSpec((400,), "levels", levels=256, num_classes=2, sample_rate=RATE)
    model, _ = wavenet(spec, channels=4, layers=2, skip=4, conditional=True)
    compiled = []
    monkeypatch.setattr("pyrogen.sampling.can_compile", lambda: True)
    monkeypatch.setattr(type(model.network), "compile_steps", lambda network: compiled.append(network))
    compile_steps("auto", model, spec, 2, 100)
    compile_steps("off", model, spec, 2, 10**9)
    assert not compiled
    compile_steps("auto", model, spec, 2, 10**9)
    compile_steps("on", model, spec, 2, None)
    assert len(compiled) == 2


def test_sounds_go_into_one_file_with_pauses(tmp_path):
    spec = DataSpec((5,), "levels", levels=256, sample_rate=RATE)
    (tmp_path / "a.wav").write_bytes(to_wav(torch.full((2, 5), 255.0), spec))
    x = read_wav(tmp_path / "a.wav").x
    assert len(x) == 5 + RATE // 4 + 5
    assert np.flatnonzero(x).tolist() == [*range(5), *range(RATE // 4 + 5, RATE // 4 + 10)]


# The command line


@pytest.mark.slow
def test_from_a_folder_of_wavs_to_a_wav_that_plays(folder, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "a.wav"
    train = ["train", "wavenet", "--data", str(folder), "--seconds", "0.05", "--steps", "20", "--evaluate-every", "10"]
    network = ["--channels", "8", "--layers", "4", "--skip", "8", "--conditional", "true", "--out", str(run)]
    assert main([*train, *network, "--device", "cpu", "--compile", "off"]) == 0
    assert "wavenet reads long sequences: chose --batch-size 8" in capsys.readouterr().err
    manifest = Run.open(run).manifest
    assert manifest["spec"]["sample_rate"] == RATE
    assert manifest["objective"]["name"] == "maximum-likelihood"
    assert main(["evaluate", str(run), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["bits_per_dim"]["value"] == pytest.approx(-metrics["log_likelihood"]["value"] / 200 / np.log(2))
    assert 0 < metrics["bits_per_dim"]["value"] < 8.5
    assert main(["sample", str(run), "-n", "2", "--seconds", "0.1", "--top-k", "20", "--out", str(out)]) == 0
    assert "0.2 s of sound in" in capsys.readouterr().err
    rate, samples = wavfile.read(out)
    assert (rate, samples.dtype, samples.shape) == (RATE, np.int16, (400 + RATE // 4 + 400,))
    assert np.abs(samples).max() > 0
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    for name in ("samples", "held_out"):
        assert (run / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f'id="{name}"' in page
    assert 'class="pixels"' not in page
    assert main(["sample", str(run), "-n", "1", "--temperature", "0", "--out", str(out)]) == 2
    assert main(["sample", str(run), "-n", "1", "--out", str(tmp_path / "a.png")]) == 2


def test_other_data_are_not_written_as_sounds(tmp_path, capsys):
    assert main(["train", "ppca", "--data", "iris", "--steps", "2", "--out", str(tmp_path / "run")]) == 0
    assert main(["sample", str(tmp_path / "run"), "--out", str(tmp_path / "a.wav")]) == 2
    assert "only sounds are written to .wav" in capsys.readouterr().err
