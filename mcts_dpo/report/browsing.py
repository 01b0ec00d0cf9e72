"""Search trees as compact JSON for the report's tree browser. Reads forests and pairs, knows no page.

A tree becomes one object of parallel lists, one entry per node in the order of the forest, so that node numbers are
positions. Trees are gathered into blocks, each compressed by itself: a page with thousands of trees unpacks only
those that somebody looks at.
"""

from __future__ import annotations

import base64
import gzip
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mcts_dpo.files import standard_json
from mcts_dpo.preferences import Pairs
from mcts_dpo.progress import Progress, silent, tracked
from mcts_dpo.search import FINISHES, Forest

BLOCK = 20
"""Trees that are compressed together: what a click unpacks."""
QUESTION = 160
"""Characters of a question in the list of trees."""


@dataclass(slots=True)
class Trees:
    """What the browser is given.

    index:  one entry per tree: round (1-based), id, question, nodes, right, wrong, pairs, status, block, place.
    blocks: base64 text of gzipped JSON lists of trees (see `tree_object`).
    tokens: whether log-probabilities of single tokens are in.
    """

    index: list[dict[str, Any]] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    tokens: bool = True


def gather(
    rounds: Iterable[tuple[int, Sequence[Path], Path]], *, max_tokens: int = 1_500_000, progress: Progress = silent
) -> Trees:
    """All trees of a run.

    rounds:     for each, its 0-based number, its tree files, and the file of its pairs (which may be missing).
    max_tokens: log-probabilities of single tokens are left out when there are more than this, to bound the page.
    """
    found = Trees()
    waiting: list[dict[str, Any]] = []
    shards = [(number, file, pairs_file) for number, files, pairs_file in rounds for file in files]
    sizes = [_tokens_in(file) for _, file, _ in shards]
    found.tokens = sum(sizes) <= max_tokens
    for number, file, pairs_file in tracked(progress, "trees", shards):
        forest = Forest.load(file)
        chosen = _pairs_by_problem(pairs_file)
        for tree, info in enumerate(forest.trees):
            shown = tree_object(forest, tree, chosen.get(info.problem_id, []), tokens=found.tokens)
            found.index.append(
                {
                    "round": number + 1,
                    "id": info.problem_id,
                    "question": _question(info.prompt_text),
                    "nodes": len(shown["parent"]),
                    "right": shown["outcome"].count(1),
                    "wrong": shown["outcome"].count(-1),
                    "pairs": len(shown["pairs"]),
                    "status": info.status,
                    "block": len(found.blocks),
                    "place": len(waiting),
                }
            )
            waiting.append(shown)
            if len(waiting) == BLOCK:
                found.blocks.append(_packed(waiting))
                waiting = []
    if waiting:
        found.blocks.append(_packed(waiting))
    return found


def tree_object(forest: Forest, tree: int, pairs: Sequence[dict[str, Any]], *, tokens: bool = True) -> dict[str, Any]:
    """One tree: `prompt`, `reason`, `notes`, `simulations`, `generated`, `pairs`, and a list per column of its nodes.

    pairs: rows of the pairs table with the forest's node ids; here their nodes are positions in this tree.
    """
    nodes = np.array([int(node) for node in forest.nodes(tree)])
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
        "confidence": [None if np.isnan(value) else round(float(value), 3) for value in forest.confidence[nodes]],
        "reward": _rounded(forest.reward[nodes]),
        "logprob": _rounded(forest.logprob[nodes]),
        "length": forest.length[nodes].tolist(),
        "outcome": [int(o) if end else 0 for o, end in zip(forest.outcome[nodes], forest.terminal[nodes], strict=True)],
        "terminal": forest.terminal[nodes].astype(int).tolist(),
        "finish": [FINISHES[code] for code in forest.finish[nodes]],
        "text": [forest.texts[node] for node in nodes],
        "answer": [forest.answers[node] for node in nodes],
        "pairs": [
            {**pair, "chosen": position[pair["chosen"]], "rejected": position[pair["rejected"]]}
            for pair in pairs
            if pair["chosen"] in position and pair["rejected"] in position
        ],
    }
    if tokens:
        bounds = [(int(forest.offset[node]), int(forest.offset[node] + forest.length[node])) for node in nodes]
        shown["tokens"] = [[round(float(value), 2) for value in forest.logprobs[low:high]] for low, high in bounds]
    return shown


def _pairs_by_problem(path: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    if path.exists():
        columns = ["problem_id", "chosen_node", "rejected_node", "margin", "smoothing", "weight"]
        for row in Pairs.load(path).table.select(columns).to_pylist():
            found[row["problem_id"]].append(
                {
                    "chosen": row["chosen_node"],
                    "rejected": row["rejected_node"],
                    "margin": round(row["margin"], 4),
                    "smoothing": round(row["smoothing"], 4),
                    "weight": round(row["weight"], 4),
                }
            )
    return found


def _tokens_in(file: Path) -> int:
    """Tokens of all steps in a tree file, from the one column that says so."""
    return int(pc.sum(pq.read_table(file, columns=["length"])["length"]).as_py() or 0)


def _question(prompt: str) -> str:
    """The end of a prompt, where the question stands, in one line without the chat's marks."""
    words = " ".join(prompt.split())
    return words if len(words) <= QUESTION else "…" + words[-QUESTION:]


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 4) for value in values]


def _packed(trees: list[dict[str, Any]]) -> str:
    text = standard_json(trees, separators=(",", ":"))
    # mtime 0: the page's bytes depend on the run alone.
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()
