"""Objectives by name, with plain settings, for the command line."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from pyrogen.errors import ProgramError, UsageError
from pyrogen.inference.annealing import Annealing
from pyrogen.inference.collapsed_vb import CollapsedVB
from pyrogen.inference.elbo import ELBO
from pyrogen.inference.maximum_likelihood import MaximumLikelihood
from pyrogen.inference.natural_gradient import NaturalGradient
from pyrogen.inference.objective import Objective
from pyrogen.inference.renyi import IWAE, Renyi
from pyrogen.parameters import modules_of
from pyrogen.preference import Preference
from pyrogen.rehearsal import rehearsal
from pyrogen.sites import Program

__all__ = ["collapsed_vb", "elbo", "iwae", "maximum_likelihood", "natural_gradient", "renyi"]


def elbo(
    model: Program,
    guide: Program | None,
    example: Any,
    *,
    num_particles: int = 1,
    beta: float = 1.0,
    warmup: int = 0,
    analytic_kl: bool = True,
) -> ELBO:
    """Make the evidence lower bound.

    Args:
        num_particles: draws of the guide for each estimate.
        beta: the weight of the latent variables' terms (1 for a bound, larger for a beta-VAE).
        warmup: the number of steps in which that weight rises from 0.
        analytic_kl: use divergences in closed form where there are.
    """
    _check(num_particles)
    check_noise(guide)
    if beta < 0 or warmup < 0:
        raise UsageError(f"beta and warmup must not be negative, found beta={beta}, warmup={warmup}")
    weight = Annealing(0.0, beta, warmup) if warmup else beta
    return ELBO(num_particles, beta=weight, analytic_kl=analytic_kl)


def iwae(model: Program, guide: Program | None, example: Any, *, num_particles: int = 5) -> IWAE:
    """Make the importance-weighted bound.

    Args:
        num_particles: draws of the guide in each average.
    """
    _check(num_particles)
    check_noise(guide)
    return IWAE(num_particles)


def renyi(model: Program, guide: Program | None, example: Any, *, alpha: float = 0.5, num_particles: int = 5) -> Renyi:
    """Make Rényi's bound.

    Args:
        alpha: 0 for IWAE, 1 for the ELBO, and between.
        num_particles: draws of the guide in each average.
    """
    _check(num_particles)
    check_noise(guide)
    return Renyi(alpha, num_particles)


@Preference({"guide": "mean-field"}, "is of Dirichlet posteriors").of
def natural_gradient(
    model: Program, guide: Program | None, example: Any, *, delay: float = 10.0, forgetting: float = 0.7
) -> NaturalGradient:
    """Make natural gradients of a mean-field bound: online variational Bayes.

    Args:
        delay: at least one; larger values make little of the first batches.
        forgetting: between a half and one for convergence; 0 for steps of one.
    """
    return _rehearsed(partial(NaturalGradient, delay, forgetting), model, guide, example)


@Preference({"guide": "collapsed"}, "is of Dirichlet posteriors").of
def collapsed_vb(
    model: Program,
    guide: Program | None,
    example: Any,
    *,
    delay: float = 10.0,
    forgetting: float = 0.7,
    local_steps: int = 1,
    inverse_temperature: float = 1.0,
    warmup: int = 0,
) -> CollapsedVB:
    """Make collapsed variational Bayes, to order zero: natural gradients with each word left out of its own counts.

    Args:
        delay: at least one; larger values make little of the first batches.
        forgetting: between a half and one for convergence; 0 for steps of one.
        local_steps: updates of each document's words in a step.
        inverse_temperature: below 1, words are less decided than by Bayes' rule: to the end, or with a warmup at first.
        warmup: the number of steps in which that moves to 1.
    """
    if warmup < 0:
        raise UsageError(f"warmup must not be negative, found {warmup}")
    if warmup and inverse_temperature == 1:
        raise UsageError(
            f"a warmup of {warmup} steps moves an inverse temperature to 1, and it is 1: begin at another, such as "
            f"--inverse-temperature 0.8"
        )

    def make() -> CollapsedVB:
        beta = Annealing(inverse_temperature, 1.0, warmup) if warmup else inverse_temperature
        return CollapsedVB(delay, forgetting, local_steps, beta)

    return _rehearsed(make, model, guide, example)


def maximum_likelihood(model: Program, guide: Program | None, example: Any) -> MaximumLikelihood:
    """Make the likelihood of a model whose density is exact."""
    if guide is not None:
        raise UsageError(
            "maximum-likelihood needs an exact density, and this model has latent variables and a guide for them: use "
            "--objective elbo, iwae or renyi"
        )
    return MaximumLikelihood()


def check_noise(guide: Program | None) -> None:
    """Refuse a guide that draws the same latents each time, where its density is asked for.

    Raises:
        UsageError: with the choices that there are.
    """
    if not getattr(guide, "has_noise", True):
        raise UsageError(
            "a deterministic encoder draws no noise, and has no density: choose --encoder gaussian, or --objective aae "
            "or wae, which ask for none"
        )


Learner = TypeVar("Learner", bound=Objective)

CONJUGATE = (
    "; of the catalogue, lda has such posteriors, with --guide mean-field or collapsed, and others learn by "
    "--objective elbo"
)
"""What helps where a posterior is not conjugate."""


def _rehearsed(make: Callable[[], Learner], model: Program, guide: Program | None, example: Any) -> Learner:
    """Make an objective of conjugate posteriors, and refuse programs that have none before they are trained.

    Raises:
        UsageError: for settings out of range, and for such programs, with what has conjugate posteriors.
    """
    try:
        objective = make()
    except ValueError as error:
        raise UsageError(str(error)) from error
    try:
        with rehearsal(modules_of(model, guide).values()):
            objective(model, guide, **example)
    except ProgramError as error:
        first, *_ = str(error).splitlines()  # without the table of shapes that Pyro adds
        raise UsageError(f"{first}{CONJUGATE}") from error
    return objective


def _check(num_particles: int) -> None:
    if num_particles < 1:
        raise UsageError(f"num_particles must be at least 1, found {num_particles}")
