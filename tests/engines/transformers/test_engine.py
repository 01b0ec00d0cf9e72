"""The transformers engine against plain transformers on tiny random models."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.driving import complete
from mcts_dpo.common.errors import InputError
from mcts_dpo.engines import Completion, EngineSettings, Request, load_engine
from mcts_dpo.engines.base import Occupancy
from mcts_dpo.engines.transformers.batch import Batch
from mcts_dpo.engines.transformers.engine import TransformersEngine
from mcts_dpo.models.loading import load_model, load_tokenizer
from tests.engines.tiny import (
    VOCABULARY,
    make_byte_tokenizer,
    make_tokenizer,
    plain_logprobs,
    plain_model,
    save_model,
)


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


def random_requests(count: int, seed: int = 0, **changes: object) -> list[Request]:
    """Prefixes of 1 to 40 tokens, half of which share a beginning."""
    rng = np.random.default_rng(seed)
    common = tuple(rng.integers(2, VOCABULARY, 12).tolist())
    requests = []
    for i in range(count):
        own = tuple(rng.integers(2, VOCABULARY, rng.integers(1, 28)).tolist())
        fields = {"n": 1 + i % 3, "max_tokens": 4 + 3 * (i % 5), "seed": 100 + i}
        requests.append(Request(id=i, prefix=common + own if i % 2 else own, **(fields | changes)))
    return requests


def test_greedy_equals_generate(each_model: Path) -> None:
    engine, plain = engine_for(each_model), plain_model(each_model)
    requests = random_requests(14, max_tokens=25, temperature=0.0)
    for request, completion in zip(requests, complete(engine, requests), strict=True):
        expected = plain.generate(
            torch.tensor([request.prefix]), max_new_tokens=25, do_sample=False, pad_token_id=0, eos_token_id=1
        )[0, len(request.prefix) :].tolist()
        assert len(completion.samples) == request.n
        for sample in completion.samples:
            assert list(sample.tokens) == expected
            assert sample.finish == ("end" if expected[-1] == 1 else "length")


def test_logprobs_equal_a_plain_forward(each_model: Path) -> None:
    engine, plain = engine_for(each_model), plain_model(each_model)
    requests = random_requests(14, temperature=0.7, top_p=0.9)
    for request, completion in zip(requests, complete(engine, requests), strict=True):
        for sample in completion.samples:
            assert len(sample.logprobs) == len(sample.tokens) <= request.max_tokens
            np.testing.assert_allclose(
                sample.logprobs, plain_logprobs(plain, request.prefix, sample.tokens), atol=1e-4, rtol=0
            )
            assert sample.text == engine.tokenizer.decode(sample.tokens, skip_special_tokens=True)


def test_bfloat16_stays_near_float32(llama: Path) -> None:
    engine, plain = engine_for(llama, dtype="bfloat16"), plain_model(llama)
    gaps = []
    for request, completion in zip(
        requests := random_requests(10, max_tokens=20), complete(engine, requests), strict=True
    ):
        for sample in completion.samples:
            gaps += list(np.subtract(sample.logprobs, plain_logprobs(plain, request.prefix, sample.tokens)))
    assert 1e-4 < np.abs(gaps).mean() < 0.05


def test_after_a_step_that_failed_nothing_is_under_way(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, requests = engine_for(llama), random_requests(9)
    expected = complete(engine, requests)
    engine.reset()
    steps, forward = iter(range(100)), engine._forward

    def broken(batch: Batch) -> np.ndarray:
        if next(steps) == 3:
            raise MemoryError("no room")
        return forward(batch)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_forward", broken)
        with pytest.raises(MemoryError):
            complete(engine, requests)
    assert engine.occupancy() == Occupancy(0)
    again = complete(engine, requests)
    assert [[s.tokens for s in one.samples] for one in again] == [[s.tokens for s in one.samples] for one in expected]


def test_leading_blank_lines_belong_to_the_line_after_them(llama: Path) -> None:
    engine = engine_for(llama)
    requests = random_requests(40, n=4, max_tokens=16, temperature=2.0)
    free = complete(engine, requests)
    held = complete(engine, [dataclasses.replace(request, stop=("\n",), visible=True) for request in requests])
    blank = 0
    for one, other in zip(free, held, strict=True):
        for whole, sample in zip(one.samples, other.samples, strict=True):
            assert sample.tokens == whole.tokens[: len(sample.tokens)]
            lead = len(sample.text) - len(sample.text.lstrip())
            blank += "\n" in sample.text[:lead]
            line = sample.text[lead:]
            assert (sample.finish == "stop") == ("\n" in line)
            assert "\n" not in engine.tokenizer.decode(sample.tokens[:-1], skip_special_tokens=True).lstrip()
            if sample.finish != "stop":
                assert (sample.tokens, sample.finish) == (whole.tokens, whole.finish)
    assert blank


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_request_does_not_depend_on_the_batch(each_model: Path, dtype: str, threads: int) -> None:
    """Equal to the last bit: alone, in any batch, in any order, with score requests. A resumed search relies on it."""
    before = torch.get_num_threads()
    settings = {"dtype": dtype, "threads": threads}
    choices = ((9, 8), (3,), (7, 7, 7))
    requests = random_requests(10, temperature=0.8)
    requests += [dataclasses.replace(one, id=100 + one.id, n=1, choices=choices) for one in requests[:4]]
    try:
        known = {one.id: one for one in complete(engine_for(each_model, slots=40, **settings), requests)}
        for slots in (1, 3, 8):
            for one in complete(engine_for(each_model, slots=slots, **settings), requests[::-1]):
                assert one == known[one.id]
        for request in requests:
            assert complete(engine_for(each_model, **settings), [request]) == [known[request.id]]
    finally:
        torch.set_num_threads(before)


def test_sample_j_does_not_depend_on_n(llama: Path) -> None:
    few, many = (Request(id=n, prefix=(5, 6, 7), n=n, max_tokens=12, seed=3) for n in (2, 11))
    two, eleven = complete(engine_for(llama), [few, many])
    assert [s.tokens for s in two.samples] == [s.tokens for s in eleven.samples[:2]]
    assert len({s.tokens for s in eleven.samples}) > 5


def test_same_requests_same_bytes_from_a_fresh_or_reset_engine(llama: Path) -> None:
    requests = random_requests(20, temperature=1.0, stop=("ab", ".\n"))
    engine = engine_for(llama)
    first = complete(engine, requests)
    engine.reset()
    assert complete(engine, requests) == first
    assert complete(engine_for(llama), requests) == first
    used = engine.usage.sampled_tokens
    assert used == 2 * sum(len(s.tokens) for c in first for s in c.samples)


@pytest.mark.parametrize("stops", [("ab",), ("\n\n", "is 1"), (".",), (" answer",), ("1", "a1b")])
def test_stops_end_a_sample_at_the_token_that_completes_them(llama: Path, stops: tuple[str, ...]) -> None:
    engine = engine_for(llama)
    check_stops(engine, stops, require=("stop", "end"))


@pytest.mark.parametrize("stops", [("é",), ("aé", "\n"), ("€", "ü")])
def test_stops_whose_characters_are_spread_over_tokens(tmp_path: Path, stops: tuple[str, ...]) -> None:
    engine = engine_for(save_model(tmp_path, tokenizer=make_byte_tokenizer(), initializer_range=0.05))
    check_stops(engine, stops, require=("stop", "end"))


def check_stops(engine: TransformersEngine, stops: tuple[str, ...], require: tuple[str, ...]) -> None:
    """Every sample ends exactly where a search of the whole text, token by token, says."""
    requests = [Request(id=i, prefix=(4, 5 + i), n=60, max_tokens=40, seed=i, stop=stops) for i in range(3)]
    seen = []
    for completion in complete(engine, requests):
        for sample in completion.samples:
            texts = [
                engine.tokenizer.decode(sample.tokens[: k + 1], skip_special_tokens=True)
                for k in range(len(sample.tokens))
            ]
            complete_at = [k for k, text in enumerate(texts) if any(stop in text for stop in stops)]
            last = len(sample.tokens) - 1
            if sample.finish == "stop":
                assert complete_at == [last]
            else:
                assert complete_at == []
                assert (sample.tokens[-1] == 1) == (sample.finish == "end")
            seen.append(sample.finish)
    assert set(require) <= set(seen)


def test_choices_equal_a_direct_computation(each_model: Path) -> None:
    engine, plain = engine_for(each_model), plain_model(each_model)
    choices = ((5,), (7, 8, 9), (7, 30), (11, 12))
    requests = random_requests(9)
    scores = [dataclasses.replace(r, id=100 + r.id, choices=choices) for r in requests]
    mixed = [request for pair in zip(requests, scores, strict=True) for request in pair]
    for score, completion in zip(mixed[1::2], complete(engine, mixed)[1::2], strict=True):
        totals = np.array([sum(plain_logprobs(plain, score.prefix, choice)) for choice in choices])
        expected = np.exp(totals - np.logaddexp.reduce(totals))
        np.testing.assert_allclose(completion.probabilities, expected, atol=1e-5)
        assert completion.samples == ()


def test_more_choices_than_slots(llama: Path) -> None:
    choices = tuple((i, i + 1) for i in range(2, 102))
    (completion,) = complete(engine_for(llama, slots=1), [Request(id=0, prefix=(9, 9), choices=choices)])
    totals = [sum(plain_logprobs(plain_model(llama), (9, 9), choice)) for choice in choices]
    np.testing.assert_allclose(completion.probabilities, np.exp(totals - np.logaddexp.reduce(totals)), atol=1e-5)


def test_usage_counts_shared_prefixes_once(llama: Path) -> None:
    engine = engine_for(llama)
    prefix = tuple(range(10, 40))
    (first,) = complete(engine, [Request(id=0, prefix=prefix, n=4, max_tokens=10, seed=1)])
    sampled = sum(len(sample.tokens) for sample in first.samples)
    assert dataclasses.astuple(engine.usage) == (30, 30, sampled)
    # A longer prefix computes what is new; a path that was sampled is known; its last token is asked once more.
    complete(engine, [Request(id=1, prefix=(*prefix, 50, 51), max_tokens=1)])
    assert (engine.usage.prompt_tokens, engine.usage.prefill_tokens) == (62, 32)
    path = max((sample.tokens for sample in first.samples), key=len)
    complete(engine, [Request(id=2, prefix=prefix + path[: len(path) - 1], max_tokens=1)])
    assert engine.usage.prefill_tokens == 33
    # A score request computes its choices but for their last tokens.
    complete(engine, [Request(id=3, prefix=prefix, choices=((5,), (6, 7, 8)))])
    assert engine.usage.prefill_tokens == 33 + 1 + 2
    assert engine.usage.prompt_tokens == 62 + 30 + len(path) - 1 + 30 + 2
    before = engine.usage.copy()
    engine.reset()
    complete(engine, [Request(id=4, prefix=prefix, max_tokens=1)])
    assert engine.usage.prefill_tokens == before.prefill_tokens + 30


def test_requests_of_one_step_share_what_they_compute_in_it(llama: Path) -> None:
    engine = engine_for(llama)
    prefix = tuple(range(10, 40))
    requests = [Request(id=i, prefix=prefix[: 30 - i], max_tokens=3, seed=i) for i in range(4)]
    together = complete(engine, requests)
    assert engine.usage.prefill_tokens == 30
    alone = [complete(engine_for(llama), [request])[0] for request in requests]
    assert [c.samples[0].tokens for c in together] == [c.samples[0].tokens for c in alone]


def test_little_memory_gives_the_same_samples(llama: Path) -> None:
    requests = random_requests(16, temperature=0.9, max_tokens=30)
    tight = engine_for(llama, memory=1e-9, context=80, slots=6)
    roomy = engine_for(llama, slots=6, context=80)
    scores = [Request(id=100 + i, prefix=r.prefix, choices=((3,), (4, 5))) for i, r in enumerate(requests)]
    for one, other in zip(complete(tight, requests + scores), complete(roomy, requests + scores), strict=True):
        assert [s.tokens for s in one.samples] == [s.tokens for s in other.samples]
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    assert tight.usage.prefill_tokens > roomy.usage.prefill_tokens


def test_the_context_ends_a_sample(llama: Path) -> None:
    engine = engine_for(llama, context=20)
    request = Request(id=0, prefix=(7,) * 15, n=6, max_tokens=100, seed=5)
    (completion,) = complete(engine, [request])
    assert {len(s.tokens) for s in completion.samples if s.finish == "length"} == {5}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"prefix": ()}, "prefix: empty"),
        ({"prefix": (5,) * 128}, "128"),
        ({"prefix": (5, VOCABULARY)}, f"token {VOCABULARY}"),
        ({"n": 0}, "n: 0"),
        ({"max_tokens": 0}, "max_tokens: 0"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"stop": ("",)}, "stop"),
        ({"choices": ()}, "choices"),
        ({"choices": ((5,), ())}, "choices"),
        ({"choices": ((5, -1),)}, "token -1"),
        ({"choices": ((5,) * 128,)}, "context of 128"),
    ],
)
def test_a_wrong_request_is_answered_and_the_others_are_served(
    llama: Path, changes: dict[str, object], named: str
) -> None:
    engine = engine_for(llama)
    good = Request(id=0, prefix=(4, 5), max_tokens=3, seed=1)
    bad = dataclasses.replace(good, id=1, **changes)
    (fine, refused) = complete(engine, [good, bad])
    assert refused.error is not None
    assert named in refused.error
    assert (refused.samples, refused.probabilities) == ((), ())
    assert fine.error is None
    assert len(fine.samples) == 1
    assert engine.poll() == []


def test_too_many_choices_for_the_memory(llama: Path) -> None:
    engine = engine_for(llama, memory=1e-9, context=32)
    choices = tuple((i, i + 1, i + 2) for i in range(2, 40))
    (completion,) = complete(engine, [Request(id=0, prefix=(3,), choices=choices)])
    assert completion.error is not None
    assert "memory" in completion.error


def test_nan_logits_fail_their_request_only(llama: Path) -> None:
    model = load_model(llama, "float32")
    with torch.no_grad():
        model.get_input_embeddings().weight[50] = torch.nan
    engine = TransformersEngine(model, load_tokenizer(llama), EngineSettings(slots=4, threads=1))
    requests = [
        Request(id=0, prefix=(4, 50, 6), n=6, max_tokens=5),
        Request(id=1, prefix=(4, 5, 6), max_tokens=5, seed=2),
        Request(id=2, prefix=(4, 50, 6), choices=((3,), (4,))),
        # Token 50 is never in these prefixes, but is sampled sooner or later.
        Request(id=3, prefix=(9, 8), n=40, max_tokens=60, temperature=5.0, seed=3),
    ]
    poisoned, fine, score, late = complete(engine, requests)
    assert "3 tokens" in str(poisoned.error)
    assert "NaN" in str(poisoned.error)
    assert "NaN" in str(score.error)
    assert "NaN" in str(late.error)
    assert fine.error is None
    np.testing.assert_allclose(
        fine.samples[0].logprobs, plain_logprobs(plain_model(llama), (4, 5, 6), fine.samples[0].tokens), atol=1e-4
    )


def test_an_identifier_under_way_is_refused(llama: Path) -> None:
    engine = engine_for(llama)
    engine.submit(Request(id=7, prefix=(4,), max_tokens=2))
    with pytest.raises(ValueError, match="7"):
        engine.submit(Request(id=7, prefix=(5,), max_tokens=2))
    with pytest.raises(RuntimeError, match="reset"):
        engine.reset()
    with pytest.raises(RuntimeError, match="reload"):
        engine.reload(llama)
    assert [c.id for c in engine.poll()] == [7]


def test_poll_hands_out_what_is_done_while_the_rest_runs(llama: Path) -> None:
    engine = engine_for(llama)
    engine.submit(Request(id=1, prefix=(4,), max_tokens=30, seed=1))
    engine.submit(Request(id=2, prefix=(4,), max_tokens=1))
    done: list[Completion] = engine.poll()
    assert [c.id for c in done] == [2]
    engine.submit(Request(id=3, prefix=(9,), max_tokens=1))
    assert [c.id for c in engine.poll()] == [3]
    assert [c.id for c in engine.poll()] == [1]
    assert engine.poll() == []


def test_reload_takes_the_new_weights(llama: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path, seed=1)
    requests = random_requests(6, temperature=0.5)
    engine = engine_for(llama)
    old = complete(engine, requests)
    engine.reload(other)
    fresh = complete(engine, requests)
    assert fresh == complete(engine_for(other), requests)
    assert fresh != old
    engine.reload(llama)
    assert complete(engine, requests) == old


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        ("qwen2", {}, "Qwen2ForCausalLM"),
        ("llama", {"hidden_size": 32}, "32"),
        ("llama", {"num_hidden_layers": 3}, "layers.2"),
        ("llama", {"tokenizer": make_tokenizer("<end>")}, "tokenizer"),
    ],
)
def test_reload_of_another_architecture(
    llama: Path, tmp_path: Path, kind: str, changes: dict[str, object], named: str
) -> None:
    other = save_model(tmp_path, kind, **changes)  # type: ignore[arg-type]
    engine = engine_for(llama)
    request = Request(id=0, prefix=(4, 5), max_tokens=8, seed=1)
    before = complete(engine, [request])
    with pytest.raises(InputError, match=named):
        engine.reload(other)
    engine.reset()
    assert complete(engine, [request]) == before


def test_models_that_the_engine_cannot_run(tmp_path: Path) -> None:
    capped = save_model(tmp_path / "gemma2", "gemma2", num_key_value_heads=2, head_dim=16)
    with pytest.raises(InputError, match="Gemma2ForCausalLM"):
        load_engine(capped)
    state = save_model(tmp_path / "mamba", "mamba", hidden_size=32, num_hidden_layers=1)
    with pytest.raises(InputError, match="MambaForCausalLM"):
        load_engine(state)


def test_settings_that_do_not_fit(llama: Path) -> None:
    with pytest.raises(InputError, match=r"engine\.context: 999"):
        load_engine(llama, context=999)
    with pytest.raises(InputError, match="slots"):
        load_engine(llama, slots=0)
    with pytest.raises(InputError, match="slot"):
        load_engine(llama, slot=3)


def test_a_sliding_window_bounds_the_context(tmp_path: Path) -> None:
    engine = load_engine(save_model(tmp_path, "mistral", sliding_window=40))
    assert engine.context == 40


def test_end_tokens_by_generation_config_and_by_name(tmp_path: Path) -> None:
    directory = save_model(tmp_path, tokenizer=make_tokenizer("<|im_end|>"), eos_token_id=7)
    engine = load_engine(directory)
    assert isinstance(engine, TransformersEngine)
    assert np.flatnonzero(engine._ends).tolist() == [1, 7]
