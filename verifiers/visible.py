"""Makes text safe for a terminal: it escapes characters that move the cursor, or clear, retitle or reverse a line.

In: any text. Out: text without control characters, which prints literally.
"""

from __future__ import annotations

import re

_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters except tab and newline
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb"  # they end lines or change the direction
    "\ud800-\udfff\U000e0000-\U000e007f]"  # halves of surrogate pairs, and tags that no font shows
)


def visible(text: str) -> str:
    """Write control characters, direction characters and lone surrogates as escapes (``\\x1b``, ``\\u202e``).

    Newlines and tabs stay. A second call changes nothing.
    """
    return text if text.isascii() and text.isprintable() else _ACTING.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible_json(text: str) -> str:
    """Write the characters that :func:`visible` escapes as JSON's own escapes. The value of the JSON stays the same.

    Only the strings of a JSON text can hold such characters.
    """
    return _ACTING.sub(lambda found: "".join(f"\\u{unit:04x}" for unit in _units(found.group())), text)


def _units(character: str) -> list[int]:
    code = ord(character)
    if code < 0x10000:
        return [code]
    return [0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF)]
