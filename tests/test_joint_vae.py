"""Pairs of images and labels: products of experts, what is seen of which datum, translation; with mutants."""

from functools import partial
from importlib import import_module

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from pyrogen.data import digits
from pyrogen.errors import ProgramError, UsageError
from pyrogen.inference import ELBO, MaximumLikelihood, train
from pyrogen.models import JointVAE, ProductOfExperts, classifier, joint_vae, to_images, to_labels
from pyrogen.models.experts import product_of_experts
from pyrogen.models.views import views
from pyrogen.programs import log_weights, simulate
from pyrogen.spec import DataSpec, scaled

ROOMS = [import_module(f"pyrogen.models.{name}") for name in ("joint_vae", "experts")]
BINARY = DataSpec((1, 2, 3), "binary", num_classes=3)


def batch(size=5):
    return torch.rand(size, 1, 2, 3).round(), torch.tensor([0, -1, 2, 1, -1])[:size]


# Products of experts

LOCS = torch.tensor([[0.7, -1.0, 2.0], [-0.4, 3.0, 2.0]], dtype=torch.float64)
PRECISIONS = torch.tensor([[2.0, 0.5, 0.0], [1.0, 4.0, 3.0]], dtype=torch.float64)


def product_by_quadrature():
    """The moments of the normalised product of densities; one of precision zero is constant."""
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)[:, None]
    log_p = -z.square() / 2 - (PRECISIONS[:, None] * (z - LOCS[:, None]).square() / 2).sum(0)
    p = log_p.softmax(0)
    loc = (p * z).sum(0)
    return loc, (p * (z - loc).square()).sum(0).sqrt()


def check_product(product):
    for found, truth in zip(product(LOCS, PRECISIONS), product_by_quadrature(), strict=True):
        torch.testing.assert_close(found, truth)


def test_products_of_experts():
    check_product(product_of_experts)


def prior_forgotten(locs, precisions):
    return (precisions * locs).sum(0) / precisions.sum(0), precisions.sum(0).rsqrt()


def averaged(locs, precisions):
    precision = 1 + precisions.mean(0)
    return (precisions * locs).mean(0) / precision, precision.rsqrt()


def unweighted(locs, precisions):
    return locs.sum(0) / (1 + precisions.sum(0)), (1 + precisions.sum(0)).rsqrt()


@pytest.mark.parametrize("wrong", [prior_forgotten, averaged, unweighted])
def test_mutant_products(wrong):
    with pytest.raises(AssertionError):
        check_product(wrong)


def test_the_guide_multiplies_the_experts_of_what_it_sees(double):
    """A pair has both experts, a single modality one, and a datum without either the prior."""
    _, guide = joint_vae(BINARY, latent=2, hidden=(4,))
    x, y = batch()
    x, y = x.double(), torch.tensor([0, 1, 2, 1, -1])
    loc_x, raw_x = guide.z_given_x(x).chunk(2, -1)
    loc_y, raw_y = guide.z_given_y(y).chunk(2, -1)
    both = product_of_experts(torch.stack([loc_x, loc_y]), softplus(torch.stack([raw_x, raw_y])))
    alone = product_of_experts(loc_x[None], softplus(raw_x)[None])
    found = guide.posterior(x, y).base_dist
    for part, together, single in zip((found.loc, found.scale), both, alone, strict=True):
        torch.testing.assert_close(part[:4], together[:4])
        torch.testing.assert_close(part[4:], single[4:])  # its label is missing
    for posterior in (guide.posterior(x=x), guide.posterior(x, torch.full_like(y, -1))):
        torch.testing.assert_close(posterior.base_dist.loc, alone[0])
    neither = guide.posterior(torch.full_like(x, torch.nan), torch.full_like(y, -1)).base_dist
    assert (neither.loc == 0).all()
    assert (neither.scale == 1).all()


# What is seen of which datum


class Constant(nn.Module):
    """A distribution that does not look at z, so that bounds have no noise."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, z):
        return self.make(z.shape[:-1])


def noiseless():
    """Programs whose bound is exact, with experts of either modality."""
    _, guide = joint_vae(BINARY, latent=2, hidden=(4,))
    probs = torch.linspace(0.2, 0.8, 6).reshape(1, 2, 3)
    x_given_z = Constant(lambda shape: dist.Bernoulli(probs.expand(*shape, 1, 2, 3)).to_event(3))
    y_given_z = Constant(lambda shape: dist.Categorical(torch.tensor([0.2, 0.3, 0.5]).expand(*shape, 3)))
    return JointVAE(x_given_z, y_given_z, 2, BINARY), guide


def check_views():
    """In training: L(x, y) + L(x) + L(y) of pairs, and L(x) of what has no label, by evaluation mode's bounds."""
    torch.set_default_dtype(torch.float64)
    model, guide = noiseless()
    x, y = batch()
    x, paired = x.double(), y >= 0
    found = ELBO()(model, guide, x, y)
    model.eval(), guide.eval()
    expected = ELBO()(model, guide, x) + ELBO()(model, guide, y=y[paired]) + ELBO()(model, guide, x[paired], y[paired])
    torch.testing.assert_close(found, expected)


def test_views_in_training():
    check_views()


def pairs_without_labels(x, y, apart):
    """An unpaired image counts twice."""
    seen = views(x, y, apart)
    if y is None or not apart:
        return seen
    again = torch.cat([torch.ones(len(x), dtype=torch.bool), seen.sees_x[len(x) :]])
    return seen._replace(sees_x=again)


def missing_labels_are_scored(x, y, apart):
    seen = views(x, y, apart)
    return seen._replace(sees_y=torch.ones_like(seen.sees_y)) if x is not None and y is not None else seen


def pairs_only(x, y, apart):
    return views(x, y, False)


@pytest.mark.parametrize("wrong", [pairs_without_labels, missing_labels_are_scored, pairs_only])
def test_mutant_views(wrong, monkeypatch):
    for room in ROOMS:
        monkeypatch.setattr(room, "views", wrong)
    with pytest.raises(AssertionError):
        check_views()


def test_evaluation_is_of_pairs():
    """One row a datum; a datum without a label is its image alone."""
    torch.set_default_dtype(torch.float64)
    model, guide = noiseless()
    model.eval(), guide.eval()
    x, y = batch()
    x = x.double()
    assert log_weights(model, guide, x, y, num_particles=3).shape == (3, 5)
    parts = [ELBO()(model, guide, x[:1], y[:1]), ELBO()(model, guide, x[1:2])]
    torch.testing.assert_close(ELBO()(model, guide, x[:2], y[:2]), sum(parts))


def test_missing_values_pass_no_gradient_on():
    """NaN in a row that is not seen reaches no parameter."""
    spec = DataSpec((3,), "real", num_classes=2)
    model, guide = joint_vae(spec, latent=2, hidden=(4,))
    x, y = torch.randn(4, 3), torch.tensor([0, 1, -1, 1])
    x[1] = torch.nan
    ELBO()(model, guide, x, y).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for part in (model, guide) for p in part.parameters())


def test_a_vector_in_the_labels_place():
    """Reals, by any distribution; NaN where they are missing."""

    class Near(nn.Module):
        def forward(self, loc):
            return dist.Normal(loc, 1.0).to_event(1)

    spec = DataSpec((3,), "real")
    model = JointVAE(nn.Sequential(nn.Linear(2, 3), Near()), nn.Sequential(nn.Linear(2, 4), Near()), 2, spec)
    guide = ProductOfExperts(nn.Linear(3, 4), nn.Linear(4, 4))
    x, y = torch.randn(6, 3), torch.randn(6, 4)
    y[2] = torch.nan
    *_, step = train(ELBO(), model, guide, [(x, y)], partial(torch.optim.SGD, lr=1e-3), num_steps=2)
    assert step.loss.isfinite()
    assert to_labels(model, guide, x).shape == (6, 4)
    assert to_images(model, guide, y).shape == (6, 3)


def test_generation():
    model, _ = joint_vae(BINARY, latent=2, hidden=(4,))
    drawn = simulate(model, size=4)
    assert (drawn["x"].shape, drawn["y"].shape) == ((4, 1, 2, 3), (4,))


def test_data_that_do_not_fit():
    model, guide = joint_vae(BINARY, latent=2, hidden=(4,))
    x, y = batch()
    with pytest.raises(ProgramError, match="found 5 values of x and 3 of y"):
        ELBO()(model, guide, x, y[:3])
    with pytest.raises(ProgramError, match="there are no data"):
        guide()
    with pytest.raises(UsageError, match="has none: give the data a column y"):
        joint_vae(DataSpec((4,), "real"))
    for wrong in (
        {"likelihood": "poisson"},
        {"latent": 0},
        {"hidden": (0,)},
        {"label_hidden": (-1,)},
        {"label_weight": 0.0},
    ):
        with pytest.raises(UsageError, match=r"unknown|at least 1|positive"):
            joint_vae(BINARY, **wrong)


# Translation


def independent_classifier(data):
    """A classifier that never met the joint model."""
    model, _ = classifier(data.spec, hidden=(64,))
    for _ in train(MaximumLikelihood(), model, None, data.batches(128), partial(torch.optim.Adam, lr=3e-3), epochs=15):
        pass
    return model


def translations(seed=1, epochs=12, **settings):
    """Fit to digits, one label in ten missing; return how often labels of images, and images of labels, are right."""
    data = digits()
    judge = independent_classifier(data)
    pyro.set_rng_seed(seed)
    model, guide = joint_vae(data.spec, latent=8, hidden=(128,), label_hidden=(32,), **settings)
    columns = data.eval_columns("train")
    unlabelled = torch.rand(len(columns["y"])) < 0.1
    y = columns["y"].masked_fill(unlabelled, -1)
    order = torch.randperm(len(y))[:1408].reshape(-1, 64)
    batches = [(columns["x"][rows], y[rows]) for rows in order]
    for _ in train(ELBO(), model, guide, batches, partial(torch.optim.Adam, lr=3e-3), epochs=epochs):
        pass
    test = data.eval_columns("test")
    model.eval(), guide.eval(), judge.eval()
    labels = to_labels(model, guide, test["x"])
    wanted = torch.arange(10).repeat(20)
    images = to_images(model, guide, wanted)
    with torch.no_grad():
        found = judge.network(scaled(images, data.spec)).argmax(1)
    return float((labels == test["y"]).double().mean()), float((found == wanted).double().mean())


def test_translation():
    """Over five seeds, 73 to 82% of labels were right, and 87 to 93% of images."""
    labels, images = translations()
    assert labels > 0.6
    assert images > 0.75


def test_mutant_translation_of_labels_that_weigh_nothing():
    """Images drawn for labels are then of any digit: 7 and 13% were right."""
    with pytest.raises(AssertionError):
        assert translations(label_weight=1e-3)[1] > 0.75
