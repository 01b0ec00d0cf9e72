"""The OpenAI client against our server, on the toy policy."""

from __future__ import annotations

import itertools
import json
import urllib.error
import urllib.request
from typing import Any

import openai
import pytest

from mcts_dpo.data import Problem
from mcts_dpo.engines import Engine, load_engine
from mcts_dpo.integrations.engine_thread import Decided, Job, Solved, Started
from mcts_dpo.integrations.server.settings import ServerSettings
from mcts_dpo.solve import STRATEGIES, Asked, OnlineSolver, Solution, Strategy
from mcts_dpo.toy.policy import toy_prompt
from tests.conftest import ToyWorld
from tests.integrations.serving import LONG, Served, stage, thread

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def engine(toy_world: ToyWorld) -> Engine:
    return load_engine(toy_world.policy, threads=1)


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def direct(engine: Engine, strategy: Strategy, question: str, seed: int, budget: int = 200, **search: Any) -> Solution:
    """The solution without any server."""
    solver = OnlineSolver(engine, 8)
    settings = stage(**search).search.model_copy(update={"seed": seed})
    solver.admit(0, Asked(Problem("question", question), toy_prompt(), settings, budget, strategy))
    found: list[Any] = []
    while solver.busy:
        found += solver.step()
    ((_, solution),) = found
    assert isinstance(solution, Solution)
    return solution


def test_chats_are_answered_by_search(server: Served, engine: Engine, toy_world: ToyWorld) -> None:
    client = server.client()
    for problem in toy_world.test[:4]:
        answer = client.chat.completions.create(model="toy", messages=user(problem.question), seed=5)
        solution = direct(engine, "mcts", problem.question, 5)
        (choice,) = answer.choices
        assert choice.message.content == solution.text
        assert choice.message.role == "assistant"
        assert choice.finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == solution.prompt_tokens
        assert answer.usage.completion_tokens == len(
            engine.tokenizer(solution.text, add_special_tokens=False)["input_ids"]
        )
        assert answer.usage.total_tokens == solution.prompt_tokens + solution.tokens
        details = answer.usage.completion_tokens_details
        assert details is not None
        assert details.reasoning_tokens == solution.tokens - answer.usage.completion_tokens
        assert details.model_extra == {"search_tokens": solution.tokens, "expansions": solution.expansions}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_serves(engine: Engine, toy_world: ToyWorld, strategy: Strategy) -> None:
    problems = toy_world.test[:5]
    with thread(engine, ServerSettings(strategy=strategy, budget=200), stage()) as served:
        client = served.client()
        streams = [
            client.chat.completions.create(model="toy", messages=user(p.question), seed=7, stream=True)
            for p in problems
        ]  # all at the same time
        texts = ["".join(chunk.choices[0].delta.content or "" for chunk in stream) for stream in streams]
        served.wait_until_idle()
    assert texts == [direct(engine, strategy, p.question, 7).text for p in problems]


def test_completions_continue_texts_as_they_are(server: Served, toy_world: ToyWorld) -> None:
    client = server.client()
    prompts = [problem.question + "\n" for problem in toy_world.test[:2]]
    chats = [client.chat.completions.create(model="toy", messages=user(p.strip()), seed=1, n=2) for p in prompts]
    answer = client.completions.create(model="toy", prompt=prompts, seed=1, n=2)
    said = [choice.message.content for chat in chats for choice in chat.choices]
    assert [choice.text for choice in answer.choices] == said, "the toy's template is the question and a line end"
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    usages = [chat.usage for chat in chats]
    assert answer.usage is not None
    assert answer.usage.total_tokens == sum(usage.total_tokens for usage in usages if usage)
    assert answer.usage.prompt_tokens == sum(usage.prompt_tokens for usage in usages if usage)
    stream = client.completions.create(model="toy", prompt=prompts[0], seed=1, stream=True)
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks) == answer.choices[0].text
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"


def test_a_stream_is_the_answer_in_steps(server: Served, toy_world: ToyWorld) -> None:
    client = server.client()
    ask: dict[str, Any] = {"model": "toy", "messages": user(toy_world.test[0].question), "seed": 3, "n": 2}
    whole = client.chat.completions.create(**ask)
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1
    for index, choice in enumerate(whole.choices):
        mine = [chunk.choices[0] for chunk in chunks[:-1] if chunk.choices[0].index == index]
        assert mine[0].delta.role == "assistant"
        pieces = [piece.delta.content for piece in mine if piece.delta.content]
        assert "".join(pieces) == choice.message.content
        assert all(piece.endswith("\n") for piece in pieces[:-1]), "one step after the other"
        assert [piece.finish_reason for piece in mine if piece.finish_reason] == [choice.finish_reason]


def test_moves_are_streamed_before_the_end(engine: Engine, toy_world: ToyWorld) -> None:
    moving = {"advance": "step", "expand": "step", "simulations": 4, "temperature": 1.5}
    questions = [problem.question for problem in toy_world.test[:6]]
    with thread(engine, ServerSettings(strategy="mcts", budget=600), stage(**moving)) as served:
        expected = [direct_text(served, question) for question in questions]
        service = served.service
        events: dict[str, list[Any]] = {question: [] for question in questions}
        for question in questions:
            settings = stage(**moving).search.model_copy(update={"seed": 2})
            asked = Asked(Problem("question", question), toy_prompt(), settings, 600)
            service.thread.submit(Job([asked], events[question].append, stream=True))
        served.wait_until_idle()
    assert sum(isinstance(event, Decided) for seen in events.values() for event in seen) >= 3
    for seen, text in zip(events.values(), expected, strict=True):
        assert isinstance(seen[0], Started)
        assert isinstance(seen[-1], Solved)
        assert seen[-1].text == text
        decided = ["".join(event.steps) for event in seen if isinstance(event, Decided)]
        assert all(text.startswith(beginning) for beginning in decided)
        assert decided == sorted(decided, key=len)


def direct_text(served: Served, question: str) -> str:
    """What the server streams, which must be what it answers as a whole."""
    ask: dict[str, Any] = {"model": "toy", "messages": user(question), "seed": 2}
    whole = served.client().chat.completions.create(**ask).choices[0].message.content
    stream = served.client().chat.completions.create(**ask, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == whole
    return text


def test_seeds_n_and_sampling(server: Served, toy_world: ToyWorld) -> None:
    client = server.client()
    ask: dict[str, Any] = {"model": "toy", "messages": user(toy_world.test[1].question), "temperature": 1.8}
    first = client.chat.completions.create(**ask, seed=11, n=4)
    again = client.chat.completions.create(**ask, seed=11, n=4)
    one = client.chat.completions.create(**ask, seed=11)
    assert [c.message.content for c in again.choices] == [c.message.content for c in first.choices]
    assert again.usage == first.usage
    assert one.choices[0].message.content == first.choices[0].message.content
    assert first.system_fingerprint == again.system_fingerprint
    few = {"budget": 40}  # so few tokens find another text each time
    said = {client.chat.completions.create(**ask, extra_body=few).choices[0].message.content for _ in range(4)}
    assert len(said) > 1, "without a seed every search is another"
    negative = client.chat.completions.create(**ask, seed=-5)
    assert negative.choices[0].message.content


def test_stop_budget_and_length(server: Served, toy_world: ToyWorld) -> None:
    client = server.client()
    ask: dict[str, Any] = {"model": "toy", "messages": user(toy_world.test[2].question), "seed": 4}
    whole = client.chat.completions.create(**ask).choices[0].message.content or ""
    assert "The answer" in whole
    stopped = client.chat.completions.create(**ask, stop=["The answer", "@"])
    text = stopped.choices[0].message.content or ""
    assert text
    assert "The" not in text
    assert stopped.choices[0].finish_reason == "stop"
    pieces = list(client.chat.completions.create(**ask, stop="The answer", stream=True))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == text
    short = client.chat.completions.create(**ask, max_completion_tokens=3)
    assert short.choices[0].finish_reason == "length"
    assert 1 <= short.usage.completion_tokens <= 3  # type: ignore[union-attr]
    hot = ask | {"temperature": 2.0}
    spent = [client.chat.completions.create(**hot, extra_body={"budget": budget}).usage for budget in (60, 400)]
    assert spent[0].completion_tokens_details.search_tokens <= 60  # type: ignore[union-attr]
    assert spent[1].completion_tokens_details.search_tokens > 100  # type: ignore[union-attr]


def test_conversations(server: Served, toy_world: ToyWorld) -> None:
    client = server.client()
    first, second = (problem.question for problem in toy_world.test[:2])
    turns: list[Any] = [
        {"role": "system", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": " right."}]},
        {"role": "user", "content": first},
        {"role": "assistant", "content": "The answer is 1."},
        {"role": "user", "content": second},
    ]
    answer = client.chat.completions.create(model="toy", messages=turns, seed=1)
    text = f"Be right.\n{first}\nThe answer is 1.\n{second}\n"
    plain = client.completions.create(model="toy", prompt=text, seed=1)
    assert answer.choices[0].message.content == plain.choices[0].text


WRONG: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"logprobs": True}, 400, "logprobs is not supported: a search finds the answer", "logprobs"),
    ({"top_logprobs": 3}, 400, "top_logprobs is not supported", "top_logprobs"),
    ({"frequency_penalty": 0.5}, 400, "frequency_penalty is not supported", "frequency_penalty"),
    ({"presence_penalty": 3}, 400, "presence_penalty: Input should be less than or equal to 2", "presence_penalty"),
    ({"logit_bias": {"5": 1}}, 400, "logit_bias is not supported", "logit_bias"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "the server has no tools", "tools"),
    ({"response_format": {"type": "json_object"}}, 400, "only text is written", "response_format"),
    ({"reasoning_effort": "high"}, 400, "`budget`", "reasoning_effort"),
    ({"model": "tox"}, 404, "The model 'tox' does not exist; this server has 'toy'", "model"),
    ({"messages": []}, 400, "messages: List should have at least 1 item", "messages"),
    ({"messages": [{"role": "tool", "content": "5", "tool_call_id": "1"}]}, 400, "messages.0.role", "messages.0.role"),
    ({"messages": [{"role": "assistant", "content": "5"}]}, 400, "roles come as assistant", "messages"),
    ({"messages": user(" ")}, 400, "an empty message", "messages"),
    ({"messages": user("a b " * 400)}, 400, "leaves no room in a context of 256", None),
    ({"temperature": 3}, 400, "temperature: Input should be less than or equal to 2", "temperature"),
    ({"top_p": 0}, 400, "top_p: Input should be greater than 0", "top_p"),
    ({"n": 0}, 400, "n: Input should be greater than or equal to 1", "n"),
    ({"seed": "x"}, 400, "seed: Input should be a valid integer", "seed"),
    ({"stop": ["a", ""]}, 400, "stop: accepted are up to 4 texts", "stop"),
    ({"extra_body": {"budget": 100_000}}, 400, "budget: 100000 (accepted: 1 to 800)", "budget"),
    ({"extra_body": {"seconds": 0}}, 400, "seconds: Input should be greater than 0", "seconds"),
    ({"extra_body": {"top_k": -1}}, 400, "top_k: Input should be greater than or equal to 0", "top_k"),
    ({"extra_body": {"budgt": 100}}, 400, "argument supplied: budgt; did you mean 'budget'?", "budgt"),
]


@pytest.mark.parametrize(("changes", "status", "message", "param"), WRONG, ids=[str(row[0])[:40] for row in WRONG])
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_done_is_refused(
    server: Served, changes: dict[str, Any], status: int, message: str, param: str | None, stream: bool
) -> None:
    ask: dict[str, Any] = {"model": "toy", "messages": user("a"), "stream": stream} | changes
    with pytest.raises(openai.APIStatusError) as caught:
        server.client().chat.completions.create(**ask)
    assert caught.value.status_code == status
    assert message in caught.value.body["message"]  # type: ignore[index]
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_what_asks_for_nothing_is_accepted(server: Served) -> None:
    neutral: dict[str, Any] = {
        "logprobs": False,
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "tools": [],
        "response_format": {"type": "text"},
        "user": "me",
        "metadata": {"a": "b"},
        "store": False,
    }
    answer = server.client().chat.completions.create(model="toy", messages=user("a"), stop=None, **neutral)
    assert answer.choices[0].finish_reason in ("stop", "length")
    with pytest.raises(openai.BadRequestError, match="logprobs is not supported"):
        server.client().completions.create(model="toy", prompt="a", logprobs=0)
    for wrong in ("", [], ["a", ""]):
        with pytest.raises(openai.BadRequestError, match="prompt: accepted are one or more texts"):
            server.client().completions.create(model="toy", prompt=wrong)
    with pytest.raises(openai.BadRequestError, match="prompt"):
        server.client().completions.create(model="toy", prompt=[1, 2, 3])


def test_models_health_and_unknown_paths(server: Served) -> None:
    client = server.client()
    assert [model.id for model in client.models.list()] == ["toy"]
    assert client.models.retrieve("toy").owned_by == "mcts-dpo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    with pytest.raises(openai.NotFoundError, match="Unknown request URL: POST /v1/embeddings"):
        client.embeddings.create(model="toy", input="a")
    with urllib.request.urlopen(f"{server.url}/health") as answer:
        assert json.load(answer) == {"status": "ok"}
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions", b"{nonsense", {"Content-Type": "application/json"}, method="POST"
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert json.load(caught.value)["error"]["message"].startswith("the body is not JSON")


def test_a_full_queue_says_when_to_come_again(engine: Engine) -> None:
    settings = ServerSettings(strategy="majority", budget=800, concurrency=4, queue=60)
    with thread(engine, settings, stage()) as served:
        client = served.client()
        stream = client.chat.completions.create(model="toy", messages=user("a"), stream=True, **LONG)
        served.wait_until('mcts_dpo_searches{state="active"}', 4)
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="toy", messages=user("a"))
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
        assert caught.value.type == "rate_limit_error"
        stream.close()
        served.wait_until_idle()
        patient = served.client(max_retries=5)
        assert patient.chat.completions.create(model="toy", messages=user("a"), extra_body={"budget": 20})
        counted = served.metrics()
    assert counted['mcts_dpo_requests_total{endpoint="chat",status="429"}'] == 1
    assert counted['mcts_dpo_requests_total{endpoint="chat",status="499"}'] == 1


def test_a_key_is_asked_for(engine: Engine) -> None:
    with thread(engine, ServerSettings(strategy="greedy", key="sesame\n"), stage()) as served:
        for key in ("none", "sesam", ""):
            with pytest.raises(openai.OpenAIError):
                served.client(api_key=key).models.list()
        request = urllib.request.Request(f"{served.url}/v1/models", headers={"Authorization": "Bearer wrong"})
        with pytest.raises(urllib.error.HTTPError, match="401") as caught:
            urllib.request.urlopen(request)
        assert json.load(caught.value)["error"]["code"] == "invalid_api_key"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            served.metrics()
        with urllib.request.urlopen(f"{served.url}/health") as answer:
            assert answer.status == 200
    with thread(engine, ServerSettings(strategy="greedy", key="sesame"), stage()) as served:
        assert served.client(api_key="sesame").chat.completions.create(model="toy", messages=user("a"))
        assert served.metrics("sesame")["mcts_dpo_requests_in_flight"] == 0


def test_an_engine_that_fails_takes_the_server_down_and_says_so(toy_world: ToyWorld) -> None:
    engine = load_engine(toy_world.policy, threads=1)
    with thread(engine, ServerSettings(strategy="greedy"), stage()) as served:
        del engine._model  # type: ignore[attr-defined]
        with pytest.raises(openai.InternalServerError, match="the engine has failed") as caught:
            served.client().chat.completions.create(model="toy", messages=user("a"))
        assert caught.value.type == "server_error"
        assert "AttributeError" in served.service.thread.broken


def test_questions_that_the_policy_has_no_words_for(toy_world: ToyWorld, engine: Engine) -> None:
    chat = stage().model_copy(update={"prompt": toy_prompt().model_copy(update={"style": "chat"})})
    with (
        thread(engine, ServerSettings(strategy="greedy"), chat) as served,
        pytest.raises(openai.BadRequestError, match="no chat template"),
    ):
        served.client().chat.completions.create(model="toy", messages=user("a"))


def test_every_combination_of_stream_and_n_ends_whole(server: Served) -> None:
    for stream, n in itertools.product((False, True), (1, 3)):
        answer = server.client().chat.completions.create(
            model="toy",
            messages=user("Ann has 3 cups. She buys 2 more. How many cups does she have?"),
            n=n,
            stream=stream,
        )
        ended = (
            [c.finish_reason for chunk in answer for c in chunk.choices]
            if stream
            else [
                c.finish_reason
                for c in answer.choices  # type: ignore[union-attr]
            ]
        )
        assert len([one for one in ended if one]) == n
