"""Data with the latents that a guide draws for them, and latents with the data that a model draws from them."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from pyrogen.errors import ProgramError
from pyrogen.inference.covariates import covariates_of, with_data
from pyrogen.inference.rows import in_rows, shared_plates
from pyrogen.inference.samples import Drawing, Transform, check_batch, check_gradient, is_masked
from pyrogen.pairing import check_densities, check_observed, check_pairing, check_shapes
from pyrogen.sites import Program, is_data, is_latent, or_nothing, sample_sites
from pyrogen.traces import draw_trace, subsamples

__all__ = ["Autoencoder", "Decode", "Pairs", "Reconstruction", "checked_decode", "refuse_observed"]

Decode = Literal["sample", "mean"]
"""What stands for the data that a model makes of latents: a draw of their distribution, or its mean."""


def checked_decode(decode: str) -> Decode:
    """Return what stands for data, if there is such a choice.

    Raises:
        ValueError: where there is not.
    """
    if decode not in get_args(Decode):
        raise ValueError(f"decode must be 'sample' or 'mean', found {decode!r}")
    return decode  # type: ignore[return-value]


class Pairs(NamedTuple):
    """Latents and data that go together, a row a datum.

    Attributes:
        latents: values of the latent sites, in the model's order, shapes ``(batch, ...)``.
        data: values of the observed sites, likewise.
        covariates: arguments that no site observes, likewise.
        scale: what subsampling, and ``poutine.scale``, multiply the densities of a datum's latents by.
        names: of the latent sites.
    """

    latents: tuple[Tensor, ...]
    data: tuple[Tensor, ...]
    covariates: tuple[Tensor, ...]
    scale: float | Tensor
    names: tuple[str, ...]

    def seen(self, transform: Transform | None = None) -> tuple[Tensor, ...]:
        """Return what a critic of pairs sees: latents, then data, transformed."""
        return (*self.latents, *(self.data if transform is None else map(transform, self.data)))


class Reconstruction(NamedTuple):
    r"""What the model makes of the guide's latents.

    Attributes:
        log_likelihood: :math:`\log p(x \mid z)` in all, scaled and masked, shape ``()``.
        pairs: the latents and the data.
    """

    log_likelihood: Tensor
    pairs: Pairs


class Autoencoder:
    """A model and a guide, run on a batch of data.

    Args:
        model: a Pyro program.
        guide: a Pyro program.
        args: their positional arguments.
        kwargs: their keyword arguments.
        covariates: which arguments are covariates, by name; found by themselves if not given.
        decode: what stands for the data that the model makes of latents.
        observes: whether what the guide observes has a meaning.

    Raises:
        ProgramError: where a site of the guide passes no gradient to its parameters, has batch dimensions in no plate,
            or observes what has no meaning.
    """

    def __init__(
        self,
        model: Program,
        guide: Program | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        covariates: Sequence[str] | None = None,
        decode: Decode = "sample",
        observes: bool = False,
    ) -> None:
        self.model, self.guide = model, or_nothing(guide)
        self.args, self.kwargs = args, kwargs
        self.covariates, self.decode = covariates, decode
        self.inferred = draw_trace(self.guide, args, kwargs, 1, 0)
        for site in filter(is_latent, sample_sites(self.inferred)):
            check_gradient(site)
            check_batch(site)
        if not observes:
            refuse_observed(self.inferred)

    def reconstruction(self) -> Reconstruction:
        """Run the model with the guide's latents, and score its data: the observed sites, and no others.

        Raises:
            ProgramError: where latent sites do not pair, where an observed one has no density, or where it cannot be
                told what a datum is.
        """
        trace = draw_trace(poutine.replay(self.model, trace=self.inferred), self.args, self.kwargs, 1, 0)
        check_pairing(trace, self.inferred)
        check_observed(trace)
        check_densities(trace, is_data)
        plates = _plates(trace)
        check_shapes(trace, self.inferred, max(-frame.dim for frame in plates))
        trace.compute_log_prob(lambda _, site: is_data(site))
        log_likelihood = torch.stack([site["log_prob"].sum() for site in sample_sites(trace) if is_data(site)]).sum()
        observed = [site["value"] for site in sample_sites(trace) if is_data(site)]
        return Reconstruction(log_likelihood, self._pairs(trace, observed, plates))

    def prior(self) -> tuple[Pairs, Pairs]:
        """Draw latents from the model, but no data, which may have any distribution.

        Returns:
            The model's latents, and the guide's, both beside the data.
        """
        same_data = poutine.replay(self.model, trace=subsamples(self.inferred))
        trace = draw_trace(same_data, self.args, self.kwargs, 1, 0)
        check_pairing(trace, self.inferred)
        plates = _plates(trace)
        pairs = self._pairs(trace, [site["value"] for site in sample_sites(trace) if is_data(site)], plates)
        return pairs, pairs._replace(latents=self._inferred_rows(pairs.names, plates))

    def generated(self) -> tuple[Pairs, Pairs, Trace]:
        """Draw latents and data from the model.

        Returns:
            What the model drew; what the guide drew, beside the data; the model's trace, with its draws as if observed.
        """
        trace, observed = self._generated(poutine.replay(self.model, trace=subsamples(self.inferred)))
        check_pairing(trace, self.inferred)
        plates = _plates(trace)
        fake = self._pairs(trace, observed, plates)
        sites = [site for site in sample_sites(trace) if is_data(site)]
        real = [in_rows(x, site, plates) for x, site in zip(observed, sites, strict=True)]
        real = [x.to(y.dtype) if y.is_floating_point() else x for x, y in zip(real, fake.data, strict=True)]
        latents = self._inferred_rows(fake.names, plates)
        return fake, fake._replace(latents=latents, data=tuple(real)), trace

    def decoded(self) -> Pairs:
        """Draw data from the model, given the guide's latents, which take no gradient from them."""
        fixed = self.inferred.copy()
        for name, site in self.inferred.nodes.items():
            if is_latent(site):
                fixed.nodes[name] = site | {"value": site["value"].detach()}
        trace, observed = self._generated(poutine.replay(self.model, trace=fixed))
        return self._pairs(trace, observed, _plates(trace))

    def guide_at(self, trace: Trace, redrawn: bool = False) -> Trace:
        """Run the guide with the data of a model's trace in the data's place, and with its latents, unless redrawn.

        Raises:
            ProgramError: where the model observes what is no argument.
        """
        draws = {site["name"]: site["value"] for site in sample_sites(trace) if is_data(site)}
        observed = {name: trace.nodes[name]["observed"] for name in draws}
        args, kwargs = with_data(self.args, self.kwargs, observed, draws)
        guide = poutine.replay(self.guide, trace=subsamples(trace) if redrawn else trace)
        return draw_trace(guide, args, kwargs, 1, 0)

    def _inferred_rows(self, names: Sequence[str], plates: Sequence[Any]) -> tuple[Tensor, ...]:
        sites = [self.inferred.nodes[name] for name in names]
        own = {(frame.name, frame.dim) for frame in plates}
        for site in sites:
            found = {(frame.name, frame.dim) for frame in site["cond_indep_stack"]}
            if not own <= found:
                raise ProgramError(
                    f"site {site['name']!r} lies in the plates {sorted(own)} (name, dim) in the model, and in "
                    f"{sorted(found)} in the guide: put it into the same in both"
                )
        return tuple(in_rows(site["value"], site, plates) for site in sites)

    def _generated(self, model: Program) -> tuple[Trace, list[Tensor]]:
        drawing = Drawing(takes_mean=self.decode == "mean")
        trace = draw_trace(drawing(model), self.args, self.kwargs, 1, 0)
        for name, value in drawing.real.items():
            trace.nodes[name] |= {"is_observed": True, "observed": value}
        return trace, list(drawing.real.values())

    def _pairs(self, trace: Trace, observed: Sequence[Tensor], plates: Sequence[Any]) -> Pairs:
        latents, data = (
            tuple(in_rows(s["value"], s, plates) for s in sample_sites(trace) if kind(s))
            for kind in (is_latent, is_data)
        )
        given = covariates_of(self.model, self.args, self.kwargs, observed, len(data[0]), self.covariates)
        names = tuple(site["name"] for site in sample_sites(trace) if is_latent(site))
        return Pairs(latents, data, given, _scale(trace), names)


def _plates(trace: Trace) -> list[Any]:
    """Return the plates that all latents and data share."""
    sites = [site for site in sample_sites(trace) if is_latent(site) or is_data(site)]
    if not any(map(is_data, sites)) or not any(map(is_latent, sites)):
        raise ProgramError(
            "the model needs data that it observes and latents that the guide draws: pass data, and sample something"
        )
    for site in sites:
        check_batch(site)
    plates = shared_plates(sites)
    if not plates:
        raise ProgramError(
            f"sites {', '.join(site['name'] for site in sites)} lie in no plate together, so that it cannot be told "
            f"which latents belong to a datum: put all into with pyro.plate('data', len(x)), or learn the guide by AVB"
        )
    return plates


def _scale(trace: Trace) -> float | Tensor:
    """Return what multiplies the densities of a datum's latents: of the site in the fewest plates, of several.

    Raises:
        ProgramError: where latents are masked.
    """
    latents = [site for site in sample_sites(trace) if is_latent(site)]
    for site in latents:
        if isinstance(site["mask"], Tensor) or site["mask"] is False or is_masked(site["fn"]):
            raise ProgramError(
                f"latent site {site['name']!r} is masked, and its draws would be compared with the prior's all the "
                f"same. Leave such data out of the batch, or learn by ELBO or AVB"
            )
    return min(latents, key=lambda site: len(site["cond_indep_stack"]))["scale"]


def refuse_observed(guide_trace: Trace) -> None:
    """Refuse what a guide observes, where it would be left out, or take the part of a latent.

    Raises:
        ProgramError: with the site's name.
    """
    for site in filter(is_data, sample_sites(guide_trace)):
        raise ProgramError(
            f"the guide observes {site['name']!r}, which has no meaning here: AAE and WAE score it, as labels that are "
            f"known; else, observe it in the model"
        )
