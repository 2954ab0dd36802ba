"""Draws of autoregressive data, all elements at once, until nothing changes."""

from typing import Any, NamedTuple

import torch
from torch import Size, Tensor

from pyrogen.distributions.autoregressive import Autoregressive
from pyrogen.errors import ProgramError, UsageError

__all__ = ["JacobiDraws", "sample_by_jacobi"]


class JacobiDraws(NamedTuple):
    """Draws, and how many passes of the network they took.

    Attributes:
        values: shape ``sample_shape + batch_shape + event_shape``.
        passes: of the whole network, the last of which changed nothing.
    """

    values: Tensor
    passes: int


def sample_by_jacobi(d: Autoregressive, sample_shape: Any = (), u: Tensor | None = None) -> JacobiDraws:
    r"""Draw by Jacobi's iteration: each element anew from what the network says of the last iterate.

    With one uniform number :math:`u_i` for each element, a draw is the only fixed point of

    .. math:: x_i = F^{-1}(u_i \mid x_{<i}), \qquad x^{(t+1)}_i = F^{-1}(u_i \mid x^{(t)}_{<i})

    After :math:`t` passes the first :math:`t` elements are those that drawing one by one would give, so at most as many
    passes as elements are needed, and fewer where elements do not change with those before them: what is parallel in a
    draw is found out as it goes. Draws are exact, whatever the number of passes.

    Args:
        d: of elements whose values can be listed.
        sample_shape: as of ``d.sample``.
        u: uniform numbers, shape ``sample_shape + batch_shape + event_shape``; drawn if not given.

    Raises:
        ProgramError: where the network is no function of the data, as with dropout.
        UsageError: where values cannot be listed, or some are given.

    References:
        Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving (Song et al., 2021),
        https://arxiv.org/abs/2002.03629

    Example:
        >>> import pyro.distributions as dist
        >>> from pyrogen.nn import FVSBN, ScaledValues
        >>> coin = lambda features: dist.Bernoulli(logits=features[..., 0])
        >>> d = Autoregressive(FVSBN((9,), ScaledValues(2), 1), coin, (9,))
        >>> sample_by_jacobi(d, (3,)).values.shape
        torch.Size([3, 9])
    """
    if d.known is not None:
        raise UsageError("elements are given: draw one by one, by sample()")
    shape = Size(sample_shape) + d.batch_shape + d.event_shape
    like = next(d.network.parameters())
    u = torch.rand(shape, dtype=like.dtype, device=like.device) if u is None else u
    with torch.no_grad():
        last, x, passes = None, _inverse(d, torch.zeros_like(u), u), 1
        while last is None or not torch.equal(last, x):
            if passes > d.event_shape.numel():
                raise ProgramError(
                    f"{passes} passes for {d.event_shape.numel()} elements, and still they change: the network says "
                    f"different things of the same data. Put it into eval mode, without dropout"
                )
            last, x, passes = x, _inverse(d, x, u), passes + 1
    return JacobiDraws(x, passes)


def _inverse(d: Autoregressive, x: Tensor, u: Tensor) -> Tensor:
    """Return the value of each element at which its distribution function passes ``u``."""
    values, logits = d.listed(d.elements(d.features(x)), "draws of all elements at once")
    p = logits.softmax(-1).movedim(-1, 0)
    up_to = p.cumsum(0)
    # Sums may end off one: u is a share of what they end with, and the last value of any probability is the last.
    above = (up_to <= u * up_to[-1]) | ((up_to == up_to[-1]) & (p == 0))
    chosen = above.long().cumprod(0).sum(0)
    return values[chosen.clamp(max=len(values) - 1)].to(u.dtype)
