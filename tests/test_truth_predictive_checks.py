"""Predictive checks against closed forms: p-values are normal, chi-squared and binomial tail probabilities."""

import math
import warnings

import arviz
import matplotlib
import pyro
import pyro.distributions as dist
import pytest
import torch
from known_answers import CONJUGATE_TRUTH
from scipy import stats

from pyrogen.analysis import to_arviz
from pyrogen.errors import DataError, ProgramError, UsageError
from pyrogen.evaluation import predictive_checks
from pyrogen.inferencedata import IS_TREE

Y = CONJUGATE_TRUTH.y
REPLICATES = 400


def shared(x: torch.Tensor) -> None:
    theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(theta, 1.0), obs=x)


def posterior(x: torch.Tensor) -> None:
    pyro.sample("theta", dist.Normal(CONJUGATE_TRUTH.post_mean, CONJUGATE_TRUTH.post_sd))


def local(x: torch.Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def local_posterior(x: torch.Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.8 * x, 0.2**0.5))


def normal(sd: float):
    def model(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, sd), obs=x)

    return model


def near(check, truth: float) -> None:
    assert abs(check.p_value.value - truth) < 4.5 * check.p_value.stderr
    assert check.p_value.stderr == pytest.approx((truth * (1 - truth) / REPLICATES) ** 0.5, rel=0.1)


def extremes(theta_mean: float, theta_sd: float) -> tuple[float, float]:
    """Integrate the probabilities of a greater least and of a greater greatest value of five over theta."""
    theta = torch.linspace(theta_mean - 8 * theta_sd, theta_mean + 8 * theta_sd, 4001).double()
    weight = torch.distributions.Normal(theta_mean, theta_sd).log_prob(theta).exp() * (theta[1] - theta[0])
    below = [torch.special.ndtr(Y.double() - t) for t in theta]
    least = sum(w * (1 - b.min()) ** 5 for w, b in zip(weight, below, strict=True))
    greatest = sum(w * (1 - b.max() ** 5) for w, b in zip(weight, below, strict=True))
    return float(least), float(greatest)


@pytest.mark.parametrize("batch_size", [2, 5])
@pytest.mark.parametrize(
    ("guide", "mean", "sd"),
    [(posterior, CONJUGATE_TRUTH.post_mean, CONJUGATE_TRUTH.post_sd), (None, 0.0, 1.0)],
    ids=["posterior", "prior"],
)
def test_conjugate_normal(guide, mean: float, sd: float, batch_size: int) -> None:
    """The mean of a replicate is normal, its variance chi-squared whatever theta is, and extremes are by quadrature.

    One theta serves all data of a replicate, in whatever batches they come.
    """
    found = predictive_checks(shared, guide, [{"x": part} for part in Y.split(batch_size)], num_replicates=REPLICATES)
    mean_sd = (sd**2 + 1 / 5) ** 0.5
    least, greatest = extremes(mean, sd)
    near(found["mean"], stats.norm.sf((float(Y.mean()) - mean) / mean_sd))
    near(found["sd"], stats.chi2.sf(4 * float(Y.var()), 4))
    near(found["min"], least)
    near(found["max"], greatest)
    assert found["zeros"].is_constant
    assert found["mean"].observed == pytest.approx(float(Y.double().mean()))
    assert found["sd"].observed == pytest.approx(float(Y.double().std()))
    assert abs(float(found["mean"].replicated.std()) / mean_sd - 1) < 4.5 * (2 * REPLICATES) ** -0.5


def test_latents_of_each_datum() -> None:
    """Given x, a replicate of it is normal about 0.8 x with variance 0.2 + 0.25; without, it is N(0, 1.25)."""
    x = torch.tensor([1.5, -0.3, 0.9, 2.2])
    batches = [{"x": x[:3]}, {"x": x[3:]}]
    given = predictive_checks(local, local_posterior, batches, num_replicates=REPLICATES)
    near(given["mean"], stats.norm.sf(float(x.mean()) * 0.2 / (0.45 / 4) ** 0.5))
    drawn = predictive_checks(local, None, batches, num_replicates=REPLICATES)
    near(drawn["mean"], stats.norm.sf(float(x.mean()) / (1.25 / 4) ** 0.5))
    near(drawn["sd"], stats.chi2.sf(3 * float(x.var()) / 1.25, 3))


def test_latents_that_depend_on_shared_ones() -> None:
    """A guide's latents of later batches are given the shared draw of the first: the mean has all of its variance."""

    def nested(x: torch.Tensor) -> None:
        top = pyro.sample("top", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(top, 0.1))
            pyro.sample("x", dist.Normal(z, 0.1), obs=x)

    def guide(x: torch.Tensor) -> None:
        top = pyro.sample("top", dist.Normal(0.0, 2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(top, 0.1))

    batches = [{"x": torch.zeros(2)}] * 2
    found = predictive_checks(nested, guide, batches, {"mean": torch.mean}, REPLICATES)["mean"]
    sd = (4 + 0.02 / 4) ** 0.5
    assert abs(float(found.replicated.std()) / sd - 1) < 4.5 * (2 * REPLICATES) ** -0.5


def test_a_tie_is_half() -> None:
    """The share of zeros of coin tosses is binomial: half of what equals the data counts."""

    def tosses(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(0.3), obs=x)

    x = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    found = predictive_checks(tosses, None, [{"x": x}], num_replicates=REPLICATES)["zeros"]
    truth = stats.binom.sf(4, 6, 0.7) + stats.binom.pmf(4, 6, 0.7) / 2
    assert found.observed == pytest.approx(4 / 6)
    assert abs(found.p_value.value - truth) < 4.5 * found.p_value.stderr
    variance = stats.binom.sf(4, 6, 0.7) + stats.binom.pmf(4, 6, 0.7) / 4 - truth**2
    assert found.p_value.stderr == pytest.approx((variance / REPLICATES) ** 0.5, rel=0.1)


def test_a_wrong_spread_is_found_and_a_right_one_is_not() -> None:
    x = 2 * torch.randn(200)
    wrong, right, wide = (predictive_checks(normal(sd), None, [{"x": x}]) for sd in (1.0, 2.0, 4.0))
    assert wrong["sd"].p_value.value == pytest.approx(0.5 / 201)  # the least that there is, and not zero
    assert wide["sd"].p_value.value == pytest.approx(200.5 / 201)
    assert wrong["sd"].p_value.stderr == pytest.approx(0.5 / 201, rel=0.01)
    assert 0.01 < right["sd"].p_value.value < 0.99
    assert 0.01 < wrong["mean"].p_value.value < 0.99


def p_values(guided: bool, sets: int = 100) -> torch.Tensor:
    """Check the mean of data sets that the conjugate model makes itself, by its posterior or by its prior."""
    found = []
    for _ in range(sets):
        x = torch.randn(()) + torch.randn(5)

        def exact(x: torch.Tensor, given: torch.Tensor = x) -> None:
            pyro.sample("theta", dist.Normal(given.sum() / 6, 6**-0.5))

        guide = exact if guided else None
        found.append(predictive_checks(shared, guide, [{"x": x}], {"mean": torch.mean}, 19)["mean"].p_value.value)
    return torch.tensor(found)


def test_p_values_of_a_right_model_are_uniform_on_new_data() -> None:
    found = p_values(guided=False)
    assert stats.kstest(found, "uniform").pvalue > 1e-3


def test_p_values_are_conservative_where_data_are_used_twice() -> None:
    r"""Over the model's own data, :math:`p = \Phi(-\bar x / (6 s))`, s² = 1/6 + 1/5, and the mean is N(0, 6/5)."""
    found = p_values(guided=True)
    mean = torch.linspace(-8, 8, 4001).double()
    weight = torch.distributions.Normal(0.0, 1.2**0.5).log_prob(mean).exp() * (mean[1] - mean[0])
    p = torch.special.ndtr(-mean / (6 * (1 / 6 + 1 / 5) ** 0.5))
    noise = float((weight * p * (1 - p)).sum()) / 20  # of a share of replicates
    variance = float((weight * (p - 0.5) ** 2).sum()) + noise
    assert abs(float(found.mean()) - 0.5) < 4.5 * (variance / 100) ** 0.5
    assert abs(float(found.var()) / variance - 1) < 4.5 * (2 / 100) ** 0.5
    assert variance < 0.5 / 12  # less than half that of a uniform one


def test_missing_values_are_missing_in_replicates() -> None:
    """What is left of the data is what is compared: a statistic that is given all sees NaN in the same places."""
    x = torch.randn(40, 3)
    x[::2, 0] = torch.nan

    def observed(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).mask(~x.isnan()).to_event(1), obs=x.nan_to_num())

    count = {"missing": lambda values: values.isnan().sum()}
    assert predictive_checks(observed, None, [{"x": x}], count)["missing"].is_constant
    found = predictive_checks(observed, None, [{"x": x}])
    assert found["mean"].observed == pytest.approx(float(x.double().nanmean()))
    assert 0.01 < found["mean"].p_value.value < 0.99
    assert 0.01 < found["sd"].p_value.value < 0.99


def test_other_data_stay_as_they_are() -> None:
    """Labels that the model observes as well are given: replicates of x are of the same classes."""

    def model(x: torch.Tensor, y: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            label = pyro.sample("y", dist.Categorical(torch.ones(2)), obs=y)
            pyro.sample("x", dist.Normal(10.0 * label, 1.0), obs=x)

    y = torch.tensor([0, 0, 0, 1])
    found = predictive_checks(model, None, [{"x": 10.0 * y, "y": y}], {"mean": torch.mean})["mean"]
    assert float(found.replicated.mean()) == pytest.approx(2.5, abs=4.5 * 0.5 / 200**0.5)
    assert float(found.replicated.std()) == pytest.approx(0.5, rel=4.5 * 400**-0.5)


def test_replicates_are_those_of_arviz() -> None:
    """The groups that ``az.plot_ppc`` and ``az.plot_bpv`` draw have the same share of greater statistics."""
    found = predictive_checks(shared, posterior, [{"x": Y}], num_replicates=REPLICATES)
    data = to_arviz((shared, posterior), Y, num_samples=REPLICATES)
    replicated = torch.from_numpy(data["posterior_predictive"]["x"].values[0])
    for name, statistic in (("mean", torch.mean), ("sd", torch.std), ("max", torch.max)):
        above = [float(statistic(values) > statistic(Y)) for values in replicated]
        both = math.sqrt(2) * found[name].p_value.stderr
        assert abs(sum(above) / REPLICATES - found[name].p_value.value) < 4.5 * both
    if not IS_TREE:  # of version 1, plots are packages of their own
        with matplotlib.rc_context({"backend": "agg"}), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries beneath
            assert arviz.plot_ppc(data, num_pp_samples=5) is not None
            assert arviz.plot_bpv(data, kind="t_stat", t_stat="std") is not None


def test_what_cannot_be_checked_is_refused() -> None:
    batches = [{"x": Y}]
    with pytest.raises(ProgramError, match="observes no data at site 'theta'"):
        predictive_checks(shared, None, batches, site="theta")
    with pytest.raises(ProgramError, match="has no site 'z'"):
        predictive_checks(shared, None, batches, site="z")
    with pytest.raises(UsageError, match="must be one number"):
        predictive_checks(shared, None, batches, {"all": lambda values: values})
    with pytest.raises(UsageError, match="at least 1"):
        predictive_checks(shared, None, batches, num_replicates=0)
    with pytest.raises(ProgramError, match="'log' is not finite"):
        predictive_checks(shared, None, batches, {"log": lambda values: values.log().sum()})


def test_shared_latents_are_told_by_a_plate():
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([len(x)]).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    whole = [{"x": torch.zeros(6)}]
    assert predictive_checks(model, None, whole, num_replicates=5)
    with pytest.raises(ProgramError, match="lies in no plate"):
        predictive_checks(model, None, whole * 2, num_replicates=5)


@pytest.mark.parametrize(
    ("batches", "statistics", "error", "message"),
    [
        ([], {}, DataError, "no data"),
        ([{"z": torch.zeros(3)}], {}, DataError, "column 'x'"),
        ([{"x": torch.zeros(3)}], {"text": lambda x: "much"}, UsageError, "found str"),
    ],
)
def test_what_cannot_be_checked_is_named(batches, statistics, error, message):
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    with pytest.raises(error, match=message):
        predictive_checks(model, None, batches, statistics, num_replicates=2)
