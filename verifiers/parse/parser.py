r"""The bounded parser reads an answer in LaTeX or plain text into a small typed tree.

In: one answer as text. Out: its readings (two if ``1,22`` may be a list or a decimal). Each reading is a tree of the
whole text, never of a prefix. The parser checks length, depth and digits before it builds anything. It evaluates
nothing and never runs code from the text.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

from verifiers.limits import MAX_ANSWER, TooLarge, Unparsed
from verifiers.parse.grammar import Grammar
from verifiers.parse.notation import respelled
from verifiers.parse.tree import (
    Measured,
    Mul,
    Node,
    Num,
    Relation,
    Seq,
    Special,
    Sym,
    is_scalar,
    reciprocal,
)
from verifiers.quantities.commas import as_one_number
from verifiers.quantities.exact import quantity
from verifiers.quantities.units import NO_UNIT, UPRIGHT, parse_unit
from verifiers.quantities.wording import in_symbols
from verifiers.text import plain, tidy

_OTHER_SCRIPT = re.compile(r"(?<=[\d\w)}\]])\s*(?<![^\x00-\x7f])([^\x00-\x7f]{1,12})$")
_COLON = re.compile(r"\s*(?::|\\colon(?![a-z]))\s*(?!=)")
MAX_RATIO = 8
_LETTER_UNIT = re.compile(r"([+-]?\d[\d,]*(?:\.\d+)?)([mgsLlNJWVAhKt])")
"""``500g``: a product, or grams beside another quantity."""
_POINT = re.compile(r"([A-Z]'?)\s?(\((?=[^()]*,).+\))")
"""A point with its name, like ``P(5,2)``, which may also be a permutation."""


@lru_cache(maxsize=1024)
def parse(raw: str) -> tuple[Node, ...]:
    """Returns all readings of an answer, at least one, the most natural one first.

    Raises :class:`Unparsed` if the whole text is not an answer, :class:`TooLarge` beyond the bounds.
    """
    if len(raw) > MAX_ANSWER:
        raise TooLarge(f"{len(raw)} characters (at most {MAX_ANSWER})")
    text = cleaned(raw)
    if not text:
        raise Unparsed("nothing is left after cleaning")
    exact = quantity(text)
    if exact is not None:
        if exact.kind == "ratio" and len(exact.parts) > 2:
            return (_proportion(tuple(Num(part) for part in exact.parts)),)
        if exact.kind != "number":
            return (Special(exact),)
        number = Num(exact.value, exact.decimals, exact.digits)
        return (number,) if exact.unit is NO_UNIT else (Measured(number, exact.unit),)
    readings = _with_words(text)
    point = _POINT.fullmatch(tidy(plain(raw)))
    if point:
        tuples = [node for node in parse(point.group(2)) if isinstance(node, Seq) and node.kind == "tuple"]
        readings += [Relation(("=",), (Sym(point.group(1)), node)) for node in tuples]
    return tuple(readings)


def _with_words(text: str) -> list[Node]:
    """Reads the text with its operations in words as symbols; if that fails, reads the text as it is."""
    ratio = _ratio(text)
    if ratio is not None:
        return [ratio]
    upright = UPRIGHT.sub(r" \1 ", text).strip() if "\\" in text else text
    symbols = in_symbols(upright)
    if symbols != upright:
        try:
            return _readings(_in_upright(symbols))
        except Unparsed:
            pass
    return _readings(_in_upright(text))


def _ratio(text: str) -> Node | None:
    """Reads a ratio of expressions, ``1:\\sqrt{3}:2``; two give their quotient. A name before a colon is not a part."""
    parts = _COLON.split(text)
    if not 2 <= len(parts) <= MAX_RATIO or any(_opens(part) for part in parts) or "\\in" in text:
        return None
    try:
        nodes = tuple(parse(part)[0] for part in parts)
    except Unparsed:
        return None
    if not all(is_scalar(node) for node in nodes) or nodes[-1] == Num(0):
        return None
    if sum(isinstance(node, Sym) for node in nodes) not in (0, len(nodes)):
        return None
    return Mul((nodes[0], reciprocal(nodes[1]))) if len(nodes) == 2 else _proportion(nodes)


def _opens(part: str) -> bool:
    """Whether a bracket is open at the end of a part; then the colon behind it does not belong to a ratio."""
    return not part.strip() or any(part.count(left) != part.count(right) for left, right in ("()", "[]", "{}"))


def _proportion(parts: tuple[Node, ...]) -> Seq:
    """Returns a ratio of three or more parts, with each part divided by the last one."""
    return Seq("ratio", tuple(Mul((part, reciprocal(parts[-1]))) for part in parts[:-1]))


def _in_upright(text: str) -> str:
    """Writes a unit or counter of another script at the end of ``text`` as LaTeX: ``2\\sqrt{3}\\text{米}``."""
    return _OTHER_SCRIPT.sub(r"\\text{\1}", text)


def _readings(text: str) -> list[Node]:
    """Returns the readings of a cleaned text that is not a plain number."""
    readings: list[Node] = []
    marked = as_one_number(text)
    other = None if marked is None else quantity(marked)
    if other is not None:
        number = Num(other.value, other.decimals, other.digits)
        readings.append(number if other.unit is NO_UNIT else Measured(number, other.unit))
    letter = _LETTER_UNIT.fullmatch(text)
    if letter:
        found = parse_unit(letter.group(2))
        amount = quantity(letter.group(1))
        if found is not None and amount is not None:
            readings.append(Measured(Num(amount.value, amount.decimals, amount.digits), replace(found, letter=True)))
    try:
        readings.insert(0, Grammar(text, grouped=True).whole())
    except Unparsed:
        if not readings:
            if not re.search(r"\d,[1-9]\d\d", text):
                raise
            return [Grammar(text, grouped=False).whole()]
    if re.search(r"[(\[{][^()]*\d,[1-9]\d\d(?!\d)", text):
        readings.append(Grammar(text, grouped=False).whole())
    return readings


def cleaned(raw: str) -> str:
    """Returns the text without its formatting, outer full stops and outer emphasis."""
    text = tidy(plain(raw)).strip("` \n")
    text = re.sub(
        r"\\(?:hspace|vspace|phantom|label|tag)\*?\s*\{[^{}]*\}|\\(?:nonumber|hfill|break|newline|strut|allowbreak)(?![a-zA-Z])",
        " ",
        text,
    )
    text = re.sub(r"^\*\*(.*)\*\*$", r"\1", text.strip(), flags=re.DOTALL)
    while text and text[-1] in ".,;: " and not text.endswith(("...", "\\,", "\\;", "\\:")):
        text = text[:-1]
    text = respelled(re.sub(r"\\+$", "", text))
    return text.lstrip(".:; ") if not re.match(r"\s*\.\d", text) else text.strip()
