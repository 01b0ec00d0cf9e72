"""What a stored tree consists of: the arrays of its nodes, the facts about it, and the values that they may take.

tree.py grows a forest of these, and tree_io.py writes and reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NONE = -1
"""The id that means "no node": the parent of a root, the first child of a leaf, the next sibling of a last child."""

OPEN, IN_FLIGHT, EXHAUSTED = 0, 1, 2
"""The values of `closed`.

OPEN: selection may enter. IN_FLIGHT: every leaf below is in flight or exhausted. EXHAUSTED: every path below ends in a
terminal node."""

FINISHES = ("", "end", "stop", "length", "answer")
"""The values of `finish`: why a solution ends at a node.

"": it does not end here. "end": an end-of-sequence token. "stop": a stop string of the prompt, or the environment ended
it. "length": a length limit cut it, or the environment failed to reply (`TreeInfo.notes`), and it counts as wrong
whatever it says. "answer": the step holds a recognised final answer, although the engine would have continued."""

LENGTH = FINISHES.index("length")


class Field(NamedTuple):
    """Describes one array of the forest: its name, its dtype, the value of an empty entry, and its meaning."""

    name: str
    dtype: str
    empty: float
    meaning: str


NODE_FIELDS = (
    Field("tree", "int32", NONE, "index into `trees`"),
    Field("parent", "int32", NONE, "node id; -1 for a root"),
    Field("first_child", "int32", NONE, "node id; -1 without children"),
    Field("last_child", "int32", NONE, "node id; -1 without children"),
    Field("next_sibling", "int32", NONE, "node id; -1 for a last child"),
    Field("depth", "int32", 0, "steps from the root (0)"),
    Field("visits", "int32", 0, "N: samples drawn through this node, plus revisits; for the root, of the whole tree"),
    Field("samples", "int32", 0, "times this step was generated; 0 for a root. Revisits are no samples"),
    Field("expansions", "int32", 0, "simulations that drew samples at this node or below it"),
    Field("q", "float64", 0.0, "Q(s, a) of the edge to this node; 0 for a root, which no edge leads to"),
    Field("v", "float64", 0.0, "V(s) of this node: the visit-weighted mean of its children's q; 0 without children"),
    Field("prior", "float64", 0.0, "p(a|s) as selection sees it (see `SearchSettings.prior`); 0 for a root"),
    Field("mass", "float64", 0.0, "Σ over samples of exp(Σ log π / |a|^λ), before normalisation; 0 for a root"),
    Field("logprob", "float64", 0.0, "Σ log π(token) of the step, nats, untempered; 0 for a root"),
    Field("length", "int32", 0, "tokens of the step and of the reply to it; 0 for a root (its prompt is in `trees`)"),
    Field("reply_length", "int32", 0, "how many of them, at the end, are the environment's reply"),
    Field("reply_reward", "float64", 0.0, "what the environment gave for the step, in [-1, 1]"),
    Field("reward", "float64", 0.0, "r of the step to this node (see `mcts_dpo.rewards.combine`)"),
    Field("state_reward", "float64", 0.0, "R of this node's state (see `mcts_dpo.rewards.combine`); 0 for a root"),
    Field("returns", "float64", 0.0, "sum of the returns seen by the edge; with `backup: mean` only"),
    Field("outcome", "int8", 0, "+1 verified right, -1 wrong, 0 not terminal or not known"),
    Field("terminal", "bool", False, "a solution ends here"),
    Field("finish", "int8", 0, "index into FINISHES: why it ends here"),
    Field("expanded", "bool", False, "samples have been drawn from here"),
    Field("closed", "int8", OPEN, "OPEN, IN_FLIGHT or EXHAUSTED"),
    Field("virtual", "int16", 0, "virtual losses in flight; 0 after a search"),
    Field("offset", "int64", 0, "where the step's tokens begin in the arenas"),
)


@dataclass(slots=True)
class TreeInfo:
    """Facts about one tree as a whole.

    problem_id:    id of the problem that was searched.
    root:          node id of the root.
    prompt_tokens: token ids of the question, as the policy reads it.
    prompt_text:   the same tokens decoded, special tokens included.
    mode:          "train" (outcomes were verified) or "solve" (the search had no reference answer).
    status:        "running", or why the search ended: "simulations", "budget" or "seconds" (spent), "exhausted" (every
                   path is terminal), "decided" (the choice could no longer change), "advanced" (the moves of
                   `advance: step` reached the end of a solution), "failed" (see `reason`), "cancelled" (the tree is no
                   longer needed).
    reason:        why the tree failed, one line. "" otherwise.
    moves:         node ids that the search moved to (`advance: step`), from the root on.
    notes:         facts that a reader of the results should know, one line each. An example is a reference answer that
                   cannot be parsed.
    generated:     number of tokens sampled. Self-evaluations count as in `SearchSettings.budget`.
    simulations:   number of expansions done.
    unanswered:    number of terminal nodes without an answer. Nodes cut by a length limit are included.
    unverified:    number of terminal nodes whose answer could not be compared with the reference, because it cannot be
                   parsed, is too large, or took too long. These nodes are kept and count as wrong.
    unscored:      for each reward that could not score a path that it was asked about, the number of such paths. Their
                   scores are nan, and R does without them.
    """

    problem_id: str
    root: int
    prompt_tokens: tuple[int, ...]
    prompt_text: str
    mode: str = "train"
    status: str = "running"
    reason: str = ""
    moves: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    generated: int = 0
    simulations: int = 0
    unanswered: int = 0
    unverified: int = 0
    unscored: dict[str, int] = field(default_factory=dict)


class Contents(NamedTuple):
    """Everything that a forest of N nodes and A tokens holds.

    settings:  the settings of the search and of the prompt, as JSON.
    tokenizer: digest of the tokenizer that made the token ids.
    rows:      the arrays by their names in NODE_FIELDS, [N] each.
    scores:    raw scores by kind of reward, [N] each.
    arena:     `tokens`, [A] int32, and `logprobs`, [A] float32.
    texts:     of the steps with the replies to them, N. replies: the replies, the ends of those texts.
    answers:   of the solutions that end at a node and state one, N.
    trees:     facts about each tree.
    """

    settings: dict[str, Any]
    tokenizer: str
    rows: dict[str, NDArray[Any]]
    scores: dict[str, NDArray[np.float64]]
    arena: dict[str, NDArray[Any]]
    texts: list[str]
    answers: list[str | None]
    trees: list[TreeInfo]
    replies: list[str]
