"""What a forecast is unsure of: chance, which more data leave, and parameters, which they teach."""

from collections.abc import Iterable, Mapping
from math import log
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Categorical

from pyrogen.errors import DataError, ProgramError, UsageError
from pyrogen.evaluation.joint_draw import JointDraw
from pyrogen.evaluation.likelihood import over
from pyrogen.sites import Program, unwrapped

__all__ = ["Uncertainty", "label_draws", "mutual_information", "predictive_entropy", "uncertainty"]


class Uncertainty(NamedTuple):
    """In nats, each of shape ``(data,)``; ``total`` is the sum of the other two.

    Attributes:
        total: the entropy of the label.
        aleatoric: what is left of it once the parameters are known.
        epistemic: what the label and the parameters tell of each other, their mutual information.
    """

    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor


def uncertainty(log_probs: Tensor) -> Uncertainty:
    r"""Divide the entropy of a label into that of chance and that of not knowing the parameters.

    .. math::
        \underbrace{\mathrm{H}\Big[\tfrac1S \sum_s p(y \mid x, \theta_s)\Big]}_{\text{total}} =
        \underbrace{\tfrac1S \sum_s \mathrm{H}[p(y \mid x, \theta_s)]}_{\text{aleatoric}} +
        \underbrace{\mathrm{I}(y; \theta \mid x)}_{\text{epistemic}}

    Of few draws, total and epistemic are too low, by :math:`\frac{1}{2S} \sum_y \operatorname{Var}[p_y] / \bar p_y` to
    first order: no datum has an epistemic part above :math:`\log S`.

    Args:
        log_probs: of each label, by draws of the parameters or members of an ensemble, shape
            ``(draws, data, classes)``.

    Raises:
        DataError: where the shape is another, or probabilities do not add up to 1.

    References:
        Bayesian Active Learning for Classification and Preference Learning (Houlsby et al., 2011),
        https://arxiv.org/abs/1112.5745

        Decomposition of Uncertainty in Bayesian Deep Learning (Depeweg et al., 2018), https://arxiv.org/abs/1710.07283

    Example:
        >>> sure = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]).log()  # two members, each sure of another label
        >>> [round(float(part), 3) for part in uncertainty(sure)]
        [0.693, 0.0, 0.693]
    """
    if log_probs.dim() != 3 or not len(log_probs):
        raise DataError(f"expected log-probabilities of shape (draws, data, classes), found {tuple(log_probs.shape)}")
    total = log_probs.exp().sum(-1)
    if not torch.allclose(total, torch.ones_like(total), atol=1e-3):
        raise DataError("probabilities of labels do not add up to 1: give log-probabilities, as log_softmax has them")
    mean = log_probs.logsumexp(0) - log(len(log_probs))
    of_mean, of_draws = _entropy(mean), _entropy(log_probs).mean(0)
    # A difference of equal entropies is zero up to rounding, and may come out below it.
    epistemic = (of_mean - of_draws).clamp(min=0.0)
    return Uncertainty(of_draws + epistemic, of_draws, epistemic)


def predictive_entropy(log_probs: Tensor) -> Tensor:
    """Return the total :func:`uncertainty` of labels, shape ``(data,)``, in nats."""
    return uncertainty(log_probs).total


def mutual_information(log_probs: Tensor) -> Tensor:
    """Return the epistemic :func:`uncertainty` of labels, shape ``(data,)``, in nats: BALD, to learn labels by."""
    return uncertainty(log_probs).epistemic


def _entropy(log_probs: Tensor) -> Tensor:
    return torch.special.entr(log_probs.exp()).sum(-1)


def label_draws(
    model: Program,
    guide: Program,
    batches: Iterable[Mapping[str, Tensor]],
    num_draws: int = 100,
    site: str = "y",
) -> Tensor:
    r"""Return :math:`\log p(y \mid x, \theta_s)` of all labels, for draws of the parameters that all data share.

    Args:
        guide: draws :math:`\theta_s`.
        batches: dicts of keyword arguments for the programs.
        num_draws: :math:`S`.
        site: the label's, with a categorical distribution.

    Returns:
        Tensor of shape ``(draws, data, classes)`` on the CPU, in nats.

    Raises:
        ProgramError: where the model has no such site, it is not categorical, or a datum has latents of its own, whose
            draws would be taken for those of parameters.
        UsageError: where there is no draw.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x, y=None):
        ...     w = pyro.sample("w", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("y", dist.Categorical(logits=torch.stack([w * x, -w * x], -1)), obs=y)
        >>> def guide(x, y=None): pyro.sample("w", dist.Normal(0.0, 1.0))
        >>> log_probs = label_draws(model, guide, [{"x": torch.tensor([0.0, 2.0])}], 500)
        >>> [round(float(part), 1) for part in mutual_information(log_probs)]  # labels of x = 0 tell nothing of w
        [0.0, 0.4]
    """
    if num_draws < 1:
        raise UsageError(f"num_draws must be at least 1, found {num_draws}")
    batches = list(batches)
    return torch.stack([_drawn(JointDraw(model, guide, site, owned=False), batches) for _ in range(num_draws)])


def _drawn(draw: JointDraw, batches: Iterable[Mapping[str, Tensor]]) -> Tensor:
    def log_probs(batch: dict[str, Tensor]) -> Tensor:
        fn = unwrapped(draw(batch)["fn"])
        if not isinstance(fn, Categorical):
            raise ProgramError(f"labels need a categorical site {draw.site!r}, found {type(fn).__name__}")
        logits: Tensor = fn.logits
        return logits

    return over(batches, log_probs, draw.model, draw.guide)
