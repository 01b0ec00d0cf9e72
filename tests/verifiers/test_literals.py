import pytest

from verifiers import Policy, get_verifier
from verifiers.limits import TooLarge, Unparsed
from verifiers.literals import read_literal

python = get_verifier("python")


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("[1, 2]\n", "[1,2]", "equal"),
        ("{1: 'a', 2: 'b'}", '{2: "b", 1: "a"}', "equal"),
        ("{1, 2, 3}", "{3, 2, 1}", "equal"),
        ("0.30000000000000004", "0.3", "equal"),
        ("3.0", "3", "equal"),
        ("(1,)", "1", "unequal"),
        ("(1)", "1", "equal"),
        ("[1, 2]", "(1, 2)", "unequal"),
        ("[1, 2]", "[2, 1]", "unequal"),
        ("True", "1", "unequal"),
        ("None", "None ", "equal"),
        ("set()", "frozenset()", "equal"),
        ("{}", "set()", "unequal"),
        ("a  \nb", "a\nb\n", "equal"),
        ("hello", "hullo", "unequal"),
        ("{1: 2}", "{1: 3}", "unequal"),
        ("{1, 2}", "{1, 3}", "unequal"),
        ("[1]", "[1, 2]", "unequal"),
        ("1" * 400, "1e999", "unequal"),
        ("inf", "-inf", "unequal"),
        ("5", None, "unparsed"),
        ("[" * 100 + "]" * 100, "[]", "too_large"),
        ("1", "9" * 2000, "too_large"),
        ("1", "[" + "1, " * 3000 + "]", "too_large"),
    ],
)
def test_printed_values(reference: str, answer: str | None, expected: str) -> None:
    assert python(reference, answer).outcome == expected


def test_exact_decimals_are_a_policy() -> None:
    assert not python("0.30000000000000004", "0.3", policy=Policy(decimals="exact"))


@pytest.mark.parametrize(
    "text", ["[1", "[1 2]", "{1: 2, 3}", "__import__('os')", "1 2", "]", "[1: 2]", "f(x)", "'a\\'"]
)
def test_what_is_no_literal(text: str) -> None:
    with pytest.raises(Unparsed):
        read_literal(text)


def test_bounds() -> None:
    with pytest.raises(TooLarge):
        read_literal("(" * 70 + ")" * 70)
