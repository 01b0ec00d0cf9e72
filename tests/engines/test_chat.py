"""The client of chat APIs over real connections: it is patient within its time, and nothing a server does harms it."""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import Any

import pytest

from mcts_dpo.engines.chat import ALTERNATIVES, ChatAnswer, ChatClient
from tests.engines.chat_server import Body, asked, chat_server, said


def client(url: str, **options: Any) -> ChatClient:
    given = {"model": "judge", "key": "secret", "timeout": 20.0, "concurrency": 4} | options
    return ChatClient("search.rewards.judge", url=url, **given)


def answers(chat: ChatClient, texts: list[str]) -> list[ChatAnswer | None]:
    return chat.submit(texts, lambda answer: answer).result()


def test_each_text_gets_its_answer_with_its_tokens() -> None:
    def answer(body: Body) -> Body:
        return said(asked(body).upper(), [("A", {"A": 0.75, "B": 0.25})] if asked(body) == "a" else None)

    with chat_server(answer) as server:
        chat = client(server.url, max_tokens=7, temperature=0.0)
        first, second = answers(chat, ["a", "b"])
        chat.close()
    assert first is not None
    assert second is not None
    assert (first.text, second.text, second.tokens) == ("A", "B", ())
    (token,) = first.tokens
    assert token.text == "A"
    assert token.alternatives == pytest.approx({"A": math.log(0.75), "B": math.log(0.25)})
    assert server.keys == {"Bearer secret"}
    for body in server.seen:
        assert (body["model"], body["max_tokens"], body["temperature"]) == ("judge", 7, 0.0)
        assert (body["logprobs"], body["top_logprobs"]) == (True, ALTERNATIVES)


def test_an_api_without_log_probabilities_is_asked_without() -> None:
    def answer(body: Body) -> Any:
        if "logprobs" in body or asked(body) == "too long":
            return 400, {"error": {"message": "not supported", "param": "logprobs"}}
        return said("Yes")

    with chat_server(answer) as server:
        chat = client(server.url)
        assert answers(chat, ["too long"]) == [None]
        assert [one and one.text for one in answers(chat, ["a"])] == ["Yes"]
        refused = len(server.seen)
        assert all(answers(chat, ["b", "c"]))
        assert len(server.seen) == refused + 2, "it does not ask for them again"
        assert answers(chat, ["too long"]) == [None]
        chat.close()


def test_only_so_many_requests_at_a_time() -> None:
    def answer(body: Body) -> Body:
        time.sleep(0.05)
        return said("Yes")

    with chat_server(answer) as server:
        chat = client(server.url, concurrency=3)
        threads = [threading.Thread(target=answers, args=(chat, ["a"] * 6)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        chat.close()
    assert len(server.seen) == 12
    assert server.most == 3


HOSTILE: dict[str, Any] = {
    "html": b"<html>I am a teapot</html>",
    "half": b'{"choices": [{"mess',
    "nothing": b"",
    "list": [1, 2],
    "null": b"null",
    "no choices": {"choices": []},
    "choices of numbers": {"choices": [7]},
    "no message": {"choices": [{"index": 0}]},
    "no content": said(None),
    "content of numbers": said([1, 2]),
    "an error with status 200": {"error": {"message": "overloaded"}},
    "forbidden": (403, {"error": {"message": "no"}}),
    "not found": (404, b"nope"),
    "deep": b"[" * 100_000,
}


def test_a_page_is_told_from_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    with chat_server(lambda _: HOSTILE["html"]) as server:
        chat = client(server.url)
        assert answers(chat, ["a"]) == [None]
        chat.close()
    assert "the answer is no chat completion; does the address end with the API's version" in caplog.text


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_answer_is_none(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with chat_server(lambda body: said("Yes") if asked(body) == "good" else HOSTILE[name]) as server:
        chat = client(server.url)
        with caplog.at_level(logging.WARNING):
            assert [one and one.text for one in answers(chat, ["bad", "good", "bad"])] == [None, "Yes", None]
        chat.close()
    (record,) = caplog.records
    assert record.getMessage().startswith(f"search.rewards.judge: {server.url} gives no answer: ")
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize(
    "logprobs",
    [7, {}, {"content": 7}, {"content": [{}]}, {"content": [{"token": "Yes", "logprob": 3.0, "top_logprobs": []}]},
     {"content": [{"token": "Yes", "logprob": "high", "top_logprobs": []}]},
     {"content": [{"token": None, "logprob": -1.0, "top_logprobs": []}]},
     {"content": [{"token": "Yes", "logprob": -1.0, "top_logprobs": None}]}],
)  # fmt: skip
def test_log_probabilities_that_are_none_leave_the_text(logprobs: Any) -> None:
    body = said("Yes")
    body["choices"][0]["logprobs"] = logprobs
    with chat_server(lambda _: body) as server:
        chat = client(server.url)
        (answer,) = answers(chat, ["a"])
        chat.close()
    assert answer is not None
    assert (answer.text, answer.tokens) == ("Yes", ())


def test_a_server_that_is_late_busy_or_gone(caplog: pytest.LogCaptureFixture) -> None:
    go, busy = threading.Event(), ["first"]

    def answer(body: Body) -> Any:
        if asked(body) == "late":
            go.wait(60.0)
        if asked(body) == "busy" and busy:
            busy.pop()
            return 503, {"error": {"message": "later"}}
        return said("Yes")

    with chat_server(answer) as server:
        chat = client(server.url, timeout=3.0)
        begun = time.monotonic()
        late, good, retried = answers(chat, ["late", "good", "busy"])
        assert time.monotonic() - begun < 30.0
        go.set()
        assert late is None
        assert good is not None
        assert retried is not None
        chat.close()
    gone = client("http://127.0.0.1:9/v1")
    assert answers(gone, ["good"]) == [None]
    gone.close()
    assert [message.rpartition("(")[2] for message in caplog.messages] == ["TimeoutError)", "APIConnectionError)"]
    assert "not within 3 s" in caplog.messages[0]
