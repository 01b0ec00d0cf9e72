"""A server that speaks OpenAI's chat protocol over real connections, and misbehaves as it is told to."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


class ChatServer(ThreadingHTTPServer):
    """answer: from a request to what is sent: a body, raw bytes, (status, body), or None to hang up.

    seen: the requests. most: the largest number served at a time.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[Body], Any]) -> None:
        self.answer = answer
        self.seen: list[Body] = []
        self.keys: set[str | None] = set()
        self.most = self.now = 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.seen.append(body)
            server.keys.add(self.headers.get("Authorization"))
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            answer = server.answer(body)
        finally:
            with server.lock:
                server.now -= 1
        if answer is None:
            self.close_connection = True
            return
        status, answer = answer if isinstance(answer, tuple) else (200, answer)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@contextmanager
def chat_server(answer: Callable[[Body], Any]) -> Iterator[ChatServer]:
    server = ChatServer(answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def said(text: Any, tokens: list[tuple[str, dict[str, float]]] | None = None) -> Body:
    """The body of an answer. tokens: with the probabilities of the alternatives at each place."""
    choice: Body = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    if tokens is not None:
        content = [
            {
                "token": token,
                "logprob": math.log(there[token]),
                "top_logprobs": [{"token": other, "logprob": math.log(p)} for other, p in there.items()],
            }
            for token, there in tokens
        ]
        choice["logprobs"] = {"content": content}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice]}


def asked(body: Body) -> str:
    """The text that a request asks about."""
    return str(body["messages"][-1]["content"])


def hang(seconds: float) -> None:
    time.sleep(seconds)
