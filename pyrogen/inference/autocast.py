"""Networks in low precision, densities in float32."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pyrogen.inference.objective import Objective, Wrapper
from pyrogen.sites import Program

__all__ = ["Autocast"]


class Autocast(Wrapper):
    r"""An objective whose linear layers and convolutions are computed in low precision, and nothing else.

    Inputs and weights of linear layers, convolutions and attention, where they are float32, are rounded to ``dtype``,
    and their outputs are float32 again. So are gradients. ``torch.autocast`` would leave a network's outputs in low
    precision, and with them the log-probabilities: bfloat16 has three significant digits, and a log-probability of
    -90.85 nats becomes -91.

    Args:
        objective: any.
        dtype: ``torch.bfloat16``, or ``torch.float16`` if gradients do not vanish in it.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyrogen.inference import MaximumLikelihood
        >>> net = torch.nn.Linear(1, 1)
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(net(x[:, None])[:, 0], 1.0), obs=x)
        >>> Autocast(MaximumLikelihood())(model, None, torch.zeros(3)).dtype
        torch.float32
    """

    rounding = 1e-2

    def __init__(self, objective: Objective, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__(objective)
        self.dtype = dtype

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the objective's loss."""
        with LowPrecision(self.dtype):
            return self.objective(model, guide, *args, **kwargs)

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the critic's loss."""
        with LowPrecision(self.dtype):
            return self.objective.critic_loss(model, guide, *args, **kwargs)

    def elbo_estimate(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor | None:
        with LowPrecision(self.dtype):
            return super().elbo_estimate(model, guide, *args, **kwargs)

    def log_ratios(
        self, model: Program, guide: Program | None, *args: Any, **kwargs: Any
    ) -> dict[str, tuple[Tensor, Tensor]]:
        with LowPrecision(self.dtype):
            return super().log_ratios(model, guide, *args, **kwargs)

    def extra_repr(self) -> str:
        return f"dtype={self.dtype}"


PRODUCTS = {
    F.linear,
    F.bilinear,
    F.conv1d,
    F.conv2d,
    F.conv3d,
    F.conv_transpose1d,
    F.conv_transpose2d,
    F.conv_transpose3d,
    F.scaled_dot_product_attention,
}


class LowPrecision(TorchFunctionMode):
    """Round what goes into products, and widen what comes out."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in PRODUCTS:
            return func(*args, **kwargs)
        if not isinstance(args[0], Tensor) or args[0].dtype != torch.float32:
            return func(*args, **kwargs)
        rounded = func(*map(self._round, args), **{name: self._round(value) for name, value in kwargs.items()})
        return rounded.float()

    def _round(self, value: Any) -> Any:
        return value.to(self.dtype) if isinstance(value, Tensor) and value.dtype == torch.float32 else value
