r"""The bounded parser: an answer in LaTeX or plain text to a small typed tree.

In: one answer as text. Out: its readings (two where ``1,22`` may be a list or a decimal), each a whole tree: a prefix
is never a reading. Length, depth and digits are bounded before anything is built. Nothing is evaluated and no code of
the text ever runs. It does not know equality.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from verifiers.exact import quantity
from verifiers.lexer import CONSTANTS, GREEK, Token, tokens
from verifiers.limits import MAX_ANSWER, MAX_DEPTH, MAX_DIGITS, TooLarge, Unparsed
from verifiers.text import plain, tidy
from verifiers.tree import (
    HALF,
    IMAGINARY,
    INFINITY,
    MINUS_ONE,
    ONE,
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
    SetOp,
    Special,
    Sym,
    Text,
    children,
    is_scalar,
    negated,
    reciprocal,
)
from verifiers.units import DEGREE, NO_UNIT, PERCENT, is_known_unit, parse_unit

_RELATIONS = {
    "=": "=", "==": "=", ":=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "\\le": "<=", "\\leq": "<=",
    "\\leqslant": "<=", "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=", "\\lt": "<", "\\gt": ">", "\\ne": "!=",
    "\\neq": "!=",
    "\\in": "in", "\\approx": "~", "\\thickapprox": "~", "\\simeq": "~", "\\doteq": "~", "\\leqq": "<=", "\\geqq": ">=",
}  # fmt: skip
_SETOPS = {"\\cup": "cup", "\\cap": "cap", "\\setminus": "setminus", "\\backslash": "setminus", "\\bigcup": "cup"}
_TIMES = {"*", "\\cdot", "\\times", "\\ast"}
_OVER = {"/", "\\div"}
_SETS = {"R": "R", "Z": "Z", "N": "N", "Q": "Q", "C": "C"}
_CURRENCY = {"\\$", "€", "£", "¥", "₹"}
_OPAQUE = frozenset("fghFGH")
_MAYBE_OPAQUE = frozenset("pqPQRSTUVWNLABCDEMuv")
_ACCENTS = {"\\vec", "\\hat", "\\bar", "\\overline", "\\tilde", "\\overrightarrow", "\\widehat", "\\mathcal",
    "\\mathscr", "\\mathfrak", "\\underline", "\\dot", "\\ddot", "\\angle", "\\triangle"}  # fmt: skip
_STYLES = {"\\mathrm", "\\mathbf", "\\mathit", "\\boldsymbol", "\\bf", "\\rm", "\\bm", "\\displaystyle",
    "\\operatorname", "\\mathsf", "\\it", "\\phantom"}  # fmt: skip
_MATRICES = {"pmatrix", "bmatrix", "matrix", "array", "smallmatrix", "vmatrix", "Bmatrix", "psmallmatrix"}
_SHORT_UNITS = frozenset("cm mm km kg mg ft yd mi oz lb hr hrs min mins sec ml mL mph kph kW kJ Hz lbs".split())  # noqa: SIM905


@lru_cache(maxsize=8192)
def parse(raw: str) -> tuple[Node, ...]:
    """All readings of an answer, the most natural first; at least one.

    Raises :class:`Unparsed` where the whole text is not an answer, :class:`TooLarge` beyond the bounds.
    """
    if len(raw) > MAX_ANSWER:
        raise TooLarge(f"{len(raw)} characters (at most {MAX_ANSWER})")
    text = cleaned(raw)
    if not text:
        raise Unparsed("nothing is left after cleaning")
    exact = quantity(text)
    if exact is not None:
        if exact.kind != "number":
            return (Special(exact),)
        number = Num(exact.value, exact.decimals, exact.digits)
        return (number,) if exact.unit is NO_UNIT else (Measured(number, exact.unit),)
    readings: list[Node] = []
    comma = re.fullmatch(r"([+-]?\s*\d+),(\d{2,})(\s*\D*)", text)
    if comma and not (len(comma.group(2)) > 3 and len(comma.group(1)) > 3):
        other = quantity(f"{comma.group(1)}.{comma.group(2)}{comma.group(3)}")
        if other is not None:
            number = Num(other.value, other.decimals, other.digits)
            readings.append(number if other.unit is NO_UNIT else Measured(number, other.unit))
    try:
        readings.insert(0, _Parser(text, grouped=True).whole())
    except Unparsed:
        if not readings:
            if not re.search(r"\d,[1-9]\d\d", text):
                raise
            return (_Parser(text, grouped=False).whole(),)
    if re.search(r"[(\[{][^()]*\d,[1-9]\d\d(?!\d)", text):
        readings.append(_Parser(text, grouped=False).whole())
    return tuple(readings)


def cleaned(raw: str) -> str:
    """The text without looks, outer full stops and outer emphasis."""
    text = tidy(plain(raw)).strip("` \n")
    text = re.sub(
        r"\\(?:hspace|vspace|phantom|label|tag)\*?\s*\{[^{}]*\}|\\(?:nonumber|hfill|break|newline|strut|allowbreak)(?![a-zA-Z])",
        " ",
        text,
    )
    text = re.sub(r"^\*\*(.*)\*\*$", r"\1", text.strip(), flags=re.DOTALL)
    while text and text[-1] in ".,;: " and not text.endswith(("...", "\\,", "\\;", "\\:")):
        text = text[:-1]
    text = re.sub(r"\\+$", "", text)
    return text.lstrip(".:; ") if not re.match(r"\s*\.\d", text) else text.strip()


class _Parser:
    """Recursive descent over the tokens of one answer."""

    def __init__(self, text: str, grouped: bool) -> None:
        self.text = text
        self.tokens = tokens(text, grouped)
        self.at = 0
        self.depth = 0
        self.bars = 0

    # ------------------------------------------------------------------ tokens

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def peek(self, ahead: int = 1) -> Token:
        return self.tokens[min(self.at + ahead, len(self.tokens) - 1)]

    def take(self) -> Token:
        token = self.tokens[self.at]
        self.at += 1
        return token

    def accept(self, *values: str) -> bool:
        if self.token.kind in ("op", "cmd", "sep", "row") and self.token.value in values:
            self.at += 1
            return True
        return False

    def expect(self, *values: str) -> None:
        if not self.accept(*values):
            raise self.stop(f"expected {values[0]}")

    def stop(self, reason: str = "not an answer") -> Unparsed:
        token = self.token
        return Unparsed(
            f"{reason} at {self.text[token.start : token.start + 12]!r}"
            if token.kind != "end"
            else f"{reason} at the end"
        )

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge(f"nested deeper than {MAX_DEPTH}")

    # ------------------------------------------------------------------ lists and relations

    def whole(self) -> Node:
        node = self.listed()
        if self.token.kind != "end":
            raise self.stop()
        return node

    def listed(self) -> Node:
        while self.token.kind == "sep":
            self.take()
        items, joint = [self.clause()], ","
        while self.token.kind == "sep":
            word = self.take().value
            joint = word if word != "," else joint
            if self.token.kind in ("end", "row") or (self.token.kind == "op" and self.token.value in ")]}"):
                break
            if self.token.kind == "sep":
                continue
            items.append(self.clause())
        return items[0] if len(items) == 1 else Seq("list", tuple(items), joint)

    def clause(self) -> Node:
        """A relation chain, a set, an expression or words."""
        start = self.at
        if self.token.kind == "text":
            words = self.words()
            if words is not None:
                return words
            self.at = start
        first = self.sets()
        if not self.relational():
            return first
        ops: list[str] = []
        args = [first]
        while self.relational():
            ops.append(_RELATIONS[self.take().value])
            args.append(self.sets())
        return Relation(tuple(ops), tuple(args))

    def relational(self) -> bool:
        token = self.token
        return token.kind in ("op", "cmd") and token.value in _RELATIONS

    def words(self) -> Node | None:
        """Words up to a separator or the end; None if something else follows them."""
        start = self.token.start
        end = start
        while self.token.kind in ("text", "name") and (self.token.kind == "text" or self.token.spaced):
            end = self.take().end
        if self.token.kind not in ("end", "sep") and not (self.token.kind == "op" and self.token.value in ")]}"):
            return None
        raw = re.sub(r"\\[a-z]+\s*\{([^{}]*)\}", r"\1", self.text[start:end])
        return Text(" ".join(raw.split()))

    def sets(self) -> Node:
        node = self.sum()
        while (self.token.kind == "cmd" and self.token.value in _SETOPS) or self.union_letter():
            token = self.take()
            op = _SETOPS.get(token.value, "cup")
            right = self.sum()
            same = isinstance(node, SetOp) and node.op == op and op != "setminus"
            node = SetOp(op, (*node.args, right) if same and isinstance(node, SetOp) else (node, right))
        return node

    def union_letter(self) -> bool:
        before, after = self.tokens[self.at - 1], self.peek()
        return (
            self.token.kind == "name"
            and self.token.value in "Uu"
            and before.value in (")", "]", "\\}")
            and after.value in ("(", "[", "\\{")
        )

    # ------------------------------------------------------------------ expressions

    def sum(self) -> Node:
        self.deeper()
        terms: list[Node] = []
        sign: Node | None = None
        if self.token.kind in ("op", "cmd") and self.token.value in ("+", "-", "\\pm", "\\mp"):
            sign = _SIGNS[self.take().value]
        terms.append(_signed(sign, self.product()))
        while self.token.kind in ("op", "cmd") and self.token.value in ("+", "-", "\\pm", "\\mp"):
            sign = _SIGNS[self.take().value]
            while self.token.kind == "op" and self.token.value in ("+", "-"):
                sign = (
                    _SIGNS["+" if (self.take().value == "+") == (sign is None) else "-"]
                    if sign in (None, MINUS_ONE)
                    else sign
                )
            terms.append(_signed(sign, self.product()))
        self.depth -= 1
        if len(terms) == 1:
            return terms[0]
        if all(
            isinstance(term, Measured) and term.unit == terms[0].unit
            for term in terms
            if isinstance(terms[0], Measured)
        ) and isinstance(terms[0], Measured):
            return Measured(Add(tuple(term.value for term in terms if isinstance(term, Measured))), terms[0].unit)
        last = terms[-1]
        if isinstance(last, Measured) and not any(isinstance(term, Measured) for term in terms[:-1]):
            return Measured(Add((*terms[:-1], last.value)), last.unit)
        return Add(tuple(terms))

    def product(self) -> Node:
        if self.token.kind == "op" and self.token.value in "+-":
            sign = self.take().value
            self.deeper()
            inner = self.product()
            self.depth -= 1
            return inner if sign == "+" else negated(inner)
        factors = [self.power()]
        while True:
            token = self.token
            if token.kind in ("op", "cmd") and token.value in _TIMES:
                self.take()
                factors.append(self.signed_power())
            elif token.kind in ("op", "cmd") and token.value in _OVER:
                self.take()
                factors.append(reciprocal(self.signed_power()))
            elif self.unit_ahead():
                return self.measured(factors)
            elif self.starts_factor():
                before = self.tokens[self.at - 1]
                factor = self.power()
                if (
                    token.kind == "num"
                    and isinstance(factors[-1], Num)
                    and before.end >= token.start - 1
                    and not self.mixed(factors, factor, before, token)
                ):
                    raise self.stop("two numbers side by side")
                if isinstance(factor, (Seq, Interval, Text)) or isinstance(factors[-1], (Seq, Interval, Text)):
                    raise self.stop("a list or words inside an expression")
                if self.mixed(factors, factor, before, token):
                    whole = factors.pop()
                    factor = Add((whole, factor))
                factors.append(factor)
            else:
                break
        if len(factors) == 1:
            return factors[0]
        return Mul(tuple(factors))

    def mixed(self, factors: list[Node], factor: Node, before: Token, token: Token) -> bool:
        """Whether an integer and the proper fraction right behind it are one mixed number."""
        whole = factors[-1]
        if (
            before.kind != "num"
            or not isinstance(whole, Num)
            or not isinstance(whole.value, int)
            or whole.decimals is not None
        ):
            return False
        if not (isinstance(factor, Mul) and len(factor.args) == 2):
            return False
        top, bottom = factor.args
        if not (
            token.value == "\\frac"
            and isinstance(top, Num)
            and isinstance(bottom, Pow)
            and bottom.exponent == MINUS_ONE
        ):
            return False
        under = bottom.base
        return (
            isinstance(under, Num)
            and isinstance(top.value, int)
            and isinstance(under.value, int)
            and 0 < top.value < under.value
        )

    def signed_power(self) -> Node:
        if self.token.kind == "op" and self.token.value in "+-":
            sign = self.take().value
            self.deeper()
            inner = self.signed_power()
            self.depth -= 1
            return inner if sign == "+" else negated(inner)
        return self.power()

    def starts_factor(self) -> bool:
        token = self.token
        if token.kind in ("num", "name", "func"):
            return not self.union_letter()
        if token.kind == "op":
            return token.value in "([{" or token.value in _CURRENCY or (token.value == "|" and not self.bars)
        if token.kind == "cmd":
            if token.value in ("\\|", "|"):
                return False
            return (
                token.value in _STARTERS
                or token.value[1:] in GREEK
                or token.value[1:] in CONSTANTS
                or token.value in _ACCENTS
            )
        return False

    def unit_ahead(self) -> bool:
        token = self.token
        if token.kind == "text":
            return True
        if token.kind == "cmd" and token.value == "\\%":
            return True
        if token.kind != "name" or (not token.spaced and self.tokens[self.at - 1].kind not in ("num",)):
            return False
        word = self.letters_ahead()
        return word in _SHORT_UNITS and is_known_unit(word)

    def letters_ahead(self) -> str:
        match = re.compile("[A-Za-z]+").match(self.text, self.token.start)
        return match.group() if match else ""

    def measured(self, factors: list[Node]) -> Node:
        """What follows a value up to a separator is its unit, or the whole is no answer."""
        start = self.token.start
        while not (
            self.token.kind in ("end", "sep", "row")
            or self.relational()
            or (self.token.kind == "op" and self.token.value in ")]}+-")
        ):
            self.take()
        end = self.tokens[self.at - 1].end
        unit = parse_unit(self.text[start:end])
        if unit is None:
            raise Unparsed(f"{self.text[start:end][:20]!r} is not a unit")
        value = factors[0] if len(factors) == 1 else Mul(tuple(factors))
        return value if unit is NO_UNIT else Measured(value, unit)

    def power(self) -> Node:
        base = self.postfix(self.primary())
        if self.token.kind == "op" and self.token.value in ("^", "**"):
            self.take()
            if self.token.kind == "cmd" and self.token.value in ("\\circ", "\\degree"):
                self.take()
                return Measured(base, DEGREE)
            if self.token.value == "{" and self.peek().value in ("\\circ", "\\degree") and self.peek(2).value == "}":
                self.at += 3
                return self.degrees(base)
            exponent = self.exponent()
            node: Node = Pow(base, exponent)
            return self.postfix(node)
        return base

    def degrees(self, base: Node) -> Node:
        if self.token.kind == "name" and self.token.value in "CF" and self.peek().kind in ("end", "sep"):
            unit = parse_unit("^\\circ " + self.take().value)
            assert unit is not None
            return Measured(base, unit)
        return Measured(base, DEGREE)

    def exponent(self) -> Node:
        self.deeper()
        negative = False
        while self.token.kind == "op" and self.token.value in "+-":
            negative ^= self.take().value == "-"
        node = self.primary()
        if self.token.kind == "op" and self.token.value in ("^", "**"):
            self.take()
            node = Pow(node, self.exponent())
        elif self.token.kind == "op" and self.token.value == "!":
            node = self.postfix(node)
        self.depth -= 1
        return negated(node) if negative else node

    def postfix(self, node: Node) -> Node:
        while self.token.kind == "op" and self.token.value in ("!", "%"):
            if self.take().value == "%":
                node = Measured(node, PERCENT)
            elif self.token.value == "!":
                self.take()
                node = Call("factorial2", (node,))
            else:
                node = Call("factorial", (node,))
        if self.token.kind == "cmd" and self.token.value in ("\\degree", "\\circ"):
            self.take()
            node = Measured(node, DEGREE)
        return node

    # ------------------------------------------------------------------ primaries

    def primary(self) -> Node:
        self.deeper()
        node = self.primary_at()
        self.depth -= 1
        return node

    def primary_at(self) -> Node:
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
            if token.value in _CURRENCY:
                return self.currency()
            if token.value == "|":
                self.take()
                return self.absolute("|")
        if token.kind == "cmd":
            return self.command()
        raise self.stop()

    def number(self) -> Node:
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
        """The raw text of the next braced group or single token."""
        if self.token.value == "{":
            self.take()
            start = self.token.start
            depth = 1
            while depth:
                token = self.take()
                if token.kind == "end":
                    self.at -= 1
                    raise self.stop("a brace is not closed")
                depth += (token.value == "{") - (token.value == "}")
            return self.text[start : self.tokens[self.at - 1].start].strip()
        token = self.take()
        if token.kind == "end":
            self.at -= 1
            raise self.stop()
        if token.kind == "num" and len(token.value) > 1 and token.value.isdigit():
            self.at -= 1
            self.tokens[self.at] = token._replace(value=token.value[1:], start=token.start + 1)
            return token.value[0]
        return token.value

    def argument(self) -> Node:
        """The next braced group, or one digit, letter or command, as LaTeX takes its arguments."""
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
        token = self.take()
        value = token.value
        if value in CONSTANTS:
            return _constant(CONSTANTS[value])
        if value == "e" and not (self.token.kind == "op" and self.token.value == "_"):
            return Const("e")
        if value == "i" and not (self.token.kind == "op" and self.token.value == "_"):
            return IMAGINARY
        return self.indexed(value)

    def indexed(self, value: str) -> Node:
        """A name with its subscript and, where it is one, its application to arguments."""
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
        self.expect("{")
        inner = self.listed()
        self.expect("}")
        if isinstance(inner, Seq) and inner.kind == "list":
            return Seq("set", inner.items)
        return inner

    def bracketed(self) -> Node:
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
        unit = parse_unit(self.take().value)
        assert unit is not None
        return Measured(self.power(), unit)

    def function(self) -> Node:
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
            and not (self.token.kind == "op" and self.token.value in "([")
        ):
            factors.append(self.power())
        if self.token.kind == "op" and self.token.value == "/" and self.peek().kind == "num" and len(factors) == 1:
            self.take()
            factors.append(reciprocal(self.power()))
        return (factors[0] if len(factors) == 1 else Mul(tuple(factors)),)

    def root(self) -> Node:
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
        value = self.take().value
        name = value[1:]
        if name in CONSTANTS:
            return _constant(CONSTANTS[name])
        if value == "\\pi":
            return Const("pi")
        if name in GREEK:
            return self.indexed(name)
        if value == "\\frac":
            return Mul((self.argument(), reciprocal(self.argument())))
        if value in ("\\binom", "\\dbinom", "\\tbinom"):
            return Call("binomial", (self.argument(), self.argument()))
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
            letter = self.argument_text()
            if letter in _SETS:
                return Const(_SETS[letter])
            raise self.stop("unknown set")
        if value in _ACCENTS:
            return Sym(f"{name} {''.join(self.argument_text().split())}")
        if value in _STYLES:
            return self.argument()
        if value in _CURRENCY:
            self.at -= 1
            return self.currency()
        if value == "\\boxed":
            return self.argument()
        self.at -= 1
        raise self.stop("unknown command")

    def absolute(self, opening: str) -> Node:
        closing = {"\\lvert": ("\\rvert",), "\\lVert": ("\\rVert",)}.get(opening, (opening,))
        if self.bars > 4:
            raise TooLarge("too many bars")
        self.bars += 1
        inner = self.sum()
        self.bars -= 1
        self.expect(*closing)
        return Call("abs", (inner,))

    def braces(self) -> Node:
        if self.accept("\\}"):
            return Const("empty")
        bars, self.bars = self.bars, 1
        inner = self.listed()
        self.bars = bars
        if self.token.value in ("\\mid", "\\vert", ":", "\\|", "|"):
            self.take()
            condition = self.listed()
            self.expect("\\}")
            return condition
        self.expect("\\}")
        return Seq("set", inner.items if isinstance(inner, Seq) and inner.kind == "list" else (inner,))

    def environment(self) -> Node:
        kind = self.argument_text()
        if kind not in _MATRICES:
            raise self.stop(f"environment {kind[:12]!r}")
        if kind == "array" and self.token.value == "{":
            self.argument_text()
        rows: list[tuple[Node, ...]] = []
        cells: list[Node] = []
        while True:
            if self.token.kind == "cmd" and self.token.value == "\\end":
                self.take()
                if self.argument_text() != kind:
                    raise self.stop("environments do not match")
                break
            if self.token.kind == "row":
                self.take()
                if cells:
                    rows.append(tuple(cells))
                cells = []
            elif self.accept("&", "\\hline"):
                continue
            else:
                cells.append(self.sum())
                if not (self.token.kind == "row" or self.token.value in ("&", "\\end")):
                    raise self.stop("a matrix row")
        if cells:
            rows.append(tuple(cells))
        if not rows or len({len(row) for row in rows}) != 1:
            raise self.stop("rows of different lengths")
        matrix = Matrix(tuple(rows))
        return Call("det", (matrix,)) if kind == "vmatrix" else matrix

    def big(self, kind: str) -> Node:
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


_STARTERS = {
    "\\frac", "\\binom", "\\dbinom", "\\tbinom", "\\{", "\\lvert", "\\lVert", "\\lfloor", "\\lceil", "\\langle",
    "\\begin", "\\sum",
    "\\prod", "\\mathbb", "\\pi", "\\$", "\\boxed", *_STYLES,
}  # fmt: skip
_SIGNS: dict[str, Node | None] = {"+": None, "-": MINUS_ONE, "\\pm": Const("pm"), "\\mp": Const("mp")}
_INVERSES = {
    "sin": "asin",
    "cos": "acos",
    "tan": "atan",
    "cot": "acot",
    "sinh": "asinh",
    "cosh": "acosh",
    "tanh": "atanh",
}


def _signed(sign: Node | None, node: Node) -> Node:
    if sign is None:
        return node
    if sign == MINUS_ONE:
        return negated(node)
    if isinstance(node, Measured):
        return Measured(Mul((sign, node.value)), node.unit)
    return Mul((sign, node))


def _constant(name: str) -> Node:
    return Const(name)


def number_node(text: str) -> Num:
    """A digit string, with thousands separators removed, as a number."""
    if len(text) > MAX_DIGITS:
        raise TooLarge(f"a number of {len(text)} digits")
    read = quantity(text)
    if read is None:
        raise Unparsed(f"{text[:12]!r} is not a number")
    return Num(read.value, read.decimals, read.digits)


def _called(name: str, args: tuple[Node, ...], base: Node | None) -> Node:
    if any(isinstance(arg, Matrix) for arg in args) and name != "det":
        raise Unparsed(f"{name} of a matrix")
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


_ARITY = {"max": 0, "min": 0, "gcd": 0, "lcm": 0, "binomial": 2}


def uses(node: Node, kind: type) -> bool:
    """Whether a node of ``kind`` is anywhere in the tree."""
    return isinstance(node, kind) or any(uses(child, kind) for child in children(node))


__all__ = ["ONE", "cleaned", "parse", "uses"]
