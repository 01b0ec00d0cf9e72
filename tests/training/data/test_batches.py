from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_dpo.training.data.batches import Sequences, forward_passes, make_batch, plan_updates, sequences

one = st.tuples(st.integers(1, 6), st.integers(0, 4), st.integers(1, 5))


def build(shapes: list[tuple[int, int, int]], per_row: int | list[int] = 1) -> Sequences:
    """Sequences of (unscored, scored before the step, step) tokens, numbered consecutively."""
    count = 0
    parts = []
    for shape in shapes:
        pieces = []
        for length in shape:
            pieces.append(np.arange(count, count + length, dtype=np.int32))
            count += length
        parts.append(pieces)
    scored = np.array([shape[0] for shape in shapes])
    step = np.array([shape[0] + shape[1] for shape in shapes])
    return sequences(parts, scored, step, np.linspace(0.5, 2, len(shapes)), rows_of(per_row))


def rows_of(per_row: int | list[int]) -> int | np.ndarray:
    return per_row if isinstance(per_row, int) else np.array(per_row)


@given(st.lists(one, min_size=1, max_size=7), st.data())
@settings(max_examples=60, deadline=None)
def test_a_batch_names_every_scored_token_once(shapes: list[tuple[int, int, int]], data: st.DataObject) -> None:
    made = build(shapes)
    which = np.array(data.draw(st.permutations(range(len(shapes)))))
    batch = make_batch(made, which)
    width = batch.input_ids.shape[1]
    flat = batch.input_ids.ravel()
    expected = []
    for owner, index in enumerate(which):
        unscored, before, step = shapes[index]
        tokens = made.tokens[made.offsets[index] : made.offsets[index + 1]]
        assert batch.input_ids[owner, : len(tokens)].tolist() == tokens.tolist()
        for place in range(unscored, unscored + before + step):
            weight = made.imitation[index]
            expected.append((owner * width + place - 1, tokens[place], owner, place >= unscored + before, weight))
    columns = (batch.positions, batch.targets, batch.owner, batch.in_step, batch.imitation)
    assert list(zip(*[column.tolist() for column in columns], strict=True)) == expected
    # A token is read from the place just before its own.
    assert flat[batch.positions + 1].tolist() == batch.targets.tolist()


@given(st.lists(one, min_size=1, max_size=8), st.integers(1, 80), st.data())
@settings(max_examples=60, deadline=None)
def test_forward_passes_cover_all_rows_within_the_budget(
    shapes: list[tuple[int, int, int]], budget: int, data: st.DataObject
) -> None:
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=len(shapes), max_size=len(shapes)))
    made = build([shape for shape, size in zip(shapes, sizes, strict=True) for _ in range(size)], sizes)
    rows = np.array(data.draw(st.permutations(range(made.rows))), dtype=np.int64)
    passes = forward_passes(made, rows, budget)
    assert sorted(np.concatenate(passes).tolist()) == list(range(made.rows))
    for one_pass in passes:
        size = make_batch(made, made.of_rows(one_pass)).input_ids.numel()
        assert size <= budget or len(one_pass) == 1


def test_rows_of_like_length_go_together() -> None:
    made = build([(1, 0, n) for n in (9, 1, 8, 2, 9, 1)])
    passes = forward_passes(made, np.arange(6), 30)
    assert [sorted(made.lengths[one_pass].tolist()) for one_pass in passes] == [[9, 10, 10], [2, 2, 3]]


@given(st.integers(1, 50), st.integers(1, 12), st.integers(1, 3), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_every_epoch_visits_every_row_once_in_even_updates(rows: int, batch: int, epochs: int, seed: int) -> None:
    plan = plan_updates(rows, batch_size=batch, epochs=epochs, max_updates=None, seed=seed)
    assert len(plan) == epochs
    for updates in plan:
        sizes = [len(update) for update in updates]
        assert sorted(np.concatenate(updates).tolist()) == list(range(rows))
        assert len(updates) == -(-rows // batch)
        assert max(sizes) <= batch
        assert max(sizes) - min(sizes) <= 1


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 12), st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_trees_stay_whole_without_changing_the_size_of_updates(tree: list[int], batch: int, seed: int) -> None:
    options = {"batch_size": batch, "epochs": 2, "max_updates": None, "seed": seed}
    plan = plan_updates(len(tree), tree=np.array(tree), **options)
    plain = plan_updates(len(tree), **options)
    for updates, others in zip(plan, plain, strict=True):
        assert [len(update) for update in updates] == [len(update) for update in others]
        assert sorted(np.concatenate(updates).tolist()) == list(range(len(tree)))
        # Each update but the last cuts at most one tree, at its end.
        pieces = sum(len({tree[row] for row in update}) for update in updates)
        assert pieces <= len(set(tree)) + len(updates) - 1
    alone = plan_updates(len(tree), tree=np.arange(len(tree)), **options)
    assert [[one.tolist() for one in epoch] for epoch in alone] == [[one.tolist() for one in epoch] for epoch in plain]


def test_a_large_tree_is_not_put_off_for_small_ones() -> None:
    tree = np.array([0] * 20 + list(range(1, 41)))
    firsts = []
    for seed in range(40):
        ((*updates,),) = plan_updates(60, batch_size=6, epochs=1, max_updates=None, seed=seed, tree=tree)
        firsts.append(next(place for place, update in enumerate(updates) if (tree[update] == 0).any()))
    # It begins anywhere among the ten updates with room for it: on average near the middle of the first seven.
    assert 2 < np.mean(firsts) < 5


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def orders(**changes: int) -> list[list[int]]:
        options = {"batch_size": 8, "epochs": 2, "seed": 3} | changes
        return [np.concatenate(epoch).tolist() for epoch in plan_updates(40, max_updates=None, **options)]

    assert orders() == orders() == orders(batch_size=5)
    assert orders()[0] != orders()[1]
    assert orders() != orders(seed=4)


@pytest.mark.parametrize(("cap", "expected"), [(1, [1]), (5, [5]), (7, [5, 2]), (99, [5, 5, 5])])
def test_max_updates_cuts_the_plan_and_keeps_the_order(cap: int, expected: list[int]) -> None:
    full = plan_updates(20, batch_size=4, epochs=3, max_updates=None, seed=0)
    plan = plan_updates(20, batch_size=4, epochs=3, max_updates=cap, seed=0)
    assert [len(epoch) for epoch in plan] == expected
    assert [one.tolist() for epoch in plan for one in epoch] == [one.tolist() for epoch in full for one in epoch][:cap]


@pytest.mark.parametrize(("scored", "step"), [(0, 1), (2, 1), (1, 3)])
def test_positions_outside_a_sequence_are_refused(scored: int, step: int) -> None:
    tokens = [(np.arange(3, dtype=np.int32),)]
    with pytest.raises(ValueError, match="scored_from"):
        sequences(tokens, np.array([scored]), np.array([step]), np.ones(1))


def test_rows_may_differ_in_size_and_share_a_prompt() -> None:
    prompts = [np.array(prompt, dtype=np.int32) for prompt in ([5, 6], [5, 6], [7], [5, 6], [5, 6], [5, 6])]
    parts = [(prompt, np.array([8 + place], dtype=np.int32)) for place, prompt in enumerate(prompts)]
    starts = np.array([len(prompt) for prompt in prompts])
    made = sequences(parts, starts, starts, np.ones(6), np.array([2, 1, 3]))
    assert made.rows == 3
    assert made.tree.tolist() == [0, 1, 0]
    assert made.of_rows(np.array([2, 0])).tolist() == [3, 4, 5, 0, 1]
    assert [made.row_of(place) for place in range(6)] == [0, 0, 1, 2, 2, 2]
    assert made.of(2).tolist() == [7, 10]
    with pytest.raises(ValueError, match="do not divide 6 sequences"):
        sequences(parts, starts, starts, np.ones(6), np.array([2, 1]))


def test_unscored_tokens_are_read_but_never_scored() -> None:
    parts = [(np.arange(6, dtype=np.int32),), (np.arange(10, 14, dtype=np.int32),)]
    unscored = np.zeros(10, dtype=bool)
    unscored[[2, 4, 7]] = True
    made = sequences(parts, np.array([1, 1]), np.array([3, 2]), np.ones(2), 2, unscored)
    both = np.arange(2)
    batch = make_batch(made, both[::-1].copy())
    assert batch.targets.tolist() == [12, 13, 1, 3, 5]
    assert batch.in_step.tolist() == [True, True, False, True, True]
    assert batch.input_ids.tolist() == [[10, 11, 12, 13, 0, 0], [0, 1, 2, 3, 4, 5]]
    assert made.scored_tokens(both).tolist() == [3, 2]
    assert made.step_tokens(both).tolist() == [2, 2]
    with pytest.raises(ValueError, match="no token of the step of sequence 1"):
        sequences(parts, np.array([1, 1]), np.array([3, 3]), np.ones(2), 2, np.arange(10) == 9)
    with pytest.raises(ValueError, match="one entry per token"):
        sequences(parts, np.array([1, 1]), np.array([3, 3]), np.ones(2), 2, np.zeros(9, dtype=bool))
