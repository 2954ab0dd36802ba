"""Uncertainty of labels against closed forms: members that disagree, Dirichlet draws, a probit posterior."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyrogen.errors import DataError, ProgramError, UsageError
from pyrogen.evaluation import label_draws, mutual_information, predictive_entropy, uncertainty


def test_members_that_disagree_and_agree() -> None:
    """Two that are each sure of another label have log 2 to tell; what they agree on is chance alone."""
    sure = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).double().log()
    chance = torch.tensor([[0.5, 0.25, 0.25]] * 2).double().log()
    same = torch.tensor([[1.0, 0.0, 0.0]] * 2).double().log()
    found = uncertainty(torch.stack([sure, chance, same], 1))
    torch.testing.assert_close(found.total, torch.tensor([1.0, 1.5, 0.0]).double() * math.log(2))
    torch.testing.assert_close(found.aleatoric, torch.tensor([0.0, 1.5, 0.0]).double() * math.log(2))
    torch.testing.assert_close(found.epistemic, torch.tensor([1.0, 0.0, 0.0]).double() * math.log(2))


def test_mutual_information_is_a_divergence_from_the_mean() -> None:
    """It is the mean Kullback-Leibler divergence of draws from their mean: a second formula for it."""
    log_probs = torch.randn(7, 5, 4).double().log_softmax(-1)
    average = log_probs.exp().mean(0)
    divergence = (log_probs.exp() * (log_probs - average.log())).sum(-1).mean(0)
    torch.testing.assert_close(mutual_information(log_probs), divergence)
    torch.testing.assert_close(predictive_entropy(log_probs), -(average * average.log()).sum(-1))
    found = uncertainty(log_probs)
    torch.testing.assert_close(found.total, found.aleatoric + found.epistemic)


CONCENTRATION = torch.tensor([2.0, 1.0, 0.5]).double()


def dirichlet() -> tuple[float, float]:
    r"""Return entropies of Dirichlet draws: of the mean, and on average :math:`\psi(a_0 + 1) - m \cdot \psi(a + 1)`."""
    total = CONCENTRATION.sum()
    m = CONCENTRATION / total
    of_draws = torch.digamma(total + 1) - (m * torch.digamma(CONCENTRATION + 1)).sum()
    return float(-(m * m.log()).sum()), float(of_draws)


def test_dirichlet_draws() -> None:
    draws = dist.Dirichlet(CONCENTRATION).sample((20_000, 1))
    found = uncertainty(draws.log())
    total, aleatoric = dirichlet()
    entropies = torch.special.entr(draws).sum(-1)
    assert abs(float(found.aleatoric) - aleatoric) < 4.5 * float(entropies.std()) / 20_000**0.5
    m = CONCENTRATION / CONCENTRATION.sum()
    spread = (draws[:, 0] @ m.log()).std() / 20_000**0.5  # of the entropy of the mean, to first order
    assert abs(float(found.total) - total) < 4.5 * float(spread)
    assert float(found.epistemic) == pytest.approx(float(found.total - found.aleatoric), abs=1e-12)


def test_few_draws_say_too_little() -> None:
    r"""It is :math:`-\sum \operatorname{Var}[p] / (2 S \bar p)`: of Dirichlet draws, -(K - 1) / (2 S (a_0 + 1))."""
    total, aleatoric = dirichlet()
    truth, freedom = total - aleatoric, len(CONCENTRATION) - 1
    for count in (10, 40):
        draws = dist.Dirichlet(CONCENTRATION).sample((count, 20_000))
        found = mutual_information(draws.log())
        bias = -freedom / (2 * count * float(CONCENTRATION.sum() + 1))
        error = float(found.std()) / 20_000**0.5
        assert abs(float(found.mean()) - truth - bias) < 4.5 * error + (1 / count) ** 2 / 2  # and its second order
        assert abs(float(found.mean()) - truth) > 9 * error
    assert float(mutual_information(dist.Dirichlet(0.01 * CONCENTRATION).sample((3, 500)).log()).max()) <= math.log(3)


def probit(x: Tensor, y: Tensor | None = None) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        p = torch.special.ndtr(w * x).clamp(1e-12, 1 - 1e-12)
        pyro.sample("y", dist.Categorical(torch.stack([1 - p, p], -1)), obs=y)


def guide(x: Tensor, y: Tensor | None = None) -> None:
    pyro.sample("w", dist.Normal(0.5, 0.5))


def test_draws_of_shared_weights(double) -> None:
    r"""With :math:`w \sim N(m, s^2)`, the mean of :math:`\Phi(w x)` is :math:`\Phi(m x / \sqrt{1 + s^2 x^2})`."""
    x = torch.tensor([0.0, 1.0, -2.0, 5.0])
    log_probs = label_draws(probit, guide, [{"x": x[:1]}, {"x": x[1:]}], 1000)
    assert log_probs.shape == (1000, 4, 2)
    p = log_probs[..., 1].exp()
    truth = torch.special.ndtr(0.5 * x / (1 + 0.25 * x**2).sqrt())
    assert ((p.mean(0) - truth).abs() <= 4.5 * p.std(0) / 1000**0.5 + 1e-12).all()
    # One draw of the weight is for all data, in whatever batches they come.
    one = torch.special.ndtri(p[:, 1])
    torch.testing.assert_close(p[:, 2], torch.special.ndtr(-2 * one), atol=1e-6, rtol=0)
    batches = label_draws(probit, guide, [{"x": x[1:2]}, {"x": x[1:2]}], 20)
    torch.testing.assert_close(batches[:, 0], batches[:, 1])
    assert float(batches[:, 0, 1].std()) > 0.05


def test_a_datum_that_is_asked_for_is_one_that_draws_disagree_on() -> None:
    """Far from the boundary in either direction of the weight, and not where labels are chance."""
    pyro.set_rng_seed(0)
    x = torch.tensor([0.0, 0.5, 3.0])
    found = uncertainty(label_draws(probit, lambda x: pyro.sample("w", dist.Normal(0.0, 1.0)), [{"x": x}], 400))
    assert found.total == pytest.approx([math.log(2)] * 3, abs=0.02)
    assert found.epistemic.argsort().tolist() == [0, 1, 2]
    assert float(found.epistemic[0]) == pytest.approx(0.0, abs=1e-6)


def test_what_has_no_uncertainty_of_labels_is_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(draws, data, classes\), found \(3, 2\)"):
        uncertainty(torch.zeros(3, 2))
    with pytest.raises(DataError, match="do not add up to 1"):
        uncertainty(torch.rand(2, 3, 4))
    with pytest.raises(UsageError, match="num_draws"):
        label_draws(probit, guide, [{"x": torch.ones(2)}], 0)
    with pytest.raises(ProgramError, match="has no site 'label'"):
        label_draws(probit, guide, [{"x": torch.ones(2)}], site="label")
    with pytest.raises(ProgramError, match="categorical site 'w', found Normal"):
        label_draws(probit, guide, [{"x": torch.ones(2)}], site="w")


def test_latents_of_a_datum_are_no_parameters():
    def model(x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Categorical(logits=torch.stack([z, -z], -1)), obs=y)

    def guide(x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ProgramError, match="each datum's own"):
        label_draws(model, guide, [{"x": torch.zeros(3)}], 5)
