"""Properties that hold for every answer: reflexive, symmetric, blind to looks, awake to changes."""

import random

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from verifiers import Policy, equivalence_classes, verify
from verifiers.api import cheap_verdict
from verifiers.verdict import OUTCOMES

digits = st.integers(-9999, 9999)
letters = st.sampled_from(["x", "y", "a", "n"])


def _fraction(pair: tuple[int, int]) -> str:
    return f"\\frac{{{pair[0]}}}{{{pair[1]}}}"


numbers = st.one_of(
    digits.map(str),
    st.tuples(digits, st.integers(1, 99)).map(_fraction),
    st.decimals(-999, 999, places=3, allow_nan=False, allow_infinity=False).map(str),
    st.integers(2, 200).map(lambda n: f"\\sqrt{{{n}}}"),
    st.sampled_from(["\\pi", "e", "2\\pi", "1+2i", "3\\sqrt{5}", "\\frac{\\pi}{6}"]),
)
expressions = st.recursive(
    st.one_of(numbers, letters),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: f"({p[0]}) + ({p[1]})"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]}) \\cdot ({p[1]})"),
        inner.map(lambda p: f"({p})^2"),
        inner.map(lambda p: f"\\sqrt{{{p}}}"),
    ),
    max_leaves=4,
)
answers = st.one_of(
    expressions,
    st.tuples(numbers, numbers).map(lambda p: f"({p[0]}, {p[1]})"),
    st.tuples(digits, st.integers(1, 50), st.sampled_from("[("), st.sampled_from("])")).map(
        lambda t: f"{t[2]}{t[0]}, {t[0] + t[1]}{t[3]}"
    ),
    st.lists(digits, min_size=2, max_size=4, unique=True).map(lambda items: "\\{" + ", ".join(map(str, items)) + "\\}"),
    st.tuples(letters, numbers).map(lambda p: f"{p[0]} = {p[1]}"),
    st.tuples(letters, st.sampled_from(["<", ">", "\\le", "\\ge"]), digits).map(lambda t: f"{t[0]} {t[1]} {t[2]}"),
    st.sampled_from(
        ["\\text{Evelyn}", "even", "12:30", "3:4", "52_8", "10 \\text{ cm}", "45^\\circ", "15\\%", "\\$20"]
    ),
)
harmless = st.sampled_from(
    [
        lambda text: f"${text}$",
        lambda text: f" {text} ",
        lambda text: f"\\boxed{{{text}}}",
        lambda text: text + ".",
        lambda text: text.replace("\\frac", "\\dfrac"),
        lambda text: text.replace("(", "\\left(").replace(")", "\\right)"),
        lambda text: text.replace(" ", "\\ "),
        lambda text: f"\\({text}\\)",
        lambda text: f"The answer is ${text}$.",
    ]
)


def unbalanced(text: str) -> bool:
    return text.count("(") != text.count(")")


@settings(max_examples=150, deadline=None)
@given(answers)
def test_every_answer_equals_itself(text: str) -> None:
    assert verify(text, text).outcome == "equal"


@settings(max_examples=120, deadline=None)
@given(answers, answers)
@example("x < 3", "3 > x")
@example("(1, 2)", "[1, 2]")
def test_verdicts_are_symmetric(a: str, b: str) -> None:
    rule = Policy(intervals="either")
    assert verify(a, b, policy=rule).outcome == verify(b, a, policy=rule).outcome


@settings(max_examples=150, deadline=None)
@given(answers, harmless)
def test_looks_do_not_matter(text: str, dress) -> None:  # type: ignore[no-untyped-def]
    dressed = dress(text)
    assume("\\left" not in dressed or not unbalanced(text))
    assert verify(text, dressed).outcome == "equal", dressed
    assert verify(dressed, text).outcome == "equal", dressed


@settings(max_examples=120, deadline=None)
@given(expressions)
def test_adding_zero_and_multiplying_by_one_change_nothing(text: str) -> None:
    assert verify(text, f"({text}) + 0").outcome == "equal"
    assert verify(text, f"1 \\cdot ({text})").outcome == "equal"


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**9),
    st.randoms(use_true_random=False),
    st.sampled_from(["{}", "\\sqrt{{{}}}", "x+{}", "({}, 1)", "{}.5"]),
)
def test_one_digit_matters(number: int, rng: random.Random, shape: str) -> None:
    text = str(number)
    place = rng.randrange(len(text))
    digit = rng.choice([d for d in "0123456789" if d != text[place]])
    changed = text[:place] + digit + text[place + 1 :]
    assume(int(changed) != number)
    assert verify(shape.format(text), shape.format(changed)).outcome == "unequal"


@settings(max_examples=80, deadline=None)
@given(numbers.filter(lambda text: text.strip("-") not in ("0", "0.000") and not text.startswith("\\frac{0}")))
def test_one_sign_matters(text: str) -> None:
    assert verify(text, f"-({text})").outcome == "unequal"
    assert verify(f"x + ({text})", f"x - ({text})").outcome == "unequal"


@settings(max_examples=80, deadline=None)
@given(digits, st.integers(1, 99), st.sampled_from("[("), st.sampled_from("])"), st.booleans())
def test_one_bracket_matters(low: int, width: int, left: str, right: str, change_left: bool) -> None:
    text = f"{left}{low}, {low + width}{right}"
    other = {"[": "(", "(": "[", "]": ")", ")": "]"}
    changed = f"{other[left] if change_left else left}{low}, {low + width}{right if change_left else other[right]}"
    assert verify(text, changed).outcome == "unequal"


@settings(max_examples=80, deadline=None)
@given(letters, letters, st.sampled_from(["{}+1", "2{}", "{}^2-3", "\\sqrt{{{}}}", "{} < 5", "{} = 4"]))
def test_one_variable_matters(a: str, b: str, shape: str) -> None:
    assume(a != b)
    assert verify(shape.format(a), shape.format(b)).outcome == "unequal"


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_gets_a_verdict(a: str, b: str) -> None:
    verdict = cheap_verdict(a, b)
    assert verdict is None or verdict.outcome in OUTCOMES


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet="0123456789+-*/^_={}()[]|\\,.;:!%$ xyfracsqrtleftbegintpmoxd", max_size=40))
def test_any_near_mathematics_gets_a_verdict(text: str) -> None:
    for verdict in (cheap_verdict("5", text), cheap_verdict(text, "x+1"), cheap_verdict(text, text + " ")):
        assert verdict is None or verdict.outcome in OUTCOMES


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), digits.map(str)), max_size=12))
def test_classes_partition_the_answers(items: list[str | None]) -> None:
    classes = equivalence_classes(items)
    flat = sorted(index for members in classes for index in members)
    assert flat == [index for index, item in enumerate(items) if item is not None]
    for members in classes:
        assert len({int(items[index] or 0) for index in members}) == 1
    assert len({int(items[members[0]] or 0) for members in classes}) == len(classes)
