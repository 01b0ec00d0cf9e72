"""Stop strings: the table may ask too often, never too seldom."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mcts_dpo.engines.base import Request, Sample
from mcts_dpo.engines.text import StopStrings, continued
from tests.engines.tiny import make_byte_tokenizer, make_tokenizer


def make_spaced_tokenizer() -> PreTrainedTokenizerFast:
    """Without a decoder, tokens are joined by spaces: the space comes with the second token."""
    names = ["<unk>", "<eos>", "the", "answer", "is", "."]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")


class Slow:
    """A tokenizer that is not backed by a Rust one: only what StopStrings may rely on. Unknown ids are an error."""

    def __init__(self, inner: PreTrainedTokenizerFast) -> None:
        self._inner = inner

    def __len__(self) -> int:
        return len(self._inner)

    def decode(self, tokens: list[int], **options: bool) -> str:
        assert options == {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        assert all(token < len(self) for token in tokens)
        return str(self._inner.decode(tokens, skip_special_tokens=True))


TOKENIZERS = {
    "joined": (make_tokenizer(), ["a", "ab", "\n\n", "is 1", "bab", ".", " "]),
    "bytes": (make_byte_tokenizer(), ["a", "é", "€", "aü", "\n"]),
    "spaced": (make_spaced_tokenizer(), ["answer is", "s .", " ", "e"]),
    "slow": (Slow(make_tokenizer()), ["ab", "\n\n", "12"]),
}


@settings(max_examples=200, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(TOKENIZERS)))
def test_the_completing_token_is_always_found(data: st.DataObject, name: str) -> None:
    tokenizer, candidates = TOKENIZERS[name]
    stops = tuple(data.draw(st.lists(st.sampled_from(candidates), min_size=1, max_size=3, unique=True)))
    strings = StopStrings(tokenizer, len(tokenizer) + 5)
    tokens = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), min_size=1, max_size=60))
    table = strings.table(stops)
    for end in range(1, len(tokens) + 1):
        found = any(stop in strings.decode(tokens[:end]) for stop in stops)
        assert (table[tokens[end - 1]] and strings.completed(tokens[:end], stops)) == found
        if found:
            return


@settings(max_examples=200, deadline=None)
@given(data=st.data(), name=st.sampled_from(["joined", "bytes"]))
def test_an_engine_that_stops_at_blank_lines_comes_to_the_same_samples(data: st.DataObject, name: str) -> None:
    tokenizer, candidates = TOKENIZERS[name]
    stops = tuple(data.draw(st.lists(st.sampled_from(["\n", "\na", *candidates]), min_size=1, max_size=3, unique=True)))
    strings = StopStrings(tokenizer, len(tokenizer))
    blank = tokenizer.convert_tokens_to_ids("\n" if name == "joined" else "Ċ")
    token = st.integers(0, len(tokenizer) - 1)
    drawn = data.draw(st.lists(st.just(blank) | token, min_size=1, max_size=12))
    table, limit = strings.table(stops), len(drawn)
    met = (n for n in range(1, limit + 1) if table[drawn[n - 1]] and strings.completed_visibly(drawn[:n], stops))
    end = next(met, None)
    assert end == strings.visible_end(drawn, stops)

    def stopping(start: int) -> Sample:
        ends = range(start + 1, limit + 1)
        stop = next((n for n in ends if any(s in strings.decode(drawn[start:n]) for s in stops)), None)
        tokens = tuple(drawn[start:stop])
        return Sample(tokens, strings.decode(tokens), tuple(map(float, tokens)), "stop" if stop else "length")

    before, more = None, True
    while more:
        sample = stopping(len(before.tokens) if before else 0)
        before, more = continued(strings, Request(0, (1,), stop=stops, visible=True), limit, before, sample)
    assert before is not None
    assert list(before.tokens) == drawn[:end]
    assert (before.text, before.logprobs) == (strings.decode(before.tokens), tuple(map(float, before.tokens)))
    assert before.finish == ("length" if end is None else "stop")


def test_the_table_spares_most_tokens() -> None:
    strings = StopStrings(make_tokenizer(), 130)
    table = strings.table(("\n",))
    assert table.shape == (130,)
    assert np.flatnonzero(table).tolist() == [2, 3, 9]
    assert strings.table(("\n",)) is table


@pytest.mark.parametrize("tokens", [[4, 1, 5], [1], []])
def test_special_tokens_are_left_out(tokens: list[int]) -> None:
    assert StopStrings(make_tokenizer(), 120).decode(tokens) == "ab"[: len(tokens) - 1 if tokens else 0]
