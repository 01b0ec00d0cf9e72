"""Phases of a solution: before a thought, in it, after it.

A policy that thinks writes its thought between two marks ("<think>", "</think>"). The prompt may hold the opening mark,
or the policy writes it. In: text or token ids of a solution, the text before it, and marks. Out: the phase of each
token, and where a solution may state its answer. `KNOWN` lists the marks of today's model families; reading knows all
marks of `verifiers` too, in any case of letters.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from mcts_dpo.common.settings import Settings, nearest
from mcts_dpo.models.decoding import prefixes
from verifiers.read import thoughts
from verifiers.read.thoughts import known_thoughts, may_think, thought_spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Phase = Literal["none", "thought", "after"]
"""Not thinking so far; in a thought, its marks included; after a thought."""


class ThoughtMarks(Settings):
    """The marks of a thought.

    opening: what begins it, as text. closing: what ends it.
    skip:    the text that begins an answer without a thought; null: an empty thought.
    close:   the text that ends a thought by force; null: the closing mark and a blank line.
    """

    opening: str = Field(min_length=1)
    closing: str = Field(min_length=1)
    skip: str | None = None
    close: str | None = None

    @model_validator(mode="after")
    def _differ(self) -> ThoughtMarks:
        if not self.opening.strip() or not self.closing.strip() or self.opening == self.closing:
            raise ValueError(
                f"opening {self.opening!r} and closing {self.closing!r}; accepted: two different texts, not blank"
            )
        return self

    @property
    def closes(self) -> str:
        """The text that ends a thought by force."""
        return f"{self.closing}\n\n" if self.close is None else self.close

    @property
    def skips(self) -> str:
        """The text that begins an answer without a thought."""
        return f"{self.opening}\n\n{self.closes}" if self.skip is None else self.skip


def _tags(name: str) -> ThoughtMarks:
    return ThoughtMarks(opening=f"<{name}>", closing=f"</{name}>")


KNOWN: tuple[ThoughtMarks, ...] = (
    _tags("think"),  # Qwen3, DeepSeek-R1, GLM-4.5, Phi-4-reasoning, SmolLM3, QwQ, Nemotron, MiniMax-M1, Granite 3.3
    _tags("seed:think"),
    ThoughtMarks(opening="[THINK]", closing="[/THINK]", close="[/THINK]", skip="[THINK][/THINK]"),  # Magistral
    ThoughtMarks(  # gpt-oss
        opening="<|channel|>analysis",
        closing="<|channel|>final",
        close="<|end|><|start|>assistant<|channel|>final<|message|>",
        skip="<|channel|>final<|message|>",
    ),
    ThoughtMarks(  # Command A Reasoning
        opening="<|START_THINKING|>",
        closing="<|END_THINKING|>",
        close="<|END_THINKING|><|START_RESPONSE|>",
        skip="<|START_THINKING|><|END_THINKING|><|START_RESPONSE|>",
    ),
    ThoughtMarks(opening="◁think▷", closing="◁/think▷"),  # Kimi-VL-Thinking
    ThoughtMarks(opening="<|channel>thought", closing="<channel|>"),
    ThoughtMarks(opening="<|begin_of_thought|>", closing="<|end_of_thought|>"),
    *map(_tags, ("thought", "thinking", "reasoning", "longcat_think", "ant:thinking")),
)
"""The marks of model families, as they write them. The first that a chat template holds is that policy's."""


def known_marks(name: str) -> ThoughtMarks:
    """The marks with this opening mark, in any case of letters. Raises KeyError for an unknown one."""
    found = next((marks for marks in KNOWN if marks.opening.lower() == name.lower()), None)
    return found or ThoughtMarks(opening=name, closing=dict(known_thoughts())[name.lower()])


def unknown_mark(name: str) -> str:
    """What is wrong with an opening mark that `known_marks` does not know, and what is accepted."""
    names = [marks.opening for marks in KNOWN]
    close = nearest(name, names)
    hint = f"did you mean {close!r}?" if close else f"accepted: {', '.join(names)}, or {{opening: …, closing: …}}"
    return f"{name!r} opens no thought that is known; {hint}"


def marks_in(text: str) -> ThoughtMarks | None:
    """The marks that a chat template writes or reads; None if it knows no thoughts."""
    return next((marks for marks in KNOWN if marks.opening in text or marks.closing in text), None)


def pairs_of(marks: Sequence[ThoughtMarks]) -> tuple[tuple[str, str], ...]:
    """Marks as pairs (opening, closing), as `verifiers` takes them."""
    return tuple((one.opening, one.closing) for one in marks)


def phase(text: str, marks: Sequence[ThoughtMarks] = ()) -> Phase:
    """The phase that continues after a text, which includes what the prompt opens. marks: beside the known ones."""
    if not marks and not may_think(text):
        return "none"
    spans = thought_spans(text, more=pairs_of(marks))
    return "none" if not spans else "thought" if spans[-1][1] is None else "after"


def open_marks(text: str, marks: Sequence[ThoughtMarks] = ()) -> ThoughtMarks | None:
    """The marks of the thought that is open at the end of a text; None if none is open. See `phase`."""
    spans = thought_spans(text, more=pairs_of(marks)) if marks or may_think(text) else []
    if not spans or spans[-1][1] is not None:
        return None
    begun = text[spans[-1][0] :].lower()
    candidates = [*marks, *KNOWN, *(ThoughtMarks(opening=one, closing=other) for one, other in known_thoughts())]
    found = [one for one in candidates if begun.startswith(one.opening.lower())]
    return max(found, key=lambda one: len(one.opening), default=KNOWN[0])


def parted(text: str, before: str = "", marks: Sequence[ThoughtMarks] = ()) -> tuple[str, str]:
    """A solution's thoughts, and its other text; neither holds the marks, nor line breaks at its start.

    before: what the prompt opens; it is in neither.
    """
    whole = before + text
    spans = thought_spans(whole, more=pairs_of(marks)) if marks or may_think(whole) else []
    inside, outside, at = [], [], len(before)
    for start, end in spans:
        outside.append(whole[at : max(at, start)])
        inside.append(_unmarked(whole[start:end], end is not None, marks))
        at = len(whole) if end is None else end
    return "".join(inside).lstrip("\n"), "".join((*outside, whole[at:])).lstrip("\n")


def _unmarked(thought: str, closed: bool, marks: Sequence[ThoughtMarks]) -> str:
    """A thought without its marks and what its template writes after the opening one ("<|message|>" is no text)."""
    low, pairs = thought.lower(), (*pairs_of(marks), *known_thoughts())
    opening = max((one for one, _ in pairs if low.startswith(one.lower())), key=len, default="")
    closing = max((one for _, one in pairs if closed and low.endswith(one.lower())), key=len, default="")
    return thought[len(opening) : len(thought) - len(closing)]


def thought_tokens(
    tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase, before: str = "", marks: Sequence[ThoughtMarks] = ()
) -> list[tuple[int, int]]:
    """The thoughts of a solution as ranges [start, end) of its tokens; see `token_phases`."""
    up_to = prefixes(tokenizer, tokens)
    counts = range(len(tokens) + 1)

    def length(count: int) -> int:
        return len(up_to(count))

    def first_over(place: int) -> int:
        return bisect_right(counts, place, key=length) - 1

    def all_up_to(place: int | None) -> int:
        return len(tokens) if place is None else bisect_left(counts, place, key=length)

    spans = thought_spans(up_to(len(tokens)), before, pairs_of(marks))
    return [(first_over(start), all_up_to(end)) for start, end in spans]


def token_phases(
    tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase, before: str = "", marks: Sequence[ThoughtMarks] = ()
) -> list[Phase]:
    """The phase of each token of a solution. A token that holds a part of a mark belongs to the thought.

    before: the text before the solution, from the question's end on; a thought that is open there continues.
    marks: beside the known ones.
    """
    phases: list[Phase] = ["none" if phase(before, marks) == "none" else "after"] * len(tokens)
    for start, end in thought_tokens(tokens, tokenizer, before, marks):
        phases[start:] = ["after"] * (len(tokens) - start)
        phases[start:end] = ["thought"] * (end - start)
    return phases


def without_thoughts(text: str, marks: Sequence[ThoughtMarks], before: str = "") -> str:
    """A text without its thoughts if there are `marks` beside the known ones; else the text as it is.

    `verifiers` leaves thoughts in known marks out. before: the text before it; a thought that is open there continues.
    """
    return thoughts.without_thoughts(text, before, pairs_of(marks)) if marks else text
