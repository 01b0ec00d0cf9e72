"""Turns the samples drawn from a leaf into nodes of the tree.

In: a forest, a leaf, and for each sample its steps (tokens, log-probabilities, text, and why the step ended). Out: the
new nodes, and for each sample the node where it ends. No engine and no reward is called here.

Two steps after the same parent become one child if they are equal by `search.merge` and end in the same way: both
continue, both end a solution, or both were cut. The child keeps the tokens of its first sample.
Its `samples` and its prior mass count all its samples. New children of one parent are contiguous rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines.base import Sample
from mcts_dpo.environments.base import Environment, Reply
from mcts_dpo.models.decoding import decode, prefixes
from mcts_dpo.models.prompts import PromptSettings, split_steps
from mcts_dpo.search.acting import Acted, parts, shown
from mcts_dpo.search.tree import FINISHES, LENGTH, Forest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a sample.

    tokens:   [≥ 1] token ids. logprobs: log π of each token, nats; nan if the policy did not sample it.
    text:     the step as text, with the reply to it.
    finish:   index into FINISHES: why the solution ends here. 0: it continues.
    reply:    the environment's, whose tokens are the last `reply_length`; None without one.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish: int
    reply: Reply | None = None
    reply_length: int = 0

    @property
    def written(self) -> int:
        """How many tokens the policy wrote."""
        return len(self.tokens) - self.reply_length


_LATEX_SPACE = re.compile(r"\\(?:[,;:!> ]|q?quad(?![a-zA-Z]))|~")


def merge_key(text: str, tokens: Sequence[int], merge: str) -> Hashable:
    """What two steps that are merged have in common. text, tokens: of the step. merge: see `SearchSettings.merge`."""
    if merge == "none":
        return tuple(tokens)
    plain = _LATEX_SPACE.sub(" ", text).casefold() if merge == "loose" else text
    plain = " ".join(plain.split())
    return plain.rstrip(" .,;:?") if merge == "loose" else plain


def prior_mass(logprob: float, length: int, penalty: float) -> float:
    """The prior mass that one sample adds to its step: exp(Σ log π / |a|^λ) (Xie et al. 2024, eq. 3).

    logprob: Σ log π over the step's tokens, nats. length: |a|, the number of tokens. penalty: λ.
    """
    return math.exp(logprob / length**penalty)


def attach(
    forest: Forest, leaf: int, samples: Sequence[Sequence[Step]], penalty: float, merge: str = "whitespace"
) -> tuple[list[int], list[int]]:
    """Add samples under `leaf`, and merge steps with equal children that exist already.

    samples: each a non-empty list of steps. penalty: λ of `prior_mass`. merge: see `SearchSettings.merge`.

    Updates `samples` and `mass` of the nodes. The backup updates visits, rewards and values.
    Returns (ids of the new nodes in row order, the node id where each sample ends).
    """
    new: list[int] = []
    ends = [leaf] * len(samples)
    for level in range(max(map(len, samples))):
        # Add one parent's children after the other, so that siblings are contiguous rows, in the order of the samples.
        by_parent: dict[int, list[int]] = {}
        for index, steps in enumerate(samples):
            if level < len(steps):
                by_parent.setdefault(ends[index], []).append(index)
        for parent, members in by_parent.items():
            known = _children_by_key(forest, parent, merge)
            for index in members:
                step = samples[index][level]
                key = _key(step.text, step.tokens, step.finish, merge)
                node = known.get(key)
                if node is None:
                    node = known[key] = _add(forest, parent, step)
                    new.append(node)
                forest.samples[node] += 1
                forest.mass[node] += prior_mass(sum(step.logprobs), step.written, penalty)
                ends[index] = node
    return new, ends


def attach_unsampled(
    forest: Forest, leaf: int, steps: Sequence[Step], merge: str = "whitespace"
) -> tuple[list[int], list[int]]:
    """Add a chain of steps under `leaf` that the policy did not sample (a reference solution).

    Steps are merged with equal children that exist already. No sample is counted. The prior mass of a new node is the
    mean of its siblings' masses, or 1 if it has no sibling.
    Returns (ids of the new nodes, ids of all nodes of the chain).
    """
    new: list[int] = []
    chain: list[int] = []
    parent = leaf
    for step in steps:
        siblings = forest.children(parent)
        node = _children_by_key(forest, parent, merge).get(_key(step.text, step.tokens, step.finish, merge))
        if node is None:
            node = _add(forest, parent, step)
            forest.mass[node] = sum(float(forest.mass[n]) for n in siblings) / len(siblings) if siblings else 1.0
            new.append(node)
        chain.append(node)
        parent = node
    return new, chain


def _add(forest: Forest, parent: int, step: Step) -> int:
    reply = ("", 0, 0.0) if step.reply is None else (shown(step.reply), step.reply_length, step.reply.reward)
    node = forest.add_child(parent, step.tokens, step.logprobs, step.text, step.finish, *reply)
    if step.reply is not None and step.reply.done:
        forest.answers[node] = step.reply.answer
    return node


def _children_by_key(forest: Forest, parent: int, merge: str) -> dict[Hashable, int]:
    """The children of a node by what they have in common with steps that are merged with them."""
    return {
        _key(forest.texts[n], forest.step_tokens(n) if merge == "none" else (), int(forest.finish[n]), merge): n
        for n in forest.children(parent)
    }


def _key(text: str, tokens: Sequence[int], finish: int, merge: str) -> Hashable:
    return merge_key(text, tokens, merge), _ending(finish)


def _ending(finish: int) -> int:
    """The kind of end that decides whether steps are merged. 0: continues; 1: was cut; 2: ended in any other way."""
    return 0 if finish == 0 else 1 if finish == LENGTH else 2


def whole_solution(
    sample: Sample,
    before: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptSettings,
    max_steps: int,
    cuts: int = 0,
) -> list[Step]:
    """Cut a sample that runs to the end of its solution into at most `max_steps` steps. The last step holds the rest.

    With `prompt.steps.max_tokens` there may be more steps: the rest is cut like the steps before it.

    before: the solution's tokens before the sample. cuts: the most cuts inside steps; see `inner_cuts`.
    """
    ends = split_steps(sample.tokens, tokenizer, prompt)
    ends = sorted([*ends, *inner_cuts(sample, before, ends, tokenizer, cuts)]) if cuts else ends
    if len(ends) > max_steps and prompt.steps.max_tokens is None:
        ends = [*ends[: max_steps - 1], len(sample.tokens)]
    texts = step_texts(before, sample.tokens, ends, tokenizer)
    last = FINISHES.index(sample.finish)
    return [
        Step(sample.tokens[start:end], sample.logprobs[start:end], text, last if end == len(sample.tokens) else 0)
        for start, end, text in zip([0, *ends], ends, texts, strict=False)
    ]


def acted_steps(
    sample: Sample,
    acted: Acted,
    before: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptSettings,
    environment: Environment,
    *,
    whole: bool,
) -> list[Step]:
    """Cut a sample with an environment's replies into steps, however many they are. The last one ends as the sample.

    before: the solution's tokens before the sample. whole: False: the sample is one step.
    """
    found = parts(sample.tokens, before, acted.replies, tokenizer, prompt, environment, whole=whole)
    last = FINISHES.index(sample.finish)
    return [
        Step(
            sample.tokens[part.start : part.end],
            sample.logprobs[part.start : part.end],
            part.text if part.reply is None else part.text + shown(part.reply),
            last if part is found[-1] else 0,
            part.reply,
            part.end - part.own,
        )
        for part in found
    ]


def inner_cuts(
    sample: Sample, before: Sequence[int], ends: Sequence[int], tokenizer: PreTrainedTokenizerBase, count: int
) -> list[int]:
    """Up to `count` indices in a sample's tokens before which its steps are cut, the most surprising token first.

    before: the solution's tokens before the sample. ends: for each step, the index after its last token.

    A token's surprisal is −log π; ties go to the earlier token. Both parts of what is cut show text, and no cut is
    inside a character.

    Raises InputError if the engine did not give the log-probability of every sampled token.
    """
    if len(sample.logprobs) != len(sample.tokens) or not all(map(math.isfinite, sample.logprobs)):
        raise InputError(
            "search.allocation: cuts at surprising tokens need the log-probability of each sampled token, which this "
            "engine does not give; accepted with it: a rule without cuts, such as fixed"
        )
    whole = [*before, *sample.tokens]
    shown = prefixes(tokenizer, whole)
    text = shown(len(whole))
    bounds, found = [0, *ends], list[int]()
    for cut in sorted(range(1, len(sample.tokens)), key=lambda index: sample.logprobs[index]):
        left, right = max(end for end in bounds if end <= cut), min(end for end in bounds if end >= cut)
        start, middle, stop = (shown(len(before) + index) for index in (left, cut, right))
        if not left < cut < right or not text.startswith(middle):
            continue
        if middle[len(start) :].strip() and stop[len(middle) :].strip():
            found.append(cut)
            bounds.append(cut)
            if len(found) == count:
                break
    return found


def step_texts(
    before: Sequence[int], tokens: Sequence[int], ends: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """The text of each step of `tokens`, without special tokens.

    before: the solution's tokens before the steps. ends: for each step, the index in `tokens` after its last token.

    Each step is decoded together with the tokens before it, because many tokenizers drop a space at the start of a
    text.
    """
    texts, start, skip = [], 0, len(before)
    shown_up_to = prefixes(tokenizer, [*before, *tokens])
    shown = shown_up_to(skip)
    for end in ends:
        longer = shown_up_to(skip + end)
        # If the step before ended inside a character, its text changes with the next token. Then it is decoded alone.
        alone = not longer.startswith(shown)
        texts.append(decode(tokenizer, tokens[start:end]) if alone else longer[len(shown) :])
        shown, start = longer, end
    return texts
