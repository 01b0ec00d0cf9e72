"""Counts what a strategy costs while it runs, and supplies the best text so far if the strategy finds no answer.

In: a question and the coroutine of any strategy. Out: a coroutine that returns the same solution with its costs. If a
request is refused, it returns a solution with an error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mcts_dpo.engines.base import Completion, Request, Sample
from mcts_dpo.engines.coroutine import Coroutine, RequestError, Returned
from mcts_dpo.models.decoding import decode
from mcts_dpo.solve.question import Question
from mcts_dpo.solve.solution import Solution, split_text


@dataclass(slots=True)
class Meter:
    """The costs so far, and the best draft.

    tokens:     tokens spent. judge_tokens: those of judges among them.
    expansions: prefixes from which samples were drawn.
    rank:       of the draft: whether it is whole, and its length in tokens while it is not (0 for a whole one).
    draft:      its token ids. It may state any answer or none.
    """

    tokens: int = 0
    judge_tokens: int = 0
    expansions: int = 0
    rank: tuple[bool, int] = (False, 0)
    draft: tuple[int, ...] = ()


def metered(question: Question, coroutine: Coroutine[Solution]) -> Coroutine[Solution]:
    """Run a strategy's coroutine, count its costs and add them to its solution."""
    meter = Meter()
    try:
        solution = yield from _watched(question, coroutine, meter)
    except RequestError as error:
        solution = Solution(error=str(error))
    solution = replace(
        solution,
        prompt_tokens=len(question.prefix),
        tokens=solution.tokens or meter.tokens,
        judge_tokens=solution.judge_tokens or meter.judge_tokens,
        expansions=solution.expansions or meter.expansions,
    )
    return solution if solution.error else _with_text(question, solution, meter)


def _watched(question: Question, coroutine: Coroutine[Solution], meter: Meter) -> Coroutine[Solution]:
    try:
        new = next(coroutine)
        while True:
            try:
                returned = yield new
            except GeneratorExit:
                coroutine.close()
                raise
            for one in returned:
                _note(question, one, meter)
            new = coroutine.send(returned)
    except StopIteration as stop:
        solution: Solution = stop.value
        return solution


def _note(question: Question, returned: Returned, meter: Meter) -> None:
    request, completion = returned
    if not isinstance(request, Request) or not isinstance(completion, Completion):
        return
    if request.choices is not None:
        meter.tokens += max(map(len, request.choices))
        meter.judge_tokens += max(map(len, request.choices))
        return
    if request.judging:
        meter.tokens += sum(len(sample.tokens) for sample in completion.samples)
        meter.judge_tokens += sum(len(sample.tokens) for sample in completion.samples)
        return
    meter.expansions += 1
    before = tuple(request.prefix[len(question.prefix) :])
    last = request.stop == question.prompt.stop

    def whole(sample: Sample) -> bool:
        return len(sample.tokens) > 1 and (sample.finish == "end" or (sample.finish == "stop" and last))

    for sample in completion.samples:
        meter.tokens += len(sample.tokens)
        # The draft is the first whole solution. Until there is one, it is the longest beginning.
        rank = (whole(sample), 0 if whole(sample) else len(before) + len(sample.tokens))
        if rank > meter.rank:
            meter.rank, meter.draft = rank, (*before, *sample.tokens)


def _with_text(question: Question, solution: Solution, meter: Meter) -> Solution:
    if solution.answer is None and not solution.text:
        text = question.prompt.prefill + decode(question.tokenizer, meter.draft)
        solution = replace(solution, text=text, steps=(), cut=not meter.rank[0])
    return solution if solution.steps else replace(solution, steps=split_text(solution.text, question.prompt.step_end))
