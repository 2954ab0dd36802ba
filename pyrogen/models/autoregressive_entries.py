"""Autoregressive models by name, with plain settings."""

from collections.abc import Sequence

from pyrogen.errors import UsageError
from pyrogen.models.autoregressive import AutoregressiveModel, ConditionalAutoregressiveModel, likelihood_of_element
from pyrogen.nn import (
    FVSBN,
    MADE,
    NADE,
    GatedPixelCNN,
    PixelCNN,
    ScaledValues,
    check_widths,
)
from pyrogen.spec import DataSpec

__all__ = ["fvsbn", "gated_pixelcnn", "made", "nade", "pixelcnn"]


def fvsbn(spec: DataSpec, *, likelihood: str | None = None) -> tuple[AutoregressiveModel, None]:
    """Make a fully visible sigmoid belief network: each element depends linearly on those before it.

    Args:
        spec: shape and kind of the data.
        likelihood: bernoulli, categorical, discretized-logistic, logistic-mixture, gaussian or laplace; by the data's
            kind if not given.

    Returns:
        The model, and no guide.

    Raises:
        UsageError: where the likelihood does not fit the data.

    Example:
        >>> model, _ = fvsbn(DataSpec((1, 8, 8), "binary"))
        >>> model(size=3).shape
        torch.Size([3, 1, 8, 8])
    """
    element = likelihood_of_element(spec, likelihood)
    return AutoregressiveModel(FVSBN(spec.shape, _encoder(spec), element.num_features), element, spec), None


def nade(spec: DataSpec, *, likelihood: str | None = None, hidden: int = 500) -> tuple[AutoregressiveModel, None]:
    """Make a neural autoregressive distribution estimator: a hidden layer, to which elements add one by one.

    Args:
        spec: shape and kind of the data.
        likelihood: as of fvsbn.
        hidden: the width of the hidden layer.

    Returns:
        The model, and no guide.

    Raises:
        UsageError: where the likelihood does not fit the data.

    Example:
        >>> model, _ = nade(DataSpec((1, 8, 8), "binary"), hidden=16)
        >>> model(size=3).shape
        torch.Size([3, 1, 8, 8])
    """
    check_widths(hidden=[hidden])
    element = likelihood_of_element(spec, likelihood)
    return AutoregressiveModel(NADE(spec.shape, _encoder(spec), element.num_features, hidden), element, spec), None


def made(
    spec: DataSpec, *, likelihood: str | None = None, hidden: Sequence[int] = (500, 500)
) -> tuple[AutoregressiveModel, None]:
    """Make a masked autoencoder: dense layers, in which no element sees itself or a later one.

    Args:
        spec: shape and kind of the data.
        likelihood: as of fvsbn.
        hidden: widths of the hidden layers.

    Returns:
        The model, and no guide.

    Raises:
        UsageError: where the likelihood does not fit the data.

    Example:
        >>> model, _ = made(DataSpec((1, 8, 8), "binary"), hidden=(32,))
        >>> model(size=3).shape
        torch.Size([3, 1, 8, 8])
    """
    check_widths(hidden=hidden)
    element = likelihood_of_element(spec, likelihood)
    return AutoregressiveModel(MADE(spec.shape, _encoder(spec), element.num_features, hidden), element, spec), None


def pixelcnn(
    spec: DataSpec, *, likelihood: str | None = None, channels: int = 64, layers: int = 6, kernel: int = 3
) -> tuple[AutoregressiveModel, None]:
    """Make a PixelCNN: masked convolutions, with a blind spot (gated-pixelcnn has none).

    Args:
        spec: shape and kind of the data.
        likelihood: as of fvsbn.
        channels: of a layer, an even number.
        layers: residual blocks.
        kernel: the side of a window, an odd number; the first layer's is 7.

    Returns:
        The model, and no guide.

    Raises:
        UsageError: where the data are not images of one channel, or the likelihood does not fit them.

    Example:
        >>> model, _ = pixelcnn(DataSpec((1, 8, 8), "binary"), channels=8, layers=2)
        >>> model(size=3).shape
        torch.Size([3, 1, 8, 8])
    """
    check_images(spec, channels, layers, kernel)
    element = likelihood_of_element(spec, likelihood)
    network = PixelCNN(spec.shape, _encoder(spec), element.num_features, channels, layers, kernel)
    return AutoregressiveModel(network, element, spec), None


def gated_pixelcnn(
    spec: DataSpec,
    *,
    likelihood: str | None = None,
    channels: int = 32,
    layers: int = 6,
    kernel: int = 3,
    conditional: bool = False,
) -> tuple[AutoregressiveModel, None]:
    """Make a gated PixelCNN: stacks for the rows above and for the pixels to the left, and no blind spot.

    Args:
        spec: shape and kind of the data.
        likelihood: as of fvsbn.
        channels: of each stack.
        layers: of each stack.
        kernel: the side of a window, an odd number; the first layer's is 7.
        conditional: model data given their labels.

    Returns:
        The model, and no guide.

    Raises:
        UsageError: where the data are not images of one channel, have no labels to condition on, or the likelihood does
            not fit them.

    Example:
        >>> model, _ = gated_pixelcnn(DataSpec((1, 8, 8), "binary"), channels=8, layers=2)
        >>> model(size=3).shape
        torch.Size([3, 1, 8, 8])
    """
    check_images(spec, channels, layers, kernel)
    element = likelihood_of_element(spec, likelihood)
    network = GatedPixelCNN(
        spec.shape, _encoder(spec), element.num_features, channels, layers, kernel, context=labels(spec, conditional)
    )
    return (ConditionalAutoregressiveModel if conditional else AutoregressiveModel)(network, element, spec), None


def labels(spec: DataSpec, conditional: bool) -> int:
    """Return how many labels there are to condition on; none where that is not asked for.

    Raises:
        UsageError: where it is, and the data have none.
    """
    if not conditional:
        return 0
    if spec.num_classes is None:
        raise UsageError(f"conditional needs labels, and {spec.name} has none: leave it out, or bring a column y")
    return spec.num_classes


def check_images(spec: DataSpec, channels: int, layers: int, kernel: int) -> None:
    """Refuse data that are not images of one channel, and windows that have no middle.

    Raises:
        UsageError: with what was found.
    """
    if len(spec.shape) != 3 or spec.shape[0] != 1:
        raise UsageError(f"{spec.name}: pixel by pixel go images (1, height, width), found {spec.shape}")
    if channels < 2 or channels % 2 or layers < 1:
        raise UsageError(f"channels must be even and layers at least 1, found {channels} and {layers}")
    if kernel < 3 or kernel % 2 == 0:
        raise UsageError(f"kernel must be an odd number of at least 3, found {kernel}")


def _encoder(spec: DataSpec) -> ScaledValues:
    return ScaledValues(spec.levels if spec.kind in ("binary", "levels") else None)
