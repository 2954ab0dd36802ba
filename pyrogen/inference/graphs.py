"""Graphs of one computation, one for each signature of its inputs."""

import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._guards import active_fake_mode

from pyrogen.errors import CompileWarning
from pyrogen.inference.capture import NotCapturableError, capture
from pyrogen.inference.feed import Batch
from pyrogen.inference.lowering import begin, lower
from pyrogen.inference.signature import Inputs, Watch, with_leaves
from pyrogen.rehearsal import rehearsal

__all__ = ["Graphs"]

Graph = Callable[[Sequence[Tensor | float]], tuple[Sequence[Tensor], Any]]


class Graphs:
    """A computation that runs as a graph wherever it can.

    The first run with each signature (shapes, strides, types, devices and other values of the arguments; modules'
    modes; plain values around the programs) is a rehearsal with Pyro's validation on. Then the computation is captured
    and compiled, and the same batch goes through the graph, as do all that follow with that signature.

    Args:
        compute: of batches, to a list of tensors and whatever else there is to say of them. Everything that it changes
            in place is changed by the graph.
        rehearse: of batches; runs the computation with validation on, leaves no trace of it, and returns losses and
            gradients, or their norms.
        watched: the programs and other objects whose plain values a graph depends on.
        modules: the modules within reach.
        first: the first of the outputs that are to be the same as those of the rehearsal, at the same noise.
        finite: which output tells whether the step was finite; where it is false, nothing is changed.
        free: tensors that are changed all the same.
        tolerance: how much these may differ, relatively.
        compiled: compile the graphs; if not, they run operation by operation.
        limit: how many graphs are kept; batches of further signatures run without one.
        depends: what else a graph depends on.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Batch]], tuple[list[Tensor], Any]],
        rehearse: Callable[[Sequence[Batch]], list[Tensor]],
        watched: Sequence[Any],
        modules: Iterable[nn.Module],
        *,
        first: int,
        finite: int | None = None,
        free: Sequence[Tensor] = (),
        tolerance: float,
        compiled: bool = True,
        limit: int = 8,
        depends: Callable[[], Hashable] = tuple,
    ) -> None:
        self.compute, self.rehearse, self.watched, self.modules = compute, rehearse, watched, list(modules)
        self.first, self.finite, self.free = first, finite, list(free)
        self.tolerance, self.compiled, self.limit, self.depends = tolerance, compiled, limit, depends
        self.watch: Watch | None = None
        self.known: dict[Hashable, Graph | None] = {}
        self.writes_numbers = False
        self.has_warned = False

    def __call__(self, batches: Sequence[Batch]) -> tuple[Sequence[Tensor], Any] | None:
        """Return what ``compute`` does for batches; ``None`` where that has to be done without a graph."""
        try:
            inputs = Inputs(batches)
        except NotCapturableError as reason:
            self._warn(str(reason))
            return None
        if self.watch is None:
            self.watch = Watch(*self.watched)
        key = self._key(inputs)
        if key not in self.known:
            self._add(batches, inputs)
            key = self._key(inputs)
        graph = self.known[key]
        found = None if graph is None else graph(inputs.leaves)
        return found if found is not None and found[0] else None

    def forget(self) -> None:
        """Drop all graphs: the tensors that they change have been replaced."""
        self.known.clear()

    def _key(self, inputs: Inputs) -> Hashable:
        assert self.watch is not None
        numbers = [leaf for leaf in inputs.leaves if isinstance(leaf, float)] if self.writes_numbers else []
        return inputs.key, self.watch.values(), self.depends(), *numbers

    def _add(self, batches: Sequence[Batch], inputs: Inputs) -> None:
        """Make a graph for a new signature, or note that there is none."""
        assert self.watch is not None
        graph = None
        if len(self.known) >= self.limit:
            self._warn(
                f"there are {self.limit} graphs already, for other shapes of the batches or other numbers that the "
                f"programs use; batches of new ones run without a graph. Keep to few sizes of batches, and pass "
                f"numbers that change as arguments or in buffers"
            )
        else:
            if self.compiled:
                begin()
            try:
                with self.watch.unchanged():
                    expected = self.rehearse(batches)
                self.watch = Watch(*self.watched)  # the rehearsal may have made what is to be watched
                graph = self._made(batches, inputs, expected)
            except NotCapturableError as reason:
                self._warn(str(reason))
        self.known[self._key(inputs)] = graph

    def _made(self, batches: Sequence[Batch], inputs: Inputs, expected: list[Tensor]) -> Graph:
        """Capture and compile, with floating-point arguments as inputs or else, for a graph each, as constants."""
        if self.writes_numbers or not any(isinstance(leaf, float) for leaf in inputs.leaves):
            return self._captured(batches, inputs, expected, self.writes_numbers)
        try:
            return self._captured(batches, inputs, expected, False)
        except NotCapturableError:
            graph = self._captured(batches, inputs, expected, True)
            self.writes_numbers = True
            return graph

    def _captured(
        self, batches: Sequence[Batch], inputs: Inputs, expected: list[Tensor], writes_numbers: bool
    ) -> Graph:
        as_inputs = AsInputs(inputs, self.modules, writes_numbers)
        notes = []

        def function(tensors: Sequence[Tensor]) -> list[Tensor]:
            outputs, note = self.compute(with_leaves(tuple(batches), as_inputs.leaves(tensors)))
            notes.append(note)
            return outputs

        example = as_inputs(inputs.leaves)
        assert self.watch is not None
        with self.watch.unchanged():
            captured = capture(function, example, self.modules)
        try:
            run = lower(captured, example, self.finite, self.free, self.compiled)
        except NotCapturableError:
            raise
        except Exception as error:
            raise NotCapturableError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
        if active_fake_mode() is None:
            self._compare(lambda: run(as_inputs(inputs.leaves)), captured.state, expected)
        return lambda leaves: (run(as_inputs(leaves)), notes[0])

    def _compare(self, run: Callable[[], Sequence[Tensor]], state: Sequence[Tensor], expected: list[Tensor]) -> None:
        """Run a new graph once, undo what it did, and refuse one whose losses or gradients are not the program's."""
        kept = [tensor.detach().clone() for tensor in state]
        with rehearsal():
            found = [tensor.double() for tensor in run()[self.first : self.first + len(expected)]]
        with torch.no_grad():
            for tensor, value in zip(state, kept, strict=True):
                tensor.copy_(value)
        for mine, theirs in zip(found, expected, strict=True):
            error, size = (mine - theirs.double()).norm(), theirs.double().norm()
            if size.isfinite() and not error <= self.tolerance * (size + 1e-3):
                raise NotCapturableError(
                    f"a loss or gradient is {float(mine.norm()):g} by the graph and {float(size):g} without: the "
                    f"program does what a graph does not repeat, or the compiler has a bug"
                )

    def _warn(self, reason: str) -> None:
        if not self.has_warned:
            self.has_warned = True
            warnings.warn(f"not compiled, runs without a graph: {reason}", CompileWarning, stacklevel=4)


class AsInputs:
    """Arguments as a graph takes them: numbers become tensors, unless they are written into the graph."""

    def __init__(self, inputs: Inputs, modules: Iterable[nn.Module], writes_numbers: bool) -> None:
        self.example, self.writes_numbers = list(inputs.leaves), writes_numbers
        tensors = [leaf for leaf in inputs.leaves if isinstance(leaf, Tensor)]
        around = [*tensors, *(p for module in modules for p in module.parameters())]
        self.device = around[0].device if around else torch.device("cpu")
        is_double = any(tensor.dtype == torch.float64 for tensor in around)
        self.dtype = torch.float64 if is_double else torch.get_default_dtype()

    def __call__(self, leaves: Sequence[Tensor | float]) -> list[Tensor]:
        """Return the graph's inputs."""
        return [
            leaf if isinstance(leaf, Tensor) else torch.full((), leaf, dtype=self.dtype, device=self.device)
            for leaf in leaves
            if isinstance(leaf, Tensor) or not self.writes_numbers
        ]

    def leaves(self, tensors: Sequence[Tensor]) -> Any:
        """Go through the arguments that the program is called with, given the graph's inputs."""
        given = iter(tensors)
        for leaf in self.example:
            yield leaf if self.writes_numbers and not isinstance(leaf, Tensor) else next(given)
