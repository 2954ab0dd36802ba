"""Texts for a reader: what a model writes, and what surprises it."""

from functools import cache

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties, findfont, get_font
from torch import Tensor

from pyrogen import language, pictures
from pyrogen.data import Text
from pyrogen.evaluation import surprises
from pyrogen.pictures import Drawing, Ink
from pyrogen.sites import Program

__all__ = ["passage", "surprise_map", "text_rows"]

ACROSS, DOWN = 80, 12
"""Characters in a line of a picture, and lines."""

MOST = 8.0
"""Bits from which on a character has the full colour."""

WRITTEN, LENGTH = 3, 600
"""How many texts are shown, and how long they are."""

FONT = FontProperties(family="DejaVu Sans Mono", size=7.5)


def text_rows(model: Program, text: Text) -> list[list[str]]:
    """Let a model write some texts: a number, and what it wrote."""
    written = language.write(model, text.spec, WRITTEN, LENGTH)
    return [[str(number), text.alphabet.decode(row)] for number, row in enumerate(written, 1)]


def passage(model: Program, text: Text) -> tuple[str, Tensor]:
    """Return the beginning of the test split, or else of the training split, a sign a character, and its surprises."""
    split = "test" if len(text.texts["test"]) else "train"
    numbers = text.texts[split][: ACROSS * DOWN]
    bits = surprises(model, numbers, window=text.spec.shape[0])
    return "".join(_sign(text.alphabet.symbols[number]) for number in numbers.tolist()), bits


def surprise_map(signs: str, bits: Tensor) -> Drawing:
    """Draw a text on a ground whose colour is the stronger, the more a character surprises."""
    lines = -(-len(signs) // ACROSS)
    strength = torch.zeros(lines * ACROSS)
    strength[: len(bits)] = (bits / MOST).clamp(max=1.0)

    def grid(axes: Axes, ink: Ink) -> None:
        ground = np.empty((lines, ACROSS, 4))
        ground[..., :3] = to_rgb(ink.series[1])
        ground[..., 3] = 0.75 * strength.reshape(lines, ACROSS).numpy()
        axes.imshow(ground, aspect="auto", interpolation="nearest")
        for i, sign in enumerate(signs):
            row, column = divmod(i, ACROSS)
            axes.text(
                column, row, sign, color=ink.text, ha="center", va="center", fontproperties=FONT, parse_math=False
            )
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)

    return pictures.draw(grid, (8.0, 0.2 * lines + 0.1))


@cache
def _sign(symbol: str) -> str:
    """Return what a symbol is drawn as: a line's end as an arrow, what the font does not have as a box."""
    if symbol.startswith("<0x") and len(symbol) > 1:
        symbol = chr(int(symbol[3:5], 16)) if int(symbol[3:5], 16) < 128 else "·"
    if symbol == "\n":
        return "↵"
    is_there = symbol.isprintable() and get_font(findfont(FONT)).get_char_index(ord(symbol))
    return symbol if is_there else "□"
