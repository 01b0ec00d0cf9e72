"""Strategies at equal budgets: the arithmetic of the comparison, its words, its files, and that it resumes."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_table, write_table
from mcts_dpo.common.statistics import compare_paired
from mcts_dpo.data import Problem
from mcts_dpo.engines import load_engine
from mcts_dpo.evaluation import StrategyComparison, StrategyResult, evaluate_strategies
from mcts_dpo.evaluation.strategies import parse_budgets, parse_strategies
from mcts_dpo.report import plot_strategies
from mcts_dpo.search import SearchSettings
from mcts_dpo.solve import STRATEGIES, Solution
from tests.conftest import ToyWorld
from tests.reference.engine import AutomatonEngine
from tests.search.support import PROMPT
from verifiers import Verdict, registry

PROBLEMS = [Problem(f"p{i}", "ab" * (1 + i % 3) + "a" * (i // 3), str(1 + i % 3)) for i in range(12)]
SEARCH = SearchSettings(max_tokens=24, max_step_tokens=8, max_depth=5, temperature=1.0)


def result(strategy: str, budget: int, correct: list[bool], tokens: int | None = None) -> StrategyResult:
    solutions = tuple(Solution("1", "1", tokens=tokens or budget, solutions=1) for _ in correct)
    return StrategyResult(strategy, budget, solutions, tuple(correct))  # type: ignore[arg-type]


def comparison(*results: StrategyResult) -> StrategyComparison:
    return StrategyComparison(tuple(map(str, range(len(results[0].correct)))), results)


def test_it_says_plainly_when_search_does_not_pay() -> None:
    right = [True] * 30 + [False] * 30
    worse, same, better = [False] * 60, right[::-1], [True] * 60
    found = comparison(
        *(result("majority", b, right) for b in (64, 128, 256)),
        *(result("mcts", b, c, 70) for b, c in ((64, worse), (128, same), (256, better))),
        result("weighted", 256, better),
    )
    lines = found.sentences()
    assert lines[0] == "mcts is worse than majority at 64 tokens: −0.50 [−0.62, −0.37]"
    assert lines[1].startswith("mcts does not beat majority at 128 tokens: +0.00 [−")
    assert lines[2] == "mcts beats majority at 256 tokens: +0.50 [+0.38, +0.63]"
    assert lines[3] == "mcts does not beat weighted at 256 tokens: +0.00 [+0.00, +0.00]"
    assert "Search pays against majority: mcts at 256." in lines
    assert "Search does not pay against the best sampling strategy: in 0 of 3 comparisons." in lines
    assert lines[-1] == "mcts went over its 64 tokens on 60 of 60 problems, by 6 at most."
    never = comparison(result("majority", 64, right), result("beam", 64, same)).sentences()
    assert "Search does not pay against majority: in 0 of 1 comparisons." in never
    assert "add it to --strategy" in comparison(result("mcts", 64, right)).sentences()[0]


def test_a_few_problems_that_differ_are_no_win() -> None:
    none, few = [False] * 50, [True] * 4 + [False] * 46  # the bootstrap leaves out 0, the exact test does not
    lines = comparison(result("majority", 64, none), result("mcts", 64, few)).sentences()
    assert lines[0].startswith("mcts does not beat majority at 64 tokens: +0.08 [+0.02, ")
    assert lines[0].endswith("(only 4 differ, McNemar p = 0.12)")
    assert "Search does not pay against majority: in 0 of 1 comparisons." in lines
    lines = comparison(result("majority", 64, few), result("mcts", 64, none)).sentences()
    assert lines[0].startswith("mcts does not beat majority at 64 tokens: −0.08")


def test_rows_are_the_paired_statistics() -> None:
    a, b = [True] * 9 + [False] * 11, [True] * 5 + [False] * 10 + [True] * 5
    (_, row) = comparison(result("majority", 32, a), result("beam", 32, b)).rows()
    paired = compare_paired(a, b)
    assert row["accuracy"] == 0.5
    assert row["accuracy_low"] < 0.5 < row["accuracy_high"]
    assert row["minus_majority"] == pytest.approx(0.05)
    assert (row["minus_majority_low"], row["minus_majority_high"]) == (paired.difference.low, paired.difference.high)
    assert (row["gained"], row["lost"], row["mcnemar_p"]) == (5, 4, paired.p_value)
    assert (row["tokens"], row["over_budget"], row["overshoot"]) == (32, 0, 0)


def test_files_and_resumption(tmp_path: Path) -> None:
    def run(engine: AutomatonEngine, budgets: list[int], search: SearchSettings = SEARCH) -> StrategyComparison:
        return evaluate_strategies(
            PROBLEMS, engine, STRATEGIES, budgets, prompt=PROMPT, search=search, folder=tmp_path, about={"model": "m"}
        )

    first = run(AutomatonEngine(3), [40])
    parts = {part: part.read_bytes() for part in (tmp_path / "parts").iterdir()}
    assert len(parts) == len(STRATEGIES)
    again = AutomatonEngine(3)
    both = run(again, [80, 40])
    assert parts == {part: part.read_bytes() for part in parts}, "what is there is not run again"
    assert [r.budget for r in both.results] == [40, 80] * len(STRATEGIES)
    assert [r for r in both.results if r.budget == 40] == list(first.results)
    idle = AutomatonEngine(3)
    assert run(idle, [40, 80]) == both
    assert idle.requests == []
    with pytest.raises(InputError, match=r"greedy-40\.parquet: of another model, prompt, problem set or settings"):
        run(idle, [40], SEARCH.model_copy(update={"temperature": 0.5}))

    both.save(tmp_path)
    assert StrategyComparison.load(tmp_path / "strategies.parquet") == both
    with (tmp_path / "strategies.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [float(row["accuracy"]) for row in rows] == [r.accuracy.value for r in both.results]
    assert plot_strategies(both, tmp_path / "strategies.png").read_bytes().startswith(b"\x89PNG")
    write_table(tmp_path / "x.parquet", pa.table({"x": [1]}))
    with pytest.raises(InputError, match="not a comparison of strategies"):
        StrategyComparison.load(tmp_path / "x.parquet")


def test_verdicts_are_those_of_the_verifiers_and_come_after_the_answers() -> None:
    found = evaluate_strategies(PROBLEMS, AutomatonEngine(3), STRATEGIES, [60], prompt=PROMPT, search=SEARCH)
    other = [Problem(p.id, p.question, "no such answer") for p in PROBLEMS]
    never = evaluate_strategies(other, AutomatonEngine(3), STRATEGIES, [60], prompt=PROMPT, search=SEARCH)
    for one, two in zip(found.results, never.results, strict=True):
        assert one.solutions == two.solutions
        assert not any(two.correct)
        assert all(a.answer is not None for a, right in zip(one.solutions, one.correct, strict=True) if right)
    assert any(any(one.correct) for one in found.results)


def test_a_real_policy_end_to_end(toy_world: ToyWorld, tmp_path: Path) -> None:
    engine = load_engine(toy_world.policy, settings=toy_world.config.engine)
    config = toy_world.config
    before = engine.usage.sampled_tokens
    found = evaluate_strategies(
        toy_world.test,
        engine,
        ("majority", "best-of-n", "mcts", "beam", "dvts"),
        [64, 192],
        prompt=config.prompt,
        search=config.search,
        folder=tmp_path,
    )
    assert engine.usage.sampled_tokens > before
    for one in found.results:
        assert one.over == 0
        assert one.tokens.value <= one.budget
        assert all(solution.error is None for solution in one.solutions)
        assert 0 < one.accuracy.value <= 1
    assert len(found.sentences()) >= 8


@pytest.mark.parametrize(
    ("strategies", "budgets", "problems", "message"),
    [
        ((), [1], PROBLEMS, "no strategies to evaluate"),
        (("mcts",), [], PROBLEMS, "no budgets to evaluate"),
        (("mcts",), [1], [], "no problems to evaluate"),
        (("mcts",), [0], PROBLEMS, "budget of mcts: 0 is out of range"),
        (("mcts",), [1], [Problem("x", "a")], "problem x: no reference answer"),
    ],
)
def test_bad_input(strategies: tuple[str, ...], budgets: list[int], problems: list[Problem], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate_strategies(problems, AutomatonEngine(), strategies, budgets, prompt=PROMPT, search=SEARCH)  # type: ignore[arg-type]


def test_lists_on_the_command_line() -> None:
    assert parse_strategies("mcts, majority,mcts") == ["mcts", "majority"]
    assert parse_budgets("256,512,256") == [256, 512]
    with pytest.raises(InputError, match="did you mean 'best-of-n'"):
        parse_strategies("best_of_n")
    for bad in ("", "1.5", "0", "-4", "256;512"):
        with pytest.raises(InputError, match="accepted: integers ≥ 1"):
            parse_budgets(bad)
    with pytest.raises(InputError, match="names none"):
        parse_strategies(",")


def test_what_was_not_decided_is_counted_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(reference: str, answer: str) -> Verdict:
        raise ConnectionRefusedError("the verifier's server is away")

    monkeypatch.setitem(registry._REGISTRY, "away", unreachable)
    problems = [replace(problem, verifier="away") for problem in PROBLEMS]
    found = evaluate_strategies(problems, AutomatonEngine(3), ["majority"], [60], prompt=PROMPT, search=SEARCH)
    (row,) = found.rows()
    assert row["undecided"] == row["answered"] > 0
    assert (row["accuracy"], row["undecided_pairs"]) == (0.0, 0)
    found.save(tmp_path)
    assert StrategyComparison.load(tmp_path / "strategies.parquet") == found
    table = read_table(tmp_path / "strategies.parquet")
    write_table(tmp_path / "before.parquet", table.select(table.column_names[:9]))
    assert StrategyComparison.load(tmp_path / "before.parquet").results[0].correct == found.results[0].correct
