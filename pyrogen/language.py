"""What models of text are measured by, and what they write."""

from inspect import signature
from math import log

import torch
from torch import Tensor

from pyrogen import evaluation
from pyrogen.alphabet import alphabet_of
from pyrogen.data import Text
from pyrogen.distributions import Autoregressive, Choice
from pyrogen.errors import DataError, ProgramError, UsageError
from pyrogen.evaluation import Estimate, evaluating
from pyrogen.nn import Recurrent
from pyrogen.parameters import first_device
from pyrogen.sites import Program
from pyrogen.spec import DataSpec

__all__ = ["figures", "is_reader", "surprises", "validation", "write"]

ANY = Choice()
"""Draws of the model's own distribution."""

WRITTEN = 1000
"""Characters of a text that is written, where no other length is asked for."""

AT_ONCE = 500
"""Characters that a network with a memory is given at once, where nothing is learned from them."""

LEARNED_AT_ONCE = 20
"""Characters after which it learns from them, in dynamic evaluation, as Krause et al. have it."""

LEARNED = 20_000
"""Characters of the training split, its last ones, by whose gradients steps are measured."""


def is_reader(model: Program, spec: DataSpec) -> bool:
    """Tell whether a model says of each character what it expects, given those before it, for texts of any length."""
    if spec.symbols is None or "x" not in signature(getattr(model, "forward", model)).parameters:
        return False
    try:
        return _distribution(model, spec).network.has_any_length
    except ProgramError:
        return False


def _distribution(model: Program, spec: DataSpec) -> Autoregressive:
    return evaluation.text_distribution(model, torch.zeros(1, *spec.shape, device=first_device(model)))


def surprises(
    model: Program, text: Text, split: str, streams: int = 1, rate: float = 0.0, decay: float = 0.0
) -> Tensor:
    """Return the bits of each character of a split, see :func:`pyrogen.evaluation.surprises`."""
    text.split(split)  # refuses one that there is not
    window = text.spec.shape[0]
    if isinstance(_distribution(model, text.spec).network, Recurrent):
        window = LEARNED_AT_ONCE if rate else AT_ONCE
    if not len(text.texts[split]):
        raise DataError(f"{text.name}: the {split} split is empty. Give it a share above 0")
    learned = text.texts["train"][-LEARNED:] if rate else None
    return evaluation.surprises(
        model, text.texts[split], window=window, streams=streams, rate=rate, decay=decay, learned=learned
    )


def validation(model: Program, text: Text, split: str) -> Estimate:
    """Estimate the log-probability of a character given those before it, in nats; higher is better.

    To be quick about it, several parts of the split are read at once, each as if it was the first.
    """
    streams = min(32, max(1, len(text.texts[split]) // 2000))
    estimate = evaluation.bits_per_char(surprises(model, text, split, streams))
    return estimate.scaled(-log(2), 0.0, "nats per character")


def figures(
    model: Program, text: Text, split: str, dynamic_rate: float | None = None, dynamic_decay: float = 0.0
) -> dict[str, Estimate]:
    """Measure a model of text on a split, read from its beginning to its end.

    Args:
        dynamic_rate: of the steps by which it learns from what it has read, for ``bits_per_char_dynamic``; it is left
            out if there is none.
        dynamic_decay: the share of the way back to where it began that it goes with each of them.
    """
    unit = "bits/byte" if text.alphabet.is_bytes else "bits/char"
    estimate = evaluation.bits_per_char(surprises(model, text, split), unit)
    found = {"log_likelihood_per_char": estimate.scaled(-log(2), 0.0, "nats per character"), "bits_per_char": estimate}
    if dynamic_rate is not None:
        bits = surprises(model, text, split, rate=dynamic_rate, decay=dynamic_decay)
        found["bits_per_char_dynamic"] = evaluation.bits_per_char(bits, unit)
    return found


def write(
    model: Program, spec: DataSpec, number: int = 1, length: int = WRITTEN, prefix: str = "", choice: Choice = ANY
) -> Tensor:
    """Let a model of text write on from a prefix.

    Args:
        spec: of the text that it has learned.
        number: how many texts.
        length: characters, or bytes, of each, besides the prefix.
        prefix: what each begins with.
        choice: how characters are chosen.

    Returns:
        The numbers of the characters, those of the prefix included, shape ``(number, characters)``.

    Raises:
        DataError: where the prefix has characters that the text had not.
        UsageError: where the data were no text, or a number is out of range.

    Example:
        >>> from pyrogen.models import char_rnn
        >>> spec = DataSpec((8,), "levels", levels=3, symbols=("a", "b", "c"))
        >>> write(char_rnn(spec, hidden=8)[0], spec, number=2, length=5, prefix="abba")[:, :4]
        tensor([[0, 1, 1, 0],
                [0, 1, 1, 0]])
    """
    if number < 1 or length < 1:
        raise UsageError(f"the number of texts and their length must be at least 1, found {number} and {length}")
    alphabet = alphabet_of(spec.symbols, spec.name)
    start = alphabet.encode(prefix)
    fn, device, size = _distribution(model, spec), first_device(model), len(start) + length
    values, known = torch.zeros(size, device=device), torch.arange(size, device=device) < len(start)
    values[: len(start)] = start.to(values)
    with evaluating(model, fn.network):
        d = Autoregressive(fn.network, fn.element, (size,), None, (number,), choice=choice)
        return (d.given(values, known) if len(start) else d).sample().long()
