"""Critics for programs of the catalogue, on whose data they know enough."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pyrogen.errors import UsageError
from pyrogen.nn import (
    MLP,
    DCGANCritic,
    DCGANGenerator,
    PatchCritic,
    ProgressiveCritic,
    ProgressiveGenerator,
    check_widths,
)
from pyrogen.sites import Program
from pyrogen.spec import DataSpec, one_hot, scaled

__all__ = [
    "Scaling",
    "SideBySide",
    "critic_for",
    "critic_of_latents",
    "critic_of_pairs",
    "critic_of_patches",
    "spec_of",
]


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
        return self.network(torch.cat([value.reshape(len(value), -1) for value in values], 1))


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
    check_widths(hidden=hidden, channels=channels or None)
    spec = spec_of(model)
    labels = _num_labels(spec, labelled)
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
    check_widths(hidden=hidden, channels=channels)
    spec = spec_of(model)
    if any(isinstance(part, nn.Conv2d) for part in _modules(model)):
        return PatchCritic(spec.shape, channels)
    return _connected(spec.num_dims, 1, hidden)


def _connected(num_inputs: int, num_outputs: int, hidden: Sequence[int]) -> Joined:
    return Joined(MLP(num_inputs, num_outputs, hidden, lambda: nn.LeakyReLU(0.2)))


class OfLatents(nn.Module):
    """A fully connected network of latents, and of labels as one-hot vectors.

    Args:
        spec: the data.
        network: the network.
        num_latents: how many latent sites there are.
    """

    def __init__(self, spec: DataSpec, network: nn.Module, num_latents: int) -> None:
        super().__init__()
        self.spec = spec
        self.network = network
        self.num_latents = num_latents

    def forward(self, *values: Tensor) -> Tensor:
        latents, labels = values[: self.num_latents], values[self.num_latents :]
        columns = [z.reshape(len(z), -1) for z in latents]
        vectors = [one_hot(y, self.spec).to(columns[0].dtype) for y in labels]
        return self.network(torch.cat([*columns, *vectors], 1))


class OfPairs(nn.Module):
    """A network of latents and of what another network makes of data (and labels).

    Args:
        of_data: the network of data and labels.
        head: the network of its output and of latents.
        num_latents: how many latent sites there are.
        scaling: of data, where the objective does not scale them.
    """

    def __init__(self, of_data: nn.Module, head: nn.Module, num_latents: int, scaling: nn.Module | None) -> None:
        super().__init__()
        self.of_data, self.head = of_data, head
        self.num_latents = num_latents
        self.scaling = nn.Identity() if scaling is None else scaling

    def forward(self, *values: Tensor) -> Tensor:
        latents, (x, *labels) = values[: self.num_latents], values[self.num_latents :]
        features = nn.functional.leaky_relu(self.of_data(self.scaling(x), *labels), 0.2)
        return self.head(torch.cat([features, *[z.reshape(len(z), -1) for z in latents]], 1))


def critic_of_latents(model: Program, labelled: bool, sizes: Sequence[int], hidden: Sequence[int]) -> OfLatents:
    """Make a critic of latents of some sizes, and of labels, if there are any."""
    check_widths(hidden=hidden)
    spec = spec_of(model)
    network = MLP(sum(sizes) + _num_labels(spec, labelled), 1, hidden, lambda: nn.LeakyReLU(0.2))
    return OfLatents(spec, network, len(sizes))


def critic_of_pairs(
    model: Program,
    labelled: bool,
    sizes: Sequence[int],
    hidden: Sequence[int],
    channels: Sequence[int] | None,
    scales: bool = False,
) -> OfPairs:
    """Make a critic of latents of some sizes with data that mirrors the program's network, see :func:`critic_for`.

    Args:
        scales: whether the critic scales the data itself.
    """
    features = hidden[-1] if hidden else 64
    of_data = critic_for(model, labelled, hidden, channels, "none", features)
    head = MLP(features + sum(sizes), 1, hidden, lambda: nn.LeakyReLU(0.2))
    return OfPairs(of_data, head, len(sizes), Scaling(spec_of(model)) if scales else None)


def _num_labels(spec: DataSpec, labelled: bool) -> int:
    return (spec.num_classes or 0) if labelled else 0


def _modules(model: Program) -> list[nn.Module]:
    return list(model.modules()) if isinstance(model, nn.Module) else []
