"""One table: every objective with every kind of program that it is for.

A new objective is one entry in ``OBJECTIVES`` and in the rows that it runs on.
"""

import copy
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from torch import nn

from pyrogen.inference import (
    ELBO,
    IWAE,
    Annealing,
    BetaTCVAE,
    CollapsedVB,
    ForwardKL,
    MaximumLikelihood,
    NaturalGradient,
    PyroELBO,
    Renyi,
    ReverseKL,
    train,
)  # fmt: skip
from pyrogen.models import (
    char_rnn,
    classifier,
    correlated_topics,
    dirichlet_process_mixture,
    gaussian_mixture,
    joint_vae,
    lda,
    miwae,
    ppca,
    prodlda,
    vae,
    wavenet,
)
from pyrogen.programs import log_weights, simulate
from pyrogen.spec import DataSpec

OBJECTIVES = {
    "ELBO": ELBO,
    "ELBO of 3": partial(ELBO, 3),
    "ELBO of 3, one by one": partial(ELBO, 3, vectorize_particles=False),
    "ELBO, sampled KL": partial(ELBO, analytic_kl=False),
    "beta": partial(ELBO, beta=4.0),
    "annealed": lambda: ELBO(beta=Annealing(0.0, 1.0, 10)),
    "IWAE": partial(IWAE, 3),
    "Renyi": partial(Renyi, 0.5, 3),
    "ReverseKL": partial(ReverseKL, 3),
    "PyroELBO": lambda: PyroELBO(Trace_ELBO()),
    "BetaTCVAE": partial(BetaTCVAE, 0.5, 4.0, 2.0, num_data=60),
    "BetaTCVAE, weighted": partial(BetaTCVAE, num_data=60, sampling="weighted"),
    "ForwardKL": partial(ForwardKL, 3),
    "MaximumLikelihood": MaximumLikelihood,
    "NaturalGradient": NaturalGradient,
    "CollapsedVB": CollapsedVB,
}
DISENTANGLING = [name for name in OBJECTIVES if name.startswith("BetaTCVAE")]
OTHERS = ("ForwardKL", "MaximumLikelihood", "NaturalGradient", "CollapsedVB", *DISENTANGLING)
BOUNDS = [name for name in OBJECTIVES if name not in OTHERS]

IMAGES = (1, 4, 5)


def images(kind, levels=None, **settings):
    def make():
        spec = DataSpec(IMAGES, kind, levels=levels)
        x = {
            "binary": torch.rand(6, *IMAGES).round(),
            "levels": torch.randint(0, levels or 2, (6, *IMAGES)).float(),
            "dequantized": torch.rand(6, *IMAGES),
            "real": torch.randn(6, *IMAGES),
        }[kind]
        return (*vae(spec, latent=2, hidden=(8,), **settings), (x,))

    return make


def linear():
    return (*ppca(DataSpec((4,), "real"), latent=2), (torch.randn(6, 4),))


def mixture():
    return (*gaussian_mixture(DataSpec((2,), "real"), components=3), (torch.randn(6, 2),))


def classes():
    made = classifier(DataSpec((4,), "real", num_classes=3), hidden=(8,), dropout=0.1)
    return (*made, (torch.randn(6, 4), torch.randint(0, 3, (6,))))


def sounds():
    """Sequences of levels, and labels that they are modelled given."""
    spec = DataSpec((9,), "levels", levels=5, num_classes=3, sample_rate=9)
    made = wavenet(spec, channels=4, layers=2, skip=4, conditional=True)
    return (*made, (torch.randint(0, 5, (6, 9)).float(), 6, 9, torch.randint(0, 3, (6,))))


def functions():
    """Plain functions: ``pyro.param`` and ``pyro.module``, a global and a local latent, a subsampled plate."""
    encoder = nn.Linear(1, 2)

    def model(x):
        noise = pyro.param("noise", torch.tensor(1.0), constraint=dist.constraints.positive)
        g = pyro.sample("g", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), subsample_size=4) as i:
            z = pyro.sample("z", dist.Normal(g, 1.0))
            pyro.sample("x", dist.Normal(z, noise), obs=x[i])

    def guide(x):
        pyro.module("encoder", encoder)
        pyro.sample("g", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))
        with pyro.plate("data", len(x), subsample_size=4) as i:
            loc, log_scale = encoder(x[i, None]).unbind(-1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()))

    return model, guide, (torch.randn(7),)


def pairs():
    """Images and labels, of which two are missing."""
    spec = DataSpec(IMAGES, "binary", num_classes=3)
    made = joint_vae(spec, latent=2, hidden=(8,), label_hidden=(4,))
    return (*made, (torch.rand(6, *IMAGES).round(), torch.tensor([0, 2, -1, 1, 0, -1])))


def incomplete():
    """A table, of which a third is missing, and one row all of it."""
    x = torch.randn(6, 4).masked_fill(torch.rand(6, 4) < 0.3, torch.nan)
    x[5] = torch.nan
    return (*miwae(DataSpec((4,), "real"), latent=2, hidden=(8,)), (x,))


def topics(factory, **settings):
    """Global topics and local weights; counts of words."""

    def make():
        spec = DataSpec((7,), "counts", num_data=12)
        return (*factory(spec, topics=3, hidden=(8,), **settings), (torch.randint(0, 4, (6, 7)).float(),))

    return make


def sticks():
    """Global sticks and components, enumerated assignments, a plate that stands for more data."""
    made = dirichlet_process_mixture(DataSpec((2,), "real", num_data=12), components=4)
    return (*made, (torch.randn(6, 2),))


def windows():
    """Windows of a text, the last of which goes on from what was read before."""
    spec = DataSpec((5,), "levels", levels=3, symbols=("a", "b", "c"))
    begins = torch.tensor([True] * 5 + [False])
    return (*char_rnn(spec, hidden=4, layers=2), (torch.randint(3, (6, 5)).float(), 6, None, begins))


class Tutorial(nn.Module):
    """Pyro's VAE tutorial: model and guide are bound methods of one module, which are not programs by themselves."""

    def __init__(self):
        super().__init__()
        self.decoder, self.encoder = nn.Linear(2, 5), nn.Linear(5, 4)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def tutorial():
    both = Tutorial()
    return both.model, both.guide, (torch.rand(6, 5).round(),)


def regression(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    noise = pyro.sample("noise", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal((w * x).sum(-1), noise), obs=y)


def auto(guide):
    return lambda: (regression, guide(regression), (torch.randn(6, 2), torch.randn(6)))


BAYES = {
    "mlp, bernoulli": images("binary"),
    "convolutional": images("binary", network="convolutional", channels=(3, 4)),
    "flow prior": images("binary", prior="flow"),
    "categorical": images("levels", 4, likelihood="categorical"),
    "categorical, convolutional": images("levels", 4, likelihood="categorical", network="convolutional", channels=(3,)),
    "discretized-logistic": images("levels", 4),
    "gaussian": images("dequantized", 4),
    "gaussian, reals": images("real"),
    "laplace": images("real", likelihood="laplace"),
    "ppca": linear,
    "functions": functions,
    "tutorial": tutorial,
    "AutoNormal": auto(AutoNormal),
    "AutoMultivariateNormal": auto(AutoMultivariateNormal),
    "AutoDelta": auto(AutoDelta),
}
# One latent site of independent normals in one plate
CODES = {name: BAYES[name] for name in ("mlp, bernoulli", "convolutional", "flow prior", "gaussian, reals", "tutorial")}
TOPICS = {
    "lda, dirichlet": topics(lda, guide="dirichlet"),
    "lda, logistic-normal": topics(lda, guide="logistic-normal"),
    "lda, map": topics(lda, guide="map"),
    "prodlda": topics(prodlda),
    "correlated topics": topics(correlated_topics),
}
EXACT = {"mixture": mixture, "classifier": classes, "char-rnn": windows}


def target_and_fit():
    """A target with a parameter, which ForwardKL must leave alone, and a fit with two."""

    def target():
        pyro.sample("z", dist.Normal(pyro.param("theta", torch.tensor(0.0)), 1.0))

    def fit():
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(1.0)), pyro.param("scale", torch.tensor(2.0))))

    return target, fit, ()


ROWS = [
    *((objective, program, make) for objective in BOUNDS for program, make in BAYES.items()),
    *((objective, "incomplete", incomplete) for objective in BOUNDS),
    *((objective, "pairs", pairs) for objective in (*BOUNDS, *DISENTANGLING)),
    *((objective, program, make) for objective in DISENTANGLING for program, make in CODES.items()),
    *((objective, "mixture", mixture) for objective in ("MaximumLikelihood", "ELBO", "ELBO of 3", "IWAE", "Renyi")),
    *((objective, "classifier", classes) for objective in ("MaximumLikelihood", "ELBO", "IWAE")),
    ("MaximumLikelihood", "wavenet", sounds),
    *((objective, program, make) for objective in ("ELBO", "ELBO of 3", "IWAE") for program, make in TOPICS.items()),
    *((objective, "dirichlet process mixture", sticks) for objective in ("ELBO", "ELBO of 3", "IWAE")),
    ("MaximumLikelihood", "char-rnn", windows),
    ("NaturalGradient", "lda, mean-field", topics(lda, guide="mean-field")),
    ("CollapsedVB", "lda, collapsed", topics(lda, guide="collapsed")),
    ("ForwardKL", "target and fit", target_and_fit),
    ("ReverseKL", "target and fit", target_and_fit),
]
table = pytest.mark.parametrize(("objective", "program", "make"), ROWS, ids=[f"{o}-{p}" for o, p, _ in ROWS])


@table
def test_objective_and_programs(objective, program, make):
    """Scalar, finite, gradients reach exactly the parameters that they should, and training moves them."""
    model, guide, args = make()
    learner = OBJECTIVES[objective]()
    pyro.set_rng_seed(1)
    training = train(learner, model, guide, [args] if args else None, lambda p: torch.optim.Adam(p, lr=0.01),
                     num_steps=3)  # fmt: skip
    steps = list(training)
    assert len(steps) == 3
    assert all(step.loss.shape == () and step.loss.isfinite() for step in steps)

    held = training.parameters
    loss = learner(model, guide, *args)
    assert loss.shape == ()
    gradients = torch.autograd.grad(loss, list(held.values()), allow_unused=True)
    reached = {name for name, g in zip(held, gradients, strict=True) if g is not None}
    unreached = {name for name in held if name not in reached}
    assert unreached == ({"param.theta"} if objective == "ForwardKL" else set())
    assert all(g.isfinite().all() for g in gradients if g is not None)

    expected = {id(p) for part in (model, guide) if isinstance(part, nn.Module) for p in part.parameters()}
    expected |= {id(store) for store in pyro.get_param_store()._params.values()}
    assert {id(p) for p in held.values()} >= expected


def test_training_moves_every_parameter():
    model, guide, args = functions()
    training = train(ELBO(), model, guide, [args], lambda p: torch.optim.Adam(p, lr=0.01))
    next(training)
    before = {name: p.detach().clone() for name, p in training.parameters.items()}
    next(training)
    assert {"param.noise", "param.loc", "param.encoder$$$weight", "param.encoder$$$bias"} == before.keys()
    assert not any(torch.equal(before[name], p) for name, p in training.parameters.items())


def test_a_vae_by_two_likelihoods_has_its_own_parameters():
    """Two models in one process: what one learned must not leak into the other through Pyro's global store."""
    (first, first_guide, args), (second, second_guide, _) = images("binary")(), images("binary")()
    before = copy.deepcopy(second.state_dict()), copy.deepcopy(second_guide.state_dict())
    with torch.no_grad():
        log_weights(first, first_guide, *args)
        log_weights(second, second_guide, *args)
    for module, state in zip((second, second_guide), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


# Plates: the data's loss is the sum of each datum's


def one_of_each(rows):
    """Make parameters of rows, and leave all but the first of each objective to the slow tests."""
    seen, parameters = set(), []
    for row in rows:
        marks = [pytest.mark.slow] if row[0] in seen else []
        parameters.append(pytest.param(*row, marks=marks, id="-".join(map(str, row[:2]))))
        seen.add(row[0])
    return parameters


@pytest.mark.parametrize("objective", [IWAE(4), Renyi(0.5, 4), Renyi(-1.0, 4), ELBO(4), MaximumLikelihood()], ids=repr)
def test_loss_of_data_is_the_sum_of_losses(objective):
    """With draws that are the same for every datum (a ``Delta`` guide), nothing is left to chance."""
    torch.set_default_dtype(torch.float64)

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            if not isinstance(objective, MaximumLikelihood):
                k = k + pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x.expand(len(x)) / 2, log_density=-1.0))

    x, guide = torch.randn(5), None if isinstance(objective, MaximumLikelihood) else guide
    parts = torch.stack([objective(model, guide, x[n : n + 1]) for n in range(5)])
    torch.testing.assert_close(objective(model, guide, x), parts.sum())


def test_mutant_one_weight_for_all_data():
    """The bound of a product of weights is not the sum of the data's bounds: the reason for one column a datum."""
    log_w = torch.tensor([[0.0, 1.0], [2.0, -1.0]])
    apart = (log_w.logsumexp(0) - math.log(2)).sum()
    together = log_w.sum(1).logsumexp(0) - math.log(2)
    assert not torch.isclose(apart, together)


def test_log_weights_belong_to_their_datum():
    model, guide, (x,) = linear()
    log_w = log_weights(model, guide, x, num_particles=3)
    torch.testing.assert_close(log_w, model.log_evidence(x).expand(3, 6), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("num_particles", [1, 3])
def test_log_weights_sum_inner_plates(num_particles):
    """Three data of four pixels in nested plates, dims -2 and -1: one weight a datum."""
    x = torch.randn(3, 4)

    def model(x):
        with pyro.plate("data", 3, dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("pixels", 4, dim=-1):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", 3, dim=-2):
            pyro.sample("z", dist.Delta(torch.tensor(0.5)))

    truth = dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.5)) + dist.Normal(0.5, 1.0).log_prob(x).sum(1)
    log_w = log_weights(model, guide, x, num_particles=num_particles)
    torch.testing.assert_close(log_w, truth.expand(num_particles, 3))


# Generation


@pytest.mark.parametrize("program", [name for name, make in BAYES.items() if "Auto" not in name][:10])
def test_generation_without_data(program):
    model, _, (x,) = BAYES[program]()
    drawn = simulate(model, size=3)
    assert drawn["x"].shape == (3, *x.shape[1:])
    assert model(size=3).shape == (3, *x.shape[1:])


def test_generation_of_mixtures_and_labels():
    model, _, _ = mixture()
    assert simulate(model, size=3)["x"].shape == (3, 2)
    model, _, (x, _) = classes()
    assert simulate(model, x)["y"].shape == (6,)
    assert simulate(model, x, torch.zeros(6))["y"].shape == (6,)
