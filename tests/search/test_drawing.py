"""Draws of policies that think, and of steps that no stop string ends: against scripts that say what comes next."""

from __future__ import annotations

from typing import Any

import pytest

from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Request
from mcts_dpo.evaluation import EvaluationSettings, evaluate
from mcts_dpo.models.decoding import decode
from mcts_dpo.models.prompts import PromptSettings, prompt_tokens, thoughts_of
from mcts_dpo.models.steps import StepSettings
from mcts_dpo.search import SearchSettings, search_problems
from mcts_dpo.search.drawing import Ask, Drawing, Drawn
from mcts_dpo.search.runner import run
from mcts_dpo.search.tree import FINISHES
from mcts_dpo.solve import solve_problems
from tests.models.test_prompts import CHATML, byte_level, ids
from tests.reference.scripted import ScriptedEngine

TOKENIZER = byte_level("{# <think> #}" + CHATML)
QUESTION = "What about 2 + 3?"
PROBLEM = Problem("1", QUESTION, "5")
THOUGHT = "<think>\nPerhaps 4. The answer is 4.\n\nWait. 2 + 3 = 5.\n"
ANSWER = "The answer is 5."
WHOLE = f"{THOUGHT}</think>\n\n{ANSWER}"


def engine(*texts: str, forced: tuple[int, str] | None = None, prompt: PromptSettings | None = None) -> ScriptedEngine:
    """A policy that writes `texts`. forced: after so many tokens of the first text its thought is closed by force, and
    the policy then writes the other text."""
    scripted = ScriptedEngine(TOKENIZER, {QUESTION: texts})
    if forced is not None:
        begun = ids(TOKENIZER, texts[0])[: forced[0]]
        closing = thoughts_of(TOKENIZER, prompt or PromptSettings()).closing(decode(TOKENIZER, begun))[1]
        assert closing
        script = (*begun, *closing, *ids(TOKENIZER, forced[1]), TOKENIZER.eos_token_id)
        scripted._scripts[QUESTION].append(script)
    return scripted


def drawn(policy: ScriptedEngine, prompt: PromptSettings, *, whole: bool = True, **given: Any) -> Drawn:
    prefix = prompt_tokens(PROBLEM, TOKENIZER, prompt)
    request = Request(0, prefix, **{"max_tokens": 400, "stop": prompt.stop, **given})
    drawing = Drawing(thoughts_of(TOKENIZER, prompt))
    (found,) = run([drawing.draw([Ask(request, (), whole, request.max_tokens)])], policy)
    assert isinstance(found, list)
    return found[0]


def test_a_stop_string_inside_a_thought_does_not_end_the_solution() -> None:
    policy = engine(WHOLE)
    found = drawn(policy, PromptSettings(stop=("4.\n\n", "5.")), n=2)
    for sample in found.completion.samples:
        assert (sample.text, sample.finish) == (WHOLE, "stop")
        assert len(sample.logprobs) == len(sample.tokens)
    assert found.tokens == policy.usage.sampled_tokens == 2 * len(ids(TOKENIZER, WHOLE))


def test_a_thought_is_closed_at_its_budget() -> None:
    prompt = PromptSettings(think_budget=24)
    found = drawn(engine(WHOLE, forced=(24, ANSWER)), prompt)
    (sample,) = found.completion.samples
    begun = decode(TOKENIZER, ids(TOKENIZER, WHOLE)[:24])
    assert sample.text == f"{begun}\n</think>\n\n{ANSWER}"
    assert sample.finish == "end"
    assert found.tokens == len(sample.tokens)
    short = f"<think>5.\n</think>\n\n{ANSWER}"
    assert drawn(engine(short), prompt).completion.samples[0].text == short, "a short thought closes itself"


def test_a_thought_is_closed_before_the_limit_or_has_no_answer() -> None:
    """Of 40 tokens a quarter is kept for the answer, and what the closing takes."""
    size = 40
    room = thoughts_of(TOKENIZER, PromptSettings()).room
    closing = PromptSettings(close_thought=True)
    policy = engine(WHOLE, forced=(size - room - size // 4, "5."))
    sample = drawn(policy, closing, max_tokens=size).completion.samples[0]
    assert (sample.finish, sample.text.endswith("\n</think>\n\n5.")) == ("end", True)
    unclosed = drawn(engine(WHOLE), PromptSettings(), max_tokens=size).completion.samples[0]
    assert unclosed.finish == "length"


def test_the_end_of_a_budget_gives_an_answer_in_every_strategy() -> None:
    """A policy whose thought is longer than the budget."""
    prompt = PromptSettings(close_thought=True, answer_tokens=20)
    size, room = 80, thoughts_of(TOKENIZER, PromptSettings()).room
    long = "<think>\n" + "Perhaps the answer is 4. " * 20
    policy = engine(long, forced=(size - room - 20, ANSWER), prompt=prompt)
    settings = SearchSettings(max_tokens=size, children=1, simulations=1, seed=1)
    solved = solve_problems([PROBLEM], policy, [("greedy", size), ("majority", size)], prompt=prompt, search=settings)
    assert [solved[one, size][0].answer for one in ("greedy", "majority")] == ["5", "5"]
    forest = search_problems([PROBLEM], policy, prompt=prompt, settings=settings)
    assert [answer for answer in forest.answers if answer is not None] == ["5"]
    measured = EvaluationSettings(max_tokens=size)
    assert evaluate([PROBLEM], policy, prompt=prompt, settings=measured).correct == [True]
    open_ended = PromptSettings()
    assert evaluate([PROBLEM], policy, prompt=open_ended, settings=measured).outcomes[0].answer is None


KINDS = [
    (StepSettings(kind="sentences"), " Perhaps 4.", 1),
    (StepSettings(kind="markers", markers=("Wait",)), " Perhaps 4. The answer is 4.\n\n", 2),
    (StepSettings(kind="regex", pattern=r"4\."), " Perhaps 4.", None),
    (StepSettings(kind="paragraphs"), " Perhaps 4. The answer is 4.\n\n", 0),
    (StepSettings(kind="text", min_tokens=24), " Perhaps 4. The answer is 4.\n\nWait. 2 + 3 = 5.\n", 0),
]


@pytest.mark.parametrize(("steps", "text", "surplus"), KINDS, ids=lambda value: getattr(value, "kind", ""))
def test_a_step_is_cut_at_its_first_end_and_pays_for_the_rest(
    steps: StepSettings, text: str, surplus: int | None
) -> None:
    prompt = PromptSettings(steps=steps)
    stop = (*steps.stop_strings(prompt.step_end),)
    policy = engine(" " + THOUGHT.removeprefix("<think>\n") + ANSWER)
    found = drawn(policy, prompt, whole=False, stop=stop, visible=True, max_tokens=60)
    (sample,) = found.completion.samples
    assert sample.finish == "stop"
    assert sample.text.rstrip(" ").removesuffix("The") == text  # ".\nThe" is one token here
    assert found.tokens == policy.usage.sampled_tokens
    dropped = found.tokens - len(sample.tokens)
    assert dropped <= 6 * surplus if surplus is not None else dropped > 6


@pytest.mark.parametrize("expand", ["step", "rollout"])
@pytest.mark.parametrize(
    "steps",
    [
        StepSettings(kind="sentences"),
        StepSettings(kind="markers"),
        StepSettings(kind="paragraphs", max_tokens=9),
        StepSettings(kind="regex", pattern=r"\.", min_tokens=4, max_tokens=20),
    ],
    ids=lambda steps: steps.kind,
)
def test_trees_of_every_kind_of_step_hold_the_solution(steps: StepSettings, expand: Any) -> None:
    """The paths' tokens are the policy's; nothing inside the thought ends one; no node holds a long rest."""
    prompt = PromptSettings(steps=steps)
    settings = SearchSettings(expand=expand, simulations=12, children=1, max_tokens=300, max_depth=3)
    policy = engine(WHOLE)
    forest = search_problems([PROBLEM], policy, prompt=prompt, settings=settings)
    wanted = (*ids(TOKENIZER, WHOLE), TOKENIZER.eos_token_id)
    ends = [node for node in range(len(forest)) if forest.terminal[node]]
    assert ends
    for node in ends:
        assert (tuple(forest.solution_tokens(node)), forest.answers[node]) == (wanted, "5")
        assert FINISHES[forest.finish[node]] == "end"
    if steps.max_tokens is not None:
        assert int(forest.length.max()) <= steps.max_tokens + 2  # blank tokens join the step before them
        assert int(forest.depth.max()) > settings.max_depth
    assert forest.trees[0].generated == policy.usage.sampled_tokens


@pytest.mark.parametrize("expand", ["step", "rollout"])
def test_a_closed_thought_is_one_more_child(expand: Any) -> None:
    """Of every expanded node inside the thought, and of no other."""
    prompt = PromptSettings()
    lines = THOUGHT.splitlines(keepends=True)
    policy = engine(WHOLE)
    for count in range(len(lines) + 1):
        begun = ids(TOKENIZER, "".join(lines[:count]))
        closing = thoughts_of(TOKENIZER, prompt).closing("".join(lines[:count]))[1]
        answer = (*ids(TOKENIZER, "The answer is 4."), TOKENIZER.eos_token_id)
        policy._scripts[QUESTION].append((*begun, *closing, *answer))
    settings = SearchSettings(expand=expand, simulations=40, children=1, max_tokens=300, close_child=True)
    forest = search_problems([PROBLEM], policy, prompt=prompt, settings=settings)
    closed = [node for node in range(len(forest)) if forest.texts[node] == "</think>\n\n"]
    assert closed
    assert any(not forest.samples[node] for node in closed)
    for node in closed:
        before = forest.solution_text(int(forest.parent[node]))
        assert thoughts_of(TOKENIZER, prompt).phase(before) == "thought"
    assert {answer for answer in forest.answers if answer is not None} == {"4", "5"}
