"""Cutting a text at its stop strings, also while the text still grows."""

from __future__ import annotations

from collections.abc import Sequence


def before_stop(text: str, stops: Sequence[str], start: int = 0) -> str:
    """The text before the first stop string after `start`; the whole text if none occurs."""
    found = [at for at in (text.find(stop, start) for stop in stops) if at >= 0]
    return text[: min(found)] if found else text


def certain(text: str, stops: Sequence[str], start: int = 0) -> str:
    """The part of a growing text that stays: the text before a stop string, or before a possible beginning of one.

    start: no stop string counts before it.
    """
    cut = before_stop(text, stops, start)
    if cut != text:
        return cut
    longest = max((len(stop) for stop in stops), default=1) - 1
    for held in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-held:]) for stop in stops):
            return text[:-held]
    return text
