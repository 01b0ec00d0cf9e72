"""Samples one stream of whole solutions that serves majority, best-of-n and weighted at every budget.

The draws of sample j depend only on the seed, the problem and j. A budget B therefore sees the first samples that fit
into B, and as many tokens of the next one as are left. A run with only the budget B would draw exactly the same. At B,
a rule pays what it would spend in such a run, even if more was drawn for larger budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mcts_dpo.engines.coroutine import Coroutine
from mcts_dpo.rewards.base import SolutionPath
from mcts_dpo.rewards.verification import read_solution
from mcts_dpo.search.drawing import Drawn
from mcts_dpo.solve.question import Question, judgements
from mcts_dpo.solve.solution import Solution
from mcts_dpo.solve.vote import Rule, Sampled, winner

JUDGED: tuple[Rule, ...] = ("best-of-n", "weighted")
"""The rules that need a score for each finished solution with an answer, and pay for it."""


def draw(question: Question, plain: int, judged: int) -> Coroutine[list[Sampled]]:
    """Sample solutions until the budgets are spent. The last one is cut to the tokens that are left.

    With `search.seconds`, no more solutions at a time than the engine decodes together; after them none begins.

    plain:  the largest budget of majority, in generated tokens; 0 without majority.
    judged: the largest budget of the rules in JUDGED; 0 without them. All finished solutions within it are scored,
            except those without an answer, because they have no vote.
    """
    samples: list[Drawn] = []
    solutions: list[Sampled] = []
    cost = question.cost
    deadline = question.deadline()
    while not (solutions and deadline.over):
        drawn = sum(solution.tokens for solution in solutions)
        asked = cost * sum(solution.answer is not None for solution in solutions)
        left = max(plain - drawn, judged - drawn - asked)
        if left <= 0:
            break
        # At once, only as many as the budget pays at full length: so their number does not change the stream.
        count = max(1, left // (question.limit + (cost if judged else 0)))
        if question.settings.seconds is not None:
            count = min(count, question.engine.slots)
        size = min(question.limit, left)
        first, stop = len(samples), question.prompt.stop
        drawn_now = yield from question.draw(
            [question.sample((), 1, size, "sample", first + j, stop=stop) for j in range(count)]
        )
        samples += drawn_now
        solutions += [read(question, sample) for sample in samples[first:]]
    reached, _ = _within(solutions, judged, cost)
    judging = [index for index, solution in enumerate(solutions[:reached]) if solution.answer is not None]
    paths = [_path(question, samples[index], solutions[index]) for index in judging]
    scores = yield from judgements(question, paths)
    for index, score in zip(judging, scores, strict=True):
        solutions[index] = replace(solutions[index], score=score)
    return solutions


def sampled(question: Question, rule: Rule, budget: int) -> Coroutine[Solution]:
    """Draw a stream for one rule and one budget, and answer by that rule."""
    judged = rule in JUDGED
    stream = yield from draw(question, 0 if judged else budget, budget if judged else 0)
    return answer_from(stream, rule, budget, question.cost)


def read(question: Question, drawn: Drawn) -> Sampled:
    """Read the answer that a solution states, the only sample of what was drawn. A cut solution states none."""
    sample, prefill = drawn.completion.samples[0], question.prompt.prefill
    cut = sample.finish == "length"
    given = drawn.acted[0].answer if drawn.acted else None
    answer = read_solution(prefill + drawn.own_text(0), cut, question.problem, question.thoughts, given).answer
    return Sampled(prefill + sample.text, answer, drawn.sampled(0), cut=cut)


def _path(question: Question, drawn: Drawn, solution: Sampled) -> SolutionPath:
    sample = drawn.completion.samples[0]
    closed, replies = sample.finish == "end", drawn.acted[0].replies if drawn.acted else ()
    return question.path(
        sample.tokens, solution.text, terminal=True, closed=closed, answer=solution.answer, replies=replies
    )


def answer_from(solutions: Sequence[Sampled], rule: Rule, budget: int, question_cost: int) -> Solution:
    """Answer by a rule from the part of the stream that fits into a budget.

    solutions:     in the order of the draws, for this budget or a larger one.
    question_cost: tokens charged for the score of one solution. Best-of-n and weighted score every solution with an
                   answer.
    """
    cost = question_cost if rule in JUDGED else 0
    reached, spent = _within(solutions, budget, cost)
    judged = cost * sum(solution.answer is not None for solution in solutions[:reached])
    return replace(winner(solutions[:reached], rule, spent), judge_tokens=judged)


def _within(solutions: Sequence[Sampled], budget: int, question_cost: int) -> tuple[int, int]:
    """Returns (how many solutions are finished, and scored, within a budget; how many of its tokens are spent)."""
    spent = 0
    for index, solution in enumerate(solutions):
        cost = solution.tokens + (question_cost if solution.answer is not None else 0)
        if spent + cost > budget:
            # The budget cuts this solution, or it is whole and no tokens are left to score it.
            return index, min(budget, spent + solution.tokens)
        spent += cost
    return len(solutions), spent
