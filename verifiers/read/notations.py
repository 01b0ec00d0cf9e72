r"""Finds notations that must not be split at brackets or words: ``]0;1[``, ``[0,1] union [2,3]``, ``\{2k : k\}``.

In: the text after a mark. Out: how many of its characters are one such notation.
"""

from __future__ import annotations

import re

_INSIDE = r"[^\[\]()\n$]{1,120}"
_INTERVAL = rf"[\[\](](?=[^\[\]()\n$]{{0,120}}[;,]){_INSIDE}[\[\])]"
_UNION = r"\s?(?:\\cup|∪|U|\\cap|∩|union)\s?"
_INTERVALS = re.compile(rf"(?:[A-Za-z]\s?(?:\\in|∈)\s?)?({_INTERVAL})((?:{_UNION}{_INTERVAL}){{0,8}})")
_REVERSED = re.compile(r"(?:\A|[^\w)\]])\][^\[\]]|[;,][^\[\]]{1,120}\[|union")
_PIECE = r"(?:[^\\{}\n]|\\[^{}\n]|\{[^{}\n]{0,60}\})"
_SET = re.compile(rf"\\{{1,2}}\{{{_PIECE}{{1,120}}?(?::|\||\\mid|\\vert){_PIECE}{{1,160}}?\\{{1,2}}\}}")


def notation_span(text: str) -> int:
    """Return the length of the notation at the start of ``text``, or 0 if there is none."""
    found = _SET.match(text)
    if found is None:
        found = _INTERVALS.match(text)
        if found is None or _REVERSED.search(found.group()) is None:
            return 0
    return found.end() if re.match(r"[\s.,;*_!)]|\Z", text[found.end() :]) else 0
