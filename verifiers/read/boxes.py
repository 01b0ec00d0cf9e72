r"""Finds the boxes of a text: ``\boxed{…}`` and its relatives, closed or not.

In: a text. Out: where its boxes are and what they hold.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from verifiers.limits import MAX_ANSWER
from verifiers.read.dressing import undressed

_BOX = re.compile(
    r"(?:(?<!\\)\\{1,8}|\x08|(?<![A-Za-z\\]))(?P<name>boxed|oxed|fbox|framebox|ovalbox|bbox"
    r"|fcolorbox\s{0,3}\{\w{1,20}\}\s{0,3}\{\w{1,20}\}|Boxed)"
    r"(?![a-zA-Z])\s{0,20}(?:\[[^\[\]{}\n]{0,60}\]\s{0,5}){0,2}"
)
_BARE = re.compile(
    r"\\[A-Za-z]{1,20}(?:\s{0,3}(?:\[[^\[\]{}]{0,20}\])?\s{0,3}\{(?:[^{}]"
    r"|\{[^{}]{0,200}\}){0,400}\}){1,3}|\\[dtc]?frac\s{0,3}\d\s{0,3}\d"
    r"|\\sqrt\s{0,3}\d|-?\\?[A-Za-z]{1,40}|\([^()\n]{1,60}\)|[-−]?\d[\d.,/]{0,60}|[^\s{}]"
)
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
MAX_BOXES = 64


@dataclass(frozen=True, slots=True)
class Box:
    """A box in a text. content: what it holds; empty if it holds nothing, None if it is never closed."""

    start: int
    end: int
    content: str | None


def boxes(text: str, nested: int = 0) -> list[Box]:
    """Find the last ``MAX_BOXES`` boxes of a text that lie in no other box, in order."""
    found: list[Box] = []
    end = 0
    if "box" not in text and "oxed" not in text:
        return found
    for match in deque(_BOX.finditer(text), maxlen=MAX_BOXES):
        if match.start() < end:
            continue
        if not _is_command(text, match):
            continue
        box = _box_at(text, match.start(), match.end(), nested)
        if box is not None:
            found.append(box)
            end = box.end if box.content is not None else end
    return found


def _is_command(text: str, match: re.Match[str]) -> bool:
    r"""Whether a match is a command.

    Without its backslash (``boxed{5}``, or a backslash read as an escape), it must be directly before a brace.
    """
    if text[match.start()] == "\\":
        return match["name"] != "oxed"
    if text[match.start()] == "\x08":
        return match["name"] == "oxed" and text.startswith("{", match.end())
    return match["name"] == "boxed" and text.startswith("{", match.end())


def _box_at(text: str, start: int, at: int, nested: int) -> Box | None:
    if text.startswith("{", at):
        close = closing_brace(text, at)
        if close is None:
            return Box(start, len(text), None)
        content, end = text[at + 1 : close], close + 1
    else:
        bare = _BARE.match(text, at)
        if bare is None:
            return Box(start, len(text), None) if at >= len(text) else None
        content, end = bare.group().rstrip(".,"), bare.end()
        if not content:
            return None
    inner = boxes(content, nested + 1) if nested < 3 else []
    if inner:
        return Box(start, end, inner[-1].content)
    return Box(start, end, undressed(content))


def closing_brace(text: str, opening: int) -> int | None:
    """Return the index of the brace that closes the brace at ``opening``, or None if it is never closed."""
    depth = 0
    for match in _BRACES.finditer(text, opening, opening + 2 * MAX_ANSWER):
        sign = match.group()
        if sign == "{":
            depth += 1
        elif sign == "}":
            depth -= 1
            if depth == 0:
                return match.start()
    return None
