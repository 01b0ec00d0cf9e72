"""What can be set about a strategy beside its budget. Knows nothing of how any strategy works."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from pydantic import Field

from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.settings import Settings


class StrategySettings(Settings):
    """The dials of strategies at equal budgets. All but the first follow from the budget where they are None.

    How a solution is sampled (temperature, top_p, max_tokens, max_step_tokens, seed) is said by `SearchSettings`, the
    same for every strategy.

    solution_tokens: L, the length of a typical solution; None: half of `max_tokens`. A budget of B tokens is planned
                     as n = B / L solutions; what is spent is counted, not planned.
    width:           beam, dvts: N, the candidates of one level. None: n.
    children:        beam, dvts: M, the candidates under one kept prefix; mcts: the samples of one expansion. None: √n,
                     between 2 and 4; 1 where the budget is planned as one solution.
    depth:           beam, dvts, mcts: steps in a solution, the last sampled to its end. None: `max_depth`.
    simulations:     mcts: expansions. None: as many as the budget pays; with `advance: step`, where they are those of
                     one move, `SearchSettings.simulations`.
    """

    solution_tokens: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    children: int | None = Field(default=None, ge=1)
    depth: int | None = Field(default=None, ge=1)
    simulations: int | None = Field(default=None, ge=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """The dials of one strategy at one budget, all known. See `StrategySettings`."""

    width: int
    children: int
    depth: int
    simulations: int


def plan(budget: int, settings: StrategySettings, search: SearchSettings) -> Plan:
    """What follows from a budget of generated tokens (≥ 1) for what is not set."""
    length = settings.solution_tokens or max(1, search.max_tokens // 2)
    solutions = max(1, budget // length)
    simulations = search.simulations if search.advance == "step" else budget
    return Plan(
        width=settings.width or solutions,
        children=settings.children or (min(4, max(2, round(sqrt(solutions)))) if solutions > 1 else 1),
        depth=settings.depth or search.max_depth,
        simulations=settings.simulations or simulations,
    )
