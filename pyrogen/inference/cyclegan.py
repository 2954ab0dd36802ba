"""Translation between two domains without pairs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyrogen.errors import ProgramError
from pyrogen.inference.adversarial import REMEMBERED, shown
from pyrogen.inference.history import History
from pyrogen.inference.objective import Objective
from pyrogen.inference.samples import Drawing, Transform
from pyrogen.sites import Program

__all__ = ["CycleGAN", "log_laplace"]


class CycleGAN(Objective):
    r"""Two adversarial games, one for each direction of a translation, and a likelihood of coming back.

    The model is :math:`p(b \mid a)`, which draws :math:`G(a)`; the guide is :math:`p(a \mid b)`, which draws
    :math:`F(b)`. Each takes ``a`` and ``b``, whose rows do not belong to each other, and observes one of them, as it
    is, at the site of that name. They minimise

    .. math::
        &\mathbb{E}_a (D_b(G(a)) - 1)^2 + \mathbb{E}_b (D_a(F(b)) - 1)^2 \\
        &- \mathbb{E}_a \log \ell_\lambda(a \mid F(G(a))) - \mathbb{E}_b \log \ell_\lambda(b \mid G(F(b))) \\
        &- \mathbb{E}_b \log \ell_{\lambda\iota}(b \mid G(b)) - \mathbb{E}_a \log \ell_{\lambda\iota}(a \mid F(a))

    where :math:`\ell_\lambda(x \mid m)` is, up to its constant, the density of a Laplace distribution of scale
    :math:`1 / \lambda` around :math:`m`, the geometric mean over the :math:`d` values of a datum:

    .. math::
        -\log \ell_\lambda(x \mid m) = \frac{\lambda}{d} \lVert x - m \rVert_1
        = -\frac{1}{d} \sum_{i=1}^d \log \mathrm{Laplace}(x_i; m_i, 1 / \lambda) + \log \frac{\lambda}{2}.

    The critics minimise, with :math:`\tilde b` and :math:`\tilde a` from a :class:`History` of draws,

    .. math::
        \tfrac{1}{2} \left[\mathbb{E}_b (D_b(b) - 1)^2 + \mathbb{E}_{\tilde b} D_b(\tilde b)^2
        + \mathbb{E}_a (D_a(a) - 1)^2 + \mathbb{E}_{\tilde a} D_a(\tilde a)^2\right].

    *Which* translation is learned, the loss does not say: where a domain has a symmetry, such as modes that can be
    permuted, a translation and that symmetry after it have the same loss.

    Args:
        critic_a: of data of the domain ``a``, from ``(batch, *shape)`` to scores of any shape ``(batch, ...)``, which
            are averaged: one for each datum, or for each patch of an image.
        critic_b: of the domain ``b``.
        shape: of a datum.
        cycle: :math:`\lambda`.
        identity: :math:`\iota`, the weight of leaving alone what is in the target's domain already; one half for
            paintings, whose colours are to be kept.
        history: how many draws of each direction are kept for the critics.
        transform: applied to data and draws before critics, cycles and the history see them.

    Raises:
        ProgramError: where there is no guide, where the model observes anything but ``b`` or the guide anything but
            ``a``, or where a site passes no gradient to its parameters.

    References:
        Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks (Zhu et al., 2017),
        https://arxiv.org/abs/1703.10593

        Least Squares Generative Adversarial Networks (Mao et al., 2017), https://arxiv.org/abs/1611.04076

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def there(a, b):
        ...     with pyro.plate("data", len(a)):
        ...         pyro.sample("b", dist.Delta(a + 1), obs=b)
        >>> def back(a, b):
        ...     with pyro.plate("data", len(b)):
        ...         pyro.sample("a", dist.Delta(b - 1), obs=a)
        >>> class Half(nn.Module):
        ...     def forward(self, x): return 0.5 + 0 * x
        >>> objective = CycleGAN(Half(), Half(), shape=())
        >>> objective(there, back, torch.zeros(4), torch.ones(4))  # there and back again: only the games are left
        tensor(0.5000)
    """

    sums_over_data = False
    by_samples = True

    critic_real: Tensor
    critic_fake: Tensor

    def __init__(
        self,
        critic_a: nn.Module,
        critic_b: nn.Module,
        shape: Sequence[int],
        cycle: float = 10.0,
        identity: float = 0.0,
        history: int = 50,
        transform: Transform | None = None,
    ) -> None:
        super().__init__()
        for name, weight in (("cycle", cycle), ("identity", identity)):
            if not weight >= 0:
                raise ValueError(f"the weight {name} must not be negative, found {weight}")
        self.critic_a, self.critic_b = critic_a, critic_b
        self.history_a, self.history_b = History(history, shape), History(history, shape)
        self.cycle, self.identity = cycle, identity
        self.transform = transform
        self.register_buffer("critic_real", torch.tensor(0.0))
        self.register_buffer("critic_fake", torch.tensor(0.0))

    def forward(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the programs' loss."""
        a, b = _domains(*args, **kwargs)
        fake_b, fake_a = _there(model, a, b), _back(guide, a, b)
        loss = self._game(self.critic_b, fake_b) + self._game(self.critic_a, fake_a)
        if self.cycle:
            loss = loss - self._log_laplace(a, _back(guide, a, fake_b)) - self._log_laplace(b, _there(model, fake_a, b))
        if self.cycle and self.identity:
            found = self._log_laplace(b, _there(model, b, b)) + self._log_laplace(a, _back(guide, a, a))
            loss = loss - self.identity * found
        return loss

    def critic_loss(self, model: Program, guide: Program | None, *args: Any, **kwargs: Any) -> Tensor:
        """Return the critics' loss, and let the histories have the latest draws."""
        a, b = _domains(*args, **kwargs)
        with torch.no_grad():
            fake_a = self.history_a(self._seen(_back(guide, a, b)))
            fake_b = self.history_b(self._seen(_there(model, a, b)))
            a, b = self._seen(a), self._seen(b)
        real = _scores(self.critic_a, a), _scores(self.critic_b, b)
        fake = _scores(self.critic_a, fake_a), _scores(self.critic_b, fake_b)
        with torch.no_grad():
            for average, scores in ((self.critic_real, real), (self.critic_fake, fake)):
                average.lerp_((scores[0].mean() + scores[1].mean()).to(average.dtype) / 2, 1 - REMEMBERED)
        losses = [(s - 1).square().mean() for s in real] + [s.square().mean() for s in fake]
        return torch.stack(losses).sum() / 2

    def monitored(self) -> dict[str, Tensor]:
        """Return moving averages of the scores of data and draws: at best, critics give one half to either."""
        return {"critic_real": self.critic_real, "critic_fake": self.critic_fake}

    def extra_repr(self) -> str:
        return f"cycle={self.cycle}, identity={self.identity}"

    def _game(self, critic: nn.Module, fake: Tensor) -> Tensor:
        return (_scores(critic, self._seen(fake)) - 1).square().mean()

    def _log_laplace(self, x: Tensor, loc: Tensor) -> Tensor:
        return log_laplace(self._seen(x), self._seen(loc), self.cycle).mean()

    def _seen(self, values: Tensor) -> Tensor:
        return values if self.transform is None else self.transform(values)


def log_laplace(x: Tensor, loc: Tensor, weight: float) -> Tensor:
    r"""Return the log-density of a Laplace distribution of scale :math:`1 / \lambda` per value, but for its constant.

    .. math:: \log \ell_\lambda(x \mid m) = -\frac{\lambda}{d} \lVert x - m \rVert_1

    Args:
        x: shape ``(batch, ...)``.
        loc: the same shape.
        weight: :math:`\lambda`.

    Returns:
        Shape ``(batch,)``.

    Example:
        >>> x, loc = torch.zeros(1, 2), torch.tensor([[1.0, 3.0]])
        >>> full = torch.distributions.Laplace(loc, 1 / 10).log_prob(x).mean()
        >>> log_laplace(x, loc, 10.0), bool((full - torch.tensor(10 / 2).log() + 20).abs() < 1e-5)
        (tensor([-20.]), True)
    """
    return -weight * (x - loc).abs().reshape(len(x), -1).mean(1)


def _domains(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Return data of both domains, by position or by name.

    Raises:
        ProgramError: where there are others, fewer or more, or not as many of the one as of the other.
    """
    given = dict(zip("ab", args, strict=False)) | kwargs
    if len(args) + len(kwargs) != 2 or set(given) != {"a", "b"}:
        named = [*(f"{len(args)} without a name" for _ in args[:1]), *map(repr, kwargs)]
        raise ProgramError(
            f"CycleGAN learns from batches of two domains, a and b: as {{'a': ..., 'b': ...}} or (a, b). Found "
            f"{', '.join(named) or 'nothing'}"
        )
    if len(given["a"]) != len(given["b"]):
        raise ProgramError(
            f"a batch must hold as many data of a as of b, found {len(given['a'])} and {len(given['b'])}: "
            f"pyrogen.data.Unpaired draws such batches from data sets of any lengths"
        )
    return given["a"], given["b"]


def _there(model: Program, a: Tensor, b: Tensor) -> Tensor:
    return _drawn(model, "b", "the model", a, b)


def _back(guide: Program | None, a: Tensor, b: Tensor) -> Tensor:
    if guide is None:
        raise ProgramError("CycleGAN needs two programs: the model, p(b | a), and the guide, p(a | b). Found no guide")
    return _drawn(guide, "a", "the guide", a, b)


def _drawn(program: Program, site: str, role: str, a: Tensor, b: Tensor) -> Tensor:
    """Draw the one site that a program observes.

    Raises:
        ProgramError: where it observes others, or something else there than the argument of that name: draws of one
            program are the other's arguments, and must be of the same kind.
    """
    with Drawing() as drawing:
        program(a, b)
    if list(drawing.real) != [site]:
        raise ProgramError(
            f"{role} must observe one site, {site!r}, and observes {', '.join(map(repr, drawing.real)) or 'none'}: "
            f"CycleGAN's model is p(b | a), and its guide is p(a | b)"
        )
    if drawing.real[site] is not (a if site == "a" else b):
        raise ProgramError(
            f"{role} must observe its argument {site!r} as it is, with obs={site}: what it draws there becomes the "
            f"other program's argument {site!r}. Do to the data beforehand what is to be done to them"
        )
    return drawing.sites[site]["value"]


def _scores(critic: nn.Module, x: Tensor) -> Tensor:
    found = shown(critic, x)
    if not found.dim() or len(found) != len(x):
        raise ProgramError(
            f"a critic returned shape {tuple(found.shape)} for {len(x)} data: expected scores of each, ({len(x)}, ...)"
        )
    return found
