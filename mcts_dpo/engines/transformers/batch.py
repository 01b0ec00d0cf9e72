"""The flat batch of one step: tokens of many sequences one after the other, without padding between them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.engines.transformers.radix_cache import NOWHERE, Positions


@dataclass(slots=True)
class Batch:
    """Grows sequence by sequence. The lists hold one array for all running sequences, then one per new sequence.

    tokens:    int32, token ids.
    positions: int32, each token's place in its sequence, from 0.
    write:     int32, the pool position that takes each token's keys and values.
    rows:      int32, the row of the table that lists its sequence's pool positions.
    size:      tokens so far.
    prefilled: tokens so far that are not the next token of a running sequence.
    wanted:    flat indices of the tokens whose logits are needed, in the order of the logits' rows.
    """

    tokens: list[NDArray[np.int32]] = field(default_factory=list)
    positions: list[NDArray[np.int32]] = field(default_factory=list)
    write: list[Positions] = field(default_factory=list)
    rows: list[NDArray[np.int32]] = field(default_factory=list)
    size: int = 0
    prefilled: int = 0
    wanted: list[int] = field(default_factory=list)
    _logit_row: dict[int, int] = field(default_factory=dict)

    def add_running(
        self, tokens: NDArray[np.int32], positions: NDArray[np.int32], write: Positions, rows: NDArray[np.int64]
    ) -> None:
        """Start with one token of each running sequence, whose logits are all needed: logit row i is sequence i's."""
        assert self.size == 0
        self.tokens.append(tokens)
        self.positions.append(positions)
        self.write.append(write)
        self.rows.append(rows.astype(np.int32))
        self.size = len(tokens)
        self.wanted = list(range(self.size))
        self._logit_row = {i: i for i in self.wanted}

    def add(self, tokens: NDArray[np.int32], start: int, write: Positions, row: int) -> int:
        """Append consecutive tokens of one sequence, the first at place `start`. Returns the first's flat index."""
        first = self.size
        count = len(tokens)
        self.tokens.append(tokens)
        self.positions.append(np.arange(start, start + count, dtype=np.int32))
        self.write.append(write)
        self.rows.append(np.full(count, row, np.int32))
        self.size += count
        self.prefilled += count
        return first

    def fill_up(self, multiple: int) -> None:
        """Pad the batch and the wanted logits to multiples of `multiple` with copies of the first token.

        Padding writes to the position that is never read; its logits are the last rows.
        """
        count = -self.size % multiple
        self.tokens.append(np.repeat(self.tokens[0][:1], count))
        self.positions.append(np.zeros(count, np.int32))
        self.write.append(np.full(count, NOWHERE, np.int32))
        self.rows.append(np.repeat(self.rows[0][:1], count))
        self.size += count
        self.wanted += self.wanted[:1] * (-len(self.wanted) % multiple)

    def want(self, index: int) -> int:
        """Ask for the logits after the token of flat index `index`. Returns their row."""
        row = self._logit_row.get(index)
        if row is None:
            row = self._logit_row[index] = len(self.wanted)
            self.wanted.append(index)
        return row
