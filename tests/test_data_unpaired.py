"""Two data sets whose rows do not belong to each other: orders, lengths, resuming, and what is refused."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from pyrogen.data import Batches, Unpaired, UnpairedBatches, from_arrays
from pyrogen.errors import DataError, UsageError
from pyrogen.inference.feed import Feed
from pyrogen.rehearsal import get_rng_state, set_rng_state


def rows(count, first=0, **settings):
    """Data that are told by their number."""
    x = np.arange(first, first + count, dtype="float32")[:, None]
    return from_arrays({"x": x}, name=f"rows{count}", **{"validation": 0.0, "test": 0.0} | settings)


def epoch(batches):
    batches = list(batches)
    return [torch.cat([batch[name] for batch in batches]).flatten().tolist() for name in ("a", "b")]


def check_an_epoch(domains):
    """Each datum of the longer domain once, and each of the shorter as often as the others, or once more."""
    data = Unpaired(*domains)
    batches = data.batches(7)
    assert len(batches) == 4
    assert [len(batch["a"]) for batch in batches] == [7, 7, 7, 2] == [len(batch["b"]) for batch in batches]
    a, b = epoch(batches)
    short, long = (a, b) if len(domains[0].train["x"]) < len(domains[1].train["x"]) else (b, a)
    assert sorted(long) == list(range(100, 123))
    counts = [short.count(value) for value in range(10)]
    assert sum(counts) == 23
    assert min(counts) == 2
    assert max(counts) == 3
    assert sorted(short[:10]) == list(range(10))
    assert short[:10] != short[10:20]  # another order


@pytest.mark.parametrize("swapped", [False, True])
def test_an_epoch(swapped):
    check_an_epoch((rows(10), rows(23, 100))[:: -1 if swapped else 1])


def test_mutant_the_shorter_by_chance(monkeypatch):
    """Rows of the shorter drawn with replacement would miss some."""
    monkeypatch.setattr(
        UnpairedBatches, "_order", lambda self, batches: torch.randint(batches.num_data, (self.num_data,))
    )
    with pytest.raises(AssertionError):
        check_an_epoch((rows(10), rows(23, 100)))


def test_rows_do_not_go_together():
    """Equal data twice: each is shuffled by itself, so that no index says what belongs to what."""
    a, b = epoch(Unpaired(rows(50), rows(50)).batches(10))
    assert a != b
    assert sum(x == y for x, y in zip(a, b, strict=True)) < 10


def test_mutant_one_order_for_both(monkeypatch):
    def ordered(self, batches):
        return torch.arange(self.num_data)

    monkeypatch.setattr(UnpairedBatches, "_order", ordered)
    with pytest.raises(AssertionError):
        test_rows_do_not_go_together()


def test_the_seed_determines_the_order():
    batches = Unpaired(rows(10), rows(23)).batches(4)
    torch.manual_seed(3)
    first = [epoch(batches) for _ in range(2)]
    torch.manual_seed(3)
    assert [epoch(batches) for _ in range(2)] == first
    assert first[0] != first[1]


def noise(x):
    """What is drawn anew in each batch, as dynamic binarisation is."""
    return x.float() + torch.rand(x.shape)


def drawn(batches, count, stop=None):
    """Draw batches with noise of a training between them; with ``stop``, go on from a saved position in between."""
    torch.manual_seed(0)
    feed, found = Feed(batches), []
    for i in range(count):
        if i == stop:
            state, rng = feed.state_dict(), get_rng_state()
            torch.manual_seed(99)
            feed = Feed(batches)
            feed.load_state_dict(state)
            set_rng_state(rng)
        _, batch = feed.draw(None)
        found.append((batch["a"], batch["b"]))
        torch.randn(5)
    return found


def check_resuming(batches):
    expected = drawn(batches, 9)
    for stop in range(1, 9):
        for one, other in zip(drawn(batches, 9, stop), expected, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def unpaired_with_noise():
    return Unpaired(*(replace(rows(n), transform=noise) for n in (6, 17))).batches(4)


def test_resuming_is_bit_exact():
    check_resuming(unpaired_with_noise())


def test_mutant_orders_drawn_when_they_are_due(monkeypatch):
    """The shorter data's second order, drawn in the middle of an epoch, would be another one after resuming."""

    def late(self):
        a, b = self.domains["a"], self.domains["b"]
        short = iter(())
        for batch in b:
            following = next(short, None)
            if following is None:
                short = iter(a)
                following = next(short)
            yield {"a": following["x"], "b": batch["x"]}

    monkeypatch.setattr(UnpairedBatches, "__iter__", late)
    with pytest.raises(AssertionError):
        check_resuming(unpaired_with_noise())


def test_all_batches_are_full():
    batches = Unpaired(rows(10), rows(23)).batches(7, drop_last=True)
    assert [len(batch["a"]) for batch in batches] == [7, 7, 7] == [len(batch["b"]) for batch in batches]
    assert len(batches) == 3
    with pytest.raises(DataError, match="batch_size=24 exceeds the 23 rows of the longer data"):
        Unpaired(rows(10), rows(23)).batches(24, drop_last=True)


def test_held_out_data_keep_their_order_and_length():
    data = Unpaired(rows(20, validation=0.25), rows(40, 100, validation=0.25))
    columns = data.eval_columns("validation")
    assert {name: len(x) for name, x in columns.items()} == {"a": 5, "b": 10}
    assert data.num_data("validation") == 10
    assert data.num_data("test") == 0
    a, b = epoch(data.batches(4, "validation"))
    assert a == columns["a"].flatten().tolist() * 2
    assert b == columns["b"].flatten().tolist()
    assert Unpaired(rows(20, validation=0.25), rows(40)).num_data("validation") == 0


def test_fingerprints():
    """Of what both hold, and of which is which."""
    pairs = [(rows(10), rows(23)), (rows(23), rows(10)), (rows(10), rows(23, 1)), (rows(10), rows(10))]
    found = [Unpaired(*pair).fingerprint() for pair in pairs]
    assert len(set(found)) == 4
    assert Unpaired(rows(10), rows(23)).fingerprint() == found[0]
    assert all(one != other for one, other in pairwise(found))


def images(shape, levels=None, kind="uint8"):
    x = np.arange(10 * np.prod(shape)).reshape(10, *shape) % (levels or 256)
    return from_arrays({"x": x.astype(kind)}, name="x".join(map(str, shape)), levels=levels)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (images((8, 8)), images((8, 9)), r"one shape: 8x8 \(a\) is of shape \(1, 8, 8\), 8x9 \(b\) .*--size"),
        (images((8, 8)), images((8, 8, 3)), r"of \(3, 8, 8\).*--grayscale"),
        (images((8, 8)), images((8, 8), 17), "of levels 256, .* of 17.*--levels"),
        (images((8, 8)), images((8, 8), kind="float32"), "one kind.*levels.*real.*--pixels"),
    ],
)
def test_domains_that_do_not_fit(a, b, message):
    with pytest.raises(DataError, match=message):
        Unpaired(a, b)


def test_wrong_arguments():
    data = Unpaired(rows(10), rows(23))
    with pytest.raises(UsageError, match="both domains"):
        data.batches(4, only=["a"])
    with pytest.raises(UsageError, match="no split"):
        data.split("tests")
    with pytest.raises(UsageError, match="batch_size=0"):
        data.batches(0)
    with pytest.raises(DataError, match="no rows"):
        data.batches(4, "test")


def test_labels_are_left_out():
    labelled = from_arrays({"x": np.zeros((10, 2), "float32"), "y": np.arange(10) % 2}, name="labelled")
    data = Unpaired(labelled, labelled)
    assert data.spec.num_classes is None
    assert set(next(iter(data.batches(4)))) == {"a", "b"}
    assert isinstance(data.a.batches(4), Batches)
    assert data.describe().startswith("a: labelled: 8 train + 1 validation + 1 test")
