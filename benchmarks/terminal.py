"""How many characters of an output would act on a terminal, instead of being seen: for the attack benchmark and tests.

In: what a command has written. Out: a count. It does not know how the command guards itself.
"""

from __future__ import annotations

import re
import unicodedata

_DRAWING = re.compile(r"\x1b\[[0-9;]*m|\x1b\[2K|\x1b\[[0-9]*A|\x1b\[\?25[hl]|\r")
"""Colours, and how progress bars redraw their own lines."""
_DIRECTIONS = {
    "\u061c",
    "\u200e",
    "\u200f",
    "\u2028",
    "\u2029",
    *map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))),
}


def raw_controls(text: str, *, terminal: bool = False) -> int:
    """Control characters (but ends of lines and tabulators), direction marks and lone surrogates in ``text``.

    ``terminal``: it was written to a terminal, where colours and the redrawing of progress bars are not counted.
    """
    if terminal:
        text = _DRAWING.sub("", text)
    return sum(
        character in _DIRECTIONS or (unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t")
        for character in text
    )
