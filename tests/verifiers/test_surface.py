import subprocess
import sys

import pytest

import verifiers
from verifiers import Policy, Verdict, equivalence_classes, get_verifier, register, verifier_names, verify

EQUAL = [
    ("1000", "1,000"), ("1000", "1{,}000"), ("1000", "1\\,000"), ("1000", "1 000"), ("1/2", "½"), ("-5", "−5"),
    ("7/2", "3 1/2"), ("3.5", "3\\frac{1}{2}"), ("1.5e-3", "0.0015"), ("0.0015", "1.5 \\times 10^{-3}"),
    ("1/3", "0.\\overline{3}"), ("\\text{Evelyn}", "Evelyn"), ("10", "\\$10"), ("10 cm", "10"), ("1 m", "100 cm"),
    ("60 minutes", "1 hour"), ("20:34", "08:34 \\text{P.M.}"), ("2:4", "1:2"), ("52_8", "52"), ("101_2", "5_{10}"),
    ("10\\%", "0.1"), ("10\\%", "10"), ("1/12", "0.0833333333333333"), ("18", "#### 18"),
    ("18", "so \\boxed{18.00} dollars"),
    ("34", "٣٤"), ("12", "The answer is $12$."), ("15 \\mbox{ cm}^2", "15 square cm"), ("\\frac 59", "\\tfrac{5}{9}"),
]  # fmt: skip
UNEQUAL = [
    ("0.0000001", "0.0000002"), ("101_2", "101_3"), ("10 cm", "10 m"), ("2024-01-02", "2024-01-03"), ("12:00", "1:00"),
    ("33.3", "\\frac{100}{3}"), ("1000", "1001"), ("5", "-5"), ("10 cm", "10 cm^2"), ("0.1", "10"), ("1/3", "0.33"),
    ("Evelyn", "Briana"), ("1.25", "1.3"), ("10\\%", "11"), ("\\$5", "€5"), ("3", "\\boxed{3} wait no, \\boxed{4}"),
]  # fmt: skip


@pytest.mark.parametrize(("reference", "answer"), EQUAL)
def test_equal_pairs_are_equal_both_ways(reference: str, answer: str) -> None:
    assert verify(reference, answer).outcome == "equal"
    assert verify(answer, reference).outcome == "equal"


@pytest.mark.parametrize(("reference", "answer"), UNEQUAL)
def test_unequal_pairs_are_unequal_both_ways(reference: str, answer: str) -> None:
    assert verify(reference, answer).outcome == "unequal"
    assert verify(answer, reference).outcome == "unequal"


def test_only_equal_is_truthy() -> None:
    for outcome in ("unequal", "unparsed", "timeout", "too_large"):
        assert not Verdict(outcome)
    assert Verdict("equal")


def test_a_verdict_tells_layer_forms_and_reason() -> None:
    verdict = verify("1,200", "$1200.00")
    assert (verdict.outcome, verdict.layer, verdict.reference, verdict.answer) == ("equal", "exact", "1200", "1200.00")
    assert verdict.reason == "the same number"
    assert verdict.flipped().reference == "1200.00"


@pytest.mark.parametrize("missing", [None, "", "  \n", b"\xff\xfe", "5\x00", "\ud800"])
def test_what_is_no_text_is_unparsed_never_an_exception(missing: str | bytes | None) -> None:
    assert verify("5", missing).outcome == "unparsed"
    assert verify(missing, "5").outcome == "unparsed"


def test_bytes_are_read_as_utf8() -> None:
    assert verify(b"1/2", "½".encode())


def test_huge_texts_are_too_large_or_identical() -> None:
    assert verify("5", "9" * 5000).outcome == "too_large"
    assert verify("5", "x" * 1_000_000).outcome == "too_large"


def test_wrong_types_raise_and_name_the_argument() -> None:
    with pytest.raises(TypeError, match="answer must be str"):
        verify("5", 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reference must be str"):
        verify(["5"], "5")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="policy must be a Policy"):
        verify("x", "y", policy="strict")  # type: ignore[arg-type]


def test_policies_change_the_verdict() -> None:
    assert not verify("10\\%", "10", policy=Policy(percent="value"))
    assert verify("10\\%", "0.1", policy=Policy(percent="value"))
    assert not verify("10\\%", "0.1", policy=Policy(percent="number"))
    assert not verify("10\\%", "0.1", policy=Policy(percent="strict"))
    assert not verify("10 cm", "10", policy=Policy(units="required"))
    assert verify("10 cm", "10 m", policy=Policy(units="ignore"))
    assert not verify("52_8", "52", policy=Policy(base="required"))
    assert verify("52_8", "42", policy=Policy(base="required"))
    assert not verify("1/12", "0.0833333333333333", policy=Policy(decimals="exact"))
    with pytest.raises(ValueError, match="policy percent: 'x'"):
        Policy(percent="x")  # type: ignore[arg-type]
    for tolerance in (-0.1, 0.6, True, "0.1", float("nan")):
        with pytest.raises(ValueError, match="policy tolerance"):
            Policy(tolerance=tolerance)  # type: ignore[arg-type]


def test_equivalence_classes_group_and_leave_out_what_is_missing() -> None:
    answers = ["1/2", None, "0.5", "3", "\\boxed{3}", "", "I cannot say", "½", "I cannot say"]
    assert equivalence_classes(answers) == [[0, 2, 7], [3, 4], [6, 8]]
    assert equivalence_classes([]) == []
    with pytest.raises(TypeError, match="answers"):
        equivalence_classes("12")
    with pytest.raises(TypeError, match=r"answers\[1\]"):
        equivalence_classes(["1", 2])  # type: ignore[list-item]


def test_the_registry_knows_its_names_and_hints_at_spellings() -> None:
    assert {"math", "numeric", "choice", "exact"} <= set(verifier_names())
    assert get_verifier("numeric")("72", "she sold 48 + 24 = 72 clips.")
    assert get_verifier("numeric")("72", "nothing").outcome == "unparsed"
    assert get_verifier("numeric")("7", "9" * 2000).outcome == "too_large"
    assert get_verifier("exact")(" a b ", "a b")
    assert not get_verifier("exact")("1/2", "0.5")
    assert get_verifier("exact")("1", None).outcome == "unparsed"
    with pytest.raises(ValueError, match="did you mean 'numeric'"):
        get_verifier("numerc")
    with pytest.raises(ValueError, match="already registered"):
        register("math", verify)
    with pytest.raises(TypeError, match="callable"):
        register("new", 5)  # type: ignore[arg-type]


def test_importing_loads_only_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import verifiers;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(said.split()) - sys.stdlib_module_names == {"verifiers"}


def test_the_command_line_prints_verdict_and_reason() -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "verifiers", *arguments], capture_output=True, text=True, check=False
        )

    right = call("1/2", "0.5")
    assert right.returncode == 0
    assert right.stdout.splitlines()[0] == "equal (exact): the same number"
    assert call("1/2", "0.6").returncode == 1
    assert call("1/2", "").returncode == 2


def test_every_public_name_exists() -> None:
    assert all(hasattr(verifiers, name) for name in verifiers.__all__)
