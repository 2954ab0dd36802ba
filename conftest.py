"""Tests and examples start from an empty parameter store, a fixed seed, float32 and one thread, and leave that."""

from collections.abc import Iterator

import pyro
import pytest
import torch

from pyrogen.inference import train


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--compiled", action="store_true", help="let train() compile, so that truths are found compiled")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--compiled"):
        train.__kwdefaults__["compile"] = True


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    torch.set_num_threads(1)
    torch.distributions.Distribution.set_default_validate_args(True)
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)
    pyro.clear_param_store()


@pytest.fixture
def double() -> None:
    """Make float64 the default: truth is exact there."""
    torch.set_default_dtype(torch.float64)
