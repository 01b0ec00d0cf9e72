"""The exact layer reads numbers with units, as people write them, into exact values, and compares them.

In: one answer as text. Out: a :class:`Quantity` (exact value, decimals given, unit), or None if the text is not plainly
one number. This layer refuses ambiguous text (``0,111``) and passes it down to the next layer.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from verifiers.policy import Policy
from verifiers.quantities.compounds import compound, with_half
from verifiers.quantities.scales import scale_at
from verifiers.quantities.specials import as_date, special
from verifiers.quantities.unit_table import AMBIGUOUS
from verifiers.quantities.units import (
    BARE_DOLLAR,
    CURRENCIES,
    DEGREE,
    DOLLAR,
    NO_UNIT,
    PERCENT,
    UPRIGHT,
    Unit,
    parse_unit,
)
from verifiers.quantities.wording import in_digits, list_in_digits
from verifiers.quantities.written import Number, Quantity, decimal, number_at, tight
from verifiers.text import plain, tidy
from verifiers.verdict import Verdict

_QUICK = re.compile(
    r"\s*(\\?\$)?\s*([+-]?)(\\?\$)?(?:([1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.(\d*))?|\.(\d+))\s*(\$|\\?%)?\s*\.?\s*\Z",
    re.ASCII,
)
_MONEY_WORD = re.compile(r"\d\s?(?:k|K|M|bn|B)\s+(?:dollars|euros|pounds|yen|yuan|rupees|USD|EUR|GBP)\b")
CODES = {
    "USD": "\\$", "US\\$": "\\$", "US$": "\\$", "EUR": "€", "GBP": "£", "INR": "₹", "Rs.": "₹", "Rs": "₹", "JPY": "¥",
    "RMB": "元", "CNY": "元",
}  # fmt: skip
_CODE = re.compile(rf"([+-]?)\s*({'|'.join(map(re.escape, sorted(CODES, key=len, reverse=True)))})\s*(?=\d)")
STERLING = (("sterling", 1),)
FLOAT_DIGITS = 18  #: significant digits that a printed double may have
_CURRENCY = "|".join(map(re.escape, sorted({*CURRENCIES, "元"})))
_MONEY = re.compile(rf"([+-]?)\s*({_CURRENCY})\s*")
_INNER_MONEY = re.compile(rf"({_CURRENCY})\s*")
_NO_TAIL = re.compile(r"[=<>+(]|\d\s*\D*\d|\\(?:frac|sqrt|pi)|(?<![a-z])(?:or|not|but|is)(?![a-z])")
_TAIL_START = re.compile(r"\s*(?:\\?%|\^|\\|[€£¥₹₩₽$\'\"℃℉¢‰]|-(?=[A-Za-z]{2})|[^\W\d_](?![A-Za-z]*\s*\())")
_QUOTIENT = re.compile(r"\\frac\s*\{\s*([A-Za-z]{1,20})\s*\}\s*\{\s*([A-Za-z]{1,20})\s*\}")
_LONE_LETTERS = "mghsLlNJWVt"
_MAY_BE_WORDS = re.compile(r"[A-Za-z零〇一二两三四五六七八九十百千万亿半负負每マ]")
_BELOW_ZERO = re.compile(r"\s+below\s+zero\.?\Z", re.IGNORECASE)
_OPERATED = re.compile(r"\s*-?\s*(?:squared|cubed|factorial|to the)\b", re.IGNORECASE)


def quantity(text: str) -> Quantity | None:
    """Reads ``text`` as one number with an optional unit; returns None if the text is not plainly that.

    Raises :class:`TooLarge` for more than ``MAX_DIGITS`` digits.
    """
    if len(text) <= 48:
        return _quantity_short(text)
    return _quantity(text)


@lru_cache(maxsize=65536)
def _quantity_short(text: str) -> Quantity | None:
    quick = _QUICK.match(text)
    if quick is not None:
        return _from_quick(quick)
    return _quantity(text)


def _from_quick(match: re.Match[str]) -> Quantity:
    dollar, sign, inner_dollar, whole, fraction, bare, tail = match.groups()
    whole = (whole or "").replace(",", "")
    decimals = fraction if bare is None else bare
    money = DOLLAR if "\\$" in (dollar, inner_dollar) else BARE_DOLLAR if _has_lone_dollar(match.string) else NO_UNIT
    unit = PERCENT if tail and tail[-1] == "%" else money
    return decimal(whole, decimals, sign == "-", unit)


def _quantity(raw: str) -> Quantity | None:
    text = _unwrapped(raw)
    if not text or not (any(char.isdigit() for char in text) or _MAY_BE_WORDS.match(text.lstrip("+- $\\"))):
        return None
    found = special(text) or with_half(text)
    if found is not None:
        return found
    text = in_digits(text)
    if not any(char.isdigit() for char in text):
        return None
    return compound(list_in_digits(text)) or _measured_number(text, raw)


def _unwrapped(raw: str) -> str:
    """Returns the text without its formatting, its outer brackets and its commands for upright type."""
    text = tidy(plain(raw)).rstrip(",; ")
    if text.endswith(".") and not text.endswith("..."):
        text = text[:-1].rstrip(",; ")
    for _ in range(4):
        before = text
        text = UPRIGHT.sub(r" \1 ", text) if "\\" in text else text
        if text == before:
            break
    text = " ".join(text.split())
    if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'" and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    while len(text) > 2 and text[0] == "{" and text[-1] == "}" and not re.search("[{},]", text[1:-1]):
        text = text[1:-1].strip()
    if (
        len(text) > 2
        and text[0] == "("
        and text[-1] == ")"
        and not re.search("[(,]", text[1:])
        and not text[1:-1].isalpha()
    ):
        text = text[1:-1].strip()
    return text


def _measured_number(text: str, raw: str) -> Quantity | None:
    """Reads a number with its sign, its currency, scale words and a unit."""
    unit, negative = NO_UNIT, False
    below = _BELOW_ZERO.search(text)
    if below:
        text, negative = text[: below.start()], True
    code = _CODE.match(text)
    if code:
        text = f"{code.group(1)}{CODES[code.group(2)]}{text[code.end() :]}"
    money = _MONEY.match(text)
    if money:
        unit, text = parse_unit(money.group(2)) or NO_UNIT, money.group(1) + text[money.end() :]
    sign = re.match(r"[+-]\s*", text)
    if sign:
        negative, text = negative or text[0] == "-", text[sign.end() :]
        inner = _INNER_MONEY.match(text)
        if inner and unit is NO_UNIT:
            unit, text = parse_unit(inner.group(1)) or NO_UNIT, text[inner.end() :]
    read = number_at(text)
    if read is None:
        return None
    value, decimals, digits, end, spelling = read
    scale = scale_at(text[end:], unit is not NO_UNIT or _is_money(raw))
    if scale.end:
        value = tight(Fraction(value) * scale.factor)
        spelling = _scaled(spelling, scale.power, scale.factor)
        decimals = None if decimals is None or scale.power is None else decimals - scale.power
    tail = _tail_unit(text[end + scale.end :], raw, -1 <= value <= 1)
    if tail is None or (scale.percent and tail is not NO_UNIT):
        return None
    tail = PERCENT if scale.percent else tail
    if unit is not NO_UNIT and tail.dims and all(power < 0 for _, power in tail.dims):
        tail = parse_unit(f"{unit.name} {text[end + scale.end :]}") or tail
        unit = tail
    if unit is not NO_UNIT and tail is not NO_UNIT and tail.dims != unit.dims:
        return None
    if negative:
        value, spelling = -value, f"-{spelling}"
    if unit is NO_UNIT and tail is NO_UNIT and _has_lone_dollar(raw):
        unit = BARE_DOLLAR
    unit = unit if tail is NO_UNIT else tail
    return Quantity(value, spelling, decimals, digits, unit, numeral=text[:end] if "/" in text[:end] else "")


def _is_money(raw: str) -> bool:
    """Whether a lone dollar sign or the name of a currency makes ``5k`` an amount of money."""
    return _has_lone_dollar(raw) or _MONEY_WORD.search(raw) is not None


def _has_lone_dollar(raw: str) -> bool:
    """Whether a text begins with its only dollar sign. That sign means money and is not a math delimiter."""
    return raw.count("$") == 1 and raw.lstrip(" -+").startswith("$")


def _scaled(spelling: str, power: int | None, factor: Fraction) -> str:
    return f"{spelling}e{power}" if power is not None else f"{spelling}*{factor}"


def _tail_unit(rest: str, raw: str, one: bool) -> Unit | None:
    """Returns the unit behind a number, or None if the text there is not a unit."""
    rest = _QUOTIENT.sub(r"\1/\2", rest)
    word = rest.strip()
    if not word:
        return NO_UNIT
    if word in ("'", '"', "''"):
        return parse_unit(AMBIGUOUS[word])
    if not _TAIL_START.match(rest) or _OPERATED.match(rest) or _NO_TAIL.search(rest):
        return None
    lone = re.match(r"\s*[A-Za-z](?![^\W\d_]|-[A-Za-z])", rest) is not None and not _upright(word[0], raw)
    if lone and (word[0] not in _LONE_LETTERS or (len(word) == 1 and rest[0] != " ")):
        return None
    return parse_unit(word.lstrip("-"), one)


def _upright(letter: str, raw: str) -> bool:
    """Whether a letter is in upright type. An upright letter is a unit and not a variable."""
    return re.search(rf"\\(?:text|mbox|mathrm|textrm|rm|textnormal|hbox)\s*\{{\s*{re.escape(letter)}", raw) is not None


def same_number(x: Number, dx: int | None, sx: int, y: Number, dy: int | None, sy: int, policy: Policy) -> bool:
    """Whether two written numbers are the same; only an approximate decimal gets a tolerance.

    ``dx``, ``dy``: decimals as written (None: exact). ``sx``, ``sy``: significant digits as written. A decimal of at
    least four significant digits equals an exact value that rounds to it. A decimal of at least three significant
    digits equals a floating-point print (ten digits or more) that rounds to it. Two such prints (of at most 18 digits)
    are the same if they agree to a relative 1e-12.
    """
    if x == y:
        return True
    if dx is None and dy is None:
        return False
    gap: Fraction = abs(Fraction(x) - y)
    if policy.tolerance and gap <= Fraction(policy.tolerance) * max(abs(Fraction(x)), abs(Fraction(y))):
        return True
    if policy.decimals == "exact":
        return False
    if 13 <= max(sx if dx is not None else 0, sy if dy is not None else 0) <= FLOAT_DIGITS and gap * 10**12 <= abs(
        Fraction(x)
    ):
        return True
    if dx is not None and dy is not None:
        if dx == dy:
            return False
        short_digits, long_digits = (sx, sy) if dx < dy else (sy, sx)
        return short_digits >= 3 and long_digits >= 10 and _rounds(gap, min(dx, dy))
    decimals, digits = (dx, sx) if dx is not None else (dy, sy)
    assert decimals is not None
    return digits >= 4 and _rounds(gap, decimals)


def _rounds(gap: Fraction, decimals: int) -> bool:
    return bool(2 * gap * 10**decimals <= 1) if decimals >= 0 else bool(2 * gap <= 10**-decimals)


def compare_quantities(a: Quantity, b: Quantity, policy: Policy) -> tuple[bool, str]:
    """Returns whether two quantities are equal under ``policy``, and the reason."""
    if a.kind != b.kind:
        return _compare_kinds(a, b, policy)
    if a.kind == "time":
        if a.value == b.value or (
            a.half_day != b.half_day
            and (a.value - b.value) % 720 == 0
            and min(a.value, b.value) < 720
            and not _unmarked_afternoon(a, b)
        ):
            return True, "the same time of day"
        return False, "different times of day"
    if a.kind == "ratio":
        same = _proportional(a.parts, b.parts)
        return same, "the same ratio" if same else "different ratios"
    if a.kind != "number":
        return _same_kind(a, b, policy)
    if a.unit is b.unit or policy.units == "ignore":
        same = same_number(a.value, a.decimals, a.digits, b.value, b.decimals, b.digits, policy)
        return same, "the same number" if same else "different numbers"
    return _compare_units(a, b, policy)


def _same_kind(a: Quantity, b: Quantity, policy: Policy) -> tuple[bool, str]:
    """Compare two dates or two numerals with their bases."""
    if policy.dates == "day_first":
        a, b = (as_date(side.numeral, policy.dates) or side if side.kind == "date" else side for side in (a, b))
    same = a.value == b.value
    kind = "number" if a.kind == "based" else a.kind
    return same, f"{a.text} and {b.text} are {'' if same else 'not '}the same {kind}"


def _proportional(x: tuple[Number, ...], y: tuple[Number, ...]) -> bool:
    """Whether two ratios of any number of parts are the same."""
    if len(x) != len(y):
        return False
    place = next((index for index, value in enumerate(x) if value), None)
    if place is None or not y[place]:
        return x == y
    return all(p * y[place] == q * x[place] for p, q in zip(x, y, strict=True))


def _unmarked_afternoon(a: Quantity, b: Quantity) -> bool:
    unmarked = b if a.half_day else a
    return unmarked.value >= 720


def _compare_kinds(a: Quantity, b: Quantity, policy: Policy) -> tuple[bool, str]:
    kinds = {a.kind, b.kind}
    x, y = (a, b) if a.kind < b.kind else (b, a)
    if kinds == {"number", "ratio"}:
        same = len(y.parts) == 2 and x.value == y.value
        return same, "a ratio and its quotient" if same else "different ratios"
    if kinds == {"number", "based"}:
        if policy.base == "optional":
            same = y.text == x.numeral and y.unit is NO_UNIT
            return same, "the same digits, base left out" if same else "different digits"
        return x.value == y.value, "compared as numbers"
    if kinds == {"ratio", "time"} and not y.half_day:
        return _proportional(x.parts, y.parts), "a ratio that looks like a time of day"
    if kinds == {"number", "time"} and y.value % 60 == 0 and x.unit is NO_UNIT and policy.units != "required":
        hours = (y.parts[0], y.parts[0] - 12) if y.half_day and y.parts[0] > 12 else (y.parts[0],)
        return x.value in hours, "the hour of a time of day"
    if kinds == {"date", "number"} and policy.dates != "words" and y.numeral:
        read = as_date(y.numeral, policy.dates)
        if read is not None:
            return _same_kind(x, read, policy)
    return False, f"a {a.kind} is not a {b.kind}"


def _compare_units(a: Quantity, b: Quantity, policy: Policy) -> tuple[bool, str]:
    a, b = _in_money(a, b), _in_money(b, a)

    def same(x: Number, y: Number, shift_a: int = 0, shift_b: int = 0) -> bool:
        da = None if a.decimals is None else a.decimals + shift_a
        db = None if b.decimals is None else b.decimals + shift_b
        return same_number(x, da, a.digits, y, db, b.digits, policy)

    if PERCENT in (a.unit, b.unit):
        other = b if a.unit is PERCENT else a
        if other.unit is NO_UNIT and policy.percent != "strict":
            shift_a, shift_b = (2, 0) if a.unit is PERCENT else (0, 2)
            x = Fraction(a.value, 100) if a.unit is PERCENT else a.value
            y = Fraction(b.value, 100) if b.unit is PERCENT else b.value
            if policy.percent in ("either", "value") and same(x, y, shift_a, shift_b):
                return True, "a percentage and its value"
            if policy.percent in ("either", "number") and same(a.value, b.value):
                return True, "a percentage and its number"
            return False, "different percentages"
        return False, "a percentage against something else"
    if a.unit.dims == b.unit.dims:
        if a.unit.factor == b.unit.factor:
            return (True, "the same quantity") if same(a.value, b.value) else (False, "different numbers")
        if a.value * a.unit.factor == b.value * b.unit.factor:
            return True, "the same quantity in other units"
        return False, "different quantities"
    if NO_UNIT in (a.unit, b.unit):
        if policy.units == "required" and DOLLAR.dims not in (a.unit.dims, b.unit.dims):
            return False, "a unit is missing"
        if DEGREE in (a.unit, b.unit) and policy.angles == "radians":
            return False, "degrees against a bare number"
        if same(a.value, b.value) or (a.parts or b.parts) == (b.value if a.parts else a.value,):
            return True, "the same number" if BARE_DOLLAR in (a.unit, b.unit) else "the same number, unit left out"
        return False, "different numbers"
    return False, f"different units: {a.unit.name or '$'} and {b.unit.name or '$'}"


def _in_money(a: Quantity, b: Quantity) -> Quantity:
    """Returns ``a`` in pounds sterling if it says pounds and ``b`` is money."""
    return (
        replace(a, unit=Unit(a.unit.name, STERLING))
        if a.unit.name in ("pound", "pounds") and b.unit.dims == STERLING
        else a
    )


def exact_verdict(a: Quantity, b: Quantity, policy: Policy) -> Verdict:
    """Returns the verdict on two written quantities."""
    same, reason = compare_quantities(a, b, policy)
    return Verdict("equal" if same else "unequal", "exact", shown(a), shown(b), reason)


def shown(value: Quantity) -> str:
    """Returns the canonical spelling of a quantity with its unit."""
    return value.text if not value.unit.name else f"{value.text} {value.unit.name}"
