"""The figures on reported pairs: counted right for ours and for a peer, under the names that readers look for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.verifiers import add_reported, installed_graders, ours

PAIRS = [("5", "5.0", True), ("5", "6", False), ("x", "x", False), ("5", "seven", True)]


def test_reported_pairs_are_counted_for_ours_and_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "reported.jsonl"
    rows = [{"reference": a, "answer": b, "equal": equal} for a, b, equal in PAIRS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    figures: dict[str, float | int | None] = {}
    table: list[tuple[str, ...]] = []
    graders = {"verifiers": ours, "math-verify 0": lambda a, b: "equal", "lm-eval minerva 0": lambda a, b: "unequal"}
    add_reported(figures, table, graders, path)
    assert figures == {
        "reported_pairs": 4,
        "reported_right": 0.5,
        "reported_false_equals": 1,
        "math_verify_reported_right": 0.5,
        "math_verify_reported_false_equals": 2,
    }
    assert [row[0].strip() for row in table] == ["reported pairs right", "false equal"]
    assert all(len(row) == 4 for row in table)


def test_math_verify_reads_formulas_and_sentences() -> None:
    name = next((name for name in installed_graders() if name.startswith("math-verify")), None)
    if name is None:
        pytest.skip("math-verify is not installed")
    grade = installed_graders()[name]
    assert grade("\\frac{1}{2}", "0.5") == "equal"
    assert grade("12", "The final answer is $12$ because one side is 5.") == "equal"
    assert grade("12", "The answer is 13") != "equal"
