"""Data with the latents that a guide draws for them, and latents with the data that a model draws from them."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from pyrogen.errors import ProgramError
from pyrogen.inference.covariates import covariates_of, with_data
from pyrogen.inference.rows import in_rows, shared_plates
from pyrogen.inference.samples import Drawing, Transform
from pyrogen.pairing import check_densities, check_observed, check_pairing
from pyrogen.sites import Program, is_data, is_latent, or_nothing, sample_sites
from pyrogen.traces import draw_trace, plate_scale

__all__ = ["Autoencoder", "Decode", "Pairs", "Reconstruction"]

Decode = Literal["sample", "mean"]
"""What stands for the data that a model makes of latents: a draw of their distribution, or its mean."""


class Pairs(NamedTuple):
    """Latents and data that go together, a row a datum.

    Attributes:
        latents: values of the latent sites, in the model's order, shapes ``(batch, ...)``.
        data: values of the observed sites, likewise.
        covariates: arguments that no site observes, likewise.
        scale: what a plate's subsampling multiplies each datum by.
        names: of the latent sites.
    """

    latents: tuple[Tensor, ...]
    data: tuple[Tensor, ...]
    covariates: tuple[Tensor, ...]
    scale: float
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
    """

    def __init__(
        self,
        model: Program,
        guide: Program | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        covariates: Sequence[str] | None = None,
        decode: Decode = "sample",
    ) -> None:
        self.model, self.guide = model, or_nothing(guide)
        self.args, self.kwargs = args, kwargs
        self.covariates, self.decode = covariates, decode
        self.inferred = draw_trace(self.guide, args, kwargs, 1, 0)

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
        trace.compute_log_prob(lambda _, site: is_data(site))
        log_likelihood = torch.stack([site["log_prob"].sum() for site in sample_sites(trace) if is_data(site)]).sum()
        observed = [site["value"] for site in sample_sites(trace) if is_data(site)]
        return Reconstruction(log_likelihood, self._pairs(trace, observed))

    def prior(self) -> tuple[Pairs, Pairs]:
        """Draw latents from the model, but no data, which may have any distribution.

        Returns:
            The model's latents, and the guide's, both beside the data.
        """
        trace = draw_trace(self.model, self.args, self.kwargs, 1, 0)
        check_pairing(trace, self.inferred)
        pairs = self._pairs(trace, [site["value"] for site in sample_sites(trace) if is_data(site)])
        return pairs, pairs._replace(latents=self._inferred_rows(pairs.names, _plates(trace)))

    def generated(self) -> tuple[Pairs, Pairs, Trace]:
        """Draw latents and data from the model.

        Returns:
            What the model drew; what the guide drew, beside the data; the model's trace, with its draws as if observed.
        """
        trace, observed = self._generated(self.model)
        check_pairing(trace, self.inferred)
        fake = self._pairs(trace, observed)
        sites = [site for site in sample_sites(trace) if is_data(site)]
        plates = _plates(trace)
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
        return self._pairs(*self._generated(poutine.replay(self.model, trace=fixed)))

    def guide_at(self, trace: Trace, redrawn: bool = False) -> Trace:
        """Run the guide with the data of a model's trace in the data's place, and with its latents, unless redrawn.

        Raises:
            ProgramError: where the model observes what is no argument.
        """
        draws = {site["name"]: site["value"] for site in sample_sites(trace) if is_data(site)}
        observed = {name: trace.nodes[name]["observed"] for name in draws}
        args, kwargs = with_data(self.args, self.kwargs, observed, draws)
        return draw_trace(self.guide if redrawn else poutine.replay(self.guide, trace=trace), args, kwargs, 1, 0)

    def _inferred_rows(self, names: Sequence[str], plates: Sequence[Any]) -> tuple[Tensor, ...]:
        sites = [self.inferred.nodes[name] for name in names]
        return tuple(in_rows(site["value"], site, plates) for site in sites)

    def _generated(self, model: Program) -> tuple[Trace, list[Tensor]]:
        drawing = Drawing(takes_mean=self.decode == "mean")
        trace = draw_trace(drawing(model), self.args, self.kwargs, 1, 0)
        for name, value in drawing.real.items():
            trace.nodes[name] |= {"is_observed": True, "observed": value}
        return trace, list(drawing.real.values())

    def _pairs(self, trace: Trace, observed: Sequence[Tensor]) -> Pairs:
        plates = _plates(trace)
        latents, data = (
            tuple(in_rows(s["value"], s, plates) for s in sample_sites(trace) if kind(s))
            for kind in (is_latent, is_data)
        )
        given = covariates_of(self.model, self.args, self.kwargs, observed, len(data[0]), self.covariates)
        names = tuple(site["name"] for site in sample_sites(trace) if is_latent(site))
        return Pairs(latents, data, given, plate_scale(plates), names)


def _plates(trace: Trace) -> list[Any]:
    """Return the plates that all latents and data share."""
    sites = [site for site in sample_sites(trace) if is_latent(site) or is_data(site)]
    if not any(map(is_data, sites)) or not any(map(is_latent, sites)):
        raise ProgramError(
            "the model needs data that it observes and latents that the guide draws: pass data, and sample something"
        )
    plates = shared_plates(sites)
    if not plates:
        raise ProgramError(
            f"sites {', '.join(site['name'] for site in sites)} lie in no plate together, so that it cannot be told "
            f"which latents belong to a datum: put all into with pyro.plate('data', len(x)), or learn the guide by AVB"
        )
    return plates
