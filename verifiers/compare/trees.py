r"""Compares two trees: which answers count as the same, under a policy.

In: two trees, a policy, and a prover for cases that numeric agreement leaves open. Out: a :class:`Decision`. A pair
that is numerically refuted never becomes equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from verifiers.compare import matrices, vectors
from verifiers.compare.cases import Case, pieces_of
from verifiers.compare.chains import is_chain, is_stated_quantity, stated
from verifiers.compare.equations import multiples
from verifiers.compare.families import implied_parameter, renamed, same_progressions, with_other_constants
from verifiers.compare.kinds import (
    are_inequalities,
    as_column,
    expanded,
    flattened,
    has_relations,
    has_signs,
    is_approximate,
    is_inequality,
    is_nothing,
    is_set_like,
    letter_of,
    named_set,
    quantity_of,
    rows_of,
    sides_of,
    spoken,
    unwrapped,
    with_shared_precision,
)
from verifiers.compare.names import assignments_of, is_assignment, names_the_same, oriented, with_names_of
from verifiers.compare.numeric import real_value
from verifiers.compare.qualifiers import Qualified, qualified
from verifiers.compare.regions import Piece, Region, region
from verifiers.compare.scalars import ScalarComparison
from verifiers.compare.spelling import same_letters
from verifiers.compare.units import Decision, measured
from verifiers.limits import TooLarge
from verifiers.parse.rows import OTHERWISE
from verifiers.parse.tree import (
    Apply,
    Const,
    Matrix,
    Node,
    Num,
    Relation,
    Seq,
    SetOp,
    Special,
    Text,
    is_scalar,
    show,
    symbols,
)
from verifiers.quantities.exact import compare_quantities
from verifiers.verdict import Layer

MAX_ITEMS = 60


class Comparison(ScalarComparison):
    """Compares two trees of any kind, part by part."""

    # ------------------------------------------------------------------ dispatch

    def decide(self, a: Node, b: Node) -> Decision:
        """Whether ``a`` (the reference) and ``b`` are the same answer."""
        x, y = qualified(a), qualified(b)
        if x.domains or y.domains or (implied_parameter(a) and implied_parameter(b)):
            return self.families(x, y)
        result = self.unqualified(a, b)
        if result.equal is False and self.policy.constants == "renamed":
            for other in with_other_constants(a, b):
                if self.unqualified(a, other).equal:
                    return Decision(True, result.layer, "the same but for the names of constants")
        return result

    def families(self, x: Qualified, y: Qualified) -> Decision:
        """Compares two trees if a side gives the range of its letters, or is a family of angles."""
        other = renamed(x, y)
        if other is None:
            return Decision(False, "exact", "letters that run over different numbers")
        result = self.unqualified(x.body, other)
        implied = [name for name in (implied_parameter(x.body), implied_parameter(y.body)) if name]
        names = {*x.domains, *implied} & symbols(other)
        integers = all(side.domains.get(name, "Z") == "Z" for side in (x, y) for name in names)
        if result.equal is not True and len(names) == 1 and integers:
            values = (expanded(x.body), expanded(other))
            if same_progressions(*values, next(iter(names))):
                return Decision(True, "symbolic", "the same family of values")
        return result

    def unqualified(self, a: Node, b: Node) -> Decision:
        """Compares two trees whose letters are just letters."""
        a, b = unwrapped(a), unwrapped(b)
        letters = same_letters(a, b)
        if letters is not None:
            return Decision(letters, "identity", "the same letters" if letters else "different letters")
        if is_chain(a) or is_chain(b):
            return self.chains(a, b)
        if is_approximate(a) or is_approximate(b):
            return self.approximate(a, b)
        if has_signs(a) or has_signs(b):
            a, b = expanded(a), expanded(b)
        if isinstance(a, (Special, Text)) or isinstance(b, (Special, Text)):
            return self.special(a, b)
        if has_relations(a) or has_relations(b):
            return self.relations(a, b)
        if is_set_like(a) or is_set_like(b):
            return self.regions(a, b, region(a, loose=True), region(b, loose=True))
        a, b = self.in_components(matrices.evaluated(a), matrices.evaluated(b))
        if isinstance(a, Matrix) or isinstance(b, Matrix):
            return self.matrices(a, b)
        if isinstance(a, Seq) or isinstance(b, Seq):
            return self.sequences(a, b)
        return measured(a, b, self.policy, self.scalar)

    def chains(self, a: Node, b: Node) -> Decision:
        """Compares two trees if a side is a chain of equations. A chain states its last member."""
        if a == b:
            return Decision(True, "identity", "the same chain")
        sides = [stated(side, self.agree) if is_chain(side) else side for side in (a, b)]
        if sides[0] is None or sides[1] is None:
            return Decision(False, "exact", "a chain of equations that is not true")
        if sides == [a, b]:
            return self.relations(a, b)
        return self.decide(sides[0], sides[1])

    def agree(self, a: Node, b: Node) -> bool:
        """Whether two members of a chain are certainly or very likely the same."""
        return self.decide(a, b).equal is True

    def in_components(self, a: Node, b: Node) -> tuple[Node, Node]:
        """Returns both sides; a sum of unit vectors becomes a tuple if the other is a tuple, a column or such a sum."""
        size, other = vectors.size_of(a), vectors.size_of(b)
        if size or other:
            return (a if size else vectors.components(a, other) or a), (
                b if other else vectors.components(b, size) or b
            )
        if vectors.is_marked(a) != vectors.is_marked(b):
            x, y = vectors.components(a), vectors.components(b)
            return (x, y) if x is not None and y is not None else (a, b)
        return a, b

    def approximate(self, a: Node, b: Node) -> Decision:
        """``1/3 ~ 0.33`` states its left side; its right side counts too if it is the left side rounded correctly."""
        if is_approximate(a) and is_approximate(b):
            return self.decide(sides_of(a)[0], sides_of(b)[0])
        first = is_approximate(a)
        left, right = sides_of(a if first else b)
        other = b if first else a
        result = self.decide(left, other) if first else self.decide(other, left)
        if result.equal is not False or not isinstance(right, Num) or right.decimals is None:
            return result
        claimed = left.args[-1] if isinstance(left, Relation) else left
        value = real_value(claimed) if is_scalar(claimed) else None
        if value is None or abs(value - right.value) * 2 > Fraction(1, 10**right.decimals):
            return result
        return self.decide(right, other) if first else self.decide(other, right)

    # ------------------------------------------------------------------ words and special numerals

    def special(self, a: Node, b: Node) -> Decision:
        """Compares two trees if a side is words, a time, a ratio, a date or a numeral with its base."""
        letters = (letter_of(a), letter_of(b))
        if all(letters):
            return Decision(letters[0] == letters[1], "identity", f"{letters[0]} and {letters[1]}")
        if isinstance(a, Text) and isinstance(b, Text):
            equal = (
                spoken(a) == spoken(b) or (is_nothing(a) and is_nothing(b)) or named_set(a) == named_set(b) is not None
            )
            return Decision(equal, "identity", "the same words" if equal else "different words")
        if isinstance(a, Text) or isinstance(b, Text):
            words, other = (a, b) if isinstance(a, Text) else (b, a)
            assert isinstance(words, Text)
            named = named_set(words)
            if named is not None:
                return self.decide(named, other) if a is words else self.decide(other, named)
            if isinstance(other, Relation) and other.ops == ("=",) and self.policy.assignment == "optional":
                return self.special(words, other.args[1]) if a is words else self.special(other.args[1], words)
            if is_nothing(words):
                empty = other == Const("empty") or (isinstance(other, Seq) and not other.items)
                return Decision(empty, "identity", "no solution")
            return Decision(False, "identity", "words against mathematics")
        if isinstance(a, Relation) or isinstance(b, Relation):
            return self.relations(a, b)
        x, y = quantity_of(a), quantity_of(b)
        if x is not None and y is not None:
            equal, reason = compare_quantities(x, y, self.policy)
            return Decision(equal, "exact", reason)
        for one, other in ((a, b), (b, a)):
            if isinstance(one, Special) and one.quantity.kind == "ratio" and len(one.quantity.parts) == 2:
                return self.decide(Num(one.quantity.value), other)
        return Decision(False, "exact", "different kinds of answer")

    # ------------------------------------------------------------------ relations

    def relations(self, a: Node, b: Node) -> Decision:
        """Compares two trees if a side is an equation, an inequality or a list of them."""
        if isinstance(a, Relation) and isinstance(b, Relation):
            return self.two_relations(oriented(a), oriented(b))
        if are_inequalities(a) or are_inequalities(b):
            left, right = region(a, loose=True), region(b, loose=True)
            if left is not None and right is not None:
                return self.regions(a, b, left, right)
        if isinstance(a, Seq) and isinstance(b, Seq) and a.kind == b.kind == "list":
            return self.lists_of_relations(a, b)
        for first, one, other in ((True, a, b), (False, b, a)):
            if isinstance(one, Relation):
                one = oriented(one)
                if is_assignment(one):
                    if self.policy.assignment == "required" and one.ops == ("=",):
                        return Decision(False, "exact", "an assignment is missing")
                    value = one.args[-1]
                    return self.decide(value, other) if first else self.decide(other, value)
        if isinstance(b, Relation) and self.policy.assignment == "optional" and is_stated_quantity(b):
            return self.decide(a, b.args[1])
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
        """Compares a list of relations with a tree that is not a list of relations."""
        values = assignments_of(listed)
        if values is None:
            return Decision(False, "exact", "relations against something else")
        ordered = len({show(name) for name in values[0]}) > 1
        kind = "tuple" if ordered and len(values[1]) > 1 else "list"
        return self.decide(Seq(kind, values[1]), other)

    def lists_of_relations(self, a: Seq, b: Seq) -> Decision:
        """Compares two lists of relations."""
        x, y = assignments_of(a), assignments_of(b)
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
        """Compares two relations."""
        if is_assignment(a) and is_assignment(b) and a.ops[0] == b.ops[0]:
            left, right = a.args[0], b.args[0]
            x, y = a.args[-1], b.args[-1]
            if left == right or names_the_same(left, right):
                renamed = with_names_of(left, right, y)
                return self.decide(x, renamed)
            if not symbols(x) and not symbols(y):
                return Decision(False, "exact", "different variables")
        if "in" in (*a.ops, *b.ops) or (is_inequality(a) and is_inequality(b)):
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
        multiple = multiples(a, b)
        if multiple is not None and multiple[0]:
            return Decision(True, "symbolic", multiple[1])
        direct = self.matched(a.args, b.args, ordered=True)
        if direct.equal or multiple is None:
            return direct
        return Decision(False, "symbolic", multiple[1])

    # ------------------------------------------------------------------ sets of reals

    def regions(self, a: Node, b: Node, x: Region | None, y: Region | None) -> Decision:
        """Compares two trees if a side is a set of reals. ``x`` and ``y`` are the sets; None: the side is not a set."""
        if x is None or y is None:
            if isinstance(a, SetOp) and isinstance(b, SetOp) and a.op == b.op:
                return self.matched(a.args, b.args, ordered=a.op == "setminus")
            if isinstance(a, Const) and isinstance(b, Const):
                return Decision(a == b, "exact", "named sets")
            return Decision(False, "exact", "a set against something else")
        a_notation, b_notation = are_inequalities(a), are_inequalities(b)
        if a_notation != b_notation:
            if self.policy.intervals == "strict":
                return Decision(False, "exact", "an inequality against an interval")
            if b_notation and self.policy.intervals == "reference":
                return Decision(False, "exact", "an inequality where an interval is asked for")
        return self.same_region(x, y)

    def same_region(self, x: Region, y: Region) -> Decision:
        """Compares two sets of reals."""
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
        """Compares two intervals."""
        if (p.low_closed, p.high_closed) != (q.low_closed, q.high_closed):
            return Decision(False, "exact", "different end brackets")
        return self.all_of([self.scalar(p.low, q.low), self.scalar(p.high, q.high)])

    # ------------------------------------------------------------------ sequences and matrices

    def sequences(self, a: Node, b: Node) -> Decision:
        """Compares two trees if a side is a tuple, a list or a set."""
        if not (isinstance(a, Seq) and isinstance(b, Seq)):
            sequence, other = (a, b) if isinstance(a, Seq) else (b, a)
            assert isinstance(sequence, Seq)
            items = flattened(sequence)
            if len(items) == 1:
                return self.decide(items[0], other)
            if (
                len(items) > 1
                and sequence.kind in ("list", "set")
                and all(self.decide(item, other).equal for item in items)
            ):
                return self.decide(items[0], other)
            return Decision(False, "exact", "several answers against one")
        if "cases" in (a.kind, b.kind):
            return self.piecewise(a, b)
        x, y = flattened(a), flattened(b)
        result = self.items(a, b, x, y)
        if result.equal is False and len(x) == len(y):
            return self.items(a, b, with_shared_precision(x), with_shared_precision(y))
        return result

    def piecewise(self, a: Seq, b: Seq) -> Decision:
        """Compares two functions given by cases: each piece needs one with the same value and condition."""
        if a.kind != b.kind or len(a.items) != len(b.items):
            return Decision(False, "exact", "different cases")
        rest = pieces_of(b)
        for p in pieces_of(a):
            found = next((q for q in rest if self.same_case(p, q)), None)
            if found is None:
                return Decision(False, "exact", f"the case {show(p.condition)[:40]} has no counterpart")
            rest.remove(found)
        return Decision(True, "exact", "the same cases")

    def same_case(self, p: Case, q: Case) -> bool:
        """Whether two cases have the same condition and the same value."""
        named = symbols(p.condition) == symbols(q.condition) or OTHERWISE in (p.condition, q.condition)
        if p.where is not None and q.where is not None and named:
            same = self.same_region(p.where, q.where).equal
        else:
            same = self.decide(p.condition, q.condition).equal
        return same is True and self.decide(p.value, q.value).equal is True

    def items(self, a: Seq, b: Seq, x: tuple[Node, ...], y: tuple[Node, ...]) -> Decision:
        """Compares the items of two sequences in the way that their brackets require."""
        kinds = {a.kind, b.kind}
        if kinds <= {"list", "set", "family"}:
            ordered = self.policy.order == "kept" and kinds == {"list"}
            result = self.matched(x, y, ordered=ordered)
            if result.equal is False and "set" in kinds and len(x) != len(y):
                return self.matched(self.distinct(x), self.distinct(y), ordered=False)
            return result
        if a.kind != b.kind:
            if "ratio" in kinds:
                return Decision(False, "exact", "a ratio against a list")
            if kinds == {"tuple", "bracket"} and len(x) == 2:
                return Decision(False, "exact", "round against square brackets")
            if self.policy.tuples == "strict":
                return Decision(False, "exact", f"a {a.kind} is not a {b.kind}")
        return self.matched(x, y, ordered=True)

    def distinct(self, items: Sequence[Node]) -> tuple[Node, ...]:
        """Returns the items without repetitions."""
        kept: list[Node] = []
        for item in items[:MAX_ITEMS]:
            if not any(self.decide(other, item).equal for other in kept):
                kept.append(item)
        return tuple(kept)

    def matched(self, x: Sequence[Node], y: Sequence[Node], ordered: bool) -> Decision:
        """Compares part by part, in order or in any order."""
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
        """Combines decisions: equal if all are, not equal if one is not, else open."""
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
        """Compares two trees if a side is a matrix."""
        rows = [rows_of(node) for node in (a, b)]
        x, y = rows
        if x is None or y is None:
            return Decision(False, "exact", "a matrix against something else")
        if isinstance(a, Matrix) != isinstance(b, Matrix):
            if self.policy.tuples == "strict":
                return Decision(False, "exact", "a vector against a list")
            x, y = as_column(x), as_column(y)
        if [len(row) for row in x] != [len(row) for row in y]:
            return Decision(False, "exact", "different shapes")
        left, right = (tuple(cell for row in side for cell in row) for side in (x, y))
        result = self.matched(left, right, ordered=True)
        return (
            result
            if result.equal is not False
            else self.matched(with_shared_precision(left), with_shared_precision(right), ordered=True)
        )


_FLIP = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
