"""The tool world: products that a tiny policy cannot work out in its head, but can delegate to a calculator.

In: a count and a seed. Out: problems, demonstrations, and a policy that has learned from them. Most demonstrations
calculate in the head, and their results are guesses: the policy learns to guess. Some delegate, and a few of their
calls are wrong:

    Ann has 47 boxes of 86 pens. How many pens does she have?
    boxes: <tool_call>{"name": "calculator", "arguments": {"expression": "47 * 86"}}</tool_call>
    4042
    The answer is 4042.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from random import Random

from mcts_dpo.common.files import digest, seed_from
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.data import Problem
from mcts_dpo.environments.tools import ToolsSettings
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.toy.policy import WarmStartSettings, teach, toy_prompt
from mcts_dpo.toy.tokenizer import toy_tokenizer
from mcts_dpo.toy.world import Demonstration

DELEGATES, WRONG_CALL = 0.25, 0.15
"""The share of demonstrations that delegate, and of these the share with a wrong operation."""

CONTEXT, SOLUTION_TOKENS = 160, 80
WORDS = "boxes tool call name calculator arguments expression"
ENVIRONMENT = ToolsSettings(described="none")
_NAMES = ("Ann", "Beth", "Clara", "Dora", "Emma", "Fay", "Gina", "Hana")


def tool_prompt() -> PromptSettings:
    """The prompt of the policy: the question, then one calculation per line."""
    return toy_prompt()


def tool_problems(count: int, seed: int, *, exclude: Collection[str] = ()) -> list[Problem]:
    """`count` problems with distinct questions, none of which is in `exclude` (question texts)."""
    rng, found, seen = Random(seed_from("tool problems", seed)), list[Problem](), set(exclude)
    while len(found) < count:
        boxes, each = rng.randint(12, 99), rng.randint(12, 99)
        question = f"{rng.choice(_NAMES)} has {boxes} boxes of {each} pens. How many pens does she have?"
        if question not in seen:
            seen.add(question)
            answer = str(boxes * each)
            solution = f"boxes: {boxes} * {each} = {answer}\nThe answer is {answer}."
            found.append(Problem(digest(question)[:12], question, answer, solution))
    return found


def tool_demonstrations(count: int, seed: int) -> list[Demonstration]:
    """`count` solutions of problems that are drawn with a seed of their own. Their last line states what they hold."""
    return [
        _demonstration(problem, Random(seed_from("tool demonstration", seed, problem.id)))
        for problem in tool_problems(count, seed_from("tool teaching", seed))
    ]


def _demonstration(problem: Problem, rng: Random) -> Demonstration:
    boxes, each = (int(word) for word in problem.question.split() if word.isdigit())
    if rng.random() >= DELEGATES:
        held = rng.randint(100, 9999)
        line = f"boxes: {boxes} * {each} = {held}"
    else:
        wrong = rng.random() < WRONG_CALL
        held = boxes + each if wrong else boxes * each
        expression = f"{boxes} {'+' if wrong else '*'} {each}"
        call = json.dumps({"name": "calculator", "arguments": {"expression": expression}})
        line = f"boxes: {ENVIRONMENT.opening}{call}{ENVIRONMENT.closing}\n{held}"
    shown = replace(problem, solution=f"{line}\nThe answer is {held}.")
    return Demonstration(shown, (str(held) == problem.answer,))


def tool_policy() -> WarmStartSettings:
    """How the policy is made and taught."""
    return WarmStartSettings(steps=1200, context=CONTEXT, max_tokens=SOLUTION_TOKENS)


def teach_tools(
    out: Path, *, seed: int, settings: WarmStartSettings | None = None, progress: Progress = silent
) -> None:
    """Make the tiny policy, teach it, and write it to `out`, whole or not at all (see `policy.teach`)."""
    settings, prompt = settings or tool_policy(), tool_prompt()
    tokenizer = toy_tokenizer(" ".join((WORDS, prompt.self_evaluation_question, prompt.yes, prompt.no)))
    shown = tool_demonstrations(settings.demonstrations, seed)
    teach(out, shown, tokenizer, prompt, settings, seed=seed, told="tools", progress=progress)
