"""Roll up again what a program's loops left in a graph, so that one turn of a loop is compiled once."""

import operator
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

__all__ = ["Call", "Part", "is_long", "parts"]

LONG = 1500
"""A graph of more operations than this is cut into parts. Compilers take time that grows faster than the graph."""
TURNS = 8
"""A loop is rolled up if it has at least so many equal turns."""
JOINED = 80
"""As many turns are compiled together as make about so many operations: a call costs as much as a small kernel."""


class Part(NamedTuple):
    """A piece of a graph, as a graph of its own; ``sources`` are the nodes of the whole that its inputs stand for."""

    module: fx.GraphModule
    sources: list[fx.Node]


class Call(NamedTuple):
    """One execution of a part: which values of the whole graph it takes, and which it makes."""

    part: int
    inputs: list[fx.Node]
    outputs: list[fx.Node]


def is_long(graph: fx.Graph) -> bool:
    """Tell whether a graph is to be cut."""
    return len(graph.nodes) > LONG


def parts(module: fx.GraphModule, flag: fx.Node | None) -> tuple[list[Part], list[Call]]:
    """Cut a graph into parts, and write it as calls of them, in order.

    Runs of equal turns of a loop become calls of one part. What is left is cut into parts of at most :data:`LONG`
    operations. The last call makes ``flag``, and holds all that changes the graph's inputs.
    """
    stack_selected_gradients(module.graph)
    hoist_selections(module.graph)
    nodes = [node for node in module.graph.nodes if node.op == "call_function"]
    last = next((i for i, node in enumerate(nodes) if node is flag or _changes_input(node)), len(nodes) - 1)
    made: list[Part] = []
    calls: list[Call] = []
    for pieces in _groups(module, nodes, last):
        inputs, places, outputs = _interface(pieces)
        made.append(_extracted(module, pieces[0], inputs[0], places, outputs[0]))
        calls += [Call(len(made) - 1, i, o) for i, o in zip(inputs, outputs, strict=True)]
    return made, calls


def stack_selected_gradients(graph: fx.Graph) -> None:
    r"""Write the gradient of a tensor that was read slice by slice as one stack.

    Autograd adds up as many tensors of the whole size as there are slices, each zero but for one: work and memory that
    grow with the square of a sequence's length.

    .. math:: \sum_t e_t \otimes g_t = (g_1, \dots, g_T)
    """
    for root in [node for node in graph.nodes if _is_sum(node)]:
        if len(root.users) == 1 and _is_sum(next(iter(root.users))):
            continue  # not yet the whole sum
        summands = _summands(root)
        slices: dict[str, list[Any]] = {}
        for node in summands:
            if node.target is ATEN.select_backward.default:
                slices.setdefault(str(node.args[1:3]), []).append(node)
        for nodes in slices.values():
            _, sizes, dim, _ = nodes[0].args
            gradients = {node.args[3] % sizes[dim]: node.args[0] for node in nodes}
            if len(nodes) == len(gradients) == sizes[dim]:
                rest = [node for node in summands if node not in nodes]
                _replace(graph, root, ([gradients[i] for i in range(sizes[dim])], dim), rest)
                break
    graph.eliminate_dead_code()


def _is_sum(node: fx.Node) -> bool:
    return node.target is ATEN.add.Tensor and not node.kwargs and all(isinstance(a, fx.Node) for a in node.args)


def _summands(root: fx.Node) -> list[Any]:
    """List what a chain of additions adds up."""
    pending: list[Any] = [root]
    found = []
    while pending:
        node = pending.pop()
        if _is_sum(node) and (node is root or len(node.users) == 1):
            pending.extend(node.args)
        else:
            found.append(node)
    return found


def _replace(graph: fx.Graph, root: fx.Node, stacked: tuple[Any, int], rest: Sequence[fx.Node]) -> None:
    """Put a stack, plus other summands, in the place of a sum."""
    with graph.inserting_before(root):
        total = graph.call_function(ATEN.stack.default, stacked)
        total.meta.update(root.meta)
        for node in rest:
            total = graph.call_function(ATEN.add.Tensor, (total, node))
            total.meta.update(root.meta)
    root.replace_all_uses_with(total)


def hoist_selections(graph: fx.Graph) -> None:
    """Move each selection of a slice to right behind what it selects from.

    The slice's number is different in each turn of a loop; without it, the turns are equal.
    """
    for node in list(graph.nodes):
        base = node.args[0] if node.target in SELECTIONS else None
        if isinstance(base, fx.Node):
            place = base.next
            while place.target in SELECTIONS or place.op == "placeholder":
                place = place.next
            if place is not node:
                place.prepend(node)


ATEN = torch.ops.aten
SELECTIONS = {ATEN.select.int, operator.getitem}
Piece = list[fx.Node]


def _groups(module: fx.GraphModule, nodes: Piece, end: int) -> Iterator[list[Piece]]:
    """Go through a graph's pieces in order; equal ones that follow each other come together."""
    tokens = [_token(module, node) for node in nodes]
    numbers: dict[Any, int] = {}
    codes = [numbers.setdefault(token, len(numbers)) for token in tokens]
    begin = at = 0
    while at < end:
        period, turns = _loop_at(codes, at, end)
        pieces = _equal_turns(nodes, at, period, turns) if turns >= TURNS else []
        if len(pieces) < TURNS // 2:
            at += 1
            continue
        yield from _straight(nodes[begin:at])
        yield pieces
        begin = at = nodes.index(pieces[-1][-1], at) + 1
    yield from _straight(nodes[begin:end])
    yield [nodes[end:]]


def _straight(nodes: Piece) -> Iterator[list[Piece]]:
    """Cut what is no loop into pieces of bounded length."""
    for start in range(0, len(nodes), LONG):
        yield [nodes[start : start + LONG]]


def _loop_at(codes: Sequence[int], at: int, end: int) -> tuple[int, int]:
    """Find the shortest run of operations that repeats from here on, and how often it does."""
    code, best = codes[at], (0, 0)
    candidates = (i - at for i in range(at + 1, min(end, at + LONG)) if codes[i] == code)
    for period in islice(candidates, 64):
        turn, turns = codes[at : at + period], 1
        while codes[at + turns * period : at + (turns + 1) * period] == turn and at + (turns + 1) * period <= end:
            turns += 1
        if turns >= TURNS:
            return period, turns
    return best


def _equal_turns(nodes: Piece, at: int, period: int, turns: int) -> list[Piece]:
    """Join turns to pieces, and keep those from the first on that are wired alike."""
    joined = max(1, min(JOINED // period, turns // TURNS))
    length = joined * period
    pieces = [nodes[at + i * length : at + (i + 1) * length] for i in range(turns // joined)]
    wiring = _wiring(pieces[0])
    alike: list[Piece] = []
    for piece in pieces:
        if _wiring(piece) != wiring:
            break
        alike.append(piece)
    return alike


def _wiring(piece: Piece) -> list[list[int]]:
    """List, for each operation, the positions of its arguments in the piece; -1 for those from outside."""
    position = {node: i for i, node in enumerate(piece)}
    return [[position.get(argument, -1) for argument in _arguments(node)] for node in piece]


def _arguments(node: fx.Node) -> list[fx.Node]:
    """List what an operation takes from other operations or the graph's inputs; constants go along with it."""
    found: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), found.append)
    return [argument for argument in found if argument.op != "get_attr"]


def _interface(pieces: Sequence[Piece]) -> tuple[list[list[fx.Node]], list[int], list[list[fx.Node]]]:
    """List each piece's inputs and outputs, in one order for all.

    Returns:
        The inputs of each; which of them stands at each of the places, in order, where a piece takes a value from
        outside; and the outputs of each.
    """
    outer = []
    for piece in pieces:
        inside = set(piece)
        outer.append([argument for node in piece for argument in _arguments(node) if argument not in inside])
    # Two places that hold one value in every piece are one input.
    numbers: dict[tuple[fx.Node, ...], int] = {}
    places = [numbers.setdefault(values, len(numbers)) for values in zip(*outer, strict=True)]
    used = sorted({i for piece in pieces for i in _used_outside(piece)})
    inputs = [[values[i] for values in numbers] for i in range(len(pieces))]
    return inputs, places, [[piece[i] for i in used] for piece in pieces]


def _used_outside(piece: Piece) -> list[int]:
    inside = set(piece)
    return [i for i, node in enumerate(piece) if any(user not in inside for user in node.users)]


def _extracted(
    module: fx.GraphModule, piece: Piece, inputs: Sequence[fx.Node], places: Sequence[int], outputs: Sequence[fx.Node]
) -> Part:
    graph = fx.Graph()
    taken = [graph.placeholder(f"input_{i}") for i in range(len(inputs))]
    here: dict[fx.Node, fx.Node] = {}
    following = iter(places)

    def copied(argument: fx.Node) -> fx.Node:
        return here[argument] if argument in here else taken[next(following)]

    for node in piece:
        for constant in node.all_input_nodes:
            if constant.op == "get_attr" and constant not in here:
                here[constant] = graph.node_copy(constant)
        here[node] = graph.node_copy(node, copied)
    graph.output([here[node] for node in outputs])
    return Part(fx.GraphModule(module, graph), list(inputs))


def _token(module: fx.GraphModule, node: fx.Node) -> Any:
    """Say what an operation is, apart from which values it takes: equal tokens are equal operations."""

    def kind(argument: fx.Node) -> Any:
        if argument.op == "get_attr":
            constant = getattr(module, str(argument.target))
            return "constant", constant.dtype, constant.tolist() if constant.numel() <= 16 else argument.name
        value = argument.meta.get("val")
        return (value.dtype, tuple(value.shape), value.stride()) if isinstance(value, Tensor) else "several"

    return node.target, str(fx.map_arg((node.args, node.kwargs), kind))


def _changes_input(node: fx.Node) -> bool:
    """Tell whether an operation writes to an input of the graph."""
    if not isinstance(node.target, torch._ops.OpOverload) or not node.target._schema.is_mutable:
        return False
    written = node.args[0] if node.args else None
    while isinstance(written, fx.Node) and isinstance(written.target, torch._ops.OpOverload) and written.target.is_view:
        written = written.args[0]
    return isinstance(written, fx.Node) and written.op == "placeholder"
