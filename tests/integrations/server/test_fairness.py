"""Work is shared: who asks for much takes turns with who asks for little."""

from __future__ import annotations

import json
import threading
from collections import Counter
from contextlib import ExitStack, closing
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.engines import Engine, load_engine
from mcts_dpo.integrations.server.line import Line, extra_places
from mcts_dpo.integrations.server.settings import ServerSettings
from tests.conftest import ToyWorld
from tests.integrations.server.asking import CHAT, COMPLETIONS, answered, ask, chat, connect, head
from tests.integrations.serving import stage, thread

pytestmark = pytest.mark.filterwarnings("ignore")
acts = st.lists(
    st.tuples(st.sampled_from("atedx"), st.integers(0, 7), st.integers(1, 5), st.integers(1, 900)), max_size=60
)


@given(acts, st.integers(1, 9), st.integers(1, 300))
def test_places_are_never_overdrawn_and_nothing_is_forgotten(
    acts: list[tuple[str, int, int, int]], places: int, unit: int
) -> None:
    line: Line[str] = Line(places, unit)
    budgets: dict[str, list[int]] = {}
    active: set[tuple[str, int]] = set()
    waiting: set[tuple[str, int]] = set()

    def start() -> bool:
        found = line.take()
        if found is None:
            return False
        waiting.remove(found)
        active.add(found)
        return True

    for number, (act, who, count, budget) in enumerate(acts):
        if act == "a":
            job = f"{who}-{number}"
            budgets[job] = [budget] * count
            line.add(job, str(who % 3), budgets[job])
            waiting |= {(job, index) for index in range(count)}
        elif act == "t":
            start()
        elif act == "e" and active:
            one = sorted(active)[who % len(active)]
            active.remove(one)
            line.end(*one)
            line.end(*one)  # twice is no error
        elif act == "d" and budgets:
            job = sorted(budgets)[who % len(budgets)]
            left, under_way = line.drop(job)
            assert left == sum(one[0] == job for one in waiting)
            assert {(job, index) for index in under_way} == {one for one in active if one[0] == job}
            waiting, active = ({one for one in some if one[0] != job} for some in (waiting, active))
        assert (line.waiting, line.active) == (len(waiting), len(active))
        assert line.active <= places + extra_places(places)
        assert set(line.jobs) == {job for job, _ in waiting | active}
        assert all(line.under_way(*one) for one in active)
    while waiting or active:  # whatever came before, all have their turn
        if not start():
            assert active, "nothing is under way and yet nothing starts"
            one = active.pop()
            line.end(*one)
    assert line.jobs == []


@pytest.mark.parametrize("clients", [("one", "other"), ("same", "same")])
def test_work_is_shared_by_tokens(clients: tuple[str, str]) -> None:
    line: Line[str] = Line(8, 100)
    line.add("heavy", clients[0], [400] * 500)
    line.add("light", clients[1], [50] * 4000)
    work: Counter[str] = Counter()
    running: list[tuple[str, int]] = []
    for _ in range(600):
        while (found := line.take()) is not None:
            running.append(found)
            work[found[0]] += 400 if found[0] == "heavy" else 50
        line.end(*running.pop(0))
    assert abs(work["heavy"] - work["light"]) <= 900


def test_who_comes_late_neither_waits_for_the_past_nor_profits_from_it() -> None:
    line: Line[str] = Line(4, 100)
    line.add("old", "a", [100] * 1000)
    running = []
    for _ in range(300):
        while (found := line.take()) is not None:
            running.append(found)
        line.end(*running.pop(0))
    line.add("new", "b", [100] * 1000)
    work: Counter[str] = Counter()
    for _ in range(200):
        while (found := line.take()) is not None:
            running.append(found)
            work[found[0]] += 1
        line.end(*running.pop(0))
    assert abs(work["old"] - work["new"]) <= 4


def test_many_small_requests_do_not_starve_a_large_one() -> None:
    line: Line[str] = Line(4, 100)
    line.add("large", "a", [100] * 200)
    running: list[tuple[str, int]] = []
    started = 0
    for number in range(2000):
        line.add(f"small {number}", "a", [100])
        while (found := line.take()) is not None:
            running.append(found)
            started += found[0] == "large"
        line.end(*running.pop(0))
    assert started >= 20


@pytest.fixture(scope="module")
def engine(toy_world: ToyWorld) -> Engine:
    return load_engine(toy_world.policy, threads=1)


def test_three_large_requests_starve_nobody(toy_world: ToyWorld) -> None:
    settings = ServerSettings(strategy="majority", budget=200, max_budget=4096, queue=400)
    large = json.dumps(chat("a", n=128, budget=4096, temperature=2.0)).encode()
    with thread(load_engine(toy_world.policy, threads=1, slots=16), settings, stage()) as served, ExitStack() as open_:
        for _ in range(3):
            line = open_.enter_context(closing(connect(served)))
            line.sendall(head(CHAT, len(large)) + large)
        served.wait_until('mcts_dpo_searches{state="waiting"}', 250)
        found: list[bool] = []
        small = [threading.Thread(target=lambda: found.append(answered(served, budget=60))) for _ in range(6)]
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
