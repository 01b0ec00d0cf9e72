"""Where a text ends that must not contain its stop strings. Pure functions of strings."""

from __future__ import annotations

from collections.abc import Sequence


def before_stop(text: str, stops: Sequence[str]) -> str:
    """The text before the first place where any stop string begins; all of it if none occurs."""
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return text[: min(found)] if found else text


def certain(text: str, stops: Sequence[str]) -> str:
    """What of a text that may go on is certain to stay: what comes before a stop string, or before what may become
    the beginning of one."""
    cut = before_stop(text, stops)
    if cut != text:
        return cut
    longest = max((len(stop) for stop in stops), default=1) - 1
    for held in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-held:]) for stop in stops):
            return text[:-held]
    return text
