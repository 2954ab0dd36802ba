"""A mixture of normal distributions with as many components as the data ask for."""

from math import log

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.models.plates import scaled_plate
from pyrogen.spec import DataSpec, check_vectors

__all__ = ["DirichletProcessMixture", "StickBreakingPosterior", "dirichlet_process_mixture"]


class DirichletProcessMixture(PyroModule):
    r"""A Dirichlet process mixture by stick-breaking, truncated, with enumerated assignments.

    .. math::
        v_k \sim \mathrm{Beta}(1, \alpha), \quad \pi_k = v_k \prod_{j<k} (1 - v_j), \quad
        \tau_k \sim \mathrm{Gamma}(a, b), \quad \mu_k \mid \tau_k \sim \mathcal{N}(0, (\kappa \tau_k)^{-1}), \quad
        p(x) = \sum_{k=1}^K \pi_k \, \mathcal{N}(x; \mu_k, \operatorname{diag} \tau_k^{-1})

    Sites: ``v`` of event shape ``(components - 1,)``; ``precision`` and ``mu`` of event shape ``(num_dims,)`` in plate
    ``component``; ``k``, enumerated, and ``x`` of event shape ``(num_dims,)`` in plate ``data``, which scales a batch
    up to all data. Standardise the data: the prior is centred.

    Args:
        num_dims: :math:`D`.
        components: the truncation :math:`K`.
        num_data: how many data a batch stands for.
        alpha: :math:`\alpha`; the expected number of components in use grows as :math:`\alpha \log N`.
        shape: :math:`a`.
        rate: :math:`b`.
        kappa: :math:`\kappa`.

    References:
        Variational Inference for Dirichlet Process Mixtures (Blei and Jordan, 2006), https://doi.org/10.1214/06-BA104

    Example:
        >>> DirichletProcessMixture(num_dims=2, components=5, num_data=100)(size=4).shape
        torch.Size([4, 2])
    """

    zero: Tensor

    def __init__(
        self,
        num_dims: int,
        components: int,
        num_data: int,
        alpha: float = 1.0,
        shape: float = 2.0,
        rate: float = 0.5,
        kappa: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_dims, self.components, self.num_data = num_dims, components, num_data
        self.alpha, self.shape, self.rate, self.kappa = alpha, shape, rate, kappa
        self.register_buffer("zero", torch.zeros(num_dims))

    def forward(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """Score data of shape ``(batch, num_dims)``; without data, generate ``size`` of them."""
        ones = self.zero.new_ones(self.components - 1)
        v = pyro.sample("v", dist.Beta(ones, self.alpha * ones).to_event(1))
        with pyro.plate("component", self.components):
            precision = pyro.sample("precision", dist.Gamma(self.shape + self.zero, self.rate).to_event(1))
            mu = pyro.sample("mu", dist.Normal(self.zero, (self.kappa * precision) ** -0.5).to_event(1))
        pi = pyro.deterministic("pi", broken(v), event_dim=1)
        # Draws come first, then components: the plate of data takes the components' place.
        loc, scale = mu.unsqueeze(-3), precision.unsqueeze(-3) ** -0.5
        with scaled_plate("data", x, size, self.num_data):
            k = pyro.sample("k", dist.Categorical(pi), infer={"enumerate": "parallel"})
            chosen = k[..., None, None].expand(*k.shape, 1, self.num_dims)
            return pyro.sample("x", dist.Normal(_at(loc, chosen), _at(scale, chosen)).to_event(1), obs=x)


def broken(v: Tensor) -> Tensor:
    r"""Break a stick: :math:`\pi_k = v_k \prod_{j<k} (1 - v_j)`, the last one takes what is left.

    Example:
        >>> broken(torch.tensor([0.5, 0.5]))
        tensor([0.5000, 0.2500, 0.2500])
    """
    left = (1 - v).cumprod(-1)
    ones = torch.ones_like(v[..., :1])
    return torch.cat([v, ones], -1) * torch.cat([ones, left], -1)


def _at(values: Tensor, chosen: Tensor) -> Tensor:
    shape = torch.broadcast_shapes(values.shape[:-2], chosen.shape[:-2])
    return values.expand(*shape, *values.shape[-2:]).gather(-2, chosen.expand(*shape, *chosen.shape[-2:])).squeeze(-2)


class StickBreakingPosterior(PyroModule):
    r"""A guide of the sticks and the components, each independent of the others.

    .. math::
        q = \prod_k \mathrm{Beta}(v_k; a_k, b_k) \, \mathrm{Gamma}(\tau_k; c_k, d_k) \, \mathcal{N}(\mu_k; m_k, s_k^2)

    Args:
        model: the model.
    """

    def __init__(self, model: DirichletProcessMixture) -> None:
        super().__init__()
        components, num_dims = model.components, model.num_dims
        self.log_sticks = nn.Parameter(torch.zeros(2, components - 1))
        self.log_shape = nn.Parameter(torch.full((components, num_dims), log(10.0)))
        self.log_rate = nn.Parameter(torch.full((components, num_dims), log(5.0)))
        self.loc = nn.Parameter(torch.randn(components, num_dims))
        self.log_scale = nn.Parameter(torch.full((components, num_dims), log(0.1)))

    def forward(self, x: Tensor) -> None:
        """Draw sticks and components."""
        a, b = self.log_sticks.exp()
        pyro.sample("v", dist.Beta(a, b).to_event(1))
        with pyro.plate("component", len(self.loc)):
            pyro.sample("precision", dist.Gamma(self.log_shape.exp(), self.log_rate.exp()).to_event(1))
            pyro.sample("mu", dist.Normal(self.loc, self.log_scale.exp()).to_event(1))


def dirichlet_process_mixture(
    spec: DataSpec, *, components: int = 20, alpha: float = 1.0
) -> tuple[DirichletProcessMixture, StickBreakingPosterior]:
    """Make a Dirichlet process mixture for data that are vectors of reals.

    Args:
        spec: shape and kind of the data.
        components: the truncation, more than the data need.
        alpha: concentration: larger values expect more components.

    Returns:
        The model and its guide.

    Raises:
        UsageError: where the data are not vectors of reals.
    """
    check_vectors(spec, "a Dirichlet process mixture")
    if components < 2 or alpha <= 0:
        raise UsageError(f"components must be at least 2 and alpha positive, found {components} and {alpha}")
    model = DirichletProcessMixture(spec.num_dims, components, spec.num_data or 1, alpha)
    return model, StickBreakingPosterior(model)
