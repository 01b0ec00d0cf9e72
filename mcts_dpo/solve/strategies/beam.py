"""Beam search over steps: many partial solutions side by side, judged as they grow, the best prefixes kept.

Of all candidates of a level the best prefixes are kept (Xie et al. 2023, arXiv 2305.00633; Snell et al. 2024, arXiv
2408.03314, section 5.2). In those works a trained verifier scores the steps. Here those rewards of `search.rewards` do
that judge without a reference answer, as in the tree search. A prefix scores as its last step does, and the answers of
all finished solutions are weighed by their scores.

A level is paid before it is sampled: its candidates share what is left, and are fewer where too little is left for
steps as long as those before. What is left after one search goes into another with other draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from mcts_dpo.engines.base import Completion, Request
from mcts_dpo.engines.coroutine import Coroutine, completions
from mcts_dpo.models.prompts import step_stops
from mcts_dpo.rewards.base import SolutionPath
from mcts_dpo.rewards.verification import ends_with_answer, verify_solution
from mcts_dpo.search.expansion import normalised, step_texts
from mcts_dpo.search.mcts import meets_stop
from mcts_dpo.solve.budgets import BudgetedSettings
from mcts_dpo.solve.question import Question, judgements
from mcts_dpo.solve.solution import Solution
from mcts_dpo.solve.vote import Sampled, winner


@dataclass(frozen=True, slots=True)
class Prefix:
    """A partial solution that is kept. group: which of the independent searches it belongs to (dvts)."""

    tokens: tuple[int, ...]
    text: str
    group: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sampled step with all that leads to it.

    ends: the solution ends here. cut: by a length limit, without an answer then. closed: by an end-of-sequence token.
    """

    prefix: Prefix
    ends: bool
    cut: bool
    closed: bool


def beam(question: Question, settings: BudgetedSettings) -> Coroutine[Solution]:
    """Keep the width / children best prefixes of each level, `children` candidates under each."""
    return search_levels(question, settings, diverse=False)


def search_levels(question: Question, settings: BudgetedSettings, diverse: bool) -> Coroutine[Solution]:
    """Searches from the root until the budget is spent. diverse: prefixes are independent of each other."""
    budget, left = settings.budget, settings.budget
    finished: list[Sampled] = []
    for again in count():
        affordable = max(1, settings.width * left // budget)  # of the second search and those after it
        each = min(settings.search.children, affordable)
        kept, depth = max(1, affordable // each), settings.search.max_depth
        spent, found = yield from _once(question, left, kept, each, depth, diverse, again)
        finished += found
        left -= spent
        if spent == 0 or left <= question.cost:
            return winner(finished, "weighted", budget - left)
    raise AssertionError("count() never ends")


def _once(
    question: Question, budget: int, kept: int, children: int, depth: int, diverse: bool, again: int
) -> Coroutine[tuple[int, list[Sampled]]]:
    """One search from the root: (tokens spent, finished solutions)."""
    cost = question.cost
    prefixes = [Prefix((), "", group) for group in range(kept)]
    finished: list[Sampled] = []
    longest, left = 1, budget
    for level in range(depth):
        # As many candidates as can be as long as the longest of the level before, and be asked about.
        paid = left // (longest + cost)
        if not prefixes or not paid:
            break
        each = min(children, max(1, paid // len(prefixes)))
        prefixes = prefixes[: paid // each]
        share = left // (len(prefixes) * each) - cost
        last = level + 1 == depth
        requests = [_step(question, prefix, each, share, last, again, level) for prefix in prefixes]
        back = yield from completions(requests)
        sampled = [sample for completion in back for sample in completion.samples]
        left -= sum(len(sample.tokens) for sample in sampled)
        longest = max(1, *(len(sample.tokens) for sample in sampled))
        candidates = _merged(_candidates(question, prefixes, back, last), apart=diverse)
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
    size = min(share, room if last else min(room, question.settings.max_step_tokens))
    stop, visible = (question.prompt.stop, False) if last else step_stops(question.prompt)
    seed = ("beam", again, level, prefix.group, prefix.text)
    return question.sample(prefix.tokens, n, size, *seed, stop=stop, visible=visible)


def _candidates(
    question: Question, prefixes: Sequence[Prefix], back: Sequence[Completion], last: bool
) -> list[Candidate]:
    found = []
    for prefix, completion in zip(prefixes, back, strict=True):
        for sample in completion.samples:
            tokens = (*prefix.tokens, *sample.tokens)
            (added,) = step_texts(prefix.tokens, sample.tokens, [len(sample.tokens)], question.tokenizer)
            longer = Prefix(tokens, prefix.text + added, prefix.group)
            stopped = sample.finish == "stop" and (last or _ends(question, prefix.text, added))
            cut = sample.finish == "length" or (
                sample.finish == "stop" and not stopped and len(tokens) >= question.limit  # nothing more may follow
            )
            closed = sample.finish == "end"
            found.append(Candidate(longer, closed or stopped or cut, cut, closed))
    return found


def _ends(question: Question, before: str, added: str) -> bool:
    """Whether a step that met a stop string ends the solution, and not the step alone."""
    return meets_stop(question.prompt, before, added) or ends_with_answer(
        before, added, question.prompt, question.opened
    )


def _merged(candidates: Sequence[Candidate], apart: bool) -> list[Candidate]:
    """The first of those that say the same; `apart`: only within a group."""
    first: dict[tuple[str, bool, bool, int], Candidate] = {}
    for candidate in candidates:
        group = candidate.prefix.group if apart else 0
        first.setdefault((normalised(candidate.prefix.text), candidate.ends, candidate.cut, group), candidate)
    return list(first.values())


def _path(question: Question, candidate: Candidate) -> SolutionPath:
    text = question.prompt.prefill + candidate.prefix.text
    return question.path(candidate.prefix.tokens, text, terminal=candidate.ends, closed=candidate.closed)


def _solution(question: Question, candidate: Candidate, score: float) -> Sampled:
    text = question.prompt.prefill + candidate.prefix.text
    style = question.prompt.answer_style
    answer = verify_solution(question.opened + text, candidate.cut, question.problem, style).answer
    return Sampled(text, answer, len(candidate.prefix.tokens), score)


def _keep(scored: Sequence[tuple[float, Candidate]], kept: int, diverse: bool) -> list[Prefix]:
    """The prefixes of the next level, best first. Ties go to the first sampled."""
    ranked = sorted(scored, key=lambda pair: -pair[0])
    if not diverse:
        going_on = [candidate.prefix for _, candidate in ranked if not candidate.ends][:kept]
        # Draws are told apart by group: two kept prefixes are never the same, but their groups may be.
        return going_on
    best: dict[int, Candidate] = {}
    for _, candidate in ranked:
        best.setdefault(candidate.prefix.group, candidate)
    return [candidate.prefix for candidate in best.values() if not candidate.ends]
