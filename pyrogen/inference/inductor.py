"""Turn a captured graph into machine code, with torch's Inductor.

Importing Inductor takes seconds, so this module is imported where something is compiled and nowhere else.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._inductor import config
from torch._inductor.compile_fx import compile_fx_inner, record_original_output_strides
from torch._inductor.cpu_vec_isa import valid_vec_isa_list
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes.joint_graph import constant_fold_uniform_value, joint_graph_passes, patterns
from torch._inductor.fx_passes.post_grad import remove_noop_ops
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode

__all__ = ["decompositions", "explore", "lower"]

ATEN = torch.ops.aten
SOFTMAX = {ATEN._softmax.default, ATEN.softmax.int, ATEN.exp.default}
PRODUCTS = {ATEN.bmm.default, ATEN.matmul.default}

SETTINGS = {
    # The same noise as without a compiler, from the same generator: seeds and resume mean what they meant.
    "fallback_random": True,
    # What these check at every call holds by construction: the signature is the key under which a graph is kept.
    "size_asserts": False,
    "alignment_asserts": False,
}


@cache
def explore() -> "Future[None]":
    """Begin to find out which vector instructions there are, which Inductor must know even for what its cache holds.

    It tries some of them in processes of their own. Meanwhile this one can record the program.
    """
    return ThreadPoolExecutor(1, "pyrogen-explore").submit(_explored)


def _explored() -> None:
    # The tries of AVX2 and AVX-512 take a second, and cannot fail: the kernel lists what the processor has and may be
    # used, and any compiler that takes torch's headers has both.
    with config.patch({"cpp.vec_isa_ok": True}):
        valid_vec_isa_list()


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
    # On the host, the calls between kernels cost more in Python than many kernels do, and channels are better left
    # first: with them last, a round of DCGAN with a gradient penalty takes a fifth more, for all the copies.
    on_host = all(fake.device.type == "cpu" for fake in fakes)
    settings = SETTINGS | {"cpp_wrapper": on_host, "layout_optimization": not on_host}
    if on_host:
        explore().result()
    with config.patch(settings), tracing(TracingContext(mode)), V.set_fake_mode(mode), torch.no_grad():
        _simplify(module)
        made: Any = compile_fx_inner(
            module, list(fakes), static_input_idxs=list(static), cpp_wrapper=on_host, is_inference=True
        )
    return made.current_callable if on_host else made


def _simplify(module: fx.GraphModule) -> None:
    """Do Inductor's work on a whole graph that comes before its work on kernels.

    To know attention when it sees it, Inductor traces some fifty forms of it first, which takes longer than most
    programs' graphs: only where there may be any.
    """
    targets = {node.target for node in module.graph.nodes}
    if targets & PRODUCTS and targets & SOFTMAX:
        joint_graph_passes(module)
        return
    remove_noop_ops(module.graph)
    constant_fold_uniform_value(module)
    if patterns.apply(module.graph):
        module.graph.lint()
    module.recompile()
