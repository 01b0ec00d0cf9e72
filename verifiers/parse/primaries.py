r"""Reads primaries: numbers, names, brackets, functions, roots, commands and matrices.

In: the cursor at the first token of a primary. Out: the tree of the primary.
"""

from __future__ import annotations

import re
from fractions import Fraction

from verifiers.limits import MAX_DIGITS, TooLarge, Unparsed
from verifiers.parse.lexer import CONSTANTS, GREEK
from verifiers.parse.operators import NO_OPERANDS
from verifiers.parse.rows import Rows
from verifiers.parse.tree import (
    HALF,
    IMAGINARY,
    INFINITY,
    MINUS_ONE,
    Add,
    Apply,
    Big,
    Call,
    Const,
    Interval,
    Matrix,
    Measured,
    Mul,
    Node,
    Num,
    Pow,
    Relation,
    Seq,
    Special,
    Sym,
    is_scalar,
    negated,
    reciprocal,
)
from verifiers.quantities.exact import quantity
from verifiers.quantities.units import parse_unit

_SETS = {"R": "R", "Z": "Z", "N": "N", "Q": "Q", "C": "C", "any": "any"}
_PARTS_OF_SETS = {
    "+": "+",
    "*": "*",
    ">0": "+",
    "\\ge0": "0",
    "\\geq0": "0",
    ">=0": "0",
    "0": "0",
    "\\times": "*",
    "-": "-",
}
CURRENCY = frozenset(["\\$", "€", "£", "¥", "₹"])
_OPAQUE = frozenset("fghFGH")
_MAYBE_OPAQUE = frozenset("pqPQRSTUVWNLABCDEMuv")
_ACCENTS = (
    "vec hat bar overline tilde overrightarrow widehat mathcal mathscr mathfrak underline dot ddot angle triangle"
)
_FIGURES = {"angle": 3, "triangle": 3}
_TWO_ENDED = frozenset(["angle", "overline", "bar", "widehat"])
_STYLES = "mathrm mathbf mathit boldsymbol bf rm bm displaystyle operatorname mathsf it"
_OPENERS = "frac binom dbinom tbinom nPr { lvert lVert lfloor lceil langle begin sum prod mathbb pi $ boxed"
ACCENTS = frozenset(f"\\{name}" for name in _ACCENTS.split())
STYLES = frozenset(f"\\{name}" for name in _STYLES.split())
STARTERS = STYLES | frozenset(f"\\{name}" for name in _OPENERS.split())
_INVERSES = {name: f"a{name}" for name in ("sin", "cos", "tan", "cot", "sinh", "cosh", "tanh")}
_ARITY = {"max": 0, "min": 0, "gcd": 0, "lcm": 0, "binomial": 2}


class Primaries(Rows):
    """The part of the parser that reads the smallest complete expressions."""

    def primary(self) -> Node:
        """Reads the smallest complete expression at the cursor."""
        self.deeper()
        node = self.primary_at()
        self.depth -= 1
        return node

    def primary_at(self) -> Node:
        """Reads a number, a name, a function, a bracket or a command."""
        token = self.token
        if token.kind == "num":
            return self.number()
        if token.kind == "name":
            return self.name()
        if token.kind == "func":
            return self.function()
        if token.kind == "op":
            if token.value in "([":
                return self.bracketed()
            if token.value == "{":
                return self.group()
            if token.value in CURRENCY:
                return self.currency()
            if token.value == "|":
                self.take()
                return self.absolute("|")
        if token.kind == "cmd":
            return self.command()
        raise self.stop()

    def number(self) -> Node:
        """Reads a number, a mixed number, a repeating decimal or a numeral with its base."""
        token = self.take()
        if (
            self.token.value in ("\\overline", "\\bar", "\\dot")
            and "." in token.value
            and self.token.start == token.end
        ):
            self.take()
            digits = self.argument_text()
            read = quantity(f"{token.value}\\overline{{{digits}}}")
            if read is None:
                raise self.stop("not a repeating decimal")
            return Num(read.value)
        if self.token.kind == "op" and self.token.value == "_" and token.value.isdigit():
            self.take()
            base = self.argument_text()
            read = quantity(f"{token.value}_{{{base}}}")
            if read is None or read.kind != "based":
                raise self.stop("not a numeral in that base")
            return Special(read)
        if (self.token.kind == "op" and self.token.value == "...") or self.token.value in ("\\ldots", "\\dots"):
            read = quantity(token.value + "...")
            if read is not None and read.decimals is None and "." in token.value:
                self.take()
                return Num(read.value)
        if token.value.isdigit() and self.token.kind == "num" and self.token.spaced:
            over, under = self.peek(), self.peek(2)
            if over.value == "/" and self.token.value.isdigit() and under.kind == "num" and under.value.isdigit():
                read = quantity(f"{token.value} {self.token.value}/{under.value}")
                if read is not None:
                    self.at += 3
                    return Num(read.value)
        return number_node(token.value)

    def argument_text(self) -> str:
        """Takes the next group in braces, or one token, as raw text."""
        if self.token.value == "{":
            self.take()
            start = self.token.start
            depth = 1
            while depth:
                token = self.take()
                if token.kind == "end":
                    raise self.stop("a brace is not closed")
                depth += (token.value == "{") - (token.value == "}")
            return self.text[start : self.tokens[self.at - 1].start].strip()
        token = self.take()
        if token.kind == "end":
            raise self.stop()
        if token.kind == "num" and len(token.value) > 1 and token.value.isdigit():
            self.at -= 1
            self.tokens[self.at] = token._replace(value=token.value[1:], start=token.start + 1)
            return token.value[0]
        return token.value

    def argument(self) -> Node:
        """Reads the argument of a LaTeX command: the next group in braces, or one digit, letter or command."""
        token = self.token
        if token.kind == "op" and token.value == "{":
            return self.group()
        if token.kind == "num" and len(token.value) > 1 and token.value.isdigit():
            self.tokens[self.at] = token._replace(value=token.value[1:], start=token.start + 1)
            return number_node(token.value[0])
        if token.kind == "op" and token.value == "-":
            self.take()
            return negated(self.argument())
        return self.primary()

    def name(self) -> Node:
        """Reads a constant or a symbol."""
        token = self.take()
        value = token.value
        if value in CONSTANTS:
            return Const(CONSTANTS[value])
        if value == "e" and not (self.token.kind == "op" and self.token.value == "_"):
            return Const("e")
        if value == "i" and not (self.token.kind == "op" and self.token.value == "_"):
            return IMAGINARY
        return self.indexed(value)

    def indexed(self, value: str) -> Node:
        """Reads a name with its subscript and, if there is one, its application to arguments."""
        node: Node = Sym(value)
        if self.token.kind == "op" and self.token.value == "_":
            self.take()
            if self.token.value == "{" and self.peek().kind == "text":
                node = Sym(f"{value}_{self.argument_text()}")
            elif self.token.kind == "text":
                node = Sym(f"{value}_{self.take().value}")
            else:
                self.deeper()
                inner = self.argument()
                self.depth -= 1
                node = Apply(f"{value}_", inner.items if isinstance(inner, Seq) else (inner,))
            value = f"{value}_"
        if self.token.kind == "op" and self.token.value == "(" and not self.token.spaced and isinstance(node, Sym):
            letter = value.rstrip("'")
            if letter in _OPAQUE or value.endswith("'") or (letter in _MAYBE_OPAQUE and self.plain_argument()):
                self.take()
                inner = self.listed()
                self.expect(")")
                return Apply(value, inner.items if isinstance(inner, Seq) and inner.kind == "list" else (inner,))
        return node

    def plain_argument(self) -> bool:
        """Whether ``(x)``, ``(2)`` or ``(a, b)`` follows: one token between brackets, or a comma list of them."""
        ahead = 1
        while self.peek(ahead).kind in ("name", "num") and self.peek(ahead + 1).kind == "sep":
            ahead += 2
        return self.peek(ahead).kind in ("name", "num") and self.peek(ahead + 1).value == ")"

    def group(self) -> Node:
        """Reads a group in braces. With commas in it, the group is a set."""
        self.expect("{")
        if self.accept("}"):
            return Const("empty")
        inner = self.listed()
        self.expect("}")
        if isinstance(inner, Seq) and inner.kind == "list":
            return Seq("set", inner.items)
        return inner

    def bracketed(self) -> Node:
        """Reads a bracket: a group, a tuple, a list or an interval."""
        opening = self.take().value
        if self.token.kind == "op" and self.token.value in ")]":
            self.take()
            return Seq("tuple" if opening == "(" else "bracket", ())
        bars, self.bars = self.bars, 0
        inner = self.listed()
        self.bars = bars
        closing = self.token.value
        if not (self.token.kind == "op" and closing in ")]"):
            raise self.stop("a bracket is not closed")
        self.take()
        items = inner.items if isinstance(inner, Seq) and inner.kind == "list" and inner.joint == "," else (inner,)
        if len(items) == 2 and (opening, closing) in (("(", "]"), ("[", ")")):
            return Interval(items[0], items[1], opening == "[", closing == "]")
        if (opening, closing) not in (("(", ")"), ("[", "]")):
            raise self.stop("brackets do not match")
        if len(items) == 1:
            return items[0]
        if len(items) == 2 and any(item in (INFINITY, negated(INFINITY)) for item in items):
            return Interval(items[0], items[1], opening == "[", closing == "]")
        return Seq("tuple" if opening == "(" else "bracket", items)

    def currency(self) -> Node:
        """Reads an amount of money."""
        unit = parse_unit(self.take().value)
        assert unit is not None
        return Measured(self.power(), unit)

    def function(self) -> Node:
        """Reads a known function with its power, base and arguments."""
        name = self.take().value
        if name == "sqrt":
            return self.root()
        power: Node | None = None
        base: Node | None = None
        for _ in range(2):
            if self.token.kind == "op" and self.token.value in ("^", "**") and power is None:
                self.take()
                power = self.exponent()
            elif self.token.kind == "op" and self.token.value == "_" and name in ("log", "max", "min") and base is None:
                self.take()
                base = self.subscript()
        args = self.arguments()
        if power == MINUS_ONE and name in _INVERSES:
            name, power = _INVERSES[name], None
        node = _called(name, args, base)
        return node if power is None else Pow(node, power)

    def subscript(self) -> Node:
        """Reads the base of a logarithm."""
        if (
            self.token.kind == "num"
            and self.token.value.isdigit()
            and not self.peek().spaced
            and self.peek().kind in ("op",)
            and self.peek().value == "("
        ):
            return number_node(self.take().value)
        return self.argument()

    def arguments(self) -> tuple[Node, ...]:
        """Reads the arguments of a function: those in brackets, or the factors that follow."""
        token = self.token
        if token.kind == "op" and token.value in "([{":
            closing = {"(": ")", "[": "]", "{": "}"}[token.value]
            self.take()
            inner = self.listed()
            self.expect(closing)
            return inner.items if isinstance(inner, Seq) and inner.kind == "list" else (inner,)
        if self.token.kind == "op" and self.token.value == "-":
            self.take()
            return (negated(self.arguments()[0]),)
        factors = [self.power()]
        while (
            self.starts_factor()
            and self.token.kind != "func"
            and self.token.value != "\\hat"
            and not (self.token.kind == "op" and self.token.value in "([")
        ):
            factors.append(self.power())
        if self.token.kind == "op" and self.token.value == "/" and self.peek().kind == "num" and len(factors) == 1:
            self.take()
            factors.append(reciprocal(self.power()))
        return (factors[0] if len(factors) == 1 else Mul(tuple(factors)),)

    def root(self) -> Node:
        """Reads a root with its index."""
        index: Node | None = None
        if self.token.kind == "op" and self.token.value == "[":
            self.take()
            index = self.sum()
            self.expect("]")
        if self.token.kind == "op" and self.token.value == "(":
            inner = self.bracketed()
        elif self.token.kind == "num" and not self.text[self.token.start - 5 : self.token.start].startswith("\\"):
            inner = self.argument() if "\\" in self.text else self.number()
        else:
            inner = self.argument()
        if not is_scalar(inner):
            raise self.stop("a root of something that is no number")
        if index is None:
            return Pow(inner, HALF)
        odd = isinstance(index, Num) and isinstance(index.value, int) and index.value % 2 == 1
        if isinstance(index, Num) and index.value:
            return Pow(inner, Num(Fraction(1) / index.value), odd)
        return Pow(inner, reciprocal(index))

    def command(self) -> Node:
        """Reads the expression that a LaTeX command begins."""
        value = self.take().value
        name = value[1:]
        if name in CONSTANTS:
            return Const(CONSTANTS[name])
        if value == "\\pi":
            return Const("pi")
        if name in GREEK:
            return self.indexed(name)
        if value == "\\frac":
            return Mul((self.argument(), reciprocal(self.argument())))
        if value in ("\\binom", "\\dbinom", "\\tbinom"):
            return Call("binomial", (self.argument(), self.argument()))
        if value == "\\nPr":
            total, taken = self.argument(), self.argument()
            return Mul((Call("binomial", (total, taken)), Call("factorial", (taken,))))
        if value == "\\{":
            return self.braces()
        if value in ("\\mid", "\\vert", "\\lvert", "\\|", "\\Vert", "\\lVert"):
            return self.absolute(value)
        if value in ("\\lfloor", "\\lceil"):
            inner = self.sum()
            self.expect("\\rfloor" if value == "\\lfloor" else "\\rceil")
            return Call("floor" if value == "\\lfloor" else "ceil", (inner,))
        if value == "\\langle":
            inner = self.listed()
            self.expect("\\rangle")
            return Seq("tuple", inner.items) if isinstance(inner, Seq) else inner
        if value == "\\begin":
            return self.environment()
        if value in ("\\sum", "\\prod"):
            return self.big("sum" if value == "\\sum" else "product")
        if value == "\\mathbb":
            return self.named_set()
        if value in ACCENTS:
            return self.accented(name)
        if value in STYLES:
            return self.argument()
        if value in CURRENCY:
            self.at -= 1
            return self.currency()
        if value == "\\boxed":
            return self.argument()
        self.at -= 1
        raise self.stop() if value in NO_OPERANDS else self.stop("unknown command")

    def accented(self, name: str) -> Sym:
        """Reads a name under an accent, or a figure named by its corners.

        The corners of an angle, arc or segment may be read from either end.
        """
        if name in _FIGURES and self.token.kind == "name" and self.token.value.isupper():
            corners = self.take().value
            while self.token.kind == "name" and self.token.value[0].isupper() and len(corners) < _FIGURES[name]:
                corners += self.take().value
        else:
            corners = "".join(self.argument_text().split())
        if name in _TWO_ENDED and len(corners) > 1 and corners.isalpha() and corners.isupper():
            corners = min(corners, corners[::-1])
        return Sym(f"{name} {corners}")

    def absolute(self, opening: str) -> Node:
        """Reads an absolute value, up to its closing bar."""
        closing = {"\\lvert": ("\\rvert",), "\\lVert": ("\\rVert",)}.get(opening, (opening,))
        if self.bars > 4:
            raise TooLarge("too many bars")
        self.bars += 1
        inner = self.sum()
        self.bars -= 1
        self.expect(*closing)
        return Call("abs", (inner,))

    def named_set(self) -> Node:
        r"""Reads a set of numbers that is given by its letter, with a sign: ``\mathbb{Z}^+``, ``\mathbb{R}_{>0}``."""
        letter = self.argument_text()
        if letter not in _SETS:
            raise self.stop("unknown set")
        if not (self.token.kind == "op" and self.token.value in ("^", "_")):
            return Const(_SETS[letter])
        start = self.at
        self.take()
        part = _PARTS_OF_SETS.get(re.sub(r"[\s{}]", "", self.argument_text()))
        if part is None:
            self.at = start
        return Const(_SETS[letter] + (part or ""))

    def braces(self) -> Node:
        """Reads a set that is given by its members or by a condition."""
        if self.accept("\\}"):
            return Const("empty")
        bars, self.bars = self.bars, 1
        inner = self.listed()
        self.bars = bars
        if self.token.value in ("\\mid", "\\vert", ":", "\\|", "|"):
            self.take()
            condition = self.listed()
            self.expect("\\}")
            return _set_of(inner, condition)
        self.expect("\\}")
        return Seq("set", inner.items if isinstance(inner, Seq) and inner.kind == "list" else (inner,))

    def big(self, kind: str) -> Node:
        """Reads a sum or product over an index."""
        self.expect("_")
        self.expect("{")
        index = self.take()
        if index.kind != "name" or not self.accept("="):
            raise self.stop("a sum without an index")
        low = self.sum()
        self.expect("}")
        self.expect("^")
        high = self.argument()
        return Big(kind, index.value, low, high, self.product())


def number_node(text: str) -> Num:
    """Makes a number from a string of digits, without its thousands separators."""
    if len(text) > MAX_DIGITS:
        raise TooLarge(f"a number of {len(text)} digits")
    read = quantity(text)
    if read is None:
        raise Unparsed(f"{text[:12]!r} is not a number")
    return Num(read.value, read.decimals, read.digits)


def _set_of(inner: Node, condition: Node) -> Node:
    """Reads a set with a condition: one on a bare variable, or a family of values and the range of its letters."""
    if isinstance(inner, Sym) or (isinstance(inner, Seq) and all(isinstance(item, Sym) for item in inner.items)):
        return condition
    conditions = condition.items if isinstance(condition, Seq) and condition.kind == "list" else (condition,)
    if isinstance(inner, Relation) and inner.ops == ("in",):
        return condition if inner.args[1] == Const("R") else Seq("family", (inner, *conditions))
    return Seq("family", (inner, *conditions))


def _called(name: str, args: tuple[Node, ...], base: Node | None) -> Node:
    if any(isinstance(arg, Matrix) for arg in args) and name != "det":
        raise Unparsed(f"{name} of a matrix")
    if name == "cis" and len(args) == 1:
        return Add((Call("cos", args), Mul((IMAGINARY, Call("sin", args)))))
    if name == "exp" and len(args) == 1:
        return Pow(Const("e"), args[0])
    if name == "cbrt" and len(args) == 1:
        return Pow(args[0], Num(Fraction(1, 3)), True)
    if name == "lg" and len(args) == 1:
        return Call("log", (args[0], Num(10)))
    if name == "log" and len(args) == 1 and base is not None:
        return Call("log", (args[0], base))
    wanted = _ARITY.get(name, 1)
    if (wanted and len(args) != wanted) or base is not None:
        raise Unparsed(f"{name} of {len(args)} arguments")
    return Call(name, args)
