"""The missing part of data: draws given what is known of them."""

import torch
from torch import Tensor

from pyrogen.distributions import Autoregressive, Choice
from pyrogen.errors import ProgramError, UsageError

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

    Raises:
        ProgramError: where the distribution is of another kind.
        UsageError: where shapes do not fit, the mask is not one of bools, or a number is out of range.

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
    if not isinstance(d, Autoregressive):
        raise ProgramError(f"only data that are drawn element by element are completed, found {type(d).__name__}")
    if missing.dtype is not torch.bool:
        raise UsageError(f"missing must be bool, true where an element is to be drawn, found {missing.dtype}")
    if sweeps < 0 or num_particles < 1:
        raise UsageError(f"sweeps must be at least 0 and num_particles 1, found {sweeps} and {num_particles}")
    wanted = tuple(d.batch_shape + d.event_shape)
    if tuple(x.shape) != wanted:
        raise UsageError(f"x of shape {tuple(x.shape)}: expected that of the distribution's batch and data, {wanted}")
    try:
        missing = missing.expand(x.shape)
    except RuntimeError as error:
        raise UsageError(
            f"missing of shape {tuple(missing.shape)}: expected that of the data, {wanted}, or less"
        ) from error
    d = d.by(Choice())  # of another choice, proposals would not be what their probabilities are of
    held = d.given(x, ~missing)
    with torch.no_grad():
        if held.is_exact:
            return held.sample()
        return _swept(d, _resampled(d, held, missing, num_particles), missing, sweeps)


def _resampled(d: Autoregressive, held: Autoregressive, missing: Tensor, num_particles: int) -> Tensor:
    """Take, for each datum, one of several draws by what the model says of its known elements."""
    kept, total = held.sample(), None
    for i in range(num_particles):
        # One at a time, by the running total of their weights: the i-th is kept with its share of it.
        particle = held.sample() if i else kept
        said = d.log_probs(particle).masked_fill(missing, 0.0).flatten(1).sum(-1)
        total = said if total is None else torch.logaddexp(total, said)
        taken = torch.rand_like(said).log() < said - total
        kept = torch.where(taken.reshape(-1, *[1] * (kept.dim() - 1)), particle, kept)
    return kept


def _swept(d: Autoregressive, x: Tensor, missing: Tensor, sweeps: int) -> Tensor:
    """Draw each missing element again, given all others."""
    event, own = x.shape[1:], d.expand((len(x),))

    def passed(flat: Tensor) -> tuple[Tensor, Tensor]:
        features = own.features(flat.unflatten(1, event)).flatten(1, -2)
        return features, own.elements(features).log_prob(flat)

    x, missing = x.flatten(1), missing.flatten(1)
    features, now = passed(x)
    for i in missing.any(0).nonzero().flatten().tolist() * sweeps:
        proposed = x.clone()
        proposed[:, i] = torch.where(missing[:, i], own.elements(features[:, i]).sample(), x[:, i])
        of_proposed, then = passed(proposed)
        gain = (then - now)[:, i + 1 :].sum(-1)
        taken = (torch.rand_like(gain).log() < gain)[:, None]
        x, now = torch.where(taken, proposed, x), torch.where(taken, then, now)
        features = torch.where(taken[..., None], of_proposed, features)
    return x.unflatten(1, event)
