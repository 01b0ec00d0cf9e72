"""The names of the strategies: those that are built in, and those that somebody has added. Knows not what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator

from mcts_dpo.files import InputError
from mcts_dpo.search.strategies.budget import Attempt, Task
from mcts_dpo.search.strategies.dialogues import Dialogue
from mcts_dpo.settings import nearest

BuiltIn = Literal["greedy", "majority", "best-of-n", "weighted", "beam", "dvts", "mcts"]
Strategy = str
"""One of STRATEGIES, or a registered name."""
STRATEGIES: tuple[Strategy, ...] = get_args(BuiltIn)
REGISTERED: dict[Strategy, Callable[[Task, int], Dialogue[Attempt]]] = {}
"""What `register_strategy` was given, by name."""


def _registered(name: str) -> str:
    if name not in REGISTERED:
        raise ValueError("is not a registered strategy")
    return name


Chosen = BuiltIn | Annotated[str, AfterValidator(_registered), "a registered strategy"]
"""A strategy as settings hold it."""


def strategy_named(name: str) -> Strategy:
    """The strategy of this name. Raises InputError with the nearest name for any other."""
    known = (*STRATEGIES, *REGISTERED)
    if name in known:
        return name
    close = nearest(name, known)
    hint = f"; did you mean {close!r}?" if close else ""
    raise InputError(f"strategy: {name!r} is not one{hint} (accepted: {', '.join(known)})")


def register_strategy(name: str, dialogue: Callable[[Task, int], Dialogue[Attempt]]) -> None:
    """Add a strategy, so that it can be named wherever one is.

    dialogue: a generator function of a task and a budget in generated tokens: it yields requests (`task.sample`,
              `task.ask`), is sent their completions, and returns an `Attempt` that counts what was spent.

    Raises ValueError for a name that is taken.
    """
    if name in STRATEGIES or name in REGISTERED:
        raise ValueError(f"the strategy {name!r} is there already")
    REGISTERED[name] = dialogue
