"""One total budget over a problem set: what the allocator buys with it, against the same total spent evenly.

In: problems with reference answers, an engine, a total of generated tokens. Out: a `StrategyComparison` in which the
allocator is one row, and a sentence that says what it bought.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Engine
from mcts_dpo.evaluation.strategies import ALLOCATOR, StrategyComparison, evaluate_strategies, verified
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.solve import Strategy, StrategySettings
from mcts_dpo.solve.sharing import solve_within


def evaluate_total(
    problems: Sequence[Problem],
    engine: Engine,
    strategies: Sequence[Strategy],
    total: int,
    *,
    prompt: PromptSettings,
    search: SearchSettings,
    settings: StrategySettings | None = None,
    progress: Progress = silent,
    **more: Any,
) -> tuple[StrategyComparison, str]:
    """Spend `total` tokens by the allocator, and evenly by each strategy: total / problems tokens on each problem.

    more: `folder` and `about` of `evaluate_strategies`, for the even results. The allocator always runs anew.

    Raises InputError for a total below one token per problem, and as `evaluate_strategies`.
    """
    even = total // max(1, len(problems))
    if even < 1:
        raise InputError(f"--total-budget: {total} for {len(problems)} problems (accepted: at least as many tokens)")
    how: dict[str, Any] = {"prompt": prompt, "search": search, "settings": settings, "progress": progress}
    comparison = evaluate_strategies(problems, engine, strategies, [even], **how, **more)
    shared = solve_within(problems, engine, total, **how)
    result = verified(problems, ALLOCATOR, even, shared.solutions)
    return StrategyComparison(comparison.problem_ids, (*comparison.results, result)), shared.sentence()
