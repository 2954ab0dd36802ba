"""Turn a captured graph into machine code, with torch's Inductor.

Importing Inductor takes seconds, so this module is imported where something is compiled and nowhere else.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._inductor import config
from torch._inductor.compile_fx import compile_fx_inner, record_original_output_strides
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes.joint_graph import joint_graph_passes
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode

__all__ = ["decompositions", "lower"]

SETTINGS = {
    # The same noise as without a compiler, from the same generator: seeds and resume mean what they meant.
    "fallback_random": True,
    # What these check at every call holds by construction: the signature is the key under which a graph is kept.
    "size_asserts": False,
    "alignment_asserts": False,
}


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return what Inductor wants operations to be written with."""
    with config.patch(SETTINGS):
        return dict(select_decomp_table())


def lower(module: fx.GraphModule, fakes: Sequence[Tensor], mode: FakeTensorMode, static: Sequence[int]) -> Any:
    """Compile a functional graph; its code is kept in Inductor's cache on disk.

    Args:
        module: a graph of ATen operations whose only side effects are copies into its inputs, at its end.
        fakes: its inputs, without values.
        static: which inputs stay where they are in memory from call to call.

    Returns:
        A function of the list of inputs, which it empties, to a sequence of outputs.
    """
    output: Any = module.graph.output_node()
    output.meta["user_visible_output_idxs"] = list(range(len(output.args[0])))
    record_original_output_strides(module)  # callers rely on how outputs lie in memory
    # On the host, the calls between kernels cost more in Python than many kernels do.
    on_host = all(fake.device.type == "cpu" for fake in fakes)
    settings = SETTINGS | {"cpp_wrapper": on_host}
    with config.patch(settings), tracing(TracingContext(mode)), V.set_fake_mode(mode), torch.no_grad():
        joint_graph_passes(module)
        made: Any = compile_fx_inner(
            module, list(fakes), static_input_idxs=list(static), cpp_wrapper=on_host, is_inference=True
        )
    return made.current_callable if on_host else made
