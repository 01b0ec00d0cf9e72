"""Draws samples for policies that think, and steps that no stop string ends: several requests may make one sample.

In: requests, and the solution before each. Out: their completions, with what they cost. For most prompts a draw is one
request, sent as it is. It takes more where

- a stop string of whole solutions is met inside a thought: the sample continues;
- a thought comes to the end of its budget: it is closed by force, and the answer is sampled after it;
- a step ends where no stop string does (see `models/steps.py`): the sample continues until its first step is complete,
  and what comes after that step is dropped. Dropped tokens and those that are forced count as generated;
- an environment replies to a step: its tokens follow the step's, and the sample continues after them. They do not count
  as generated. A solution ends where the policy ends it and the environment has nothing to say, or where the
  environment ends it. Inside a thought the environment is not asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mcts_dpo.common.files import seed_from
from mcts_dpo.engines.base import Completion, Finish, Request, Sample
from mcts_dpo.engines.coroutine import Coroutine, gather, side_by_side
from mcts_dpo.environments.base import Turn
from mcts_dpo.environments.replying import ReplyError, reply_to
from mcts_dpo.models.decoding import decode
from mcts_dpo.models.phases import thought_tokens
from mcts_dpo.models.prompts import PromptSettings, Thoughts, reply_tokens
from mcts_dpo.models.steps import first_step
from mcts_dpo.search.acting import Acted, Acting, Part, Written, parts, shown_text, written_text


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for samples.

    before: the solution's tokens that its prefix ends with. whole: the samples run to the end of the solution.
    False: each sample is one step. limit: the longest solution, in tokens; `whole` samples end with their request's.
    turns: the steps before, as the environment sees them; () without one.
    """

    request: Request
    before: Sequence[int]
    whole: bool
    limit: int
    turns: tuple[Turn, ...] = ()

    @property
    def end(self) -> int:
        """The tokens that a solution may have here."""
        return min(self.limit, len(self.before) + self.request.max_tokens) if self.whole else self.limit


@dataclass(frozen=True, slots=True)
class Drawn:
    """A completion, and the tokens that it cost.

    acted: what an environment did in each sample; () without one. written: of each sample, the policy's own text; ()
    without an environment.
    """

    completion: Completion
    tokens: int
    acted: tuple[Acted, ...] = ()
    written: tuple[str, ...] = ()

    def own_text(self, index: int) -> str:
        """The text of a sample that the policy wrote, where an answer counts."""
        return self.written[index] if self.written else self.completion.samples[index].text

    def sampled(self, index: int) -> int:
        """How many tokens of a sample are not an environment's."""
        replies = self.acted[index].replies if self.acted else ()
        return len(self.completion.samples[index].tokens) - sum(one.end - one.start for one in replies)


@dataclass(slots=True, eq=False)
class _Draft:
    """A sample so far.

    number: in its request. cost: tokens so far. forced: how many forced tokens it begins with. finish: None while it
    continues. replies, over, failed: see `Acted`. settled: the environment has been asked about the end.
    """

    ask: Ask
    number: int
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    cost: int = 0
    forced: int = 0
    finish: Finish | None = None
    replies: list[Written] = field(default_factory=list)
    over: bool | None = None
    failed: str = ""
    settled: bool = False

    @property
    def solution(self) -> tuple[int, ...]:
        """The tokens of the solution so far."""
        return (*self.ask.before, *self.tokens)

    @property
    def left(self) -> int:
        """Tokens that the policy may still write: replies count for the length of the solution only."""
        if not self.replies:
            return self.ask.request.max_tokens - len(self.tokens)
        own = len(self.tokens) - sum(one.end - one.start for one in self.replies)
        return min(self.ask.request.max_tokens - own, self.room)

    @property
    def room(self) -> int:
        """Tokens that fit behind the sample."""
        return self.ask.limit - len(self.ask.before) - len(self.tokens)

    @property
    def start(self) -> int:
        """Where the tokens after the last reply start."""
        return self.replies[-1].end if self.replies else 0

    def add(self, tokens: Sequence[int], logprobs: Sequence[float] | None = None) -> None:
        """Add sampled tokens, or forced ones: the policy cannot write others there, so their log-probability is 0."""
        self.tokens += tuple(tokens)
        self.logprobs += tuple(logprobs if logprobs is not None else [0.0] * len(tokens))
        self.cost += len(tokens)


@dataclass(frozen=True, slots=True)
class Drawing:
    """How the samples of one policy under one prompt are drawn.

    prompt: `thoughts.settings`. acting: the environment; None without one.
    """

    thoughts: Thoughts
    acting: Acting | None = None

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
        if self.acting is None and self.thoughts.marks is None and all(exact or ask.whole for ask in asks):
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
        every = [(index, draft) for index, group in enumerate(drafts) for draft in group]
        yield from self._act(draft for index, draft in every if index not in refused)
        while going := [(index, draft) for index, draft in every if draft.finish is None and index not in refused]:
            requests = [self._next(draft) for _, draft in going]
            back = yield from gather(requests)
            for (index, draft), request, completion in zip(going, requests, back, strict=True):
                if completion.error is not None:
                    refused[index] = completion
                else:
                    self._take(draft, completion.samples[0], request.max_tokens)
            yield from self._act(draft for index, draft in going if index not in refused)
        return [self._drawn(index, group, refused) for index, group in enumerate(drafts)]

    def _drawn(self, index: int, group: Sequence[_Draft], refused: Mapping[int, Completion]) -> Drawn:
        tokens = sum(draft.cost for draft in group)
        if index in refused:
            return Drawn(refused[index], tokens)
        if self.acting is None:
            texts = [decode(self.thoughts.tokenizer, draft.tokens) for draft in group]
        else:
            cut = [self._parts(draft) for draft in group]
            texts = [shown_text(steps) for steps in cut]
        samples = tuple(
            Sample(draft.tokens, text, draft.logprobs, draft.finish or "length")
            for draft, text in zip(group, texts, strict=True)
        )
        if self.acting is None:
            return Drawn(Completion(-1, samples), tokens)
        acted = tuple(Acted(tuple(draft.replies), draft.over, self._failure(draft)) for draft in group)
        return Drawn(Completion(-1, samples), tokens, acted, tuple(written_text(steps) for steps in cut))

    # --- replies -------------------------------------------------------------------------------------

    def _parts(self, draft: _Draft) -> list[Part]:
        """The steps of a sample so far."""
        environment = None if self.acting is None else self.acting.environment
        ask = draft.ask
        return parts(
            draft.tokens,
            ask.before,
            draft.replies,
            self.thoughts.tokenizer,
            self.prompt,
            environment,
            whole=ask.whole,
        )

    def _act(self, drafts: Iterable[_Draft]) -> Coroutine[None]:
        """Ask the environment about all samples that have come to an end or a pause. None waits for another."""
        asked = [
            draft
            for draft in drafts
            if self.acting is not None
            and draft.finish in ("stop", "end")
            and not draft.settled
            and len(draft.tokens) > draft.start
            and not self._thinking(draft)
        ]
        yield from side_by_side([self._reply(draft) for draft in asked])

    def _reply(self, draft: _Draft) -> Coroutine[None]:
        """Ask the environment about the last step of a sample, and add its reply."""
        acting = self.acting
        assert acting is not None
        turns = (*draft.ask.turns, *(part.turn for part in self._parts(draft)))
        draft.settled = True
        try:
            reply = yield from reply_to(acting.environment, acting.problem, turns)
        except ReplyError as error:
            draft.failed, draft.finish = str(error), "length"
            return
        if reply is None:
            if draft.ask.whole and draft.finish == "stop" and not self._meets_stop(draft):
                self._continue(draft)  # the text that would let the environment reply was none of its business
            return
        ids = reply_tokens(self.thoughts.tokenizer, self.prompt, reply.text, reply.role, draft.tokens[-1])
        if len(ids) > draft.room:
            draft.failed = f"a reply of {len(ids)} tokens does not fit into the {draft.room} that are left"
            draft.finish = "length"
            return
        start = len(draft.tokens)
        draft.tokens += ids
        draft.logprobs += (0.0,) * len(ids)
        draft.replies.append(Written(start, len(draft.tokens), reply))
        draft.over = reply.done
        if reply.done:
            draft.finish = "stop"
        elif draft.ask.whole:
            self._continue(draft)
        else:
            draft.finish = "stop"

    def _continue(self, draft: _Draft) -> None:
        """Let a sample continue after the environment was asked, if it has room."""
        draft.finish, draft.settled = (None, False) if draft.left > 0 else ("length", True)
        draft.over = None

    def _open(self, draft: _Draft, end: int | None = None) -> bool:
        """Whether the tokens after the last reply, up to `end`, have begun something that they have not ended."""
        if self.acting is None:
            return False
        return self.acting.environment.unfinished(decode(self.thoughts.tokenizer, draft.tokens[draft.start : end]))

    def _failure(self, draft: _Draft) -> str:
        """Why a sample got no reply to its last step; "" if nothing failed."""
        if not draft.failed and draft.finish == "length" and self._open(draft):
            return "a solution was cut inside a block that it had not closed"
        return draft.failed

    # --- parts of samples ----------------------------------------------------------------------------

    def _first(self, group: Sequence[_Draft]) -> Request:
        """The request that begins all samples of one ask."""
        forced, size = self._part(group[0])
        for draft in group:
            draft.add(forced)
            draft.forced = len(forced)
        request = self._paused(group[0].ask.request)
        generated = request.generated + len(forced)
        return replace(request, prefix=(*request.prefix, *forced), generated=generated, max_tokens=size)

    def _next(self, draft: _Draft) -> Request:
        """The request that continues one sample."""
        forced, size = self._part(draft)
        draft.add(forced)
        request = self._paused(draft.ask.request)
        seed = seed_from(request.seed, "continued", draft.number, len(draft.tokens))
        prefix, generated = (*request.prefix, *draft.tokens), request.generated + len(draft.tokens)
        return replace(request, prefix=prefix, generated=generated, n=1, max_tokens=size, seed=seed)

    def _paused(self, request: Request) -> Request:
        """A request whose samples also end where the environment may reply."""
        return (
            request if self.acting is None else replace(request, stop=(*request.stop, *self.acting.environment.stops))
        )

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
        if finish == "stop" and (self._thinking(draft) or self._open(draft)):
            return None if draft.left > 0 else "length"
        return None if finish == "length" and not full else finish

    def _step(self, draft: _Draft, finish: Finish, full: bool) -> Finish | None:
        """Why a sample of one step ends here; None if it continues. Tokens after its first step are dropped.

        Where the budget of a thought ends, the thought is closed, and that ends the step.
        """
        steps, forced = self.prompt.steps, draft.forced
        ended = finish == "stop" and (steps.by_stop_strings or self._meets_stop(draft))
        if finish == "stop" and self._open(draft):
            return None if draft.left > 0 else "length"
        if not steps.by_stop_strings:
            cut = first_step(draft.tokens[forced:], self.thoughts.tokenizer, steps, self.prompt.step_end)
            cut = None if cut is not None and self._open(draft, forced + cut) else cut
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
        text = decode(self.thoughts.tokenizer, draft.tokens[draft.start :])
        return any(stop in text for stop in self.prompt.stop) and not self._thinking(draft)
