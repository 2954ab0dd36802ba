"""Natural gradients of conditionally conjugate sites: stochastic variational inference."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import kl_divergence

from pyrogen.distributions import TopicMixture, log_geometric_mean
from pyrogen.errors import ProgramError
from pyrogen.inference.objective import Objective, Player
from pyrogen.pairing import check_observed, check_pairing
from pyrogen.sites import Program, is_data, is_latent, sample_sites

__all__ = ["Averages", "NaturalGradient", "Site", "data_sites", "prior_of", "traces_at"]

Site = Mapping[str, Any]
"""A site of a trace."""


class NaturalGradient(Objective):
    r"""The negative mean-field bound of Dirichlet sites, with natural gradients: online variational Bayes.

    Latents are probabilities, :math:`q(\varphi) = \mathrm{Dirichlet}(\lambda)`, and what chooses by them (the topic of
    each word) is summed out by the model. With the choice's factor at its best, the bound is the model's density at
    geometric means,

    .. math::
        \mathcal{L}(\lambda) = \log p(x \mid \tilde\theta, \tilde\varphi) - \mathrm{KL}(q \,\|\, p), \quad
        \tilde\varphi = \exp \mathbb{E}_q[\log \varphi],

    and its gradient with respect to :math:`\mathbb{E}_q[\log \varphi]`, which are the mean parameters, is natural:

    .. math::
        \hat\lambda = \eta + \frac{\partial \log p(x \mid \tilde\theta, \tilde\varphi)}
        {\partial \, \mathbb{E}_q[\log \varphi]}, \quad
        \lambda \leftarrow (1 - \rho_t) \lambda + \rho_t \hat\lambda, \quad \rho_t = (\tau + t)^{-\kappa}.

    The loss has :math:`\rho_t (\lambda - \hat\lambda)` for its gradient: gradient descent at rate one takes the step
    above. With all data in a batch and :math:`\rho = 1` it is coordinate ascent. Plates scale as in Pyro. Of what is no
    site's concentration (a network in the model, say), the gradient is the usual one.

    Args:
        delay: :math:`\tau`, at least one: larger ones make little of the first batches.
        forgetting: :math:`\kappa`, between a half and one for convergence; 0 for steps of one.

    Raises:
        ProgramError: where a latent site is not Dirichlet in both programs, a site of data is not a
            :class:`~pyrogen.distributions.TopicMixture`, or the programs' sites do not pair.

    References:
        Stochastic Variational Inference (Hoffman et al., 2013), https://www.jmlr.org/papers/v14/hoffman13a.html

        Online Learning for Latent Dirichlet Allocation (Hoffman et al., 2010),
        https://papers.nips.cc/paper/3902-online-learning-for-latent-dirichlet-allocation

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> x = torch.tensor([[3.0, 1.0]])
        >>> def model(x):
        ...     phi = pyro.sample("phi", dist.Dirichlet(torch.ones(2)))
        ...     with pyro.plate("document", 1):
        ...         pyro.sample("x", TopicMixture(torch.ones(1, 1), phi[None]), obs=x)
        >>> concentration = torch.nn.Parameter(torch.ones(2))
        >>> def guide(x): pyro.sample("phi", dist.Dirichlet(concentration))
        >>> NaturalGradient(forgetting=0.0)(model, guide, x).backward()
        >>> concentration.data - concentration.grad  # the exact posterior, in one step
        tensor([4., 2.])
    """

    optimizer = "sgd"
    learning_rate = 1.0
    step: Tensor

    def __init__(self, delay: float = 10.0, forgetting: float = 0.7) -> None:
        super().__init__()
        if delay < 1 or not 0 <= forgetting <= 1:
            raise ValueError(
                f"delay must be at least 1 and forgetting in [0, 1], found delay={delay}, forgetting={forgetting}"
            )
        self.delay, self.forgetting = delay, forgetting
        self.register_buffer("step", torch.zeros((), dtype=torch.float64))

    def extra_repr(self) -> str:
        return f"delay={self.delay}, forgetting={self.forgetting}"

    def after_step(self, player: Player) -> None:
        self.step.add_(1)

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the negative bound in nats."""
        means = GeometricMeans()
        model_trace, guide_trace = traces_at(means, model, guide, args, kwargs)
        likelihood = torch.stack([_log_likelihood(site) for site in data_sites(model_trace)]).sum()
        divergence = likelihood.new_zeros(())
        for name in means.found:
            q, p = guide_trace.nodes[name], model_trace.nodes[name]
            divergence = divergence + scale_and_mask(kl_divergence(_fixed(q), prior_of(p)), p["scale"], p["mask"]).sum()
        loss = divergence - likelihood
        learned = [name for name, log_mean in means.found.items() if log_mean.requires_grad]
        if not learned:
            return loss
        inner = [means.found[name] for name in learned]
        gradients = torch.autograd.grad(likelihood, inner, retain_graph=True)
        for name, gradient in zip(learned, gradients, strict=True):
            p = model_trace.nodes[name]
            target = prior_of(p).concentration + gradient / p["scale"]
            loss = loss + self.pull(guide_trace.nodes[name]["fn"].concentration, target)
        return loss

    def pull(self, concentration: Tensor, target: Tensor) -> Tensor:
        r"""Return a zero whose gradient is :math:`\rho_t (\lambda - \hat\lambda)`."""
        rate = (self.delay + self.step) ** -self.forgetting
        gradient = rate.to(concentration.dtype) * (concentration.detach() - target.detach().to(concentration.dtype))
        return (gradient * (concentration - concentration.detach())).sum()


def traces_at(
    averages: "Averages", model: Program, guide: Program | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Trace, Trace]:
    """Run both programs with averages in the place of draws, and check that they fit together.

    Returns:
        The model's trace and the guide's.
    """
    if guide is None:
        raise ProgramError("natural gradients are of a guide's concentrations, and there is no guide")
    with averages:
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    check_pairing(model_trace, guide_trace)
    check_observed(model_trace)
    return model_trace, guide_trace


def data_sites(trace: Trace) -> list[Site]:
    """List a model's sites of data, which must be mixtures of topics."""
    found: list[Site] = [site for site in sample_sites(trace) if is_data(site)]
    if not found:
        raise ProgramError("the model observes no data")
    for site in found:
        if not isinstance(site["fn"], TopicMixture):
            raise ProgramError(
                f"site {site['name']!r} of the data is {type(site['fn']).__name__}, whose density at averages is not "
                f"the bound: natural gradients are for TopicMixture. Use ELBO"
            )
    return found


class Averages(Messenger, ABC):
    """Puts an average of each latent site, which must be Dirichlet, in the place of a draw."""

    @abstractmethod
    def average(self, name: str, concentration: Tensor) -> Tensor:
        """Return the average at a site."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not is_latent(msg):
            return
        name, fn = msg["name"], msg["fn"]
        if not isinstance(fn, dist.Dirichlet):
            raise ProgramError(
                f"the guide's site {name!r} is {type(fn).__name__}, and natural gradients are of Dirichlet sites: give "
                f"it a Dirichlet posterior, or use ELBO"
            )
        concentration = fn.concentration
        if concentration.requires_grad and not _is_parameter(concentration):
            raise ProgramError(
                f"the concentration of the guide's site {name!r} is computed from parameters, and a natural gradient "
                f"is of the concentration itself: make it a torch.nn.Parameter as it is, positive and without a "
                f"constraint, or compute it without a gradient"
            )
        msg["value"], msg["done"] = self.average(name, concentration), True


class GeometricMeans(Averages):
    """Puts geometric means in the place of draws.

    Attributes:
        found: their logarithms by site, with a gradient where a concentration is a parameter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, Tensor] = {}

    def average(self, name: str, concentration: Tensor) -> Tensor:
        # A geometric mean of probabilities may be as small as exp(-1 / concentration).
        fixed = concentration.detach().double()
        # A place in the graph to take a gradient at, from which none goes on to the parameter.
        log_mean = log_geometric_mean(fixed).clamp(min=SMALLEST) + 0.0 * concentration
        self.found[name] = log_mean
        return log_mean.exp()


SMALLEST = -690.0
"""The logarithm of a number that is not rounded to zero, nor a few times smaller ones, in double precision."""


def _is_parameter(concentration: Tensor) -> bool:
    """Tell whether a tensor is a leaf, or one as a plate expands it to the shape that it has."""
    function: Any = concentration.grad_fn
    while function is not None and function.name() == "ExpandBackward0":
        function = function.next_functions[0][0]
    return function is None or getattr(function, "variable", concentration[..., :0]).shape == concentration.shape


def _log_likelihood(site: Site) -> Tensor:
    return scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"], site["mask"]).sum()


def _fixed(site: Site) -> dist.Dirichlet:
    """Return a site's posterior, of which the loss has no usual gradient."""
    return dist.Dirichlet(site["fn"].concentration.detach(), validate_args=False)


def prior_of(site: Site) -> dist.Dirichlet:
    """Return a latent site's prior, which must be Dirichlet."""
    if not isinstance(site["fn"], dist.Dirichlet):
        raise ProgramError(
            f"the model's site {site['name']!r} is {type(site['fn']).__name__}, which is not conjugate to a Dirichlet "
            f"posterior: give it a Dirichlet prior, or use ELBO"
        )
    return site["fn"]
