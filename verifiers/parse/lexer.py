r"""The lexer splits a cleaned text into a flat list of tokens; every character belongs to a token or is an error.

In: an answer cleaned by :mod:`verifiers.text`. Out: tokens with their places.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from verifiers.limits import MAX_TOKENS, TooLarge, Unparsed


class Token(NamedTuple):
    """``kind``: ``num``, ``name``, ``func``, ``text``, ``cmd``, ``op``, ``sep``, ``row`` or ``end``."""

    kind: str
    value: str
    start: int
    end: int
    spaced: bool


_TEXT = r"(?P<text>\\(?:text|mbox|textbf|textrm|textit|textnormal|hbox|texttt|textsf)\s*\{[^{}]*\})"
_UPRIGHT = (
    r"(?P<upright>\\(?:mathrm|operatorname\*?|mathit|mathbf|boldsymbol|mathsf|bm|bf|rm)\s*"
    r"(?:\{\s*[A-Za-z ]*\s*\}|(?= )))"
)
_REST = (
    r"(?P<cmd>\\[A-Za-z]+|\\[{}%$|&_#])|(?P<row>\\\\)|(?P<word>[A-Za-z]+)|(?P<prime>'+)"
    r"|(?P<op><=|>=|!=|==|:=|\*\*|\.\.\.|[-+*/^_=<>(){}\[\]|,;:!%&€£¥₹])|(?P<space>\s+)"
)
_GROUPED = r"(?P<num>(?:[1-9]\d{0,2}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+|\.(?![.\d]))?|\.\d+)"
_SINGLE = r"(?P<num>\d+(?:\.\d+|\.(?![.\d]))?|\.\d+)"
_WITH_GROUPS = re.compile("|".join((_TEXT, _UPRIGHT, _GROUPED, _REST)))
_WITHOUT_GROUPS = re.compile("|".join((_TEXT, _UPRIGHT, _SINGLE, _REST)))

FUNCTIONS = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "arcsin": "asin",
    "asin": "asin",
    "arccos": "acos", "acos": "acos", "arctan": "atan", "atan": "atan", "arccot": "acot", "sinh": "sinh",
    "cosh": "cosh",
    "tanh": "tanh", "coth": "coth", "arcsinh": "asinh", "asinh": "asinh", "arccosh": "acosh", "acosh": "acosh",
    "arctanh": "atanh", "atanh": "atanh", "log": "log", "ln": "ln", "lg": "lg", "exp": "exp", "sqrt": "sqrt",
    "abs": "abs",
    "max": "max", "min": "min", "gcd": "gcd", "lcm": "lcm", "floor": "floor", "ceil": "ceil", "cbrt": "cbrt",
    "sgn": "sgn",
    "Re": "re", "Im": "im", "arg": "arg", "binomial": "binomial", "factorial": "factorial", "arcosh": "acosh",
    "tg": "tan",
    "arsinh": "asinh", "artanh": "atanh", "cosec": "csc", "erf": "erf", "det": "det", "cis": "cis",
    "Abs": "abs", "ceiling": "ceil",
}  # fmt: skip
_LETTER_LIST = re.compile(r"\(?[A-Z]\)?(?:\s*(?:,\s*and|,|;|&|\band\b)\s*\(?[A-Z]\)?)+")
_TEXT_FUNCTIONS = frozenset("cis gcd lcm sin cos tan log ln arcsin arccos arctan".split())  # noqa: SIM905
_GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau"
    " upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar"
)
GREEK = frozenset(_GREEK.split())
CONSTANTS = {"pi": "pi", "inf": "oo", "infinity": "oo", "infty": "oo", "oo": "oo", "Inf": "oo", "Infinity": "oo",
    "varnothing": "empty",
             "emptyset": "empty"}  # fmt: skip
_EMBEDDED = re.compile(r"arc(?:sin|cos|tan)|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|theta|alpha|beta")
_ORDINARY = frozenset(
    "no not yes odd even the is are of to for all any its it we so by on at an as if be do true false none and or in"  # noqa: SIM905
    " one two six ten she he her his was has had can may day".split()
)
_JOINTS = {"and": "and", "or": "or", "and/or": "or", ",": ",", "y": "y", "or else": "or", ", and": "and", "&": "and"}


@lru_cache(maxsize=1024)
def pieces(word: str) -> tuple[tuple[str, str], ...]:
    """Splits a run of letters into (kind, value) pieces.

    The pieces are functions, constants, Greek names and single letters, or one text.
    """
    if word in FUNCTIONS:
        return (("func", FUNCTIONS[word]),)
    if word in CONSTANTS or word in GREEK or len(word) == 1:
        return (("name", word),)
    if word.lower() in _ORDINARY and not (word.isupper() and len(word) > 1):
        return (("text", word),)
    if len(word) <= 3 and not _EMBEDDED.search(word):
        return tuple(("name", letter) for letter in word)
    found: list[tuple[str, str]] = []
    loose = index = 0
    known = False
    while index < len(word):
        match = _EMBEDDED.match(word, index)
        if match:
            name = match.group()
            found.append(("func", FUNCTIONS[name]) if name in FUNCTIONS else ("name", name))
            known, index = True, match.end()
        else:
            found.append(("name", word[index]))
            loose, index = loose + 1, index + 1
    return tuple(found) if known and loose <= 3 else (("text", word),)


def tokens(text: str, grouped: bool = True) -> list[Token]:
    """Returns all tokens of ``text`` and an end token. ``grouped``: ``1,000`` is one number.

    Raises :class:`Unparsed` at a character that no token starts with, :class:`TooLarge` beyond ``MAX_TOKENS``.
    """
    pattern = _WITH_GROUPS if grouped else _WITHOUT_GROUPS
    found: list[Token] = []
    at, spaced = 0, False
    while at < len(text):
        match = pattern.match(text, at)
        if match is None:
            raise Unparsed(f"{text[at : at + 12]!r} is not mathematics")
        kind, value, start, at = match.lastgroup or "", match.group(), at, match.end()
        if kind == "space":
            spaced = True
            continue
        if kind == "text":
            inner = value[value.index("{") + 1 : -1].strip()
            joint = _JOINTS.get(inner.lower())
            if joint:
                found.append(Token("sep", joint, start, at, spaced))
            elif _LETTER_LIST.fullmatch(inner):
                _letter_list(found, inner, start, at, spaced)
            elif inner in _TEXT_FUNCTIONS:
                found.append(Token("func", FUNCTIONS[inner], start, at, spaced))
            elif inner:
                found.append(Token("text", inner, start, at, True))
        elif kind == "upright":
            inner = value[value.index("{") + 1 : -1].strip() if "{" in value else ""
            if inner:
                _letters(found, inner, start, at, spaced, whole=True)
        elif kind == "word" and len(value) < 4 and value not in FUNCTIONS and text[at : at + 1] in ("^", "_"):
            found += [Token("name", letter, start, at, spaced and letter is value[0]) for letter in value]
        elif kind == "word":
            _letters(found, value, start, at, spaced, whole=False)
        elif kind == "cmd" and value[1:] in FUNCTIONS:
            found.append(Token("func", FUNCTIONS[value[1:]], start, at, spaced))
        elif kind == "prime":
            if found and found[-1].kind == "name":
                found[-1] = found[-1]._replace(value=found[-1].value + value, end=at)
            else:
                raise Unparsed("a prime without a name")
        elif kind == "op" and value in (",", ";"):
            found.append(Token("sep", ",", start, at, spaced))
        else:
            found.append(Token(kind, value.replace(",", "") if kind == "num" else value, start, at, spaced))
        spaced = False
        if len(found) > MAX_TOKENS:
            raise TooLarge(f"more than {MAX_TOKENS} tokens")
    found.append(Token("end", "", len(text), len(text), spaced))
    return [_crossed(found, index) for index in range(len(found))] if " x " in text or " X " in text else found


def _crossed(found: list[Token], index: int) -> Token:
    """Returns the token. A lone ``x`` between two numbers becomes a multiplication sign."""
    token = found[index]
    if token.kind != "name" or token.value not in "xX" or not token.spaced or index == 0:
        return token
    before, after = found[index - 1], found[index + 1]
    between = before.kind == after.kind == "num" and after.spaced
    return token._replace(kind="cmd", value="\\times") if between else token


def _letter_list(found: list[Token], inner: str, start: int, end: int, spaced: bool) -> None:
    """``\\text{A, C}`` as the letters that it lists."""
    for letter in re.findall(r"\b[A-Z]\b", inner):
        if found and found[-1].start == start:
            found.append(Token("sep", ",", start, end, False))
        found.append(Token("name", letter, start, end, spaced))


def _letters(found: list[Token], word: str, start: int, end: int, spaced: bool, whole: bool) -> None:
    low = word.lower()
    if low in ("and", "or"):
        found.append(Token("sep", low, start, end, spaced))
        return
    if low.startswith(("or", "and")) and _starts_value(word[2 if low[0] == "o" else 3 :]):
        low = "or" if low[0] == "o" else "and"
        found.append(Token("sep", low, start, start + len(low), spaced))
        word, start = word[len(low) :], start + len(low)
    if whole and len(word) > 1 and word not in FUNCTIONS and word not in CONSTANTS:
        found.append(Token("text", word, start, end, spaced))
        return
    parts = pieces(word)
    at = start
    for index, (kind, value) in enumerate(parts):
        stop = end if index == len(parts) - 1 else at + len(value)
        found.append(Token(kind, value, at, stop, spaced and index == 0))
        at = stop


def _starts_value(rest: str) -> bool:
    return len(rest) == 1
