"""The table of units says which spelling names which unit, and how large that unit is.

In: one spelling (``cm``, ``hours``, ``公里``). Out: its dimensions and exact factor. The spellings are our own fixed
table. The sizes come from pint. The first unit with a size loads pint. We ask pint only for names of this table, never
for text from an answer. Money, calendar months, angles and temperatures get no size from pint: they are dimensions of
their own.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

Dimensions = tuple[tuple[str, int], ...]

_PREFIXES = {"k": "kilo", "c": "centi", "m": "milli", "d": "deci", "u": "micro", "n": "nano", "M": "mega", "G": "giga",
             "h": "hecto", "T": "tera"}  # fmt: skip
_METRIC = {  # pint's name: (symbols, words, prefixes in use); "pm" and "am" are times of day, so few prefixes are
    "meter": ("m", "meter metre", "kcmdun"), "gram": ("g", "gram gramme", "kmu"), "second": ("s", "second", "mun"),
    "liter": ("L l", "liter litre", "kmcdhu"), "watt": ("W", "watt", "kMGm"), "joule": ("J", "joule", "kM"),
    "volt": ("V", "volt", "km"), "ampere": ("A", "ampere", "m"), "hertz": ("Hz", "hertz", "kMG"),
    "newton": ("N", "newton", "k"), "pascal": ("Pa", "pascal", "kMh"),
    "calorie": ("cal", "calorie", "k"), "ohm": ("", "ohm", "kM"), "mole": ("mol", "mole", "m"),
    "electron_volt": ("eV", "electronvolt", "kM"), "bar": ("", "bar", "m"),
    "watt_hour": ("Wh", "", "kM"),
}  # fmt: skip
_NAMES: dict[str, str] = {  # pint's name: spellings; plurals in -s and -es are understood
    "meter": "metro mètre mètres 米 公尺 メートル 미터",
    "kilometer": "kms kilómetro kilomètre 千米 公里 キロ 킬로미터",
    "centimeter": "cms centímetro centimètre 厘米 公分 センチメートル 센티미터",
    "millimeter": "mms 毫米 ミリメートル", "decimeter": "分米", "micrometer": "micron 微米",
    "nanometer": "纳米", "inch": "inch in inche 英寸", "foot": "ft foot feet 英尺", "yard": "yd yard 码",
    "mile": "mi mile 英里", "nautical_mile": "nmi 海里", "light_year": "lightyear 光年",
    "second": "sec secs segundo seconde sekunde sekunden секунда секунд секунды 秒 秒钟 초",
    "minute": "min mins minute minuto minuten минут минута минуты 分钟 分 分鐘 분",
    "hour": "h hr hrs hour hora heure stunde stunden час часа часов 小时 小時 時間 时 시간",
    "day": "day día dia jour tag tage tagen день дня дней 天 日 日間 일",
    "week": "wk week semana semaine woche wochen 周 星期 週間 주", "fortnight": "fortnight",
    "gram": "gramo gramm 克 グラム 그램",
    "kilogram": "kilo kgs kilogramo kilogramm 千克 公斤 キログラム 킬로그램", "milligram": "毫克",
    "tonne": "tonne 吨 噸 トン t", "ton": "ton", "pound": "lb lbs pound 磅", "ounce": "oz ounce 盎司",
    "stone": "stone", "carat": "carat", "liter": "litro 升 リットル 리터",
    "milliliter": "mls cc 毫升 ミリリットル 밀리리터", "gallon": "gal gallon 加仑", "quart": "qt quart",
    "pint": "pt pint", "cup": "cup", "fluid_ounce": "floz", "tablespoon": "tbsp tablespoon",
    "teaspoon": "tsp teaspoon", "hectare": "ha hectare 公顷", "watt": "瓦", "kilowatt": "千瓦", "joule": "焦耳",
    "newton": "牛顿", "volt": "伏", "ampere": "amp 安培", "horsepower": "hp horsepower", "knot": "knot",
    "kilocalorie": "千卡 大卡", "atmosphere": "atm atmosphere", "kilowatt_hour": "kwh 千瓦时",
    "kelvin": "K kelvin 开尔文", "bushel": "bushel",
}  # fmt: skip
_PLACES = {  # where pint has the surveyors' acre, slightly larger
    "acre": (Fraction(40468564224, 10**7), (("length", 2),)),
}  # fmt: skip
_OWN: dict[str, dict[str, int | Fraction]] = {  # dimension of its own: (spellings, how many of the first one it is)
    "dollar": {"dollar usd USD buck dólar dolar долларов доллара 美元 ドル 달러": 1, "cent ¢": Fraction(1, 100)},
    "euro": {"euro EUR eur евро 欧元": 1}, "sterling": {"gbp GBP quid 英镑": 1, "pence": Fraction(1, 100)},
    "yen": {"yen JPY 日元 円": 1},
    "won": {"won KRW 원 韩元": 1},
    "ruble": {"ruble rouble RUB рубль рубля рублей руб": 1},
    "yuan": {"yuan RMB CNY 元 块 块钱 人民币": 1, "jiao 角 毛": Fraction(1, 10), "fen": Fraction(1, 100)},
    "rupee": {"rupee Rs INR": 1}, "peso": {"peso": 1}, "franc": {"franc": 1},
    "month": {"month mo mes mois monat monate месяц месяца месяцев 月 个月 個月 ヶ月 か月 개월": 1,
              "year yr año ans année jahr jahre jahren год года лет 年 歳 岁 살": 12, "decade": 120,
              "century centuries": 1200},
    "degree": {"degree deg grado degré grad градус градуса градусов 度 도": 1},
    "byte": {"byte B": 1, "kB KB kilobyte": 10**3, "MB megabyte": 10**6, "GB gigabyte": 10**9, "TB terabyte": 10**12,
             "bit": Fraction(1, 8)},
    "radian": {"radian rad 弧度": 1}, "turn": {"revolution rev": 1},
    "celsius": {"celsius centigrade 摄氏度 ℃": 1}, "fahrenheit": {"fahrenheit 华氏度 ℉": 1},
    "%": {"percent pct percentage prozent процентов процента процент パーセント 퍼센트": 1},
    "": {"unit einheit unidad unité": 1},
}  # fmt: skip


def _spellings() -> dict[str, str]:
    """Maps each spelling to pint's name."""
    found: dict[str, str] = {}
    for name, (symbols, words, prefixes) in _METRIC.items():
        for prefix in ("", *prefixes):
            long = _PREFIXES.get(prefix, "") + name
            found.update({prefix + symbol: long for symbol in symbols.split()})
            found.update({_PREFIXES.get(prefix, "") + word: long for word in words.split()})
    for name, spellings in _NAMES.items():
        found.update(dict.fromkeys(spellings.split(), name))
    return found


def _own() -> dict[str, tuple[str, Fraction]]:
    """Maps each spelling to a dimension that is not from pint."""
    found: dict[str, tuple[str, Fraction]] = {}
    for base, groups in _OWN.items():
        for spellings, factor in groups.items():
            found.update({spelling: (base, Fraction(factor)) for spelling in spellings.split()})
    return found


_SIZED = _spellings()
_UNSIZED = _own()
#: read as minutes or metres by their neighbours, see `compounds.py`
AMBIGUOUS = {"m": "minute", "'": "foot", '"': "inch", "''": "inch"}


@lru_cache(maxsize=4096)
def known(spelling: str) -> tuple[Dimensions, Fraction] | None:
    """Returns the dimensions and exact factor of a spelling.

    The spelling may be singular or plural. Its letter case is free if that leaves no doubt.
    """
    found = _spelled(spelling)
    if found is None:
        return None
    if found in _UNSIZED:
        base, factor = _UNSIZED[found]
        return (((base, 1),) if base else ()), factor
    if found in _PLACES:
        factor, dimensions = _PLACES[found]
        return dimensions, factor
    return _size(_SIZED[found])


def _spelled(word: str) -> str | None:
    """Returns the entry of the table for a word, if the word is in the table."""
    forms = [word] if len(word) == 1 else [word, word.lower()]
    for form in forms:
        for ending in ("", "s", "es"):
            stem = form.removesuffix(ending)
            if (not ending or (stem != form and len(stem) > 1)) and (
                stem in _SIZED or stem in _UNSIZED or stem in _PLACES
            ):
                return stem
    return None


@lru_cache(maxsize=512)
def _size(name: str) -> tuple[Dimensions, Fraction]:
    """Returns what pint says about one of our names."""
    factor, unit = _registry().get_root_units(name)
    powers = {base.strip("[]"): int(power) for base, power in unit.dimensionality.items()}
    return tuple(sorted((base, power) for base, power in powers.items() if power)), Fraction(factor)


@lru_cache(maxsize=1)
def _registry() -> Any:
    """Returns pint's registry with exact factors. Loading it takes some tenths of a second."""
    import pint

    return pint.UnitRegistry(non_int_type=Fraction, cache_folder=None)
