"""Text to token ids, so that text from users and data cannot write control tokens.

In: a tokenizer, the texts that come from users, data or steps, and the prompt that holds them. Out: token ids.
"<|im_end|>" in a question is spelt in ordinary tokens, as `split_special_tokens` of transformers does. The chat
template's own "<|im_end|>" stays one token. A prompt without control tokens in its texts has the tokenizer's own ids.

How: a mark, a character that occurs nowhere else, is put before each control token in a text. The chat template is
rendered with the marks, so it sees the texts as they are. The marks are then removed. Their places say which control
tokens of the rendered text are split.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.templates import render_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SpecialTokens = Literal["split", "allow"]
"""How control tokens in texts from users, data and steps are encoded: split into ordinary tokens, or as they are."""

_MARKS = [*range(0xFDD0, 0xFDF0), *range(0xF0000, 0xFFFFD)]  # no characters, then characters for private use
_AFTER = chr(0xFFFFD)
"""One token of a twin (see `_Control.twin`). It precedes a text that comes after a control token."""
_THOUGHT = re.compile("think|thought|reason", re.IGNORECASE)
_SIDES = ("system", "user", "assistant", "user")


def ids_of(
    tokenizer: PreTrainedTokenizerBase, text: str, *, add_special_tokens: bool = False, **options: Any
) -> list[int]:
    """The ids that the tokenizer itself gives a text.

    Raises InputError if the tokenizer fails. One fails if its pattern backtracks for too long: Rust then panics, with
    an error that is no `Exception`.
    """
    try:
        return list(tokenizer(text, add_special_tokens=add_special_tokens, **options)["input_ids"])
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"the model's tokenizer cannot read a text of {len(text)} characters ({reason})") from None


class Guard:
    """The texts from users and data that go into one prompt; see the module.

    texts: all of them, before any is put into the prompt. special: with "allow", the tokenizer encodes everything.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], special: SpecialTokens) -> None:
        self._tokenizer = tokenizer
        self._mark = ""
        if special == "allow":
            return
        self._control = _control_of(tokenizer)
        given = [text for text in texts if self._control.occurs(text)]
        if given:
            used = set().union(*given)
            self._mark = next(mark for mark in map(chr, _MARKS) if mark not in used)

    def text(self, text: str) -> str:
        """One of the texts as the prompt holds it: with a mark before each control token."""
        return self._control.pattern.sub(lambda found: self._mark + found.group(), text) if self._mark else text

    def without_end(self, text: str) -> str:
        """One of the texts without control tokens at its end. The template writes those itself."""
        if self._mark:
            while found := self._control.at_end.search(text):
                text = text[: found.start()]
        return text

    def bare(self, text: str) -> str:
        """A text without its marks."""
        return text.replace(self._mark, "") if self._mark else text

    def ids(self, prompt: str) -> tuple[int, ...]:
        """The token ids of a prompt that holds texts made by `text`. No special tokens are added around it."""
        if not self._mark or self._mark not in prompt:
            return tuple(ids_of(self._tokenizer, self.bare(prompt)))
        pieces = prompt.split(self._mark)
        marked = set(accumulate(map(len, pieces[:-1])))
        return tuple(self._control.encode("".join(pieces), marked))

    def ids_with_ends(self, prompt: str) -> tuple[int, ...]:
        """As `ids`, with the special tokens that the tokenizer adds around a text."""
        if not self._mark or self._mark not in prompt:
            return tuple(ids_of(self._tokenizer, self.bare(prompt), add_special_tokens=True))
        around, inside = ids_of(self._tokenizer, "a", add_special_tokens=True), list(self.ids("a"))
        starts = (at for at in range(len(around)) if around[at : at + len(inside)] == inside)
        at = next(starts, len(around))
        return (*around[:at], *self.ids(prompt), *around[at + len(inside) :])


class _Control:
    """The control tokens of a tokenizer. names: their text, with their ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, names: dict[str, int]) -> None:
        self.tokenizer = tokenizer
        self.names = names
        self.ids = frozenset(names.values())
        longest_first = sorted(map(re.escape, names), key=len, reverse=True)
        self.pattern = re.compile("|".join(longest_first) or r"(?!)")
        self.at_end = re.compile(f"(?:{self.pattern.pattern})(?=\\s*\\Z)")

    @cached_property
    def twin(self) -> Tokenizer | None:
        """A copy of a fast tokenizer without control tokens, made on first use. None for slow tokenizers."""
        return _twin(self.tokenizer, self.names)

    def occurs(self, text: str) -> bool:
        """Whether the text holds a control token."""
        return bool(self.ids) and self.pattern.search(text) is not None

    def encode(self, text: str, marked: set[int]) -> Iterator[int]:
        """The ids of `text`. A control token that holds one of the offsets `marked` is split."""
        start = 0
        for begin, end, token in chain(self._kept(text, marked), [(len(text), len(text), -1)]):
            yield from self._spelt(text[start:begin], first=start == 0)
            if token >= 0:
                yield token
            start = end

    def _kept(self, text: str, marked: set[int]) -> Iterator[tuple[int, int, int]]:
        """(start, end, id) of the control tokens that stay."""
        if self.twin is None:
            spans = [(*found.span(), self.names[found.group()]) for found in self.pattern.finditer(text)]
        else:
            seen = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            spans = [(*span, token) for span, token in zip(seen["offset_mapping"], seen["input_ids"], strict=True)]
        for begin, end, token in spans:
            if token in self.ids and marked.isdisjoint(range(begin, end)):
                yield begin, end, token

    def _spelt(self, text: str, *, first: bool) -> Iterator[int]:
        """The ids of a text in which nothing is a control token. first: no control token comes before it."""
        if not text:
            return
        ids, cuts = self._tokens(text, first)
        if cuts:
            # In some vocabularies "</s>" is also an ordinary word. Cut in two, it is not.
            for begin, end in pairwise([0, *cuts, len(text)]):
                yield from self._spelt(text[begin:end], first=first and begin == 0)
        else:
            yield from (token for token in ids if token not in self.ids)

    def _tokens(self, text: str, first: bool) -> tuple[list[int], list[int]]:
        """The ids of a text that is encoded without control tokens, and where to cut it if some remain."""
        if self.twin is None:
            ids = ids_of(self.tokenizer, text, split_special_tokens=True)
            spans = [found.span() for found in self.pattern.finditer(text)] if self.ids.intersection(ids) else []
        else:
            lead = "" if first else _AFTER
            found = self.twin.encode(lead + text, add_special_tokens=False)
            ids = found.ids[bool(lead) :]
            spans = [
                (begin - len(lead), end - len(lead))
                for token, (begin, end) in zip(found.ids, found.offsets, strict=True)
                if token in self.ids
            ]
        return ids, [begin + 1 for begin, end in spans if end - begin > 1]


_controls: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[object, _Control]] = WeakKeyDictionary()


def _control_of(tokenizer: PreTrainedTokenizerBase) -> _Control:
    state = (
        len(tokenizer),
        getattr(tokenizer, "chat_template", None),
        str(getattr(tokenizer, "special_tokens_map", "")),
    )
    known = _controls.get(tokenizer)
    if known is None or known[0] != state:
        known = _controls[tokenizer] = (state, _find_control(tokenizer))
    return known[1]


def _find_control(tokenizer: PreTrainedTokenizerBase) -> _Control:
    names = dict(
        zip(getattr(tokenizer, "all_special_tokens", ()), getattr(tokenizer, "all_special_ids", ()), strict=True)
    )
    added = getattr(tokenizer, "added_tokens_decoder", {})
    names |= {token.content: index for index, token in added.items() if token.special}
    turns = set() if all(token.special for token in added.values()) else _turn_marks(tokenizer)
    names |= {token.content: index for index, token in added.items() if index in turns}
    return _Control(tokenizer, {name: index for name, index in names.items() if name})


def _turn_marks(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids that the chat template writes around the turns of a conversation, except the marks of thoughts.

    Some tokenizers do not list these tokens as special (DeepSeek's "<｜User｜>").
    """
    turns = [{"role": role, "content": "a"} for role in _SIDES]
    for conversation in (turns, turns[1:], turns[-1:]):
        try:
            text = render_chat(tokenizer, conversation, add_generation_prompt=True)
        except Exception:  # a template can raise anything, here because of a system message
            continue
        ids = ids_of(tokenizer, text)
        return {token for token in ids if not _THOUGHT.search(str(tokenizer.convert_ids_to_tokens(token)))}
    return set()


def _twin(tokenizer: PreTrainedTokenizerBase, names: dict[str, int]) -> Tokenizer | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return None
    state = json.loads(backend.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["content"] in names
    state["truncation"] = state["padding"] = None
    index = 1 + max(backend.get_vocab(with_added_tokens=True).values(), default=-1)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    state["added_tokens"].append({"id": index, "content": _AFTER, **flags})
    twin: Tokenizer = Tokenizer.from_str(json.dumps(state))
    twin.encode_special_tokens = True
    return twin
