"""The tree search as one strategy among others: the same budget, no reference answer, one answer per problem.

In: tasks, an engine, a budget. Out: attempts. In solve mode no outcome is known, so values come from the policy's
self-evaluation and a value model; where `SearchSettings` gives neither a weight, self-evaluation gets weight 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from mcts_dpo.engines.base import Engine
from mcts_dpo.progress import Progress
from mcts_dpo.prompts import PromptSettings
from mcts_dpo.search.answers import heard, tree_answer
from mcts_dpo.search.forest import Forest
from mcts_dpo.search.mcts import search
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.search.strategies.budget import Attempt, Task, judgement_weights
from mcts_dpo.search.strategies.settings import Plan, StrategySettings, plan


def mcts(tasks: Sequence[Task], engine: Engine, budget: int, follows: Plan, progress: Progress) -> list[Attempt]:
    """One tree per problem (Xie et al. 2024, arXiv 2405.00451), answered by `tree_answer`'s weighted vote."""
    if not tasks:
        return []
    problems = [task.problem for task in tasks]
    settings = tree_settings(tasks[0].settings, budget, follows)
    forest = search(problems, engine, prompt=tasks[0].prompt, settings=settings, mode="solve", progress=progress)
    return [_attempt(forest, index, tasks[0].prompt) for index in range(len(tasks))]


def tree_settings(search: SearchSettings, budget: int, follows: Plan) -> SearchSettings:
    """The search's settings for a solving tree of this budget."""
    judged = search.self_evaluation
    return search.model_copy(
        update={
            "budget": budget,
            "simulations": follows.simulations,
            "children": follows.children,
            "max_depth": follows.depth,
            "self_evaluation": judged.model_copy(update={"weight": judgement_weights(search)[0]}),
        }
    )


def settings_for_budget(search: SearchSettings, budget: int, dials: StrategySettings) -> SearchSettings:
    """`tree_settings`; what somebody has set of the search's own settings wins over what follows from the budget."""
    followed = tree_settings(search, budget, plan(budget, dials, search))
    own = {"simulations", "children", "self_evaluation"} & search.model_fields_set
    return followed.model_copy(update={name: getattr(search, name) for name in own})


def _attempt(forest: Forest, index: int, prompt: PromptSettings) -> Attempt:
    info = forest.trees[index]
    ends = int(forest.samples[heard(forest, index)].sum())
    if info.status == "failed":
        return Attempt(None, "", info.generated, ends, info.reason)
    found = tree_answer(forest, index)
    text = prompt.prefill + forest.solution_text(found.leaf) if found.leaf >= 0 else ""
    return Attempt(found.answer, text, info.generated, ends, undecided=found.undecided)
