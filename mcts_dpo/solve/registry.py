"""Finds a strategy by its name: a built-in one, or one that a user has registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import nearest
from mcts_dpo.engines.coroutine import Coroutine
from mcts_dpo.solve.budgets import BudgetedSettings
from mcts_dpo.solve.question import Question
from mcts_dpo.solve.solution import Solution
from mcts_dpo.solve.strategies.beam import beam
from mcts_dpo.solve.strategies.best_of_n import best_of_n
from mcts_dpo.solve.strategies.dvts import dvts
from mcts_dpo.solve.strategies.greedy import greedy
from mcts_dpo.solve.strategies.majority import majority
from mcts_dpo.solve.strategies.mcts import mcts
from mcts_dpo.solve.strategies.weighted import weighted

BuiltIn = Literal["greedy", "majority", "best-of-n", "weighted", "beam", "dvts", "mcts"]
Strategy = str
"""The name of a strategy: one of STRATEGIES or a registered one."""
STRATEGIES: tuple[Strategy, ...] = get_args(BuiltIn)
StrategyFunction = Callable[[Question, BudgetedSettings], Coroutine[Solution]]
_FUNCTIONS: dict[Strategy, StrategyFunction] = {
    "greedy": greedy,
    "majority": majority,
    "best-of-n": best_of_n,
    "weighted": weighted,
    "beam": beam,
    "dvts": dvts,
    "mcts": mcts,
}


def _registered(name: str) -> str:
    if name not in _FUNCTIONS:
        raise ValueError("is not a registered strategy")
    return name


Chosen = BuiltIn | Annotated[str, AfterValidator(_registered), "a registered strategy"]
"""The type of a setting that names a strategy."""


def strategy_named(name: str) -> Strategy:
    """Return `name` if it is a strategy. Raises InputError, with the nearest known name, if it is not registered."""
    known = tuple(_FUNCTIONS)
    if name in known:
        return name
    close = nearest(name, known)
    hint = f"; did you mean {close!r}?" if close else ""
    raise InputError(f"strategy: {name!r} is not a strategy{hint} (accepted: {', '.join(known)})")


def strategy_function(name: Strategy) -> StrategyFunction:
    """The coroutine function of a strategy. Raises InputError for an unknown name."""
    return _FUNCTIONS[strategy_named(name)]


def register_strategy(name: str, function: StrategyFunction) -> None:
    """Register a strategy, so that every setting and option that names a strategy accepts it.

    function: takes a `Question` and the settings that follow from its budget (`BudgetedSettings`), and returns a
              generator. The generator draws samples with `yield from question.draw([question.sample(…), …])`, which
              follows the policy's thoughts, and returns a `Solution`. If the solution gives no `tokens`, they are
              counted automatically.

    Raises ValueError if the name is taken.
    """
    if name in _FUNCTIONS:
        raise ValueError(f"the strategy {name!r} is already registered")
    _FUNCTIONS[name] = function
