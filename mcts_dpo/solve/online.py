"""Answers questions as they arrive, over one engine, for servers and harnesses. Each question can be cancelled.

In: questions with a strategy and a budget, at any time. Out: a `Solution` to each question. The samples are the same as
in `solve_problems`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Engine
from mcts_dpo.engines.coroutine import RequestError
from mcts_dpo.engines.retry import EngineDiedError
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.search.deadline import Clock
from mcts_dpo.search.runner import Runner
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.solve.budgets import StrategySettings, budget_to_settings
from mcts_dpo.solve.metering import metered
from mcts_dpo.solve.question import PromptTexts, make_question
from mcts_dpo.solve.registry import Strategy, strategy_function
from mcts_dpo.solve.solution import Solution
from mcts_dpo.solve.strategies.mcts import mcts, steps_of

if TYPE_CHECKING:
    from mcts_dpo.search.state import SearchState

KeyT = TypeVar("KeyT", bound=Hashable)

DIED = "the engine died"
"""The start of the error of a question whose engine died."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question to an `OnlineSolver`, and how to answer it.

    prompt:   how the problem is written as a prompt.
    search:   how solutions are sampled.
    budget:   generated tokens, ≥ 1.
    strategy_settings, explicit: see `budget_to_settings`.
    texts:    the problem's texts as tokens. None: `OnlineSolver.admit` tokenises them.
    """

    problem: Problem
    prompt: PromptSettings
    search: SearchSettings
    budget: int
    strategy: Strategy = "mcts"
    strategy_settings: StrategySettings | None = None
    explicit: bool = False
    texts: PromptTexts | None = None


class OnlineSolver(Generic[KeyT]):
    """Answers questions over one engine. The caller gives each question a key of its own.

    alive: how many questions run at a time. Further ones wait, first come, first served. None: twice as many as the
           engine runs sequences.
    room:  about how many sequences are in the engine at a time, divided evenly between all who ask (see `Runner`).
           None: no limit and no division.
    clock: measures `search.seconds` of each question, from its first request.
    """

    def __init__(
        self,
        engine: Engine,
        alive: int | None = None,
        *,
        room: int | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._clock = clock
        self._begin: Callable[[], Runner[Solution]] = lambda: Runner(engine, alive=alive, room=room, contain=True)
        self._engine = engine
        self._runner = self._begin()
        self._keys: dict[Hashable, KeyT] = {}  # in the order of admission
        self._trees: dict[Hashable, SearchState] = {}

    @property
    def busy(self) -> bool:
        """Whether a question is still open: neither answered nor cancelled."""
        return bool(self._keys)

    def admit(self, key: KeyT, asked: Asked, share: Hashable = None) -> None:
        """Add a question. share: who asks (see `Shares`).

        Raises InputError as `make_question` does, and for a strategy that is not registered.
        """
        question = make_question(asked.problem, self._engine, asked.prompt, asked.search, asked.texts, self._clock)
        settings = budget_to_settings(asked.budget, asked.search, asked.strategy_settings, explicit=asked.explicit)
        if asked.strategy == "mcts":
            coroutine = mcts(question, settings, lambda state: self._trees.__setitem__(key, state))
        else:
            coroutine = strategy_function(asked.strategy)(question, settings)
        self._keys[key] = key
        self._runner.admit(key, [metered(question, coroutine)], share=share)

    def step(self, patience: float | None = None) -> list[tuple[KeyT, Solution]]:
        """Advance all questions and wait for the engine once, at most `patience` seconds (None: without limit).

        Returns the new answers, with their keys. If the engine died, every open question gets a solution whose error
        begins with DIED. Questions that are admitted later are sent to the engine again.
        """
        try:
            ended = self._runner.step(patience)
        except EngineDiedError as error:
            return self._died(str(error))
        found = []
        for one in ended:
            result = one.results[0]
            solution = Solution(error=str(result)) if isinstance(result, RequestError) else result
            self._trees.pop(one.key, None)
            found.append((self._keys.pop(one.key), solution))
        return found

    def cancel(self, key: KeyT) -> None:
        """Cancel a question and free what it holds. An unknown key is ignored."""
        self._runner.cancel(key)
        self._keys.pop(key, None)
        self._trees.pop(key, None)

    def decided(self, key: KeyT) -> Sequence[str]:
        """The first steps of a question's solution that cannot change any more: a tree's moves (`advance: step`).

        Empty for an unknown key and for every strategy other than "mcts".
        """
        state = self._trees.get(key)
        return () if state is None else steps_of(state, state.forest, state.trees[0].info.moves)

    def close(self) -> None:
        """End the runner's threads."""
        self._runner.close()

    def _died(self, reason: str) -> list[tuple[KeyT, Solution]]:
        lost = [(key, Solution(error=f"{DIED}: {reason}")) for key in self._keys.values()]
        for key, _ in lost:
            self._runner.cancel(key)
        self._keys.clear()
        self._trees.clear()
        self._runner.close()
        self._runner = self._begin()
        return lost
