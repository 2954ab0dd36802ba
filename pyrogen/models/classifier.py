"""Classification: the conditional density p(y | x), fitted by maximum likelihood."""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.nn import MLP
from pyrogen.spec import DataSpec, scaled

__all__ = ["Classifier", "classifier"]


class Classifier(PyroModule):
    r"""A categorical distribution of the label given the datum.

    .. math:: p(y \mid x) = \operatorname{Categorical}(y; \operatorname{softmax} f_\theta(x))

    Site: ``y`` in plate ``data``; ``x`` is a covariate, which no site observes.

    Args:
        network: :math:`f_\theta` from ``(batch, *spec.shape)`` to ``(batch, num_classes)`` logits.
        spec: the data, to scale them to :math:`[-1, 1]` for the network.
    """

    def __init__(self, network: nn.Module, spec: DataSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Score the labels ``y`` of shape ``(batch,)`` for ``x`` of shape ``(batch, *spec.shape)``, or draw them."""
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Categorical(logits=self.network(scaled(x, self.spec))), obs=y)


def classifier(spec: DataSpec, *, hidden: Sequence[int] = (256,), dropout: float = 0.0) -> tuple[Classifier, None]:
    """Make a classifier for some labelled data.

    Args:
        spec: shape, kind and number of classes of the data.
        hidden: widths of the hidden layers.
        dropout: probability of dropping an input.

    Returns:
        The model, and no guide.

    Raises:
        UsageError: where the data have no labels.

    Example:
        >>> import torch
        >>> model, _ = classifier(DataSpec((4,), "real", num_classes=3))
        >>> model(torch.zeros(5, 4)).shape
        torch.Size([5])
    """
    if spec.num_classes is None:
        raise UsageError(f"a classifier needs labels, and {spec.name} has none: give the data a column y")
    if spec.num_labelled is not None:
        raise UsageError(
            "a classifier learns from data that all have labels: leave --labels out, or take m2, which needs few"
        )
    if not 0 <= dropout < 1 or any(width < 1 for width in hidden):
        raise UsageError(f"dropout must be in [0, 1) and hidden widths at least 1, found {dropout} and {list(hidden)}")
    network = nn.Sequential(
        nn.Flatten(-len(spec.shape)), nn.Dropout(dropout), MLP(spec.num_dims, spec.num_classes, hidden)
    )
    return Classifier(network, spec), None
