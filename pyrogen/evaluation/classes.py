"""How draws are spread over the classes of data."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyrogen.errors import DataError
from pyrogen.evaluation.checks import rows
from pyrogen.evaluation.estimate import Estimate, mean
from pyrogen.evaluation.memorisation import nearest_neighbours
from pyrogen.evaluation.samples import is_covered

__all__ = ["ClassCoverage", "class_coverage"]


class ClassCoverage(NamedTuple):
    """What draws have of each class.

    Attributes:
        of_data: the share of data that are of a class, by label.
        of_draws: the share of draws, likewise.
        covered: the share of a class's data that have a draw in their neighbourhood, see :func:`coverage`.
        kl: the divergence of the draws' shares from the data's, in nats; infinite where draws have a class that is not
            among the data.
    """

    of_data: dict[int, float]
    of_draws: dict[int, Estimate]
    covered: dict[int, Estimate]
    kl: float


def class_coverage(
    real: Tensor, labels: Tensor, fake: Tensor, fake_labels: Tensor | None = None, neighbours: int = 5
) -> ClassCoverage:
    r"""Measure how much of each class the draws have, and how much of it they reach.

    .. math:: \mathrm{KL} = \sum_c f_c \log(f_c / p_c)

    with :math:`p_c` and :math:`f_c` the shares of data and draws. A model may have the right share of a class by one
    draw repeated: then few of its data are covered.

    Args:
        real: shape ``(m, ...)``.
        labels: integers, shape ``(m,)``.
        fake: shape ``(n, ...)``.
        fake_labels: of the draws, shape ``(n,)``, by a classifier; by default those of the nearest data.
        neighbours: :math:`k` of :func:`coverage`, among data of all classes.

    Raises:
        DataError: where there is not a label for each row, or labels are not integers.

    Example:
        >>> x = torch.arange(20.0)[:, None]
        >>> found = class_coverage(x, torch.arange(20) // 10, x[:8] + 0.1)
        >>> {label: share.value for label, share in found.of_draws.items()}, round(found.kl, 3)  # log 2
        ({0: 1.0, 1: 0.0}, 0.693)
        >>> {label: share.value for label, share in found.covered.items()}
        {0: 1.0, 1: 0.1}
    """
    x, y = rows(real, fake)
    of_real = _checked(labels, x, "data")
    if fake_labels is None:
        of_fake = of_real[nearest_neighbours(x, y).indices[:, 0]]
    else:
        of_fake = _checked(fake_labels, y, "draws").to(x.device)
    covered = is_covered(x, y, neighbours)
    names = torch.cat([of_real, of_fake]).unique().tolist()
    of_data = {c: float((of_real == c).double().mean()) for c in names}
    of_draws = {c: mean((of_fake == c).double(), "fraction") for c in names}
    covered_by_class = {c: mean(covered[of_real == c].double(), "fraction") for c in names if of_data[c]}
    shares = torch.tensor([[of_draws[c].value, of_data[c]] for c in names], dtype=torch.float64)
    kl = torch.xlogy(shares[:, 0], shares[:, 0] / shares[:, 1]).sum()
    return ClassCoverage(of_data, of_draws, covered_by_class, float(kl))


def _checked(labels: Tensor, x: Tensor, whose: str) -> Tensor:
    found = torch.as_tensor(labels)
    if found.shape != (len(x),) or found.is_floating_point():
        raise DataError(
            f"expected an integer for each of {len(x)} {whose}, shape ({len(x)},); found {found.dtype} of shape "
            f"{tuple(found.shape)}"
        )
    return found.to(x.device)
