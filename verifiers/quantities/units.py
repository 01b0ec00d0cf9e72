"""Reads units of measurement, and says whether two units measure the same quantity.

In: the words or LaTeX after a number. Out: a :class:`Unit`, which is a product of dimensions with an exact factor. So
``60 minutes`` is ``1 hour``, and ``10 cm`` is not ``10 m``. A counted thing (``apples``) is a dimension of its own. A
word that changes a number (``squared``, ``halves``) is not a unit. Any other word is not a unit either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from verifiers.quantities.nouns import FREE, OF_MEASURE, PREPOSITIONS, changes, is_noun_phrase, singular
from verifiers.quantities.unit_table import known


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of measurement: a product of dimensions and an exact factor.

    ``dims``: sorted (dimension, exponent) pairs. ``factor``: how many of their base product one of this unit is.
    ``letter``: the unit may also be a variable, so a number without a unit is not the same.
    """

    name: str
    dims: tuple[tuple[str, int], ...]
    factor: Fraction = Fraction(1)
    letter: bool = False


NO_UNIT = Unit("", ())
PERCENT = Unit("%", (("%", 1),))
DEGREE = Unit("°", (("degree", 1),))
DOLLAR = Unit("$", (("dollar", 1),))
BARE_DOLLAR = Unit("", DOLLAR.dims)
"""A lone ``$`` before a number. It means money, but it may be a stray math delimiter, so no answer is shown with it."""

_RAISED = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "平方": 2, "立方": 3}
_RAISING = {"squared": 2, "cubed": 3, "square": 2, "cube": 3}
_SPEEDS = {"mph": "mile / hour", "kph": "km / hour", "kmh": "km / hour", "fps": "feet / second", "kmph": "km / hour",
           "rpm": "revolution / minute", "mpg": "mile / gallon"}  # fmt: skip
_SIGNS = {
    "\\$": "dollar", "$": "dollar", "€": "euro", "£": "gbp", "¥": "yen", "₹": "rupee", "\\euro": "euro",
    "\\pounds": "gbp", "₩": "won", "₽": "ruble", "\\%": "percent", "%": "percent", "per cent": "percent",
    "por ciento": "percent",
    "pour cent": "percent", "percentage point": "percent", "fl oz": "floz", "fl. oz": "floz", "fluid ounce": "floz",
    "light year": "lightyear", "light-year": "lightyear", "square foot": "square feet", "英里每小时": "mile / hour",
    "nautical mile": "nmi", "Ω": "ohm", "\\Omega": "ohm", "\\circ": "degree", "每": " / ", "~": " ",
    "\\cdot": "*", "\\times": "*", "\\ ": " ", "\\degree": "degree", "in total": "total", "in all": "total",
    "altogether": "total", "so far": "total", "each of": "of", "degrees of": "degree",
}  # fmt: skip
_SIGN = re.compile("|".join(re.escape(sign) for sign in sorted(_SIGNS, key=len, reverse=True)))
CURRENCIES = frozenset(["\\$", "€", "£", "¥", "₹", "₩", "₽"])
UPRIGHT = re.compile(
    r"\\(?:text|mbox|mathrm|textrm|rm|textbf|textnormal|operatorname|hbox|mathbf|textit|textsf)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_POWER = re.compile(r"\s*\^\s*\{?\s*(-?\d)\s*\}?|([23])(?![\w.])")
_LETTERS = r"[^\W\d_]"
_TOKEN = re.compile(rf"(?P<word>{_LETTERS}(?:{_LETTERS}|['-](?={_LETTERS}))*\.?|[℃℉¢])|(?P<mark>[/*()\-]|\s+|[{{}}])")
_WORD = re.compile(rf"{_LETTERS}+")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_TEMPERATURE = re.compile(
    r"\^?\s*\{?\s*\b(?:degrees?|deg\.?)\s*\}?\s*(?:([CFK])\b|(?i:(celsius|fahrenheit|kelvin|centigrade)\b))"
)
_ARTICLES = frozenset(["a", "an", "the"])
_EACH = frozenset(["per", "every", "each", "a", "an", "pro", "par", "por"])
MAX_UNIT = 80
MAX_NAMES = 6


@lru_cache(maxsize=4096)
def parse_unit(text: str, one: bool = False) -> Unit | None:
    """Returns the unit that ``text`` names, or None if the text is not a unit.

    Empty text and the empty word ``units`` give :data:`NO_UNIT`. ``one``: the number before the text is 1, so a noun
    may be in the singular.
    """
    if len(text) > MAX_UNIT:
        return None
    text = _SIGN.sub(lambda sign: f" {_SIGNS[sign.group()]} ", text.strip())
    for _ in range(3):
        text = UPRIGHT.sub(r" \1 ", text)
    text = re.sub(r"\^\s*\{?\s*degree\s*\}?", " degree ", re.sub(r"\\mu\s*(?=[A-Za-z])", "u", text))
    text = _TEMPERATURE.sub(_temperature, text).strip(" .,;!")
    if not text:
        return NO_UNIT
    reader = _Reader(text, one)
    return reader.unit() if reader.read() else None


def _temperature(match: re.Match[str]) -> str:
    scale = (match.group(1) or match.group(2))[0].upper()
    return {"C": " celsius ", "F": " fahrenheit ", "K": " kelvin "}[scale]


class _Reader:
    """One pass over the words after a number: known units, what was counted, and ``per`` what."""

    def __init__(self, text: str, one: bool) -> None:
        self.text = text
        self.one = one
        self.dims: dict[str, int] = {}
        self.factor = Fraction(1)
        self.names = 0
        self.counted: list[str] = []
        self.direction, self.raised = 1, 1
        self.last: tuple[tuple[tuple[str, int], ...], Fraction, int] | None = None
        self.free = False

    def read(self) -> bool:
        """Whether the whole text is a unit."""
        at = 0
        while at < len(self.text):
            match = _TOKEN.match(self.text, at)
            if match is None:
                return False
            at = match.end()
            if match.group("mark"):
                if match.group() == "/":
                    self.direction = -1
                continue
            at, going = self.word(match.group("word").rstrip("."), at)
            if going is None:
                return False
            if not going:
                break
        return self.names <= MAX_NAMES and self.raised == 1 and self.nouns()

    def word(self, word: str, at: int) -> tuple[int, bool | None]:
        """Takes one word. Returns the place behind it and whether to continue (None: the word is not a unit)."""
        low = word.lower()
        rest = self.text[at:].strip(" .,")
        if low in _RAISED and (low != "square" or rest):
            self.raised = _RAISED[low]
        elif low in _RAISING and self.last:
            self.add(*self.last[:2], self.last[2] * (_RAISING[low] - 1))
            self.last = None
        elif low in _EACH and rest and (self.began() or low not in _ARTICLES or known(rest) is not None):
            self.direction = -1
        elif low in PREPOSITIONS and self.began() and rest and known(low + rest) is None:
            parts = [part for part in _WORD.findall(rest) if part not in _ARTICLES]
            return at, None if re.search(r"\d", rest) or any(map(changes, parts)) else False
        elif low in FREE or (low == "fewer" and rest and "than" not in rest) or (low in OF_MEASURE and self.dims):
            self.free = True
        elif not (low in _ARTICLES and rest) and not (low == "and" and rest and self.counted):
            return self.named(word, at)
        return at, True

    def began(self) -> bool:
        """Whether the text has named a unit or a noun so far."""
        return bool(self.dims or self.counted or self.names or self.free)

    def named(self, word: str, at: int) -> tuple[int, bool | None]:
        """Take a unit or a noun."""
        self.names += 1
        low = word.lower()
        if low in _SPEEDS and not self.dims:
            inner = parse_unit(_SPEEDS[low])
            assert inner is not None
            self.dims, self.factor = dict(inner.dims), inner.factor
            return at, True
        power = _POWER.match(self.text, at)
        exponent = int(power.group(1) or power.group(2)) if power else 1
        at = power.end() if power else at
        exponent *= self.direction * self.raised
        self.raised = 1
        found = _unit_of_word(word)
        if found is not None:
            self.add(*found, exponent)
            self.last = (*found, exponent)
            return at, True
        if self.direction < 0:
            if changes(word):
                return at, None
            self.count(word, exponent)
            return at, True
        self.counted.append(word)
        return at, None if power else True

    def add(self, dimensions: tuple[tuple[str, int], ...], factor: Fraction, exponent: int) -> None:
        """Multiply by a unit to a power."""
        for base, power in dimensions:
            self.dims[base] = self.dims.get(base, 0) + power * exponent
        self.factor *= factor**exponent

    def nouns(self) -> bool:
        """Whether the words that are not units name the counted thing."""
        if not self.counted:
            return self.names > 0 or self.free
        if not is_noun_phrase(self.counted, self.one):
            return False
        for word in self.counted:
            self.count(word, 1)
        return True

    def count(self, word: str, exponent: int) -> None:
        """Multiplies by the counted thing. The mark keeps ``5 times`` from being a time."""
        label = f"#{singular(word)}"
        self.dims[label] = self.dims.get(label, 0) + exponent

    def unit(self) -> Unit | None:
        """Returns the unit that was read."""
        if self.dims.get("%", 1) != 1:
            return None
        kept = tuple(sorted((base, power) for base, power in self.dims.items() if power))
        for plain in (PERCENT, DEGREE):
            if kept == plain.dims and self.factor == 1:
                return plain
        return Unit(" ".join(self.text.split()), kept, self.factor) if kept else NO_UNIT


def _unit_of_word(word: str) -> tuple[tuple[tuple[str, int], ...], Fraction] | None:
    """Returns a unit of the table. In Chinese, one word may also contain a square or the counted thing."""
    found = known(word)
    if found is not None or not _CJK.fullmatch(word):
        return found
    for prefix, power in (("平方", 2), ("立方", 3)):
        if word.startswith(prefix):
            inner = known(word[2:])
            return None if inner is None else (tuple((base, n * power) for base, n in inner[0]), inner[1] ** power)
    return None


def is_known_unit(word: str) -> bool:
    """Whether a bare word is in the table of units; an ordinary noun is not."""
    return known(word) is not None or word.lower() in _SPEEDS
