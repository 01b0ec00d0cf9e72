r"""Computes with polynomials over atoms and their quotients, in exact arithmetic; reduces roots, i and sine squares.

In: forms. Out: their sums, products and differences. The number of terms and of bits is bounded.

Roots of distinct primes are linearly independent over the rationals: Besicovitch, "On the linear independence of
fractional powers of integers", J. London Math. Soc. 15 (1940).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from fractions import Fraction
from math import comb
from typing import cast

from verifiers.allowance import spend
from verifiers.limits import MAX_BITS, MAX_TERMS, Unparsed

Atom = tuple[Hashable, ...]
Monomial = frozenset[tuple[Atom, Fraction]]
Poly = dict[Monomial, Fraction]

UNIT: Monomial = frozenset()
FRACTION_ONE = Fraction(1)


class Unable(Exception):
    """The expression has no canonical form: no rule covers it, or it would grow too large."""


class Undefined(Unparsed):
    """The expression divides by zero."""


@dataclass(frozen=True, slots=True)
class Form:
    """``numerator`` over ``denominator``; single-term denominators are folded into the numerator."""

    numerator: Poly
    denominator: Poly

    def key(self) -> Hashable:
        """Equal keys are equal expressions (the converse does not hold for quotients)."""
        if self.denominator == POLY_ONE:
            return frozenset(self.numerator.items())
        lead = self.denominator[min(self.denominator, key=spelled)]
        top = frozenset((m, c / lead) for m, c in self.numerator.items())
        return top, frozenset((m, c / lead) for m, c in self.denominator.items())

    def rational(self) -> Fraction | None:
        """Returns the value if the form is a plain rational number."""
        if self.denominator != POLY_ONE or len(self.numerator) > 1:
            return None
        if not self.numerator:
            return Fraction(0)
        ((monomial, coefficient),) = self.numerator.items()
        return coefficient if monomial == UNIT else None


POLY_ONE: Poly = {UNIT: FRACTION_ONE}


def spelled(key: Hashable) -> str:
    """A spelling of a monomial or a key by which they can be sorted: the same in every process, for numbers of any size
    (Python spells none beyond 4,300 decimal digits)."""
    if isinstance(key, Fraction):
        return f"{key.numerator:x}/{key.denominator:x}"
    if isinstance(key, frozenset):
        return "{" + " ".join(sorted(map(spelled, key))) + "}"
    if isinstance(key, tuple):
        return "(" + " ".join(map(spelled, key)) + ")"
    return f"{key:x}" if isinstance(key, int) else repr(key)


def constant(value: int | Fraction) -> Form:
    """Returns a rational number as a form."""
    return Form({UNIT: Fraction(value)} if value else {}, POLY_ONE)


def atom(*key: Hashable, exponent: Fraction = FRACTION_ONE, coefficient: Fraction = FRACTION_ONE) -> Form:
    """Returns the form of one atom, possibly to a power."""
    return Form({frozenset([(key, exponent)]): coefficient}, POLY_ONE)


# ---------------------------------------------------------------------- polynomial arithmetic


def _checked(poly: Poly) -> Poly:
    if len(poly) > MAX_TERMS:
        raise Unable("too many terms")
    return {monomial: coefficient for monomial, coefficient in poly.items() if coefficient}


def poly_add(a: Poly, b: Poly, scale: int = 1) -> Poly:
    """Returns ``a + scale * b``."""
    out = dict(a)
    for monomial, coefficient in b.items():
        out[monomial] = out.get(monomial, 0) + scale * coefficient
    return _checked(out)


def poly_mul(a: Poly, b: Poly) -> Poly:
    """Returns the product, with roots, ``i`` and sine squares reduced."""
    if a == POLY_ONE:
        return b
    if b == POLY_ONE:
        return a
    if len(a) * len(b) > 8 * MAX_TERMS:
        raise Unable("too many terms")
    spend(len(a) * len(b) // 2)
    out: Poly = {}
    for left, x in a.items():
        for right, y in b.items():
            for monomial, scale in _product(left, right):
                value = out.get(monomial, 0) + x * y * scale
                if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
                    raise Unable("a coefficient too large")
                out[monomial] = value
    return _checked(out)


def _product(left: Monomial, right: Monomial) -> list[tuple[Monomial, Fraction]]:
    if not left:
        return [(right, FRACTION_ONE)]
    if not right:
        return [(left, FRACTION_ONE)]
    merged = dict(left)
    for key, exponent in right:
        merged[key] = merged.get(key, Fraction(0)) + exponent
    return reduced(merged)


def reduced(exponents: dict[Atom, Fraction]) -> list[tuple[Monomial, Fraction]]:
    """Reduces the reducible atoms of a monomial; the result is a sum of (monomial, factor)."""
    factor = FRACTION_ONE
    kept: dict[Atom, Fraction] = {}
    squares: list[tuple[Atom, int]] = []
    for key, exponent in exponents.items():
        if not exponent:
            continue
        if key[0] == "p":
            whole = exponent.numerator // exponent.denominator
            rest = exponent - whole
            factor *= Fraction(cast(int, key[1])) ** whole
            if rest:
                kept[key] = rest
        elif key[0] == "i":
            if exponent.denominator != 1:
                raise Unable("a root of i")
            turns = int(exponent) % 4
            if turns >= 2:
                factor = -factor
            if turns % 2:
                kept[key] = FRACTION_ONE
        elif key[0] == "sin" and exponent >= 2 and exponent.denominator == 1:
            half = int(exponent) // 2
            if half > 12:
                raise Unable("a power of a sine too large")
            squares.append((key, half))
            if exponent % 2:
                kept[key] = FRACTION_ONE
        else:
            if abs(exponent) > 400:
                raise Unable("an exponent too large")
            kept[key] = exponent
    terms: Poly = {frozenset(kept.items()): factor}
    for key, half in squares:
        cosine: Atom = ("cos", *key[1:])
        expanded: Poly = {}
        for monomial, coefficient in terms.items():
            for k in range(half + 1):
                powers = dict(monomial)
                powers[cosine] = powers.get(cosine, Fraction(0)) + 2 * k
                if not powers[cosine]:
                    del powers[cosine]
                place = frozenset(powers.items())
                expanded[place] = expanded.get(place, Fraction(0)) + coefficient * comb(half, k) * (-1) ** k
        terms = expanded
    return list(terms.items())


def form(numerator: Poly, denominator: Poly) -> Form:
    """Returns a quotient as a form; raises :class:`Undefined` for a zero denominator."""
    if not denominator:
        raise Undefined("division by zero")
    if len(denominator) == 1:
        ((monomial, coefficient),) = denominator.items()
        if monomial == UNIT and coefficient == 1:
            return Form(numerator, POLY_ONE)
        inverse = {key: -exponent for key, exponent in monomial}
        scaled = {m: c * s / coefficient for m, s in reduced(inverse) for c in (FRACTION_ONE,)}
        return Form(poly_mul(numerator, scaled), POLY_ONE)
    return Form(numerator, denominator)


def add(a: Form, b: Form) -> Form:
    """Returns the sum of two forms."""
    if a.denominator == b.denominator:
        return form(poly_add(a.numerator, b.numerator), a.denominator)
    top = poly_add(poly_mul(a.numerator, b.denominator), poly_mul(b.numerator, a.denominator))
    return form(top, poly_mul(a.denominator, b.denominator))


def mul(a: Form, b: Form) -> Form:
    """Returns the product of two forms."""
    if a.denominator == b.numerator:
        return form(a.numerator, b.denominator)
    if b.denominator == a.numerator:
        return form(b.numerator, a.denominator)
    return form(poly_mul(a.numerator, b.numerator), poly_mul(a.denominator, b.denominator))


def difference(a: Form, b: Form) -> Poly:
    """Returns the cross difference, which is empty if and only if the forms are the same."""
    if a.denominator == b.denominator:
        return poly_add(a.numerator, b.numerator, -1)
    return poly_add(poly_mul(a.numerator, b.denominator), poly_mul(b.numerator, a.denominator), -1)


def independent(*polys: Poly) -> bool:
    """Whether all atoms are algebraically independent up to the reductions made, so that non-empty means non-zero."""
    transcendental = set()
    for poly in polys:
        for monomial in poly:
            for key, exponent in monomial:
                if key[0] in ("pi", "e"):
                    transcendental.add(key[0])
                elif key[0] == "p":
                    if not key[2]:
                        return False
                elif key[0] == "sym":
                    if exponent.denominator != 1:
                        return False
                elif key[0] != "i":
                    return False
    return len(transcendental) <= 1
