"""A logistic distribution over whole numbers."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor
from torch.distributions.utils import broadcast_all
from torch.nn.functional import softplus

__all__ = ["DiscretizedLogistic"]


class DiscretizedLogistic(TorchDistribution):
    r"""The logistic distribution, cut into the levels of a pixel.

    Level :math:`k` of :math:`L` has its centre at :math:`c_k = 2k / (L - 1) - 1` and its edges
    :math:`1 / (L - 1)` to either side; the first and the last bin are open outwards:

    .. math::
        P(k) = \sigma\!\left(\frac{c_k + \frac{1}{L - 1} - \mu}{s}\right)
             - \sigma\!\left(\frac{c_k - \frac{1}{L - 1} - \mu}{s}\right)

    Args:
        loc: :math:`\mu`, where levels span :math:`[-1, 1]`.
        scale: :math:`s > 0`, in the same units.
        levels: :math:`L \ge 2`.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications
        (Salimans et al., 2017), https://arxiv.org/abs/1701.05517

    Example:
        >>> d = DiscretizedLogistic(torch.tensor(0.2), torch.tensor(0.1), levels=17)
        >>> bool(torch.isclose(d.log_prob(torch.arange(17.0)).exp().sum(), torch.tensor(1.0)))
        True
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    has_enumerate_support = True

    def __init__(self, loc: Tensor, scale: Tensor, levels: int, validate_args: bool | None = None) -> None:
        if levels < 2:
            raise ValueError(f"a discretised logistic needs levels >= 2, found {levels}")
        self.loc, self.scale = broadcast_all(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self.levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretizedLogistic":
        new = self._get_checked_instance(DiscretizedLogistic, _instance)
        new.loc, new.scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        new.levels = self.levels
        super(DiscretizedLogistic, new).__init__(Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Return :math:`\\log P(k)` in nats; exact in the tails, where the difference of sigmoids would vanish."""
        if self._validate_args:
            self._validate_sample(value)
        half = 1 / (self.levels - 1)
        # Edges are computed as those of the neighbours are, to the last bit: at a small scale the sum would tell.
        upper, lower = (((2 * value + side) * half - 1 - self.loc) / self.scale for side in (1, -1))
        below = -softplus(-upper)
        above = -softplus(lower)
        # The bin's width is taken as such: the difference of two far edges would round to zero.
        inside = below + above + torch.log(-torch.expm1(-2 * half / self.scale))
        return torch.where(value < 0.5, below, torch.where(value > self.levels - 1.5, above, inside))

    @property
    def mean(self) -> Tensor:
        r""":math:`\mathbb{E}[k] = \sum_{j=1}^{L-1} P(k \ge j)`, in levels, shape ``batch_shape``."""
        edges = (2 * torch.arange(1, self.levels, device=self.loc.device, dtype=self.loc.dtype) - 1) / (self.levels - 1)
        return torch.sigmoid((self.loc.unsqueeze(-1) - (edges - 1)) / self.scale.unsqueeze(-1)).sum(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw levels, as floats, of shape ``sample_shape + batch_shape``."""
        with torch.no_grad():
            u = torch.rand(self._extended_shape(Size(sample_shape)), dtype=self.loc.dtype, device=self.loc.device)
            x = self.loc + self.scale * torch.logit(u, eps=torch.finfo(u.dtype).eps)
            return torch.round((x + 1) / 2 * (self.levels - 1)).clamp(0, self.levels - 1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """List all levels along a new first dimension."""
        values = torch.arange(self.levels, dtype=self.loc.dtype, device=self.loc.device)
        values = values.reshape(-1, *(1 for _ in self.batch_shape))
        return values.expand(-1, *self.batch_shape) if expand else values
