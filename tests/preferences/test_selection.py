from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from mcts_dpo.preferences.selection import certainty, kept_first, two_sigma_below

values = st.floats(-1, 1)
visits = st.integers(0, 60)


@pytest.mark.parametrize(("q", "n"), [((0.8, -0.2), (10, 6)), ((1.0, -1.0), (3, 3)), ((0.1, 0.0), (40, 40))])
def test_certainty_is_close_to_the_beta_posteriors_own(q: tuple[float, float], n: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    shares = [
        beta.rvs(1 + m * (v + 1) / 2, 1 + m * (1 - v) / 2, size=200_000, random_state=rng)
        for v, m in zip(q, n, strict=True)
    ]
    assert certainty(q[0], n[0], q[1], n[1]) == pytest.approx((shares[0] > shares[1]).mean(), abs=0.02)


@given(values, visits, values, visits)
@settings(max_examples=60, deadline=None)
def test_certainty_is_antisymmetric_and_grows_with_evidence(a: float, n: int, b: float, m: int) -> None:
    assert certainty(a, n, b, m) + certainty(b, m, a, n) == pytest.approx(1)
    if a > b + 0.05:
        assert certainty(a, 4 * n + 100, b, 4 * m + 100) > 0.5


@given(st.lists(st.tuples(values, st.integers(1, 30)), min_size=2, max_size=8))
@settings(max_examples=60, deadline=None)
def test_two_sigma_equals_its_definition(siblings: list[tuple[float, int]]) -> None:
    siblings.sort(reverse=True)
    q, counts = zip(*siblings, strict=True)
    drawn = np.repeat(q, counts)
    target = drawn.mean() - 2 * drawn.std()
    found = two_sigma_below(q, counts)
    assert 1 <= found < len(q)
    assert abs(q[found] - target) <= min(abs(value - target) for value in q[1:]) + 1e-12


def test_few_siblings_have_nothing_below_the_worst() -> None:
    assert two_sigma_below([1.0, 0.5, -1.0], [1, 1, 1]) == 2
    assert two_sigma_below([1.0, -1.0, -1.0], [3, 3, 3]) == 2


def test_what_is_kept_first() -> None:
    assert kept_first("tree", 2.0, 3.0) == kept_first("tree", 1.0, -1.0)
    assert kept_first("margin", 2.0, 0.0) < kept_first("margin", 1.0, 0.0)
    assert kept_first("boundary", 2.0, -0.1) < kept_first("boundary", 2.0, 0.5) < kept_first("boundary", 2.0, np.nan)
