"""Find the modules and parameters that programs are made of, wherever Pyro lets a user keep them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from inspect import getclosurevars, isfunction, ismethod
from typing import Any

import torch
from pyro import get_param_store, poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrogen.errors import ProgramError

__all__ = ["check_held", "check_one_device", "live_state", "modules_of", "owners", "program_parameters", "take_state"]


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

    Example:
        >>> net = nn.Linear(2, 3)
        >>> def model(x): return net(x)
        >>> modules_of(model)
        {'net': Linear(in_features=2, out_features=3, bias=True)}
    """
    found: dict[int, tuple[str, nn.Module]] = {}
    for name, module in owners(*programs).items():
        found[id(module)] = (name, module)
    for program in programs:
        for name, module in _reachable(program, "", set()):
            found.setdefault(id(module), (name, module))
    inner = {id(child) for _, module in found.values() for child in module.modules() if child is not module}
    return {name: module for key, (name, module) in found.items() if key not in inner}


def _reachable(part: Any, name: str, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, nn.Module):
        yield name or type(part).__name__, part
    elif ismethod(part):
        yield from _reachable(part.__self__, name, seen)
        yield from _reachable(part.__func__, name, seen)
    elif isinstance(part, partial):
        for inner in (part.func, *part.args, *part.keywords.values()):
            yield from _reachable(inner, name, seen)
    elif isfunction(part):
        variables = getclosurevars(part)
        for inner_name, inner in (*variables.nonlocals.items(), *variables.globals.items()):
            if isinstance(inner, nn.Module | partial) or isfunction(inner) or ismethod(inner):
                yield from _reachable(inner, inner_name, seen)
            elif not callable(inner) and hasattr(inner, "__dict__"):
                yield from _attributes(inner, inner_name)
    else:
        yield from _attributes(part, name)


def _attributes(part: Any, name: str) -> Iterator[tuple[str, nn.Module]]:
    for inner_name, inner in getattr(part, "__dict__", {}).items():
        if isinstance(inner, nn.Module) and type(part).__module__ != "builtins" and isinstance(inner_name, str):
            yield f"{name}.{inner_name}".lstrip("."), inner


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
        except RuntimeError:
            # torch says that devices differ, but not whose they are.
            sites = {n: site["value"] for n, site in capture.trace.nodes.items() if site["type"] == "param"}
            check_one_device(*programs, others=sites)
            raise
    for p in frozen:
        p.requires_grad_(False)  # Pyro's store turns gradients on for whatever it is shown
    _refuse_adopted(programs, stored, set(before))
    named: dict[str, Tensor] = {}
    for owner, module in owners(*programs).items():
        named.update((f"{owner}.{key}", parameter) for key, parameter in module.named_parameters())
    reached = {id(leaf) for leaf in leaves(loss)}
    held = {id(p) for p in named.values()}
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


def check_held(loss: Tensor, parameters: Mapping[str, Tensor], held: Iterable[Tensor], programs: Iterable[Any]) -> None:
    """Refuse a parameter that the loss depends on and nobody would update.

    Args:
        parameters: those of the programs by name, from :func:`program_parameters`.
        held: those that an optimiser holds.

    Raises:
        ProgramError: that names the parameter and the ways to hold or to freeze it.
    """
    ids = {id(p) for p in held}
    names = {id(p): name for name, p in parameters.items()}
    for leaf in leaves(loss):
        if id(leaf) in ids or not leaf.requires_grad or not (isinstance(leaf, nn.Parameter) or id(leaf) in names):
            continue
        within = (
            f"{name}.{key}"
            for name, module in modules_of(*programs).items()
            for key, p in module.named_parameters()
            if p is leaf
        )
        raise ProgramError(
            f"the loss depends on {names.get(id(leaf)) or next(within, 'a parameter')} of shape {tuple(leaf.shape)}, "
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


def take_state(live: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Copy saved values into live tensors, in place.

    Raises:
        ProgramError: where names or shapes differ, with every difference; nothing is copied then.
    """
    differences = [
        *(f"  {name}: saved {tuple(saved[name].shape)}, not in these programs" for name in saved if name not in live),
        *(f"  {name}: {tuple(live[name].shape)} here, not saved" for name in live if name not in saved),
        *(
            f"  {name}: saved {tuple(saved[name].shape)}, {tuple(live[name].shape)} here"
            for name in live
            if name in saved and saved[name].shape != live[name].shape
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
