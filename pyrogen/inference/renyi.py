"""Bounds on the evidence that average importance weights: IWAE and Rényi's."""

import math
from typing import Any

import torch
from torch import Tensor

from pyrogen.inference.objective import Objective, PlateNesting
from pyrogen.programs import importance, renyi_bound
from pyrogen.sites import Program, or_nothing
from pyrogen.traces import trace_pair

__all__ = ["IWAE", "Renyi"]


class Renyi(Objective):
    r"""Rényi's variational objective, computed datum by datum.

    .. math::
        -\sum_n \hat{\mathcal{L}}_\alpha(x_n), \quad w_{nk} = \frac{p(x_n, z_{nk})}{q(z_{nk} \mid x_n)}, \quad
        z_{nk} \sim q(z \mid x_n)

    A datum is an index of the plates that every site lies in; with a global latent variable the whole data set is one.
    For :math:`0 \le \alpha < 1` the expectation is a lower bound on :math:`\log p(x)`; for negative :math:`\alpha` it
    tends to an upper bound as :math:`K` grows. Sites without ``rsample`` give score-function gradients with VIMCO's
    leave-one-out baseline.

    Args:
        alpha: :math:`\alpha`; 0 is IWAE, 1 the ELBO.
        num_particles: :math:`K`.
        max_plate_nesting: how deep the programs' plates nest; found by a rehearsal if not given.

    Raises:
        ProgramError: where the programs' sites do not pair, or the guide enumerates.

    References:
        Rényi Divergence Variational Inference (Li and Turner, 2016), https://arxiv.org/abs/1602.02311

        Variational Inference for Monte Carlo Objectives (Mnih and Rezende, 2016), https://arxiv.org/abs/1602.06725
    """

    def __init__(self, alpha: float = 0.0, num_particles: int = 5, max_plate_nesting: int | None = None) -> None:
        super().__init__()
        if num_particles < 1 or not math.isfinite(alpha):
            raise ValueError(f"Renyi needs num_particles >= 1 and a finite alpha, found {num_particles=}, {alpha=}")
        self.alpha = alpha
        self.num_particles = num_particles
        self.nesting = PlateNesting(max_plate_nesting)

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the negative bound in nats, summed over the data and scaled by their plates."""
        guide = or_nothing(guide)
        nesting = self.nesting(model, guide, *args, **kwargs)
        log_w, log_scores, scale = importance(trace_pair(model, guide, args, kwargs, self.num_particles, nesting))
        bound = renyi_bound(log_w, self.alpha)
        if log_scores is not None:
            signal = (bound - _leave_one_out(log_w, self.alpha)).detach()
            surrogate = (signal * log_scores).sum(0)
            bound = bound + (surrogate - surrogate.detach())
        return -scale * bound.sum()

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, num_particles={self.num_particles}"


class IWAE(Objective):
    r"""The importance-weighted bound, :class:`Renyi` at :math:`\alpha = 0`, computed datum by datum.

    .. math::
        -\sum_n \log \frac{1}{K} \sum_{k=1}^K \frac{p(x_n, z_{nk})}{q(z_{nk} \mid x_n)}, \quad z_{nk} \sim q(z \mid x_n)

    Its expectation rises with :math:`K` from the ELBO to :math:`\log p(x)`.

    Args:
        num_particles: :math:`K`.
        max_plate_nesting: how deep the programs' plates nest; found by a rehearsal if not given.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
    """

    def __init__(self, num_particles: int = 5, max_plate_nesting: int | None = None) -> None:
        super().__init__()
        self.renyi = Renyi(0.0, num_particles, max_plate_nesting)

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the negative bound in nats, summed over the data and scaled by their plates."""
        return self.renyi(model, guide, *args, **kwargs)


def _leave_one_out(log_weights: Tensor, alpha: float) -> Tensor:
    """Return, for each particle, the bound with its log-weight replaced by the mean of the others'."""
    count = len(log_weights)
    if count == 1:
        return torch.zeros_like(log_weights)
    others = (log_weights.sum(0, keepdim=True) - log_weights) / (count - 1)
    replaced = torch.where(
        torch.eye(count, device=log_weights.device, dtype=torch.bool)[:, :, None], others, log_weights
    )
    return torch.stack([renyi_bound(column, alpha) for column in replaced])
