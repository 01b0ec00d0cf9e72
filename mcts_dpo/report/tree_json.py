"""Search trees as compact JSON for the report's tree browser.

A tree becomes one object of parallel lists, with one entry per node in the order of the forest. A node's number is its
index. Trees are grouped into blocks that are compressed separately: a page with thousands of trees unpacks only those
that are opened.
"""

from __future__ import annotations

import base64
import gzip
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from mcts_dpo.common.files import read_batches, read_table, standard_json
from mcts_dpo.common.progress import Progress, silent, tracked
from mcts_dpo.search import FINISHES, Forest
from mcts_dpo.search.tree_io import tree_infos

BLOCK = 20
"""The number of trees that are compressed together. A click unpacks one block."""
QUESTION = 160
"""The number of characters of a question in the list of trees."""
PAIR_COLUMNS = ("problem_id", "chosen_node", "rejected_node", "margin", "smoothing", "weight")


Round = tuple[int, Sequence[Path], Path]
"""A round's 0-based number, its tree files, and the file of its pairs (which may be missing)."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of trees for the browser.

    index: one entry per tree: round (1-based), id, question, nodes, right, wrong, pairs, status, block, place.
    text:  base64 of a gzipped JSON list of the trees (see `tree_object`).
    """

    index: list[dict[str, Any]]
    text: str


def single_tokens_fit(rounds: Sequence[Round], most: int = 1_500_000) -> bool:
    """Whether a page holds the log-probabilities of single tokens: only for at most `most` tokens."""
    return sum(_tokens_in(file) for _, files, _ in rounds for file in files) <= most


def tree_blocks(rounds: Sequence[Round], *, tokens: bool = True, progress: Progress = silent) -> Iterator[Block]:
    """All trees of a run, `BLOCK` of them at a time, in order. One file's trees are in memory at a time.

    tokens: whether log-probabilities of single tokens are in.
    """
    count = 0
    index: list[dict[str, Any]] = []
    trees: list[dict[str, Any]] = []
    for entry, shown in _entries(rounds, tokens, progress):
        index.append({**entry, "block": count, "place": len(trees)})
        trees.append(shown)
        if len(trees) == BLOCK:
            yield Block(index, _packed(trees))
            count, index, trees = count + 1, [], []
    if trees:
        yield Block(index, _packed(trees))


def _entries(
    rounds: Sequence[Round], tokens: bool, progress: Progress
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The list's entry of each tree, and the tree."""
    files = [(number, file) for number, files, _ in rounds for file in files]
    sources = {number: _pair_source(pairs, files) for number, files, pairs in rounds}
    for number, file in tracked(progress, "trees", files):
        forest = Forest.load(file)
        chosen = sources[number]({info.problem_id for info in forest.trees})
        by_tree = forest.nodes_by_tree()
        for tree, info in enumerate(forest.trees):
            shown = tree_object(forest, tree, chosen.get(info.problem_id, []), tokens=tokens, nodes=by_tree[tree])
            entry = {
                "round": number + 1,
                "id": info.problem_id,
                "question": _question(info.prompt_text),
                "nodes": len(shown["parent"]),
                "right": shown["outcome"].count(1),
                "wrong": shown["outcome"].count(-1),
                "pairs": len(shown["pairs"]),
                "status": info.status,
            }
            yield entry, shown


def tree_object(
    forest: Forest,
    tree: int,
    pairs: Sequence[dict[str, Any]],
    *,
    tokens: bool = True,
    nodes: NDArray[np.intp] | None = None,
) -> dict[str, Any]:
    """One tree: `prompt`, `reason`, `notes`, `simulations`, `generated`, `pairs`, and a list per column of its nodes.

    pairs: rows of the pairs table with the forest's node ids; here their nodes are positions in this tree.
    nodes: the tree's, if they are known (`Forest.nodes_by_tree`).
    """
    nodes = forest.nodes(tree) if nodes is None else nodes
    position = {int(node): place for place, node in enumerate(nodes)}
    info = forest.trees[tree]
    shown: dict[str, Any] = {
        "id": info.problem_id,
        "prompt": info.prompt_text,
        "status": info.status,
        "reason": info.reason,
        "notes": info.notes,
        "simulations": info.simulations,
        "generated": info.generated,
        "parent": [position.get(int(node), -1) for node in forest.parent[nodes]],
        "visits": forest.visits[nodes].tolist(),
        "samples": forest.samples[nodes].tolist(),
        "q": _rounded(forest.q[nodes]),
        "v": _rounded(forest.v[nodes]),
        "prior": _rounded(forest.prior[nodes]),
        "scores": {
            kind: [None if np.isnan(value) else round(float(value), 3) for value in scores[nodes]]
            for kind, scores in forest.scores.items()
        },
        "reward": _rounded(forest.reward[nodes]),
        "state_reward": _rounded(forest.state_reward[nodes]),
        "logprob": _rounded(forest.logprob[nodes]),
        "length": forest.length[nodes].tolist(),
        "outcome": [int(o) if end else 0 for o, end in zip(forest.outcome[nodes], forest.terminal[nodes], strict=True)],
        "terminal": forest.terminal[nodes].astype(int).tolist(),
        "finish": [FINISHES[code] for code in forest.finish[nodes]],
        "text": [forest.texts[node] for node in nodes],
        "reply": [forest.replies[node] for node in nodes],
        "reply_length": forest.reply_length[nodes].tolist(),
        "answer": [forest.answers[node] for node in nodes],
        "pairs": [
            {**pair, "chosen": position[pair["chosen"]], "rejected": position[pair["rejected"]]}
            for pair in pairs
            if pair["chosen"] in position and pair["rejected"] in position
        ],
    }
    if tokens:
        bounds = [
            (int(forest.offset[node]), int(forest.offset[node] + forest.length[node] - forest.reply_length[node]))
            for node in nodes
        ]
        shown["tokens"] = [[round(float(value), 2) for value in forest.logprobs[low:high]] for low, high in bounds]
    return shown


PairsOf = Callable[[Collection[str]], Mapping[str, list[dict[str, Any]]]]
"""Gives the pairs of some problems, by problem."""


def _pair_source(path: Path, files: Sequence[Path]) -> PairsOf:
    """The pairs of a round, which the report reads tree file by tree file.

    A run writes pairs in the order of its trees, so that both are read together. If the order differs, or a pair's tree
    is missing, all pairs are kept in memory.
    """
    if not path.exists():
        return lambda _: {}
    trial = _PairReader(path, ["problem_id"])
    for file in files:
        trial.of({info.problem_id for info in tree_infos(file)})
    if trial.at_end:
        return _PairReader(path).of
    everything = _PairReader(path).of(None)
    return lambda _: everything


class _PairReader:
    """Reads the rows of a table of pairs in order."""

    def __init__(self, path: Path, columns: Sequence[str] = PAIR_COLUMNS) -> None:
        self._rows = (row for batch in read_batches(path, columns) for row in batch.to_pylist())
        self._next: dict[str, Any] | None = next(self._rows, None)

    @property
    def at_end(self) -> bool:
        """Whether all rows have been given."""
        return self._next is None

    def of(self, problems: Collection[str] | None) -> dict[str, list[dict[str, Any]]]:
        """The next rows as long as they are of these problems (None: of any), by problem."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        while self._next is not None and (problems is None or self._next["problem_id"] in problems):
            found[self._next["problem_id"]].append(_shown_pair(self._next))
            self._next = next(self._rows, None)
        return found


def _shown_pair(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {"chosen": row.get("chosen_node"), "rejected": row.get("rejected_node")}
    return shown | {name: round(row[name], 4) for name in ("margin", "smoothing", "weight") if name in row}


def _tokens_in(file: Path) -> int:
    """The number of tokens of all steps in a tree file, read from one column."""
    return int(pc.sum(read_table(file, columns=["length"])["length"]).as_py() or 0)


def _question(prompt: str) -> str:
    """The end of a prompt, which holds the question, in one line and without the marks of the chat template."""
    words = " ".join(prompt.split())
    return words if len(words) <= QUESTION else "…" + words[-QUESTION:]


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 4) for value in values]


def _packed(trees: list[dict[str, Any]]) -> str:
    text = standard_json(trees, separators=(",", ":"))
    # mtime 0, so that the page's bytes depend only on the run.
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()
