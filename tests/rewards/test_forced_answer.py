"""Forced answers: drawn after the path and the text, verified in training, counted when solving."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.driving import complete
from mcts_dpo.common.files import seed_from
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Request
from mcts_dpo.models.prompts import prompt_tokens
from mcts_dpo.rewards import OutcomeSettings, SolutionPath
from mcts_dpo.rewards.forced_answer import ForcedAnswerSettings, shares
from mcts_dpo.search import SearchSettings, search_problems
from mcts_dpo.solve import solve_problems
from tests.reference.engine import TOKENIZER, AutomatonEngine
from tests.rewards.support import made, path_of, scored
from tests.search.support import PROBLEMS, PROMPT
from verifiers import extract_answer

PROBLEM = PROBLEMS[0]
SETTINGS = ForcedAnswerSettings(samples=12, max_tokens=3, temperature=1.0)


def answers(engine: AutomatonEngine, path: SolutionPath, said: str) -> list[str | None]:
    """The answers that the engine gives after `said`, drawn by hand."""
    prefix = [*prompt_tokens(PROBLEM, TOKENIZER, PROMPT), *TOKENIZER(said)["input_ids"]]
    seed = seed_from(0, "forced_answer", PROBLEM.id, path.text)
    request = Request(0, prefix, n=12, max_tokens=3, temperature=1.0, stop=("\n", *PROMPT.stop), seed=seed)
    (completion,) = complete(engine, [request])
    return [extract_answer(said + sample.text, "gsm8k") for sample in completion.samples]


def test_in_training_it_is_the_share_of_right_answers() -> None:
    engine, paths = AutomatonEngine(2, states=60), [path_of(PROBLEM, "a\n"), path_of(PROBLEM, "ab")]
    reward = made(SETTINGS, PROBLEM)
    found = scored(reward, paths, engine)
    for path, said, score in zip(paths, ("a\n####", "ab\n####"), found, strict=True):
        assert score == pytest.approx(answers(engine, path, said).count("1") / 12)
        assert 0 < score < 1
    assert (reward.cost, reward.room) == (12 * 3, 2 + 3)
    assert scored(reward, paths, engine) == found


def test_when_solving_it_is_the_share_of_the_most_frequent_answer() -> None:
    engine, paths = AutomatonEngine(2, states=60), [path_of(PROBLEM, "a\n"), path_of(PROBLEM, "ab")]
    found = scored(made(SETTINGS, PROBLEM.without_answer()), paths, engine)
    for path, said, score in zip(paths, ("a\n####", "ab\n####"), found, strict=True):
        counts = Counter(answer for answer in answers(engine, path, said) if answer is not None)
        assert score == pytest.approx(max(counts.values()) / 12)


def test_a_solution_that_has_ended_is_worth_its_outcome_or_the_support_of_its_answer() -> None:
    engine = AutomatonEngine(2, states=60)
    ends = [path_of(PROBLEM, "a\n#### 2", closed=True, terminal=True, answer="2", outcome=o) for o in (1, -1, 0)]
    assert scored(made(SETTINGS, PROBLEM), ends, engine) == pytest.approx([1.0, 0.0, math.nan], nan_ok=True)
    assert engine.requests == []
    cut = path_of(PROBLEM, "a\nb", terminal=True)
    found = scored(made(SETTINGS, PROBLEM.without_answer()), [ends[0], cut], engine)
    assert found == pytest.approx([answers(engine, ends[0], "a\n####").count("2") / 12, 0.0])
    alone = path_of(PROBLEM, "#### 2", terminal=True, answer="2")
    assert scored(made(SETTINGS, PROBLEM.without_answer()), [alone], engine) == pytest.approx(
        [answers(engine, alone, "####").count("2") / 12]
    )


def test_equal_answers_are_one_and_no_answer_is_none() -> None:
    texts = ["#### 1/2", "#### 0.5", "#### 3", "nothing"]
    unknown, known = Problem("p", "?"), Problem("p", "?", "0.50")
    assert shares([(texts, None, unknown, "gsm8k"), (texts, "0.50", unknown, "gsm8k")]) == [0.5, 0.5]
    assert shares([(texts, None, known, "gsm8k"), (texts[3:], None, unknown, "gsm8k")]) == [0.5, 0.0]
    assert shares([(texts, "7", unknown, "gsm8k")]) == [0.0]


def test_a_search_pays_for_them_and_keeps_its_budget() -> None:
    settings = SearchSettings(
        max_tokens=24, max_depth=5, expand="step", max_step_tokens=8, rewards=(OutcomeSettings(), SETTINGS)
    )
    forest = search_problems(PROBLEMS, AutomatonEngine(6), prompt=PROMPT, settings=settings)
    scores = forest.scores["forced_answer"]
    assert np.ptp(scores[(forest.depth > 0) & ~forest.terminal]) > 0
    ends = forest.terminal
    assert (scores[ends] == (forest.outcome[ends] > 0)).all()
    for strategy in ("best-of-n", "beam", "mcts"):
        engine = AutomatonEngine(3)
        found = solve_problems(PROBLEMS, engine, [(strategy, 600)], prompt=PROMPT, search=settings)[strategy, 600]
        assert any(request.judging for request in engine.requests)
        assert engine.usage.sampled_tokens <= sum(one.tokens for one in found) <= 600 * len(PROBLEMS)
    hidden = [replace(problem, answer="77", solution="77") for problem in PROBLEMS]
    first, second = (
        search_problems(problems, AutomatonEngine(6), prompt=PROMPT, settings=settings, mode="solve")
        for problems in (PROBLEMS, hidden)
    )
    assert first == second
