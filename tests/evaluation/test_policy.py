"""Evaluation on the exact tiny model of `tests/reference`: every number against its own probabilities and samples."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.driving import complete
from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_table, seed_from, write_table
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Request
from mcts_dpo.evaluation import Evaluation, EvaluationSettings, compare, evaluate
from mcts_dpo.models.prompts import prompt_tokens, self_evaluation
from tests.reference.engine import AutomatonEngine
from tests.search.support import PROMPT
from verifiers import Verdict, extract_answer, registry

QUESTIONS = ["ab", "ba", "aab", "bba", "abab", "b", "a", "bb", "aaa", "abb"]
PROBLEMS = [Problem(f"p{index}", question, str(1 + index % 3)) for index, question in enumerate(QUESTIONS)]
SETTINGS = EvaluationSettings(samples=6, temperature=1.0, max_tokens=20, k=(1, 2, 6, 8), confidence=True, chunk=4)


def test_every_outcome_is_what_the_engine_says() -> None:
    result = evaluate(PROBLEMS, AutomatonEngine(3), prompt=PROMPT, settings=SETTINGS)
    assert result.ks == (1, 2, 6), "k = 8 needs more samples than there are"
    engine = AutomatonEngine(3)
    suffix, choices = self_evaluation(engine.tokenizer, PROMPT)
    for problem, outcome in zip(PROBLEMS, result.outcomes, strict=True):
        prefix = prompt_tokens(problem, engine.tokenizer, PROMPT)
        greedy = Request(0, prefix, 1, 20, temperature=0.0, stop=PROMPT.stop)
        sampled = Request(1, prefix, 6, 20, 1.0, 1.0, PROMPT.stop, seed_from("evaluate", 0, problem.id))
        (one,), six = (completion.samples for completion in complete(engine, [greedy, sampled]))
        assert outcome.text == one.text
        assert outcome.cut == (one.finish == "length")
        assert outcome.answer == extract_answer(one.text, PROMPT.answer_style)
        assert outcome.correct == (outcome.answer == problem.answer), "references are single digits"
        assert len(outcome.sample_answers) == len(six) == 6
        tokens = one.tokens[:-1] if one.finish == "end" else one.tokens
        asked = Request(2, (*prefix, *tokens, *suffix), choices=choices)
        (judged,) = complete(engine, [asked])
        assert outcome.confidence == pytest.approx(judged.probabilities[0])


def test_the_question_follows_one_end_whichever_token_ends_solutions() -> None:
    """The model ends with its own token; the tokenizer's end of sequence is another one."""
    engine = AutomatonEngine(3)
    engine.tokenizer = copy.deepcopy(engine.tokenizer)
    engine.tokenizer.eos_token = "<unk>"
    found, wanted = (
        evaluate(PROBLEMS, one, prompt=PROMPT, settings=SETTINGS).outcomes for one in (engine, AutomatonEngine(3))
    )
    assert [outcome.confidence for outcome in found] == [outcome.confidence for outcome in wanted]


def test_summary_is_arithmetic_over_the_outcomes() -> None:
    result = evaluate(PROBLEMS, AutomatonEngine(3), prompt=PROMPT, settings=SETTINGS)
    summary = result.summary()
    outcomes = result.outcomes
    assert summary["problems"] == 10
    assert summary["greedy"]["value"] == sum(o.correct for o in outcomes) / 10
    assert summary["sampled"]["value"] == pytest.approx(sum(sum(o.sample_correct) for o in outcomes) / 60)
    assert summary["pass@1"]["value"] == pytest.approx(summary["sampled"]["value"])
    assert summary["pass@6"]["value"] == sum(any(o.sample_correct) for o in outcomes) / 10
    assert summary["majority@1"]["value"] == sum(o.sample_correct[0] for o in outcomes) / 10
    assert summary["pass@1"]["value"] < summary["pass@2"]["value"] < summary["pass@6"]["value"]
    assert summary["sampled_tokens"] == result.sampled_tokens > 0
    for name in ("greedy", "sampled", "pass@2", "majority@6"):
        assert summary[name]["low"] <= summary[name]["value"] <= summary[name]["high"]


def test_majority_is_the_largest_class_of_equal_answers() -> None:
    result = evaluate(PROBLEMS, AutomatonEngine(3), prompt=PROMPT, settings=SETTINGS)
    for outcome in result.outcomes:
        counts = {a: outcome.sample_answers.count(a) for a in outcome.sample_answers if a is not None}
        if counts:
            first_of_largest = max(counts, key=lambda a: (counts[a], -outcome.sample_answers.index(a)))
            index = outcome.sample_answers.index(first_of_largest)
            assert outcome.majority_correct[-1] == outcome.sample_correct[index]
        else:
            assert outcome.majority_correct[-1] is False


def test_chunks_do_not_matter_and_runs_repeat() -> None:
    whole = evaluate(PROBLEMS, AutomatonEngine(5), prompt=PROMPT, settings=SETTINGS)
    pieces = evaluate(PROBLEMS, AutomatonEngine(5), prompt=PROMPT, settings=SETTINGS.model_copy(update={"chunk": 3}))
    assert whole == pieces


def test_files_round_trip(tmp_path: Path) -> None:
    result = evaluate(PROBLEMS, AutomatonEngine(5), prompt=PROMPT, settings=SETTINGS)
    result.save(tmp_path / "evaluation.parquet")
    assert Evaluation.load(tmp_path / "evaluation.parquet") == result
    import pyarrow as pa

    write_table(tmp_path / "other.parquet", pa.table({"x": [1]}))
    with pytest.raises(InputError, match=r"other\.parquet: not an evaluation"):
        Evaluation.load(tmp_path / "other.parquet")


def test_comparison_is_paired_and_refuses_other_problems() -> None:
    greedy = EvaluationSettings(max_tokens=20)
    before = evaluate(PROBLEMS, AutomatonEngine(3), prompt=PROMPT, settings=greedy)
    after = evaluate(PROBLEMS, AutomatonEngine(5), prompt=PROMPT, settings=greedy)
    result = compare(before, after)
    assert result.gained == sum(not b and a for b, a in zip(before.correct, after.correct, strict=True))
    assert result.lost == sum(b and not a for b, a in zip(before.correct, after.correct, strict=True))
    assert "sampled" not in before.summary()
    with pytest.raises(InputError, match="different problems"):
        compare(before, evaluate(PROBLEMS[:5], AutomatonEngine(3), prompt=PROMPT, settings=greedy))


def test_a_refused_problem_counts_as_wrong_and_is_told() -> None:
    engine = AutomatonEngine(3, context=8)
    long = Problem("long", "ab" * 10, "1")
    result = evaluate([*PROBLEMS[:2], long], engine, prompt=PROMPT, settings=SETTINGS)
    assert result.outcomes[2].error is not None
    assert not result.outcomes[2].correct
    assert result.summary()["failed"] == 1


def test_what_was_not_decided_counts_as_nothing_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(reference: str, answer: str) -> Verdict:
        raise ConnectionRefusedError("the verifier's server is away")

    monkeypatch.setitem(registry._REGISTRY, "away", unreachable)
    problems = [replace(problem, verifier="away") for problem in PROBLEMS]
    result = evaluate(problems, AutomatonEngine(3), prompt=PROMPT, settings=SETTINGS)
    stated = sum((o.answer is not None) + sum(a is not None for a in o.sample_answers) for o in result.outcomes)
    assert result.summary()["undecided"] == stated > 0
    assert result.summary()["greedy"]["value"] == 0
    assert evaluate(PROBLEMS, AutomatonEngine(3), prompt=PROMPT, settings=SETTINGS).summary()["undecided"] == 0
    result.save(tmp_path / "evaluation.parquet")
    assert Evaluation.load(tmp_path / "evaluation.parquet") == result


def test_an_evaluation_of_an_earlier_edition_is_read(tmp_path: Path) -> None:
    result = evaluate(PROBLEMS, AutomatonEngine(3), prompt=PROMPT, settings=SETTINGS)
    result.save(tmp_path / "now.parquet")
    table = read_table(tmp_path / "now.parquet")
    write_table(tmp_path / "before.parquet", table.drop_columns(["undecided", "undecided_pairs"]))
    assert Evaluation.load(tmp_path / "before.parquet") == result


def test_bad_input() -> None:
    with pytest.raises(InputError, match="no problems"):
        evaluate([], AutomatonEngine(), prompt=PROMPT)
    with pytest.raises(InputError, match="problem x: no reference answer"):
        evaluate([Problem("x", "a")], AutomatonEngine(), prompt=PROMPT)
