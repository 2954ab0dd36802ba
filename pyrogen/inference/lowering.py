"""From a captured graph to something to call."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import active_fake_mode, detect_fake_mode

from pyrogen.inference.capture import Capture, NotCapturableError, place_in_memory, placeholders

__all__ = ["decompositions", "lower"]

ATEN = torch.ops.aten
Run = Callable[[list[Tensor]], Sequence[Tensor]]


def decompositions() -> Mapping[Any, Callable[..., Any]]:
    """Return what the compiler wants operations to be written with."""
    return _inductor().decompositions()


def _inductor() -> Any:
    """Import the compiler, which takes seconds and warns of torch's own deprecated parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module("pyrogen.inference.inductor")


def lower(
    captured: Capture, example: Sequence[Tensor], finite: int | None, free: Sequence[Tensor], compiled: bool
) -> Callable[[list[Tensor]], Sequence[Tensor]]:
    """Return a function of the graph's inputs, to its outputs.

    Args:
        example: inputs.
        finite: which output tells whether all was finite; where not, nothing but ``free`` is changed.
        compiled: compile it; if not, the graph runs operation by operation.

    Raises:
        NotCapturableError: where the compiler fails.
    """
    module, state = captured.module, captured.state
    drop_idle_copies(module.graph)
    if finite is not None:
        places = {place_in_memory(tensor) for tensor in free}
        is_free = [False] * len(example) + [place_in_memory(tensor) in places for tensor in state]
        guard(module.graph, finite, is_free)
    module.graph.eliminate_dead_code()
    module.recompile()
    if not compiled:
        return _without_gradients(lambda tensors: module(*tensors), state)
    mode = detect_fake_mode(captured.fakes)
    assert mode is not None
    static = range(len(example), len(captured.fakes))
    try:
        run = _inductor().lower(module, captured.fakes, mode, static)
    except Exception as error:
        raise NotCapturableError(
            f"Inductor, torch's compiler, failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error
    if any(tensor.is_cuda for tensor in state) and active_fake_mode() is None:
        return Replay(_without_gradients(run, state), example, state)
    return _without_gradients(run, state)


def _without_gradients(run: Run, state: Sequence[Tensor]) -> Run:
    def called(inputs: list[Tensor]) -> Sequence[Tensor]:
        with torch.no_grad():
            return run([*inputs, *state])

    return called


def guard(graph: fx.Graph, finite: int, is_free: Sequence[bool]) -> None:
    """Let a graph change its inputs where an output says that all is finite, and leave them as they are where not."""
    inputs = placeholders(graph)
    free = {node for node, free in zip(inputs, is_free, strict=True) if free}
    outputs: Any = next(node for node in graph.nodes if node.op == "output").args[0]
    flag = outputs[finite]
    for copy in _copies(graph):
        target, value = copy.args[:2]
        if target not in free:
            with graph.inserting_before(copy):
                chosen = graph.call_function(ATEN.where.self, (flag, value, target))
            chosen.meta.update(target.meta)
            copy.args = (target, chosen)


def drop_idle_copies(graph: fx.Graph) -> None:
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
