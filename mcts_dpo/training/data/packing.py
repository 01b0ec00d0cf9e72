"""Many sequences as one: a token that several share after the same prefix is computed once.

In: `Sequences`, and which of them. Out: `Packed`, one sequence of their unique tokens, in which a token may look only
at its own ancestors; and how the rows of an update are divided among such packs. Shared prefixes are found by comparing
ids (`models.trie`), so trees, flat pairs and prompts with the same few-shot examples all pack. Nothing is tokenised
again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mcts_dpo.models.packed_forward import Pack
from mcts_dpo.models.trie import make_trie
from mcts_dpo.training.data.batches import Sequences


@dataclass(frozen=True, slots=True)
class Packed(Pack):
    """One forward pass over the L unique tokens of B sequences, U of which are scored; S unique steps.

    positions:    [U] int64 in [0, L): the parent of each scored token, whose state predicts it.
    scored_positions: [U] int64 in [0, L): index of each scored token in the pack.
    targets:      [U] int64, the scored tokens' ids.
    imitation:    [U] float64: the token's weight in the NLL, summed over the sequences that it is scored in.
    step_tokens:  [E] int64 in [0, U): the scored tokens of each unique step, step after step.
    step_owner:   [E] int64 in [0, S): the unique step that each belongs to.
    step_of:      [B] int64 in [0, S): each sequence's step. Sequences that end in the same step share it.
    steps:        S.
    """

    positions: Tensor
    scored_positions: Tensor
    targets: Tensor
    imitation: Tensor
    step_tokens: Tensor
    step_owner: Tensor
    step_of: Tensor
    steps: int

    def to(self, device: torch.device) -> Packed:
        """The same pack on another device."""
        return Packed(
            self.input_ids.to(device),
            self.position_ids.to(device),
            self.end.to(device),
            self.positions.to(device),
            self.scored_positions.to(device),
            self.targets.to(device),
            self.imitation.to(device),
            self.step_tokens.to(device),
            self.step_owner.to(device),
            self.step_of.to(device),
            self.steps,
        )


def pack(data: Sequences, which: NDArray[np.int64]) -> Packed:
    """The sequences `which` ([B] indices) as one pack. The order of the sequences changes only
    `step_of`.
    """
    trie = make_trie([data.of(i) for i in which.tolist()])
    imitation = np.zeros(len(trie))
    parents = np.full(len(trie), -1)
    # A step is known by its last node, and by which of its tokens are scored (and so how many it has).
    steps: dict[tuple[int, bytes], int] = {}
    step_nodes: list[NDArray[np.int64]] = []
    step_of = np.empty(len(which), dtype=np.int64)
    for index, i in enumerate(which.tolist()):
        path, begin, step_from = trie.paths[index], int(data.scored_from[i]), int(data.step_from[i])
        scored = np.ones(len(path), dtype=bool)
        if data.unscored is not None:
            scored = ~data.unscored[data.offsets[i] : data.offsets[i + 1]]
        nodes = path[begin:][scored[begin:]]
        parents[nodes] = path[begin - 1 : -1][scored[begin:]]
        imitation[nodes] += data.imitation[i]
        key = (int(path[-1]), scored[step_from:].tobytes())
        if key not in steps:
            steps[key] = len(steps)
            step_nodes.append(path[step_from:][scored[step_from:]])
        step_of[index] = steps[key]
    found = np.flatnonzero(parents >= 0)
    rank = np.zeros(len(trie), dtype=np.int64)
    rank[found] = np.arange(len(found))
    return Packed(
        input_ids=torch.from_numpy(trie.tokens.astype(np.int64))[None],
        position_ids=torch.from_numpy(trie.depths)[None],
        end=torch.from_numpy(trie.end),
        positions=torch.from_numpy(parents[found]),
        scored_positions=torch.from_numpy(found),
        targets=torch.from_numpy(trie.tokens[found].astype(np.int64)),
        imitation=torch.from_numpy(imitation[found]),
        step_tokens=torch.from_numpy(rank[np.concatenate(step_nodes)]),
        step_owner=torch.from_numpy(np.repeat(np.arange(len(steps)), [len(one) for one in step_nodes])),
        step_of=torch.from_numpy(step_of),
        steps=len(steps),
    )


def packed_passes(data: Sequences, rows: NDArray[np.int64], max_tokens: int) -> list[NDArray[np.int64]]:
    """Divide the rows of one update among packs of at most `max_tokens` unique tokens each.

    A tree stays whole where it fits. One that does not is divided by sibling groups (rows whose steps follow the same
    state), whose ancestors are then computed again in each pack; a group that does not fit alone, by rows; a row
    never. A row that exceeds the budget alone has a pack of its own. Each piece joins the pack in which it adds the
    fewest tokens (of equal packs the first), or starts a new one. Returns [rows of the pack] int64 for each pack, in
    the order of `rows`. The division changes time and memory, not the gradient.
    """
    if not len(rows):
        return []
    trie = make_trie([data.of(i) for i in data.of_rows(rows).tolist()])
    sizes = data.row_offsets[rows + 1] - data.row_offsets[rows]
    first = np.cumsum(sizes) - sizes
    nodes, state = [], []
    for index, row in enumerate(rows.tolist()):
        begin = int(first[index])
        nodes.append(np.unique(np.concatenate(trie.paths[begin : begin + int(sizes[index])])))
        state.append(int(trie.paths[begin][data.step_from[data.row_offsets[row]] - 1]))
    pieces = _pieces(data.tree[rows].tolist(), state, nodes, max_tokens)
    packs: list[list[int]] = []
    filled: list[NDArray[np.bool_]] = []
    used: list[int] = []
    for piece in pieces:
        wanted = _union(nodes, piece)
        added = [int(np.count_nonzero(~there[wanted])) for there in filled]
        room = [more for more, before in zip(added, used, strict=True) if before + more <= max_tokens]
        if room:
            least = min(room)
            chosen = next(
                index for index, more in enumerate(added) if more == least and used[index] + more <= max_tokens
            )
        else:
            chosen, least = len(packs), len(wanted)
            packs.append([])
            filled.append(np.zeros(len(trie), dtype=bool))
            used.append(0)
        packs[chosen] += piece
        filled[chosen][wanted] = True
        used[chosen] += least
    return [rows[sorted(indices)] for indices in packs]


def _union(nodes: list[NDArray[np.int64]], indices: list[int]) -> NDArray[np.int64]:
    return nodes[indices[0]] if len(indices) == 1 else np.unique(np.concatenate([nodes[index] for index in indices]))


def _pieces(tree: list[int], state: list[int], nodes: list[NDArray[np.int64]], max_tokens: int) -> list[list[int]]:
    """The rows (by place) that stay together: trees, or sibling groups depth first, or single rows."""
    pieces: list[list[int]] = []
    for whole in _grouped(tree, range(len(tree))):
        if len(_union(nodes, whole)) <= max_tokens:
            pieces.append(whole)
            continue
        for group in sorted(_grouped(state, whole), key=lambda indices: state[indices[0]]):
            if len(_union(nodes, group)) <= max_tokens:
                pieces.append(group)
            else:
                pieces += [[index] for index in group]
    return pieces


def _grouped(keys: list[int], indices: range | list[int]) -> list[list[int]]:
    """`places` by their key, in the order of first appearance."""
    groups: dict[int, list[int]] = {}
    for index in indices:
        groups.setdefault(keys[index], []).append(index)
    return list(groups.values())
