"""The squashed normal: its density by quadrature, its log-determinant by autodiff, and rounding at the ends."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from torch.distributions.transforms import TanhTransform

import pyrogen.distributions.tanh_normal as module
from pyrogen.distributions import TanhNormal
from pyrogen.models import TanhNormalPolicy, UniformBox

LOCS = [0.0, 0.7, -2.0]


def grid(points=200_001):
    """Actions from end to end, spaced evenly in u = atanh a, and the weight da of each."""
    u = torch.linspace(-12, 12, points, dtype=torch.float64)
    return u.tanh(), torch.cosh(u).reciprocal().square() * (u[1] - u[0])


def check_density(loc, scale=0.8):
    a, da = grid()
    inside = a.abs() < 1 - 1e-15
    p = TanhNormal(torch.tensor(loc, dtype=torch.float64), scale).log_prob(a[inside]).exp()
    assert float((p * da[inside]).sum()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("loc", LOCS)
def test_density_integrates_to_one(loc):
    check_density(loc)


def check_log_determinant(dtype=torch.float64):
    u = torch.linspace(-3, 3, 7, dtype=dtype).requires_grad_()
    (slope,) = torch.autograd.grad(u.tanh().sum(), u)
    found = module.Squash().log_abs_det_jacobian(u, u.tanh())
    torch.testing.assert_close(found, slope.log())


def test_log_determinant():
    check_log_determinant()


def test_log_determinant_does_not_cancel():
    """In single precision, 1 - tanh² u is zero from u = 9 on, and its logarithm is 2 log 2 - 2 u."""
    u = torch.tensor([12.0, -20.0])
    found = module.Squash().log_abs_det_jacobian(u, u.tanh())
    torch.testing.assert_close(found, 2 * math.log(2.0) - 2 * u.abs())


def test_density_of_a_recorded_draw():
    """It is that of the draw itself, which knows the u it was made of; in single precision, up to rounding."""
    for dtype, atol in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
        fn = TanhNormal(torch.tensor([0.0, 1.0, -3.0], dtype=dtype), 0.6)
        a = fn.rsample((1000,))
        recorded = TanhNormal(torch.tensor([0.0, 1.0, -3.0], dtype=dtype), 0.6).log_prob(a.clone())
        torch.testing.assert_close(recorded, fn.log_prob(a), atol=atol, rtol=1e-3)


@pytest.mark.parametrize("loc", [-50.0, 50.0])
def test_ends(loc):
    """Far outside, draws stay inside and have a density in the policy and in the prior."""
    fn = TanhNormal(torch.tensor([loc]), 1.0).to_event(1)
    a = fn.rsample((100,))
    assert (a.abs() < 1).all()
    assert fn.log_prob(a).isfinite().all()
    assert fn.log_prob(a.clone()).isfinite().all()
    assert UniformBox(1).distribution(torch.zeros(1, 1)).log_prob(a).isfinite().all()
    assert fn.log_prob(torch.tensor([1.0])).isfinite()
    assert abs(fn.base_dist.mode) < 1


def test_gradients_flow_through_draws():
    r"""With u = μ + σ ε, log p = -log σ - ε² / 2 - log(1 - tanh² u) + const, whose slopes are known."""
    loc, scale = torch.tensor(0.3, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    fn = TanhNormal(loc, scale)
    a = fn.rsample((50,))
    found = torch.autograd.grad(fn.log_prob(a).mean(), (loc, scale))
    eps = (a.detach().atanh() - 0.3) / 0.5
    expected = (2 * a).mean(), (2 * a * eps).mean() - 1 / 0.5
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_site_in_plates():
    policy = TanhNormalPolicy(torch.nn.Linear(4, 6))
    trace = poutine.trace(policy).get_trace(observation=torch.randn(5, 2, 4))
    trace.compute_log_prob()
    assert trace.nodes["action"]["log_prob"].shape == (5, 2)
    expanded = TanhNormal(torch.zeros(3), 1.0).expand((5, 3))
    assert isinstance(expanded, TanhNormal)
    assert expanded.rsample().shape == (5, 3)
    with pyro.plate("rows", 5):
        assert pyro.sample("a", TanhNormal(torch.zeros(3), 1.0).to_event(1)).shape == (5, 3)


def test_scale_of_a_policy():
    """From e^-5 to e^2, whatever the network says."""
    network = torch.nn.Identity()
    outputs = torch.tensor([[[0.0, -1e4], [0.0, 1e4], [0.0, 0.0]]])
    scale = TanhNormalPolicy(network).distribution(outputs).base_dist.base_dist.scale
    torch.testing.assert_close(scale.flatten().log(), torch.tensor([-5.0, 2.0, -1.5]), atol=1e-4, rtol=0)


# Mutants


class NoDeterminant(TanhTransform):
    def log_abs_det_jacobian(self, x, y):
        return torch.zeros_like(x)


class HalfDeterminant(TanhTransform):
    def log_abs_det_jacobian(self, x, y):
        return super().log_abs_det_jacobian(x, y) / 2


@pytest.mark.parametrize("mutant", [NoDeterminant, HalfDeterminant])
def test_mutant_determinants(mutant, monkeypatch):
    monkeypatch.setattr(module, "Squash", mutant)
    with pytest.raises(AssertionError):
        check_density(0.7)
    with pytest.raises(AssertionError):
        check_log_determinant()


def test_mutant_open_ends(monkeypatch):
    monkeypatch.setattr(module, "_inside", lambda y: y)
    with pytest.raises((AssertionError, ValueError)):
        test_ends(50.0)
