from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_dpo.training.objectives.common import negative_log_likelihood, shares, weighted_mean
from tests.training.objectives.test_pairs import columns, nats


@given(st.lists(st.tuples(nats, st.floats(0.1, 5)), min_size=2, max_size=10), st.data())
@settings(max_examples=50, deadline=None)
def test_parts_add_up_to_the_mean_over_the_whole(rows: list[tuple[float, float]], data: st.DataObject) -> None:
    values, weights = columns(rows)
    cut = data.draw(st.integers(1, len(rows) - 1))
    total = float(weights.sum())
    parts = [negative_log_likelihood(values[s], weights[s], total) for s in (slice(None, cut), slice(cut, None))]
    whole = -np.average(values.numpy(), weights=weights.numpy())
    assert sum(part.item() for part in parts) == pytest.approx(whole, rel=1e-12, abs=1e-12)


def test_a_mean_without_weights_is_the_plain_mean() -> None:
    assert weighted_mean(torch.tensor([1.0, 2.0, 6.0])).item() == 3.0
    assert negative_log_likelihood(torch.tensor([-1.0, -3.0])).item() == 2.0


def test_shares_are_of_what_is_present() -> None:
    counts = torch.tensor([[3.0, 1.0, 9.0], [2.0, 0.0, 0.0]])
    present = torch.tensor([[True, True, False], [True, True, True]])
    assert shares(counts, present).tolist() == [[0.75, 0.25, 0.0], [1.0, 0.0, 0.0]]
