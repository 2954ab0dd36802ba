"""Run a model with posterior draws in one outermost plate, and read ArviZ's groups off its traces."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from numpy.typing import NDArray
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer import MCMC, infer_discrete
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrogen.distributions import is_implicit
from pyrogen.inferencedata import Variable, is_constant, pareto_k
from pyrogen.programs import importance, renyi_bound
from pyrogen.sites import PARTICLES, Generating, Program, is_data, is_latent, is_point, nothing
from pyrogen.traces import Term, Traces, marginal_terms, model_terms, plate_nesting, plate_scale, trace_pair

__all__ = ["Group", "Reader", "Source"]

Group = dict[str, Variable]


class Source(NamedTuple):
    """Where draws come from: a guide, or the samples of MCMC by site, shape ``(chains, draws, ...)``."""

    model: Program
    guide: Program | None
    mcmc: MCMC | None


class Fixed(Messenger):
    """Give latent sites the values of posterior draws, or plates their subsamples."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            # Not "done": Pyro's enumeration has to see the site, but must not enumerate it.
            msg["value"] = self.values[msg["name"]]
            msg["infer"] = {key: value for key, value in msg["infer"].items() if key != "enumerate"}


class Reader:
    """Runs the model with draws in one outermost plate, and reads groups off its traces."""

    def __init__(
        self,
        source: Source,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        num_samples: int,
        dims: Mapping[str, Sequence[str]],
    ) -> None:
        self.source, self.args, self.kwargs, self.dims = source, args, kwargs, dims
        self.model, self.guide = source.model, source.guide or nothing
        self.nesting = plate_nesting(self.model, self.guide, *args, **kwargs)
        indices = self._subsamples()
        self.model, self.guide = Fixed(indices)(self.model), Fixed(indices)(self.guide)
        self.coords: dict[str, NDArray[Any]] = {name: value.cpu().numpy() for name, value in indices.items()}
        self.chains, self.size = 1, num_samples
        self.weights: Tensor | None = None
        self.scale = 1.0
        self.values = self._of_guide() if source.mcmc is None else self._of_mcmc(source.mcmc)

    def groups(self) -> tuple[dict[str, Group], dict[str, dict[str, Any]]]:
        """Return all groups that apply, and their attributes."""
        assigned = self._assigned()
        posterior = self._trace(assigned)
        predictive = self._trace(Generating()(assigned))
        prior = self._trace(Generating()(self.model))
        observed = [name for name, site in posterior.nodes.items() if is_data(site)]
        scored = self._scored()
        likelihood, estimate = self._log_likelihood(posterior, observed, scored)
        stats, diagnosis = self._stats(scored)
        groups = {
            "posterior": self._variables(posterior, lambda name, site: name not in observed),
            "posterior_predictive": self._variables(predictive, lambda name, site: name in observed),
            "prior": self._variables(prior, lambda name, site: name not in observed),
            "prior_predictive": self._variables(prior, lambda name, site: name in observed),
            "log_likelihood": likelihood,
            "sample_stats": stats,
            "observed_data": {name: self._observed(name, posterior.nodes[name]) for name in observed},
        }
        return groups, {"log_likelihood": estimate, "sample_stats": diagnosis}

    def _subsamples(self) -> dict[str, Tensor]:
        """Draw the plates' subsamples once: every group has to speak of the same data."""
        guide = poutine.trace(self.guide).get_trace(*self.args, **self.kwargs)
        model = poutine.trace(poutine.replay(self.model, trace=guide)).get_trace(*self.args, **self.kwargs)
        sites = {**guide.nodes, **model.nodes}
        return {
            name: site["value"] for name, site in sites.items() if site["type"] == "sample" and site_is_subsample(site)
        }

    def _plated(self, program: Program) -> Program:
        def plated(*args: Any, **kwargs: Any) -> Any:
            with pyro.plate(PARTICLES, self.size, dim=-1 - self.nesting):
                return program(*args, **kwargs)

        return plated

    def _trace(self, program: Program) -> Trace:
        return poutine.trace(self._plated(program)).get_trace(*self.args, **self.kwargs)

    def _assigned(self) -> Program:
        """Fix the model's latents to the draws, and draw enumerated ones from their exact conditional posterior."""
        fixed = Fixed(self.values)(self.model)
        sites = self._trace(fixed).nodes.values()
        if all(site["infer"].get("enumerate") != "parallel" for site in sites if is_latent(site)):
            return fixed
        assigned = infer_discrete(self._plated(fixed), first_available_dim=-2 - self.nesting)
        trace = poutine.trace(assigned).get_trace(*self.args, **self.kwargs)
        return Fixed({name: site["value"] for name, site in trace.nodes.items() if is_latent(site)})(self.model)

    def _of_guide(self) -> dict[str, Tensor]:
        """Draw from the guide, with importance weights where it has a density and enumerates nothing.

        The weights belong to one datum each where they factorise, and leave out what subsampling multiplies them by.
        """
        guide_trace = self._trace(self.guide)
        latents = [site for site in guide_trace.nodes.values() if is_latent(site)]
        has_weights = all(s["infer"].get("enumerate") != "parallel" and not is_implicit(s["fn"]) for s in latents)
        if self.source.guide is not None and has_weights:
            try:
                traces = trace_pair(self.model, self.guide, self.args, self.kwargs, self.size, self.nesting)
            except NotImplementedError:
                traces = None  # a distribution of the user's own may draw without a density
            if traces is not None:
                guide_trace = traces.guide
                if not any(_is_point(site) for site in guide_trace.nodes.values()):
                    log_w, _, self.scale = importance(traces)
                    self.weights = log_w.cpu()
        return {name: site["value"] for name, site in guide_trace.nodes.items() if is_latent(site)}

    def _of_mcmc(self, mcmc: MCMC) -> dict[str, Tensor]:
        samples = mcmc.get_samples(group_by_chain=True)
        self.chains, draws = next(iter(samples.values())).shape[:2]
        self.size = self.chains * draws
        sites = poutine.trace(self.model).get_trace(*self.args, **self.kwargs).nodes
        values = {}
        for name, value in samples.items():
            event_dim = sites[name]["fn"].event_dim
            flat = value.flatten(0, 1)
            batch = flat.shape[1 : flat.dim() - event_dim]
            padding = (1,) * (self.nesting - len(batch))
            values[name] = flat.reshape(self.size, *padding, *batch, *flat.shape[flat.dim() - event_dim :])
        return values

    def _variables(self, trace: Trace, wanted: Any) -> Group:
        return {
            name: self._variable(name, site, *_aligned(site, self.size, self.nesting))
            for name, site in trace.nodes.items()
            if (is_latent(site) or is_data(site) or site.get("infer", {}).get("_deterministic")) and wanted(name, site)
        }

    def _variable(self, name: str, site: Mapping[str, Any], value: Tensor, event_dim: int) -> Variable:
        """Bring a value to shape ``(chains, draws, *plates, *event)``, and name its dimensions."""
        value = value.detach().cpu()
        cut = value.dim() - event_dim
        batch, event = tuple(value.shape[:cut]), value.shape[cut:]
        batch = (1,) * (self.nesting + 1 - len(batch)) + batch
        value = value.reshape(*batch, *event)
        if batch[-1 - self.nesting] == 1:
            value = value.expand(*batch[: -1 - self.nesting], self.size, *batch[len(batch) - self.nesting :], *event)
        named = _plates(site)
        kept, names = [], []
        for dim in range(-self.nesting, 0):
            if dim in named:
                kept.append(named[dim].size)
                names.append(named[dim].name)
                value = _expanded(value, dim - event_dim, named[dim].size)
                self.coords.setdefault(named[dim].name, np.arange(named[dim].size))
            elif batch[dim] > 1:
                kept.append(batch[dim])
                names.append(f"{name}_plate_{-dim}")
        # What a datum's log-likelihood is called after has an event, and the log-likelihood has none.
        names += list(self.dims.get(name, [f"{name}_dim_{i}" for i in range(event_dim)])) if event_dim else []
        array = value.reshape(self.chains, self.size // self.chains, *kept, *event).numpy()
        return Variable(array, ("chain", "draw", *names))

    def _observed(self, name: str, site: Mapping[str, Any]) -> Variable:
        variable = self._variable(name, site, site["value"], site["fn"].event_dim)
        return Variable(variable.values[0, 0], variable.dims[2:])

    def _log_likelihood(self, posterior: Trace, observed: list[str], scored: Traces) -> tuple[Group, dict[str, Any]]:
        plates = self._local_plates(posterior)
        if self.weights is not None and observed and plates:
            value = renyi_bound(self.weights).reshape([frame.size for frame in plates]).numpy()
            name = observed[0] if len(observed) == 1 else "joint"
            variable = Variable(value[None, None], ("chain", "draw", *(frame.name for frame in plates)))
            return {name: variable}, {"estimate": "iwae", "num_particles": self.size}
        sites = {name: scored.model.nodes[name] for name in observed}
        summed = [name for name, site in sites.items() if site["log_prob"].dim() > self.nesting + 1]
        found = {
            name: self._variable(name, site, scale_and_mask(site["unscaled_log_prob"], mask=site["mask"]), 0)
            for name, site in sites.items()
            if name not in summed
        }
        if not summed:
            return found, {}
        for i, term in enumerate(_conditional(marginal_terms(scored), marginal_terms(self._scored(observed)))):
            name = summed[0] if len(summed) == 1 and i == 0 else f"joint_{i}"
            site = {"cond_indep_stack": term.frames}
            found[name] = self._variable(name, site, term.log_prob / plate_scale(term.frames), 0)
        return found, {"summed_out": "enumerated sites"}

    def _local_plates(self, posterior: Trace) -> list[Any]:
        """List, outermost first, the plates that all sites lie in, if no site lies in others: weights factorise."""
        sites = {name: site for name, site in posterior.nodes.items() if is_latent(site) or is_data(site)}
        stacks = [{frame.name: frame for frame in _plates(site).values()} for site in sites.values()]
        if self.weights is None or not self.values.keys() & sites.keys():
            return []
        plates = sorted(stacks[0].values(), key=lambda frame: frame.dim)
        if any(stack.keys() != stacks[0].keys() for stack in stacks):
            return []
        # A guide that ties the data together, such as a full-rank one, has one weight for all of them.
        return plates if self.weights.shape[1] == prod(frame.size for frame in plates) else []

    def _scored(self, hidden: Sequence[str] = ()) -> Traces:
        """Score the model, or all of it but some sites, at the draws, its enumerated sites all in parallel."""
        model = self._plated(poutine.block(Fixed(self.values)(self.model), hide=list(hidden)))
        return trace_pair(model, self._plated(self._latents_only()), self.args, self.kwargs, 1, self.nesting + 1)

    def _latents_only(self) -> Program:
        values, model = self.values, self.model

        def hidden(msg: Mapping[str, Any]) -> bool:
            return msg["type"] == "sample" and (msg["name"] not in values or msg["is_observed"])

        return poutine.block(Fixed(values)(model), hide_fn=hidden)

    def _stats(self, scored: Traces) -> tuple[Group, dict[str, Any]]:
        stats = {"lp": self._statistic(self._lp(scored))}
        if self.source.mcmc is not None:
            return stats | {"diverging": self._diverging(self.source.mcmc)}, {}
        if self.weights is None:
            return stats, {"log_weight": "none: the guide is implicit, a point, enumerates, or is not there"}
        weights, total = self.weights.numpy(), (self.weights * self.scale).sum(1)
        stats["log_weight"] = self._statistic(total)
        diagnosis: dict[str, Any] = {"constant_weights": int(is_constant(weights.T))}
        if weights.shape[1] == 1:
            return stats, diagnosis | {"pareto_k": float(pareto_k(total.numpy()))}
        # Latents are local: each datum has weights of its own, and their product over data means nothing.
        stats["pareto_k"] = Variable(pareto_k(weights.T), ("datum",))
        return stats, diagnosis

    def _lp(self, scored: Traces) -> Tensor:
        """Add up the model's log-probabilities, draw by draw."""
        total = torch.zeros(())
        for term in model_terms(scored):
            log_prob = term.log_prob.cpu()
            summed = [dim for dim in range(-log_prob.dim(), 0) if dim != -1 - self.nesting]
            total = total + (log_prob.sum(summed) if summed else log_prob)
        return total.expand(self.size)

    def _statistic(self, values: Tensor) -> Variable:
        return Variable(values.reshape(self.chains, -1).numpy(), ("chain", "draw"))

    def _diverging(self, mcmc: MCMC) -> Variable:
        diverging = np.zeros((self.chains, self.size // self.chains), dtype=bool)
        # MCMC.diagnostics() computes more than divergences, and fails below four draws.
        for chain, diagnostics in enumerate(mcmc._diagnostics):
            diverging[chain, list(diagnostics.get("divergences", []))] = True
        return Variable(diverging, ("chain", "draw"))


def _aligned(site: Mapping[str, Any], size: int, nesting: int) -> tuple[Tensor, int]:
    """Return a site's value, its draws left of all plates, and how many of its dimensions are its event's.

    ``pyro.deterministic`` takes all of a value for its event unless told otherwise, draws and plates included; and a
    value reduced over plates, such as a sum, has its draws where a plate should be.
    """
    value, event_dim = site["value"], site["fn"].event_dim
    if not site["infer"].get("_deterministic"):
        return value, event_dim
    has_draws = value.dim() > 0 and value.shape[0] == size
    if event_dim == value.dim() and has_draws:
        event_dim = max(value.dim() - 1 - nesting, 0)
        if value.dim() <= nesting:  # draws, and then an event
            event_dim = value.dim() - 1
    batch_dim = value.dim() - event_dim
    if has_draws and 0 < batch_dim <= nesting and -batch_dim not in _plates(site):
        value = value.reshape(size, *(1,) * (nesting + 1 - batch_dim), *value.shape[1:])
    return value, event_dim


def _conditional(joint: Sequence[Term], prior: Sequence[Term]) -> list[Term]:
    r"""Divide what is left of latents and data by what is left of latents alone.

    .. math:: \log p(x \mid z) = \log \sum_k p(x, z, k) - \log \sum_k p(z, k)

    Terms of the same plates are added up; those without data fall out.
    """
    found = {term.frames: term for term in _added(joint)}
    for term in _added(prior):
        frames = max((f for f in found if set(f) <= set(term.frames)), key=len)
        summed = [frame.dim for frame in term.frames if frame not in frames]
        log_prob = term.log_prob.sum(summed, keepdim=True) if summed else term.log_prob
        if frames == term.frames and torch.equal(found[frames].log_prob, log_prob):
            del found[frames]
        else:
            found[frames] = Term(frames, found[frames].log_prob - log_prob)
    return list(found.values())


def _added(terms: Sequence[Term]) -> list[Term]:
    added: dict[tuple[Any, ...], Term] = {}
    for term in terms:
        frames = tuple(sorted(term.frames, key=lambda frame: frame.dim))
        added[frames] = Term(frames, added[frames].log_prob + term.log_prob if frames in added else term.log_prob)
    return list(added.values())


def _is_point(site: Mapping[str, Any]) -> bool:
    """Tell whether a guide's site is the same number in every draw, as AutoDelta's are: it has no density."""
    if site["type"] != "sample" or not is_point(site["fn"]):
        return False
    value = site["value"]
    return bool((value == value[:1]).all()) if value.dim() else True


def _plates(site: Mapping[str, Any]) -> dict[int, Any]:
    """Return the plates that a site lies in, by dimension, without that of the draws."""
    return {frame.dim: frame for frame in site["cond_indep_stack"] if frame.vectorized and frame.name != PARTICLES}


def _expanded(value: Tensor, dim: int, size: int) -> Tensor:
    shape = list(value.shape)
    shape[dim] = size
    return value.expand(shape)
