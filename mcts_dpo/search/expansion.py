"""One expansion: the samples drawn from a leaf become nodes. Pure bookkeeping, no engine, no rewards.

In: a forest, a leaf, and per sample its steps (tokens, log-probabilities, text; why the last one ended). Out: the
new nodes, and for each sample the node where it ends.

Two steps from the same state are one child if their texts are equal after whitespace normalisation and they end
alike (both continue, both end a solution, both were cut): the child keeps the tokens of its first sample, its
`samples` and prior mass count all. Children of one parent are laid out contiguously.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mcts_dpo.engines.base import Sample
from mcts_dpo.models.decoding import decode, prefixes
from mcts_dpo.models.prompts import PromptSettings, split_steps
from mcts_dpo.search.tree import FINISHES, LENGTH, Forest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Step:
    """One sampled step. finish: index into FINISHES, 0 if the solution continues."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish: int


def normalised(text: str) -> str:
    """The text with every run of whitespace as one space, and none at the ends."""
    return " ".join(text.split())


def prior_mass(logprob: float, length: int, penalty: float) -> float:
    """exp(Σ log π / |a|^λ): what one sample adds to its step's prior (Xie et al. 2024, eq. 3)."""
    return math.exp(logprob / length**penalty)


def attach(forest: Forest, leaf: int, samples: Sequence[Sequence[Step]], penalty: float) -> tuple[list[int], list[int]]:
    """Hang `samples` (each a non-empty list of steps) under `leaf`, merging what is there already.

    Counts samples and prior masses; visits, rewards and values are left to the backup.
    Returns (new nodes, in row order; the end of each sample).
    """
    new: list[int] = []
    ends = [leaf] * len(samples)
    for level in range(max(map(len, samples))):
        # Parent by parent, so that siblings are next to each other; within a parent in the order of the samples.
        by_parent: dict[int, list[int]] = {}
        for index, steps in enumerate(samples):
            if level < len(steps):
                by_parent.setdefault(ends[index], []).append(index)
        for parent, members in by_parent.items():
            known = {(normalised(forest.texts[n]), _ending(int(forest.finish[n]))): n for n in forest.children(parent)}
            for index in members:
                step = samples[index][level]
                key = (normalised(step.text), _ending(step.finish))
                node = known.get(key)
                if node is None:
                    node = known[key] = forest.add_child(parent, step.tokens, step.logprobs, step.text, step.finish)
                    new.append(node)
                forest.samples[node] += 1
                forest.mass[node] += prior_mass(sum(step.logprobs), len(step.tokens), penalty)
                ends[index] = node
    return new, ends


def attach_unsampled(forest: Forest, leaf: int, steps: Sequence[Step]) -> tuple[list[int], list[int]]:
    """Hang a chain of steps under `leaf` that nobody sampled (a reference solution), merging what is there already.

    It counts no sample; its prior mass is the mean of its siblings', 1 without any. Returns (new nodes, the chain).
    """
    new: list[int] = []
    chain: list[int] = []
    parent = leaf
    for step in steps:
        siblings = forest.children(parent)
        key = (normalised(step.text), _ending(step.finish))
        known = {(normalised(forest.texts[n]), _ending(int(forest.finish[n]))): n for n in siblings}
        node = known.get(key)
        if node is None:
            node = forest.add_child(parent, step.tokens, step.logprobs, step.text, step.finish)
            forest.mass[node] = sum(float(forest.mass[n]) for n in siblings) / len(siblings) if siblings else 1.0
            new.append(node)
        chain.append(node)
        parent = node
    return new, chain


def _ending(finish: int) -> int:
    """0: continues; 1: cut; 2: ended, in whichever way."""
    return 0 if finish == 0 else 1 if finish == LENGTH else 2


def whole_solution(
    sample: Sample, before: Sequence[int], tokenizer: PreTrainedTokenizerBase, prompt: PromptSettings, max_steps: int
) -> list[Step]:
    """A sample to the end of the solution, cut into at most `max_steps` steps; the last holds all the rest."""
    ends = split_steps(sample.tokens, tokenizer, prompt)
    ends = [*ends[: max_steps - 1], len(sample.tokens)] if len(ends) > max_steps else ends
    texts = step_texts(before, sample.tokens, ends, tokenizer)
    last = FINISHES.index(sample.finish)
    return [
        Step(sample.tokens[start:end], sample.logprobs[start:end], text, last if end == len(sample.tokens) else 0)
        for start, end, text in zip([0, *ends], ends, texts, strict=False)
    ]


def step_texts(
    before: Sequence[int], tokens: Sequence[int], ends: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """The text that each step of `tokens` (ending at `ends`) adds after `before`, special tokens left out.

    Decoded as part of the solution, since many tokenizers drop a space at the start of a text.
    """
    texts, start, skip = [], 0, len(before)
    shown_up_to = prefixes(tokenizer, [*before, *tokens])
    shown = shown_up_to(skip)
    for end in ends:
        longer = shown_up_to(skip + end)
        # A character whose bytes are not complete yet decodes otherwise once they are: then the step stands alone.
        alone = not longer.startswith(shown)
        texts.append(decode(tokenizer, tokens[start:end]) if alone else longer[len(shown) :])
        shown, start = longer, end
    return texts
