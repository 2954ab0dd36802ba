"""The symbols that a text is written in, and their numbers."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import torch
from torch import Tensor

from pyrogen.errors import DataError, UsageError

__all__ = ["BYTES", "Alphabet", "alphabet_of"]

BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""The symbols of a text that is read byte by byte."""


class Alphabet:
    """Characters, or the 256 bytes, in the order of their numbers.

    Args:
        symbols: the characters, or :data:`BYTES`.

    Example:
        >>> letters = Alphabet.of("banana")
        >>> letters.symbols, letters.encode("nab").tolist(), letters.decode([2, 1, 0])
        (('a', 'b', 'n'), [2, 0, 1], 'nba')
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = tuple(symbols)
        self.numbers = {symbol: number for number, symbol in enumerate(self.symbols)}

    @classmethod
    def of(cls, text: str) -> "Alphabet":
        """Return the alphabet of the characters that are in a text, in the order of their code points."""
        return cls(sorted(set(text)))

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def is_bytes(self) -> bool:
        """Whether a symbol is a byte, and not a character."""
        return self.symbols == BYTES

    def encode(self, text: str | bytes) -> Tensor:
        """Return the numbers of a text's symbols, int64, shape ``(length,)``.

        Raises:
            DataError: for characters that the alphabet does not have, with the first ones, where they are, and those
                that are near.
        """
        if self.is_bytes:
            return torch.tensor(list(text.encode() if isinstance(text, str) else text), dtype=torch.int64)
        text = text.decode() if isinstance(text, bytes) else text
        if unknown := [i for i, character in enumerate(text) if character not in self.numbers]:
            first = unknown[0]
            several = "" if len(unknown) == 1 else f", and {len(unknown) - 1} more,"
            raise DataError(
                f"the character {text[first]!r} at position {first}{several} is not among the {len(self)} of the text "
                f"that was learned{self._near(text[first])}. They are {''.join(self.symbols)!r}"
            )
        return torch.tensor([self.numbers[character] for character in text], dtype=torch.int64)

    def _near(self, character: str) -> str:
        other = character.swapcase()
        near = [other] if other in self.numbers else get_close_matches(character, self.symbols, 1)
        return f"; {near[0]!r} is" if near else ""

    def decode(self, numbers: Tensor | Iterable[int]) -> str:
        """Return the text of some numbers; bytes that are no UTF-8 become U+FFFD."""
        found = [int(number) for number in numbers]
        return bytes(found).decode(errors="replace") if self.is_bytes else "".join(self.symbols[i] for i in found)


def alphabet_of(symbols: Sequence[str] | None, name: str) -> Alphabet:
    """Return the alphabet of data that are a text.

    Raises:
        UsageError: where they are none.
    """
    if symbols is None:
        raise UsageError(
            f"{name} are no text: give --data kjv, a .txt file, or a folder of these with --unit character"
        )
    return Alphabet(symbols)
