"""The import rule, read from the syntax trees; what importing changes (nothing); what must never be called."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyrogen

ROOT = Path(pyrogen.__file__).parent
ROOMS = {"models", "inference", "evaluation", "data", "compression"}
TREES = {
    ".".join(("pyrogen", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): ast.parse(
        path.read_text()
    )
    for path in sorted(ROOT.rglob("*.py"))
}
PACKAGES = {".".join(("pyrogen", *p.parent.relative_to(ROOT).parts)) for p in ROOT.rglob("__init__.py")}


def imported(name: str, tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """Yield the pyrogen modules that a module imports, by their full names."""
    package = name if name in PACKAGES else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names if alias.name.split(".")[0] == "pyrogen")
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                parts = package.split(".")
                origin = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])
            if origin.split(".")[0] == "pyrogen":
                for alias in node.names:
                    inner = f"{origin}.{alias.name}"
                    yield (inner if inner in TREES else origin), node


GRAPH = {
    name: {target for target, _ in imported(name, tree) if target in TREES and target != name}
    for name, tree in TREES.items()
}


def room(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else None


def crossings(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """List imports from one room into another."""
    return [(a, b) for a in graph for b in graph[a] if room(a) and room(b) and room(a) != room(b)]


def reached(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    pending = list(graph[start])
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending.extend(graph[name])
    return seen


def climbs(graph: dict[str, set[str]]) -> list[tuple[str, str]]:
    """List modules outside of the rooms that some room rests on, and that come back up to a room."""
    below = {b for a in graph if room(a) for b in reached(graph, a) if room(b) is None}
    return [(a, b) for a in sorted(below) for b in graph[a] if room(b)]


def test_rooms_never_import_each_other():
    assert crossings(GRAPH) == []


def test_nothing_below_a_room_imports_one():
    assert climbs(GRAPH) == []


def test_no_cycles():
    assert [name for name in GRAPH if name in reached(GRAPH, name)] == []


def test_mutant_imports():
    """The checks see a crossing, a climb and a cycle."""
    assert crossings({"pyrogen.models.a": {"pyrogen.inference.b"}, "pyrogen.inference.b": set()})
    climbing = {"pyrogen.models.a": {"pyrogen.spec"}, "pyrogen.spec": {"pyrogen.data.b"}, "pyrogen.data.b": set()}
    assert climbs(climbing)
    assert "pyrogen.a" in reached({"pyrogen.a": {"pyrogen.b"}, "pyrogen.b": {"pyrogen.a"}}, "pyrogen.a")


def test_the_import_graph_is_read():
    assert "pyrogen.traces" in GRAPH["pyrogen.inference.elbo"]
    assert len(GRAPH) > 30


OPTIONAL = {"gymnasium", "lda", "gensim", "constriction", "torchmetrics", "geomloss", "ot", "lightning", "tensorboard"}


def test_no_late_imports():
    """Imports inside functions are for optional dependencies, and for the lazy front door of the package."""
    late = [
        (name, ast.unparse(node))
        for name, tree in TREES.items()
        if name != "pyrogen"
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and not OPTIONAL & {
            part.removeprefix("torch.utils.").split(".")[0]  # torch's own wrapper of TensorBoard is as optional
            for part in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        }
    ]  # fmt: skip
    assert late == []


def test_networks_do_not_know_pyro():
    found = [
        name
        for name, tree in TREES.items()
        if name.startswith("pyrogen.nn")
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and "pyro" in {
            part.removeprefix("torch.utils.").split(".")[0]  # torch's own wrapper of TensorBoard is as optional
            for part in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        }
    ]  # fmt: skip
    assert found == []


# What importing changes

PROBE = """
import json, random, sys, warnings
import numpy as np, pyro, torch
random.seed(1), np.random.seed(1), torch.manual_seed(1)
warnings.simplefilter("error")
warnings.filterwarnings("ignore", message=".torch.jit")  # Inductor's own imports

def state():
    return json.dumps({
        "dtype": str(torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "printing": str(torch._tensor_str.PRINT_OPTS),
        "arguments": torch.distributions.Distribution._validate_args,
        "poutine": [pyro.infer.util.is_validation_enabled(), pyro.distributions.is_validation_enabled()],
        "settings": {name: repr(value) for name, value in pyro.settings.get().items()},
        "store": list(pyro.get_param_store().keys()),
        "numpy": [np.geterr(), np.get_printoptions()],
        "seeds": [random.random(), float(np.random.rand()), float(torch.rand(()))],
        "hook": [repr(sys.excepthook), repr(sys.displayhook)],
    }, default=str, sort_keys=True)

def reseeded():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    return state()

before = reseeded()
import pyrogen
first = sorted(name for name in sys.modules if name.split(".")[0] == "pyrogen")
random.seed(1), np.random.seed(1), torch.manual_seed(1)
"""
EVERY = (
    "for name in {names!r}:\n    __import__(name)\nafter = state()\n"
    "before, after = json.loads(before), json.loads(after)\n"
    "changed = {{name: (before[name], after[name]) for name in before if before[name] != after[name]}}\n"
    "assert not changed, changed\nprint(json.dumps(first))"
)


@pytest.mark.slow
def test_importing_changes_no_global_setting():
    """Not even the random numbers that follow; every submodule is imported, in a fresh process."""
    names = [name for name in TREES if not name.endswith("__main__")]
    done = subprocess.run(
        [sys.executable, "-c", PROBE + EVERY.format(names=names)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not set(json.loads(done.stdout)) & {f"pyrogen.{room}" for room in ROOMS}  # lazy


def test_importing_the_package_pulls_nothing_heavy():
    code = "import sys, pyrogen; print(sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = set(ast.literal_eval(done.stdout))
    assert not loaded & (OPTIONAL | {"matplotlib", "sklearn", "arviz", "jsonargparse", "zuko"})


# What must never be called

FORBIDDEN_MODULES = {"pickle", "dill", "cPickle", "cloudpickle", "shelve", "marshal", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "torch.save", "yaml.load", "yaml.unsafe_load", "pickle.loads"}


def unsafe(tree: ast.AST) -> list[str]:
    """List imports and calls that may run a file's code."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in FORBIDDEN_CALLS or name.endswith("param_store().load"):
                found.append(name)
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if (keyword.arg, value) in {("weights_only", False), ("allow_pickle", True)}:
                    found.append(f"{keyword.arg}={value}")
    return found


@pytest.mark.parametrize("name", TREES)
def test_nothing_unsafe(name):
    assert unsafe(TREES[name]) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from dill import loads", "torch.load(f)", "load(f, weights_only=False)", "eval('1')",
        "exec(code)", "yaml.load(f)", "np.load(f, allow_pickle=True)", "pyro.get_param_store().load(f)",
    ],
)  # fmt: skip
def test_mutant_unsafe_lines_are_seen(line):
    assert unsafe(ast.parse(line))
