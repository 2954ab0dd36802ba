"""Programs, data and optimisers that do not fit together: errors that name what and where."""

import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import nn

from pyrogen.errors import DataError, InfeasibleStartError, NonFiniteError, ProgramError
from pyrogen.inference import ELBO, IWAE, ForwardKL, MaximumLikelihood, Objective, Renyi, train
from pyrogen.models import PPCA


def adam(p):
    return torch.optim.Adam(p, lr=0.01)


X = torch.tensor([0.3, -1.0, 0.8])
PAIRED = [ELBO(), ELBO(3), IWAE(2), Renyi(0.5, 2)]


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z_local", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide_of(**sites):
    def guide(x):
        with pyro.plate("data", len(x)):
            for name, fn in sites.items():
                pyro.sample(name, fn)

    return guide


NORMAL = dist.Normal(0.0, 1.0)


# Rows 4 and 5: sites without a partner


@pytest.mark.parametrize("objective", PAIRED, ids=repr)
def test_a_model_site_missing_in_the_guide(objective):
    with pytest.raises(ProgramError, match=r"model's latent site 'z_local' is missing in the guide.*no latent site"):
        objective(model, None, X)


@pytest.mark.parametrize("objective", PAIRED, ids=repr)
def test_a_slip_of_the_pen_is_pointed_out(objective):
    with pytest.raises(ProgramError, match=r"'z_local' is missing in the guide.*'z_locl'"):
        objective(model, guide_of(z_locl=NORMAL), X)


@pytest.mark.parametrize("objective", PAIRED, ids=repr)
def test_a_guide_site_missing_in_the_model(objective):
    with pytest.raises(ProgramError, match=r"guide's site 'z_loca' is missing in the model.*'z_local'"):
        objective(model, guide_of(z_local=NORMAL, z_loca=NORMAL), X)


def test_a_guide_site_that_the_model_observes():
    with pytest.raises(ProgramError, match="guide samples site 'x', which the model observes"):
        ELBO()(model, guide_of(z_local=NORMAL, x=NORMAL), X)


def test_auxiliary_sites_need_no_partner():
    def guide(x):
        e = pyro.sample("e", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        with pyro.plate("data", len(x)):
            pyro.sample("z_local", dist.Normal(e, 1.0))

    assert ELBO()(model, guide, X).isfinite()


def test_forward_kl_needs_a_model_that_draws():
    with pytest.raises(ProgramError, match="observes site 'x'"):
        ForwardKL()(model, guide_of(z_local=NORMAL), X)


@pytest.mark.parametrize("objective", PAIRED, ids=repr)
def test_one_latent_value_for_a_whole_plate(objective):
    """The guide draws one ``z`` and the model scores it once for every index: its prior would count three times."""

    def guide(x):
        pyro.sample("z_local", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="z_local"):
        objective(model, guide, X)


@pytest.mark.parametrize("objective", PAIRED, ids=repr)
def test_a_latent_of_another_event_shape(objective):
    """A value of length 1 would be scored as if it were three."""

    def wide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z_local", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    with pytest.raises(ValueError, match="z_local"):
        objective(wide, guide_of(z_local=dist.Normal(torch.zeros(1), 1.0).to_event(1)), X)


# Rows 6 and 7: plates and data


@pytest.mark.parametrize("objective", [ELBO(), IWAE(2), MaximumLikelihood()], ids=repr)
@pytest.mark.parametrize("x", [torch.zeros(1), torch.tensor(0.0)], ids=["(1,)", "()"])
def test_one_datum_in_a_plate_of_ten(objective, x):
    def ten(x):
        with pyro.plate("data", 10):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    with pytest.raises(ProgramError, match=r"'x'.*'data' of size 10.*counted 10 times"):
        objective(ten, None, x)


@pytest.mark.parametrize("objective", [ELBO(), IWAE(2), MaximumLikelihood()], ids=repr)
def test_ten_data_in_a_plate_of_seven(objective):
    def seven(x):
        with pyro.plate("data", 7):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    with pytest.raises(ValueError, match="x") as caught:
        objective(seven, None, torch.zeros(10))
    assert "7" in str(caught.value)
    assert "10" in str(caught.value)


def test_one_number_for_a_datum_of_three():
    """The same silent repetition inside of an event: data (5, 1) scored by a distribution over (5, 3)."""

    def model(x):
        with pyro.plate("data", 5):
            pyro.sample("x", dist.Normal(torch.zeros(5, 3), 1.0).to_event(1), obs=x)

    with pytest.raises(ValueError, match="x"):
        MaximumLikelihood()(model, None, torch.zeros(5, 1))


def test_batch_dimensions_without_a_plate():
    def model(x):
        pyro.sample("x", dist.Normal(torch.zeros(3), 1.0), obs=x)

    with pytest.raises(ProgramError, match="'x'"):
        MaximumLikelihood()(model, None, X)


# Row 10: devices


def test_parameters_on_two_devices_are_named():
    far, close = nn.Linear(3, 2, device="meta"), nn.Linear(3, 3)

    def guide(x):
        pyro.module("far", far)
        with pyro.plate("data", len(x)):
            pyro.sample("z_local", dist.Normal(far(x)[0], 1.0))

    def near(x):
        pyro.module("close", close)
        pyro.sample("x", dist.Normal(close(torch.zeros(3)), 1.0).to_event(1), obs=x)

    with pytest.raises(ProgramError, match=r"(?s)(far.*meta|meta.*far)"):
        next(train(ELBO(), near, guide, [X], adam))


# Row 11: steps that are not finite


def test_a_non_finite_step_names_step_site_and_parameter():
    def overflow(x):
        pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), obs=x)

    training = train(MaximumLikelihood(), overflow, None, [torch.tensor(0.0), torch.tensor(1e30)], adam)
    next(training)
    with pytest.raises(NonFiniteError, match=r"(?s)step 2: the loss is inf.*model  x .*<- not finite"):
        next(training)


def test_data_that_become_nan_are_a_non_finite_step_too():
    """With Pyro's validation on, its error comes first: the step must be named all the same."""

    def plain(x):
        pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), obs=x)

    training = train(MaximumLikelihood(), plain, None, [torch.tensor(0.0), torch.tensor(torch.nan)], adam)
    next(training)
    with pytest.raises((NonFiniteError, ValueError), match="x"):
        next(training)
    assert pyro.param("loc").isfinite()


# Row 12: an infeasible start


def test_an_infeasible_start_shows_every_sites_log_probability():
    def infeasible(x):
        z = pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))
        pyro.sample("x", dist.Uniform(z + 5.0, z + 6.0, validate_args=False), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(pyro.param("q", torch.tensor(0.0)), 0.1))

    with pytest.raises(InfeasibleStartError) as caught:
        next(train(ELBO(), infeasible, guide, [torch.tensor(0.0)], adam))
    lines = str(caught.value).splitlines()[1:]
    assert [line.split()[:2] for line in lines] == [["guide", "z"], ["model", "z"], ["model", "x"]]
    assert [bool(re.search("<- not finite", line)) for line in lines] == [False, False, True]


# Players and parameters


class Critic(Objective):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 1)

    def forward(self, model, guide, x):
        return self.net(model()).mean()

    def critic_loss(self, model, guide, x):
        return -self.net(x).mean()


def push():
    return pyro.param("a", torch.zeros(4, 2))


def test_a_critic_without_an_optimiser():
    with pytest.raises(ProgramError, match="Critic has a critic: pass critic_optimizer"):
        next(train(Critic(), push, None, [torch.zeros(4, 2)], adam))


def test_an_optimiser_without_a_critic():
    with pytest.raises(ProgramError, match="ELBO has no critic"):
        next(train(ELBO(), model, guide_of(z_local=NORMAL), [X], adam, adam))


def test_a_module_that_is_used_but_not_held():
    net = nn.Linear(1, 1)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z_local", dist.Normal(net(x[:, None])[:, 0] + pyro.param("loc", torch.tensor(0.0)), 1.0))

    with pytest.raises(ProgramError, match=r"net\.weight|net\.bias"):
        next(train(ELBO(), model, guide, [X], adam))


def test_parameters_that_the_given_optimiser_leaves_out():
    """Of a module, and of ``pyro.param``: either would silently never be fitted."""
    other = PPCA(3, 1)
    some = torch.optim.Adam([other.W, other.mu])
    with pytest.raises(ProgramError, match="log_sigma"):
        next(train(ELBO(), other, other.guide, [torch.zeros(2, 3)], some))

    pyro.clear_param_store()
    held = pyro.param("held", torch.tensor(0.0))

    def guide(x):
        with pyro.plate("data", len(x)):
            loc = pyro.param("held", torch.tensor(0.0)) + pyro.param("left_out", torch.tensor(0.0))
            pyro.sample("z_local", dist.Normal(loc, 1.0))

    with pytest.raises(ProgramError, match="left_out"):
        next(train(ELBO(), model, guide, [X], torch.optim.Adam([held.unconstrained()])))


def test_an_optimiser_given_with_frozen_parameters():
    """Frozen parameters in a given optimiser are common, and no reason to fail."""
    net = nn.Linear(1, 2)
    net.bias.requires_grad_(False)

    class Guide(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z_local", dist.Normal(self.net(x[:, None])[:, 0], 1.0))

    before = net.bias.clone()
    for _ in train(ELBO(), model, Guide().guide, [X], adam(net.parameters()), num_steps=2):
        pass
    assert torch.equal(net.bias, before)


def test_nothing_to_fit():
    with pytest.raises(ProgramError, match="nothing to fit"):
        next(train(ELBO(), model, guide_of(z_local=NORMAL), [X], adam))


def test_a_stale_parameter_store():
    """A second ``AutoNormal`` of the same sites would take over the first one's values."""
    first = AutoNormal(model)
    next(train(ELBO(), model, first, [X], adam))
    with pytest.raises(ProgramError, match=r"AutoNormal\.locs|clear_param_store"):
        next(train(ELBO(), model, AutoNormal(model), [X], adam))


def test_a_stale_parameter_store_of_another_shape():
    """A second full-rank guide of more latents than the first."""

    def wider(x):
        pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        model(x)

    next(train(ELBO(), model, AutoMultivariateNormal(model), [X], adam))
    with pytest.raises((RuntimeError, AssertionError)) as caught:
        next(train(ELBO(), wider, AutoMultivariateNormal(wider), [X], adam))
    assert "clear_param_store" in caught.value.__notes__[0]


@pytest.mark.parametrize("optimizer", [pyro.optim.Adam({"lr": 0.01}), lambda p: "adam"], ids=["pyro", "string"])
def test_an_optimiser_that_is_none(optimizer):
    with pytest.raises(ProgramError, match=r"torch optimiser.*for example"):
        next(train(ELBO(), model, AutoNormal(model), [X], optimizer))


def test_an_objective_that_is_none():
    with pytest.raises(ProgramError, match="wrap one of Pyro's ELBOs"):
        train(Trace_ELBO(), model, None, [X], adam)


def test_a_loss_that_is_no_scalar():
    class Vector(Objective):
        def forward(self, model, guide, x):
            return pyro.param("a", torch.zeros(2))

    with pytest.raises(ProgramError, match="Vector must return a scalar"):
        next(train(Vector(), model, None, [X], adam))


@pytest.mark.parametrize("steps", [(0, 1), (1, 0)])
def test_rounds_without_steps(steps):
    with pytest.raises(ProgramError, match="at least one"):
        train(Critic(), push, None, [X], adam, adam, steps=steps)


# Batches


def test_no_batches():
    with pytest.raises(DataError, match="empty"):
        next(train(ELBO(), model, AutoNormal(model), [], adam))


def test_a_generator_is_gone_through_once():
    training = train(ELBO(), model, AutoNormal(model), (x for x in [X, X]), adam, epochs=3)
    next(training), next(training)
    with pytest.raises(DataError, match=r"epoch 1.*not a generator"):
        next(training)


def test_maximum_likelihood_of_a_latent_model():
    with pytest.raises(ProgramError, match="'z_local' is latent"):
        MaximumLikelihood()(model, None, X)


def test_maximum_likelihood_runs_the_program_once_a_step():
    """The look at the plates is for the first call alone."""
    calls = []

    def counted(x):
        calls.append(1)
        pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), obs=x)

    objective = MaximumLikelihood()
    objective(counted, None, torch.tensor(0.0))
    before = len(calls)
    objective(counted, None, torch.tensor(0.0))
    assert len(calls) == before + 1


@pytest.mark.parametrize("objective", [ELBO(3), IWAE(3)], ids=repr)
def test_batch_dimensions_are_not_taken_for_particles(objective):
    """Three data outside of any plate meet three particles: each would silently be paired with one of them."""

    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match=r"['\"]x['\"]"):
        objective(model, guide, X)
