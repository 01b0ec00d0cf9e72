"""Beam search over steps: it extends several partial solutions step by step and keeps the best at each level.

At each level every kept prefix gets some candidates for its next step. The candidates are scored, and the best become
the prefixes of the next level (Xie et al. 2023, arXiv 2305.00633; Snell et al. 2024, arXiv 2408.03314, section 5.2). In
those works a trained verifier scores the steps. Here the rewards of `search.rewards` that judge without a reference
answer score them, as in the tree search. The score of a prefix is the score of its last step. The finished solutions
vote for their answers, and each vote weighs as much as the solution's score.

The tokens of a level are reserved before it is sampled: its candidates share the tokens that are left. If these are too
few for steps as long as the longest of the level before, there are fewer candidates. If tokens are left after one
search, another search with other draws uses them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import count

from mcts_dpo.engines.base import Request
from mcts_dpo.engines.coroutine import Coroutine
from mcts_dpo.environments import Turn
from mcts_dpo.models.prompts import step_stops
from mcts_dpo.rewards.base import SolutionPath
from mcts_dpo.rewards.verification import read_solution, step_ending
from mcts_dpo.search.acting import Written, parts
from mcts_dpo.search.drawing import Drawn
from mcts_dpo.search.expansion import merge_key, step_texts
from mcts_dpo.search.mcts import step_tokens
from mcts_dpo.solve.budgets import BudgetedSettings
from mcts_dpo.solve.question import Question, judgements
from mcts_dpo.solve.solution import Solution
from mcts_dpo.solve.vote import Sampled, winner


@dataclass(frozen=True, slots=True)
class Prefix:
    """A partial solution that is kept.

    tokens:  its token ids. text: with an environment's replies. group: the independent search it belongs to (dvts).
    written: the policy's own text; None: all of it. answer: what an environment has read off the end.
    turns, replies: its steps as an environment sees them, and the replies in its tokens; () without one.
    """

    tokens: tuple[int, ...]
    text: str
    group: int
    written: str | None = None
    answer: str | None = None
    turns: tuple[Turn, ...] = ()
    replies: tuple[Written, ...] = ()

    @property
    def own_text(self) -> str:
        """The text in which an answer counts."""
        return self.text if self.written is None else self.written


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sampled step, with everything before it.

    prefix: the partial solution, this step included.
    ends:   whether the solution ends here.
    cut:    whether a length limit ended it. Then it has no answer.
    closed: whether an end-of-sequence token ended it.
    """

    prefix: Prefix
    ends: bool
    cut: bool
    closed: bool


def beam(question: Question, settings: BudgetedSettings) -> Coroutine[Solution]:
    """Keep the width / children best prefixes of each level. Each prefix gets `children` candidates."""
    return search_levels(question, settings, diverse=False)


def search_levels(question: Question, settings: BudgetedSettings, diverse: bool) -> Coroutine[Solution]:
    """Search from the root again and again until budget or seconds are spent; a search that has begun is finished.

    diverse: True: each prefix of the first level starts an independent search (dvts). False: all prefixes compete.
    """
    budget, left = settings.budget, settings.budget
    finished: list[Sampled] = []
    deadline = question.deadline()
    for again in count():
        affordable = max(1, settings.width * left // budget)  # less than `width` from the second search on
        search = settings.search
        sizes = [min(search.children_at(depth), affordable) for depth in range(search.max_depth)]
        spent, found = yield from _once(question, left, max(1, affordable // sizes[0]), sizes, diverse, again)
        finished += found
        left -= spent
        if spent == 0 or left <= question.cost or deadline.over:
            return winner(finished, "weighted", budget - left)
    raise AssertionError("count() never ends")


def _once(
    question: Question, budget: int, kept: int, sizes: Sequence[int], diverse: bool, again: int
) -> Coroutine[tuple[int, list[Sampled]]]:
    """Search once from the root. Returns (tokens spent, finished solutions).

    sizes: of each level, the candidates of one kept prefix.
    """
    cost = question.cost
    prefixes = [Prefix((), "", group) for group in range(kept)]
    finished: list[Sampled] = []
    longest, left = 1, budget
    for level, children in enumerate(sizes):
        # How many candidates can be paid if each is as long as the longest of the level before and is judged.
        paid = left // (longest + cost)
        if not prefixes or not paid:
            break
        each = min(children, max(1, paid // len(prefixes)))
        prefixes = prefixes[: paid // each]
        share = left // (len(prefixes) * each) - cost
        last = level + 1 == len(sizes)
        requests = [_step(question, prefix, each, share, last, again, level) for prefix in prefixes]
        drawn = yield from question.draw(requests, whole=last, turns=[prefix.turns for prefix in prefixes])
        left -= sum(one.tokens for one in drawn)
        longest = max(1, *(one.sampled(index) for one in drawn for index in range(len(one.completion.samples))))
        candidates = _merged(_candidates(question, prefixes, drawn, last), question.settings.merge, apart=diverse)
        judged = [candidate for candidate in candidates if not candidate.cut]
        scores = yield from judgements(question, [_path(question, candidate) for candidate in judged])
        left -= cost * len(judged)
        scored = list(zip(scores, judged, strict=True))
        finished += [_solution(question, candidate, score) for score, candidate in scored if candidate.ends]
        prefixes = _keep(scored, kept, diverse)
        if len(finished) >= kept * children and not diverse:
            break
    return budget - left, finished


def _step(question: Question, prefix: Prefix, n: int, share: int, last: bool, again: int, level: int) -> Request:
    room = max(1, question.limit - len(prefix.tokens))
    size = min(share, room if last else min(room, step_tokens(question.prompt, question.settings)))
    stop, visible = (question.prompt.stop, False) if last else step_stops(question.prompt)
    seed = ("beam", again, level, prefix.group, prefix.text)
    return question.sample(prefix.tokens, n, size, *seed, stop=stop, visible=visible)


def _candidates(question: Question, prefixes: Sequence[Prefix], drawn: Sequence[Drawn], last: bool) -> list[Candidate]:
    return [
        _candidate(question, prefix, one, index, last)
        for prefix, one in zip(prefixes, drawn, strict=True)
        for index in range(len(one.completion.samples))
    ]


def _candidate(question: Question, prefix: Prefix, drawn: Drawn, index: int, last: bool) -> Candidate:
    """A prefix with one of the samples that were drawn after it."""
    sample = drawn.completion.samples[index]
    over = None
    if question.acting is None:
        (added,) = step_texts(prefix.tokens, sample.tokens, [len(sample.tokens)], question.tokenizer)
        longer = Prefix((*prefix.tokens, *sample.tokens), prefix.text + added, prefix.group)
    else:
        added, over = drawn.own_text(index), drawn.acted[index].over
        longer = _acted(question, prefix, drawn, index, last)
    ending = bool(step_ending(prefix.own_text, added, question.thoughts)) if over is None else over
    stopped = sample.finish == "stop" and (last or ending)
    cut = sample.finish == "length" or (
        sample.finish == "stop" and not stopped and len(longer.tokens) >= question.limit  # no further step fits
    )
    closed = sample.finish == "end"
    return Candidate(longer, closed or stopped or cut, cut, closed)


def _acted(question: Question, prefix: Prefix, drawn: Drawn, index: int, last: bool) -> Prefix:
    """A prefix with a sample to which an environment may have replied."""
    assert question.acting is not None
    sample, replies, before = drawn.completion.samples[index], drawn.acted[index].replies, len(prefix.tokens)
    tokenizer, environment = question.tokenizer, question.acting.environment
    found = parts(sample.tokens, prefix.tokens, replies, tokenizer, question.prompt, environment, whole=last)
    return Prefix(
        (*prefix.tokens, *sample.tokens),
        prefix.text + sample.text,
        prefix.group,
        prefix.own_text + drawn.own_text(index),
        drawn.acted[index].answer,
        (*prefix.turns, *(part.turn for part in found)),
        (*prefix.replies, *(Written(before + one.start, before + one.end, one.reply) for one in replies)),
    )


def _merged(candidates: Sequence[Candidate], merge: str, apart: bool) -> list[Candidate]:
    """Keep the first of all candidates that are equal by `search.merge` and end in the same way.

    apart: compare only within a group.
    """
    first: dict[Hashable, Candidate] = {}
    for candidate in candidates:
        group = candidate.prefix.group if apart else 0
        key = merge_key(candidate.prefix.text, candidate.prefix.tokens, merge)
        first.setdefault((key, candidate.ends, candidate.cut, group), candidate)
    return list(first.values())


def _path(question: Question, candidate: Candidate) -> SolutionPath:
    text, ends = question.prompt.prefill + candidate.prefix.text, candidate.ends
    answer = _answer(question, candidate) if ends else None
    prefix, closed = candidate.prefix, candidate.closed
    return question.path(prefix.tokens, text, terminal=ends, closed=closed, answer=answer, replies=prefix.replies)


def _answer(question: Question, candidate: Candidate) -> str | None:
    text = question.prompt.prefill + candidate.prefix.own_text
    return read_solution(text, candidate.cut, question.problem, question.thoughts, candidate.prefix.answer).answer


def _solution(question: Question, candidate: Candidate, score: float) -> Sampled:
    text = question.prompt.prefill + candidate.prefix.text
    return Sampled(text, _answer(question, candidate), len(candidate.prefix.tokens), score)


def _keep(scored: Sequence[tuple[float, Candidate]], kept: int, diverse: bool) -> list[Prefix]:
    """The prefixes of the next level, best first. Ties go to the first sampled. An unknown score (nan) comes last."""
    ranked = sorted(scored, key=lambda pair: math.inf if math.isnan(pair[0]) else -pair[0])
    if not diverse:
        going_on = [candidate.prefix for _, candidate in ranked if not candidate.ends][:kept]
        # Draws are seeded by group and text: two kept prefixes may share a group, but never a text.
        return going_on
    best: dict[int, Candidate] = {}
    for _, candidate in ranked:
        best.setdefault(candidate.prefix.group, candidate)
    return [candidate.prefix for candidate in best.values() if not candidate.ends]
