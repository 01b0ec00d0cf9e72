"""Reads numbers in words: ``two hundred``, ``minus five``, ``three quarters``, ``two and a half``, ``three point one``.

In: a text that may begin with such words. Out: the text with digits instead of the words. Words that do not form one
number (``three four``, ``one-to-one``) stay as they are.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from verifiers.quantities import chinese
from verifiers.quantities.unit_table import known

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth"
    " sixteenth seventeenth eighteenth nineteenth"
)
ONES = {name: value for value, name in enumerate(_ONES.split())}
TENS = {name: 10 * value for value, name in enumerate(_TENS.split(), 2)}
_ALSO = {"nought": 0, "naught": 0, "fourty": 40}
SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12, "quadrillion": 15}
ORDINALS = {name: value for value, name in enumerate(_ORDINALS.split(), 1)}
ORDINALS |= {name.replace("y", "ieth"): value for name, value in TENS.items()}
_PARTS = {name: value for name, value in ORDINALS.items() if value > 2}
_PARTS |= {"half": 2, "quarter": 4, "hundredth": 100, "thousandth": 1000, "millionth": 10**6, "billionth": 10**9}
_PLURALS = {f"{name}s": value for name, value in _PARTS.items()} | {"halves": 2}
_SIGNS = {"minus": "-", "negative": "-", "plus": "", "positive": ""}
_DIGITS_AND = re.compile(r"(\d{1,9})\s+and\s+")
_SIGNED = re.compile(r"(minus|negative|plus|positive)\s+(?=[\\$€£.]?\s*\d|\\frac)", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]+")
_JOIN = re.compile(r"\s*-?\s*")
_COMMA = re.compile(r",\s+")
_MAYBE = re.compile(
    r"\s*[+-]?\s*(?:\\?\$\s*)?(?:(?:an?|minus|negative|plus|positive|point|half|quarter|nought|naught)\b|"
    + "|".join(sorted([*ONES, *TENS, *SCALES, "hundred"], key=len, reverse=True))
    + r"|\d+\s+and\s+|\d+\s*-?\s*hundred)",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"(\s*[,;]\s*(?:and\s+|or\s+)?|\s+(?:and|or)\s+)")
_LOWER_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2}")
_MINUS = re.compile(r"^\s*(?:minus|negative)\s+(?=[\d.(\\]|[a-z](?![a-z]))", re.IGNORECASE)
_LAST_OPERAND = re.compile(r"((?:\bover|\bof|\bby|\bplus|\bminus|\btimes)\s+)([a-z][a-z\s-]*)$", re.IGNORECASE)
_BASE = r"(?<![A-Za-z])(\d[\d.]*|[A-Za-z]|\([^()]{1,80}\))"
_SIDE = r"(\d[\d.]*|[A-Za-z]|\\?pi)"
_LEFT, _RIGHT = r"(?:(?<=[\d)}])|(?<=\b[a-z]))\s{1,4}", r"\s{1,4}(?=[\d(\\]|[a-z](?![a-z]))"
_OPERATIONS = [
    (re.compile(rf"{_BASE}\s*-?\s*squared(?![A-Za-z])", re.IGNORECASE), r"\1^{2}"),
    (re.compile(rf"{_BASE}\s*-?\s*cubed(?![A-Za-z])", re.IGNORECASE), r"\1^{3}"),
    (re.compile(rf"{_BASE}\s+factorial(?![A-Za-z])", re.IGNORECASE), r"\1!"),
    (re.compile(rf"{_BASE}\s+to\s+the\s+power\s+(?:of\s+)?(-?\d+|[a-z])(?![A-Za-z])", re.IGNORECASE), r"\1^{\2}"),
    (re.compile(rf"(?:the\s+)?(?:square\s+)?root\s+of\s+{_SIDE}(?![A-Za-z\d])", re.IGNORECASE), r"\\sqrt{\1}"),
    (re.compile(rf"(?:the\s+)?cube\s+root\s+of\s+{_SIDE}(?![A-Za-z\d])", re.IGNORECASE), r"\\sqrt[3]{\1}"),
    (
        re.compile(rf"(?<![A-Za-z]){_SIDE}\s+(?:over|divided\s+by)\s+{_SIDE}(?![A-Za-z\d])", re.IGNORECASE),
        r"\\frac{\1}{\2}",
    ),
    (re.compile(r"(?<![\d.])(\d+)/(\d+)\s+of\s+(?=\d)", re.IGNORECASE), r"\\frac{\1}{\2} \\times "),
    (re.compile(r"(\d[\d.]*)\s*(?:\\?%|percent)\s+of\s+(?=\d)", re.IGNORECASE), r"\\frac{\1}{100} \\times "),
    (re.compile(rf"{_LEFT}(?:times|multiplied by){_RIGHT}", re.IGNORECASE), r" \\times "),
    (re.compile(rf"{_LEFT}plus{_RIGHT}", re.IGNORECASE), " + "),
    (re.compile(rf"{_LEFT}minus{_RIGHT}", re.IGNORECASE), " - "),
    (re.compile(rf"{_LEFT}equals{_RIGHT}", re.IGNORECASE), " = "),
]
_ORDINAL_WORD = "|".join(sorted(ORDINALS, key=len, reverse=True))
_TO_THE = re.compile(
    rf"{_BASE}\s+to\s+the\s+(\d{{1,3}}(?:st|nd|rd|th)|{_ORDINAL_WORD})(?:\s+power)?(?!\w)",
    re.IGNORECASE,
)
MAX_WORDS = 40


class Word(NamedTuple):
    """A lower-case word, its end in the text, and the mark that joins it to the word before."""

    text: str
    end: int
    joint: str


def in_digits(text: str) -> str:
    """Writes the number in words at the start of ``text`` in digits; a text without such a number stays unchanged."""
    if not text.isascii():
        return chinese.in_digits(text)
    if not _MAYBE.match(text):
        return text
    lead = re.match(r"\s*[+-]?\s*(?:\\?\$\s*)?", text)
    assert lead is not None
    signed = _SIGNED.match(text, lead.end())
    if signed:
        return f"{lead.group()}{_SIGNS[signed.group(1).lower()]}{text[signed.end() :]}"
    started = _DIGITS_AND.match(text, lead.end())
    reader = _Reader(_words(text, started.end() if started else lead.end()))
    spelling = reader.part_of(int(started.group(1))) if started else reader.number()
    if spelling is None:
        return text
    rest = text[reader.end :]
    if _is_place(spelling, rest):
        return text
    if "/" in spelling:
        rest = re.sub(r"^\s*(?:of\s+)?(?:an?|the)\b", "", rest)
    if spelling.startswith("-") and lead.group().strip():
        spelling = f"({spelling})"
    return f"{lead.group()}{spelling} {rest.lstrip()}".rstrip()


def _is_place(spelling: str, rest: str) -> bool:
    """Whether the text means ``a third party`` and not ``a third of a mile`` or ``a third cup``."""
    word = re.match(r"\s+([A-Za-z]+)", rest)
    if word is None or not re.fullmatch(r"-?1/(?!2$|4$)\d+", spelling):
        return False
    return word.group(1).lower() != "of" and known(word.group(1)) is None


def list_in_digits(text: str) -> str:
    """Writes the number in words at the start of each part of a list in digits: ``two, three and a half``."""
    text = in_digits(text)
    parts = _BETWEEN.split(text)
    if len(parts) < 3 or len(parts) > MAX_WORDS:
        return text
    return "".join(part if index % 2 else in_digits(part) for index, part in enumerate(parts))


def in_symbols(text: str) -> str:
    """Writes the numbers and operations in words in ``text`` as symbols: ``x squared``, ``pi over four``."""
    if not _LOWER_WORD.search(text):
        return text
    text = _MINUS.sub("-", list_in_digits(text))
    text = _LAST_OPERAND.sub(lambda match: match.group(1) + in_digits(match.group(2)), text)
    for pattern, symbols in _OPERATIONS:
        text = pattern.sub(symbols, text)
    return _TO_THE.sub(_raised, text)


def _raised(match: re.Match[str]) -> str:
    """Writes ``x to the fifth`` as a power."""
    exponent = ORDINALS.get(match.group(2).lower()) or int(re.sub(r"\D", "", match.group(2)))
    return f"{match.group(1)}^{{{exponent}}}"


def number_in_words(text: str) -> Fraction | None:
    """Returns the value of a text that is one number in words and nothing else."""
    reader = _Reader(_words(text.strip(), 0))
    spelling = reader.number()
    return Fraction(spelling) if spelling is not None and not text.strip()[reader.end :] else None


def _words(text: str, start: int) -> list[Word]:
    """Returns the run of words from ``start``. Spaces, hyphens or a comma join the words."""
    found: list[Word] = []
    at = start
    while len(found) < MAX_WORDS:
        joint = None
        if found:
            joint = (_COMMA.match(text, at) if found[-1].text in SCALES else None) or _JOIN.match(text, at)
        match = _WORD.match(text, joint.end() if joint else at)
        if match is None:
            break
        at = match.end()
        found.append(Word(match.group().lower(), at, joint.group().strip() if joint else ""))
    return found


class _Reader:
    """Reads a number in words from the left, as far as the number goes."""

    def __init__(self, words: list[Word]) -> None:
        self.words = words
        self.at = 0

    @property
    def end(self) -> int:
        """The place in the text where the number ends."""
        return self.words[self.at - 1].end if self.at else 0

    def peek(self, ahead: int = 0) -> str:
        """Returns the word ``ahead`` places on, or nothing."""
        place = self.at + ahead
        return self.words[place].text if place < len(self.words) else ""

    def number(self) -> str | None:
        """Returns the number as digits: ``200``, ``-5``, ``3/4``, ``3.14``; None if there is no number."""
        sign = ""
        if self.peek() in _SIGNS:
            self.at, sign = 1, _SIGNS[self.peek()]
        found = self.unsigned()
        if found is None or _small(self.peek()) is not None or self.peek() in ("hundred", "point"):
            return None
        if self.at < len(self.words) and self.words[self.at].joint == "-":
            return None
        return sign + found

    def unsigned(self) -> str | None:
        """Reads a fraction, a cardinal with its possible continuation, or a decimal."""
        alone = self.lone_part()
        if alone is not None:
            return alone
        if self.peek() == "point":
            return self.decimal(0)
        whole = self.cardinal()
        if whole is None:
            return None
        if self.peek() == "point":
            return self.decimal(whole)
        part = self.part(whole == 1)
        if part is not None:
            return f"{whole}/{part}"
        if self.peek() == "over" and (bottom := self.after(1)) is not None:
            return f"{whole}/{bottom}"
        return self.mixed(whole)

    def lone_part(self) -> str | None:
        """Reads a fraction without a number before it: ``half``, ``a quarter``, ``half a dozen``."""
        skipped = 1 if self.peek() in ("a", "an") else 0
        if self.peek(skipped) not in ("half", "quarter") and not (skipped and self.peek(1) in _PARTS):
            return None
        value = _PARTS[self.peek(skipped)]
        self.at += skipped + 1
        if self.peek() in ("a", "an") and self.peek(1) == "dozen":
            self.at += 2
            return str(12 // value)
        return f"1/{value}"

    def part(self, singular: bool) -> int | None:
        """Reads the denominator that comes next: ``third`` after one, ``thirds`` after more, ``twenty-fifths``."""
        table = _PARTS if singular else _PLURALS
        if self.peek() in table:
            self.at += 1
            return table[self.words[self.at - 1].text]
        if self.peek() in TENS and table.get(self.peek(1), 99) < 10 and self.peek(1) not in ("half", "quarter"):
            self.at += 2
            return TENS[self.words[self.at - 2].text] + table[self.words[self.at - 1].text]
        return None

    def after(self, skipped: int) -> int | None:
        """Reads a cardinal behind the given number of words. Without a cardinal, the place does not move."""
        before = self.at
        self.at += skipped
        found = self.cardinal()
        if found is None:
            self.at = before
        return found

    def mixed(self, whole: int) -> str:
        """Reads ``two and a half``: a whole number and the proper fraction behind it."""
        before = self.at
        if self.peek() == "and":
            self.at += 1
            found = self.part_of(whole)
            if found is not None:
                return found
        self.at = before
        return str(whole)

    def part_of(self, whole: int) -> str | None:
        """Reads ``a half`` behind ``2 and``."""
        alone = self.lone_part()
        top = None if alone else self.cardinal()
        bottom = None if top is None else self.part(top == 1)
        if alone and "/" in alone:
            top, bottom = 1, int(alone[2:])
        if top is None or bottom is None or not 0 < top < bottom:
            return None
        value = whole + Fraction(top, bottom)
        return f"{value.numerator}/{value.denominator}"

    def decimal(self, whole: int) -> str | None:
        """Reads ``three point one four``: single digits behind the point."""
        self.at += 1
        digits = ""
        while _small(self.peek()) is not None and (value := ONES.get(self.peek(), _ALSO.get(self.peek(), 99))) < 10:
            digits, self.at = f"{digits}{value}", self.at + 1
        return f"{whole}.{digits}" if digits else None

    def cardinal(self) -> int | None:
        """Reads a whole number and moves to the place behind it; returns None if no whole number begins here."""
        total: int = 0
        before_scale: int = 10**18
        group = self.group()
        if group is None:
            return None
        while True:
            power = SCALES.get(self.peek())
            if power is not None and group and 10**power < before_scale:
                self.at += 1
                total, before_scale = total + group * 10**power, 10**power
            elif self.peek() == "dozen":
                self.at += 1
                return (total + group) * 12
            else:
                return total + group
            saved = self.at
            if self.peek() == "and":
                self.at += 1
            following = self.group()
            if following is None or following == 0 or self.is_denominator():
                self.at, group = saved, 0
                return total
            group = following

    def is_denominator(self) -> bool:
        """Whether the words just read belong to a fraction: ``two thousand and three quarters``."""
        return self.peek() in _PARTS or self.peek() in _PLURALS

    def group(self) -> int | None:
        """Reads a number below a thousand, or a number of hundreds: ``a hundred and five``, ``twenty-five hundred``."""
        value: int | None
        if self.peek() in ("a", "an") and self.peek(1) in ("hundred", "dozen", *SCALES):
            self.at += 1
            value = 1
        elif self.peek() in ("hundred", *SCALES) and self.at == 0:
            value = 1
        else:
            value = self.below_hundred()
        if value is None:
            return None
        if self.peek() != "hundred" or not value:
            return value
        self.at += 1
        saved = self.at
        if self.peek() == "and":
            self.at += 1
        rest = self.below_hundred()
        if rest is None or self.is_denominator():
            self.at, rest = saved, 0
        return value * 100 + rest

    def below_hundred(self) -> int | None:
        """Reads ``twenty-one`` or ``seven``. A ten before the name of a part belongs to that part."""
        word = self.peek()
        if word in TENS or word == "fourty":
            if self.at and self.peek(1) in _PLURALS and _PLURALS[self.peek(1)] < 10 and self.words[self.at].joint:
                return None
            self.at += 1
            unit = ONES.get(self.peek(), 99)
            if 1 <= unit <= 9:
                self.at += 1
                return TENS.get(word, 40) + unit
            return TENS.get(word, 40)
        value = _small(word)
        if value is None:
            return None
        self.at += 1
        return value


def _small(word: str) -> int | None:
    """A cardinal word below one hundred."""
    return ONES.get(word, TENS.get(word, _ALSO.get(word)))
