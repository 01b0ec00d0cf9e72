"""The prefix tree against a plain dictionary of everything that was handed over."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_dpo.engines.transformers.radix_cache import Node, RadixCache


def held(tree: RadixCache) -> list[int]:
    """Every position in the tree."""
    found: list[int] = []
    stack = [tree.root]
    while stack:
        node = stack.pop()
        found += node.positions.tolist()
        stack += node.children.values()
        for first, child in node.children.items():
            assert child.parent is node
            assert int(child.tokens[0]) == first
            assert len(child.tokens) == len(child.positions)
    return found


def array(tokens: list[int]) -> np.ndarray:
    return np.array(tokens, np.int32)


sequence = st.lists(st.integers(0, 2), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(sequence, sequence, st.booleans()), max_size=25))
def test_positions_are_never_lost_or_shared(plan: list[tuple[list[int], list[int], bool]]) -> None:
    """Prefixes are taken on, continued, finished in any order; what is known is found, with the right positions."""
    tree = RadixCache(65)
    running: list[tuple[Node, list[int], np.ndarray]] = []
    holds: dict[int, int] = {}  # position -> the token that was written there

    def release() -> None:
        node, continuation, own = running.pop(0)
        tree.remember(node, array(continuation), own)
        node.pins -= 1

    for prefix, continuation, keep in plan:
        node, known = tree.match(array(prefix))
        assert [holds[p] for p in known] == prefix[: len(known)]
        node.pins += 1
        fresh = tree.take(len(prefix) - len(known))
        own = tree.take(len(continuation)) if fresh is not None else None
        if fresh is None or own is None:
            if fresh is not None:
                tree.give(fresh)
            node.pins -= 1
            assert running  # only running sequences can leave too little
            release()
            continue
        end = tree.extend(node, array(prefix[len(known) :]), fresh)
        node.pins -= 1
        end.pins += 1
        holds |= dict(zip(fresh.tolist(), prefix[len(known) :], strict=True))
        holds |= dict(zip(own.tolist(), continuation, strict=True))
        running.append((end, continuation, own))
        in_tree, in_runs = held(tree), [p for _, _, own in running for p in own.tolist()]
        assert 0 not in in_tree + in_runs
        assert len(set(in_tree + in_runs)) == len(in_tree + in_runs)
        assert tree.free + len(in_tree) + len(in_runs) == tree.capacity == 64
        if not keep:
            release()
            # (it may be evicted later, but right now the whole of it is known)
            if not running:
                assert len(tree.match(array(prefix + continuation))[1]) == len(prefix + continuation)
    while running:
        release()
    assert tree.free + len(held(tree)) == tree.capacity
    everything = tree.take(64)
    assert everything is not None
    assert sorted(everything.tolist()) == list(range(1, 65))
    assert held(tree) == []


def test_the_least_recently_used_goes_first() -> None:
    tree = RadixCache(31)
    for start in (10, 20, 30):
        positions = tree.take(10)
        assert positions is not None
        tree.extend(tree.root, np.arange(start, start + 10, dtype=np.int32), positions)
    tree.match(np.arange(10, 20, dtype=np.int32))
    assert tree.take(5) is not None
    lengths = [len(tree.match(np.arange(start, start + 10, dtype=np.int32))[1]) for start in (10, 20, 30)]
    assert lengths == [10, 0, 10]


def test_pinned_prefixes_stay() -> None:
    tree = RadixCache(21)
    positions = tree.take(10)
    assert positions is not None
    node = tree.extend(tree.root, np.arange(10, dtype=np.int32), positions)
    node.pins += 1
    # Cutting the pinned run in two leaves both halves protected.
    tree.match(np.array([0, 1, 2, 99], np.int32))
    assert tree.take(11) is None
    assert tree.take(10) is not None
    assert tree.match(np.arange(10, dtype=np.int32))[1].tolist() == positions.tolist()


def test_duplicates_are_freed() -> None:
    tree = RadixCache(21)
    first, second = tree.take(6), tree.take(8)
    assert first is not None
    assert second is not None
    tree.remember(tree.root, array([1, 2, 3, 4, 5, 6]), first)
    tree.remember(tree.root, array([1, 2, 3, 4, 7, 8, 9, 9]), second)
    assert tree.free == 20 - 6 - 4
    assert tree.match(array([1, 2, 3, 4, 7]))[1].tolist() == [*first[:4].tolist(), second[4]]
