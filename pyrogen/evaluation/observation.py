"""A density for what has none: noise around what an implicit model draws."""

from typing import Any

import pyro.distributions as dist
from pyro.poutine.messenger import Messenger

from pyrogen.distributions import is_implicit
from pyrogen.errors import ProgramError, UsageError
from pyrogen.sites import Program

__all__ = ["with_noise"]


class Noise(Messenger):
    """Lets implicit sites be the means of normal distributions."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.has_met_one = False

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        super().__exit__(kind, value, traceback)
        if kind is None and not self.has_met_one:
            raise ProgramError("noise gives draws a density that have none, and the model has no implicit site")

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        fn = msg["fn"]
        if is_implicit(fn):
            self.has_met_one = True
            msg["fn"] = dist.Normal(fn.rsample(), self.scale).to_event(fn.event_dim)


def with_noise(model: Program, scale: float) -> Program:
    r"""Return a program that observes what an implicit one draws under normal noise.

    .. math:: z \sim p(z), \quad x \sim \mathcal{N}(f(z), \sigma^2 I)

    The decoder of a GAN has then a density, whose evidence can be compared with a VAE's, for one :math:`\sigma`, or for
    each model's best on validation data.

    Args:
        model: a program whose implicit sites draw what its other sites say, with no noise of their own.
        scale: :math:`\sigma`, in the units of the data.

    Raises:
        UsageError: where the scale is not positive.
        ProgramError: at the first run, where there is no implicit site.

    References:
        On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2017),
        https://arxiv.org/abs/1611.04273

    Example:
        >>> import pyro, torch
        >>> from pyrogen import log_weights
        >>> from pyrogen.distributions import Implicit
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", Implicit(lambda shape: torch.zeros(shape), batch_shape=(len(x),)), obs=x)
        >>> log_weights(with_noise(model, 1.0), None, torch.zeros(2))
        tensor([[-0.9189, -0.9189]])
    """
    if not scale > 0:
        raise UsageError(f"the noise must have a positive scale, found {scale}")
    return Noise(scale)(model)
