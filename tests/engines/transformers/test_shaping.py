"""top_k, min_p and penalties against the logits processors of transformers, and through the engine."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TopKLogitsWarper

from benchmarks.driving import complete
from mcts_dpo.common.errors import InputError
from mcts_dpo.engines import Completion, EngineSettings, Request
from mcts_dpo.engines.shaping import PLAIN, SHAPING, Shape, refuse_shape
from mcts_dpo.engines.transformers.engine import TransformersEngine, load_transformers_engine
from mcts_dpo.engines.transformers.sampling import Shaping, sample_tokens, shaped
from mcts_dpo.search import SearchSettings
from tests.engines.tiny import VOCABULARY, plain_logprobs, plain_model, save_model

SHAPE = Shape(top_k=8, min_p=0.1, repetition_penalty=1.5, presence_penalty=0.5)


def as_transformers(
    logits: np.ndarray, heat: float, shape: Shape, before: np.ndarray, generated: np.ndarray
) -> np.ndarray:
    """The processed logits of one row, before the temperature, by transformers' own processors where it has one."""
    ids = torch.from_numpy(before)[None].long()
    scores = torch.from_numpy(logits)[None].clone()
    if shape.repetition_penalty != 1:
        scores = RepetitionPenaltyLogitsProcessor(shape.repetition_penalty)(ids, scores)
    scores[0, sorted(set(generated.tolist()))] -= shape.presence_penalty
    kept = scores / heat
    for processor in (
        *([MinPLogitsWarper(shape.min_p)] if shape.min_p else []),
        *([TopKLogitsWarper(shape.top_k)] if shape.top_k else []),
    ):
        kept = processor(ids, kept)
    return torch.where(torch.isinf(kept), kept, scores)[0].numpy()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    vocabulary=st.sampled_from([2, 17, 512, 3000]),
    heat=st.sampled_from([0.3, 1.0, 1.7]),
    shape=st.builds(
        Shape,
        st.sampled_from([0, 1, 5, 600]),
        st.sampled_from([0.0, 0.05, 0.5, 1.0]),
        st.sampled_from([1.0, 0.7, 1.4]),
        st.sampled_from([0.0, -1.0, 1.5]),
    ),
)
def test_the_logits_are_those_of_transformers(seed: int, vocabulary: int, heat: float, shape: Shape) -> None:
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal((3, vocabulary)) * 3).astype(np.float32)
    logits[2] = np.round(logits[2])  # many equal values
    before = rng.integers(0, vocabulary, 12)
    wanted = [as_transformers(row, heat, shape, before, before[5:]) for row in logits]
    given_ = [Shaping(shape, before, before[5:])] * 3
    found = shaped(logits.copy(), np.full(3, heat), given_)
    np.testing.assert_array_equal(found, np.stack(wanted))
    # Draws are those of the processed logits, log-probabilities those of the given ones.
    ones, uniform = np.ones(3), rng.random(3)
    tokens, logprobs, normaliser = sample_tokens(logits, np.arange(3), ones * heat, ones * 0.9, uniform, given_)
    plainly, _, _ = sample_tokens(np.stack(wanted), np.arange(3), ones * heat, ones * 0.9, uniform)
    np.testing.assert_array_equal(tokens, plainly)
    assert np.isfinite(found[np.arange(3), tokens]).all()
    np.testing.assert_allclose(logprobs, logits[np.arange(3), tokens] - normaliser)


def test_greedy_takes_the_penalised_best_and_a_plain_row_stays() -> None:
    logits = np.array([[2.0, 1.9, -1.0]], np.float32)
    rules = [Shaping(Shape(repetition_penalty=2.0), np.array([0, 0])), Shaping(Shape(top_k=1)), Shaping(PLAIN)]
    tokens, _, _ = sample_tokens(logits, np.zeros(3, np.int64), np.zeros(3), np.ones(3), np.ones(3) / 2, rules)
    assert tokens.tolist() == [1, 0, 0]
    assert logits.tolist() == [[2.0, np.float32(1.9), -1.0]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> TransformersEngine:
    return load_transformers_engine(folder, EngineSettings(slots=4, dtype="float32", threads=1))


def asked(number: int, **changes: object) -> Request:
    return Request(number, (5, 6, 7, 8), n=2, max_tokens=12, seed=number, **changes)  # type: ignore[arg-type]


def test_through_the_engine(engine: TransformersEngine, folder: Path) -> None:
    """Each token is one that the shape allows; other requests in the batch and earlier ones change nothing."""
    requests = [asked(0, **SHAPE._asdict(), generated=2), asked(1), asked(2, top_k=1), asked(3, presence_penalty=2.0)]
    together = complete(engine, requests)
    engine.reset()
    alone: list[Completion] = [complete(engine, [request])[0] for request in reversed(requests)][::-1]
    assert together == alone
    model = plain_model(folder)
    for sample in together[0].samples:
        np.testing.assert_allclose(sample.logprobs, plain_logprobs(model, (5, 6, 7, 8), sample.tokens), atol=1e-4)
        for place in range(len(sample.tokens)):
            before = np.array([5, 6, 7, 8, *sample.tokens[:place]])
            with torch.no_grad():
                logits = model(torch.from_numpy(before)[None]).logits[0, -1].float().numpy()
            assert np.isfinite(as_transformers(logits, 1.0, SHAPE, before, before[2:]))[sample.tokens[place]]
    greedy = complete(engine, [asked(4, temperature=0.0)])[0].samples[0]
    assert together[2].samples[0].tokens == greedy.tokens
    assert together[1] == complete(engine, [asked(1)])[0]
    assert together[3] != complete(engine, [asked(3)])[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"top_k": -1}, "top_k: -1 (accepted: 0 or more)"),
        ({"min_p": 1.5}, "min_p: 1.5 (accepted: 0 to 1)"),
        ({"repetition_penalty": 0.0}, "repetition_penalty: 0.0 (accepted: above 0)"),
        ({"presence_penalty": 3.0}, "presence_penalty: 3.0 (accepted: -2 to 2)"),
        ({"generated": 9}, "generated: 9 (accepted: 0 to 4, the tokens of the prefix)"),
    ],
)
def test_a_wrong_request_is_refused_by_name(engine: TransformersEngine, changes: dict[str, float], says: str) -> None:
    assert complete(engine, [asked(0, **changes)])[0].error == says


def test_an_engine_that_lacks_a_setting_refuses_it() -> None:
    search = SearchSettings(top_k=20, min_p=0.1)
    refuse_shape(search, SHAPING, "mine")
    with pytest.raises(InputError, match=r"^search\.top_k: 20, but the engine 'mine' has no top_k; accepted: 0$"):
        refuse_shape(search, {"min_p"}, "mine")
    assert set(Shape._fields) <= set(SearchSettings.model_fields)
    assert SHAPE.top_k < VOCABULARY
