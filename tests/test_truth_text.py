"""Held to the truth: models of text, against entropy rates, one pass over the whole, and one another."""

from contextlib import nullcontext
from functools import partial
from math import log, log2

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

from pyrogen.data import Streams, from_characters
from pyrogen.distributions import Autoregressive, Choice
from pyrogen.errors import CompileWarning, DataError, ProgramError, UsageError
from pyrogen.evaluation import bits_per_char, evaluating, surprises, text_distribution
from pyrogen.evaluation.text import Reader, learning
from pyrogen.inference import MaximumLikelihood, train
from pyrogen.language import figures, validation, write
from pyrogen.models import RecurrentModel, char_rnn, transformer
from pyrogen.nn import CharRNN, OneHotValues
from pyrogen.spec import DataSpec

FLIP = 0.1
RATE = -FLIP * log2(FLIP) - (1 - FLIP) * log2(1 - FLIP)
"""Bits per character of a chain of two states that changes with probability FLIP: 0.469."""


def spec_of(levels: int, length: int) -> DataSpec:
    return DataSpec((length,), "levels", levels=levels, symbols=tuple("abcdefghij"[:levels]))


def model_of(levels: int = 3, length: int = 10, **settings) -> RecurrentModel:
    return char_rnn(spec_of(levels, length), **{"hidden": 8, "layers": 2, **settings})[0]


def chain(length: int) -> str:
    flips = torch.rand(length, generator=torch.Generator().manual_seed(0)) < FLIP
    return "".join("ab"[state] for state in (flips.cumsum(0) % 2).tolist())


def uniform(levels: int, length: int) -> Tensor:
    return torch.randint(levels, (length,), generator=torch.Generator().manual_seed(1))


def fitted(text, batches, steps: int) -> RecurrentModel:
    pyro.set_rng_seed(0)
    model, _ = char_rnn(text.spec, hidden=8)
    adam = partial(torch.optim.Adam, lr=0.02)
    for _ in train(MaximumLikelihood(), model, None, batches, adam, num_steps=steps):
        pass
    return model


# Memory


@pytest.mark.parametrize("network", ["lstm", "gru"])
def test_windows_have_the_loss_of_the_whole(network, double):
    model = model_of(network=network)
    x = torch.randint(3, (2, 40)).double()
    whole = -model.distribution(2, length=40).log_prob(x).sum()
    loss, parts = MaximumLikelihood(), 0.0
    for i, window in enumerate(x.split(10, 1)):
        parts = parts + loss(model, None, x=window, begins=torch.full((2,), i == 0))
    torch.testing.assert_close(parts, whole, atol=1e-10, rtol=0)
    again = sum(loss(model, None, x=window, begins=torch.ones(2, dtype=torch.bool)) for window in x.split(10, 1))
    assert (again - whole).abs() > 1e-3  # the mutant, which forgets what it has read


def test_windows_of_a_text_follow_one_another(double):
    """The batches of an epoch are, stream by stream, the text itself."""
    text = from_characters(chain(400), length=10, validation=0.0, test=0.0)
    model, loss = model_of(2), MaximumLikelihood()
    batches = list(Streams(text.train, 4))
    parts = sum(loss(model, None, **{name: v.double() if name == "x" else v for name, v in b.items()}) for b in batches)
    streams = text.texts["train"].reshape(4, 100).double()
    torch.testing.assert_close(parts, -model.distribution(4, length=100).log_prob(streams).sum(), atol=1e-10, rtol=0)


def test_rows_begin_anew_where_the_batch_says_so(double):
    model = model_of()
    first, second = torch.randint(3, (2, 10)).double(), torch.randint(3, (2, 10)).double()
    model(first, begins=torch.tensor([True, True]))
    begins = torch.tensor([True, False])
    site = poutine.trace(model).get_trace(second, begins=begins).nodes["x"]
    both = model.distribution(2, length=20).log_probs(torch.cat([first, second], 1))[:, 10:].sum(1)
    alone = model.distribution(2).log_prob(second)
    torch.testing.assert_close(site["fn"].log_prob(site["value"]), torch.where(begins, alone, both))


def test_scoring_and_remembering_take_one_pass():
    model, calls = model_of(), []
    resume = model.network.resume
    model.network.resume = lambda *args: calls.append(1) or resume(*args)
    loss = MaximumLikelihood(max_plate_nesting=1)(model, None, x=torch.zeros(2, 10), begins=torch.tensor([True, True]))
    loss.backward()
    assert len(calls) == 1


def test_gradients_end_where_the_window_begins():
    model = model_of()
    model(torch.zeros(2, 10), begins=torch.tensor([True, True]))
    assert not model.hidden.requires_grad
    assert model.hidden.abs().sum() > 0


def test_evaluation_leaves_what_training_remembers():
    model = model_of()
    model(torch.zeros(2, 10), begins=torch.tensor([True, True]))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    surprises(model, uniform(3, 100), window=10, rate=0.1)
    with evaluating(model):
        model(torch.ones(2, 10), begins=torch.tensor([False, False]))
        model(torch.ones(3, 10), begins=torch.tensor([True, False, False]))
        model(torch.ones(2, 10))
    model(torch.ones(2, 10))
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("network", ["lstm", "gru"])
def test_captured_steps_carry_what_was_read(network):
    """As without a graph, within an epoch and over its end; LSTM cells run in a kernel of their own, and it says so."""
    text = from_characters(chain(600), length=10, validation=0.0, test=0.0)
    losses = []
    for compile in (False, "capture"):
        pyro.set_rng_seed(0)
        model = model_of(2, network=network)
        sgd = partial(torch.optim.SGD, lr=0.001)
        steps = train(MaximumLikelihood(), model, None, text.batches(20), sgd, num_steps=5, compile=compile)
        is_said = compile and network == "lstm" and torch.backends.mkldnn.is_available()
        with pytest.warns(CompileWarning, match="oneDNN's kernel") if is_said else nullcontext():
            losses.append(torch.stack([step.loss for step in steps]))
    torch.testing.assert_close(losses[0], losses[1])


def test_a_draw_goes_on_from_what_was_read(double):
    model = model_of(10)
    for parameter in model.parameters():
        parameter.data *= 4.0
    model.choice = Choice(top_k=1)
    x = torch.randint(10, (2, 10)).double()
    d = model.distribution(2, memory=model.network.begin(2))
    after = model.distribution(2, memory=d.after(x))
    drawn = after.sample()
    longer = model.distribution(2, length=20)
    given = longer.given(torch.cat([x, x], 1), torch.arange(20) < 10)
    torch.testing.assert_close(after.log_prob(drawn), given.log_prob(torch.cat([x, drawn], 1)))
    assert drawn.equal(given.sample()[:, 10:])  # the most probable ones
    assert not drawn.equal(model.distribution(2).sample())


def test_a_batch_has_a_memory_of_its_own(double):
    model = model_of()
    memory = model.network.begin(4)
    x = torch.randint(3, (4, 10)).double()
    memory = model.distribution(4, memory=memory).after(x)
    d = model.distribution(4, memory=memory)
    torch.testing.assert_close(d.expand((5, 4)).log_prob(x.expand(5, 4, 10)), d.log_prob(x).expand(5, 4))
    assert d.sample((3,)).shape == (3, 4, 10)
    with pytest.raises(ProgramError, match="memory of"):
        model.distribution(3, memory=memory)
    with pytest.raises(ProgramError, match="no memory to go on from"):
        model.distribution(4).after(x)


# Entropy rates


@pytest.mark.filterwarnings("ignore:not compiled")  # of LSTM cells there is no graph
def test_a_chain_of_two_states_costs_its_entropy_rate():
    """Of windows of five characters each; one that forgets pays one bit for the first of each."""
    text = from_characters(chain(60_000), length=5)
    model = fitted(text, text.batches(64), 374)
    estimate = figures(model, text, "test")["bits_per_char"]
    assert abs(estimate.value - RATE) < 3 * estimate.stderr + 0.01
    quick = validation(model, text, "validation")
    assert abs(quick.value + RATE * log(2)) < 3 * quick.stderr + 0.01

    forgetful = fitted(text, text.batches(64, only=["x"]), 374)
    with torch.no_grad():
        x = text.eval_columns("test")["x"]
        cost = -float(forgetful.distribution(len(x)).log_prob(x).sum()) / x.numel() / log(2)
    assert cost > (1 + 4 * RATE) / 5 - 0.02  # 0.575 bits, as far as this text is like the chain
    assert cost > estimate.value + 0.05


def learned_first(model: RecurrentModel, text: Tensor, window: int, rate: float) -> Tensor:
    """The mutant: each window is learned from before it is scored."""
    fn = text_distribution(model, text[None, :window].float())
    reader, found = Reader(fn.network, fn.element, 1, window), []
    with learning(fn.network, rate) as learn:
        for part in text[None].float().split(window, 1):
            memory = reader.memory
            learn(-reader(part).mean())
            reader.memory = memory
            found.append(reader(part).detach())
    return -torch.cat(found, 1)[0] / log(2)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_nothing_beats_the_entropy_of_what_cannot_be_foretold(rate):
    text, model = uniform(4, 3000), model_of(4, hidden=32, layers=1)
    honest = bits_per_char(surprises(model, text, window=10, rate=rate))
    assert honest.value > 2.0 - 3 * honest.stderr
    mutant = bits_per_char(learned_first(model, text, 10, 2.0))
    assert mutant.value < 2.0 - 3 * mutant.stderr - 0.05


def test_dynamic_evaluation_at_rate_zero_is_static():
    text, model = uniform(3, 203), model_of()
    static = surprises(model, text, window=10)
    assert static.shape == (203,)
    fn = text_distribution(model, text[None, :10].float())
    with torch.no_grad():
        whole = Autoregressive(fn.network, fn.element, (203,)).log_probs(text.float())
    torch.testing.assert_close(static, -whole.double() / log(2), atol=1e-5, rtol=1e-5)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    tiny = surprises(model, text, window=10, rate=1e-12)
    torch.testing.assert_close(tiny, static, atol=1e-5, rtol=1e-5)
    surprises(model, text, window=10, rate=0.5, decay=0.1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_dynamic_evaluation_learns_what_comes_again():
    text = torch.tensor([0, 0, 1, 2] * 200)
    model = model_of()
    static, dynamic = (surprises(model, text, window=20, rate=rate) for rate in (0.0, 0.5))
    # Nothing was learned before the first window.
    torch.testing.assert_close(static[:20], dynamic[:20], atol=1e-5, rtol=0)
    assert dynamic.mean() < static.mean() - 0.2
    pulled = surprises(model, text, window=20, rate=0.5, decay=0.9)
    assert dynamic.mean() < pulled.mean() < static.mean()


def test_dynamic_evaluation_measures_its_steps_by_what_was_learned(double):
    r"""Two windows by hand: :math:`m`, the step, and the pull, harder on what the text depends on."""
    text, learned, model = uniform(3, 15), uniform(3, 25), model_of(levels=3)
    rate, decay, window = 0.01, 0.9, 5
    fn = text_distribution(model, text[None, :window].double())
    with torch.no_grad():
        for p in fn.network.parameters():
            p.add_(0.3)  # some gradients are then large, and others small
    parameters = list(fn.network.parameters())
    before = [p.detach().clone() for p in parameters]

    def loss(reader: Reader, part: Tensor) -> Tensor:
        return -reader(part[None].double()).mean()

    model.eval()
    reader, squares = Reader(fn.network, fn.element, 1, window), [torch.zeros_like(p) for p in parameters]
    for part in learned.split(window):
        gradients = torch.autograd.grad(loss(reader, part), parameters)
        squares = [square + gradient**2 / 5 for square, gradient in zip(squares, gradients, strict=True)]
    roots = [square.sqrt() for square in squares]
    mean = torch.cat([root.flatten() for root in roots]).mean()
    pulls = [(decay * root / mean).clamp(max=1) for root in roots]
    assert 0.02 < torch.cat([pull.flatten() == 1 for pull in pulls]).double().mean() < 0.9
    reader, wanted = Reader(fn.network, fn.element, 1, window), []
    for part in text.split(window):
        nats = loss(reader, part)
        wanted.append(float(nats.detach()) * window / log(2))
        gradients = torch.autograd.grad(nats, parameters)
        with torch.no_grad():
            for p, old, gradient, root, pull in zip(parameters, before, gradients, roots, pulls, strict=True):
                p.copy_(p + pull * (old - p) - rate * gradient / (root + 1e-5))
    with torch.no_grad():
        for p, old in zip(parameters, before, strict=True):
            p.copy_(old)
    found = surprises(model, text, window=window, rate=rate, decay=decay, learned=learned)
    torch.testing.assert_close(found.reshape(3, window).sum(1), torch.tensor(wanted))


def test_parts_of_a_text_are_read_at_once():
    text, model = uniform(3, 100), model_of()
    parts = torch.cat([surprises(model, part, window=7) for part in text.split(25)])
    torch.testing.assert_close(surprises(model, text, window=7, streams=4), parts, atol=1e-6, rtol=1e-6)


def test_a_network_without_a_memory_reads_half_a_window_again(double):
    model, _ = transformer(spec_of(3, 8), width=8, layers=1, heads=2)
    text = uniform(3, 30).double()
    found = surprises(model, text, window=8)
    with torch.no_grad():
        for end in range(4, 30, 4):
            window = text[max(0, end - 4) : end + 4]
            bits = -model.distribution(1, length=len(window)).log_probs(window[None])[0] / log(2)
            torch.testing.assert_close(found[end : end + 4], bits[-len(text[end : end + 4]) :])


def test_a_setting_out_of_range_is_refused():
    with pytest.raises(UsageError, match="decay be in"):
        surprises(model_of(), uniform(3, 10), window=5, rate=-1.0)

    def coins(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", pyro.distributions.Bernoulli(0.5 * torch.ones(10)).to_event(1), obs=x)

    with pytest.raises(ProgramError, match="x: Independent"):
        surprises(coins, uniform(2, 10), window=10)


# Writing


def test_writing_goes_on_as_the_model_says():
    """Of a chain that it has learned by heart, characters after a prefix are those of the chain."""
    spec = spec_of(3, 10)
    model = RecurrentModel(CharRNN(OneHotValues(3), 3, hidden=3, layers=1), char_rnn(spec)[0].likelihood, spec)
    first = write(model, spec, number=2, length=7, prefix="abc")
    assert first.shape == (2, 10)
    assert first[:, :3].tolist() == [[0, 1, 2]] * 2
    pyro.set_rng_seed(0)
    x = write(model, spec, number=4000, length=2, prefix="ab")
    with torch.no_grad():
        third = model.distribution(1, length=3)
        p = torch.stack([third.log_probs(torch.tensor([[0.0, 1.0, c]]))[0, 2].exp() for c in (0.0, 1.0, 2.0)])
    counts = torch.bincount(x[:, 2].long(), minlength=3) / 4000
    assert (counts - p).abs().max() < 4 * (0.25 / 4000) ** 0.5
    with pytest.raises(DataError, match="the character 'z' at position 1"):
        write(model, spec, prefix="az")
    with pytest.raises(UsageError, match="at least 1"):
        write(model, spec, length=0)
