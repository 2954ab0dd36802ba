"""Groups of arrays for ArviZ: without torch, so that it runs under either major version of ArviZ.

pytest --noconftest -c /dev/null --rootdir . tests/test_inferencedata.py
"""

import subprocess
import sys
import warnings

import numpy as np
import pytest

from pyrogen.errors import CorruptCheckpointError, MissingInputError
from pyrogen.inferencedata import (
    IS_TREE,
    Variable,
    is_constant,
    pareto_k,
    read_netcdf,
    to_inference_data,
    write_netcdf,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz

SCHOOLS = ["A", "B", "C"]


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    theta = Variable(rng.normal(size=(2, 50, 3)), ("chain", "draw", "school"), {"unit": "points"})
    return to_inference_data(
        {
            "posterior": {"theta": theta, "mu": Variable(rng.normal(size=(2, 50)), ("chain", "draw"))},
            "log_likelihood": {"y": Variable(-1 - rng.random((2, 50, 3)), ("chain", "draw", "school"))},
            "sample_stats": {"diverging": Variable(np.zeros((2, 50), dtype=bool), ("chain", "draw"))},
            "observed_data": {"y": Variable(np.array([1, 2, 3]), ("school",))},
            "prior": {},
        },
        {"school": SCHOOLS},
        {"sample_stats": {"pareto_k": 0.3, "constant_weights": 0}},
    )


def names(data):
    return set(data.children) if IS_TREE else set(data.groups())


def check(data):
    theta = data["posterior"]["theta"]
    assert names(data) == {"posterior", "log_likelihood", "sample_stats", "observed_data"}  # no empty group
    assert theta.dims == ("chain", "draw", "school")
    assert list(theta["school"].values) == SCHOOLS
    assert list(theta["draw"].values) == list(range(50))
    assert theta.attrs["unit"] == "points"
    assert data["sample_stats"]["diverging"].dtype == bool
    assert data["sample_stats"].attrs["pareto_k"] == 0.3
    assert data["posterior"].attrs["inference_library"] == "pyrogen"
    assert "pareto_k" not in data["posterior"].attrs
    np.testing.assert_array_equal(data["observed_data"]["y"].sel(school="B"), 2)


def test_groups_dims_and_coords(data):
    check(data)


def test_arviz_takes_it(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = arviz.summary(data, var_names=["theta"])
        found = arviz.loo(data)
    assert list(table.index) == ["theta[A]", "theta[B]", "theta[C]"]
    # elpd is a sum over three data, each between -2 and -1
    assert -6 < float(found.elpd if IS_TREE else found.elpd_loo) < -3


def test_file_and_back(data, tmp_path):
    path = tmp_path / "posterior.nc"
    write_netcdf(data, path)
    back = read_netcdf(path)
    check(back)
    np.testing.assert_array_equal(back["posterior"]["theta"], data["posterior"]["theta"])


def test_no_file(tmp_path):
    with pytest.raises(MissingInputError, match=r"nothing\.nc"):
        read_netcdf(tmp_path / "nothing.nc")


def test_damaged_file(data, tmp_path):
    path = tmp_path / "posterior.nc"
    path.write_bytes(b"not a file of any kind" * 100)
    with pytest.raises(CorruptCheckpointError, match=r"posterior\.nc"):
        read_netcdf(path)
    write_netcdf(data, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CorruptCheckpointError, match=r"posterior\.nc"):
        read_netcdf(path)


def test_wrong_dims_are_refused():
    with pytest.raises(ValueError, match="zip"):
        to_inference_data({"posterior": {"mu": Variable(np.zeros((1, 4, 2)), ("chain", "draw"))}}, {})


def test_no_torch():
    code = "import sys, warnings; warnings.simplefilter('ignore'); import pyrogen.inferencedata; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "pyro"} & set(done.stdout.split())


# Pareto's k


def heavy(k, draws=20_000):
    """w = U^-k has P(w > t) = t^(-1 / k): a tail of shape k, exactly."""
    return -k * np.log(np.random.default_rng(1).random((4, draws)))


@pytest.mark.parametrize("k", [0.2, 0.5, 0.7, 1.0, 1.5])
def test_pareto_k_of_a_pareto_tail(k):
    # The fit's standard error is (1 + k) / sqrt(tail), tail = 3 sqrt(draws) = 424 or fewer.
    np.testing.assert_allclose(pareto_k(heavy(k)), k, atol=4.5 * (1 + k) / np.sqrt(424))


def test_mutant_sign_of_log_weights():
    """1 / w is bounded: its tail is short."""
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(pareto_k(-heavy(0.7)), 0.7, atol=0.37)


def test_pareto_k_forgets_additive_constants():
    log_w = heavy(0.7)
    np.testing.assert_allclose(pareto_k(log_w + 1e6), pareto_k(log_w), atol=1e-4)
    assert pareto_k(log_w).shape == (4,)
    assert np.shape(pareto_k(log_w[0])) == ()


def test_constant_weights():
    rounding = np.random.default_rng(0).normal(size=1000).astype(np.float32) * 1e-6
    assert is_constant(np.full(9, -3.0))
    assert is_constant(rounding - np.float32(7.5))
    assert is_constant(np.float32(-1e5) + 1e4 * rounding)  # 0.01 is float32's rounding there
    assert np.isnan(pareto_k(rounding - np.float32(7.5)))
    assert not is_constant(np.array([[0.0, 0.0], [0.0, 1e-3]]))
    assert not is_constant(-1e6 + np.array([0.0, 5.0]))  # five nats are no rounding in float64


def test_impossible_draws_are_not_constant():
    """A guide wider than the model's support has draws of weight zero: not exact, and the tail is that of the rest."""
    log_w = heavy(0.7)[0]
    log_w[:50] = -np.inf
    assert not is_constant(log_w)
    assert pareto_k(log_w) == pytest.approx(0.7, abs=0.37)
    assert not is_constant(np.array([0.0, np.nan]))
