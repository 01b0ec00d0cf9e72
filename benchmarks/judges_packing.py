"""How much faster a judge scores a tree in packed forward passes than one node's path at a time.

`python -m benchmarks.judges_packing` prints it. `process_speedup` is one measurement.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2Model

from mcts_dpo.rewards import SolutionPath
from mcts_dpo.rewards.process.encoding import policy_encoder
from mcts_dpo.rewards.process.judge import Item, ProcessJudge
from mcts_dpo.rewards.process.readouts import HeadReader, Layer, probability_of
from mcts_dpo.rewards.process.scoring import Scorer

NODES, CHILDREN, PROMPT, STEP = 64, 4, 60, (12, 28)
"""Nodes of a tree and children of a node; tokens of a question and, from … to, of a step."""
ROUNDS = 5
WIDTH, LAYERS, VOCABULARY = 256, 4, 1000


def random_tree(seed: int) -> list[SolutionPath]:
    """The paths of the nodes of a random tree: groups of children below random nodes."""
    draw = np.random.default_rng(seed)
    prompt = tuple(draw.integers(0, VOCABULARY, PROMPT).tolist())
    paths = [SolutionPath(prompt, (), "")]
    while len(paths) <= NODES:
        above = paths[int(draw.integers(0, len(paths)))]
        for _ in range(CHILDREN):
            step = draw.integers(0, VOCABULARY, int(draw.integers(*STEP)))
            tokens = (*above.tokens, *step.tolist())
            paths.append(SolutionPath(prompt, tokens, "", ends=(*above.ends, len(tokens))))
    return paths[1 : NODES + 1]


def random_judge(seed: int) -> ProcessJudge:
    """A judge with random weights that reads the policy's ids, as one that `train --process-reward` writes."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=4096,
    )
    reader = HeadReader(Scorer(Qwen2Model(config).eval()), [Layer(torch.randn(2, WIDTH))], probability_of(1))
    return ProcessJudge("random", policy_encoder, reader, lambda scores: scores[-1], 4096)


def process_speedup(seed: int) -> dict[str, float]:
    """Score the nodes of one tree packed, and one node's path at a time.

    CPU seconds are medians of interleaved rounds.

    Returns:
        process_speedup: seconds alone / seconds packed. packed_seconds, alone_seconds. difference: the largest between
        the scores of both ways. tokens, unique_tokens: of all paths, and of the tree.
    """
    judge, paths = random_judge(seed), random_tree(seed)
    items: list[Item] = [("", path) for path in paths]

    def packed() -> list[float]:
        return judge.scores(items)

    def alone() -> list[float]:
        return [judge.scores([item])[0] for item in items]

    ways: dict[str, Callable[[], list[float]]] = {"packed": packed, "alone": alone}
    scores = {name: way() for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            begin = time.process_time()
            way()
            seconds[name].append(time.process_time() - begin)
    fast, slow = (statistics.median(seconds[name]) for name in ways)
    lengths = [len(path.prompt) + len(path.tokens) for path in paths]
    prefixes = {path.tokens[:length] for path in paths for length in range(1, len(path.tokens) + 1)}
    return {
        "process_speedup": slow / fast,
        "packed_seconds": fast,
        "alone_seconds": slow,
        "difference": float(np.abs(np.subtract(scores["packed"], scores["alone"])).max()),
        "tokens": float(sum(lengths)),
        "unique_tokens": float(PROMPT + len(prefixes)),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    for number in range(5):
        print({name: round(value, 7) for name, value in process_speedup(number).items()})
