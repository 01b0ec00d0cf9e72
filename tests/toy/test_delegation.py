"""The tool world: its problems are right, its demonstrations are what the environment would reply."""

from __future__ import annotations

import re
from pathlib import Path

from mcts_dpo.engines import EngineSettings, load_engine
from mcts_dpo.environments import Turn, environment_of
from mcts_dpo.evaluation import EvaluationSettings, evaluate
from mcts_dpo.models.prompts import reply_tokens
from mcts_dpo.toy.delegation import (
    DELEGATES,
    ENVIRONMENT,
    WORDS,
    WRONG_CALL,
    teach_tools,
    tool_demonstrations,
    tool_policy,
    tool_problems,
    tool_prompt,
)
from mcts_dpo.toy.tokenizer import toy_tokenizer


def test_problems_are_distinct_and_right() -> None:
    problems = tool_problems(200, seed=3)
    assert len({problem.question for problem in problems}) == 200
    assert problems == tool_problems(200, seed=3)
    for problem in problems:
        boxes, each = map(int, re.findall(r"\d+", problem.question))
        assert problem.answer == str(boxes * each)
    shown = {problem.question for problem in problems[:100]}
    assert not shown & {problem.question for problem in tool_problems(100, seed=3, exclude=shown)}


def test_a_demonstrated_call_gets_the_environment_s_reply() -> None:
    """In text and in token ids, so that what is learned is what a search then meets."""
    environment = environment_of(ENVIRONMENT)
    assert environment is not None
    tokenizer = toy_tokenizer(WORDS)
    demonstrations = tool_demonstrations(400, seed=1)
    calls = [one for one in demonstrations if ENVIRONMENT.opening in (one.problem.solution or "")]
    assert abs(len(calls) / 400 - DELEGATES) < 0.07
    assert abs(1 - sum(one.right[0] for one in calls) / len(calls) - WRONG_CALL) < 0.12
    for one in calls:
        solution = one.problem.solution or ""
        step, reply, rest = re.split(r"(\n-?\d+\n)", solution, maxsplit=1)
        found = environment.reply(one.problem, [Turn(step)])
        assert found is not None
        assert f"\n{found.text}\n" == reply
        assert one.right == (f"The answer is {one.problem.answer}." in rest,)
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (solution, step, rest)]
        assert tuple(ids[0]) == (*ids[1], *reply_tokens(tokenizer, tool_prompt(), found.text, found.role), *ids[2])


def test_a_policy_is_taught_and_speaks_with_the_environment(tmp_path: Path) -> None:
    settings = tool_policy().model_copy(update={"steps": 30, "demonstrations": 200, "batch_size": 16})
    teach_tools(tmp_path / "policy", seed=0, settings=settings)
    engine = load_engine(tmp_path / "policy", EngineSettings(slots=16, dtype="float32", threads=1))
    found = evaluate(
        tool_problems(8, seed=1),
        engine,
        prompt=tool_prompt(),
        settings=EvaluationSettings(max_tokens=60),
        environment=ENVIRONMENT,
    )
    assert all(outcome.error is None and outcome.text for outcome in found.outcomes)
