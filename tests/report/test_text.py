"""The text of a report: what a run's values mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcts_dpo.report import load_run


@pytest.mark.parametrize(
    ("more", "formula"),
    [
        ("", "R = 1 · outcome (ends), from -1 to 1;"),
        ("judges: [{kind: process, weight: 0.5}, value]", "+ 0.5 · process + 1 · value_model (ends), from -1 to 2.5;"),
        ("value: {}", None),
    ],
    ids=["outcomes alone", "judges", "an older edition"],
)
def test_the_formula_of_a_run_names_its_judges(tmp_path: Path, more: str, formula: str | None) -> None:
    (tmp_path / "config.yaml").write_text(f"model: m\ntrain: {{source: a}}\ntest: {{source: b}}\n{more}\n")
    (tmp_path / "metrics.jsonl").write_text('{"round": -1, "test": {}}\n')
    found = load_run(tmp_path).formula
    assert found == "" if formula is None else formula in found
