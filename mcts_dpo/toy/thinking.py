"""The thinking world: a tiny policy that thinks with false starts and corrections before it answers.

In: stories of the built-in world. Out: problems, demonstrations with thoughts, and a policy that has learned from them.
A thought works the story out with wrong habits. At its end the policy often notices that an event was wrong ("Wait"),
and works the story out again, more carefully; sometimes it checks what was right already. Some demonstrations are
closed early, so that the policy can answer after any line: with its last complete result, else with what it holds:

    loses: 9 + 4 = 13
    more: 13 + 2 = 15
    Wait
    loses: 9 - 4 = 5
    more: 5 + 2 = 7
    </think>
    The answer is 7.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import seed_from
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.data import Problem
from mcts_dpo.models.phases import ThoughtMarks
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.toy.policy import WarmStartSettings, teach, toy_prompt
from mcts_dpo.toy.tokenizer import toy_tokenizer
from mcts_dpo.toy.world import (
    NO_HABITS,
    Demonstration,
    Event,
    Habits,
    event_lines,
    make_problems,
    make_rehearsals,
    told,
)

EVENTS, TAUGHT_EVENTS = (3,), (1, 2, 3)
"""Events of a problem, and of a demonstration."""

HABITS = Habits(lose=(0.2, 0.2, 0.6, 0.6), bags=(0.2, 0.2, 0.6, 0.6), slip=0.02)
CAREFUL = Habits(lose=(0.1, 0.1, 0.3, 0.3), bags=(0.1, 0.1, 0.3, 0.3), slip=0.01)
"""Habits in the first pass of a thought, and after "Wait"."""

NOTICES, CHECKS, PASSES = 0.7, 0.4, 3
"""The probability that a wrong pass is noticed at its end, that a right one is checked, and most passes."""

CLOSED_EARLY = 0.3
"""Share of demonstrations whose thought is closed after any of its lines."""

CONTEXT = 320
SOLUTION_TOKENS = 200
WAIT, CLOSE = "Wait", "</think>"


def thinking_prompt() -> PromptSettings:
    """The prompt of the policy. It opens the thought."""
    marks = ThoughtMarks(opening="<think>", closing=CLOSE, close=f"{CLOSE}\n", skip="")
    changes = {"template": "{question}\n<think>\n", "thought_marks": (marks,)}
    return toy_prompt().model_copy(update=changes)


def thinking_policy() -> WarmStartSettings:
    """How the policy is made and taught."""
    return WarmStartSettings(
        events=TAUGHT_EVENTS, habits=HABITS, steps=1500, context=CONTEXT, max_tokens=SOLUTION_TOKENS
    )


def thinking_problems(count: int, seed: int, *, exclude: Collection[str] = ()) -> list[Problem]:
    """`count` problems of `EVENTS`, as `world.make_problems` makes them."""
    return make_problems(count, seed, events=EVENTS, exclude=exclude)


def thought(question: str, habits: Habits, rng: Random) -> tuple[list[str], list[int]] | None:
    """The lines of a thought about a question of the world, and the answer that may be given after each of them.

    None if it meets an impossible number. Raises InputError for another question.
    """
    known = told(question)
    if known is None:
        raise InputError(f"question: {question[:60]!r} is not of the built-in world")
    truth = _pass(*known, NO_HABITS, rng)
    lines: list[str] = []
    answers: list[int] = []
    for index in range(PASSES):
        done = _pass(*known, CAREFUL if index else habits, rng)
        if done is None or truth is None:
            return None
        lines += [WAIT, *done[0]] if index else done[0]
        answers += [answers[-1]] * len(done[0]) + [done[1][-1]] if index else done[1]
        if rng.random() >= (CHECKS if done == truth else NOTICES):
            break
    return lines, answers


def _pass(start: int, events: Sequence[Event], habits: Habits, rng: Random) -> tuple[list[str], list[int]] | None:
    """The lines of one calculation, and what is held after each: within an event, what was held before it."""
    lines: list[str] = []
    held = [start]
    for event in events:
        found = event_lines(event, held[-1], habits, rng)
        if found is None:
            return None
        lines += found[0]
        held += [held[-1]] * (len(found[0]) - 1) + [found[1]]
    return lines, held[1:]


def thinking_demonstrations(count: int, seed: int, habits: Habits = HABITS) -> list[Demonstration]:
    """`count` thoughts and their answers, about distinct questions that `thinking_problems` never asks.

    `right` is whether the answer is. Raises InputError as `world.make_rehearsals` does.
    """
    given = []
    problems = make_rehearsals(count, seed_from("thinking questions", seed), events=TAUGHT_EVENTS)
    for index, problem in enumerate(problems):
        rng = Random(seed_from("thinking demonstration", seed, index))
        while (found := thought(problem.question, habits, rng)) is None:
            pass
        lines, answers = found
        end = rng.randint(1, len(lines)) if rng.random() < CLOSED_EARLY else len(lines)
        solution = "\n".join([*lines[:end], CLOSE, f"The answer is {answers[end - 1]}."])
        right = str(answers[end - 1]) == problem.answer
        given.append(Demonstration(replace(problem, solution=solution), (right,)))
    return given


def teach_thinking(
    out: Path, *, seed: int, settings: WarmStartSettings | None = None, progress: Progress = silent
) -> None:
    """Make the tiny policy, teach it to think, and write it to `out`, whole or not at all.

    The same seed on the same machine gives the same bytes. It learns no self-evaluation.
    """
    settings = settings or thinking_policy()
    prompt = thinking_prompt()
    tokenizer = toy_tokenizer(" ".join((WAIT, "think", prompt.self_evaluation_question, prompt.yes, prompt.no)))
    shown = thinking_demonstrations(settings.demonstrations, seed, settings.habits)
    teach(out, shown, tokenizer, prompt, settings, seed=seed, told="thinking", progress=progress)
