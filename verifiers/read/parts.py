"""Reads answers in parts: they have labels such as (a), 1), (i), or are in a list with one part on each line.

In: a text. Out: its values as one tuple in the order of the labels. A text with a single label has no parts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from verifiers.read.dressing import undressed

_LABEL = re.compile(
    r"(?:(?<=[\s,;.:])|\A)(?:part\s{1,2})?(?:\((?P<a>[a-h]|[ivx]{1,4}|\d{1,2})\)|(?P<b>[a-h]"
    r"|[ivx]{1,4}|\d{1,2})\))\s{0,3}[:.]?(?=[\s$\\*\d(-])\s{0,3}"
    r"|(?:(?<=[\s,;.:])|\A)part\s{1,2}(?P<c>[a-h]|[ivx]{1,4}|\d{1,2})\s{0,2}[:.]\s{0,3}"
    r"|(?:(?<=\n)|\A)[ \t]{0,4}(?P<d>\d{1,2})\.[ \t]{1,3}(?=[-$\\*\dA-Za-z])",
    re.IGNORECASE,
)
_BULLETS = re.compile(r"(?:\s{0,4}[-*•]\s{1,3}[^\s][^\n]{0,80}(?:\n|\Z)){2,12}")
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x")
_MAX_PARTS = 12


@dataclass(frozen=True, slots=True)
class Parts:
    """Several answers as one answer, and the index where the last of them ends."""

    answer: str
    end: int


def joined_parts(values: list[str]) -> str:
    """Join the parts into one tuple, or into a list if one of the parts is itself a list or an equation."""
    if any("," in value or "=" in value or ";" in value for value in values):
        return ", ".join(values)
    return f"({', '.join(values)})"


def labelled_parts(text: str) -> str | None:
    """Read ``(a) 1 (b) 2`` as ``(1, 2)``. Returns None unless the text consists of parts with consecutive labels."""
    if ")" not in text and "art" not in text and "\n" not in text:
        return None
    found = list(_LABEL.finditer(text[:4_000]))
    if not 2 <= len(found) <= _MAX_PARTS or text[: found[0].start()].strip():
        return None
    labels = [next(group for group in match.groups() if group).lower() for match in found]
    order = _order(labels)
    if order is None:
        return None
    ends = [match.start() for match in found[1:]] + [len(text)]
    values = [_part(text[match.end() : end]) for match, end in zip(found, ends, strict=True)]
    if not all(values) or (found[0]["d"] and any("=" in value or len(value.split()) > 3 for value in values)):
        return None
    return joined_parts([values[index] for index in order])


def _part(text: str) -> str:
    text = re.sub(r"(?:[\s,;.]|\band)+\Z", "", text.strip())
    return "" if len(text) > 200 or re.fullmatch(r"[+\-*/=^]?", text) else undressed(text)


def _order(labels: list[str]) -> list[int] | None:
    """Return the indices of the parts in the order of their labels.

    Returns None if the labels are not a, b, … or 1, 2, … or i, ii, ….
    """
    for alphabet in ("abcdefghijkl", _ROMAN, tuple(map(str, range(1, _MAX_PARTS + 1)))):
        wanted = list(alphabet[: len(labels)])
        if sorted(labels, key=str) == sorted(wanted, key=str):
            return [labels.index(label) for label in wanted]
    return None


def lines_of_parts(text: str) -> Parts | None:
    """Read the parts at the start of a text, labelled or listed, on one line or one on each line; None without any."""
    paragraph = text.split("\n\n", 1)[0]
    if _BULLETS.fullmatch(paragraph):
        values = [_part(re.sub(r"\A\s*[-*•]\s", "", line)) for line in paragraph.splitlines() if line.strip()]
        return Parts(", ".join(values), len(paragraph)) if all(values) else None
    if not _LABEL.match(paragraph):
        return None
    answer = labelled_parts(paragraph)
    if answer is None:
        line = paragraph.split("\n", 1)[0]
        answer = labelled_parts(line.rstrip(". "))
        return None if answer is None else Parts(answer, len(line))
    return Parts(answer, len(paragraph))
