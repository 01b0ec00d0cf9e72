"""The prefix trie: a node per prefix, and the mask that its `end` describes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_dpo.models.trie import Trie, make_trie

# Few ids, so that prefixes are shared, sequences repeat, and one is another's prefix.
ids = st.lists(st.integers(0, 2), min_size=1, max_size=9)


def arrays(lists: list[list[int]]) -> list[np.ndarray]:
    return [np.array(one, dtype=np.int32) for one in lists]


def prefixes(trie: Trie, given: list[list[int]]) -> list[tuple[int, ...]]:
    """The prefix that each node stands for, read off the sequences."""
    found: dict[int, set[tuple[int, ...]]] = {}
    for one, path in zip(given, trie.paths, strict=True):
        for depth, node in enumerate(path.tolist()):
            found.setdefault(node, set()).add(tuple(one[: depth + 1]))
    assert sorted(found) == list(range(len(trie)))
    assert all(len(options) == 1 for options in found.values())
    return [options.pop() for _, options in sorted(found.items())]


@given(st.lists(ids, min_size=1, max_size=12))
@settings(max_examples=150, deadline=None)
def test_a_trie_has_a_node_per_prefix_and_gives_back_the_sequences(given: list[list[int]]) -> None:
    trie = make_trie(arrays(given))
    assert [trie.tokens[path].tolist() for path in trie.paths] == given
    assert all(trie.depths[path].tolist() == list(range(len(path))) for path in trie.paths)
    found = prefixes(trie, given)
    assert len(set(found)) == len(found)


@given(st.lists(ids, min_size=1, max_size=12))
@settings(max_examples=150, deadline=None)
def test_the_mask_from_end_is_the_ancestor_relation(given: list[list[int]]) -> None:
    trie = make_trie(arrays(given))
    found = prefixes(trie, given)
    for q, below in enumerate(found):
        for k, above in enumerate(found):
            assert (k <= q < trie.end[k]) == (below[: len(above)] == above)
