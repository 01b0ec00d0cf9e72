"""Whole solutions sampled one after the other, and the rules that make one answer of them.

`greedy` takes the one solution of temperature 0. Three rules read the same stream of samples: `majority`
(self-consistency: Wang et al. 2022, arXiv 2203.11171), `best-of-n` (the solution that is judged most likely right;
Cobbe et al. 2021, arXiv 2110.14168, by a trained verifier) and `weighted` (a vote in which each solution counts as
much as it is believed; Li et al. 2022, arXiv 2206.02336, section 3.2). The judge is the policy itself, a value model
(`search.value_model`), or both (`budget.judge`).

One stream serves every budget. Sample j's draws depend on the seed, the problem and j alone, so a budget B sees the
first samples that fit into B, and of the next one as many tokens as are left: exactly what sampling with B alone would
have drawn. What a rule is charged at B is what it would have spent then, whatever was drawn for larger budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from mcts_dpo.engines.base import Sample
from mcts_dpo.search.rewards import outcome
from mcts_dpo.search.strategies.budget import Attempt, Task, judge
from mcts_dpo.search.strategies.dialogues import Dialogue
from verifiers import grouped

Rule = Literal["majority", "best-of-n", "weighted"]
RULES: tuple[Rule, ...] = get_args(Rule)
JUDGED: tuple[Rule, ...] = ("best-of-n", "weighted")
"""The rules that ask the policy about each finished solution, and pay for the question."""


@dataclass(frozen=True, slots=True)
class Solution:
    """One finished solution. answer: None without one, or if it was cut. score: C in [0, 1]; None if not asked."""

    text: str
    answer: str | None
    tokens: int
    score: float | None = None


def greedy(task: Task, budget: int) -> Dialogue[Attempt]:
    """The solution of temperature 0, within the budget."""
    request = task.sample((), 1, min(task.limit, budget), "greedy", stop=task.prompt.stop)
    (completion,) = yield [replace(request, temperature=0.0)]
    solution = read(task, completion.samples[0])
    return Attempt(solution.answer, solution.text, solution.tokens, int(solution.answer is not None))


def draw(task: Task, plain: int, judged: int) -> Dialogue[list[Solution]]:
    """Samples until the budgets are spent; the last is cut to what is left.

    plain:  the largest budget of majority, judged: of the rules that ask about solutions; 0 without such rules. All
            solutions within `judged` are asked about, those without an answer excepted (they have no say).
    """
    samples: list[Sample] = []
    solutions: list[Solution] = []
    cost = task.cost
    while True:
        drawn = sum(solution.tokens for solution in solutions)
        asked = cost * sum(solution.answer is not None for solution in solutions)
        left = max(plain - drawn, judged - drawn - asked)
        if left <= 0:
            break
        # As many at once as are paid for whatever their lengths; so the stream does not depend on the number.
        count = max(1, left // (task.limit + (cost if judged else 0)))
        size = min(task.limit, left)
        first = len(samples)
        completions = yield [task.sample((), 1, size, "sample", first + j, stop=task.prompt.stop) for j in range(count)]
        samples += [completion.samples[0] for completion in completions]
        solutions += [read(task, sample) for sample in samples[first:]]
    reached, _ = _within(solutions, judged, task.cost)
    judging = [index for index, solution in enumerate(solutions[:reached]) if solution.answer is not None]
    scores = yield from judge(task, [(samples[index].tokens, samples[index].finish == "end") for index in judging])
    for index, score in zip(judging, scores, strict=True):
        solutions[index] = replace(solutions[index], score=score)
    return solutions


def read(task: Task, sample: Sample) -> Solution:
    """A sampled solution and the answer that it states."""
    text = task.prompt.prefill + sample.text
    cut = sample.finish == "length"
    return Solution(text, outcome(text, cut, task.problem, task.prompt.answer_style).answer, len(sample.tokens))


def answer_from(solutions: Sequence[Solution], rule: Rule, budget: int, question_cost: int) -> Attempt:
    """What a rule makes of the stream of samples within a budget.

    solutions: in the order in which they were drawn, for this budget or a larger one.
    question_cost: tokens charged for each question; best-of-n and weighted ask about every solution with an answer.
    """
    reached, spent = _within(solutions, budget, question_cost if rule in JUDGED else 0)
    return choose(solutions[:reached], rule, spent)


def _within(solutions: Sequence[Solution], budget: int, question_cost: int) -> tuple[int, int]:
    """How many of the solutions are finished (and asked about) within a budget, and what is spent of it."""
    spent = 0
    for index, solution in enumerate(solutions):
        cost = solution.tokens + (question_cost if solution.answer is not None else 0)
        if spent + cost > budget:
            # Cut as far as the budget reaches; or whole, but with nothing left to ask about it.
            return index, min(budget, spent + solution.tokens)
        spent += cost
    return len(solutions), spent


def choose(solutions: Sequence[Solution], rule: Rule, spent: int) -> Attempt:
    """The answer of finished solutions. Ties go to what was found first."""
    answered = [solution for solution in solutions if solution.answer is not None]
    if not answered:
        return Attempt(None, "", spent, 0)
    weights = [1.0 if rule == "majority" else _score(solution) for solution in answered]
    undecided = 0
    if rule == "best-of-n":
        best = max(range(len(answered)), key=weights.__getitem__)
    else:
        vote = grouped([solution.answer for solution in answered])
        best = max(vote.classes, key=lambda members: sum(weights[index] for index in members))[0]
        undecided = vote.undecided
    return Attempt(answered[best].answer, answered[best].text, spent, len(answered), undecided=undecided)


def _score(solution: Solution) -> float:
    assert solution.score is not None, "a solution within the budget has been asked about"
    return solution.score
