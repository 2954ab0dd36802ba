"""A tree comes back bit for bit, or not at all."""

import ast
import json
import math
import random
import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pyrogen.runs
import pyrogen.trees
from pyrogen import files, storage
from pyrogen.errors import CorruptCheckpointError, FormatVersionError, InputOutputError, MissingInputError
from pyrogen.files import sweep, write_file
from pyrogen.storage import read_files, read_folder, seal, unseal, write_folder
from pyrogen.trees import pack, unpack

DTYPES = sorted(pyrogen.trees._DTYPES, key=str)


def same(a: Any, b: Any) -> bool:
    """Equality of types, order, signs of zeros and NaN payloads, which ``==`` would overlook."""
    if isinstance(a, torch.Tensor):
        return (a.dtype, a.shape) == (b.dtype, b.shape) and bytes_of(a) == bytes_of(b)
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, dict):
        return same([*a.items()], [*b.items()])
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def through_files(tree: Any) -> Any:
    """What is left of a tree after JSON and safetensors."""
    skeleton, tensors = pack(tree)
    stored = storage.safetensors.torch.load(storage.safetensors.torch.save(tensors))
    return unpack(json.loads(json.dumps(skeleton, allow_nan=False)), stored)


def a_tensor(dtype: torch.dtype, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    size = math.prod(shape) * dtype.itemsize
    generator = torch.Generator().manual_seed(seed)
    high = 2 if dtype == torch.bool else 256
    return torch.randint(high, (size,), dtype=torch.uint8, generator=generator).view(dtype).reshape(shape)


any_float = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("d", bits.to_bytes(8, "little"))[0])
shapes = st.sampled_from([(), (0,), (1,), (3,), (2, 3), (2, 0, 3)])
tensors = st.builds(a_tensor, st.sampled_from(DTYPES), shapes, st.integers(0, 99))
texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=5)
leaves = st.none() | st.booleans() | st.integers() | any_float | st.floats() | texts | tensors
keys = texts | st.integers()
trees = st.recursive(
    leaves,
    lambda node: (
        st.lists(node, max_size=4)
        | st.lists(node, max_size=4).map(tuple)
        | st.dictionaries(keys, node, max_size=4)
        | st.dictionaries(keys, node, max_size=2).map(OrderedDict)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(trees)
def test_any_tree_comes_back_bit_for_bit(tree: Any) -> None:
    assert same(through_files(tree), tree)


@pytest.mark.parametrize("bits", [0x7FF8000000000000, 0x7FF0000000000001, 0xFFF8DEADBEEF0000, 0x8000000000000000, 1])
def test_floats_keep_every_bit(bits: int) -> None:
    value = struct.unpack(">d", bits.to_bytes(8, "big"))[0]
    assert same(through_files({"x": value})["x"], value)
    assert same(through_files([math.inf, -math.inf, 0.1, 1e308]), [math.inf, -math.inf, 0.1, 1e308])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_tensors_of_every_dtype(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    assert same(through_files(a_tensor(dtype, shape)), a_tensor(dtype, shape))


def test_tensors_that_share_memory_or_are_views() -> None:
    base = torch.arange(12.0, requires_grad=True)
    z = torch.randn(3, dtype=torch.complex64)
    tree = {
        "base": base, "tail": base[6:], "strided": base[::5], "transposed": base.view(3, 4).T,
        "expanded": torch.ones(1).expand(4), "conjugate": z.conj(), "negative": z.conj().imag,
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }  # fmt: skip
    back = through_files(tree)
    for name, value in tree.items():
        assert torch.equal(back[name], value), name
        assert not back[name].requires_grad
    assert back["base"].untyped_storage().data_ptr() != back["tail"].untyped_storage().data_ptr()


def test_pack_takes_a_snapshot() -> None:
    weight = torch.zeros(2)
    _, packed = pack({"w": weight})
    weight += 1
    assert torch.equal(packed["0:w"], torch.zeros(2))


def test_names_that_clash_when_joined() -> None:
    tree = {"a": {"b": torch.zeros(1)}, "a.b": torch.ones(1), 0: torch.full((1,), 2.0), "0": torch.full((1,), 3.0)}
    tree["__metadata__"] = torch.full((1,), 4.0)
    assert same(through_files(tree), tree)
    assert same(through_files(torch.ones(2)), torch.ones(2))


@pytest.mark.parametrize(
    "array", [np.arange(5, dtype=np.uint32), np.ones((2, 3), order="F"), np.array(2.5), np.zeros(0)]
)
def test_arrays(array: np.ndarray) -> None:
    back = through_files({"a": array})["a"]
    assert same(back, array)
    assert back.flags.writeable


def test_random_states_continue_the_same_stream() -> None:
    generator = np.random.default_rng(3)
    states = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "generator": generator.bit_generator.state,
    }
    expected = random.random(), np.random.rand(), torch.rand(()).item(), generator.random()
    back = through_files(states)
    assert same(back, states)
    random.setstate(back["python"])
    np.random.set_state(back["numpy"])
    torch.set_rng_state(back["torch"])
    generator.bit_generator.state = back["generator"]
    assert (random.random(), np.random.rand(), torch.rand(()).item(), generator.random()) == expected


OPTIMISERS: list[Callable[..., torch.optim.Optimizer]] = [
    lambda p: torch.optim.Adam(p, 0.1, amsgrad=True),
    lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    lambda p: torch.optim.RMSprop(p, 0.1, centered=True),
    lambda p: torch.optim.LBFGS(p, max_iter=2),
]
SCHEDULERS: list[Callable[..., Any]] = [
    lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
    lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 2, 5]),
    lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=9, cycle_momentum=False),
    lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda n: 0.9**n),
]


@pytest.mark.parametrize("optimiser", range(len(OPTIMISERS)))
@pytest.mark.parametrize("scheduler", range(len(SCHEDULERS)))
def test_states_of_optimisers_and_schedulers(optimiser: int, scheduler: int) -> None:
    layer = torch.nn.Linear(2, 1, dtype=torch.float64)
    o = OPTIMISERS[optimiser](layer.parameters())
    s = SCHEDULERS[scheduler](o)
    for _ in range(3):
        o.zero_grad()
        layer(torch.ones(1, 2, dtype=torch.float64)).square().sum().backward()
        o.step(lambda: layer(torch.ones(1, 2, dtype=torch.float64)).square().sum())
        s.step()
    state = {"module": layer.state_dict(), "optimiser": o.state_dict(), "scheduler": s.state_dict()}
    assert same(through_files(state), state)


class Surprise(dict):
    pass


@pytest.mark.parametrize(
    "leaf",
    [
        object(), {1, 2}, b"bytes", 1j, Surprise(), defaultdict(int), torch.Size([2]), np.float64(1.0), torch.float32,
        np.array(["a"]), np.array([None]), np.ones(2, dtype=">f8"), np.ones(2, dtype=np.longdouble),
        np.ones(2, complex), torch.ones(2).to_sparse(), torch.ones(2, device="meta"), torch.empty(2, dtype=torch.bits8),
        print, ...,
    ],
    ids=lambda leaf: type(leaf).__name__,
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_anything_else_is_refused_by_its_path(leaf: Any) -> None:
    with pytest.raises(TypeError, match=r"^optimizer\.state\.0\.exp_avg: .*; expected"):
        pack({"optimizer": {"state": [{"exp_avg": leaf}]}})


@pytest.mark.parametrize("key", [1.5, None, True, (1, 2), b"k"])
def test_keys_are_strings_or_integers(key: Any) -> None:
    with pytest.raises(TypeError, match=r"^a: the key .* is a .*; expected str or int"):
        pack({"a": {key: 1}})


def test_a_tree_that_holds_itself() -> None:
    tree: list[Any] = []
    tree.append(tree)
    with pytest.raises(TypeError, match="holds itself"):
        pack(tree)


@pytest.mark.parametrize(
    "skeleton",
    [
        {}, {"tuple": 1}, {"tensor": "none"}, {"tensor": []}, {"os.system": "true"}, {"dict": [[1]]}, {"float": "xyz"},
        {"float": "00"}, {"dict": [[1.5, 1]]}, {"a": 1, "b": 2}, {"complex": "t"}, {"tuple": [1]}, "t", None,
    ],
)  # fmt: skip
def test_a_skeleton_that_does_not_fit(skeleton: Any) -> None:
    with pytest.raises(CorruptCheckpointError):
        unpack(skeleton, {"t": torch.zeros(3)})


def test_counter_keeps_its_counts() -> None:
    assert same(through_files(Counter({3: 2, "a": 1})), Counter({3: 2, "a": 1}))


def test_folder_with_further_files(tmp_path: Path) -> None:
    write_folder(tmp_path / "c", {"w": torch.ones(2)}, {"notes.txt": b"hello"}, {"step": 1, "names": ["a"], "x": None})
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [
        "manifest.json", "notes.txt", "state.json", "state.safetensors",
    ]  # fmt: skip
    tree, meta = read_folder(tmp_path / "c")
    assert same(tree, {"w": torch.ones(2)})
    assert meta == {"step": 1, "names": ["a"], "x": None}
    assert read_files(tmp_path / "c")[0]["notes.txt"] == b"hello"


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "", ".", "..", ".hidden", "manifest.json", "state.json", "a\0b"])
def test_further_files_have_new_plain_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="plain file name"):
        write_folder(tmp_path / "c", None, {name: b""}, {})


@pytest.mark.parametrize("meta", [{"x": math.nan}, {"x": (1,)}, {1: "x"}, {"x": object()}, {"x": math.inf}])
def test_meta_data_are_plain_json(tmp_path: Path, meta: Any) -> None:
    with pytest.raises(TypeError, match="plain JSON"):
        write_folder(tmp_path / "c", None, None, meta)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "c", 1, {"old": b""}, {})
    write_folder(tmp_path / "c", 2, None, {})
    assert read_folder(tmp_path / "c") == (2, {})
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    assert not (tmp_path / "c" / "old").exists()


def test_missing_and_misplaced_folders(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no folder"):
        read_folder(tmp_path / "c")
    (tmp_path / "c").write_bytes(b"")
    with pytest.raises(CorruptCheckpointError, match="not a folder"):
        read_folder(tmp_path / "c")
    (tmp_path / "d").mkdir()
    with pytest.raises(CorruptCheckpointError, match=r"manifest\.json: it is missing"):
        read_folder(tmp_path / "d")


def test_seal_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="sha256"):
        seal("run", {"sha256": "x"})
    with pytest.raises(CorruptCheckpointError, match="'pyrogen checkpoint'; expected 'pyrogen run'"):
        unseal("run", seal("checkpoint", {}), "manifest.json")
    newer = seal("run", {}).replace(b'"format_version": 1', b'"format_version": 12')
    with pytest.raises(FormatVersionError, match=r"version 12, .* up to version 1\. Upgrade"):
        unseal("run", newer, "manifest.json")
    for spoilt in (b"", b"[]", b"{}", b"nul", b'{"format_version": NaN, "format": 1}', b"[" * 100_000, b"\xff\xfe"):
        with pytest.raises(CorruptCheckpointError):
            unseal("run", spoilt, "manifest.json")


def test_sweep_removes_and_restores(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", "a", None, {})
    write_folder(tmp_path / "b", "b", None, {})
    (tmp_path / "a").rename(tmp_path / f".a.{'0' * 16}.old")  # killed between the two renames
    (tmp_path / f".b.{'1' * 16}.old").mkdir()
    (tmp_path / f".b.{'2' * 16}.tmp").write_bytes(b"half")
    (tmp_path / ".b.tmp").write_bytes(b"somebody else's")
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".b.tmp", "a", "b"]
    assert read_folder(tmp_path / "a")[0] == "a"


def test_write_file_replaces(tmp_path: Path) -> None:
    for data in (b"one", b"two"):
        write_file(tmp_path / "f", data)
        assert (tmp_path / "f").read_bytes() == data
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("module", [pyrogen.trees, files, storage, pyrogen.runs])
def test_nothing_here_can_run_a_file(module: Any) -> None:
    nodes = list(ast.walk(ast.parse(Path(module.__file__).read_text())))
    imported = {alias.name for n in nodes if isinstance(n, ast.Import | ast.ImportFrom) for alias in n.names}
    assert not imported & {"pickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "importlib"}
    calls = {ast.unparse(n.func) for n in nodes if isinstance(n, ast.Call)}
    assert not calls & {"eval", "exec", "compile", "__import__", "torch.load", "torch.save", "np.load", "getattr"}


def test_a_file_takes_no_folders_place(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "notes").write_text("mine")
    with pytest.raises(InputOutputError, match="it is a folder"):
        write_file(tmp_path / "runs", b"a page")
    assert (tmp_path / "runs" / "notes").read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs"]
