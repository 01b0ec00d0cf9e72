"""A request's body, from bytes to a JSON value that is safe to work with.

In: bytes. Out: a JSON value whose texts can all be encoded. What cannot be read is refused with status 400, and the
field is named. Knows no field of any request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mcts_dpo.integrations.server.protocol import ApiError, shown


def parse(body: bytes) -> Any:
    """The JSON value of a body in UTF-8.

    Raises ApiError 400 if it is no JSON, is nested too deeply, or holds half of a surrogate pair, which is no text.
    """
    try:
        value = json.loads(body.decode("utf-8-sig"))
    except RecursionError:
        raise ApiError(400, "the body is not JSON that can be read: it is nested too deeply", param="body") from None
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {shown(str(error), 200)}", param="body") from None
    field = next(_broken_texts(value), None)
    if field is not None:
        raise ApiError(
            400, f"{field}: holds half of a surrogate pair (accepted: text that UTF-8 can encode)", param=field
        )
    return value


def _broken_texts(value: Any) -> Iterator[str]:
    """The fields whose name or text cannot be encoded, e.g. "messages.0.content". No recursion: bodies nest deeply."""
    open_: list[tuple[tuple[str, ...], Any]] = [((), value)]
    while open_:
        path, one = open_.pop()
        if isinstance(one, str):
            if not _encodes(one):
                yield _spelt(path)
        elif isinstance(one, list):
            open_ += [
                ((*path, str(index)), item) for index, item in enumerate(one) if isinstance(item, str | list | dict)
            ]
        elif isinstance(one, dict):
            for name, item in one.items():
                if not _encodes(name):
                    yield _spelt((*path, name))
                open_.append(((*path, name), item))


def _encodes(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _spelt(path: tuple[str, ...]) -> str:
    return ".".join(shown(part) for part in path) or "body"
