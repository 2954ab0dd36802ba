"""Which arguments of a program are data, and which are what the data are conditioned on."""

from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from typing import Any

from torch import Tensor, nn

from pyrogen.errors import ProgramError
from pyrogen.sites import Program

__all__ = ["covariates_of", "with_data"]


def covariates_of(
    model: Program,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    observed: Sequence[Tensor],
    batch: int,
    named: Sequence[str] | None = None,
) -> tuple[Tensor, ...]:
    """List the arguments that may be shown beside real and fake data alike.

    Args:
        model: the program.
        args: its positional arguments.
        kwargs: its keyword arguments.
        observed: what its sites observe.
        batch: how many data there are.
        named: which arguments these are; by default, those that the model names in a tuple ``covariates`` of its own,
            or else those with a row a datum that share memory with nothing that is observed.

    Raises:
        ProgramError: where that cannot be told, or where one that was named is data.
    """
    given = _arguments(model, args, kwargs)
    declared = getattr(model, "covariates", None)
    if named is None and isinstance(declared, tuple):
        named = [name for name in declared if name in given]
    return _covariates(given, observed, batch, named)


def with_data(
    args: tuple[Any, ...], kwargs: dict[str, Any], observed: Mapping[str, Tensor], draws: Mapping[str, Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put draws in the place of the data among a program's arguments.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.
        observed: what each site observes: an argument, in whatever shape.
        draws: what to pass in its place.

    Raises:
        ProgramError: where a site observes what is no argument.
    """
    left = dict(observed)

    def replaced(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        for name, data in observed.items():
            if _memory(data) == _memory(value) and _place(data) == _place(value):
                left.pop(name, None)
                found = draws[name].reshape(value.shape)
                return found if found.is_floating_point() else found.to(value.dtype)
        return value

    found = tuple(map(replaced, args)), {name: replaced(value) for name, value in kwargs.items()}
    if left:
        raise ProgramError(
            f"site {next(iter(left))!r} observes what is no argument of the program, so that the guide cannot be given "
            f"draws in the place of data. Pass the data as they are observed, and change them before"
        )
    return found


def _place(tensor: Tensor) -> tuple[int, int]:
    """Return where in its storage a tensor begins, and how many numbers it has."""
    return int(tensor.storage_offset()), tensor.numel()


def _arguments(model: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """Name the tensors among a program's arguments."""
    bound = signature(model.forward if isinstance(model, nn.Module) else model).bind(*args, **kwargs).arguments
    return {name: tensor for name, value in bound.items() for name, tensor in _tensors(name, value)}


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, tuple):  # *args
        for i, item in enumerate(value):
            yield from _tensors(f"{name}[{i}]", item)
    elif isinstance(value, dict):  # **kwargs
        for key, item in value.items():
            yield from _tensors(key, item)


def _covariates(
    given: dict[str, Tensor], observed: Sequence[Tensor], batch: int, named: Sequence[str] | None
) -> tuple[Tensor, ...]:
    """Choose the arguments that may be shown beside real and fake data alike.

    Raises:
        ProgramError: where that cannot be told, or where one that was named is data.
    """
    kinds = {name: _kind(tensor, observed) for name, tensor in given.items()}
    if named is not None:
        for name in named:
            if name not in given:
                raise ProgramError(f"the model has no tensor argument {name!r}: it has {', '.join(given) or 'none'}")
            if kinds[name] == "data":
                raise ProgramError(f"argument {name!r} is what the model observes: it cannot be a covariate as well")
            if not given[name].dim() or len(given[name]) != batch:
                raise ProgramError(
                    f"covariate {name!r} has shape {tuple(given[name].shape)}, without a row for each of {batch} data"
                )
        return tuple(given[name] for name in named)
    unclear = [name for name, kind in kinds.items() if kind == "unclear"]
    free = {name: t for name, t in given.items() if kinds[name] == "free" and t.dim()}
    strays = [name for name, tensor in free.items() if len(tensor) != batch and tensor.numel() > 1]
    memory = {_memory(tensor) for tensor in given.values()}
    computed = free and any(_memory(value) not in memory for value in observed)
    for names, reason in (
        (unclear, "shares memory with data, and may or may not be"),
        (strays, f"has not a row for each of {batch} data, and may or may not be what they are conditioned on"),
        (list(free) if computed else [], "may be what the model computed its data from, since these are no argument"),
    ):
        if names:
            raise ProgramError(
                f"argument {', '.join(map(repr, names))} {reason}. A critic that saw data beside real and fake would "
                f"tell them apart by looking: name the covariates, as covariates=() for none, or covariates=('y',)"
            )
    return tuple(tensor for tensor in free.values() if len(tensor) == batch)


def _kind(tensor: Tensor, observed: Sequence[Tensor]) -> str:
    """Tell whether an argument is data, is free of them, or neither for certain."""
    sharing = [value for value in observed if _memory(value) == _memory(tensor)]
    if not sharing:
        return "free"
    if any(_place(v) == _place(tensor) for v in sharing):
        return "data"
    # What is observed may be a part of an argument, or the other way round; between others there may be gaps.
    parts = any(tensor.is_contiguous() and _lies_in(v, tensor) for v in sharing)
    wholes = any(v.is_contiguous() and _lies_in(tensor, v) for v in sharing)
    return "data" if parts or wholes else "unclear"


def _lies_in(part: Tensor, whole: Tensor) -> bool:
    """Tell whether a tensor's elements are between the ends of another's, in one storage."""
    ends = [
        (t.storage_offset(), t.storage_offset() + sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)))
        for t in (part, whole)
    ]
    return ends[1][0] <= ends[0][0] and ends[0][1] <= ends[1][1]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
