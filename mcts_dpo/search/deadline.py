"""Budgets in seconds: a deadline on a clock that the caller passes in, and the shortest budget that an engine can keep.

A result that a deadline has cut short depends on the machine and on what else it does. So only searches that need not
repeat their bytes have one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines.base import Engine, Request
from mcts_dpo.engines.coroutine import gather
from mcts_dpo.engines.retry import serve

_TRIALS = 4
Clock = Callable[[], float]
"""Seconds since any fixed moment; it never goes back."""


@dataclass(slots=True)
class Deadline:
    """A budget of seconds, which runs from `start`. seconds: None: no limit. until: on the clock."""

    seconds: float | None
    clock: Clock = time.monotonic
    until: float = math.inf

    def start(self) -> Deadline:
        """Let the time run from now."""
        if self.seconds is not None:
            self.until = self.clock() + self.seconds
        return self

    @property
    def over(self) -> bool:
        """Whether the time is up. Never before `start`."""
        return self.until < math.inf and self.clock() >= self.until


def engine_step(engine: Engine, clock: Clock = time.monotonic) -> float:
    """How many seconds one step of an idle engine takes: the fastest of some requests of one token."""
    took = math.inf
    for _ in range(_TRIALS):  # the first ones compile and warm up
        began = clock()
        serve(engine, gather([Request(id=0, prefix=(engine.tokenizer.eos_token_id or 0,), max_tokens=1)]))
        took = min(took, clock() - began)
    return took


def require_seconds(seconds: float | None, engine: Engine, clock: Clock = time.monotonic) -> None:
    """Raise InputError for a budget of seconds in which an idle engine cannot take one step. None: nothing is asked."""
    if seconds is not None:
        require_longer(seconds, engine_step(engine, clock))


def require_longer(seconds: float | None, step: float) -> None:
    """Raise InputError for a budget of `seconds` where one step of the engine takes `step` seconds."""
    if seconds is not None and seconds < step:
        raise InputError(too_short(seconds, step))


def too_short(seconds: float, step: float) -> str:
    """What is wrong with a budget of `seconds` where one step of the engine takes `step` seconds."""
    return f"search.seconds: {seconds:g} is below one step of the engine ({step:.2g} s); accepted: more than that"
