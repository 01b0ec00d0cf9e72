"""One stream of whole solutions that serves majority, best-of-n and weighted at every budget.

The draws of sample j depend only on the seed, the problem and j. A budget B therefore sees the first samples that fit
into B, and as many tokens of the next one as are left. That is exactly what sampling with B alone would draw. A rule is
charged at B what it would spend alone, whatever was drawn for larger budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mcts_dpo.engines.base import Sample
from mcts_dpo.engines.coroutine import Coroutine, completions
from mcts_dpo.rewards.base import SolutionPath
from mcts_dpo.rewards.verification import verify_solution
from mcts_dpo.solve.question import Question, judgements
from mcts_dpo.solve.solution import Solution
from mcts_dpo.solve.vote import Rule, Sampled, winner

JUDGED: tuple[Rule, ...] = ("best-of-n", "weighted")
"""The rules that ask the policy about each finished solution, and pay for the question."""


def draw(question: Question, plain: int, judged: int) -> Coroutine[list[Sampled]]:
    """Samples until the budgets are spent; the last is cut to what is left.

    plain:  the largest budget of majority, judged: of the rules that ask about solutions; 0 without such rules. All
            solutions within `judged` are asked about, those without an answer excepted (they have no vote).
    """
    samples: list[Sample] = []
    solutions: list[Sampled] = []
    cost = question.cost
    while True:
        drawn = sum(solution.tokens for solution in solutions)
        asked = cost * sum(solution.answer is not None for solution in solutions)
        left = max(plain - drawn, judged - drawn - asked)
        if left <= 0:
            break
        # As many at once as are paid for whatever their lengths; so the stream does not depend on the number.
        count = max(1, left // (question.limit + (cost if judged else 0)))
        size = min(question.limit, left)
        first, stop = len(samples), question.prompt.stop
        drawn_now = yield from completions(
            [question.sample((), 1, size, "sample", first + j, stop=stop) for j in range(count)]
        )
        samples += [completion.samples[0] for completion in drawn_now]
        solutions += [read(question, sample) for sample in samples[first:]]
    reached, _ = _within(solutions, judged, cost)
    judging = [index for index, solution in enumerate(solutions[:reached]) if solution.answer is not None]
    paths = [_path(question, samples[index], solutions[index]) for index in judging]
    scores = yield from judgements(question, paths)
    for index, score in zip(judging, scores, strict=True):
        solutions[index] = replace(solutions[index], score=score)
    return solutions


def sampled(question: Question, rule: Rule, budget: int) -> Coroutine[Solution]:
    """The answer of one rule to a stream of its own."""
    judged = rule in JUDGED
    stream = yield from draw(question, 0 if judged else budget, budget if judged else 0)
    return answer_from(stream, rule, budget, question.cost)


def read(question: Question, sample: Sample) -> Sampled:
    """A sampled solution and the answer that it states."""
    text = question.prompt.prefill + sample.text
    cut = sample.finish == "length"
    answer = verify_solution(question.opened + text, cut, question.problem, question.prompt.answer_style).answer
    return Sampled(text, answer, len(sample.tokens), cut=cut)


def _path(question: Question, sample: Sample, solution: Sampled) -> SolutionPath:
    return question.path(sample.tokens, solution.text, terminal=True, closed=sample.finish == "end")


def answer_from(solutions: Sequence[Sampled], rule: Rule, budget: int, question_cost: int) -> Solution:
    """The solution of a rule from the part of the stream that fits into a budget.

    solutions: in the order in which they were drawn, for this budget or a larger one.
    question_cost: tokens charged for each question; best-of-n and weighted ask about every solution with an answer.
    """
    reached, spent = _within(solutions, budget, question_cost if rule in JUDGED else 0)
    return winner(solutions[:reached], rule, spent)


def _within(solutions: Sequence[Sampled], budget: int, question_cost: int) -> tuple[int, int]:
    """How many of the solutions are finished (and asked about) within a budget, and what is spent of it."""
    spent = 0
    for index, solution in enumerate(solutions):
        cost = solution.tokens + (question_cost if solution.answer is not None else 0)
        if spent + cost > budget:
            # Cut as far as the budget reaches; or whole, but with nothing left to ask about it.
            return index, min(budget, spent + solution.tokens)
        spent += cost
    return len(solutions), spent
