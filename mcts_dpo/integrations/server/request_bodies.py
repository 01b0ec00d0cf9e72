"""Reading a request's body: from the network to a JSON value that is safe to work with.

In: a request; limits of bytes and seconds. Out: a JSON value whose texts can all be encoded. A body that cannot be read
is refused with status 400, 408 or 413, and the field is named.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.requests import Request

from mcts_dpo.integrations.server.protocol import ApiError, shown

VALUES = 250_000
"""Most values in a body. The parser holds Python's lock while it makes them: about 50 ms for so many."""


class Bodies:
    """Reads bodies. most: bytes of one body. seconds: within which it must arrive."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._reading: set[asyncio.Timeout] = set()
        self._stopping = False

    async def read(self, request: Request) -> bytes:
        """The whole body.

        Raises ApiError: 413 for a body that is too long (before it is read, if the request states its length); 408 for
        one that does not arrive in time; 503 for one that has not arrived when the server stops. Raises
        ClientDisconnect.
        """
        said = request.headers.get("content-length", "")
        if said.isdecimal() and (len(said) > 18 or int(said) > self._most):
            raise self._too_long(said)
        body = bytearray()
        try:
            async with self._timeout():
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self._most:
                        raise self._too_long("more")
        except TimeoutError:
            request.state.dropped = True
            raise self._too_late() from None
        request.state.arrived = True
        return bytes(body)

    def unread(self, request: Request) -> bool:
        """Whether the client may still be sending a body that was not read."""
        sends = "content-length" in request.headers or "transfer-encoding" in request.headers
        waits = request.headers.get("expect", "").lower() == "100-continue"  # it sends no body after a refusal
        return sends and not waits and not any(getattr(request.state, name, False) for name in ("arrived", "dropped"))

    async def discard(self, request: Request) -> None:
        """Read and drop the rest of a body, within the time that a body may take."""
        with suppress(TimeoutError):
            async with self._timeout():
                message = await request.receive()
                while message["type"] == "http.request" and message.get("more_body", False):
                    message = await request.receive()

    @asynccontextmanager
    async def _timeout(self) -> AsyncIterator[None]:
        """Raise TimeoutError if the block takes too long, or the server stops."""
        async with asyncio.timeout(0.0 if self._stopping else self._seconds) as timeout:
            self._reading.add(timeout)
            try:
                yield
            finally:
                self._reading.discard(timeout)

    def stop(self) -> None:
        """Drop all bodies that have not arrived, now and later. Call it in the event loop's thread."""
        self._stopping = True
        for timeout in self._reading:
            timeout.reschedule(asyncio.get_running_loop().time())

    def _too_long(self, said: str) -> ApiError:
        return ApiError(
            413, f"the body is too long: {shown(said, 20)} bytes (accepted: up to {self._most})", param="body"
        )

    def _too_late(self) -> ApiError:
        if self._stopping:
            return ApiError(503, "the server is stopping", headers={"Connection": "close"})
        why = f"the body did not arrive within {self._seconds:g} s"
        return ApiError(408, why, param="body", headers={"Connection": "close"})


def parse(body: bytes) -> Any:
    """The JSON value of a body in UTF-8.

    Raises ApiError 400 if it is not JSON, is nested too deeply, has too many values, or contains half of a surrogate
    pair, which cannot be encoded.
    """
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > VALUES:
        raise ApiError(400, f"the body holds more than {VALUES} values or commas", param="body")
    try:
        value = json.loads(body.decode("utf-8-sig"))
    except RecursionError:
        raise ApiError(400, "the body is not JSON that can be read: it is nested too deeply", param="body") from None
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {shown(str(error), 200)}", param="body") from None
    field = next(_unencodable_fields(value), None)
    if field is not None:
        raise ApiError(
            400, f"{field}: holds half of a surrogate pair (accepted: text that UTF-8 can encode)", param=field
        )
    return value


def _unencodable_fields(value: Any) -> Iterator[str]:
    """The fields whose name or text cannot be encoded, e.g. "messages.0.content". Iterative: bodies may nest deeply."""
    open_: list[tuple[tuple[str, ...], Any]] = [((), value)]
    while open_:
        path, one = open_.pop()
        if isinstance(one, str):
            if not _can_encode(one):
                yield _dotted(path)
        elif isinstance(one, list):
            open_ += [
                ((*path, str(index)), item) for index, item in enumerate(one) if isinstance(item, str | list | dict)
            ]
        elif isinstance(one, dict):
            for name, item in one.items():
                if not _can_encode(name):
                    yield _dotted((*path, name))
                open_.append(((*path, name), item))


def _can_encode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(shown(part) for part in path) or "body"
