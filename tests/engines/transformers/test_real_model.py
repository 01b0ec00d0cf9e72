"""The transformers engine on SmolLM2-135M-Instruct: real tokenizer, real weights, real stops."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.driving import complete
from mcts_dpo.engines import Request, load_engine
from mcts_dpo.engines.transformers.engine import TransformersEngine
from tests.engines.tiny import plain_logprobs, plain_model

pytestmark = pytest.mark.real_model


@pytest.fixture(scope="module")
def engine(smollm2: Path) -> TransformersEngine:
    made = load_engine(smollm2, slots=12, dtype="float32", threads=1, context=512)
    assert isinstance(made, TransformersEngine)
    return made


def test_greedy_equals_generate(engine: TransformersEngine, prompts: list[tuple[int, ...]], smollm2: Path) -> None:
    plain = plain_model(smollm2)
    requests = [Request(id=i, prefix=prompt, max_tokens=24, temperature=0.0) for i, prompt in enumerate(prompts)]
    for request, completion in zip(requests, complete(engine, requests), strict=True):
        expected = plain.generate(torch.tensor([request.prefix]), max_new_tokens=24, do_sample=False)
        assert list(completion.samples[0].tokens) == expected[0, len(request.prefix) :].tolist()
        np.testing.assert_allclose(
            completion.samples[0].logprobs,
            plain_logprobs(plain, tuple(request.prefix), completion.samples[0].tokens),
            atol=1e-4,
            rtol=0,
        )


def test_logprobs_of_samples_equal_a_plain_forward(
    engine: TransformersEngine, prompts: list[tuple[int, ...]], smollm2: Path
) -> None:
    plain = plain_model(smollm2)
    requests = [
        Request(id=i, prefix=prompt, n=3, max_tokens=40, temperature=1.0, top_p=0.95, seed=i)
        for i, prompt in enumerate(prompts)
    ]
    for request, completion in zip(requests, complete(engine, requests), strict=True):
        for sample in completion.samples:
            expected = plain_logprobs(plain, tuple(request.prefix), sample.tokens)
            np.testing.assert_allclose(sample.logprobs, expected, atol=1e-4, rtol=0)


def test_samples_stop_and_share(engine: TransformersEngine, prompts: list[tuple[int, ...]]) -> None:
    engine.reset()
    before = engine.usage.copy()
    requests = [
        Request(id=i, prefix=prompt, n=4, max_tokens=20, temperature=0.8, seed=i, stop=("\n", ". "))
        for i, prompt in enumerate(prompts)
    ]
    completions = complete(engine, requests)
    finishes = {sample.finish for completion in completions for sample in completion.samples}
    assert "stop" in finishes or "end" in finishes
    for completion in completions:
        for sample in completion.samples:
            assert sample.text == engine.tokenizer.decode(sample.tokens, skip_special_tokens=True)
            shorter = engine.tokenizer.decode(sample.tokens[:-1], skip_special_tokens=True)
            assert "\n" not in shorter
            assert ". " not in shorter
            if sample.finish == "stop":
                assert "\n" in sample.text or ". " in sample.text
    computed = engine.usage.prefill_tokens - before.prefill_tokens
    asked = engine.usage.prompt_tokens - before.prompt_tokens
    assert asked == sum(len(prompt) for prompt in prompts)
    assert computed < asked - len(prompts)  # the chat template's beginning is common to all
    engine.reset()
    assert complete(engine, requests) == completions


def test_choices_and_bfloat16(engine: TransformersEngine, prompts: list[tuple[int, ...]], smollm2: Path) -> None:
    words = ["5", "Paris", "The answer"]
    choices = tuple(tuple(engine.tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words)
    requests = [Request(id=i, prefix=prompt, choices=choices) for i, prompt in enumerate(prompts)]
    exact = complete(engine, requests)
    plain = plain_model(smollm2)
    for prompt, completion in zip(prompts, exact, strict=True):
        totals = [sum(plain_logprobs(plain, prompt, choice)) for choice in choices]
        np.testing.assert_allclose(completion.probabilities, np.exp(totals - np.logaddexp.reduce(totals)), atol=1e-4)
    half = load_engine(smollm2, slots=4, dtype="auto", threads=1, context=256)
    assert isinstance(half, TransformersEngine)
    assert next(half._model.parameters()).dtype == torch.bfloat16
    for one, other in zip(complete(half, requests), exact, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_request_does_not_depend_on_the_batch(dtype: str, prompts: list[tuple[int, ...]], smollm2: Path) -> None:
    """To the last bit, as on the small models."""
    crowded, alone = (
        load_engine(smollm2, slots=slots, dtype=dtype, threads=1, context=256, memory=0.5) for slots in (11, 1)
    )
    choices = tuple(tuple(crowded.tokenizer(word, add_special_tokens=False)["input_ids"]) for word in ("5", "Paris is"))
    requests = [Request(id=i, prefix=prompt, n=3, max_tokens=6, seed=i) for i, prompt in enumerate(prompts)]
    requests += [Request(id=9, prefix=prompts[0], choices=choices)]
    assert [complete(alone, [request])[0] for request in requests] == complete(crowded, requests)
