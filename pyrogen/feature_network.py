"""Features to compare draws with data in, from a network that learned the data's labels."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pyro
import torch
from torch import nn

from pyrogen.data import Dataset, known_labels
from pyrogen.errors import UsageError
from pyrogen.inference import MaximumLikelihood, train
from pyrogen.models.classifier import Classifier
from pyrogen.nn import MLP
from pyrogen.rehearsal import rehearsal

__all__ = ["fit_features"]

WIDTHS = (256, 64)
NUM_STEPS = 2000
BATCH_SIZE = 128


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch have one thread of the CPU for the body."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit_features(dataset: Dataset, num_steps: int = NUM_STEPS) -> nn.Module:
    """Fit a classifier to the labels of the training split, and return the network up to its last hidden layer.

    It maps data of shape ``(batch, *spec.shape)``, scaled to [-1, 1] where they are bounded, to ``(batch, 64)``.
    The same data give the same network: it is fitted on the CPU by one thread, since sums depend on how many there
    are; draws are those of one seed, and the generators are left as they were found.

    Args:
        dataset: data with labels ``y``; rows where they are missing, -1, are left out.
        num_steps: of AdamW, on batches of 128.

    Raises:
        UsageError: where the data have no labels.
    """
    spec = dataset.spec
    if spec.num_classes is None:
        raise UsageError(f"features are those of a classifier, and {spec.name} has no labels")
    with rehearsal(), one_thread(), torch.enable_grad():
        pyro.set_rng_seed(0)
        *hidden, width = WIDTHS
        body = nn.Sequential(nn.Flatten(-len(spec.shape)), MLP(spec.num_dims, width, hidden), nn.SiLU())
        model = Classifier(nn.Sequential(body, nn.Linear(width, spec.num_classes)), spec)
        labelled = known_labels(dataset)
        batches = labelled.batches(min(BATCH_SIZE, labelled.num_data("train")), drop_last=True)
        optimizer = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.05)
        for _ in train(MaximumLikelihood(), model, None, batches, optimizer, num_steps=num_steps, validate=False):
            pass
    return body.requires_grad_(False).eval()
