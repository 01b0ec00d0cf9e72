"""The sequences that decode together, one per slot, as a struct of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.engines.requests import Job
from mcts_dpo.engines.shaping import PLAIN, shape_of
from mcts_dpo.engines.transformers.radix_cache import Node, Positions
from mcts_dpo.engines.transformers.sampling import Shaping


class Slots:
    """S slots for sequences of at most C tokens. The entries of a free slot have no meaning.

    table:       int32 [S + more, C], pool positions of the slot's sequence in order; rows from S on are scratch.
    length:      int32 [S], tokens whose keys and values are in the pool.
    last:        int32 [S], the token sampled last, not yet in the pool.
    count:       int32 [S], tokens sampled so far; `tokens` int32 [S, C] and `logprobs` float64 [S, C] hold them.
    limit:       int32 [S], tokens to sample at most.
    temperature, top_p: float64 [S];  seed: uint64 [S];  sample: int64 [S], which of the request's samples this is.
    has_stops:   bool [S], whether the request has stop strings.
    shape:       per slot, what changes its logits beside temperature and top_p; shaped: bool [S], whether it does.
    job, node, own: per slot, its request, the cache node in which its prefix ends (pinned), and the pool positions
                 reserved for the tokens that it samples.
    running:     int64, the slots in use, oldest first.
    free:        slots not in use; the last is the next to be used.
    """

    def __init__(self, slots: int, context: int) -> None:
        self.table = np.zeros((slots, context), np.int32)
        self.length = np.zeros(slots, np.int32)
        self.last = np.zeros(slots, np.int32)
        self.count = np.zeros(slots, np.int32)
        self.tokens = np.empty((slots, context), np.int32)
        self.logprobs = np.empty((slots, context), np.float64)
        self.limit = np.zeros(slots, np.int32)
        self.temperature = np.zeros(slots, np.float64)
        self.top_p = np.ones(slots, np.float64)
        self.seed = np.zeros(slots, np.uint64)
        self.sample = np.zeros(slots, np.int64)
        self.has_stops = np.zeros(slots, np.bool_)
        self.shape = [PLAIN] * slots
        self.shaped = np.zeros(slots, np.bool_)
        self.job: list[Job | None] = [None] * slots
        self.node: list[Node | None] = [None] * slots
        self.own: list[Positions] = [np.empty(0, np.int32)] * slots
        self.running = np.empty(0, np.int64)
        self.free = list(range(slots - 1, -1, -1))

    def occupy(self, job: Job, node: Node, prefix: Positions, own: Positions) -> int:
        """Give the next free slot to the next sample of `job`, whose prefix is at `prefix`. Returns the slot."""
        slot = self.free.pop()
        request = job.request
        length = len(prefix)
        self.table[slot, :length] = prefix
        self.table[slot, length : length + len(own)] = own
        self.length[slot] = length
        self.count[slot] = 0
        self.limit[slot] = job.limit
        self.temperature[slot] = request.temperature
        self.top_p[slot] = request.top_p
        self.seed[slot] = request.seed
        self.sample[slot] = job.admitted
        self.has_stops[slot] = job.stops is not None
        self.shape[slot] = shape_of(request)
        self.shaped[slot] = self.shape[slot] != PLAIN
        self.job[slot], self.node[slot], self.own[slot] = job, node, own
        job.admitted += 1
        return slot

    def shaping(self, rows: NDArray[np.int64]) -> list[Shaping] | None:
        """What changes the logits of the slots in `rows`; None if nothing does."""
        return [self._shaping(slot) for slot in rows.tolist()] if self.shaped[rows].any() else None

    def _shaping(self, slot: int) -> Shaping:
        shape, job = self.shape[slot], self.job[slot]
        if not shape.penalises:
            return Shaping(shape)
        assert job is not None
        everything = np.concatenate([job.prefix, self.tokens[slot, : self.count[slot]]])
        return Shaping(shape, everything, everything[len(job.prefix) - job.request.generated :])

    def vacate(self, slot: int) -> None:
        """Free `slot`; the caller removes it from `running`."""
        self.job[slot] = self.node[slot] = None
        self.free.append(slot)

    def need_rows(self, rows: int) -> None:
        """Grow the table to at least `rows` rows."""
        if rows > len(self.table):
            grown = np.zeros((rows + 64, self.table.shape[1]), np.int32)
            grown[: len(self.table)] = self.table
            self.table = grown
