"""Take a tree of state apart into JSON and tensors, and put it together again.

A *tree* is what optimisers, schedulers, random generators and modules call their state: dicts, lists and tuples of
numbers, strings, tensors and arrays.
"""

import struct
from collections import Counter, OrderedDict
from collections.abc import Iterable
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrogen.errors import CorruptCheckpointError

__all__ = ["pack", "unpack"]

DEPTH_LIMIT = 100
_MAPPINGS: dict[str, type] = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}
_TAGS = {kind: tag for tag, kind in _MAPPINGS.items()}
_DTYPES = {torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32}
_DTYPES |= {torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128}
_DTYPES |= {torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz}


def pack(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    r"""Split a tree into a skeleton that JSON can hold and the tensors that it names.

    Nodes are ``dict``, ``OrderedDict``, ``Counter`` (keys ``str`` or ``int``), ``list``, ``tuple``, ``None``, ``bool``,
    ``int``, ``float`` (bit for bit, NaN included), ``str``, dense tensors of any shape and real numeric arrays. Tensors
    are copied to the CPU: the result is a snapshot, and no two of its tensors share memory.

    Args:
        tree: the nested structure.

    Returns:
        The skeleton, and a dict of contiguous CPU tensors, each of the shape it has in the tree (with a trailing 2,
        real and imaginary part, where it is complex).

    Raises:
        TypeError: for anything else; the message has the path inside the tree, as in ``optimizer.state.0.exp_avg``.

    Example:
        >>> skeleton, tensors = pack({"lr": 0.1, 0: (torch.zeros(2), None)})
        >>> skeleton
        {'dict': [['lr', 0.1], [0, {'tuple': [{'tensor': '0:0.0'}, None]}]]}
        >>> unpack(skeleton, tensors)
        {'lr': 0.1, 0: (tensor([0., 0.]), None)}
    """
    tensors: dict[str, Tensor] = {}
    return _pack(tree, (), tensors), tensors


def unpack(skeleton: Any, tensors: dict[str, Tensor]) -> Any:
    """Put together again what :func:`pack` took apart; strings are data and name nothing but tensors.

    Raises:
        CorruptCheckpointError: if the two do not fit together, or the skeleton is none.

    Example:
        >>> unpack(*pack([1, 1.0, "1", True]))
        [1, 1.0, '1', True]
    """
    remaining = dict(tensors)
    try:
        tree = _unpack(skeleton, remaining)
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, struct.error) as error:
        raise CorruptCheckpointError(f"the skeleton and the tensors do not fit together: {error!r}") from error
    if remaining:
        raise CorruptCheckpointError(f"the skeleton does not mention the tensors {', '.join(sorted(remaining))}")
    return tree


def _pack(node: Any, path: tuple[str | int, ...], tensors: dict[str, Tensor]) -> Any:
    kind = type(node)
    if len(path) > DEPTH_LIMIT:
        raise TypeError(f"{_dotted(path[:4])}…: the tree is more than {DEPTH_LIMIT} levels deep, or holds itself")
    if node is None or kind in (bool, int, str):
        return node
    if kind is float:
        return node if isfinite(node) else {"float": struct.pack(">d", node).hex()}
    if kind in (list, tuple):
        items = [_pack(item, (*path, index), tensors) for index, item in enumerate(node)]
        return items if kind is list else {"tuple": items}
    if kind in _TAGS:
        if wrong := [key for key in node if type(key) not in (str, int)]:
            raise TypeError(
                f"{_dotted(path)}: the key {wrong[0]!r} is a {type(wrong[0]).__name__}; expected str or int"
            )
        return {_TAGS[kind]: [[key, _pack(value, (*path, key), tensors)] for key, value in node.items()]}
    tag, tensor = _snapshot(node, path)
    name = f"{len(tensors)}:{_dotted(path)}"
    tensors[name] = tensor
    return {tag: name}


def _snapshot(node: Any, path: tuple[str | int, ...]) -> tuple[str, Tensor]:
    if type(node) is np.ndarray and node.dtype.isnative and node.dtype.kind in "biuf" and node.dtype.itemsize <= 8:
        return "array", torch.from_numpy(np.array(node, order="C"))
    if isinstance(node, Tensor) and node.layout == torch.strided and node.dtype in _DTYPES and not node.is_meta:
        # One copy makes it contiguous, unshared, on the CPU, and resolves a lazy conjugate or negative.
        tensor = torch.empty(node.shape, dtype=node.dtype, device="cpu").copy_(node.detach())
        return ("complex", torch.view_as_real(tensor)) if tensor.is_complex() else ("tensor", tensor)
    found = f"{type(node).__module__}.{type(node).__qualname__}"
    if isinstance(node, Tensor | np.ndarray | np.generic):
        found += f" of {node.dtype}"
    raise TypeError(
        f"{_dotted(path)}: a checkpoint cannot hold a {found}; expected dicts, lists and tuples of "
        "None, bool, int, float, str, dense tensors and real arrays"
    )


def _dotted(path: Iterable[str | int]) -> str:
    # The name ends up in the safetensors header, which takes no lone surrogates.
    return ".".join(map(str, path)).encode("ascii", "backslashreplace").decode() or "(root)"


def _unpack(node: Any, tensors: dict[str, Tensor]) -> Any:
    if node is None or isinstance(node, bool | int | float | str):
        return node
    if isinstance(node, list):
        return [_unpack(item, tensors) for item in node]
    [(tag, body)] = node.items()
    match tag:
        case "float":
            return struct.unpack(">d", bytes.fromhex(body))[0]
        case "tuple":
            return tuple(_unpack(item, tensors) for item in body)
        case "tensor":
            return tensors.pop(body)
        case "complex":
            return torch.view_as_complex(tensors.pop(body))
        case "array":
            return tensors.pop(body).numpy()
        case _:
            return _MAPPINGS[tag]({_key(key): _unpack(value, tensors) for key, value in body})


def _key(key: Any) -> str | int:
    if isinstance(key, str) or type(key) is int:
        return key
    raise TypeError(f"{key!r} is not a key")
