"""The tokenizer of the built-in world: one token per word, digit, mark and line end; any text round-trips exactly.

A word, digit or mark includes the space before it (" apples", " 1", " +"), as in GPT-2. Decoding is therefore plain
concatenation: "12" is "1" "2" and never becomes "1 2". Text outside the vocabulary is split into bytes.
"""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mcts_dpo.toy.world import vocabulary

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"

_MARKS = "+-*/=.?:"
_PIECES = r"\n| ?\d| ?\p{L}+| ?[^\s\d\p{L}]|\s"


def toy_tokenizer(extra: str = "") -> PreTrainedTokenizerFast:
    """The tokenizer of the world. extra: further text whose words get tokens, such as that of a prompt.

    Token ids depend on the vocabulary alone. No special token is added while encoding; the texts
    "<pad>", "<bos>" and "<eos>" are read as the tokens of that name.
    """
    words = sorted({*vocabulary(), *_words(extra)})
    # A byte-level alphabet is the fallback: every byte is a token, so there is nothing unknown.
    entries = [PAD, BOS, EOS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    entries += [f"Ġ{piece}" for piece in (*"0123456789", *_MARKS)]
    entries += [spaced for word in words for spaced in (word, f"Ġ{word}") if spaced not in entries]
    # BPE without merges and with `ignore_merges` is a word lookup that falls back to single bytes.
    tokenizer = Tokenizer(
        models.BPE(vocab={entry: index for index, entry in enumerate(entries)}, merges=[], ignore_merges=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def _words(text: str) -> list[str]:
    return "".join(letter if letter.isalpha() else " " for letter in text).split()
