"""The warm start: what it teaches token for token, that it is the same every time, that the taught policy works."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines import EngineSettings, load_engine
from mcts_dpo.evaluation import EvaluationSettings, evaluate
from mcts_dpo.models.loading import load_model, load_tokenizer
from mcts_dpo.models.prompts import prompt_tokens, self_evaluation, split_steps
from mcts_dpo.toy.policy import (
    WarmStartSettings,
    rate,
    self_evaluation_auc,
    teaching_sequences,
    toy_prompt,
    warm_start,
)
from mcts_dpo.toy.tokenizer import toy_tokenizer
from mcts_dpo.toy.world import Habits, demonstrations, judgements, make_problems
from tests.conftest import ToyWorld
from verifiers import extract_answer

SMALL = WarmStartSettings(
    demonstrations=60, events=(1,), steps=6, check_every=4, development=8, width=16, feed_forward=32, batch_size=8
)


def weights(policy: Path) -> bytes:
    return (policy / "model.safetensors").read_bytes()


def test_same_seed_same_bytes_another_seed_others(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        warm_start(tmp_path / name, seed=seed, settings=SMALL)
        torch.rand(1)  # the surroundings' randomness is neither used nor left alone
        assert torch.get_num_threads() >= 1
    assert weights(tmp_path / "one") == weights(tmp_path / "again") != weights(tmp_path / "other")
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    torch.random.set_rng_state(before)


def test_the_surroundings_are_left_as_they_were(tmp_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    try:
        torch.set_num_threads(2)
        warm_start(tmp_path / "policy", seed=0, settings=SMALL)
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.random.get_rng_state(), state)
    finally:
        torch.set_num_threads(threads)


def test_progress_and_record_say_what_happened(tmp_path: Path) -> None:
    told: list[tuple[str, int, int, dict[str, float]]] = []
    result = warm_start(
        tmp_path / "policy",
        seed=3,
        settings=SMALL,
        progress=lambda stage, done, total, **figures: told.append((stage, done, total, figures)),
    )
    assert [(stage, done, total) for stage, done, total, _ in told] == [("warm start", i, 6) for i in range(1, 7)]
    assert [done for _, done, _, figures in told if "accuracy" in figures] == [4, 6]
    record = json.loads((tmp_path / "policy" / "warm_start.json").read_text())
    assert (record["accuracy"], record["seed"]) == (result.accuracy, 3)
    assert WarmStartSettings.model_validate_json(json.dumps(record["settings"])) == SMALL


def test_what_is_taught_is_what_will_be_asked() -> None:
    prompt = toy_prompt()
    tokenizer = toy_tokenizer("Right so far? yes no")
    shown = demonstrations(40, 0, Habits())
    judged = judgements(shown, 0)
    sequences = teaching_sequences(shown, judged, tokenizer, prompt)
    suffix, (yes, no) = self_evaluation(tokenizer, prompt)
    assert len(sequences) == 80
    for row in range(80):
        tokens = sequences.tokens[sequences.offsets[row] : sequences.offsets[row + 1]].tolist()
        context, reply = tokens[: sequences.scored_from[row]], tokens[sequences.scored_from[row] :]
        if row < 40:
            problem = shown[row].problem
            assert context == list(prompt_tokens(problem, tokenizer, prompt))
            assert reply[-1] == tokenizer.eos_token_id
            assert tokenizer.decode(reply, skip_special_tokens=True) == problem.solution
            # One step per line, as a search will cut it.
            assert len(split_steps(reply, tokenizer, prompt)) == len(shown[row].right)
        else:
            judgement = judged[row - 40]
            so_far = tokenizer.encode(judgement.text())
            assert context == [*prompt_tokens(judgement.problem, tokenizer, prompt), *so_far, *suffix]
            assert tuple(reply) == (yes if judgement.right else no)
    assert tokenizer.unk_token_id is None
    assert len(yes) == len(no) == 1


def test_the_prompt_is_the_question_alone() -> None:
    problem = make_problems(1, 0)[0]
    tokenizer = toy_tokenizer()
    assert tokenizer.decode(list(prompt_tokens(problem, tokenizer, toy_prompt()))) == problem.question + "\n"
    assert extract_answer(problem.solution or "", toy_prompt().answer_style) == problem.answer


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    rates = [rate(update, 100, 10) for update in range(1, 101)]
    assert 0 < rates[0] < 0.11
    assert 8 <= int(np.argmax(rates)) <= 10
    assert max(rates) > 0.95
    assert 0 < rates[-1] < 1e-3


def test_the_taught_policy_solves_and_judges(toy_world: ToyWorld) -> None:
    engine = load_engine(toy_world.policy, EngineSettings(slots=128, dtype="float32", threads=1))
    problems = make_problems(100, 11, events=(1,))
    settings = EvaluationSettings(max_tokens=64, samples=8, k=(8,))
    summary = evaluate(problems, engine, prompt=toy_prompt(), settings=settings).summary()
    assert 0.2 < summary["greedy"]["value"] < 0.9
    assert summary["pass@8"]["value"] > summary["greedy"]["value"] + 0.1
    assert summary["cut_by_length"] < 0.05
    auc = self_evaluation_auc(problems, engine, toy_prompt())
    assert auc is not None
    assert auc > 0.6
    assert auc == self_evaluation_auc(problems, engine, toy_prompt())


def test_the_policy_loads_like_any_other(toy_world: ToyWorld) -> None:
    model, tokenizer = load_model(toy_world.policy), load_tokenizer(toy_world.policy)
    assert sum(parameter.numel() for parameter in model.parameters()) in range(120_000, 140_000)
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_heads_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^heads: 3 .*divides width, 64"):
        warm_start(tmp_path / "policy", seed=0, settings=WarmStartSettings(heads=3))
    assert not (tmp_path / "policy").exists()
