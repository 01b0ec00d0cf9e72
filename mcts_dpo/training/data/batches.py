"""Token sequences, which of their tokens are scored, and how they are cut into updates and forward passes.

In: prefixes and steps as token ids. Out: right-padded batches, one per forward pass (packs are in `packing.py`); the
same seed gives the same batches. Pure NumPy. A *row* is what a
loss compares: a pair (its chosen sequence, then its rejected one), a solution, a list of siblings. Its
sequences always share a forward pass. A *tree* is all rows under one prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcts_dpo.models.trie import ranges


@dataclass(frozen=True, slots=True)
class Sequences:
    """Sequences to score, as a struct of arrays.

    tokens:      [T] int32, all sequences one after the other.
    offsets:     [n + 1] int64; sequence i is tokens[offsets[i]:offsets[i + 1]].
    scored_from: [n] int64 in [1, length): the first token whose log-probability is wanted; the last token is the last.
    step_from:   [n] int64 in [scored_from, length): the first token of the step.
    imitation:   [n] float64 ≥ 0: weight of each scored token in the NLL (0 for a rejected step).
    row_offsets: [rows + 1] int64; row r owns the sequences row_offsets[r] … row_offsets[r + 1] − 1 (at least one).
    tree:        [rows] int64: rows with the same number share their prompt. It changes speed only.
    unscored:    [T] bool, or None: tokens that the environment wrote, such as tool output. The model reads them; no
                 loss and no step's sum contains them.
    """

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    scored_from: NDArray[np.int64]
    step_from: NDArray[np.int64]
    imitation: NDArray[np.float64]
    row_offsets: NDArray[np.int64]
    tree: NDArray[np.int64]
    unscored: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def rows(self) -> int:
        """Pairs, solutions or lists."""
        return len(self.row_offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[n] int64, tokens in each sequence."""
        return np.diff(self.offsets)

    def of(self, sequence: int) -> NDArray[np.int32]:
        """[length] int32: the token ids of one sequence."""
        return self.tokens[self.offsets[sequence] : self.offsets[sequence + 1]]

    def of_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """[sequences of these rows] int64: their indices, in order."""
        return ranges(self.row_offsets[rows], self.row_offsets[rows + 1])

    def row_of(self, sequence: int) -> int:
        """The row that a sequence belongs to."""
        return int(np.searchsorted(self.row_offsets, sequence, side="right")) - 1

    def scored_tokens(self, which: NDArray[np.int64]) -> NDArray[np.int64]:
        """[len(which)] int64: the number of scored tokens of each of these sequences."""
        return self._counts(self.scored_from, which)

    def step_tokens(self, which: NDArray[np.int64]) -> NDArray[np.int64]:
        """[len(which)] int64: the number of scored tokens in the step of each of these sequences."""
        return self._counts(self.step_from, which)

    def _counts(self, start: NDArray[np.int64], which: NDArray[np.int64]) -> NDArray[np.int64]:
        first, last = self.offsets[which] + start[which], self.offsets[which + 1]
        if self.unscored is None:
            return last - first
        scored = np.concatenate([[0], np.cumsum(~self.unscored)])
        counts: NDArray[np.int64] = scored[last] - scored[first]
        return counts


def sequences(
    parts: Sequence[Sequence[NDArray[np.int32]]],
    scored_from: NDArray[np.int64],
    step_from: NDArray[np.int64],
    imitation: NDArray[np.float64],
    per_row: int | NDArray[np.int64] = 1,
    unscored: NDArray[np.bool_] | None = None,
) -> Sequences:
    """Join each sequence's parts, and check the positions. See `Sequences`.

    parts:   of each sequence, [prompt, prefix, step] or the like: rows whose first part is equal are one tree.
    per_row: sequences in each row: one number (2 for pairs, 1 for solutions), or [rows] of them.
    """
    flat = [part for pieces in parts for part in pieces]
    lengths = np.array([sum(len(part) for part in pieces) for pieces in parts], dtype=np.int64)
    if not (np.all(scored_from >= 1) and np.all(step_from >= scored_from) and np.all(step_from < lengths)):
        raise ValueError("every sequence needs 1 ≤ scored_from ≤ step_from < length")
    sizes = np.full(len(parts) // per_row, per_row) if isinstance(per_row, int) else np.asarray(per_row)
    if np.any(sizes < 1) or sizes.sum() != len(parts):
        raise ValueError(f"rows of {sizes.sum()} sequences in all do not divide {len(parts)} sequences")
    if unscored is not None and unscored.shape != (lengths.sum(),):
        raise ValueError("unscored needs one entry per token")
    tokens = np.concatenate(flat) if flat else np.empty(0, dtype=np.int32)
    row_offsets = _offsets(sizes)
    numbers: dict[bytes, int] = {}
    prompts = [parts[first][0].tobytes() for first in row_offsets[:-1].tolist()]
    tree = np.array([numbers.setdefault(prompt, len(numbers)) for prompt in prompts], dtype=np.int64)
    made = Sequences(
        tokens.astype(np.int32), _offsets(lengths), scored_from, step_from, imitation, row_offsets, tree, unscored
    )
    empty = np.flatnonzero(made.step_tokens(np.arange(len(made))) == 0)
    if len(empty):
        raise ValueError(f"no token of the step of sequence {empty[0]} is scored")
    return made


def last_tokens(data: Sequences, tree: NDArray[np.int64] | None = None) -> Sequences:
    """The same sequences, of which only the last tokens are scored, so that a head reads their states."""
    last, tree = data.lengths - 1, data.tree if tree is None else tree
    return replace(data, scored_from=last, step_from=last, imitation=np.zeros(len(data)), tree=tree, unscored=None)


def _offsets(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


@dataclass(frozen=True, slots=True)
class Batch:
    """One right-padded forward pass over B sequences of at most L tokens, T of them scored.

    input_ids:  [B, L] int64. Padding is at the right, where a causal model never looks: its id does not matter.
    positions:  [T] int64 in [0, B·L): index in the flattened [B·L] of the state that predicts each scored token.
    targets:    [T] int64, the scored tokens' ids, sequence after sequence.
    owner:      [T] int64 in [0, B): the sequence of each scored token.
    in_step:    [T] bool: whether it belongs to the step.
    imitation:  [T] float64: its weight in the NLL.
    """

    input_ids: Tensor
    positions: Tensor
    targets: Tensor
    owner: Tensor
    in_step: Tensor
    imitation: Tensor

    @property
    def scored_positions(self) -> Tensor:
        """[T] int64 in [0, B·L): index of each scored token in the flattened [B·L]."""
        return self.positions + 1

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(
            self.input_ids.to(device),
            self.positions.to(device),
            self.targets.to(device),
            self.owner.to(device),
            self.in_step.to(device),
            self.imitation.to(device),
        )


def make_batch(data: Sequences, which: NDArray[np.int64]) -> Batch:
    """One batch of the sequences `which` ([B] indices), in that order, padded to the longest of them."""
    lengths = data.lengths[which]
    column = np.arange(int(lengths.max()))
    real = column < lengths[:, None]
    ids = np.zeros(real.shape, dtype=np.int64)
    ids[real] = np.concatenate([data.of(i) for i in which.tolist()])
    scored = real & (column >= data.scored_from[which, None])
    if data.unscored is not None:
        scored[real] &= ~data.unscored[ranges(data.offsets[which], data.offsets[which + 1])]
    owner, index = np.nonzero(scored)
    return Batch(
        input_ids=torch.from_numpy(ids),
        positions=torch.from_numpy(owner * len(column) + index - 1),
        targets=torch.from_numpy(ids[scored]),
        owner=torch.from_numpy(owner),
        in_step=torch.from_numpy(index >= data.step_from[which][owner]),
        imitation=torch.from_numpy(data.imitation[which][owner]),
    )


LOOK_AHEAD = 16
"""Number of waiting trees that are tried for the rest of an update."""


def plan_updates(
    rows: int,
    *,
    batch_size: int,
    epochs: int,
    max_updates: int | None,
    seed: int,
    tree: NDArray[np.int64] | None = None,
) -> list[list[NDArray[np.int64]]]:
    """Which rows each update learns from: per epoch, a list of [≤ batch_size] int64 row indices per update.

    Each epoch visits every row once, in an order drawn from `seed` and the epoch's number alone. It is divided into as
    few updates as `batch_size` allows, of sizes as equal as possible: no update is a small remainder that changes the
    weights as much as a full one.

    tree: [rows] int64, or None. Rows with the same number are kept in one update if they fit, because they share
    tokens. The order is then one of trees, not rows. Every row still comes once per epoch, in an update of the same
    size as all others, so that the average gradient is the same. An update has fewer prompts, so its gradient varies
    more.
    """
    plan: list[list[NDArray[np.int64]]] = []
    left = max_updates if max_updates is not None else epochs * rows
    for epoch in range(epochs):
        generator = np.random.default_rng([seed, epoch])
        sizes = [len(part) for part in np.array_split(np.arange(rows), -(-rows // batch_size))]
        if tree is None:
            order = generator.permutation(rows).astype(np.int64)
            updates = np.split(order, np.cumsum(sizes)[:-1])
        else:
            updates = _by_trees(tree, sizes, generator)
        updates = updates[:left]
        left -= len(updates)
        if updates:
            plan.append(updates)
    return plan


def _by_trees(tree: NDArray[np.int64], sizes: list[int], generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """Updates of exactly these sizes from trees in random order, whole trees where possible."""
    by_tree = np.argsort(tree, kind="stable")
    trees = np.split(by_tree, np.flatnonzero(np.diff(tree[by_tree])) + 1)
    waiting = [trees[index] for index in generator.permutation(len(trees)).tolist()]
    updates = []
    for size in sizes:
        taken: list[NDArray[np.int64]] = []
        room = size
        while room:
            # The first in the queue is always taken or divided, so that no tree waits because it is large.
            near = waiting[:LOOK_AHEAD] if taken else waiting[:1]
            index = next((index for index, one in enumerate(near) if len(one) <= room), 0)
            one = waiting.pop(index)
            if len(one) > room:
                waiting.insert(0, one[room:])
            taken.append(one[:room])
            room -= len(taken[-1])
        updates.append(np.concatenate(taken))
    return updates


def forward_passes(data: Sequences, rows: NDArray[np.int64], max_tokens: int) -> list[NDArray[np.int64]]:
    """Divide the rows of one update into forward passes of at most `max_tokens` padded tokens each.

    Rows of similar length share a pass, longest first (ties in the given order), so that little is padded. A row that
    exceeds the budget alone has a pass of its own. Returns [rows of the pass] int64 for each pass.
    """
    if not len(rows):
        return []
    sizes = data.row_offsets[rows + 1] - data.row_offsets[rows]
    longest = np.maximum.reduceat(data.lengths[data.of_rows(rows)], _offsets(sizes)[:-1])
    passes: list[list[int]] = []
    room = 0
    width = 0
    for index in np.argsort(-longest, kind="stable").tolist():
        # The first row of a pass is its longest: all others are padded to it.
        if not passes or int(sizes[index]) * width > room:
            passes.append([])
            width, room = int(longest[index]), max_tokens
        passes[-1].append(index)
        room -= int(sizes[index]) * width
    return [rows[indices] for indices in passes]
