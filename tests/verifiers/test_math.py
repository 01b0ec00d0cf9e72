# ruff: noqa: E501
"""The whole verifier on pairs whose verdict is beyond doubt, each in both directions."""

import json
from pathlib import Path

import pytest

from verifiers import Policy, verify
from verifiers.limits import TooLarge, Unparsed
from verifiers.parse.parser import parse
from verifiers.parse.tree import show

EQUAL = [
    ("\\sqrt{2}", "√2"), ("(3,4)", "\\left(3,4\\right)"), ("x=5", "5"), ("x=5", "5=x"), ("\\frac{x^2-1}{x-1}", "x+1"),
    ("2x+3", "3+2x"), ("\\{1,2,3\\}", "\\{3,2,1\\}"), ("1,2,3", "3,1,2"), ("x \\in [0,1]", "[0,1]"), ("2x>10", "x>5"),
    ("\\mathbb{R}", "(-\\infty,\\infty)"), ("y=2x+3", "2x-y+3=0"), ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "(1,2)"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{bmatrix}1&2\\\\3&4\\end{bmatrix}"), ("90^\\circ", "\\frac{\\pi}{2}"),
    ("90^\\circ", "90"), ("30^{\\circ}", "30 degrees"), ("3:4", "\\frac{3}{4}"), ("5 cm", "50 mm"), ("\\sqrt{12}", "2\\sqrt{3}"),
    ("\\frac{\\sqrt2}{2}", "\\frac{1}{\\sqrt2}"), ("\\sqrt{3+2\\sqrt{2}}", "1+\\sqrt2"), ("2^{10}", "1024"), ("10!", "3628800"),
    ("\\binom{5}{2}", "10"), ("\\log_2 8", "3"), ("\\ln e^2", "2"), ("e^{i\\pi}", "-1"), ("\\sin\\frac{\\pi}{6}", "1/2"),
    ("|-3|", "3"), ("\\lfloor 3.7\\rfloor", "3"), ("(1+i)^2", "2i"), ("x^2+2x+1", "(x+1)^2"), ("\\pm 3", "3,-3"),
    ("3\\pm\\sqrt2", "3+\\sqrt2, 3-\\sqrt2"), ("x=\\pm 3", "\\pm 3"), ("A", "(A)"), ("\\text{(C)}", "C"), ("0.5x", "x/2"),
    ("1,000,000", "10^6"), ("1 million", "1000000"), ("50 cents", "\\$0.50"), ("25 miles per hour", "25 mph"),
    ("(2,3)", "x=2, y=3"), ("y=3,x=2", "x=2,y=3"), ("\\emptyset", "\\{\\}"), ("no solution", "\\emptyset"), ("a^2b", "ba^2"),
    ("\\sqrt[3]{27}", "3"), ("\\sqrt[3]{-8}", "-2"), ("x^{1/2}", "\\sqrt{x}"), ("f(x)=x^2", "f(t)=t^2"), ("f(x)=x^2", "y=x^2"),
    ("\\cos^2 x+\\sin^2 x", "1"), ("\\tan x", "\\frac{\\sin x}{\\cos x}"), ("[-1,1]\\setminus\\{0\\}", "[-1,0)\\cup(0,1]"),
    ("3, 3, 5", "\\{3,5\\}"), ("\\frac{\\pi}{4}", "45^\\circ"), ("\\sqrt{-4}", "2i"), ("\\{x | x>5\\}", "x>5"),
    ("\\sum_{k=1}^{10}k", "55"), ("2\\sqrt{3}\\text{ cm}", "\\sqrt{12}"), ("5\\sqrt{x}", "5x^{0.5}"), ("12 in", "1 ft"),
    ("\\frac{3}{4}x+2=y", "y=\\frac34 x+2"), ("2 1/2 hours", "2.5 hours"), ("150 minutes", "2 1/2 hours"), ("x²", "x^2"),
    ("(1,2),(3,4)", "(3,4),(1,2)"), ("\\{(1,2),(3,4)\\}", "\\{(3,4),(1,2)\\}"), ("1/(2x)", "\\frac{1}{2x}"), ("√(16)", "4"),
    ("x=1/3\\approx0.33", "1/3"), ("0.3333", "x=1/3\\approx0.3333"), ("|x|<2", "-2<x<2"), ("x+1\\le 3", "x\\le 2"),
    ("x<1 \\text{ or } x>2", "x>2, x<1"), ("\\sec x", "\\frac1{\\cos x}"), ("\\csc^2 x-\\cot^2 x", "1"), ("\\max(2,7)", "7"),
    ("\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}", "-2"), ("2\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}2\\\\4\\end{pmatrix}"),
    ("\\begin{pmatrix}1&1\\\\0&1\\end{pmatrix}\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}3\\\\2\\end{pmatrix}"),
    ("F_n = F_{n-1}+F_{n-2}", "F_n = F_{n-2}+F_{n-1}"), ("2^{n+1}", "2\\cdot 2^n"), ("4^n", "2^{2n}"), ("\\gcd(12,18)", "6"),
    ("\\cos 36^\\circ", "\\frac{1+\\sqrt5}{4}"), ("\\tan 15^\\circ", "2-\\sqrt3"), ("\\ln 8", "3\\ln 2"), ("1011_2", "11_{10}"),
    ("x_1=2,x_2=3", "2,3"), ("(p,q)=(3,2)", "(3,2)"), ("1:2", "2:4"), ("6!!", "48"),
    ("\\lceil 2.1 \\rceil", "3"), ("25\\%", "\\frac14"), ("1.5e3", "1500"), ("[1,2]\\cup[2,3]", "[1,3]"), ("x \\ne 3", "x \\neq 3"),
    ("(0,9)\\cap(5,12)", "(5,9)"), ("\\frac{d}{2}", "0.5d"), ("-x+1", "1-x"), ("\\sqrt[4]{16}", "2"), ("\\cot x", "1/\\tan x"),
    ("x^2+y^2=4", "4=x^2+y^2"), ("3x+6y=9", "x+2y=3"), ("a<b<c", "c>b>a"), ("a<x\\le b", "(a,b]"), ("100^\\circ\\text{C}", "100"),
    ("1\\pm 2", "1\\pm +2"), ("1\\pm 2", "1\\mp -2"), ("3", "1 - -2"), ("-1", "1 -+- -+2"),
]  # fmt: skip
UNEQUAL = [
    ("4", "4 or 5"), ("5", "3,4,5"), ("x>5", "x<5"), ("x>5", "x\\ge5"), ("[0,1]", "[0,1)"), ("(0,1)", "[0,1]"), ("(1,2)", "(2,1)"),
    ("x=5", "y=5"), ("x+1", "x-1"), ("2x", "2y"), ("\\sqrt{x^2}", "x"), ("\\{1,2\\}", "\\{1,3\\}"), ("1,2", "1,2,3"),
    ("3.14", "\\pi"), ("22/7", "\\pi"), ("0.33", "1/3"), ("10%", "0.01"), ("90^\\circ", "\\pi"), ("5 apples", "5 oranges"),
    ("2^{2^{-1000}}", "1"), ("2^{2^{-5000}}", "1"), ("10^{100}", "10^{100}+1"), ("1e-400", "0"), ("f(x)", "g(x)"), ("a", "A"),
    ("no solution", "0"), ("\\emptyset", "0"), ("R", "\\mathbb{R}"), ("5", "5x"), ("5", "5i"), ("1+2i", "1-2i"),
    ("3\\pm\\sqrt2", "3+\\sqrt2"), ("\\infty", "-\\infty"), ("\\infty", "1000000"), ("y=2x+3", "y=3x+2"), ("0.5", "0.25"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix}1&3\\\\2&4\\end{pmatrix}"), ("(1,2,3)", "(1,3,2)"),
    ("x^2+y^2=1", "x^2+y^2=2"), ("3x+5=0", "3x+5"), ("1.000", "1000"), ("2", "\\boxed{2} \\text{ or } \\boxed{3}"),
    ("2", "\\boxed{1}, \\boxed{2}, \\boxed{3}"), ("A", "B"), ("1:2", "2:1"), ("52_8", "42"), ("[0,\\infty)", "(0,\\infty)"),
    ("\\sqrt{2}", "1.41"), ("1", "0.99999"), ("0", "1e-10"), ("x(x+1)", "x^2+1"), ("\\ln 2", "\\log_{10} 2"), ("3!", "3"),
    ("\\frac{1}{2}x", "\\frac{1}{2x}"), ("\\sin 2x", "2\\sin x"), ("\\sqrt{a+b}", "\\sqrt{a}+\\sqrt{b}"), ("x=1", "x=-1"),
    ("11:30 a.m.", "11:30 p.m."), ("x=1 or x=2", "x=1"), ("e^{\\pi\\sqrt{163}}", "262537412640768744"), ("1e6", "1e-6"),
    ("\\text{odd}", "even"), ("15 \\text{ cm}^2", "15 \\text{ cm}^3"), ("\\$5", "5 euros"), ("x<3", "y<3"), ("6", "\\text{five apples}"),
    ("x^2=4", "x=2"), ("\\{1,2\\}", "(1,2]"), ("x=1,y=2", "x=2,y=1"), ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "3"), ("\\mathbb{Z}", "\\mathbb{N}"),
    ("a<b", "a>b"), ("2x<4", "-2x<4"), ("1/3", "x=1/4\\approx0.33"), ("100^\\circ\\text{C}", "100^\\circ\\text{F}"), ("x=5", "x>5"),
]  # fmt: skip
UNPARSED = [
    "1/0",
    "5 is not the answer",
    "I do not know what this could be",
    "\\frac{1}{",
    "5+",
    "(6",
    "3 4",
    "\\unknown{5}",
    "5 or maybe 6",
]


@pytest.mark.parametrize(("reference", "answer"), EQUAL)
def test_equal(reference: str, answer: str) -> None:
    verdict = verify(reference, answer)
    assert verdict.outcome == "equal", verdict


@pytest.mark.parametrize(("reference", "answer"), EQUAL)
def test_equal_is_symmetric(reference: str, answer: str) -> None:
    verdict = verify(answer, reference, policy=Policy(intervals="either"))
    assert verdict.outcome == "equal", verdict


@pytest.mark.parametrize(("reference", "answer"), UNEQUAL)
def test_unequal_both_ways(reference: str, answer: str) -> None:
    for verdict in (verify(reference, answer), verify(answer, reference)):
        assert verdict.outcome == "unequal", verdict


@pytest.mark.parametrize("text", UNPARSED)
def test_what_is_no_answer_is_unparsed_not_unequal(text: str) -> None:
    assert verify("5", text).outcome in ("unparsed", "unequal")
    assert not verify("5", text)
    assert not verify("1", text)


@pytest.mark.parametrize(
    ("reference", "answer", "policy", "expected"),
    [
        ("1,2", "2,1", Policy(order="kept"), False),
        ("1,2", "2,1", Policy(), True),
        ("(1,3)", "\\{1,3\\}", Policy(), True),
        ("(1,3)", "\\{1,3\\}", Policy(tuples="strict"), False),
        ("(1,2)", "\\begin{pmatrix}1\\\\2\\end{pmatrix}", Policy(tuples="strict"), False),
        ("x=5", "5", Policy(assignment="required"), False),
        ("x>5", "(5,\\infty)", Policy(), True),
        ("(5,\\infty)", "x>5", Policy(), False),
        ("(5,\\infty)", "x>5", Policy(intervals="either"), True),
        ("x>5", "(5,\\infty)", Policy(intervals="strict"), False),
        ("90^\\circ", "90", Policy(angles="radians"), False),
        ("90^\\circ", "\\pi/2", Policy(angles="degrees"), False),
        ("90^\\circ", "\\pi/2", Policy(angles="radians"), True),
        ("90^\\circ", "90", Policy(units="required"), False),
        ("2\\sqrt{3} cm", "2\\sqrt{3}", Policy(units="required"), False),
        ("2\\sqrt{3} cm", "2\\sqrt{3} mm", Policy(units="ignore"), True),
        ("25\\%", "\\frac14", Policy(percent="number"), False),
        ("\\sqrt{2}\\%", "\\sqrt{2}", Policy(percent="strict"), False),
        ("\\sqrt{2}\\%", "\\frac{\\sqrt{2}}{100}", Policy(percent="value"), True),
        ("\\sqrt2", "1.4142", Policy(), True),
        ("\\sqrt2", "1.4142", Policy(decimals="exact"), False),
        ("9.8", "9.81", Policy(), False),
        ("9.8", "9.81", Policy(tolerance=0.01), True),
        ("9.8", "9.95", Policy(tolerance=0.01), False),
        ("100", "101", Policy(tolerance=0.01), False),
        ("\\frac{1}{3}", "0.33", Policy(tolerance=0.02), True),
        ("\\sqrt{2}", "1.4", Policy(tolerance=0.02), True),
        ("\\sqrt{2}", "1.5", Policy(tolerance=0.02), False),
        ("\\ln x + C", "\\ln x + K", Policy(), False),
        ("\\ln x + C", "\\ln x + K", Policy(constants="renamed"), True),
        ("C_1e^x+C_2e^{2x}", "Ae^{2x}+Be^x", Policy(constants="renamed"), True),
        ("x^2 + C", "y^2 + C", Policy(constants="renamed"), False),
        ("Cx + 1", "Kx + 2", Policy(constants="renamed"), False),
        ("\\arctan 2+\\arctan 3", "\\frac{3\\pi}{4}", Policy(), True),
    ],
)
def test_policies(reference: str, answer: str, policy: Policy, expected: bool) -> None:
    assert bool(verify(reference, answer, policy=policy)) is expected


def test_decimals_side_by_side_share_their_precision() -> None:
    assert verify("(0.29, 0.196)", "(0.290243531202435, 0.196008371385084)")
    assert not verify("(0.29, 0.196)", "(0.290843531202435, 0.196008371385084)")


def test_an_unproven_agreement_follows_its_policy() -> None:
    a, b = "\\frac{\\sin x}{1+\\cos x}", "\\tan\\frac{x}{2}"
    accepted = verify(a, b)
    assert (accepted.outcome, accepted.layer) in (("equal", "numeric"), ("equal", "symbolic"))
    assert verify(a, b, policy=Policy(unproven="timeout")).outcome in ("timeout", "equal")


DEV = Path(__file__).resolve().parents[3] / "shared" / "data" / "answer_pairs" / "dev.jsonl"


@pytest.mark.skipif(not DEV.exists(), reason="the labelled pairs are not at hand")
def test_the_labelled_pairs() -> None:
    rows = [json.loads(line) for line in DEV.read_text(encoding="utf-8").splitlines()]
    wrong = [row for row in rows if bool(verify(row["reference"], row["answer"])) != row["equal"]]
    assert not [row for row in wrong if not row["equal"]]
    assert len(wrong) / len(rows) < 0.03


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2x+3", "(2*x + 3)"),
        ("x^10", "x^10"),
        ("\\frac12", "1/2"),
        ("\\sin^2 x", "sin(x)^2"),
        ("\\sin^{-1} x", "asin(x)"),
        ("1<x\\le 2", "1 < x <= 2"),
        ("(1,2]", "(1, 2]"),
        ("\\{1,2\\}", "{1, 2}"),
        ("[1,2] \\cup \\{3\\}", "[1, 2] cup {3}"),
        ("\\begin{pmatrix}1&2\\end{pmatrix}", "[1, 2]"),
        ("5\\text{ cm}", "5 cm"),
        ("f(x)", "f(x)"),
        ("\\text{hello world}", '"hello world"'),
        ("12:30", "12:30"),
        ("\\sum_{k=1}^n k", "sum(k, k=1..n)"),
        ("2^{x+1}", "2^((x + 1))"),
        ("x \\in \\emptyset", "x in empty"),
    ],
)
def test_trees_print_in_one_canonical_spelling(text: str, shown: str) -> None:
    assert show(parse(text)[0]) == shown


def test_ambiguous_commas_have_two_readings() -> None:
    assert [show(tree) for tree in parse("1,22")] == ["1, 22", "61/50"]
    assert verify("1.22", "1,22")
    assert verify("(100, 200)", "(100,200)")
    assert not verify("(1,0)", "(1,000)")


def test_the_bounds_refuse_before_anything_is_evaluated() -> None:
    for text in ("(" * 70 + "1" + ")" * 70, "1+" * 1000 + "1", "9" * 2000, "x" * 5000):
        with pytest.raises((TooLarge, Unparsed)):
            parse(text)
    assert verify("5", "9^{9^{9^9}}").outcome == "too_large"
    assert verify("5", "100000!").outcome == "too_large"
