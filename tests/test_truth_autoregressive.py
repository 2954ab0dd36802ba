"""Held to the truth: autoregressive networks and distributions, against enumeration, Jacobians and one another."""

from collections.abc import Callable
from copy import deepcopy
from itertools import product

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from pyrogen.distributions import Autoregressive, Choice, sample_by_jacobi
from pyrogen.errors import ProgramError, UsageError
from pyrogen.nn import (
    FVSBN,
    MADE,
    NADE,
    CausalTransformer,
    CharRNN,
    DiagonalBiLSTM,
    EmbeddedValues,
    GatedPixelCNN,
    PixelCNN,
    PixelCNNPlusPlus,
    RowLSTM,
    ScaledValues,
    WaveNet,
)
from pyrogen.nn.causal import Causal, CausalConv1d

Make = Callable[[tuple[int, ...], int, int], Causal]
"""(shape of a datum, levels of a value, features of an element) -> a network."""

IMAGES: dict[str, Make] = {
    "fvsbn": lambda shape, levels, features: FVSBN(shape, ScaledValues(levels), features),
    "nade": lambda shape, levels, features: NADE(shape, ScaledValues(levels), features, hidden=8),
    "made": lambda shape, levels, features: MADE(shape, ScaledValues(levels), features, hidden=(160, 120)),
    "pixelcnn": lambda shape, levels, features: PixelCNN(
        shape, ScaledValues(levels), features, channels=32, layers=3, first_kernel=3
    ),
    "gated-pixelcnn": lambda shape, levels, features: GatedPixelCNN(
        shape, ScaledValues(levels), features, channels=8, layers=4, first_kernel=3
    ),
    "row-lstm": lambda shape, levels, features: RowLSTM(
        shape, ScaledValues(levels), features, channels=4, layers=2, first_kernel=3
    ),
    "diagonal-bilstm": lambda shape, levels, features: DiagonalBiLSTM(
        shape, ScaledValues(levels), features, channels=4, layers=1, first_kernel=3
    ),
    "pixelcnn-pp": lambda shape, levels, features: PixelCNNPlusPlus(
        shape, ScaledValues(levels), features, channels=4, layers=1
    ),
}

SEQUENCES: dict[str, Make] = {
    "wavenet": lambda shape, levels, features: WaveNet(
        EmbeddedValues(levels, 4), features, channels=8, layers=3, stacks=2
    ),
    "wavenet-3": lambda shape, levels, features: WaveNet(
        EmbeddedValues(levels, 4), features, channels=8, layers=2, kernel=3
    ),
    "lstm": lambda shape, levels, features: CharRNN(EmbeddedValues(levels, 4), features, hidden=8, layers=2),
    "gru": lambda shape, levels, features: CharRNN(EmbeddedValues(levels, 4), features, cell="gru", hidden=8, layers=2),
    "transformer": lambda shape, levels, features: CausalTransformer(
        ScaledValues(levels), features, width=8, layers=2, heads=2
    ),
}

NETWORKS = IMAGES | SEQUENCES


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def coin(features: Tensor) -> dist.Bernoulli:
    return dist.Bernoulli(logits=features[..., 0])


def die(features: Tensor) -> dist.Categorical:
    return dist.Categorical(logits=features)


def shape_of(name: str, *image: int) -> tuple[int, ...]:
    shape = (1, *image)
    return shape if name in IMAGES else (torch.Size(shape).numel(),)


def sharpened(network: Causal) -> Causal:
    """Make the weights of a fresh network large enough for its elements to depend on one another a good deal."""
    for parameter in network.parameters():
        parameter.data *= 2.0
    return network


def distribution(name: str, *image: int) -> Autoregressive:
    shape = shape_of(name, *image)
    return Autoregressive(sharpened(NETWORKS[name](shape, 2, 1)), coin, shape)


def every(d: Autoregressive) -> Tensor:
    """List all binary data."""
    return torch.tensor(list(product((0.0, 1.0), repeat=d.event_shape.numel()))).reshape(-1, *d.event_shape)


class Peeking(Causal):
    """The mutant: each element's features are those of the next, which has seen it."""

    def __init__(self, network: Causal) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        features = self.network(x, context)
        return features.flatten(1, -2).roll(-1, 1).reshape(features.shape)

    def start(self, batch: int, context: Tensor | None = None) -> object:
        return self.network.start(batch, context)

    def step(self, previous: Tensor | None, state: object) -> Tensor:
        return self.network.step(previous, state)


# A density


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_probabilities_of_all_images_add_up_to_one(name):
    d = distribution(name, 4, 4)
    with torch.no_grad():
        total = torch.cat([d.log_prob(x) for x in every(d).split(2**12)]).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("name", NETWORKS)
def test_those_of_a_network_that_peeks_do_not(name):
    d = distribution(name, 3, 3)
    d.network = Peeking(d.network)
    with torch.no_grad():
        assert abs(float(d.log_prob(every(d)).exp().sum()) - 1.0) > 0.01


@pytest.mark.parametrize("name", NETWORKS)
def test_an_element_does_not_see_itself_or_what_comes_after(name):
    d = distribution(name, 4, 5)
    seen = sees(d)
    assert not seen.triu().any()
    assert seen.tril(-1).any(1)[1:].all()


def sees(d: Autoregressive) -> Tensor:
    """Tell, by the Jacobian, whether element i (rows) depends on element j (columns)."""
    return dependence(d.network, d.event_shape)


def dependence(network: Causal, shape: tuple[int, ...]) -> Tensor:
    if isinstance(getattr(network, "encoder", None), EmbeddedValues):
        return by_flips(network, shape)
    x = torch.randint(0, 2, (1, *shape)).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x).flatten(), x)
    return jacobian.reshape(x.numel(), x.numel()) != 0


def by_flips(network: Causal, shape: tuple[int, ...]) -> Tensor:
    """The same, by flipping elements one at a time: whole numbers that are looked up have no gradient."""
    x = torch.randint(0, 2, (1, *shape)).double()
    size = x.numel()
    flips = (x + torch.eye(size).reshape(size, *shape)) % 2
    with torch.no_grad():
        moved = (network(flips) - network(x)).abs()
    return (moved > 1e-14).reshape(size, size).T  # the same sums in a batch of another size may be rounded otherwise


@pytest.mark.parametrize("name", [*(n for n in IMAGES if n not in ("pixelcnn", "row-lstm")), "transformer"])
def test_an_element_sees_all_that_come_before(name):
    assert sees(distribution(name, 4, 5)).equal(torch.ones(20, 20).tril(-1).bool())


def test_a_pixelcnn_has_a_blind_spot():
    network = PixelCNN((1, 7, 7), ScaledValues(2), 1, channels=64, layers=6, first_kernel=3)
    seen = dependence(network, (1, 7, 7))[6 * 7 + 3].reshape(7, 7)  # what the middle of the last row sees
    # Each layer reaches one row up and one column to the right: with every row, the reach to the right grows by one.
    expected = torch.tensor([[column - 3 <= 6 - row for column in range(7)] for row in range(7)])
    expected[6, 3:] = False
    assert seen.equal(expected)
    gated = GatedPixelCNN((1, 7, 7), ScaledValues(2), 1, channels=8, layers=6, first_kernel=3)
    assert dependence(gated, (1, 7, 7)).equal(torch.ones(49, 49).tril(-1).bool())


def test_wavenets_reach_is_its_receptive_field():
    network = WaveNet(EmbeddedValues(2, 4), 1, channels=8, layers=3, stacks=2)
    assert network.receptive_field == 1 + 1 + 2 * (1 + 2 + 4)
    seen = by_flips(network, (40,))
    distance = torch.arange(40)[:, None] - torch.arange(40)
    assert seen.equal((distance >= 1) & (distance <= network.receptive_field))


def test_a_convolution_pads_its_own_input():
    layer = CausalConv1d(2, 3, kernel=2, dilation=4)
    x = torch.randn(1, 2, 9)
    seen = layer.start(1)
    steps = []
    for i in range(9):
        steps.append(layer.step(x[..., i], layer.taps(seen)))
        seen.append(x[..., i])
    assert torch.stack(steps, -1).allclose(layer(x), atol=1e-12)


# Steps


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", NETWORKS)
def test_steps_give_the_features_of_the_whole_pass(name, dtype):
    shape = shape_of(name, 5, 6)
    network = NETWORKS[name](shape, 3, 2).to(dtype)
    x = torch.randint(0, 3, (4, *shape)).to(dtype)
    assert_same(network, x, None, 1e-10 if dtype == torch.float64 else 1e-5)


def assert_same(network: Causal, x: Tensor, context: Tensor | None, atol: float) -> None:
    with torch.no_grad():
        whole = network(x, context).flatten(1, -2)
        torch.testing.assert_close(stepped(network, x, context), whole, atol=atol, rtol=0)


def stepped(network: Causal, x: Tensor, context: Tensor | None) -> Tensor:
    state = network.start(len(x), context)
    elements = [None, *x.flatten(1).unbind(1)][:-1]
    return torch.stack([network.step(previous, state) for previous in elements], 1)


CONTEXTS = {
    "gated-pixelcnn, vector": (
        GatedPixelCNN((1, 5, 6), ScaledValues(3), 2, channels=8, layers=3, context=4), (1, 5, 6), (4,)
    ),
    "gated-pixelcnn, map": (
        GatedPixelCNN((1, 5, 6), ScaledValues(3), 2, channels=8, layers=3, context=4), (1, 5, 6), (4, 5, 6)
    ),
    "pixelcnn-pp, vector": (
        PixelCNNPlusPlus((1, 5, 6), ScaledValues(3), 2, channels=4, layers=1, context=4), (1, 5, 6), (4,)
    ),
    "pixelcnn-pp, map": (
        PixelCNNPlusPlus((1, 5, 6), ScaledValues(3), 2, channels=4, layers=1, context=4), (1, 5, 6), (4, 5, 6)
    ),
    "wavenet, global": (WaveNet(EmbeddedValues(3, 4), 2, channels=8, layers=3, context=4), (30,), (4,)),
    "wavenet, local": (WaveNet(EmbeddedValues(3, 4), 2, channels=8, layers=3, context=4), (30,), (4, 30)),
    "transformer, global": (
        CausalTransformer(EmbeddedValues(3, 4), 2, width=8, layers=2, heads=2, context=4), (30,), (4,)
    ),
    "transformer, local": (
        CausalTransformer(EmbeddedValues(3, 4), 2, width=8, layers=2, heads=2, context=4), (30,), (4, 30)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTEXTS)
def test_steps_give_the_features_of_the_whole_pass_with_a_context(name):
    network, shape, own = CONTEXTS[name]
    network = deepcopy(network).double()
    x, context = torch.randint(0, 3, (4, *shape)).double(), torch.randn(4, *own)
    assert_same(network, x, context, 1e-10)
    assert not network(x, context).allclose(network(x, context + 1.0))
    with pytest.raises(ValueError, match="with a context was called without one"):
        network(x)


def test_a_queue_that_is_too_short_is_found_out():
    network = WaveNet(EmbeddedValues(3, 4), 2, channels=8, layers=3)
    x = torch.randint(0, 3, (1, 20)).double()
    start = network.start

    def short(batch, context=None):
        state = start(batch, context)
        state.seen[-1].append(torch.zeros(batch, 8))
        state.seen[-1].popleft()
        state.seen[-1] = type(state.seen[-1])(list(state.seen[-1])[1:], 3)
        return state

    network.start = short
    with torch.no_grad():
        assert not stepped(network, x, None).allclose(network(x), atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_draws_fit_enumerated_probabilities(name):
    d = distribution(name, 2, 3)
    assert fits(d, d.sample((20_000,)))


@pytest.mark.parametrize("name", ["nade", "gated-pixelcnn"])
def test_draws_at_another_temperature_do_not(name):
    d = distribution(name, 2, 3)
    d.choice = Choice(temperature=0.8)
    assert not fits(d, d.sample((20_000,)))


def fits(d: Autoregressive, draws: Tensor, p: Tensor | None = None) -> bool:
    with torch.no_grad():
        p = d.log_prob(every(d)).exp() if p is None else p
    powers = 2 ** torch.arange(d.event_shape.numel()).flip(0)
    counts = torch.bincount((draws.flatten(1) * powers).sum(1).long(), minlength=len(p))
    assert counts[p == 0].sum() == 0
    expected = p / p.sum() * len(draws)
    rare = expected < 5  # too few for the approximation: taken together
    found, wanted = ([*x[~rare].tolist(), float(x[rare].sum())] for x in (counts, expected))
    return chisquare(found, wanted).pvalue > 1e-3 if wanted[-1] else chisquare(found[:-1], wanted[:-1]).pvalue > 1e-3


# All elements at once


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nade", "gated-pixelcnn", "wavenet"])
def test_a_fixed_point_is_a_draw(name):
    d = distribution(name, 2, 3)
    found = sample_by_jacobi(d, (5_000,))
    assert fits(d, found.values)
    assert found.passes <= 7


def test_a_fixed_point_is_what_drawing_one_by_one_gives():
    d = distribution("gated-pixelcnn", 5, 5)
    u = torch.rand(8, 1, 5, 5)
    x = torch.zeros(8, 25)
    with torch.no_grad():
        for i in range(25):
            p = d.element(d.features(x.reshape(u.shape))).probs
            x[:, i] = (p > 1 - u).double().flatten(1)[:, i]
    found = sample_by_jacobi(d, (8,), u)
    assert torch.equal(found.values.flatten(1), x)
    assert found.passes <= 26


def test_independent_elements_take_two_passes():
    network = FVSBN((1, 5, 5), ScaledValues(2), 1)
    network.weight.data.zero_()
    assert sample_by_jacobi(Autoregressive(network, coin, (1, 5, 5)), (8,)).passes == 2


# A distribution


def test_what_is_known_first_is_conditioned_on_exactly():
    d = distribution("gated-pixelcnn", 2, 3)
    values, known = torch.zeros(1, 2, 3), torch.zeros(1, 2, 3, dtype=torch.bool)
    values[0, 0, 1], known[0, 0] = 1.0, True
    given = d.given(values, known)
    with torch.no_grad():
        joint = d.log_prob(every(d)).exp()
        agrees = ((every(d) == values) | ~known).flatten(1).all(1)
        conditional = torch.where(agrees, joint, 0.0) / joint[agrees].sum()
        torch.testing.assert_close(given.log_prob(every(d)).exp(), conditional)
    assert given.is_exact
    assert fits(given, given.sample((20_000,)), conditional)


def test_what_is_known_later_is_only_held_fixed():
    d = distribution("gated-pixelcnn", 2, 3)
    values, known = torch.ones(1, 2, 3), torch.zeros(1, 2, 3, dtype=torch.bool)
    known[0, 1, 2] = True
    given = d.given(values, known)
    with torch.no_grad():
        joint = d.log_prob(every(d)).exp()
        agrees = every(d)[:, 0, 1, 2] == 1
        conditional = torch.where(agrees, joint, 0.0) / joint[agrees].sum()
        held = given.log_prob(every(d)).exp()
        assert float(held.sum()) == pytest.approx(1.0)
    draws = given.sample((20_000,))
    assert not given.is_exact
    assert not fits(given, draws, conditional)
    assert fits(given, draws, held)


def test_choices_keep_the_most_probable():
    log_p = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    kept = {
        "top_k": (Choice(top_k=2), [0.625, 0.375, 0.0, 0.0]),
        "top_p": (Choice(top_p=0.75), [0.625, 0.375, 0.0, 0.0]),
        "top_p, one": (Choice(top_p=0.4), [1.0, 0.0, 0.0, 0.0]),
        "all": (Choice(top_k=9, top_p=1.0), [0.5, 0.3, 0.15, 0.05]),
        "cold": (Choice(temperature=0.5), [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
    }
    for choice, p in kept.values():
        torch.testing.assert_close(choice.logits(log_p).softmax(-1), torch.tensor(p))


@pytest.mark.parametrize("choice", [Choice(temperature=0.0), Choice(top_k=0), Choice(top_p=0.0), Choice(top_p=1.1)])
def test_choices_out_of_range_are_refused(choice):
    with pytest.raises(UsageError, match="found"):
        Autoregressive(FVSBN((2,), ScaledValues(2), 1), coin, (2,), choice=choice)


def test_values_that_cannot_be_listed_have_no_temperature():
    network = FVSBN((2,), ScaledValues(None), 1)
    d = Autoregressive(network, lambda f: dist.Normal(f[..., 0], 1.0), (2,), choice=Choice(temperature=0.5))
    with pytest.raises(UsageError, match="Normal cannot"):
        d.sample()


def test_a_batch_has_a_context_of_its_own():
    network = GatedPixelCNN((1, 3, 3), ScaledValues(3), 3, channels=8, layers=2, context=2)
    context = torch.randn(4, 2)
    d = Autoregressive(network, die, (1, 3, 3), context, (4,))
    x = d.sample((5,))
    assert x.shape == (5, 4, 1, 3, 3)
    one = Autoregressive(network, die, (1, 3, 3), context[1])
    torch.testing.assert_close(d.log_prob(x)[:, 1], one.log_prob(x[:, 1]))
    torch.testing.assert_close(one.expand((4,)).log_prob(x[:, 1][:4]), one.log_prob(x[:4, 1]))
    with pytest.raises(ProgramError, match="first dimensions must be the batch's"):
        Autoregressive(network, die, (1, 3, 3), context, (3,))


def test_plates_masks_and_scales_are_pyros():
    d = distribution("nade", 2, 2)
    x = d.sample((6,))

    def model():
        with pyro.plate("data", 12, subsample_size=6), pyro.poutine.mask(mask=torch.arange(6) > 0):
            pyro.sample("x", d, obs=x)

    trace = pyro.poutine.trace(model).get_trace()
    torch.testing.assert_close(trace.log_prob_sum(), 2 * d.log_prob(x)[1:].sum())
