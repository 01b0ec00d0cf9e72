"""Stores many search trees as one growable struct of arrays. The search writes it, and every later stage reads it.

A node is a row, and its id is its row number. The root of a tree is the problem's prompt. Every other node is one
reasoning step. The node also holds the data of the edge that leads to it: N(s, a), Q(s, a) and p(a|s) of an edge are
the `visits`, `q` and `prior` of the node that it leads to. Parents precede their children. One expansion adds the
children of a parent as contiguous rows. A later expansion may add another block. `first_child` and `next_sibling` link
all children of a parent in the order in which they were first sampled. tree_schema.py describes every array.

Tokens and their log-probabilities are in two arenas, with one offset per node. Texts are Python strings. kernels.py and
mcts.py search a forest, and tree_io.py writes it. No value depends on the time, the machine or the other problems of a
shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.search import tree_io
from mcts_dpo.search.tree_schema import (
    EXHAUSTED,
    FINISHES,
    IN_FLIGHT,
    LENGTH,
    NODE_FIELDS,
    NONE,
    OPEN,
    Contents,
    TreeInfo,
)

__all__ = [
    "EXHAUSTED",
    "FINISHES",
    "IN_FLIGHT",
    "LENGTH",
    "NODE_FIELDS",
    "NONE",
    "OPEN",
    "Contents",
    "Forest",
    "TreeInfo",
    "bytes_per_node",
]


class Forest:
    """Many search trees: the arrays of their nodes, and the arenas of their tokens.

    The arrays are views of the rows in use. A view is valid until the next `add_tree` or `add_child`. The shapes below
    are for N nodes, T trees and A tokens.
    """

    tree: NDArray[np.int32]  # [N]; NODE_FIELDS describes this array and the following ones, with their units
    parent: NDArray[np.int32]  # [N]
    first_child: NDArray[np.int32]  # [N]
    last_child: NDArray[np.int32]  # [N]
    next_sibling: NDArray[np.int32]  # [N]
    depth: NDArray[np.int32]  # [N]
    visits: NDArray[np.int32]  # [N]
    samples: NDArray[np.int32]  # [N]
    expansions: NDArray[np.int32]  # [N]
    q: NDArray[np.float64]  # [N]
    v: NDArray[np.float64]  # [N]
    prior: NDArray[np.float64]  # [N]
    mass: NDArray[np.float64]  # [N]
    logprob: NDArray[np.float64]  # [N]
    length: NDArray[np.int32]  # [N]
    reply_length: NDArray[np.int32]  # [N]
    reply_reward: NDArray[np.float64]  # [N]
    reward: NDArray[np.float64]  # [N]
    state_reward: NDArray[np.float64]  # [N]
    returns: NDArray[np.float64]  # [N]
    outcome: NDArray[np.int8]  # [N]
    terminal: NDArray[np.bool_]  # [N]
    finish: NDArray[np.int8]  # [N]
    expanded: NDArray[np.bool_]  # [N]
    closed: NDArray[np.int8]  # [N]
    virtual: NDArray[np.int16]  # [N]
    offset: NDArray[np.int64]  # [N]
    scores: dict[str, NDArray[np.float64]]  # by kind of reward: [N] raw scores, nan where the reward gave none
    tokens: NDArray[np.int32]  # [A] token ids of all steps
    logprobs: NDArray[np.float32]  # [A] log π(token | everything before), nats, untempered
    texts: list[str]  # [N] the step as text, with the reply to it; "" for a root
    replies: list[str]  # [N] the environment's reply, the end of the text; "" without one
    answers: list[str | None]  # [N] the final answer of a finished solution as extracted; None elsewhere
    trees: list[TreeInfo]  # [T]
    settings: dict[str, Any]  # the settings of the search and of the prompt, as JSON
    tokenizer: str  # digest of the tokenizer that made the token ids
    height: int  # depth of the deepest node of all trees

    def __init__(
        self, settings: dict[str, Any] | None = None, tokenizer: str = "", rewards: Sequence[str] = ()
    ) -> None:
        self.settings = {} if settings is None else settings
        self.tokenizer = tokenizer
        self.texts = []
        self.replies = []
        self.answers = []
        self.trees = []
        self.height = 0
        self._roots = np.empty(0, np.int64)
        self._rows = _columns(0)
        self._scores = {kind: np.empty(0) for kind in rewards}
        self._arena: dict[str, NDArray[Any]] = {
            "tokens": np.empty(0, np.int32),
            "logprobs": np.empty(0, np.float32),
        }
        self._show(0, 0)

    def __len__(self) -> int:
        """The number of nodes of all trees."""
        return len(self.texts)

    # --- growing -------------------------------------------------------------------------------------

    def add_tree(self, problem_id: str, prompt_tokens: Sequence[int], prompt_text: str, mode: str = "train") -> int:
        """Add a tree that consists of an empty root. Returns the tree's index."""
        index, root = len(self.trees), len(self)
        self._extend(1, ())
        self.tree[root] = index
        self.offset[root] = len(self.tokens)
        self.texts.append("")
        self.replies.append("")
        self.answers.append(None)
        self.trees.append(TreeInfo(problem_id, root, tuple(prompt_tokens), prompt_text, mode))
        return index

    def add_child(
        self,
        parent: int,
        tokens: Sequence[int],
        logprobs: Sequence[float],
        text: str,
        finish: int = 0,
        reply: str = "",
        reply_length: int = 0,
        reply_reward: float = 0.0,
    ) -> int:
        """Add one step (≥ 1 token) as the last child of `parent`. Its visits, rewards and values stay empty.

        logprobs: log π of each token, nats; 0 for those of a reply. text: with the reply. finish: index into FINISHES;
        the node is terminal if it is not 0. reply, reply_length, reply_reward: of the environment; see the fields.
        Returns the node id.
        """
        node, offset = len(self), len(self.tokens)
        self._extend(1, tokens, logprobs)
        elder = int(self.last_child[parent])
        if elder == NONE:
            self.first_child[parent] = node
        else:
            self.next_sibling[elder] = node
        self.last_child[parent] = node
        self.parent[node] = parent
        self.tree[node] = self.tree[parent]
        self.depth[node] = depth = int(self.depth[parent]) + 1
        self.height = max(self.height, depth)
        self.length[node] = len(tokens)
        self.reply_length[node] = reply_length
        self.reply_reward[node] = reply_reward
        self.logprob[node] = sum(logprobs)
        self.offset[node] = offset
        self.finish[node] = finish
        self.terminal[node] = finish != 0
        self.closed[node] = EXHAUSTED if finish else OPEN
        while not finish and parent != NONE and self.closed[parent] == EXHAUSTED:
            self.closed[parent] = OPEN  # a sample from further up has gone beyond what was exhausted
            parent = int(self.parent[parent])
        self.texts.append(text)
        self.replies.append(reply)
        self.answers.append(None)
        return node

    def _extend(self, rows: int, tokens: Sequence[int], logprobs: Sequence[float] = ()) -> None:
        """Add empty rows, and copy one step's tokens into the arenas. The memory doubles when it is full."""
        count, used = len(self), len(self.tokens)
        capacity = len(self._rows["tree"])
        if count + rows > capacity:
            columns = _columns(max(256, 2 * capacity, count + rows))
            for name, _, empty, _ in NODE_FIELDS:
                columns[name][count:] = empty
                columns[name][:count] = self._rows[name][:count]
            self._rows = columns
            missing = np.full(len(columns["tree"]) - count, np.nan)
            self._scores = {kind: np.concatenate((old[:count], missing)) for kind, old in self._scores.items()}
        for name, values in (("tokens", tokens), ("logprobs", logprobs)):
            array = self._arena[name]
            if used + len(values) > len(array):
                longer = np.zeros(max(4096, 2 * len(array), used + len(values)), array.dtype)
                longer[:used] = array[:used]
                self._arena[name] = longer
            self._arena[name][used : used + len(values)] = values
        self._show(count + rows, used + len(tokens))

    def _show(self, rows: int, tokens: int) -> None:
        """Make the public arrays views of the rows and tokens in use."""
        for name, array in self._rows.items():
            setattr(self, name, array[:rows])
        self.scores = {kind: array[:rows] for kind, array in self._scores.items()}
        for name, array in self._arena.items():
            setattr(self, name, array[:tokens])

    @staticmethod
    def of(contents: Contents) -> Forest:
        """The forest of some contents. Their arenas, scores and lists are taken over, and their rows are copied."""
        forest = Forest(contents.settings, contents.tokenizer)
        forest._scores, forest._arena = contents.scores, contents.arena
        forest.texts, forest.replies, forest.answers = contents.texts, contents.replies, contents.answers
        forest.trees = contents.trees
        forest._rows = _columns(len(forest.texts))
        for name, column in forest._rows.items():
            column[:] = contents.rows[name]
        forest._show(len(forest.texts), len(contents.arena["tokens"]))
        forest.height = int(forest.depth.max(initial=0))
        return forest

    def set_scores(self, scores: dict[str, NDArray[np.float64]]) -> None:
        """Replace the raw scores: by kind of reward, [N] each, nan where there is none."""
        self._scores = scores
        self._show(len(self), len(self.tokens))

    # --- reading -------------------------------------------------------------------------------------

    def roots(self) -> NDArray[np.int64]:
        """The node ids of the trees' roots: [T] int64."""
        if len(self._roots) != len(self.trees):
            self._roots = np.array([tree.root for tree in self.trees], np.int64)
        return self._roots

    def children(self, node: int) -> list[int]:
        """Node ids of all children, in the order in which they were first sampled."""
        found = []
        child = int(self.first_child[node])
        while child != NONE:
            found.append(child)
            child = int(self.next_sibling[child])
        return found

    def path(self, node: int) -> list[int]:
        """Node ids from the root to `node`, both included."""
        found = [node]
        while self.parent[found[-1]] != NONE:
            found.append(int(self.parent[found[-1]]))
        return found[::-1]

    def nodes(self, tree: int) -> NDArray[np.intp]:
        """Ids of all nodes of a tree, parents before children."""
        return np.flatnonzero(self.tree == tree)

    def nodes_by_tree(self) -> list[NDArray[np.intp]]:
        """The ids of all nodes of every tree, as `nodes` returns them, in one pass over the forest."""
        order = np.argsort(self.tree, kind="stable")
        ends = np.cumsum(np.bincount(self.tree, minlength=len(self.trees)))
        return np.split(order, ends)[: len(self.trees)]

    def step_tokens(self, node: int) -> list[int]:
        """The token ids of the node's own step. [] for a root."""
        start = int(self.offset[node])
        tokens: list[int] = self.tokens[start : start + int(self.length[node])].tolist()
        return tokens

    def step_logprobs(self, node: int) -> list[float]:
        """log π, in nats, of each token of the node's own step. [] for a root."""
        start = int(self.offset[node])
        logprobs: list[float] = self.logprobs[start : start + int(self.length[node])].tolist()
        return logprobs

    def solution_tokens(self, node: int) -> list[int]:
        """The tokens from the root to `node`, included, with those of replies. They do not include the prompt."""
        return [token for step in self.path(node) for token in self.step_tokens(step)]

    def reply_indices(self, nodes: Sequence[int]) -> list[int]:
        """Which tokens of the steps `nodes`, one after the other, are an environment's: rising indices."""
        found, end = list[int](), 0
        for node in nodes:
            end += int(self.length[node])
            found += range(end - int(self.reply_length[node]), end)
        return found

    def solution_text(self, node: int) -> str:
        """The text from the root to `node`, included, with replies. It does not include the prompt."""
        return "".join(self.texts[step] for step in self.path(node))

    def written_text(self, node: int) -> str:
        """The policy's own text from the root to `node`, included, with a line break for each reply.

        An answer counts only where the policy states it.
        """
        return "".join(
            f"{self.texts[step].removesuffix(self.replies[step])}\n" if self.reply_length[step] else self.texts[step]
            for step in self.path(node)
        )

    def value(self, node: int) -> float:
        """The value of the state that a step leads to, on the scale of R: R(s) + Q(s, a), with s the step's parent.

        With `accumulate: sum` it is Q itself, which counts from the parent on.
        """
        return self.value_before(int(self.parent[node])) + float(self.q[node])

    def value_before(self, parent: int) -> float:
        """What Q of the steps after `parent` is relative to: R of its state; 0 with `accumulate: sum`."""
        differences = self.settings.get("search", {}).get("accumulate") == "difference"
        return float(self.state_reward[parent]) if differences and parent != NONE else 0.0

    def by_tree(self) -> Forest:
        """Copy the forest, with its rows in an order that does not depend on when each tree was expanded.

        The roots come first, in their present order. The other nodes follow tree by tree, each tree in the order in
        which its nodes were added. Parents still precede their children.
        """
        roots = [tree.root for tree in self.trees]
        steps = np.flatnonzero(self.depth > 0)
        order = np.concatenate((np.array(roots, np.int64), steps[np.argsort(self.tree[steps], kind="stable")]))
        place = np.empty(len(order) + 1, np.int64)
        place[order] = np.arange(len(order))
        place[-1] = NONE  # NONE is the last index, so it maps to itself
        rows = {name: getattr(self, name)[order].copy() for name, _, _, _ in NODE_FIELDS}
        for name in ("parent", "first_child", "last_child", "next_sibling"):
            rows[name] = place[rows[name]].astype(np.int32)
        length = rows["length"].astype(np.int64)
        end = np.cumsum(length)
        gather = np.repeat(rows["offset"] - (end - length), length) + np.arange(len(self.tokens))
        rows["offset"] = end - length
        contents = Contents(
            self.settings,
            self.tokenizer,
            rows,
            {kind: array[order] for kind, array in self.scores.items()},
            {"tokens": self.tokens[gather], "logprobs": self.logprobs[gather]},
            [self.texts[node] for node in order],
            [self.answers[node] for node in order],
            [
                replace(tree, root=int(place[tree.root]), moves=[int(place[node]) for node in tree.moves])
                for tree in self.trees
            ],
            [self.replies[node] for node in order],
        )
        return Forest.of(contents)

    def __eq__(self, other: object) -> bool:
        """Whether two forests are equal in every field. nan equals nan."""
        if not isinstance(other, Forest):
            return NotImplemented
        arrays = [*(name for name, *_ in NODE_FIELDS), *self._arena]
        return (
            self.settings == other.settings
            and self.tokenizer == other.tokenizer
            and self.trees == other.trees
            and self.texts == other.texts
            and self.replies == other.replies
            and self.answers == other.answers
            and self.scores.keys() == other.scores.keys()
            and all(_same(array, other.scores[kind]) for kind, array in self.scores.items())
            and all(_same(getattr(self, name), getattr(other, name)) for name in arrays)
        )

    __hash__ = None  # type: ignore[assignment]  # a forest is mutable

    # --- on disk -------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the forest as one Parquet file with one row per node, whole or not at all. See tree_io.py."""
        tree_io.save(self, path)

    @staticmethod
    def load(path: Path) -> Forest:
        """Read a file that `save` wrote. The forest equals the saved one. Raises InputError that names the file."""
        return Forest.of(tree_io.load(path))


_DTYPES = {name: dtype for name, dtype, _, _ in NODE_FIELDS}
_SELECTED = ("visits", "first_child", "next_sibling", "virtual", "closed", "expanded", "q", "prior")
_BACKED_UP = ("parent", "v", "reward", "returns", "expansions", "terminal")
_RECORDS = tuple(np.dtype([(name, _DTYPES[name]) for name in names], align=True) for names in (_SELECTED, _BACKED_UP))
"""The fields that selection reads of a node are adjacent in memory, and so are the further ones that backup reads.

A forest of many trees does not fit into a cache. With this layout, one cache line is read instead of seven."""


def _columns(rows: int) -> dict[str, NDArray[Any]]:
    """Allocate the columns for `rows` nodes, by name. The values are not set. Columns of a record are views of it."""
    columns = {name: np.empty(rows, dtype) for name, dtype in _DTYPES.items() if name not in _SELECTED + _BACKED_UP}
    for record in _RECORDS:
        block = np.empty(rows, record)
        columns |= {name: block[name] for name in record.names or ()}
    return columns


def bytes_per_node() -> int:
    """The memory of one node, in bytes.

    Texts, tokens, log-probabilities and scores (8 bytes for each reward) are not included.
    """
    return sum(np.dtype(dtype).itemsize for dtype in _DTYPES.values())


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
