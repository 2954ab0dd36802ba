"""What a captured step must do like the step it was captured from, and what it must refuse.

Most tests run graphs operation by operation (``compile="capture"``): what can be wrong is in the graph. A few, and with
``make test-compiled`` every row of the conformance table, go through the compiler.
"""

import copy
import json
import random
import shutil
import warnings
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from pyro.infer.autoguide import AutoLowRankMultivariateNormal
from scipy import stats
from test_conformance import OBJECTIVES, ROWS, functions, one_of_each, tutorial
from test_train import Adversary, adversarial
from torch import nn
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeTensor

from pyrogen.cli import main
from pyrogen.errors import CompileWarning, NonFiniteError, ProgramError
from pyrogen.inference import ELBO, Annealing, Autocast, MaximumLikelihood, Objective, compile, lowering, train
from pyrogen.inference.player import Player
from pyrogen.inference.updates import Update
from pyrogen.inference.worth import pays
from pyrogen.runs import Run

BACKENDS = ["capture", pytest.param(True, marks=pytest.mark.compiled)]


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


def fitted(make, objective, how, optimizer=adam, num_steps=4, batches=None, **settings):
    """Fit programs from a fixed seed; return losses, parameters and the training."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model, guide, args = make()
    pyro.set_rng_seed(1)
    batches = batches or ([args] if args else None)
    training = train(objective(), model, guide, batches, optimizer, num_steps=num_steps, compile=how, **settings)
    losses = [float(step.loss) for step in training]
    return losses, {name: p.detach().clone() for name, p in training.parameters.items()}, training


def assert_same_fit(make, objective, how="capture", rtol=1e-4, **settings):
    expected, parameters, _ = fitted(make, objective, False, **settings)
    losses, found, training = fitted(make, objective, how, **settings)
    np.testing.assert_allclose(losses, expected, rtol=rtol)
    for name, value in parameters.items():
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=10 * rtol)
    assert all(graph is not None for turn in training._graphs.values() for graph in turn.graphs.known.values())
    return training


# The same losses, gradients and steps, whatever the program


GRAPHLESS = ("lda, map", "lda, mean-field", "lda, collapsed", "char-rnn")
"""Programs whose coordinate ascent looks at how much it still changes, and LSTM cells, which run in oneDNN's kernel:
there is no graph of either."""
CAPTURED = [row for row in ROWS if row[1] not in GRAPHLESS]


@pytest.mark.parametrize(("objective", "make"), [(o, m) for o, p, m in ROWS if p in GRAPHLESS and o != "IWAE"])
def test_programs_of_which_there_is_no_graph_run_without_one_and_say_so(objective, make):
    with pytest.warns(CompileWarning, match="not compiled"):
        losses, *_ = fitted(make, OBJECTIVES[objective], "capture", optimizer=partial(torch.optim.SGD, lr=1e-4))
    expected, *_ = fitted(make, OBJECTIVES[objective], False, optimizer=partial(torch.optim.SGD, lr=1e-4))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize("how", BACKENDS)
@pytest.mark.parametrize(("objective", "program", "make"), one_of_each(CAPTURED))
def test_conformance(objective, program, make, how):
    # Not by Adam: where a gradient is zero but for rounding, its steps are the rounding's sign.
    assert_same_fit(make, OBJECTIVES[objective], how, optimizer=partial(torch.optim.SGD, lr=1e-4, momentum=0.9))


@pytest.mark.parametrize("make", [functions, tutorial])
def test_a_users_own_programs_through_the_compiler(make):
    """Functions with ``pyro.param`` and ``pyro.module``, and bound methods, in the style of Pyro's documentation."""
    assert_same_fit(make, ELBO, True)


def scored():
    """Score-function gradients, a mask, a scale and a factor."""

    def model(x):
        k = pyro.sample("k", dist.Bernoulli(torch.tensor([0.3, 0.6])).to_event(1))
        pyro.factor("prior", -0.1 * k.sum(-1))
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=x > -1.0), pyro.poutine.scale(scale=2.0):
            pyro.sample("x", dist.Normal(k.sum(-1), 1.0), obs=x)

    def guide(x):
        pyro.sample("k", dist.Bernoulli(logits=pyro.param("logits", torch.zeros(2))).to_event(1))

    return model, guide, (torch.randn(6),)


def enumerating():
    """The guide enumerates: Pyro's Dice terms."""

    def model(x):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])), infer={"enumerate": "parallel"})
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(k.float(), 1.0), obs=x)

    def guide(x):
        logits = pyro.param("logits", torch.zeros(3))
        pyro.sample("k", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})

    return model, guide, (torch.randn(6),)


class Noisy(nn.Module):
    """Batch norm, whose buffers move, and dropout."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))

    def forward(self, x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(self.net(x)[:, 0], 1.0), obs=y)


def noisy():
    return Noisy(), None, (torch.randn(16, 3), torch.randn(16))


def many_sites():
    def model(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        s = pyro.sample("s", dist.Gamma(2.0, 2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.StudentT(4.0, w.sum(-1), s), obs=x)

    return model, AutoLowRankMultivariateNormal(model), (torch.randn(6),)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "objective"),
    [
        (scored, partial(ELBO, 3)),
        (scored, partial(ELBO, 3, vectorize_particles=False)),
        (many_sites, partial(ELBO, 3, vectorize_particles=False)),
    ],
)
def test_kinds_of_sites(make, objective):
    assert_same_fit(make, objective)


def single():
    """One Bernoulli without dimensions, whose divergence torch computes with an assignment by a mask."""

    def model(x):
        k = pyro.sample("k", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    def guide(x):
        pyro.sample("k", dist.Bernoulli(pyro.param("p", torch.tensor(0.5), constraint=dist.constraints.unit_interval)))

    return model, guide, (torch.tensor(0.8),)


def test_a_single_bernoulli():
    assert_same_fit(single, ELBO)


def test_enumeration_in_the_guide():
    assert_same_fit(enumerating, ELBO)


@pytest.mark.parametrize("how", ["capture", True])
def test_buffers_and_dropout(how):
    # By SGD: the bias before a batch norm has no gradient but rounding errors, which Adam would blow up.
    optimizer = partial(torch.optim.SGD, lr=0.01)
    training = assert_same_fit(noisy, MaximumLikelihood, how, optimizer=optimizer)
    expected = fitted(noisy, MaximumLikelihood, False, optimizer=optimizer)[2]
    for name, buffer in training.model.named_buffers():
        torch.testing.assert_close(buffer, dict(expected.model.named_buffers())[name])
    assert training.model.net[1].num_batches_tracked == 4


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "optimizer",
    [
        partial(torch.optim.Adam, lr=0.01),
        partial(torch.optim.Adam, lr=torch.tensor(0.01), betas=(0.8, 0.99), weight_decay=0.1, amsgrad=True),
        partial(torch.optim.Adam, lr=0.01, betas=(0.0, 0.9), fused=True),
        partial(torch.optim.AdamW, lr=0.01, weight_decay=0.3, maximize=True),
        partial(torch.optim.SGD, lr=1e-3),
        partial(torch.optim.SGD, lr=1e-3, momentum=0.9, weight_decay=0.1, nesterov=True),
        partial(torch.optim.SGD, lr=1e-3, momentum=0.9, dampening=0.5),
        partial(torch.optim.RMSprop, lr=0.01),
    ],
    ids=["adam", "amsgrad", "fused", "adamw", "sgd", "nesterov", "dampening", "rmsprop"],
)
def test_optimisers(optimizer):
    """Ten steps with clipping and an average, the same to rounding; the optimisers' states, too."""
    settings = {"num_steps": 10, "clip_norm": 3.0, "ema": 0.9, "rtol": 1e-7}
    training = assert_same_fit(functions, ELBO, optimizer=optimizer, **settings)
    del settings["rtol"]
    other = fitted(functions, ELBO, False, optimizer=optimizer, **settings)[2]
    mine, theirs = (t.programs.state_dict() for t in (training, other))
    for name, value in mine["average"].items():
        torch.testing.assert_close(value, theirs["average"][name])
    for i, state in theirs["optimizer"]["state"].items():
        for name, value in state.items():
            torch.testing.assert_close(mine["optimizer"]["state"][i][name], value, rtol=1e-6, atol=1e-9)


def test_mutant_adam_without_bias_correction(monkeypatch):
    monkeypatch.setattr("pyrogen.inference.updates._one_minus_power", lambda log_beta, steps: torch.ones_like(steps))
    with pytest.raises(AssertionError):
        assert_same_fit(functions, ELBO)


@pytest.mark.parametrize("simultaneous", [False, True])
def test_both_players_are_captured(simultaneous, monkeypatch):
    monkeypatch.setattr(Adversary, "after_step", lambda self, player: None)  # that of the class counts on the host
    results = []
    for how in (False, "capture"):
        pyro.set_rng_seed(3)
        objective, model, training = adversarial("spectral", False, simultaneous=simultaneous, num_steps=4, compile=how)
        steps = [(float(step.loss), float(step.critic_loss)) for step in training]
        results.append((steps, objective.state_dict(), model.state_dict()))
    (eager, critic, generator), (captured, its_critic, its_generator) = results
    np.testing.assert_allclose(captured, eager, rtol=1e-4)
    for mine, theirs in ((its_critic, critic), (its_generator, generator)):
        for name, value in theirs.items():
            torch.testing.assert_close(mine[name], value, rtol=1e-4, atol=1e-5)
    turns = [("critic", "programs")] if simultaneous else [("critic",), ("programs",)]
    assert list(training._graphs) == turns


# What changes from step to step is an input


def weighted(x, beta):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.factor("weight", beta * z)
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def its_guide(x, beta):
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 0.5))


def with_weights():
    return weighted, its_guide, ()


WEIGHTS = [(torch.randn(5, generator=torch.Generator().manual_seed(0)), 0.1 * i) for i in range(8)]
MOVING = {
    "a number among the arguments": (with_weights, ELBO, {"batches": WEIGHTS, "num_steps": 8}),
    "an annealed weight": (tutorial, lambda: ELBO(beta=Annealing(0.0, 1.0, 4)), {"num_steps": 6}),
    "data": (
        with_weights,
        ELBO,
        {"batches": [(torch.full((5,), float(i)), 0.5) for i in range(6)], "num_steps": 6},
    ),
    "subsamples": (functions, ELBO, {"num_steps": 8}),
    "a learning rate": (
        tutorial,
        ELBO,
        {"num_steps": 8, "scheduler": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 8)},
    ),
    "momentum and learning rate": (
        tutorial,
        ELBO,
        {"num_steps": 8, "scheduler": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=9)},
    ),
}


@pytest.mark.parametrize("name", MOVING)
def test_what_moves_is_not_frozen(name):
    make, objective, settings = MOVING[name]
    training = assert_same_fit(make, objective, rtol=1e-3, **settings)
    [turn] = training._graphs.values()
    assert len(turn.graphs.known) == 1, "captured once, for all values"


def freeze_inputs(monkeypatch):
    lower = lowering.lower

    def frozen(captured, example, *rest):
        run, first = lower(captured, example, *rest), [tensor.clone() for tensor in example]
        return lambda inputs: run(first)

    monkeypatch.setattr("pyrogen.inference.graphs.lower", frozen)


def freeze_annealing(monkeypatch):
    advance = Annealing.advance
    monkeypatch.setattr(Annealing, "advance", lambda self: None if active_fake_mode() else advance(self))


def freeze_subsamples(monkeypatch):
    drawn = torch.randperm
    frozen = lambda size, **kwargs: torch.arange(size) if active_fake_mode() else drawn(size, **kwargs)  # noqa: E731
    monkeypatch.setattr(torch, "randperm", frozen)


def freeze_numbers(monkeypatch):
    refresh = Update.refresh
    monkeypatch.setattr(Update, "refresh", lambda self: not self.seen[0] and refresh(self))


FROZEN = [freeze_inputs, freeze_annealing, freeze_inputs, freeze_subsamples, freeze_numbers, freeze_numbers]


@pytest.mark.parametrize(("name", "freeze"), list(zip(MOVING, FROZEN, strict=True)))
def test_mutants_in_which_it_is_frozen(name, freeze, monkeypatch):
    """Each quantity alone is frozen to what it was at the capture; the first step is right, or seen to be wrong."""
    make, objective, settings = MOVING[name]
    freeze(monkeypatch)
    with pytest.raises((AssertionError, CompileWarning)):
        assert_same_fit(make, objective, rtol=1e-3, **settings)


@pytest.mark.parametrize("factor", [2.0, float("nan")])
def test_a_graph_with_another_gradient_is_refused(factor, monkeypatch):
    """Losses may agree where gradients do not, as when a compiler has a bug: the norm is compared as well."""
    gradients = Player.gradients

    def wrong(self, loss):
        reached, found = gradients(self, loss)
        return reached, [factor * g if isinstance(g, FakeTensor) else g for g in found]

    monkeypatch.setattr(Player, "gradients", wrong)
    with pytest.warns(CompileWarning, match=r"loss or gradient is .* by the graph"):
        fitted(functions, ELBO, "capture")


def annealed(in_guide):
    """KL annealing as in Pyro's tutorials: the weight is an argument, and scales latents in the model and the guide."""

    def model(x, beta):
        with pyro.plate("data", len(x)):
            with pyro.poutine.scale(scale=beta):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x, beta):
        loc, scale = pyro.param("loc", torch.tensor(0.3)), pyro.param("scale", torch.tensor(0.5))
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=beta if in_guide else 1.0):
            pyro.sample("z", dist.Normal(loc * x, scale))

    return model, guide, (torch.linspace(-1.0, 2.0, 9), 0.1)


@pytest.mark.parametrize("in_guide", [True, False])
def test_a_weight_of_latents_is_an_argument(in_guide):
    """The same estimator as without a graph (closed form where weights are equal), and one graph for all weights."""
    batches = [(torch.linspace(-1.0, 2.0, 9), beta) for beta in (0.1, 0.2, 0.4, 0.8)]
    training = assert_same_fit(partial(annealed, in_guide), ELBO, batches=batches)
    [turn] = training._graphs.values()
    assert len(turn.graphs.known) == 1
    assert not turn.graphs.writes_numbers


@pytest.mark.slow
def test_weights_that_differ_have_their_place_in_the_divergence():
    """Tensors are not looked at: the estimate has the mean that it has with numbers, where it is sampled."""
    q = dist.Normal(torch.tensor(0.2), 0.7)

    def model(weight):
        with pyro.poutine.scale(scale=weight):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    def guide(weight):
        with pyro.poutine.scale(scale=weight / 2):
            pyro.sample("z", q)

    exact = 0.4 * torch.distributions.kl_divergence(q, dist.Normal(0.0, 1.0)) + 0.2 * q.entropy()
    for weight in (torch.tensor(0.4), 0.4):
        losses = torch.stack([ELBO()(model, guide, weight) for _ in range(2000)])
        assert abs(losses.mean() - exact) < 4.5 * losses.std() / 2000**0.5


def test_a_plain_number_around_the_program_is_seen_to_change():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(()))
            self.weight = 1.0

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(self.weight * self.loc + self.weight, 1.0), obs=x)

    model, x = Model(), torch.zeros(1)
    training = train(MaximumLikelihood(), model, None, [x], partial(torch.optim.SGD, lr=0.0), compile="capture")
    losses = []
    for weight in (1.0, 3.0, 1.0):
        model.weight = weight
        losses.append(float(next(training).loss))
    assert losses == pytest.approx([0.5 + 0.9189385, 4.5 + 0.9189385, 0.5 + 0.9189385])
    [turn] = training._graphs.values()
    assert len(turn.graphs.known) == 2


# Randomness


class Draw(Objective):
    """Returns what the guide draws, as a loss."""

    def forward(self, model, guide, *args, **kwargs):
        return guide()


def draws(how, seed, count):
    loc = nn.Parameter(torch.zeros(()))

    class Guide(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = loc

        def forward(self):
            return pyro.sample("z", dist.Normal(self.loc, 1.0))

    pyro.set_rng_seed(seed)
    training = train(Draw(), None, Guide(), None, partial(torch.optim.SGD, lr=0.0), num_steps=count, compile=how)
    return np.array([float(step.loss) for step in training])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["capture", True])
def test_ten_thousand_draws(how):
    """Never repeated, standard normal by a Kolmogorov-Smirnov test, uncorrelated, and the same again from the seed."""
    found = draws(how, 0, 10_000)
    assert len(np.unique(found)) > 9_990  # float32 has ties now and then
    assert stats.kstest(found, "norm").pvalue > 1e-4
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 4.5 / 100
    np.testing.assert_array_equal(draws(how, 0, 50), found[:50])
    np.testing.assert_allclose(draws(False, 0, 50), found[:50], rtol=1e-6)
    assert not np.isclose(draws(how, 1, 50), found[:50]).any()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["capture", True])
def test_resume_is_bit_exact(how):
    def start():
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        model, guide, _ = functions()
        generator = torch.Generator().manual_seed(2)
        batches = [torch.randn(size, generator=generator) for size in (7, 7, 5)]
        return train(ELBO(), model, guide, batches, adam, compile=how, ema=0.9,
                     scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9))  # fmt: skip

    training = start()
    for _ in range(4):
        next(training)
    state = copy.deepcopy(training.state_dict())
    rest = [float(next(training).loss) for _ in range(5)]
    end = training.state_dict()

    resumed = start()
    resumed.load_state_dict(state)
    assert [float(next(resumed).loss) for _ in range(5)] == rest
    for name, value in resumed.state_dict()["programs"].items():
        assert torch.equal(value, end["programs"][name])
    forgetful = start()
    forgetful.load_state_dict(state | {"rng": start().feed.start or pyro.util.get_rng_state()})
    assert [float(next(forgetful).loss) for _ in range(5)] != rest  # the mutant


@pytest.mark.compiled
def test_a_compiled_run_of_the_command_line_resumes_bit_for_bit(tmp_path):
    """Resumed from the last checkpoint but one: the same metrics and the same last state, byte for byte."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    words = ["--latent", "3", "--hidden", "[16]", "--steps", "30", "--evaluate-every", "10", "--log-every", "1"]
    assert main(["train", "vae", *words, "--warmup", "20", "--compile", "on", "--out", str(whole)]) == 0
    assert json.loads((whole / "manifest.json").read_text())["training"]["compile"] == "on"
    shutil.copytree(whole, stopped, symlinks=True)
    run = Run.open(stopped)
    with run.writing():
        checkpoint = run.restore(step=20)
        run.rewind(checkpoint)
        run.save(checkpoint.step, checkpoint.tree)
    assert main(["resume", str(stopped)]) == 0
    for name in ("metrics.jsonl", "checkpoint-00000030/state.safetensors"):
        assert (whole / name).read_bytes() == (stopped / name).read_bytes()


# Signatures


def test_each_shape_and_mode_has_its_own_graph_and_validation(recwarn):
    model, _, _ = noisy()
    sizes = [16, 16, 6, 16, 6]
    batches = [(torch.randn(n, 3), torch.randn(n)) for n in sizes]
    training = train(MaximumLikelihood(), model, None, batches, adam, compile="capture")
    for _ in sizes:
        next(training)
    [turn] = training._graphs.values()
    assert len(turn.graphs.known) == 2
    model.eval()
    before = model.net[1].running_mean.clone()
    next(training)
    assert len(turn.graphs.known) == 3
    assert torch.equal(model.net[1].running_mean, before)
    bad = (torch.randn(4, 3), torch.tensor([0.0, float("nan"), 0.0, 0.0]))
    training.feed.batches = [bad]
    training.feed.iterator = None
    with pytest.raises(NonFiniteError, match="'y'"):  # Pyro's validation names the site
        next(training)


def test_the_first_run_is_discarded():
    """Buffers count one batch a step, and the first step's noise is an eager first step's."""
    losses = []
    for how in (False, "capture"):
        pyro.set_rng_seed(0)
        model, _, args = noisy()
        pyro.set_rng_seed(4)
        training = train(MaximumLikelihood(), model, None, [args], adam, compile=how, num_steps=1)
        losses.append(float(next(training).loss))
        assert model.net[1].num_batches_tracked == 1
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.slow
def test_the_number_of_graphs_is_bounded():
    model, _, _ = noisy()
    batches = [(torch.randn(n, 3), torch.randn(n)) for n in range(2, 16)]
    training = train(MaximumLikelihood(), model, None, batches, adam, num_steps=14, compile="capture")
    with pytest.warns(CompileWarning, match="8 graphs already") as caught:
        steps = list(training)
    assert len(caught) == 1
    assert len(steps) == 14
    [turn] = training._graphs.values()
    assert sum(graph is not None for graph in turn.graphs.known.values()) == 8


# What cannot be captured


def reads(x):
    loc = pyro.param("loc", torch.tensor(0.5))
    if loc > 0:  # a read of a value
        loc = loc * 1.0
    pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def selects(x):
    loc = pyro.param("loc", torch.tensor(0.5))
    with pyro.plate("data", 2):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x[x > 0])


def by_python(x):
    pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.5)) + random.random(), 1.0), obs=x)


def by_numpy(x):
    pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.5)) + np.random.rand(), 1.0), obs=x)


REFUSED = {
    "a value is read": (reads, torch.tensor(0.3), rf"test_compile.py:{reads.__code__.co_firstlineno + 2}: .*is read"),
    "a shape depends": (selects, torch.tensor([1.0, -1.0, 2.0]), "shape depends on the values"),
    "Python": (by_python, torch.tensor(0.3), "random numbers by Python or NumPy"),
    "NumPy": (by_numpy, torch.tensor(0.3), "random numbers by Python or NumPy"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_programs_run_without_a_graph(name):
    """One warning, that says where and why, and the same fit as without a compiler."""
    model, x, message = REFUSED[name]
    make = lambda: (model, None, (x,))  # noqa: E731
    random.seed(0)
    expected = fitted(make, MaximumLikelihood, False)[0]
    random.seed(0)
    with pytest.warns(CompileWarning, match=message) as caught:
        losses, _, training = fitted(make, MaximumLikelihood, "capture")
    assert len([w for w in caught if w.category is CompileWarning]) == 1
    if name != "NumPy":
        assert losses == expected
    assert [graph for turn in training._graphs.values() for graph in turn.graphs.known.values()] == [None]


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        pyro.sample("x", dist.Normal(self.loc, 1.0), obs=x)


class Replaces(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * self.loc.detach()
        pyro.sample("x", dist.Normal(self.loc + self.mean, 1.0), obs=x)


@pytest.mark.parametrize(("kind", "name"), [(Counts, "calls"), (Replaces, "mean")])
def test_programs_that_change_the_host(kind, name):
    model = kind()
    training = train(MaximumLikelihood(), model, None, [torch.tensor(1.0)], adam, num_steps=3, compile="capture")
    with pytest.warns(CompileWarning, match=f"'{name}'"):
        list(training)
    assert isinstance(getattr(model, name), int) or type(model.mean) is torch.Tensor
    assert copy.deepcopy(model.state_dict())


def test_an_array_among_the_arguments():
    def model(x, y):
        pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), obs=x + float(y.sum()))

    with pytest.warns(CompileWarning, match="ndarray"):
        list(
            train(
                MaximumLikelihood(),
                model,
                None,
                [(torch.tensor(1.0), np.ones(2))],
                adam,
                num_steps=2,
                compile="capture",
            )
        )


SCALE = 1.0


class Reader(nn.Module):
    """Reads numbers from everywhere."""

    shift = 0.0

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(()))
        self._own, self.items, self.named, self.late = 0.0, [0.0], {"b": 0.0}, None

    def total(self):
        return SCALE + self.shift + self._own + self.items[0] + self.named["b"] + (self.late or 0.0)

    def forward(self, x):
        pyro.sample("x", dist.Normal(self.loc + self.total(), 1.0), obs=x)


CHANGES = {
    "a class's attribute": lambda model, patch: patch.setattr(Reader, "shift", 2.0),
    "a private attribute": lambda model, patch: setattr(model, "_own", 2.0),
    "an item of a list": lambda model, patch: model.items.__setitem__(0, 2.0),
    "an item of a dict": lambda model, patch: model.named.__setitem__("b", 2.0),
    "None": lambda model, patch: setattr(model, "late", 2.0),
    "an integer for a float": lambda model, patch: setattr(model, "_own", np.float32(2.0)),
    "a global": lambda model, patch: patch.setitem(globals(), "SCALE", 3.0),
    "a parameter": lambda model, patch: setattr(model, "loc", nn.Parameter(torch.tensor(2.0))),
}


@pytest.mark.parametrize("name", CHANGES)
def test_numbers_around_a_program_are_seen_wherever_they_are(name, monkeypatch):
    model = Reader()
    training = train(MaximumLikelihood(), model, None, [torch.tensor(0.0)], partial(torch.optim.SGD, lr=0.0),
                     compile="capture")  # fmt: skip
    assert float(next(training).loss) == pytest.approx(0.5 + 0.9189385)
    CHANGES[name](model, monkeypatch)
    assert float(next(training).loss) == pytest.approx(4.5 + 0.9189385)


def test_one_tensor_in_two_places_of_a_batch():
    def model(x, y):
        pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)) + y, 1.0), obs=2 * x + outside)

    x = outside = torch.tensor(1.0)
    batches = [(x, x), (x, x + 1), (x + 2, x)]
    assert_same_fit(lambda: (model, None, ()), MaximumLikelihood, batches=batches, num_steps=3)


def test_a_batch_that_is_what_the_program_changes():
    class Moves(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.tensor(3.0))
            self.register_buffer("seen", torch.tensor(1.0))

        def forward(self, x):
            self.seen.mul_(0.9)
            pyro.sample("x", dist.Normal(self.loc * self.seen, 1.0), obs=x + self.seen)

    losses = []
    for how in (False, "capture"):
        model = Moves()
        batches = [torch.tensor(2.0), model.seen, model.seen]
        losses.append([float(s.loss) for s in train(MaximumLikelihood(), model, None, batches, adam, num_steps=3,
                                                    compile=how)])  # fmt: skip
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def seeded(x):
    torch.manual_seed(7)
    pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), obs=x + torch.randn(()))


def branching(x, beta):
    scale = 1.0 if isinstance(beta, float) else 9.0
    pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)) + beta, scale), obs=x)


def test_setting_the_generator_is_refused():
    make = lambda: (seeded, None, (torch.tensor(0.0),))  # noqa: E731
    with pytest.warns(CompileWarning, match="sets the state"):
        assert fitted(make, MaximumLikelihood, "capture")[0] == fitted(make, MaximumLikelihood, False)[0]


def test_a_program_that_asks_for_a_float_gets_one():
    """The first loss by a graph with a tensor instead is not the eager one: the graph is made with the number."""
    batches = [(torch.tensor(0.0), 0.1 * i) for i in range(3)]
    assert_same_fit(lambda: (branching, None, ()), MaximumLikelihood, batches=batches, num_steps=3)


def test_freezing_a_parameter_between_steps():
    ends = []
    for how in (False, "capture"):
        pyro.set_rng_seed(0)
        model, _, args = noisy()
        training = train(MaximumLikelihood(), model, None, [args], partial(torch.optim.SGD, lr=0.01), compile=how)
        next(training)
        model.net[4].bias.requires_grad_(False)
        next(training)
        ends.append(model.net[4].bias.detach().clone())
    torch.testing.assert_close(ends[1], ends[0])


def test_an_optimisers_state_that_was_loaded():
    ends = []
    for how in (False, "capture"):
        pyro.set_rng_seed(0)
        model, guide, (x,) = tutorial()
        optimizer = adam([*model.__self__.parameters()])
        training = train(ELBO(), model, guide, [x], optimizer, compile=how)
        next(training)
        state = copy.deepcopy(optimizer.state_dict())
        next(training)
        optimizer.load_state_dict(state)
        next(training)
        ends.append(float(optimizer.state_dict()["state"][0]["step"]))
    assert ends == [2.0, 2.0]


def test_nothing_without_values_stays_in_objects():
    log = []

    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(()))
            self.box = {}

        def forward(self, x):
            log.append(self.loc * 2)
            self.box["last"] = self.last = self.loc * 3
            pyro.sample("x", dist.Normal(self.loc, 1.0), obs=x)

    model = Keeps()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        list(train(MaximumLikelihood(), model, None, [torch.tensor(1.0)], adam, num_steps=2, compile="capture"))
    assert not any(isinstance(value, FakeTensor) for value in (*log, *model.box.values(), model.last))


def flows():
    flow = pyro.distributions.transforms.affine_coupling(2, hidden_dims=[4])

    def model(x):
        pyro.module("flow", flow)
        flow.clear_cache()  # as Pyro's documentation of flows has it
        base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.TransformedDistribution(base, [flow]), obs=x)

    return model, None, (torch.randn(5, 2),)


def test_pyros_own_flows_are_captured():
    """Their transforms keep the last result in an attribute, which is no state."""
    assert_same_fit(flows, MaximumLikelihood)


# Steps that are not finite


@pytest.mark.parametrize("how", ["capture", True])
def test_a_step_that_is_not_finite_changes_nothing(how):
    """Not the parameters, the buffers, the optimiser's state or the average; the error says where."""
    model, _, (x, y) = noisy()
    batches = [(x, y)] * 3 + [(x * float("inf"), y)]
    training = train(MaximumLikelihood(), model, None, batches, adam, compile=how, ema=0.9, validate=False)
    for _ in range(3):
        next(training)
    before = copy.deepcopy([model.state_dict(), training.programs.state_dict()])
    with pytest.raises(NonFiniteError, match=r"step 4.*(?s:.)*net.0.weight"), pyro.validation_enabled(False):
        next(training)
    for mine, theirs in zip(tensors_of([model.state_dict(), training.programs.state_dict()]), tensors_of(before),
                            strict=True):  # fmt: skip
        assert torch.equal(mine, theirs)


def test_mutant_without_the_guard(monkeypatch):
    monkeypatch.setattr("pyrogen.inference.lowering._finish", lambda *args: None)
    with pytest.raises(AssertionError):
        test_a_step_that_is_not_finite_changes_nothing("capture")


def tensors_of(tree):
    if isinstance(tree, torch.Tensor):
        return [tree]
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
    return [tensor for item in inner for tensor in tensors_of(item)]


# Long loops


def chain(length=40, buffer=False):
    """A state space model in a Python loop, with a recurrent guide."""

    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.step, self.out = nn.Linear(2, 2), nn.Linear(2, 3)
            self.rnn = nn.GRU(3, 4, batch_first=True)
            self.guided = nn.Linear(6, 4)
            self.start = nn.Parameter(torch.zeros(2))

        def model(self, x):
            pyro.module("chain", self)
            z = self.start.expand(len(x), 2)
            with pyro.plate("data", len(x)):
                for t in range(x.shape[1]):
                    z = pyro.sample(f"z_{t}", dist.Normal(self.step(z), 1.0).to_event(1))
                    pyro.sample(f"x_{t}", dist.Normal(self.out(z), 1.0).to_event(1), obs=x[:, t])

        def guide(self, x):
            pyro.module("chain", self)
            h = self.rnn(x)[0]
            z = torch.zeros(len(x), 2)
            with pyro.plate("data", len(x)):
                for t in range(x.shape[1]):
                    loc, scale = self.guided(torch.cat([z, h[:, t]], -1)).chunk(2, -1)
                    z = pyro.sample(f"z_{t}", dist.Normal(loc, scale.exp()).to_event(1))

    both = Chain()
    return both.model, both.guide, (torch.randn(5, length, 3),)


@pytest.fixture
def uncompiled_parts(monkeypatch):
    """Cut graphs as for the compiler, and run the parts operation by operation."""
    lowered = lowering._lowered
    found = {}

    def noted(module, flag):
        made, calls = parts(module, flag)
        found.update(parts=len(made), calls=len(calls), operations=sum(len(p.module.graph.nodes) for p in made))
        found["whole"] = len(module.graph.nodes)
        return made, calls

    parts = lowering.parts
    monkeypatch.setattr(lowering, "parts", noted)
    monkeypatch.setattr(
        lowering, "_lowered", lambda module, c, fakes, static, compiled: lowered(module, c, fakes, static, False)
    )
    return found


@pytest.mark.slow
def test_a_loop_is_rolled_up(uncompiled_parts):
    """The same losses and gradients from parts, whose operations are a fraction of the whole's."""
    assert_same_fit(chain, partial(ELBO, analytic_kl=False), True)
    assert uncompiled_parts["calls"] > 2 * uncompiled_parts["parts"]
    assert uncompiled_parts["operations"] < uncompiled_parts["whole"] / 2


@pytest.mark.slow
def test_twice_the_length_is_not_twice_the_work_for_the_compiler(uncompiled_parts):
    sizes = []
    for length in (60, 120):
        fitted(partial(chain, length), partial(ELBO, analytic_kl=False), True, num_steps=1)
        sizes.append(uncompiled_parts["operations"])
    assert sizes[1] < 1.5 * sizes[0]


@pytest.mark.slow
def test_a_long_loop_over_a_transposed_batch(uncompiled_parts):
    """Parts are compiled for contiguous values, and what is not contiguous is made so."""

    def model(x):
        z = x
        for _ in range(300):
            z = torch.tanh(z * pyro.param("a", torch.tensor(0.9)) + 0.1) * 1.5
        with pyro.plate("data", 4):
            pyro.sample("z", dist.Normal(z, 1.0).to_event(1), obs=torch.ones(4, 3))

    optimizer = partial(torch.optim.SGD, lr=1e-3)
    assert_same_fit(lambda: (model, None, (torch.randn(3, 4).t(),)), MaximumLikelihood, True, optimizer=optimizer)
    assert uncompiled_parts["calls"] > uncompiled_parts["parts"]


def attending():
    """Attention written out, which Inductor knows by its form."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.keys, self.values = nn.Linear(4, 8), nn.Linear(4, 8)

        def forward(self, x):
            weights = torch.softmax(self.keys(x) @ self.keys(x).transpose(-1, -2) / 8**0.5, -1)
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal((weights @ self.values(x)).mean((-1, -2)), 1.0), obs=x.sum((-1, -2)))

    return Attention(), None, (torch.randn(6, 5, 4),)


@pytest.mark.compiled
def test_attention_through_the_compiler():
    assert_same_fit(attending, MaximumLikelihood, True)


@pytest.mark.compiled
def test_a_long_loop_through_the_compiler():
    assert_same_fit(partial(chain, 60), partial(ELBO, analytic_kl=False), True)


# Objectives for other loops


@pytest.mark.parametrize("how", ["capture", True])
def test_a_compiled_objective_hands_out_gradients(how):
    model, guide, (x,) = functions()
    ELBO()(model, guide, x)
    compiled = compile(ELBO(), model, guide, compile=how)
    pyro.set_rng_seed(1)
    parameters = [*pyro.get_param_store()._params.values()]
    expected = torch.autograd.grad(2 * ELBO()(model, guide, x), parameters)
    pyro.set_rng_seed(1)
    (2 * compiled(model, guide, x)).backward()
    for p, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(p.grad, value, rtol=1e-4, atol=1e-5)


def test_a_compiled_objective_with_a_draw_that_nothing_uses():
    """It is drawn all the same, and is nobody's gradient."""

    def model(x):
        pyro.sample("unused", dist.Normal(0.0, 1.0).mask(False))
        torch.randn(2)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), obs=x)

    def guide(x):
        pyro.sample("unused", dist.Normal(0.0, 1.0).mask(False))

    x = torch.tensor([1.0, 2.0])
    compile(ELBO(), model, guide, compile="capture")(model, guide, x).backward()
    assert float(pyro.param("loc").grad) == pytest.approx(-3.0)


def test_a_compiled_objective_is_a_loss_of_pyros_svi():
    losses = []
    for make in (lambda model, guide: ELBO(), lambda model, guide: compile(ELBO(), model, guide, compile="capture")):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        model, guide, (x,) = tutorial()
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=make(model, guide))
        pyro.set_rng_seed(1)
        losses.append([svi.step(x) for _ in range(5)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_a_compiled_objective_refuses_other_programs():
    model, guide, (x,) = tutorial()
    other, _, _ = tutorial()
    with pytest.raises(ProgramError, match="compiled for"):
        compile(ELBO(), model, guide, compile="capture")(other, guide, x)
    with pytest.raises(ProgramError, match="only together with an optimizer"):
        compile(ELBO(), model, guide, clip_norm=1.0)


def test_a_compiled_step_takes_batches_of_any_form():
    step = compile(ELBO(), weighted, its_guide, adam, compile="capture")
    losses = [float(step(torch.randn(n), beta=0.1 * i)) for i, n in enumerate((5, 5, 3))]
    assert np.isfinite(losses).all()
    assert step.training.index == 3


def test_gradients_for_several_processes():
    """The mean of two halves' gradients is the gradient of the whole, as data parallelism needs it."""
    model, _, (x, y) = noisy()
    model.eval()
    compiled = compile(MaximumLikelihood(), model, None, compile="capture")
    halves = []
    for part in (slice(0, 8), slice(8, 16)):
        model.zero_grad()
        compiled(model, None, x[part], y[part]).backward()
        halves.append([p.grad.clone() for p in model.parameters()])
    model.zero_grad()
    MaximumLikelihood()(model, None, x, y).backward()
    for p, one, two in zip(model.parameters(), *halves, strict=True):
        torch.testing.assert_close(one + two, p.grad, rtol=1e-4, atol=1e-5)


# Low precision and the estimate


def test_autocast_keeps_densities_in_float32():
    """Close to float32, not equal to it, and the log-probabilities are not rounded to three digits."""
    model, guide, (x,) = tutorial()
    pyro.set_rng_seed(0)
    exact = ELBO()(model, guide, x)
    pyro.set_rng_seed(0)
    rounded = Autocast(ELBO())(model, guide, x)
    assert rounded.dtype == torch.float32
    assert rounded != exact
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.0)
    assert rounded.bfloat16().float() != rounded
    assert_same_fit(tutorial, lambda: Autocast(ELBO()), rtol=1e-3)


def test_the_estimate_grows_with_the_run():
    assert not pays(100, 0.01, 300)
    assert pays(1_000_000, 0.01, 300)
    assert pays(1_000, 10.0, 300) == pays(1_000, 1.0, 300)  # no more is saved than the host's part


def test_no_warning_where_all_is_captured():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(tutorial, ELBO, "capture")
