"""Reads times of day, dates, ratios and numerals with a base for the exact layer.

In: one answer as text, without its formatting. Out: a :class:`Quantity` of another kind than ``number``, or None.
Nothing is guessed. In a date whose month is a number, the month comes first, unless the policy or the number itself
says otherwise.
"""

from __future__ import annotations

import re
from fractions import Fraction

from verifiers.quantities.wording import ORDINALS, TENS, number_in_words
from verifiers.quantities.written import DECIMAL, Number, Quantity, bounded, plain_decimal, tight

_BASED = re.compile(
    r"([0-9A-Za-z]+)\s*_\s*(?:\{\s*(?:\\text\{\s*)?(\d+|two|three|four|five|six|seven|eight|nine|ten"
    r"|twelve|sixteen)\s*\}?\s*\}|(\d+)(?!\d))"
)
_RATIO = re.compile(rf"{DECIMAL}(?:\s*(?::|\\colon(?![a-z])|-?\b(?:is\s+)?to\b-?)\s*{DECIMAL}){{1,9}}", re.IGNORECASE)
_RATIO_WORDS = re.compile(r"^(?:(?:a|the)\s+)?ratio\s+(?:of\s+|is\s+)?|\s+ratio$", re.IGNORECASE)
_RATIO_MARK = re.compile(r"\s*(?::|\\colon|-?\b(?:is\s+)?to\b-?)\s*", re.IGNORECASE)
_WORD_RATIO = re.compile(r"[a-z-]+(?:\s+[a-z]+)?\s+to\s+[a-z-]+(?:\s+[a-z]+)?(?:\s+to\s+[a-z-]+)?", re.IGNORECASE)
_OUT_OF = re.compile(r"(\d{1,9})\s+(?:out\s+of|in)\s+(?:every\s+)?(\d{1,9})", re.IGNORECASE)
_HALF_DAY = r"(?P<half>[ap]\.?\s?m\b\.?|noon|midnight|in\s+the\s+(?:morning|afternoon|evening)|at\s+night)?"
_OCLOCK = r"(?:\s*(?:o\s?['’]?\s?clock|uhr))?"
_CLOCK = re.compile(
    rf"(?P<hour>\d{{1,2}})(?::(?P<minute>\d{{2}})(?::(?P<second>\d{{2}}))?)?{_OCLOCK}\s*{_HALF_DAY}", re.IGNORECASE
)
_DOTTED = re.compile(r"(\d{1,2})\.(\d{2})(\s*[ap]\.?\s?m\b\.?)", re.IGNORECASE)
_SPOKEN = re.compile(
    r"(?:(?P<minutes>half|(?:an?\s+)?quarter|[a-z]+(?:-[a-z]+)?|\d{1,2})(?:\s+minutes?)?\s+(?P<side>past|after|to|till|before)\s+)?"
    rf"(?P<hour>[a-z]+|\d{{1,2}}){_OCLOCK}\s*{_HALF_DAY}",
    re.IGNORECASE,
)
_CHINESE_TIME = re.compile(
    r"(?P<half>凌晨|早上|上午|午前|中午|下午|午後|晚上|오전|오후)?\s*(?P<hour>\d{1,2})\s*(?:点钟?|點鐘?|時|时|시)\s*(?:(?P<minute>\d{1,2})\s*[分분]|(?P<thirty>半))?"
)
_MONTHS = "january february march april may june july august september october november december".split()  # noqa: SIM905
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)}|(?:{'|'.join(name[:3] for name in _MONTHS)}|sept)\b\.?)"
_ORDINAL_DAY = (
    rf"(?:twenty|thirty)[\s-](?:{'|'.join(list(ORDINALS)[:9])})|{'|'.join(sorted(ORDINALS, key=len, reverse=True))}"
)
_DAY = rf"(?:the\s+)?(?P<day>\d{{1,2}}(?:st|nd|rd|th)?(?!\w)|{_ORDINAL_DAY})"
_ORDINAL = re.compile(rf"(?:the\s+)?(\d{{1,9}}(?:st|nd|rd|th)|{_ORDINAL_DAY})", re.IGNORECASE)
_YEAR = r"(?:,?\s+(?P<year>\d{4}))?"
_DATES = [
    re.compile(rf"{_MONTH}\s+{_DAY}{_YEAR}", re.IGNORECASE),
    re.compile(rf"{_DAY}\s+(?:of\s+)?{_MONTH}{_YEAR}", re.IGNORECASE),
    re.compile(r"(?P<year>\d{4})[-/](?P<month>\d{1,2})[-/](?P<day>\d{1,2})"),
    re.compile(r"(?:(?P<year>\d{4})\s*[年년]\s*)?(?P<month>\d{1,2})\s*[月월]\s*(?P<day>\d{1,2})\s*[日号號일]"),
]
_SLASHED_DATE = re.compile(r"(\d{1,2})/(\d{1,2})(?:/(\d{4}))?")
_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_BASE_NAMES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_BASE_NAMES |= {"twelve": 12, "sixteen": 16}
MAX_SPECIAL = 80


def special(text: str) -> Quantity | None:
    """Reads a date, a time of day, a ratio, a share or a numeral with its base; returns None for anything else."""
    if len(text) > MAX_SPECIAL:
        return _based(text)
    return _date(text) or _time(text) or _ratio(text) or _share(text) or _ordinal(text) or _based(text)


# ---------------------------------------------------------------------- dates


def _date(text: str) -> Quantity | None:
    for pattern in _DATES:
        match = pattern.fullmatch(text)
        if match:
            return _dated(int(match.group("year") or 0), _month(match.group("month")), _day(match.group("day")))
    match = _SLASHED_DATE.fullmatch(text)
    return as_date(text, "month_first") if match and match.group(3) else None


def as_date(written: str, order: str) -> Quantity | None:
    """Reads ``3/5`` or ``3/5/2024`` as a date, ``month_first`` or ``day_first``; a first number above 12 is a day."""
    match = _SLASHED_DATE.fullmatch(written.strip())
    if match is None:
        return None
    first, second, year = int(match.group(1)), int(match.group(2)), int(match.group(3) or 0)
    swapped = (order == "day_first") != (first > 12 or second > 12) if year else order == "day_first"
    if year and first > 12:
        swapped = True
    elif year and second > 12:
        swapped = False
    month, day = (second, first) if swapped else (first, second)
    found = _dated(year, month, day)
    return None if found is None else Quantity(found.value, found.text, kind="date", numeral=written)


def _dated(year: int, month: int, day: int) -> Quantity | None:
    if not (1 <= month <= 12 and 1 <= day <= _LENGTHS[month - 1]):
        return None
    shown = f"{year:04d}-{month:02d}-{day:02d}" if year else f"{month:02d}-{day:02d}"
    return Quantity((year * 100 + month) * 100 + day, shown, kind="date")


def _month(text: str) -> int:
    if text.isdigit():
        return int(text)
    return 1 + next(index for index, name in enumerate(_MONTHS) if name.startswith(text.lower().rstrip(".")[:3]))


def _day(text: str) -> int:
    digits = re.match(r"\d+", text)
    if digits:
        return int(digits.group())
    words = re.split(r"[\s-]+", text.lower())
    return sum(ORDINALS.get(word) or TENS.get(word) or 0 for word in words)


# ---------------------------------------------------------------------- times of day


def _time(text: str) -> Quantity | None:
    low = text.lower().strip(" .")
    if low in ("noon", "midday", "12 noon", "midnight", "12 midnight"):
        return _at(0 if "midnight" in low else 12, 0, None, True)
    dotted = _DOTTED.fullmatch(text)
    if dotted:
        text = f"{dotted.group(1)}:{dotted.group(2)}{dotted.group(3)}"
    match = _CLOCK.fullmatch(text)
    if match and (match.group("minute") or match.group("half") or "clock" in low or "uhr" in low):
        minute, second = int(match.group("minute") or 0), int(match.group("second")) if match.group("second") else None
        return _of_half(int(match.group("hour")), minute, second, match.group("half"))
    match = _CHINESE_TIME.fullmatch(text)
    if match:
        minute = 30 if match.group("thirty") else int(match.group("minute") or 0)
        half = {"凌": "a", "早": "a", "上": "a", "午": "p", "中": "n", "下": "p", "晚": "p"}.get(
            (match.group("half") or " ")[0]
        )
        half = {"午前": "a", "오전": "a", "오후": "p"}.get(match.group("half") or "", half or "")
        return _of_half(int(match.group("hour")), minute, None, half)
    return _spoken(text)


def _spoken(text: str) -> Quantity | None:
    """Reads a spoken time: ``half past three``, ``ten to four``, ``three o'clock in the afternoon``."""
    match = _SPOKEN.fullmatch(text)
    if match is None or not (match.group("side") or "clock" in text.lower() or match.group("half")):
        return None
    hour, minute = _small(match.group("hour")), 0
    if match.group("side"):
        word = re.sub(r"^an?\s+", "", match.group("minutes").lower())
        found = {"half": 30, "quarter": 15}.get(word) or _small(word)
        after = match.group("side").lower() in ("past", "after")
        if not found or found > 59 or not hour or hour > 12 or (word == "half" and not after):
            return None
        if not (after or word == "quarter" or match.group("half") or re.search("minute|clock", text.lower())):
            return None  # "ten to four" is a ratio
        minute = found if after else 60 - found
        hour = hour if after else (hour - 2) % 12 + 1
    return None if hour is None else _of_half(hour, minute, None, match.group("half"))


def _small(word: str) -> int | None:
    if word.isdigit():
        return int(word)
    found = number_in_words(word)
    return int(found) if found is not None and found.denominator == 1 and found >= 0 else None


def _of_half(hour: int, minute: int, second: int | None, half: str | None) -> Quantity | None:
    """Returns a time as written. ``half`` names the half of the day, if the text names one."""
    mark = (half or "").lower()
    if minute > 59 or (second or 0) > 59 or hour > 24:
        return None
    if not mark:
        return _at(hour, minute, second, False)
    if not 1 <= hour <= 12:
        return None if mark[0] in "ap" else _at(hour, minute, second, True)
    late = mark[0] == "p" or "noon" in mark or "evening" in mark or mark == "n"
    if mark.startswith("at"):
        late = 5 <= hour <= 11
    if mark.startswith("midnight") or mark == "noon":
        late = mark == "noon"
    return _at(hour % 12 + (12 if late else 0), minute, second, True)


def _at(hour: int, minute: int, second: int | None, half_day: bool) -> Quantity:
    shown = f"{hour:02d}:{minute:02d}" + (f":{second:02d}" if second else "")
    value = tight(hour * 60 + minute + Fraction(second or 0, 60))
    parts = (hour, minute) if second is None else (hour, minute, second)
    return Quantity(value, shown, kind="time", half_day=half_day, parts=parts)


# ---------------------------------------------------------------------- ratios, shares, bases


def _ordinal(text: str) -> Quantity | None:
    """Reads an ordinal, like ``3rd`` or ``the twenty-first``. It is a place and not a number."""
    match = _ORDINAL.fullmatch(text)
    if match is None:
        return None
    value = _day(match.group(1))
    return Quantity(value, f"{value}.", kind="ordinal")


def _ratio(text: str) -> Quantity | None:
    text = _RATIO_WORDS.sub("", text)
    if _RATIO.fullmatch(text):
        parts = [plain_decimal(part) for part in _RATIO_MARK.split(text)]
        return ratio(tuple(part.value for part in parts if part is not None))
    if _WORD_RATIO.fullmatch(text):
        words = [number_in_words(part) for part in re.split(r"\s+to\s+", text, flags=re.IGNORECASE)]
        if all(word is not None for word in words) and set(words) != {1}:
            return ratio(tuple(tight(word) for word in words if word is not None))
    return None


def ratio(parts: tuple[Number, ...]) -> Quantity | None:
    """Returns the ratio of some numbers, or None if the last one is zero."""
    if parts[-1] == 0:
        return None
    return Quantity(
        tight(Fraction(parts[0]) / Fraction(parts[-1])), ":".join(map(str, parts)), kind="ratio", parts=parts
    )


def _share(text: str) -> Quantity | None:
    """Reads a share: ``1 in 6``, ``3 out of 4``."""
    match = _OUT_OF.fullmatch(text)
    if match is None or int(match.group(2)) < max(2, int(match.group(1))):
        return None
    value = Fraction(int(match.group(1)), int(match.group(2)))
    return Quantity(tight(value), str(value))


def _based(text: str) -> Quantity | None:
    match = _BASED.fullmatch(text)
    if match is None or not any(char.isdigit() for char in match.group(1)):
        return None
    base = _BASE_NAMES.get(match.group(2)) or int((match.group(2) or match.group(3))[:6])
    numeral = match.group(1).upper()
    if not 2 <= base <= 36:
        return None
    try:
        return Quantity(int(bounded(numeral), base), f"{numeral}_{base}", kind="based", numeral=numeral)
    except ValueError:
        return None
