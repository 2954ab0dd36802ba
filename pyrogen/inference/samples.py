"""Real and fake data of one program: what objectives without densities compare."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pyro
import torch
from pyro.distributions import Categorical, MaskedDistribution
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrogen.distributions import is_implicit
from pyrogen.errors import ProgramError
from pyrogen.inference.covariates import covariates_of
from pyrogen.inference.rows import in_rows, shared_plates
from pyrogen.sites import Generating, Program, is_data, unwrapped

__all__ = ["Drawing", "Samples", "Transform", "check_batch", "check_gradient", "is_masked", "samples_of"]

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
    fake = tuple(in_rows(drawing.sites[name]["value"], drawing.sites[name], plates) for name in drawing.real)
    real = tuple(in_rows(value, drawing.sites[name], plates) for name, value in drawing.real.items())
    # Whole numbers that stand for pixels are compared as the reals that the program draws.
    real = tuple(x.to(y.dtype) if y.is_floating_point() else x for x, y in zip(real, fake, strict=True))
    observed = list(drawing.real.values())
    return Samples(real, fake, covariates_of(model, args, kwargs, observed, len(real[0]), covariates))


class Drawing(Generating):
    """Draw observed sites, and remember what they would have observed.

    Args:
        takes_mean: let the mean of their distribution stand for a draw.

    Attributes:
        real: the data, by site.
        sites: the sites after their draws, by name.
    """

    def __init__(self, takes_mean: bool = False) -> None:
        super().__init__()
        self.takes_mean = takes_mean
        self.real: dict[str, Tensor] = {}
        self.sites: dict[str, Any] = {}

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if is_data(msg):
            if isinstance(msg["mask"], Tensor) or msg["mask"] is False or is_masked(msg["fn"]):
                raise ProgramError(
                    f"site {msg['name']!r} is masked, and what is masked would be compared as if it were data. Leave "
                    f"such data out of the batch, or learn by a likelihood (ELBO, MaximumLikelihood)"
                )
            self.real[msg["name"]] = msg["value"]
            super()._pyro_sample(msg)
            if self.takes_mean and not is_implicit(msg["fn"]):
                msg["value"], msg["done"] = _mean(msg), True

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        if not (self.takes_mean and msg["name"] in self.real):
            check_gradient(msg)
        self.sites[msg["name"]] = msg
        if msg["name"] in self.real and self.real[msg["name"]].shape != msg["value"].shape:
            raise ProgramError(
                f"site {msg['name']!r} observes data of shape {tuple(self.real[msg['name']].shape)}, and its draws "
                f"have shape {tuple(msg['value'].shape)}: give the data the shape of the distribution"
            )


def check_gradient(site: Mapping[str, Any]) -> None:
    """Refuse a site whose draws pass no gradient to parameters behind it, where gradients are wanted.

    Raises:
        ProgramError: with the site's name.
    """
    if torch.is_grad_enabled() and not site["fn"].has_rsample and _wants_gradient(site["fn"], site["value"]):
        raise ProgramError(
            f"site {site['name']!r} is drawn from {type(unwrapped(site['fn'])).__name__}, through which no gradient "
            f"passes to the parameters behind it. Give the site a distribution with rsample: Normal, Laplace or "
            f"Implicit (of its mean, if that is what you want to compare)"
        )


def check_batch(site: Mapping[str, Any]) -> None:
    """Refuse a site with batch dimensions that lie in no plate.

    Raises:
        ProgramError: with the site's name.
    """
    dims = {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
    shape = site["fn"].batch_shape
    strays = [dim for dim in range(-len(shape), 0) if shape[dim] > 1 and dim not in dims]
    if strays:
        raise ProgramError(
            f"site {site['name']!r} has batch shape {tuple(shape)}, and no plate for its dimensions {strays}: put it "
            f"into a plate for each, or make them part of the event with .to_event(...)"
        )


def _mean(site: Mapping[str, Any]) -> Tensor:
    if isinstance(unwrapped(site["fn"]), Categorical):
        raise ProgramError(f"site {site['name']!r} is Categorical, which has no mean: choose another likelihood")
    return site["fn"].mean


def is_masked(fn: Any) -> bool:
    """Tell whether a distribution hides some of its values."""
    while fn is not None:
        if isinstance(fn, MaskedDistribution) and fn._mask is not True:
            return True
        fn = getattr(fn, "base_dist", None)
    return False


def _wants_gradient(fn: Any, value: Tensor) -> bool:
    """Tell whether a distribution has parameters behind it that are being fitted: its density would pass gradients."""
    with pyro.validation_enabled(False):
        return fn.log_prob(value.detach()).requires_grad


def _shared_plates(drawing: Drawing) -> list[Any]:
    """List the plates that index a datum: those that all observed sites lie in."""
    for name in drawing.real:
        check_batch(drawing.sites[name])
    shared = shared_plates([drawing.sites[name] for name in drawing.real])
    if not shared:
        raise ProgramError(
            f"the observed sites ({', '.join(drawing.real)}) lie in no plate together, so that a datum cannot be told: "
            f"put them into with pyro.plate('data', len(x))"
        )
    return shared
