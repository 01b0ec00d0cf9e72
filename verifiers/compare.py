r"""Comparing two trees: what counts as the same answer, under a policy.

In: two trees, a policy, and a prover for what numeric agreement leaves open. Out: a :class:`Decision`. Nothing that was
numerically refuted becomes equal. It does not know text, processes or time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from verifiers import matrices
from verifiers.canonical import Unable, canonical, canonical_or_none, difference, independent, same
from verifiers.exact import Quantity, compare_quantities, same_number
from verifiers.limits import TooLarge
from verifiers.numeric import investigate, node_count, real_value
from verifiers.policy import Policy
from verifiers.regions import Piece, Region, region
from verifiers.tree import (
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
    is_scalar,
    negated,
    replaced,
    show,
    symbols,
    walk,
)
from verifiers.units import DEGREE, NO_UNIT, PERCENT, Unit
from verifiers.verdict import Layer


class Decision(NamedTuple):
    """``equal``: None where it stays open."""

    equal: bool | None
    layer: Layer
    reason: str


class NeedsProof(Exception):
    """Numeric evidence does not refute equality, and no prover was given."""


Prover = Callable[[Node, Node], bool | None]
MAX_ITEMS = 60
CHEAP_NODES = 160


class Comparison:
    """One comparison: the policy and the prover that its parts share."""

    def __init__(self, policy: Policy, prover: Prover | None) -> None:
        self.policy = policy
        self.prover = prover

    # ------------------------------------------------------------------ dispatch

    def decide(self, a: Node, b: Node) -> Decision:
        """Whether ``a`` (the reference) and ``b`` are the same answer."""
        a, b = _plain(a), _plain(b)
        if _approximate(a) or _approximate(b):
            return self.approximate(a, b)
        if _signed(a) or _signed(b):
            a, b = expanded(a), expanded(b)
        if isinstance(a, (Special, Text)) or isinstance(b, (Special, Text)):
            return self.special(a, b)
        if _is_relation(a) or _is_relation(b):
            return self.relations(a, b)
        if _set_like(a) or _set_like(b):
            return self.regions(a, b, region(a, loose=True), region(b, loose=True))
        a, b = matrices.evaluated(a), matrices.evaluated(b)
        if isinstance(a, Matrix) or isinstance(b, Matrix):
            return self.matrices(a, b)
        if isinstance(a, Seq) or isinstance(b, Seq):
            return self.sequences(a, b)
        return self.measured(a, b)

    def approximate(self, a: Node, b: Node) -> Decision:
        """``1/3 ~ 0.33`` claims its left side; its right side counts too if it is that value correctly rounded."""
        if _approximate(a) and _approximate(b):
            return self.decide(_sides(a)[0], _sides(b)[0])
        first = _approximate(a)
        left, right = _sides(a if first else b)
        other = b if first else a
        result = self.decide(left, other) if first else self.decide(other, left)
        if result.equal is not False or not isinstance(right, Num) or right.decimals is None:
            return result
        claimed = left.args[-1] if isinstance(left, Relation) else left
        value = real_value(claimed) if is_scalar(claimed) else None
        if value is None or abs(value - right.value) * 2 > Fraction(1, 10**right.decimals):
            return result
        return self.decide(right, other) if first else self.decide(other, right)

    # ------------------------------------------------------------------ scalars

    def measured(self, a: Node, b: Node) -> Decision:
        """Compare values with units."""
        x, unit_x = _unit(a)
        y, unit_y = _unit(b)
        if unit_x == unit_y or self.policy.units == "ignore":
            return self.scalar(x, y)
        if PERCENT in (unit_x, unit_y):
            return self.percent(x, unit_x, y, unit_y)
        if DEGREE in (unit_x, unit_y) and (
            NO_UNIT in (unit_x, unit_y) or unit_x.dims == (("radian", 1),) or unit_y.dims == (("radian", 1),)
        ):
            return self.angles(x, unit_x, y, unit_y)
        if unit_x.dims == unit_y.dims:
            if unit_x.factor == unit_y.factor:
                return self.scalar(x, y)
            return self.scalar(_scaled(x, unit_x.factor), _scaled(y, unit_y.factor))
        if NO_UNIT in (unit_x, unit_y):
            if self.policy.units == "required":
                return Decision(False, "exact", "a unit is missing")
            return self.scalar(x, y)
        return Decision(False, "exact", f"different units: {unit_x.name} and {unit_y.name}")

    def percent(self, x: Node, unit_x: Unit, y: Node, unit_y: Unit) -> Decision:
        """Compare a percentage with a bare number."""
        if (NO_UNIT not in (unit_x, unit_y)) or self.policy.percent == "strict":
            return Decision(False, "exact", "a percentage against something else")
        result = Decision(False, "exact", "different percentages")
        if self.policy.percent in ("either", "value"):
            hundredth = Fraction(1, 100)
            result = self.scalar(
                _scaled(x, hundredth) if unit_x is PERCENT else x, _scaled(y, hundredth) if unit_y is PERCENT else y
            )
        if result.equal is not True and self.policy.percent in ("either", "number"):
            other = self.scalar(x, y)
            result = other if other.equal is not False or result.equal is False else result
        return result

    def angles(self, x: Node, unit_x: Unit, y: Node, unit_y: Unit) -> Decision:
        """Compare degrees with a bare number or radians."""
        radians = (("radian", 1),)
        result = Decision(False, "exact", "different angles")
        if radians not in (unit_x.dims, unit_y.dims) and self.policy.angles in ("either", "degrees"):
            if self.policy.units == "required":
                return Decision(False, "exact", "a unit is missing")
            result = self.scalar(x, y)
        if result.equal is not True and self.policy.angles in ("either", "radians"):
            turned = (Measured(x, DEGREE) if unit_x is DEGREE else x, Measured(y, DEGREE) if unit_y is DEGREE else y)
            if any(part == Const("pi") for side in turned for part in walk(side)) or radians in (
                unit_x.dims,
                unit_y.dims,
            ):
                result = self.scalar(*turned)
        return result

    def scalar(self, a: Node, b: Node) -> Decision:
        """Compare two expressions: written numbers, canonical forms, numbers, proof."""
        for side in (a, b):
            if not _is_value(side):
                return Decision(
                    False if _known(a) and _known(b) else None, "exact", f"{show(side)[:40]} is no single value"
                )
        infinite = [_infinity(side) for side in (a, b)]
        if any(infinite):
            equal = infinite[0] == infinite[1]
            return Decision(equal, "exact", "both infinite" if equal else "one is infinite")
        if isinstance(a, Num) and isinstance(b, Num):
            equal = same_number(a.value, a.decimals, a.digits, b.value, b.decimals, b.digits, self.policy)
            return Decision(equal, "exact", "the same number" if equal else "different numbers")
        if self.prover is None and _heavy(a, b):
            raise NeedsProof("a long expression")
        verdict = same(a, b)
        layer: Layer = "symbolic" if symbols(a) or symbols(b) else "exact"
        if verdict is True:
            return Decision(True, layer, "the same canonical form")
        rounding = self.rounded(a, b)
        if rounding is not None:
            return rounding
        if verdict is False:
            return Decision(False, layer, "different canonical forms")
        finding, reason = investigate(a, b)
        if finding == "different":
            return Decision(False, "numeric", reason)
        if finding == "proven":
            return Decision(True, "numeric", reason)
        if finding == "unknown" and "too large" in reason:
            raise TooLarge(reason)
        if self.prover is None:
            raise NeedsProof(reason)
        proof = self.prover(a, b)
        if proof is not None:
            return Decision(proof, "symbolic", "proved" if proof else "disproved")
        if finding == "agree" and self.policy.unproven == "equal":
            return Decision(True, "numeric", f"{reason}; not proved")
        return Decision(None, "symbolic", f"{reason}; not proved")

    def rounded(self, a: Node, b: Node) -> Decision | None:
        """A decimal against a closed form; None where neither is a decimal."""
        number, other = (a, b) if isinstance(a, Num) else (b, a)
        if not isinstance(number, Num) or number.decimals is None:
            return None
        form = canonical_or_none(other)
        exact = form.rational() if form is not None else None
        value = exact if exact is not None else real_value(other)
        if value is None:
            return Decision(False, "numeric", "a decimal against something that is no real number")
        equal = same_number(number.value, number.decimals, number.digits, value, None, 0, self.policy)
        return Decision(equal, "numeric", "correctly rounded" if equal else "not the value at the digits given")

    # ------------------------------------------------------------------ words and special numerals

    def special(self, a: Node, b: Node) -> Decision:
        """Compare where a side is words, a time, a ratio, a date or a numeral with its base."""
        letters = (_letter(a), _letter(b))
        if all(letters):
            return Decision(letters[0] == letters[1], "identity", f"{letters[0]} and {letters[1]}")
        if isinstance(a, Text) and isinstance(b, Text):
            equal = spoken(a) == spoken(b)
            return Decision(equal, "identity", "the same words" if equal else "different words")
        if isinstance(a, Text) or isinstance(b, Text):
            words, other = (a, b) if isinstance(a, Text) else (b, a)
            assert isinstance(words, Text)
            if isinstance(other, Relation) and other.ops == ("=",) and self.policy.assignment == "optional":
                return self.special(words, other.args[1]) if a is words else self.special(other.args[1], words)
            if spoken(words) in (
                "no solution",
                "no solutions",
                "none",
                "empty set",
                "no real solutions",
                "there are no solutions",
            ):
                empty = other == Const("empty") or (isinstance(other, Seq) and not other.items)
                return Decision(empty, "identity", "no solution")
            return Decision(False, "identity", "words against mathematics")
        if isinstance(a, Relation) or isinstance(b, Relation):
            return self.relations(a, b)
        x, y = _quantity(a), _quantity(b)
        if x is not None and y is not None:
            equal, reason = compare_quantities(x, y, self.policy)
            return Decision(equal, "exact", reason)
        for one, other in ((a, b), (b, a)):
            if isinstance(one, Special) and one.quantity.kind == "ratio":
                return self.decide(Num(one.quantity.value), other)
        return Decision(False, "exact", "different kinds of answer")

    # ------------------------------------------------------------------ relations

    def relations(self, a: Node, b: Node) -> Decision:
        """Compare where a side is an equation, an inequality or a list of them."""
        if isinstance(a, Relation) and isinstance(b, Relation):
            return self.two_relations(_oriented(a), _oriented(b))
        if _inequalities(a) or _inequalities(b):
            left, right = region(a, loose=True), region(b, loose=True)
            if left is not None and right is not None:
                return self.regions(a, b, left, right)
        if isinstance(a, Seq) and isinstance(b, Seq) and a.kind == b.kind == "list":
            return self.lists_of_relations(a, b)
        for first, one, other in ((True, a, b), (False, b, a)):
            if isinstance(one, Relation):
                one = _oriented(one)
                if _assigns(one):
                    if self.policy.assignment == "required" and one.ops == ("=",):
                        return Decision(False, "exact", "an assignment is missing")
                    value = one.args[-1]
                    result = self.decide(value, other) if first else self.decide(other, value)
                    if result.equal is not True or len(one.args) == 2:
                        return result
                    middle = self.decide(one.args[1], value)
                    return (
                        result if middle.equal is not False else Decision(False, middle.layer, "an inconsistent chain")
                    )
        if isinstance(a, Seq) and a.kind == "list" and any(isinstance(item, Relation) for item in a.items):
            return self.list_against(a, b)
        if isinstance(b, Seq) and b.kind == "list" and any(isinstance(item, Relation) for item in b.items):
            return self.list_against(b, a)
        if any(isinstance(side, Relation) and "in" in side.ops for side in (a, b)):
            left, right = region(a, loose=True), region(b, loose=True)
            if left is not None and right is not None:
                return self.regions(a, b, left, right)
        return Decision(False, "exact", "a relation against something else")

    def list_against(self, listed: Seq, other: Node) -> Decision:
        """Compare a list of relations with something that is none."""
        values = _assigned(listed)
        if values is None:
            return Decision(False, "exact", "relations against something else")
        ordered = len({show(name) for name in values[0]}) > 1
        kind = "tuple" if ordered and len(values[1]) > 1 else "list"
        return self.decide(Seq(kind, values[1]), other)

    def lists_of_relations(self, a: Seq, b: Seq) -> Decision:
        """Compare two lists of relations."""
        x, y = _assigned(a), _assigned(b)
        if x is None or y is None:
            return self.matched(a.items, b.items, ordered=False)
        named = all(isinstance(item, Relation) for item in (*a.items, *b.items))
        names_x, names_y = [show(name) for name in x[0]], [show(name) for name in y[0]]
        if named and len(set(names_x)) == len(names_x) and sorted(names_x) == sorted(names_y):
            order = [names_y.index(name) for name in names_x]
            return self.matched(x[1], tuple(y[1][place] for place in order), ordered=True)
        if named and set(names_x) != set(names_y) and not all(isinstance(name, Apply) for name in (*x[0], *y[0])):
            return Decision(False, "exact", "different variables")
        distinct = len(set(names_x)) > 1 or len(set(names_y)) > 1
        return self.matched(x[1], y[1], ordered=distinct)

    def two_relations(self, a: Relation, b: Relation) -> Decision:
        """Compare two relations."""
        if _assigns(a) and _assigns(b) and a.ops[0] == b.ops[0]:
            left, right = a.args[0], b.args[0]
            x, y = a.args[-1], b.args[-1]
            if left == right or _same_name(left, right):
                renamed = _renamed(left, right, y)
                return self.decide(x, renamed)
            if not symbols(x) and not symbols(y):
                return Decision(False, "exact", "different variables")
        if "in" in (*a.ops, *b.ops) or (_inequality(a) and _inequality(b)):
            x_region, y_region = region(a), region(b)
            if x_region is not None and y_region is not None:
                names = [names for names in (symbols(a), symbols(b)) if names]
                if len(names) == 2 and not (names[0] & names[1]) and "in" not in (*a.ops, *b.ops):
                    return Decision(False, "exact", "different variables")
                return self.same_region(x_region, y_region)
        if a.ops != b.ops:
            flipped = Relation(tuple(_FLIP.get(op, op) for op in reversed(b.ops)), tuple(reversed(b.args)))
            if a.ops != flipped.ops:
                return Decision(False, "exact", "different relations")
            b = flipped
        if len(a.args) == 2 and all(is_scalar(arg) for arg in (*a.args, *b.args)):
            return self.proportional(a, b)
        return self.matched(a.args, b.args, ordered=True)

    def proportional(self, a: Relation, b: Relation) -> Decision:
        """Whether the two sides' differences are constant multiples of each other: the same equation."""
        x, y = Add((a.args[0], negated(a.args[1]))), Add((b.args[0], negated(b.args[1])))
        try:
            left, right = canonical(x), canonical(y)
            p, q = left.numerator, right.numerator
            if not p or not q:
                return Decision(not p and not q, "symbolic", "an identity")
            lead = next(iter(p))
            if lead in q and len(p) == len(q):
                ratio = q[lead] / p[lead]
                if all(q.get(monomial) == ratio * coefficient for monomial, coefficient in p.items()):
                    inequality = a.ops[0] not in ("=", "!=")
                    equal = not (inequality and ratio < 0)
                    return Decision(equal, "symbolic", "the same relation" if equal else "the opposite relation")
            if independent(p, q) or difference(left, right):
                direct = self.matched(a.args, b.args, ordered=True)
                return direct if direct.equal else Decision(False, "symbolic", "different relations")
        except Unable:
            pass
        return self.matched(a.args, b.args, ordered=True)

    # ------------------------------------------------------------------ sets of reals

    def regions(self, a: Node, b: Node, x: Region | None, y: Region | None) -> Decision:
        """Compare where a side is a set of reals; ``x`` and ``y`` are the sets, None where a side is none."""
        if x is None or y is None:
            if isinstance(a, SetOp) and isinstance(b, SetOp) and a.op == b.op:
                return self.matched(a.args, b.args, ordered=a.op == "setminus")
            if isinstance(a, Const) and isinstance(b, Const):
                return Decision(a == b, "exact", "named sets")
            return Decision(False, "exact", "a set against something else")
        a_notation, b_notation = _inequalities(a), _inequalities(b)
        if a_notation != b_notation:
            if self.policy.intervals == "strict":
                return Decision(False, "exact", "an inequality against an interval")
            if b_notation and self.policy.intervals == "reference":
                return Decision(False, "exact", "an inequality where an interval is asked for")
        return self.same_region(x, y)

    def same_region(self, x: Region, y: Region) -> Decision:
        """Compare two sets of reals."""
        if len(x) != len(y):
            return Decision(False, "exact", "different numbers of pieces")
        ordered = all(piece.order is not None for piece in (*x, *y))
        if ordered:
            return self.all_of([self.same_piece(p, q) for p, q in zip(x, y, strict=True)])
        rest = list(y)
        for p in x:
            match = next((q for q in rest if self.same_piece(p, q).equal), None)
            if match is None:
                return Decision(False, "exact", "different intervals")
            rest.remove(match)
        return Decision(True, "exact", "the same intervals")

    def same_piece(self, p: Piece, q: Piece) -> Decision:
        """Compare two intervals."""
        if (p.low_closed, p.high_closed) != (q.low_closed, q.high_closed):
            return Decision(False, "exact", "different end brackets")
        return self.all_of([self.scalar(p.low, q.low), self.scalar(p.high, q.high)])

    # ------------------------------------------------------------------ sequences and matrices

    def sequences(self, a: Node, b: Node) -> Decision:
        """Compare where a side is a tuple, a list or a set."""
        if not (isinstance(a, Seq) and isinstance(b, Seq)):
            sequence, other = (a, b) if isinstance(a, Seq) else (b, a)
            assert isinstance(sequence, Seq)
            items = _flattened(sequence)
            if len(items) == 1:
                return self.decide(items[0], other)
            if (
                len(items) > 1
                and sequence.kind in ("list", "set")
                and all(self.decide(item, other).equal for item in items)
            ):
                return self.decide(items[0], other)
            return Decision(False, "exact", "several answers against one")
        x, y = _flattened(a), _flattened(b)
        result = self.items(a, b, x, y)
        if result.equal is False and len(x) == len(y):
            return self.items(a, b, _shared(x), _shared(y))
        return result

    def items(self, a: Seq, b: Seq, x: tuple[Node, ...], y: tuple[Node, ...]) -> Decision:
        """Compare the items of two sequences as their brackets ask for."""
        kinds = {a.kind, b.kind}
        if kinds <= {"list", "set"}:
            ordered = self.policy.order == "kept" and kinds == {"list"}
            result = self.matched(x, y, ordered=ordered)
            if result.equal is False and "set" in kinds and len(x) != len(y):
                return self.matched(self.distinct(x), self.distinct(y), ordered=False)
            return result
        if a.kind != b.kind:
            if kinds == {"tuple", "bracket"} and len(x) == 2:
                return Decision(False, "exact", "round against square brackets")
            if self.policy.tuples == "strict":
                return Decision(False, "exact", f"a {a.kind} is not a {b.kind}")
        return self.matched(x, y, ordered=True)

    def distinct(self, items: Sequence[Node]) -> tuple[Node, ...]:
        """The items without repetitions."""
        kept: list[Node] = []
        for item in items[:MAX_ITEMS]:
            if not any(self.decide(other, item).equal for other in kept):
                kept.append(item)
        return tuple(kept)

    def matched(self, x: Sequence[Node], y: Sequence[Node], ordered: bool) -> Decision:
        """Compare part by part, in order or in any order."""
        if len(x) != len(y):
            return Decision(False, "exact", f"{len(x)} parts against {len(y)}")
        if ordered:
            return self.all_of([self.decide(p, q) for p, q in zip(x, y, strict=True)])
        if len(x) > MAX_ITEMS:
            raise TooLarge(f"a list of {len(x)} answers")
        rest, decisions = list(y), []
        for p in x:
            found = None
            for index, q in enumerate(rest):
                decision = self.decide(p, q)
                if decision.equal:
                    found = index
                    decisions.append(decision)
                    break
                if decision.equal is None:
                    return decision
            if found is None:
                return Decision(False, "exact", f"{show(p)[:40]} has no counterpart")
            rest.pop(found)
        return self.all_of(decisions)

    def all_of(self, decisions: Sequence[Decision]) -> Decision:
        """The conjunction of decisions."""
        order: list[Layer] = ["identity", "exact", "numeric", "symbolic", "fallback"]
        for decision in decisions:
            if decision.equal is False:
                return decision
        for decision in decisions:
            if decision.equal is None:
                return decision
        if not decisions:
            return Decision(True, "exact", "both empty")
        last = max(decisions, key=lambda decision: order.index(decision.layer))
        return Decision(True, last.layer, "all parts are equal")

    def matrices(self, a: Node, b: Node) -> Decision:
        """Compare where a side is a matrix."""
        rows = [_rows(node) for node in (a, b)]
        x, y = rows
        if x is None or y is None:
            return Decision(False, "exact", "a matrix against something else")
        if isinstance(a, Matrix) != isinstance(b, Matrix):
            if self.policy.tuples == "strict":
                return Decision(False, "exact", "a vector against a list")
            x, y = _as_column(x), _as_column(y)
        if [len(row) for row in x] != [len(row) for row in y]:
            return Decision(False, "exact", "different shapes")
        left, right = (tuple(cell for row in side for cell in row) for side in (x, y))
        result = self.matched(left, right, ordered=True)
        return result if result.equal is not False else self.matched(_shared(left), _shared(right), ordered=True)


_FLIP = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


# ---------------------------------------------------------------------- what a node is


def _plain(node: Node) -> Node:
    while isinstance(node, Seq) and len(node.items) == 1 and node.kind in ("list", "tuple", "bracket"):
        node = node.items[0]
    return node


def _is_value(node: Node) -> bool:
    return is_scalar(node) or (isinstance(node, Measured) and _is_value(node.value)) or _measured_inside(node)


def _measured_inside(node: Node) -> bool:
    if isinstance(node, Measured):
        return node.unit in (DEGREE, PERCENT) and _measured_inside(node.value)
    if isinstance(node, (Add, Mul, Call, Apply)):
        return all(map(_measured_inside, node.args))
    if isinstance(node, Pow):
        return _measured_inside(node.base) and _measured_inside(node.exponent)
    return is_scalar(node)


def _heavy(a: Node, b: Node) -> bool:
    """Whether an evaluation may take long enough to belong in a worker."""
    sums = max(sum(isinstance(part, Big) for part in walk(side)) for side in (a, b))
    return sums > 1 or node_count(a) + node_count(b) > CHEAP_NODES


def _known(node: Node) -> bool:
    return _is_value(node) or isinstance(node, (Seq, Interval, SetOp, Matrix, Relation))


def _infinity(node: Node) -> int:
    if node == Const("oo"):
        return 1
    return -1 if node == negated(Const("oo")) else 0


def _approximate(node: Node) -> bool:
    return isinstance(node, Relation) and "~" in node.ops


def _sides(node: Node) -> tuple[Node, Node]:
    """What stands before the first ``~`` and right behind it."""
    assert isinstance(node, Relation)
    cut = node.ops.index("~")
    left = node.args[0] if cut == 0 else Relation(node.ops[:cut], node.args[: cut + 1])
    return left, node.args[cut + 1]


def _signed(node: Node) -> bool:
    return any(isinstance(part, Const) and part.name in ("pm", "mp") for part in walk(node))


def _is_relation(node: Node) -> bool:
    return isinstance(node, Relation) or (
        isinstance(node, Seq) and node.kind == "list" and any(isinstance(item, Relation) for item in node.items)
    )


def _inequality(node: Node) -> bool:
    return isinstance(node, Relation) and all(op in ("<", "<=", ">", ">=", "!=") for op in node.ops)


def _inequalities(node: Node) -> bool:
    return _inequality(node) or (isinstance(node, Seq) and bool(node.items) and all(map(_inequality, node.items)))


def _set_like(node: Node) -> bool:
    return isinstance(node, (Interval, SetOp)) or (
        isinstance(node, Const) and node.name in ("R", "Z", "N", "Q", "C", "empty")
    )


def _unit(node: Node) -> tuple[Node, Unit]:
    return (node.value, node.unit) if isinstance(node, Measured) else (node, NO_UNIT)


def _scaled(node: Node, factor: Fraction) -> Node:
    if isinstance(node, Num):
        decimals = node.decimals
        scaled = Fraction(node.value) * factor
        if decimals is not None and factor == Fraction(1, 100):
            decimals += 2
        return Num(scaled.numerator if scaled.denominator == 1 else scaled, decimals, node.digits)
    return Mul((Num(factor), node))


def _letter(node: Node) -> str | None:
    if isinstance(node, Sym) and re.fullmatch("[A-Z]", node.name):
        return node.name
    if isinstance(node, Text):
        match = re.fullmatch(r"\(?([A-Z])\)?\.?", node.words)
        return match.group(1) if match else None
    return None


def spoken(node: Text) -> str:
    """The words without case and punctuation."""
    return " ".join(re.sub(r"[^\w\s]", " ", node.words).lower().split())


def _quantity(node: Node) -> Quantity | None:
    if isinstance(node, Special):
        return node.quantity
    value, unit = _unit(node)
    if isinstance(value, Num):
        return Quantity(value.value, str(value.value), value.decimals, value.digits, unit)
    return None


def expanded(node: Node) -> Node:
    """The node with coupled signs written out: one list item for each choice of sign."""
    if not _signed(node):
        return node
    if isinstance(node, Seq):
        items: list[Node] = []
        for item in node.items:
            both = expanded(item)
            items.extend(both.items if isinstance(both, Seq) and _signed(item) else (both,))
        return Seq(node.kind, tuple(items), node.joint)
    if isinstance(node, Relation) and _assigns(node):
        right = expanded(node.args[-1])
        return right
    plus = replaced(replaced(node, Const("pm"), Num(1)), Const("mp"), Num(-1))
    minus = replaced(replaced(node, Const("pm"), Num(-1)), Const("mp"), Num(1))
    return Seq("list", (plus, minus), "or")


def _flattened(node: Seq) -> tuple[Node, ...]:
    items: list[Node] = []
    for item in node.items:
        if isinstance(item, Seq) and item.kind == "list":
            items.extend(item.items)
        else:
            items.append(item)
    return tuple(items)


def _shared(items: Sequence[Node]) -> tuple[Node, ...]:
    """Decimals side by side share their precision: 0.29 beside 0.196 is 0.290."""
    given = [item.decimals for item in items if isinstance(item, Num) and item.decimals is not None]
    if not given:
        return tuple(items)
    most = max(given)
    return tuple(
        Num(item.value, most, item.digits + most - item.decimals)
        if isinstance(item, Num) and item.decimals is not None
        else item
        for item in items
    )


def _rows(node: Node) -> tuple[tuple[Node, ...], ...] | None:
    if isinstance(node, Matrix):
        return node.rows
    if isinstance(node, Seq) and node.kind in ("tuple", "bracket", "list") and node.items:
        inner = [item.items for item in node.items if isinstance(item, Seq) and item.kind in ("tuple", "bracket")]
        if len(inner) == len(node.items) and len({len(row) for row in inner}) == 1:
            return tuple(inner)
        return (node.items,)
    return None


def _as_column(rows: tuple[tuple[Node, ...], ...]) -> tuple[tuple[Node, ...], ...]:
    if len(rows) == 1:
        return tuple((cell,) for cell in rows[0])
    return rows


# ---------------------------------------------------------------------- names and assignments


def _is_name(node: Node) -> bool:
    """Whether a left side is merely a name for the answer: ``x``, ``f(x)``, ``|AB|``, ``NO/BO``, ``(x, y)``."""
    if isinstance(node, (Sym, Text)):
        return True
    if isinstance(node, Apply):
        return True
    if isinstance(node, Seq):
        return all(map(_is_name, node.items))
    if isinstance(node, Mul):
        return all(
            _is_name(arg) or (isinstance(arg, Pow) and arg.exponent == Num(-1) and _is_name(arg.base)) or arg == Num(1)
            for arg in node.args
        )
    if isinstance(node, Call) and node.name == "abs":
        return _is_name(node.args[0])
    return False


def _assigns(node: Relation) -> bool:
    if node.ops == ("in",):
        return _is_name(node.args[0])
    if not all(op == "=" for op in node.ops) or not _is_name(node.args[0]):
        return False
    left, right = node.args[0], node.args[-1]
    if isinstance(left, Mul) and symbols(right):
        return False
    if isinstance(left, Apply):
        return left not in set(walk(right))
    return not (symbols(left) & symbols(right))


def _oriented(node: Relation) -> Relation:
    """``5 = x`` as ``x = 5``."""
    if node.ops == ("=",) and not _is_name(node.args[0]) and isinstance(node.args[1], (Sym, Apply)):
        return Relation(node.ops, (node.args[1], node.args[0]))
    return node


def _same_name(a: Node, b: Node) -> bool:
    """Whether two left sides name the same: ``f(x)`` and ``y``, ``W(n)`` and ``W(x)``."""
    function_a = isinstance(a, Apply) and not a.name.endswith("_")
    function_b = isinstance(b, Apply) and not b.name.endswith("_")
    if isinstance(a, Apply) and isinstance(b, Apply):
        return (
            a.name == b.name and function_a and function_b and all(isinstance(arg, Sym) for arg in (*a.args, *b.args))
        )
    return (function_a and b == Sym("y")) or (function_b and a == Sym("y"))


def _renamed(left: Node, right: Node, value: Node) -> Node:
    if isinstance(left, Apply) and isinstance(right, Apply) and len(left.args) == len(right.args):
        for new, old in zip(left.args, right.args, strict=True):
            if isinstance(old, Sym) and isinstance(new, Sym) and old != new:
                value = replaced(value, old, new)
    return value


def _assigned(node: Seq) -> tuple[tuple[Node, ...], tuple[Node, ...]] | None:
    """(names, values) of a list of assignments, where a bare value continues the assignment before it."""
    names: list[Node] = []
    values: list[Node] = []
    for item in node.items:
        if isinstance(item, Relation):
            item = _oriented(item)
            if not (_assigns(item) and item.ops[0] == "="):
                return None
            names.append(item.args[0])
            values.append(item.args[-1])
        elif isinstance(item, Measured) or is_scalar(item) or isinstance(item, (Seq, Special)):
            names.append(names[-1] if names else Sym(""))
            values.append(item)
        else:
            return None
    return tuple(names), tuple(values)
