"""Proof, and the worker's side of the conversation, called in this process."""

import socket
import threading
import time
from dataclasses import asdict

import pytest

from verifiers import Policy, Verdict
from verifiers.compare.numeric import investigate, real_value
from verifiers.parse.parser import parse
from verifiers.parse.tree import Const, Text
from verifiers.prove.fallback import available, judge
from verifiers.prove.symbolic import Unsupported, prove, to_sympy
from verifiers.prove.worker import answer, receive, send


def tree(text: str):  # type: ignore[no-untyped-def]
    return parse(text)[0]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("\\sin(2x)", "2\\sin x\\cos x"),
        ("\\cosh^2 x-\\sinh^2 x", "1"),
        ("\\sum_{k=1}^n k", "\\frac{n(n+1)}{2}"),
        ("n!", "n(n-1)!"),
        ("\\log_2(x^2)", "\\frac{\\ln(x^2)}{\\ln 2}"),
        ("\\sqrt[3]{-8}", "-2"),
        ("f(x+1)", "f(1+x)"),
        ("\\sin(30^\\circ)", "50\\%"),
        ("\\arctan 1", "\\frac{\\pi}{4}"),
    ],
)
def test_identities_are_proved(a: str, b: str) -> None:
    assert prove(tree(a), tree(b)) is True


def test_what_is_different_or_unknown_is_not_proved() -> None:
    assert prove(tree("x+1"), tree("x+2")) is False
    assert prove(tree("\\sin x"), tree("\\cos x")) is None
    assert prove(Const("R"), tree("1")) is None
    with pytest.raises(Unsupported):
        to_sympy(Text("words"))


@pytest.mark.parametrize(
    ("a", "b", "finding"),
    [
        ("\\sqrt{3+2\\sqrt2}", "1+\\sqrt2", "proven"),
        ("\\tan 15^\\circ", "2-\\sqrt3", "proven"),
        ("2\\cos\\frac{\\pi}{5}", "\\frac{1+\\sqrt5}{2}", "proven"),
        ("\\sqrt[3]{2+\\sqrt5}+\\sqrt[3]{2-\\sqrt5}", "1", "proven"),
        ("2^{\\frac{1}{2^{1000}}}", "1", "different"),
        ("e^{\\pi\\sqrt{163}}", "262537412640768744", "different"),
        ("\\arctan 1", "\\frac{\\pi}{4}", "agree"),
        ("\\sqrt{x^2}", "x", "different"),
        ("\\sqrt{x^2}", "|x|", "agree"),
        ("\\cos(n\\pi)", "(-1)^n", "agree"),
        ("\\binom{n}{2}", "\\frac{n(n-1)}{2}", "agree"),
        ("\\sin x", "\\sin(x+10^{-90})", "different"),
        ("1", "\\cos(10^{-700})", "unknown"),
        ("9^{9^{9^9}}", "1", "unknown"),
        ("\\coth x", "\\frac{\\cosh x}{\\sinh x}", "agree"),
        ("\\max(\\pi,3)", "\\pi", "agree"),
        ("\\gcd(n, 2n)", "n", "agree"),
        ("n!!(n-1)!!", "n!", "agree"),
        ("\\lfloor\\pi\\rfloor", "3", "agree"),
        ("f(x)", "f(y)", "different"),
        ("\\sec x", "\\frac{1}{\\cos x}", "agree"),
        ("\\cot x", "\\frac{\\cos x}{\\sin x}", "agree"),
        ("\\arcsin x+\\arccos x", "\\frac{\\pi}{2}", "agree"),
        ("\\prod_{k=1}^{n} k", "n!", "agree"),
        ("\\sum_{k=1}^{10^9} k", "1", "unknown"),
        ("\\log_3 x", "\\frac{\\ln x}{\\ln 3}", "agree"),
        ("\\text{Re}", "1", "unknown"),
    ],
)
def test_numeric_findings(a: str, b: str, finding: str) -> None:
    assert investigate(tree(a), tree(b))[0] == finding


def test_real_values_for_ordering() -> None:
    half = real_value(tree("\\frac12+0\\pi"))
    assert half is not None
    assert abs(half * 2 - 1) < 1e-20
    assert real_value(tree("i")) is None
    assert real_value(tree("x")) is None
    assert real_value(tree("\\log 0")) is None


def request(a: str, b: str, seconds: float = 5.0, policy: Policy | None = None) -> dict[str, object]:
    return {"reference": a, "answer": b, "policy": asdict(policy or Policy()), "seconds": seconds}


def test_a_worker_answers_requests_with_verdicts() -> None:
    assert answer(request("\\sin(2x)", "2\\sin x\\cos x"))["outcome"] == "equal"
    assert answer(request("5", "9^{9^{9^9}}"))["outcome"] == "too_large"
    late = answer(request("\\cos(3x)", "4\\cos^3 x-3\\cos x", seconds=0.0))
    assert (late["outcome"], late["layer"]) == ("equal", "numeric")
    assert str(late["reason"]).endswith("not proved")
    strict = answer(request("\\cos(3x)", "4\\cos^3 x-3\\cos x", 0.0, Policy(unproven="timeout")))
    assert strict["outcome"] == "timeout"


def test_the_soft_deadline_cuts_a_long_proof_short() -> None:
    start = time.process_time()
    reply = answer(request("\\frac{\\sin x}{1+\\cos x}", "\\tan\\frac{x}{2}", seconds=0.2))
    assert reply["outcome"] == "equal"
    assert time.process_time() - start < 10


def test_messages_are_framed() -> None:
    here, there = socket.socketpair()
    message = {"text": "ü" * 100_000 + "\ud800"}
    # Larger than a socket's buffer: somebody must read while it is written.
    writer = threading.Thread(target=send, args=(here, message))
    writer.start()
    assert receive(there) == message
    writer.join()
    here.close()
    assert receive(there) is None
    there.close()


def test_the_fallback_reads_what_the_grammar_has_no_word_for() -> None:
    assert available(), "the extra verifiers-fallback belongs to the tests"
    integral = "\\int_0^{\\pi} \\sin x \\, dx"
    reply = answer(request("2", integral))
    assert (reply["outcome"], reply["layer"]) == ("equal", "fallback")
    assert str(reply["reason"]).startswith("math-verify")
    assert answer(request("3", integral))["outcome"] == "unequal"


@pytest.mark.parametrize(
    "malformed",
    [
        "5)(",
        "5=",
        "5+",
        "5//6",
        "5**",
        "5..6",
        "\\pm\\pm 5",
        "5&6",
        "5<",
        "5_000_0",
        "\\Box 5",
        "\\zzz 5",
        "7 \\bmod 5",
        "\\iint 5",
    ],
)
def test_the_fallback_is_not_asked_about_malformed_answers(malformed: str) -> None:
    # math-verify grades the formula that a text begins with, and drops unknown commands: these equal 5 for it.
    reply = answer(request("5", malformed))
    assert reply["outcome"] == "unparsed"
    assert reply["layer"] is None


def test_the_fallback_keeps_the_standing_verdict_where_it_cannot_help() -> None:
    standing = Verdict("unparsed", reason="no grammar")
    assert judge("\\lim_{x \\to 0} x", "nothing to read here", standing) == standing
