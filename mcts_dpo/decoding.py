"""Token ids to text, fast, and exactly as the tokenizer itself does it.

In: a tokenizer. Out: the text of token ids, and of every prefix of them. Byte-level vocabularies (GPT-2, Llama 3, Qwen,
SmolLM2, the built-in world) write a text as the bytes of its tokens, one after the other: these are looked up in a
table, joined and decoded once, instead of asking the tokenizer again for each prefix. Every entry of a table is
checked against the tokenizer when the table is made; where one differs, and for other kinds of vocabulary
(SentencePiece, word pieces), the tokenizer is asked. Knows neither prompts nor engines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer, decoders

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_tables: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, list[bytes] | None]] = WeakKeyDictionary()


def decode(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """The text of `tokens`, special tokens left out, bytes that are no UTF-8 as U+FFFD."""
    return prefixes(tokenizer, tokens)(len(tokens))


def prefixes(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> Callable[[int], str]:
    """A function n → the text of the first n of `tokens`, which may end in U+FFFD where a character is not complete."""
    table = _table(tokenizer)
    if table is None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        listed = list(tokens)
        if isinstance(backend, Tokenizer):
            # What a fast tokenizer itself calls, without its checks of every token on the way.
            return lambda end: str(backend.decode(listed[:end], skip_special_tokens=True))
        return lambda end: str(
            tokenizer.decode(listed[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )
    pieces = [table[token] for token in tokens]
    whole = b"".join(pieces)
    reach = [0, *accumulate(map(len, pieces))]
    return lambda end: whole[: reach[end]].decode("utf-8", "replace")


def _table(tokenizer: PreTrainedTokenizerBase) -> list[bytes] | None:
    """bytes of each token id, b"" for special tokens; None if the tokenizer does not simply join bytes."""
    size = len(tokenizer)
    known = _tables.get(tokenizer)
    if known is None or known[0] != size:
        known = _tables[tokenizer] = (size, _make_table(tokenizer, size))
    return known[1]


def _make_table(tokenizer: PreTrainedTokenizerBase, size: int) -> list[bytes] | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer) or not isinstance(backend.decoder, (decoders.ByteLevel, decoders.Fuse)):
        return None
    byte_of = _bytes_of_characters() if isinstance(backend.decoder, decoders.ByteLevel) else {}
    special = {index for index, token in backend.get_added_tokens_decoder().items() if token.special}
    table: list[bytes] = []
    for index in range(size):
        token = backend.id_to_token(index)
        if token is None or index in special:
            table.append(b"")
        elif byte_of and all(character in byte_of for character in token):
            table.append(bytes(byte_of[character] for character in token))
        else:
            table.append(token.encode())
    shown = backend.decode_batch([[index] for index in range(size)], skip_special_tokens=True)
    same = all(piece.decode("utf-8", "replace") == text for piece, text in zip(table, shown, strict=True))
    return table if same else None


def _bytes_of_characters() -> dict[str, int]:
    """The alphabet of byte-level vocabularies (Radford et al. 2019): printable bytes stand for themselves, the others,
    in order, for the characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}
