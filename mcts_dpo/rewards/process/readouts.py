"""How a judge's states become scores in [0, 1]: a head, two words, or the ratio of two language models.

In: encoded paths. Out: a list of scores per path. A judge that writes text before its verdict (ThinkPRM, GenPRM) is no
process reward here: the reward `judge` asks it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mcts_dpo.rewards.process.layouts import Encoded
from mcts_dpo.rewards.process.scoring import Pass, Scorer

LOGITS_AT_ONCE = 1 << 24
"""Elements of logits held at one time (64 MiB)."""


class Reader(Protocol):
    """What scores encoded paths."""

    def scores(self, paths: Sequence[Encoded]) -> Sequence[list[float] | None]:
        """For each path, the scores in [0, 1] of its steps; None where there was no answer."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer in float32. weight: [outputs, inputs]. bias: [outputs] or None."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, states: Tensor) -> Tensor:
        """[n, inputs] → [n, outputs]."""
        return F.linear(states, self.weight, self.bias)


def probability_of(*classes: int) -> Callable[[Tensor], Tensor]:
    """[n, outputs] logits → [n] the sum of these classes' probabilities."""
    return lambda logits: logits.softmax(-1)[:, list(classes)].sum(-1)


def sigmoid(logits: Tensor) -> Tensor:
    """[n, 1] logits → [n] probabilities."""
    return logits[:, 0].sigmoid()


def scaled(low: float, high: float) -> Callable[[Tensor], Tensor]:
    """[n, 1] outputs between `low` and `high` → [n] in [0, 1], clipped."""
    return lambda outputs: ((outputs[:, 0] - low) / (high - low)).clip(0.0, 1.0)


@dataclass(frozen=True, slots=True)
class HeadReader:
    """A head on the states at the places: one linear layer, or several with ReLU between them.

    to_scores: [n, outputs] → [n] in [0, 1].
    """

    scorer: Scorer
    layers: Sequence[Layer]
    to_scores: Callable[[Tensor], Tensor]

    def scores(self, paths: Sequence[Encoded]) -> list[list[float] | None]:
        """See `Reader`."""
        states = self.scorer.states([one.ids for one in paths], [one.places for one in paths])
        return [self.to_scores(self._outputs(one)).tolist() for one in states]

    def _outputs(self, states: Tensor) -> Tensor:
        first, *others = self.layers
        outputs = first(states)
        for layer in others:
            outputs = layer(outputs.relu())
        return outputs


def pair_reader(scorer: Scorer, plus: int, minus: int) -> HeadReader:
    """P(plus) / (P(plus) + P(minus)) of the next token: a head of two rows of the language model's own head."""
    head: Any = scorer.model.get_output_embeddings()
    rows = [plus, minus]
    bias = None if head.bias is None else head.bias[rows].detach().float()
    return HeadReader(scorer, [Layer(head.weight[rows].detach().float(), bias)], probability_of(0))


@dataclass(frozen=True, slots=True)
class TwoStageReader:
    """PathFinder: are mathematics and consistency right, and if both are, is the step? One score per path.

    The first pass answers the two questions with the likelier of plus and minus. If one answer is minus, the score is
    0. Otherwise the answers are written, `closing` is appended, and the score is P(plus) of what follows.

    closing: token ids of ", Correctness: ".
    """

    pair: HeadReader
    plus: int
    minus: int
    closing: tuple[int, ...]

    def scores(self, paths: Sequence[Encoded]) -> list[list[float] | None]:
        """See `Reader`."""
        first = self.pair.scores(paths)
        right = [index for index, found in enumerate(first) if found and min(found) >= 0.5]
        asked = [self._answered(paths[index]) for index in right]
        found: list[list[float] | None] = [[0.0] for _ in paths]
        for index, score in zip(right, self.pair.scores(asked) if asked else [], strict=True):
            found[index] = score
        return found

    def _answered(self, path: Encoded) -> Encoded:
        ids = list(path.ids[: path.places[-1] + 2])
        for place in path.places:
            ids[place + 1] = self.plus
        ids += self.closing
        return Encoded(tuple(ids), (len(ids) - 1,))


@dataclass(frozen=True, slots=True)
class RatioReader:
    """An implicit reward model: σ(Q), where Q = coefficient · Σ (log π − log π_ref) over the tokens up to a step's end.

    Source: Yuan et al. 2024 (arXiv 2412.01981), equations 4 and 5; trained with cross-entropy, σ(Q) is the probability
    that the solution ends right.
    """

    policy: Scorer
    reference: Scorer
    coefficient: float

    def scores(self, paths: Sequence[Encoded]) -> list[list[float] | None]:
        """See `Reader`."""
        ours, theirs = summed_logprobs(self.policy, paths), summed_logprobs(self.reference, paths)
        return [(self.coefficient * (one - other)).sigmoid().tolist() for one, other in zip(ours, theirs, strict=True)]


def summed_logprobs(scorer: Scorer, paths: Sequence[Encoded]) -> list[Tensor]:
    """For each path, [places] float64: Σ log π(token | before) from `start` (≥ 1) up to and with each place."""
    found = [torch.empty(0)] * len(paths)
    for one in scorer.passes([path.ids for path in paths]):
        logprobs = _node_logprobs(scorer, one, paths)
        for index, nodes in zip(one.which, one.trie.paths, strict=True):
            path = paths[index]
            sums = logprobs[torch.from_numpy(nodes[path.start :])].cumsum(0)
            found[index] = sums[torch.tensor(path.places) - path.start]
    return found


def _node_logprobs(scorer: Scorer, one: Pass, paths: Sequence[Encoded]) -> Tensor:
    """[L] float64 log-probability of each node's token after its parent; 0 at nodes that no path asks for."""
    parent = torch.full((len(one.trie),), -1)
    for index, nodes in zip(one.which, one.trie.paths, strict=True):
        start = paths[index].start
        parent[torch.from_numpy(nodes[start:])] = torch.from_numpy(nodes[start - 1 : -1])
    wanted = torch.nonzero(parent >= 0).squeeze(1)
    head: Any = scorer.model.get_output_embeddings()
    tokens = torch.from_numpy(one.trie.tokens.astype("int64"))
    found = torch.zeros(len(one.trie), dtype=torch.float64)
    for piece in torch.split(wanted, max(1, LOGITS_AT_ONCE // head.weight.shape[0])):
        states = one.states[parent[piece].to(one.states.device)]
        with torch.no_grad():
            logits = head(states.to(head.weight.dtype)).float()
        targets = tokens[piece].to(logits.device)
        found[piece] = -F.cross_entropy(logits, targets, reduction="none").double().cpu()
    return found


def aggregated(name: str, scores: Sequence[float], temperature: float) -> float:
    """One score of a path from those of its steps, in [0, 1].

    name: "last", "min", "prod", "mean", or "softmin": Σ softmax(−s / temperature) · s (PURE, arXiv 2504.15275).
    """
    values = torch.tensor(scores, dtype=torch.float64)
    if name == "softmin":
        return float((torch.softmax(-values / temperature, 0) * values).sum())
    return float({"last": values[-1], "min": values.min(), "prod": values.prod(), "mean": values.mean()}[name])
