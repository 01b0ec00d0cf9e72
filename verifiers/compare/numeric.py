r"""Refutes equality numerically: two expressions that differ at one point of their common domain are different.

In: two scalar trees. Out: ``different``, ``agree`` (to high precision, with the number of digits), ``proven`` (two
algebraic numbers closer than their separation bound are equal) or ``unknown``. The comparison uses doubles with error
bounds first, then mpmath at rising precision.

Separation bound: Burnikel, Fleischer, Mehlhorn, Schirra, "A strong and easily computable separation bound for
arithmetic expressions involving radicals", Algorithmica 27 (2000), theorem 1.
"""

from __future__ import annotations

import math
import threading
import zlib
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

from verifiers.allowance import spend
from verifiers.compare import machine
from verifiers.limits import MAX_EXPONENT_BITS, MAX_FACTORIAL, MAX_POWER_BITS, MAX_VISITS, TooLarge, Unparsed
from verifiers.parse.tree import Add, Apply, Big, Call, Const, Measured, Mul, Node, Num, Pow, Sym, symbols, walk
from verifiers.quantities.units import DEGREE, PERCENT

Finding = tuple[Literal["different", "agree", "proven", "unknown"], str]

CLOSED_DIGITS = (30, 120, 480, 1600)
POINT_DIGITS = (30, 80, 1600)
EXTREME_BITS = 2_000  #: magnitude, in bits, beyond which agreement to 1,600 digits is no evidence
POINTS = 12
NEEDED_POINTS = 4
MAX_BIG_TERMS = 500
_local = threading.local()


class NoValue(Exception):
    """The expression has no value at the point: a pole, an unknown function, something beyond the bounds."""


def investigate(a: Node, b: Node) -> Finding:
    """Compares two scalar expressions numerically."""
    _local.visits = _local.extreme = 0
    names = sorted(symbols(a) | symbols(b))
    if len(names) > 12:
        return "unknown", "too many symbols"
    if not names and not _opaque(a) and not _opaque(b):
        return _closed(a, b)
    return _at_points(a, b, names)


def _opaque(node: Node) -> bool:
    return any(isinstance(part, Apply) for part in walk(node))


# ---------------------------------------------------------------------- closed forms


def _closed(a: Node, b: Node) -> Finding:
    try:
        if machine.certainly_different(machine.evaluate(a, {}), machine.evaluate(b, {})):
            return "different", "different values"
    except machine.Unfit:
        pass
    needed = _separation_digits(Add((a, Mul((Num(-1), b)))))
    before: Any = None
    for digits in CLOSED_DIGITS:
        try:
            ctx = context(digits)
            x, y = value(a, ctx, {}), value(b, ctx, {})
        except NoValue as reason:
            return "unknown", str(reason)
        gap = x - y
        scale = max(abs(x), abs(y), ctx.mpf(1))
        if before is not None and gap and abs(gap - before) <= abs(gap) / 100:
            return "different", f"they differ by about {ctx.nstr(abs(gap), 3)}"
        agreed = abs(gap) <= scale * ctx.mpf(10) ** (10 - digits)
        if agreed and needed is not None and needed + 12 + max(0, int(ctx.mag(scale) * 0.302)) <= digits:
            return "proven", f"closer than the separation bound of 1e-{needed}"
        if digits == CLOSED_DIGITS[-1]:
            if _local.extreme > EXTREME_BITS:
                return "unknown", "numbers beyond the reach of the precision"
            return ("agree", f"they agree to {digits - 10} digits") if agreed else ("unknown", "no stable value")
        before = gap if gap else None
    return "unknown", "no stable value"


def _separation_digits(node: Node) -> int | None:
    """Returns the number of decimal digits below which a non-zero algebraic number of this shape cannot fall.

    Returns None if the tree does not have the shape.
    """
    radicals: dict[Node, int] = {}
    bounds = _separation(node, radicals)
    if bounds is None:
        return None
    degree = 1
    for index in radicals.values():
        degree *= index
        if degree > 4096:
            return None
    upper, lower = bounds
    bits = max(upper, 0) * (degree - 1) + max(lower, 0)
    return int(bits * 0.30103) + 1 if bits < 10_000 else None


def _separation(node: Node, radicals: dict[Node, int]) -> tuple[float, float] | None:
    """log2 of the bounds u and l of Burnikel et al.: the value is a quotient of algebraic integers bounded by them."""
    if isinstance(node, Num):
        top, bottom = abs(node.value.numerator), node.value.denominator
        return math.log2(top) if top else 0.0, math.log2(bottom)
    if isinstance(node, Const):
        if node.name != "i":
            return None
        radicals[node] = 2
        return 0.0, 0.0
    if isinstance(node, (Add, Mul)):
        total: tuple[float, float] | None = None
        for arg in node.args:
            part = _separation(arg, radicals)
            if part is None:
                return None
            if total is None:
                total = part
            elif isinstance(node, Mul):
                total = (total[0] + part[0], total[1] + part[1])
            else:
                total = (max(total[0] + part[1], total[1] + part[0]) + 1, total[1] + part[1])
        return total
    if isinstance(node, Pow):
        exponent = _rational(node.exponent)
        base = _separation(node.base, radicals)
        if base is None or exponent is None or abs(exponent) > 64:
            return None
        upper, lower = base if exponent > 0 else (base[1], base[0])
        n, k = abs(exponent.numerator), exponent.denominator
        upper, lower = upper * n, lower * n
        if k == 1:
            return upper, lower
        radicals[node] = k
        if upper >= lower:
            return (upper + (k - 1) * lower) / k, lower
        return upper, ((k - 1) * upper + lower) / k
    if isinstance(node, Call) and node.name in ("sin", "cos") and len(node.args) == 1:
        turn = _turn(node.args[0])
        if turn is None or turn.denominator > 60:
            return None
        radicals[node] = 2 * turn.denominator
        radicals[Const("i")] = 2
        return 1.0, 1.0
    if isinstance(node, Call) and node.name in ("tan", "cot", "sec", "csc"):
        turn = _turn(node.args[0])
        if turn is None or turn.denominator > 60:
            return None
        radicals[Call("sin", node.args)] = 2 * turn.denominator
        radicals[Const("i")] = 2
        return 2.0, 2.0
    if isinstance(node, Measured) and node.unit is PERCENT:
        return _separation(Mul((node.value, Num(Fraction(1, 100)))), radicals)
    return None


def _rational(node: Node) -> Fraction | None:
    from verifiers.compare.canonical import canonical_or_none

    try:
        found = canonical_or_none(node)
    except Unparsed:
        return None
    return None if found is None else found.rational()


def _turn(node: Node) -> Fraction | None:
    return _rational(Mul((node, Pow(Const("pi"), Num(-1)))))


# ---------------------------------------------------------------------- sampling


@lru_cache(maxsize=1024)
def sample(name: str, index: int, integral: bool) -> float:
    """Returns the value of a symbol at the ``index``-th point.

    Both sides get the same value. The first values are positive; later ones have both signs.
    """
    code = zlib.crc32(f"{name}/{index}".encode("utf-8", "replace"))
    if integral:
        return float(3 + index + code % 5)
    size = 0.3 + 2.4 * (code % 9973) / 9973
    negative = index >= POINTS // 2 and (code >> 16) % 3 > 0
    return -size if negative else size


def _at_points(a: Node, b: Node, names: list[str]) -> Finding:
    integral = any(_discrete(part) for side in (a, b) for part in walk(side))
    real = complex_agreeing = 0
    disagreement = ""
    for index in range(POINTS):
        values = {name: sample(name, index, integral) for name in names}
        verdict, is_real = _at_point(a, b, values)
        if verdict == "different":
            if is_real:
                return "different", "different at " + (
                    ", ".join(f"{n} = {v:.4g}" for n, v in values.items()) or "a point"
                )
            disagreement = "different at a complex value"
        elif verdict == "agree":
            real += is_real
            complex_agreeing += not is_real
        if real >= 8:
            break
    if real >= NEEDED_POINTS:
        return "agree", f"they agree at {real} points to {POINT_DIGITS[-2] - 10} digits"
    if disagreement:
        return "different", disagreement
    if complex_agreeing + real >= NEEDED_POINTS:
        return "agree", f"they agree at {complex_agreeing + real} points"
    return "unknown", "no common domain was found"


def _discrete(node: Node) -> bool:
    if isinstance(node, Big):
        return True
    if isinstance(node, Call):
        return node.name in ("factorial", "factorial2", "binomial", "gcd", "lcm", "floor", "ceil") or (
            node.name in ("sin", "cos", "tan")
            and any(part == Const("pi") for part in walk(node))
            and bool(symbols(node))
        )
    if isinstance(node, Pow):
        return bool(symbols(node.exponent)) and not symbols(node.base) and _looks_negative(node.base)
    return False


def _looks_negative(node: Node) -> bool:
    return (
        (isinstance(node, Num) and node.value < 0) or any(part == Num(-1) for part in walk(node)) or node == Const("i")
    )


def _at_point(a: Node, b: Node, values: dict[str, float]) -> tuple[str, bool]:
    try:
        x, y = machine.evaluate(a, values), machine.evaluate(b, values)
        real = x[0].imag == 0 == y[0].imag
        if machine.certainly_different(x, y):
            return "different", real
    except machine.Unfit:
        pass
    before: Any = None
    for digits in POINT_DIGITS:
        ctx = context(digits)
        try:
            u, v = value(a, ctx, values), value(b, ctx, values)
        except NoValue:
            return "unknown", False
        gap = u - v
        scale = max(abs(u), abs(v), ctx.mpf(1))
        tiny = scale * ctx.mpf(10) ** (12 - digits)
        real = abs(ctx.im(u)) <= tiny and abs(ctx.im(v)) <= tiny
        if before is not None and gap and abs(gap - before) <= abs(gap) / 100:
            return "different", real
        if digits == POINT_DIGITS[-2] and _local.extreme <= 100:
            return ("agree" if abs(gap) <= tiny else "unknown"), real
        if digits == POINT_DIGITS[-1] and abs(gap) > scale * ctx.mpf(10) ** (-digits // 2):
            return "different", real
        if digits == POINT_DIGITS[-1]:
            return ("agree" if abs(gap) <= tiny and _local.extreme <= EXTREME_BITS else "unknown"), real
        before = gap if gap else None
    return "unknown", False


# ---------------------------------------------------------------------- mpmath


def context(digits: int) -> Any:
    """Returns this thread's mpmath context of the given precision; the global context stays unchanged."""
    contexts: dict[int, Any] | None = getattr(_local, "contexts", None)
    if contexts is None:
        contexts = _local.contexts = {}
    if digits not in contexts:
        from mpmath.ctx_mp import MPContext

        made = MPContext()
        made.dps = digits + 5
        contexts[digits] = made
    return contexts[digits]


def value(node: Node, ctx: Any, values: dict[str, float]) -> Any:
    """Returns the value of a scalar tree in a context. Raises :class:`NoValue`."""
    try:
        found = _value(node, ctx, values)
    except (ZeroDivisionError, OverflowError, ValueError, TypeError, ctx.NoConvergence) as reason:
        raise NoValue(f"{type(reason).__name__}: {reason}") from reason
    if not ctx.isfinite(found):
        raise NoValue("not finite")
    return found


def _value(node: Node, ctx: Any, values: dict[str, float]) -> Any:
    """Returns the value. Also counts visits and records how far from one any part of the value lies."""
    _local.visits = getattr(_local, "visits", 0) + 1
    if _local.visits > MAX_VISITS:
        raise NoValue("too many steps")
    spend(_cost(node, ctx.dps))
    found = _evaluated(node, ctx, values)
    if found and not isinstance(node, Num):
        far = abs(ctx.mag(found))
        if far > _local.extreme:
            _local.extreme = far
    return found


def _cost(node: Node, digits: int) -> int:
    """Units of an :func:`allowance` that one step takes: about ten microseconds each."""
    if isinstance(node, Call) and node.name in ("factorial", "factorial2", "binomial", "erf"):
        return 2 + digits * digits // 25
    return 1 + digits // 60 + digits * digits // 20_000 if isinstance(node, (Call, Pow)) else 1 + digits // 400


def _small(ctx: Any, z: Any, bits: int) -> Any:
    if z and ctx.mag(z) > bits:
        raise NoValue("an argument too large")
    return z


def _evaluated(node: Node, ctx: Any, values: dict[str, float]) -> Any:
    if isinstance(node, Num):
        return ctx.mpf(node.value.numerator) / node.value.denominator
    if isinstance(node, Sym):
        if node.name not in values:
            raise NoValue(node.name)
        return ctx.mpf(values[node.name])
    if isinstance(node, Const):
        if node.name in ("pi", "e"):
            return +ctx.pi if node.name == "pi" else ctx.exp(1)
        if node.name == "i":
            return ctx.mpc(0, 1)
        raise NoValue(node.name)
    if isinstance(node, Add):
        return ctx.fsum(_value(arg, ctx, values) for arg in node.args)
    if isinstance(node, Mul):
        product = ctx.mpf(1)
        for arg in node.args:
            product = product * _value(arg, ctx, values)
        return product
    if isinstance(node, Pow):
        return _mp_power(node, ctx, values)
    if isinstance(node, Call):
        return _mp_call(node, ctx, values)
    if isinstance(node, Apply):
        args = [_value(arg, ctx, values) for arg in node.args]
        text = node.name + "".join(ctx.nstr(ctx.re(z), 12) + ctx.nstr(ctx.im(z), 12) for z in args)
        return ctx.mpf(0.4 + 2 * (zlib.crc32(text.encode("utf-8", "replace")) % 99991) / 99991)
    if isinstance(node, Big):
        return _mp_big(node, ctx, values)
    if isinstance(node, Measured) and node.unit in (DEGREE, PERCENT):
        return _value(node.value, ctx, values) * (ctx.pi / 180 if node.unit is DEGREE else ctx.mpf(1) / 100)
    raise NoValue(type(node).__name__)


def _mp_power(node: Pow, ctx: Any, values: dict[str, float]) -> Any:
    base, exponent = _value(node.base, ctx, values), _value(node.exponent, ctx, values)
    if not base:
        if ctx.re(exponent) > 0:
            return ctx.mpf(0)
        if not exponent:
            return ctx.mpf(1)
        raise NoValue("division by zero")
    if ctx.mag(exponent) > MAX_EXPONENT_BITS or abs(exponent) * _log2(ctx, base) > MAX_POWER_BITS:
        raise NoValue("a power too large")
    if node.real_root and ctx.im(base) == 0 and ctx.re(base) < 0 and isinstance(node.exponent, Num):
        return (-1) ** (node.exponent.value.numerator % 2) * (-base) ** exponent
    if isinstance(node.exponent, Num) and isinstance(node.exponent.value, int):
        return base**node.exponent.value
    return base**exponent


def _log2(ctx: Any, base: Any) -> float:
    """Returns the bits of a base that is not 0, before or behind the point; a little above 0 if it is close to 1."""
    size = ctx.mag(base)
    return float(abs(size)) if abs(size) > 1 else abs(math.log2(float(abs(base))))


_TRIGONOMETRIC = "sin cos tan cot sec csc asin acos atan acot sinh cosh tanh coth asinh acosh atanh"
_PLAIN = frozenset([*_TRIGONOMETRIC.split(), "ln", "floor", "ceil", "sgn", "re", "im", "arg", "erf"])
_RENAMED = {"sgn": "sign", "ceil": "ceil"}


def _mp_call(node: Call, ctx: Any, values: dict[str, float]) -> Any:
    if node.name == "det" or not node.args:
        raise NoValue(node.name)
    args = [_value(arg, ctx, values) for arg in node.args]
    name, first = node.name, args[0]
    if name in _PLAIN:
        limit = 20 if name in ("sinh", "cosh", "tanh", "coth", "erf") else 4000
        return getattr(ctx, _RENAMED.get(name, name))(_small(ctx, first, limit))
    if name == "log":
        if len(args) == 1:
            raise NoValue("log without a base")
        return ctx.ln(first) / ctx.ln(args[1])
    if name == "abs":
        return abs(first)
    if name == "factorial":
        if abs(first) > MAX_FACTORIAL * 10:
            raise NoValue("a factorial too large")
        return ctx.factorial(first)
    if name == "factorial2":
        if abs(first) > MAX_FACTORIAL:
            raise NoValue("a factorial too large")
        return ctx.fac2(first)
    if name == "binomial":
        if any(abs(z) > 10 * MAX_FACTORIAL for z in args):
            raise NoValue("a binomial too large")
        return ctx.binomial(*args)
    if name in ("max", "min") and all(ctx.im(z) == 0 for z in args):
        return (max if name == "max" else min)(args)
    if name in ("gcd", "lcm") and all(ctx.isint(z) and abs(z) < 10**15 for z in args):
        return ctx.mpf((math.gcd if name == "gcd" else math.lcm)(*(int(z) for z in args)))
    raise NoValue(name)


def _mp_big(node: Big, ctx: Any, values: dict[str, float]) -> Any:
    low, high = _value(node.low, ctx, values), _value(node.high, ctx, values)
    if not (ctx.isint(low) and ctx.isint(high)) or high - low > MAX_BIG_TERMS:
        raise NoValue("the range of a sum")
    total = ctx.mpf(0 if node.kind == "sum" else 1)
    for k in range(int(low), int(high) + 1):
        term = _value(node.body, ctx, {**values, node.index: float(k)})
        total = total + term if node.kind == "sum" else total * term
    return total


def real_value(node: Node) -> Fraction | None:
    """Returns a 30-digit approximation of a closed real number, for ordering; None for any other tree."""
    if isinstance(node, Num):
        return Fraction(node.value)
    if symbols(node) or _opaque(node):
        return None
    ctx = context(30)
    _local.visits = _local.extreme = 0
    try:
        found = value(node, ctx, {})
    except NoValue:
        return None
    if abs(ctx.im(found)) > abs(found) * ctx.mpf(10) ** -25:
        return None
    real = ctx.re(found)
    if real and abs(ctx.mag(real)) > 4000:
        return None
    mantissa, exponent = ctx.frexp(real)
    return Fraction(int(ctx.ldexp(mantissa, 100))) * Fraction(2) ** (int(exponent) - 100)


__all__ = ["Finding", "NoValue", "TooLarge", "investigate", "real_value", "value"]
