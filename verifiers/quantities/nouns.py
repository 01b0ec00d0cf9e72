"""Decides which words after a number only name the counted thing, and which words change the number.

In: words after a number. Out: whether they are a countable noun phrase (``apples``, ``red apples``, ``people``). Such a
phrase may be missing from a plain number. A word that changes a number (``squared``, ``halves``, ``billion``,
``below``) is never such a phrase.
"""

from __future__ import annotations

import re
import unicodedata

from verifiers.quantities.chinese import is_counted

_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion"
    " quadrillion dozen score gross lakh crore grand mille millón millones millard milliard milliarde milliarden"
    " millionen tausend hundert cien ciento mil docena douzaine dutzend myriad ten tens ones"
)
_FRACTIONS = (
    "half halve third quarter fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth"
    " fifteenth sixteenth seventeenth eighteenth nineteenth twentieth thirtieth fortieth fiftieth sixtieth seventieth"
    " eightieth ninetieth hundredth thousandth millionth billionth trillionth first halv half mitad medio demi halb"
    " percentile permille ppm bps"
)
_OPERATIONS = (
    "squared cubed factorial minus plus over under below above mod modulo choose base repeat repeating recurring recur"
    " remainder rem root power exponent doubled tripled halved quadrupled twice thrice once fold inverse reciprocal"
    " opposite negation negated reversed less fewer lower short shy than between to through by into out not non nor or"
    " and but if is are was were be been has have had does do did equals equal approximately approx about around nearly"
    " almost roughly ish infinity infinite nil null none nan am pm oclock o north south east west th st nd rd vs versus"
    " log ln sin cos tan exp sqrt pi until till before after past since without except excluding unless"
    " repeated as this that these those it its i we you he she they so then when because wait maybe perhaps only no yes"
    " answer  debt loss deficit owed behind down backwards wrong false incorrect impossible unknown"
    " january february march april may june july august september october november december"
    " monday tuesday wednesday thursday friday saturday sunday"
    " power hexadecimal octal  undefined"
)
#: they change the number, or make a sentence of the words
CHANGING = frozenset(f"{_NUMBERS} {_FRACTIONS} {_OPERATIONS}".split())
#: they are no plain noun where they stand last, though they may stand before one ("12 negative integers")
_LAST = frozenset("negative positive imaginary double triple odd even".split())  # noqa: SIM905
_MASS = frozenset(
    "people men women children fish sheep deer feet teeth mice geese oxen cattle police aircraft salmon trout"  # noqa: SIM905
    " shrimp offspring dice lice cacti fungi alumni criteria data vertices indices matrices kin staff personnel"
    " crew persons gente niños oz".split()
)
#: words around what was counted that say nothing of their own
FREE = frozenset(
    "left remaining total altogether overall each more extra additional apiece together away further again"  # noqa: SIM905
    " combined different distinct such new whole full other exactly".split()
)
#: what a length, an age or an amount may be said to be
OF_MEASURE = frozenset(
    "old older younger long longer wide wider tall taller high higher deep deeper thick thicker apart ago later earlier"  # noqa: SIM905
    " far farther faster heavy profit change saved spent earned tip worth".split()
)
PREPOSITIONS = frozenset("of for in on at from with among during across inside".split())  # noqa: SIM905
_SPACELESS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af々]{1,12}")


def is_noun_phrase(words: list[str], one: bool) -> bool:
    """Whether ``words`` name the counted thing: a plural or a collective.

    ``one``: the number is 1, so any noun that does not change a number is enough.
    """
    if not words or any(changes(word) for word in words):
        return False
    last = words[-1]
    return last.lower().removesuffix("s") not in _LAST and (one or is_plural(last))


def changes(word: str) -> bool:
    """Whether a word may change the number before it."""
    low = _bare(word)
    if _SPACELESS.fullmatch(word):
        return not is_counted(word)
    forms = {low, low.removesuffix("s"), low.removesuffix("es"), f"{low.removesuffix('ves')}f", low.removesuffix("ed")}
    return bool(forms & CHANGING) or (len(low) < 3 and low.isascii())


def is_plural(word: str) -> bool:
    """Whether a word looks like the plural of a countable noun, in English or a neighbouring language."""
    low = word.lower()
    if _SPACELESS.fullmatch(word):
        return True
    if low in _MASS or low.endswith(("men", "people", "children", "fish")):
        return True
    if re.fullmatch(r"[а-яё]{3,}", low):
        return True
    if low.endswith("s"):
        return len(low) > 3 and not low.endswith(("ss", "us", "is"))
    return word[0].isupper() and not word.isupper() and len(word) > 3 and low.endswith(("en", "er", "e", "el"))


def singular(word: str) -> str:
    """Returns the label of a noun: lower case, without the ending of its plural."""
    low = word.lower()
    if low.endswith("ies") and len(low) > 4:
        return low[:-3] + "y"
    if low.endswith(("ches", "shes", "sses", "xes")):
        return low[:-2]
    return low[:-1] if low.endswith("s") and len(low) > 3 and not low.endswith("ss") else low


def _bare(word: str) -> str:
    """Returns the word in lower case, without full stops and combining accents."""
    return unicodedata.normalize("NFC", word).lower().strip(".'-")
