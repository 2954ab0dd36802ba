"""From a captured graph to something to call."""

import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import make_fx

from pyrogen.inference.capture import Capture, NotCapturableError, place_in_memory
from pyrogen.inference.rolling import Call, is_long, parts

__all__ = ["begin", "lower"]

ATEN = torch.ops.aten
Run = Callable[[list[Tensor]], Sequence[Tensor]]
SHORT = 32
"""A part of a long graph with no more operations than this runs as it is: compiling it would take a second or two."""


def begin() -> None:
    """Let the compiler begin with what it can do before there is a graph."""
    _inductor().explore()


def lower(
    captured: Capture, example: Sequence[Tensor], finite: int | None, free: Sequence[Tensor], compiled: bool
) -> Run:
    """Return a function of the graph's inputs, to its outputs; to none where an input is what the graph changes.

    Args:
        example: inputs.
        finite: which output tells whether all was finite; where not, nothing but ``free`` is changed.
        compiled: compile it; if not, the graph runs operation by operation.

    Raises:
        NotCapturableError: where the graph changes what cannot be told apart, or the compiler fails.
    """
    tensors = [*example, *captured.state]
    places = {place_in_memory(tensor) for tensor in free}
    is_free = [place_in_memory(tensor) in places for tensor in tensors]
    changed = captured.state
    if compiled and is_long(captured.module.graph):
        run = _lowered_in_parts(captured, tensors, finite, is_free)
    else:
        module = _functional(captured.module, captured, captured.fakes, compiled)
        _finish(module.graph, tensors, None if finite is None else _outputs(module.graph)[finite], is_free)
        written = {copy.args[0] for copy in _copies(module.graph)}
        changed = [t for t, node in zip(tensors, _placeholders(module.graph), strict=True) if node in written]
        run = _lowered(module, captured, captured.fakes, range(len(example), len(tensors)), compiled)
    run = _called(run, captured.state, changed)
    on_cuda = any(tensor.is_cuda for tensor in captured.state) and active_fake_mode() is None
    return Replay(run, example, captured.state) if compiled and on_cuda else run


def _functional(module: fx.GraphModule, captured: Capture, fakes: Sequence[Tensor], compiled: bool) -> fx.GraphModule:
    """Write a graph without side effects but copies into its inputs, at its end."""
    table = _inductor().decompositions() if compiled else None
    with captured.mode, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        functional = torch.func.functionalize(lambda *tensors: module(*tensors))
        made = make_fx(functional, decomposition_table=table)(*fakes)
    _drop_idle_copies(made.graph)
    return made


def _finish(graph: fx.Graph, tensors: Sequence[Tensor | None], flag: Any, is_free: Sequence[bool]) -> None:
    """Check what a functional graph writes to, and let it write only where a flag says that all is finite."""
    inputs = _placeholders(graph)
    _refuse_overlaps(graph, inputs, tensors)
    free = {node for node, free in zip(inputs, is_free, strict=True) if free}
    for copy in _copies(graph) if flag is not None else []:
        target, value = copy.args[:2]
        if target not in free:
            with graph.inserting_before(copy):
                chosen = graph.call_function(ATEN.where.self, (flag, value, target))
            chosen.meta.update(target.meta)
            copy.args = (target, chosen)


def _lowered(
    module: fx.GraphModule, captured: Capture, fakes: Sequence[Tensor], static: Sequence[int], compiled: bool
) -> Run:
    _keep_draws(module.graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    if not compiled:
        return lambda tensors: module(*tensors)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what torch's own parts do to each other
            return _inductor().lower(module, fakes, captured.mode, static)
    except Exception as error:
        raise NotCapturableError(
            f"Inductor, torch's compiler, failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error


def _keep_draws(graph: fx.Graph) -> None:
    """Return unused random numbers, too: without them, the generator would be elsewhere for those that follow."""
    output = graph.output_node()
    unused = [
        node
        for node in graph.nodes
        if isinstance(node.target, torch._ops.OpOverload)
        and torch.Tag.nondeterministic_seeded in node.target.tags
        and not node.users
        and isinstance(node.meta.get("val"), Tensor)
    ]
    output.args = ([*_outputs(graph), *unused],)


def _lowered_in_parts(captured: Capture, tensors: Sequence[Tensor], finite: int | None, is_free: Sequence[bool]) -> Run:
    """Compile each part of a long graph once, and call them one after the other."""
    graph = captured.module.graph
    flag = None if finite is None else _outputs(graph)[finite]
    made, calls = parts(captured.module, flag)
    known = dict(zip(_placeholders(graph), zip(tensors, is_free, strict=True), strict=True))
    if any(not tensor.is_contiguous() and _written(graph, node) for node, (tensor, _) in known.items()):
        raise NotCapturableError("a long program changes a tensor that is not contiguous")
    values = dict(zip(known, captured.fakes, strict=True))
    runs = []
    for i, part in enumerate(made):
        with captured.mode:
            # What parts take is contiguous, however it lay in memory in the whole. Two inputs may stand for one value
            # in the first turn of a loop, and for two later: each has a tensor of its own.
            fakes = [
                torch.empty_like(
                    values[source] if source in values else source.meta["val"], memory_format=torch.contiguous_format
                )
                for source in part.sources
            ]
        is_last = i == len(made) - 1
        module = _functional(part.module, captured, fakes, True)
        inputs = _placeholders(module.graph)
        if any(node.target is ATEN.as_strided.default and node.args[0] in inputs for node in module.graph.nodes):
            raise NotCapturableError("a long program looks at memory by strides of its own (as_strided)")
        if _copies(module.graph) and not is_last:
            raise NotCapturableError("a loop of the program changes a buffer in each of its many turns")
        if is_last:
            met: list[tuple[Tensor | None, bool]] = [known.get(source, (None, False)) for source in part.sources]
            here = None if flag is None else _outputs(module.graph)[calls[-1].outputs.index(flag)]
            _finish(module.graph, [tensor for tensor, _ in met], here, [free for _, free in met])
        pays = is_last or len(module.graph.nodes) > SHORT
        runs.append(_lowered(module, captured, fakes, (), pays))
    return _in_turn(runs, calls, list(known), _outputs(graph))


def _written(graph: fx.Graph, node: fx.Node) -> bool:
    return any(user.target is ATEN.copy_.default and user.args[0] is node for user in node.users)


def _in_turn(runs: Sequence[Run], calls: Sequence[Call], inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]) -> Run:
    """Return a function that makes calls in order, and lets go of values after their last use."""
    number = {node: i for i, node in enumerate(inputs)}
    for call in calls:
        for node in call.outputs:
            number.setdefault(node, len(number))
    last = {number[node]: i for i, call in enumerate(calls) for node in call.inputs}
    for node in outputs:
        last.pop(number[node], None)
    steps = [
        (
            runs[call.part],
            [number[node] for node in call.inputs],
            [number[node] for node in call.outputs],
            [register for register, use in last.items() if use == i],
        )
        for i, call in enumerate(calls)
    ]
    results = [number[node] for node in outputs]
    spare = [None] * (len(number) - len(inputs))

    def run(tensors: list[Tensor]) -> Sequence[Tensor]:
        values: list[Any] = [*(tensor.contiguous() for tensor in tensors), *spare]
        for part, takes, makes, drops in steps:
            for register, value in zip(makes, part([values[i] for i in takes]), strict=False):
                values[register] = value.contiguous()
            for register in drops:
                values[register] = None
        return [values[register] for register in results]

    return run


def _inductor() -> Any:
    """Import the compiler, which takes seconds and warns of torch's own deprecated parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("pyrogen.inference.inductor")


def _called(run: Run, state: Sequence[Tensor], changed: Sequence[Tensor]) -> Run:
    """Return a function of the inputs alone; it returns nothing, and does nothing, if one is what the graph changes."""
    has_values = active_fake_mode() is None
    places = {tensor.untyped_storage().data_ptr() for tensor in changed} if has_values else set()

    def called(inputs: list[Tensor]) -> Sequence[Tensor]:
        if places and not places.isdisjoint([tensor.untyped_storage().data_ptr() for tensor in inputs]):
            return ()
        with torch.no_grad():
            return run([*inputs, *state])

    return called


def _refuse_overlaps(graph: fx.Graph, inputs: Sequence[fx.Node], tensors: Sequence[Tensor | None]) -> None:
    """Refuse inputs that show one memory in different ways, where the graph writes to it."""
    written = {copy.args[0] for copy in _copies(graph)}
    seen: dict[Any, bool] = {}
    for node, tensor in zip(inputs, tensors, strict=True):
        if tensor is None or isinstance(tensor, FakeTensor) or not tensor.numel():
            continue
        key = (tensor.device, tensor.untyped_storage().data_ptr())
        if key in seen and (seen[key] or node in written):
            raise NotCapturableError(f"the program changes a tensor of shape {tuple(tensor.shape)} and a view of it")
        seen[key] = seen.get(key, False) or node in written


def _drop_idle_copies(graph: fx.Graph) -> None:
    """Remove copies of an input's old value into the input, as of a buffer that was changed and restored."""
    for copy in _copies(graph):
        target, value = copy.args[:2]
        while value.op == "call_function" and value.target in SAME and _alike(value, target):
            value = value.args[SAME[value.target]]
        if value is target:
            graph.erase_node(copy)


SAME = {ATEN.clone.default: 0, ATEN.alias.default: 0, ATEN.detach.default: 0, ATEN.copy.default: 1}
"""Operations that return the value of one of their arguments: which one."""


def _alike(one: fx.Node, other: fx.Node) -> bool:
    return all(getattr(one.meta["val"], part) == getattr(other.meta["val"], part) for part in ("shape", "dtype"))


def _copies(graph: fx.Graph) -> list[Any]:
    """List what a functional graph does to its inputs."""
    return [node for node in graph.nodes if node.target is ATEN.copy_.default]


def _placeholders(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "placeholder"]


def _outputs(graph: fx.Graph) -> list[Any]:
    output: Any = graph.output_node().args[0]
    return list(output)


class Replay:
    """A CUDA graph: all kernels of a function are launched at once, and the host waits for none.

    Inputs are copied to where the recording read them. The generators of the device move on with each replay.

    Args:
        run: the function.
        example: inputs.
        state: what it changes in place.
    """

    def __init__(self, run: Run, example: Sequence[Tensor], state: Sequence[Tensor]) -> None:
        self.inputs = [tensor.clone() for tensor in example]
        kept = [tensor.detach().clone() for tensor in state]
        generator = torch.cuda.get_rng_state_all()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):  # kernels are loaded and memory is found before anything is recorded
                run(list(self.inputs))
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = run(list(self.inputs))
        with torch.no_grad():
            for tensor, value in zip(state, kept, strict=True):
                tensor.copy_(value)
        torch.cuda.set_rng_state_all(generator)

    def __call__(self, inputs: list[Tensor]) -> Sequence[Tensor]:
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given, non_blocking=True)
        self.graph.replay()
        return [output.clone() for output in self.outputs]
