"""Finds the fenced block of Python in a step. Pure text.

A block begins at a line of three or more backticks and a name of a language ("```python"), and ends at a line of at
least as many backticks and nothing else. Both may be indented; the code is then indented less by as much.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"([ \t]*)(`{3,})[ \t]*([^`\n]*?)[ \t\r]*")
_PYTHON = {"python", "py"}


@dataclass(frozen=True)
class _Block:
    """A block: its language in small letters ("" if it has none), its code, and whether it was closed."""

    language: str
    code: str
    closed: bool


def block_of(step: str) -> str | None:
    """The code of the last complete block of Python in a step, or None. Python is "python" or "py", in any case."""
    found = [block.code for block in _blocks(step) if block.closed and block.language in _PYTHON]
    return found[-1] if found else None


def open_block(step: str) -> bool:
    """Whether a block, of any language, was begun in a step and is not closed yet."""
    return any(not block.closed for block in _blocks(step))


def _blocks(step: str) -> Iterator[_Block]:
    """The blocks of a step in order; only the last may be open.

    A fence of Python begins a new block even inside another that has no longer fence: the other one was not closed.
    """
    indent, ticks, language = "", "", ""
    lines: list[str] | None = None
    for line in step.split("\n"):
        fence = _FENCE.fullmatch(line)
        name = fence[3].split(None, 1)[0].lower() if fence and fence[3] else ""
        if lines is None or (fence and name in _PYTHON and len(fence[2]) >= len(ticks)):
            if fence:
                indent, ticks, language, lines = fence[1], fence[2], name, []
        elif fence and not fence[3] and len(fence[2]) >= len(ticks):
            yield _Block(language, "\n".join(lines), True)
            lines = None
        else:
            lines.append(_indented_less(line, len(indent)))
    if lines is not None:
        yield _Block(language, "\n".join(lines), False)


def _indented_less(line: str, most: int) -> str:
    """The line without its first blanks, at most this many."""
    blanks = len(line) - len(line.lstrip(" \t"))
    return line[min(blanks, most) :]
