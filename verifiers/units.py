"""Units of measurement: reading them, and saying whether two are the same quantity.

In: the words or LaTeX after a number. Out: :class:`Unit`, a product of base units with an exact factor, so that
``60 minutes`` is ``1 hour`` while ``10 cm`` is not ``10 m``. A word that is no known unit (``apples``) is a base unit
of its own. It does not know numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Unit:
    """``dims``: sorted (base unit, exponent) pairs; ``factor``: how many of the base product one of this unit is."""

    name: str
    dims: tuple[tuple[str, int], ...]
    factor: Fraction = Fraction(1)


NO_UNIT = Unit("", ())
PERCENT = Unit("%", (("%", 1),))
DEGREE = Unit("°", (("degree", 1),))
DOLLAR = Unit("$", (("dollar", 1),))

_F = Fraction
_KNOWN: dict[str, tuple[str, Fraction]] = {}


def _define(base: str, **spellings: Fraction | int) -> None:
    for key, factor in spellings.items():
        for spelling in key.split("__"):
            _KNOWN[spelling] = (base, Fraction(factor))


_define("metre", m__meter__metre=1, cm__centimeter__centimetre=_F(1, 100), mm__millimeter__millimetre=_F(1, 1000),
        km__kilometer__kilometre__kms=1000, dm__decimeter__decimetre=_F(1, 10), nm__nanometer=_F(1, 10**9),
        inch__inches__in=_F(254, 10000), ft__foot__feet=_F(3048, 10000), yd__yard=_F(9144, 10000),
        mi__mile=_F(1609344, 1000))  # fmt: skip
_define("second", s__sec__second=1, ms__millisecond=_F(1, 1000), min__minute__mins=60, h__hr__hour__hrs=3600,
        day=86400, week__wk=604800)  # fmt: skip
_define("month", month__mo=1, year__yr=12, decade=120, century__centuries=1200)
_define("gram", g__gram=1, kg__kilogram__kilo=1000, mg__milligram=_F(1, 1000), tonne=10**6,
        lb__pound__lbs=_F(45359237, 100000), oz__ounce=_F(45359237, 1600000))  # fmt: skip
_define("litre", l__L__liter__litre=1, ml__mL__milliliter__millilitre=_F(1, 1000), cl__centiliter=_F(1, 100))
_define("gallon", gallon__gal=1, quart__qt=_F(1, 4), pint__pt=_F(1, 8), cup=_F(1, 16))
_define("dollar", dollar__usd__USD__buck=1, cent=_F(1, 100))
_define("euro", euro__EUR__eur=1)
_define("sterling", gbp__GBP=1)
_define("yen", yen__JPY=1)
_define("yuan", yuan__RMB__CNY=1)
_define("rupee", rupee__Rs__INR=1)
_define("degree", degree__deg=1)
_define("radian", radian__rad=1)
_define("celsius", celsius=1)
_define("fahrenheit", fahrenheit=1)
_define("%", percent__pct__percentage=1)
_define("hertz", Hz__hertz=1, kHz=1000, MHz=10**6)
_define("newton", N__newton=1)
_define("joule", J__joule=1, kJ=1000)
_define("watt", W__watt=1, kW=1000)
_define("volt", V__volt=1)
_define("acre", acre=1)
_define("", unit=1)

#: symbols of one or two letters are units only where they follow a number in upright type or as a separate word
_SQUARE = {"square": 2, "sq": 2, "sq.": 2, "cubic": 3, "cu": 3}
_SPEEDS = {"mph": "mile/hour", "kph": "km/hour", "kmh": "km/hour", "fps": "feet/second"}
_CURRENCY = {
    "\\$": "dollar",
    "$": "dollar",
    "€": "euro",
    "£": "gbp",
    "¥": "yen",
    "₹": "rupee",
    "\\euro": "euro",
    "\\pounds": "gbp",
}
_UPRIGHT = re.compile(
    r"\\(?:text|mbox|mathrm|textrm|rm|textbf|textnormal|operatorname|hbox|mathbf|textit)\s*\{([^{}]*)\}"
)
_POWER = re.compile(r"\s*\^\s*\{?\s*(-?\d)\s*\}?")
_WORD = re.compile(r"[A-Za-z]+\.?")
_FILLER = {"a", "an", "of", "the", "total"}
_STOP_WORDS = (
    "is not but or and be maybe no if when then so we it are was i you to than by with for from that this about"
)
_STOP = frozenset([*_STOP_WORDS.split(), "only", "perhaps", "wait", "because", "answer"])
MAX_UNIT = 60


@lru_cache(maxsize=4096)
def parse_unit(text: str) -> Unit | None:
    """The unit that ``text`` names, :data:`NO_UNIT` for nothing or the empty ``units``, None if it is no unit."""
    if len(text) > MAX_UNIT:
        return None
    text = text.strip()
    if text.startswith("^") and "circ" in text:
        rest = re.sub(r"^\^\s*(?:\{\s*\\circ\s*\}|\\circ)\s*", "", text).strip()
        if rest in ("C", "F", "\\text{C}", "\\text{F}", "\\mathrm{C}", "\\mathrm{F}"):
            return Unit("°" + rest.strip("}")[-1], (("celsius" if "C" in rest else "fahrenheit", 1),))
        return DEGREE if rest in ("", "\\text{ degrees}") else None
    for sign, word in _CURRENCY.items():
        text = text.replace(sign, f" {word} ")
    text = text.replace("\\%", " percent ").replace("%", " percent ").replace("per cent", "percent")
    for _ in range(3):
        text = _UPRIGHT.sub(r" \1 ", text)
    text = text.replace("~", " ").replace("\\cdot", "*").replace("\\ ", " ").strip(" .,;!")
    if not text:
        return NO_UNIT
    dims: dict[str, int] = {}
    factor, direction, next_power, names = Fraction(1), 1, 1, 0
    index = 0
    while index < len(text):
        if text[index].isspace() or text[index] in "*-{}":
            index += 1
            continue
        if text[index] == "/":
            direction, index = -1, index + 1
            continue
        match = _WORD.match(text, index)
        if not match:
            return None
        word, index = match.group().rstrip("."), match.end()
        low = word.lower()
        if low in _STOP:
            return None
        if low in ("per",):
            direction = -1
            continue
        if low in _SQUARE:
            next_power = _SQUARE[low]
            continue
        if low in _FILLER:
            continue
        if low in _SPEEDS and not dims:
            inner = parse_unit(_SPEEDS[low])
            assert inner is not None
            dims, factor, names = dict(inner.dims), inner.factor, names + 1
            continue
        power = _POWER.match(text, index)
        exponent = int(power.group(1)) if power else 1
        index = power.end() if power else index
        base, scale = _lookup(word)
        names += 1
        if names > 4:
            return None
        if base:
            total = direction * exponent * next_power
            dims[base] = dims.get(base, 0) + total
            factor *= scale**total
        next_power = 1
    if dims.get("%", 1) != 1:
        return None
    kept = tuple(sorted((base, power) for base, power in dims.items() if power))
    if kept == PERCENT.dims:
        return PERCENT
    if kept == DEGREE.dims:
        return DEGREE
    return Unit(" ".join(text.split()), kept, factor) if kept else NO_UNIT


def _lookup(word: str) -> tuple[str, Fraction]:
    for spelling in (word, word.lower()):
        if spelling in _KNOWN:
            return _KNOWN[spelling]
        for ending in ("es", "s"):
            stem = spelling.removesuffix(ending)
            if stem != spelling and len(stem) > 1 and stem in _KNOWN:
                return _KNOWN[stem]
    low = word.lower()
    if low.endswith("ies") and len(low) > 4:
        return low[:-3] + "y", Fraction(1)
    if low.endswith(("ches", "shes", "sses", "xes")):
        return low[:-2], Fraction(1)
    return (low[:-1] if low.endswith("s") and len(low) > 3 and not low.endswith("ss") else low), Fraction(1)


def is_known_unit(word: str) -> bool:
    """Whether a bare word is in the table of units (not merely some noun)."""
    return (
        bool(word)
        and (_lookup(word)[0], word.lower()) != (word.lower(), word.lower())
        and (
            word in _KNOWN
            or word.lower() in _KNOWN
            or word.lower().rstrip("s") in _KNOWN
            or word.lower().removesuffix("es") in _KNOWN
        )
    )
