"""The families of process reward models, one row each: what they read, how a score is read off, and how scores combine.

A family is found by what the model's files say (`detect`), else by the model's name, else the settings must name it.
docs/process-rewards.md lists the layouts, and what is not confirmed on the real checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mcts_dpo.rewards.process import layouts

FamilyName = Literal[
    "math_shepherd",
    "math_psa",
    "rlhflow",
    "qwen_prm",
    "reasonflux",
    "skywork",
    "trl",
    "pure",
    "eurus",
    "pathfinder",
    "reasoneval",
    "mcts_dpo",
]
Aggregate = Literal["last", "min", "prod", "mean", "softmin"]


@dataclass(frozen=True, slots=True)
class Head:
    """Scores from a head of the model's own.

    names:   what the head's tensors are called: `NAME.weight`, or `NAME.0.weight` and `NAME.2.weight` around a ReLU.
    outputs: numbers per token.
    classes: the score is the sum of these classes' probabilities; without classes, the sigmoid of the only output.
    """

    names: tuple[str, ...]
    outputs: int
    classes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Words:
    """Scores from a language model's next token: plus against minus. stages: 2 for PathFinder."""

    plus: str
    minus: str
    stages: int = 1


@dataclass(frozen=True, slots=True)
class Ratio:
    """Scores from the log-probabilities of two language models."""

    coefficient: float


@dataclass(frozen=True, slots=True)
class Family:
    """One family.

    layout:      makes the layout for a tokenizer; None: the policy's own ids are read.
    readout:     how the score is read off.
    aggregate:   the default; temperature: of "softmin", on scores in [0, 1].
    tag:         the token at a step's place, which the tokenizer must have; "" if there is none.
    context:     tokens that the model was trained to read; None: those of its configuration.
    name:        pattern of the model's name, by which the family is found if the files do not tell.
    """

    layout: Callable[[Any], layouts.Layout] | None
    readout: Head | Words | Ratio
    aggregate: Aggregate
    name: str
    tag: str = ""
    context: int | None = None
    temperature: float = 0.05


_TOKEN_HEAD = ("score", "classifier")
FAMILIES: Mapping[str, Family] = {
    "math_shepherd": Family(
        layouts.math_shepherd, Words(" +", " -"), "min", r"shepherd|\ber-prm|\bspare-prm", layouts.SHEPHERD_TAG
    ),
    "math_psa": Family(layouts.math_psa, Words(" +", " -"), "min", "math-psa", layouts.PSA_TAG),
    "rlhflow": Family(layouts.rlhflow, Words("+", "-"), "mean", r"llama3\.1-8b-prm|rlhflow"),
    "qwen_prm": Family(
        layouts.qwen_prm, Head(("score",), 2, (1,)), "prod", "qwen2.5-math-.*prm", layouts.QWEN_TAG, context=4096
    ),
    "reasonflux": Family(layouts.reasonflux, Head(("score",), 2, (1,)), "mean", "reasonflux-prm", layouts.QWEN_TAG),
    "skywork": Family(layouts.skywork, Head(("v_head.summary", "v_head"), 1), "last", "skywork-o1-open-prm"),
    "trl": Family(layouts.trl, Head(_TOKEN_HEAD, 2, (1,)), "last", r"(?!)"),
    "pure": Family(layouts.trl, Head(_TOKEN_HEAD, 2, (1,)), "softmin", "pure-prm"),
    "eurus": Family(layouts.eurus, Ratio(0.001), "min", "eurusprm"),
    "pathfinder": Family(layouts.pathfinder, Words("<+>", "<->", 2), "last", "pathfinder-prm", layouts.PATHFINDER_TAG),
    "reasoneval": Family(layouts.reasoneval, Head(("score_head",), 3, (1, 2)), "min", "reasoneval"),
    "mcts_dpo": Family(None, Head(_TOKEN_HEAD, 2, (1,)), "last", r"(?!)"),
}
"""By name. PURE's score P(1) − P(0) and its temperature 0.1 are P(1) and 0.05 on [0, 1]: P(1) − P(0) = 2 P(1) − 1."""


def detect(model: str, files: Collection[str], tensors: Collection[str], architectures: Collection[str]) -> str | None:
    """The family of a model; None if nothing tells.

    model: its path or name. files: names of its files. tensors: names of its tensors. architectures: of its
    configuration.
    """
    if "process_reward.json" in files:
        return "mcts_dpo"
    named = next((name for name, family in FAMILIES.items() if re.search(family.name, model, re.IGNORECASE)), None)
    if any(name.startswith("v_head.") for name in tensors):
        return "skywork"
    if any(name.startswith("score_head.") for name in tensors):
        return "reasoneval"
    if "Qwen2ForProcessRewardModel" in architectures:
        return named if named in ("reasonflux", "pure") else "qwen_prm"
    if any(name.endswith("ForTokenClassification") for name in architectures):
        return named if named == "pure" else "trl"
    return named
