"""Every refusal of bad data says what, where and how to mend it; the dtype rule; the rule for kinds and shapes."""

import numpy as np
import pytest
import torch

from pyrogen.data import from_arrays
from pyrogen.data.checks import check_labels, check_levels, check_reals
from pyrogen.data.columns import channels_first, kind_and_levels, read_columns
from pyrogen.errors import DataError, UsageError


def grey(n=8):
    return np.random.default_rng(0).integers(0, 256, (n, 4, 4)).astype(np.uint8)


def test_nan_is_counted_and_located():
    x = np.zeros((5, 3))
    x[2, 1], x[4, 0] = np.nan, np.inf
    with pytest.raises(DataError, match=r"f\.npy: 2 of 15 values are bad, the first is nan at index \(2, 1\).*Drop"):
        check_reals(x, "f.npy")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[1, 2], [3]], dtype=object), "rows of different lengths"),
        (np.array([["a"]]), "text; encode"),
        (np.array([[1j]]), "complex numbers"),
        (np.zeros((0, 3)), r"empty, shape \(0, 3\)"),
        (np.zeros((3, 0)), r"empty, shape \(3, 0\)"),
        (np.array(3.0), "single number"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "dates"),
        (np.zeros(3, dtype=[("a", "f4")]), "named fields"),
    ],
)
def test_arrays_that_are_no_data(array, message):
    with pytest.raises(DataError, match=message):
        from_arrays({"x": array}, where="f.npy")


def test_float64_becomes_float32_and_overflow_is_refused():
    assert check_reals(np.array([[0.5]]), "f").dtype == torch.float32
    assert check_reals(np.array([[1]], dtype=">i4"), "f").dtype == torch.float32
    with pytest.raises(DataError, match=r"index \(1, 0\) beyond the range of float32"):
        check_reals(np.array([[0.0], [1e39]]), "f")


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.int64, np.uint64, np.float32, np.float64])
def test_levels_become_uint8(dtype):
    values = check_levels(np.array([[0, 1]], dtype=dtype), 2, "f")
    assert values.dtype == torch.uint8
    assert values.tolist() == [[0, 1]]


def test_levels_out_of_range():
    with pytest.raises(
        DataError, match=r"1 of 3 values are bad, the first is 17 at index \(2,\) out of range.*0\.\.16"
    ):
        check_levels(np.array([0, 16, 17]), 17, "f")
    with pytest.raises(DataError, match=r"-1 at index \(0,\) out of range"):
        check_levels(np.array([-1, 1]), 17, "f")
    with pytest.raises(DataError, match=r"0\.5 at index \(1,\); expected whole numbers 0\.\.255.*multiply"):
        check_levels(np.array([0.0, 0.5]), 256, "f")


@pytest.mark.parametrize("levels", [1, 257, 2.0, True, "many"])
def test_levels_setting(levels):
    with pytest.raises(UsageError, match="from 2 to 256"):
        from_arrays({"x": grey()}, levels=levels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 10, 2, 11], r"2 of 4 labels \(10 in row 1, 11 in row 3\) are out of range; expected classes 0\.\.9"),
        ([0, -1, 2, 3], r"1 of 4 labels \(-1 in row 1\) are negative"),
        ([0, 0.5, 2, 3], r"\(0\.5 in row 1\) are fractional"),
        ([0, np.nan, 2, 3], r"nan at index \(1,\)"),
        ([0, 1, 2], "3 labels for 4 rows"),
        (np.eye(4), r"shape \(4, 4\).*one-hot rows save y\.argmax\(1\)"),
        (np.array([0, 1, 2, 2**64 - 1], dtype=np.uint64), r"18446744073709551615 in row 3\) are negative"),
        (["a", "b", "c", "d"], "text"),
    ],
)
def test_labels(labels, message):
    with pytest.raises(DataError, match=message):
        check_labels(np.array(labels), 4, 10, "f.npz, y")


def test_many_bad_labels_name_five_rows():
    with pytest.raises(DataError, match=r"8 of 8 labels \(-1\.0 in row 0, .*row 4, \.\.\.\)"):
        check_labels(-np.ones(8), 8, None, "f")


def test_labels_that_are_fine():
    values, classes = check_labels(np.array([[0.0], [2.0]]), 2, None, "f")
    assert (values.tolist(), classes, values.dtype) == ([0, 2], 3, torch.int64)
    assert check_labels(np.array([0, 2]), 2, 10, "f")[1] == 10


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 1]]), ("binary", 2, 1)),
        (np.array([[0.0, 1.0]]), ("binary", 2, 1)),
        (np.array([[True, False]]), ("binary", 2, 1)),
        (np.array([[0, 255]]), ("binary", 2, 255)),
        (np.array([[0, 3, 16]]), ("levels", 17, 1)),
        (np.array([[0, 3, 17]]), ("levels", 256, 1)),
        (np.array([[0.0, 0.5]]), ("real", None, 1)),
    ],
)
def test_rule_for_kinds(values, expected):
    assert kind_and_levels([values], None, "f") == expected


def test_integers_beyond_8_bits():
    with pytest.raises(DataError, match=r"integers -3\.\.70000; expected levels within 0\.\.255.*astype"):
        from_arrays({"x": np.array([[-3], [70000], [5]])})


def test_kind_is_found_over_training_and_test_rows_together():
    arrays = {"x_train": np.array([[0], [1]]), "x_test": np.array([[0], [9]])}
    columns, given_test, spec = read_columns(arrays, "n", "f")
    assert (spec.kind, spec.levels) == ("levels", 10)
    assert columns["x"].dtype == given_test["x"].dtype == torch.uint8


def test_mask_of_255_becomes_one():
    columns, _, spec = read_columns({"x": np.array([[0, 255], [255, 0]], dtype=np.uint8)}, "n", "f")
    assert spec.kind == "binary"
    assert columns["x"].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((5,), (1,)), ((5, 7), (7,)), ((5, 4, 6), (1, 4, 6)), ((5, 4, 6, 3), (3, 4, 6)), ((5, 1, 4, 6), (1, 4, 6))],
)
def test_rule_for_shapes(shape, expected):
    assert channels_first(np.zeros(shape), "f").shape[1:] == expected


def test_channels_are_moved_not_reshaped():
    x = np.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3)
    assert (channels_first(x, "f")[1, 2] == x[1, :, :, 2]).all()
    # mutant: a reshape has the same shape and scrambles the pixels
    assert (x.reshape(2, 3, 4, 5)[1, 2] != x[1, :, :, 2]).any()


@pytest.mark.parametrize("shape", [(5, 2, 4, 4), (2, 2, 2, 2, 2)])
def test_shapes_that_are_not_read(shape):
    with pytest.raises(DataError, match=r"f, x: shape .*Reshape"):
        from_arrays({"x": np.zeros(shape)}, where="f")


def test_shapes_of_training_and_test():
    with pytest.raises(DataError, match="rows of different shapes"):
        from_arrays({"x_train": np.zeros((4, 3)), "x_test": np.zeros((4, 2))})


def test_number_of_classes_is_common():
    x = grey(4)
    arrays = {"x_train": x, "y_train": np.array([0, 1, 0, 1]), "x_test": x, "y_test": np.array([0, 5, 0, 1])}
    assert from_arrays(arrays, validation=0.25).spec.num_classes == 6


def test_nan_is_kept_where_it_is_missing():
    x = np.array([[1, np.nan], [0.0, 1]])
    data = from_arrays({"x": x}, validation=0, test=0, missing=True)
    assert data.spec.kind == "real"
    assert data.train["x"].isnan().sum() == 1
    assert "in 0..1, 25% missing" in data.describe()
    for values, says in ((np.array([[1.0, np.inf]]), "inf at index"), (np.array([[1.0, np.nan]]), "1 of 2 columns")):
        with pytest.raises(DataError, match=says):
            from_arrays({"x": values}, validation=0, test=0, missing=True)
    with pytest.raises(UsageError, match="none of which is NaN"):
        from_arrays({"x": x}, levels=2, missing=True)
