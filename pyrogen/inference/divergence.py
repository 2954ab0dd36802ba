"""Kullback–Leibler divergences between a program to fit and a known density."""

from typing import Any

from torch import Tensor

from pyrogen.errors import ProgramError
from pyrogen.inference.elbo import ELBO
from pyrogen.inference.objective import Objective, PlateNesting
from pyrogen.sites import Program, is_data, is_latent, or_nothing
from pyrogen.traces import guide_terms, model_terms, total, trace_pair_from_model

__all__ = ["ForwardKL", "ReverseKL"]


class ReverseKL(Objective):
    r"""The divergence that seeks a mode: the fit's own draws are scored by the target.

    .. math:: \mathrm{KL}(q \,\|\, p) = \mathbb{E}_{q(z)}[\log q(z) - \log p(z)]

    The model is the target :math:`p`; the guide is the fit :math:`q`. Draws come from :math:`q` alone, so :math:`q` is
    pushed off wherever :math:`p` is small. A target that is not normalised, or that observes data, shifts the value by
    minus the logarithm of its normaliser: with data, this is the negative :class:`ELBO`.

    Args:
        num_particles: draws of :math:`q` for each estimate.
        analytic_kl: use the closed form at each site that has one, see :class:`ELBO`.

    Raises:
        ProgramError: where the programs' sites do not pair.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def target(): pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> def fit(): pyro.sample("z", dist.Normal(1.0, 1.0))
        >>> ReverseKL()(target, fit)
        tensor(0.5000)
    """

    def __init__(self, num_particles: int = 1, analytic_kl: bool = True) -> None:
        super().__init__()
        self.elbo = ELBO(num_particles, analytic_kl=analytic_kl)

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the divergence in nats."""
        return self.elbo(model, guide, *args, **kwargs)


class ForwardKL(Objective):
    r"""The divergence that covers every mode: the target's draws are scored by the fit.

    .. math:: \mathrm{KL}(p \,\|\, q) = \mathbb{E}_{p(z)}[\log p(z) - \log q(z)]

    The model is the target :math:`p`, which must be able to draw, and is held fixed; the guide is the fit :math:`q`.
    :math:`q` is pushed on to wherever :math:`p` has mass: this is maximum likelihood with draws of :math:`p` for data.

    Args:
        num_particles: draws of :math:`p` for each estimate, vectorised.
        max_plate_nesting: how deep the programs' plates nest; found by a rehearsal if not given.

    Raises:
        ProgramError: where the target observes data (nothing draws from a posterior), or sites do not pair.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def target(): pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> def fit(): pyro.sample("z", dist.Normal(0.0, 2.0))
        >>> pyro.set_rng_seed(0)
        >>> round(float(ForwardKL(num_particles=100_000)(target, fit)), 2)  # log 2 - 3/8
        0.32
    """

    def __init__(self, num_particles: int = 1, max_plate_nesting: int | None = None) -> None:
        super().__init__()
        if num_particles < 1:
            raise ValueError(f"num_particles must be at least 1, found {num_particles}")
        self.num_particles = num_particles
        self.nesting = PlateNesting(max_plate_nesting)

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the divergence in nats; its gradient reaches the guide alone."""
        guide = or_nothing(guide)
        nesting = self.nesting(model, guide, *args, **kwargs)
        traces = trace_pair_from_model(model, guide, args, kwargs, self.num_particles, nesting)
        for name, site in traces.guide.nodes.items():
            if is_latent(site) and name not in traces.model.nodes:
                raise ProgramError(
                    f"ForwardKL scores the model's draws under the guide, which has the auxiliary site {name!r} to "
                    f"be integrated out. Use a guide that samples the model's sites directly; AutoNormal does not."
                )
        for name, site in traces.model.nodes.items():
            if is_data(site):
                raise ProgramError(
                    f"ForwardKL draws from the model, which observes site {name!r}: nothing draws from its posterior. "
                    f"Leave the site unobserved to fit the joint distribution, or use ELBO, IWAE or ReverseKL."
                )
        return (total(model_terms(traces)).detach() - total(guide_terms(traces))) / self.num_particles
