"""The missing part of data: draws given what is known of them."""

import torch
from torch import Tensor

from pyrogen.distributions import Autoregressive

__all__ = ["complete"]


def complete(d: Autoregressive, x: Tensor, missing: Tensor, sweeps: int = 5, num_particles: int = 10) -> Tensor:
    r"""Draw what is missing of data, given the rest.

    Where the missing elements come last in the order of the flattened datum, one draw of the model is a draw of the
    conditional distribution, and that is all. Otherwise an element was drawn without a look at the known ones after it,
    which two steps put right:

    1. *Resampling.* Of ``num_particles`` such draws of each datum, one is taken with probability proportional to
       :math:`\prod_{i \in K} p(x_i \mid x_{<i})`, what the model says of the known elements. As the number grows, that
       becomes a draw of the conditional distribution.
    2. *Gibbs sweeps.* Each missing element in turn is proposed anew, :math:`x_i' \sim p(x_i \mid x_{<i})`, and taken
       with probability

       .. math:: \min\left(1, \prod_{k > i} \frac{p(x_k \mid x'_{<k})}{p(x_k \mid x_{<k})}\right),

       which leaves :math:`p(x_i \mid x_{-i})`, and so the conditional distribution of all, as it is. Draws approach it
       as sweeps go on.

    The first costs ``num_particles`` draws, a step of the network for each element; the second a whole pass of the
    network for each missing element of a sweep.

    Args:
        d: the distribution of the data, of batch shape ``(batch,)``.
        x: data, shape ``(batch, *event)``; what is missing is not looked at.
        missing: which elements are, bool, in the shape of the data or one that expands to it.
        sweeps: Gibbs sweeps, where there are known elements after missing ones.
        num_particles: draws of which one is taken, likewise.

    Returns:
        The data with what was missing drawn, shape ``(batch, *event)``.

    References:
        Monte Carlo Sampling Methods Using Markov Chains and Their Applications (Hastings, 1970),
        https://doi.org/10.1093/biomet/57.1.97

    Example:
        >>> import pyro.distributions as dist
        >>> from pyrogen.nn import NADE, ScaledValues
        >>> coin = lambda features: dist.Bernoulli(logits=features[..., 0])
        >>> d = Autoregressive(NADE((4,), ScaledValues(2), 1, hidden=8), coin, (4,)).expand((3,))
        >>> complete(d, torch.ones(3, 4), torch.tensor([True, False, True, False]))[:, 1::2]
        tensor([[1., 1.],
                [1., 1.],
                [1., 1.]])
    """
    missing = missing.expand(x.shape)
    held = d.given(x, ~missing)
    with torch.no_grad():
        if held.is_exact:
            return held.sample()
        return _swept(d, _resampled(d, held, missing, num_particles), missing, sweeps)


def _resampled(d: Autoregressive, held: Autoregressive, missing: Tensor, num_particles: int) -> Tensor:
    """Take, for each datum, one of several draws by what the model says of its known elements."""
    particles = held.sample((num_particles,))
    said = d.log_probs(particles).masked_fill(missing, 0.0).flatten(2).sum(-1)
    chosen = torch.distributions.Categorical(logits=said.T).sample()
    return particles[chosen, torch.arange(len(chosen), device=chosen.device)]


def _swept(d: Autoregressive, x: Tensor, missing: Tensor, sweeps: int) -> Tensor:
    """Draw each missing element again, given all others."""
    event, own = x.shape[1:], d.expand((len(x),))

    def passed(flat: Tensor) -> tuple[Tensor, Tensor]:
        features = own.features(flat.unflatten(1, event)).flatten(1, -2)
        return features, own.element(features).log_prob(flat)

    x, missing = x.flatten(1), missing.flatten(1)
    features, now = passed(x)
    for i in missing.any(0).nonzero().flatten().tolist() * sweeps:
        proposed = x.clone()
        proposed[:, i] = torch.where(missing[:, i], own.element(features[:, i]).sample(), x[:, i])
        of_proposed, then = passed(proposed)
        gain = (then - now)[:, i + 1 :].sum(-1)
        taken = (torch.rand_like(gain).log() < gain)[:, None]
        x, now = torch.where(taken, proposed, x), torch.where(taken, then, now)
        features = torch.where(taken[..., None], of_proposed, features)
    return x.unflatten(1, event)
