"""Any ELBO of Pyro's own as an objective."""

from typing import Any

import pyro.infer
from torch import Tensor

from pyrogen.inference.objective import Objective
from pyrogen.sites import Program, or_nothing

__all__ = ["PyroELBO"]


class PyroELBO(Objective):
    """An adapter: ``pyro.infer``'s ELBOs under :func:`~pyrogen.inference.train`.

    Use it for those with a ``differentiable_loss``: ``Trace_ELBO``, ``TraceMeanField_ELBO``, ``TraceEnum_ELBO``,
    ``TraceTMC_ELBO``. Pyro's estimators read the device from the host in
    each step, so on an accelerator they are slower than ours.

    Args:
        elbo: an instance with a ``differentiable_loss``, such as ``pyro.infer.TraceTMC_ELBO()``.

    Raises:
        TypeError: for something else.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> pyro.clear_param_store()
        >>> def model(x): pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), obs=x)
        >>> PyroELBO(pyro.infer.Trace_ELBO())(model, None, torch.tensor(0.0)).detach()
        tensor(0.9189)
    """

    def __init__(self, elbo: pyro.infer.ELBO) -> None:
        super().__init__()
        if not callable(getattr(elbo, "differentiable_loss", None)):
            raise TypeError(f"PyroELBO needs one of pyro.infer's ELBOs, found {type(elbo).__name__}")
        self.elbo = elbo

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return Pyro's loss."""
        return self.elbo.differentiable_loss(model, or_nothing(guide), *args, **kwargs)
