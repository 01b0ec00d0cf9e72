"""The exact layer: numbers as people write them, read into exact rational values, and compared.

In: one answer as text. Out: a :class:`Quantity` (exact value, decimals given, unit), or None where the text is not
plainly one number: what is ambiguous (``0,111``) is refused and passed down. It does not know expressions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from verifiers.limits import MAX_DIGITS, TooLarge
from verifiers.policy import Policy
from verifiers.text import plain, tidy
from verifiers.units import DEGREE, DOLLAR, NO_UNIT, PERCENT, Unit, parse_unit
from verifiers.verdict import Verdict

Number = int | Fraction


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number as written.

    ``value``: exact. ``decimals``: digits after the decimal point as written, or None where the value is exact
    (integers, fractions, repeating decimals). ``digits``: significant digits as written. ``kind``: ``number``,
    ``time`` (value in minutes after midnight), ``ratio``, ``date``, ``based`` (a numeral with its base).
    ``text``: canonical spelling. ``numeral``: the digits before the base subscript.
    """

    value: Number
    text: str
    decimals: int | None = None
    digits: int = 0
    unit: Unit = NO_UNIT
    kind: str = "number"
    numeral: str = ""
    half_day: bool = False


_QUICK = re.compile(
    r"\s*(\\?\$)?\s*([+-]?)(\\?\$)?(?:([1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.(\d*))?|\.(\d+))\s*(\$|\\?%)?\s*\.?\s*\Z",
    re.ASCII,
)
_SIGN = r"[+-]?\s*"
_INT = r"(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?: \d{3})+(?! ?\d)|\d+)"
_DEC = rf"(?:{_INT}(?:\.\d*)?|\.\d+)"
_DECIMAL = re.compile(rf"({_INT})?(?:\.(\d*))?")
_REPEATING = re.compile(
    r"(\d*)\.(\d*)\s*(?:\\overline\s*\{\s*(\d+)\s*\}|\\bar\s*\{\s*(\d+)\s*\}|\\overline\s*(\d)"
    r"|\\bar\s*(\d)|\\dot\s*\{?(\d)\}?|\((\d+)\))"
)
_ELLIPSIS = re.compile(r"(\d*)\.(\d*?)(\d+?)\3\3+\s*(?:\.\.\.|\\l?dots|\\cdots)")
_FRACTION = re.compile(
    rf"\\frac\s*(?:\{{\s*({_SIGN}{_DEC})\s*\}}\s*\{{\s*({_SIGN}{_DEC})\s*\}}|(\d)\s*(\d)"
    rf"|(\d)\s*\{{\s*(\d+)\s*\}}|\{{\s*(\d+)\s*\}}\s*(\d))"
)
_SLASHED = re.compile(rf"({_DEC})\s*/\s*({_SIGN}{_DEC})(?![\d.])")
_MIXED = re.compile(
    r"(\d+)\s*(?:\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|\\frac\s*(\d)\s*(\d)|(?:(?<=\d) +|\s+and\s+)"
    r"\(?(\d+)\s*/\s*(\d+)\)?)"
)
_SCIENTIFIC = re.compile(
    rf"({_DEC})\s*(?:[eE]({_SIGN}\d+)|(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*(?:\{{\s*({_SIGN}\d+)\s*\}}"
    rf"|\(({_SIGN}\d+)\)|({_SIGN}\d+)))"
)
_BASED = re.compile(
    r"([0-9A-Za-z]+)\s*_\s*(?:\{\s*(?:\\text\{\s*)?(\d+|two|three|four|five|six|seven|eight|nine|ten"
    r"|twelve|sixteen)\s*\}?\s*\}|(\d+)(?!\d))"
)
_TIME = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?\s*(?:\\text\{\s*)?([AaPp])?(?(4)\.?\s*[Mm]\.?\s*\}?)")
_RATIO = re.compile(rf"({_DEC})\s*(?::|\\colon)\s*({_DEC})")
_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})|(\d{1,2})/(\d{1,2})/(\d{4})")
_BASE_NAMES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_BASE_NAMES |= {"twelve": 12, "sixteen": 16}
_TAIL = re.compile(
    r"\s*((?:\\?%|\^|\\(?:text|mbox|mathrm|textrm|rm|textbf|textnormal|hbox|mathbf|textit|\$|euro"
    r"|pounds)(?![a-zA-Z])|[€£¥₹$]|[A-Za-z](?![A-Za-z]*\s*\())[^=<>+]*)\Z"
)
FLOAT_DIGITS = 18  #: significant digits that a printed double may have
_SCALE_WORD = re.compile(r"\s*(thousand|million|billion|trillion)(?![A-Za-z])", re.IGNORECASE)
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_WRAPPED = re.compile(
    r"\\(?:text|mbox|mathrm|textrm|textbf|textnormal|mathbf|mathit|boldsymbol|bf|rm|hbox|textit|bm)\s*\{([^{}\\]*)\}\Z"
)


def quantity(text: str) -> Quantity | None:
    """Read ``text`` as one number with an optional unit; None if it is not plainly that.

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
    unit = DOLLAR if (dollar == "\\$" or inner_dollar == "\\$") else PERCENT if tail and tail[-1] == "%" else NO_UNIT
    return _decimal(whole, decimals, sign == "-", unit)


def _decimal(whole: str, fraction: str | None, negative: bool, unit: Unit = NO_UNIT) -> Quantity:
    if len(whole) + len(fraction or "") > MAX_DIGITS:
        raise TooLarge(f"a number of {len(whole) + len(fraction or '')} digits")
    if not fraction:
        value = -int(whole) if negative else int(whole)
        return Quantity(value, str(value), None, len(whole.lstrip("0")), unit)
    digits = whole + fraction
    scaled = int(digits)
    if negative:
        scaled = -scaled
    exact = Fraction(scaled, 10 ** len(fraction))
    number: Number = exact.numerator if exact.denominator == 1 else exact
    text = f"{'-' if negative else ''}{whole.lstrip('0') or '0'}.{fraction}"
    return Quantity(number, text, len(fraction), len(digits.lstrip("0")), unit)


def _quantity(raw: str) -> Quantity | None:
    text = tidy(plain(raw)).rstrip(",; ")
    if text.endswith(".") and not text.endswith("..."):
        text = text[:-1].rstrip(",; ")
    for _ in range(4):
        wrapped = _WRAPPED.match(text)
        if wrapped is None:
            break
        text = wrapped.group(1).strip()
    while (
        len(text) > 2
        and text[0] == "{"
        and text[-1] == "}"
        and "{" not in text[1:-1]
        and "}" not in text[1:-1]
        and "," not in text
    ):
        text = text[1:-1].strip()
    if (
        len(text) > 2
        and text[0] == "("
        and text[-1] == ")"
        and "(" not in text[1:]
        and "," not in text
        and not text[1:-1].isalpha()
    ):
        text = text[1:-1].strip()
    if not text or not any(char.isdigit() for char in text):
        return None
    special = _special(text)
    if special is not None:
        return special
    unit = NO_UNIT
    currency = re.match(r"([+-]?)\s*(\\\$|[€£¥₹])\s*", text)
    if currency:
        found = parse_unit(currency.group(2))
        assert found is not None
        unit, text = found, currency.group(1) + text[currency.end() :]
    negative, body = False, text
    sign = re.match(r"[+-]\s*", text)
    if sign:
        negative, body = text[0] == "-", text[sign.end() :]
        second = re.match(r"(\\\$|[€£¥₹])\s*", body)
        if second and unit is NO_UNIT:
            unit = parse_unit(second.group(1)) or NO_UNIT
            body = body[second.end() :]
    read = _number(body)
    if read is None:
        return None
    value, decimals, digits, end, spelling = read
    rest = body[end:]
    scale = _SCALE_WORD.match(rest)
    if scale:
        power = _SCALES[scale.group(1).lower()]
        value, rest = _tight(Fraction(value) * 10**power), rest[scale.end() :]
        decimals = None if decimals is None else decimals - power
        spelling = f"{spelling}e{power}"
    if rest.strip():
        tail = _TAIL.match(rest)
        if tail is None or (len(tail.group(1)) == 1 and tail.group(1).isalpha() and rest[0] != " "):
            return None
        if "\\text" not in rest and re.match(r"\s*[a-zA-Z](?![a-zA-Z])", rest) and tail.group(1)[0] not in "mghsLlN":
            return None
        tail_unit = parse_unit(tail.group(1))
        if tail_unit is None:
            return None
        if (
            "(" in rest
            or re.search(r"\d\s*\D*\d|\\(?:frac|sqrt|pi)", rest)
            or re.search(r"(?<![a-z])(?:and|or|not|but|is)(?![a-z])", rest)
        ):
            return None
        if unit is not NO_UNIT and tail_unit is not NO_UNIT and tail_unit.dims != unit.dims:
            return None
        unit = unit if tail_unit is NO_UNIT else tail_unit
    if negative:
        value, spelling = -value, f"-{spelling}"
    return Quantity(value, spelling, decimals, digits, unit)


def _number(body: str) -> tuple[Number, int | None, int, int, str] | None:
    """(value, decimals, significant digits, end, spelling) of the unsigned number at the start of ``body``."""
    match = _MIXED.match(body)
    if match:
        whole, parts = int(_bounded(match.group(1))), [g for g in match.groups()[1:] if g is not None]
        top, bottom = int(_bounded(parts[0])), int(_bounded(parts[1]))
        if 0 < top < bottom:
            value = whole + Fraction(top, bottom)
            return _tight(value), None, 0, match.end(), str(value)
        return None
    match = _FRACTION.match(body)
    if match:
        parts = [g for g in match.groups() if g is not None]
        return _ratio_of(parts[0], parts[1], match.end())
    match = _SCIENTIFIC.match(body)
    if match:
        mantissa = _plain_decimal(match.group(1))
        exponent = int(next(g for g in match.groups()[1:] if g is not None).replace(" ", ""))
        if mantissa is None:
            return None
        if abs(exponent) > MAX_DIGITS:
            raise TooLarge(f"a power of ten with exponent {exponent}")
        power = 10**exponent if exponent >= 0 else Fraction(1, 10**-exponent)
        decimals = None if mantissa.decimals is None else mantissa.decimals - exponent
        return (
            _tight(Fraction(mantissa.value) * power),
            decimals,
            mantissa.digits,
            match.end(),
            f"{mantissa.text}e{exponent}",
        )
    match = _REPEATING.match(body)
    if match is None and len(body) < 120 and ("..." in body or "dots" in body):
        match = _ELLIPSIS.match(body)
    if match:
        start, fixed = _bounded(match.group(1)), _bounded(match.group(2))
        block = _bounded(next(g for g in match.groups()[2:] if g is not None))
        value = Fraction(
            int((start + fixed + block) or "0") - int((start + fixed) or "0"), (10 ** len(block) - 1) * 10 ** len(fixed)
        )
        return _tight(value), None, 0, match.end(), f"{start or '0'}.{fixed}({block})"
    match = _SLASHED.match(body)
    if match:
        return _ratio_of(match.group(1), match.group(2), match.end())
    match = _DECIMAL.match(body)
    if match is None or not match.group().strip("., ") or re.match(r"[,.]\d|\d", body[match.end() :]):
        return None
    integer = re.sub("[, ]", "", match.group(1) or "")
    read = _decimal(integer, match.group(2), False)
    return read.value, read.decimals, read.digits, match.end(), read.text


def _ratio_of(top: str, bottom: str, end: int) -> tuple[Number, int | None, int, int, str] | None:
    upper, lower = _plain_decimal(top), _plain_decimal(bottom)
    if upper is None or lower is None or lower.value == 0:
        return None
    value = Fraction(upper.value) / Fraction(lower.value)
    return _tight(value), None, 0, end, str(value)


def _plain_decimal(text: str) -> Quantity | None:
    text = text.replace(" ", "").replace(",", "")
    negative = text.startswith("-")
    whole, _, fraction = text.lstrip("+-").partition(".")
    return _decimal(whole, fraction, negative) if whole or fraction else None


def _bounded(digits: str) -> str:
    if len(digits) > MAX_DIGITS:
        raise TooLarge(f"a number of {len(digits)} digits")
    return digits


def _tight(value: Number) -> Number:
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else value


def _special(text: str) -> Quantity | None:
    match = _DATE.fullmatch(text)
    if match:
        year, month, day = (
            int(g) for g in (match.groups()[:3] if match.group(1) else (match.group(6), match.group(4), match.group(5)))
        )
        return Quantity((year * 100 + month) * 100 + day, f"{year:04d}-{month:02d}-{day:02d}", kind="date")
    match = _TIME.fullmatch(text)
    if match and int(match.group(1)) < 25 and int(match.group(2)) < 60:
        hour, minute, half = int(match.group(1)), int(match.group(2)), (match.group(4) or "").lower()
        second = int(match.group(3) or 0)
        if half and not 1 <= hour <= 12:
            return None
        if half:
            hour = hour % 12 + (12 if half == "p" else 0)
        return Quantity(
            _tight(hour * 60 + minute + Fraction(second, 60)),
            f"{hour:02d}:{minute:02d}" + (f":{second:02d}" if second else ""),
            kind="time",
            half_day=bool(half),
        )
    match = _RATIO.fullmatch(text)
    if match:
        read = _ratio_of(match.group(1), match.group(2), match.end())
        return None if read is None else Quantity(read[0], f"{match.group(1)}:{match.group(2)}", kind="ratio")
    match = _BASED.fullmatch(text)
    if match and any(char.isdigit() for char in match.group(1)):
        base = _BASE_NAMES.get(match.group(2)) or int((match.group(2) or match.group(3))[:6])
        numeral = match.group(1).upper()
        if not 2 <= base <= 36:
            return None
        try:
            return Quantity(int(_bounded(numeral), base), f"{numeral}_{base}", kind="based", numeral=numeral)
        except ValueError:
            return None
    return None


def same_number(x: Number, dx: int | None, sx: int, y: Number, dy: int | None, sy: int, policy: Policy) -> bool:
    """Whether two written numbers are the same, with tolerance only where a side is an approximate decimal.

    ``dx``, ``dy``: decimals as written (None: exact). ``sx``, ``sy``: significant digits as written. A decimal of at
    least four significant digits equals an exact value that rounds to it; a decimal of at least three equals a
    floating-point print (ten digits or more) that rounds to it; two such prints (of at most
    18 digits) agree to a relative 1e-12.
    """
    if x == y:
        return True
    if policy.decimals == "exact" or (dx is None and dy is None):
        return False
    gap: Fraction = abs(Fraction(x) - y)
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
    """Whether two quantities are equal under ``policy``, and why or why not."""
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
    if a.kind != "number":
        return (
            a.value == b.value,
            f"{a.text} and {b.text} are {'' if a.value == b.value else 'not '}the same {_KINDS[a.kind]}",
        )
    if a.unit is b.unit or policy.units == "ignore":
        same = same_number(a.value, a.decimals, a.digits, b.value, b.decimals, b.digits, policy)
        return same, "the same number" if same else "different numbers"
    return _compare_units(a, b, policy)


_KINDS = {"ratio": "ratio", "date": "date", "based": "number"}


def _unmarked_afternoon(a: Quantity, b: Quantity) -> bool:
    unmarked = b if a.half_day else a
    return unmarked.value >= 720


def _compare_kinds(a: Quantity, b: Quantity, policy: Policy) -> tuple[bool, str]:
    kinds = {a.kind, b.kind}
    if kinds == {"number", "ratio"}:
        return a.value == b.value, "a ratio and its quotient" if a.value == b.value else "different ratios"
    if kinds == {"number", "based"}:
        based, number = (a, b) if a.kind == "based" else (b, a)
        if policy.base == "optional":
            same = number.text == based.numeral and number.unit is NO_UNIT
            return same, "the same digits, base left out" if same else "different digits"
        return based.value == number.value, "compared as numbers"
    return False, f"a {a.kind} is not a {b.kind}"


def _compare_units(a: Quantity, b: Quantity, policy: Policy) -> tuple[bool, str]:
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
        if policy.units == "required" and DOLLAR not in (a.unit, b.unit):
            return False, "a unit is missing"
        if DEGREE in (a.unit, b.unit) and policy.angles == "radians":
            return False, "degrees against a bare number"
        return (True, "the same number, unit left out") if same(a.value, b.value) else (False, "different numbers")
    return False, f"different units: {a.unit.name} and {b.unit.name}"


def exact_verdict(a: Quantity, b: Quantity, policy: Policy) -> Verdict:
    """The verdict on two written quantities."""
    same, reason = compare_quantities(a, b, policy)
    return Verdict("equal" if same else "unequal", "exact", shown(a), shown(b), reason)


def shown(value: Quantity) -> str:
    """The canonical spelling of a quantity with its unit."""
    return value.text if not value.unit.name else f"{value.text} {value.unit.name}"
