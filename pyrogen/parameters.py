"""Find the modules and parameters that programs are made of, wherever Pyro lets a user keep them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from inspect import getclosurevars, isfunction, ismethod
from types import CodeType, ModuleType
from typing import Any

import torch
from pyro import get_param_store, poutine
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from pyrogen.errors import ProgramError
from pyrogen.schedule import schedules

__all__ = [
    "check_held",
    "check_one_device",
    "first_device",
    "live_state",
    "modules_of",
    "owners",
    "program_parameters",
    "running_statistics",
    "take_state",
]


def owners(*programs: Any) -> dict[str, nn.Module]:
    """Name the modules that *are* programs: a module itself, the ``self`` of a bound method, what a handler wraps.

    All their parameters are the programs' own. Names come from the position: ``model``, ``guide``, ``program2``, ...;
    a module that serves two programs is listed once, under the first.

    Example:
        >>> class Pair(nn.Module):
        ...     def model(self): ...
        ...     def guide(self): ...
        >>> pair = Pair()
        >>> list(owners(pair.model, pair.guide))
        ['model']
    """
    names = ["model", "guide", *(f"program{i}" for i in range(2, len(programs)))]
    found: dict[int, tuple[str, nn.Module]] = {}
    for name, program in zip(names, programs, strict=False):
        for i, module in enumerate(_unwrapped(program)):
            found.setdefault(id(module), (f"{name}{i or ''}", module))
    return dict(found.values())


def _unwrapped(program: Any) -> Iterator[nn.Module]:
    if isinstance(program, nn.Module):
        yield program
    elif ismethod(program):
        yield from _unwrapped(program.__self__)
    elif isinstance(program, partial):
        for part in (program.func, *program.args, *program.keywords.values()):
            yield from _unwrapped(part)
    elif hasattr(program, "__wrapped__"):
        yield from _unwrapped(program.__wrapped__)


def modules_of(*programs: Any) -> dict[str, nn.Module]:
    """Name every module within the programs' reach: their owners, and those in closures, globals and attributes.

    Looked into are functions (nested ones too), methods, handlers, lists, tuples, dicts and plain objects. Modules of
    equal names are told apart by a number.

    Example:
        >>> net = nn.Linear(2, 3)
        >>> def model(x): return net(x)
        >>> modules_of(model)
        {'net': Linear(in_features=2, out_features=3, bias=True)}
    """
    found = {id(module): (name, module) for name, module in owners(*programs).items()}
    for program in programs:
        for name, module in _reachable(program, "", set(), 0):
            found.setdefault(id(module), (name, module))
    inner = {id(child) for _, module in found.values() for child in module.modules() if child is not module}
    named: dict[str, nn.Module] = {}
    for key, (name, module) in found.items():
        if key not in inner:
            alike = sum(other == name or other.startswith(f"{name}#") for other in named)
            named[f"{name}#{alike + 1}" if alike else name] = module
    return named


LIBRARIES = {"torch", "pyro", "numpy", "zuko", "builtins"}
DEEPEST, LONGEST = 6, 256
"""How deep objects are looked into for modules, and how many items a container may have to be looked into."""


def _reachable(part: Any, name: str, seen: set[int], depth: int) -> Iterator[tuple[str, nn.Module]]:
    if id(part) in seen or depth > DEEPEST:
        return
    seen.add(id(part))
    if isinstance(part, nn.Module):
        yield name or type(part).__name__, part
        return
    for inner_name, inner in _parts(part):
        yield from _reachable(inner, inner_name.format(name).strip("."), seen, depth + 1)


def _parts(part: Any) -> Iterator[tuple[str, Any]]:
    """List what an object holds, each with a pattern of its name; ``{}`` stands for the object's own."""
    if ismethod(part):
        yield "{}", part.__self__
        yield "{}", part.__func__
    elif isinstance(part, partial):
        for inner in (part.func, *part.args, *part.keywords.values()):
            yield "{}", inner
    elif isfunction(part):
        if part.__module__ is None or part.__module__.partition(".")[0] not in LIBRARIES:
            yield from getclosurevars(part).nonlocals.items()
            yield from (
                (name, part.__globals__[name]) for name in global_names(part.__code__) if name in part.__globals__
            )
    elif isinstance(part, list | tuple) and len(part) <= LONGEST:
        yield from ((f"{{}}.{i}", inner) for i, inner in enumerate(part))
    elif isinstance(part, dict) and len(part) <= LONGEST:
        yield from ((f"{{}}.{key}", inner) for key, inner in part.items() if isinstance(key, str | int))
    elif not isinstance(part, type | ModuleType | Tensor):
        yield from ((f"{{}}.{key}", inner) for key, inner in getattr(part, "__dict__", {}).items())


def global_names(code: CodeType) -> set[str]:
    """Name the globals that a function uses, those of the functions and comprehensions within it included."""
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return set(code.co_names).union(*map(global_names, inner))


def program_parameters(programs: Iterable[Any], run: Callable[[], Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Run an objective once and name the unconstrained parameters of its programs.

    Counted are the parameters of the modules that are programs (``model.decoder.0.weight``), and those that
    ``pyro.param`` and ``pyro.module`` statements bring (``param.loc``).

    Args:
        programs: the model, the guide, ...
        run: calls the objective on them; autoguides and ``pyro.param`` create their parameters here.

    Returns:
        The parameters that want gradients, by name, and what ``run`` returned.

    Raises:
        ProgramError: where a module was given another module's values by Pyro's global parameter store.
    """
    programs = tuple(programs)
    stored = set(get_param_store().keys())
    before = {id(p): p for module in modules_of(*programs).values() for p in module.parameters()}
    frozen = [p for p in before.values() if not p.requires_grad]
    with poutine.trace(param_only=True) as capture:
        try:
            loss = run()
        except (AssertionError, RuntimeError) as error:
            # torch says that devices differ, but not whose they are.
            sites = {n: site["value"] for n, site in capture.trace.nodes.items() if site["type"] == "param"}
            check_one_device(*programs, others=sites)
            if stored:
                error.add_note(
                    f"Pyro's global parameter store held {', '.join(sorted(stored)[:3])} already. If an earlier "
                    f"program left that there, call pyro.clear_param_store() before this fit."
                )
            raise
    for p in frozen:
        p.requires_grad_(False)  # Pyro's store turns gradients on for whatever it is shown
    _refuse_adopted(programs, stored, set(before))
    named: dict[str, Tensor] = {}
    held: set[int] = set()
    for owner, module in owners(*programs).items():  # of which one may be a part of another
        own = [(key, p) for key, p in module.named_parameters() if id(p) not in held]
        named.update((f"{owner}.{key}", p) for key, p in own)
        held.update(id(p) for _, p in own)
    reached = {id(leaf) for leaf in leaves(loss)}
    for name, site in capture.trace.nodes.items():
        if site["type"] != "param" or not isinstance(site["value"], Tensor):
            continue
        value = site["value"]
        tensor = value.unconstrained() if hasattr(value, "unconstrained") else value
        # A store may still hold a same-named module's parameters of an earlier fit: this loss does not reach them.
        stale = name in stored and id(tensor) not in reached
        if id(tensor) not in held and not stale:
            named[f"param.{name}"] = tensor
            held.add(id(tensor))
    return {name: p for name, p in named.items() if p.requires_grad}, loss


def _refuse_adopted(programs: tuple[Any, ...], stored: set[str], known: set[int]) -> None:
    """Refuse a module whose parameter Pyro replaced by one that an earlier module of the same name left behind."""
    store = get_param_store()
    for owner, module in owners(*programs).items():
        if not isinstance(module, PyroModule):
            continue
        here = {id(p): key for key, p in module.named_parameters()}
        for name in stored:
            p = store._params.get(name)
            if id(p) in here and id(p) not in known:
                raise ProgramError(
                    f"parameter {here[id(p)]!r} of the {owner} took over the values that an earlier program left in "
                    f"Pyro's global parameter store as {name!r}. Call pyro.clear_param_store() before a new fit, or "
                    f"pyro.settings.set(module_local_params=True) once."
                )


def leaves(*outputs: Tensor) -> list[Tensor]:
    """List the tensors that gradients of the outputs would reach."""
    pending = [output.grad_fn for output in outputs if output.grad_fn is not None]
    found: list[Tensor] = [output for output in outputs if output.requires_grad and output.grad_fn is None]
    seen: set[Any] = set(pending)
    while pending:
        node = pending.pop()
        if hasattr(node, "variable"):
            found.append(node.variable)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                pending.append(following)
    return found


def check_held(
    loss: Tensor,
    parameters: Mapping[str, Tensor],
    held: Iterable[Tensor],
    programs: Iterable[Any],
    inputs: Iterable[Any] = (),
) -> None:
    """Refuse a parameter that the loss depends on and nobody would update.

    Args:
        parameters: those of the programs by name, from :func:`program_parameters`.
        held: those that an optimiser holds.
        inputs: the programs' arguments, which may want gradients for reasons of their own.

    Raises:
        ProgramError: that names the parameter and the ways to hold or to freeze it.
    """
    ids = {id(p) for p in (*held, *inputs)}
    names = {id(p): name for name, p in parameters.items()}
    for leaf in leaves(loss):
        if id(leaf) in ids or not leaf.requires_grad:
            continue
        within = (
            f"{name}.{key}"
            for name, module in modules_of(*programs).items()
            for key, p in module.named_parameters()
            if p is leaf
        )
        raise ProgramError(
            f"the loss depends on {names.get(id(leaf)) or next(within, 'a tensor')} of shape {tuple(leaf.shape)}, "
            f"which the optimiser does not hold: it would never be fitted. Register its module with pyro.module(...) "
            f"inside the program or make it part of a module that is the program; pass it to the optimiser; or freeze "
            f"it with requires_grad_(False)."
        )


def check_one_device(*programs: Any, others: Mapping[str, Tensor] | None = None) -> torch.device | None:
    """Return the device of the programs' modules and other tensors, and refuse more than one, by name."""
    tensors = dict(others or {})
    for name, module in modules_of(*programs).items():
        tensors |= {f"{name}.{key}": tensor for key, tensor in (*module.named_parameters(), *module.named_buffers())}
    found = {tensor.device: name for name, tensor in tensors.items()}
    if len(found) > 1:
        where = ", ".join(f"{name} is on {device}" for device, name in found.items())
        raise ProgramError(f"{where}. Move all programs, parameters and the objective to one device with .to(...).")
    return next(iter(found), None)


def first_device(*programs: Any) -> torch.device | None:
    """Return the device of the first parameter of programs that are known to be on one; ``None`` without parameters."""
    return next((p.device for module in modules_of(*programs).values() for p in module.parameters()), None)


def live_state(programs: Iterable[Any], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name every tensor that a fit of the programs leaves behind: the parameters, frozen ones, and buffers.

    Args:
        parameters: from :func:`program_parameters`.
    """
    state = dict(parameters)
    held = {id(tensor) for tensor in state.values()}
    for name, module in modules_of(*programs).items():
        for key, tensor in module.state_dict(keep_vars=True).items():
            if isinstance(tensor, Tensor) and id(tensor) not in held:
                state[f"{name}.{key}"] = tensor
                held.add(id(tensor))
    return state


def running_statistics(programs: Iterable[Any]) -> dict[str, Tensor]:
    """Name what normalisation layers remember of their inputs, as :func:`live_state` names it.

    Parameters that are averaged go with statistics that are.
    """
    return {
        f"{name}.{prefix}{'.' if prefix else ''}{key}": tensor
        for name, module in modules_of(*programs).items()
        for prefix, part in module.named_modules()
        if isinstance(part, _NormBase)
        for key, tensor in part.named_buffers(recurse=False)
        if tensor.is_floating_point()
    }


def take_state(programs: Iterable[Any], parameters: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Copy saved values into the tensors of programs, in place.

    Args:
        parameters: from :func:`program_parameters`.
        saved: of :func:`live_state`.

    Raises:
        ProgramError: where names or shapes differ, with every difference; nothing is copied then.
    """
    programs = tuple(programs)
    live = live_state(programs, parameters)
    differences = [
        *(f"  {name}: saved {tuple(saved[name].shape)}, not in these programs" for name in saved if name not in live),
        *(f"  {name}: {tuple(live[name].shape)} here, not saved" for name in live if name not in saved),
        *(
            f"  {name}: saved {_outlined(saved[name], live[name])}, {_outlined(live[name], saved[name])} here"
            for name in live
            if name in saved and (saved[name].shape, saved[name].dtype) != (live[name].shape, live[name].dtype)
        ),
    ]
    if differences:
        raise ProgramError(
            "the saved parameters belong to other programs. Build the programs with the settings that they were "
            "saved with:\n" + "\n".join(differences)
        )
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(saved[name])
    for schedule in schedules(modules_of(*programs).values()):
        schedule.refresh()


def _outlined(tensor: Tensor, other: Tensor) -> str:
    """Describe a tensor by its shape, and by its dtype where that is what differs."""
    shape = str(tuple(tensor.shape))
    return shape if tensor.dtype == other.dtype else f"{shape} {str(tensor.dtype).removeprefix('torch.')}"
