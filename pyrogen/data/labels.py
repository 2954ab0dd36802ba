"""Data of which few have a label."""

from dataclasses import replace

import torch
from torch import Tensor

from pyrogen.data.dataset import Dataset
from pyrogen.data.splits import own_generator
from pyrogen.errors import UsageError

__all__ = ["keep_labels", "known_labels"]


def keep_labels(dataset: Dataset, labels: int, seed: int = 0) -> Dataset:
    """Hide the labels of all training data but some, which are drawn at random, as many of each class as can be.

    Args:
        dataset: data with a column ``y``.
        labels: how many training data keep theirs; the others get -1. Held-out data keep theirs.
        seed: of which these are.

    Raises:
        UsageError: where there are no labels, or not so many.

    Example:
        >>> from pyrogen.data import digits
        >>> y = keep_labels(digits(), 50).train["y"]
        >>> int((y >= 0).sum()), torch.bincount(y[y >= 0]).tolist()
        (50, [5, 5, 5, 5, 5, 5, 5, 5, 5, 5])
    """
    if dataset.spec.num_classes is None:
        raise UsageError(f"{dataset.name} has no labels to keep: leave `labels` out, or give the data a column y")
    y = dataset.train["y"]
    known = (y >= 0).nonzero()[:, 0]
    if not 1 <= labels <= len(known):
        raise UsageError(f"labels={labels}: expected 1 to {len(known)}, as many as training data have labels")
    order = known[torch.randperm(len(known), generator=own_generator(seed, "labels"))]
    kept = order[rank_in_class(y[order]).argsort(stable=True)[:labels]]
    hidden = torch.full_like(y, -1)
    hidden[kept] = y[kept]
    return replace(dataset, train={**dataset.train, "y": hidden}, spec=replace(dataset.spec, num_labelled=labels))


def known_labels(dataset: Dataset) -> Dataset:
    """Leave out the training data whose label is missing.

    Example:
        >>> from pyrogen.data import digits
        >>> known_labels(keep_labels(digits(), 50)).num_data("train")
        50
    """
    if "y" not in dataset.train:
        return dataset
    known = dataset.train["y"] >= 0
    train = {name: column[known] for name, column in dataset.train.items()}
    return replace(dataset, train=train, spec=replace(dataset.spec, num_labelled=None))


def rank_in_class(y: Tensor) -> Tensor:
    """Count, for each label, those of its class before it.

    Example:
        >>> rank_in_class(torch.tensor([1, 0, 1, 1]))
        tensor([0, 0, 1, 2])
    """
    of_class = y.unsqueeze(-1) == y.unique()
    return (of_class.cumsum(0) - 1)[of_class]
