"""Real and fake data of one program: what objectives without densities compare."""

from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from typing import Any, NamedTuple

import pyro
import torch
from pyro.distributions import MaskedDistribution
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from pyrogen.errors import ProgramError
from pyrogen.sites import Generating, Program, is_data, unwrapped

__all__ = ["Drawing", "Samples", "Transform", "samples_of"]

Transform = Callable[[Tensor], Tensor]
"""From the values of a site to others, row by row."""


class Samples(NamedTuple):
    """Data and the program's draws in their place, one row a datum.

    Attributes:
        real: what each observed site observes, in the program's order, shapes ``(batch, *shape of a datum)``.
        fake: what the program drew there instead, in the same shapes.
        covariates: arguments with a row a datum that no site observes: what the data are conditioned on.
    """

    real: tuple[Tensor, ...]
    fake: tuple[Tensor, ...]
    covariates: tuple[Tensor, ...]

    def transformed(self, transform: "Transform | None") -> "Samples":
        """Return samples with each site's values transformed."""
        if transform is None:
            return self
        return Samples(tuple(map(transform, self.real)), tuple(map(transform, self.fake)), self.covariates)


def samples_of(
    model: Program, args: tuple[Any, ...], kwargs: dict[str, Any], covariates: Sequence[str] | None = None
) -> Samples:
    """Run a program on data, and draw every site that observes some.

    A datum is an index of the plates that all observed sites lie in. Gradients reach the program through the draws.

    Args:
        model: the program.
        args: its positional arguments, data included.
        kwargs: its keyword arguments.
        covariates: which arguments are covariates, by name; by default, those that the model names in a tuple
            ``covariates`` of its own, or else those with a row a datum that share memory with nothing that is observed.

    Raises:
        ProgramError: where nothing is observed, where a site's draws pass no gradient on or have another shape than its
            data, where data are masked, where a datum cannot be told, or where it cannot be told which arguments are
            covariates.
    """
    with Drawing() as drawing:
        model(*args, **kwargs)
    if not drawing.real:
        raise ProgramError("the model observes no data to compare its draws with: pass data, as obs= of some site")
    plates = _shared_plates(drawing)
    fake = tuple(_in_rows(drawing.sites[name]["value"], drawing.sites[name], plates) for name in drawing.real)
    real = tuple(_in_rows(value, drawing.sites[name], plates) for name, value in drawing.real.items())
    # Whole numbers that stand for pixels are compared as the reals that the program draws.
    real = tuple(x.to(y.dtype) if y.is_floating_point() else x for x, y in zip(real, fake, strict=True))
    given = _arguments(model, args, kwargs)
    declared = getattr(model, "covariates", None)
    if covariates is None and isinstance(declared, tuple):
        covariates = [name for name in declared if name in given]
    return Samples(real, fake, _covariates(given, list(drawing.real.values()), len(real[0]), covariates))


class Drawing(Generating):
    """Draw observed sites, and remember what they would have observed.

    Attributes:
        real: the data, by site.
        sites: the sites after their draws, by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.real: dict[str, Tensor] = {}
        self.sites: dict[str, Any] = {}

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if is_data(msg):
            if isinstance(msg["mask"], Tensor) or msg["mask"] is False or _is_masked(msg["fn"]):
                raise ProgramError(
                    f"site {msg['name']!r} is masked, and what is masked would be compared as if it were data. Leave "
                    f"such data out of the batch, or learn by a likelihood (ELBO, MaximumLikelihood)"
                )
            self.real[msg["name"]] = msg["value"]
        super()._pyro_sample(msg)

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        if torch.is_grad_enabled() and not msg["fn"].has_rsample and _wants_gradient(msg["fn"], msg["value"]):
            raise ProgramError(
                f"site {msg['name']!r} is drawn from {type(unwrapped(msg['fn'])).__name__}, through which no gradient "
                f"passes to the parameters behind it. Give the site a distribution with rsample: Normal, Laplace or "
                f"Implicit (of its mean, if that is what you want to compare)"
            )
        self.sites[msg["name"]] = msg
        if msg["name"] in self.real and self.real[msg["name"]].shape != msg["value"].shape:
            raise ProgramError(
                f"site {msg['name']!r} observes data of shape {tuple(self.real[msg['name']].shape)}, and its draws "
                f"have shape {tuple(msg['value'].shape)}: give the data the shape of the distribution"
            )


def _is_masked(fn: Any) -> bool:
    while fn is not None:
        if isinstance(fn, MaskedDistribution) and fn._mask is not True:
            return True
        fn = getattr(fn, "base_dist", None)
    return False


def _wants_gradient(fn: Any, value: Tensor) -> bool:
    """Tell whether a distribution has parameters behind it that are being fitted: its density would pass gradients."""
    with pyro.validation_enabled(False):
        return fn.log_prob(value.detach()).requires_grad


def _shared_plates(drawing: Drawing) -> list[int]:
    """List the batch dimensions that index a datum: those of the plates that all observed sites lie in."""
    plates = []
    for name in drawing.real:
        frames = {(frame.name, frame.dim) for frame in drawing.sites[name]["cond_indep_stack"] if frame.vectorized}
        dims = {dim for _, dim in frames}
        shape = drawing.sites[name]["fn"].batch_shape
        strays = [dim for dim in range(-len(shape), 0) if shape[dim] > 1 and dim not in dims]
        if strays:
            raise ProgramError(
                f"site {name!r} has batch shape {tuple(shape)}, and no plate for its dimensions {strays}: put it into "
                f"a plate for each, or make them part of the event with .to_event(...)"
            )
        plates.append(frames)
    shared = sorted(dim for _, dim in set.intersection(*plates))
    if not shared:
        raise ProgramError(
            f"the observed sites ({', '.join(drawing.real)}) lie in no plate together, so that a datum cannot be told: "
            f"put them into with pyro.plate('data', len(x))"
        )
    return shared


def _in_rows(value: Tensor, site: dict[str, Any], plates: Sequence[int]) -> Tensor:
    """Bring the dimensions of some plates to the front, as one."""
    event_dim = site["fn"].event_dim
    first = [dim - event_dim + value.dim() for dim in plates]
    rest = [dim for dim in range(value.dim()) if dim not in first]
    return value.permute(*first, *rest).flatten(0, len(first) - 1)


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
    return tuple(free.values())


def _kind(tensor: Tensor, observed: Sequence[Tensor]) -> str:
    """Tell whether an argument is data, is free of them, or neither for certain."""
    sharing = [value for value in observed if _memory(value) == _memory(tensor)]
    if not sharing:
        return "free"
    if any((v.storage_offset(), v.numel()) == (tensor.storage_offset(), tensor.numel()) for v in sharing):
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
