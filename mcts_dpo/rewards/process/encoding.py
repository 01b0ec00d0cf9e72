"""From a path of a search to what a judge reads, within the judge's context.

In: a question and a path. Out: `Encoded`, or None if the judge can say nothing about it. Text goes in for the families
of other people, whose tokenizers differ from the policy's. Our own judges read the policy's ids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mcts_dpo.rewards.base import SolutionPath
from mcts_dpo.rewards.process.layouts import MARK, Encoded, Layout

Encode = Callable[[str, SolutionPath, int], Encoded | None]
"""(question, path, k) → the path without its first k steps; None if no step is left."""


def text_encoder(layout: Layout, tag: int | None) -> Encode:
    """Encodes the texts of a path's steps; steps of white space only are skipped.

    tag: the token at the places, None if there is none. A path in which it is lost is not encoded.
    """

    def encode(question: str, path: SolutionPath, first: int) -> Encoded | None:
        steps = [(index, text) for index, text in enumerate(_texts(path)) if text and index >= first]
        if not steps:
            return None
        found = layout(question.replace(MARK, ""), [text for _, text in steps])
        if tag is not None and any(found.ids[place] != tag for place in found.places):
            return None
        return replace(found, steps=tuple(index for index, _ in steps))

    return encode


def _texts(path: SolutionPath) -> list[str]:
    """The steps' texts, stripped. What precedes the first step (`PromptSettings.prefill`) belongs to it."""
    steps = list(path.steps) or [path.text]
    if path.text.endswith(joined := "".join(steps)):
        steps[0] = path.text.removesuffix(joined) + steps[0]
    return [step.replace(MARK, "").strip() for step in steps]


def policy_encoder(question: str, path: SolutionPath, first: int) -> Encoded | None:
    """Encodes a path as the policy's own ids; the place of a step is its last token."""
    ends = path.ends or (len(path.tokens),)
    begin = ends[first - 1] if first else 0
    steps = [index for index in range(first, len(ends)) if ends[index] > (ends[index - 1] if index else 0)]
    if not steps:
        return None
    places = tuple(len(path.prompt) + ends[index] - begin - 1 for index in steps)
    return Encoded((*path.prompt, *path.tokens[begin:]), places, len(path.prompt), tuple(steps))


def fitted(encode: Encode, context: int, question: str, path: SolutionPath) -> tuple[Encoded | None, int]:
    """The path without the leading steps that exceed `context` tokens, and how many were cut.

    None if it cannot be encoded, or if its last step alone is too long.
    """
    for first in range(max(1, len(path.steps), len(path.ends))):
        found = encode(question, path, first)
        if found is None or len(found.ids) <= context:
            return found, first
    return None, 0
