"""The evidence lower bound."""

from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions.util import is_identically_zero, scale_and_mask
from pyro.infer.traceenum_elbo import _compute_dice_elbo  # Pyro's sum over a guide's enumerated sites
from pyro.infer.util import MultiFrameTensor
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import kl_divergence

from pyrogen.errors import ProgramError
from pyrogen.inference.annealing import Annealing, is_one, present
from pyrogen.inference.objective import Objective, PlateNesting, Player
from pyrogen.sites import Program, is_enumerated, is_latent, is_point, or_nothing, sample_sites
from pyrogen.traces import Term, Traces, guide_terms, model_terms, total, trace_pair

__all__ = ["ELBO", "analytic_kls"]


class ELBO(Objective):
    r"""The negative evidence lower bound.

    .. math::
        -\mathcal{L} = -\mathbb{E}_{q(z \mid x)}\!\left[\log p(x \mid z) + \beta \log p(z) - \beta \log q(z \mid x)
        \right] \ge -\log p(x) \quad (\beta = 1)

    summed over the data and scaled by plates as in Pyro. Continuous sites give pathwise gradients; sites without
    ``rsample`` give score-function gradients, Rao-Blackwellised over plates as in ``Trace_ELBO``; sites marked
    ``infer={"enumerate": "parallel"}`` are summed out, in the model, the guide, or both.

    Args:
        num_particles: draws of the guide for each estimate.
        vectorize_particles: draw them in one outermost plate instead of one after the other.
        max_plate_nesting: how deep the programs' plates nest; found by a rehearsal if not given.
        beta: the weight of the latent sites' terms: a number (β-VAE), or an :class:`Annealing` of it. Below one, the
            value is no longer a bound.
        analytic_kl: use :math:`\mathrm{KL}(q(z \mid \cdot) \,\|\, p(z \mid \cdot))` in closed form at each site that
            has one, as far as both programs sample their latents in the same order. A ``Delta`` never counts: its
            ``log_density`` would be dropped.
        leave_one_out: with several vectorised particles, subtract the mean of the other particles' returns from each
            score-function term: an unbiased baseline of zero cost.

    Raises:
        ProgramError: where the programs' sites do not pair, or ``beta`` meets a site that the model enumerates.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

        beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework (Higgins et al., 2017),
        https://openreview.net/forum?id=Sy2fzU9gl

        Buy 4 REINFORCE Samples, Get a Baseline for Free! (Kool et al., 2019),
        https://openreview.net/forum?id=r1lgTGL5DE

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def posterior(x):
        ...     pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
        >>> x = torch.tensor(1.0)
        >>> bool(torch.isclose(-ELBO(analytic_kl=False)(model, posterior, x), dist.Normal(0.0, 2**0.5).log_prob(x)))
        True
    """

    def __init__(
        self,
        num_particles: int = 1,
        vectorize_particles: bool = True,
        max_plate_nesting: int | None = None,
        beta: float | Annealing = 1.0,
        analytic_kl: bool = True,
        leave_one_out: bool = True,
    ) -> None:
        super().__init__()
        if num_particles < 1:
            raise ValueError(f"num_particles must be at least 1, found {num_particles}")
        self.num_particles = num_particles
        self.vectorize_particles = vectorize_particles
        self.beta = beta
        self.analytic_kl = analytic_kl
        self.leave_one_out = leave_one_out
        self.nesting = PlateNesting(max_plate_nesting)

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the negative bound in nats, differentiable in the programs' parameters."""
        guide = or_nothing(guide)
        nesting = self.nesting(model, guide, *args, **kwargs)
        if not is_one(self.beta):
            tempered = Tempered(present(self.beta))
            model, guide = tempered(model), tempered(guide)
        if self.vectorize_particles:
            return self.loss_of(trace_pair(model, guide, args, kwargs, self.num_particles, nesting))
        losses = [self.loss_of(trace_pair(model, guide, args, kwargs, 1, nesting)) for _ in range(self.num_particles)]
        return torch.stack(losses).mean()

    def extra_repr(self) -> str:
        beta = "" if isinstance(self.beta, Annealing) else f", beta={self.beta}"
        return f"num_particles={self.num_particles}{beta}, analytic_kl={self.analytic_kl}"

    def after_step(self, player: Player) -> None:
        if isinstance(self.beta, Annealing) and player == "programs":
            self.beta.advance()

    def loss_of(self, traces: Traces) -> Tensor:
        """Return the negative bound in nats of programs that have run, averaged over the particles in their traces."""
        if not is_one(self.beta):
            _refuse_tempered_marginals(traces)
        count = self.num_particles if traces.particle_dim is not None else 1
        if any(is_enumerated(site) for site in sample_sites(traces.guide)):
            return -_compute_dice_elbo(traces.model, traces.guide) / count
        divergences = analytic_kls(traces) if self.analytic_kl and not traces.enumerates else {}
        plus, minus = model_terms(traces, divergences), guide_terms(traces, divergences)
        elbo = total(plus, [*minus, *divergences.values()])
        surrogate = self._score_terms(traces, plus, minus, divergences)
        if surrogate is not None:
            elbo = elbo + (surrogate - surrogate.detach())
        return -elbo / count

    def _score_terms(
        self, traces: Traces, plus: list[Term], minus: list[Term], divergences: Mapping[str, Term]
    ) -> Tensor | None:
        """Sum what gives sites without ``rsample`` their gradient: the score times what the draw brought.

        The term's value is meaningless; the caller keeps its gradient alone. Where a draw is not reparameterised, its
        own ``log q`` has a gradient of mean zero, which is taken out of the bound and replaced by the score term's.
        """
        sites = [
            site for site in sample_sites(traces.guide) if not is_identically_zero(site["score_parts"].score_function)
        ]
        if not sites:
            return None
        returns = MultiFrameTensor()
        returns.add(*((term.frames, term.log_prob.detach()) for term in plus))
        returns.add(*((term.frames, -term.log_prob.detach()) for term in (*minus, *divergences.values())))
        surrogate: Tensor | float = 0.0
        for site in sites:
            brought = self._centred(returns.sum_to(site["cond_indep_stack"]), traces.particle_dim)
            surrogate = surrogate + (brought * site["score_parts"].score_function).sum()
            if site["name"] not in divergences:
                surrogate = surrogate + (site["log_prob"] - site["score_parts"].entropy_term).sum()
        assert isinstance(surrogate, Tensor)
        return surrogate

    def _centred(self, returns: Tensor, particle_dim: int | None) -> Tensor:
        """Subtract from each particle's return the mean of the others'."""
        if not self.leave_one_out or particle_dim is None:
            return returns
        others = returns.sum(particle_dim, keepdim=True) - returns
        return returns - others / (self.num_particles - 1)


class Tempered(Messenger):
    """Scale the log-probability of every latent site; equal scales give the same object, so that they show as equal."""

    def __init__(self, weight: float | Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.scales: dict[float, float | Tensor] = {}

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not is_latent(msg):
            return
        scale = msg["scale"]
        if isinstance(scale, Tensor):
            msg["scale"] = scale * self.weight
        else:
            msg["scale"] = self.scales.setdefault(scale, scale * self.weight)


def _refuse_tempered_marginals(traces: Traces) -> None:
    for name, site in traces.model.nodes.items():
        if is_latent(site) and name not in traces.guide.nodes and is_enumerated(site):
            raise ProgramError(
                f"beta is not 1 and the model sums site {name!r} out: a weight on a latent's terms has no meaning once "
                f"the latent is gone. Set beta=1, or sample {name!r} in the guide."
            )


def analytic_kls(traces: Traces) -> dict[str, Term]:
    r"""Return :math:`\mathrm{KL}(q \,\|\, p)` of each latent site that has it in closed form.

    A ``Delta``, wrapped or not, never does: its divergence would drop the ``log_density``.

    At a site, later draws of the guide may depend on its value only in terms that stay sampled, and earlier ones may
    not: this holds if both programs draw their latents in the same order, and else no site qualifies.
    """
    shared = [name for name, site in traces.guide.nodes.items() if is_latent(site) and name in traces.model.nodes]
    if shared != [name for name, site in traces.model.nodes.items() if is_latent(site) and name in traces.guide.nodes]:
        return {}
    kls = {}
    for name in shared:
        q, p = traces.guide.nodes[name], traces.model.nodes[name]
        excess = _excess(p["scale"], q["scale"])
        if excess is None or q["mask"] is not p["mask"] or is_point(q["fn"]):
            continue
        if isinstance(excess, Tensor) and not q["fn"].has_rsample:
            continue  # its log q would need a score term
        try:
            kl = kl_divergence(q["fn"], p["fn"])
        except NotImplementedError:
            continue
        if isinstance(kl, Tensor):  # where all of a site is masked, Pyro returns the number zero, as the samples will
            weighted = scale_and_mask(kl, p["scale"], p["mask"])
            if isinstance(excess, Tensor):
                weighted = weighted - scale_and_mask(q["unscaled_log_prob"], excess, q["mask"])
            kls[name] = Term(q["cond_indep_stack"], weighted)
    return kls


def _excess(of_p: Any, of_q: Any) -> Tensor | float | None:
    r"""Return by how much the model's weight of a site exceeds the guide's; ``None`` where they are known to differ.

    Tensors are not looked at: the difference, zero or not, has a place in the divergence,

    .. math::
        \mathbb{E}_q[s_q \log q - s_p \log p] = s_p \, \mathrm{KL}(q \,\|\, p) - (s_p - s_q) \, \mathbb{E}_q \log q.
    """
    if of_p is of_q:
        return 0.0
    if isinstance(of_p, Tensor) or isinstance(of_q, Tensor):
        return of_p - of_q if isinstance(of_p, Tensor) and isinstance(of_q, Tensor) else None
    return 0.0 if of_p == of_q else None
