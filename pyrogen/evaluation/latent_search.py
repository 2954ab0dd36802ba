"""What is missing of data, as an implicit model makes it where it comes nearest to what is known of them."""

from collections.abc import Iterator, Mapping
from math import isfinite, prod
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import biject_to

from pyrogen.distributions import is_implicit
from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation.likelihood import evaluating
from pyrogen.programs import per_datum
from pyrogen.sites import Program, is_latent, is_point, sample_sites
from pyrogen.traces import Term

__all__ = ["LatentSearch", "latent_search"]

AT_ONCE = 1024
"""Data times starts whose latents are moved in one pass: a bound on memory, which gradients need."""

Columns = Mapping[str, Tensor]


class LatentSearch(NamedTuple):
    r"""What a search has found.

    Attributes:
        completed: the data, with what the model makes where elements are missing, shape ``(data, *event)``.
        generated: :math:`f(z^*)`, all that the model makes there, same shape.
        error: root mean squared error of :math:`f(z^*)` on the known elements, in the units of the data, shape
            ``(data,)``; NaN where nothing is known.
        start_error: the smallest such error of the random starts, before any step, same shape.
        closest_error: the smallest such error that the search has come by, however unlikely the latents, same shape.
    """

    completed: Tensor
    generated: Tensor
    error: Tensor
    start_error: Tensor
    closest_error: Tensor


def latent_search(
    model: Program,
    columns: Columns,
    missing: Tensor,
    noise: float,
    *,
    num_starts: int = 16,
    num_steps: int = 300,
    learning_rate: float = 0.1,
    site: str = "x",
) -> LatentSearch:
    r"""Find latents of which an implicit model makes what is known of data, and take what is missing from there.

    .. math::
        z^* = \arg\min_z \; \frac{1}{2 \sigma^2} \sum_{i \in K} (x_i - f(z)_i)^2 - \log p(z), \qquad
        \hat x_i = f(z^*)_i \text{ for } i \notin K

    which is the mode of the posterior under normal noise of scale :math:`\sigma` on the known elements :math:`K`; for
    standard normal latents :math:`2 \sigma^2` times it is
    :math:`\lVert x_K - f(z)_K \rVert^2 + \sigma^2 \lVert z \rVert^2` and a constant. Latents with bounds are moved
    without, and their density is that of themselves.

    It is an optimum, and no draw: one completion, which says nothing of others that were as good, and which may be a
    local optimum. Adam goes from several draws of the prior, and the best of all that it came by is kept.

    ``error`` is large where :math:`\sigma` is, since latents that are likely are then preferred to those that fit: it
    does not tell whether the model can make the datum. For that, a third as many steps follow without
    :math:`\log p(z)`, from where the first have ended. Where ``closest_error`` is large as well, the model may be
    unable to make the datum, as where it has dropped a mode: what it says of the missing part is of another datum then.

    The model runs in ``eval`` mode.

    Args:
        model: a Pyro program whose data at ``site`` are implicit, made of latents in a plate over the data.
        columns: keyword arguments of the model, with ``x`` of shape ``(data, *event)``; what is missing of that is not
            looked at, and may be NaN. Others, such as labels, are what the model is given.
        missing: which elements are, bool, in the shape of ``x`` or one that expands to it.
        noise: :math:`\sigma`, in the units of the data: the smaller, the less likely latents may be.
        num_starts: draws of the prior for each datum to start from.
        num_steps: of Adam, from each, before those for ``closest_error``.
        learning_rate: of Adam.
        site: at which the model observes ``x``.

    Raises:
        ProgramError: where the data at that site are not implicit, not of latents that have a density and are in a
            plate over the data, of noise besides, or do not change with the latents, as whole numbers.
        UsageError: where a number is out of range, shapes do not fit, or what is known is not finite.

    References:
        Semantic Image Inpainting with Deep Generative Models (Yeh et al., 2017), https://arxiv.org/abs/1607.07539

        Compressed Sensing using Generative Models (Bora et al., 2017), https://arxiv.org/abs/1703.03208

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyrogen.distributions import Implicit
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         draw = lambda shape: torch.stack([z, 2 * z], -1)
        ...         pyro.sample("x", Implicit(draw, event_shape=(2,), batch_shape=z.shape), obs=x)
        >>> x = torch.tensor([[0.5, float("nan")]])
        >>> latent_search(model, {"x": x}, x.isnan(), noise=0.01).completed.round(decimals=2)
        tensor([[0.5000, 1.0000]])
    """
    if not (noise > 0 and isfinite(noise)) or not learning_rate > 0:
        raise UsageError(f"noise and learning_rate must be positive, found {noise} and {learning_rate}")
    if num_starts < 1 or num_steps < 0:
        raise UsageError(f"there must be at least one start and no step, found {num_starts} and {num_steps}")
    x, missing = _checked(columns["x"], missing)
    columns = {**columns, "x": x.masked_fill(missing, 0.0)}
    rows = max(1, AT_ONCE // num_starts)
    found = []
    with evaluating(model):
        for begin in range(0, len(x), rows):
            part = {name: values[begin : begin + rows] for name, values in columns.items()}
            search = _Search(model, part, missing[begin : begin + rows], noise, num_starts, site)
            found.append(search.run(num_steps, learning_rate))
    generated, *errors = (torch.cat(values) for values in zip(*found, strict=True))
    return LatentSearch(torch.where(missing, generated, x.to(generated.dtype)), generated, *errors)


def _checked(x: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
    if missing.dtype is not torch.bool:
        raise UsageError(f"missing must be bool, true where an element is to be found, found {missing.dtype}")
    if not len(x):
        raise UsageError("there are no data to complete: x has no rows")
    try:
        missing = missing.expand(x.shape)
    except RuntimeError as error:
        raise UsageError(
            f"missing of shape {tuple(missing.shape)}: expected that of the data, {tuple(x.shape)}, or less"
        ) from error
    if not x[~missing].isfinite().all():
        raise UsageError("some known elements are not finite: name those as missing, missing | x.isnan()")
    return x, missing


class _Placed(Messenger):
    """Draws data anew, of latents that are where real numbers say, by the bijection to their supports in this run."""

    def __init__(self, site: str, places: Columns) -> None:
        super().__init__()
        self.site, self.places = site, places

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] == self.site:
            msg["is_observed"], msg["value"], msg["done"] = False, None, False
        elif msg["name"] in self.places:
            msg["value"], msg["done"] = biject_to(msg["fn"].support)(self.places[msg["name"]]), True


class _Search:
    """The latents of some data, all of them once for each start."""

    def __init__(
        self, model: Program, columns: Columns, missing: Tensor, noise: float, num_starts: int, site: str
    ) -> None:
        self.model, self.noise, self.num_starts, self.site = model, noise, num_starts, site
        self.columns = {name: torch.cat([values] * num_starts) for name, values in columns.items()}
        self.x, self.known = self.columns["x"], ~torch.cat([missing] * num_starts)
        trace = self._trace({})
        latents = _checked_latents(trace, site)
        self.start = {name: biject_to(node["fn"].support).inv(node["value"]) for name, node in latents.items()}
        frames = [set(node["cond_indep_stack"]) for node in (trace.nodes[site], *latents.values())]
        self.shared = sorted(set.intersection(*frames), key=lambda frame: frame.dim)
        self._check_rows(trace.nodes[site]["fn"].batch_shape)
        self._check_moves()

    def run(self, num_steps: int, learning_rate: float) -> tuple[Tensor, ...]:
        """Move the latents, and return what is made of the best, its errors, those of the starts and the least."""
        state = {name: place.clone().requires_grad_() for name, place in self.start.items()}
        steps = self._steps(state, num_steps, learning_rate)
        best, generated = next(steps)
        start_error = closest = self._error(generated)
        for loss, made in steps:
            better = loss < best
            best = torch.where(better, loss, best)
            generated = torch.where(better.reshape(-1, *[1] * (made.dim() - 1)), made, generated)
            closest = torch.fmin(closest, self._error(made))
        for _, made in self._steps(state, num_steps // 3, learning_rate, has_prior=False):
            closest = torch.fmin(closest, self._error(made))
        if not best.isfinite().all():
            raise ProgramError(
                f"what the model makes at site {self.site!r}, or the density of its latents, is not finite where the "
                f"search begins: look for NaN in its parameters"
            )
        count = len(best) // self.num_starts
        rows = torch.arange(count, device=best.device) + count * best.reshape(-1, count).argmin(0)
        least = (error.reshape(-1, count).amin(0) for error in (start_error, closest))
        return generated[rows], self._error(generated)[rows], *least

    def _steps(
        self, state: Columns, num_steps: int, learning_rate: float, has_prior: bool = True
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Move the latents by Adam, and yield the loss of each row and what is made, at first and after each step."""
        optimizer = torch.optim.Adam(state.values(), lr=learning_rate)
        loss, slopes, made = self._descent(state, has_prior)
        yield loss, made
        for _ in range(num_steps):
            for place, slope in zip(state.values(), slopes, strict=True):
                place.grad = slope
            optimizer.step()
            loss, slopes, made = self._descent(state, has_prior)
            yield loss, made

    @torch.enable_grad()
    def _descent(self, state: Columns, has_prior: bool) -> tuple[Tensor, list[Tensor], Tensor]:
        """Return the loss of each row, shape ``(rows,)``, its slope in each latent, and what is made there."""
        trace = self._trace(state)
        made = trace.nodes[self.site]["value"].reshape(self.x.shape)
        loss = (made - self.x).square().masked_fill(~self.known, 0.0).flatten(1).sum(1) / (2 * self.noise**2)
        if has_prior:
            loss = loss - self._log_prior(trace)
        slopes = torch.autograd.grad(loss.sum(), list(state.values()), allow_unused=True, materialize_grads=True)
        return loss.detach(), list(slopes), made.detach()

    def _log_prior(self, trace: Trace) -> Tensor:
        """Return the log-density of all but the data, shape ``(rows,)``."""
        terms = [
            Term(node["cond_indep_stack"], scale_and_mask(node["fn"].log_prob(node["value"]), mask=node["mask"]))
            for node in sample_sites(prune_subsample_sites(trace))
            if node["name"] != self.site
        ]
        return per_datum(terms, None, self.shared)[0]

    def _error(self, made: Tensor) -> Tensor:
        """Return the root mean squared error of known elements, shape ``(rows,)``, NaN where there are none."""
        squares = (made - self.x).square().masked_fill(~self.known, 0.0).flatten(1).sum(1)
        return (squares / self.known.flatten(1).sum(1)).sqrt()

    def _trace(self, state: Columns) -> Trace:
        return poutine.trace(_Placed(self.site, state)(self.model)).get_trace(**self.columns)

    def _check_rows(self, batch_shape: torch.Size) -> None:
        """Refuse latents that are not each datum's own."""
        sizes = prod(frame.size for frame in self.shared), prod(batch_shape)
        if sizes != (len(self.x), len(self.x)):
            raise ProgramError(
                f"the latents are of {sizes[0]} and site {self.site!r} of {sizes[1]} data where there are "
                f"{len(self.x)}: put every site into one plate over the data, and what is within a datum into the "
                f"event by .to_event(...)"
            )

    def _check_moves(self) -> None:
        """Refuse data that are made of more than latents, or do not move with these."""
        state = {name: place.clone().requires_grad_() for name, place in self.start.items()}
        with torch.enable_grad():
            first, again = (self._trace(state).nodes[self.site]["value"] for _ in range(2))
            if not torch.equal(first.nan_to_num(), again.nan_to_num()):
                raise ProgramError(
                    f"the data at site {self.site!r} are drawn with noise besides the latents', so that what is found "
                    f"once would not be there again: make that noise a latent site, in the plate of the data"
                )
            moves = first.requires_grad and any(
                slope is not None and bool(slope.any())
                for slope in torch.autograd.grad(first.square().sum(), list(state.values()), allow_unused=True)
            )
        if not moves:
            raise ProgramError(
                f"the data at site {self.site!r} do not change as the latents move a little: draws that are whole "
                f"numbers, or rounded, have no gradient to search by"
            )


def _checked_latents(trace: Trace, site: str) -> dict[str, dict[str, Any]]:
    """Return the sites of latents by name.

    Raises:
        ProgramError: where there are none, or one of no density or discrete, or the data have a density.
    """
    if site not in trace.nodes or not is_implicit(trace.nodes[site]["fn"]):
        raise ProgramError(f"the model has no implicit site {site!r}: a search is for data that have no density")
    latents = {node["name"]: node for node in sample_sites(trace) if is_latent(node) and node["name"] != site}
    if not latents:
        raise ProgramError(
            f"the data at site {site!r} are made of no latent, but of noise within: make that a latent site, in the "
            f"plate of the data"
        )
    for node in sample_sites(trace):
        name = node["name"]
        if name == site:
            continue
        if is_implicit(node["fn"]) or (name in latents and is_point(node["fn"])):
            raise ProgramError(f"site {name!r} has no density, which tells where its values may be looked for")
        if name in latents and node["fn"].support.is_discrete:
            raise ProgramError(f"site {name!r} is discrete: its values cannot be moved along a gradient")
    return latents
