"""Semi-supervised learning: labels that are known, labels that are summed out, and what labels teach the classifier."""

import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

from pyrogen.card import evaluate
from pyrogen.data import digits, keep_labels
from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation import elbo, guide_accuracy, iwae
from pyrogen.inference import ELBO, IWAE
from pyrogen.models import M2, m2
from pyrogen.models.likelihood import likelihood_for
from pyrogen.models.semi_supervised import Labelled
from pyrogen.spec import DataSpec, one_hot

pytestmark = pytest.mark.usefixtures("double")

SPEC = DataSpec((2, 3), "binary", num_classes=3, num_data=40, num_labelled=5)
X = (torch.arange(36).reshape(6, 2, 3) % 5 < 2).double()
Y = torch.tensor([2, -1, -1, 0, -1, 1])
WEIGHT = 7.0


def programs(**settings) -> M2:
    pyro.set_rng_seed(0)
    model, _ = m2(SPEC, latent=2, hidden=(4,), **({"class_weight": WEIGHT} | settings))
    both = model.__self__
    for p in both.parameters():
        p.data = 0.7 * torch.randn_like(p)
    return both


def draws(both: M2, x: Tensor, y: Tensor | None, seed: int = 1) -> Tensor:
    """Return the noise of the guide's styles with a seed: one for each label and datum."""
    pyro.set_rng_seed(seed)
    return torch.randn(3, len(x), 2)


def by_hand(both: M2, x: Tensor, y: Tensor, noise: Tensor, weight: float = WEIGHT, entropy: float = 1.0) -> Tensor:
    """Return the objective, from the networks alone, datum by datum and label by label."""
    total = torch.zeros(())
    log_q_y = both.classifier(2 * x - 1).log_softmax(-1)
    for n in range(len(x)):
        of_label = []
        for k in range(3):
            label = torch.tensor(k)
            loc, a = both.encoder(2 * x[n] - 1, label).chunk(2)
            scale = 2 / (1 + (-a).exp())
            z = loc + scale * noise[k, n]
            log_q_z = (-0.5 * noise[k, n] ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)).sum()
            log_p_z = (-0.5 * z**2 - 0.5 * math.log(2 * math.pi)).sum()
            logits = both.decoder(z, label).reshape(2, 3)
            log_p_x = (x[n] * logits - logits.exp().log1p()).sum()
            of_label.append(log_p_x + log_p_z - math.log(3) - log_q_z)
        if y[n] >= 0:
            total = total + of_label[y[n]] + weight * log_q_y[n, y[n]]
        else:
            q = log_q_y[n].exp()
            total = total + sum(q[k] * (of_label[k] - entropy * log_q_y[n, k]) for k in range(3))
    return total


def found(both: M2, x: Tensor, y: Tensor | None, seed: int = 1) -> Tensor:
    pyro.set_rng_seed(seed)
    objective = ELBO(max_plate_nesting=1)  # no rehearsal, which would draw first
    return -objective(both.model, both.guide, x=x, y=y)


def check(both: M2, y: Tensor, **wrong) -> None:
    truth = by_hand(both, X, y, draws(both, X, y), **wrong)
    estimate = found(both, X, y)
    torch.testing.assert_close(estimate, truth)
    parameters = list(both.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(estimate, parameters), torch.autograd.grad(truth, parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


KNOWN = {"mixed": Y, "all known": Y.clamp(min=0), "none known": torch.full_like(Y, -1)}


@pytest.mark.parametrize("y", KNOWN.values(), ids=KNOWN)
def test_value_and_gradient_are_those_by_hand(y):
    check(programs(), y)


def test_without_labels_all_are_missing():
    both = programs()
    torch.testing.assert_close(found(both, X, None), found(both, X, torch.full_like(Y, -1)))


@pytest.mark.parametrize("wrong", [{"entropy": 0.0}, {"weight": 0.0}, {"weight": WEIGHT / 5}], ids=str)
def test_mutant_objectives(wrong):
    with pytest.raises(AssertionError):
        check(programs(), Y, **wrong)


def test_mutant_known_labels_summed_out_as_well():
    both = programs(class_weight=0.0)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(found(both, X, Y), found(both, X, torch.full_like(Y, -1)))


def test_gradient_of_the_class_term():
    """d/dlogits of w log q(y | x) is w (one-hot(y) - q), and known labels are no draw of q."""
    both, known = programs(), Y.clamp(min=0)
    logits = both.classifier(2 * X - 1).detach().requires_grad_()
    both.classifier = Given(logits)
    (gradient,) = torch.autograd.grad(found(both, X, known), logits)
    torch.testing.assert_close(gradient, WEIGHT * (one_hot(known, SPEC) - logits.softmax(-1)))


class Given(nn.Module):
    """A network that returns what it was given."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.values


def test_class_weight_of_the_paper():
    """A tenth of all data, shared by the labels: 0.1 * 40 / 5; and 0.1 where all have a label."""
    assert programs(class_weight=None).class_weight == pytest.approx(0.8)
    model, _ = m2(replace(SPEC, num_labelled=None))
    assert model.__self__.class_weight == pytest.approx(0.1)


def discrete(decoder: nn.Module, classifier: nn.Module) -> M2:
    """A model whose style says nothing: its posterior is the prior, and the rest is a mixture of three components."""
    return M2(classifier, Given(torch.zeros(4)), decoder, likelihood_for(SPEC), 2, WEIGHT)


class ByLabel(nn.Module):
    """Logits of pixels for each label, whatever the style."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.linspace(-2, 2, 18).sin().reshape(3, 6) * 2)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return one_hot(y, SPEC) @ self.logits + 0 * z.sum(-1, keepdim=True)


def joint(decoder: ByLabel, x: Tensor) -> Tensor:
    """Return log p(x, y) of each label, shape (data, 3)."""
    logits = decoder.logits.reshape(3, 2, 3)
    return dist.Bernoulli(logits=logits).log_prob(x[:, None]).sum((-1, -2)) - math.log(3)


def test_the_optimum_is_enumeration():
    """With q(y | x) = p(y | x), the bound is log p(x) of data without labels and log p(x, y) of others, and flat."""
    decoder = ByLabel()
    log_joint = joint(decoder, X)
    logits = log_joint.detach().clone().requires_grad_()
    both = discrete(decoder, Given(logits))
    both.class_weight = 0.0
    truth = torch.where(Y >= 0, log_joint.gather(1, Y.clamp(min=0)[:, None])[:, 0], log_joint.logsumexp(1)).sum()
    estimate = found(both, X, Y)
    torch.testing.assert_close(estimate, truth)
    of_classifier, of_decoder = torch.autograd.grad(estimate, [logits, decoder.logits], retain_graph=True)
    torch.testing.assert_close(of_classifier, torch.zeros_like(logits))
    torch.testing.assert_close(of_decoder, torch.autograd.grad(truth, decoder.logits)[0])
    worse = discrete(decoder, Given(logits.detach() * 0.5))
    worse.class_weight = 0.0
    assert found(worse, X, Y) < estimate - 0.1


def test_drawn_labels_are_unbiased_and_noisy():
    """Without sums, the objective is right on average, by a score-function gradient, and differs from draw to draw."""
    decoder = ByLabel()
    logits = (0.5 * joint(decoder, X).detach()).requires_grad_()
    both = discrete(decoder, Given(logits))
    truth = found(both, X, Y)
    (gradient,) = torch.autograd.grad(truth, logits)
    both.enumerates = False
    particles = 2000
    pyro.set_rng_seed(2)
    few = torch.stack([-ELBO(max_plate_nesting=1)(both.model, both.guide, x=X, y=Y).detach() for _ in range(100)])
    assert few.std() > 0.1
    assert abs(few.mean() - truth) < 4.5 * few.std() / 100**0.5
    estimate = -ELBO(particles, max_plate_nesting=1, leave_one_out=True)(both.model, both.guide, x=X, y=Y)
    found_gradient = torch.autograd.grad(estimate, logits)[0]
    # A score's term has a variance below that of the bound's, of a few nats, times the score's, below one.
    torch.testing.assert_close(found_gradient, gradient, atol=4.5 * 4 / particles**0.5, rtol=0)


def test_evaluation_mode_bounds_the_evidence():
    """Labels are drawn and none is taught: with the exact posterior, every draw has the weight p(x), or p(x, y)."""
    decoder = ByLabel()
    both = discrete(decoder, Given(joint(decoder, X).detach()))
    log_joint = joint(decoder, X).detach()
    for y, truth in ((None, log_joint.logsumexp(1)), (Y.clamp(min=0), log_joint.gather(1, Y.clamp(min=0)[:, None]))):
        batch = {"x": X} if y is None else {"x": X, "y": y}
        assert elbo(both.model, both.guide, [batch], 3).value == pytest.approx(float(truth.mean()), abs=1e-9)
        assert iwae(both.model, both.guide, [batch], 5).value == pytest.approx(float(truth.mean()), abs=1e-9)


def test_a_guide_that_sums_has_no_importance_weights():
    both = programs()
    with pytest.raises(ProgramError, match="enumerates"):
        IWAE(5)(both.model, both.guide, x=X, y=Y)


def test_draws():
    both = programs()
    assert both.model(size=4).shape == (4, 2, 3)
    assert both.model(y=torch.tensor([1, 0])).shape == (2, 2, 3)
    sites = poutine.trace(both.model).get_trace(y=torch.tensor([1, 0])).nodes
    assert "y" not in sites


def test_draws_given_labels_are_of_these_labels():
    decoder = ByLabel()
    y = torch.arange(3).repeat_interleave(4000)
    pyro.set_rng_seed(0)
    means = discrete(decoder, Given(torch.zeros(3))).model(y=y).reshape(3, 4000, 6).mean(1)
    p = decoder.logits.detach().sigmoid()
    assert ((means - p).abs() < 4.5 * (p * (1 - p) / 4000).sqrt()).all()


def test_shared_first_layer_is_a_layer_of_both():
    """A layer of values and a one-hot label side by side is the sum of a layer of each."""
    network = Labelled(5, 4, (6,), SPEC)
    x, y = torch.randn(7, 5), torch.tensor([[0], [1], [2]])
    side_by_side = torch.cat([x.expand(3, 7, 5), one_hot(y, SPEC).expand(3, 7, 3)], -1)
    weight = torch.cat([network.of_values.weight, network.of_label.weight], 1)
    expected = network.rest(side_by_side @ weight.mT + network.of_values.bias)
    torch.testing.assert_close(network(x, y), expected)


# Accuracy of the guide


def test_accuracy_of_the_guide():
    """Labels are not shown to it: of the last three, one is right by its logits, and the first three all are."""
    logits = torch.eye(3).repeat(2, 1)
    both = discrete(ByLabel(), Given(logits))
    y = torch.tensor([0, 1, 2, 1, 1, 1])
    assert guide_accuracy(both.guide, [{"x": X, "y": y}]).value == pytest.approx(4 / 6)
    with pytest.raises(ProgramError, match="no categorical site 'kind'"):
        guide_accuracy(both.guide, [{"x": X, "y": y}], site="kind")


def test_the_card_has_the_accuracy_of_the_guide():
    data = digits(pixels="static-binary", labels=50)
    model, guide = m2(data.spec, latent=2, hidden=(8,))
    model.__self__.float()
    figures = evaluate(model, guide, data, "test", num_particles=2)
    test = data.eval_columns("test")
    expected = guide_accuracy(guide, [test]).value
    assert figures["accuracy"].value == pytest.approx(expected)
    assert {"elbo", "iwae"} <= figures.keys()


# Data of which few have a label


def test_labels_that_are_kept():
    data = digits()
    kept = keep_labels(data, 33, seed=1)
    y, truth = kept.train["y"], data.train["y"]
    known = y >= 0
    assert int(known.sum()) == kept.spec.num_labelled == 33
    assert torch.equal(y[known], truth[known])
    counts = torch.bincount(y[known], minlength=10)
    assert set(counts.tolist()) == {3, 4}
    assert (y[~known] == -1).all()
    assert torch.equal(kept.test["y"], data.test["y"])
    assert torch.equal(keep_labels(data, 33, seed=1).train["y"], y)
    assert not torch.equal(keep_labels(data, 33, seed=2).train["y"], y)
    assert torch.equal(digits(labels=33, seed=1).train["y"], keep_labels(digits(seed=1), 33, seed=1).train["y"])


@pytest.mark.parametrize("labels", [0, 1438])
def test_labels_that_cannot_be_kept(labels):
    with pytest.raises(UsageError, match="expected 1 to 1437"):
        keep_labels(digits(), labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spec": replace(SPEC, num_classes=None)}, "learns from labels"),
        ({"latent": 0}, "at least 1"),
        ({"hidden": ()}, "at least 1"),
        ({"class_weight": -1.0}, "class_weight"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(UsageError, match=message):
        m2(**({"spec": SPEC} | settings))


def test_batches_of_a_data_set_go_in():
    data = digits(pixels="static-binary", labels=50)
    batch = next(iter(data.batches(20)))
    model, guide = m2(data.spec, latent=2, hidden=(8,))
    model.__self__.float()
    assert torch.isfinite(ELBO()(model, guide, **batch))
