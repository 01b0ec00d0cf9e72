"""Reads Chinese and Japanese numbers in words (``三分之二``, ``负十二``) and counters (``个``, ``本``, ``匹``).

In: a text that begins with such a number (also ``百分之五``), or the word behind a number. Out: the text with digits,
or whether the word is a counter.
"""

from __future__ import annotations

import re

_DIGITS = {char: value for value, char in enumerate("零一二三四五六七八九")}
_DIGITS |= {"〇": 0, "两": 2, "兩": 2, "壹": 1, "贰": 2}
_SMALL = {"十": 10, "百": 100, "千": 1000, "佰": 100, "仟": 1000}
_LARGE = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_CARDINAL = f"[{''.join([*_DIGITS, *_SMALL, *_LARGE])}]{{1,24}}"
_NUMBER = re.compile(
    rf"\s*(?P<sign>负|負|マイナス)?(?:百分之(?P<percent>{_CARDINAL}|\d[\d.]*)"
    rf"|(?P<bottom>{_CARDINAL}|\d+)分之(?P<top>{_CARDINAL}|\d+)|(?P<half>一?半)"
    rf"|(?P<whole>{_CARDINAL})(?:点(?P<places>[{''.join(_DIGITS)}]{{1,20}}))?|(?P<plain>(?<=负|負|ス)\d[\d.,]*))"
)
_RATE = re.compile(r"每(?P<per>小时|分钟|秒|天|人|个|千克|公斤|米)\s*(?P<number>\d[\d.,]*)\s*(?P<unit>[^\d\s]+)")
_BEFORE_NOUNS = "个個只隻名位条條张張本件枝支头頭匹棵颗顆粒辆輛台瓶杯袋箱盒包朵把根座份枚种種"
_ALONE = "人次层層家组組对對双雙页頁道题題套排行列届冊册回つ羽点倍개명권번대"
_COUNTED = re.compile(rf"(?:[{_ALONE}]|ヶ|か所|마리|[{_BEFORE_NOUNS}][\u3040-\u30ff\u3400-\u9fff]{{0,8}})")
_CHANGING = re.compile(
    "[一二三四五六七八九十百千万萬亿億兆零〇两兩半负負不没"
    "没非倍折成分之数第号號级級方角边邊面与和或以及比的余多少几割引]"
)


def in_digits(text: str) -> str:
    """Writes the Chinese number in words at the start of ``text`` in digits; a text without one stays unchanged."""
    rate = _RATE.fullmatch(text)
    if rate:
        return f"{rate.group('number')}{rate.group('unit')}/{rate.group('per')}"
    match = _NUMBER.match(text)
    if match is None or text.strip() in _DIGITS:  # a lone 五 is a label as often as a number
        return text
    found = _spelled(match)
    return text if found is None else f"{'-' if match.group('sign') else ''}{found}{text[match.end() :]}"


def is_counted(word: str) -> bool:
    """Whether a word is a counter, alone or with the noun that it counts."""
    return _COUNTED.fullmatch(word) is not None and not _CHANGING.search(word[1:])


def _spelled(match: re.Match[str]) -> str | None:
    """Returns the digits of the matched text."""
    if match.group("half"):
        return "1/2"
    if match.group("plain"):
        return match.group("plain")
    if match.group("percent"):
        percent = _value(match.group("percent"))
        return None if percent is None else f"{percent}%"
    if match.group("bottom"):
        bottom, top = _value(match.group("bottom")), _value(match.group("top"))
        return None if bottom is None or top is None else f"{top}/{bottom}"
    whole = _value(match.group("whole"))
    places = "".join(str(_DIGITS[char]) for char in match.group("places") or "")
    return None if whole is None else f"{whole}.{places}" if places else whole


def _value(text: str) -> str | None:
    """Returns the value of a cardinal: ``一百零五`` is 105, ``二〇二四`` is 2024. Digits stay as they are."""
    if text[0].isdigit() and text[0].isascii():
        return text
    if len(text) > 1 and all(char in _DIGITS for char in text):
        return "".join(str(_DIGITS[char]) for char in text)
    total = section = digit = 0
    limit, unit = 10**5, 1
    for char in text:
        if char in _DIGITS:
            if digit:
                return None
            digit, unit = _DIGITS[char], 1 if _DIGITS[char] == 0 else unit
        elif char in _SMALL:
            if _SMALL[char] >= limit:
                return None
            limit = unit = _SMALL[char]
            section, digit = section + (digit or 1) * unit, 0
        else:
            unit = _LARGE[char]
            total, section, digit, limit = (total + section + digit) * unit, 0, 0, 10**5
    return str(total + section + digit * max(1, unit // 10))
