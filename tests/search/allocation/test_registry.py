"""An allocation rule from outside the package, and what is refused. test_reference.py compares the rules themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.search import SearchSettings, kernels, search_problems
from mcts_dpo.search.allocation import AllocationSettings, Draw, allocation_names, register_allocation
from mcts_dpo.search.state import SearchState, TreeState
from tests.reference.engine import AutomatonEngine
from tests.search.support import PROBLEMS, PROMPT

JUDGED = ["outcome", {"kind": "self_evaluation", "at": "all"}]


class RootOnlySettings(AllocationSettings):
    """Independent samples: all are drawn from the root."""

    kind: Literal["root_only"] = "root_only"


class RootOnly:
    reopens = True

    def draws(self, state: SearchState, tree: TreeState, wanted: int) -> list[Draw]:
        kernels.hold(state.forest, [tree.search_root])
        return [Draw(tree.search_root, 2)]

    def learn(self, state: SearchState, tree: TreeState, draw: Draw, ends: Sequence[int]) -> None:
        assert len(ends) == draw.samples


def test_a_rule_from_outside() -> None:
    if "root_only" not in allocation_names():
        register_allocation(RootOnlySettings, lambda settings: RootOnly())
    settings = SearchSettings.model_validate(
        {"allocation": "root_only", "simulations": 4, "parallel_leaves": 3, "max_tokens": 24, "max_depth": 5}
    )
    forest = search_problems(PROBLEMS, AutomatonEngine(6), prompt=PROMPT, settings=settings)
    assert [int(forest.visits[tree.root]) for tree in forest.trees] == [4 * 2] * 3
    assert forest.expanded.sum() == 3
    with pytest.raises(ValueError, match="'root_only' is registered already"):
        register_allocation(RootOnlySettings, lambda settings: RootOnly())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["search.allocation=filter", "search.expand=step"], "filter needs a judge of steps"),
        (["search.allocation=first_error"], "first_error needs a judge of steps"),
        (["search.allocation=filter", f"search.rewards={JUDGED}"], "filter draws with expand: step"),
        (["search.allocation=fliter"], "did you mean 'filter'"),
        (["search.allocation={kind: filter, ratio: 2}"], "ratio"),
        (
            ["search.allocation=first_error", f"search.rewards={JUDGED}", "search.advance=step"],
            "first_error starts at the root",
        ),
        (["search.allocation=adaptive"], "adaptive needs a judge of steps"),
        (["search.allocation=path"], "path draws with expand: step"),
        (["search.allocation=progressive", "search.selection=gumbel"], "progressive does not know selection: gumbel"),
        (["search.allocation={kind: progressive, alpha: 1.5}"], "alpha"),
        (["search.allocation={kind: progressive, k: 0}"], "allocation.k"),
        (["search.allocation={kind: adaptive, prior: 0}"], "allocation.prior"),
        (["search.allocation=entropy"], "entropy cuts inside words; accepted with it: merge: none"),
        (["search.allocation={kind: entropy, cuts: 0}", "search.merge=none"], "allocation.cuts"),
    ],
)
def test_what_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_settings(SearchSettings, None, [one.removeprefix("search.") for one in overrides])
    assert "\n" not in str(error.value)


def test_a_doubted_step_is_drawn_again() -> None:
    settings = SearchSettings.model_validate(
        {
            "allocation": {"kind": "filter", "ratio": 1.0, "tries": 4},
            "expand": "step",
            "rewards": JUDGED,
            "simulations": 40,
            "max_tokens": 24,
            "max_step_tokens": 8,
            "max_depth": 5,
            "temperature": 1.5,
        }
    )
    forest = search_problems(PROBLEMS, AutomatonEngine(6), prompt=PROMPT, settings=settings)
    for tree in forest.trees:
        assert tree.status == "simulations"
        children = forest.children(tree.root)
        assert len(children) > 1, "one sample at a time, and several children"
        assert int(forest.visits[tree.root]) == 40
    assert (forest.expansions[forest.roots()] == 40).all()
