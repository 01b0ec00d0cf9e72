"""An error of one request refuses that request alone: the server and other requests continue."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from mcts_dpo.engines import Engine, load_engine
from mcts_dpo.engines.base import Completion, Request
from mcts_dpo.engines.coroutine import Coroutine, call, completions
from mcts_dpo.integrations.server.settings import ServerSettings
from mcts_dpo.search import mcts
from mcts_dpo.solve import Question, Solution, register_strategy, registry
from mcts_dpo.solve.budgets import BudgetedSettings
from tests.conftest import CHAT as TEMPLATE
from tests.conftest import ToyWorld
from tests.integrations.server.raw_requests import CHAT, COMPLETIONS, ask, chat, is_served, post
from tests.integrations.serving import Served, stage, thread

pytestmark = pytest.mark.filterwarnings("ignore")
HALF = "\ud800"

HALVES: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, chat(f"a{HALF}"), "messages.0.content"),
    (CHAT, chat([{"type": "text", "text": f"{HALF}b"}]), "messages.0.content.0.text"),
    (CHAT, chat(stop="\udfff"), "stop"),
    (CHAT, chat(stop=["a", HALF]), "stop.1"),
    (CHAT, chat(user=HALF), "user"),
    (CHAT, chat(metadata={"a": [{"b": HALF}]}), "metadata.a.0.b"),
    (CHAT, chat(**{f"x{HALF}": 1}), "x\\ud800"),
    (CHAT, {"model": HALF, "messages": []}, "model"),
    (
        CHAT,
        {"model": "toy", "messages": [{"role": "system", "content": HALF}, *chat()["messages"]]},
        "messages.0.content",
    ),
    (COMPLETIONS, {"model": "toy", "prompt": HALF}, "prompt"),
    (COMPLETIONS, {"model": "toy", "prompt": ["a", f"{HALF}{HALF}"]}, "prompt.1"),
    (COMPLETIONS, {"model": "toy", "prompt": "a", "stop": [f"b{HALF}"]}, "stop.0"),
]


@pytest.mark.parametrize(("path", "body", "field"), HALVES, ids=[f"{row[0][4:8]}-{row[2]}" for row in HALVES])
@pytest.mark.parametrize("stream", [False, True])
def test_half_of_a_surrogate_pair_is_refused_with_its_field(
    server: Served, path: str, body: dict[str, Any], field: str, stream: bool
) -> None:
    status, said = ask(server, body | {"stream": stream}, path, timeout=600)
    assert status == 400
    assert said["error"]["param"] == field
    assert field in said["error"]["message"]
    assert is_served(server)


ODD: list[tuple[bytes, str, str]] = [
    (b"{nonsense", "body", "the body is not JSON"),
    (b"", "body", "the body is not JSON"),
    (b"\xff\xfe{", "body", "the body is not JSON"),
    (b'{"model": "\xed\xa0\x80"}', "body", "the body is not JSON"),
    (b"[" * 200_000, "body", "the body is not JSON"),
    (b'{"a": ' * 100_000, "body", "the body is not JSON"),
    (b'{"model": "toy", "seed": ' + b"9" * 5000 + b"}", "body", "the body is not JSON"),
    (b"[1]", "body", "must be a JSON object"),
    (b'{"model": "toy", "prompt": "a", "": 1}', "''", "Unrecognized request argument"),
    (b'{"model": "toy", "prompt": "a", "a\\nb\\u0000": 1}', "a\\nb\\x00", "Unrecognized request argument"),
    (b'{"model": "toy", "prompt": "a", "' + b"k" * 500_000 + b'": 1}', "k" * 60 + "…", "Unrecognized request"),
    (b'{"model": "toy", "prompt": "a", "stream": "true"}', "stream", "stream: Input should be a valid boolean"),
    (b'{"model": "toy", "prompt": "a", "stream": 1}', "stream", "stream: Input should be a valid boolean"),
    (
        b'{"model": "toy", "prompt": "a", "stream_options": {"include_usage": "true"}}',
        "stream_options.include_usage",
        "",
    ),
    (b'{"model": "toy", "prompt": "a", "stream_options": []}', "stream_options", "stream_options: Input should be"),
    (b'{"model": "toy", "prompt": "a", "stop": {"str": 1}}', "stop", "stop: "),
    (b'{"model": "toy", "prompt": "a", "stop": ["a", 1]}', "stop", "stop: "),
    (b'{"model": "toy", "prompt": "a", "temperature": NaN}', "temperature", "temperature: "),
    (b'{"model": "toy", "prompt": "a", "n": 1e400}', "n", "n: "),
    (b'{"model": "toy", "prompt": "a", "budget": 1' + b"0" * 4000 + b"}", "budget", "budget: "),
]


@pytest.mark.parametrize(("body", "field", "message"), ODD, ids=[str(row[0])[:60] for row in ODD])
def test_what_is_no_request_is_refused_with_its_field(server: Served, body: bytes, field: str, message: str) -> None:
    status, said = post(server, COMPLETIONS, body, timeout=600)
    assert status == 400
    assert said["error"]["param"] == field
    assert message in said["error"]["message"]
    assert len(said["error"]["message"]) < 400
    assert said["error"]["message"].isprintable()


def test_large_numbers_are_no_trouble(server: Served) -> None:
    for fields in ({"seed": 10**4000}, {"seed": -(10**300)}, {"max_tokens": 10**4000}, {"temperature": 1e-300}):
        assert ask(server, chat("a", budget=20, **fields))[0] == 200


def with_template(engine: Engine, template: str) -> Engine:
    engine.tokenizer.chat_template = template
    return engine


@pytest.fixture(scope="module")
def engine(toy_world: ToyWorld) -> Engine:
    return load_engine(toy_world.policy, threads=1)


@pytest.fixture(params=["mcts", "greedy"])
def picky(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Served]:
    """A server whose chat template raises at some messages what Python raises, not what Jinja does."""
    trap = "{% if 'boom' in messages[-1]['content'] %}{{ 1 // 0 }}{% endif %}"
    trap += "{% if 'bang' in messages[-1]['content'] %}{{ 'a' + 1 }}{% endif %}"
    config = stage()
    config = config.model_copy(update={"prompt": config.prompt.model_copy(update={"style": "chat"})})
    settings = ServerSettings(strategy=request.param, budget=200)
    with thread(with_template(engine, trap + TEMPLATE), settings, config) as served:
        yield served


@pytest.mark.parametrize("word", ["boom", "bang"])
def test_a_chat_template_that_raises_refuses_its_request_alone(picky: Served, word: str) -> None:
    found: list[bool] = []
    others = [threading.Thread(target=lambda: found.append(is_served(picky, n=4))) for _ in range(3)]
    for one in others:
        one.start()
    for stream in (False, True):
        status, said = ask(picky, chat(word, stream=stream, n=3), timeout=600)
        assert status == 400
        assert said["error"]["param"] == "messages"
    for one in others:
        one.join(600)
    assert found == [True] * 3
    assert is_served(picky)
    picky.wait_until_idle()


class Refusing:
    """An engine that raises at every request whose prompt begins with one token, and serves all others."""

    def __init__(self, engine: Engine, token: int) -> None:
        self._engine, self._token = engine, token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def submit(self, request: Request) -> None:
        if request.prefix[0] == self._token:
            raise ZeroDivisionError("of this request")
        self._engine.submit(request)

    def poll(self, patience: float | None = None) -> Sequence[Completion]:
        return self._engine.poll(patience)


@pytest.mark.parametrize("strategy", ["mcts", "majority"])
def test_a_request_that_the_engine_raises_at_fails_alone(engine: Engine, strategy: str) -> None:
    (token,) = engine.tokenizer("Z", add_special_tokens=False)["input_ids"]
    refusing: Any = Refusing(engine, token)
    with thread(refusing, ServerSettings(strategy=strategy, budget=200), stage()) as served:
        status, said = ask(served, chat("Z", n=2), timeout=600)
        assert status == 500
        assert "ZeroDivisionError: of this request" in said["error"]["message"]
        assert is_served(served)
        served.wait_until_idle()


def test_a_value_model_that_raises_fails_its_request_alone(engine: Engine) -> None:
    """It is asked in a thread, of the searches of several requests together."""

    def values(prefixes: Sequence[str]) -> list[float]:
        return [1 / len(prefix.removeprefix("boom")) for prefix in prefixes]

    def judged(question: Question, settings: BudgetedSettings) -> Coroutine[Solution]:
        request = question.sample((), 1, settings.budget, stop=question.prompt.stop)
        (completion,) = yield from completions([request])
        yield from call(values, [question.problem.question])
        return Solution(text=completion.samples[0].text, tokens=1)

    register_strategy("judged", judged)
    try:
        with thread(engine, ServerSettings(strategy="judged", budget=50), stage()) as served:
            found: list[bool] = []
            others = [threading.Thread(target=lambda: found.append(is_served(served, n=8))) for _ in range(3)]
            for one in others:
                one.start()
            status, said = ask(served, chat("boom", n=8), timeout=600)
            assert status == 500
            assert "ZeroDivisionError" in said["error"]["message"]
            for one in others:
                one.join(600)
            assert found == [True] * 3
            assert is_served(served)
            served.wait_until_idle()
    finally:
        del registry._FUNCTIONS["judged"]


def test_a_strategy_that_raises_fails_alone(engine: Engine) -> None:
    def fragile(question: Question, settings: BudgetedSettings) -> Coroutine[Solution]:
        request = question.sample((), 1, settings.budget, stop=question.prompt.stop)
        (completion,) = yield from completions([request])
        if question.problem.question == "boom":
            raise KeyError("in the middle")
        return Solution(text=completion.samples[0].text, tokens=1)

    register_strategy("fragile", fragile)
    try:
        with thread(engine, ServerSettings(strategy="fragile", budget=50), stage()) as served:
            status, said = ask(served, chat("boom"), timeout=600)
            assert status == 500
            assert "in the middle" in said["error"]["message"]
            assert is_served(served)
    finally:
        del registry._FUNCTIONS["fragile"]


def test_the_tree_search_that_raises_fails_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    verify = mcts.verify

    def fragile(state: Any, tree: Any, new: Any) -> Any:
        if tree.problem.question == "boom":
            raise KeyError("in the middle")
        return verify(state, tree, new)

    monkeypatch.setattr(mcts, "verify", fragile)
    with thread(engine, ServerSettings(budget=200), stage()) as served:
        status, said = ask(served, chat("boom", n=2), timeout=600)
        assert status == 500
        assert "in the middle" in said["error"]["message"]
        assert is_served(served)
        served.wait_until_idle()
