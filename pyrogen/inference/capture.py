"""Record everything that a function does to tensors, as one graph."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from torch import Tensor, fx, nn
from torch._decomp.decompositions import cudnn_batch_norm, native_batch_norm_decomposition
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot, make_fx, track_tensor
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode

from pyrogen.inference.silence import host_reads_silenced
from pyrogen.parameters import LIBRARIES

__all__ = ["Capture", "NotCapturableError", "capture", "place_in_memory", "where_in_the_program"]

ATEN = torch.ops.aten
CONSTANTS = {ATEN.lift_fresh.default, ATEN.lift_fresh_copy.default}
UNTOLD = {
    ATEN.native_batch_norm.default: native_batch_norm_decomposition,
    ATEN.cudnn_batch_norm.default: cudnn_batch_norm,
}
"""Operations that change buffers although their schemas do not say so, and the same in operations that do."""

OPAQUE = {ATEN.mkldnn_rnn_layer.default: "a recurrent layer runs in oneDNN's kernel, whose gradient cannot be recorded"}
"""Operations that do not say all of what they hand on, and what they are."""


class NotCapturableError(Exception):
    """What a program does cannot be put into a graph; the message says what, and where."""


class Capture(NamedTuple):
    """A function as a graph.

    Attributes:
        module: takes the function's inputs and then ``state``, changes what the function changes, and returns its
            outputs.
        state: the tensors that the function reached besides its inputs (parameters, buffers, data in closures, states
            of optimisers), in the order of ``module``'s further inputs: whatever values they have when it is called.
        fakes: all inputs without their values.
        mode: the mode that they live in.
    """

    module: fx.GraphModule
    state: list[Tensor]
    fakes: list[Tensor]
    mode: FakeTensorMode


def capture(
    function: Callable[[Sequence[Tensor]], Sequence[Tensor]],
    inputs: Sequence[Tensor],
    modules: Iterable[nn.Module] = (),
) -> Capture:
    """Run a function once on tensors without values, and record each of torch's operations.

    What Python does in between (Pyro's handlers, distributions, loops) happens here, once. Tensors that the function
    reaches by itself become inputs of the graph: nothing but numbers written in the program is frozen into it.

    Args:
        function: of a list of tensors, to a list of tensors.
        inputs: an example.
        modules: those within the function's reach, which must still hold their own tensors afterwards.

    Raises:
        NotCapturableError: where the function reads a tensor's value (``.item()``, ``if tensor > 0``), makes shapes
            that depend on values, draws random numbers by Python, NumPy or a generator of its own, sets the state of
            the generator, or puts another tensor in the place of one that it reads.
    """
    # Inductor keeps nothing on disk of a mode without an environment for shapes. Ours lets none depend on values.
    shapes = ShapeEnv(allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)
    mode = active_fake_mode() or FakeTensorMode(allow_non_fake_inputs=True, shape_env=shapes, static_shapes=True)
    lifting = Lifting(mode)

    def recorded(*tensors: Tensor) -> Sequence[Tensor]:
        with lifting:
            return function(tensors)

    with mode, host_reads_silenced(), pyro.validation_enabled(False), _guarded_host(modules, lifting):
        # New objects, since one tensor may be two of the inputs, or an input and part of the program's surroundings.
        fakes = [_without_values(mode, _renewed(tensor)) for tensor in inputs]
        try:
            graph_module = make_fx(recorded)(*fakes)
        except NotCapturableError as error:
            raise NotCapturableError(f"{where_in_the_program(error)}: {error}") from error
        except Exception as error:
            place = where_in_the_program(error)
            raise NotCapturableError(f"{place}: {_reason(error)}") from error
    _placeholders_first(graph_module.graph)
    graph_module.graph.eliminate_dead_code()
    graph_module.recompile()
    state, more = zip(*lifting.lifted.values(), strict=True) if lifting.lifted else ((), ())
    return Capture(graph_module, list(state), [*fakes, *more], mode)


class Lifting(TorchDispatchMode):
    """Turn each tensor that exists outside of a recording, when it is first met, into an input of the graph."""

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.mode = mode
        self.lifted: dict[Any, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # asked for twice as often as all operations together
        if func in CONSTANTS:  # a number that the program writes down
            return func(*args, **(kwargs or {}))
        if func in OPAQUE:
            raise NotCapturableError(OPAQUE[func])
        if kwargs and kwargs.get("generator") is not None:
            raise NotCapturableError("the program draws from a generator of its own: use the default one")
        lifted = {name: self._lift(value) for name, value in kwargs.items()} if kwargs else {}
        return UNTOLD.get(func, func)(*map(self._lift, args), **lifted)

    def _lift(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(self._lift, value))
        if not isinstance(value, Tensor):
            return value
        proxy_mode = get_proxy_mode()
        assert proxy_mode is not None
        tracer = proxy_mode.tracer
        if get_proxy_slot(value, tracer, None) is not None:
            return value
        key = place_in_memory(value)
        if key not in self.lifted:
            fake = _without_values(self.mode, value)
            proxy = tracer.create_proxy("placeholder", f"state_{len(self.lifted)}", (), {})
            track_tensor(fake, proxy, constant=None, tracer=tracer)
            self.lifted[key] = (value, fake)
        return self.lifted[key][1]


def _renewed(tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, FakeTensor) else tensor.detach().requires_grad_(tensor.requires_grad)


def _without_values(mode: FakeTensorMode, tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, FakeTensor) else mode.from_tensor(tensor)


def place_in_memory(tensor: Tensor) -> Any:
    """Tell tensors apart by what they show: a parameter and its ``.data`` are one input."""
    if isinstance(tensor, FakeTensor) or not tensor.numel():
        return id(tensor)
    return (
        tensor.device,
        tensor.untyped_storage().data_ptr(),
        tensor.storage_offset(),
        tensor.dtype,
        tensor.shape,
        tensor.stride(),
    )


def _placeholders_first(graph: fx.Graph) -> None:
    nodes = list(graph.nodes)
    first = next(node for node in nodes if node.op != "placeholder")
    for node in nodes[nodes.index(first) :]:
        if node.op == "placeholder":
            first.prepend(node)


@contextmanager
def _guarded_host(modules: Iterable[nn.Module], lifting: Lifting) -> Iterator[None]:
    """Refuse a function that changes the host's state, and put that back.

    Raises:
        NotCapturableError: where random numbers were drawn by Python or NumPy, or a module was given another tensor
            instead of one that the function had read. Instead of others it may: those are caches.
    """
    python, numpy = random.getstate(), np.random.get_state()
    held = [
        (tensors, dict(tensors))
        for root in modules
        for module in root.modules()
        for tensors in (module._parameters, module._buffers, module.__dict__)
    ]
    setters = [(owner, name, getattr(owner, name)) for owner, name in SETTERS]
    for owner, name, _ in setters:
        setattr(owner, name, _refused)
    try:
        yield
    finally:
        for owner, name, setter in setters:
            setattr(owner, name, setter)
        carried = [name for tensors, before in held for name in _restored(tensors, before, lifting)]
        drew = random.getstate() != python or any(
            not np.array_equal(a, b) for a, b in zip(np.random.get_state(), numpy, strict=True)
        )
        random.setstate(python)
        np.random.set_state(numpy)
    if carried:
        raise NotCapturableError(
            f"the program puts a new tensor in the place of {carried[0]!r}: change the old one, with .copy_(...)"
        )
    if drew:
        raise NotCapturableError("the program draws random numbers by Python or NumPy: draw them by torch or Pyro")


def _restored(tensors: dict[str, Any], before: dict[str, Any], lifting: Lifting) -> list[str]:
    """Put tensors back that were replaced by others without values, and name those that had been read before."""
    carried = []
    for name in [n for n, value in tensors.items() if isinstance(value, FakeTensor) and before.get(n) is not value]:
        del tensors[name]
        if name in before:
            tensors[name] = before[name]
            if isinstance(before[name], Tensor) and place_in_memory(before[name]) in lifting.lifted:
                carried.append(name)
    return carried


SETTERS = [(torch, "manual_seed"), (torch, "set_rng_state"), (torch.random, "set_rng_state")]


def _refused(*args: Any, **kwargs: Any) -> Any:
    raise NotCapturableError("the program sets the state of torch's random number generator here")


def _reason(error: BaseException) -> str:
    """Say in a line why a recording failed."""
    first = _deepest(error)
    name = type(first).__name__
    if "DataDependent" in name or "value out of" in str(error) or "_local_scalar_dense" in str(error):
        return "the value of a tensor is read here (.item(), float(...), or an `if` on it)"
    if "DynamicOutputShape" in name:
        return "a shape depends on the values of a tensor here (x[mask], nonzero, unique)"
    return f"{name}: {' '.join(str(first).split())[:200]}"


def where_in_the_program(error: BaseException) -> str:
    """Return the file and line, outside of libraries, that an error came from."""
    places = [
        (frame.f_code.co_filename, line)
        for frame, line in walk_tb(_deepest(error).__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] not in LIBRARIES | {"pyrogen", "contextlib"}
    ]
    if not places:
        places = [(f.f_code.co_filename, line) for f, line in walk_tb(_deepest(error).__traceback__)]
    return "{}:{}".format(*places[-1]) if places else "the program"


def _deepest(error: BaseException) -> BaseException:
    """Return what an error was first: Pyro raises errors of sites again, with shapes added."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
