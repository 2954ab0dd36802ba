"""Held to the truth: what is drawn of missing elements, against enumerated conditional distributions."""

import pytest
import torch
from test_truth_autoregressive import distribution, every, fits

from pyrogen.evaluation import complete
from pyrogen.evaluation.completion import _swept


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


MISSING = {
    "bottom": [[0, 0, 0], [1, 1, 1]],
    "top": [[1, 1, 1], [0, 0, 0]],
    "left": [[1, 0, 0], [1, 0, 0]],
    "scattered": [[0, 1, 1], [0, 1, 0]],
}
N = 20_000


@pytest.fixture(params=MISSING)
def case(request):
    """A distribution, what is missing, the data to be completed, and the exact conditional distribution."""
    d = distribution("nade", 2, 3)
    for parameter in d.network.parameters():
        parameter.data *= 1.3  # elements depend on one another: known ones say much of missing ones
    missing = torch.tensor(MISSING[request.param], dtype=torch.bool)
    x = torch.tensor([[[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]])
    with torch.no_grad():
        joint = d.log_prob(every(d)).exp()
    agrees = ((every(d) == x) | missing).flatten(1).all(1)
    return request.param, d.expand((N,)), missing, x.expand(N, 1, 2, 3), torch.where(agrees, joint, 0.0)


@pytest.mark.slow
def test_draws_are_of_the_conditional_distribution(case):
    _, d, missing, x, p = case
    assert fits(d, complete(d, x, missing, sweeps=30, num_particles=10), p)


@pytest.mark.slow
def test_sweeps_alone_lead_there(case):
    _, d, missing, x, p = case
    assert fits(d, complete(d, x, missing, sweeps=60, num_particles=1), p)


def test_neither_step_can_be_left_out(case):
    name, d, missing, x, p = case
    fitting = fits(d, complete(d, x, missing, sweeps=0, num_particles=1), p)
    assert fitting == (name == "bottom")


def test_a_sweep_leaves_the_conditional_distribution_as_it_is(case):
    _, d, missing, _, p = case
    exact = every(d)[torch.multinomial(p, N, replacement=True)]
    assert fits(d, _swept(d, exact, missing.expand(exact.shape), 3), p)


def test_a_sweep_that_takes_every_proposal_does_not(case, monkeypatch):
    name, d, missing, _, p = case
    exact = every(d)[torch.multinomial(p, N, replacement=True)]
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)  # the logarithm of zero is below every gain
    assert fits(d, _swept(d, exact, missing.expand(exact.shape), 3), p) == (name == "bottom")


def test_known_elements_stay(case):
    _, d, missing, x, _ = case
    drawn = complete(d, x, missing, sweeps=1, num_particles=2)
    assert torch.equal(drawn.masked_fill(missing, 0.0), x.masked_fill(missing, 0.0))


def test_each_datum_has_a_mask_of_its_own():
    d = distribution("nade", 2, 3).expand((2,))
    missing = torch.zeros(2, 1, 2, 3, dtype=torch.bool)
    missing[0, 0, 0, 0] = missing[1, 0, 1, 1] = True
    x = torch.ones(2, 1, 2, 3)
    drawn = complete(d, x, missing)
    assert drawn[~missing].eq(1.0).all()
