"""Autoregressive models of data of any fixed shape by name, with plain settings."""

from collections.abc import Sequence

from pyrogen.models.autoregressive import AutoregressiveModel, likelihood_of_element, value_encoder
from pyrogen.nn import FVSBN, MADE, NADE, check_widths
from pyrogen.preference import usual
from pyrogen.spec import DataSpec

__all__ = ["fvsbn", "made", "nade"]


@usual(objective="maximum-likelihood")
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
    return AutoregressiveModel(FVSBN(spec.shape, value_encoder(spec), element.num_features), element, spec), None


@usual(objective="maximum-likelihood")
def nade(spec: DataSpec, *, likelihood: str | None = None, hidden: int = 500) -> tuple[AutoregressiveModel, None]:
    """Make a neural autoregressive distribution estimator: a hidden layer, to which elements add one by one.

    Args:
        spec: shape and kind of the data.
        likelihood: bernoulli, categorical, discretized-logistic, logistic-mixture, gaussian or laplace; by the data's
            kind if not given.
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
    return AutoregressiveModel(NADE(spec.shape, value_encoder(spec), element.num_features, hidden), element, spec), None


@usual(objective="maximum-likelihood")
def made(
    spec: DataSpec, *, likelihood: str | None = None, hidden: Sequence[int] = (500, 500)
) -> tuple[AutoregressiveModel, None]:
    """Make a masked autoencoder: dense layers, in which no element sees itself or a later one.

    Args:
        spec: shape and kind of the data.
        likelihood: bernoulli, categorical, discretized-logistic, logistic-mixture, gaussian or laplace; by the data's
            kind if not given.
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
    return AutoregressiveModel(MADE(spec.shape, value_encoder(spec), element.num_features, hidden), element, spec), None
