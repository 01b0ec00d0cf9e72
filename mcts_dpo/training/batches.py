"""Token sequences, which of their tokens are scored, and how they are cut into updates and forward passes.

In: prefixes and steps as token ids. Out: right-padded batches for one forward pass each, the same for the
same seed. Pure bookkeeping in NumPy; knows no model and no loss. A *row* is a pair or a solution; a pair
has two sequences (2 · row the chosen, 2 · row + 1 the rejected), which always share a forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sequences:
    """Sequences to score, as a struct of arrays.

    tokens:      [T] int32, all sequences one after the other.
    offsets:     [n + 1] int64; sequence i is tokens[offsets[i]:offsets[i + 1]].
    scored_from: [n] int64 in [1, length): the first token whose log-probability is wanted; the last token is the last.
    step_from:   [n] int64 in [scored_from, length): the first token of the step.
    imitation:   [n] float64 ≥ 0: weight of each scored token in the NLL (0 for a rejected step).
    per_row:     sequences of one row: 2 for pairs, 1 for solutions.
    """

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    scored_from: NDArray[np.int64]
    step_from: NDArray[np.int64]
    imitation: NDArray[np.float64]
    per_row: int = 1

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def rows(self) -> int:
        """Pairs or solutions."""
        return len(self) // self.per_row

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[n] int64, tokens in each sequence."""
        return np.diff(self.offsets)

    def of_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """[rows · per_row] int64: the sequences of the given rows, in order."""
        return (rows[:, None] * self.per_row + np.arange(self.per_row)).ravel()


def sequences(
    parts: Sequence[Sequence[NDArray[np.int32]]],
    scored_from: NDArray[np.int64],
    step_from: NDArray[np.int64],
    imitation: NDArray[np.float64],
    per_row: int = 1,
) -> Sequences:
    """Join each sequence's parts (prompt, prefix, step) and check the positions. See `Sequences`."""
    flat = [part for pieces in parts for part in pieces]
    lengths = np.array([sum(len(part) for part in pieces) for pieces in parts], dtype=np.int64)
    if not (np.all(scored_from >= 1) and np.all(step_from >= scored_from) and np.all(step_from < lengths)):
        raise ValueError("every sequence needs 1 ≤ scored_from ≤ step_from < length")
    offsets = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    tokens = np.concatenate(flat) if flat else np.empty(0, dtype=np.int32)
    return Sequences(tokens.astype(np.int32), offsets, scored_from, step_from, imitation, per_row)


@dataclass(frozen=True, slots=True)
class Batch:
    """One right-padded forward pass over B sequences of at most L tokens, T of them scored.

    input_ids:  [B, L] int64. Padding stands at the right, where a causal model never looks: any id does.
    positions:  [T] int64 in [0, B·L): where, in the flattened [B·L], the state stands that predicts a scored token.
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
    ids[real] = np.concatenate([data.tokens[data.offsets[i] : data.offsets[i + 1]] for i in which.tolist()])
    scored = real & (column >= data.scored_from[which, None])
    owner, place = np.nonzero(scored)
    return Batch(
        input_ids=torch.from_numpy(ids),
        positions=torch.from_numpy(owner * len(column) + place - 1),
        targets=torch.from_numpy(ids[scored]),
        owner=torch.from_numpy(owner),
        in_step=torch.from_numpy(place >= data.step_from[which][owner]),
        imitation=torch.from_numpy(data.imitation[which][owner]),
    )


def plan_updates(
    rows: int, *, batch_size: int, epochs: int, max_updates: int | None, seed: int
) -> list[list[NDArray[np.int64]]]:
    """Which rows each update learns from: per epoch, a list of [≤ batch_size] int64 row indices per update.

    Each epoch visits every row once in an order of its own, drawn from `seed` and the epoch's number alone, and is cut
    into as few updates as `batch_size` allows, their sizes as equal as can be: no update is a small remainder that
    would move the weights as far as a full one.
    """
    plan: list[list[NDArray[np.int64]]] = []
    left = max_updates if max_updates is not None else epochs * rows
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(rows).astype(np.int64)
        updates = np.array_split(order, -(-rows // batch_size))[:left]
        left -= len(updates)
        if updates:
            plan.append(updates)
    return plan


def forward_passes(data: Sequences, rows: NDArray[np.int64], max_tokens: int) -> list[NDArray[np.int64]]:
    """Cut the rows of one update into forward passes of at most `max_tokens` padded tokens each.

    Rows of like length go together, longest first (ties in the given order), so that little is padded. A row that
    alone exceeds the budget has a pass to itself. Returns [rows of the pass] int64 for each pass.
    """
    longest = data.lengths[data.of_rows(rows)].reshape(len(rows), data.per_row).max(axis=1)
    order = np.argsort(-longest, kind="stable")
    passes: list[NDArray[np.int64]] = []
    start = 0
    while start < len(rows):
        fit = max(1, max_tokens // int(longest[order[start]] * data.per_row))
        passes.append(rows[order[start : start + fit]])
        start += fit
    return passes
