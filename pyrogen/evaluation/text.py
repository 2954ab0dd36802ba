"""How well a text is foretold, character by character, as it is read."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import log

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyrogen.distributions import Autoregressive
from pyrogen.errors import ProgramError, UsageError
from pyrogen.evaluation.estimate import Estimate
from pyrogen.evaluation.likelihood import evaluating
from pyrogen.nn import Causal, Recurrent
from pyrogen.parameters import first_device, modules_of
from pyrogen.rehearsal import rehearsal
from pyrogen.sites import Program, is_data, sample_sites

__all__ = ["Reader", "bits_per_char", "learning", "surprises", "text_distribution"]

Element = Callable[[Tensor], TorchDistribution]
"""Maps features to the distribution of a character."""

EPSILON = 1e-5
"""Keeps the steps of parameters finite whose gradients are none."""

BLOCK = 1000
"""Characters whose mean counts as one draw for a standard error: neighbours are not independent."""


def surprises(
    model: Program,
    text: Tensor,
    *,
    window: int,
    streams: int = 1,
    rate: float = 0.0,
    decay: float = 0.0,
    learned: Tensor | None = None,
) -> Tensor:
    r"""Return how many bits each character of a text takes, given all of those before it.

    .. math:: -\log_2 p_{\theta_t}(x_t \mid x_{<t})

    With a ``rate`` above zero the parameters go on learning from what was read: *dynamic evaluation*. A window is
    scored as a whole before anything is learned from it,

    .. math::
        \theta \leftarrow \theta + \lambda R\, (\theta_0 - \theta) - \eta \frac{g}{\sqrt{m} + \varepsilon}, \quad
        g = \nabla_\theta \Big(-\frac{1}{T} \sum_{t \in \text{window}} \log p_\theta(x_t \mid x_{<t})\Big)

    and at the end the parameters are what they were. Given some of the text that it has ``learned``, :math:`m` is the
    mean of :math:`g^2` over windows of that, parameter by parameter, :math:`\varepsilon` is 1e-5, and those that the
    text depends on are pulled back harder: :math:`R = \sqrt{m} / \overline{\sqrt{m}}`, at most :math:`1 / \lambda`;
    without, :math:`\sqrt{m} + \varepsilon = R = 1`. What a program remembers of its training is neither used nor
    changed.

    Args:
        model: with one observed site, whose distribution is an :class:`~pyrogen.distributions.Autoregressive`. Where
            its network is a :class:`~pyrogen.nn.Recurrent` one, the whole past is remembered; of others, each character
            is given half a window or more.
        text: numbers of the characters, shape ``(characters,)``.
        window: characters that are read at once, and learned from. For a network without a memory, as many as in the
            windows that it has learned.
        streams: read so many parts of the text at once, each as if it was the first; what is left is not read.
        rate: :math:`\eta`.
        decay: :math:`\lambda`.
        learned: numbers of characters to measure gradients by, shape ``(characters,)``; plain gradient descent if not
            given, whose rate is of another size.

    Returns:
        Bits, float64, shape ``(characters,)``, in the text's order.

    Raises:
        ProgramError: where the model has no such site.
        UsageError: where a setting is out of range.

    References:
        Dynamic Evaluation of Neural Sequence Models (Krause et al., 2018), https://arxiv.org/abs/1709.07432
    """
    if rate < 0 or not 0 <= decay < 1 or window < 1 or streams < 1:
        raise UsageError(
            f"rate must not be negative, decay be in [0, 1), and window and streams at least 1, found {rate}, {decay}, "
            f"{window} and {streams}"
        )
    if len(text) < streams:
        raise UsageError(f"a text of {len(text)} characters is not read in {streams} streams: give fewer")
    x = text[: len(text) // streams * streams].reshape(streams, -1).to(first_device(model), torch.get_default_dtype())
    fn = text_distribution(model, x[:1, :window])
    reader = Reader(fn.network, fn.element, streams, window)
    found = []
    with evaluating(model, fn.network), learning(fn.network, rate, decay) as learn:
        if rate > 0 and learned is not None:
            again = Reader(fn.network, fn.element, 1, window)
            learn.measure(-again(part).mean() for part in learned.to(x)[None].split(again.stride, 1))
        for part in x.split(reader.stride, 1):
            with torch.set_grad_enabled(rate > 0):
                scores = reader(part)
                found.append(scores.detach().double())
                if rate > 0:
                    learn(-scores.mean())
    return -torch.cat(found, 1).flatten().cpu() / log(2)


def text_distribution(model: Program, x: Tensor) -> Autoregressive:
    """Return the distribution of a model's only observed site.

    Args:
        x: an example of data.

    Raises:
        ProgramError: where there are several sites, or the distribution is of another kind.
    """
    with rehearsal(modules_of(model).values()), evaluating(model):
        sites = [site for site in sample_sites(poutine.trace(model).get_trace(x=x)) if is_data(site)]
    if len(sites) != 1 or not isinstance(sites[0]["fn"], Autoregressive):
        found = ", ".join(f"{site['name']}: {type(site['fn']).__name__}" for site in sites)
        raise ProgramError(f"a text is read at one site whose distribution is Autoregressive, found {found or 'none'}")
    return sites[0]["fn"]


class Reader:
    """Reads a text on from where the last call ended.

    Args:
        network: what says what it expects.
        element: what that means, of one character.
        streams: how many texts are read at once.
        window: characters that are read at once; of a network without a memory, the latter half of them are new.
    """

    def __init__(self, network: Causal, element: Element, streams: int, window: int) -> None:
        self.network, self.element, self.window = network, element, window
        self.memory = network.begin(streams) if isinstance(network, Recurrent) else None
        self.stride = window if isinstance(network, Recurrent) else (window + 1) // 2
        self.seen: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the log-probabilities in nats of the next characters, shape ``(streams, time)``."""
        if isinstance(self.network, Recurrent) and self.memory is not None:
            features, memory = self.network.resume(x, self.memory)
            self.memory = memory.detached()
            return self.element(features).log_prob(x)
        whole = x if self.seen is None else torch.cat([self.seen, x], 1)
        self.seen = whole[:, max(0, whole.shape[1] - self.window + self.stride) :]
        return self.element(self.network(whole)[:, -x.shape[1] :]).log_prob(x)


@contextmanager
def learning(network: nn.Module, rate: float, decay: float = 0.0) -> Iterator["Learner"]:
    """Let a network learn within the body, and give its parameters their values back at the end."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]
    has_cudnn = torch.backends.cudnn.enabled
    try:
        # In eval mode there is no dropout; cuDNN's recurrent layers have no gradient there.
        torch.backends.cudnn.enabled = has_cudnn and rate == 0
        yield Learner(parameters, before, rate, decay)
    finally:
        torch.backends.cudnn.enabled = has_cudnn
        with torch.no_grad():
            for p, value in zip(parameters, before, strict=True):
                p.copy_(value)


class Learner:
    """Takes steps down the gradient, and some of the way back to where it began."""

    def __init__(self, parameters: Sequence[Tensor], before: Sequence[Tensor], rate: float, decay: float) -> None:
        self.parameters, self.before, self.pulls = list(parameters), list(before), decay > 0
        self.rates = [torch.full((), rate, device=p.device, dtype=p.dtype) for p in parameters]
        self.decays = [torch.full((), decay, device=p.device, dtype=p.dtype) for p in parameters]

    def measure(self, losses: Iterable[Tensor]) -> None:
        """Let steps be in proportion to the root mean square of each parameter's gradient of some losses."""
        squares, count = [torch.zeros_like(p) for p in self.parameters], 0
        with torch.enable_grad():
            for loss in losses:
                gradients = torch.autograd.grad(loss, self.parameters)
                torch._foreach_addcmul_(squares, gradients, gradients)
                count += 1
        roots = [(square / count).sqrt() for square in squares]
        average = sum(root.sum() for root in roots) / sum(root.numel() for root in roots)
        self.rates = [rate / (root + EPSILON) for rate, root in zip(self.rates, roots, strict=True)]
        self.decays = [(decay * root / average).clamp(max=1.0) for decay, root in zip(self.decays, roots, strict=True)]

    def __call__(self, loss: Tensor) -> None:
        """Take a step of a loss."""
        gradients = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            if self.pulls:
                torch._foreach_lerp_(self.parameters, self.before, self.decays)
            torch._foreach_addcmul_(self.parameters, gradients, self.rates, value=-1.0)


def bits_per_char(bits: Tensor, unit: str = "bits/char") -> Estimate:
    r"""Average surprises over a text, with a standard error over blocks of :data:`BLOCK` characters, or tenths of it.

    Example:
        >>> estimate = bits_per_char(torch.cat([torch.ones(2000), torch.full((2000,), 3.0)]))
        >>> estimate.value, round(estimate.stderr, 4)
        (2.0, 0.3162)
    """
    blocks = bits.split(max(1, min(BLOCK, len(bits) // 10)))
    length = torch.tensor([len(block) for block in blocks])
    value = bits.mean()
    excess = torch.stack([block.sum() for block in blocks]) - value * length
    stderr = float(excess.square().sum().sqrt() / len(bits)) if len(blocks) > 1 else None
    return Estimate(float(value), stderr, unit)
