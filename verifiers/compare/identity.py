"""The identity layer gives each text a key, so that equal answers are found without any mathematics.

In: one answer as text. Out: a key. Equal keys mean equal answers.
"""

from __future__ import annotations

import re

from verifiers.text import plain, tidy

_WRAPPERS = re.compile(
    r"\\(?:text|mbox|textbf|textrm|textnormal|mathrm|mathbf|mathit|textit"
    r"|boldsymbol|hbox|bf|rm|bm|operatorname|emph|underline)\s*\{([^{}]*)\}"
)
_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")
_WORDS = re.compile(r"[A-Za-z][A-Za-z'.,\- ]*")
_ARTICLE = re.compile(r"^(?:an?|the) (?=[a-z]{3})")
_SHORT_WORDS = frozenset(["yes", "no", "odd", "all", "one", "two", "six", "ten", "up"])


def identity_key(text: str) -> str:
    r"""Equal for ``\text{Evelyn}``, ``Evelyn`` and ``$Evelyn$``; words lose their case, single letters keep it."""
    text = tidy(plain(text)).rstrip(".,; ")
    wrapped = text
    for _ in range(4):
        text, wrapped = _WRAPPERS.sub(r" \1 ", text), text
        if wrapped == text:
            break
    key = _SPACE.sub("", text).strip(".")
    words = " ".join(text.split())
    if _WORDS.fullmatch(words) and (len(key) > 3 or key.lower() in _SHORT_WORDS):
        return _ARTICLE.sub("", words.rstrip(".,").lower())
    return key


def is_words(text: str) -> bool:
    """Whether an answer is made of words only, like ``\\text{Evelyn}`` or ``even``."""
    text = _WRAPPERS.sub(r" \1 ", tidy(plain(text))).strip()
    return bool(_WORDS.fullmatch(text)) and len(text.split()) <= 12
