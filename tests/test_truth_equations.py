"""Held to the truth: layers against their equations, and draws against what is defined, written out in loops.

Elsewhere, steps are tested to give what the whole pass gives: a formula that is wrong in both goes through. Each
reference here can be given a flaw by name, and is then not what the code gives: code of that flaw would be found out.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from math import erf, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from test_truth_autoregressive import coin, die, every, sharpened, stepped
from torch import Tensor, nn

from pyrogen.data import audio, encode_wav, from_mu_law, from_wavs, to_mu_law
from pyrogen.distributions import (
    Autoregressive,
    Choice,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    sample_by_jacobi,
)
from pyrogen.distributions.jacobi import _inverse
from pyrogen.evaluation import complete, surprises, text_distribution
from pyrogen.evaluation import text as reading
from pyrogen.evaluation.text import Reader, learning
from pyrogen.models import char_rnn, transformer
from pyrogen.nn import (
    FVSBN,
    MADE,
    NADE,
    CausalTransformer,
    CharRNN,
    EmbeddedValues,
    GatedPixelCNN,
    OneHotValues,
    PixelCNN,
    PixelCNNPlusPlus,
    ScaledValues,
    WaveNet,
)
from pyrogen.nn import gated_pixelcnn as gated_networks
from pyrogen.nn import wavenet as wavenets
from pyrogen.nn.causal import Causal, CausalConv1d, RowConv2d, gated
from pyrogen.nn.image_lstm import DiagonalLayer, DiagonalLSTM, RowLayer
from pyrogen.nn.resolution import CornerConv2d
from pyrogen.nn.stream import GatedResidual, Stream
from pyrogen.nn.transformer import TransformerLayer
from pyrogen.spec import DataSpec


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def flaws(*names: str):
    """Run a test without a flaw, and with each of these."""
    return pytest.mark.parametrize("flaw", ["", *names])


def same(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=0, atol=1e-10)


def gives(network: Causal, expected: Tensor, x: Tensor, context: Tensor | None = None) -> bool:
    """Tell whether a network gives these features ``(batch, elements, features)``, in both of its ways."""
    with torch.no_grad():
        ways = {same(network(x, context).flatten(1, -2), expected), same(stepped(network, x, context), expected)}
    (answer,) = ways
    return answer


# What the equations are made of


def sigma(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def rectified(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.0)


def gate(x: Tensor, flaw: str = "") -> Tensor:
    """tanh(a) sigma(b), where a is the first half of the channels and b the second."""
    half = x.shape[1] // 2
    a, b = x[:, :half], x[:, half:]
    return torch.tanh(a) * (torch.tanh(b) if flaw == "tanh for sigmoid" else sigma(b))


def everywhere(layer: nn.Module, x: Tensor) -> Tensor:
    """y = b + W x at each place: dimension 1 is that of channels."""
    y = (x.movedim(1, -1).unsqueeze(-2) * layer.weight).sum(-1)
    return (y + layer.bias).movedim(-1, 1)


def moved(x: Tensor, rows: int, columns: int) -> Tensor:
    """What is so many rows above a pixel, and so many columns to its left; zeros outside."""
    y = torch.zeros_like(x)
    for r in range(rows, x.shape[-2]):
        for c in range(columns, x.shape[-1]):
            y[..., r, c] = x[..., r - rows, c - columns]
    return y


def convolved(x: Tensor, layer: nn.Module, rows: Sequence[int], columns: Sequence[int], stride: int = 1) -> Tensor:
    """y[r, c] = b + sum over i and j of W[i, j] x[r + rows[i], c + columns[j]], where what is outside is zero."""
    weight, (_, _, height, width) = window(layer, len(columns)), x.shape
    y = layer.bias[:, None, None].repeat(len(x), 1, -(-height // stride), -(-width // stride))
    for r in range(0, height, stride):
        for c in range(0, width, stride):
            for i, row in enumerate(rows):
                for j, column in enumerate(columns):
                    if 0 <= r + row < height and 0 <= c + column < width:
                        seen = x[:, :, r + row, c + column]
                        y[:, :, r // stride, c // stride] += seen @ weight[i, j]
    return y


def window(layer: nn.Module, columns: int) -> Tensor:
    """A layer's weights by row, column, channel that comes in and channel that goes out."""
    if isinstance(layer, RowConv2d):
        return layer.weight.permute(2, 3, 1, 0)
    assert isinstance(layer, CausalConv1d | CornerConv2d)
    return layer.weight.unflatten(0, (-1, columns))


# Gates


def test_a_gate_is_tanh_times_sigmoid():
    x = torch.randn(2, 6, 5)
    assert same(gated(x), gate(x))
    assert not same(gated(x), gate(x, "tanh for sigmoid"))
    assert not same(gated(x), gate(torch.cat([x[:, 3:], x[:, :3]], 1)))  # of the other half


# FVSBN, NADE and MADE


@flaws("an element sees itself", "the bias of the next")
def test_an_fvsbn_is_its_equation(flaw):
    network = FVSBN((1, 2, 3), ScaledValues(3), 2)
    network.weight.data.normal_()
    network.bias.data.normal_()
    x = torch.randint(0, 3, (4, 1, 2, 3)).double()
    e = network.encoder(x.flatten(1))
    found = []
    for i in range(6):
        f = network.bias[(i + 1) % 6 if flaw == "the bias of the next" else i].expand(4, -1)
        for j in range(i + 1 if flaw == "an element sees itself" else i):
            f = f + e[:, j] @ network.weight[j, :, i]
        found.append(f)
    assert gives(network, torch.stack(found, 1), x) == (not flaw)


@flaws("relu for sigmoid", "tanh for sigmoid", "no bias", "a sum that begins anew")
def test_a_nade_is_its_equation(flaw):
    network = NADE((1, 2, 3), ScaledValues(3), 2, hidden=5)
    for bias in (network.bias, network.output_bias):
        bias.data.normal_()
    x = torch.randint(0, 3, (4, 1, 2, 3)).double()
    e = network.encoder(x.flatten(1))
    activation = {"relu for sigmoid": rectified, "tanh for sigmoid": torch.tanh}.get(flaw, sigma)
    found = []
    for i in range(6):
        a = 0.0 * network.bias if flaw == "no bias" else network.bias
        for j in range(max(0, i - 1) if flaw == "a sum that begins anew" else 0, i):
            a = a + e[:, j] @ network.weight[j]
        found.append((network.output_bias[i] + activation(a) @ network.output[i]).expand(4, -1))
    assert gives(network, torch.stack(found, 1), x) == (not flaw)


@flaws("sigmoid for relu", "units see lower degrees alone", "features see their own degree", "nothing direct")
def test_a_made_is_its_equation(flaw):
    d, widths = 6, (7, 11)
    network = MADE((1, 2, 3), ScaledValues(3), 2, hidden=widths)
    network.direct.data.normal_()
    x = torch.randint(0, 3, (4, 1, 2, 3)).double()
    values = encoded = list(network.encoder(x.flatten(1)).flatten(1).unbind(1))
    degrees = [i // 2 for i in range(2 * d)]  # two units of each element
    for width, layer in zip(widths, network.layers, strict=False):
        own = [unit * (d - 1) // width for unit in range(width)]  # spread evenly over 0, ..., D - 2
        sees = [[m < n if "lower" in flaw else m <= n for m in degrees] for n in own]
        h = dense(layer, values, sees)
        values, degrees = [sigma(u) if flaw == "sigmoid for relu" else rectified(u) for u in h], own
    sees = [[m <= i // 2 if "own" in flaw else m < i // 2 for m in degrees] for i in range(2 * d)]
    f = dense(network.layers[-1], values, sees)
    if flaw != "nothing direct":  # from each element's two units to the two features of those after it
        f = [y + sum(network.direct[i, j] * encoded[j] for j in range(i // 2 * 2)) for i, y in enumerate(f)]
    features = torch.stack(f, 1).unflatten(1, (d, 2))
    with torch.no_grad():
        assert same(network(x).flatten(1, -2), features) == (not flaw)
        assert flaw or same(stepped(network, x, None), features)


def dense(layer: nn.Linear, values: list[Tensor], sees: list[list[bool]]) -> list[Tensor]:
    found = []
    for unit, row in enumerate(sees):
        y = layer.bias[unit].expand(len(values[0]))
        for i, does in enumerate(row):
            if does:
                y = y + layer.weight[unit, i] * values[i]
        found.append(y)
    return found


# PixelCNN and its gated kind


@flaws("no residual", "no relu before a block", "the first sees itself", "no row above")
def test_a_pixelcnn_is_its_equation(flaw):
    network = PixelCNN((1, 3, 3), ScaledValues(3), 2, channels=4, layers=2, first_kernel=5)
    x = torch.randint(0, 3, (2, 1, 3, 3)).double()

    def masked(layer, h, reach, ends):
        above = convolved(h, layer.above, range(1 - reach, 1), range(-reach, reach + 1))  # and moved down by one
        columns = range(1 - reach, 1) if flaw == "the first sees itself" and ends == 0 else range(-reach, ends)
        return moved(above, 1, 0) * (flaw != "no row above") + convolved(h, layer.left, [0], columns)

    h = masked(network.first, network.encode(x), 2, 0)
    for block in network.blocks:
        narrow = everywhere(block.narrow[1], h if flaw == "no relu before a block" else rectified(h))
        out = everywhere(block.widen[1], rectified(masked(block.masked, rectified(narrow), 1, 1)))
        h = out if flaw == "no residual" else h + out
    assert gives(network, ending(network, h), x) == (not flaw)


def ending(network: PixelCNN | GatedPixelCNN, h: Tensor) -> Tensor:
    """Two layers on each pixel."""
    return everywhere(network.features, rectified(everywhere(network.output[1], rectified(h)))).flatten(2).mT


def gated_pixelcnn(network: GatedPixelCNN, x: Tensor, context: Tensor, flaw: str = "") -> Tensor:
    v = h = network.encode(x)
    skips: Tensor | float = 0.0
    added = everywhere(network.context.linear, context).chunk(len(network.layers), 1)
    for i, layer in enumerate(network.layers):
        of_v, of_h = added[i].chunk(2, 1)
        reach, ends = (2, 0) if i == 0 else (1, 1)  # a window of five, then of three; the first does not see itself
        said = convolved(v, layer.vertical, range(-reach, 1), range(-reach, reach + 1))
        v = gate(said if flaw == "no context above" else said + of_v, flaw)
        link = everywhere(layer.link, said + of_v if flaw == "a link with the context" else said)
        before = convolved(h, layer.horizontal, [0], range(-reach, ends)) + moved(link, 1, 0) * (flaw != "no link")
        g = gate(before if flaw == "no context to the left" else before + of_h, flaw)
        out = everywhere(layer.residual, g)
        h = out if i == 0 or flaw == "no residual" else h + out
        skips = skips + everywhere(layer.skip, g) * (flaw != "a skip left out" or i != 1)
    return ending(network, skips)


@flaws(
    "tanh for sigmoid",
    "no context above",
    "no context to the left",
    "no link",
    "a link with the context",
    "no residual",
    "a skip left out",
)
def test_a_gated_pixelcnn_is_its_equation(flaw):
    network = GatedPixelCNN((1, 3, 3), ScaledValues(3), 2, channels=4, layers=3, first_kernel=5, context=2)
    x, context = torch.randint(0, 3, (2, 1, 3, 3)).double(), torch.randn(2, 2, 3, 3)
    assert gives(network, gated_pixelcnn(network, x, context, flaw), x, context) == (not flaw)


def test_the_context_of_a_gated_pixelcnn_reaches_both_stacks():
    network = GatedPixelCNN((1, 3, 3), ScaledValues(3), 2, channels=16, layers=2, context=2)
    x, context = torch.zeros(1, 1, 3, 3), torch.zeros(1, 2, 3, 3)
    context[..., 0, 1] = 1.0
    weight = network.context.linear.weight.unflatten(0, (2, 2, 32)).data  # by layer and stack
    with torch.no_grad():
        whole = network(x, context) - network(x, 0 * context)
        weight[:, 1] = 0.0
        above = network(x, context) - network(x, 0 * context)
    by_rows = [part[0, 0].abs().flatten(1).sum(1) > 0 for part in (whole, above)]
    assert by_rows[0].tolist() == [True, True, True]
    assert by_rows[1].tolist() == [False, True, True]  # the stack of the rows above speaks to those below


# WaveNet


def wavenet(network: WaveNet, x: Tensor, context: Tensor, dilations: list[int], flaw: str = "") -> Tensor:
    e = network.encoder(x)
    mapped = everywhere(network.context, context)
    k, c, times = network.kernel, network.channels, range(x.shape[1])

    def conv(weight, bias, h, t, dilation):
        y = bias.expand(len(x), -1)
        for i in range(k):
            at = t - (k - 1 - i) * dilation
            if at >= 0:
                y = y + h[at] @ weight[i]
        return y

    before = [torch.zeros_like(e[:, 0]), *e[:, :-1].unbind(1)]
    h = [conv(network.first.weight, network.first.bias, before, t, 1) for t in times]
    skips = [network.skip_bias for _ in times]
    for i, dilation in enumerate(dilations):
        said = [conv(network.dilated[i], network.dilated_bias[i], h, t, dilation) for t in times]
        own = mapped[:, 2 * c * i : 2 * c * (i + 1)] * (flaw != "no context")
        g = [gate(said[t] + own[..., t], flaw) for t in times]
        if flaw != "a skip left out" or i != 1:
            skips = [skips[t] + g[t] @ network.skip[i] for t in times]
        out = [g[t] @ network.residual[i] + network.residual_bias[i] for t in times]
        h = out if flaw == "no residual" else [h[t] + out[t] for t in times]
    s = torch.stack(skips, -1)
    _, first, _, last = network.output
    return everywhere(last, rectified(everywhere(first, rectified(s)))).mT


@pytest.mark.parametrize(
    ("layers", "stacks", "kernel", "dilations"), [(3, 1, 2, [1, 2, 4]), (2, 2, 2, [1, 2, 1, 2]), (2, 1, 3, [1, 2])]
)
@flaws("tanh for sigmoid", "no residual", "a skip left out", "no context", "another dilation", "dilations in reverse")
def test_a_wavenet_is_its_equation(layers, stacks, kernel, dilations, flaw):
    network = WaveNet(EmbeddedValues(3, 2), 2, channels=3, layers=layers, stacks=stacks, kernel=kernel, context=2)
    x, context = torch.randint(0, 3, (2, 8)).double(), torch.randn(2, 2, 8)
    wrong = {"another dilation": [*dilations[:-1], 3], "dilations in reverse": dilations[::-1]}
    expected = wavenet(network, x, context, wrong.get(flaw, dilations), flaw)
    assert gives(network, expected, x, context) == (not flaw)


def squared(x: Tensor) -> Tensor:
    """The mutant of a gate: tanh in the place of the sigmoid."""
    a, b = x.chunk(2, 1)
    return a.tanh() * b.tanh()


def test_gates_of_another_kind_are_found_out_in_whole_networks(monkeypatch):
    for module in (gated_networks, wavenets):
        monkeypatch.setattr(module, "gated", squared)
    for flaw in ("", "tanh for sigmoid"):  # code of that flaw is not the equation, and is that of the same flaw
        with pytest.raises(AssertionError):
            test_a_gated_pixelcnn_is_its_equation(flaw)
        with pytest.raises(AssertionError):
            test_a_wavenet_is_its_equation(3, 1, 2, [1, 2, 4], flaw)


# PixelRNN


def cell(gates: Tensor, c: Tensor, flaw: str) -> tuple[Tensor, Tensor]:
    """An LSTM's state and cell: c' = sigma(f) c + sigma(i) tanh(g), h = sigma(o) tanh(c')."""
    o, f, i, g = gates.chunk(4, 1)
    kept = 0.0 if flaw == "no cell" else sigma(f) * c
    c = kept + sigma(i) * torch.tanh(g)
    return sigma(o) * (c if flaw == "no tanh of the cell" else torch.tanh(c)), c


def row_layer(layer: RowLayer, x: Tensor, flaw: str) -> Tensor:
    said = convolved(x, layer.input_to_state, [0], [-1, 0])
    nothing = x.new_zeros(len(x), layer.channels)
    h: dict[tuple[int, int], Tensor] = {}
    c: dict[tuple[int, int], Tensor] = {}
    y = torch.zeros_like(x)
    for row in range(x.shape[2]):
        for column in range(x.shape[3]):
            gates = said[:, :, row, column]
            for j in range(3):
                above = h.get((row - 1, column + j - 1), nothing)
                gates = gates + above @ layer.state_to_state.weight[..., j].T
            before = c.get((row, column - 1) if flaw == "the cell to the left" else (row - 1, column), nothing)
            h[row, column], c[row, column] = cell(gates, before, flaw)
            y[..., row, column] = everywhere(layer.output, h[row, column])
    return y if flaw == "no residual" else x + y


@flaws("no cell", "the cell to the left", "no tanh of the cell", "no residual")
def test_a_row_layer_is_its_equation(flaw):
    layer, x = RowLayer(3), torch.randn(2, 6, 3, 4)
    assert same(layer(x), row_layer(layer, x, flaw)) == (not flaw)


def states(of: DiagonalLSTM, x: Tensor, step: int, flaw: str) -> Tensor:
    """States of an LSTM that comes from the left, with a step of 1, or from the right, with one of -1."""
    nothing = x.new_zeros(len(x), of.channels)
    h: dict[tuple[int, int], Tensor] = {}
    c: dict[tuple[int, int], Tensor] = {}
    y = x.new_zeros(len(x), of.channels, *x.shape[2:])
    for row in range(x.shape[2]):
        for column in range(x.shape[3])[::step]:
            left, above = (row, column - step), (row - 1, column)
            recurrent = h.get(left, nothing) @ of.state_to_state.weight[1]
            recurrent = recurrent + h.get(above, nothing) @ of.state_to_state.weight[0]
            gates = everywhere(of.input_to_state, x[..., row, column]) + recurrent + of.state_to_state.bias
            before = c.get(above if flaw == "the cell above" else left, nothing)
            h[row, column], c[row, column] = cell(gates, before, flaw)
            y[..., row, column] = h[row, column]
    return y


@flaws("no cell", "the cell above", "no tanh of the cell", "no residual", "from the left alone", "twice from the left")
def test_a_diagonal_layer_is_its_equation(flaw):
    layer, x = DiagonalLayer(3), torch.randn(2, 6, 3, 4)
    from_the_right = states(layer.leftwards, x, 1 if flaw == "twice from the left" else -1, flaw)
    h = states(layer.rightwards, x, 1, flaw) + moved(from_the_right, 1, 0) * (flaw != "from the left alone")
    y = everywhere(layer.output, h)
    assert same(layer(x), y if flaw == "no residual" else x + y) == (not flaw)


# PixelCNN++


def concat_elu(x: Tensor, flaw: str = "") -> Tensor:
    doubled = torch.cat([x, x if flaw == "elu of x twice" else -x], 1)
    return torch.where(doubled > 0, doubled, doubled.exp() - 1)


Extra = list[Iterator[Tensor]]
"""For each level, what enters its layers, one after the other."""


def residual(layer: GatedResidual, x: Tensor, link: Tensor | None, short: Tensor | None, added: Tensor, flaw: str):
    """x' = x + a sigma(b), with (a, b) = W_2 * e(y) + V c and y = W_1 * e(x) + W_l e(l) + W_s e(s)."""
    columns = [-1, 0] if isinstance(layer.first, CornerConv2d) else [-1, 0, 1]
    y = convolved(concat_elu(x, flaw), layer.first, [-1, 0], columns)
    if link is not None and flaw != "no link":
        y = y + everywhere(layer.link, concat_elu(link, flaw))
    if short is not None and flaw != "no short-cut":
        y = y + everywhere(layer.shortcut, concat_elu(short, flaw))
    gates = convolved(concat_elu(y, flaw), layer.second, [-1, 0], columns) + added * (flaw != "no context")
    a, b = gates.chunk(2, 1)
    out = {"tanh of a": torch.tanh(a) * sigma(b), "tanh for sigmoid": a * torch.tanh(b)}.get(flaw, a * sigma(b))
    return out if flaw == "no residual" else x + out


def stream(of: Stream, x: Tensor, links: Extra | None, added: Extra, flaw: str, level: int = 0) -> list[list[Tensor]]:
    """Outputs of its layers, by level."""
    said: list[Tensor] = []
    coarse: list[list[Tensor]] = []
    shortcuts, h = [x], x

    def passed(layer, h, short):
        link = None if links is None else next(links[level])
        said.append(residual(layer, h, link, short, next(added[level]), flaw))
        return said[-1]

    for layer in of.there:
        h = passed(layer, h, None)
        shortcuts.append(h)
    if of.coarser is None:
        shortcuts.pop()
    else:
        columns = [-1, 0] if isinstance(of.coarser.halve, CornerConv2d) else [-1, 0, 1]
        halved = convolved(h, of.coarser.halve, [-1, 0], columns, stride=2)
        coarse = stream(of.coarser.stream, halved, links, added, flaw, level + 1)
        h = enlarged(of.coarser.enlarge, coarse[0][-1], *x.shape[2:])
    for layer in of.back:
        h = passed(layer, h, shortcuts.pop())
    return [said, *coarse]


def enlarged(layer: nn.Module, x: Tensor, height: int, width: int) -> Tensor:
    """Each pixel becomes four, y[2r + i, 2c + j] = b_ij + W_ij x[r, c]; or a row becomes two, which see more of it."""
    y = x.new_zeros(len(x), x.shape[1], height, width)
    if hasattr(layer, "parts"):
        of_parts = everywhere(layer.parts, x).unflatten(1, (-1, 2, 2))
        for r in range(height):
            for c in range(width):
                y[..., r, c] = of_parts[:, :, r % 2, c % 2, r // 2, c // 2]
        return y
    weight = layer.transposed.weight  # by channel in, channel out, row of the two, and column from one to the left
    for r in range(height):
        for c in range(width):
            y[..., r, c] = layer.transposed.bias
            for at in range(x.shape[-1]):
                if 0 <= c - 2 * at + 1 < 3:
                    y[..., r, c] += x[:, :, r // 2, at] @ weight[:, :, r % 2, c - 2 * at + 1]
    return y


@pytest.mark.parametrize("halvings", [0, 1])
@flaws("tanh of a", "tanh for sigmoid", "elu of x twice", "no residual", "no link", "no short-cut", "no context")
def test_a_pixelcnn_pp_is_its_equation(halvings, flaw):
    network = PixelCNNPlusPlus((1, 3, 4), ScaledValues(3), 2, channels=2, layers=1, halvings=halvings, context=2)
    network = sharpened(network)
    x, context = torch.randint(0, 3, (2, 1, 3, 4)).double(), torch.randn(2, 2, 3, 4)
    counts = [[2], [3, 2]][halvings]  # layers by level: one on the way there; on the way back one more, but at the end
    parts = iter(everywhere(network.context.linear, context).chunk(2 * sum(counts), 1))
    by_level = [
        [[next(parts)[..., :: 2**n, :: 2**n] for _ in range(count)] for n, count in enumerate(counts)] for _ in range(2)
    ]
    of_above, of_before = ([iter(level) for level in of] for of in by_level)
    e = network.encode(x)
    above = convolved(moved(e, 1, 0), network.first_above, [-1, 0], [-1, 0, 1])
    links = [iter(level) for level in stream(network.above, above, None, of_above, flaw)]
    before = convolved(moved(e, 1, 0), network.first_beside, [0], [-1, 0, 1])
    before = before + everywhere(network.first_left, moved(e, 0, 1))
    h = stream(network.before, before, links, of_before, flaw)[0][-1]
    out = everywhere(network.output[1], torch.where(h > 0, h, h.exp() - 1))
    assert gives(network, out.flatten(2).mT, x, context) == (not flaw)


# The transformer


def normalised(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * layer.weight + layer.bias


def turned(x: Tensor, position: int) -> Tensor:
    half = len(x) // 2
    angles = torch.tensor([position * 10_000 ** (-i / half) for i in range(half)])
    z = torch.complex(x[:half], x[half:]) * torch.complex(angles.cos(), angles.sin())
    return torch.cat([z.real, z.imag])


def attended(layer: TransformerLayer, normal: list[Tensor], flaw: str) -> list[Tensor]:
    """What each element takes from itself and those before it, all heads next to one another."""
    width = len(normal[0])
    depth = width // layer.heads
    scale = {"no scale": 1.0, "the scale of the width": 1 / sqrt(width), "no root": 1 / depth}.get(
        flaw, 1 / sqrt(depth)
    )
    said = [layer.inputs.weight @ x + layer.inputs.bias for x in normal]
    found = []
    for t in range(len(said)):
        heads = []
        for head in range(layer.heads):
            q, k, v = (
                [of[part * width + head * depth :][:depth] for of in said[: t + 1]] for part in range(3)
            )  # fmt: skip
            if flaw != "no rotation":
                q, k = ([turned(x, m) for m, x in enumerate(of)] for of in (q, k))
            weights = [torch.exp(scale * q[t] @ key) for key in k]
            heads.append(sum(w * value for w, value in zip(weights, v, strict=True)) / sum(weights))
        found.append(layer.output.weight @ torch.cat(heads) + layer.output.bias)
    return found


def gelu(x: Tensor) -> Tensor:
    return x * torch.tensor([(1 + erf(u / sqrt(2))) / 2 for u in x.tolist()])


def transformed(layer: TransformerLayer, x: list[Tensor], flaw: str) -> list[Tensor]:
    first, second = layer.attention_norm, layer.mlp_norm

    def mlp(x):
        inner, _, outer = layer.mlp
        return outer.weight @ gelu(inner.weight @ x + inner.bias) + outer.bias

    if flaw == "norms after":
        said = attended(layer, x, flaw)
        y = [normalised(first, x + of) for x, of in zip(x, said, strict=True)]
        return [normalised(second, y + mlp(y)) for y in y]
    said = attended(layer, [normalised(first, x) for x in x], flaw)
    y = said if flaw == "no residual" else [x + of for x, of in zip(x, said, strict=True)]
    return [y + mlp(normalised(second, y)) for y in y]


@flaws("no scale", "the scale of the width", "no root", "no rotation", "norms after", "no residual", "no context")
def test_a_transformer_is_its_equation(flaw):
    network = sharpened(CausalTransformer(ScaledValues(3), 2, width=8, layers=2, heads=2, context=2))
    x, context = torch.randint(0, 3, (2, 5)).double(), torch.randn(2, 2, 5)
    found = []
    for row, own in zip(x, context, strict=True):
        h = [network.before_first, *network.embedding(network.encoder(row[:-1]))]
        if flaw != "no context":
            h = [h[t] + network.context.weight @ own[:, t] + network.context.bias for t in range(5)]
        for layer in network.layers:
            h = transformed(layer, h, flaw)
        norm, last = network.output
        found.append(torch.stack([last.weight @ normalised(norm, x) + last.bias for x in h]))
    assert gives(network, torch.stack(found), x, context) == (not flaw)


# Stacked recurrent layers


def char_features(network: CharRNN, x: Tensor, make: Callable[..., nn.LSTMCell | nn.GRUCell], flaw: str) -> Tensor:
    e = torch.cat([torch.zeros(len(x), 1, network.encoder.width), network.encoder(x[:, :-1])], 1)
    below, outputs = None, []
    for layer in network.layers:
        cell = make(layer.input_size, layer.hidden_size)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(cell, name).data = getattr(layer, f"{name}_l0").data
        kept, states = None, []
        for t in range(x.shape[1]):
            own = e[:, t] * (flaw != "no skip of the input" or below is None)
            kept = cell(own if below is None else torch.cat([own, below[t]], -1), None if flaw == "no memory" else kept)
            states.append(kept[0] if make is nn.LSTMCell else kept)
        below = states
        outputs.append(torch.stack(states, 1))
    if flaw == "the last layer alone":
        outputs = [*(0 * h for h in outputs[:-1]), outputs[-1]]
    return torch.cat(outputs, -1) @ network.output.weight.T + network.output.bias


@pytest.mark.parametrize(("name", "make"), [("lstm", nn.LSTMCell), ("gru", nn.GRUCell)])
@flaws("no skip of the input", "the last layer alone", "no memory")
def test_a_char_rnn_is_its_equation(name, make, flaw):
    network = CharRNN(EmbeddedValues(3, 2), 4, cell=name, hidden=5, layers=3)
    x = torch.randint(0, 3, (2, 6)).double()
    assert gives(network, char_features(network, x, make, flaw), x) == (not flaw)


# The logistic mixture


def probabilities(pi: Tensor, loc: Tensor, scale: Tensor, levels: int) -> Tensor:
    """P(k) = sum over m of pi_m times the difference of sigmoids at a bin's edges, the outer ones of which are none."""
    edges = (2 * torch.arange(1, levels) - 1) / (levels - 1) - 1
    up_to = [torch.zeros_like(loc), *(sigma((edge - loc) / scale) for edge in edges), torch.ones_like(loc)]
    return torch.stack([((up_to[k + 1] - up_to[k]) * pi).sum(-1) for k in range(levels)])


PI, LOC, SCALE = [0.7, 0.2, 0.1], [-0.8, 0.3, 0.9], [0.05, 0.2, 0.1]


def of_a_mixture(d: DiscretizedLogisticMixture) -> dict[str, bool]:
    """Tell what a mixture agrees with, of what its equation gives."""
    p = probabilities(*(torch.tensor(x) for x in (PI, LOC, SCALE)), 9)
    k = torch.arange(9.0)
    mean = (k * p).sum()
    error = ((k.square() * p).sum() - mean**2).div(20_000).sqrt()
    wide = d.expand((2, 3))
    return {
        "density": same(d.log_prob(k).exp(), p),
        "mean": same(d.mean, mean),
        "expanded": same(wide.log_prob(k[:, None, None]).exp(), p[:, None, None].expand(9, 2, 3)),
        "mean expanded": same(wide.mean, mean.expand(2, 3)),
        "draws": bool((d.sample((20_000,)).mean() - mean).abs() < 4 * error),
        "draws expanded": bool((d.expand((20_000,)).sample().mean() - mean).abs() < 4 * error),
    }


def test_a_mixture_has_its_weights_everywhere():
    d = DiscretizedLogisticMixture(torch.tensor(PI).log() + 2.0, torch.tensor(LOC), torch.tensor(SCALE), 9)
    assert all(of_a_mixture(d).values())


def test_a_mixture_of_equal_weights_has_them_nowhere():
    d = DiscretizedLogisticMixture(torch.zeros(3), torch.tensor(LOC), torch.tensor(SCALE), 9)
    assert not any(of_a_mixture(d).values())


def test_a_mixture_of_one_is_that_one():
    d = DiscretizedLogisticMixture(torch.zeros(1), torch.tensor(LOC[1:2]), torch.tensor(SCALE[1:2]), 9)
    one = DiscretizedLogistic(torch.tensor(LOC[1]), torch.tensor(SCALE[1]), 9)
    assert same(d.mean, one.mean)
    assert same(d.log_prob(torch.arange(9.0)), one.log_prob(torch.arange(9.0)))


# Distributions of data


def remembers(d: Autoregressive, values: Tensor, known: Tensor) -> bool:
    """Tell whether draws and densities are those of data with known elements."""
    draws = d.sample((50,))
    stay = torch.equal(torch.where(known, draws, 0.0), torch.where(known, values, 0.0).expand(draws.shape))
    other = torch.where(known, 1 - values, values).expand(d.batch_shape + d.event_shape)
    return stay and bool((d.log_prob(other) == -torch.inf).all()) and bool((d.log_prob(draws) > -torch.inf).all())


def test_what_is_given_stays_given_when_a_distribution_is_expanded():
    d = Autoregressive(sharpened(NADE((6,), ScaledValues(2), 1, hidden=4)), coin, (6,))
    values, known = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0]), torch.tensor([1, 1, 0, 1, 0, 0]).bool()
    given = d.given(values, known)
    wide = given.expand((3,))
    assert wide.batch_shape == (3,)
    assert remembers(given, values, known)
    assert remembers(wide, values, known)
    x = torch.where(known, values, torch.randint(0, 2, (3, 6)).double())
    with torch.no_grad():
        torch.testing.assert_close(wide.log_prob(x), d.log_probs(x).masked_fill(known, 0.0).sum(-1))
    wide.known = None  # the mutant: it has forgotten
    assert not remembers(wide, values, known)


def test_values_of_each_datum_stay_its_own_when_a_distribution_is_expanded():
    d = Autoregressive(NADE((4,), ScaledValues(2), 1, hidden=4), coin, (4,)).expand((2,))
    values, known = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 1]]), torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]).bool()
    wide = d.given(values, known).expand((3, 2))
    assert remembers(wide, values, known)
    assert not remembers(wide, values.flip(0), known)


def counted(network: CharRNN) -> list[int]:
    """Count the passes of a network."""
    passes, resume = [], network.resume

    def resumed(x, memory):
        passes.append(len(x))
        return resume(x, memory)

    network.resume = resumed
    return passes


def test_features_are_kept_of_the_tensor_alone_that_was_read():
    network = CharRNN(OneHotValues(3), 3, hidden=4, layers=1)
    _, memory = network.resume(torch.tensor([[0.0, 2.0], [1.0, 1.0]]), network.begin(2))
    x, other = torch.randint(0, 3, (2, 2, 5)).double()

    def fresh() -> Autoregressive:
        return Autoregressive(network, die, (5,), batch_shape=(2,), memory=memory)

    expected = {name: fresh().log_prob(value) for name, value in {"x": x, "other": other}.items()}
    passes = counted(network)
    d = fresh()
    d.after(x)
    assert same(d.log_prob(x), expected["x"])
    assert same(d.expand((2,)).log_prob(x), expected["x"])
    assert len(passes) == 1
    assert same(d.log_prob(other), expected["other"])
    assert same(d.log_prob(x.clone()), expected["x"])
    assert same(d.expand((4, 2)).log_prob(x), expected["x"].expand(4, 2))
    x.copy_(other)  # it is the same tensor, and no longer what was read
    assert same(d.log_prob(x), expected["other"])
    assert not same(expected["x"], expected["other"])


# Missing elements

MISSING = torch.tensor([[[1, 1, 0], [0, 1, 0]]]).bool()
KNOWN = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]])


def far(num_particles: int, monkeypatch=None, log_probs=None) -> float:
    """Total variation between completions, without sweeps, and the exact conditional distribution."""
    torch.manual_seed(2)  # known elements, which come after, say much of missing ones
    network = NADE((1, 2, 3), ScaledValues(2), 1, hidden=4)
    for parameter in network.parameters():
        parameter.data *= 3.0
    d = Autoregressive(network, coin, (1, 2, 3))
    with torch.no_grad():
        joint = d.log_prob(every(d)).exp()
    agrees = ((every(d) == KNOWN) | MISSING).flatten(1).all(1)
    p = torch.where(agrees, joint, 0.0) / joint[agrees].sum()
    if log_probs is not None:
        monkeypatch.setattr(Autoregressive, "log_probs", log_probs)
    n = 1000  # an exact sampler of eight outcomes is off by 4 sqrt(2 p (1 - p) / (pi n)) = 0.033 at most, at p = 1/8
    drawn = complete(d.expand((n,)), KNOWN.expand(n, 1, 2, 3), MISSING, sweeps=0, num_particles=num_particles)
    powers = 2 ** torch.arange(6).flip(0)
    q = torch.bincount((drawn.flatten(1) * powers).sum(1).long(), minlength=64) / n
    return float((p - q).abs().sum() / 2)


def test_many_particles_are_draws_of_the_conditional_distribution():
    assert far(1000) < 0.05
    assert far(1) > 0.3


def inverted(honest):
    return lambda d, x: -honest(d, x)


def uniform(honest):
    return lambda d, x: 0 * honest(d, x)


def of_all(honest):
    """What the model says of the drawn elements counts, too: they are weighed twice."""

    def log_probs(d, x):
        said = honest(d, x)
        drawn = torch.where(MISSING, said, 0.0).sum((-3, -2, -1), keepdim=True)
        return said + drawn / (~MISSING).sum()

    return log_probs


@pytest.mark.parametrize("weigh", [inverted, uniform, of_all])
def test_particles_that_are_weighed_otherwise_are_not(weigh, monkeypatch):
    assert far(200, monkeypatch, weigh(Autoregressive.log_probs)) > 0.3


# All elements at once


def copying(signs: Tensor, strength: float = 6.0) -> Autoregressive:
    """Elements that are the one before (sign 1) or the other value (-1), nearly: the first is a fair coin."""
    size = len(signs)
    network = FVSBN((size,), ScaledValues(2), 1)
    network.weight.data.zero_()
    network.bias.data.zero_()
    for i in range(1, size):
        network.weight.data[i - 1, 0, i, 0] = strength * signs[i]
    return Autoregressive(network, coin, (size,))


def one_by_one(signs: Tensor, u: Tensor, temperature: float = 1.0) -> Tensor:
    """The same process as it is defined: an element is one where u is at least the probability of zero."""
    x = torch.zeros_like(u)
    for row, own in zip(x, u, strict=True):
        for i in range(len(own)):
            logit = 0.0 if i == 0 else 6.0 * float(signs[i]) * (2 * float(row[i - 1]) - 1)
            row[i] = float(own[i] >= 1 / (1 + np.exp(logit / temperature)))
    return x


def test_elements_that_copy_take_as_many_passes_as_there_are():
    d = copying(torch.ones(12))
    # The first is one, and each pass, which begins from zeros, hands it on by one element; a last one changes nothing.
    found = sample_by_jacobi(d, (1,), torch.full((1, 12), 0.6))
    assert found.values.eq(1.0).all()
    assert found.passes == 13


@pytest.mark.parametrize("passes", [None, 4])
def test_a_fixed_point_of_dependent_elements_is_the_draw_one_by_one(passes):
    signs = torch.tensor([1.0, 1, -1, 1, -1, -1, 1, 1, 1, -1, 1, -1])
    d, u = copying(signs), torch.rand(20, 12)
    if passes is None:
        x = sample_by_jacobi(d, (20,), u).values
    else:  # the mutant: it stops too soon
        x = torch.zeros(20, 12)
        with torch.no_grad():
            for _ in range(passes):
                x = _inverse(d, x, u)
    assert torch.equal(x, one_by_one(signs, u)) == (passes is None)


def test_a_fixed_point_is_of_the_choice():
    signs = torch.tensor([1.0, 1, -1, 1, -1, -1, 1, 1, 1, -1, 1, -1])
    d, u = copying(signs), torch.rand(20, 12)
    d.network.bias.data[0] = 0.5  # the first is rather one
    greedy = torch.cat([torch.ones(1), signs[1:].cumprod(0) / 2 + 0.5])
    d.choice = Choice(top_k=1)
    assert torch.equal(sample_by_jacobi(d, (20,), u).values, greedy.expand(20, 12))
    assert torch.equal(d.sample((3,)), greedy.expand(3, 12))
    d.choice = Choice()  # the mutant: it does not look at the choice
    assert not torch.equal(sample_by_jacobi(d, (20,), u).values, greedy.expand(20, 12))


def test_a_fixed_point_is_of_the_temperature():
    signs, u = torch.ones(12), torch.rand(200, 12)
    d = copying(signs)
    d.choice = Choice(temperature=3.0)
    found = sample_by_jacobi(d, (200,), u).values
    assert torch.equal(found, one_by_one(signs, u, temperature=3.0))
    assert not torch.equal(found, one_by_one(signs, u))


# Dynamic evaluation


def text_model(network: str = "lstm", **settings: float):
    spec = DataSpec((10,), "levels", levels=3, symbols=("a", "b", "c"))
    if network == "transformer":
        return transformer(spec, width=8, layers=1, heads=2, **settings)[0]
    return char_rnn(spec, hidden=6, layers=2, **settings)[0]


def test_parameters_come_back_when_reading_fails(monkeypatch):
    model, calls, read = text_model(), [], Reader.__call__
    before = {name: p.clone() for name, p in model.named_parameters()}

    def failing(reader, x):
        calls.append({name: p.detach().clone() for name, p in model.named_parameters()})
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return read(reader, x)

    monkeypatch.setattr(Reader, "__call__", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        surprises(model, torch.randint(0, 3, (50,)), window=10, rate=0.5)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    # The mutant leaves them as they were found at that moment.
    assert not any(torch.equal(p, before[name]) for name, p in calls[-1].items())


def pulled(decay: float, steps: int, flaw: str = "") -> list[Tensor]:
    """Parameters along theta <- theta - eta grad + lambda (theta_0 - theta), of half a squared distance from one."""
    start = torch.tensor([0.0, 5.0])
    theta, found = start.clone(), []
    for _ in range(steps):
        grad = theta - 1.0
        goal = {"no pull": theta, "towards zero": torch.zeros(2)}.get(flaw, start)
        at = theta - 0.1 * grad if flaw == "from where the step led" else theta
        theta = theta - 0.1 * grad + decay * (goal - at)
        found.append(theta)
    return found


@pytest.mark.parametrize("flaw", ["", "from where the step led", "no pull", "towards zero"])
def test_learning_is_pulled_back_to_where_it_began(flaw):
    module = nn.Module()
    module.theta = nn.Parameter(torch.tensor([0.0, 5.0]))
    found = []
    with learning(module, 0.1, 0.3) as learn:
        for _ in range(4):
            learn((module.theta - 1.0).square().sum() / 2)
            found.append(module.theta.detach().clone())
    assert same(torch.stack(found), torch.stack(pulled(0.3, 4, flaw))) == (not flaw)
    assert module.theta.tolist() == [0.0, 5.0]


@pytest.mark.parametrize("network", ["lstm", "transformer"])
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_nothing_is_dropped_while_a_text_is_read(network, rate, monkeypatch):
    model, text = text_model(network, dropout=0.5), torch.randint(0, 3, (60,))
    model.train()

    def twice() -> bool:
        return same(*(surprises(model, text, window=10, rate=rate) for _ in range(2)))

    assert twice()
    assert model.training
    fn = text_distribution(model, text[None, :10].double())
    with torch.no_grad():
        model.eval()
        bits = -Autoregressive(fn.network, fn.element, (5,)).log_probs(text[:5].double()) / np.log(2)
        model.train()
    assert same(surprises(model, text, window=10, rate=rate)[:5], bits)
    monkeypatch.setattr(reading, "evaluating", lambda *programs: nullcontext())
    assert not twice()  # the mutant: it reads as it trains


# Sounds


def sounds_are_right(folder: Path, levels: int) -> bool:
    """Tell whether windows of short clips end in silence, and have the labels of their folders."""
    data = from_wavs(folder, length=20, levels=levels, validation=0.25, test=0.25)
    found = []
    for split in ("train", "validation", "test"):
        for x, y, name in zip(data.split(split)["x"], data.split(split)["y"], data.files[split], strict=True):
            assert name.startswith(("high", "low"))
            amplitudes = from_mu_law(x.numpy(), levels)
            found.append(np.abs(amplitudes[12:]).max() <= 1 / (levels - 1))
            found.append((amplitudes[:12] > 0).all() == (int(y) == 0))  # high is before low
    return len(found) == 16 and bool(np.all(found))


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Four clips each of a high and of a low amplitude, twelve samples long."""
    for name, amplitude in {"high": 0.5, "low": -0.5}.items():
        (tmp_path / name).mkdir()
        for i in range(4):
            (tmp_path / name / f"{i}.wav").write_bytes(encode_wav(np.full(12, amplitude), 100))
    return tmp_path


@pytest.mark.parametrize("levels", [17, 256])
def test_short_clips_end_in_silence_and_have_the_labels_of_their_folders(clips, levels):
    assert sounds_are_right(clips, levels)


def test_clips_that_end_in_level_zero_are_found_out(clips, monkeypatch):
    monkeypatch.setattr(audio, "silence", lambda levels: 0)
    assert not sounds_are_right(clips, 256)


def test_clips_that_have_labels_in_turn_are_found_out(clips, monkeypatch):
    monkeypatch.setattr(audio, "labels_of", lambda found, names: [i % len(names) for i in range(len(found))])
    assert not sounds_are_right(clips, 256)


def test_silence_is_the_level_of_no_amplitude():
    for levels in (2, 3, 17, 255, 256):
        assert audio.silence(levels) == to_mu_law(np.array([0.0]), levels)[0] == levels // 2
