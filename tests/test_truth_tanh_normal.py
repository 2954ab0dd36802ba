"""The squashed normal: its density by quadrature, its log-determinant by autodiff, and rounding at the ends."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from torch.distributions.transforms import TanhTransform

import pyrogen.distributions.tanh_normal as module
from pyrogen.distributions import TanhNormal
from pyrogen.errors import UsageError
from pyrogen.models import TanhNormalPolicy, UniformBox

LOCS = [0.0, 0.7, -2.0, 9.0, -10.0]


def check_density(loc, scale=0.8):
    """Actions spaced evenly in u = atanh a, and what lies beyond either end: all that is there has the weight one."""
    dtype = torch.float64
    u = torch.linspace(-1, 1, 200_001, dtype=dtype) * math.atanh(1 - module._margin(dtype)) * (1 - 1e-9)
    fn = TanhNormal(torch.tensor(loc, dtype=dtype), scale)
    inside = torch.trapezoid(fn.log_prob(u.tanh()).exp() * torch.cosh(u) ** -2, u)
    ends = module._margin(dtype) * fn.log_prob(torch.tensor([-1.0, 1.0], dtype=dtype)).exp().sum()
    assert (inside + ends).item() == pytest.approx(1.0, abs=1e-6)


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
    """It is that of the draw itself, to the bit, and that of the u it was made of up to the rounding of the action."""
    for dtype, atol in ((torch.float64, 1e-7), (torch.float32, 2e-3)):
        loc = torch.tensor([0.0, 1.0, -2.0, 9.0], dtype=dtype)
        fn = TanhNormal(loc, 0.6)
        torch.manual_seed(0)
        a = fn.rsample((1000,))
        assert torch.equal(TanhNormal(loc, 0.6).log_prob(a.clone()), fn.log_prob(a))
        torch.manual_seed(0)
        u = fn.base_dist.rsample((1000,))
        inside = u.abs() < math.atanh(1 - module._margin(dtype))
        of_u = fn.base_dist.log_prob(u) - 2 * (math.log(2.0) - u - torch.nn.functional.softplus(-2 * u))
        torch.testing.assert_close(fn.log_prob(a)[inside], of_u[inside], atol=atol, rtol=0)


def check_scores(scale):
    """The mean over draws of the slope of the log-density in both parameters is zero, within 4.5 standard errors."""
    torch.manual_seed(0)
    for mu in (0.0, 4.0, 4.6, 5.5, -7.0, 8.0, 10.0):
        loc, log_scale = torch.full((100_000,), mu), torch.full((100_000,), math.log(scale))
        fn = TanhNormal(loc.requires_grad_(), log_scale.requires_grad_().exp())
        for score in torch.autograd.grad(fn.log_prob(fn.sample().clone()).sum(), (loc, log_scale)):
            assert abs(score.mean()) <= 4.5 * score.std() / len(score) ** 0.5 + 1e-5  # for what no draw may have seen


@pytest.mark.parametrize("scale", [0.05, 0.5, 7.0])
def test_scores_in_the_tails(scale):
    """In single precision too, where the action no longer tells the u that it was made of."""
    check_scores(scale)


def test_mode():
    for loc in (0.5, -1.2):
        assert TanhNormal(torch.tensor(loc), 1.0).mode.item() == pytest.approx(math.tanh(loc), abs=1e-6)


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


def test_policy_of_a_box():
    """A coordinate has the location that the network says, and an odd number of outputs is refused."""
    outputs = torch.tensor([[[3.0, -1.5, 0.0, 0.0]]])
    base = TanhNormalPolicy(torch.nn.Identity()).distribution(outputs).base_dist.base_dist
    assert base.loc.tolist() == [[[3.0, -1.5]]]
    with pytest.raises(UsageError, match="the network has 3 outputs, expected an even number"):
        TanhNormalPolicy(torch.nn.Linear(4, 3))(torch.zeros(5, 2, 4))


def test_prior_is_as_precise_as_observations():
    for dtype in (torch.float32, torch.float64):
        fn = UniformBox(2).distribution(torch.zeros(5, 3, 4, dtype=dtype))
        assert fn.sample().dtype == fn.log_prob(torch.zeros(2, dtype=dtype)).dtype == dtype
    assert UniformBox(2).distribution(torch.zeros(5, 3, dtype=torch.long)).sample().dtype == torch.get_default_dtype()


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
    """What lies beyond the end, taken for the end itself, has no mean score of zero."""
    monkeypatch.setattr(torch.special, "log_ndtr", torch.zeros_like)
    with pytest.raises(AssertionError):
        check_scores(0.5)


def test_mutant_width_of_the_ends(monkeypatch):
    monkeypatch.setattr(module, "log", lambda margin: math.log(2 * margin))
    with pytest.raises(AssertionError):
        check_density(9.0)
