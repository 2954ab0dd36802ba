"""Autoregressive distributions and programs: what they take, what they refuse, and how they say it."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyrogen.cli import main
from pyrogen.distributions import Autoregressive, Choice, sample_by_jacobi
from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation import complete, evaluating
from pyrogen.models import char_rnn, gated_pixelcnn
from pyrogen.nn import FVSBN, NADE, GatedPixelCNN, PixelCNNPlusPlus, ScaledValues
from pyrogen.spec import DataSpec


def coin(features):
    return dist.Bernoulli(logits=features[..., 0])


def small(context=0):
    return GatedPixelCNN((1, 3, 3), ScaledValues(2), 1, channels=4, layers=2, context=context)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Autoregressive(small(), coin, (1, 2, 3)), r"models data of shape \(1, 3, 3\), found event_shape"),
        (lambda: Autoregressive(FVSBN((4,), ScaledValues(2), 1), coin, (2, 2)), r"models data of shape \(4,\)"),
        (lambda: Autoregressive(nn.Linear(2, 2), coin, (2,)), "Linear is no pyrogen.nn.Causal"),
        (lambda: Autoregressive(small(), coin, (1, 3, 3)).log_prob(torch.zeros(5, 3, 3)), "those of a datum"),
        (
            lambda: Autoregressive(small(), lambda f: dist.Bernoulli(logits=f), (1, 3, 3)).log_prob(
                torch.zeros(1, 3, 3)
            ),
            "found batch shape",
        ),
        (lambda: Autoregressive(small(), lambda f: f[..., 0], (1, 3, 3)).sample(), "found Tensor"),
    ],
    ids=["images", "vectors", "network", "value", "element", "no distribution"],
)
def test_what_does_not_fit_is_refused(make, says):
    with pytest.raises(ProgramError, match=says):
        make()


def test_what_elements_depend_on_besides_is_the_networks_context():
    """A latent variable in the element's closure is refused as soon as there are several of them."""

    def model():
        with pyro.plate("data", 4):
            z = pyro.sample("z", dist.Normal(torch.zeros(9), 1.0).to_event(1))
            element = lambda f: dist.Bernoulli(logits=f[..., 0] + z.reshape(-1, 1, 3, 3))  # noqa: E731
            return pyro.sample("x", Autoregressive(small(), element, (1, 3, 3)))

    with pytest.raises(ProgramError, match="is the network's context"):
        model()


def test_a_context_says_how_many_data_there_are():
    d = Autoregressive(small(2), coin, (1, 3, 3), torch.randn(5, 2))
    assert d.batch_shape == (5,)
    assert d.sample().shape == (5, 1, 3, 3)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_whole_numbers_are_data(dtype):
    d = Autoregressive(small(), coin, (1, 3, 3))
    x = torch.randint(2, (6, 1, 3, 3))
    torch.testing.assert_close(d.log_prob(x.to(dtype)), d.log_prob(x.float()))


def test_a_double_network_draws_doubles():
    d = Autoregressive(NADE((4,), ScaledValues(3), 3, hidden=4).double(), lambda f: dist.Categorical(logits=f), (4,))
    assert d.sample((2,)).dtype == torch.float64
    assert sample_by_jacobi(d, (2,)).values.dtype == torch.float64


def test_a_network_that_is_no_function_has_no_fixed_point():
    network = PixelCNNPlusPlus((1, 4, 4), ScaledValues(2), 1, channels=8, layers=1, halvings=0, dropout=0.5)
    with pytest.raises(ProgramError, match="Put it into eval mode"):
        sample_by_jacobi(Autoregressive(network, coin, (1, 4, 4)), (20,))


def test_the_last_bit_of_noise_draws_no_impossible_value():
    logits = torch.tensor([0.0] * 5 + [-torch.inf])
    d = Autoregressive(FVSBN((50,), ScaledValues(6), 6), lambda f: dist.Categorical(logits=logits + 0 * f), (50,))
    u = torch.full((50,), 1 - 2.0**-24)
    assert sample_by_jacobi(d, u=u).values.max() == 4
    top = d.by(Choice(top_k=2))
    assert len(sample_by_jacobi(top, (20,)).values.unique()) == 2


def test_the_most_probable_is_one():
    assert Choice(top_k=1).logits(torch.zeros(5)).isfinite().sum() == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"missing": torch.ones(2, 1, 3, 3)}, "missing must be bool"),
        ({"missing": torch.ones(4, 4, dtype=torch.bool)}, "expected that of the data"),
        ({"x": torch.zeros(3, 1, 3, 3)}, "expected that of the distribution's batch"),
        ({"sweeps": -1}, "sweeps must be at least 0"),
        ({"num_particles": 0}, "num_particles 1"),
    ],
)
def test_completion_refuses_what_does_not_fit(words, says):
    d = Autoregressive(small(), coin, (1, 3, 3)).expand((2,))
    given = {"x": torch.zeros(2, 1, 3, 3), "missing": torch.ones(3, 3, dtype=torch.bool)} | words
    with pytest.raises(UsageError, match=says):
        complete(d, **given)


def test_completion_is_by_the_models_own_choice():
    d = Autoregressive(small(), coin, (1, 3, 3)).expand((500,)).by(Choice(top_k=1))
    missing = torch.zeros(3, 3, dtype=torch.bool)
    missing[2, 2] = True
    assert complete(d, torch.zeros(500, 1, 3, 3), missing)[:, 0, 2, 2].unique().numel() == 2


def test_data_that_are_modelled_given_labels_need_them():
    model, _ = gated_pixelcnn(DataSpec((1, 3, 3), "binary", num_classes=3), channels=4, layers=1, conditional=True)
    with pytest.raises(ProgramError, match="pass y, one for each datum"):
        model(torch.zeros(2, 1, 3, 3))
    assert model(size=2).shape == (2, 1, 3, 3)


def test_evaluation_does_not_go_on_from_what_training_read():
    model, _ = char_rnn(DataSpec((5,), "levels", levels=3, symbols=("a", "b", "c")), hidden=4)
    x = torch.randint(3, (6, 5)).float()
    model(x, begins=torch.ones(6, dtype=torch.bool))
    with evaluating(model):
        scores = [
            pyro.poutine.trace(model).get_trace(x, begins=begins).log_prob_sum()
            for begins in (torch.ones(6, dtype=torch.bool), torch.zeros(6, dtype=torch.bool))
        ]
    torch.testing.assert_close(*scores)


@pytest.mark.parametrize("model", ["fvsbn", "nade --hidden 8", "made --hidden [8]"])
def test_data_of_few_elements_are_drawn(model, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 2, (100, 3)).astype(np.uint8))
    out = tmp_path / "run"
    assert main(f"train {model} --data {tmp_path / 'x.npy'} --steps 3 --compile off --out {out}".split()) == 0
    assert main(["sample", str(out), "-n", "3"]) == 0
