"""Models of sounds by name, with plain settings."""

from typing import Literal

from pyrogen.errors import UsageError
from pyrogen.models.autoregressive import AutoregressiveModel, likelihood_of_element, model_of, value_encoder
from pyrogen.nn import EmbeddedValues, ScaledValues, WaveNet, check_widths
from pyrogen.preference import Preference, usual
from pyrogen.spec import DataSpec, num_labels

__all__ = ["wavenet"]


of_sequences = Preference({"batch_size": 8}, "reads long sequences")


@usual(objective="maximum-likelihood", data="speech")
@of_sequences.of
def wavenet(
    spec: DataSpec,
    *,
    likelihood: Literal["categorical", "logistic-mixture", "discretized-logistic", "bernoulli", "gaussian", "laplace"]
    | None = None,
    channels: int = 32,
    layers: int = 10,
    stacks: int = 1,
    kernel: int = 2,
    skip: int = 64,
    conditional: bool = False,
) -> tuple[AutoregressiveModel, None]:
    """Make a WaveNet: dilated causal convolutions over a sound, or any sequence.

    Args:
        spec: shape and kind of the data, which are sequences.
        likelihood: of an element; categorical for levels, bernoulli for 0 and 1 and gaussian for reals, if not given.
        channels: of a layer.
        layers: in a stack; each reaches twice as far back as the one before.
        stacks: how many.
        kernel: elements that a layer sees.
        skip: channels that go past all layers to the output.
        conditional: model data given their labels.

    Returns:
        The model, and no guide.

    Raises:
        UsageError: where the data are not sequences, have no labels to condition on, the likelihood does not fit them,
            or a setting is out of range.

    Example:
        >>> model, _ = wavenet(DataSpec((80,), "levels", levels=256), channels=8, layers=3)
        >>> model(size=2).shape, model(size=2, length=5).shape
        (torch.Size([2, 80]), torch.Size([2, 5]))
    """
    if len(spec.shape) != 1 or spec.kind == "counts":
        raise UsageError(
            f"wavenet models sequences, and {spec.name} are of kind {spec.kind!r}, shape {spec.shape}: give --data "
            f"speech, a folder of .wav files, or an array (N, length) in an .npy file"
        )
    check_widths(channels=[channels], layers=[layers], stacks=[stacks], skip=[skip])
    if kernel < 2:
        raise UsageError(f"kernel must be at least 2, found {kernel}")
    name = "categorical" if likelihood is None and spec.kind == "levels" else likelihood
    element = likelihood_of_element(spec, name)
    network = WaveNet(
        _encoder(spec, name, channels),
        element.num_features,
        channels,
        layers,
        stacks,
        kernel,
        skip,
        num_labels(spec, conditional),
    )
    return model_of(network, element, spec, conditional), None


def _encoder(spec: DataSpec, likelihood: str | None, width: int) -> ScaledValues | EmbeddedValues:
    """Look levels up where each has a logit of its own, and take them for numbers where they are bins."""
    if likelihood == "categorical":
        assert spec.levels is not None
        return EmbeddedValues(spec.levels, width)
    return value_encoder(spec)
