"""Autoregressive models of images by name, with plain settings."""

from typing import Literal

from pyrogen.errors import UsageError
from pyrogen.models.autoregressive import AutoregressiveModel, likelihood_of_element, model_of, value_encoder
from pyrogen.nn import DiagonalBiLSTM, GatedPixelCNN, PixelCNN, PixelCNNPlusPlus, RowLSTM
from pyrogen.preference import usual
from pyrogen.spec import DataSpec, num_labels

__all__ = ["gated_pixelcnn", "pixel_rnn", "pixelcnn", "pixelcnn_pp"]


@usual(objective="maximum-likelihood")
def pixelcnn(
    spec: DataSpec, *, likelihood: str | None = None, channels: int = 64, layers: int = 6, kernel: int = 3
) -> tuple[AutoregressiveModel, None]:
    """Make a PixelCNN: masked convolutions, with a blind spot (gated-pixelcnn has none).

    Args:
        spec: shape and kind of the data.
        likelihood: bernoulli, categorical, discretized-logistic, logistic-mixture, gaussian or laplace; by the data's
            kind if not given.
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
    network = PixelCNN(spec.shape, value_encoder(spec), element.num_features, channels, layers, kernel)
    return AutoregressiveModel(network, element, spec), None


@usual(objective="maximum-likelihood")
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
        likelihood: bernoulli, categorical, discretized-logistic, logistic-mixture, gaussian or laplace; by the data's
            kind if not given.
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
        spec.shape,
        value_encoder(spec),
        element.num_features,
        channels,
        layers,
        kernel,
        context=num_labels(spec, conditional),
    )
    return model_of(network, element, spec, conditional), None


@usual(objective="maximum-likelihood")
def pixel_rnn(
    spec: DataSpec,
    *,
    likelihood: str | None = None,
    network: Literal["row", "diagonal"] = "diagonal",
    channels: int = 16,
    layers: int = 7,
) -> tuple[AutoregressiveModel, None]:
    """Make a PixelRNN: LSTMs over an image, from row to row or along diagonals from both sides.

    Args:
        spec: shape and kind of the data.
        likelihood: bernoulli, categorical, discretized-logistic, logistic-mixture, gaussian or laplace; by the data's
            kind if not given.
        network: row, where a pixel sees a triangle above it; or diagonal, where it sees all that come before it.
        channels: units of an LSTM, an even number; between layers there are twice as many.
        layers: of one LSTM, or of one from each side.

    Returns:
        The model, and no guide.

    Raises:
        UsageError: where the data are not images of one channel, or the likelihood does not fit them.

    Example:
        >>> model, _ = pixel_rnn(DataSpec((1, 8, 8), "binary"), channels=4, layers=1)
        >>> model(size=3).shape
        torch.Size([3, 1, 8, 8])
    """
    check_images(spec, channels, layers)
    element = likelihood_of_element(spec, likelihood)
    made_by = {"row": RowLSTM, "diagonal": DiagonalBiLSTM}[network]
    return (
        AutoregressiveModel(
            made_by(spec.shape, value_encoder(spec), element.num_features, channels, layers), element, spec
        ),
        None,
    )


@usual(objective="maximum-likelihood")
def pixelcnn_pp(
    spec: DataSpec,
    *,
    likelihood: str | None = None,
    channels: int = 32,
    layers: int = 2,
    halvings: int = 2,
    dropout: float = 0.0,
    conditional: bool = False,
) -> tuple[AutoregressiveModel, None]:
    """Make a PixelCNN++: two streams of gated residual layers at several resolutions.

    Args:
        spec: shape and kind of the data.
        likelihood: as of fvsbn, but logistic-mixture for levels if not given.
        channels: of each stream, an even number; the paper has 160, and 5 layers.
        layers: of each stream, at each resolution and on the way to coarser ones.
        halvings: how often the sides of images are halved.
        dropout: the share of units inside of layers that are dropped in training.
        conditional: model data given their labels.

    Returns:
        The model, and no guide.

    Raises:
        UsageError: where the data are not images of one channel, have no labels to condition on, the likelihood does
            not fit them, or a setting is out of range.

    Example:
        >>> model, _ = pixelcnn_pp(DataSpec((1, 8, 8), "levels", levels=17), channels=4, layers=1)
        >>> model(size=3).shape
        torch.Size([3, 1, 8, 8])
    """
    check_images(spec, channels, layers)
    if halvings < 0 or not 0 <= dropout < 1:
        raise UsageError(f"halvings must be at least 0 and dropout in [0, 1), found {halvings} and {dropout}")
    if likelihood is None and spec.kind == "levels":
        likelihood = "logistic-mixture"
    element = likelihood_of_element(spec, likelihood)
    context = num_labels(spec, conditional)
    network = PixelCNNPlusPlus(
        spec.shape, value_encoder(spec), element.num_features, channels, layers, halvings, dropout, context
    )
    return model_of(network, element, spec, conditional), None


def check_images(spec: DataSpec, channels: int, layers: int, kernel: int = 3) -> None:
    """Refuse data that are not images of one channel, and windows that have no middle.

    Raises:
        UsageError: with what was found.
    """
    if len(spec.shape) != 3 or spec.shape[0] != 1:
        raise UsageError(
            f"{spec.name}: pixel by pixel go images of one channel, (1, height, width), found {spec.shape}. Images in "
            f"colour become grey by --grayscale; fvsbn, nade and made take any shape"
        )
    if channels < 2 or channels % 2 or layers < 1:
        raise UsageError(f"channels must be even and layers at least 1, found {channels} and {layers}")
    if kernel < 3 or kernel % 2 == 0:
        raise UsageError(f"kernel must be an odd number of at least 3, found {kernel}")
