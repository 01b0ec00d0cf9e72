"""Draws samples for policies that think, and steps that no stop string ends: several requests may make one sample.

In: requests, and the solution before each. Out: their completions, with what they cost. For most prompts a draw is one
request, sent as it is. It takes more where

- a stop string of whole solutions is met inside a thought: the sample continues;
- a thought comes to the end of its budget: it is closed by force, and the answer is sampled after it;
- a step ends where no stop string does (see `models/steps.py`): the sample continues until its first step is complete,
  and what comes after that step is dropped. Dropped tokens and those that are forced count as generated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mcts_dpo.common.files import seed_from
from mcts_dpo.engines.base import Completion, Finish, Request, Sample
from mcts_dpo.engines.coroutine import Coroutine, gather
from mcts_dpo.models.decoding import decode
from mcts_dpo.models.phases import thought_tokens
from mcts_dpo.models.prompts import PromptSettings, Thoughts
from mcts_dpo.models.steps import first_step


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for samples.

    before: the solution's tokens that its prefix ends with. whole: the samples run to the end of the solution.
    False: each sample is one step. limit: the longest solution, in tokens; `whole` samples end with their request's.
    """

    request: Request
    before: Sequence[int]
    whole: bool
    limit: int

    @property
    def end(self) -> int:
        """The tokens that a solution may have here."""
        return min(self.limit, len(self.before) + self.request.max_tokens) if self.whole else self.limit


@dataclass(frozen=True, slots=True)
class Drawn:
    """A completion, and the tokens that it cost."""

    completion: Completion
    tokens: int


@dataclass(slots=True, eq=False)
class _Draft:
    """A sample so far.

    number: in its request. cost: tokens so far. forced: how many forced tokens it begins with. finish: None while it
    continues.
    """

    ask: Ask
    number: int
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    cost: int = 0
    forced: int = 0
    finish: Finish | None = None

    @property
    def solution(self) -> tuple[int, ...]:
        """The tokens of the solution so far."""
        return (*self.ask.before, *self.tokens)

    @property
    def left(self) -> int:
        """Tokens that the sample may still have."""
        return self.ask.request.max_tokens - len(self.tokens)

    def add(self, tokens: Sequence[int], logprobs: Sequence[float] | None = None) -> None:
        """Add sampled tokens, or forced ones: the policy cannot write others there, so their log-probability is 0."""
        self.tokens += tuple(tokens)
        self.logprobs += tuple(logprobs if logprobs is not None else [0.0] * len(tokens))
        self.cost += len(tokens)


@dataclass(frozen=True, slots=True)
class Drawing:
    """How the samples of one policy under one prompt are drawn.

    prompt: `thoughts.settings`.
    """

    thoughts: Thoughts

    @property
    def prompt(self) -> PromptSettings:
        """The settings of the prompt."""
        return self.thoughts.settings

    def draw(self, asks: Sequence[Ask]) -> Coroutine[list[Drawn]]:
        """The samples of several requests, in order. A refused request gives a completion with its error.

        With the same seeds and an engine that repeats itself the samples are the same.
        """
        steps = self.prompt.steps
        exact = steps.by_stop_strings and steps.max_tokens is None
        if self.thoughts.marks is None and all(exact or ask.whole for ask in asks):
            found: list[Completion] = yield from gather([ask.request for ask in asks])
            return [Drawn(one, sum(len(sample.tokens) for sample in one.samples)) for one in found]
        return (yield from self._draw(asks))

    def _draw(self, asks: Sequence[Ask]) -> Coroutine[list[Drawn]]:
        drafts = [[_Draft(ask, number) for number in range(ask.request.n)] for ask in asks]
        requests = [self._first(group) for group in drafts]
        refused: dict[int, Completion] = {}
        back: list[Completion] = yield from gather(requests)
        for index, completion in enumerate(back):
            if completion.error is not None:
                refused[index] = completion
            for draft, sample in zip(drafts[index], completion.samples, strict=False):
                self._take(draft, sample, requests[index].max_tokens)
        while going := [
            (index, draft)
            for index, group in enumerate(drafts)
            for draft in group
            if draft.finish is None and index not in refused
        ]:
            requests = [self._next(draft) for _, draft in going]
            back = yield from gather(requests)
            for (index, draft), request, completion in zip(going, requests, back, strict=True):
                if completion.error is not None:
                    refused[index] = completion
                else:
                    self._take(draft, completion.samples[0], request.max_tokens)
        return [self._drawn(index, group, refused) for index, group in enumerate(drafts)]

    def _drawn(self, index: int, group: Sequence[_Draft], refused: Mapping[int, Completion]) -> Drawn:
        tokens = sum(draft.cost for draft in group)
        if index in refused:
            return Drawn(refused[index], tokens)
        texts = [decode(self.thoughts.tokenizer, draft.tokens) for draft in group]
        samples = tuple(
            Sample(draft.tokens, text, draft.logprobs, draft.finish or "length")
            for draft, text in zip(group, texts, strict=True)
        )
        return Drawn(Completion(-1, samples), tokens)

    def _first(self, group: Sequence[_Draft]) -> Request:
        """The request that begins all samples of one ask."""
        forced, size = self._part(group[0])
        for draft in group:
            draft.add(forced)
            draft.forced = len(forced)
        request = group[0].ask.request
        generated = request.generated + len(forced)
        return replace(request, prefix=(*request.prefix, *forced), generated=generated, max_tokens=size)

    def _next(self, draft: _Draft) -> Request:
        """The request that continues one sample."""
        forced, size = self._part(draft)
        draft.add(forced)
        request = draft.ask.request
        seed = seed_from(request.seed, "continued", draft.number, len(draft.tokens))
        prefix, generated = (*request.prefix, *draft.tokens), request.generated + len(draft.tokens)
        return replace(request, prefix=prefix, generated=generated, n=1, max_tokens=size, seed=seed)

    def _part(self, draft: _Draft) -> tuple[tuple[int, ...], int]:
        """What comes next in a sample: tokens that are forced, and the most that are sampled after them."""
        room = self._thought_room(draft)
        if room is None:
            return (), draft.left
        if room > 0:
            return (), min(draft.left, room)
        forced = self.thoughts.closing(self._text(draft))[1]
        return (forced, draft.left - len(forced)) if len(forced) < draft.left else ((), draft.left)

    def _thought_room(self, draft: _Draft) -> int | None:
        """Tokens that a thought may still have. None: there is no thought to close, or no reason to."""
        prompt, solution = self.prompt, draft.solution
        if self.thoughts.marks is None or self.thoughts.phase(self._text(draft)) == "after":
            return None
        rooms = []
        if prompt.think_budget is not None:
            before = self.thoughts.opened + prompt.prefill
            ranges = thought_tokens(solution, self.thoughts.tokenizer, before, prompt.thought_marks)
            rooms.append(prompt.think_budget - sum(end - start for start, end in ranges))
        if prompt.close_thought:
            answer = min(prompt.answer_tokens, draft.ask.end // 4)
            rooms.append(draft.ask.end - len(solution) - self.thoughts.room - answer)
        return min(rooms, default=None)

    def _take(self, draft: _Draft, sample: Sample, size: int) -> None:
        """Add a part to a sample, and decide whether the sample ends with it. size: the longest that it could be."""
        draft.add(sample.tokens, sample.logprobs)
        full = sample.finish == "length" and (draft.left <= 0 or len(sample.tokens) < size)
        draft.finish = (self._whole if draft.ask.whole else self._step)(draft, sample.finish, full)

    def _whole(self, draft: _Draft, finish: Finish, full: bool) -> Finish | None:
        """Why a whole solution ends here; None if it continues. full: no further token fits."""
        if finish == "stop" and self._thinking(draft):
            return None if draft.left > 0 else "length"
        return None if finish == "length" and not full else finish

    def _step(self, draft: _Draft, finish: Finish, full: bool) -> Finish | None:
        """Why a sample of one step ends here; None if it continues. Tokens after its first step are dropped.

        Where the budget of a thought ends, the thought is closed, and that ends the step.
        """
        steps, forced = self.prompt.steps, draft.forced
        ended = finish == "stop" and (steps.by_stop_strings or self._meets_stop(draft))
        if not steps.by_stop_strings:
            cut = first_step(draft.tokens[forced:], self.thoughts.tokenizer, steps, self.prompt.step_end)
            if cut is not None and forced + cut < len(draft.tokens):
                draft.tokens, draft.logprobs = draft.tokens[: forced + cut], draft.logprobs[: forced + cut]
                return "stop"
            ended = ended or cut is not None
        if finish == "end" or ended:
            return "end" if finish == "end" else "stop"
        if full or draft.left <= 0:
            return "stop" if steps.max_tokens is not None and len(draft.tokens) >= steps.max_tokens else "length"
        if finish == "length" and self._thinking(draft):
            draft.add(self.thoughts.closing(self._text(draft))[1])
            return "stop"
        return None

    def _text(self, draft: _Draft) -> str:
        return self.prompt.prefill + decode(self.thoughts.tokenizer, draft.solution)

    def _thinking(self, draft: _Draft) -> bool:
        return self.thoughts.phase(self._text(draft)) == "thought"

    def _meets_stop(self, draft: _Draft) -> bool:
        text = decode(self.thoughts.tokenizer, draft.tokens)
        return any(stop in text for stop in self.prompt.stop) and not self._thinking(draft)
