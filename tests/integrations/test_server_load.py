"""Many clients at once, many of whom go away; signals; bad command lines. Nothing is lost and nothing stays behind."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from mcts_dpo.cli.app import main
from mcts_dpo.toy.world import make_problems
from tests.conftest import ToyWorld
from tests.integrations.serving import LONG, Served, process

pytestmark = pytest.mark.filterwarnings("ignore")
REQUESTS = 200


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_two_hundred_at_once_with_random_disconnects(server: Served) -> None:
    problems = make_problems(REQUESTS, seed=5, events=(1,))
    chance = random.Random(0)
    # Half of the clients have no patience, and ask for more than they wait for; half of all want a stream.
    patience = [chance.uniform(0.02, 3.0) if chance.random() < 0.5 else None for _ in problems]

    async def one(client: AsyncOpenAI, index: int) -> str:
        ask: dict[str, Any] = {"model": "toy", "messages": user(problems[index].question), "seed": index}
        ask["extra_body"] = {"budget": 80 if patience[index] is None else 800}

        async def answered() -> str:
            if index % 2:
                text = ""
                async for chunk in await client.chat.completions.create(**ask, stream=True):
                    text += chunk.choices[0].delta.content or ""
                return text
            answer = await client.chat.completions.create(**ask)
            return answer.choices[0].message.content or ""

        try:
            return await asyncio.wait_for(answered(), patience[index])
        except TimeoutError:
            return "gone"

    async def everybody() -> list[str]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with AsyncOpenAI(
            base_url=f"{server.url}/v1",
            api_key="none",
            max_retries=0,
            http_client=httpx.AsyncClient(limits=limits, timeout=None),
        ) as client:
            return await asyncio.gather(*(one(client, index) for index in range(REQUESTS)))

    before = server.metrics()
    texts = asyncio.run(everybody())
    gone = sum(text == "gone" for text in texts)
    assert 5 <= gone <= 120, "the impatient leave in the middle"
    assert all(texts), "every client that stayed has an answer"
    server.wait_until_idle()
    after = server.metrics()
    served = {
        name: after[name] - before.get(name, 0.0)
        for name in after
        if name.startswith("mcts_dpo_requests_total") and after[name] > before.get(name, 0.0)
    }
    whole, left = (f'mcts_dpo_requests_total{{endpoint="chat",status="{status}"}}' for status in (200, 499))
    assert served.keys() == {whole, left}
    assert served[whole] >= REQUESTS - gone
    assert served[whole] + served[left] <= REQUESTS, "some may have left before they had asked"
    # After all that it answers as it did: the same seed, the same text.
    index = next(index for index, text in enumerate(texts) if text != "gone")
    again = server.client().chat.completions.create(
        model="toy", messages=user(problems[index].question), seed=index, extra_body={"budget": 80}
    )
    assert again.choices[0].message.content == texts[index]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_search(server: Served, stream: bool) -> None:
    body = {"model": "toy", "messages": user("a"), "n": 128, "temperature": 2.0, "budget": 800, "stream": stream}
    left, sampled = (
        'mcts_dpo_requests_total{endpoint="chat",status="499"}',
        'mcts_dpo_engine_tokens_total{kind="sampled"}',
    )
    before = server.metrics()
    data = json.dumps(body).encode()
    host, port = server.url.removeprefix("http://").rsplit(":", 1)
    with socket.create_connection((host, int(port))) as line:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        line.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        server.wait_until('mcts_dpo_searches{state="active"}', 1)
        if stream:
            assert line.recv(65536).startswith(b"HTTP/1.1 200 ")
    server.wait_until_idle()
    after = server.metrics()
    assert after[left] == before.get(left, 0) + 1
    assert after[sampled] - before[sampled] < 128 * 800 / 2, "a search without a client is cancelled"


def test_after_sigterm_running_searches_end_and_the_others_are_refused(toy_world: ToyWorld, tmp_path: Path) -> None:
    # On a busy machine: running searches have an hour to end.
    options = ("--budget", "2000", "--strategy", "majority", "--concurrency", "1", "--grace", "3600")
    with process(toy_world.policy, tmp_path, *options) as served:
        found: dict[str, Any] = {}

        def ask(name: str) -> None:
            try:
                answer = served.client().chat.completions.create(
                    model="toy", messages=user("a"), temperature=2.0, extra_body={"budget": 8000}
                )
                found[name] = answer.choices[0].message.content
            except openai.APIStatusError as error:
                found[name] = error

        asking = [threading.Thread(target=ask, args=(name,)) for name in ("first", "second")]
        asking[0].start()
        served.wait_until('mcts_dpo_searches{state="active"}', 1)
        asking[1].start()
        served.wait_until('mcts_dpo_searches{state="waiting"}', 1)
        assert served.process is not None
        served.process.terminate()
        for one in asking:
            one.join()
        assert isinstance(found["first"], str)
        assert found["first"]
        assert isinstance(found["second"], openai.InternalServerError)
        assert found["second"].status_code == 503
        assert served.process.wait(600) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_interrupted_it_refuses_what_cannot_end_in_time(toy_world: ToyWorld, tmp_path: Path) -> None:
    with process(toy_world.policy, tmp_path, "--budget", "800", "--grace", "0.2") as served:
        assert served.process is not None

        def stop() -> None:
            served.wait_until('mcts_dpo_searches{state="active"}', 1)
            assert served.process is not None
            served.process.send_signal(signal.SIGINT)

        stopper = threading.Thread(target=stop)
        stopper.start()
        with pytest.raises(openai.InternalServerError, match="could not finish in time"):
            served.client().chat.completions.create(model="toy", messages=user("a"), **LONG)
        stopper.join()
        assert served.process.wait(600) == 130


def test_a_second_signal_ends_it_at_once(toy_world: ToyWorld, tmp_path: Path) -> None:
    with process(toy_world.policy, tmp_path, "--budget", "800", "--grace", "3000") as served:
        assert served.process is not None

        def stop() -> None:
            served.wait_until('mcts_dpo_searches{state="active"}', 1)
            assert served.process is not None
            while served.process.poll() is None:
                served.process.send_signal(signal.SIGINT)
                time.sleep(0.5)

        stopper = threading.Thread(target=stop)
        stopper.start()
        with pytest.raises(openai.APIConnectionError):
            served.client().chat.completions.create(model="toy", messages=user("a"), **LONG)
        stopper.join()
        assert served.process.wait(600) == 130
    assert "ended at once" in (tmp_path / "log").read_text()


def test_bad_command_lines_are_one_line(
    toy_world: ToyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str, policy: Path = toy_world.policy) -> str:
        monkeypatch.setattr("sys.argv", ["mcts-dpo", "serve", "-m", str(policy), *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr().err
        assert stop.value.code == 2
        assert said.count("\n") == 1
        return said

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"--host 127.0.0.1 --port {port}: cannot be used" in refused("--budget", "9", "--port", port)
    assert "needs a key: --key KEY" in refused("--budget", "9", "--host", "0.0.0.0")
    assert "needs a budget" in refused()
    assert "did you mean 'mcts'" in refused("--strategy", "mtcs", "--budget", "9")
    assert "no-such-model" in refused("--budget", "9", "--port", "0", policy=tmp_path / "no-such-model")
    hopeless = ("--budget", "9", "--port", "0", "search.reference_child=true")
    assert "a solving search cannot see a reference" in refused(*hopeless)
