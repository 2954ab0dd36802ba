"""Training data of which some values are drawn anew, for what learns their background alone."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyrogen.data.dataset import Dataset, Transform, to_float
from pyrogen.data.pixels import dequantize
from pyrogen.errors import UsageError

__all__ = ["mutated"]


@dataclass(frozen=True)
class Mutation:
    """The transform of a training batch: values are replaced by uniform draws, all from the global generator.

    Attributes:
        rate: the probability of a value's being replaced.
        levels: how many there are to draw from.
        is_dequantized: whether a level stands for an interval.
        before: the transform that comes first.
    """

    rate: float
    levels: int
    is_dequantized: bool
    before: Transform

    def __call__(self, x: Tensor) -> Tensor:
        x = self.before(x)
        drawn = torch.randint(self.levels, x.shape, device=x.device)
        others = dequantize(drawn, self.levels) if self.is_dequantized else drawn
        return torch.where(torch.rand(x.shape, device=x.device) < self.rate, others.to(x.dtype), x)


def mutated(dataset: Dataset, rate: float) -> Dataset:
    r"""Replace values of training batches, each with a probability :math:`\mu`, by uniform draws from all levels.

    .. math:: x'_i = m_i u_i + (1 - m_i) x_i, \ m_i \sim \mathrm{Bernoulli}(\mu),\ u_i \sim U\{0, \dots, L - 1\}

    A share :math:`1 / L` of the draws are what was there before. What is fitted to such data forgets how the parts of a
    datum belong together before it forgets how often each value is: it is a background model, which
    :func:`pyrogen.evaluation.likelihood_ratio` takes. Draws are new in every batch; validation and test data, and
    the fingerprint, are as they were.

    Args:
        dataset: of levels or binary values, dequantised or not.
        rate: :math:`\mu`, above 0 and at most 1; 0.1 to 0.3 is usual.

    Raises:
        UsageError: for a rate out of range, or data that have no levels or are drawn in a way of their own.

    References:
        Likelihood Ratios for Out-of-Distribution Detection (Ren et al., 2019), https://arxiv.org/abs/1906.02845

    Example:
        >>> from pyrogen.data import digits
        >>> data = digits()
        >>> batch, clean = (next(iter(d.batches(1000, shuffle=False)))["x"] for d in (mutated(data, 0.2), data))
        >>> round(float((batch != clean).double().mean()), 2)  # 0.2 * 16 / 17
        0.19
    """
    if isinstance(rate, bool) or not 0 < rate <= 1:
        raise UsageError(f"mutate={rate!r}: expected a probability above 0 and at most 1, such as 0.2")
    levels, kind = dataset.spec.levels, dataset.spec.kind
    if levels is None or kind not in ("binary", "levels", "dequantized") or not has_rows(dataset):
        raise UsageError(
            f"{dataset.name} cannot be mutated: values are replaced by draws from all levels, in batches of rows, and "
            f"these data are of kind {kind!r}. Leave --mutate out, or give images, sounds or a table of levels"
        )
    before = to_float if dataset.transform is None else dataset.transform
    return replace(dataset, transform=Mutation(float(rate), levels, kind == "dequantized", before))


def has_rows(dataset: Dataset) -> bool:
    """Tell whether batches are rows of the columns, as those of every data set but texts and files of counts."""
    return type(dataset).batches is Dataset.batches
