"""Labels of solutions from trees and files, and judges scored on them, against what can be counted by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines.lazy import LazyEngine
from mcts_dpo.evaluation.judging import JudgeEvaluation, evaluate_judge, scored, with_truth
from mcts_dpo.evaluation.labelled import labelled_steps, labelled_trees
from mcts_dpo.report.judges import judge_figures, plot_reliability
from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings
from mcts_dpo.search import Forest, SearchSettings, search_problems
from mcts_dpo.search.tree_io import save
from mcts_dpo.toy.horizon import horizon_problems
from mcts_dpo.toy.oracle import OracleSettings
from tests.reference.engine import TOKENIZER, AutomatonEngine
from tests.search.support import PROBLEMS, PROMPT

SEARCH = SearchSettings(
    simulations=12,
    children=3,
    max_tokens=24,
    max_step_tokens=8,
    max_depth=5,
    expand="step",
    rewards=(OutcomeSettings(), SelfEvaluationSettings(weight=0.5, at="all")),
)
KNOWN = {problem.id: problem for problem in PROBLEMS}


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("labels") / "trees.parquet"
    save(search_problems(PROBLEMS, AutomatonEngine(31), prompt=PROMPT, settings=SEARCH).by_tree(), file)
    return file


def test_labels_of_a_tree_are_what_was_sampled_below(trees: Path) -> None:
    forest = Forest.load(trees)
    ends = [node for node in range(len(forest)) if forest.terminal[node] and forest.samples[node]]
    seen = 0
    for tree, labelled in enumerate(labelled_trees(trees, KNOWN, PROMPT)):
        mine = {tuple(forest.solution_tokens(node)): node for node in ends if forest.tree[node] == tree}
        counted: set[tuple[int, ...]] = set()
        for solution in labelled.solutions:
            steps = [tuple(path.tokens) for path in solution.paths]
            assert [step in counted for step in steps] == [at < solution.shared for at in range(len(steps))]
            counted |= set(steps)
            outcome = int(forest.outcome[mine[steps[-1]]])
            assert solution.final_right == {1: True, -1: False, 0: None}[outcome]
            seen += 1
            for step, path, right in zip(steps, solution.paths, solution.right, strict=True):
                below = [node for tokens, node in mine.items() if tokens[: len(step)] == step and forest.outcome[node]]
                enough = sum(int(forest.samples[node]) for node in below) >= (1 if path.terminal else 4)
                expected = True if any(forest.outcome[node] > 0 for node in below) else False if enough else None
                assert right is expected
    assert seen == len(ends) > 20


def test_scores_are_those_of_the_search(trees: Path) -> None:
    """The tree holds the self-evaluation of every step; asked again, the judge says the same."""
    forest = Forest.load(trees)
    stored = {
        (int(forest.tree[node]), *forest.solution_tokens(node)): forest.scores["self_evaluation"][node]
        for node in range(len(forest))
    }
    labelled = labelled_trees(trees, KNOWN, PROMPT)
    engine = LazyEngine(lambda: AutomatonEngine(31), TOKENIZER)
    found = scored(labelled, SelfEvaluationSettings(), engine, PROMPT)
    solutions = [(tree, solution) for tree, one in enumerate(labelled) for solution in one.solutions]
    assert len(found) == len(solutions) > 20
    for judged, (tree, solution) in zip(found, solutions, strict=True):
        expected = [stored[tree, *path.tokens] for path in solution.paths]
        assert list(judged.step_scores) == pytest.approx(expected, abs=1e-12)
    result = evaluate_judge(
        labelled, SelfEvaluationSettings(), engine, PROMPT, data="trees", labels="outcomes", threshold=0.4
    )
    unique = len({id(path) for _, solution in solutions for path in solution.paths})
    assert (result.cost.scores, result.cost.budget_tokens, result.cost.sampled_tokens) == (unique, unique, 0)
    assert result.metrics["threshold"] == 0.4


def test_a_refused_request_is_counted_and_scores_nothing(trees: Path) -> None:
    token = Forest.load(trees).trees[2].prompt_tokens[1]
    engine = LazyEngine(lambda: AutomatonEngine(31, refused=token), TOKENIZER)
    labelled = labelled_trees(trees, KNOWN, PROMPT)
    result = evaluate_judge(labelled, SelfEvaluationSettings(), engine, PROMPT, data="x", labels="y")
    assert result.cost.failed >= 1
    assert result.metrics["unscored"] > 0


def _rows(place: Path, rows: Sequence[object]) -> Path:
    file = place / "steps.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def _horizon_rows(place: Path) -> Path:
    """True solutions of the built-in world, and copies with a wrong line."""
    rows = []
    for problem in horizon_problems(12, seed=0):
        steps = str(problem.solution).split("\n")
        rows.append({"question": problem.question, "steps": steps, "first_error": -1})
        wrong = [*steps[:2], steps[2] + "9", *steps[3:]]
        # The second form is ProcessBench's.
        rows.append({"problem": problem.question, "steps": wrong, "label": 2, "final_answer_correct": True})
    return _rows(place, rows)


def test_the_oracle_is_perfect_on_labelled_steps(tmp_path: Path) -> None:
    labelled = labelled_steps(_horizon_rows(tmp_path), PROMPT)
    engine = LazyEngine(None, None)
    result = evaluate_judge(labelled, OracleSettings(), engine, PROMPT, data="file", labels="rows", tune=0.5)
    metrics = result.metrics
    assert metrics["problems"] < 12, "some chose the threshold"
    assert "other problems" in result.threshold
    for name in ("auc_conditional", "auc_steps", "error_accuracy", "right_accuracy", "f1"):
        assert metrics[name]["value"] == 1.0
    assert (metrics["false_alarm"]["value"], metrics["miss"]["value"], metrics["brier"]["value"]) == (0, 0, 0)
    assert metrics["auc_final"] is None, "all these answers are right"
    poor = evaluate_judge(labelled, OracleSettings(miss=1.0), engine, PROMPT, data="file", labels="rows")
    assert poor.metrics["miss"]["value"] == 1.0
    assert poor.metrics["auc_conditional"]["value"] == 0.5

    poor.save(tmp_path / "judges" / "oracle.json")
    assert JudgeEvaluation.load(tmp_path / "judges" / "oracle.json").metrics["miss"] == poor.metrics["miss"]
    assert [one["name"] for one in judge_figures(tmp_path)] == ["oracle"]
    assert plot_reliability(poor, tmp_path / "oracle.png").read_bytes()[:4] == b"\x89PNG"


def test_a_truth_replaces_the_labels(tmp_path: Path) -> None:
    labelled = labelled_steps(_horizon_rows(tmp_path), PROMPT)
    true = with_truth(labelled, OracleSettings(), LazyEngine(None, None), PROMPT)
    for before, after in zip(labelled, true, strict=True):
        (old,), (new,) = before.solutions, after.solutions
        assert [right for right in old.right if right is not None] == list(
            new.right[: sum(r is not None for r in old.right)]
        )
        assert new.final_right == all(new.right)


def test_steps_are_tokenised_so_that_tokens_end_where_they_do(tmp_path: Path) -> None:
    file = _rows(tmp_path, [{"question": "ab", "steps": ["a b", "bb\n", "#### 1"], "first_error": 1}])
    (labelled,) = labelled_steps(file, PROMPT, TOKENIZER)
    (solution,) = labelled.solutions
    assert solution.right == (True, False, None)
    assert [path.text for path in solution.paths] == ["a b\n", "a b\nbb\n", "a b\nbb\n#### 1"]
    for path in solution.paths:
        assert TOKENIZER.decode(path.tokens) == path.text
        assert TOKENIZER.decode(path.prompt) == "ab\n"
        starts = [0, *path.ends]
        texts = [TOKENIZER.decode(path.tokens[a:b]) for a, b in zip(starts, path.ends, strict=False)]
        assert tuple(texts) == path.steps
    assert [path.terminal for path in solution.paths] == [False, False, True]
    engine = LazyEngine(lambda: AutomatonEngine(1), TOKENIZER)
    (judged,) = scored([labelled], SelfEvaluationSettings(), engine, PROMPT)
    assert not any(math.isnan(score) for score in judged.step_scores)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "first_error": 0}, "line 1: no texts under 'steps'"),
        ({"question": "q", "steps": [], "first_error": -1}, "no texts under 'steps'"),
        ({"question": "q", "steps": ["a", 3], "first_error": -1}, "no texts under 'steps'"),
        ({"steps": ["a"], "first_error": -1}, "no text under 'question'"),
        ({"question": "q", "steps": ["a"], "first_error": 1}, r"first_error is 1; accepted: -1 .* to 0, an integer"),
        ({"question": "q", "steps": ["a"]}, "first_error is None"),
        ({"question": "q", "steps": ["a"], "first_error": True}, "first_error is True"),
        (
            {"question": "q", "steps": ["a"], "first_error": 0, "final_answer_correct": "no"},
            "final_answer_correct is 'no'; accepted: true, false, or null",
        ),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        labelled_steps(_rows(tmp_path, [row]), PROMPT)


def test_other_bad_input(tmp_path: Path, trees: Path) -> None:
    with pytest.raises(InputError, match="no rows"):
        labelled_steps(_rows(tmp_path, []), PROMPT)
    with pytest.raises(InputError, match="its problem 'one' is not in --problems"):
        labelled_trees(trees, {}, PROMPT)
    with pytest.raises(InputError, match="the policy is needed; accepted: --policy"):
        scored(labelled_trees(trees, KNOWN, PROMPT), SelfEvaluationSettings(), LazyEngine(None, None), PROMPT)
    with pytest.raises(InputError, match="no labelled solution is left"):
        evaluate_judge([], OracleSettings(), LazyEngine(None, None), PROMPT, data="x", labels="y")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match="not the evaluation of a judge"):
        JudgeEvaluation.load(tmp_path / "other.json")
