"""The radix cache: which prefixes have keys and values in the pool, and at which positions.

In: token sequences, and the pool positions that hold their keys and values (one position per token). Out: the positions
of the longest prefix that is cached, and free positions for new tokens. Cached prefixes that no running sequence uses
stay until their memory is needed; then the least recently used leaves are evicted first. Everything depends on the
order of calls alone, so that the same requests find the same prefixes.

Source: RadixAttention of SGLang, Zheng et al. 2024, arXiv 2312.07104, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int32]
Tokens = NDArray[np.int32]
NOWHERE = 0
"""The position that is never handed out: padding writes there, and may point there."""


class Node:
    """A run of tokens below a parent. `pins` counts the running sequences whose prefix ends in this node."""

    __slots__ = ("children", "parent", "pins", "positions", "tokens", "used")

    def __init__(self, parent: Node | None, tokens: Tokens, positions: Positions) -> None:
        self.parent = parent
        self.tokens = tokens
        self.positions = positions
        self.children: dict[int, Node] = {}
        self.pins = 0
        self.used = 0


class RadixCache:
    """A tree over cached prefixes, and the owner of all pool positions but `NOWHERE`.

    A position is free, or reserved by a running sequence, or holds a cached token.
    """

    def __init__(self, positions: int) -> None:
        self.capacity = positions - 1
        self._free = np.arange(positions - 1, 0, -1, dtype=np.int32)  # a stack: the last element is taken first
        self._free_count = self.capacity
        self._clock = 0
        self.root = Node(None, np.empty(0, np.int32), np.empty(0, np.int32))

    @property
    def free(self) -> int:
        """Free positions (those that eviction could free are not counted)."""
        return self._free_count

    @property
    def remembered(self) -> int:
        """Positions that hold cached tokens. Walks the whole tree."""
        return sum(len(node.positions) for node in self._nodes())

    @property
    def pins(self) -> int:
        """Running sequences whose prefix is in the tree. Walks the whole tree."""
        return sum(node.pins for node in self._nodes())

    def take(self, count: int) -> Positions | None:
        """Reserve `count` positions, evicting cached prefixes if needed. None when running sequences hold too many."""
        if count > self._free_count:
            self._evict(count)
            if count > self._free_count:
                return None
        self._free_count -= count
        return self._free[self._free_count : self._free_count + count][::-1].copy()

    def give(self, positions: Positions) -> None:
        """Free positions that were taken; the first of them is taken next."""
        count = len(positions)
        self._free[self._free_count : self._free_count + count] = positions[::-1]
        self._free_count += count

    def match(self, tokens: Tokens, node: Node | None = None) -> tuple[Node, Positions]:
        """The longest cached prefix of `tokens` below `node` (default: the root).

        Returns the node in which it ends and its positions, int32 [matched]. An edge that matches only in part is
        split.
        """
        self._clock += 1
        node = node or self.root
        found: list[Positions] = []
        done = 0
        total = len(tokens)
        while done < total:
            child = node.children.get(int(tokens[done]))
            if child is None:
                break
            edge = child.tokens
            width = min(len(edge), total - done)
            differs = edge[:width] != tokens[done : done + width]
            same = int(differs.argmax()) if differs.any() else width
            if same < len(edge):
                child = self._split(child, same)
            child.used = self._clock
            found.append(child.positions)
            done += same
            node = child
            if same < width:
                break
        return node, np.concatenate(found) if found else np.empty(0, np.int32)

    def extend(self, node: Node, tokens: Tokens, positions: Positions) -> Node:
        """Add `tokens` below `node`, which has no child that starts with tokens[0]. Returns the node they end in."""
        if len(tokens) == 0:
            return node
        self._clock += 1
        child = Node(node, tokens, positions)
        child.used = self._clock
        node.children[int(tokens[0])] = child
        return child

    def remember(self, node: Node, tokens: Tokens, positions: Positions) -> None:
        """Cache a finished sequence: `tokens` below `node` at `positions`. Frees positions of tokens cached before."""
        end, known = self.match(tokens, node)
        if len(known):
            self.give(positions[: len(known)])
        self.extend(end, tokens[len(known) :], positions[len(known) :])

    def _split(self, child: Node, at: int) -> Node:
        """Split a node after `at` tokens; the lower half keeps the object, and with it the pins."""
        parent = child.parent
        assert parent is not None
        upper = Node(parent, child.tokens[:at], child.positions[:at])
        upper.used = child.used
        parent.children[int(upper.tokens[0])] = upper
        child.parent = upper
        child.tokens = child.tokens[at:]
        child.positions = child.positions[at:]
        upper.children[int(child.tokens[0])] = child
        return upper

    def _evict(self, wanted: int) -> None:
        """Free at least `wanted` positions, and at least a tenth of the pool: each sweep walks the whole tree."""
        target = max(wanted, self.capacity // 10)
        while self._free_count < target:
            leaves = sorted(self._loose_leaves(), key=lambda leaf: leaf.used)
            if not leaves:
                return
            for leaf in leaves:
                assert leaf.parent is not None
                del leaf.parent.children[int(leaf.tokens[0])]
                self.give(leaf.positions)
                if self._free_count >= target:
                    return

    def _loose_leaves(self) -> list[Node]:
        return [node for node in self._nodes() if not node.children and not node.pins and node.parent is not None]

    def _nodes(self) -> Iterator[Node]:
        stack = [self.root]
        while stack:
            node = stack.pop()
            stack.extend(node.children.values())
            yield node
