"""Generative adversarial networks."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn.functional import softplus

from pyrogen.errors import ProgramError
from pyrogen.inference.adversarial import Scoring
from pyrogen.inference.penalties import Penalty
from pyrogen.inference.samples import Transform

__all__ = ["GAN", "as_game"]


class Game(NamedTuple):
    """Losses as functions of scores, before they are averaged.

    Attributes:
        real: the critic's loss of what is labelled real.
        fake: its loss of what is labelled fake.
        programs: the programs' loss of draws.
        has_labels: whether the label is a probability, which can be smoothed.
    """

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    programs: Callable[[Tensor], Tensor]
    has_labels: bool = True


def _minus_log_real(score: Tensor) -> Tensor:
    r"""Return :math:`-\log \sigma(s)`."""
    return softplus(-score)


def _minus_log_fake(score: Tensor) -> Tensor:
    r"""Return :math:`-\log(1 - \sigma(s))`."""
    return softplus(score)


def _squares_to_one(score: Tensor) -> Tensor:
    r"""Return :math:`\frac{1}{2} (s - 1)^2`."""
    return (score - 1).square() / 2


GAMES = {
    "minimax": Game(_minus_log_real, _minus_log_fake, lambda s: -_minus_log_fake(s)),
    "non-saturating": Game(_minus_log_real, _minus_log_fake, _minus_log_real),
    "least-squares": Game(_squares_to_one, lambda s: s.square() / 2, _squares_to_one),
    "reverse-kl": Game(_minus_log_real, _minus_log_fake, lambda s: -s),
    "hinge": Game(lambda s: (1 - s).relu(), lambda s: (1 + s).relu(), lambda s: -s, has_labels=False),
}


class GAN(Scoring):
    r"""The adversarial game: a critic tells data from draws, and the programs learn to pass for data.

    With the critic's probability :math:`\sigma(D(x))` that :math:`x` is real, it minimises

    .. math:: -\mathbb{E}_{p^*(x)} \log \sigma(D(x)) - \mathbb{E}_{p_\theta(x)} \log(1 - \sigma(D(x)))

    whose lowest value is :math:`\log 4 - 2 \, \mathrm{JSD}(p^* \| p_\theta)`, in nats. The programs minimise

    ==================  ================================================================
    ``minimax``         :math:`\mathbb{E}_{p_\theta} \log(1 - \sigma(D(x)))`
    ``non-saturating``  :math:`-\mathbb{E}_{p_\theta} \log \sigma(D(x))`
    ``least-squares``   :math:`\frac{1}{2} \mathbb{E}_{p_\theta} (D(x) - 1)^2`; the critic
                        :math:`\frac{1}{2} \mathbb{E}_{p^*} (D - 1)^2 + \frac{1}{2} \mathbb{E}_{p_\theta} D^2`
    ``reverse-kl``      :math:`-\mathbb{E}_{p_\theta} D(x)
                        = \mathbb{E}_{p_\theta} [\log(1 - \sigma(D(x))) - \log \sigma(D(x))]`, which is
                        :math:`\mathrm{KL}(p_\theta \| p^*)` for the best critic
    ``hinge``           :math:`-\mathbb{E}_{p_\theta} D(x)`; the critic
                        :math:`\mathbb{E}_{p^*} (1 - D)_+ + \mathbb{E}_{p_\theta} (1 + D)_+`
    ==================  ================================================================

    Args:
        critic: from the values of the observed sites (and covariates) to a logit a datum, see :class:`Adversarial`.
        game: which of these.
        penalties: what is added to the critic's loss; GAN-GP is ``[Interpolated()]``, DRAGAN-NS ``[DRAGAN()]``.
        label_smoothing: one-sided: the share :math:`\epsilon` of data that the critic is told are fake; draws keep
            their label.
        covariates: names of the arguments that the critic sees besides; found by themselves if not given.
        transform: applied to each site's values before critic and penalties see them.

    Raises:
        ProgramError: where a site passes no gradient to its parameters, or the critic returns other shapes.

    References:
        Generative Adversarial Nets (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661

        Least Squares Generative Adversarial Networks (Mao et al., 2017), https://arxiv.org/abs/1611.04076

        Geometric GAN (Lim and Ye, 2017), https://arxiv.org/abs/1705.02894

        Improved Techniques for Training GANs (Salimans et al., 2016), https://arxiv.org/abs/1606.03498

        Many Paths to Equilibrium (Fedus et al., 2018), https://arxiv.org/abs/1710.08446

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(3.0)), 1.0), obs=x)
        >>> class Logit(nn.Module):
        ...     def forward(self, x): return 0.5 - x  # the best one for N(0, 1) against N(1, 1)
        >>> pyro.set_rng_seed(0), pyro.clear_param_store(); _ = pyro.param("loc", torch.tensor(1.0))
        (None, None)
        >>> round(float(GAN(Logit()).critic_loss(model, None, torch.randn(200_000))), 2)  # log 4 - 2 JSD
        1.16
    """

    saturates = True

    def __init__(
        self,
        critic: nn.Module,
        game: Literal["minimax", "non-saturating", "least-squares", "reverse-kl", "hinge"] = "non-saturating",
        penalties: Sequence[Penalty] = (),
        label_smoothing: float = 0.0,
        covariates: Sequence[str] | None = None,
        transform: Transform | None = None,
    ) -> None:
        super().__init__(critic, penalties, covariates, transform)
        if not isinstance(game, str) or game not in GAMES:
            raise ValueError(f"unknown game {game!r}: choose from {', '.join(GAMES)}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), found {label_smoothing}")
        if label_smoothing and not GAMES[game].has_labels:
            raise ValueError(f"the {game} game has no labels to smooth: set label_smoothing=0")
        self.game = game
        self.label_smoothing = label_smoothing

    @property
    def has_log_ratios(self) -> bool:  # type: ignore[override]
        return GAMES[self.game].real is _minus_log_real and not self.label_smoothing

    def loss_of_programs(self, fake: Tensor) -> Tensor:
        return GAMES[self.game].programs(fake).mean()

    def loss_of_critic(self, real: Tensor, fake: Tensor) -> Tensor:
        game, smoothing = GAMES[self.game], self.label_smoothing
        of_real = game.real(real)
        if smoothing:
            of_real = (1 - smoothing) * of_real + smoothing * game.fake(real)
        return of_real.mean() + game.fake(fake).mean()


def as_game(critic: nn.Module, game: str, transforms: bool = False) -> Scoring:
    """Take a game that is part of another objective as it is, and make one of a critic.

    Args:
        critic: a game, such as :class:`GAN` or :class:`WGAN`, or a critic.
        game: which is made of a critic.
        transforms: whether the objective applies the game's ``transform``.

    Raises:
        ProgramError: where a game says what the objective that it is part of decides.
    """
    if not isinstance(critic, Scoring):
        return GAN(critic, game)  # type: ignore[arg-type]
    if critic.covariates is not None or (critic.transform is not None and not transforms):
        raise ProgramError(
            f"a {type(critic).__name__} that is part of another objective sees what that shows it: give covariates to "
            f"the objective, and let the critic transform latents itself"
        )
    return critic
