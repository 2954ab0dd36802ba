"""Splits are determined by seed, disjoint, and leave the global generator alone; batches use it and nothing more."""

import pytest
import torch

from pyrogen.data import Batches, Dataset, breast_cancer, digits, iris, split, standardize
from pyrogen.errors import DataError, UsageError
from pyrogen.spec import DataSpec

SPEC = DataSpec((1,), "real", num_classes=3)


def rows(n):
    return {"x": torch.arange(n, dtype=torch.float32)[:, None], "y": torch.arange(n) % 3}


def ids(data, name):
    return data.split(name)["x"][:, 0].tolist()


def test_splits_are_disjoint_complete_and_keep_pairs():
    data = split(rows(103), SPEC, "n", validation=0.2, test=0.1)
    assert sorted(ids(data, "train") + ids(data, "validation") + ids(data, "test")) == list(range(103))
    assert [len(ids(data, s)) for s in ("train", "validation", "test")] == [72, 21, 10]
    for name in ("train", "validation", "test"):
        columns = data.split(name)
        assert torch.equal(columns["x"][:, 0].long() % 3, columns["y"])


def test_seed_determines_the_split():
    first, again, other = (split(rows(50), SPEC, "n", seed=seed) for seed in (1, 1, 2))
    assert first.fingerprint() == again.fingerprint()
    assert first.fingerprint() != other.fingerprint()
    assert ids(first, "train") != sorted(ids(first, "train"))


def test_given_test_rows_are_the_test_split():
    data = split(rows(20), SPEC, "n", validation=0.5, test=0.9, given_test=rows(7))
    assert ids(data, "test") == list(range(7))
    assert len(ids(data, "train")) == len(ids(data, "validation")) == 10


def test_empty_held_out_splits_are_allowed_until_they_are_used():
    data = split(rows(4), SPEC, "n", validation=0, test=0)
    assert data.eval_columns("test")["x"].shape == (0, 1)
    with pytest.raises(DataError, match=r"n, test split: no rows.*fraction above 0"):
        data.batches(2, "test")


def test_a_small_fraction_is_at_least_one_row():
    assert len(ids(split(rows(4), SPEC, "n", validation=0.01, test=0.0), "validation")) == 1


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1, float("nan"), "0.1", True])
def test_fractions(fraction):
    with pytest.raises(UsageError, match=r"validation=.*expected a fraction"):
        split(rows(9), SPEC, "n", validation=fraction)


def test_nothing_left_to_train_on():
    with pytest.raises(DataError, match="n: nothing is left to train on, 2 rows less 1 for validation and 1 for test"):
        split(rows(2), SPEC, "n", validation=0.1, test=0.1)


@pytest.mark.parametrize("seed", [0.5, None, True])
def test_seed_is_a_whole_number(seed):
    with pytest.raises(UsageError, match=r"seed=.*whole number"):
        split(rows(9), SPEC, "n", seed=seed)


def test_loading_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    for pixels in ("levels", "static-binary", "dynamic-binary", "threshold", "dequantized"):
        data = digits(pixels=pixels)
        data.fingerprint(), data.describe(), data.eval_columns("train"), data.eval_columns("test"), data.batches(7)
    assert torch.equal(torch.get_rng_state(), before)


def test_fingerprint_sees_values_shapes_dtypes_and_spec():
    def made(x, spec=SPEC):
        return Dataset("n", {"x": x}, {"x": x[:0]}, {"x": x[:0]}, spec).fingerprint()

    x = torch.zeros(4, 1)
    prints = {
        made(x),
        made(x + 1),
        made(x.reshape(2, 2)),
        made(x.to(torch.uint8)),
        made(x, DataSpec((1,), "real")),
        made(x[:3]),
    }
    assert len(prints) == 6


def test_fingerprint_is_the_same_in_every_process():
    # The digits of scikit-learn never change; this literal was printed once by digits().fingerprint().
    assert digits().fingerprint() == FINGERPRINT


FINGERPRINT = "36b0a6a118c2dbe18244ec94a6d134736a1dfe34b3cbe5fd974979d50b611b03"


@pytest.mark.parametrize(("load", "features", "classes"), [(breast_cancer, 30, 2), (iris, 4, 3)])
def test_tables_are_standardised_by_the_training_rows_alone(load, features, classes):
    data = load()
    x = data.train["x"].double()
    assert data.spec.shape == (features,)
    assert (data.spec.kind, data.spec.num_classes) == ("real", classes)
    # float32 values: mean 0 and variance 1 up to rounding
    assert x.mean(0).abs().max() < 1e-6
    assert (x.var(0, correction=0) - 1).abs().max() < 1e-5
    # mutant: statistics of all rows together would leave the training mean off zero
    assert torch.cat([x, data.test["x"].double()]).mean(0).abs().max() > 1e-3


def test_batches_follow_the_global_generator():
    batches = Batches(rows(10), 3)
    state = torch.get_rng_state()
    first = [batch["x"] for batch in batches]
    second = [batch["x"] for batch in batches]
    torch.set_rng_state(state)
    again = [batch["x"] for batch in batches]
    assert torch.equal(torch.cat(first), torch.cat(again))
    assert not torch.equal(torch.cat(first), torch.cat(second))
    assert [len(x) for x in first] == [3, 3, 3, 1]
    assert len(batches) == 4
    assert batches.num_data == 10


def test_nothing_is_drawn_ahead_of_need():
    drawn = []
    batches = Batches(rows(6), 2, transform=lambda x: drawn.append(len(x)) or x)
    epoch = iter(batches)
    assert drawn == []
    next(epoch)
    assert drawn == [2]


def test_batches_without_shuffling_draw_no_random_numbers():
    state = torch.get_rng_state()
    assert torch.cat([b["y"] for b in Batches(rows(5), 2, shuffle=False, only=["y"])]).tolist() == [0, 1, 2, 0, 1]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_column_that_is_not_drawn_is_not_transformed():
    assert [set(b) for b in Batches(rows(2), 2, only=["y"], transform=lambda x: 1 / 0)] == [{"y"}]


def test_drop_last():
    assert [len(b["x"]) for b in Batches(rows(5), 2, drop_last=True)] == [2, 2]
    assert len(Batches(rows(5), 2, drop_last=True)) == 2
    with pytest.raises(DataError, match="batch_size=6 exceeds the 5 rows and drop_last"):
        Batches(rows(5), 6, drop_last=True)


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True])
def test_batch_size(batch_size):
    with pytest.raises(UsageError, match=r"batch_size=.*at least 1"):
        Batches(rows(5), batch_size)


def test_columns_that_do_not_fit():
    with pytest.raises(DataError, match=r"different lengths \{'x': 5, 'y': 4\}"):
        Batches(rows(5) | {"y": torch.zeros(4)}, 2)
    with pytest.raises(UsageError, match="no column 'labels', found 'x', 'y'"):
        Batches(rows(5), 2, only=["labels"])
    with pytest.raises(UsageError, match="name at least one"):
        Batches(rows(5), 2, only=[])


def test_unknown_split():
    with pytest.raises(UsageError, match=r"'tset'.*did you mean 'test'"):
        digits().batches(2, "tset")


def test_standardising_leaves_out_what_is_missing():
    x = torch.tensor([[1.0, 5.0], [3.0, float("nan")], [float("nan"), 9.0], [5.0, 7.0]])
    data = standardize(split({"x": x}, DataSpec((2,), "real"), "n", validation=0.0, test=0.0))
    found = data.train["x"]
    assert int(found.isnan().sum()) == 2
    torch.testing.assert_close(found.nanmean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.square().nanmean(0), torch.ones(2))
