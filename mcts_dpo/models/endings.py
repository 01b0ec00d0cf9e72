"""How a policy's answers end: exactly once, with the token that its chat template writes there.

Many templates end a turn with another token than the tokenizer's end of sequence ("<|im_end|>" beside "<|endoftext|>"),
and many texts carry an end of their own. In: token ids of an answer. Out: the same ids up to one end.
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
"""Special tokens that end a turn or a text in the families that use them, whatever their configuration says."""


@dataclass(frozen=True, slots=True)
class Endings:
    """The tokens that end an answer.

    sequence: the tokenizer's end of sequence; None if it has none.
    turn:     the control token that its chat template writes behind what an assistant says; None without one.
    others:   further special tokens that end a turn or a text, as texts bring them along.
    blank:    ids of the tokens of white space that a template may write between two ends.
    """

    sequence: int | None
    turn: int | None
    others: frozenset[int] = frozenset()
    blank: frozenset[int] = frozenset()

    def after(self, prompt: str | None, ids: Sequence[int]) -> int | None:
        """The token to end an answer with that has no end: the template's after a conversation, also one that is text
        already; the end of sequence after other text.

        prompt: None for a conversation that the template rendered. ids: of the prompt.
        """
        templated = prompt is None or self.turn in ids
        return self.turn if templated and self.turn is not None else self.sequence

    def closed(self, answer: list[int], end: int | None) -> list[int]:
        """An answer up to its end, which `end` becomes if it has none; what a template writes after it, no policy ever
        samples. Of several ends in a row, with or without white space between them, one is left. end None: as it is.
        """
        if end is None:
            return answer
        run = self._last_run(answer)
        if not run:
            return [*answer, end]
        return [*answer[: run[0]], end if end in (answer[place] for place in run) else answer[run[0]]]

    def cut(self, answer: list[int]) -> list[int]:
        """An answer up to its end; all of it if it has none."""
        run = self._last_run(answer)
        return answer[: run[0] + 1] if run else answer

    def _last_run(self, answer: Sequence[int]) -> list[int]:
        """The places of the last ends, between which there is nothing but white space; in order."""
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
    """Ids of the special tokens of a tokenizer that are among `USUAL_ENDS`."""
    special, known = _special(tokenizer), tokenizer.get_vocab()
    return {known[name] for name in USUAL_ENDS if known.get(name) in special}


def _special(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    return set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))


def _tail(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of what the chat template writes after the words of the assistant who speaks last; none without one."""
    said = {"role": "assistant", "content": _SAID}
    try:
        text = render_chat(tokenizer, [{"role": "user", "content": "a"}, said])
    except Exception:  # no template, or one that wants other messages
        return []
    _, found, tail = text.rpartition(_SAID)
    return list(tokenizer(tail, add_special_tokens=False)["input_ids"]) if found else []


def _blanks(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [token for text in ("\n", " ", "\n\n") for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def _is_blank(tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
    return not str(tokenizer.decode([token])).strip()
