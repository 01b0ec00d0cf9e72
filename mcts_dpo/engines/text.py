"""Stop strings: does a growing token sequence complete one?

The question is asked for every sampled token, and a table over the vocabulary answers it in most cases: for each set of
stop strings it says which tokens can complete one (their text holds the last character of a stop string, or a fragment
of a character). Only after such a token the end of the sequence is decoded and searched.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mcts_dpo.engines.base import Request, Sample
from mcts_dpo.models.decoding import decode_batch, known_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FRAGMENT = "�"
_TABLES = 64
"""Tables that are kept. Each takes a byte per token of the vocabulary; a server's clients choose the stop strings."""


class StopStrings:
    """Stop strings of one tokenizer. A table is made when a set of stop strings is first used."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._pieces: list[str] | None = None
        self._tables: OrderedDict[frozenset[str], NDArray[np.bool_]] = OrderedDict()

    def table(self, stops: tuple[str, ...]) -> NDArray[np.bool_]:
        """bool [vocabulary]: whether a token can complete one of `stops`."""
        ends = {stop[-1] for stop in stops if stop}
        if any(not end.isascii() for end in ends):
            ends.add(_FRAGMENT)
        key = frozenset(ends)
        if key not in self._tables:
            made = [not ends.isdisjoint(piece) for piece in self._piece_table()]
            self._tables[key] = np.array(made, dtype=np.bool_)
            if len(self._tables) > _TABLES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key]

    def completed(self, tokens: Sequence[int], stops: tuple[str, ...]) -> bool:
        """Whether the text of `tokens` contains one of `stops`, if it did not before the last token."""
        tail = self.decode(self._tail(tokens, max(len(stop.encode()) for stop in stops)))
        return any(stop in tail for stop in stops)

    def _tail(self, tokens: Sequence[int], size: int) -> Sequence[int]:
        """The last of `tokens`, enough for the last `size` bytes of the text and a few more.

        Every token with text adds at least a byte. Special tokens and padding add none.
        """
        pieces, start, missing = self._piece_table(), len(tokens), size + 12
        while start > 0 and missing > 0:
            start -= 1
            missing -= bool(pieces[tokens[start]])
        return tokens[start:]

    def completed_visibly(self, tokens: Sequence[int], stops: tuple[str, ...]) -> bool:
        """Whether the text of `tokens` contains one of `stops`; white space counts only after a visible character."""
        text = self.decode(tokens)
        blank = len(text) - len(text.lstrip())
        return any(text.find(stop, blank if stop.isspace() else 0) >= 0 for stop in stops)

    def visible_end(self, tokens: Sequence[int], stops: tuple[str, ...]) -> int | None:
        """The smallest number of `tokens` for which `completed_visibly` is true; None if there is none."""
        if not self.completed_visibly(tokens, stops):
            return None
        return next(count for count in range(1, len(tokens) + 1) if self.completed_visibly(tokens[:count], stops))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, special tokens left out."""
        return decode_batch(self._tokenizer, [list(tokens)])[0]

    def _piece_table(self) -> list[str]:
        """The text that each token can add: decoded alone, and after another token (which may add a space)."""
        if self._pieces is None:
            size = min(self._vocabulary, 1 + max(known_ids(self._tokenizer), default=-1))
            alone = decode_batch(self._tokenizer, [[i] for i in range(size)])
            anchor = next((i for i in range(size) if alone[i].strip().isalnum() and alone[i].isascii()), None)
            if anchor is None:
                self._pieces = alone
            else:
                lead = len(self.decode([anchor]))
                after = decode_batch(self._tokenizer, [[anchor, i] for i in range(size)])
                self._pieces = [a + b[lead:] for a, b in zip(alone, after, strict=True)]
            # Rows of the embedding beyond the tokenizer's vocabulary have no text.
            self._pieces += [""] * (self._vocabulary - size)
        return self._pieces


def continued(
    text: StopStrings, request: Request, limit: int, before: Sample | None, sample: Sample
) -> tuple[Sample, bool]:
    """Join the parts of a sample, for engines that stop at a blank line although `request.visible` is set.

    Args:
        text: the stop strings of the engine's tokenizer.
        request: with `visible`.
        limit: tokens that the sample may have.
        before: the parts so far, joined; None for the first part.
        sample: the next part.

    Returns:
        The joined sample, cut where the whole text completes a stop string; and whether to sample a further part.
    """
    if before is not None:
        tokens = before.tokens + sample.tokens
        sample = Sample(tokens, text.decode(tokens), before.logprobs + sample.logprobs, sample.finish)
    end = text.visible_end(sample.tokens, request.stop)
    if end is not None and (end < len(sample.tokens) or sample.finish == "length"):
        tokens = sample.tokens[:end]
        return Sample(tokens, text.decode(tokens), sample.logprobs[:end], "stop"), False
    if sample.finish != "stop" or end is not None:
        return sample, False
    if len(sample.tokens) >= limit:
        return Sample(sample.tokens, sample.text, sample.logprobs, "length"), False
    return sample, True
