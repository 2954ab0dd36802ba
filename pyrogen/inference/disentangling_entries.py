"""Objectives that disentangle, by name, with plain settings, for the command line."""

from collections.abc import Mapping, Sequence

import torch
from pyro import poutine
from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.inference.aggregate import Sampling, codes, latent_site
from pyrogen.inference.entries import check_noise
from pyrogen.inference.total_correlation import BetaTCVAE, FactorVAE
from pyrogen.nn import MLP, check_widths
from pyrogen.parameters import first_device, modules_of
from pyrogen.rehearsal import rehearsal
from pyrogen.sites import Program, or_nothing

__all__ = ["beta_tc_vae", "factor_vae"]

Example = Mapping[str, Tensor]


def factor_vae(
    model: Program,
    guide: Program | None,
    example: Example,
    *,
    gamma: float = 10.0,
    hidden: Sequence[int] = (256, 256),
    analytic_kl: bool = True,
) -> FactorVAE:
    """Make the evidence lower bound, less the total correlation by a critic.

    Args:
        gamma: the weight of the total correlation.
        hidden: widths of the critic.
        analytic_kl: use divergences in closed form where there are.
    """
    if not gamma >= 0:
        raise UsageError(f"gamma must not be negative, found {gamma}")
    check_widths(hidden=hidden)
    check_noise(guide)
    if len(next(iter(example.values()))) < 2:
        raise UsageError(
            "factor-vae compares codes of a batch with codes that are permuted over it: give --batch-size 64 or so"
        )
    critic = MLP(_size_of_codes(guide, example), 1, hidden, lambda: nn.LeakyReLU(0.2))
    return FactorVAE(critic, gamma, analytic_kl)


def beta_tc_vae(
    model: Program,
    guide: Program | None,
    example: Example,
    *,
    alpha: float = 1.0,
    beta: float = 6.0,
    gamma: float = 1.0,
    num_data: int | None = None,
    sampling: Sampling = "stratified",
    analytic_kl: bool = True,
) -> BetaTCVAE:
    """Make the evidence lower bound with weights on the parts of its divergence.

    Args:
        alpha: the weight of the information between data and codes.
        beta: the weight of the total correlation.
        gamma: the weight of each coordinate's own divergence.
        num_data: how many data there are in training; a batch, if not given.
        sampling: stratified or weighted.
        analytic_kl: use divergences in closed form where there are.
    """
    try:
        return BetaTCVAE(alpha, beta, gamma, num_data, sampling, analytic_kl)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _size_of_codes(guide: Program | None, example: Example) -> int:
    """Return how many coordinates the guide's latent site has, by a rehearsal."""
    guide = or_nothing(guide)
    modules = modules_of(guide).values()
    device = first_device(guide)
    on_device = {name: column.to(device) for name, column in example.items()}
    with rehearsal(modules), torch.no_grad(), poutine.block():
        return codes(latent_site(poutine.trace(guide).get_trace(**on_device))).shape[1]
