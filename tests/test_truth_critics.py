"""What critics say of held-out samples: a known log-ratio is calibrated, for every objective that has one."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyrogen.card import evaluate
from pyrogen.data import from_arrays
from pyrogen.evaluation import calibration_error
from pyrogen.inference import AAE, ALI, AVB, GAN, VEEGAN, WGAN, AlphaGAN, Autocast, FactorVAE, Ratio, compile

SIZE = 20_000
NOISE, SLOPE, SHIFT, SD = 0.5, 0.5, 1.5, 0.8


def normal(loc, variance):
    return dist.Normal(torch.tensor(loc), torch.tensor(variance).sqrt())


def of_data():
    return normal(0.5, 2.25)


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, NOISE), obs=x)


def posterior(x):
    return dist.Normal(SLOPE * x + SHIFT, SD)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", posterior(x))


AGGREGATE = SLOPE * 0.5 + SHIFT, SLOPE**2 * 2.25 + SD**2


class Known(nn.Module):
    """A critic by formula, whose logits may be wrong by a factor."""

    def __init__(self, formula, factor):
        super().__init__()
        self.formula = formula
        self.factor = factor

    def forward(self, *values):
        return self.factor * self.formula(*values)


def of_joints(z, x):
    inferred = posterior(x).log_prob(z) + of_data().log_prob(x)
    return inferred - normal(0.0, 1.0).log_prob(z) - dist.Normal(z, NOISE).log_prob(x)


def of_prior(z):
    return normal(0.0, 1.0).log_prob(z) - normal(*AGGREGATE).log_prob(z)


def of_draws(x):
    return of_data().log_prob(x) - normal(0.0, 1.0 + NOISE**2).log_prob(x)


def of_reconstructions(x):
    loc, variance = AGGREGATE
    return of_data().log_prob(x) - normal(loc, variance + NOISE**2).log_prob(x)


def of_all_that_is_made(x):
    return torch.tensor(2.0).log() - torch.stack([-of_draws(x), -of_reconstructions(x)]).logsumexp(0)


OBJECTIVES = {
    "GAN": lambda k: GAN(Known(of_draws, k)),
    "AVB": lambda k: AVB(Ratio(Known(lambda z, x: posterior(x).log_prob(z) - normal(0.0, 1.0).log_prob(z), k))),
    "AAE": lambda k: AAE(Known(of_prior, k)),
    "AAE by site": lambda k: AAE({"z": Known(of_prior, k)}),
    "AlphaGAN": lambda k: AlphaGAN(Known(of_all_that_is_made, k), Known(of_prior, k)),
    "ALI": lambda k: ALI(Known(of_joints, k)),
    "VEEGAN": lambda k: VEEGAN(Known(lambda z, x: -of_joints(z, x), k)),
}
NAMES = {"GAN": {"data"}, "AVB": {"z"}, "AAE": {"latents"}, "AAE by site": {"z"}, "AlphaGAN": {"data", "latents"}}


def errors(objective, *programs):
    pyro.set_rng_seed(0)
    found = {}
    with torch.no_grad():
        for name, (first, second) in objective.log_ratios(*programs, of_data().sample((SIZE,))).items():
            outcome = torch.cat([torch.ones(len(first)), torch.zeros(len(second))])
            found[name] = calibration_error(torch.cat([first, second]).sigmoid(), outcome)
    return found


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_known_ratio_is_calibrated(name):
    found = errors(OBJECTIVES[name](1.0), model, guide)
    assert set(found) == NAMES.get(name, {"pairs"})
    assert max(found.values()) < 0.015


@pytest.mark.parametrize("factor", [2.0, -1.0], ids=["too sure", "classes swapped"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_mutant_logits(name, factor):
    found = errors(OBJECTIVES[name](factor), model, guide)
    assert min(found.values()) > 0.03


@pytest.mark.parametrize("of_half", [of_draws, of_reconstructions])
def test_mutant_half_of_what_is_made(of_half):
    """One critic learns of draws and of reconstructions: the ratio to either alone is wrong for both together."""
    found = errors(AlphaGAN(Known(of_half, 1.0), Known(of_prior, 1.0)), model, guide)
    assert found["data"] > 0.03


@pytest.mark.parametrize("name", OBJECTIVES)
def test_wrappers_pass_it_on(name):
    wanted = errors(OBJECTIVES[name](1.0), model, guide)
    assert errors(Autocast(OBJECTIVES[name](1.0)), model, guide) == wanted
    assert errors(compile(OBJECTIVES[name](1.0), model, guide, compile="capture"), model, guide) == wanted


def test_wrappers_say_the_same_elbo():
    x, objective, found = of_data().sample((5,)), AAE(Known(of_prior, 1.0)), []
    for each in (objective, Autocast(objective), compile(objective, model, guide)):
        pyro.set_rng_seed(0)
        found.append(each.elbo_estimate(model, guide, x))
    assert found[0].isfinite()
    assert found[0] == found[1] == found[2]


def two_codes(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x[:, None].expand(-1, 2), 1.0).to_event(1))


@pytest.mark.parametrize(("factor", "least", "most"), [(1.0, 0.0, 0.015), (2.0, 0.03, 1.0), (-1.0, 0.03, 1.0)])
def test_total_correlation(factor, least, most):
    together = dist.MultivariateNormal(torch.tensor([0.5, 0.5]), torch.eye(2) + 2.25)

    def of_codes(z):
        return together.log_prob(z) - normal(0.5, 3.25).log_prob(z).sum(-1)

    [found] = errors(FactorVAE(Known(of_codes, factor)), model, two_codes).values()
    assert least <= found < most


def test_scores_that_are_no_logits():
    x = torch.zeros(3)
    for objective in (
        WGAN(Known(of_draws, 1.0)),
        GAN(Known(of_draws, 1.0), "least-squares"),
        AAE(GAN(Known(of_prior, 1.0), "hinge")),
        AlphaGAN(WGAN(Known(of_draws, 1.0)), WGAN(Known(of_prior, 1.0))),
    ):
        assert objective.log_ratios(model, guide, x) == {}


def test_evaluation_names_the_error():
    data = from_arrays({"x": of_data().sample((3000, 1)).numpy()}, name="mine", validation=0.0, test=0.0)

    def of_columns(x):
        return model(x[:, 0])

    for objective, name in ((OBJECTIVES["ALI"](1.0), "pairs"), (OBJECTIVES["AVB"](1.0), "z")):
        found = evaluate(of_columns, lambda x: guide(x[:, 0]), data, "train", num_particles=10, objective=objective)
        assert found[f"critic_ece_of_{name}"].value < 0.04


def test_no_probability_has_no_error():
    assert math.isnan(calibration_error(torch.tensor([0.5, float("nan")]), torch.ones(2)))
