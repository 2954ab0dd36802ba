"""Held to the truth: what PixelRNN, PixelCNN++ and the transformer see, keep and compute, and mutants of each."""

from collections import Counter

import pytest
import torch
from test_truth_autoregressive import NETWORKS, assert_same, dependence, shape_of, sharpened, stepped
from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.models import pixel_rnn, pixelcnn_pp
from pyrogen.nn import CausalTransformer, DiagonalBiLSTM, EmbeddedValues, PixelCNNPlusPlus, RowLSTM, ScaledValues
from pyrogen.nn import image_lstm as lstms
from pyrogen.nn.causal import Causal, RowConv2d
from pyrogen.nn.image_lstm import DiagonalLSTM, lstm
from pyrogen.nn.resolution import CornerConv2d, DoubledPixels, due
from pyrogen.nn.transformer import rotated
from pyrogen.spec import DataSpec


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


SIZES = [(5, 6), (7, 7), (8, 8), (1, 3), (6, 1)]


def pyramid(size: tuple[int, int], halvings: int = 2, **settings: float) -> PixelCNNPlusPlus:
    return PixelCNNPlusPlus((1, *size), ScaledValues(3), 1, channels=4, layers=1, halvings=halvings, **settings)


def leaks(network: Causal, shape: tuple[int, ...]) -> bool:
    """Tell whether some element depends on itself or on a later one."""
    return bool(dependence(network, shape).triu().any())


def sees_all(network: Causal, shape: tuple[int, ...]) -> bool:
    seen = dependence(network, shape)
    return seen.equal(torch.ones_like(seen).tril(-1))


# PixelRNN


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("network", [RowLSTM, DiagonalBiLSTM])
def test_steps_of_lstms_on_images_of_any_sides(network, size):
    shape = (1, *size)
    made = network(shape, ScaledValues(3), 1, channels=4, layers=2)
    assert_same(made, torch.randint(0, 3, (2, *shape)).double(), None, 1e-10)
    assert not leaks(made, shape)


def triangle(network: RowLSTM) -> bool:
    """Tell whether the middle of the last row, of two layers after a window of three, sees what a Row LSTM sees.

    By d rows up, a layer's states reach d pixels to either side, and its window one more to the left; the first window
    reaches one pixel to the left, and in the row above also one to the right.
    """
    rows, columns, middle, layers = network.height, network.width, network.width // 2, len(network.layers)
    expected = torch.zeros(rows, columns, dtype=torch.bool)
    for d in range(rows):
        first, last = middle - d - layers - 1, middle + d if d else middle - 1
        expected[rows - 1 - d, max(0, first) : last + 1] = True
    place = (rows - 1) * columns + middle
    return dependence(network, (1, rows, columns))[place].reshape(rows, columns).equal(expected)


def test_a_row_lstm_sees_a_triangle():
    network = sharpened(RowLSTM((1, 5, 15), ScaledValues(2), 1, channels=8, layers=2, first_kernel=3))
    assert triangle(network)
    for layer in network.layers:
        layer.state_to_state.weight.data[..., [0, 2]] = 0.0
    assert not triangle(network)  # the mutant: states look straight up


def test_a_row_lstm_without_the_mask_leaks():
    network = RowLSTM((1, 4, 5), ScaledValues(2), 1, channels=4, layers=1, first_kernel=3)
    assert not leaks(network, (1, 4, 5))
    network.layers[0].input_to_state = RowConv2d(8, 16, 1, 3)
    assert leaks(network, (1, 4, 5))


def test_a_diagonal_lstm_is_its_recursion():
    layer = DiagonalLSTM(3)
    x = torch.randn(2, 6, 4, 5)
    gates = layer.input_to_state(x)
    nothing = torch.zeros(2, 3)
    h, c = {}, {}
    for i in range(4):
        for j in range(5):
            above, left = h.get((i - 1, j), nothing), h.get((i, j - 1), nothing)
            said = above @ layer.state_to_state.weight[0] + left @ layer.state_to_state.weight[1]
            before = gates[..., i, j] + said + layer.state_to_state.bias
            h[i, j], c[i, j] = lstm(before, c.get((i, j - 1), nothing))
    expected = torch.stack([torch.stack([h[i, j] for j in range(5)], -1) for i in range(4)], -2)
    torch.testing.assert_close(layer(x), expected)


def test_what_comes_from_the_right_must_speak_to_the_row_below(monkeypatch):
    network = DiagonalBiLSTM((1, 4, 5), ScaledValues(2), 1, channels=4, layers=1, first_kernel=3)
    assert not leaks(network, (1, 4, 5))
    monkeypatch.setattr(lstms, "shift_down", lambda x: x)
    assert leaks(network, (1, 4, 5))


def test_the_last_pixel_of_a_row_is_seen_thanks_to_the_column_after_it(monkeypatch):
    network = DiagonalBiLSTM((1, 4, 7), ScaledValues(2), 1, channels=8, layers=2, first_kernel=3)
    assert sees_all(network, (1, 4, 7))
    monkeypatch.setattr(DiagonalBiLSTM, "margin", 0)
    blind = ~dependence(network, (1, 4, 7)) & torch.ones(28, 28).tril(-1).bool()
    # Without it, only the first window reaches there, which is one pixel from the end of the row below.
    expected = torch.zeros(4, 7, 4, 7, dtype=torch.bool)
    for row in range(1, 4):
        expected[row, :5, row - 1, 6] = True
    assert blind.equal(expected.reshape(28, 28))


# PixelCNN++


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("halvings", [0, 1, 2, 3])
def test_steps_at_several_resolutions_on_images_of_any_sides(halvings, size):
    shape = (1, *size)
    network = pyramid(size, halvings)
    assert_same(network, torch.randint(0, 3, (2, *shape)).double(), None, 1e-10)
    assert not leaks(network, shape)


@pytest.mark.parametrize("size", [(5, 6), (7, 7)])
def test_no_pixel_is_out_of_sight_at_several_resolutions(size):
    assert sees_all(pyramid(size), (1, *size))


@pytest.mark.parametrize("layer", [CornerConv2d, RowConv2d])
def test_a_coarse_place_that_sees_all_of_its_finer_ones_leaks(layer, monkeypatch):
    network = pyramid((8, 8))
    assert not leaks(network, (1, 8, 8))
    whole = layer.forward

    def ahead(self: nn.Module, x: Tensor) -> Tensor:
        return whole(self, x.roll((-1, -1), (-2, -1)) if self.stride == 2 else x)

    monkeypatch.setattr(layer, "forward", ahead)
    assert leaks(network, (1, 8, 8))


def test_what_a_coarse_pixel_says_is_kept_for_its_four_pixels(monkeypatch):
    network = pyramid((7, 7))
    x = torch.randint(0, 3, (1, 1, 7, 7)).double()
    with torch.no_grad():
        whole = network(x).flatten(1, -2)
        assert stepped(network, x, None).allclose(whole)
        monkeypatch.setattr(DoubledPixels, "part", staticmethod(lambda block, row, column: block[:, :, 0, 0]))
        assert not stepped(network, x, None).allclose(whole, atol=1e-4)


def test_coarse_pixels_are_computed_once(monkeypatch):
    network = pyramid((8, 8))
    names = {layer: i for i, level in enumerate(network.before.levels) for layer in level.convolutions()}
    calls: Counter[int] = Counter()
    step = CornerConv2d.step

    def counted(layer: CornerConv2d, x: Tensor, taps: list[Tensor]) -> Tensor:
        calls[names[layer] + (layer.stride == 2)] += 1
        return step(layer, x, taps)

    monkeypatch.setattr(CornerConv2d, "step", counted)
    stepped(network, torch.zeros(1, 1, 8, 8), None)
    # Of two convolutions each: three layers at 64 places; three at 16 and two at 4, with one on the way there.
    assert calls == {0: 6 * 64, 1: 7 * 16, 2: 5 * 4}


def test_levels_that_have_a_place_are_those_whose_step_divides_it():
    for index, halvings in zip(range(64), [0, 1, 2, 3] * 16, strict=True):
        assert due(index, halvings) == sum(index % 2**level == 0 for level in range(halvings + 1))


# Dropout


DROPOUT = {
    "pixelcnn-pp": (lambda share: pyramid((4, 4), dropout=share), (1, 4, 4)),
    "transformer": (
        lambda share: CausalTransformer(EmbeddedValues(3, 4), 1, width=8, layers=2, heads=2, dropout=share), (16,)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DROPOUT)
def test_units_are_dropped_in_training_alone(name):
    make, shape = DROPOUT[name]
    x = torch.randint(0, 3, (2, *shape)).double()
    network = make(0.5)
    assert not network(x).allclose(network(x))
    network.eval()
    assert network(x).equal(network(x))
    assert_same(network, x, None, 1e-10)
    assert make(0.0)(x).isfinite().all()
    kept = make(0.0)
    assert kept(x).equal(kept(x))


# The transformer


def scores(positions: Tensor) -> Tensor:
    torch.manual_seed(1)
    q, k = torch.randn(2, 6, 8)
    return rotated(q, positions) @ rotated(k, positions).mT


def test_attention_depends_on_how_far_apart_elements_are():
    positions = torch.arange(6)
    torch.testing.assert_close(scores(positions), scores(positions + 1000))
    assert not scores(positions).allclose(scores(2 * positions), atol=1e-2)  # the mutant: it depends on content alone


def test_a_rotation_keeps_lengths_and_turns_by_its_angles():
    x = torch.randn(5, 8)
    torch.testing.assert_close(rotated(x, torch.arange(5)).norm(dim=-1), x.norm(dim=-1))
    pairs = torch.complex(*x.chunk(2, -1))
    angles = torch.arange(5)[:, None] * torch.tensor([1.0, 0.1, 0.01, 0.001])  # 10,000^(-2 i / 8)
    turned = pairs * torch.polar(torch.ones(5, 4), angles)
    torch.testing.assert_close(rotated(x, torch.arange(5)), torch.cat([turned.real, turned.imag], -1))


def test_positions_that_are_added_are_absolute(monkeypatch):
    monkeypatch.setitem(globals(), "rotated", lambda x, positions: x + positions[:, None] * torch.ones(8))
    assert not scores(torch.arange(6)).allclose(scores(torch.arange(6) + 1000))


def test_there_is_always_room_for_another_element():
    network = CausalTransformer(EmbeddedValues(3, 4), 2, width=8, layers=2, heads=2)
    network.capacity = 4
    assert_same(network, torch.randint(0, 3, (2, 30)).double(), None, 1e-10)


def test_keys_that_are_not_turned_by_their_own_positions_are_found_out(monkeypatch):
    network = CausalTransformer(EmbeddedValues(3, 4), 2, width=8, layers=2, heads=2)
    x = torch.randint(0, 3, (2, 12)).double()
    with torch.no_grad():
        assert stepped(network, x, None).allclose(network(x))
        core = network.core
        monkeypatch.setattr(network, "core", lambda h, position, past: core(h, position.clamp(max=5), past))
        assert not stepped(network, x, None).allclose(network(x), atol=1e-4)


def test_heads_divide_the_width_into_pairs():
    with pytest.raises(ValueError, match="multiple of twice the heads, found 6 for 2 heads"):
        CausalTransformer(EmbeddedValues(3, 4), 2, width=6, heads=2)


# By name


@pytest.mark.parametrize("network", ["row", "diagonal"])
def test_a_pixel_rnn_by_name(network):
    model, guide = pixel_rnn(DataSpec((1, 4, 5), "binary"), network=network, channels=4, layers=1)
    assert guide is None
    assert isinstance(model.network, RowLSTM if network == "row" else DiagonalBiLSTM)
    with pytest.raises(ValueError, match="without a context was called with one"):
        model.network(torch.zeros(1, 1, 4, 5), torch.zeros(1, 2))


def test_levels_are_logistic_mixtures_to_pixelcnn_pp():
    names = {kind: type(made(kind).likelihood).__name__ for kind in ("binary", "levels", "real")}
    assert names == {"binary": "Bernoulli", "levels": "LogisticMixturePixels", "real": "Gaussian"}


def made(kind: str, **settings: float):
    levels = {"binary": 2, "levels": 5, "real": None}[kind]
    spec = DataSpec((1, 5, 4), kind, levels=levels, num_classes=3)
    return pixelcnn_pp(spec, channels=4, layers=1, **settings)[0]


def test_pixelcnn_pp_knows_labels():
    model = made("levels", conditional=True)
    x = model(y=torch.tensor([0, 1, 2]))
    assert x.shape == (3, 1, 5, 4)
    assert model.covariates == ("y",)


@pytest.mark.parametrize("settings", [{"halvings": -1}, {"dropout": 1.0}])
def test_settings_of_pixelcnn_pp_out_of_range_are_refused(settings):
    with pytest.raises(UsageError, match="halvings must be at least 0 and dropout in"):
        made("levels", **settings)


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["row-lstm", "diagonal-bilstm", "pixelcnn-pp", "transformer"])
def test_compiled_steps_are_the_steps(name):
    shape = shape_of(name, 3, 3)
    network = NETWORKS[name](shape, 3, 2)
    x = torch.randint(0, 3, (2, *shape)).double()
    with torch.no_grad():
        expected = stepped(network, x, None)
        network.compile_steps()
        torch.testing.assert_close(stepped(network, x, None), expected, atol=1e-10, rtol=0)
