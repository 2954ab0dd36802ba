"""Held-out data whose missing part a fitted program draws: masks, and the draws."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pyro import poutine
from torch import Tensor

from pyrogen.card import accepted_columns
from pyrogen.data import Dataset, Unpaired, read_arrays
from pyrogen.distributions import Autoregressive, is_implicit
from pyrogen.errors import DataError, UsageError
from pyrogen.evaluation import Estimate, complete, evaluating, impute, lacks_density, latent_search, mean
from pyrogen.models import Incomplete
from pyrogen.parameters import first_device, modules_of
from pyrogen.pictures import Drawing, image_grid
from pyrogen.programs import shared_latents
from pyrogen.recipe import Programs
from pyrogen.rehearsal import rehearsal
from pyrogen.sites import Program, is_data, is_latent, unwrapped
from pyrogen.spec import DataSpec, unscaled

__all__ = ["MASKS", "Completions", "completion_rows", "completions", "mask_of"]

MASKS = ("top", "bottom", "left", "right", "random:SHARE", "FILE", "missing")


Method = Literal["exact", "gibbs", "posterior", "latent-search"]

NOISE = 0.3
"""The noise of a latent search, in units of half the range of bounded data, and of reals' standard deviation.

The less there is, the nearer what is made comes to the known elements, by latents that are less and less likely, and
the further it may be from the missing ones: of a generator of digits, more than this did little for these and harmed
those.
"""


SWEEPS = 5
"""Gibbs sweeps, or rounds after the first, where no other number is asked for."""


class Completions(NamedTuple):
    """Data, what is missing of them, and draws of it.

    Attributes:
        x: the data, shape ``(number, *event)``.
        missing: which elements were drawn, bool, likewise.
        completed: draws, shape ``(draws, number, *event)``; of a latent search, its one optimum.
        method: how: ``exact`` draws of the conditional distribution; ``gibbs`` sweeps that approach it;
            ``posterior``, draws of the latents by a guide, weighed, likewise; or ``latent-search``, no draws.
        generated: of a latent search, all that the model makes where it has ended, shape ``(number, *event)``.
        figures: of a latent search, root mean squared errors on the known elements, over the data that have some; of
            draws by a guide, how many equal weights its particles are worth.
        rounds: sweeps of ``gibbs``, and rounds of ``posterior``, that were run.
        few: of draws by a guide, for how many data these weights are less than ten for each draw.
        beyond: of a latent search, how many data it has come less near to than another training datum is, though it
            went on without regard to how likely latents are.
    """

    x: Tensor
    missing: Tensor
    completed: Tensor
    method: Method
    generated: Tensor | None = None
    figures: Mapping[str, Estimate] = MappingProxyType({})
    beyond: int = 0
    rounds: int = 0
    few: int = 0

    def arrays(self) -> dict[str, Tensor]:
        """Name the arrays, as a file holds them."""
        found = {"x": self.x, "missing": self.missing, "completed": self.completed}
        return found if self.generated is None else found | {"generated": self.generated}


def mask_of(name: str, number: int, event: tuple[int, ...], seed: int = 0) -> Tensor:
    """Return which elements are missing, bool, shape ``(number, *event)``.

    Args:
        name: top, bottom, left or right: that half of an image, or the first (left) or last (right) half of a sequence;
            random:SHARE: each element with this probability, such as random:0.5; or a file, .npy or .npz of one array,
            of shape ``event`` or ``(number, *event)``: ones are missing, zeros are known. Images of one channel may
            leave it out. Or missing: nothing but what is NaN in the data.
        number: of data.
        event: shape of a datum.
        seed: of random masks.

    Raises:
        UsageError: for another name, or a half that data of this shape do not have.
        DataError: for a file of another shape.

    Example:
        >>> mask_of("bottom", 1, (1, 4, 2))[0, 0].int().tolist()
        [[0, 0], [0, 0], [1, 1], [1, 1]]
    """
    if name in ("top", "bottom", "left", "right"):
        return _half(name, event).expand(number, *event)
    if name == "missing":
        return torch.zeros(number, *event, dtype=torch.bool)
    kind, _, share = name.partition(":")
    if kind == "random":
        try:
            p = float(share)
        except ValueError:
            p = -1.0
        if not 0 < p <= 1:
            raise UsageError(f"mask {name!r}: expected a share above 0 and at most 1, such as random:0.5")
        return torch.rand(number, *event, generator=torch.Generator().manual_seed(seed)) < p
    if Path(name).suffix.lower() not in (".npy", ".npz"):
        raise UsageError(f"mask {name!r}: expected one of {', '.join(MASKS)}; a file is .npy or .npz")
    arrays = read_arrays(Path(name))
    if len(arrays) != 1:
        raise DataError(f"{name}: arrays {', '.join(arrays)}; a mask is one")
    (array,) = arrays.values()
    if event[:1] == (1,) and array.shape == event[1:]:
        array = array[None]
    if array.shape not in (event, (number, *event)):
        raise DataError(
            f"{name}: shape {array.shape}, expected that of a datum, {event}, or of all, {(number, *event)}"
        )
    if not np.isin(array, (0, 1)).all() and not np.isin(array, (0, 255)).all():
        raise DataError(f"{name}: a mask is of bools, of 0 and 1, or of 0 and 255, found other values")
    return torch.from_numpy(np.asarray(array) != 0).expand(number, *event)


def _half(name: str, event: tuple[int, ...]) -> Tensor:
    dim = {"top": -2, "bottom": -2, "left": -1, "right": -1}[name]
    if len(event) < -dim or event[dim] < 2:
        raise UsageError(f"mask {name!r}: data of shape {event} have no {name}. Choose left, right or random:0.5")
    first, size = torch.arange(event[dim]) < event[dim] // 2, [1] * len(event)
    size[dim] = event[dim]
    return (first if name in ("top", "left") else ~first).reshape(size).expand(event)


def completions(
    programs: Programs,
    dataset: Dataset | Unpaired,
    split: str,
    mask: str,
    number: int = 8,
    draws: int | None = None,
    sweeps: int | None = None,
    seed: int = 0,
    starts: int | None = None,
    noise: float | None = None,
) -> Completions:
    """Complete the first data of a split.

    Args:
        programs: a model whose data are drawn element by element, and no guide; or one whose elements are independent
            given latents, and a guide with a density, for :func:`pyrogen.evaluation.impute`; or one whose data are
            implicit, for :func:`pyrogen.evaluation.latent_search`.
        dataset: the data.
        split: train, validation or test.
        mask: what is missing; see :func:`mask_of`.
        number: of data.
        draws: for each of them; 3 if not given, and 1 of implicit data, which have no more.
        sweeps: see :func:`pyrogen.evaluation.complete`; of a guide that was trained on complete data, rounds after the
            first; 5 if not given.
        seed: of the mask.
        starts: of a latent search; 16 if not given.
        noise: of a latent search, in the units of the data; :data:`NOISE` of their scale if not given.

    Raises:
        UsageError: where the model has no conditional distributions of parts of its data, with the reason; or for an
            argument that is of another way to complete them.
    """
    if isinstance(dataset, Unpaired):
        raise UsageError("a translation between two domains has no data of which a part could be missing")
    for name, value, least in (
        ("number", number, 1),
        ("draws", draws, 1),
        ("sweeps", sweeps, 0),
        ("starts", starts, 1),
    ):
        if value is not None and value < least:
            raise UsageError(f"{name} must be at least {least}, found {value}")
    columns = dataset.eval_columns(split)
    number = min(number, len(columns["x"]))
    if number < 1:
        raise UsageError(f"{dataset.name} has no {split} data to complete: choose another --split")
    device = first_device(programs.model)
    names = accepted_columns(programs.model, list(columns))
    first = {name: columns[name][:number].to(device) for name in names}
    missing = mask_of(mask, number, dataset.spec.shape, seed) | columns["x"][:number].isnan()
    missing = _some(mask, missing).to(device)
    filled = {name: values.nan_to_num() for name, values in first.items()}
    if _is_implicit(programs.model, filled):
        if draws not in (None, 1):
            raise UsageError(f"a latent search has one completion of each datum, and no draws: found {draws} draws")
        if sweeps is not None:
            raise UsageError("a latent search has no sweeps, but steps from --starts: leave --sweeps out")
        return _searched(programs.model, dataset, split, first, missing, 16 if starts is None else starts, noise)
    for name, given in (("noise", noise), ("starts", starts)):
        if given is not None:
            raise UsageError(
                f"{name} is for models whose data have no density, and are searched for: leave --{name} out"
            )
    draws = 3 if draws is None else draws
    if names == ["x"] and _has_posterior(programs, filled):
        return _imputed(programs, first["x"], missing, draws, sweeps)
    first, missing = {name: torch.cat([values] * draws) for name, values in first.items()}, torch.cat([missing] * draws)
    with evaluating(*programs):
        d = _distribution(programs, first)
        is_exact = d.given(first["x"], ~missing).is_exact
        if is_exact and sweeps is not None:
            raise UsageError(
                "nothing that is known comes after what is missing, so that draws are exact at once: leave --sweeps out"
            )
        sweeps = SWEEPS if sweeps is None else sweeps
        completed = complete(d, first["x"], missing, sweeps)
    x, missing = first["x"][:number], missing[:number]
    method: Method = "exact" if is_exact else "gibbs"
    completed = completed.unflatten(0, (draws, number)).cpu()
    return Completions(x.cpu(), missing.cpu(), completed, method, rounds=0 if is_exact else sweeps)


def _is_implicit(model: Program, columns: Mapping[str, Tensor]) -> bool:
    with rehearsal(modules_of(model).values()), evaluating(model):
        sites = poutine.trace(model).get_trace(**columns).nodes
    return "x" in sites and is_implicit(sites["x"]["fn"])


def _searched(
    model: Program,
    dataset: Dataset,
    split: str,
    columns: Mapping[str, Tensor],
    missing: Tensor,
    starts: int,
    noise: float | None,
) -> Completions:
    """Search for latents of which the model makes what is known, and tell how near it comes to that."""
    x, training = columns["x"], dataset.eval_columns("train")["x"]
    found = latent_search(
        model, columns, missing, NOISE * _scale(training, dataset.spec) if noise is None else noise, num_starts=starts
    )
    known = ~missing.cpu()
    nearest = _to_nearest(training, x.cpu(), known, are_training=split == "train")
    of = known.flatten(1).any(1)
    unit = f"units of the data, {int(of.sum())} data"
    errors = {
        "known_rmse": found.error.cpu(),
        "start_rmse": found.start_error.cpu(),
        "closest_rmse": found.closest_error.cpu(),
        "nearest_training_rmse": nearest,
    }
    return Completions(
        x.cpu(),
        missing.cpu(),
        found.completed[None].cpu(),
        "latent-search",
        found.generated.cpu(),
        {name: mean(values[of], unit) for name, values in errors.items()} if of.any() else {},
        int((errors["closest_rmse"] > nearest).sum()),
    )


def _scale(training: Tensor, spec: DataSpec) -> float:
    """Return half the range of bounded data, and of reals the root of their elements' mean variance."""
    if spec.kind != "real":
        low, high = unscaled(torch.tensor([-1.0, 1.0]), spec).tolist()
        return (high - low) / 2
    return float(training.double().flatten(1).var(0).mean().sqrt())


def _to_nearest(training: Tensor, x: Tensor, known: Tensor, are_training: bool = False) -> Tensor:
    """Return the root mean squared error of the nearest training datum on the known elements, ``(data,)``.

    NaN where nothing is known. Where the data are the first of the training data, each is left out of its own search.
    """
    training, x, known = training.double().flatten(1), x.double().flatten(1), known.flatten(1)
    errors = []
    for row, (values, of) in enumerate(zip(x, known, strict=True)):
        squares = (training[:, of] - values[of]).square().sum(1)
        if are_training:
            squares[row] = torch.inf
        errors.append(squares.min() / of.sum())
    return torch.stack(errors).sqrt()


PARTICLES = 5000
"""Draws of a guide for each datum, of which so many are taken as there are to be completions."""


def _has_posterior(programs: Programs, columns: dict[str, Tensor]) -> bool:
    """Tell whether there is a guide with a density, to draw each datum's latents from given what is known of it."""
    model, guide = programs
    if guide is None:
        return False
    with evaluating(model, guide):
        return not lacks_density(guide, columns) and not shared_latents(model, guide, **columns).nodes


def _imputed(programs: Programs, x: Tensor, missing: Tensor, draws: int, sweeps: int | None) -> Completions:
    """Draw latents given what is known, and the rest given these."""
    model, guide = programs
    assert guide is not None
    incomplete = x.masked_fill(missing, torch.nan)
    rounds = 1
    if not isinstance(model, Incomplete):
        rounds += SWEEPS if sweeps is None else sweeps
        model, guide = Incomplete(model), partial(_zero_filled, guide)
    elif sweeps is not None:
        raise UsageError("a guide that reads incomplete data is right in one round: leave --sweeps out")
    with evaluating(*programs):
        found = impute(model, guide, incomplete, PARTICLES, draws, rounds=rounds)
    worth = found.effective_particles.cpu()
    unit = f"equal weights of {PARTICLES:,}"
    figures = {
        "effective_particles": mean(worth, unit, PARTICLES),
        "effective_particles_min": Estimate(float(worth.min()), None, unit, PARTICLES),
    }
    few = int((worth < 10 * draws).sum())
    return Completions(x.cpu(), missing.cpu(), found.draws.cpu(), "posterior", figures=figures, rounds=rounds, few=few)


def _zero_filled(guide: Program, x: Tensor) -> Any:
    """Call a guide that reads complete data alone."""
    return guide(x.nan_to_num())


def _some(name: str, missing: Tensor) -> Tensor:
    if not missing.any():
        raise UsageError(f"mask {name!r}: nothing is missing, so that there is nothing to draw")
    return missing


def completion_rows(found: Completions, spec: DataSpec) -> Drawing:
    """Draw images in columns: the datum, what is known of it on a ground of grey, and the draws below.

    Of a latent search, all that the model makes is the last row.
    """
    grey = 0.5 * (1 if spec.kind == "dequantized" or spec.levels is None else spec.levels - 1)
    rows = torch.cat([found.x, found.x.masked_fill(found.missing, grey), found.completed.flatten(0, 1)])
    rows = rows if found.generated is None else torch.cat([rows, found.generated])
    return image_grid(rows, spec, columns=len(found.x), scale=max(1, 72 // spec.shape[-1]))


def _distribution(programs: Programs, columns: dict[str, Tensor]) -> Autoregressive:
    """Return the distribution of the data, where they are drawn element by element and depend on nothing hidden.

    Raises:
        UsageError: where they are not, with the reason.
    """
    sites = poutine.trace(programs.model).get_trace(**columns).nodes
    hidden = [name for name, site in sites.items() if is_latent(site)]
    d = unwrapped(sites["x"]["fn"]) if "x" in sites and is_data(sites["x"]) else None
    if isinstance(d, Autoregressive) and not hidden:
        return d
    name = type(programs.model).__name__
    why = f"its data depend on {', '.join(map(repr, hidden))}" if hidden else "it draws all elements of a datum at once"
    raise UsageError(
        f"{name} says nothing of a part of a datum given the rest: {why}. Models that draw element by element do, such "
        f"as gated-pixelcnn, wavenet and char-rnn, those with a guide that has a density, such as vae and miwae, and "
        f"those whose data are implicit, such as generator and dcgan"
    )
