"""Requests that attack a server: random and hand-made ones, long and slow bodies, beside somebody who just asks.

    python -m benchmarks.attack_server [--json FILE] [--seconds 120] [--seed 0] [--quick]

`mcts-dpo serve` runs in a process of its own with a tiny model, on loopback. While requests of every kind come in, a
bystander asks one ordinary question after the other. Traffic and time are bounded.

Figures: `requests` (sent), `server_deaths` (of the process, or of its engine), `bystander_errors` (ordinary questions,
of `bystanders`, that got no answer), `server_errors` (answers of 500 and above to the attacker, but for 503),
`unanswered` (requests without an answer within a minute), `max_block_s` (the longest that the bystander waited while a
body of 20 MB came in), `leak_mib_per_1000` (growth of the process over the second half of the random requests; see
`by_chance`),
`stop_s` (from SIGTERM to the end, with half requests open).
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scipy.stats import theilslopes

from mcts_dpo.common.files import write_json
from tests.engines.tiny import save_model
from tests.models.test_prompts import byte_level

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MIB = 1 << 20
SECTIONS = ("prompt.style=plain", "prompt.template='{question}'", "engine.threads=1", "search.max_tokens=8")
# Remembered keys and values fill what they are given and then no more: here so little that this is no growth.
SECTIONS += ("engine.memory=0.002", "engine.slots=16")
TEXTS = (
    "a", "", " ", "\ud800", "\udfff\ud800", "\x00", "\u202e", "é" * 300, "<|im_end|>", "{{ 7*7 }}", "%s", "\n" * 50,
    "9" * 400,
    "\U0001f600", "a" * 5000, "[/b]", "../../x", "null",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 128, 129, 10**30, 1e308, float("nan"), float("inf"), "true", "1", [], {}, [[]],
    {"a": []},
    ["a"], ["a"] * 200, {"type": "text", "text": "a"},
)  # fmt: skip
FIELDS = (
    "model", "messages", "prompt", "n", "seed", "stop", "stream", "stream_options", "temperature", "top_p",
    "max_tokens",
    "max_completion_tokens", "budget", "logprobs", "tools", "user", "metadata", "response_format", "",
    "\ud800", "__class__",
)  # fmt: skip


@dataclass(slots=True)
class Server:
    """A running server. deaths: how often it had to be started anew."""

    command: list[str]
    folder: Path
    process: subprocess.Popen[str] | None = None
    port: int = 0
    deaths: int = 0

    def start(self) -> None:
        """Start it and wait until it listens."""
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=Path.cwd())
        assert self.process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.process.stdout.readline())
        assert found, (self.folder / "log").read_text()
        self.port = int(found[1])

    def revive(self) -> None:
        """Count it as dead and start it anew, if it is."""
        assert self.process is not None
        if self.process.poll() is not None:
            self.deaths += 1
            self.start()

    def ask(self, path: str, body: bytes | None, timeout: float = 60.0, **headers: str) -> tuple[int, bytes]:
        """Status and body of an answer; (0, b"") without one."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            given = {"Content-Type": "application/json"} | headers
            line.request("GET" if body is None else "POST", path, body, given)
            answer = line.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            line.close()

    def memory(self) -> float:
        """MiB that the process holds."""
        _, text = self.ask("/metrics", None)
        found = re.search(rb"^process_resident_memory_bytes (\S+)", text, re.MULTILINE)
        return float(found[1]) / MIB if found else 0.0


@dataclass(slots=True)
class Bystander:
    """Somebody who asks an ordinary question again and again. longest: seconds for one since it was last set to 0."""

    server: Server
    asked: int = 0
    errors: int = 0
    longest: float = 0.0
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Ask until `over`."""
        body = json.dumps({"model": "tiny", "messages": _messages("1 + 1 = ?"), "budget": 8}).encode()
        while not self.over.is_set():
            begun = time.monotonic()
            status, _ = self.server.ask(CHAT, body)
            self.longest = max(self.longest, time.monotonic() - begun)
            self.asked += 1
            self.errors += status != 200
            self.over.wait(0.02)


def _messages(text: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def random_request(rng: random.Random) -> tuple[str, bytes, dict[str, str]]:
    """Path, body and headers of a request that is right in some ways and wrong in others."""
    path = rng.choice((CHAT, COMPLETIONS))
    text = rng.choice(TEXTS) + rng.choice(TEXTS)
    body: dict[str, Any] = {"model": "tiny", "budget": rng.choice((1, 8, 20)), "n": rng.choice((1, 1, 2))}
    body |= {"messages": _messages(text)} if path == CHAT else {"prompt": text}
    if rng.random() < 0.5:  # another stop string each time: what is kept of them must not grow
        body["stop"] = [f"{rng.random()}{chr(rng.randrange(0x3000, 0xD000))}"]
    for _ in range(rng.choice((0, 0, 1, 2))):
        body[rng.choice(FIELDS)] = rng.choice((*VALUES, *TEXTS))
    sent = json.dumps(body).encode()
    if rng.random() < 0.2:
        at = rng.randrange(len(sent))
        sent = rng.choice((sent[:at], sent[:at] + rng.randbytes(3) + sent[at:], rng.randbytes(40), b"[" * 50_000))
    headers = {}
    if rng.random() < 0.1:
        headers = rng.choice(
            ({"Content-Type": "text/plain"}, {"Host": "evil.example"}, {"Authorization": "Bearer \xe9"})
        )
    return path, sent, headers


def long_bodies(size: int = 20 * MIB) -> Iterator[bytes]:
    """Bodies of that many bytes, of the kinds that cost most."""
    opening = b'{"model": "tiny", "messages": [{"role": "user", "content": "'
    yield opening + b"ab " * (size // 3) + b'"}]}'
    yield opening + b"\\u00e9" * (size // 6) + b'"}]}'
    yield opening + b"\\ud83d\\ude00" * (size // 12) + b'"}]}'
    yield b'{"model": "tiny", "prompt": [' + b"[]," * (size // 3) + b"[]]}"
    yield json.dumps({"model": "tiny", "messages": _messages("a" * 400) * (size // 430)}).encode()
    yield b'{"model": "tiny", "' + b"k" * size + b'": 1}'


def unfinished() -> Iterator[bytes]:
    """Beginnings of requests that never end."""
    yield b""
    yield b"POST /v1/cha"
    yield b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: "
    headers = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 99"
    yield f"POST {CHAT} HTTP/1.1\r\n{headers}\r\n\r\n{{".encode()


@contextmanager
def serving(folder: Path, options: list[str]) -> Iterator[Server]:
    """A server with a tiny model, ended with the block."""
    save_model(folder / "tiny", tokenizer=byte_level(), max_position_embeddings=512)
    line = [sys.executable, "-m", "mcts_dpo", "serve", "-m", str(folder / "tiny"), "--port", "0", "--name", "tiny"]
    server = Server([*line, *options, *SECTIONS], folder)
    server.start()
    try:
        yield server
    finally:
        assert server.process is not None
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait(60)


@dataclass(slots=True)
class Tally:
    """requests: sent; errors, unanswered: see the module."""

    server: Server
    requests: int = 0
    errors: int = 0
    unanswered: int = 0

    def send(self, path: str, body: bytes, **headers: str) -> None:
        """Send one and count what came of it."""
        status, _ = self.server.ask(path, body, **headers)
        self.requests += 1
        self.errors += status >= 500 and status != 503
        self.unanswered += not status
        self.server.revive()


MEMORY_EVERY = 100
"""Requests between two looks at the server's memory."""


def by_chance(tally: Tally, rng: random.Random, count: int, until: float) -> float:
    """Send so many random requests, at most until then. Returns the growth in MiB per 1000 over the second half: the
    median slope between samples of the memory (Theil-Sen), which a garbage collection that is due does not move."""
    sent: list[int] = []
    held: list[float] = []
    for index in range(count):
        if time.monotonic() > until:
            break
        path, body, headers = random_request(rng)
        tally.send(path, body, **headers)
        if index % MEMORY_EVERY == 0:
            sent.append(index)
            held.append(tally.server.memory())
    half = len(sent) // 2
    if len(sent) - half < 2:
        return 0.0
    return max(0.0, 1000 * float(theilslopes(held[half:], sent[half:]).slope))


def with_long_bodies(tally: Tally, bystander: Bystander, until: float) -> float:
    """Send each long body once. Returns the longest that the bystander waited."""
    bystander.longest = 0.0
    for body in long_bodies():
        if time.monotonic() > until:
            break
        tally.send(CHAT, body)
        time.sleep(0.1)
    return bystander.longest


def stopped(server: Server) -> float:
    """Seconds from SIGTERM to the end, half requests being open."""
    assert server.process is not None
    lines = []
    for sent in unfinished():
        lines.append(socket.create_connection(("127.0.0.1", server.port)))
        lines[-1].sendall(sent)
    begun = time.monotonic()
    server.process.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.process.wait(120)
    for line in lines:
        line.close()
    return time.monotonic() - begun


def attack(seconds: float = 120.0, seed: int = 0, requests: int = 12000) -> dict[str, float]:
    """All of it; see the module."""
    rng = random.Random(seed)
    options = ["--budget", "16", "--max-body-bytes", str(32 * MIB), "--read-timeout", "5"]
    with tempfile.TemporaryDirectory(prefix="attack-") as name, serving(Path(name), options) as server:
        tally, bystander = Tally(server), Bystander(server)
        watching = threading.Thread(target=bystander.run)
        watching.start()
        begun = time.monotonic()
        leak = by_chance(tally, rng, requests, begun + 0.7 * seconds)
        block = with_long_bodies(tally, bystander, begun + seconds)
        bystander.over.set()
        watching.join()
        if server.ask("/health", None)[0] != 200:
            server.deaths += 1
        stop = stopped(server)
    return {
        "requests": tally.requests,
        "server_deaths": server.deaths,
        "bystanders": bystander.asked,
        "bystander_errors": bystander.errors,
        "server_errors": tally.errors,
        "unanswered": tally.unanswered,
        "max_block_s": round(block, 3),
        "leak_mib_per_1000": round(leak, 3),
        "stop_s": round(stop, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="200 requests")
    options = parser.parse_args()
    figures = attack(options.seconds, options.seed, 200 if options.quick else 12000)
    print(json.dumps(figures, indent=2))
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
