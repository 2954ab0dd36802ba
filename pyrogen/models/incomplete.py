"""Programs of data that are incomplete: a value that is NaN is missing, and is left out of the density."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyrogen.errors import ProgramError
from pyrogen.models.encoder import Encoder
from pyrogen.models.vae import vae
from pyrogen.preference import usual
from pyrogen.sites import Program, is_data
from pyrogen.spec import DataSpec

__all__ = ["Imputed", "Incomplete", "miwae"]


class Incomplete(PyroModule):
    r"""A model of incomplete data: what is missing of a datum, NaN, is integrated out.

    .. math:: p(x^o) = \int p(z) \prod_{j \in o} p(x_j \mid z) \, \mathrm{d}z

    Its bounds are those of what was observed, :math:`x^o`; maximised, they are consistent where data are missing at
    random: where whether a value is missing depends on values that were observed, and on nothing else. ``IWAE`` of
    such a model is MIWAE's bound.

    Args:
        model: a VAE, or another program of ``x`` and ``size``, whose values are independent of each other given its
            latents.

    Raises:
        ProgramError: where they are not.

    References:
        MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets (Mattei and Frellsen, 2019),
        https://arxiv.org/abs/1812.02633
    """

    def __init__(self, model: Program) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """Score ``x`` of shape ``(batch, *shape)``, NaN where missing; without data, generate ``size`` of them.

        Returns:
            The data, zero where they are missing.
        """
        with Observed():
            return self.model(x, size)


class Observed(Messenger):
    """Score the elements of data that are there, and leave out those that are NaN."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if is_data(msg) and isinstance(msg["value"], Tensor) and msg["value"].is_floating_point():
            is_missing = msg["value"].isnan()
            msg["fn"] = _masked(msg["fn"], ~is_missing, msg["name"])
            # The density of NaN is NaN, and so is its gradient, however it is masked.
            msg["value"] = msg["value"].masked_fill(is_missing, 0.0)


def _masked(fn: Any, is_observed: Tensor, name: str) -> TorchDistribution:
    if isinstance(fn, torch.distributions.Independent):
        inner = _masked(fn.base_dist, is_observed, name)
        return inner.to_event(fn.reinterpreted_batch_ndims)
    if fn.event_dim:
        raise ProgramError(
            f"site {name!r}: the elements of its {type(fn).__name__} depend on each other, so that none can be left "
            f"out alone. Make them independent given the latents, as Normal(loc, scale).to_event(1) is"
        )
    return fn.mask(is_observed)


class Imputed(PyroModule):
    r"""A guide that reads incomplete data: learned constants, zero at first, stand for what is missing.

    .. math:: q(z \mid x^o) = q(z \mid \iota(x^o))

    Args:
        guide: an encoder of complete data.
    """

    def __init__(self, guide: Encoder) -> None:
        super().__init__()
        self.guide = guide
        self.constants = nn.Parameter(torch.zeros(guide.spec.shape))
        self.has_noise, self.has_density = guide.has_noise, guide.has_density

    def posterior(self, x: Tensor) -> TorchDistribution:
        """Return :math:`q(z \\mid x^o)` for data of shape ``(*batch, *spec.shape)``, NaN where missing."""
        return self.guide.posterior(self._filled(x))

    def forward(self, x: Tensor) -> Tensor:
        """Draw ``z`` for data of shape ``(batch, *spec.shape)``, NaN where missing."""
        return self.guide(self._filled(x))

    def _filled(self, x: Tensor) -> Tensor:
        return torch.where(x.isnan(), self.constants, x)


@usual(objective="iwae")
def miwae(
    spec: DataSpec,
    *,
    likelihood: str | None = None,
    latent: int = 10,
    hidden: Sequence[int] = (128, 128),
    encoder: Literal["student-t", "gaussian"] = "student-t",
) -> tuple[Incomplete, Imputed]:
    """Make a variational autoencoder of incomplete data, for iwae with some 20 particles.

    Args:
        spec: shape and kind of the data; what is missing of them is NaN.
        likelihood: student-t for reals if not given, else as of a vae; reals are best brought to unit variance.
        latent: the number of latent variables.
        hidden: widths of the hidden layers of encoder and decoder.
        encoder: student-t, whose tails keep importance weights bounded, or gaussian.

    Returns:
        The model and its guide.

    Raises:
        UsageError: where the likelihood does not fit the data.

    Example:
        >>> model, guide = miwae(DataSpec((4,), "real"), latent=2, hidden=(16,))
        >>> x = torch.tensor([[1.0, float("nan"), 0.5, float("nan")]])
        >>> model(x), guide(x).shape
        (tensor([[1.0000, 0.0000, 0.5000, 0.0000]]), torch.Size([1, 2]))
    """
    if likelihood is None and spec.kind == "real":
        likelihood = "student-t"
    model, guide = vae(spec, likelihood=likelihood, latent=latent, hidden=hidden, encoder=encoder)
    return Incomplete(model), Imputed(guide)
