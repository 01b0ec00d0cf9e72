"""Reads words that multiply the number before them (``billion``, ``dozen``, ``halves``, ``basis points``, ``万``).

In: the text behind a number. Out: the factor and the place behind the words.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple


class Scale(NamedTuple):
    """What scale words do to the number before them.

    ``factor``: the exact factor. ``power``: the power of ten, if the factor is one. ``percent``: the factor counts
    hundredths. ``end``: the place behind the words.
    """

    factor: Fraction
    power: int | None
    percent: bool
    end: int


_POWERS = {
    "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "quadrillion": 15, "lakh": 5, "crore": 7,
    "ten": 1, "hundert": 2, "tausend": 3, "millionen": 6, "milliarde": 9, "milliarden": 9, "mille": 3, "milliard": 9,
    "millón": 6, "millones": 6, "mil millones": 9, "тысяча": 3, "тысячи": 3, "тысяч": 3, "миллион": 6, "миллиона": 6,
    "миллионов": 6, "миллиард": 9, "миллиарда": 9, "миллиардов": 9, "十": 1, "百": 2, "千": 3,
    "万": 4, "萬": 4, "亿": 8, "億": 8,
    "만": 4, "억": 8, "천": 3, "백": 2,
}  # fmt: skip
_MULTIPLES = {"dozen": 12, "gross": 144, "score": 20, "docena": 12, "douzaine": 12, "dutzend": 12, "ones": 1, "打": 12}
_PARTS = {
    "half": 2, "halve": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10, "eleventh": 11, "twelfth": 12, "thirteenth": 13, "fourteenth": 14, "fifteenth": 15,
    "sixteenth": 16, "eighteenth": 18, "twentieth": 20, "thirtieth": 30, "fortieth": 40, "fiftieth": 50,
    "sixtieth": 60, "hundredth": 100, "thousandth": 1000, "millionth": 10**6, "billionth": 10**9,
}  # fmt: skip
_PERCENTS = {"basis point": Fraction(1, 100), "bp": Fraction(1, 100), "permille": Fraction(1, 10), "‰": Fraction(1, 10),
             "per mille": Fraction(1, 10), "per mil": Fraction(1, 10), "per thousand": Fraction(1, 10),
             "ppm": Fraction(1, 10**4), "parts per million": Fraction(1, 10**4)}  # fmt: skip
_SPACELESS = "十百千万萬亿億만억천백打"
_WORDS = [*_POWERS, *_MULTIPLES, *_PARTS, *_PERCENTS]
_SPACED = "|".join(sorted((word for word in _WORDS if word not in _SPACELESS), key=len, reverse=True))
_SCALE = re.compile(
    rf"[\s-]*(?:([{_SPACELESS}])|({_SPACED})"
    r"(?:s|es)?(?!\w))(?:\s+of(?=\s+(?:an?|the)\s))?",
    re.IGNORECASE,
)
_LETTER = re.compile(r"\s?(k|K|thousand|m|M|mn|mio|b|B|bn|t|T|tn)(?![\w.])")
_LETTERS = {"k": 3, "m": 6, "mn": 6, "mio": 6, "b": 9, "bn": 9, "t": 12, "tn": 12}
MAX_WORDS = 4


def scale_at(text: str, money: bool = False) -> Scale:
    """Reads the scale words at the start of ``text`` and multiplies them; without any, the factor is 1.

    ``money``: ``k``, ``M`` and ``bn`` are scale words too.
    """
    factor, power, percent, end = Fraction(1), 0, False, 0
    exact = False
    letter = _LETTER.match(text) if money else None
    if letter and letter.group(1).lower() in _LETTERS:
        power = _LETTERS[letter.group(1).lower()]
        return Scale(Fraction(10**power), power, False, letter.end())
    for _ in range(MAX_WORDS):
        match = _SCALE.match(text, end)
        if match is None:
            break
        word = (match.group(1) or match.group(2)).lower()
        end = match.end()
        if word in _POWERS:
            power += _POWERS[word]
            factor *= 10 ** _POWERS[word]
            continue
        exact = True
        if word in _PERCENTS:
            return Scale(factor * _PERCENTS[word], None, True, end)
        factor *= _MULTIPLES.get(word) or Fraction(1, _PARTS[word])
    return Scale(factor, None if exact else power, percent, end)
