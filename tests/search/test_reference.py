"""The search equals the slow reference search, field by field, under every rule."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.search import FINISHES, Forest, SearchSettings, search_problems
from tests.reference.engine import AutomatonEngine
from tests.reference.search import Node, ReferenceTree, reference_search
from tests.search.support import (
    PROBLEMS,
    PROMPT,
    adaptives,
    assert_sound,
    entropies,
    every_rule,
    filters,
    first_errors,
    paths,
    progressives,
    prompts,
    reopening,
)
from tests.search.support import settings as any_settings


def examples(count: int) -> hypothesis_settings:
    """So many examples, the same ones in every run."""
    return hypothesis_settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )


def assert_equal(forest: Forest, tree: int, reference: ReferenceTree) -> int:
    """Every field of every node; returns the number of nodes."""
    info = forest.trees[tree]
    assert (info.status, info.generated, info.simulations) == (
        reference.status,
        reference.generated,
        reference.simulations,
    )
    pairs: list[tuple[int, Node]] = [(info.root, reference.root)]
    for node, twin in pairs:
        where = f"node {node}: {forest.solution_text(node)!r}"
        assert forest.step_tokens(node) == twin.tokens, where
        assert forest.texts[node] == twin.text, where
        assert FINISHES[forest.finish[node]] == twin.finish, where
        assert forest.terminal[node] == bool(twin.finish), where
        assert forest.visits[node] == reference.visits(twin), where
        assert forest.expansions[node] == twin.expansions, where
        assert forest.samples[node] == len(twin.masses), where
        assert forest.expanded[node] == twin.expanded, where
        assert forest.outcome[node] == twin.outcome, where
        assert forest.answers[node] == twin.answer, where
        assert (forest.closed[node] == 2) == reference.exhausted(twin), where
        assert forest.virtual[node] == 0, where
        assert forest.depth[node] == len(twin.path) - 1, where
        assert forest.logprob[node] == pytest.approx(sum(twin.logprobs), abs=1e-12, nan_ok=True), where
        assert forest.step_logprobs(node) == pytest.approx(twin.logprobs, rel=1e-6, nan_ok=True), where
        assert forest.mass[node] == pytest.approx(reference.mass(twin), rel=1e-12), where
        assert forest.prior[node] == pytest.approx(reference.prior(twin), rel=1e-12), where
        assert forest.reward[node] == pytest.approx(reference.reward(twin), abs=1e-12), where
        assert forest.state_reward[node] == pytest.approx(twin.value, abs=1e-12), where
        assert forest.q[node] == pytest.approx(reference.q(twin), abs=1e-12), where
        assert forest.v[node] == pytest.approx(reference.v(twin), abs=1e-12), where
        scores = {kind: column[node] for kind, column in forest.scores.items()}
        assert scores["outcome"] == pytest.approx(twin.outcome or math.nan, nan_ok=True), where
        known = math.nan if twin.confidence is None else twin.confidence
        assert scores.get("self_evaluation", math.nan) == pytest.approx(known, abs=0, nan_ok=True), where
        children = forest.children(node)
        assert len(children) == len(twin.children), where
        pairs += zip(children, twin.children, strict=True)
    assert len(pairs) == len(forest.nodes(tree))
    twins = dict(pairs)
    assert [twins[node] for node in info.moves] == reference.moves
    return len(pairs)


def compare(settings: SearchSettings, prompt: PromptSettings, model_seed: int, mode: str = "train") -> Forest:
    forest = search_problems(PROBLEMS, AutomatonEngine(model_seed), prompt=prompt, settings=settings, mode=mode)
    assert_sound(forest, settings)
    for tree, problem in enumerate(PROBLEMS):
        reference = reference_search(problem, AutomatonEngine(model_seed), prompt, settings, mode)
        assert_equal(forest, tree, reference)
    return forest


@examples(200)
@given(any_settings, prompts, st.integers(0, 10_000), st.sampled_from(["train", "solve"]))
def test_equals_the_reference_under_any_settings(
    settings: SearchSettings, prompt: PromptSettings, model_seed: int, mode: str
) -> None:
    compare(settings, prompt, model_seed, mode)


@examples(120)
@given(every_rule, prompts, st.integers(0, 10_000))
def test_equals_the_reference_in_every_rule(settings: SearchSettings, prompt: PromptSettings, model_seed: int) -> None:
    compare(settings, prompt, model_seed)


@examples(120)
@given(
    reopening(filters, first_errors, progressives, paths, adaptives, entropies),
    prompts,
    st.integers(0, 10_000),
    st.sampled_from(["train", "solve"]),
)
def test_equals_the_reference_where_nodes_reopen(
    settings: SearchSettings, prompt: PromptSettings, model_seed: int, mode: str
) -> None:
    compare(settings, prompt, model_seed, mode)


@pytest.mark.parametrize("expand", ["rollout", "step"])
@pytest.mark.parametrize("selection", ["puct", "uct"])
@pytest.mark.parametrize("backup", ["paper", "mean"])
@pytest.mark.parametrize("prior", ["normalised", "raw"])
@pytest.mark.parametrize("parallel_leaves", [1, 3])
def test_equals_the_reference_on_large_trees(
    expand: str, selection: str, backup: str, prior: str, parallel_leaves: int
) -> None:
    settings = SearchSettings.model_validate(
        {
            "expand": expand,
            "selection": selection,
            "backup": backup,
            "prior": prior,
            "parallel_leaves": parallel_leaves,
            "simulations": 24,
            "children": 3,
            "max_step_tokens": 12,
            "max_tokens": 30,
            "max_depth": 6,
            "gamma": 0.95,
            "rewards": ["outcome", {"kind": "self_evaluation", "weight": 0.5, "at": "all"}],
        }
    )
    forest = compare(settings, PROMPT, model_seed=6)
    assert len(forest) > 80
    assert (forest.depth > 3).any()
    assert (forest.samples > 1).any()
    assert {1, -1} <= set(forest.outcome.tolist())
