"""Compares strategies at equal budgets of generated tokens: accuracy, tokens spent, paired differences from majority.

In: problems with reference answers, an engine, strategies and budgets. Out: a `StrategyComparison`. It can be saved as
Parquet (a row per strategy, budget and problem) and CSV (a row per strategy and budget), and it says in words where
search pays. If a folder is given, each finished (strategy, budget) is kept there and not run again. Answers are
verified after a strategy has returned, so that no strategy sees a reference answer.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import digest, read_table, whole, write_table
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.common.statistics import Estimate, PairedComparison, bootstrap_mean, compare_paired, proportion
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Engine
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.rewards.verification import verdict
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.solve import STRATEGIES, Solution, Strategy, StrategySettings, solve_problems, strategy_named

BASELINE: Strategy = "majority"
SEARCHES: tuple[Strategy, ...] = ("beam", "dvts", "mcts")
ALLOCATOR = "allocator"
"""The name of a result that one total budget for all problems gave; its budget is that of even spending."""


@dataclass(frozen=True, slots=True)
class StrategyResult:
    """The results of one strategy at one budget (generated tokens per problem), over all problems in order.

    solutions: one solution per problem, with its cost.
    correct:   one verdict per problem.
    undecided: one flag per problem: no verdict was reached. Such a solution counts as wrong. () if this is not known.
    """

    strategy: Strategy
    budget: int
    solutions: tuple[Solution, ...]
    correct: tuple[bool, ...]
    undecided: tuple[bool, ...] = ()

    @property
    def accuracy(self) -> Estimate:
        """The fraction of right answers with its Wilson interval."""
        return proportion(sum(self.correct), len(self.correct))

    @property
    def tokens(self) -> Estimate:
        """The mean of the tokens spent on a problem, with a bootstrap interval over problems."""
        return bootstrap_mean([solution.tokens for solution in self.solutions])

    def mean(self, cost: Literal["judge_tokens", "seconds"]) -> float:
        """The mean of a cost over the problems: tokens of judges, or seconds of the run (see `Solution`)."""
        return sum(float(getattr(solution, cost)) for solution in self.solutions) / len(self.solutions)

    @property
    def over(self) -> int:
        """The number of problems that cost more than the budget."""
        return sum(solution.tokens > self.budget for solution in self.solutions)

    @property
    def overshoot(self) -> int:
        """The largest number of tokens by which a problem exceeded the budget."""
        return max(0, *(solution.tokens - self.budget for solution in self.solutions))


@dataclass(frozen=True, slots=True)
class StrategyComparison:
    """The results of several strategies and budgets on the same problems.

    problem_ids: ids of the problems, in order. results: sorted by strategy in the order asked for, then by budget.
    """

    problem_ids: tuple[str, ...]
    results: tuple[StrategyResult, ...]

    def against_baseline(self, result: StrategyResult) -> PairedComparison | None:
        """The accuracy minus that of majority at the same budget, paired over problems.

        None for majority itself, and if majority was not run at this budget.
        """
        for other in self.results:
            if other.strategy == BASELINE != result.strategy and other.budget == result.budget:
                return compare_paired(other.correct, result.correct)
        return None

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per (strategy, budget). Differences are None where there is no result to compare with."""
        rows = []
        for result in self.results:
            paired = self.against_baseline(result)
            rows.append(
                {
                    "strategy": result.strategy,
                    "budget": result.budget,
                    "problems": len(result.correct),
                    **_flat("accuracy", result.accuracy),
                    **_flat("tokens", result.tokens),
                    "judge_tokens": result.mean("judge_tokens"),
                    "seconds": result.mean("seconds"),
                    "over_budget": result.over,
                    "overshoot": result.overshoot,
                    "answered": sum(solution.answer is not None for solution in result.solutions),
                    "failed": sum(solution.error is not None for solution in result.solutions),
                    "undecided": sum(result.undecided),
                    "undecided_pairs": sum(solution.undecided for solution in result.solutions),
                    **_flat(f"minus_{BASELINE}", paired.difference if paired else None),
                    "gained": paired.gained if paired else None,
                    "lost": paired.lost if paired else None,
                    "mcnemar_p": paired.p_value if paired else None,
                }
            )
        return rows

    def sentences(self) -> list[str]:
        """Describe the differences in words: each strategy against majority, then whether search pays.

        A search is also compared with the best sampling strategy at its budget, because best-of-n and the weighted vote
        use the same scores without any search. The best one is chosen after the results are known, which favours it. A
        difference counts if its interval excludes 0 and McNemar's exact test agrees (p < 0.05). Both are needed: if few
        problems differ, and all in one direction, the bootstrap interval is too narrow.
        """
        lines: list[str] = []
        compared = 0
        paid: dict[str, list[str]] = {BASELINE: [], "the best sampling strategy": []}
        for result in self.results:
            paired = self.against_baseline(result)
            if paired is None:
                continue
            lines.append(_sentence(result, BASELINE, paired))
            if result.strategy not in SEARCHES:
                continue
            compared += 1
            best = max(
                (r for r in self.results if r.strategy not in SEARCHES and r.budget == result.budget), key=_right
            )
            against_best = compare_paired(best.correct, result.correct)
            if best.strategy != BASELINE:
                lines.append(_sentence(result, best.strategy, against_best))
            for found, against_one in zip(paid.values(), (paired, against_best), strict=True):
                if _clear(against_one) and against_one.difference.value > 0:
                    found.append(f"{result.strategy} at {result.budget}")
        for against, found in paid.items() if compared else ():
            pays = f"pays against {against}: {', '.join(found)}." if found else f"does not pay against {against}"
            lines.append(f"Search {pays}" + ("" if found else f": in 0 of {compared} comparisons."))
        if compared:
            lines.append("(Intervals of 95 %, each comparison for itself: not corrected for their number.)")
        elif not any(result.strategy == BASELINE for result in self.results):
            lines.append(f"{BASELINE} was not run, so nothing is compared; add it to --strategy.")
        lines += [
            f"{result.strategy} went over its {result.budget} tokens on {result.over} of {len(result.correct)} "
            f"problems, by {result.overshoot} at most."
            for result in self.results
            if result.over and result.strategy != ALLOCATOR
        ]
        return lines

    def save(self, folder: Path) -> None:
        """Write `strategies.parquet` (a row per solution) and `strategies.csv` (the `rows()`) in `folder`.

        Each file is written whole or not at all.
        """
        tables = [_table(self.problem_ids, result) for result in self.results]
        write_table(folder / "strategies.parquet", pa.concat_tables(tables))
        rows = self.rows()
        with whole(folder / "strategies.csv") as scratch, scratch.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, rows[0])
            writer.writeheader()
            writer.writerows(rows)

    @staticmethod
    def load(path: Path) -> StrategyComparison:
        """Read a `strategies.parquet`. Raises InputError if the file is missing or of another kind."""
        table = read_table(path)
        # Older files lack the newest columns: the costs, and before them the counts of undecided verdicts.
        if table.schema.names not in (_SCHEMA.names, _SCHEMA.names[:-2], _SCHEMA.names[:-4]):
            raise InputError(f"{path}: not a comparison of strategies (columns {', '.join(table.schema.names)})")
        grouped: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for row in table.to_pylist():
            grouped.setdefault((row["strategy"], row["budget"]), []).append(row)
        results = tuple(
            _result(name if name == ALLOCATOR else strategy_named(name), budget, rows)
            for (name, budget), rows in grouped.items()
        )
        ids = tuple(row["problem_id"] for row in next(iter(grouped.values()), []))
        return StrategyComparison(ids, results)


def evaluate_strategies(
    problems: Sequence[Problem],
    engine: Engine,
    strategies: Sequence[Strategy],
    budgets: Sequence[int],
    *,
    prompt: PromptSettings,
    search: SearchSettings,
    settings: StrategySettings | None = None,
    folder: Path | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> StrategyComparison:
    """Run every strategy at every budget over all problems and verify the answers.

    folder: each finished (strategy, budget) is kept there, under `parts/`, and not run again.
    about:  further facts that the result depends on (the policy's weights, the engine). They must be the same for kept
            parts.

    Raises InputError if problems, strategies or budgets are empty, if a problem has no reference answer, if a budget is
    below 1, or if kept parts belong to another model, prompt, problem set or settings.
    """
    from mcts_dpo.models.loading import (
        tokenizer_digest,  # imports torch, which the settings of an evaluation do not need
    )

    settings = settings or StrategySettings()
    for name, given in (("problems", problems), ("strategies", strategies), ("budgets", budgets)):
        if not given:
            raise InputError(f"no {name} to evaluate")
    for problem in problems:
        if problem.answer is None:
            raise InputError(f"problem {problem.id}: no reference answer, so it cannot be evaluated")
    wanted = [(strategy, budget) for budget in sorted(set(budgets)) for strategy in dict.fromkeys(strategies)]
    made_with = digest(
        dict(about or {}),
        tokenizer_digest(engine.tokenizer),
        [asdict(problem) for problem in problems],
        prompt.model_dump(mode="json", exclude_defaults=True),
        search.model_dump(mode="json", exclude_defaults=True),
        settings.model_dump(mode="json", exclude_defaults=True),
    )
    ids = tuple(problem.id for problem in problems)
    done: dict[tuple[Strategy, int], StrategyResult] = {}
    for strategy, budget in wanted:
        part = _part(folder, strategy, budget)
        if part is not None and part.exists():
            done[strategy, budget] = _load_part(part, strategy, budget, made_with)

    def run(group: Sequence[tuple[Strategy, int]]) -> None:
        solved = solve_problems(
            problems, engine, group, prompt=prompt, search=search, settings=settings, progress=progress
        )
        for (strategy, budget), found in solved.items():
            done[strategy, budget] = result = verified(problems, strategy, budget, found)
            right = result.correct
            count = len(problems)
            progress(f"{strategy} {budget}: verified", count, count, accuracy=sum(right) / count)
            part = _part(folder, strategy, budget)
            if part is not None:
                write_table(part, _table(ids, result).replace_schema_metadata({"made_with": made_with}))

    missing = [pair for pair in wanted if pair not in done]
    one_stream = [pair for pair in missing if pair[0] in ("majority", "best-of-n", "weighted")]
    if one_stream:
        run(one_stream)
    for pair in missing:
        if pair not in one_stream:
            run([pair])
    order = sorted(wanted, key=lambda pair: (list(dict.fromkeys(strategies)).index(pair[0]), pair[1]))
    return StrategyComparison(ids, tuple(done[pair] for pair in order))


def verified(
    problems: Sequence[Problem], strategy: Strategy, budget: int, solutions: Sequence[Solution]
) -> StrategyResult:
    """The solutions of all problems, in order, with their verdicts; forests and samples are dropped."""
    each = [verdict(problem, one.answer) for problem, one in zip(problems, solutions, strict=True)]
    names = (*_STORED, *_COSTS, "undecided")
    kept = tuple(Solution(**{name: getattr(one, name) for name in names}) for one in solutions)
    return StrategyResult(strategy, budget, kept, tuple(map(bool, each)), tuple(one.undecided for one in each))


_SCHEMA = pa.schema(
    [
        ("strategy", pa.string()),
        ("budget", pa.int64()),
        ("problem_id", pa.string()),
        ("answer", pa.string()),
        ("correct", pa.bool_()),
        ("tokens", pa.int64()),
        ("solutions", pa.int64()),
        ("text", pa.string()),
        ("error", pa.string()),
        ("undecided", pa.bool_()),
        ("undecided_pairs", pa.int64()),
        ("judge_tokens", pa.int64()),
        ("seconds", pa.float64()),
    ]
)


_STORED = ("answer", "text", "tokens", "solutions", "error")
_COSTS = ("judge_tokens", "seconds")


def _table(ids: Sequence[str], result: StrategyResult) -> pa.Table:
    undecided = result.undecided or (False,) * len(result.correct)
    rows = [
        {"strategy": result.strategy, "budget": result.budget, "problem_id": id_, "correct": right}
        | {name: getattr(solution, name) for name in _STORED}
        | {"undecided": open_, "undecided_pairs": solution.undecided}
        | {name: getattr(solution, name) for name in _COSTS}
        for id_, solution, right, open_ in zip(ids, result.solutions, result.correct, undecided, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def _result(strategy: Strategy, budget: int, rows: Sequence[Mapping[str, Any]]) -> StrategyResult:
    solutions = tuple(
        Solution(
            **{name: row[name] for name in _STORED},
            **{name: row.get(name, 0) for name in _COSTS},
            undecided=row.get("undecided_pairs", 0),
        )
        for row in rows
    )
    right, undecided = (tuple(bool(row.get(name)) for row in rows) for name in ("correct", "undecided"))
    return StrategyResult(strategy, budget, solutions, right, undecided)


def _part(folder: Path | None, strategy: Strategy, budget: int) -> Path | None:
    return None if folder is None else Path(folder) / "parts" / f"{strategy}-{budget}.parquet"


def _load_part(part: Path, strategy: Strategy, budget: int, made_with: str) -> StrategyResult:
    table = read_table(part)
    if (table.schema.metadata or {}).get(b"made_with", b"").decode() != made_with:
        raise InputError(
            f"{part}: of another model, prompt, problem set or settings; accepted: the command that began it, or an "
            "--out folder of its own"
        )
    return _result(strategy, budget, table.to_pylist())


def _flat(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _right(result: StrategyResult) -> int:
    return sum(result.correct)


def _clear(paired: PairedComparison) -> bool:
    """Whether the difference is significant, in either direction; see `sentences`."""
    return (paired.difference.low > 0 or paired.difference.high < 0) and paired.p_value < 0.05


def _sentence(result: StrategyResult, other: Strategy, paired: PairedComparison) -> str:
    """Describe one comparison, for example "mcts does not beat majority at 512 tokens: −0.02 [−0.05, +0.01]"."""
    d = paired.difference
    says = ("beats" if d.value > 0 else "is worse than") if _clear(paired) else "does not beat"
    figures = f"{_signed(d.value)} [{_signed(d.low)}, {_signed(d.high)}]"
    differ = paired.gained + paired.lost
    doubt = (
        "" if _clear(paired) or d.low <= 0 <= d.high else f" (only {differ} differ, McNemar p = {paired.p_value:.2f})"
    )
    return f"{result.strategy} {says} {other} at {result.budget} tokens: {figures}{doubt}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def parse_strategies(text: str) -> list[Strategy]:
    """Read a list of strategies such as "mcts,majority". Each is returned once.

    Raises InputError for an unknown name, and the error suggests the nearest one.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise InputError(f"--strategy {text!r}: names none (accepted: {', '.join(STRATEGIES)}, with commas between)")
    return [strategy_named(name) for name in dict.fromkeys(names)]


def parse_budgets(text: str) -> list[int]:
    """Read a list of integers ≥ 1 such as "256,512". Each is returned once. Raises InputError for anything else."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise InputError(f"--budget {text!r}: accepted: integers ≥ 1 with commas between, for instance 256,512,1024")
    return [int(part) for part in dict.fromkeys(parts)]
