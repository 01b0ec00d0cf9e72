"""Long bodies, slow bodies, long and many stop strings: each delays its sender and no other client."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcts_dpo.engines import Engine, load_engine
from mcts_dpo.engines.text import StopStrings
from mcts_dpo.integrations.server.settings import ServerSettings
from tests.conftest import ToyWorld
from tests.integrations.server.raw_requests import CHAT, COMPLETIONS, ask, chat, connect, head, is_served, post
from tests.integrations.serving import Served, process, stage, thread

pytestmark = pytest.mark.filterwarnings("ignore")
MIB = 1 << 20


@pytest.fixture(scope="module")
def engine(toy_world: ToyWorld) -> Engine:
    return load_engine(toy_world.policy, threads=1)


@pytest.fixture(scope="module")
def roomy(toy_world: ToyWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that accepts bodies of 32 MiB, and waits 2 seconds for each."""
    options = ("--budget", "200", "--max-body-bytes", str(32 * MIB), "--read-timeout", "2")
    with process(toy_world.policy, tmp_path_factory.mktemp("roomy"), *options) as served:
        yield served


class Pulse:
    """The longest time that another client waits for an answer; it sends one request after the other."""

    def __init__(self, served: Served) -> None:
        self._served, self._over = served, threading.Event()
        self.longest, self.asked = 0.0, 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            start = time.monotonic()
            assert is_served(self._served, budget=20)
            self.longest = max(self.longest, time.monotonic() - start)
            self.asked += 1

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(600)


LONG: dict[str, bytes] = {
    "one text": json.dumps(chat("ab " * (20 * MIB // 3))).encode(),
    "escapes": b'{"model": "toy", "messages": [{"role": "user", "content": "' + b"\\u00e9" * (20 * MIB // 6) + b'"}]}',
    "empty lists": b'{"model": "toy", "prompt": [' + b"[]," * (20 * MIB // 3) + b"[]]}",
    "messages": json.dumps(chat() | {"messages": [{"role": "user", "content": "a" * 400}] * 45_000}).encode(),
    "a field's name": b'{"model": "toy", "' + b"k" * (20 * MIB) + b'": 1}',
    "a stop string": json.dumps(chat(stop="s" * (20 * MIB))).encode(),
}


@pytest.mark.parametrize("kind", LONG)
def test_a_long_body_blocks_no_other_client(roomy: Served, kind: str) -> None:
    with Pulse(roomy) as pulse:
        status, said = post(roomy, CHAT, LONG[kind])
        time.sleep(0.2)
    assert status == 400
    assert said["error"]["code"] == "context_length_exceeded" or said["error"]["param"]
    assert pulse.asked > 0
    # A second where the machine is idle (`benchmarks.attack` measures that); on a busy one everybody waits for a turn.
    # What was tokenised in the engine's thread took 40 s and more.
    assert pulse.longest < 15.0


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(engine: Engine) -> None:
    settings = ServerSettings(budget=200, max_body_bytes=100_000)
    with thread(engine, settings, stage()) as served:
        # Nothing of 300 MB is sent: the answer cannot have waited for it.
        with closing(connect(served)) as line:
            line.sendall(head(CHAT, 300 * MIB))
            assert b" 413 " in line.recv(65536)
        status, said = post(served, CHAT, b"x" * 5 * MIB)
        assert status == 413
        assert said["error"]["param"] == "body"
        assert "accepted: up to 100000" in said["error"]["message"]
        with closing(connect(served)) as line:
            line.sendall(head(CHAT, None) + b"20000\r\n" + b"y" * 0x20000 + b"\r\n")
            assert b" 413 " in line.recv(65536)
        assert post(served, CHAT, json.dumps(chat("a" * 90_000)).encode())[0] == 400
        assert is_served(served)


def test_a_text_that_cannot_fit_is_not_tokenised(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with thread(engine, ServerSettings(budget=200), stage()) as served:
        seen: list[int] = []
        prepare = served.service.thread.prepare

        def watched(question: Any, tokenizer: Any) -> Any:
            seen.append(len(question.problem.question))
            return prepare(question, tokenizer)

        monkeypatch.setattr(served.service.thread, "prepare", watched)
        status, said = ask(served, chat("a" * (16 * 256 + 1)))
        assert (status, said["error"]["code"], seen) == (400, "context_length_exceeded", [])
        assert ask(served, chat("a" * (16 * 256)))[0] == 400
        assert ask(served, {"model": "toy", "prompt": ["a", "b", "a"], "n": 3}, COMPLETIONS)[0] == 200
        assert seen == [16 * 256, 1, 1], "each text once, however often it is asked"


def test_texts_are_tokenised_neither_by_the_engine_s_thread_nor_the_event_loop_s(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with thread(engine, ServerSettings(budget=200), stage()) as served:
        names: list[str] = []
        prepare = served.service.thread.prepare

        def watched(asked: Any, tokenizer: Any) -> Any:
            names.append(threading.current_thread().name)
            assert tokenizer is not engine.tokenizer
            return prepare(asked, tokenizer)

        monkeypatch.setattr(served.service.thread, "prepare", watched)
        assert is_served(served, n=3)
        assert len(names) == 1
        assert names[0].startswith("mcts-dpo-short")


STOPS: list[tuple[Any, str]] = [
    ("s" * 257, "up to 4 texts of at least one character, at most 256"),
    (["a", "s" * 5000], "up to 4 texts of at least one character, at most 256"),
    (["a", "b", "c", "é" * 257], "up to 4 texts of at least one character, at most 256"),
    ("", "up to 4 texts of at least one character, at most 256"),
    (["a"] * 5, "5 of them (accepted: up to 4)"),
]


@pytest.mark.parametrize(("stop", "message"), STOPS, ids=range(len(STOPS)))
def test_stop_strings_are_few_and_short(server: Served, stop: Any, message: str) -> None:
    status, said = ask(server, chat(stop=stop))
    assert (status, said["error"]["param"]) == (400, "stop")
    assert message in said["error"]["message"]
    assert ask(server, chat(stop=["s" * 256, "b", "c", "é"]))[0] == 200


def test_tables_of_stop_strings_are_few(engine: Engine) -> None:
    strings = StopStrings(engine.tokenizer, len(engine.tokenizer))
    first = strings.table(("\n",)).copy()
    for index in range(2000):
        strings.table((f"x{chr(0x4E00 + index)}", f"{index}"))
    assert len(strings._tables) <= 64
    assert strings.table(("a b", "c")) is strings.table(("x b", "bc", "c")), "the last characters decide"
    assert np.array_equal(strings.table(("\n",)), first)


UNFINISHED = {
    "nothing": b"",
    "half a line": b"POST /v1/cha",
    "half headers": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: ",
    "no body": head(CHAT, 100),
    "half a body": head(CHAT, 100) + b'{"model": "toy", "messages"',
    "half a chunk": head(CHAT, None) + b"ff\r\n{",
    "a second request's half": b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea",
}


def closed_after(line: socket.socket) -> float:
    """Seconds until the server closes a connection."""
    start = time.monotonic()
    try:
        while line.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - start


@pytest.mark.parametrize("kind", UNFINISHED)
def test_what_does_not_arrive_is_not_waited_for(roomy: Served, kind: str) -> None:
    with closing(connect(roomy)) as line:
        line.sendall(UNFINISHED[kind])
        assert closed_after(line) < 100.0
    assert is_served(roomy)
    roomy.wait_until_idle()


def test_a_body_that_trickles_is_not_waited_for(roomy: Served) -> None:
    with closing(connect(roomy)) as line:
        line.sendall(head(CHAT, 1000))
        start = time.monotonic()
        line.settimeout(0.1)
        said = b""
        while not said and time.monotonic() - start < 100:
            with suppress(TimeoutError):
                line.sendall(b" ")
                said = line.recv(65536)
        line.settimeout(100)
        with suppress(ConnectionResetError):
            while part := line.recv(65536):  # the body may come after the headers
                said += part
        assert b" 408 " in said
        assert b"did not arrive within 2 s" in said


def test_stopping_does_not_wait_for_unfinished_bodies(toy_world: ToyWorld, tmp_path: Path) -> None:
    options = ("--budget", "200", "--grace", "600", "--read-timeout", "600")
    with process(toy_world.policy, tmp_path, *options) as served:
        lines = [connect(served) for _ in UNFINISHED]
        for line, sent in zip(lines, UNFINISHED.values(), strict=True):
            line.sendall(sent)
        assert is_served(served)
        assert served.process is not None
        served.process.terminate()
        # It takes what ending an interpreter takes; ten minutes if it waited for any of these.
        assert served.process.wait(300) == 0
        for line in lines:
            line.close()
    assert (tmp_path / "log").read_text() == ""


def test_stopping_does_not_wait_for_clients_that_do_not_read(toy_world: ToyWorld, tmp_path: Path) -> None:
    with (
        process(toy_world.policy, tmp_path, "--budget", "800", "--grace", "0.5") as served,
        closing(connect(served)) as line,
    ):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = json.dumps(chat("a", n=128, stream=True, temperature=2.0)).encode()
        line.sendall(head(CHAT, len(body)) + body)
        served.wait_until('mcts_dpo_searches{state="active"}', 1)
        assert served.process is not None
        served.process.terminate()
        assert served.process.wait(300) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()
