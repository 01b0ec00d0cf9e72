"""The statistics against closed forms, enumeration and hypothesis invariants."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_dpo.common.statistics import (
    area_under_roc,
    bootstrap_mean,
    cluster_bootstrap,
    compare_paired,
    mean_t,
    pass_at_k,
    proportion,
    weighted_auc,
)


def test_proportion_is_wilson() -> None:
    # Wilson's closed form for 7 of 10 at z = 1.959964.
    z, n, share = 1.959963984540054, 10, 0.7
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    estimate = proportion(7, 10)
    assert estimate.value == 0.7
    assert estimate.low == pytest.approx(centre - half, abs=1e-9)
    assert estimate.high == pytest.approx(centre + half, abs=1e-9)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_pass_at_k_counts_subsets(outcomes: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(outcomes)))
    subsets = list(combinations(outcomes, k))
    expected = sum(any(subset) for subset in subsets) / len(subsets)
    assert pass_at_k(len(outcomes), sum(outcomes), k) == pytest.approx(expected)


def test_pass_at_k_refuses_more_than_there_are() -> None:
    with pytest.raises(ValueError, match=r"k = 5 is outside 1\.\.4"):
        pass_at_k(4, 1, 5)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=12))
def test_auc_counts_ordered_pairs(items: list[tuple[int, bool]]) -> None:
    positives = [score for score, label in items if label]
    negatives = [score for score, label in items if not label]
    result = area_under_roc([float(score) for score, _ in items], [label for _, label in items])
    if not positives or not negatives:
        assert result is None
    else:
        wins = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
        assert result == pytest.approx(wins / (len(positives) * len(negatives)))


def test_comparison_counts_gains_and_losses() -> None:
    before = [True] * 5 + [False] * 15
    after = [True] * 4 + [False] + [True] * 10 + [False] * 5
    result = compare_paired(before, after)
    assert (result.gained, result.lost) == (10, 1)
    assert result.difference.value == pytest.approx(9 / 20)
    assert result.difference.low > 0.1
    assert result.p_value == pytest.approx(2 * (1 + 11) / 2**11)
    assert compare_paired([True, False], [True, False]).p_value == 1.0
    with pytest.raises(ValueError, match="different lengths"):
        compare_paired([True], [True, False])


def test_intervals_cover_and_repeat() -> None:
    values = list(np.random.default_rng(3).normal(size=200))
    estimate = bootstrap_mean(values)
    assert estimate == bootstrap_mean(values)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 / np.sqrt(200), rel=0.2)
    narrow = mean_t([1.0, 2.0, 3.0])
    assert narrow.value == 2.0
    assert narrow.high - narrow.value == pytest.approx(4.302652729911275 / np.sqrt(3))
    with pytest.raises(ValueError, match="at least two"):
        mean_t([1.0])
    with pytest.raises(ValueError, match="no values"):
        bootstrap_mean([])


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), max_size=10))
def test_weighted_auc_is_the_auc_of_repeated_items(items: list[tuple[int, bool, int]]) -> None:
    scores, labels = np.array([one[0] for one in items], float), np.array([one[1] for one in items], bool)
    found = weighted_auc(scores, labels)(np.array([one[2] for one in items], float))
    repeated = [(float(score), label) for score, label, times in items for _ in range(times)]
    expected = area_under_roc([score for score, _ in repeated], [label for _, label in repeated])
    assert (None if np.isnan(found) else found) == pytest.approx(expected)


def test_cluster_bootstrap_draws_whole_clusters() -> None:
    values = np.array([0.0, 0.0, 1.0, 1.0])
    found = cluster_bootstrap(lambda weights: float((weights * values).sum() / weights.sum()), ["a", "a", "b", "b"])
    assert found is not None
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)  # of two clusters, a quarter of draws is one twice
    assert cluster_bootstrap(lambda weights: float("nan"), ["a"]) is None
