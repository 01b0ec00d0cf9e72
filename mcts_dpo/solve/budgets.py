"""Turns a budget of generated tokens into settings: widths, children, depth and simulations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import sqrt

from pydantic import Field

from mcts_dpo.common.settings import Settings
from mcts_dpo.rewards.base import RewardSettings
from mcts_dpo.rewards.registry import active, judges_steps, with_entry
from mcts_dpo.rewards.self_evaluation import SelfEvaluationSettings
from mcts_dpo.search.allocation.filter import FilterSettings
from mcts_dpo.search.settings import SearchSettings


class StrategySettings(Settings):
    """The settings of strategies at equal budgets. Settings that are null follow from the budget.

    `SearchSettings` sets how a solution is sampled, and it is the same for every strategy: temperature, top_p,
    max_tokens, max_step_tokens, seed.

    solution_tokens: L, the length of a typical solution in tokens; null: half of `max_tokens`. A budget of B tokens is
                     planned as n = B / L solutions. The tokens that are really spent count against the budget.
    width:           for beam and dvts: N, the candidates of one level. None: n.
    children:        for beam and dvts: M, the candidates under one kept prefix. For mcts: the samples of one expansion.
                     None: √n, between 2 and 4, or 1 if the budget is planned as one solution.
    depth:           for beam, dvts and mcts: the number of steps in a solution. The last step is sampled to the
                     solution's end. None: `max_depth`.
    simulations:     for mcts: the number of expansions. None: as many as the budget pays. With `advance: step` they are
                     the expansions of one move, and None stands for `SearchSettings.simulations`.
    """

    solution_tokens: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    children: int | None = Field(default=None, ge=1)
    depth: int | None = Field(default=None, ge=1)
    simulations: int | None = Field(default=None, ge=1)


@dataclass(frozen=True, slots=True)
class BudgetedSettings:
    """The complete settings of one strategy at one budget.

    budget: generated tokens.
    width:  candidates of one level (beam, dvts).
    search: how solutions are sampled. It also holds a tree's budget, simulations, children, depth and rewards.
    """

    budget: int
    width: int
    search: SearchSettings


def budget_to_settings(
    budget: int | None,
    search: SearchSettings,
    strategy_settings: StrategySettings | None = None,
    *,
    explicit: bool = False,
) -> BudgetedSettings:
    """Derive the settings of a strategy from a budget of generated tokens (≥ 1).

    budget:            None: `search.budget`, or what `search.simulations` · `search.children` solutions cost. If only
                       `search.seconds` is set, that cost gives width and children, and only the time ends the search.
    search:            how solutions are sampled.
    strategy_settings: settings to use as given; null ones follow from the budget. None: all follow from it.
    explicit:          True: settings that the user gave for the search itself (simulations, children, max_depth) win
                       over `strategy_settings` and over those that follow from the budget.

    `allocation: auto` becomes the step filter, which beat `fixed` and `first_error` in benchmarks/results/widening.md,
    where a judge scores every step. It stays "fixed" if the search moves (`advance`) or if simulations or children are
    set in `strategy_settings`.
    """
    strategy_settings = strategy_settings or StrategySettings()
    own = {name: getattr(search, name) for name in _OWN & search.model_fields_set} if explicit else {}
    length = strategy_settings.solution_tokens or max(1, search.max_tokens // 2)
    planned = budget or search.budget or search.simulations * search.most_children * length
    only_time = budget is None and search.budget is None and search.seconds is not None
    budget = UNLIMITED if only_time else planned
    solutions = max(1, planned // length)
    simulations = search.simulations if search.advance == "step" else budget
    rewards = reduce(with_entry, judging(search.rewards), search.rewards)
    update = {
        "budget": budget,
        "simulations": strategy_settings.simulations or simulations,
        "children": strategy_settings.children or (min(4, max(2, round(sqrt(solutions)))) if solutions > 1 else 1),
        "max_depth": strategy_settings.depth or search.max_depth,
        "rewards": rewards,
        **own,
    }
    fixed = strategy_settings.simulations or strategy_settings.children or search.advance != "none"
    if search.allocation.kind == "auto" and judges_steps(rewards) and not fixed:
        update |= {"allocation": FilterSettings(), "expand": "step", "simulations": budget}
    settings = search.model_copy(update=update)
    return BudgetedSettings(budget, strategy_settings.width or solutions, settings)


UNLIMITED = 1 << 40
"""The budget in tokens of a search that only its seconds end."""
_OWN = {"simulations", "children", "max_depth"}


def judging(rewards: Sequence[RewardSettings]) -> tuple[RewardSettings, ...]:
    """The rewards with a weight that have scores without the reference answer.

    If none of them can judge solutions (a length cannot), the policy judges every step, too: self-evaluation with
    weight 1.
    """
    found = tuple(entry for entry in active(rewards) if not entry.needs_reference)
    if any(entry.judges for entry in found):
        return found
    asked = next((entry for entry in rewards if entry.kind == "self_evaluation"), SelfEvaluationSettings(at="all"))
    return (*found, asked.model_copy(update={"weight": 1.0}))
