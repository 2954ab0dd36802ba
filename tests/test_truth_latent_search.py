"""Held to the truth: latents that a search finds, against closed forms and generators whose modes are known."""

from importlib import import_module

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyrogen.completion import _to_nearest, completions
from pyrogen.data import from_arrays
from pyrogen.distributions import Implicit
from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation import latent_search
from pyrogen.recipe import Programs


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def pushed(x, values):
    """Observe ``x`` where values of shape ``(rows, *event)`` would be drawn."""
    return pyro.sample("x", Implicit(lambda shape: values, values.shape[1:], values.shape[:1]), obs=x)


GENERATOR = torch.Generator().manual_seed(1)
W, B = torch.randn(6, 3, generator=GENERATOR).double(), torch.randn(6, generator=GENERATOR).double()
X = 2 * torch.randn(5, 6, generator=GENERATOR).double()
MISSING = torch.tensor(
    [[0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 0, 1], [1] * 6], dtype=torch.bool
)


def linear(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pushed(x, z @ W.T + B)


EYE, ZEROS = torch.eye(3).double(), torch.zeros(3).double()


def ridge(noise, precision=EYE, mean=ZEROS):
    """Minimise the sum of known squared errors and noise² (z - m)' P (z - m), datum by datum."""
    made = []
    for x, missing in zip(X, MISSING, strict=True):
        known = W[~missing]
        target = known.T @ (x - B)[~missing] + noise**2 * precision @ mean
        made.append(W @ torch.linalg.solve(known.T @ known + noise**2 * precision, target) + B)
    return torch.stack(made)


@pytest.mark.parametrize(("noise", "num_steps"), [(1.0, 500), (2.0, 300)])
def test_a_linear_generator_is_ridge_regression(noise, num_steps):
    x = X.masked_fill(MISSING, torch.nan)
    found = latent_search(linear, {"x": x}, MISSING, noise, num_starts=2, num_steps=num_steps)
    torch.testing.assert_close(found.generated, ridge(noise), rtol=0, atol=1e-4)
    assert torch.equal(found.completed[~MISSING], X[~MISSING])
    assert torch.equal(found.completed[MISSING], found.generated[MISSING])
    squares = (ridge(noise) - X).square().masked_fill(MISSING, 0.0).sum(1)
    error = (squares / (~MISSING).sum(1)).sqrt()
    assert error[-1].isnan()  # nothing is known of the last
    torch.testing.assert_close(found.error, error, rtol=0, atol=1e-4, equal_nan=True)


def test_the_closest_is_least_squares():
    """Without the prior there is no penalty: what is left is what no latents could make, though noise is large."""
    found = latent_search(linear, {"x": X}, MISSING, 20.0, num_starts=1, num_steps=600)
    squares = (ridge(1e-4) - X).square().masked_fill(MISSING, 0.0).sum(1)
    wanted = (squares / (~MISSING).sum(1)).sqrt()
    torch.testing.assert_close(found.closest_error, wanted, rtol=0, atol=0.05, equal_nan=True)
    assert (found.error[:-1] > found.closest_error[:-1] + 0.1).all()  # the mutant: at the mode


def test_a_latent_that_data_do_not_need_is_no_hindrance():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("idle", dist.Normal(torch.zeros(()), 1.0))
            pushed(x, z @ W.T + B)

    found = latent_search(model, {"x": X}, MISSING, 2.0, num_starts=1)
    torch.testing.assert_close(found.generated, ridge(2.0), rtol=0, atol=1e-3)


def test_several_latents_of_other_scales_are_generalised_ridge_regression():
    """z of mean 1 and standard deviation 2 in one site, 0.5 in another: P = diag(1/4, 1/4, 4), m = (1, 1, 0)."""

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.ones(2), 2.0).to_event(1))
            b = pyro.sample("b", dist.Normal(torch.zeros(()), 0.5))
            pushed(x, torch.cat([a, b[:, None]], 1) @ W.T + B)

    wanted = ridge(1.0, torch.diag(torch.tensor([0.25, 0.25, 4.0])), torch.tensor([1.0, 1.0, 0.0]))
    found = latent_search(model, {"x": X}, MISSING, 1.0, num_starts=2, num_steps=600)
    torch.testing.assert_close(found.generated, wanted, rtol=0, atol=1e-4)


def test_latents_with_bounds_stay_within_and_their_density_is_their_own():
    """Of a uniform latent on (0, 1), (x - z)² is minimised alone: at x within, at the bound beyond.

    With z ~ Gamma(3, 1), -log p(z) = z - 2 log z and noise 1, the derivative is z - x + 1 - 2 / z: where x = 2, zero at
    z = (1 + 3) / 2. A density of unbounded numbers, with its Jacobian z, would have -3 / z, and a root elsewhere.
    """

    def uniform(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(torch.zeros(()), 1.0))
            pushed(x, torch.stack([z, 10 * z], 1))

    x = torch.tensor([[0.3, 0.0], [7.0, 0.0]])
    missing = torch.tensor([False, True])
    found = latent_search(uniform, {"x": x}, missing, 0.1, num_starts=2).completed[:, 1]
    assert found[0] == pytest.approx(3.0, abs=1e-4)
    assert 9.9 < found[1] <= 10.0

    def gamma(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(torch.tensor(3.0), 1.0))
            pushed(x, torch.stack([z, 10 * z], 1))

    found = latent_search(gamma, {"x": torch.tensor([[2.0, 0.0]])}, missing, 1.0, num_starts=2)
    assert found.completed[0, 1] == pytest.approx(20.0, abs=1e-3)


ANGLES = torch.arange(8).double() * torch.pi / 4
MODES = torch.cat([ANGLES.cos()[:, None], ANGLES.sin()[:, None], torch.arange(8)[:, None]], 1).double()


def of_modes(rows):
    """Draw a mode by where z lies among eight quantiles of the normal distribution; the last element is its number."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            place = dist.Normal(torch.zeros(()), 1.0).cdf(z) * 8 - 0.5
            weights = (-8 * (place[:, None] - torch.arange(8)).square()).softmax(1)
            pushed(x, weights @ MODES[rows])

    return model


def test_the_mode_is_found_that_data_are_of():
    """Two numbers are known, and the third says which mode: eight basins along z, of which a start is in one."""
    missing = torch.tensor([False, False, True])
    search = {"missing": missing, "noise": 0.1, "num_starts": 64, "num_steps": 100}
    found = latent_search(of_modes(list(range(8))), {"x": MODES}, **search)
    assert found.completed[:, 2].round().tolist() == list(range(8))
    assert (found.error < 0.05).all()
    few = latent_search(of_modes(list(range(8))), {"x": MODES}, **search | {"num_starts": 1})
    assert few.completed[:, 2].round().tolist() != list(range(8))


def test_a_mode_that_was_dropped_is_told_by_the_error():
    """None makes the fourth mode: of what lies between its neighbours, the nearest is 1 - cos(π/4) = 0.29 away."""
    missing = torch.tensor([False, False, True])
    found = latent_search(of_modes([0, 1, 2, 2, 4, 5, 6, 7]), {"x": MODES}, missing, 0.1, num_starts=64, num_steps=100)
    for error in (found.error, found.closest_error):
        assert error[3] > 0.999 * (1 - 0.5**0.5) / 2**0.5  # of two elements
    assert (found.error[[0, 1, 2, 4, 5, 6, 7]] < 0.05).all()


def test_a_seed_decides_and_what_is_missing_does_not():
    found = []
    for seed, fill in ((0, torch.nan), (0, 1e6), (1, 0.0)):
        torch.manual_seed(seed)
        found.append(latent_search(linear, {"x": X.masked_fill(MISSING, fill)}, MISSING, 0.5, num_steps=5).generated)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_the_best_on_the_way_is_kept():
    """Far too large a step throws latents away from where they begin: the start itself is better."""
    search = {"columns": {"x": X}, "missing": MISSING, "noise": 0.5, "num_starts": 4}
    torch.manual_seed(0)
    start = latent_search(linear, **search, num_steps=0)
    torch.manual_seed(0)
    thrown = latent_search(linear, **search, num_steps=1, learning_rate=1e3)
    assert torch.equal(start.generated, thrown.generated)


def test_no_step_leaves_the_best_start():
    """Among very many draws of the prior, the least sum of both terms is near the minimum."""
    x, missing = X[:1], MISSING[:1]
    found = latent_search(linear, {"x": x}, missing, 2.0, num_starts=20_000, num_steps=0)
    torch.testing.assert_close(found.generated, ridge(2.0)[:1], rtol=0, atol=0.5)
    assert found.closest_error == found.start_error <= found.error


def test_data_are_searched_for_one_by_one(monkeypatch):
    monkeypatch.setattr(import_module("pyrogen.evaluation.latent_search"), "AT_ONCE", 6)
    found = latent_search(linear, {"x": X}, MISSING, 2.0, num_starts=2)
    torch.testing.assert_close(found.generated, ridge(2.0), rtol=0, atol=1e-4)


class Normalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
        with torch.no_grad():
            self.net[0].weight.copy_(W), self.net[0].bias.copy_(B)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pushed(x, self.net(z))


def test_the_model_runs_in_eval_mode_and_is_left_as_it_was():
    """Statistics that were never updated leave x / sqrt(1 + 1e-5), and nothing is dropped."""
    model = Normalised()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = latent_search(model, {"x": X}, MISSING, 2.0, num_starts=2)
    torch.testing.assert_close(found.generated, ridge(2.0), rtol=0, atol=1e-3)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_labels_are_what_the_model_is_given():
    def model(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pushed(x, z @ W.T + B + 100.0 * y[:, None])

    y = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    found = latent_search(model, {"x": X + 100.0 * y[:, None], "y": y}, MISSING, 2.0, num_starts=2)
    torch.testing.assert_close(found.generated - 100.0 * y[:, None], ridge(2.0), rtol=0, atol=1e-4)


def test_what_else_is_observed_is_heeded():
    """z ~ N(0, 1), seen once as 3 under noise 1, is N(1.5, 1/2) then."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("seen", dist.Normal(z, 1.0), obs=torch.full((len(x),), 3.0))
            pushed(x, torch.stack([z, 2 * z], 1))

    missing = torch.tensor([False, True])
    found = latent_search(model, {"x": torch.tensor([[0.0, 0.0]])}, missing, 1.0, num_starts=1)
    assert found.completed[0, 1] == pytest.approx(2.0, abs=1e-4)  # z = 1: (0 + 3) / (1 + 1 + 1)


def test_the_nearest_training_datum_is_that_of_the_known_elements():
    training = torch.tensor([[0.0, 0.0, 9.0], [1.0, 3.0, 0.0]])
    x, known = torch.tensor([[0.0, 2.0, 0.0]] * 2), torch.tensor([[True, True, False], [True, False, False]])
    torch.testing.assert_close(_to_nearest(training, x, known), torch.tensor([1.0, 0.0]))
    assert _to_nearest(training, x[:1], torch.zeros(1, 3, dtype=torch.bool)).isnan().all()


def test_a_training_datum_is_not_its_own_neighbour():
    training = torch.tensor([[0.0, 9.0], [1.0, 0.0], [1.0, 5.0], [4.0, 0.0]])
    known = torch.tensor([[True, False]] * 4)
    found = _to_nearest(training, training, known, are_training=True)
    assert found.tolist() == [1.0, 0.0, 0.0, 3.0]  # a copy of a datum is another


def five(model, mask="right", **more):
    dataset = from_arrays({"x": X.float().numpy()}, name="five", validation=0.0, test=0.0)
    return completions(Programs(model, None), dataset, "train", mask, number=5, **more)


def nothing(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pushed(x, 1e-5 * z[:, :1].tanh().expand(len(x), 6))


def test_errors_of_a_data_set_are_in_its_units():
    """Of zeros, the error is the size of a datum; its neighbour is another of the training data."""
    found = five(nothing)
    x = found.x[:, :3]
    apart = torch.cdist(x, x).fill_diagonal_(torch.inf).amin(1) / 3**0.5
    size = x.square().mean(1).sqrt()
    assert found.method == "latent-search"
    assert found.completed.shape == (1, 5, 6)
    for name in ("known_rmse", "closest_rmse"):
        assert found.figures[name].value == pytest.approx(float(size.mean()), rel=1e-4)
    assert found.figures["nearest_training_rmse"].value == pytest.approx(float(apart.mean()))
    assert found.beyond == int((size > apart).sum())


def test_a_generator_that_makes_the_data_is_not_accused_for_its_prior():
    """Three known elements of three latents can be made, though under much noise the mode is far from them."""

    def able(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pushed(x, 3 * torch.cat([z, z], 1))

    found = five(able, noise=20.0)
    assert found.figures["known_rmse"].value > found.figures["nearest_training_rmse"].value  # the mutant
    assert found.figures["closest_rmse"].value < 0.1 * found.figures["nearest_training_rmse"].value
    assert found.beyond == 0


def test_data_of_which_nothing_is_known_have_no_error(tmp_path):
    mask = np.zeros((5, 6), dtype=bool)
    mask[:2] = True
    np.save(tmp_path / "mask.npy", mask)
    found = five(nothing, str(tmp_path / "mask.npy"))
    size = found.x[2:].square().mean(1).sqrt()
    assert found.figures["known_rmse"].value == pytest.approx(float(size.mean()), rel=1e-4)
    assert "3 data" in found.figures["known_rmse"].unit
    found = five(nothing, "random:1")
    assert not found.figures
    assert found.beyond == 0


# What cannot be searched


def refuses(draw, says, error=ProgramError, **more):
    def model(x):
        with pyro.plate("data", len(x)):
            draw(x)

    with pytest.raises(error, match=says):
        latent_search(model, {"x": X}, **{"missing": MISSING, "noise": 0.5, "num_steps": 2} | more)


def normal():
    return pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda x: pushed(x, (normal() @ W.T).round()), "whole numbers"),
        (lambda x: pushed(x, (normal() @ W.T > 0).double()), "whole numbers"),
        (lambda x: pushed(x, (normal() @ W.T).long()), "whole numbers"),
        (lambda x: pushed(x, normal() @ W.T + torch.randn(len(x), 6)), "noise besides"),
        (lambda x: pushed(x, torch.randn(len(x), 6)), "made of no latent"),
        (lambda x: pyro.sample("x", dist.Normal(normal() @ W.T, 1.0).to_event(1), obs=x), "no implicit site"),
        (lambda x: pushed(x, pyro.sample("k", dist.Poisson(torch.ones(6)).to_event(1))), "'k' is discrete"),
        (
            lambda x: pushed(x, pyro.sample("e", Implicit(lambda shape: torch.randn(*shape, 6), (6,)))),
            "'e' has no density",
        ),
        (lambda x: pushed(x, normal() @ W.T * torch.nan), "not finite"),
    ],
    ids=["rounded", "thresholded", "integers", "noise", "no-latent", "density", "discrete", "implicit", "nan"],
)
def test_what_cannot_be_searched_is_refused(draw, says):
    refuses(draw, says)


def test_latents_that_data_share_are_refused():
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pushed(x, (z @ W.T).expand(len(x), 6))

    with pytest.raises(ProgramError, match="into one plate over the data"):
        latent_search(model, {"x": X}, MISSING, 0.5)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"noise": 0.0}, "noise and learning_rate must be positive"),
        ({"noise": torch.inf}, "noise and learning_rate must be positive"),
        ({"learning_rate": 0.0}, "must be positive"),
        ({"num_starts": 0}, "at least one start"),
        ({"missing": MISSING.double()}, "must be bool"),
        ({"missing": MISSING[:, :4]}, "expected that of the data"),
        ({"missing": MISSING, "x": X.masked_fill(~MISSING, torch.nan)}, "not finite"),
        ({"x": X[:0], "missing": MISSING[:0]}, "has no rows"),
    ],
)
def test_arguments_are_checked(more, says):
    x = more.pop("x", X)
    with pytest.raises(UsageError, match=says):
        latent_search(linear, {"x": x}, **{"missing": MISSING, "noise": 0.5} | more)
