"""Held to the truth: neighbourhoods against exact expectations, classes by hand, the limit of Fréchet distances."""

import math
from hashlib import sha256

import numpy as np
import pytest
import torch
from torch import nn

from pyrogen.errors import DataError, UsageError
from pyrogen.evaluation import (
    class_coverage,
    coverage,
    density,
    features,
    fingerprint,
    frechet_distance,
    frechet_distance_limit,
)

# Neighbourhoods


def expected_coverage(m, n, k):
    """One less the probability that the k nearest of m - 1 data and n draws are all data."""
    return 1 - math.prod((m - 1 - i) / (m - 1 + n - i) for i in range(k))


@pytest.mark.parametrize(("m", "n", "k"), [(40, 60, 5), (80, 30, 3)])
@pytest.mark.parametrize("dims", [1, 50])
def test_neighbourhoods_of_equal_distributions(m, n, k, dims):
    """A draw's rank among the others of a datum is uniform: k / m of the data have it among their k nearest."""
    torch.manual_seed(0)
    pairs = [(torch.randn(m, dims), torch.randn(n, dims)) for _ in range(300)]
    for measure, truth in ((density, 1.0), (coverage, expected_coverage(m, n, k))):
        found = np.array([measure(x, y, neighbours=k) for x, y in pairs])
        assert abs(found.mean() - truth) < 4.5 * found.std() / len(found) ** 0.5


def test_density_by_hand():
    torch.manual_seed(0)
    x, y = torch.randn(30, 2), 0.6 * torch.randn(40, 2) + 0.3
    radius = [sorted(float((a - b).norm()) for b in x)[4] for a in x]
    total = sum(float((p - a).norm()) <= r for p in y for a, r in zip(x, radius, strict=True))
    assert density(x, y, neighbours=4) == pytest.approx(total / (4 * 40))


def test_a_neighbourhood_has_its_edge():
    x, y = torch.arange(4.0)[:, None], torch.tensor([[-1.0], [50.0]])
    assert (density(x, y, neighbours=1), coverage(x, y, neighbours=1)) == (0.5, 0.25)


def test_blocks_make_no_difference(monkeypatch):
    x, y = torch.randn(50, 3), torch.randn(40, 3)
    whole = density(x, y), coverage(x, y)
    monkeypatch.setattr("pyrogen.evaluation.samples.BLOCK", 7)
    monkeypatch.setattr("pyrogen.evaluation.checks.BLOCK", 7)
    assert (density(x, y), coverage(x, y)) == whole


def test_an_outlier_is_no_density():
    """Draws around one outlier of 200 data are all right for the precision."""
    torch.manual_seed(0)
    x = torch.cat([torch.randn(199, 2), torch.full((1, 2), 50.0)])
    y = torch.full((100, 2), 40.0) + torch.randn(100, 2)
    assert features.precision_recall(x, y).precision == 1.0
    assert density(x, y) == pytest.approx(0.2)


# Classes


def test_classes_by_hand():
    x = torch.tensor([0.0, 1.0, 2.0, 10.0, 11.0, 12.0, 20.0, 21.0])[:, None]
    labels = torch.tensor([4, 4, 4, 7, 7, 7, 9, 9])
    y = torch.tensor([0.1, 0.2, 10.9, 15.9])[:, None]  # the last is nearest to 12, and then to 20
    found = class_coverage(x, labels, y, neighbours=1)  # within 1 of a datum
    assert found.of_data == {4: 0.375, 7: 0.375, 9: 0.25}
    assert {label: share.value for label, share in found.of_draws.items()} == {4: 0.5, 7: 0.5, 9: 0.0}
    covered = {label: share.value for label, share in found.covered.items()}
    assert covered == pytest.approx({4: 2 / 3, 7: 2 / 3, 9: 0.0})  # 0 and 1; 10 and 11
    assert found.kl == pytest.approx(math.log(0.5 / 0.375))
    by_classifier = class_coverage(x, labels, y, torch.tensor([4, 4, 9, 9]), neighbours=1)
    assert {label: share.value for label, share in by_classifier.of_draws.items()} == {4: 0.5, 7: 0.0, 9: 0.5}
    assert by_classifier.of_draws[4].stderr == pytest.approx((1 / 3 / 4) ** 0.5)
    assert by_classifier.covered == found.covered
    assert class_coverage(x, labels, y, torch.tensor([4, 4, 9, 1]), neighbours=1).kl == math.inf


def test_labels_that_do_not_fit():
    x = torch.randn(8, 2)
    for labels in (torch.zeros(7, dtype=torch.int64), torch.zeros(8), torch.zeros(8, 1, dtype=torch.int64)):
        with pytest.raises(DataError, match=r"an integer for each of 8 data, shape \(8,\)"):
            class_coverage(x, labels, x)
        with pytest.raises(DataError, match="for each of 8 draws"):
            class_coverage(x, torch.zeros(8, dtype=torch.int64), x, labels)


# The limit of Fréchet distances


def normals(count, dims=16):
    """N(0, I) and N(1/4, 1.5^2 I): 16 (1/16 + 1/4) = 5."""
    return torch.randn(count, dims), 0.25 + 1.5 * torch.randn(count, dims)


def test_the_limit_is_free_of_the_bias():
    torch.manual_seed(0)
    pairs = [normals(400) for _ in range(40)]
    plain, limit = ([figure(x, y) for x, y in pairs] for figure in (frechet_distance, frechet_distance_limit))
    of_plain, of_limit = (np.array([found.value for found in figures]) for figures in (plain, limit))
    error = of_limit.std() / 40**0.5
    assert abs(of_limit.mean() - 5.0) < 4.5 * error
    assert of_plain.mean() - 5.0 > 10 * error
    assert np.mean([found.stderr for found in limit]) == pytest.approx(of_limit.std(), rel=0.3)


def test_the_limit_of_a_line_is_exact(monkeypatch):
    monkeypatch.setattr(features, "_frechet", lambda x, y: 3.0 + 50.0 / len(x) + 30.0 / len(y))
    found = frechet_distance_limit(torch.randn(160, 2), torch.randn(200, 2))
    assert found.value == pytest.approx(3.0)


def test_an_order_does_no_harm(monkeypatch):
    """The parts of a sorted sample are from all over: all have the mean 1/2."""
    monkeypatch.setattr(features, "_frechet", lambda x, y: float(x.mean() ** 2 + y.mean() ** 2))
    x = torch.linspace(0, 1, 400)[:, None]
    assert frechet_distance_limit(x, x).value == pytest.approx(0.5, abs=1e-4)


def test_too_few_for_a_limit():
    with pytest.raises(UsageError, match="takes 128 rows of either sample or more, found 200 and 127"):
        frechet_distance_limit(torch.randn(200, 16), torch.randn(127, 16))


# Whose features


def test_a_fingerprint_is_of_all_bytes():
    network = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1))
    digest = sha256()
    for name in ("0.weight", "1.bias", "1.num_batches_tracked", "1.running_mean", "1.running_var", "1.weight"):
        values = network.state_dict()[name]
        digest.update(f"|{name}/{values.dtype}/{tuple(values.shape)}|".encode() + values.numpy().tobytes())
    first = fingerprint(network)
    assert first == digest.hexdigest()
    found = {first}
    network[1].running_mean += 1e-7
    found.add(fingerprint(network))
    network[0].weight.data = network[0].weight.data.T.contiguous()
    found.add(fingerprint(network))
    found.add(fingerprint(network.bfloat16()))
    found.add(fingerprint(nn.Sequential(network)))
    assert len(found) == 5


def test_a_fingerprint_does_not_see_strides():
    one, other = nn.Linear(3, 3), nn.Linear(3, 3)
    other.load_state_dict(one.state_dict())
    other.weight.data = other.weight.data.T.contiguous().T
    assert fingerprint(one) == fingerprint(other)


def test_a_fingerprint_of_what_is_no_tensor():
    class Odd(nn.Linear):
        def get_extra_state(self):
            return {"scale": 2.0}

    with pytest.raises(UsageError, match="'_extra_state', a dict"):
        fingerprint(Odd(1, 1))
