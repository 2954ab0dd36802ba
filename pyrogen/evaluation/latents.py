"""A program's latents as real numbers, for algorithms that move them."""

from collections.abc import Iterable, Mapping
from math import isclose, prod
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import IndependentTransform

from pyrogen.errors import ProgramError
from pyrogen.programs import densities, per_datum
from pyrogen.sites import Program, is_latent, is_point, sample_sites
from pyrogen.traces import Term, Traces, draw_trace, plate_nesting, plate_scale, trace_pair

__all__ = ["Latents", "State", "prior"]

State = dict[str, Tensor]
"""Real numbers by site; the first dimension is that of chains."""


def prior(model: Program) -> Program:
    """Return the program that draws a model's latents as the model does, and neither observes nor enumerates.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> [*poutine.trace(prior(model)).get_trace(torch.zeros(3)).stochastic_nodes]
        ['data', 'z']
    """

    def is_hidden(site: Mapping[str, Any]) -> bool:
        return site["type"] == "sample" and (site["is_observed"] or site["infer"].get("enumerate") == "parallel")

    return poutine.block(model, hide_fn=is_hidden)


class Latents:
    r"""The latents of a model, drawn by a program to start from, without the bounds of their supports.

    A *datum* is an index of the plates that all sites lie in. Each has its own chains, which do not depend on those of
    others.

    Args:
        model: a Pyro program whose latents are continuous, or enumerated by itself.
        start: a program that draws the model's latents: a guide with a density, or the model's prior if not given.
        columns: keyword arguments of both.
        num_chains: for each datum; at least two.

    Raises:
        ProgramError: where a latent is discrete and drawn, is a point at the start, has bounds that depend on another
            or that are not those of the start, or is made of auxiliary noise; where the programs do not pair, there is
            no latent, data are drawn anew in each run, or are scaled to stand for others while a latent is not; or
            where a prior is not at hand, since a latent depends on a site that the model enumerates.
    """

    def __init__(self, model: Program, start: Program | None, columns: Mapping[str, Any], num_chains: int) -> None:
        self.model, self.start = model, prior(model) if start is None else start
        self.columns, self.num_chains = dict(columns), num_chains
        self.nesting = plate_nesting(model, self.start, **self.columns)
        traces, again = (
            trace_pair(_NoDrawnPlates()(model), self.start, (), self.columns, num_chains, self.nesting)
            for _ in range(2)
        )
        self.shared, self.particle_dim = densities(traces).shared, traces.particle_dim
        self.scale = plate_scale(self.shared)
        self.sites = {site["name"]: site for site in sample_sites(traces.guide) if is_latent(site)}
        if not self.sites:
            raise ProgramError("the model has no latent site to integrate out: its log_likelihood is exact")
        _check_densities(self.sites.values())
        if start is None:
            self._check_prior(traces)
        self.transforms = {
            name: _transform(site, *(trace.model.nodes[name]["fn"].support for trace in (traces, again)))
            for name, site in self.sites.items()
        }
        self.event_dims = {name: transform.domain.event_dim for name, transform in self.transforms.items()}
        sites = [site for trace in (traces.model, traces.guide) for site in sample_sites(trace)]
        scales = [float(site["scale"]) for site in sites if not site["infer"].get("_deterministic")]
        if not all(isclose(scale, self.scale, rel_tol=1e-6) for scale in scales):
            raise ProgramError(
                "some sites are scaled, to stand for more data than there are, and others are not: pass all data"
            )

    def _check_prior(self, traces: Traces) -> None:
        for name in self.sites:
            if len(traces.model.nodes[name]["fn"].batch_shape) > self.nesting + 1:
                raise ProgramError(
                    f"site {name!r} depends on one that is enumerated, so that its prior is not at hand: give "
                    f"a guide with a density to start from"
                )

    @property
    def num_data(self) -> int:
        """How many problems there are: of a latent that all data share, one."""
        return prod(frame.size for frame in self.shared)

    def draw(self) -> State:
        """Draw exactly from the program to start from."""
        with torch.no_grad():
            trace = draw_trace(self.start, (), self.columns, self.num_chains, self.nesting)
        return self.unbounded({name: trace.nodes[name]["value"] for name in self.transforms})

    def unbounded(self, values: Mapping[str, Tensor]) -> State:
        """Bring values of sites, shape ``(chains, ...)``, to real numbers."""
        return {name: transform.inv(values[name]) for name, transform in self.transforms.items()}

    def copies(self, drawn: Trace) -> State:
        """Let every chain be where the latents of a trace are, which was drawn without chains."""
        return self.unbounded(
            {
                name: drawn.nodes[name]["value"].reshape(site["value"].shape[1:]).expand_as(site["value"])
                for name, site in self.sites.items()
            }
        )

    def log_densities(self, state: State) -> tuple[Tensor, Tensor]:
        r"""Return :math:`\log q(z) |J|` of the start and :math:`\log p(x, z) |J|`, each ``(chains, data)``, in nats."""
        values = {name: transform(state[name]) for name, transform in self.transforms.items()}
        given = Trace()
        given.nodes.update({name: {**self.sites[name], "value": value} for name, value in values.items()})
        programs = self.model, self.start
        traces = trace_pair(*programs, (), self.columns, self.num_chains, self.nesting, given=given)
        log_p, log_q, _ = densities(traces)
        volumes = [
            Term((), transform.log_abs_det_jacobian(state[name], values[name]))
            for name, transform in self.transforms.items()
        ]
        jacobian = per_datum(volumes, self.particle_dim, self.shared)
        return log_q / self.scale + jacobian, log_p / self.scale + jacobian

    def spread(self, values: Tensor, state: State) -> State:
        """Give every number of a state the value of its chain and datum, from shape ``(chains or 1, data)``."""
        kept = {frame.dim: frame.size for frame in self.shared}
        plates = [kept.get(dim, 1) for dim in range(-self.nesting, 0)]
        return {name: values.reshape(len(values), *plates, *[1] * self.event_dims[name]) for name in state}

    def total(self, terms: State) -> Tensor:
        """Add up what belongs to a chain and datum, shape ``(chains, data)``."""
        sums = []
        for name, term in terms.items():
            event_dim = self.event_dims[name]
            sums.append(Term((), term.flatten(-event_dim).sum(-1) if event_dim else term))
        return per_datum(sums, self.particle_dim, self.shared)

    def select(self, state: State, chains: Tensor) -> State:
        """Return the state of other chains, by their indices, shape ``(chains, data)``."""
        index = self.spread(chains, state)
        return {name: z.gather(0, index[name].expand_as(z)) for name, z in state.items()}


def _check_densities(sites: Iterable[Mapping[str, Any]]) -> None:
    """Refuse latents of a start that have no density, or only that of what they are made of."""
    for site in sites:
        if site["infer"].get("is_auxiliary") or is_point(site["fn"]):
            raise ProgramError(
                f"site {site['name']!r} of the start is a point, or noise that others are made of: start from the "
                f"prior, or from a guide in which every latent has a density of its own"
            )


def _transform(site: Mapping[str, Any], support: Any, again: Any) -> Any:
    """Return the transform from real numbers to a latent.

    Args:
        site: of the start.
        support: of the model's site.
        again: the same, where all other latents have been drawn anew.

    Raises:
        ProgramError: where a gradient cannot move the latent, or not within all of its support.
    """
    name = site["name"]
    if support.is_discrete:
        raise ProgramError(
            f"site {name!r} is discrete: its values cannot be moved along a gradient. Enumerate it in the model by "
            f'infer={{"enumerate": "parallel"}}'
        )
    transform = biject_to(support)
    if not _alike(transform, biject_to(again)):
        raise ProgramError(
            f"site {name!r} has bounds that depend on another latent: write it as a function of one that has none"
        )
    if not _alike(transform, biject_to(site["fn"].support)):
        raise ProgramError(
            f"site {name!r} is within {support} in the model and within {site['fn'].support} in the start: the start "
            f"must reach all that the model does, and no more"
        )
    return transform


def _alike(first: Any, second: Any) -> bool:
    """Tell whether two transforms to a support are the same, with the same bounds."""
    first, second = (_elementwise(transform) for transform in (first, second))
    return bool(first == second)


def _elementwise(transform: Any) -> Any:
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return transform


class _NoDrawnPlates(Messenger):
    """Refuses plates that draw which data they are of: they draw others in every run."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not site_is_subsample(msg) or msg["value"] is not None:
            return
        name, fn = msg["name"], msg["fn"]
        if fn.subsample_size is not None and fn.subsample_size < fn.size:
            raise ProgramError(
                f"plate {name!r} draws which data it is of, others in every run: pass the data of a batch, with "
                f"pyro.plate({name!r}, size, subsample=x)"
            )
