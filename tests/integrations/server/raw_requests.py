"""Raw requests to a server: bytes as they are, which no client library would send."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from typing import Any

from tests.integrations.serving import Served

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def post(served: Served, path: str, body: bytes, timeout: float = 600.0, **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of the answer."""
    given = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(served.url + path, body, given, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def chat(content: Any = "a", **fields: Any) -> dict[str, Any]:
    return {"model": "toy", "messages": [{"role": "user", "content": content}], **fields}


def ask(served: Served, body: Any, path: str = CHAT, **options: Any) -> tuple[int, dict[str, Any]]:
    """The same for a JSON value; lone surrogates are written as the escapes they are."""
    return post(served, path, json.dumps(body).encode(), **options)


def is_served(served: Served, **fields: Any) -> bool:
    """True: an ordinary question gets its answer. What it gets instead fails the test."""
    status, body = ask(served, chat("Ann has 3 cups. She buys 2 more. How many cups does she have?", **fields))
    assert status == 200, body
    return bool(body["choices"][0]["message"]["content"])


def connect(served: Served) -> socket.socket:
    """A connection to the server."""
    host, port = served.url.removeprefix("http://").rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=600)


def head(path: str, length: int | None, host: str = "127.0.0.1") -> bytes:
    """The headers of a request whose body has so many bytes (None: comes in chunks)."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{size}\r\n\r\n".encode()
