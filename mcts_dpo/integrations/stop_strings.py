"""Cutting a text at its stop strings, also while the text still grows."""

from __future__ import annotations

from collections.abc import Sequence


def before_stop(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string; the whole text if none occurs."""
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return text[: min(found)] if found else text


def certain(text: str, stops: Sequence[str]) -> str:
    """The part of a growing text that stays: the text before a stop string, or before a possible beginning of one."""
    cut = before_stop(text, stops)
    if cut != text:
        return cut
    longest = max((len(stop) for stop in stops), default=1) - 1
    for held in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-held:]) for stop in stops):
            return text[:-held]
    return text
