r"""Writes an expression as a quotient of polynomials over independent atoms, in exact arithmetic: its canonical form.

In: a scalar tree. Out: a :class:`Form`. Two expressions whose cross difference vanishes are proven equal. Two other
expressions are proven different if their atoms are algebraically independent (symbols, roots of primes, i, one of pi
and e). Sizes are bounded: an expression that would grow too large has no form.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial, gcd, lcm

from verifiers.allowance import spend
from verifiers.compare.polynomials import (
    FRACTION_ONE,
    POLY_ONE,
    UNIT,
    Atom,
    Form,
    Monomial,
    Unable,
    Undefined,
    add,
    atom,
    constant,
    difference,
    form,
    independent,
    mul,
    reduced,
    spelled,
)
from verifiers.limits import MAX_BITS, MAX_FACTORIAL, MAX_STEPS, MAX_TERMS
from verifiers.parse.tree import Add, Apply, Big, Call, Const, Measured, Mul, Node, Num, Pow, Sym, replaced
from verifiers.quantities.units import DEGREE, PERCENT

_I_PI: Monomial = frozenset([(("i",), Fraction(1)), (("pi",), Fraction(1))])
_work = threading.local()


def canonical(node: Node) -> Form:
    """Returns the canonical form of a scalar tree. Raises :class:`Unable`, :class:`Undefined`."""
    outermost = not getattr(_work, "left", 0)
    if outermost:
        _work.left = MAX_STEPS
    try:
        return _canonical(node)
    finally:
        if outermost:
            _work.left = 0


def _canonical(node: Node) -> Form:
    _work.left -= 1
    if _work.left <= 0:
        _work.left = 1
        raise Unable("too many steps")
    spend(1)
    if isinstance(node, Num):
        return constant(node.value)
    if isinstance(node, Sym):
        return atom("sym", node.name)
    if isinstance(node, Const):
        if node.name in ("pi", "e", "i"):
            return atom(node.name)
        raise Unable(node.name)
    if isinstance(node, Add):
        total = constant(0)
        for arg in node.args:
            total = add(total, canonical(arg))
        return total
    if isinstance(node, Mul):
        product = constant(1)
        for arg in node.args:
            product = mul(product, canonical(arg))
        return product
    if isinstance(node, Pow):
        return power(canonical(node.base), canonical(node.exponent), node.real_root)
    if isinstance(node, Call):
        return _call(node)
    if isinstance(node, Apply):
        return atom("apply", node.name, tuple(canonical(arg).key() for arg in node.args))
    if isinstance(node, Big):
        return _big(node)
    if isinstance(node, Measured) and node.unit is DEGREE:
        return mul(canonical(node.value), atom("pi", coefficient=Fraction(1, 180)))
    if isinstance(node, Measured) and node.unit is PERCENT:
        return mul(canonical(node.value), constant(Fraction(1, 100)))
    raise Unable(type(node).__name__)


def power(base: Form, exponent: Form, real_root: bool = False) -> Form:
    """Raises ``base`` to ``exponent`` on the principal branch, or takes the real root of a negative number."""
    value = exponent.rational()
    if value is not None:
        if value.denominator == 1:
            return _integer_power(base, int(value))
        return _root(base, value, real_root)
    if exponent.denominator != POLY_ONE:
        return atom("pow", base.key(), exponent.key())
    result = constant(1)
    for monomial, coefficient in exponent.numerator.items():
        if monomial == UNIT:
            result = mul(result, power(base, constant(coefficient)))
        elif (
            monomial == _I_PI and base.key() == atom("e").key() and (turned := _on_unit_circle(coefficient)) is not None
        ):
            result = mul(result, turned)
        else:
            for key, scale in _exponential_bases(base):
                result = mul(result, atom("exp", key, monomial, exponent=coefficient * scale))
    return result


def _on_unit_circle(turn: Fraction) -> Form | None:
    """Returns ``e^(i pi turn)`` if its parts are known."""
    real, imaginary = _cosine_of_turn(turn), _cosine_of_turn(Fraction(1, 2) - turn)
    return None if real is None or imaginary is None else add(real, mul(atom("i"), imaginary))


def _exponential_bases(base: Form) -> list[tuple[Hashable, Fraction]]:
    value = base.rational()
    if value is None or value <= 0 or value == 1:
        if value == 0:
            raise Unable("a power of zero")
        return [] if value == 1 else [(base.key(), FRACTION_ONE)]
    return [(prime, Fraction(count)) for prime, count, _ in _factored(value)]


def _integer_power(base: Form, n: int) -> Form:
    if n == 0:
        return constant(1)
    value = base.rational()
    if (
        value is not None
        and value
        and (value.numerator.bit_length() + value.denominator.bit_length()) * abs(n) <= MAX_BITS
    ):
        return constant(value**n)
    if abs(n) > 1000 and value not in (0, 1, -1):
        raise Unable("an exponent too large")
    if n < 0:
        return _integer_power(form(base.denominator, base.numerator), -n)
    if len(base.numerator) == 1 and base.denominator == POLY_ONE:
        ((monomial, coefficient),) = base.numerator.items()
        if (coefficient.numerator.bit_length() + coefficient.denominator.bit_length()) * n > MAX_BITS:
            raise Unable("a power too large")
        terms = reduced({key: exponent * n for key, exponent in monomial})
        return Form({m: s * coefficient**n for m, s in terms}, POLY_ONE)
    width = max(len(base.numerator), len(base.denominator))
    if comb(n + width - 1, width - 1) > MAX_TERMS:
        raise Unable("too many terms")
    result, square = constant(1), base
    while n:
        if n & 1:
            result = mul(result, square)
        n >>= 1
        if n:
            square = mul(square, square)
    return result


def _root(base: Form, exponent: Fraction, real_root: bool) -> Form:
    if not base.numerator:
        if exponent < 0:
            raise Undefined("division by zero")
        return constant(0)
    if abs(exponent) > 400:
        raise Unable("an exponent too large")
    if base.denominator == POLY_ONE and len(base.numerator) == 1:
        ((monomial, coefficient),) = base.numerator.items()
        rest = {key: e for key, e in monomial if key[0] not in ("pi", "e", "p")}
        single = len(rest) == 1 and next(iter(rest.values())) == 1 and next(iter(rest))[0] in ("sym", "apply", "abs")
        if (not rest or single) and (coefficient > 0 or not rest):
            sign = constant(1)
            if coefficient < 0:
                if real_root:
                    sign = constant((-1) ** (exponent.numerator % 2))
                elif exponent.denominator == 2:
                    sign = _integer_power(atom("i"), exponent.numerator)
                else:
                    return atom("root", base.key(), exponent=exponent)
            parts = {key: e * exponent for key, e in monomial}
            for prime, count, known in _factored(abs(coefficient)):
                place: Atom = ("p", prime, known)
                parts[place] = parts.get(place, Fraction(0)) + count * exponent
                if abs(parts[place]) > 400 or abs(parts[place]) * prime.bit_length() > MAX_BITS:
                    raise Unable("a power too large")
            terms = reduced(parts)
            return mul(sign, Form(dict(terms), POLY_ONE))
    whole = exponent.numerator // exponent.denominator
    rest_exponent = exponent - whole
    label = "oddroot" if real_root else "root"
    result = atom(label, base.key(), rest_exponent.denominator, exponent=Fraction(rest_exponent.numerator))
    return mul(result, _integer_power(base, whole)) if whole else result


@lru_cache(maxsize=1024)
def _factored(value: Fraction) -> tuple[tuple[int, int, bool], ...]:
    """Returns (prime, exponent, surely prime) of a positive rational; the rest after trial division stays whole."""
    found: dict[tuple[int, bool], int] = {}
    for number, sign in ((value.numerator, 1), (value.denominator, -1)):
        rest, divisor = number, 2
        while divisor * divisor <= rest and divisor < 2000:
            while rest % divisor == 0:
                found[(divisor, True)] = found.get((divisor, True), 0) + sign
                rest //= divisor
            divisor += 1 if divisor == 2 else 2
        if rest > 1:
            sure = divisor * divisor > rest
            found[(rest, sure)] = found.get((rest, sure), 0) + sign
    return tuple((prime, count, sure) for (prime, sure), count in found.items() if count)


# ---------------------------------------------------------------------- functions


def _negative_first(argument: Form) -> bool:
    """A deterministic choice of sign, opposite for opposite forms."""
    if not argument.numerator:
        return False
    return argument.numerator[min(argument.numerator, key=spelled)] < 0


def opposite(argument: Form) -> Form:
    """Returns minus the form."""
    return Form({m: -c for m, c in argument.numerator.items()}, argument.denominator)


def _turn(argument: Form) -> Fraction | None:
    """Returns the argument in units of pi, if it is a rational multiple of pi."""
    if not argument.numerator:
        return Fraction(0)
    if argument.denominator != POLY_ONE or len(argument.numerator) != 1:
        return None
    ((monomial, coefficient),) = argument.numerator.items()
    return coefficient if monomial == frozenset([(("pi",), FRACTION_ONE)]) else None


def _sqrt(n: int) -> Form:
    return power(constant(n), constant(Fraction(1, 2)))


def _cosine_of_turn(turn: Fraction) -> Form | None:
    turn %= 2
    if turn > 1:
        turn = 2 - turn
    if turn > Fraction(1, 2):
        found = _cosine_of_turn(1 - turn)
        return None if found is None else opposite(found)
    half = Fraction(1, 2)
    table = {
        Fraction(0): constant(1), Fraction(1, 2): constant(0), Fraction(1, 3): constant(half),
        Fraction(1, 4): mul(_sqrt(2), constant(half)), Fraction(1, 6): mul(_sqrt(3), constant(half)),
        Fraction(1, 5): add(mul(_sqrt(5), constant(Fraction(1, 4))), constant(Fraction(1, 4))),
        Fraction(2, 5): add(mul(_sqrt(5), constant(Fraction(1, 4))), constant(Fraction(-1, 4))),
        Fraction(1, 12): mul(add(_sqrt(6), _sqrt(2)), constant(Fraction(1, 4))),
        Fraction(5, 12): mul(add(_sqrt(6), opposite(_sqrt(2))), constant(Fraction(1, 4))),
    }  # fmt: skip
    return table.get(turn)


def sine(argument: Form) -> Form:
    """Returns the sine, exact at the common angles."""
    turn = _turn(argument)
    if turn is not None:
        found = _cosine_of_turn(Fraction(1, 2) - turn)
        if found is not None:
            return found
    if _negative_first(argument):
        return opposite(sine(opposite(argument)))
    return atom("sin", argument.key())


def cosine(argument: Form) -> Form:
    """Returns the cosine, exact at the common angles."""
    turn = _turn(argument)
    if turn is not None:
        found = _cosine_of_turn(turn)
        if found is not None:
            return found
    return atom("cos", (opposite(argument) if _negative_first(argument) else argument).key())


def logarithm(argument: Form) -> Form:
    """Returns the natural logarithm. The logarithm of a rational number is a sum over its primes."""
    value = argument.rational()
    if value is not None:
        if value <= 0:
            raise Unable("the logarithm of a number that is not positive")
        total = constant(0)
        for prime, count, _ in _factored(value):
            total = add(total, atom("ln", prime, coefficient=Fraction(count)))
        return total
    if argument.denominator == POLY_ONE and len(argument.numerator) == 1:
        ((monomial, coefficient),) = argument.numerator.items()
        if coefficient > 0 and all(key[0] in ("e", "p", "pi") for key, _ in monomial):
            total = logarithm(constant(coefficient))
            for key, exponent in monomial:
                log = constant(1) if key[0] == "e" else atom("ln", key[1] if key[0] == "p" else "pi")
                total = add(total, mul(log, constant(exponent)))
            return total
    return atom("ln", argument.key())


def inverse(a: Form) -> Form:
    """Returns one over the form."""
    return form(a.denominator, a.numerator)


def _call(node: Call) -> Form:
    name = node.name
    args = [canonical(arg) for arg in node.args]
    first = args[0] if args else constant(0)
    if name == "sin":
        return sine(first)
    if name == "cos":
        return cosine(first)
    if name == "tan":
        return mul(sine(first), inverse(cosine(first)))
    if name == "cot":
        return mul(cosine(first), inverse(sine(first)))
    if name == "sec":
        return inverse(cosine(first))
    if name == "csc":
        return inverse(sine(first))
    if name == "ln" or (name == "log" and len(args) == 1):
        return logarithm(first) if name == "ln" else atom("fn", "log", first.key())
    if name == "log":
        return mul(logarithm(first), inverse(logarithm(args[1])))
    values = [arg.rational() for arg in args]
    if name == "abs":
        if values[0] is not None:
            return constant(abs(values[0]))
        return atom("abs", (opposite(first) if _negative_first(first) else first).key())
    exact = [value for value in values if value is not None]
    if len(exact) == len(values):
        found = _exact_call(name, exact)
        if found is not None:
            return constant(found)
    return atom("fn", name, tuple(arg.key() for arg in args))


def _exact_call(name: str, values: list[Fraction]) -> int | Fraction | None:
    whole = [int(value) for value in values if value.denominator == 1]
    integral = len(whole) == len(values)
    if name == "factorial" and integral and whole[0] >= 0:
        if whole[0] > MAX_FACTORIAL:
            raise Unable("a factorial too large")
        return factorial(whole[0])
    if name == "factorial2" and integral and 0 <= whole[0] <= 300:
        product = 1
        for k in range(whole[0], 0, -2):
            product *= k
        return product
    if name == "binomial" and integral and 0 <= whole[0] <= MAX_FACTORIAL:
        return comb(whole[0], whole[1]) if whole[1] >= 0 else 0
    if name == "floor":
        return values[0].__floor__()
    if name == "ceil":
        return values[0].__ceil__()
    if name == "sgn":
        return (values[0] > 0) - (values[0] < 0)
    if name in ("max", "min") and values:
        return max(values) if name == "max" else min(values)
    if name in ("gcd", "lcm") and integral and whole:
        return gcd(*whole) if name == "gcd" else lcm(*whole)
    if name == "re":
        return values[0]
    return None


def _big(node: Big) -> Form:
    low, high = canonical(node.low), canonical(node.high)
    a, b = low.rational(), high.rational()
    if a is not None and b is not None and a.denominator == b.denominator == 1 and b - a <= 60:
        total = constant(0 if node.kind == "sum" else 1)
        combine = add if node.kind == "sum" else mul
        for k in range(int(a), int(b) + 1):
            total = combine(total, canonical(replaced(node.body, Sym(node.index), Num(k))))
        return total
    body = replaced(node.body, Sym(node.index), Sym("\0index"))
    return atom("big", node.kind, canonical(body).key(), low.key(), high.key())


def same(a: Node, b: Node) -> bool | None:
    """Whether two trees are the same: True or False if their forms decide, else None. Raises :class:`Undefined`."""
    if a == b:
        canonical_or_none(a)
        return True
    try:
        left, right = canonical(a), canonical(b)
        gap = difference(left, right)
    except Unable:
        return None
    if not gap:
        return True
    polys = (gap, left.numerator, left.denominator, right.numerator, right.denominator)
    return False if independent(*polys) else None


def canonical_or_none(node: Node) -> Form | None:
    """Returns the form, or None if there is no form. Raises :class:`Undefined`."""
    try:
        return canonical(node)
    except Unable:
        return None
