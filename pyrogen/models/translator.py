"""Translators between two domains: a network that turns data of one into data of the other."""

from collections.abc import Sequence
from typing import Literal

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrogen.distributions import Implicit
from pyrogen.errors import ProgramError, UsageError
from pyrogen.nn import MLP, ResNetTranslator, check_widths
from pyrogen.spec import DataSpec, scaled, unscaled

__all__ = ["Translator", "cyclegan"]

DOMAINS = ("a", "b")

FINEST = 16
"""Pixels a side that are left of an image, at least, where it is halved without being asked."""


class Translator(PyroModule):
    r"""A network of data of another domain.

    .. math:: b = G_\theta(a)

    Sites: the target, ``b`` (or ``a``), of event shape ``spec.shape``, in plate ``data``. Data of both domains may be
    given together: rows of ``a`` and ``b`` do not belong to each other, and what is observed is what draws are to look
    like.

    Args:
        network: :math:`G_\theta` from ``(batch, *spec.shape)`` to the same, both scaled to :math:`[-1, 1]` where data
            are bounded.
        spec: the data, of either domain.
        target: what is drawn: ``"b"`` given ``a``, or ``"a"`` given ``b``.

    Attributes:
        source: the other one.
        covariates: none: to a critic that saw the source, data that do not belong to it would be different from draws.
    """

    covariates: tuple[str, ...] = ()

    def __init__(self, network: nn.Module, spec: DataSpec, target: Literal["a", "b"] = "b") -> None:
        super().__init__()
        if target not in DOMAINS:
            raise ValueError(f"the target must be 'a' or 'b', found {target!r}")
        self.network = network
        self.spec = spec
        self.target = target
        self.source = DOMAINS[1 - DOMAINS.index(target)]

    def forward(self, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        """Translate each datum of the source, shape ``(batch, *spec.shape)``.

        Args:
            a: data of the one domain, shape ``(batch, *spec.shape)``.
            b: data of the other, likewise.

        Raises:
            ProgramError: where there is nothing to translate.
        """
        source, target = (a, b) if self.source == "a" else (b, a)
        if source is None:
            raise ProgramError(f"there is nothing to translate to {self.target!r}: pass {self.source}=")
        with pyro.plate("data", len(source)):
            return pyro.sample(self.target, self.translated(source), obs=target)

    def translated(self, source: Tensor) -> Implicit:
        """Return the distribution of what the network makes of data, one a row."""
        return Implicit(
            lambda shape: unscaled(self.network(scaled(source, self.spec)), self.spec).reshape(
                *shape, *self.spec.shape
            ),
            event_shape=self.spec.shape,
            batch_shape=source.shape[:1],
        )


def cyclegan(
    spec: DataSpec,
    *,
    network: Literal["auto", "resnet", "mlp"] = "auto",
    channels: Sequence[int] | None = None,
    blocks: int = 1,
    hidden: Sequence[int] = (256, 256),
) -> tuple[Translator, Translator]:
    """Make two translators between two domains, there and back.

    Args:
        spec: shape and kind of the data of both.
        network: resnet for images, mlp, or auto: by the data's shape.
        channels: of the first layer, and after each halving of the image (resnet); if not given, 32, and twice as many
            after each of up to two halvings that leave 16 pixels a side: details of small images would get lost, and
            with them which translation is the easiest.
        blocks: residual blocks in the middle (resnet); larger images want more: 6 for 128 x 128 pixels, 9 for more.
        hidden: widths of the hidden layers (mlp).

    Returns:
        The model, from ``a`` to ``b``, and the guide, from ``b`` to ``a``.

    Raises:
        UsageError: where the network does not fit the data.

    References:
        Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks (Zhu et al., 2017),
        https://arxiv.org/abs/1703.10593

    Example:
        >>> import torch
        >>> model, guide = cyclegan(DataSpec((1, 8, 8), "levels", levels=17), channels=(4,), blocks=1)
        >>> a = torch.zeros(3, 1, 8, 8)
        >>> guide(b=model(a)).shape  # there and back
        torch.Size([3, 1, 8, 8])
    """
    channels = _channels(spec) if channels is None else channels
    check_widths(channels=channels, hidden=hidden)
    if blocks < 0:
        raise UsageError(f"blocks must not be negative, found {blocks}")
    is_image = len(spec.shape) == 3 and spec.kind != "real"
    if network == "resnet" and not is_image:
        raise UsageError(
            f"a resnet translates images (channels, height, width) with bounded pixels, found {spec.kind} data of "
            f"shape {spec.shape}: use --network mlp"
        )

    def made() -> nn.Module:
        is_resnet = is_image and network != "mlp"
        return ResNetTranslator(spec.shape, channels, blocks) if is_resnet else _connected(spec, hidden)

    return Translator(made(), spec, "b"), Translator(made(), spec, "a")


def _channels(spec: DataSpec) -> list[int]:
    """Choose channels by the side of the images."""
    return [32 * 2**i for i in range(3) if not i or min(spec.shape[-2:]) >= FINEST * 2**i]


def _connected(spec: DataSpec, hidden: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten(), MLP(spec.num_dims, spec.num_dims, hidden, nn.ReLU)]
    if spec.kind != "real":
        layers.append(nn.Tanh())
    return nn.Sequential(*layers, nn.Unflatten(-1, spec.shape))
