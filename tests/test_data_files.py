"""Files go in and come out equal; a damaged file is refused with its name, and never with an untyped exception."""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pyrogen.data import encode_idx, from_path, read_arrays, read_idx, read_idx_folder, read_image_folder
from pyrogen.errors import DataError, MissingInputError, PyrogenError, UsageError

RNG = np.random.default_rng(0)
TINY = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def is_read_or_refused(read, path):
    """Say whether the file was read, or refused by its name; any other exception passes through."""
    try:
        read(path)
    except DataError as error:
        return str(path) in str(error)
    return True


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_round_trip(tmp_path, dtype, end):
    array = RNG.integers(0, 100, (3, 4, 5)).astype(dtype)
    data = encode_idx(array)
    path = write(tmp_path / f"some-ubyte{end}", gzip.compress(data) if end else data)
    found = read_idx(path)
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_truncated_at_every_length(tmp_path, end):
    data = gzip.compress(encode_idx(TINY)) if end else encode_idx(TINY)
    for length in range(len(data)):
        path = write(tmp_path / f"tiny{end}", data[:length])
        with pytest.raises(DataError, match="tiny"):
            read_idx(path)


@settings(max_examples=200, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=3), gz=st.booleans())
def test_idx_damage_is_typed(tmp_path_factory, flips, gz):
    data = bytearray(gzip.compress(encode_idx(TINY)) if gz else encode_idx(TINY))
    for place, mask in flips:
        data[place % len(data)] ^= mask
    path = write(tmp_path_factory.getbasetemp() / ("flipped.gz" if gz else "flipped"), bytes(data))
    assert is_read_or_refused(read_idx, path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n\x1a\n", "starts with 89 50 4e 47, expected IDX"),
        (struct.pack(">BBBB2I", 0, 0, 8, 2, 2**32 - 1, 2**32 - 1) + b"\0" * 9, "declares shape .* more than the file"),
        (struct.pack(">BBBBI", 0, 0, 8, 1, 0), r"empty, shape \(0,\)"),
        (encode_idx(TINY) + b"!", "the file holds more"),
        (encode_idx(TINY)[:-1], "12 bytes, .*Fetch it again"),
    ],
)
@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_refusals(tmp_path, data, message, end):
    path = write(tmp_path / f"bad-ubyte{end}", gzip.compress(data) if end else data)
    with pytest.raises(DataError, match=f"bad-ubyte.*({message}|but the file holds)"):
        read_idx(path)


def test_idx_bomb_is_not_unpacked(tmp_path):
    # 100 MB of zeros in 100 kB behind a header of 12 bytes: reading stops one byte after them.
    data = encode_idx(TINY) + bytes(100_000_000)
    with pytest.raises(DataError, match="12 bytes, but the file holds more"):
        read_idx(write(tmp_path / "bomb.gz", gzip.compress(data, 1)))


@pytest.mark.parametrize("inside", [".", "FashionMNIST/raw", "MNIST/raw", "raw"])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_folder_as_torchvision_lays_it_out(tmp_path, inside, end):
    pack = gzip.compress if end else bytes
    images, labels = RNG.integers(0, 256, (20, 6, 5)).astype(np.uint8), np.arange(20, dtype=np.uint8) % 4
    for stem, rows in (("train", slice(0, 20)), ("t10k", slice(0, 7))):
        write(tmp_path / inside / f"{stem}-images-idx3-ubyte{end}", pack(encode_idx(images[rows])))
        write(tmp_path / inside / f"{stem}-labels-idx1-ubyte{end}", pack(encode_idx(labels[rows])))
    arrays = read_idx_folder(tmp_path)
    assert np.array_equal(arrays["x_train"], images)
    data = from_path(tmp_path)
    assert (data.spec.shape, data.spec.kind, data.spec.levels, data.spec.num_classes) == ((1, 6, 5), "levels", 256, 4)
    assert np.array_equal(data.test["x"][:, 0].numpy(), images[:7])
    assert len(data.validation["x"]) == 2


def test_two_idx_data_sets(tmp_path):
    for inside in ("MNIST/raw", "FashionMNIST/raw"):
        write(tmp_path / inside / "train-images-idx3-ubyte", encode_idx(TINY))
    with pytest.raises(UsageError, match="several data sets"):
        from_path(tmp_path)


def test_labels_of_another_length_name_the_folder(tmp_path):
    write(tmp_path / "train-images-idx3-ubyte", encode_idx(TINY))
    write(tmp_path / "train-labels-idx1-ubyte", encode_idx(np.zeros(3, np.uint8)))
    with pytest.raises(DataError, match=f"{tmp_path.name}, y_train: 3 labels for 2 rows"):
        from_path(tmp_path)


def test_single_idx_file(tmp_path):
    path = write(tmp_path / "some-images-idx3-ubyte", encode_idx(RNG.integers(0, 256, (9, 4, 4)).astype(np.uint8)))
    assert from_path(path).spec.shape == (1, 4, 4)


@pytest.mark.parametrize("dtype", ["u1", "?", ">i4", "f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_round_trip(tmp_path, dtype, order):
    array = np.asarray(RNG.integers(0, 2, (6, 4, 3)).astype(dtype), order=order)
    np.save(tmp_path / "a.npy", array)
    found = read_arrays(tmp_path / "a.npy")["x"]
    assert np.array_equal(found, array)
    assert found.dtype.isnative
    assert found.flags.writeable


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_round_trip(tmp_path, save):
    arrays = {"x_train": RNG.normal(size=(9, 3)), "x_test": RNG.normal(size=(2, 3))}
    save(tmp_path / "a.npz", **arrays)
    found = read_arrays(tmp_path / "a.npz")
    assert set(found) == set(arrays)
    assert all(np.array_equal(found[k], arrays[k]) for k in arrays)
    assert len(from_path(tmp_path / "a.npz").test["x"]) == 2


def test_npz_with_one_array_of_any_name(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((9, 3)))
    assert set(read_arrays(tmp_path / "a.npz")) == {"x"}


@pytest.mark.parametrize("names", [["x", "z"], ["x", "y_test"], ["x_train", "y_train", "x_test"], ["a", "b"], []])
def test_npz_names(tmp_path, names):
    np.savez(tmp_path / "a.npz", **{name: np.zeros((3, 2)) for name in names})
    found = ", ".join(map(repr, names)) or "nothing"
    with pytest.raises(DataError, match=f"a.npz: found the arrays {found}; expected exactly one of: x; x, y"):
        read_arrays(tmp_path / "a.npz")


@settings(max_examples=300, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 127), st.integers(32, 126)), min_size=1, max_size=12))
def test_npy_header_of_any_text_is_typed(tmp_path_factory, flips):
    buffer = io.BytesIO()
    np.save(buffer, TINY)
    data = bytearray(buffer.getvalue())
    for place, value in flips:
        data[place] = value
    assert is_read_or_refused(read_arrays, write(tmp_path_factory.getbasetemp() / "text.npy", bytes(data)))


class Canary:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the canary ran')",))


@pytest.mark.parametrize("save", [np.save, np.savez])
def test_pickle_is_never_read(tmp_path, save):
    path = tmp_path / ("a.npy" if save is np.save else "a.npz")
    save(path, np.array([Canary(), [1, 2]], dtype=object))
    with pytest.raises(DataError, match=r"a\.np.*Python objects, which needs pickle.*cut or padded"):
        from_path(path)


def header(shape, descr="<f4"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(2**40,), (2**31, 2**31, 2**31), (-1, 4), (3,)])
def test_header_is_checked_before_allocating(tmp_path, shape):
    path = write(tmp_path / "a.npy", header(shape) + b"\0" * 8)
    with pytest.raises(DataError, match=r"a\.npy"):
        read_arrays(path)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", path.read_bytes())
    with pytest.raises(DataError, match=r"a\.npz"):
        read_arrays(tmp_path / "a.npz")


def test_npz_bomb_is_refused_by_its_declared_size(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(100_000))
    monkeypatch.setattr("pyrogen.data.arrays.MAX_BYTES", 1000)
    with pytest.raises(DataError, match=r"\d+ bytes when unpacked, expected at most 1000"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_npy_and_npz_damage_is_typed(tmp_path, suffix):
    good = tmp_path / f"good{suffix}"
    (np.save if suffix == ".npy" else np.savez_compressed)(good, TINY)
    data = good.read_bytes()
    path = tmp_path / f"bad{suffix}"
    for length in range(len(data)):
        write(path, data[:length])
        with pytest.raises(DataError, match="bad"):
            read_arrays(path)
    for place in range(len(data)):
        for mask in (1, 0x20, 0x80, 0xFF):
            write(path, data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :])
            assert is_read_or_refused(read_arrays, path)


def save_image(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path)


def test_flat_image_folder(tmp_path):
    images = RNG.integers(0, 256, (5, 4, 6)).astype(np.uint8)
    for i, image in enumerate(images):
        save_image(tmp_path / f"{i}.png", image)
    write(tmp_path / "notes.txt", b"not an image")
    data = from_path(tmp_path)
    assert data.spec.shape == (1, 4, 6)
    assert data.spec.num_classes is None
    assert np.array_equal(read_image_folder(tmp_path)["x"][..., 0], images)


def test_folder_a_class(tmp_path):
    colours = {"dog": (255, 0, 0), "ant": (0, 255, 9), "cat": (0, 0, 255)}
    for name, colour in colours.items():
        for i in range(4):
            save_image(tmp_path / name / f"{i}.png", np.full((3, 3, 3), colour, dtype=np.uint8))
    arrays = read_image_folder(tmp_path)
    assert arrays["y"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert arrays["x"][0, 0, 0].tolist() == [0, 255, 9]
    data = from_path(tmp_path)
    assert (data.spec.shape, data.spec.num_classes) == ((3, 3, 3), 3)
    assert from_path(tmp_path, grayscale=True, size=2).spec.shape == (1, 2, 2)


def test_train_and_test_folders_are_not_classes(tmp_path):
    for part, count in (("train", 4), ("test", 2)):
        for name in ("a", "b"):
            for i in range(count):
                save_image(tmp_path / part / name / f"{i}.png", np.full((2, 2), i, dtype=np.uint8))
    data = from_path(tmp_path, validation=0.25)
    assert [len(data.split(s)["x"]) for s in ("train", "validation", "test")] == [6, 2, 4]
    assert data.spec.num_classes == 2


def test_one_bit_images_are_binary(tmp_path):
    for i in range(4):
        save_image(tmp_path / f"{i}.png", RNG.integers(0, 2, (4, 4)).astype(np.uint8) * 255, "1")
    assert from_path(tmp_path).spec.kind == "binary"


def test_image_of_another_size_is_named(tmp_path):
    for i in range(3):
        save_image(tmp_path / f"{i}.png", np.zeros((4, 4 + (i == 1)), dtype=np.uint8))
    with pytest.raises(DataError, match=r"1\.png: 4 x 5 pixels.*0\.png has 4 x 4\. Give `size`"):
        from_path(tmp_path)
    assert read_image_folder(tmp_path, size=(2, 3))["x"].shape == (3, 2, 3, 1)


def test_truncated_image_is_named(tmp_path):
    for i in range(3):
        save_image(tmp_path / f"{i}.png", RNG.integers(0, 256, (20, 20)).astype(np.uint8))
    data = (tmp_path / "1.png").read_bytes()
    for length in (0, 10, 30, len(data) // 2):
        write(tmp_path / "1.png", data[:length])
        with pytest.raises(DataError, match=r"1\.png: not a readable image"):
            from_path(tmp_path)


def test_images_that_would_lose_something(tmp_path):
    save_image(tmp_path / "deep" / "0.png", np.zeros((4, 4), dtype=np.uint16))
    with pytest.raises(DataError, match=r"0\.png: pixels of mode 'I;16', expected 8 bits"):
        from_path(tmp_path / "deep")
    save_image(tmp_path / "clear" / "0.png", np.zeros((4, 4, 4), dtype=np.uint8))
    with pytest.raises(DataError, match=r"0\.png: transparent pixels.*Flatten"):
        from_path(tmp_path / "clear")


def test_image_bomb(tmp_path, monkeypatch):
    save_image(tmp_path / "0.png", np.zeros((40, 40), dtype=np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"0\.png: not a readable image"):
        from_path(tmp_path)


def test_folders_that_are_no_data(tmp_path):
    with pytest.raises(DataError, match="found nothing; expected images"):
        from_path(tmp_path)
    save_image(tmp_path / "a" / "0.png", np.zeros((2, 2), dtype=np.uint8))
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="b: a class without images"):
        from_path(tmp_path)
    save_image(tmp_path / "0.png", np.zeros((2, 2), dtype=np.uint8))
    with pytest.raises(DataError, match="directly inside and in sub-folders"):
        from_path(tmp_path)


def test_paths_that_are_not_read(tmp_path):
    write(tmp_path / "digits.npy", header((1,)) + b"\0" * 4)
    with pytest.raises(MissingInputError, match=r"digit\.npy: no such file.*did you mean 'digits\.npy'"):
        from_path(tmp_path / "digit.npy")
    with pytest.raises(DataError, match=r"a\.csv: a format that is not read; expected \.npy"):
        from_path(write(tmp_path / "a.csv", b"1,2"))
    save_image(tmp_path / "a.png", np.zeros((2, 2), dtype=np.uint8))
    with pytest.raises(UsageError, match="a single image; give the path of the folder"):
        from_path(tmp_path / "a.png")
    np.save(tmp_path / "x.npy", np.zeros((9, 2)))
    with pytest.raises(UsageError, match="for folders of images only"):
        from_path(tmp_path / "x.npy", size=3)
    with pytest.raises(UsageError, match="size=0"):
        read_image_folder(tmp_path, size=0)


def test_settings_go_through(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(20).reshape(10, 2))
    data = from_path(tmp_path / "x.npy", levels=20, pixels="dequantized", validation=0.2, test=0.3, seed=5)
    assert data.describe().startswith("x: 5 train + 2 validation + 3 test, x (2,) uint8 in ")
    assert (data.spec.kind, data.spec.levels) == ("dequantized", 20)
    assert issubclass(DataError, PyrogenError)
