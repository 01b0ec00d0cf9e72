"""The thinking world: thoughts with corrections, answers that follow from them, questions apart from the tests'."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.loading import load_tokenizer
from mcts_dpo.models.prompts import prompt_tokens, split_steps, thoughts_of
from mcts_dpo.toy.policy import WarmStartSettings
from mcts_dpo.toy.thinking import (
    CLOSE,
    WAIT,
    teach_thinking,
    thinking_demonstrations,
    thinking_problems,
    thinking_prompt,
    thought,
)
from mcts_dpo.toy.tokenizer import toy_tokenizer
from mcts_dpo.toy.world import NO_HABITS, told, true_solution
from verifiers import extract_answer, verify

SHOWN = thinking_demonstrations(150, 0)


def test_a_demonstration_thinks_then_answers() -> None:
    prompt = thinking_prompt()
    thoughts = thoughts_of(toy_tokenizer("think"), prompt)
    assert thoughts.opened == "<think>\n"
    for demonstration in SHOWN:
        solution = demonstration.problem.solution or ""
        inside, outside = thoughts.parted(solution)
        assert outside.startswith("The answer is ")
        assert solution == f"{inside}{CLOSE}\n{outside}"
        assert thoughts.phase(inside) == "thought"
        found = extract_answer(thoughts.stated(solution), prompt.answer_style)
        assert bool(verify(demonstration.problem.answer or "", found)) == demonstration.right[0]
    waits = [(demonstration.problem.solution or "").count(WAIT) for demonstration in SHOWN]
    assert max(waits) == 2
    assert 0.4 < sum(demonstration.right[0] for demonstration in SHOWN) / len(SHOWN) < 0.95


def test_without_habits_a_thought_is_the_true_solution() -> None:
    for problem in thinking_problems(10, 3):
        found = thought(problem.question, NO_HABITS, Random(0))
        assert found is not None
        lines, answers = found
        first = lines[: lines.index(WAIT)] if WAIT in lines else lines
        truth = (true_solution(problem.question) or "").split("\n")
        assert [*first, f"The answer is {answers[len(first) - 1]}."] == truth
        assert len(answers) == len(lines)
        start, events = told(problem.question) or (0, ())
        assert len(events) == 3
        assert f"has {start} " in problem.question
    with pytest.raises(InputError, match="is not of the built-in world"):
        thought("What is 2 + 3?", NO_HABITS, Random(0))


def test_no_demonstration_is_a_question_of_the_tests() -> None:
    asked = {problem.question for problem in thinking_problems(100, 0)}
    assert not asked & {demonstration.problem.question for demonstration in SHOWN}


def test_teaching_is_a_function_of_the_seed(tmp_path: Path) -> None:
    tiny = WarmStartSettings(demonstrations=20, steps=2, width=16, layers=1, context=320)
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        teach_thinking(tmp_path / name, seed=seed, settings=tiny)
    one, two, three = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "three"))
    assert one == two != three
    tokenizer = load_tokenizer(tmp_path / "one")
    tokens = tokenizer("gets: 1 + 2 = 3\nWait\n</think>\nThe answer is 3.", add_special_tokens=False)["input_ids"]
    assert len(split_steps(tokens, tokenizer, thinking_prompt())) == 4
    asked = prompt_tokens(thinking_problems(1, 0)[0], tokenizer, thinking_prompt())
    assert tokenizer.decode(asked).endswith("<think>\n")
