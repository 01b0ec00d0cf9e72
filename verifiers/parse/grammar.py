r"""The grammar of answers: recursive descent over the tokens of one answer, from lists down to powers.

In: a cleaned text. Out: one typed tree of the whole text.
"""

from __future__ import annotations

import re

from verifiers.limits import Unparsed
from verifiers.parse.lexer import CONSTANTS, GREEK, Token
from verifiers.parse.operators import OVER, RELATIONS, SETOPS, TIMES
from verifiers.parse.primaries import ACCENTS, CURRENCY, STARTERS, Primaries
from verifiers.parse.rows import IF_WORDS
from verifiers.parse.tree import (
    MINUS_ONE,
    Add,
    Call,
    Const,
    Interval,
    Measured,
    Mul,
    Node,
    Num,
    Pow,
    Relation,
    Seq,
    SetOp,
    Text,
    negated,
    reciprocal,
)
from verifiers.quantities.scales import scale_at
from verifiers.quantities.units import DEGREE, NO_UNIT, PERCENT, UPRIGHT, is_known_unit, parse_unit

_SHORT_UNITS = frozenset("cm mm km kg mg ft yd mi oz lb hr hrs min mins sec ml mL mph kph kW kJ Hz lbs".split())  # noqa: SIM905
_SIGNS: dict[str, Node | None] = {"+": None, "-": MINUS_ONE, "\\pm": Const("pm"), "\\mp": Const("mp")}
_OPPOSITE: dict[Node | None, Node | None] = {
    None: MINUS_ONE, MINUS_ONE: None, Const("pm"): Const("mp"), Const("mp"): Const("pm"),
}  # fmt: skip
_CLOSING = frozenset([")", "]", "}", "\\}", "&", "\\end"])


class Grammar(Primaries):
    """Recursive descent over the tokens of one answer: lists, relations, sets and expressions."""

    # ------------------------------------------------------------------ lists and relations

    def whole(self) -> Node:
        """Reads the whole answer; no text may be left over."""
        node = self.listed()
        if self.token.kind != "end":
            raise self.stop()
        return node

    def listed(self) -> Node:
        """Reads clauses between separators. Several clauses become a list."""
        while self.token.kind == "sep":
            self.take()
        items, joint = [self.clause()], ","
        while self.token.kind == "sep":
            word = self.take().value
            joint = word if word != "," else joint
            if self.token.kind in ("end", "row") or self.token.value in _CLOSING:
                break
            if self.token.kind == "sep":
                continue
            items.append(self.clause())
        return items[0] if len(items) == 1 else Seq("list", tuple(items), joint)

    def clause(self) -> Node:
        """Reads one clause: a chain of relations, a set, an expression or words."""
        start, first = self.at, None
        if self.token.kind == "text":
            first = self.words()
            if first is not None and not self.relational():
                return first
            self.at = start if first is None else self.at
        first = first or self.sets()
        if not self.relational():
            return first
        ops: list[str] = []
        args = [first]
        while self.relational():
            ops.append(RELATIONS[self.take().value])
            args.append(self.sets())
        return Relation(tuple(ops), tuple(args if isinstance(first, Text) else map(_multiplied, args)))

    def relational(self) -> bool:
        """Whether a relation sign comes next."""
        token = self.token
        return token.kind in ("op", "cmd") and token.value in RELATIONS

    def words(self) -> Node | None:
        """Reads words up to a separator or the end. Returns None if something else follows them."""
        start = self.token.start
        end = start
        kind = "text"
        while self.token.kind == "text" or (
            self.token.kind == "name" and (self.token.spaced or (kind == "name" and self.token.start == end))
        ):
            kind, end = self.token.kind, self.take().end
        if self.token.kind not in ("end", "sep") and not (self.token.kind == "op" and self.token.value in ")]}="):
            return None
        raw = re.sub(r"\\[a-z]+\s*\{([^{}]*)\}", r"\1", self.text[start:end])
        return Text(" ".join(raw.split()))

    def sets(self) -> Node:
        """Reads expressions that are joined by set operations."""
        node = self.sum()
        while (self.token.kind == "cmd" and self.token.value in SETOPS) or self.union_letter():
            token = self.take()
            op = SETOPS.get(token.value, "cup")
            right = self.sum()
            same = isinstance(node, SetOp) and node.op == op and op != "setminus"
            node = SetOp(op, (*node.args, right) if same and isinstance(node, SetOp) else (node, right))
        return node

    def union_letter(self) -> bool:
        """Whether a plain U between brackets means the union."""
        before, after = self.tokens[self.at - 1], self.peek()
        return (
            self.token.kind == "name"
            and self.token.value in "Uu"
            and before.value in (")", "]", "}", "\\}")
            and after.value in ("(", "[", "{", "\\{")
        )

    # ------------------------------------------------------------------ expressions

    def sum(self) -> Node:
        """Reads a sum of products, with its signs."""
        self.deeper()
        terms: list[Node] = []
        sign: Node | None = None
        if self.token.kind in ("op", "cmd") and self.token.value in ("+", "-", "\\pm", "\\mp"):
            sign = _SIGNS[self.take().value]
        terms.append(_signed(sign, self.product()))
        while self.token.kind in ("op", "cmd") and self.token.value in ("+", "-", "\\pm", "\\mp"):
            sign = _SIGNS[self.take().value]
            while self.token.kind == "op" and self.token.value in ("+", "-"):
                sign = sign if self.take().value == "+" else _OPPOSITE[sign]
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
        """Reads a product of powers, with its unit."""
        if self.token.kind == "op" and self.token.value in "+-":
            sign = self.take().value
            self.deeper()
            inner = self.product()
            self.depth -= 1
            return inner if sign == "+" else negated(inner)
        start, factors = self.at, [self.power()]
        while True:
            token = self.token
            if token.kind in ("op", "cmd") and token.value in TIMES:
                self.take()
                factors.append(self.signed_power())
            elif token.kind in ("op", "cmd") and token.value in OVER:
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
        units = [factor.unit for factor in factors if isinstance(factor, Measured)]
        if len(units) == 1 and units[0] not in (DEGREE, PERCENT):
            bare = (factor.value if isinstance(factor, Measured) else factor for factor in factors)
            return Measured(Mul(tuple(bare)), units[0])
        taken = self.tokens[start : self.at]
        spelled = all(token.kind == "name" and token.value.isalpha() for token in taken)
        return Mul(tuple(factors), "".join(token.value for token in taken) if spelled else "")

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
        """Reads a power that may have a sign of its own."""
        if self.token.kind == "op" and self.token.value in "+-":
            sign = self.take().value
            self.deeper()
            inner = self.signed_power()
            self.depth -= 1
            return inner if sign == "+" else negated(inner)
        return self.power()

    def starts_factor(self) -> bool:
        """Whether the current token may begin a factor."""
        token = self.token
        if token.kind in ("num", "name", "func"):
            return not self.union_letter()
        if token.kind == "op":
            return token.value in "([{" or token.value in CURRENCY or (token.value == "|" and not self.bars)
        if token.kind == "cmd":
            if token.value in ("\\|", "|"):
                return False
            return (
                token.value in STARTERS
                or token.value[1:] in GREEK
                or token.value[1:] in CONSTANTS
                or token.value in ACCENTS
            )
        return False

    def unit_ahead(self) -> bool:
        """Whether a unit comes next."""
        token = self.token
        if token.kind == "text":
            return token.value.lower() not in IF_WORDS
        if token.kind == "cmd" and token.value == "\\%":
            return True
        if token.kind != "name" or (not token.spaced and self.tokens[self.at - 1].kind not in ("num",)):
            return False
        word = self.letters_ahead()
        return word in _SHORT_UNITS and is_known_unit(word)

    def letters_ahead(self) -> str:
        """Returns the run of letters at the cursor."""
        match = re.compile("[A-Za-z]+").match(self.text, self.token.start)
        return match.group() if match else ""

    def measured(self, factors: list[Node]) -> Node:
        """Reads the unit of a value. The text up to a separator must be a unit, or the whole text is not an answer."""
        start = self.token.start
        while not (
            self.token.kind in ("end", "sep", "row")
            or self.relational()
            or (self.token.kind == "op" and self.token.value in ")]}+-")
        ):
            self.take()
        end = self.tokens[self.at - 1].end
        words = UPRIGHT.sub(r" \1 ", self.text[start:end])
        scale = scale_at(words)
        unit = PERCENT if scale.percent and not words[scale.end :].strip() else parse_unit(words[scale.end :])
        if unit is None:
            raise Unparsed(f"{self.text[start:end][:20]!r} is not a unit")
        factors = [*factors, Num(scale.factor)] if scale.end else factors
        value = factors[0] if len(factors) == 1 else Mul(tuple(factors))
        return value if unit is NO_UNIT else Measured(value, unit)

    def power(self) -> Node:
        """Reads a primary with its postfix signs and its exponent."""
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
        """Reads degrees of an angle or of temperature, after their sign."""
        if self.token.kind == "name" and self.token.value in "CF" and self.peek().kind in ("end", "sep"):
            unit = parse_unit("^\\circ " + self.take().value)
            assert unit is not None
            return Measured(base, unit)
        return Measured(base, DEGREE)

    def exponent(self) -> Node:
        """Reads an exponent."""
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
        """Reads the signs after a value: factorials, percent and degrees."""
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


_ROMAN = re.compile(r"(?=[MDCLXVI]{2})M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})")


def _multiplied(side: Node) -> Node:
    """A side of a relation, whose letters are a product unless they are a sequence (``HHT``) or a roman numeral."""
    if not isinstance(side, Mul) or not side.spelled:
        return side
    kept = len(set(side.spelled)) < len(side.spelled) or _ROMAN.fullmatch(side.spelled)
    return side if kept else Mul(side.args)


def _signed(sign: Node | None, node: Node) -> Node:
    if sign is None:
        return node
    if sign == MINUS_ONE:
        return negated(node)
    if isinstance(node, Measured):
        return Measured(Mul((sign, node.value)), node.unit)
    return Mul((sign, node))
