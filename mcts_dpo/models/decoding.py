"""Token ids to text: fast, and exactly as the tokenizer does it.

In: a tokenizer. Out: the text of token ids, and of every prefix of them. In a byte-level vocabulary (GPT-2, Llama 3,
Qwen, SmolLM2, the built-in world) a text is the bytes of its tokens in order. Those bytes come from a table and are
decoded once, which saves a call of the tokenizer for each prefix. Each entry of the table is checked against the
tokenizer when the table is made. If one differs, and for other kinds of vocabulary (SentencePiece, word pieces), the
tokenizer decodes. An id that the tokenizer does not know decodes to nothing: models often pad their vocabulary.

Special tokens are left out, except the marks of thoughts ("[THINK]", "<|channel|>"), which say where an answer counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import accumulate, groupby
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer, decoders

from verifiers.read.thoughts import known_thoughts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_tables: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, list[bytes] | None]] = WeakKeyDictionary()
_known: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, frozenset[int]]] = WeakKeyDictionary()
_shown: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, dict[int, str]]] = WeakKeyDictionary()
_THOUGHT = re.compile("think|thought", re.IGNORECASE)


def decode(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """The text of `tokens`. Special tokens are left out; bytes that are not UTF-8 become U+FFFD."""
    return prefixes(tokenizer, tokens)(len(tokens))


def prefixes(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> Callable[[int], str]:
    """A function from n to the text of the first n of `tokens`. U+FFFD ends an incomplete character."""
    table = _table(tokenizer)
    if table is None:
        listed = list(tokens)
        return lambda end: decode_batch(tokenizer, [listed[:end]])[0]
    size = len(table)
    pieces = [table[token] if token < size else b"" for token in tokens]
    whole = b"".join(pieces)
    reach = [0, *accumulate(map(len, pieces))]
    return lambda end: whole[: reach[end]].decode("utf-8", "replace")


def decode_batch(tokenizer: PreTrainedTokenizerBase, sequences: list[list[int]]) -> list[str]:
    """The text of each sequence of token ids, decoded by the tokenizer itself. Special tokens are left out.

    The marks of thoughts stay; the tokenizer decodes the parts between them.
    """
    shown = shown_marks(tokenizer)
    if not shown or not any(token in shown for tokens in sequences for token in tokens):
        return _decode_batch(tokenizer, sequences)
    texts = []
    for tokens in sequences:
        parts = [(mark, list(part)) for mark, part in groupby(tokens, key=lambda token: token in shown)]
        plain = iter(_decode_batch(tokenizer, [part for mark, part in parts if not mark]))
        texts.append("".join("".join(map(shown.__getitem__, part)) if mark else next(plain) for mark, part in parts))
    return texts


def shown_marks(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The special tokens that belong to marks of thoughts, and their texts."""
    size = len(tokenizer)
    known = _shown.get(tokenizer)
    if known is None or known[0] != size:
        marks = [mark for pair in known_thoughts() for mark in pair]
        added = getattr(tokenizer, "added_tokens_decoder", {})
        found = {
            index: token.content
            for index, token in added.items()
            if token.special and (_THOUGHT.search(token.content) or _begins(token.content.lower(), marks))
        }
        known = _shown[tokenizer] = (size, found)
    return known[1]


def _begins(content: str, marks: Sequence[str]) -> bool:
    """Whether a special token is a mark, or the control token at the start of one ("<|channel|>analysis")."""
    return len(content) > 3 and any(mark.startswith(content) for mark in marks)


def _decode_batch(tokenizer: PreTrainedTokenizerBase, sequences: list[list[int]]) -> list[str]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    texts: list[str]
    if isinstance(backend, Tokenizer):
        # The function that a fast tokenizer calls itself, without its checks of every token. It skips unknown ids.
        texts = backend.decode_batch(sequences, skip_special_tokens=True)
        return texts
    known = known_ids(tokenizer)
    return [
        str(
            tokenizer.decode(
                [token for token in tokens if token in known],
                skip_special_tokens=True,
                clean_up_tokenization_spaces=False,
            )
        )
        for tokens in sequences
    ]


def known_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids for which the tokenizer has a token. All others decode to nothing."""
    size = len(tokenizer)
    known = _known.get(tokenizer)
    if known is None or known[0] != size:
        vocabulary = getattr(tokenizer, "get_vocab", None)
        ids = frozenset((vocabulary().values() if vocabulary else ()) or range(size))
        known = _known[tokenizer] = (size, ids)
    return known[1]


def _table(tokenizer: PreTrainedTokenizerBase) -> list[bytes] | None:
    """The bytes of each token id, b"" for special tokens. None if the tokenizer does more than join bytes."""
    size = len(tokenizer)
    known = _tables.get(tokenizer)
    if known is None or known[0] != size:
        known = _tables[tokenizer] = (size, _make_table(tokenizer))
    return known[1]


def _make_table(tokenizer: PreTrainedTokenizerBase) -> list[bytes] | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer) or not isinstance(backend.decoder, (decoders.ByteLevel, decoders.Fuse)):
        return None
    byte_of = _bytes_of_characters() if isinstance(backend.decoder, decoders.ByteLevel) else {}
    special = {index for index, token in backend.get_added_tokens_decoder().items() if token.special}
    table: list[bytes] = []
    shown_special = shown_marks(tokenizer)
    size = 1 + max(known_ids(tokenizer), default=-1)  # ids may have gaps, so this can exceed the number of tokens
    for index in range(size):
        token = backend.id_to_token(index)
        if token is not None and index in shown_special:
            table.append(token.encode())
        elif token is None or index in special:
            table.append(b"")
        elif byte_of and all(character in byte_of for character in token):
            table.append(bytes(byte_of[character] for character in token))
        else:
            table.append(token.encode())
    shown = decode_batch(tokenizer, [[index] for index in range(size)])
    same = all(piece.decode("utf-8", "replace") == text for piece, text in zip(table, shown, strict=True))
    return table if same else None


def _bytes_of_characters() -> dict[str, int]:
    """The alphabet of byte-level vocabularies (Radford et al. 2019), as a map from character to byte.

    A printable byte is its own character. The other bytes, in order, are the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}
