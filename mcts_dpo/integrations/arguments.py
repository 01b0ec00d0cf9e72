"""A harness's flat arguments as our settings: `search_temperature=0.7`, `engine_slots=32`.

In: the arguments by name. Out: the values by section, or an error of one line that names the wrong argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import nearest

SECTIONS = ("engine", "search", "prompt")


def sections(given: Mapping[str, Any], own: Sequence[str], where: str) -> dict[str, dict[str, Any]]:
    """Values by section (`engine`, `search`, `prompt`) and setting.

    own: the other names that the caller accepts, for the nearest spelling. where: the beginning of errors.
    Raises InputError for a name of no section.
    """
    parts: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for name, value in given.items():
        section, _, rest = name.partition("_")
        if section not in parts or not rest:
            close = nearest(name, own)
            hint = f"; did you mean {close!r}?" if close else ""
            accepted = ", ".join([*own, *(f"{section}_NAME" for section in SECTIONS)])
            raise InputError(f"{where}: {name!r} is not one{hint} (accepted: {accepted})")
        parts[section][rest] = value
    return parts
