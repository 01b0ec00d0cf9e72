"""Many dialogues with one engine, side by side: none waits for another, and each can come and go at any time.

In: generators that yield requests and are sent their completions; an engine. Out: what the generators return. Knows
neither problems nor strategies.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mcts_dpo.engines.base import Completion, Engine, Request
from mcts_dpo.search.desk import Desk

ResultT = TypeVar("ResultT")
Dialogue = Generator[Sequence[Request], list[Completion], ResultT]
"""Yields requests (their ids are given when they are sent), is sent their completions in the same order, returns."""


@dataclass(slots=True, eq=False)
class _Open(Generic[ResultT]):
    """A dialogue that waits for the completions of its last requests. share: see `Desk`. missing: how many are not
    back."""

    dialogue: Dialogue[ResultT]
    share: Hashable = None
    back: list[Completion | None] = field(default_factory=list)
    missing: int = 0


class Dialogues(Generic[ResultT]):
    """The dialogues under way over one engine, a step at a time.

    contain: a dialogue that raises ends alone, as if the engine had refused it; otherwise the step raises.
    room: see `Desk`.
    """

    def __init__(self, engine: Engine, *, contain: bool = False, room: int | None = None) -> None:
        self._contain = contain
        self._desk: Desk[tuple[_Open[ResultT], int]] = Desk(engine, interactive=True, room=room)
        self._fresh: dict[Dialogue[ResultT], Hashable] = {}
        self._open: dict[Dialogue[ResultT], _Open[ResultT]] = {}

    @property
    def busy(self) -> bool:
        """Whether any dialogue has neither ended nor been cancelled."""
        return bool(self._fresh or self._open)

    def admit(self, dialogue: Dialogue[ResultT], share: Hashable = None) -> None:
        """Take a dialogue up; the next step sends its first requests. share: see `Desk`."""
        self._fresh[dialogue] = share

    def step(self, patience: float | None = None) -> list[tuple[Dialogue[ResultT], ResultT | str]]:
        """Send what can be sent and wait for the engine once. Returns the dialogues that have ended, and their results.

        A dialogue that one of its requests is refused is given up; the engine's reason, a text, takes the place of its
        result. Waits for at least one completion (if anything is under way), but no longer than `patience` seconds and
        a step of the engine's (None: as long as it takes).
        """
        ended: list[tuple[Dialogue[ResultT], ResultT | str]] = []
        fresh, self._fresh = self._fresh, {}
        for dialogue, share in fresh.items():
            self._open[dialogue] = _Open(dialogue, share)
            self._advance(self._open[dialogue], None, ended)
        if ended or not self._desk.waiting:
            return ended
        ready = []
        for (one, place), completion in self._desk.collect(patience):
            one.back[place] = completion
            one.missing -= 1
            if not one.missing:
                ready.append(one)
        for one in ready:
            self._advance(one, [completion for completion in one.back if completion is not None], ended)
        return ended

    def cancel(self, dialogue: Dialogue[ResultT]) -> None:
        """Take a dialogue out; what it has under way is given up. One that has ended is left alone."""
        self._fresh.pop(dialogue, None)
        one = self._open.pop(dialogue, None)
        if one is not None:
            self._desk.cancel(lambda owner: owner[0] is one)
        dialogue.close()

    def _advance(
        self,
        one: _Open[ResultT],
        completions: list[Completion] | None,
        ended: list[tuple[Dialogue[ResultT], ResultT | str]],
    ) -> None:
        """Hand a dialogue what is back and send what it asks for next; or note how it has ended."""
        dialogue = one.dialogue
        refused = next((completion.error for completion in completions or () if completion.error is not None), None)
        if refused is not None:
            del self._open[dialogue]
            dialogue.close()
            ended.append((dialogue, refused))
            return
        try:
            requests = next(dialogue) if completions is None else dialogue.send(completions)
            while not requests:
                requests = dialogue.send([])
        except StopIteration as stop:
            del self._open[dialogue]
            ended.append((dialogue, stop.value))
            return
        except Exception as error:
            if not self._contain:
                raise
            del self._open[dialogue]
            ended.append((dialogue, f"the search failed ({type(error).__name__}: {error})"))
            return
        one.back, one.missing = [None] * len(requests), len(requests)
        for place, request in enumerate(requests):
            self._desk.send(request, (one, place), one.share)


def run_dialogues(
    dialogues: Sequence[Dialogue[ResultT]], engine: Engine, done: Callable[[int], None] = lambda finished: None
) -> list[ResultT | str]:
    """Drive all dialogues to their end. Results in order; of one that was refused a request, the engine's reason.

    done: called with the number of finished dialogues after each.
    """
    results: dict[Dialogue[ResultT], ResultT | str] = {}
    together: Dialogues[ResultT] = Dialogues(engine)
    for dialogue in dialogues:
        together.admit(dialogue)
    while together.busy:
        for dialogue, result in together.step():
            results[dialogue] = result
            done(len(results))
    return [results[dialogue] for dialogue in dialogues]
