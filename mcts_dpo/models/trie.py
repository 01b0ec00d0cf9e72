"""The prefix trie of token sequences: every token that several share after the same prefix is one node.

In: sequences of ids. Out: a `Trie`, in depth-first order, so that a token's descendants are one contiguous range after
it, and one integer per token describes who sees whom: *q sees k ⇔ k ≤ q < end[k]*.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Trie:
    """The prefix trie of B sequences; a node is a token after a prefix, and its number the place in the pack.

    tokens: [L] int32, the nodes' tokens, depth first.
    depths: [L] int64, tokens above each.
    end:    [L] int64; the nodes k … end[k] − 1 are k and its descendants.
    paths:  of each sequence, [length] int64: its nodes from the root.
    """

    tokens: NDArray[np.int32]
    depths: NDArray[np.int64]
    end: NDArray[np.int64]
    paths: list[NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.tokens)


def make_trie(sequences: list[NDArray[np.int32]]) -> Trie:
    """The trie of non-empty sequences of ids ≥ 0. Nodes merge only where the whole prefix is equal.

    Siblings stand in the order of their ids, so that the trie does not depend on the order of the sequences.
    """
    # Big-endian bytes sort as the ids do, a prefix before what continues it: depth-first order.
    keys = [one.astype(">i4").tobytes() for one in sequences]
    order = sorted(range(len(sequences)), key=keys.__getitem__)
    ordered = [sequences[i] for i in order]
    # Of all earlier sequences, the one just before shares the longest prefix; what follows it is new.
    shared = [0, *(common_prefix(*two) for two in pairwise(ordered))]
    added = np.array([len(one) - common for one, common in zip(ordered, shared, strict=True)], dtype=np.int64)
    starts = np.cumsum(added) - added
    path = np.zeros(max(map(len, sequences)), dtype=np.int64)
    paths: list[NDArray[np.int64]] = [path] * len(sequences)
    for index, i in enumerate(order):
        path[shared[index] : len(sequences[i])] = starts[index] + np.arange(added[index])
        paths[i] = path[: len(sequences[i])].copy()
    total = int(added.sum())
    end = np.empty(total, dtype=np.int64)
    # By depth: where the branch being followed, coming from the right, was left at or above that depth.
    left = np.full(len(path), total, dtype=np.int64)
    for index in reversed(range(len(ordered))):
        depths = slice(shared[index], shared[index] + int(added[index]))
        end[starts[index] : starts[index] + added[index]] = left[depths]
        left[shared[index] :] = starts[index]
    first = np.array(shared, dtype=np.int64)
    tokens = np.concatenate([one[common:] for one, common in zip(ordered, shared, strict=True)])
    return Trie(tokens, ranges(first, first + added), end, paths)


def common_prefix(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    """Length of the longest common prefix."""
    size = min(len(a), len(b))
    different = a[:size] != b[:size]
    return int(different.argmax()) if different.any() else size


def ranges(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """[Σ (ends − starts)] int64: starts[0], …, ends[0] − 1, starts[1], … for 0 ≤ starts ≤ ends."""
    lengths = ends - starts
    before = np.cumsum(lengths) - lengths
    indices: NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
    return indices
