"""Adversarial variational Bayes: guides without a density."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine import Trace
from torch import Tensor, nn

from pyrogen.distributions import is_implicit
from pyrogen.errors import ProgramError
from pyrogen.inference.autoencoding import refuse_observed
from pyrogen.inference.covariates import covariates_of
from pyrogen.inference.elbo import ELBO
from pyrogen.inference.moments import Moments
from pyrogen.inference.objective import Objective, PlateNesting
from pyrogen.inference.ratio import LogRatio, Ratio
from pyrogen.inference.rows import in_plates, in_rows, number_of_rows, repeated, shared_plates
from pyrogen.inference.samples import check_gradient
from pyrogen.sites import PARTICLES, Program, is_data, is_latent, is_point, or_nothing, sample_sites
from pyrogen.traces import Traces, draw_trace, subsamples, trace_pair

__all__ = ["AVB"]


class Run(NamedTuple):
    """How the programs are run."""

    model: Program
    guide: Program
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    nesting: int

    def guide_trace(self, num_particles: int) -> Trace:
        """Draw from the guide."""
        return draw_trace(self.guide, self.args, self.kwargs, num_particles, self.nesting)

    def model_trace(self, num_particles: int, guide_trace: Trace, drawn: Sequence[str]) -> Trace:
        """Run the model with the guide's draws, but draw some sites from the model itself."""
        kept = guide_trace.copy()
        for name in drawn:
            kept.remove_node(name)
        return draw_trace(poutine.replay(self.model, trace=kept), self.args, self.kwargs, num_particles, self.nesting)


class AVB(Objective):
    r"""Adversarial variational Bayes: the ELBO of a guide that can be drawn from and has no density.

    .. math::
        \mathcal{L} = \mathbb{E}_{q(z \mid x)}\left[\log p(x \mid z) - T(z, x)\right], \quad
        T^*(z, x) = \log q(z \mid x) - \log p(z)

    where the critic :math:`T` is learned from draws of the guide and of the prior, with the same :math:`x` beside both
    (see :class:`Ratio`). With *adaptive contrast*, draws of the guide are told from a normal distribution
    :math:`r(z \mid x)` with the guide's own mean and standard deviation instead, which is much nearer to it:

    .. math::
        \mathcal{L} = \mathbb{E}_{q(z \mid x)}\left[\log p(x, z) - \log r(z \mid x) - T(\tilde z, x)\right], \quad
        \tilde z = \frac{z - \mu(x)}{\sigma(x)}, \quad T^*(\tilde z, x) = \log q(z \mid x) - \log r(z \mid x)

    The moments pass no gradient. What the loss estimates is *not a bound*: where :math:`T` falls short of the truth,
    which it does more the further apart the two densities are, the estimate is too high.

    In Pyro's terms, the guide's site becomes a ``Delta`` with the learned logarithm of its density, so that plates,
    subsampling, masks, particles and other sites, with densities or enumerated, are treated as in :class:`ELBO`. Sites
    in the same plates may share a critic, which sees them side by side; a global site's critic sees no data, which are
    the same for all its draws, and a row of it is a particle.

    Args:
        critic: called with the sites' values, one row a datum and particle, then with what the model observes in their
            plates, earlier latents of the guide in no other plate, and covariates; it returns a logit a row. A
            :class:`LogRatio` chooses the estimator; one without parameters is an oracle. With a mapping from site to
            critic, each site has its own, of its density given earlier sites.
        sites: which sites of the guide are learned; by default, those that are ``Implicit``, or ``Delta`` (functions
            of an auxiliary implicit site, as of :class:`AutoImplicit`), or else all.
        contrast: how many draws of the guide adaptive contrast takes the moments of; 0 for none.
        num_particles: draws of the guide for each estimate, in an outermost plate.
        covariates: names of the arguments to show to the critic; found by themselves if not given.
        max_plate_nesting: how deep the programs' plates nest; found by a rehearsal if not given.

    Raises:
        ProgramError: where sites do not pair, where the sites of one critic share no plates, or where the guide draws
            in an order in which no ratio to the model's densities exists.

    References:
        Adversarial Variational Bayes: Unifying Variational Autoencoders and Generative Adversarial Networks
        (Mescheder, Nowozin and Geiger, 2017), https://arxiv.org/abs/1701.04722

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyrogen.distributions import Implicit
        >>> def model():
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))
        >>> def guide():
        ...     pyro.sample("z", Implicit(lambda shape: 0.5 + 0.5**0.5 * torch.randn(shape)))
        >>> class Oracle(LogRatio):
        ...     def forward(self, values, conditions=()):
        ...         z, = values
        ...         return dist.Normal(0.5, 0.5**0.5).log_prob(z) - dist.Normal(0.0, 1.0).log_prob(z)
        ...     def loss(self, of_q, of_p, conditions=()): ...
        >>> log_p = dist.Normal(0.0, 2**0.5).log_prob(torch.tensor(1.0))
        >>> bool(torch.isclose(-AVB(Oracle())(model, guide), log_p))
        True
    """

    saturates = True
    critic_order: Tensor

    def __init__(
        self,
        critic: nn.Module | Mapping[str, nn.Module],
        *,
        sites: Sequence[str] | None = None,
        contrast: int = 0,
        num_particles: int = 1,
        covariates: Sequence[str] | None = None,
        max_plate_nesting: int | None = None,
    ) -> None:
        super().__init__()
        if contrast < 0 or contrast == 1:
            raise ValueError(f"contrast must be 0, or at least 2 draws to take moments of, found {contrast}")
        critics = dict(critic) if isinstance(critic, Mapping) else {"": critic}
        if sites is not None and isinstance(critic, Mapping):
            raise ValueError("sites says which share one critic: leave it out where each has its own")
        self.names = list(critics)
        self.ratios = nn.ModuleList([c if isinstance(c, LogRatio) else Ratio(c) for c in critics.values()])
        self.sites = None if sites is None else tuple(sites)
        self.contrast = contrast
        self.num_particles = num_particles
        self.covariates = covariates
        self.elbo = ELBO(num_particles)
        self.nesting = PlateNesting(max_plate_nesting)
        self.register_buffer("critic_order", torch.tensor(0.5))

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the estimate of the negative ELBO in nats, summed over the data."""
        run = self._run(model, guide, args, kwargs)
        learned = partial(self._learn, run)
        traces = trace_pair(model, run.guide, args, kwargs, self.num_particles, run.nesting, learned)
        loss = self.elbo.loss_of(traces)
        if self.contrast:
            return loss
        return loss + _of_draws_alone(traces, [n for names, _ in self._groups(*traces[:2]) for n in names]) / (
            1 if traces.particle_dim is None else self.num_particles
        )

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return what the ratios are learned by: the sum of their losses."""
        run = self._run(model, guide, args, kwargs)
        losses, orders = [], []
        with torch.no_grad():
            compared = self._all_compared(run)
        for ratio, of_q, of_p, conditions in compared.values():
            with torch.no_grad():
                orders.append((ratio(of_q, conditions) > ratio(of_p, conditions)).float().mean())
            losses.append(ratio.loss(of_q, of_p, conditions))
        with torch.no_grad():
            self.critic_order.lerp_(torch.stack(orders).max().to(self.critic_order.dtype), 0.02)
        return torch.stack(losses).sum()

    def elbo_estimate(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss with its sign turned."""
        return -self(model, guide, *args, **kwargs)

    def log_ratios(
        self, model: Program, guide: Program | None, *args: Any, **kwargs: Any
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return what the ratios say of draws of the guide, and of what they are told from, by the names of sites."""
        compared = self._all_compared(self._run(model, guide, args, kwargs))
        return {
            name: (ratio(of_q, conditions), ratio(of_p, conditions))
            for name, (ratio, of_q, of_p, conditions) in compared.items()
        }

    def monitored(self) -> dict[str, Tensor]:
        """Return a moving average of how often a critic scored a draw of the guide above one of what it is told from.

        Near one, the estimate of the divergence is not to be trusted.
        """
        return {"critic_order": self.critic_order}

    def _run(self, model: Program, guide: Program | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run:
        guide = or_nothing(guide)
        return Run(model, guide, args, kwargs, self.nesting(model, guide, *args, **kwargs))

    def _groups(self, model_trace: Trace, guide_trace: Trace) -> list[tuple[tuple[str, ...], LogRatio]]:
        """Pair each critic with the sites that it is for."""
        latents = [name for name, site in guide_trace.nodes.items() if is_latent(site) and name in model_trace.nodes]
        if not latents:
            raise ProgramError("the guide has no latent site whose density could be learned")
        for name in (*(self.sites or ()), *filter(None, self.names)):
            if name not in latents:
                raise ProgramError(f"there is no latent site {name!r} in both programs: they have {', '.join(latents)}")
        if self.names != [""]:
            return [((name,), ratio) for name, ratio in zip(self.names, self.ratios, strict=True)]  # type: ignore[misc]
        without = [name for name in latents if _lacks_density(guide_trace.nodes[name])]
        return [(self.sites or tuple(without or latents), self.ratios[0])]  # type: ignore[list-item]

    def _learn(self, run: Run, model_trace: Trace, guide_trace: Trace) -> None:
        """Give the guide's sites the logarithm of their density that the ratios say."""
        refuse_observed(guide_trace)
        groups = self._groups(model_trace, guide_trace)
        learned = [guide_trace.nodes[name] for names, _ in groups for name in names]
        of_noise = any(is_point(site["fn"]) for site in learned)
        for site in learned:
            check_gradient(site)
        for names, ratio in groups:
            plates, conditions = self._conditions(run, names, model_trace, guide_trace)
            values = _rows(guide_trace, names, plates)
            if self.contrast:
                moments = self._moments(run, names, guide_trace)
                log_q = ratio(moments.standardized(values), conditions) + moments.log_prob(values)
            else:
                log_q = ratio(values, conditions)
            anchor = _anchor(names, guide_trace, plates)
            for name in names:
                site, prior = guide_trace.nodes[name], model_trace.nodes[name]["fn"]
                log_density = torch.zeros(()) if self.contrast else prior.log_prob(site["value"]).detach()
                if log_density.dim() > len(site["fn"].batch_shape):
                    raise ProgramError(
                        f"the model's density of {name!r} depends on a site that it enumerates, so that the guide's "
                        f"cannot be told from it by a ratio: compare with the guide's own moments, contrast=16"
                    )
                if name == anchor:
                    log_density = log_density + in_plates(log_q, plates)
                _make_point(site, log_density)
        # The density of what is made of auxiliary noise is learned, and that of the noise is in it.
        for site in filter(is_latent, sample_sites(guide_trace)):
            if site["infer"].get("is_auxiliary") and (of_noise or is_implicit(site["fn"])):
                _make_point(site, torch.zeros(()))

    def _all_compared(self, run: Run) -> dict[str, tuple[LogRatio, list[Tensor], list[Tensor], tuple[Tensor, ...]]]:
        """Return each ratio with what it compares, by the names of its sites."""
        guide_trace = run.guide_trace(self.num_particles)
        model_trace = run.model_trace(self.num_particles, guide_trace, ())
        return {
            ", ".join(names): (ratio, *self._compared(run, names, model_trace, guide_trace))
            for names, ratio in self._groups(model_trace, guide_trace)
        }

    def _compared(
        self, run: Run, names: Sequence[str], model_trace: Trace, guide_trace: Trace
    ) -> tuple[list[Tensor], list[Tensor], tuple[Tensor, ...]]:
        """Return draws of the guide, what they are told from, and what is shown beside both."""
        plates, conditions = self._conditions(run, names, model_trace, guide_trace)
        of_q = _rows(guide_trace, names, plates)
        if self.contrast:
            of_q = self._moments(run, names, guide_trace).standardized(of_q)
            return of_q, [torch.randn_like(z) for z in of_q], conditions
        return of_q, _rows(run.model_trace(self.num_particles, guide_trace, names), names, plates), conditions

    def _conditions(
        self, run: Run, names: Sequence[str], model_trace: Trace, guide_trace: Trace
    ) -> tuple[list[Any], tuple[Tensor, ...]]:
        """Return the plates that a critic's sites share, and all that its ratio is given, a row for each index."""
        plates = shared_plates([guide_trace.nodes[name] for name in names])
        before = [guide_trace.nodes[name] for name in _earlier(names, model_trace, guide_trace)]
        dims = {frame.dim: frame.name for frame in plates}
        # A latent of another plate has no row for each index of this one, and is independent given what both share.
        earlier = [s for s in before if all(dims.get(f.dim, f.name) == f.name for f in s["cond_indep_stack"])]
        own = {(frame.name, frame.dim) for frame in plates if frame.name != PARTICLES}
        observed = [site for site in sample_sites(model_trace) if is_data(site)] if own else []
        beside = [site for site in observed if own <= {(f.name, f.dim) for f in site["cond_indep_stack"]}]
        rows = [in_rows(site["value"], site, plates) for site in (*beside, *earlier)]
        if not own:
            return plates, tuple(rows)
        batch = number_of_rows([frame for frame in plates if frame.name != PARTICLES])
        data = [site["value"] for site in observed]
        given = covariates_of(run.model, run.args, run.kwargs, data, batch, self.covariates)
        particles = number_of_rows(plates) // batch
        return plates, (*rows, *[repeated(column, particles) for column in given])

    @torch.no_grad()
    def _moments(self, run: Run, names: Sequence[str], guide_trace: Trace) -> Moments:
        """Take the moments of many draws of the guide, for each index of the plates, for the same data."""
        guide = poutine.replay(run.guide, trace=subsamples(guide_trace))
        trace = draw_trace(guide, run.args, run.kwargs, self.contrast, run.nesting)
        plates = shared_plates([trace.nodes[name] for name in names])
        for name in names:
            if not trace.nodes[name]["value"].is_floating_point():
                raise ProgramError(f"site {name!r} is discrete: adaptive contrast is for real numbers. Set contrast=0")
        return Moments.of(_rows(trace, names, plates), self.contrast)


def _lacks_density(site: Mapping[str, Any]) -> bool:
    return is_implicit(site["fn"]) or is_point(site["fn"])


def _rows(trace: Trace, names: Sequence[str], plates: Sequence[Any]) -> list[Tensor]:
    sites = (trace.nodes[name] for name in names)
    return [in_rows(site["value"], site, plates) for site in sites]


def _make_point(site: dict[str, Any], log_density: Tensor) -> None:
    """Turn a site's distribution into a point with the logarithm of a density."""
    value, event_dim = site["value"], site["fn"].event_dim
    batch_shape = value.shape[: value.dim() - event_dim]
    site["fn"] = Delta(value, log_density.to(value.device).expand(batch_shape), event_dim)


def _anchor(names: Sequence[str], trace: Trace, plates: Sequence[Any]) -> str:
    """Choose the site that carries the density of all that share a critic: one in no other plates than they share."""
    for name in names:
        if len([frame for frame in trace.nodes[name]["cond_indep_stack"] if frame.vectorized]) == len(plates):
            return name
    raise ProgramError(
        f"sites {', '.join(map(repr, names))} have one critic, and each lies in a plate that another does not: there "
        f"is no site to carry their density. Give each its own, as AVB({{{names[0]!r}: critic, ...}})"
    )


def _earlier(names: Sequence[str], model_trace: Trace, guide_trace: Trace) -> list[str]:
    """List the other latents that a guide drew before those of a critic: what their density is conditioned on.

    Raises:
        ProgramError: where others come in between, or where the model's density is conditioned on later ones.
    """
    drawn = [name for name, site in guide_trace.nodes.items() if is_latent(site) and name in model_trace.nodes]
    first = min(map(drawn.index, names))
    earlier, later = drawn[:first], [name for name in drawn[first:] if name not in names]
    between = [name for name in later if drawn.index(name) < max(map(drawn.index, names))]
    if between:
        raise ProgramError(
            f"the guide draws {between[0]!r} between the sites {', '.join(names)} of one critic: draw them one after "
            f"the other, or give each its own critic"
        )
    order = list(model_trace.nodes)
    wrong = [name for name in later if order.index(name) < max(map(order.index, names))]
    if wrong:
        raise ProgramError(
            f"the model draws {wrong[0]!r} before {names[-1]!r}, and the guide after it: the ratio of their densities "
            f"is no function of what came before. Draw in the model's order, or let both share a critic"
        )
    return earlier


def _of_draws_alone(traces: Traces, names: Sequence[str]) -> Tensor:
    r"""Return zero, with the gradient that the model's densities of some sites have through its draws.

    The learned :math:`\log q = T + \log p` cancels :math:`\log p` as a function of the draws, and not as one of the
    model's parameters, which the guide's density does not depend on: a prior is learned like any other part of a model.
    """
    density = sum(traces.model.nodes[name]["log_prob"].sum() for name in names)
    draws = [site["value"] for site in sample_sites(traces.guide) if is_latent(site) and site["value"].requires_grad]
    if not draws or not (isinstance(density, Tensor) and density.requires_grad):
        return torch.zeros_like(density)
    gradients = torch.autograd.grad(density, draws, retain_graph=True, allow_unused=True)
    pairs = [(g.detach(), z) for g, z in zip(gradients, draws, strict=True) if g is not None]
    return torch.stack([(g * (z - z.detach())).sum() for g, z in pairs]).sum() if pairs else torch.zeros_like(density)
