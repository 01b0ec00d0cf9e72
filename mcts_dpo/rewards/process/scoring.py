"""Many paths through a judge in few forward passes: a token that several share after the same prefix is computed once.

In: sequences of ids. Out: the judge's last states. The sequences of a batch become tries (`models.trie`), each of which
is one forward pass (`models.packed_forward`). A model that cannot be packed computes one sequence at a time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcts_dpo.models.packed_forward import pack_of, packed_states, why_not_packable
from mcts_dpo.models.trie import Trie, common_prefix, make_trie

_log = logging.getLogger(__name__)

PACK_TOKENS = 4096
"""Unique tokens of one forward pass at most; a longer sequence is a pass of its own."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass.

    which:  the indices of its sequences in the batch. trie: of them, in that order.
    states: [L, width] the last state of each node, float32.
    """

    which: list[int]
    trie: Trie
    states: Tensor


class Scorer:
    """A model that computes batches of sequences. `why_alone` says why it does so one at a time; None if packed."""

    def __init__(self, model: Any, *, pack_tokens: int = PACK_TOKENS) -> None:
        """Prepare `model`, a transformers decoder in evaluation mode, with or without a head."""
        self.model = model
        self.pack_tokens = pack_tokens
        self._turn = threading.Lock()  # passes side by side would share the cores, and multiply the memory
        vocabulary = int(model.config.get_text_config().vocab_size)
        probe = torch.arange(1, 6, device=model.device)[None] % vocabulary
        self.why_alone = why_not_packable(model, probe)
        if self.why_alone is not None:
            _log.warning("%s: paths are scored one at a time", self.why_alone)

    def passes(self, sequences: Sequence[Sequence[int]]) -> Iterator[Pass]:
        """The forward passes of all sequences (≥ 1 token id each), each sequence in exactly one of them."""
        arrays = [np.array(one, np.int32) for one in sequences]
        for which in packs(arrays, self.pack_tokens if self.why_alone is None else 0):
            trie = make_trie([arrays[index] for index in which])
            with self._turn, torch.no_grad():
                states = self._states(trie).float()
            yield Pass(which, trie, states)

    def states(self, sequences: Sequence[Sequence[int]], places: Sequence[Sequence[int]]) -> list[Tensor]:
        """For each sequence, the [places, width] states at its places, indices of its tokens."""
        found = [torch.empty(0)] * len(sequences)
        for one in self.passes(sequences):
            for index, path in zip(one.which, one.trie.paths, strict=True):
                found[index] = one.states[torch.from_numpy(path[list(places[index])]).to(one.states.device)]
        return found

    def _states(self, trie: Trie) -> Tensor:
        pack = pack_of(trie, self.model.device)
        if self.why_alone is None:
            return packed_states(self.model, pack)[0]
        states: Tensor = self.model.base_model(input_ids=pack.input_ids, use_cache=False).last_hidden_state
        return states[0]


def packs(sequences: Sequence[NDArray[np.int32]], most: int) -> list[list[int]]:
    """Divide sequences among packs of at most `most` unique tokens; one that is longer alone has a pack of its own.

    Sequences are taken in the order of their ids, in which those that share prefixes are neighbours. With `most` = 0,
    a pack holds one distinct sequence.
    """
    order = sorted(range(len(sequences)), key=lambda index: sequences[index].astype(">i4").tobytes())
    found: list[list[int]] = []
    filled = 0
    for index in order:
        ids = sequences[index]
        added = len(ids) - common_prefix(sequences[found[-1][-1]], ids) if found else len(ids)
        if found and (filled + added <= most or (not added and len(ids) == len(sequences[found[-1][-1]]))):
            found[-1].append(index)
            filled += added
        else:
            found.append([index])
            filled = len(ids)
    return found
