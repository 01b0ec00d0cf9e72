"""What the tests of the search share: a prompt for the tiny tokenizer, problems, random settings."""

from __future__ import annotations

from hypothesis import strategies as st

from mcts_dpo.data import Problem
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings
from mcts_dpo.search import Forest, GumbelSettings, SearchSettings
from mcts_dpo.search.allocation import AllocationSettings
from mcts_dpo.search.allocation.adaptive import AdaptiveSettings
from mcts_dpo.search.allocation.entropy import EntropySettings
from mcts_dpo.search.allocation.filter import FilterSettings
from mcts_dpo.search.allocation.first_error import FirstErrorSettings
from mcts_dpo.search.allocation.path import PathSettings
from mcts_dpo.search.allocation.progressive import ProgressiveSettings
from tests.reference.allocation import ALL_AT_ONCE, ONCE
from tests.reference.invariants import violations

PROMPT = PromptSettings(
    style="plain",
    template="{question}\n",
    stop=(";", "\n\n"),
    answer_style="gsm8k",
    separator="\n",
    self_evaluation_question="?",
    yes="y",
    no="n",
)
PROBLEMS = [
    Problem("one", "ab", "1", "a\nb\n#### 1"),
    Problem("two", "ba", "2", "b\na\n#### 2"),
    Problem("three", "aab", "3", "aa\n#### 3"),
]

prompts = st.builds(
    lambda stop, style: PROMPT.model_copy(update={"stop": stop, "answer_style": style}),
    st.sampled_from([(), (";",), (";", "\n\n"), ("a\nb",)]),
    st.sampled_from(["gsm8k", "math", "last_number"]),
)
settings = st.builds(
    SearchSettings,
    expand=st.sampled_from(["rollout", "step"]),
    simulations=st.integers(1, 12),
    budget=st.none() | st.integers(1, 200),
    children=st.integers(1, 5) | st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    merge=st.sampled_from(["whitespace", "whitespace", "loose", "none"]),
    temperature=st.sampled_from([0.0, 0.7, 1.0, 1.5]),
    top_p=st.sampled_from([0.6, 0.95, 1.0]),
    max_step_tokens=st.integers(1, 8),
    max_tokens=st.integers(8, 24),
    max_depth=st.integers(1, 5),
    depth_from=st.sampled_from(["root", "advanced"]),
    selection=st.sampled_from(["puct", "uct"]),
    c_puct=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    prior=st.sampled_from(["normalised", "raw"]),
    length_penalty=st.sampled_from([0.0, 1.0, 1.25]),
    gamma=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    backup=st.sampled_from(["paper", "mean"]),
    rewards=st.tuples(
        st.builds(OutcomeSettings, weight=st.sampled_from([1.0, 1.0, 0.5])),
        st.builds(
            SelfEvaluationSettings,
            weight=st.sampled_from([0.0, 0.25, 1.0]),
            at=st.sampled_from(["terminal", "all"]),
            hint=st.booleans(),
        ),
    ),
    accumulate=st.sampled_from(["difference", "sum"]),
    parallel_leaves=st.integers(1, 4),
    seed=st.integers(0, 5),
)
"""The paper's rules and their usual variants."""


def _coherent(searched: SearchSettings, advance: str, stop: str, reference_child: bool) -> SearchSettings:
    if searched.selection == "gumbel":
        advance, stop = "none", "budget"
    return searched.model_copy(update={"advance": advance, "stop": stop, "reference_child": reference_child})


every_rule = st.builds(
    _coherent,
    st.builds(
        lambda searched, selection, gumbel, simulations: searched.model_copy(
            update={"selection": selection, "gumbel": gumbel, "simulations": simulations}
        ),
        settings,
        st.sampled_from(["puct", "uct", "gumbel", "gumbel"]),
        st.builds(
            GumbelSettings,
            considered=st.integers(1, 6),
            c_visit=st.sampled_from([0.0, 50.0]),
            c_scale=st.sampled_from([0.0, 0.1, 1.0]),
        ),
        st.integers(1, 20),
    ),
    st.sampled_from(["none", "step"]),
    st.sampled_from(["budget", "decided"]),
    st.booleans(),
)
"""Everything that can be set about how a tree grows."""


def _reopening(searched: SearchSettings, allocation: AllocationSettings, stop: str, advance: str) -> SearchSettings:
    judge = next(one for one in searched.rewards if isinstance(one, SelfEvaluationSettings))
    if allocation.needs_judge:
        judge = judge.model_copy(update={"at": "all", "weight": max(judge.weight, 0.25)})
    update = {
        "allocation": allocation,
        "expand": allocation.expand or searched.expand,
        "merge": allocation.merge or searched.merge,
        "rewards": (searched.rewards[0], judge),
        "stop": stop,
        "advance": advance if allocation.advances else "none",
        "simulations": 2 * searched.simulations + 5 if advance == "none" else searched.simulations,
    }
    return searched.model_copy(update=update)


def reopening(*rules: st.SearchStrategy[AllocationSettings]) -> st.SearchStrategy[SearchSettings]:
    """Searches by rules that draw again from nodes that have samples already."""
    return st.builds(
        _reopening,
        settings,
        st.one_of(rules),
        st.sampled_from(["budget", "decided"]),
        st.sampled_from(["none", "none", "step"]),
    )


filters = st.builds(FilterSettings, ratio=st.sampled_from([0.0, 0.6, 0.9, 1.0]), tries=st.integers(1, 5))
first_errors = st.builds(FirstErrorSettings, threshold=st.sampled_from([0.0, 0.3, 0.5, 1.0]), tries=st.integers(1, 4))
progressives = st.builds(
    ProgressiveSettings, k=st.sampled_from([0.5, 1.0, 2.0, 3.5]), alpha=st.sampled_from([0.0, 0.3, 0.5, 1.0])
)
paths = st.builds(PathSettings)
entropies = st.builds(
    EntropySettings,
    solutions=st.integers(1, 4),
    branches=st.integers(1, 6),
    tries=st.integers(1, 3),
    cuts=st.integers(1, 3),
)
adaptives = st.builds(AdaptiveSettings, prior=st.sampled_from([0.5, 1.0, 5.0]))


def assert_sound(forest: Forest, searched: SearchSettings) -> None:
    """What holds of every forest after a search, whatever the rules were."""
    assert violations(forest, searched) == []
    for node in range(len(forest)):
        assert all(forest.parent[child] == node for child in forest.children(node))
    at_once = searched.allocation.kind in ALL_AT_ONCE
    counts = (searched.children,) if isinstance(searched.children, int) else searched.children
    least, most = (min(counts), max(counts)) if at_once else (1, 1)
    for tree in forest.trees:
        assert tree.status != "exhausted" or searched.allocation.kind in ONCE
        drawn = int(forest.visits[tree.root])
        if tree.mode == "solve" and searched.budget is not None:
            assert tree.simulations <= drawn <= tree.simulations * most, "fewer where little is left"
        else:
            assert tree.simulations * least <= drawn <= tree.simulations * most
