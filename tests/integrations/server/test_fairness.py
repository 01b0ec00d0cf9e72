"""Work is shared: who asks for much takes turns with who asks for little."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack, closing
from typing import Any

import openai
import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.engines import Engine, load_engine
from mcts_dpo.integrations.server.settings import ServerSettings
from tests.conftest import ToyWorld
from tests.integrations.server.raw_requests import CHAT, COMPLETIONS, ask, chat, connect, head, is_served
from tests.integrations.serving import stage, thread

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def engine(toy_world: ToyWorld) -> Engine:
    return load_engine(toy_world.policy, threads=1)


def test_three_large_requests_do_not_starve_small_ones(toy_world: ToyWorld) -> None:
    settings = ServerSettings(strategy="majority", budget=200, max_budget=4096, queue=400)
    large = json.dumps(chat("a", n=128, budget=4096, temperature=2.0)).encode()
    with thread(load_engine(toy_world.policy, threads=1, slots=16), settings, stage()) as served, ExitStack() as open_:
        for _ in range(3):
            line = open_.enter_context(closing(connect(served)))
            line.sendall(head(CHAT, len(large)) + large)
        served.wait_until('mcts_dpo_searches{state="waiting"}', 250)
        found: list[bool] = []
        small = [threading.Thread(target=lambda: found.append(is_served(served, budget=60))) for _ in range(6)]
        for one in small:
            one.start()
        for one in small:
            one.join(600)
        assert found == [True] * 6
        held = served.held()
        left = held['mcts_dpo_searches{state="active"}'] + held['mcts_dpo_searches{state="waiting"}']
        assert left > 250, "the large ones are not done"


def test_a_client_that_has_nothing_here_finds_room_in_a_full_queue(engine: Engine) -> None:
    settings = ServerSettings(strategy="majority", budget=800, concurrency=4, queue=60)
    with thread(engine, settings, stage()) as served:
        client = served.client(api_key="greedy")
        large: dict[str, Any] = {"n": 64, "temperature": 2.0, "extra_body": {"budget": 800}}
        message: list[Any] = [{"role": "user", "content": "a"}]
        with closing(client.chat.completions.create(model="toy", messages=message, stream=True, **large)):
            served.wait_until('mcts_dpo_searches{state="active"}', 4)
            with pytest.raises(openai.RateLimitError):
                client.chat.completions.create(model="toy", messages=message, extra_body={"budget": 20})
            other = served.client(api_key="patient")
            assert other.chat.completions.create(model="toy", messages=message, extra_body={"budget": 20})
        served.wait_until_idle()


def test_the_work_of_one_request_is_limited(engine: Engine) -> None:
    with thread(engine, ServerSettings(budget=100, max_budget=400, max_work=1000), stage()) as served:
        assert ask(served, chat("a", n=10))[0] == 200
        for body, path in (
            (chat("a", n=11), "/v1/chat/completions"),
            (chat("a", n=3, budget=400), "/v1/chat/completions"),
        ):
            status, said = ask(served, body, path)
            assert (status, said["error"]["param"]) == (400, "n")
            assert "tokens (accepted: up to 1000)" in said["error"]["message"]
        prompts = {"model": "toy", "prompt": ["a", "b", "c", "d"], "n": 3}
        assert ask(served, prompts, COMPLETIONS)[1]["error"]["message"].startswith("n × budget: 12 × 100 = 1200 tokens")
    with pytest.raises(InputError, match="max_work 50 is below the budget 100"):
        load_settings(ServerSettings, {"budget": 100, "max_work": 50})
