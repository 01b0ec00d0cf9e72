"""Compares what two Python programs printed, value by value where both outputs are literals.

In: two printed texts. Out: a verdict. Our own bounded reader reads the literals: numbers, strings, lists, tuples, sets,
dictionaries, True, False and None. It evaluates nothing and runs no programs.
"""

from __future__ import annotations

import math
import re
from typing import Any

from verifiers.limits import MAX_ANSWER, MAX_DEPTH, MAX_DIGITS, TooLarge, Unparsed
from verifiers.policy import DEFAULT_POLICY, Policy
from verifiers.text import decoded
from verifiers.verdict import Verdict

_TOKEN = re.compile(
    r"\s*(?:(?P<float>-?(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|-?\d+[eE][+-]?\d+|-?inf|nan)|(?P<int>-?\d+)"
    r"|(?P<string>'[^'\\\n]*'|\"[^\"\\\n]*\")|(?P<name>True|False|None|set\(\)|frozenset\(\))|(?P<mark>[\[\](){},:]))"
)
_NAMES: dict[str, Any] = {"True": True, "False": False, "None": None}
RELATIVE = 1e-9


def verify_python(
    reference: str | bytes | None, answer: str | bytes | None, *, policy: Policy = DEFAULT_POLICY
) -> Verdict:
    """Compare two outputs. They are equal if their texts are the same, or if they are equal literals.

    Outer white space and white space at the ends of lines do not count. Floats agree to a relative 1e-9, unless
    ``decimals`` of the policy is ``exact``. 1 and 1.0 are equal.
    """
    left, right = decoded(reference, "reference"), decoded(answer, "answer")
    if left is None or right is None:
        return Verdict("unparsed", reason=f"the {'reference' if left is None else 'answer'} is missing")
    a, b = (" \n".join(line.rstrip() for line in side.strip().splitlines()) for side in (left, right))
    if a == b:
        return Verdict("equal", "identity", a[:200], b[:200], "the same output")
    try:
        x, y = read_literal(a), read_literal(b)
    except Unparsed:
        return Verdict("unequal", "identity", a[:200], b[:200], "different output")
    except TooLarge as error:
        return Verdict("too_large", reason=str(error))
    same = _same(x, y, 0.0 if policy.decimals == "exact" else RELATIVE)
    reason = "the same value" if same else "different values"
    return Verdict("equal" if same else "unequal", "exact", a[:200], b[:200], reason)


def read_literal(text: str) -> tuple[str, Any]:
    """Read a literal as a tagged value, such as ``("list", [...])`` or ``("number", 3)``.

    Raises :class:`Unparsed`, :class:`TooLarge`.
    """
    if len(text) > MAX_ANSWER:
        raise TooLarge(f"{len(text)} characters (at most {MAX_ANSWER})")
    value, at = _value(text, 0, 0)
    if text[at:].strip():
        raise Unparsed("more than one value")
    return value


def _value(text: str, at: int, depth: int) -> tuple[tuple[str, Any], int]:
    if depth > MAX_DEPTH:
        raise TooLarge(f"nested deeper than {MAX_DEPTH}")
    match = _TOKEN.match(text, at)
    if match is None:
        raise Unparsed("no literal")
    kind, token, at = match.lastgroup, match.group().strip(), match.end()
    if kind in ("int", "float"):
        if len(token) > MAX_DIGITS:
            raise TooLarge(f"a number of {len(token)} digits")
        return ("number", int(token) if kind == "int" else float(token)), at
    if kind == "string":
        return ("string", token[1:-1]), at
    if kind == "name":
        return (("set", []) if token.endswith("()") else ("name", _NAMES[token])), at
    if token not in ("[", "(", "{"):
        raise Unparsed("a closing mark")
    return _container(text, at, token, depth)


def _container(text: str, at: int, opening: str, depth: int) -> tuple[tuple[str, Any], int]:
    closing = {"[": "]", "(": ")", "{": "}"}[opening]
    items: list[Any] = []
    keyed = commas = 0
    while True:
        match = _TOKEN.match(text, at)
        if match and match.group().strip() == closing:
            at = match.end()
            break
        item, at = _value(text, at, depth + 1)
        match = _TOKEN.match(text, at)
        mark = match.group().strip() if match else ""
        if match and mark == ":" and opening == "{":
            other, at = _value(text, match.end(), depth + 1)
            items.append((item, other))
            keyed += 1
            match = _TOKEN.match(text, at)
            mark = match.group().strip() if match else ""
        else:
            items.append(item)
        if match is None or mark not in (",", closing):
            raise Unparsed("a container")
        if mark == ",":
            at, commas = match.end(), commas + 1
    if keyed and keyed != len(items):
        raise Unparsed("a mixed container")
    if opening == "(" and len(items) == 1 and not commas:
        return items[0], at
    kind = {"[": "list", "(": "tuple"}.get(opening, "dict" if keyed or not items else "set")
    return (kind, items), at


def _same(a: tuple[str, Any], b: tuple[str, Any], relative: float) -> bool:
    if a[0] != b[0]:
        return False
    kind, x, y = a[0], a[1], b[1]
    if kind == "number":
        if isinstance(x, int) and isinstance(y, int):
            return x == y
        try:
            return x == y or (relative > 0 and math.isclose(x, y, rel_tol=relative))
        except OverflowError:
            return False
    if kind in ("string", "name"):
        return bool(x == y)
    if len(x) != len(y):
        return False
    if kind in ("list", "tuple"):
        return all(_same(p, q, relative) for p, q in zip(x, y, strict=True))
    rest = list(y)
    for p in x:
        place = next((i for i, q in enumerate(rest) if _entry(p, q, kind, relative)), None)
        if place is None:
            return False
        rest.pop(place)
    return True


def _entry(p: Any, q: Any, kind: str, relative: float) -> bool:
    if kind == "dict":
        return _same(p[0], q[0], relative) and _same(p[1], q[1], relative)
    return _same(p, q, relative)
