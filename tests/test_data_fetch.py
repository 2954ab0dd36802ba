"""Where fetched data are looked for, and that nothing but the published bytes is taken for them."""

import io
import json
import tarfile

import numpy as np
import pytest

from pyrogen.data import cache_folder, encode_idx, fashion_mnist, fetch, mnist_10k
from pyrogen.data.cache import SYSTEM_FOLDER, find_fashion_mnist
from pyrogen.errors import DataError, MissingInputError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PYROGEN_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr("pyrogen.data.cache.SYSTEM_FOLDER", tmp_path / "system")
    return tmp_path / "cache"


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PYROGEN_DATA", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("PYROGEN_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert str(cache_folder()) == "/x/pyrogen"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder().parts[-2:] == (".cache", "pyrogen")


@pytest.mark.parametrize("load", [fashion_mnist, mnist_10k])
def test_what_is_not_there_says_how_to_bring_it(cache, load):
    with pytest.raises(MissingInputError, match="make data"):
        load()


def test_order_of_places(cache, tmp_path):
    for place in (tmp_path / "mine", cache / "fashion-mnist", tmp_path / "system"):
        place.mkdir(parents=True)
        (place / "train-images-idx3-ubyte").write_bytes(b"")
    assert find_fashion_mnist(tmp_path / "mine") == tmp_path / "mine"
    assert find_fashion_mnist() == cache / "fashion-mnist"
    (cache / "fashion-mnist" / "train-images-idx3-ubyte").unlink()
    assert find_fashion_mnist() == tmp_path / "system"
    with pytest.raises(MissingInputError, match="elsewhere"):
        find_fashion_mnist(tmp_path / "elsewhere")


def test_other_bytes_are_not_fashion_mnist(cache):
    folder = cache / "fashion-mnist"
    folder.mkdir(parents=True)
    for stem, dims in (("images-idx3", 3), ("labels-idx1", 1)):
        for part in ("train", "t10k"):
            (folder / f"{part}-{stem}-ubyte").write_bytes(encode_idx(np.zeros((4, 2, 2)[:dims], np.uint8)))
    with pytest.raises(DataError, match=r"fashion-mnist, x_train: SHA-256 .*expected c59f468a.*make data"):
        fashion_mnist()
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="y_test"):
        fashion_mnist()


def npm_archive(path, values):
    with tarfile.open(path, "w:gz") as tar:
        for label in range(10):
            data = json.dumps({"data": values}).encode()
            info = tarfile.TarInfo(f"package/src/digits/{label}.json")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_three_decimals_name_every_byte(tmp_path):
    levels = np.arange(784) % 256
    path = npm_archive(tmp_path / "a.tgz", [round(k / 255, 3) for k in levels.tolist()])
    arrays = fetch.read_npm_digits(path)
    assert arrays["x"].shape == (10, 28, 28)
    assert (arrays["x"].reshape(10, -1) == levels).all()
    # mutant: truncating instead of rounding loses bytes
    assert (np.array([int(round(k / 255, 3) * 255) for k in range(256)]) != np.arange(256)).any()


def test_values_that_are_no_bytes(tmp_path):
    with pytest.raises(DataError, match=r"1 of them no byte / 255"):
        fetch.read_npm_digits(npm_archive(tmp_path / "a.tgz", [0.0] * 783 + [0.001]))
    with pytest.raises(DataError, match=r"783 values"):
        fetch.read_npm_digits(npm_archive(tmp_path / "b.tgz", [0.0] * 783))
    (tmp_path / "c.tgz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"c\.tgz: not the npm package"):
        fetch.read_npm_digits(tmp_path / "c.tgz")


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--strict"], 1)])
def test_fetch_without_tools(cache, monkeypatch, capsys, arguments, code):
    monkeypatch.setenv("PATH", "")
    assert fetch.main(arguments) == code
    said = capsys.readouterr().out
    assert "fashion-mnist: not fetched, apt-get is not on this machine" in said
    assert "mnist-10k: not fetched, npm is not on this machine" in said
    assert "pyrogen works without" in said
    assert not list(cache.glob("*"))


def test_fetch_into_a_folder_that_refuses(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("PYROGEN_DATA", str(tmp_path / "file" / "inside"))
    assert fetch.main(["mnist-10k"]) == 0
    assert "cannot write there" in capsys.readouterr().out


def test_unknown_name(capsys):
    with pytest.raises(SystemExit):
        fetch.main(["cifar"])
    assert "unknown: cifar" in capsys.readouterr().err


def present(load):
    try:
        return load()
    except MissingInputError as error:
        pytest.skip(str(error))


def test_fashion_mnist_where_it_is_there():
    data = present(fashion_mnist)
    assert [len(data.split(s)["x"]) for s in ("train", "validation", "test")] == [54_000, 6_000, 10_000]
    assert data.spec.bits_per_dim(0.0) == 0.0
    assert str(SYSTEM_FOLDER).startswith("/usr/share")


def test_mnist_10k_where_it_is_there():
    data = present(mnist_10k)
    assert data.spec.shape == (1, 28, 28)
    assert sum(len(data.split(s)["x"]) for s in ("train", "validation", "test")) == 10_000
