"""Mixtures of logistic distributions over whole numbers."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor

from pyrogen.distributions.discretized_logistic import DiscretizedLogistic

__all__ = ["DiscretizedLogisticMixture"]


class DiscretizedLogisticMixture(TorchDistribution):
    r"""A mixture of logistic distributions, cut into the levels of a pixel or of a sound's sample.

    .. math:: P(k) = \sum_m \pi_m \, P(k; \mu_m, s_m)

    with :class:`DiscretizedLogistic` for each :math:`m`: the first and the last bin are open outwards.

    Args:
        logits: :math:`\log \pi` up to a constant, shape ``batch_shape + (components,)``.
        loc: :math:`\mu`, where levels span :math:`[-1, 1]`, likewise.
        scale: :math:`s > 0`, in the same units, likewise.
        levels: :math:`L \ge 2`.

    References:
        PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications
        (Salimans et al., 2017), https://arxiv.org/abs/1701.05517

    Example:
        >>> logits, loc, scale = torch.zeros(2), torch.tensor([-0.5, 0.5]), torch.tensor([0.1, 0.2])
        >>> d = DiscretizedLogisticMixture(logits, loc, scale, levels=17)
        >>> bool(torch.isclose(d.log_prob(torch.arange(17.0)).exp().sum(), torch.tensor(1.0)))
        True
    """

    arg_constraints = {  # noqa: RUF012
        "logits": constraints.independent(constraints.real, 1),
        "loc": constraints.independent(constraints.real, 1),
        "scale": constraints.independent(constraints.positive, 1),
    }
    has_enumerate_support = True

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, levels: int, validate_args: bool | None = None
    ) -> None:
        logits, loc, scale = torch.broadcast_tensors(logits, loc, scale)
        self.logits = logits.log_softmax(-1)
        self.components = DiscretizedLogistic(loc, scale, levels, validate_args=validate_args)
        super().__init__(logits.shape[:-1], validate_args=validate_args)

    @property
    def loc(self) -> Tensor:
        """The locations."""
        return self.components.loc

    @property
    def scale(self) -> Tensor:
        """The scales."""
        return self.components.scale

    @property
    def levels(self) -> int:
        """The number of levels."""
        return self.components.levels

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self.levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretizedLogisticMixture":
        new = self._get_checked_instance(DiscretizedLogisticMixture, _instance)
        shape = (*batch_shape, self.logits.shape[-1])
        new.logits, new.components = self.logits.expand(shape), self.components.expand(shape)
        super(DiscretizedLogisticMixture, new).__init__(Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Return :math:`\\log P(k)` in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return (self.logits + self.components.log_prob(value.unsqueeze(-1))).logsumexp(-1)

    @property
    def mean(self) -> Tensor:
        r""":math:`\mathbb{E}[k] = \sum_m \pi_m \mathbb{E}_m[k]`, in levels, shape ``batch_shape``."""
        return (self.logits.exp() * self.components.mean).sum(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw levels, as floats, of shape ``sample_shape + batch_shape``."""
        with torch.no_grad():
            shape = self._extended_shape(Size(sample_shape))
            logits = self.logits.expand(*shape, -1)
            u = torch.rand(logits.shape, dtype=logits.dtype, device=logits.device)
            # Gumbel's trick: the largest of logits with such noise is a draw.
            chosen = (logits - (-u.log()).log()).argmax(-1, keepdim=True)
            return self.components.sample(Size(sample_shape)).gather(-1, chosen).squeeze(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """List all levels along a new first dimension."""
        values = torch.arange(self.levels, dtype=self.loc.dtype, device=self.loc.device)
        values = values.reshape(-1, *(1 for _ in self.batch_shape))
        return values.expand(-1, *self.batch_shape) if expand else values
