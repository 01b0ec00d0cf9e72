"""The transformers engine on a GPU. Skipped without a CUDA device; `make cuda` runs it, and those of vLLM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.driving import complete
from mcts_dpo.engines import Request, load_engine
from tests.engines.tiny import plain_logprobs, plain_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.real_model
def test_greedy_equals_generate_and_samples_are_scored_exactly(prompts: list[tuple[int, ...]], smollm2: Path) -> None:
    engine, plain = load_engine(smollm2, slots=12, dtype="float32", context=512), plain_model(smollm2)
    requests = [Request(id=i, prefix=prompt, max_tokens=24, temperature=0.0) for i, prompt in enumerate(prompts)]
    for request, completion in zip(requests, complete(engine, requests), strict=True):
        expected = plain.generate(torch.tensor([request.prefix]), max_new_tokens=24, do_sample=False)
        assert list(completion.samples[0].tokens) == expected[0, len(request.prefix) :].tolist()
    requests = [Request(id=i, prefix=prompt, n=4, max_tokens=24, seed=i) for i, prompt in enumerate(prompts)]
    for request, completion in zip(requests, complete(engine, requests), strict=True):
        for sample in completion.samples:
            exact = plain_logprobs(plain, tuple(request.prefix), sample.tokens)
            np.testing.assert_allclose(sample.logprobs, exact, atol=1e-4, rtol=0)
