"""An engine that is loaded when a request needs it. Scores that are stored or need no policy then cost no model.

In: a function that loads the engine, or none. Out: an engine. A coroutine is wrapped with `loading`, so that the engine
is loaded outside the code that retries requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar, cast

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines.base import Completion, Engine, Occupancy, Request, Usage
from mcts_dpo.engines.coroutine import Coroutine

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ResultT = TypeVar("ResultT")

SLOTS = 32
"""The `slots` of an engine that is not loaded yet: how many trees wait for scores at a time, halved."""


class _NoTokenizer:
    """The place of a tokenizer that a command was not given. Every use raises an InputError."""

    def __init__(self, need: str) -> None:
        self._need = need

    def __getattr__(self, name: str) -> NoReturn:
        raise InputError(self._need)

    def __len__(self) -> NoReturn:
        raise InputError(self._need)

    def __call__(self, *args: object, **options: object) -> NoReturn:
        raise InputError(self._need)


class LazyEngine:
    """An engine of which only the tokenizer is there at first (see the module)."""

    def __init__(
        self,
        load: Callable[[], Engine] | None,
        tokenizer: PreTrainedTokenizerBase | None,
        need: str = "the policy is needed; accepted: --policy",
    ) -> None:
        """load, tokenizer: None without a policy. need: the error message if the policy is needed then."""
        self._load, self._need = load, need
        self._engine: Engine | None = None
        self.tokenizer = tokenizer if tokenizer is not None else cast("PreTrainedTokenizerBase", _NoTokenizer(need))
        self.context = 0
        self.slots = SLOTS
        self.usage = Usage()

    @property
    def has_policy(self) -> bool:
        """Whether there is a policy to load."""
        return self._load is not None

    @property
    def loaded(self) -> Engine:
        """The engine; the first use loads it. Raises InputError without a policy, or if it cannot be loaded."""
        if self._engine is None:
            if self._load is None:
                raise InputError(self._need)
            self._engine = self._load()
            self.context, self.usage = self._engine.context, self._engine.usage
        return self._engine

    def loading(self, coroutine: Coroutine[ResultT]) -> Coroutine[ResultT]:
        """The same coroutine. The engine is loaded before the first request goes out."""
        try:
            new = next(coroutine)
            while True:
                if any(isinstance(work, Request) for work in new):
                    self.loaded  # noqa: B018
                new = coroutine.send((yield new))
        except StopIteration as stop:
            result: ResultT = stop.value
            return result

    def submit(self, request: Request) -> None:
        """As `Engine.submit`."""
        self.loaded.submit(request)

    def poll(self, patience: float | None = None) -> list[Completion]:
        """As `Engine.poll`."""
        return self._engine.poll(patience) if self._engine is not None else []

    def cancel(self, ids: Iterable[int]) -> None:
        """As `Engine.cancel`."""
        if self._engine is not None:
            self._engine.cancel(ids)

    def occupancy(self) -> Occupancy:
        """As `Engine.occupancy`."""
        return self._engine.occupancy() if self._engine is not None else Occupancy(0)

    def reset(self) -> None:
        """As `Engine.reset`."""
        if self._engine is not None:
            self._engine.reset()

    def reload(self, checkpoint: Path) -> None:
        """As `Engine.reload`."""
        self.loaded.reload(checkpoint)

    def close(self) -> None:
        """As `Engine.close`."""
        if self._engine is not None:
            self._engine.close()
