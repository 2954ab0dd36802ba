"""Models of text by name, with plain settings, for the command line."""

from typing import Literal

from pyrogen.alphabet import alphabet_of
from pyrogen.errors import UsageError
from pyrogen.models.autoregressive import AutoregressiveModel, likelihood_of_element
from pyrogen.models.recurrent import RecurrentModel
from pyrogen.nn import CausalTransformer, CharRNN, EmbeddedValues, OneHotValues, check_widths
from pyrogen.preference import Preference, usual
from pyrogen.spec import DataSpec

__all__ = ["char_rnn", "transformer"]


@usual(objective="maximum-likelihood", data="kjv")
@Preference({"unit": "character"}, "reads a text").of
def char_rnn(
    spec: DataSpec,
    *,
    network: Literal["lstm", "gru"] = "lstm",
    hidden: int = 512,
    layers: int = 1,
    embedding: int | None = None,
    dropout: float = 0.0,
) -> tuple[RecurrentModel, None]:
    """Make a recurrent network of characters or bytes.

    Args:
        spec: of a text.
        network: lstm or gru: the cells.
        hidden: the width of a layer.
        layers: how many; each sees the characters, and the output sees each.
        embedding: learn a vector of this length for each character; if not given, a character is a one among zeros.
        dropout: the share of each layer's output that is dropped in training.

    Returns:
        The model, and no guide.

    Raises:
        UsageError: where the data are no text, or a setting is out of range.

    Example:
        >>> spec = DataSpec((8,), "levels", levels=3, symbols=("a", "b", "c"))
        >>> model, _ = char_rnn(spec, hidden=16)
        >>> model(size=3).shape
        torch.Size([3, 8])
    """
    symbols = alphabet_of(spec.symbols, spec.name)
    check_widths(hidden=[hidden], layers=[layers], embedding=[] if embedding is None else [embedding])
    if not 0 <= dropout < 1:
        raise UsageError(f"dropout must be in [0, 1), found {dropout}")
    encoder = OneHotValues(len(symbols)) if embedding is None else EmbeddedValues(len(symbols), embedding)
    element = likelihood_of_element(spec, "categorical")
    return RecurrentModel(CharRNN(encoder, element.num_features, network, hidden, layers, dropout), element, spec), None


@usual(objective="maximum-likelihood", data="kjv")
@Preference({"unit": "character", "length": 256}, "reads a text").of
def transformer(
    spec: DataSpec,
    *,
    width: int = 128,
    layers: int = 4,
    heads: int = 4,
    dropout: float = 0.0,
) -> tuple[AutoregressiveModel, None]:
    """Make a transformer of characters or bytes.

    Each window is learned by itself, in random order: the longer it is, the more a character is given. In evaluation
    each has half a window before it, at least.

    Args:
        spec: of a text.
        width: of a layer, a multiple of twice the heads.
        layers: how many.
        heads: of attention.
        dropout: the share of what layers add that is dropped in training.

    Returns:
        The model, and no guide.

    Raises:
        UsageError: where the data are no text, or a setting is out of range.

    Example:
        >>> spec = DataSpec((8,), "levels", levels=3, symbols=("a", "b", "c"))
        >>> model, _ = transformer(spec, width=16, layers=1, heads=2)
        >>> model(size=3).shape
        torch.Size([3, 8])
    """
    symbols = alphabet_of(spec.symbols, spec.name)
    check_widths(width=[width], layers=[layers], heads=[heads])
    if width % (2 * heads):
        raise UsageError(f"width must be a multiple of twice the heads, found {width} for {heads} heads")
    if not 0 <= dropout < 1:
        raise UsageError(f"dropout must be in [0, 1), found {dropout}")
    element = likelihood_of_element(spec, "categorical")
    encoder = EmbeddedValues(len(symbols), width)
    network = CausalTransformer(encoder, element.num_features, width, layers, heads, dropout)
    return AutoregressiveModel(network, element, spec), None
