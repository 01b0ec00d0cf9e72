"""What the tests of the search share: a prompt for the tiny tokenizer, problems, random settings."""

from __future__ import annotations

from hypothesis import strategies as st

from mcts_dpo.problems import Problem
from mcts_dpo.prompts import PromptSettings
from mcts_dpo.search import Forest, SearchSettings, SelfEvaluationSettings

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
    children=st.integers(1, 5),
    temperature=st.sampled_from([0.0, 0.7, 1.0, 1.5]),
    top_p=st.sampled_from([0.6, 0.95, 1.0]),
    max_step_tokens=st.integers(1, 8),
    max_tokens=st.integers(8, 24),
    max_depth=st.integers(1, 5),
    selection=st.sampled_from(["puct", "uct"]),
    c_puct=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    prior=st.sampled_from(["normalised", "raw"]),
    length_penalty=st.sampled_from([0.0, 1.0, 1.25]),
    gamma=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    backup=st.sampled_from(["paper", "mean"]),
    self_evaluation=st.builds(
        SelfEvaluationSettings,
        weight=st.sampled_from([0.0, 0.25, 1.0]),
        at=st.sampled_from(["terminal", "all"]),
        hint=st.booleans(),
    ),
    parallel_leaves=st.integers(1, 4),
    seed=st.integers(0, 5),
)


def assert_sound(forest: Forest, searched: SearchSettings) -> None:
    """What holds of every forest after a search, whatever the rules were."""
    step = forest.depth > 0
    assert (forest.virtual == 0).all()
    assert (forest.closed != 1).all()
    assert (forest.parent[step] < step.nonzero()[0]).all()
    assert (forest.terminal == (forest.finish > 0)).all()
    assert not forest.expanded[forest.terminal].any()
    assert (forest.visits[step] >= forest.samples[step]).all()
    assert (forest.samples[step] >= 1).all()
    assert (forest.length[step] >= 1).all()
    weight, gamma = searched.self_evaluation.weight, searched.gamma
    judged = searched.max_depth if searched.self_evaluation.at == "all" else 1
    assert (forest.q >= -1.0 - 1e-9).all()
    assert (forest.q <= 1.0 + weight * judged + 1e-9).all()
    assert ((forest.outcome != 0) <= forest.terminal).all()
    for node in range(len(forest)):
        children = forest.children(node)
        below = sum(int(forest.visits[child]) for child in children)
        # A visit that did not go on from here ended here: once per sample that was a step alone.
        assert below <= forest.visits[node]
        if children and searched.expand == "rollout":
            assert below == forest.visits[node]
        if children:
            mean = sum(float(forest.visits[c] * forest.q[c]) for c in children) / below
            assert abs(forest.v[node] - mean) < 1e-9
            if searched.prior == "normalised":
                assert abs(sum(forest.prior[children]) - 1.0) < 1e-9
            if searched.backup == "paper" and node:
                assert abs(forest.q[node] - (forest.reward[node] + gamma * forest.v[node])) < 1e-9 or not step[node]
        for child in children:
            assert forest.parent[child] == node
            assert forest.tree[child] == forest.tree[node]
            assert forest.depth[child] == forest.depth[node] + 1
    for tree in forest.trees:
        assert tree.simulations <= searched.simulations
        drawn = int(forest.visits[tree.root])
        if tree.mode == "solve" and searched.budget is not None:
            assert tree.simulations <= drawn <= tree.simulations * searched.children, "fewer where little is left"
        else:
            assert drawn == tree.simulations * searched.children
