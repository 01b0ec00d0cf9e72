"""How a policy's answers end: exactly once, with the token that its chat template writes there.

Many templates end a turn with a token that is not the tokenizer's end of sequence ("<|im_end|>", not "<|endoftext|>").
Many texts also end with such a token already. In: token ids of an answer. Out: the same ids up to one end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mcts_dpo.models.templates import render_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAID = "SAID"
USUAL_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>", "<|end|>", "</s>")
"""Special tokens that end a turn or a text in the model families that use them."""


@dataclass(frozen=True, slots=True)
class Endings:
    """The tokens that end an answer.

    sequence: the tokenizer's end of sequence; None if it has none.
    turn:     the control token that the chat template writes after the assistant's text; None without one.
    others:   further special tokens that end a turn or a text. Texts of data sets can hold them.
    blank:    ids of white-space tokens that a template may write between two ends.
    """

    sequence: int | None
    turn: int | None
    others: frozenset[int] = frozenset()
    blank: frozenset[int] = frozenset()

    def after(self, prompt: str | None, ids: Sequence[int]) -> int | None:
        """The token that ends an answer without an end.

        After a conversation (also one that is text already) it is the template's; after other text, the end of
        sequence. prompt: None for a conversation that the template rendered. ids: of the prompt.
        """
        templated = prompt is None or self.turn in ids
        return self.turn if templated and self.turn is not None else self.sequence

    def closed(self, answer: list[int], end: int | None) -> list[int]:
        """An answer up to and with its end. An answer without one gets `end`, unless `end` is None.

        Tokens after the end are dropped: a template writes them, and no policy samples them. Several ends in a row,
        also with white space between them, become one.
        """
        if end is None:
            return answer
        run = self._last_run(answer)
        if not run:
            return [*answer, end]
        return [*answer[: run[0]], end if end in (answer[place] for place in run) else answer[run[0]]]

    def cut(self, answer: list[int]) -> list[int]:
        """An answer up to its end, or all of it if it has none."""
        run = self._last_run(answer)
        return answer[: run[0] + 1] if run else answer

    def _last_run(self, answer: Sequence[int]) -> list[int]:
        """The indices of the last ends that have only white space between them, in order."""
        marks = {self.sequence, self.turn, *self.others}
        places = [place for place, token in enumerate(answer) if token in marks]
        run = places[-1:]
        for place in reversed(places[:-1]):
            if not self.blank.issuperset(answer[place + 1 : run[0]]):
                break
            run.insert(0, place)
        return run


def endings(tokenizer: PreTrainedTokenizerBase) -> Endings:
    """How answers end for a tokenizer and its chat template."""
    sequence = tokenizer.eos_token_id
    tail = _tail(tokenizer)
    visible = [token for token in tail if not _is_blank(tokenizer, token)]
    turn = visible[0] if visible and visible[0] in _special(tokenizer) else None
    blank = frozenset(token for token in (*tail, *_blanks(tokenizer)) if _is_blank(tokenizer, token))
    others = frozenset(usual_ends(tokenizer))
    return Endings(sequence if isinstance(sequence, int) else None, turn, others, blank)


def usual_ends(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of the special tokens of a tokenizer that are among `USUAL_ENDS`.

    Where an answer has channels (gpt-oss), "<|end|>" ends a channel: an answer follows the thought in the same turn.
    """
    special, known = _special(tokenizer), tokenizer.get_vocab()
    passed = {"<|end|>"} if "<|channel|>" in known else set()
    return {known[name] for name in USUAL_ENDS if known.get(name) in special and name not in passed}


def _special(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    return set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))


def _tail(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that the chat template writes after the last words of the assistant; empty without a template."""
    said = {"role": "assistant", "content": _SAID}
    try:
        text = render_chat(tokenizer, [{"role": "user", "content": "a"}, said])
    except Exception:  # no template, or one that needs other messages
        return []
    _, found, tail = text.rpartition(_SAID)
    return list(tokenizer(tail, add_special_tokens=False)["input_ids"]) if found else []


def _blanks(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [token for text in ("\n", " ", "\n\n") for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def _is_blank(tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
    return not str(tokenizer.decode([token])).strip()
