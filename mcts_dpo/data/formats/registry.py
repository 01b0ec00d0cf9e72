"""The layouts by name: those that are built in, and those that a user has added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mcts_dpo.common.settings import nearest
from mcts_dpo.data.formats import choice, columns, gsm8k, math, mawps
from mcts_dpo.data.formats.base import Detect, Reader


class _Format(NamedTuple):
    read: Reader
    detect: Detect | None


_FORMATS: dict[str, _Format] = {
    "columns": _Format(columns.read, None),
    "mawps": _Format(mawps.read, None),
    "gsm8k": _Format(gsm8k.read, gsm8k.detect),
    "math": _Format(math.read, math.detect),
    "choice": _Format(choice.read, choice.detect),
}
"""The last that recognises a data set reads it, so that an added layout is asked before those that are built in."""


def register_format(name: str, reader: Reader, detect: Detect | None = None) -> None:
    """Add a layout, so that the setting `format` of a problem set can name it.

    reader: from a `Row` to its `Problem`; `row.problem(…)` does most of it.
    detect: from the cells of the first row to whether the data set has this layout. With it, `format: auto` finds the
            layout. Without it, the layout must be named.

    Raises ValueError for a name that is taken.
    """
    if name in format_names():
        raise ValueError(f"the format {name!r} is already registered")
    _FORMATS[name] = _Format(reader, detect)


def format_names() -> tuple[str, ...]:
    """What the setting `format` of a problem set accepts: "auto" and the name of each layout."""
    return ("auto", *_FORMATS)


def known_format(name: str) -> str:
    """The name itself. Raises ValueError, with the nearest known name, for one that is not registered."""
    if name in format_names():
        return name
    close = nearest(name, format_names())
    hint = f"; did you mean {close!r}?" if close else ""
    raise ValueError(f"is not a format{hint} (accepted: {', '.join(format_names())})")


def reader_of(name: str, first: Mapping[str, Any]) -> Reader:
    """The reader of a layout. name: one of `format_names()`. first: the cells of the first row, for "auto"."""
    if name != "auto":
        return _FORMATS[name].read
    found = [layout.read for layout in _FORMATS.values() if layout.detect and layout.detect(first)]
    return found[-1] if found else columns.read
