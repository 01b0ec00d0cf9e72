from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_dpo.training.data.batches import Sequences, sequences
from mcts_dpo.training.data.packing import pack, packed_passes


def arrays(lists: list[list[int]]) -> list[np.ndarray]:
    return [np.array(one, dtype=np.int32) for one in lists]


@st.composite
def forests(draw: st.DrawFn) -> Sequences:
    """Rows of one to three sequences under few prompts; steps after a shared state; some tokens unscored."""
    parts, scored_from, step_from, sizes = [], [], [], []
    for _ in range(draw(st.integers(1, 8))):
        prompt = draw(st.sampled_from([[0], [0, 1], [1, 0]]))
        prefix = draw(st.lists(st.integers(0, 1), max_size=4))
        steps = draw(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=1, max_size=3))
        for step in steps:
            parts.append(arrays([prompt, prefix, step]))
            begin = len(prompt) + len(prefix)
            scored_from.append(draw(st.integers(len(prompt), begin)))
            step_from.append(begin)
        sizes.append(len(steps))
    total = sum(len(part) for pieces in parts for part in pieces)
    unscored = None
    if draw(st.booleans()):
        unscored = np.array(draw(st.lists(st.booleans(), min_size=total, max_size=total)))
        # A step's last token stays scored: a step without any is refused.
        unscored[np.cumsum([sum(map(len, pieces)) for pieces in parts]) - 1] = False
    weights = np.arange(1.0, len(parts) + 1)
    return sequences(parts, np.array(scored_from), np.array(step_from), weights, np.array(sizes), unscored)


@given(forests(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_a_pack_scores_every_token_of_every_sequence_once(data: Sequences, random: object) -> None:
    which = np.arange(len(data))
    random.shuffle(which)  # type: ignore[attr-defined]
    packed = pack(data, which)
    tokens, depths, end = packed.input_ids[0], packed.position_ids[0], packed.end

    def prefix(node: int) -> tuple[int, ...]:
        return tuple(int(tokens[k]) for k in range(node + 1) if node < end[k])

    read = zip(packed.positions.tolist(), packed.targets.tolist(), strict=True)
    scored = [(*prefix(parent), target) for parent, target in read]
    assert len(set(scored)) == len(scored)
    assert all(len(prefix(node)) == depths[node] + 1 for node in range(len(end)))
    expected: dict[tuple[int, ...], float] = {}
    for place, i in enumerate(which.tolist()):
        own, step = data.of(i).tolist(), []
        for depth in range(int(data.scored_from[i]), len(own)):
            if data.unscored is not None and data.unscored[data.offsets[i] + depth]:
                continue
            node = tuple(own[: depth + 1])
            expected[node] = expected.get(node, 0) + data.imitation[i]
            if depth >= data.step_from[i]:
                step.append(node)
        mine = packed.step_tokens[packed.step_owner == packed.step_of[place]]
        assert [scored[token] for token in mine.tolist()] == step
    assert dict(zip(scored, packed.imitation.tolist(), strict=True)) == pytest.approx(expected)
    assert sorted(set(packed.step_of.tolist())) == list(range(packed.steps))


@given(forests(), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_packs_cover_every_row_once_within_the_budget(data: Sequences, budget: int) -> None:
    rows = np.random.default_rng(budget).permutation(data.rows)
    passes = packed_passes(data, rows, budget)
    assert sorted(np.concatenate(passes).tolist()) == list(range(data.rows))
    for one in passes:
        assert pack(data, data.of_rows(one)).input_ids.numel() <= budget or len(one) == 1
    whole = pack(data, np.arange(len(data))).input_ids.numel()
    assert len(packed_passes(data, rows, whole)) == 1


def tree_of(groups: list[tuple[list[int], list[list[int]]]], prompt: list[int]) -> list[tuple[list[int], ...]]:
    return [(prompt, prefix, step) for prefix, steps in groups for step in steps]


def test_a_tree_stays_whole_and_a_large_one_is_cut_between_sibling_groups() -> None:
    # Two trees of 3 sibling groups of two pairs each: 4 + 4 · 3 + … tokens.
    chain = [2, 3, 4]
    groups = [(chain[:depth], [[chain[depth], 9, 9], [5, 9, 9], [6, 9, 9], [7, 9, 9]]) for depth in range(2)]
    parts = [arrays(list(one)) for prompt in ([20, 21], [30, 31]) for one in tree_of(groups, prompt)]
    starts = np.array([len(part[0]) + len(part[1]) for part in parts])
    data = sequences(parts, starts, starts, np.ones(len(parts)), 2)
    rows = np.array([0, 4, 1, 5, 2, 6, 3, 7])
    tree = pack(data, np.arange(8)).input_ids.numel()
    assert [one.tolist() for one in packed_passes(data, rows, tree)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    # Over budget: the sibling groups of each tree part, and each is whole.
    split = packed_passes(data, rows, tree - 1)
    assert sorted(sorted(one.tolist()) for one in split) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_the_same_chosen_step_of_several_pairs_is_one_step() -> None:
    parts = [arrays([[1, 2], step]) for step in ([3, 4], [5], [3, 4], [6, 7])]
    starts = np.full(4, 2)
    packed = pack(sequences(parts, starts, starts, np.array([1.0, 0, 1, 0]), 2), np.arange(4))
    assert packed.steps == 3
    assert packed.step_of[0] == packed.step_of[2]
    assert packed.input_ids.numel() == 2 + 2 + 1 + 2
    assert packed.imitation.sum() == 4
