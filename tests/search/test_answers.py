from __future__ import annotations

import numpy as np
import pytest

from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings
from mcts_dpo.search import (
    FINISHES,
    LENGTH,
    Forest,
    SearchSettings,
    TreeVote,
    render_text,
    render_tree,
    search_problems,
    search_statistics,
    tree_answer,
)
from mcts_dpo.search.answers import mean_logprob, values
from mcts_dpo.search.statistics import first_sample
from tests.reference.engine import AutomatonEngine
from tests.search.support import PROBLEMS, PROMPT

END = FINISHES.index("end")
SETTINGS = SearchSettings(simulations=12, children=4, max_tokens=24, max_step_tokens=8, max_depth=5)


def ends(*solutions: tuple[str | None, int, float, float]) -> Forest:
    """Solutions of one step under one root: (answer, visits, reward, log-probability)."""
    forest = Forest()
    forest.add_tree("p", [1], "Q")
    for index, (answer, visits, reward, logprob) in enumerate(solutions):
        node = forest.add_child(0, [index], [logprob], f"so {answer}\n", END)
        forest.answers[node] = answer
        forest.visits[node] = forest.samples[node] = visits
        forest.state_reward[node] = forest.q[node] = reward
    return forest


def test_equal_answers_are_weighed_together() -> None:
    forest = ends(("0.5", 2, 0.6, -1.0), ("3", 3, 0.7, -1.0), ("1/2", 2, 0.8, -2.0), (None, 90, 0.9, -0.1))
    assert tree_answer(forest, 0) == TreeVote("1/2", pytest.approx(2 * 0.6 + 2 * 0.8), 3, (0, 3))


def test_ties_go_to_the_more_probable_then_to_the_first() -> None:
    assert tree_answer(ends(("1", 2, 0.5, -2.0), ("2", 2, 0.5, -1.0)), 0).answer == "2"
    assert tree_answer(ends(("1", 2, 0.5, -1.0), ("2", 2, 0.5, -1.0)), 0).answer == "1"
    assert tree_answer(ends(("1", 1, 0.5, -1.0), ("1", 1, 0.5, -9.0), ("2", 2, 0.5, -2.0)), 0).answer == "2", "a mean"


def test_without_any_judgement_the_vote_is_by_visits() -> None:
    forest = ends(("1", 3, 0.0, -1.0), ("2", 2, 0.0, -1.0), ("2.0", 2, 0.0, -1.0))
    assert values(forest, [1, 2, 3]) == [1.0, 1.0, 1.0]
    assert tree_answer(forest, 0) == TreeVote("2", 4.0, 2, (0, 2))


def test_known_outcomes_are_shifted_to_be_positive() -> None:
    forest = ends(("1", 30, -1.0, -1.0), ("2", 1, 1.0, -1.0))
    forest.outcome[1:] = [-1, 1]
    assert values(forest, [1, 2]) == [0.0, 2.0]
    assert tree_answer(forest, 0).answer == "2"


def test_majority_counts_samples_not_visits() -> None:
    forest = ends(("1", 1, 0.9, -1.0), ("2", 2, 0.1, -1.0))
    forest.visits[1] = 50
    assert tree_answer(forest, 0).answer == "1"
    assert tree_answer(forest, 0, "majority") == TreeVote("2", 2.0, 2, (0, 2))


def test_paths_of_best_q_and_most_visits_lead_to_an_answer() -> None:
    forest = Forest()
    forest.add_tree("p", [1], "Q")
    good, visited, dead = (forest.add_child(0, [i], [-1.0], f"{i}\n") for i in range(3))
    forest.q[[good, visited, dead]] = [0.5, 0.1, 0.9]
    forest.visits[[good, visited, dead]] = [2, 5, 9]
    for parent, answer in ((good, "7"), (visited, "8"), (dead, None)):
        leaf = forest.add_child(parent, [5], [-1.0], "x", END)
        forest.answers[leaf] = answer
    assert tree_answer(forest, 0, "best_q") == TreeVote("7", 0.5, 4, (0, good, 4))
    assert tree_answer(forest, 0, "most_visited") == TreeVote("8", 5.0, 5, (0, visited, 5))


def test_no_answer_is_none() -> None:
    assert tree_answer(ends((None, 3, -1.0, -1.0)), 0) == TreeVote(None, 0.0, -1, ())


def test_mean_logprob_is_per_token_of_the_whole_path() -> None:
    forest = Forest()
    forest.add_tree("p", [1], "Q")
    step = forest.add_child(0, [1, 2, 3], [-1.0, -2.0, -3.0], "a\n")
    assert mean_logprob(forest, forest.add_child(step, [4], [-2.0], "b", END)) == pytest.approx(-8 / 4)


def test_a_tree_as_text() -> None:
    forest = ends(("1", 3, 1.0, -1.0), ("2", 2, -1.0, -1.0), ("3", 1, 0.5, -1.0), ("4", 9, -1.0, -1.0))
    forest.outcome[[1, 2, 4]] = [1, -1, -1]
    forest.finish[4] = LENGTH
    forest.prior[1] = 0.25
    forest.trees[0].status = "simulations"
    lines = render_text(forest, 0, max_children=3).splitlines()
    assert lines == [
        "p  N=0 V=+0.00  0 simulations, 0 tokens, ended: simulations",
        "├── N=9 Q=-1.00 p=0.00 … ✗ so 4",
        "├── N=3 Q=+1.00 p=0.25 ✓ so 1",
        "├── N=2 Q=-1.00 p=0.00 ✗ so 2",
        "└── … 1 more",
    ]
    chosen = render_text(forest, 0, max_children=1, highlight=3).splitlines()
    assert chosen[1:] == ["├── N=1 Q=+0.50 p=0.00 • so 3", "└── … 3 more"]


def test_depth_and_width_of_a_rendered_tree_are_limited() -> None:
    forest = search_problems(PROBLEMS, AutomatonEngine(6), prompt=PROMPT, settings=SETTINGS)
    text = render_text(forest, 1, width=40, max_depth=1, max_children=2, max_text=5)
    assert max(map(len, text.splitlines())) <= 40
    assert "more steps below" in text
    children = forest.children(forest.trees[1].root)
    full = render_tree(forest, 1, max_depth=99, max_children=99)
    assert len(full.children) == len(children)
    assert str(full.children[0].label).startswith(f"N={forest.visits[children].max()} ")
    whole = render_text(forest, 1, width=200, max_depth=99, max_children=99)
    assert len(whole.splitlines()) == len(forest.nodes(1))


def test_statistics() -> None:
    settings = SETTINGS.model_copy(update={"rewards": (OutcomeSettings(), SelfEvaluationSettings(weight=0.5))})
    problems = [*PROBLEMS, PROBLEMS[0].__class__("long", "a" * 99, "1")]
    forest = search_problems(problems, AutomatonEngine(6, context=80), prompt=PROMPT, settings=settings)
    figures = search_statistics([forest, forest])
    assert figures["problems"] == 8
    assert figures["failed"] == 2
    assert figures["nodes"] == 2 * len(forest)
    assert figures["sampled_tokens"] == 2 * sum(tree.generated for tree in forest.trees)
    outcomes = [set(forest.outcome[forest.nodes(tree)].tolist()) for tree in range(3)]
    assert figures["coverage"] == np.mean([1 in found for found in outcomes])
    assert figures["mixed"] == np.mean([{1, -1} <= found for found in outcomes])
    firsts = [first_sample(forest, tree) for tree in range(3)]
    assert figures["first_sample_accuracy"] == np.mean(forest.outcome[firsts] > 0)
    ended = forest.terminal
    right = forest.outcome > 0
    assert figures["sample_accuracy"] == forest.samples[right].sum() / forest.samples[ended].sum()
    assert figures["mean_confidence_right"] == pytest.approx(forest.scores["self_evaluation"][right].mean())
    assert figures["value_low"] == forest.q[forest.depth > 0].min()
    assert figures["value_high"] == forest.q.max()
    assert "unscored_judge" not in figures
    forest.trees[0].unscored["judge"] = 3
    assert search_statistics([forest, forest])["unscored_judge"] == 6


def test_the_first_sample_is_what_the_engine_drew_first() -> None:
    engine = AutomatonEngine(6)
    forest = search_problems(PROBLEMS, engine, prompt=PROMPT, settings=SETTINGS)
    for tree in range(3):
        sample = AutomatonEngine(6)._sample(engine.requests[tree], 0)
        assert forest.solution_tokens(first_sample(forest, tree)) == list(sample.tokens)


def test_statistics_of_nothing() -> None:
    figures = search_statistics([])
    assert figures["problems"] == figures["coverage"] == figures["value_high"] == 0
