"""Cuts a solution into steps, exactly in token ids.

In: token ids, their tokenizer, `StepSettings`. Out: offsets where steps end. A step is a list of the policy's own
tokens; nothing is tokenised again. Most kinds of steps end with a token (the one that completes a line, a paragraph, a
sentence). A step of kind `markers` ends before a token: the one with which the next step's first word begins.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field, model_validator

from mcts_dpo.common.settings import Settings
from mcts_dpo.models.decoding import prefixes
from verifiers.read.thoughts import may_think, thought_spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBES = ("", "a", "The answer is 12.\n\nWait, no: 3 + 4 = 7! \\boxed{7}\n")
_BLANK_LINE = "\n\n"


class StepSettings(Settings):
    """What a step is. Kinds other than `text` also end a step at a mark that closes a thought.

    kind:       "text": it ends with the token that completes `prompt.step_end`. "regex": with the token that completes
                a match of `pattern`. "paragraphs": at a blank line. "sentences": at the end of a sentence or a line.
                "markers": before one of `markers`.
    pattern:    of kind regex: a regular expression of Python.
    markers:    of kind markers: words with which a new step begins, as whole words and in this case.
    min_tokens: a shorter step includes the next one. The last step may be shorter.
    max_tokens: a longer step is cut after so many tokens, also the last one of a solution. With `expand: step` it
                replaces `search.max_step_tokens`; a step that reaches it continues in the next step.
    """

    kind: Literal["text", "regex", "paragraphs", "sentences", "markers"] = "text"
    pattern: str | None = None
    markers: tuple[str, ...] = ("Wait", "But", "Alternatively", "Hmm", "So", "Now", "Let me", "Then", "Therefore")
    min_tokens: int = Field(default=1, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _coherent(self) -> StepSettings:
        if (self.kind == "regex") != (self.pattern is not None):
            raise ValueError(f"pattern {self.pattern!r} with kind {self.kind}; accepted: one with kind regex only")
        if self.pattern is not None:
            try:
                pattern = re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"pattern {self.pattern!r} is no regular expression ({error})") from None
            if any(not found.group() for probe in _PROBES for found in pattern.finditer(probe)):
                raise ValueError(
                    f"pattern {self.pattern!r} matches the empty string, so every token would end a step; "
                    "accepted: a pattern that matches at least one character"
                )
        if self.kind == "markers" and (not self.markers or not all(marker.strip() for marker in self.markers)):
            raise ValueError(f"markers {list(self.markers)}; accepted: at least one word, none of them blank")
        if self.max_tokens is not None and self.max_tokens < self.min_tokens:
            raise ValueError(f"max_tokens {self.max_tokens} is below min_tokens {self.min_tokens}; accepted: not below")
        return self

    @property
    def by_stop_strings(self) -> bool:
        """Whether a step ends exactly where an engine meets one of `stop_strings`: nothing is sampled in vain."""
        return self.kind in ("text", "paragraphs") and self.min_tokens == 1

    def stop_strings(self, step_end: str) -> tuple[str, ...]:
        """Strings at which an engine can stop, because a step ends there or a little earlier."""
        if self.kind == "text":
            return (step_end,)
        if self.kind == "paragraphs":
            return (_BLANK_LINE,)
        if self.kind == "sentences":
            return ("\n", *(f"{sign}{after}" for sign in ".!?" for after in (" ", ") ", '" ')), "。")
        if self.kind == "markers":
            return tuple(f"{space}{marker}" for marker in self.markers for space in (" ", "\n"))
        return ()


class _End(NamedTuple):
    """The end of a step. at: characters of the text. before: it ends before the token that reaches over them."""

    at: int
    before: bool = False


def split(
    tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase, settings: StepSettings, step_end: str = "\n"
) -> list[int]:
    """Where the steps of a solution end: offsets into `tokens`, ascending; step i is tokens[ends[i-1]:ends[i]].

    The token that completes the end of a step belongs to it with all it holds (".\\n" and "\\n\\n" are single tokens in
    many vocabularies). A step of only white space or special tokens joins the step before it, or at the start the step
    after it. The last offset is len(tokens). Without tokens there are no steps.
    """
    return _split(tokens, tokenizer, settings, step_end)[0]


def first_step(
    tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase, settings: StepSettings, step_end: str = "\n"
) -> int | None:
    """Where the first step ends, as `split` has it; None if its end is not among the tokens yet."""
    ends, complete = _split(tokens, tokenizer, settings, step_end)
    return ends[0] if len(ends) > 1 or complete else None


def _split(
    tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase, settings: StepSettings, step_end: str
) -> tuple[list[int], bool]:
    """The ends of `split`, and whether a single step is complete: an end was found, not only the end of the text."""
    decode = prefixes(tokenizer, tokens)
    text = decode(len(tokens))
    find = _finder(settings, step_end, text)
    counts = range(len(tokens) + 1)
    ends: list[int] = []
    lengths: list[int] = []  # of the text up to each end
    token, found = 0, find(0)
    while found is not None:
        if found.before:
            token = bisect_right(counts, found.at, key=lambda count: len(decode(count))) - 1
        else:
            token = _completing(decode, text[: found.at], token, len(tokens))
        ends.append(token)
        lengths.append(len(decode(token)))
        found = find(max(found.at + found.before, lengths[-1]))
    complete = any(
        end >= settings.min_tokens and text[:length].strip() for end, length in zip(ends, lengths, strict=True)
    )
    ends.append(len(tokens))
    lengths.append(len(text))
    steps: list[int] = []
    start = 0
    for end, length in zip(ends, lengths, strict=True):
        if not text[start:length].strip():
            if steps:
                steps[-1], start = end, length
        elif not steps or end > steps[-1]:
            steps.append(end)
            start = length
    return list(_sized(steps, settings, decode)) or ([len(tokens)] if tokens else []), complete


def _completing(decode: Callable[[int], str], reach: str, low: int, high: int) -> int:
    """The first number of tokens whose text begins with `reach`, between two numbers.

    Whole prefixes are decoded: a single token has no text of its own if a character spans several tokens, or if the
    decoder joins words with spaces.
    """
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if decode(middle).startswith(reach) else (middle + 1, high)
    return low


def _sized(ends: Sequence[int], settings: StepSettings, decode: Callable[[int], str]) -> Iterator[int]:
    """The ends of steps of at least `min_tokens` and at most `max_tokens` tokens."""
    start, most = 0, settings.max_tokens
    for end in ends:
        while most is not None and end - start > most:
            # Not inside a character, if another place will do.
            cuts = (cut for cut in range(start + most, start + settings.min_tokens - 1, -1) if _whole(decode, cut))
            cut = next(cuts, start + most)
            shown, whole = decode(cut), decode(end)
            if whole.startswith(shown) and not whole[len(shown) :].strip():
                break  # white space and special tokens join the step before them
            yield cut
            start = cut
        if end - start >= settings.min_tokens or end == ends[-1]:
            yield end
            start = end


def _whole(decode: Callable[[int], str], count: int) -> bool:
    """Whether no character is cut after so many tokens."""
    return not decode(count).endswith("\ufffd")


Find = Callable[[int], "_End | None"]
"""From a place in a text to the first end of a step after it."""


def _finder(settings: StepSettings, step_end: str, text: str) -> Find:
    if settings.kind == "text":
        return lambda start: _after(text, step_end, start)
    find = _FINDERS[settings.kind](settings, text)
    spans = thought_spans(text) if may_think(text) else []
    closings = [len(text) - len(text[end:].lstrip("\n")) for _, end in spans if end is not None]

    def first(start: int) -> _End | None:
        found = find(start)
        closing = next((end for end in closings if end > start), None)
        return found if closing is None or (found is not None and found.at <= closing) else _End(closing)

    return first


def _after(text: str, mark: str, start: int) -> _End | None:
    at = text.find(mark, start)
    return None if at < 0 else _End(at + len(mark))


def _paragraphs(settings: StepSettings, text: str) -> Find:
    return lambda start: _after(text, _BLANK_LINE, start)


def _regex(settings: StepSettings, text: str) -> Find:
    pattern = re.compile(settings.pattern or "")

    def find(start: int) -> _End | None:
        return next((_End(one.end()) for one in pattern.finditer(text, start) if one.group()), None)

    return find


_SENTENCE = re.compile(r"""[.!?…]+["'”’)\]}*]*(?=\s)|[。！？]|\n""")
_NO_SENTENCE = re.compile(r"(?:(?:^|\n)\s*\(?\d{1,3}|\b(?:e\.g|i\.e|Mr|Mrs|Ms|Dr|vs|Fig|Eq|cf|approx|resp))$")
"""What the dot after it does not end: the number of a list's item, an abbreviation."""


def _sentences(settings: StepSettings, text: str) -> Find:
    def ends(one: re.Match[str]) -> bool:
        return one.group()[0] != "." or not _NO_SENTENCE.search(text[max(0, one.start() - 12) : one.start()])

    return lambda start: next((_End(one.end()) for one in _SENTENCE.finditer(text, start) if ends(one)), None)


def _markers(settings: StepSettings, text: str) -> Find:
    pattern = _marker_pattern(settings.markers)

    def find(start: int) -> _End | None:
        found = pattern.search(text, start)
        return None if found is None else _End(found.start(), before=True)

    return find


@lru_cache(maxsize=16)
def _marker_pattern(markers: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted((marker.strip() for marker in markers), key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")


_FINDERS: dict[str, Callable[[StepSettings, str], Find]] = {
    "paragraphs": _paragraphs,
    "regex": _regex,
    "sentences": _sentences,
    "markers": _markers,
}
