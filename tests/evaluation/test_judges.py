"""The metrics of judges against direct counts over pairs and steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_dpo.evaluation.judges import JudgedSolution, best_threshold, error_rates, judge_metrics

scores = st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0, math.nan])
labels = st.sampled_from([True, True, True, False, None])
solutions = st.lists(
    st.integers(1, 5).flatmap(
        lambda k: st.builds(
            JudgedSolution,
            step_scores=st.lists(scores, min_size=k, max_size=k),
            step_right=st.lists(labels, min_size=k, max_size=k),
            final_right=st.sampled_from([True, False, None]),
            problem=st.sampled_from("abc"),
            shared=st.integers(0, k),
        )
    ),
    max_size=8,
)


def _conditional(given_: list[JudgedSolution], depth: int | None = None) -> list[tuple[float, bool]]:
    """Every step, all before it right, that has a score and a label. depth: only steps there."""
    return [
        (one.step_scores[at], bool(one.step_right[at]))
        for one in given_
        for at in range(one.shared, len(one.step_right))
        if depth in (None, at)
        and all(right is True for right in one.step_right[:at])
        and one.step_right[at] is not None
        and not math.isnan(one.step_scores[at])
    ]


def _auc(*groups: list[tuple[float, bool]]) -> float | None:
    pairs = [(p > n) + (p == n) / 2 for items in groups for p, up in items if up for n, down in items if not down]
    return sum(pairs) / len(pairs) if pairs else None


def _share(flags: list[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


@given(solutions, st.sampled_from([0.1, 0.5, 0.6, 0.7]))
def test_every_figure_is_a_direct_count(given_: list[JudgedSolution], threshold: float) -> None:
    found = judge_metrics(given_, threshold, resamples=20)
    steps = _conditional(given_)
    finals = [
        (one.step_scores[-1], one.final_right)
        for one in given_
        if one.final_right is not None and not math.isnan(one.step_scores[-1])
    ]
    exact: dict[bool, list[bool]] = {True: [], False: []}
    for one in given_:
        wrong = [at for at, right in enumerate(one.step_right) if right is not True]
        if wrong and one.step_right[wrong[0]] is None:
            continue
        first = wrong[0] if wrong else -1
        low = [at for at, score in enumerate(one.step_scores) if score < threshold]
        exact[first >= 0].append((low[0] if low else -1) == first)
    errors, free = _share(exact[True]), _share(exact[False])
    expected = {
        "auc_conditional": _auc(steps),
        "auc_same_depth": _auc(*(_conditional(given_, depth) for depth in range(5))),
        "auc_final": _auc(finals),
        "false_alarm": _share([score < threshold for score, right in steps if right]),
        "miss": _share([score >= threshold for score, right in steps if not right]),
        "error_accuracy": errors,
        "right_accuracy": free,
        "f1": None if errors is None or free is None else 2 * errors * free / (errors + free) if errors + free else 0,
        "brier": sum((score - right) ** 2 for score, right in steps) / len(steps) if steps else None,
        "brier_final": sum((score - right) ** 2 for score, right in finals) / len(finals) if finals else None,
    }
    for name, value in expected.items():
        estimate = getattr(found, name)
        assert (estimate and estimate.value) == pytest.approx(value), name
        assert estimate is None or estimate.low <= estimate.high
    assert (found.steps, found.first_errors) == (len(steps), sum(not right for _, right in steps))
    assert sum(row.count for row in found.reliability) == len(steps)
    assert sum(row.right + row.errors for row in found.by_depth) == len(steps)
    rates = error_rates(given_, threshold)
    assert [None if math.isnan(rate) else rate for rate in rates] == pytest.approx(
        [expected["false_alarm"], expected["miss"]]
    )


@given(solutions)
def test_the_best_threshold_has_the_highest_f1(given_: list[JudgedSolution]) -> None:
    def f1(threshold: float) -> float:
        estimate = judge_metrics(given_, threshold, resamples=1).f1
        return -1.0 if estimate is None else estimate.value

    chosen = best_threshold(given_)
    assert f1(chosen) == max(f1(cut) for cut in [0.0, 0.1, 0.35, 0.6, 0.85, 1.5, chosen])


def test_steps_of_one_tree_count_once() -> None:
    stem = [0.9, 0.8]
    tree = [
        JudgedSolution(
            np.array([*stem, 0.1]).tolist(), list(np.array([True, True, False])), False, "p"
        ),  # NumPy's bools
        JudgedSolution([*stem, 0.7], [True, True, True], True, "p", shared=2),
    ]
    found = judge_metrics(tree)
    assert (found.steps, found.first_errors, found.solutions, found.problems) == (4, 1, 2, 1)
    assert found.auc_steps is not None
    assert found.auc_steps.value == 1.0
    assert [(row.depth, row.right, row.errors, row.auc) for row in found.by_depth] == [
        (0, 1, 0, None),
        (1, 1, 0, None),
        (2, 1, 1, 1.0),
    ]


def test_a_judge_of_depth_alone_is_seen_through() -> None:
    rng = np.random.default_rng(0)
    given_ = []
    for problem in range(200):
        steps = 8
        first = min(steps, int(rng.geometric(0.25)) - 1)
        right = [at < first for at in range(steps)]
        given_.append(JudgedSolution([1 - at / steps for at in range(steps)], right, all(right), problem))
    found = judge_metrics(given_, resamples=50)
    assert found.auc_steps is not None
    assert found.auc_conditional is not None
    assert found.auc_same_depth is not None
    assert found.auc_same_depth.value == 0.5
    assert found.auc_steps.value > 0.75
    assert abs(found.auc_conditional.value - 0.5) < 0.1


def test_intervals_are_over_problems() -> None:
    """Twenty copies of one problem's solutions say no more about other problems than one copy."""
    few = [JudgedSolution([0.9], [at % 3 > 0], None, at) for at in range(12)]
    many = [one for one in few for _ in range(20)]
    once, often = (judge_metrics(these).brier for these in (few, many))
    assert once is not None
    assert often is not None
    assert often.high - often.low == pytest.approx(once.high - once.low)


def test_a_rate_of_nothing_has_an_upper_bound() -> None:
    found = judge_metrics([JudgedSolution([0.9], [True], True, at) for at in range(10)])
    assert found.false_alarm is not None
    assert (found.false_alarm.value, round(found.false_alarm.high, 2)) == (0.0, 0.28)
    assert found.miss is None
    assert found.auc_conditional is None
    assert found.f1 is None
