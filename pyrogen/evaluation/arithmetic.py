"""Whether attributes of draws add up in the latent space."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyrogen.errors import UsageError
from pyrogen.evaluation.estimate import Estimate, mean

__all__ = ["Arithmetic", "attribute_arithmetic", "sums"]


class Arithmetic(NamedTuple):
    """How often a sum of latent vectors has the attributes that it should have.

    Attributes:
        success: the share of sums with both attributes as wanted.
        kept: the share with the first one, man or woman, as it was.
        added: the share with the second one, glasses.
        chance: what success would be, were sums draws of the prior.
    """

    success: Estimate
    kept: Estimate
    added: Estimate
    chance: float


def attribute_arithmetic(
    generate: Callable[[Tensor], Tensor],
    classify: Callable[[Tensor], Tensor],
    z: Tensor,
    *,
    exemplars: int = 3,
    repeats: int = 500,
) -> Arithmetic:
    r"""Add an attribute to draws that lack it, as glasses to faces.

    .. math::
        z = \bar z_{\text{man with}} - \bar z_{\text{man without}} + \bar z_{\text{woman without}}

    should make a woman with glasses. Each :math:`\bar z` is the mean of some draws' latent vectors; which attributes a
    draw has is for the classifier to say. Both ways are tried equally often, from men to women and from women to men.
    Of three exemplars, sums of standard normal vectors are about as long as draws; of more, shorter, and more typical.

    Args:
        generate: from latent vectors, shape ``(n, latent)``, to what is generated.
        classify: from that to two attributes, shape ``(n, 2)``, 0 or 1: one that is to be kept (man or woman), and one
            that is to be added (glasses).
        z: draws of the prior, shape ``(count, latent)``, to choose exemplars from.
        exemplars: draws in each mean.
        repeats: sums.

    Raises:
        UsageError: where the classifier returns something else, or fewer than ``exemplars`` draws have some combination
            of attributes.

    References:
        Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks (Radford et al.,
        2016), section 6.3.2, https://arxiv.org/abs/1511.06434

    Example:
        >>> _ = torch.manual_seed(0)
        >>> found = attribute_arithmetic(lambda z: z, lambda x: (x[:, :2] > 0).long(), torch.randn(500, 9))
        >>> found.success.value > 0.6, round(found.chance, 1)
        (True, 0.2)
    """
    if exemplars < 1 or repeats < 1:
        raise UsageError(f"exemplars and repeats must be at least 1, found {exemplars} and {repeats}")
    attributes = classify(generate(z))
    is_tensor = isinstance(attributes, Tensor)
    if not is_tensor or attributes.shape != (len(z), 2) or not ((attributes == 0) | (attributes == 1)).all():
        found = f"shape {tuple(attributes.shape)}" if is_tensor else type(attributes).__name__
        raise UsageError(f"classify must return two attributes, 0 or 1, in shape ({len(z)}, 2), found {found}")
    attributes = attributes.long()
    wanted = torch.arange(repeats, device=z.device) % 2
    of_sums = classify(generate(sums(z, attributes, wanted, exemplars)))
    is_kept, is_added = of_sums[:, 0] == wanted, of_sums[:, 1] == 1
    success, kept, added = (mean(right.double(), "share") for right in (is_kept & is_added, is_kept, is_added))
    chance = (attributes[:, 1] == 1).double().mean() / 2  # either way has its own; both are tried equally often
    return Arithmetic(success, kept, added, float(chance))


def sums(z: Tensor, attributes: Tensor, wanted: Tensor, exemplars: int = 3) -> Tensor:
    """Return latent vectors that should have the first attribute as ``wanted``, and the second.

    Args:
        z: latent vectors, shape ``(count, latent)``.
        attributes: of what they generate, shape ``(count, 2)``.
        wanted: shape ``(repeats,)``, 0 or 1.
        exemplars: latent vectors in each mean.

    Returns:
        Shape ``(repeats, latent)``.
    """
    combination = 2 * attributes[:, 0] + attributes[:, 1]

    def typical(kept: Tensor, added: int) -> Tensor:
        """Average latent vectors of draws with some attributes, chosen at random, without repetition."""
        means = torch.empty(len(kept), z.shape[1], dtype=z.dtype, device=z.device)
        for k in (0, 1):
            rows = (combination == 2 * k + added).nonzero()[:, 0]
            if len(rows) < exemplars:
                raise UsageError(
                    f"{len(rows)} of {len(z)} draws have attributes ({k}, {added}), and {exemplars} are averaged: "
                    f"pass more draws, or fit the model longer"
                )
            chosen = torch.rand(int((kept == k).sum()), len(rows), device=z.device).topk(exemplars).indices
            means[kept == k] = z[rows[chosen]].mean(1)
        return means

    return typical(1 - wanted, 1) - typical(1 - wanted, 0) + typical(wanted, 0)
