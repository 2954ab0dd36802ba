"""Critics for programs of the catalogue, on whose data they know enough."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.nn import MLP, DCGANCritic, DCGANGenerator, PatchCritic, ProgressiveCritic, ProgressiveGenerator
from pyrogen.sites import Program
from pyrogen.spec import DataSpec, one_hot, scaled

__all__ = ["Scaling", "SideBySide", "critic_for", "critic_of_patches", "spec_of"]


class Scaling(nn.Module):
    """Bounded data to [-1, 1]: the units in which critics, penalties and distances see them.

    Args:
        spec: the data.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        return scaled(x, self.spec)


class SideBySide(Scaling):
    """Scaled data, and labels as one-hot vectors, as one vector a datum."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        x = super().forward(x).flatten(1)
        return x if y is None else torch.cat([x, one_hot(y, self.spec).to(x.dtype)], 1)


class WithLabels(nn.Module):
    """A network of data and of labels as one-hot vectors.

    Args:
        spec: the data.
        network: takes data, and the labels' vectors if there are labels.
    """

    def __init__(self, spec: DataSpec, network: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.network = network

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.network(x) if y is None else self.network(x, one_hot(y, self.spec).to(x.dtype))


class Joined(nn.Module):
    """A fully connected network of all that it is given."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *values: Tensor) -> Tensor:
        return self.network(torch.cat([value.flatten(1) for value in values], 1))


def spec_of(model: Program) -> DataSpec:
    """Return what a program of the catalogue knows of its data.

    Raises:
        UsageError: where it knows nothing.
    """
    spec = getattr(model, "spec", None)
    if not isinstance(spec, DataSpec):
        raise UsageError(
            "the model does not say what its data are like: give it an attribute `spec`, a DataSpec, or build the "
            "objective and its critic in Python"
        )
    return spec


def critic_for(
    model: Program,
    labelled: bool,
    hidden: Sequence[int],
    channels: Sequence[int] | None,
    norm: Literal["batch", "spectral", "none"],
    num_outputs: int = 1,
) -> WithLabels:
    """Make a critic of a program's scaled data that mirrors its network: one that grows, convolutional, or connected.

    Args:
        channels: of a convolutional critic; those of the program's network if not given.
    """
    spec = spec_of(model)
    labels = spec.num_classes or 0 if labelled else 0
    parts = _modules(model)
    network = next((part for part in parts if isinstance(part, ProgressiveGenerator | DCGANGenerator)), None)
    channels = channels or ((64, 128) if network is None else network.channels)
    convolves = any(isinstance(part, nn.Conv2d | nn.ConvTranspose2d) for part in parts)
    if norm != "none" and (isinstance(network, ProgressiveGenerator) or not convolves):
        raise UsageError(f"--norm {norm} is for DCGAN's critic: leave it out")
    if isinstance(network, ProgressiveGenerator):
        return WithLabels(spec, ProgressiveCritic(spec.shape, channels, network.growth, num_outputs, labels))
    if convolves:
        return WithLabels(spec, DCGANCritic(spec.shape, channels, norm, num_outputs, labels))
    return WithLabels(spec, _connected(spec.num_dims + labels, num_outputs, hidden))


def critic_of_patches(model: Program, hidden: Sequence[int], channels: Sequence[int]) -> nn.Module:
    """Make a critic of a program's scaled data that scores patches if the program convolves, and else whole data."""
    spec = spec_of(model)
    if any(isinstance(part, nn.Conv2d) for part in _modules(model)):
        return PatchCritic(spec.shape, channels)
    return _connected(spec.num_dims, 1, hidden)


def _connected(num_inputs: int, num_outputs: int, hidden: Sequence[int]) -> Joined:
    return Joined(MLP(num_inputs, num_outputs, hidden, lambda: nn.LeakyReLU(0.2)))


def _modules(model: Program) -> list[nn.Module]:
    return list(model.modules()) if isinstance(model, nn.Module) else []
