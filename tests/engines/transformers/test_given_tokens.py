"""Log-probabilities of given tokens, against a plain forward pass of transformers on tiny random models."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.driving import complete
from mcts_dpo.engines import Completion, EngineSettings, Occupancy, Request, load_engine
from mcts_dpo.engines.transformers import engine as engine_module
from mcts_dpo.engines.transformers.engine import TransformersEngine
from mcts_dpo.models.loading import load_model, load_tokenizer
from tests.engines.tiny import VOCABULARY, plain_logprobs, plain_model, save_model

PREFIX = tuple(range(10, 40))


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3", "mistral"])
def each_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


def engine_for(model: Path, **settings: object) -> TransformersEngine:
    engine = load_engine(model, EngineSettings(slots=8, threads=1), **settings)
    assert isinstance(engine, TransformersEngine)
    return engine


def given_requests(count: int) -> list[Request]:
    rng = np.random.default_rng(7)

    def tokens(most: int) -> tuple[int, ...]:
        return tuple(rng.integers(2, VOCABULARY, rng.integers(1, most)).tolist())

    return [Request(id=i, prefix=PREFIX + tokens(20) if i % 2 else tokens(30), given=tokens(60)) for i in range(count)]


def test_given_tokens_equal_a_plain_forward(each_model: Path) -> None:
    plain, requests = plain_model(each_model), given_requests(12)
    for request, completion in zip(requests, complete(engine_for(each_model), requests), strict=True):
        assert completion.error is None
        assert request.given is not None
        expected = plain_logprobs(plain, tuple(request.prefix), request.given)
        np.testing.assert_allclose(completion.logprobs, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sampled_tokens_have_the_same_log_probabilities_when_given(llama: Path, dtype: str) -> None:
    engine = engine_for(llama, dtype=dtype)
    (sampled,) = complete(engine, [Request(id=0, prefix=PREFIX, n=6, max_tokens=40, temperature=0.7, seed=3)])
    given = [Request(id=i, prefix=PREFIX, given=sample.tokens) for i, sample in enumerate(sampled.samples)]
    for sample, completion in zip(sampled.samples, complete(engine, given), strict=True):
        assert completion.logprobs == sample.logprobs


def test_many_given_tokens_take_several_steps_and_give_the_same(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = given_requests(6)
    whole = complete(engine_for(llama), requests)
    monkeypatch.setattr(engine_module, "_GIVEN", 7)
    assert complete(engine_for(llama), requests) == whole


def test_only_the_given_tokens_are_computed_and_they_are_cached(llama: Path) -> None:
    engine = engine_for(llama)
    complete(engine, [Request(id=0, prefix=PREFIX, max_tokens=1)])
    given = (5, 6, 7, 8, 9)
    assert engine.usage.prefill_tokens == 30
    complete(engine, [Request(id=1, prefix=PREFIX, given=given)])
    assert engine.usage.prefill_tokens == 30 + 1 + 4  # the prefix's last token runs again; the last given token never
    complete(engine, [Request(id=2, prefix=(*PREFIX, *given), max_tokens=1)])
    assert engine.usage.prefill_tokens == 35 + 1
    assert engine.usage.prompt_tokens == 30 + 34 + 35


def test_given_tokens_do_not_depend_on_the_batch(llama: Path) -> None:
    requests = given_requests(5)
    alone = [complete(engine_for(llama), [request])[0] for request in requests]
    others = [Request(id=100 + i, prefix=PREFIX, n=2, max_tokens=9, seed=i) for i in range(5)]
    others += [Request(id=200 + i, prefix=PREFIX, choices=((i + 3,), (4, 5))) for i in range(5)]
    together = complete(engine_for(llama), [*others, *requests])[len(others) :]
    assert together == alone


def test_little_memory_gives_the_same(llama: Path) -> None:
    tight, requests = engine_for(llama, memory=1e-9, context=120, slots=2), given_requests(12)
    for one, other in zip(complete(tight, requests), complete(engine_for(llama), requests), strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)


def test_a_cancelled_request_leaves_nothing(llama: Path) -> None:
    engine = engine_for(llama)
    for request in given_requests(4):
        engine.submit(request)
    engine.cancel([0, 2])
    assert {completion.id for completion in engine.poll() + engine.poll()} == {1, 3}
    assert engine.occupancy() == Occupancy(0)


def test_nan_logits_fail_the_request(llama: Path) -> None:
    model = load_model(llama, "float32")
    with torch.no_grad():
        model.get_input_embeddings().weight[50] = torch.nan
    engine = TransformersEngine(model, load_tokenizer(llama), EngineSettings(slots=4, threads=1))
    poisoned, fine = complete(
        engine, [Request(id=0, prefix=(4, 5), given=(6, 7, 50, 8, 9)), Request(id=1, prefix=(4, 5), given=(6, 7, 50))]
    )
    assert poisoned.error == "the model's logits after 5 tokens are NaN or infinite"
    assert poisoned.final
    assert len(fine.logprobs) == 3
    assert engine.occupancy() == Occupancy(0)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"given": ()}, "given: empty (accepted: at least one token)"),
        ({"given": (5, VOCABULARY)}, f"given: token {VOCABULARY} is not in the vocabulary of {VOCABULARY}"),
        ({"given": (5,) * 127}, "given: with the prefix there are 129 tokens, more than the context of 128"),
        ({"given": (5,), "choices": ((5,),)}, "given: choices are set too (accepted: one of the two)"),
    ],
)
def test_what_cannot_be_scored_is_answered_with_an_error(llama: Path, changes: dict[str, object], error: str) -> None:
    (completion,) = complete(engine_for(llama), [dataclasses.replace(Request(id=0, prefix=(4, 5)), **changes)])
    assert completion == Completion(0, error=error, final=True)


def test_a_closed_engine_answers_with_an_error(llama: Path) -> None:
    engine = engine_for(llama)
    engine.submit(Request(id=0, prefix=(4, 5)))
    engine.close()
    engine.close()
    engine.submit(Request(id=1, prefix=(4, 5)))
    assert [(one.id, one.error, one.final) for one in engine.poll()] == [
        (0, "the engine is closed", False),
        (1, "the engine is closed", False),
    ]
    assert engine.occupancy() == Occupancy(0)
