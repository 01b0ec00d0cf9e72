"""The long-horizon world: stories of six or seven events. A policy with habits gets one sample in ten right.

In: problems and solutions of the built-in world, demonstrations. Out: what is true of each line, and judgements of
demonstrations at their first errors. The short world (1 to 3 events) saturates: every method solves nine problems of
ten there. Here about half of the solutions whose answer is right have a wrong line: they are right by luck.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from random import Random

from mcts_dpo.common.files import seed_from
from mcts_dpo.data import Problem
from mcts_dpo.toy.world import Demonstration, Habits, Judgement, make_problems

EVENTS = (6, 7)
"""Events of a problem; a solution then has six to fifteen lines, nine on average."""

TAUGHT_EVENTS = (1, 2, 3, 4, 5, 6, 7)
"""Events of a demonstration: short stories first teach what the long ones need."""

HABITS = Habits(lose=(0.3, 0.3, 0.8, 0.8), bags=(0.3, 0.3, 0.8, 0.8), slip=0.03)
CONTEXT = 384
SOLUTION_TOKENS = 200
"""More than any solution is long, in tokens; `CONTEXT` holds its question and a judgement's too."""

AT_FIRST_ERROR, BEFORE_IT = 0.4, 0.3
"""Shares of the school's judgements; the rest stands anywhere."""


def horizon_problems(count: int, seed: int, *, exclude: Collection[str] = ()) -> list[Problem]:
    """`count` problems of `EVENTS`, as `world.make_problems` makes them."""
    return make_problems(count, seed, events=EVENTS, exclude=exclude)


def lines_right(problem: Problem, solution: str) -> list[bool]:
    """For each line of a solution: whether it and all lines before it are the true solution's.

    problem: of the built-in world; its `solution` is the true one, the only right way to tell the story in numbers.
    A solution that ends early has only right lines, but is not right (see `truly_right`).
    """
    truth = (problem.solution or "").split("\n")
    written = solution.rstrip("\n").split("\n")
    return [written[:end] == truth[:end] for end in range(1, len(written) + 1)]


def truly_right(problem: Problem, solution: str) -> bool:
    """Whether every line of the solution is the true solution's: right for the right reasons, not by luck."""
    return solution.rstrip("\n") == problem.solution


def judgements_at_errors(shown: Sequence[Demonstration], count: int, seed: int) -> list[Judgement]:
    """`count` judgements of demonstrations that tell the first wrong line from the right ones before it.

    Of the demonstrations with a wrong line, `AT_FIRST_ERROR` (a share) are judged at it, and `BEFORE_IT` at a right
    line before it, drawn uniformly; all others anywhere. The ends of a line drawn: from 1 to all of them.
    """
    judged = []
    for index in range(count):
        rng = Random(seed_from("horizon judgement", seed, index))
        demonstration = shown[rng.randrange(len(shown))]
        right = demonstration.right
        first_error = right.index(False) if False in right else None
        where = rng.random()
        if first_error is not None and where < AT_FIRST_ERROR:
            lines = first_error + 1
        elif first_error and where < AT_FIRST_ERROR + BEFORE_IT:
            lines = rng.randint(1, first_error)
        else:
            lines = rng.randint(1, len(right))
        judged.append(Judgement(demonstration.problem, lines, right[lines - 1]))
    return judged
